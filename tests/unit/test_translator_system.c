/* SPDX-License-Identifier: MIT */
/* Instructions in translated code that the interpreter executes, by a call or at an exit, and those about the processor's
 * own state: strings at page ends and where they fault, flags, interrupts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include "runtime/bus.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"
#include "runtime/translator/translator.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct translator_lab lab;

static const struct translator_stats *counters(void)
{
    return translator_stats(lab.translates->soft->translator);
}

/* The body over and over, R15 times; then HLT. Slices of all lengths end in its middle. */
static void put_loop(const void *body, size_t size)
{
    uint8_t code[128] = {0};
    const uint8_t end[] = {0x49, 0xff, 0xcf, 0x75, (uint8_t) - (int)(size + 5), 0xf4};
    assert_in_range(size, 1, 100);
    memcpy(code, body, size);
    memcpy(code + size, end, sizeof end);
    translator_lab_put(&lab, LAB_CODE, code, sizeof code);
}

static bool run_loop(void)
{
    for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 4000; slices++)
        if (!translator_lab_run(&lab, 1 + slices * 7 % 61))
            return false;
    return translator_lab_halted(&lab) && translator_lab_run(&lab, 1);
}

/* ---- strings ---- */
static const struct string {
    const char *what;
    uint64_t from, to, count;
} strings[] = {
    {"over a page's end", LAB_DATA + 0xfc0, LAB_DATA + 0x2fd1, 20},
    {"both in one page", LAB_DATA + 0x100, LAB_DATA + 0x300, 33},
    {"one element on", LAB_DATA + 0x400, LAB_DATA + 0x401, 40},
    {"one element back", LAB_DATA + 0x401, LAB_DATA + 0x400, 40},
    {"the same", LAB_DATA + 0x500, LAB_DATA + 0x500, 7},
    {"none at all", LAB_DATA + 0x500, LAB_DATA + 0x700, 0},
    {"to where no page is", LAB_DATA + 0x100, LAB_MISSING - 100, 13},
    {"from where no page is", LAB_MISSING - 70, LAB_DATA + 0x1100, 13},
    {"to where nothing may be written", LAB_DATA + 0x100, LAB_READONLY - 100, 13},
    {"down from behind a page that is missing", LAB_MISSING + 0x1040, LAB_MISSING + 0x1090, 13},
    {"to no address", LAB_DATA + 0x100, 0x7ffffffffff0, 9},
    {"many pages", LAB_DATA + 0x123, LAB_DATA + 0x3001, 2100},
    {"into the code itself", LAB_CODE + 40, LAB_CODE + 48, 9},
};

static bool string_agrees(const struct string *s, uint8_t prefix, bool wide, uint8_t opcode,
                          bool down, bool user)
{
    uint8_t body[32] = {0x4c, 0x89, 0xc6,                    /* mov %r8, %rsi */
                        0x4c, 0x89, 0xcf,                    /* mov %r9, %rdi */
                        0x4c, 0x89, 0xd1,                    /* mov %r10, %rcx */
                        0x49, 0xff, 0xc1, 0x49, 0xff, 0xc0}; /* inc %r9; inc %r8 */
    size_t size = 15;
    body[size++] = down ? 0xfd : 0xfc;
    if (prefix)
        body[size++] = prefix;
    if (wide)
        body[size++] = 0x48;
    body[size++] = opcode;
    put_loop(body, size);
    translator_lab_start(&lab, LAB_CODE, user);
    translator_lab_register(&lab, R8, s->from);
    translator_lab_register(&lab, R9, s->to);
    translator_lab_register(&lab, R10, s->count);
    translator_lab_register(&lab, RAX, 0x2222222222222222);
    translator_lab_register(&lab, R15, 40);
    return run_loop();
}

/* All strings with this prefix: what is compared is equal for a while. */
static void strings_agree(uint8_t prefix)
{
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    uint8_t data[0x2000];
    memset(data, 0x22, sizeof data);
    data[0x17] = data[0x512] = data[0x1006] = 0x33;
    for (unsigned n = 0; n < sizeof strings / sizeof strings[0] * sizeof opcodes * 4; n++) {
        const struct string *s = &strings[n / 4 / sizeof opcodes];
        uint8_t opcode = opcodes[n / 4 % sizeof opcodes];
        for (uint64_t at = LAB_DATA; at < LAB_READONLY; at += sizeof data)
            translator_lab_put(&lab, at, data, sizeof data);
        if (string_agrees(s, prefix, opcode & n & 1, opcode, n & 2, n % 3 == 0))
            continue;
        printf("# %s: prefix %x, opcode %x, down %d\n", s->what, prefix, opcode, !!(n & 2));
        fail();
    }
}

