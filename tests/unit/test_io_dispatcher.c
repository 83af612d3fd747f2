/* SPDX-License-Identifier: MIT */
/* The dispatcher of IO blocks (B1 to B8, B11): what makes an event longer than an instruction,
 * and what ends it. */
#include "tests/unit/io_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#define HLT       0xf4
#define OUT(n)    0xe6, (uint8_t)(LAB_PORT + (n))
#define IN(n)     0xe4, (uint8_t)(LAB_PORT + (n))
#define CPUID     0x0f, 0xa2
#define STATS     (&lab->vm->stats)
#define EVENTS(n) assert_int_equal(STATS->io_events, n)

static int open_scan(void **state)
{
    *state = io_lab_open(IO_BLOCKS_SCAN, NULL);
    return 0;
}

static int open_auto(void **state)
{
    *state = io_lab_open(IO_BLOCKS_AUTO, NULL);
    return 0;
}

static int open_table(void **state)
{
    *state = io_lab_open(IO_BLOCKS_TABLE, NULL);
    return 0;
}

static int close_lab(void **state)
{
    io_lab_close(*state);
    return 0;
}

/* Three OUT, an IN, with arithmetic between. */
static void write_line(struct io_lab *lab)
{
    LAB_CODE_AT(lab, ONE_INSN_CODE, OUT(1), 0xfe, 0xc0, OUT(2), 0x01, 0xc3, IN(3), OUT(4), HLT);
}

static void straight_lines_are_one_event(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    io_lab_go(lab);
    assert_int_equal(STATS->io_instructions, 4);
    EVENTS(1);
    assert_int_equal(STATS->exits[EXIT_KIND_IO], 1);
    assert_int_equal(STATS->block_misses, 1);
    assert_int_equal(lab->accesses, 4);
    assert_int_equal(lab->log[1].port, LAB_PORT + 2);
    assert_int_equal(lab->log[1].value, 1);
    assert_int_equal(lab->cpu->rip, ONE_INSN_CODE + 13);
    io_lab_go(lab);
    EVENTS(1);
    assert_int_equal(STATS->block_hits, 1);
    assert_int_equal(STATS->block_misses, 0);
}

static void time_goes_on_as_for_single_instructions(void **state)
{
    struct io_lab *lab = *state, *single = io_lab_open(IO_BLOCKS_OFF, NULL);
    write_line(lab);
    write_line(single);
    io_lab_go(lab);
    io_lab_go(single);
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(lab->log[n].time, single->log[n].time);
    assert_int_equal(single->vm->stats.io_events, 4);
    io_lab_close(single);
}

static void a_lone_instruction_is_emulated_alone(void **state)
{
    struct io_lab *lab = *state;
    LAB_CODE_AT(lab, ONE_INSN_CODE, OUT(1), CPUID, OUT(2), HLT);
    for (unsigned n = 0; n < 3; n++) {
        io_lab_go(lab);
        EVENTS(2);
        assert_int_equal(STATS->block_hits, 0);
        assert_int_equal(STATS->block_misses, 2);
    }
}

static void code_modified_under_a_block_is_caught(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    io_lab_go(lab);
    LAB_CODE_AT(lab, ONE_INSN_CODE + 5, LAB_PORT + 9); /* OUT(2) becomes another port */
    io_lab_go(lab);
    assert_int_equal(STATS->hash_mismatches, 1);
    assert_int_equal(lab->log[1].port, LAB_PORT + 9);
    EVENTS(1);
    io_lab_go(lab);
    assert_int_equal(STATS->hash_mismatches, 0);
    assert_int_equal(STATS->block_hits, 1);
}

static void a_write_of_the_same_bytes_keeps_the_block(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    io_lab_go(lab);
    write_line(lab);
    io_lab_go(lab);
    assert_int_equal(STATS->hash_mismatches, 0);
    assert_int_equal(STATS->block_hits, 1);
}

