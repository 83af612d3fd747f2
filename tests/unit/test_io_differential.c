/* SPDX-License-Identifier: MIT */
/* Random programs executed instruction by instruction and in IO blocks (B4, B5, B10, B11): the same
 * registers, memory, accesses of devices in the same order at the same guest time, and the same
 * instruction pointer, with faults, interrupts and NMIs at random places, and code that modifies
 * itself.
 *
 * The blocks are learned from the live guest, come from a table, or come from a table that lies. */
#include "tests/unit/io_lab.h"
#include "tests/unit/io_program.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
#define PROGRAMS 3000u /* of each kind, each executed in blocks three times */
#else
#define PROGRAMS 60000u
#endif
#define VISITS 3u

/* Programs begin in the first of two pages; most of them reach into the second. */
enum { CODE = 0x20000, CODE_SIZE = 2 * PAGE_SIZE };
enum { DATA = 0x10800, DATA_PAGE = 0x10000, STACK_PAGE = ONE_INSN_STACK - PAGE_SIZE };

/* What of memory a program can change. */
static const uint64_t pages[] = {LAB_RECORD, DATA_PAGE, STACK_PAGE, CODE, CODE + PAGE_SIZE};
#define PAGES (sizeof pages / sizeof pages[0])

struct outcome {
    bool halted;
    uint64_t r[16], rip, rflags, cr2;
    uint32_t events;
    unsigned accesses;
    struct io_access log[LAB_ACCESSES];
    uint8_t memory[PAGES][PAGE_SIZE];
};

/* Interrupts and what the device says are the same for every machine. */
static void prepare(struct io_lab *lab, struct io_program *program, uint64_t seed)
{
    uint8_t code[CODE_SIZE] = {0};
    memcpy(code + (program->base - CODE), program->code, program->size);
    if (memcmp(one_insn_at(lab->cpu, CODE), code, CODE_SIZE))
        io_lab_write(lab, CODE, code, CODE_SIZE);
    for (unsigned k = 0; k < PAGES && pages[k] != CODE; k++)
        memset(one_insn_at(lab->cpu, pages[k]), 0, PAGE_SIZE);
    io_lab_reset(lab);
    lab->cpu->rip = program->base;
    lab->seed = seed;
    lab->interrupt_at = seed >> 8 & 1 ? 1 + (unsigned)(seed >> 16) % 24 : 0;
    lab->nmi_at = seed >> 9 & 3 ? 0 : 1 + (unsigned)(seed >> 24) % 24;
}

static void look(struct io_lab *lab, struct outcome *outcome)
{
    const struct vcpu *cpu = lab->cpu;
    memcpy(outcome->r, cpu->r, sizeof outcome->r);
    outcome->rip = cpu->rip;
    outcome->rflags = vcpu_rflags(cpu);
    outcome->cr2 = cpu->cr2;
    outcome->events = cpu->events;
    outcome->accesses = lab->accesses;
    memcpy(outcome->log, lab->log, sizeof lab->log[0] * lab->accesses);
    for (unsigned k = 0; k < PAGES; k++)
        memcpy(outcome->memory[k], one_insn_at(lab->cpu, pages[k]), PAGE_SIZE);
}

/* Fails the test with what differs. */
static void same(const struct outcome *a, const struct outcome *b, bool time, unsigned number)
{
    assert_int_equal(a->accesses, b->accesses);
    for (unsigned n = 0; n < a->accesses; n++) {
        const struct io_access *x = &a->log[n], *y = &b->log[n];
        if (x->port != y->port || x->width != y->width || x->out != y->out ||
            x->value != y->value || (time && x->time != y->time))
            fail_msg(
                "program %u, access %u: port 0x%x, value 0x%llx at %llu; in a block port 0x%x, "
                "value 0x%llx at %llu",
                number, n, x->port, (unsigned long long)x->value, (unsigned long long)x->time,
                y->port, (unsigned long long)y->value, (unsigned long long)y->time);
    }
    for (unsigned r = 0; r < 16; r++)
        if (a->r[r] != b->r[r])
            fail_msg("program %u, register %u: 0x%llx; in a block 0x%llx", number, r,
                     (unsigned long long)a->r[r], (unsigned long long)b->r[r]);
    if (a->rip != b->rip || a->rflags != b->rflags || a->cr2 != b->cr2 || a->events != b->events)
        fail_msg("program %u: RIP 0x%llx, RFLAGS 0x%llx, CR2 0x%llx; in a block 0x%llx, 0x%llx, "
                 "0x%llx",
                 number, (unsigned long long)a->rip, (unsigned long long)a->rflags,
                 (unsigned long long)a->cr2, (unsigned long long)b->rip,
                 (unsigned long long)b->rflags, (unsigned long long)b->cr2);
    for (unsigned k = 0; k < PAGES; k++)
        if (memcmp(a->memory[k], b->memory[k], PAGE_SIZE))
            fail_msg("program %u: memory at 0x%llx differs", number, (unsigned long long)pages[k]);
}

/* ---- tables ---- */
static size_t read_code(void *context, uint64_t address, uint8_t *to, size_t size)
{
    const struct io_program *p = context;
    for (size_t n = 0; n < size; n++)
        to[n] = address + n - p->base < p->size ? p->code[address + n - p->base] : 0;
    return size;
}