static void repeated_strings_agree(void **state)
{
    (void)state;
    strings_agree(0xf3);
    assert_in_range(counters()->exits[TRANSLATOR_CALL], 5000, UINT64_MAX);
}

static void strings_repeated_while_different_agree(void **state)
{
    (void)state;
    strings_agree(0xf2);
}

static void single_strings_agree(void **state)
{
    (void)state;
    strings_agree(0);
}

/* ---- flags and the like ---- */
static const struct body {
    const char *what;
    uint8_t size;
    uint8_t code[24];
} bodies[] = {
    {"pushfq; pop %rax; cmp %rcx, %rax; pushfq; pop %rdx",
     9,
     {0x9c, 0x58, 0x48, 0x39, 0xc8, 0x9c, 0x5a, 0x48, 0xaf}},
    {"add %rcx, %rax; push %rbx; pushfq; pop %r12; pop %r13",
     10,
     {0x48, 0x01, 0xc8, 0x53, 0x9c, 0x41, 0x5c, 0x41, 0x5d, 0x90}},
    {"pushfw; pop %ax", 4, {0x66, 0x9c, 0x66, 0x58}},
    {"push $0x8d5; popfq; pushfq; pop %rax", 8, {0x68, 0xd5, 0x08, 0x00, 0x00, 0x9d, 0x9c, 0x58}},
    {"push $0x4402; popfq; pushfq; pop %rax", 8, {0x68, 0x02, 0x44, 0x00, 0x00, 0x9d, 0x9c, 0x58}},
    /* lea -5(%r15), %rdi; shr $63, %rdi: 1 in the last rounds */
    {"shl $8, %rdi; push %rdi; popfq; nop; nop",
     16,
     {0x49, 0x8d, 0x7f, 0xfb, 0x48, 0xc1, 0xef, 0x3f, 0x48, 0xc1, 0xe7, 0x08, 0x57, 0x9d, 0x90,
      0x90}},
    {"shl $18, %rdi; push %rdi; popfq; mov 1(%rbx), %eax",
     17,
     {0x49, 0x8d, 0x7f, 0xfb, 0x48, 0xc1, 0xef, 0x3f, 0x48, 0xc1, 0xe7, 0x12, 0x57, 0x9d, 0x8b,
      0x43, 0x01}},
    {"push $0x3202; popfq; cli; pushfq; pop %rax",
     9,
     {0x68, 0x02, 0x32, 0x00, 0x00, 0x9d, 0xfa, 0x9c, 0x58}},
    {"push $0x4e02; popfq; cli; pushfq; pop %rax",
     9,
     {0x68, 0x02, 0x4e, 0x00, 0x00, 0x9d, 0xfa, 0x9c, 0x58}},
    {"sti; pushfq; pop %rax; cli; pushfq; pop %rdx", 6, {0xfb, 0x9c, 0x58, 0xfa, 0x9c, 0x5a}},
    {"mov %ss, %eax; mov %cs, %r12d; mov %ds, %cx; mov %es, %r13w",
     11,
     {0x8c, 0xd0, 0x41, 0x8c, 0xcc, 0x66, 0x8c, 0xd9, 0x66, 0x41, 0x8c}},
    {"mov %gs, %rdx; mov %fs, %r14; mov %ss, (%rbx)",
     8,
     {0x48, 0x8c, 0xea, 0x49, 0x8c, 0xe6, 0x8c, 0x13}},
    {"pause; inc %rax", 5, {0xf3, 0x90, 0x48, 0xff, 0xc0}},
    {"rdtsc; add %rax, %rcx; rdtsc", 7, {0x0f, 0x31, 0x48, 0x01, 0xc1, 0x0f, 0x31}},
    {"rdtscp; cmp %rax, %rcx; rdtscp", 9, {0x0f, 0x01, 0xf9, 0x48, 0x39, 0xc1, 0x0f, 0x01, 0xf9}},
    {"swapgs; mov %gs:(%rbx), %rax; swapgs",
     10,
     {0x0f, 0x01, 0xf8, 0x65, 0x48, 0x8b, 0x03, 0x0f, 0x01, 0xf8}},
    {"cmpxchg16b (%rbx); lea 8(%rbx), %rbx", 8, {0x48, 0x0f, 0xc7, 0x0b, 0x48, 0x8d, 0x5b, 0x08}},
    {"bts %rcx, (%rbx); add $77, %rcx", 8, {0x48, 0x0f, 0xab, 0x0b, 0x48, 0x83, 0xc1, 0x4d}},
    {"cmp %rax, %rcx; bt %edx, (%rbx); setc %al",
     9,
     {0x48, 0x39, 0xc1, 0x0f, 0xa3, 0x13, 0x0f, 0x92, 0xc0}},
    {"add (%rbx), %dh; mov %ah, (%rbx); add %ch, %bh", 6, {0x02, 0x33, 0x88, 0x23, 0x00, 0xef}},
    {"mov %cr3, %rax; mov %cr2, %rdx; mov %rax, %cr3",
     9,
     {0x0f, 0x20, 0xd8, 0x0f, 0x20, 0xd2, 0x0f, 0x22, 0xd8}},
    {"add $0xf8, %rbx; pop (%rbx); push %rax",
     10,
     {0x48, 0x81, 0xc3, 0xf8, 0x00, 0x00, 0x00, 0x8f, 0x03, 0x50}},
    {"fld1; fstp (%rbx); inc %rax", 7, {0xd9, 0xe8, 0xdd, 0x1b, 0x48, 0xff, 0xc0}},
    {"ldmxcsr (%rbx): a reserved bit", 6, {0x0f, 0xae, 0x13, 0x48, 0xff, 0xc3}},
    {"mov 0xffd(%rbx), %rax: a page's end", 7, {0x48, 0x8b, 0x83, 0xfd, 0x0f, 0x00, 0x00}},
    {"mov %rax, 0xffd(%rbx)", 7, {0x48, 0x89, 0x83, 0xfd, 0x0f, 0x00, 0x00}},
};