static void a_block_that_modifies_itself_ends_there(void **state)
{
    struct io_lab *lab = *state;
    /* out; mov byte [port of the next out], 0x70; out; hlt */
    LAB_CODE_AT(lab, ONE_INSN_CODE, OUT(1), 0xc6, 0x05, 1, 0, 0, 0, LAB_PORT + 16, OUT(2), OUT(3),
                HLT);
    for (unsigned n = 0; n < 3; n++) {
        LAB_CODE_AT(lab, ONE_INSN_CODE + 10, LAB_PORT + 2);
        io_lab_go(lab);
        assert_int_equal(lab->log[1].port, LAB_PORT + 16);
        assert_int_equal(lab->log[2].port, LAB_PORT + 3);
        assert_in_range(STATS->io_events, 2, 3);
    }
}

static void an_interrupt_ends_the_event_where_it_came(void **state)
{
    struct io_lab *lab = *state;
    uint64_t from;
    LAB_CODE_AT(lab, ONE_INSN_CODE, 0xfb, 0x90, OUT(1), 0x90, OUT(2), 0x90, OUT(3), HLT);
    io_lab_go(lab);
    lab->interrupt_at = 2;
    io_lab_go(lab);
    memcpy(&from, one_insn_at(lab->cpu, LAB_RECORD + 8), 8);
    assert_int_equal(from, ONE_INSN_CODE + 7);
    EVENTS(2);
    assert_int_equal(lab->accesses, 3);
}

static void an_interrupt_that_is_masked_does_not(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    lab->interrupt_at = 2;
    io_lab_go(lab);
    EVENTS(1);
    assert_true(lab->cpu->events & VCPU_EVENT_INTERRUPT);
}

static void an_nmi_ends_the_event_even_then(void **state)
{
    struct io_lab *lab = *state;
    uint64_t from;
    write_line(lab);
    lab->nmi_at = 3;
    io_lab_go(lab);
    memcpy(&from, one_insn_at(lab->cpu, LAB_RECORD + 8), 8);
    assert_int_equal(from, ONE_INSN_CODE + 10);
    EVENTS(2);
}

static void power_off_ends_the_event(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    lab->stop_at = 2;
    io_lab_reset(lab);
    assert_false(io_lab_run(lab, 1000, 10));
    assert_int_equal(lab->accesses, 2);
    assert_int_equal(lab->cpu->rip, ONE_INSN_CODE + 6);
}

static void a_fault_inside_is_precise(void **state)
{
    struct io_lab *lab = *state;
    uint64_t frame[2];
    /* out; inc al; mov al, [LAB_ABSENT]; out; hlt */
    LAB_CODE_AT(lab, ONE_INSN_CODE, OUT(1), 0xfe, 0xc0, 0x8a, 0x04, 0x25, 0x00, 0x10, 0x01, 0x00,
                OUT(2), HLT);
    io_lab_go(lab);
    assert_int_equal(lab->cpu->rip, LAB_FAULT + 1);
    memcpy(frame, one_insn_at(lab->cpu, lab->cpu->r[RSP]), sizeof frame);
    assert_int_equal(frame[0], 0); /* error code: not present, read */
    assert_int_equal(frame[1], ONE_INSN_CODE + 4);
    assert_int_equal(lab->cpu->cr2, LAB_ABSENT);
    assert_int_equal(lab->cpu->r[RAX], 1);
    assert_int_equal(lab->accesses, 1);
}

static void a_polling_loop_is_bounded(void **state)
{
    struct io_lab *lab = *state;
    lab->answer = 1;
    LAB_CODE_AT(lab, ONE_INSN_CODE, IN(5), 0xa8, 0x02, 0x74, 0xfa, HLT); /* test al, 2; jz back */
    io_lab_reset(lab);
    assert_false(io_lab_run(lab, 3000, 1));
    EVENTS(1);
    assert_in_range(lab->accesses, 995, 1005); /* three instructions a turn */
    assert_false(io_lab_run(lab, 30000, 1));
    assert_in_range(STATS->io_events, 4, 5); /* 10,000 turns, 4096 an event */
    lab->answer = 2;
    assert_true(io_lab_run(lab, 3000, 1));
    lab->answer = 0;
}

