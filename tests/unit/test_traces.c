/* SPDX-License-Identifier: MIT */
/* Several blocks in a row as one piece of code: translated loops come to what the interpreter comes to, whatever the
 * way they go, whatever they change of themselves, and wherever their slices end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

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

static uint64_t left(void)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < TRANSLATOR_EXITS; k++)
        sum += counters()->exits[k];
    return sum;
}

/* Slices of so many instructions until both have halted, R15 rounds. */
static void run(uint64_t rip, const void *code, size_t size, uint64_t rounds, int64_t slice)
{
    translator_lab_put(&lab, rip, code, size);
    translator_lab_start(&lab, rip, false);
    translator_lab_register(&lab, R15, rounds);
    translator_lab_register(&lab, RSI, rip + 0x15); /* what the program of indirect_targets calls */
    translator_lab_register(&lab, RDI, rip + 0x20);
    translator_lab_register(&lab, R8, LAB_DATA);
    for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 100000; slices++)
        assert_true(translator_lab_run(&lab, slice));
    assert_true(translator_lab_halted(&lab));
}

static uint64_t result(void)
{
    return lab.translates->vcpus[0]->r[RBX];
}

/* inc %rbx; jmp 1f; 1: dec %r15; jnz start; hlt */
static const uint8_t plain_loop[] = {0x48, 0xff, 0xc3, 0xeb, 0x00, 0x49,
                                     0xff, 0xcf, 0x75, 0xf6, 0xf4};

static void a_hot_loop_becomes_one_piece(void **state)
{
    (void)state;
    run(LAB_CODE, plain_loop, sizeof plain_loop, 100000, 1000);
    assert_int_equal(result(), 100000);
    assert_in_range(counters()->traces, 1, 4);
    assert_in_range(left(), 1, 3 * 400); /* for the slices' ends */
}

/* Whatever is left of a slice: the trace takes several rounds at once, and gives back. */
static void slices_end_where_they_do_without_traces(void **state)
{
    (void)state;
    for (int64_t slice = 1; slice < 200; slice += 7)
        run(LAB_CODE, plain_loop, sizeof plain_loop, 2000, slice);
    assert_in_range(counters()->traces, 1, 60);
}

/* 0: mov $1, %eax; jmp 1f; 1: add %rax, %rbx; test $63, %r15b; jnz 2f; incb start+1(%rip); 2: dec %r15; jnz 0b; hlt */
static const uint8_t changing_loop[] = {0xb8, 0x01, 0x00, 0x00, 0x00, 0xeb, 0x00, 0x48, 0x01, 0xc3,
                                        0x41, 0xf6, 0xc7, 0x3f, 0x75, 0x06, 0xfe, 0x05, 0xeb, 0xff,
                                        0xff, 0xff, 0x49, 0xff, 0xcf, 0x75, 0xe5, 0xf4};

/* The first round adds 1, then 64 rounds each add 2, 3, ...; the last number is short of one. */
static uint64_t sum_of_changing_loop(uint64_t numbers)
{
    uint64_t all = numbers * (numbers + 1) / 2;
    return 1 + 64 * (all - 1) + 63 * (numbers + 1);
}

static void a_trace_goes_with_any_of_its_blocks(void **state)
{
    (void)state;
    run(LAB_CODE, changing_loop, sizeof changing_loop, 64 * 40, 150);
    assert_int_equal(result(), sum_of_changing_loop(40));
    assert_in_range(counters()->traces, 10, 200);
}

