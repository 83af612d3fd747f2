/* SPDX-License-Identifier: MIT */
/* Templates executed: CPUID and RDMSR tables against the real instruction, doorbells against a host
 * played by a signal handler. All registers and flags are compared (D2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "hvstub/cpuid_table.h"
#include "patchc/site.h"
#include "patchc/template.h"
#include "tests/unit/code_runner.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define INDEX       0x00abcdefu
#define STACK_WORDS 512

static ZydisDecoder decoder;
static struct template_set *set;

static const struct template_available everything = {
    .context = ~0u, .state = true, .cpuid = true, .msr = true, .deprivileged = true};

/* What a routine is made of, in memory that can be executed. */
static struct page {
    uint8_t emulation[512];
    uint8_t native[64]; /* the original instruction, then the tail */
    uint8_t tail[64];
    uint8_t refused[64]; /* another end: the native path was taken */
    _Alignas(64) struct pv_cpuid_table cpuid;
    _Alignas(64) struct pv_msr_table msr;
    struct pv_state state;
} * page;

static uint64_t stack[STACK_WORDS];
#define STACK_TOP ((uint64_t)(uintptr_t)&stack[STACK_WORDS - 64])

static size_t emulation_size;
static bool native_taken;
static unsigned steps;

/* ---- building and running ---- */

/* Fills the named template for the instruction. native: what its native path holds; NULL: an end
 * that sets native_taken (an INT3). */
static void build(const char *name, const char *instruction, size_t length, const void *native,
                  size_t native_length)
{
    ZydisDecodedInstruction decoded;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    assert_true(
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, instruction, length, &decoded, operands)));
    const struct template *t = template_find(set, name, &decoded, operands, &everything, NULL);
    assert_non_null(t);
    struct template_values values = {
        .instruction = &decoded,
        .operands = operands,
        .address = (uintptr_t)page,
        .index = INDEX,
        .native = (uintptr_t)page->native,
        .tail = (uintptr_t)page->tail,
        .next = (uintptr_t)page->tail,
        .state = (uintptr_t)&page->state,
        .cpuid_table = (uintptr_t)&page->cpuid,
        .msr_table = (uintptr_t)&page->msr,
    };
    struct error err = {0};
    emulation_size = template_size(t);
    assert_true(emulation_size + 5 <= sizeof page->emulation);
    if (template_fill(t, &values, (uintptr_t)page->emulation, page->emulation, &err))
        fail_msg("%s", err.text);
    code_put_jump(page->emulation + emulation_size, page->tail);
    code_put_exit(page->tail);
    if (native) {
        memcpy(page->native, native, native_length);
        code_put_jump(page->native + native_length, page->tail);
    } else {
        page->native[0] = 0xcc;
    }
}

/* Steps through the emulation path; at every instruction all that is below RSP is destroyed, as an
 * interrupt would. The INT3 of a native path ends the run. */
static bool on_step(void *context, int number, struct code_registers *registers, uint64_t *rip)
{
    (void)context;
    if (number != SIGTRAP)
        return false;
    if (*rip == (uintptr_t)page->native + 1) {
        native_taken = true;
        *rip = (uintptr_t)page->tail;
        registers->flags &= ~(uint64_t)FLAG_TRAP;
    }
    if (*rip - (uintptr_t)page->emulation < emulation_size) {
        steps++;
        memset((void *)(uintptr_t)(registers->r[RSP] - 512), 0xcc, 512);
    }
    return true;
}

static void run(struct code_registers *registers, code_trap *trap, void *context)
{
    for (int i = 0; i < STACK_WORDS; i++)
        stack[i] = 0x5151515151515151u + (uint64_t)i;
    native_taken = false;
    code_run(registers, page->emulation, trap, context);
    for (int i = STACK_WORDS - 64; i < STACK_WORDS; i++) /* nothing of the guest's is written */
        assert_true(stack[i] == 0x5151515151515151u + (uint64_t)i);
}