static void a_string_instruction_is_one_event(void **state)
{
    struct io_lab *lab = *state;
    LAB_CODE_AT(lab, ONE_INSN_CODE, 0xba, LAB_PORT, 0, 0, 0, 0xb9, 50, 0, 0, 0, 0xbe, 0, 0, 1, 0,
                0xf3, 0x6e, HLT);
    io_lab_go(lab);
    EVENTS(1);
    assert_int_equal(lab->accesses, 50);
    assert_int_equal(STATS->io_instructions, 1);
    assert_int_equal(lab->cpu->r[RCX], 0);
}

static void single_steps_and_breakpoints_disable_batching(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    io_lab_reset(lab);
    lab->cpu->dr[7] = 0x401; /* DR0: an instruction breakpoint nobody comes to */
    lab->cpu->dr[0] = 0x123456;
    assert_true(io_lab_run(lab, 1000, 1));
    EVENTS(4);
    io_lab_reset(lab);
    for (unsigned n = 0; n < 7; n++)
        soft_step(lab->cpu);
    EVENTS(4);
    assert_int_equal(lab->cpu->activity, ACTIVITY_HLT);
    io_lab_reset(lab);
    lab->cpu->rflags |= RFLAGS_TF;
    assert_true(io_lab_run(lab, 1000, 1));
    assert_int_equal(lab->accesses, 1); /* #DB behind the first one, where the handler halts */
    EVENTS(1);
}

/* A driver's leaf function, called by pointer, in a loop. */
static void write_driver(struct io_lab *lab)
{
    LAB_CODE_AT(lab, ONE_INSN_CODE,                 /* */
                0x41, 0xbf, 0x00, 0x88, 0x00, 0x00, /* mov r15d, 0x8800 */
                0xb9, 40, 0, 0, 0,                  /* mov ecx, 40 */
                0x41, 0xff, 0xd7,                   /* 1: call r15 */
                0xff, 0xc9,                         /* dec ecx */
                0x75, 0xf9,                         /* jnz 1b */
                HLT);
    LAB_CODE_AT(lab, 0x8800, OUT(1), 0xff, 0xc6, 0xc3); /* out; inc esi; ret */
}

static void leaf_functions_are_followed_to_their_callers(void **state)
{
    struct io_lab *lab = *state;
    write_driver(lab);
    io_lab_go(lab);
    EVENTS(1);
    assert_int_equal(lab->accesses, 40);
    assert_int_equal(lab->cpu->r[RSI], 40);
}

/* The same with the call over a page's end; the second page goes away and comes back. */
static void an_instruction_over_a_page_end_is_followed(void **state)
{
    struct io_lab *lab = *state;
    enum { AT = 0x20ff7 };
    uint64_t *pte = one_insn_pte(lab->cpu, AT + 10), present = *pte;
    LAB_CODE_AT(lab, AT, 0xb9, 40, 0, 0, 0,   /* mov ecx, 40 */
                0xe8, 0x04, 0x78, 0xfe, 0xff, /* 1: call 0x8805 */
                0xff, 0xc9,                   /* dec ecx */
                0x75, 0xf7,                   /* jnz 1b */
                HLT);
    LAB_CODE_AT(lab, 0x8805, OUT(1), 0xff, 0xc6, 0xc3); /* out; inc esi; ret */
    io_lab_reset(lab);
    lab->cpu->rip = AT;
    assert_true(io_lab_run(lab, 10000, 1));
    EVENTS(1);
    assert_int_equal(lab->accesses, 40);
    *pte = 0;
    one_insn_flush(lab->cpu);
    io_lab_reset(lab);
    lab->cpu->rip = AT;
    assert_true(io_lab_run(lab, 10000, 1)); /* the fetch faults: the handler halts */
    assert_int_equal(lab->accesses, 0);
    assert_int_equal(lab->cpu->cr2, 0x21000);
    *pte = present;
    one_insn_flush(lab->cpu);
    io_lab_reset(lab);
    lab->cpu->rip = AT;
    assert_true(io_lab_run(lab, 10000, 1));
    EVENTS(1);
    assert_int_equal(lab->accesses, 40);
}