/* Somebody else writes to the second block, while the guest does not run. */
static void a_trace_goes_with_what_is_written_from_outside(void **state)
{
    (void)state;
    /* 0: jmp 1f; 1: add $1, %rbx; jmp 2f; 2: dec %r15; jnz 0b; hlt */
    static const uint8_t code[] = {0xeb, 0x00, 0x48, 0x83, 0xc3, 0x01, 0xeb,
                                   0x00, 0x49, 0xff, 0xcf, 0x75, 0xf3, 0xf4};
    translator_lab_put(&lab, LAB_CODE, code, sizeof code);
    translator_lab_start(&lab, LAB_CODE, false);
    translator_lab_register(&lab, R15, 10000);
    for (unsigned n = 0; n < 20; n++) {
        for (unsigned slices = 0; slices < 5; slices++)
            assert_true(translator_lab_run(&lab, 300));
        assert_in_range(counters()->traces, n + 1, 100);
        translator_lab_put(&lab, LAB_CODE + 5, &(uint8_t){(uint8_t)(n + 2)}, 1);
    }
}

/* 0: call 3f; 1: inc %rbx; 2: dec %r15; jnz 0b; hlt; 3: lea (%rbx,%r15), %rax; test $31, %r15b; jnz 4f;
 * addq $3, (%rsp); 4: ret -- which leads to 2 every 32nd time */
static const uint8_t returning_loop[] = {
    0xe8, 0x09, 0x00, 0x00, 0x00, 0x48, 0xff, 0xc3, 0x49, 0xff, 0xcf, 0x75, 0xf3, 0xf4, 0x4a,
    0x8d, 0x04, 0x3b, 0x41, 0xf6, 0xc7, 0x1f, 0x75, 0x05, 0x48, 0x83, 0x04, 0x24, 0x03, 0xc3};

static void returns_may_lead_elsewhere(void **state)
{
    (void)state;
    run(LAB_CODE, returning_loop, sizeof returning_loop, 3200, 500);
    assert_int_equal(result(), 3200 - 100);
    assert_in_range(counters()->traces, 1, 20);
}

/* 0: mov %rsi, %rax; test $31, %r15b; cmovz %rdi, %rax; call *%rax; jmp *%rdx; 1: dec %r15; jnz 0b; hlt;
 * 2 (RSI): inc %rbx; lea 1b(%rip), %rdx; ret; 3 (RDI): add $5, %rbx; ret */
static const uint8_t indirect_loop[] = {0x48, 0x89, 0xf0, 0x41, 0xf6, 0xc7, 0x1f, 0x48, 0x0f, 0x44,
                                        0xc7, 0xff, 0xd0, 0xff, 0xe2, 0x49, 0xff, 0xcf, 0x75, 0xec,
                                        0xf4, 0x48, 0xff, 0xc3, 0x48, 0x8d, 0x15, 0xf0, 0xff, 0xff,
                                        0xff, 0xc3, 0x48, 0x83, 0xc3, 0x05, 0xc3};

static void indirect_targets_may_change(void **state)
{
    (void)state;
    run(LAB_CODE, indirect_loop, sizeof indirect_loop, 3199, 500);
    assert_int_equal(result(), 3199 + 99 * 4);
    assert_in_range(counters()->traces, 1, 20);
}

/* 0: mov (%r8), %rax; add %rax, %rbx; mov %rbx, 8(%r8); add $16, %r8; dec %r15; jnz 0b; hlt. It reaches pages that are
 * read-only, are missing, are devices' */
static const uint8_t walking_loop[] = {0x49, 0x8b, 0x00, 0x48, 0x01, 0xc3, 0x49, 0x89, 0x58, 0x08,
                                       0x49, 0x83, 0xc0, 0x10, 0x49, 0xff, 0xcf, 0x75, 0xed, 0xf4};

static void rounds_share_a_look_up_up_to_the_page_that_is_none(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 4; n++) {
        run(LAB_CODE, walking_loop, sizeof walking_loop, 0x1000, 1000 + 77 * n);
        /* to the handler of #PF, and to the page's address */
        assert_int_equal(lab.translates->vcpus[0]->cr2 & ~0xfffull, LAB_READONLY);
    }
    assert_in_range(counters()->traces, 1, 20);
}

/* 0: mov (%r8), %rax; add %rax, %rbx; mov %rax, (%r9); mov 8(%r8), %rdx; lea (%rdx,%rbx), %rdi; mov %rdx, 8(%r9);
 * xor %rdi, %rbx; push %rax; pop %rdx; add $16, %r8; add $24, %r9; dec %r15; jnz 0b; hlt */