static void assert_same(const struct code_registers *got, const struct code_registers *want,
                        const char *what, uint64_t detail)
{
    const uint64_t flags = FLAGS_ARITHMETIC | FLAG_DIRECTION;
    for (int i = 0; i < REGISTERS; i++)
        if (got->r[i] != want->r[i])
            fail_msg("%s %#llx: register %d is %#llx, not %#llx", what, (unsigned long long)detail,
                     i, (unsigned long long)got->r[i], (unsigned long long)want->r[i]);
    if ((got->flags ^ want->flags) & flags)
        fail_msg("%s %#llx: flags %#llx, not %#llx", what, (unsigned long long)detail,
                 (unsigned long long)got->flags, (unsigned long long)want->flags);
}

/* ---- CPUID ---- */

static const uint32_t leaves_with_subleaves[] = {4,    7,    0xb,  0xd,  0xf,  0x10,      0x12,
                                                 0x14, 0x17, 0x18, 0x1d, 0x1f, 0x8000001d};

static bool has_subleaves(uint32_t leaf)
{
    for (size_t i = 0; i < sizeof leaves_with_subleaves / sizeof(uint32_t); i++)
        if (leaves_with_subleaves[i] == leaf)
            return true;
    return false;
}

static struct pv_cpuid_answer real_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct pv_cpuid_answer a;
    __asm__ volatile("cpuid"
                     : "=a"(a.eax), "=b"(a.ebx), "=c"(a.ecx), "=d"(a.edx)
                     : "a"(leaf), "c"(subleaf));
    return a;
}

/* Fills the table with the host's own answers, each changed by `mark`. */
static void fill_cpuid(uint32_t mark)
{
    static const uint32_t ranges[] = {0, 0x40000000, 0x80000000};
    pv_cpuid_clear(&page->cpuid);
    for (int with_subleaves = 0; with_subleaves < 2; with_subleaves++)
        for (int range = 0; range < 3; range++)
            for (uint32_t leaf = ranges[range]; leaf < ranges[range] + 0x30; leaf++) {
                struct pv_cpuid_answer answers[8];
                for (uint32_t i = 0; i < 8; i++) {
                    answers[i] = real_cpuid(leaf, i);
                    answers[i].eax ^= mark;
                    answers[i].edx ^= mark;
                }
                if (has_subleaves(leaf) != with_subleaves)
                    continue;
                if (with_subleaves)
                    assert_true(pv_cpuid_put_subleaves(&page->cpuid, leaf, answers, NULL, 8));
                else
                    assert_true(pv_cpuid_put(&page->cpuid, leaf, &answers[0]));
            }
}

static void check_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct code_registers got, want;
    code_randomize(&got, STACK_TOP);
    got.r[RAX] = (got.r[RAX] & ~0xffffffffull) | leaf;
    got.r[RCX] = (got.r[RCX] & ~0xffffffffull) | subleaf;
    want = got;
    struct pv_cpuid_answer real = real_cpuid(leaf, subleaf);
    want.r[RAX] = real.eax;
    want.r[RBX] = real.ebx;
    want.r[RCX] = real.ecx;
    want.r[RDX] = real.edx;
    run(&got, NULL, NULL);
    assert_same(&got, &want, "leaf", leaf);
}

static void test_cpuid_answers_every_leaf_as_the_processor_does(void **state)
{
    (void)state;
    fill_cpuid(0);
    build("cpuid_table", "\x0f\xa2", 2, "\x0f\xa2", 2);
    for (uint32_t range = 0; range < 3; range++)
        for (uint32_t low = 0; low < 0x100; low++) {
            uint32_t leaf = range << 30 | low;
            check_cpuid(leaf, 0);
            if (has_subleaves(leaf))
                for (uint32_t subleaf = 1; subleaf < 12; subleaf++)
                    check_cpuid(leaf, subleaf);
            check_cpuid(leaf, (uint32_t)code_random());
        }
    for (int i = 0; i < 300; i++) {
        uint32_t random = (uint32_t)code_random();
        check_cpuid(random, (uint32_t)code_random());
        check_cpuid((random & 0xff) | 0x100u << (i % 24), 0); /* one bit away from a known leaf */
        check_cpuid(4, 1u << (i % 32));
    }
}

/* Leaves in the table are answered from the table; the others find the native path with RAX and
 * RCX as they were. */