static void a_guard_that_fails_ends_the_block(void **state)
{
    struct io_lab *lab = *state;
    write_driver(lab);
    io_lab_go(lab);
    LAB_CODE_AT(lab, 0x8900, 0x41, 0xbf, 0x00, 0x88, 0x00, 0x00, 0x41, 0xff, 0xd7, CPUID, HLT);
    io_lab_reset(lab);
    lab->cpu->rip = 0x8900;
    assert_true(io_lab_run(lab, 1000, 1));
    EVENTS(1);
    assert_int_equal(lab->accesses, 1);
    assert_int_equal(lab->cpu->r[RSI], 1);
}

static void an_extent_keeps_blocks_short(void **state)
{
    struct io_lab *line = io_lab_open(IO_BLOCKS_SCAN, "line");
    struct io_lab *page = io_lab_open(IO_BLOCKS_SCAN, "page");
    struct io_lab *few = io_lab_open(IO_BLOCKS_SCAN, "bytes:4");
    struct io_lab *labs[] = {line, page, few};
    static const unsigned events[] = {2, 1, 2};
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct io_lab *lab = labs[k];
        LAB_CODE_AT(lab, ONE_INSN_CODE, 0xeb, 0x3a); /* to the last four bytes of the line */
        LAB_CODE_AT(lab, ONE_INSN_CODE + 0x3c, OUT(1), OUT(2), OUT(3), OUT(4), HLT);
        for (unsigned n = 0; n < 10; n++)
            io_lab_go(lab);
        EVENTS(events[k]);
        io_lab_close(lab);
    }
}

/* ---- the table ---- */
static size_t read_code(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    struct io_lab *lab = context;
    memcpy(bytes, one_insn_at(lab->cpu, address), size);
    return size;
}

static void scan_into_table(struct io_lab *lab, uint64_t delta)
{
    struct io_scanner *scanner = io_scanner_new();
    struct io_extent extent = io_extent_default();
    struct io_code code = {.bits = 64, .context = lab, .read = read_code};
    struct io_block block;
    assert_int_equal(io_scan(scanner, &code, &extent, ONE_INSN_CODE, &block), IO_SCAN_BLOCK);
    block.key += delta;
    io_lab_table(lab, &block, 1);
    io_scanner_free(scanner);
}

static void the_table_hits_at_the_first_visit(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    io_lab_go(lab);
    EVENTS(4); /* nothing is scanned */
    scan_into_table(lab, 0);
    io_lab_go(lab);
    EVENTS(1);
    assert_int_equal(STATS->block_hits, 1);
    assert_int_equal(STATS->block_misses, 0);
}

static void the_table_of_a_relocated_guest_hits(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    scan_into_table(lab, 7 * (uint64_t)IO_TABLE_ALIGN);
    io_lab_go(lab);
    EVENTS(1);
    assert_int_equal(STATS->block_hits, 1);
}

static void a_table_that_does_not_match_is_not_believed(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    scan_into_table(lab, 0);
    LAB_CODE_AT(lab, ONE_INSN_CODE + 5, LAB_PORT + 9);
    io_lab_go(lab);
    EVENTS(4);
    assert_int_equal(STATS->hash_mismatches, 1);
    assert_int_equal(lab->log[1].port, LAB_PORT + 9);
}

static void a_table_that_does_not_match_is_scanned_for(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    scan_into_table(lab, 0);
    LAB_CODE_AT(lab, ONE_INSN_CODE + 5, LAB_PORT + 9);
    io_lab_go(lab);
    EVENTS(1);
    assert_int_equal(STATS->hash_mismatches, 1);
    assert_int_equal(lab->log[1].port, LAB_PORT + 9);
    io_lab_go(lab);
    assert_int_equal(STATS->block_hits, 1);
}

static void masked_bytes_may_change(void **state)
{
    struct io_lab *lab = *state;
    struct io_block block;
    write_line(lab);
    scan_into_table(lab, 0);
    io_table_block(&lab->vm->io_blocks->table, 0, &block);
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    block.masks[0] = (struct io_mask){5, 1};
    block.mask_count = 1;
    block.flags |= IO_BLOCK_MASKED;
    assert_true(io_block_read(&block, block.key, read_code, lab, bytes));
    block.hash = io_block_hash(&block, bytes);
    io_lab_table(lab, &block, 1);
    for (uint8_t port = LAB_PORT + 10; port < LAB_PORT + 14; port++) {
        LAB_CODE_AT(lab, ONE_INSN_CODE + 5, port);
        io_lab_go(lab);
        EVENTS(1);
        assert_int_equal(STATS->block_hits, 1);
        assert_int_equal(STATS->hash_mismatches, 0);
        assert_int_equal(lab->log[1].port, port);
    }
}