static const uint8_t copying_loop[] = {0x49, 0x8b, 0x00, 0x48, 0x01, 0xc3, 0x49, 0x89, 0x01, 0x49,
                                       0x8b, 0x50, 0x08, 0x48, 0x8d, 0x3c, 0x1a, 0x49, 0x89, 0x51,
                                       0x08, 0x48, 0x31, 0xfb, 0x50, 0x5a, 0x49, 0x83, 0xc0, 0x10,
                                       0x49, 0x83, 0xc1, 0x18, 0x49, 0xff, 0xcf, 0x75, 0xd9, 0xf4};

static void two_groups_of_accesses_may_overlap(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 40; n++) {
        for (unsigned at = 0; at < 0x4000; at += 4)
            translator_lab_put(&lab, LAB_DATA + at, &(uint32_t){at * 2654435761u}, 4);
        translator_lab_put(&lab, LAB_CODE, copying_loop, sizeof copying_loop);
        translator_lab_start(&lab, LAB_CODE, n & 1);
        translator_lab_register(&lab, R8, LAB_DATA + 8 * n);
        /* over itself, into the program's own page, to the page that is read-only, or elsewhere */
        translator_lab_register(&lab, R9,
                                n % 4 == 0   ? LAB_DATA + 0x100 + n
                                : n % 4 == 1 ? LAB_CODE - 0x1000 + 8 * n
                                : n % 4 == 2 ? LAB_READONLY - 0x1000 - 8 * n
                                             : LAB_DATA + 0x4000 + n);
        translator_lab_register(&lab, R15, n % 4 == 1 ? 165 : 500);
        for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 1000; slices++)
            assert_true(translator_lab_run(&lab, 1000 + 13 * n));
        assert_true(translator_lab_halted(&lab));
    }
    assert_in_range(counters()->traces, 1, 80);
}

/* The same page at another address, where other blocks are hot: each has its own trace. */
static void aliases_have_traces_of_their_own(void **state)
{
    const uint64_t alias = 0x14000;
    (void)state;
    for (unsigned n = 0; n < 6; n++) {
        translator_lab_put(&lab, LAB_CODE, changing_loop, sizeof changing_loop);
        translator_lab_start(&lab, n & 1 ? alias : LAB_CODE, false);
        for (unsigned k = 0; k < 2; k++) {
            struct vcpu *cpu = (k ? lab.interprets : lab.translates)->vcpus[0];
            *one_insn_pte(cpu, alias) = LAB_CODE | 7;
            tlb_flush(cpu);
        }
        translator_lab_register(&lab, R15, 640);
        for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 1000; slices++)
            assert_true(translator_lab_run(&lab, 160));
        assert_true(translator_lab_halted(&lab));
        assert_int_equal(result(), sum_of_changing_loop(10));
    }
    assert_in_range(counters()->traces, 6, 200);
}

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0x60000) ? 0 : -1;
}

static int open_old_lab(void **state)
{
    translator_lab_old_host(true);
    int failed = open_lab(state);
    translator_lab_old_host(false);
    return failed;
}

static int close_lab(void **state)
{
    (void)state;
    translator_lab_close(&lab);
    return 0;
}

#define TEST(name)                                                                                 \
    {#name, name, open_lab, close_lab, NULL},                                                      \
    {                                                                                              \
#name "_without_bmi2", name, open_old_lab, close_lab, NULL                                 \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_hot_loop_becomes_one_piece),
        TEST(slices_end_where_they_do_without_traces),
        TEST(a_trace_goes_with_any_of_its_blocks),
        TEST(a_trace_goes_with_what_is_written_from_outside),
        TEST(returns_may_lead_elsewhere),
        TEST(indirect_targets_may_change),
        TEST(rounds_share_a_look_up_up_to_the_page_that_is_none),
        TEST(two_groups_of_accesses_may_overlap),
        TEST(aliases_have_traces_of_their_own),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