static void run_bodies(void)
{
    for (unsigned n = 0; n < 2 * sizeof bodies / sizeof bodies[0]; n++) {
        const struct body *body = &bodies[n / 2];
        put_loop(body->code, body->size);
        translator_lab_start(&lab, LAB_CODE, n & 1);
        for (unsigned k = 0; k < 2; k++)
            (k ? lab.interprets : lab.translates)->vcpus[0]->cr0 |= CR0_AM;
        for (unsigned r = RAX; r < R15; r++)
            translator_lab_register(&lab, r, 0x9e3779b97f4a7c15 * (r + 1));
        translator_lab_register(&lab, RBX, LAB_DATA);
        translator_lab_register(&lab, RCX, 3);
        translator_lab_register(&lab, RDX, 5);
        translator_lab_register(&lab, RSI, LAB_DATA + 0x100);
        translator_lab_register(&lab, RDI, LAB_DATA + 0x200);
        translator_lab_register(&lab, RSP, ONE_INSN_STACK);
        translator_lab_register(&lab, R15, 40);
        if (!run_loop()) {
            printf("# %s, user %u\n", body->what, n & 1);
            fail();
        }
    }
}

static void instructions_of_the_system_agree(void **state)
{
    (void)state;
    run_bodies();
}

static void so_they_do_without_bmi2(void **state)
{
    (void)state;
    run_bodies();
}

/* What the translator knows itself, or calls for, does not leave its code. */
static void a_loop_with_calls_stays_in_translated_code(void **state)
{
    /* pushfq; pop %rax; cli; pause; rdtsc; rdtscp; mov %ss, %eax */
    static const uint8_t body[] = {0x9c, 0x58, 0xfa, 0xf3, 0x90, 0x0f,
                                   0x31, 0x0f, 0x01, 0xf9, 0x8c, 0xd0};
    (void)state;
    put_loop(body, sizeof body);
    translator_lab_start(&lab, LAB_CODE, false);
    translator_lab_register(&lab, R15, 5000);
    for (unsigned n = 0; n < 10; n++)
        assert_true(translator_lab_run(&lab, 1000));
    const struct translator_stats *stats = counters();
    assert_in_range(stats->exits[TRANSLATOR_CALL], 2000, 2500);
    assert_int_equal(stats->exits[TRANSLATOR_INTERPRET], 0);
    assert_in_range(stats->exits[TRANSLATOR_BUDGET], 5, 20);
}