static void what_is_learned_is_bounded(void **state)
{
    struct io_lab *lab = *state;
    enum { TIMES = 3 * IO_ENTRIES_MAX };
    io_lab_reset(lab);
    for (unsigned n = 0; n < TIMES; n++) { /* an OUT at each of so many addresses */
        uint64_t at = 0x20000 + 16ull * (n % 4096);
        LAB_CODE_AT(lab, at, OUT(1), HLT);
        io_lab_reset(lab);
        lab->cpu->rip = at;
        assert_true(io_lab_run(lab, 100, 1));
        assert_in_range(lab->vm->io_blocks->count, 1, IO_ENTRIES_MAX);
    }
}

static void a_page_mapped_elsewhere_is_other_code(void **state)
{
    struct io_lab *lab = *state;
    uint64_t *pte = one_insn_pte(lab->cpu, ONE_INSN_CODE), first = *pte;
    write_line(lab);
    LAB_CODE_AT(lab, 0x50000, OUT(7), OUT(8), HLT);
    io_lab_go(lab);
    for (unsigned n = 0; n < 4; n++) {
        *pte = n % 2 ? first : (first & 0xfff) | 0x50000;
        one_insn_flush(lab->cpu);
        io_lab_go(lab);
        assert_int_equal(lab->log[0].port, LAB_PORT + (n % 2 ? 1 : 7));
        assert_int_equal(lab->accesses, n % 2 ? 4 : 2);
        EVENTS(1);
    }
}

static void code_of_32_bits_batches_too(void **state)
{
    struct io_lab *lab = *state;
    write_line(lab);
    for (unsigned n = 0; n < 2; n++) {
        io_lab_reset(lab);
        one_insn_mode(lab->cpu, ONE_INSN_32, false);
        assert_true(io_lab_run(lab, 1000, 1));
        EVENTS(1);
        assert_int_equal(lab->accesses, 4);
        assert_int_equal(lab->cpu->rip, ONE_INSN_CODE + 13);
    }
    io_lab_reset(lab);
    one_insn_mode(lab->cpu, ONE_INSN_REAL, false);
    assert_true(io_lab_run(lab, 1000, 1));
    EVENTS(4); /* not a flat segment */
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, open_scan, close_lab)
#define AUTO_TEST(name)  cmocka_unit_test_setup_teardown(name, open_auto, close_lab)
#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, open_table, close_lab)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(straight_lines_are_one_event),
        TEST(time_goes_on_as_for_single_instructions),
        TEST(a_lone_instruction_is_emulated_alone),
        TEST(code_modified_under_a_block_is_caught),
        TEST(a_write_of_the_same_bytes_keeps_the_block),
        TEST(a_block_that_modifies_itself_ends_there),
        TEST(an_interrupt_ends_the_event_where_it_came),
        TEST(an_interrupt_that_is_masked_does_not),
        TEST(an_nmi_ends_the_event_even_then),
        TEST(power_off_ends_the_event),
        TEST(a_fault_inside_is_precise),
        TEST(a_polling_loop_is_bounded),
        TEST(a_string_instruction_is_one_event),
        TEST(single_steps_and_breakpoints_disable_batching),
        TEST(leaf_functions_are_followed_to_their_callers),
        TEST(an_instruction_over_a_page_end_is_followed),
        TEST(a_guard_that_fails_ends_the_block),
        cmocka_unit_test(an_extent_keeps_blocks_short),
        TABLE_TEST(the_table_hits_at_the_first_visit),
        TABLE_TEST(the_table_of_a_relocated_guest_hits),
        TABLE_TEST(a_table_that_does_not_match_is_not_believed),
        AUTO_TEST(a_table_that_does_not_match_is_scanned_for),
        TABLE_TEST(masked_bytes_may_change),
        TEST(what_is_learned_is_bounded),
        TEST(a_page_mapped_elsewhere_is_other_code),
        TEST(code_of_32_bits_batches_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