static void test_cpuid_takes_the_native_path_for_unknown_leaves_only(void **state)
{
    (void)state;
    fill_cpuid(0x5aa55aa5);
    build("cpuid_table", "\x0f\xa2", 2, NULL, 0);
    for (int i = 0; i < 4000; i++) {
        static const uint32_t tops[] = {0, 0x40000000, 0x80000000};
        uint32_t leaf = tops[i % 3] | (uint32_t)(code_random() & 0x3f);
        uint32_t subleaf = (uint32_t)code_random() >> (i & 31);
        if (i & 64)
            leaf ^= 1u << (code_random() & 31);
        bool known =
            (leaf & 0x3fffffff) < 0x30 && leaf >> 30 < 3 && (!has_subleaves(leaf) || subleaf < 8);
        struct code_registers got, start;
        code_randomize(&start, STACK_TOP);
        start.r[RAX] = (start.r[RAX] & ~0xffffffffull) | leaf;
        start.r[RCX] = (start.r[RCX] & ~0xffffffffull) | subleaf;
        got = start;
        run(&got, on_step, NULL);
        assert_int_equal(native_taken, !known);
        if (!known) {
            start.r[RBX] = got.r[RBX]; /* the instruction overwrites these */
            start.r[RDX] = got.r[RDX];
            assert_same(&got, &start, "unknown leaf", leaf);
        } else {
            struct pv_cpuid_answer real = real_cpuid(leaf, subleaf);
            assert_int_equal(got.r[RAX], real.eax ^ 0x5aa55aa5u);
            assert_int_equal(got.r[RDX], real.edx ^ 0x5aa55aa5u);
        }
    }
}

static void test_cpuid_empty_table_answers_nothing(void **state)
{
    (void)state;
    pv_cpuid_clear(&page->cpuid);
    build("cpuid_table", "\x0f\xa2", 2, NULL, 0);
    for (uint64_t leaf = 0; leaf < 0x200; leaf++) {
        struct code_registers got;
        code_randomize(&got, STACK_TOP);
        got.r[RAX] = leaf < 0x100 ? leaf : leaf < 0x180 ? 0x80000000u + (leaf & 0x7f) : -leaf;
        got.r[RCX] = 0;
        run(&got, on_step, NULL);
        assert_true(native_taken);
    }
}