/* ---- interrupts ---- */
#define APIC_PAGE (LAB_DATA + 0xe000)
#define VECTOR    0x40
#define HANDLER   (LAB_HANDLER + 0x100)

/* inc %rsi; add 8(%rsp), %rdi (where it came from); mov $0, APIC_PAGE + 0xb0 (end of interrupt); iretq */
static const uint8_t handler[] = {0x48, 0xff, 0xc6, 0x48, 0x03, 0x3c, 0x24, 0xc7, 0x04, 0x25,
                                  0xb0, 0xe0, 0x01, 0x00, 0,    0,    0,    0,    0x48, 0xcf};
/* mov $0x40040, APIC_PAGE + 0x300: an interrupt for itself, pending as long as IF is off */
#define SEND 0xc7, 0x04, 0x25, 0x00, 0xe3, 0x01, 0x00, 0x40, 0x00, 0x04, 0x00

static void open_apic(void)
{
    uint64_t gate[2] = {(HANDLER & 0xffff) | (uint64_t)ONE_INSN_CS64 << 16 | 0x8eull << 40, 0};
    translator_lab_put(&lab, ONE_INSN_IDT + 16 * VECTOR, gate, sizeof gate);
    translator_lab_put(&lab, HANDLER, handler, sizeof handler);
    for (unsigned k = 0; k < 2; k++) {
        struct vm *vm = k ? lab.interprets : lab.translates;
        *one_insn_pte(vm->vcpus[0], APIC_PAGE) = 0xfee00000 | 0x1f;
        vm->running = vm->vcpus[0]; /* it is its own APIC that a processor writes to */
        bus_write(&vm->bus, 0xfee000f0, 4, 0x1ff); /* enabled */
        vm->running = NULL;
        tlb_flush(vm->vcpus[0]);
    }
}

static void interrupts_come_behind_the_same_instruction(void **state)
{
    static const struct {
        uint8_t size;
        uint8_t code[32];
    } loops[] = {
        /* cli; send; sti; inc %rax; inc %rcx */
        {19, {0xfa, SEND, 0xfb, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc1}},
        /* cli; send; sti; cli; inc %rcx: none comes */
        {17, {0xfa, SEND, 0xfb, 0xfa, 0x48, 0xff, 0xc1}},
        /* pushfq; cli; send; nop; popfq; inc %rax: with IF as it was */
        {19, {0xfb, 0x9c, 0xfa, SEND, 0x90, 0x9d, 0x48, 0xff, 0xc0}},
        /* sti; nop; send; inc %rax: IF is on */
        {16, {0xfb, 0x90, SEND, 0x48, 0xff, 0xc0}},
        /* cli; send; mov $40, %ecx; sti; rep lodsb (downwards), in whose middle none comes */
        {20, {0xfa, SEND, 0xb9, 40, 0, 0, 0, 0xfb, 0xf3, 0xac}},
    };
    (void)state;
    for (unsigned n = 0; n < sizeof loops / sizeof loops[0]; n++) {
        put_loop(loops[n].code, loops[n].size);
        translator_lab_start(&lab, LAB_CODE, false);
        open_apic();
        translator_lab_register(&lab, RSI, LAB_DATA);
        translator_lab_register(&lab, R15, 60);
        assert_true(run_loop());
        if (n != 1)
            assert_in_range(lab.translates->vcpus[0]->r[RSI], LAB_DATA + 50, UINT64_MAX);
    }
}

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0) ? 0 : -1;
}

static int open_old_lab(void **state)
{
    (void)state;
    translator_lab_old_host(true);
    bool open = translator_lab_open(&lab, 0);
    translator_lab_old_host(false);
    return open ? 0 : -1;
}

static int close_lab(void **state)
{
    (void)state;
    translator_lab_close(&lab);
    return 0;
}

int main(void)
{
    if (!freopen("/dev/null", "w", stderr)) /* triple faults say so */
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_lab, close_lab)
    const struct CMUnitTest tests[] = {
        TEST(repeated_strings_agree),
        TEST(strings_repeated_while_different_agree),
        TEST(single_strings_agree),
        TEST(instructions_of_the_system_agree),
        cmocka_unit_test_setup_teardown(so_they_do_without_bmi2, open_old_lab, close_lab),
        TEST(a_loop_with_calls_stays_in_translated_code),
        TEST(interrupts_come_behind_the_same_instruction),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