/* Random pieces of the program; the hash is right. */
static bool distort(struct io_program *p, struct io_block *block)
{
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    uint64_t at = 0;
    block->range_count = block->mask_count = block->flags = 0;
    block->size = 0;
    while (block->range_count < IO_BLOCK_RANGES_MAX) {
        uint32_t size = 1 + io_program_below(p, 60);
        at += 1 + io_program_below(p, 20);
        if (at + size > p->size)
            break;
        block->ranges[block->range_count++] =
            (struct io_range){(int64_t)(p->base + at - block->key), size};
        block->size += size;
        at += size;
    }
    block->insn_count = 1;
    if (!io_block_valid(block) || !io_block_read(block, block->key, read_code, p, bytes))
        return false;
    block->hash = io_block_hash(block, bytes);
    return true;
}

static void make_table(struct io_lab *lab, struct io_program *p, bool lies)
{
    static struct io_block blocks[PROGRAM_IO];
    static struct io_scanner *scanner;
    const struct io_code code = {.bits = 64, .context = p, .read = read_code};
    struct io_extent extent = io_extent_default();
    size_t count = 0;
    if (!scanner)
        scanner = io_scanner_new();
    for (unsigned k = 0; k < p->io_count; k++) {
        enum io_scan_result result = io_scan(scanner, &code, &extent, p->io[k], &blocks[count]);
        if (result == IO_SCAN_BLOCK && (!lies || distort(p, &blocks[count])))
            count++;
    }
    io_lab_table(lab, blocks, count);
}

/* ---- the comparison ---- */
enum kind { LEARNED, TABLE, LIES };

struct totals {
    uint64_t programs, blocks, instructions, events, unfinished;
};

/* Executes one program on both; adds to *totals. */
static void compare(struct io_lab *single, struct io_lab *batched, struct io_program *program,
                    enum kind kind, unsigned number, struct totals *totals)
{
    static struct outcome expected, outcome;
    uint64_t seed = io_program_random(program);
    bool short_slices = number % 4 == 3;
    prepare(single, program, seed);
    if (!io_lab_run(single, 4000, 1)) {
        totals->unfinished++;
        return;
    }
    look(single, &expected);
    if (kind != LEARNED)
        make_table(batched, program, kind == LIES);
    else if (number % 8) /* or other code was known at the same addresses */
        io_entries_forget(batched->vm->io_blocks);
    for (unsigned visit = 0; visit < VISITS; visit++) {
        prepare(batched, program, seed);
        int64_t slice = short_slices ? 1 + io_program_below(program, 40) : 4000;
        if (!io_lab_run(batched, slice, 4000))
            fail_msg("program %u, visit %u: does not end", number, visit);
        look(batched, &outcome);
        same(&expected, &outcome, !program->modifies, number);
        totals->blocks += batched->vm->stats.io_events;
        totals->instructions += batched->vm->stats.io_instructions;
        totals->events += batched->vm->stats.io_events;
    }
    totals->programs++;
}

static void run(enum io_blocks_mode mode, enum kind kind, const char *extent, unsigned first,
                unsigned programs, struct totals *totals)
{
    static struct io_program program;
    struct io_lab *single = io_lab_open(IO_BLOCKS_OFF, NULL), *batched = io_lab_open(mode, extent);
    for (unsigned n = first; n < first + programs; n++) {
        io_program_make(&program, n + 1, CODE + PAGE_SIZE - 37 * n % 700, DATA);
        compare(single, batched, &program, kind, n, totals);
    }
    io_lab_close(single);
    io_lab_close(batched);
}

static void report(const struct totals *t)
{
    print_message("# %llu programs, %llu events for %llu IO instructions\n",
                  (unsigned long long)t->programs, (unsigned long long)t->events,
                  (unsigned long long)t->instructions);
    assert_true(t->unfinished < t->programs / 50);
    assert_true(t->instructions > 2 * t->events); /* blocks were executed, and long ones */
}

static void learned_blocks_are_exact(void **state)
{
    struct totals totals = {0};
    (void)state;
    run(IO_BLOCKS_SCAN, LEARNED, NULL, 0, PROGRAMS, &totals);
    report(&totals);
}

static void short_extents_are_exact(void **state)
{
    struct totals totals = {0};
    (void)state;
    run(IO_BLOCKS_SCAN, LEARNED, "line", 1000000, PROGRAMS / 20, &totals);
    run(IO_BLOCKS_SCAN, LEARNED, "bytes:40", 2000000, PROGRAMS / 20, &totals);
    run(IO_BLOCKS_SCAN, LEARNED, "page", 3000000, PROGRAMS / 20, &totals);
    assert_true(totals.programs > 0);
}

static void blocks_of_a_table_are_exact(void **state)
{
    struct totals totals = {0};
    (void)state;
    run(IO_BLOCKS_TABLE, TABLE, NULL, 4000000, PROGRAMS / 5, &totals);
    run(IO_BLOCKS_AUTO, TABLE, NULL, 5000000, PROGRAMS / 5, &totals);
    report(&totals);
}

static void a_table_that_lies_changes_nothing(void **state)
{
    struct totals totals = {0};
    (void)state;
    run(IO_BLOCKS_TABLE, LIES, NULL, 6000000, PROGRAMS / 5, &totals);
    run(IO_BLOCKS_AUTO, LIES, NULL, 7000000, PROGRAMS / 5, &totals);
    assert_true(totals.programs > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learned_blocks_are_exact),
        cmocka_unit_test(short_extents_are_exact),
        cmocka_unit_test(blocks_of_a_table_are_exact),
        cmocka_unit_test(a_table_that_lies_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