static void test_D2_cpuid_and_rdmsr_use_nothing_below_the_stack_pointer(void **state)
{
    (void)state;
    fill_cpuid(0);
    build("cpuid_table", "\x0f\xa2", 2, "\x0f\xa2", 2);
    static const uint32_t cases[][2] = {{0, 0}, {4, 1}, {4, 9}, {0xffff, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct code_registers got;
        code_randomize(&got, STACK_TOP);
        got.r[RAX] = cases[i][0];
        got.r[RCX] = cases[i][1];
        got.flags |= FLAG_TRAP;
        steps = 0;
        run(&got, on_step, NULL);
        assert_true(steps >= 10);
        struct pv_cpuid_answer real = real_cpuid(cases[i][0], cases[i][1]);
        assert_int_equal(got.r[RAX], real.eax);
        assert_int_equal(got.r[RBX], real.ebx);
        assert_int_equal(got.r[RCX], real.ecx);
        assert_int_equal(got.r[RDX], real.edx);
    }
}

static void test_cpuid_table_keeps_subleaves_apart(void **state)
{
    (void)state;
    static struct pv_cpuid_table table;
    struct pv_cpuid_answer answers[256] = {{0}};
    pv_cpuid_clear(&table);
    assert_false(pv_cpuid_put_subleaves(&table, 0, answers, NULL, 1));
    assert_false(pv_cpuid_put_subleaves(&table, 4, answers, NULL, 0));
    assert_false(pv_cpuid_put_subleaves(&table, 4, answers, NULL, 257));
    assert_true(pv_cpuid_put(&table, 4, answers));
    assert_false(pv_cpuid_put(&table, 4, answers));
    assert_false(pv_cpuid_put_subleaves(&table, 4, answers, NULL, 1));
    for (uint32_t leaf = 0; leaf < 255; leaf++) /* 255 of them, each one slot and its subleaves */
        if (leaf != 4)
            assert_true(pv_cpuid_put(&table, leaf, answers));
    assert_true(pv_cpuid_put_subleaves(&table, 255, answers, NULL, 256));
    for (uint32_t base = 1; base < 256; base++) /* no second block of that size */
        assert_false(pv_cpuid_put_subleaves(&table, 0x80000000u | base, answers, NULL, 200));
}

/* ---- RDMSR ---- */

static void test_rdmsr_answers_constant_msrs_from_the_table(void **state)
{
    (void)state;
    pv_msr_clear(&page->msr);
    assert_true(pv_msr_put(&page->msr, 0xfe, 0x0123456789abcdefu));
    assert_true(pv_msr_put(&page->msr, 0xc0000080, 0xd01));
    assert_false(pv_msr_put(&page->msr, 0x80, 1)); /* its place is taken */
    build("rdmsr_table", "\x0f\x32", 2, NULL, 0);
    static const uint32_t msrs[] = {0xfe, 0xc0000080, 0, 0x80, 0xff, 0x1fe, 0xffffffff, 1};
    for (size_t i = 0; i < 8 * 16; i++) {
        struct code_registers got, want;
        code_randomize(&got, STACK_TOP);
        got.r[RCX] = (got.r[RCX] & ~0xffffffffull) | msrs[i % 8];
        if (i & 8)
            got.flags |= FLAG_TRAP;
        want = got;
        run(&got, on_step, NULL);
        assert_int_equal(native_taken, i % 8 >= 2);
        if (!native_taken) { /* else the native instruction may raise #GP: nothing has changed */
            want.r[RAX] = i % 8 == 0 ? 0x89abcdef : 0xd01;
            want.r[RDX] = i % 8 == 0 ? 0x01234567 : 0;
        }
        assert_same(&got, &want, "MSR", msrs[i % 8]);
    }
}

/* ---- doorbells ---- */

struct host {
    unsigned rings;
    bool memory;      /* the frame holds the address of the memory operand */
    uint64_t address; /* what it was */
    uint64_t rax;     /* the guest's RAX, as the host found it */
    uint64_t new_rax, new_rdx;
    struct code_registers seen;
};

/* Plays the host: OUT in user mode raises #GP, UD1 #UD. */
static bool on_doorbell(void *context, int number, struct code_registers *registers, uint64_t *rip)
{
    struct host *host = context;
    const uint8_t *code = (const uint8_t *)(uintptr_t)*rip;
    uint64_t *frame = (uint64_t *)(uintptr_t)registers->r[RSP];
    if (number == SIGTRAP)
        return on_step(NULL, number, registers, rip);
    if (number == SIGSEGV && code[0] == 0xe7 && code[1] == PV_DOORBELL_PORT) {
        if ((uint32_t)registers->r[RAX] != INDEX)
            return false;
        host->rax = frame[0];
        host->address = host->memory ? frame[1] : 0;
        frame[0] = host->new_rax;
        *rip += 2;
    } else if (number == SIGILL && memcmp(code, "\x0f\xb9\x81", 3) == 0) {
        uint32_t index;
        memcpy(&index, code + 3, 4);
        if (index != INDEX)
            return false;
        host->rax = registers->r[RAX];
        registers->r[RAX] = host->new_rax;
        *rip += 7;
    } else {
        return false;
    }
    host->seen = *registers;
    registers->r[RDX] = host->new_rdx;
    host->rings++;
    return true;
}

static void ring(const char *name, const char *instruction, size_t length, struct host *host,
                 bool stepped)
{
    struct code_registers got, want;
    build(name, instruction, length, NULL, 0);
    code_randomize(&got, STACK_TOP);
    want = got;
    host->rings = 0;
    host->new_rax = code_random();
    host->new_rdx = code_random();
    if (stepped)
        got.flags |= FLAG_TRAP;
    run(&got, on_doorbell, host);
    assert_int_equal(host->rings, 1);
    assert_true(host->rax == want.r[RAX]); /* the guest's, untouched */
    for (int i = 1; i < REGISTERS; i++)
        if (i != RSP)
            assert_true(host->seen.r[i] == want.r[i]);
    if (host->memory) {
        ZydisDecodedInstruction decoded;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        ZydisDecoderDecodeFull(&decoder, instruction, length, &decoded, operands);
        const ZydisDecodedOperandMem *mem = &operands[0].mem;
        uint64_t address = (uint64_t)mem->disp.value;
        if (mem->base == ZYDIS_REGISTER_RIP)
            address += (uintptr_t)page + length;
        else if (mem->base != ZYDIS_REGISTER_NONE)
            address += want.r[ZydisRegisterGetId(mem->base)];
        if (mem->index != ZYDIS_REGISTER_NONE)
            address += want.r[ZydisRegisterGetId(mem->index)] * mem->scale;
        assert_true(host->address == address);
    }
    want.r[RAX] = host->new_rax; /* what the host wrote */
    want.r[RDX] = host->new_rdx;
    assert_same(&got, &want, name, 0);
}

static void test_D5_doorbells_bring_the_index_and_the_guests_rax(void **state)
{
    (void)state;
    static const struct {
        const char *name, *instruction;
        size_t length;
    } cases[] = {{"wrmsr", "\x0f\x30", 2},
                 {"rdmsr", "\x0f\x32", 2},
                 {"cpuid", "\x0f\xa2", 2},
                 {"in", "\xe4\x60", 2},
                 {"out", "\xef", 1},
                 {"ins", "\xf3\x6c", 2},
                 {"outs", "\x6f", 1},
                 {"hlt", "\xf4", 1},
                 {"mov_to_cr", "\x0f\x22\xd8", 3},
                 {"mov_from_cr", "\x0f\x20\xd8", 3},
                 {"mov_to_dr", "\x0f\x23\xf8", 3},
                 {"invlpg", "\x0f\x01\x3f", 3},
                 {"clts", "\x0f\x06", 2},
                 {"lmsw", "\x0f\x01\xf0", 3},
                 {"xsetbv", "\x0f\x01\xd1", 3},
                 {"rdtsc", "\x0f\x31", 2},
                 {"vmcall", "\x0f\x01\xd9", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int variant = 0; variant < 4; variant++) {
            char name[64];
            struct host host = {0};
            snprintf(name, sizeof name, "%s_%s", cases[i].name, variant & 1 ? "bare" : "doorbell");
            ring(name, cases[i].instruction, cases[i].length, &host, variant & 2);
        }
}

static void test_D10_memory_doorbells_bring_the_operands_address(void **state)
{
    (void)state;
    static const struct {
        const char *instruction;
        size_t length;
    } cases[] = {{"\x0f\x01\x7f\x08", 4},                  /* 8(%rdi) */
                 {"\x0f\x01\x78\x10", 4},                  /* 16(%rax) */
                 {"\x0f\x01\x7c\x24\x20", 5},              /* 32(%rsp) */
                 {"\x0f\x01\x3c\x04", 4},                  /* (%rsp,%rax) */
                 {"\x43\x0f\x01\x7c\xfd\x80", 6},          /* -128(%r13,%r15,8) */
                 {"\x0f\x01\x3d\x44\x33\x22\x11", 7},      /* (%rip) */
                 {"\x0f\x01\x3c\x25\x00\x10\x00\x00", 8}}; /* absolute */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int stepped = 0; stepped < 2; stepped++) {
            struct host host = {.memory = true};
            ring("invlpg_memory_doorbell", cases[i].instruction, cases[i].length, &host, stepped);
        }
}

/* ---- */

static int set_up(void **state)
{
    (void)state;
    struct error err = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one); /* APIC ids in CPUID must not change between two looks */
    sched_setaffinity(0, sizeof one, &one);
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    set = template_set_open(&err);
    page = code_map(NULL, sizeof *page);
    return set && page ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    template_set_close(set);
    munmap(page, sizeof *page);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpuid_answers_every_leaf_as_the_processor_does),
        cmocka_unit_test(test_cpuid_takes_the_native_path_for_unknown_leaves_only),
        cmocka_unit_test(test_cpuid_empty_table_answers_nothing),
        cmocka_unit_test(test_cpuid_table_keeps_subleaves_apart),
        cmocka_unit_test(test_D2_cpuid_and_rdmsr_use_nothing_below_the_stack_pointer),
        cmocka_unit_test(test_rdmsr_answers_constant_msrs_from_the_table),
        cmocka_unit_test(test_D5_doorbells_bring_the_index_and_the_guests_rax),
        cmocka_unit_test(test_D10_memory_doorbells_bring_the_operands_address),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
