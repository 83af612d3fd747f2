/* SPDX-License-Identifier: MIT */
/* Lockstep of translator and interpreter finds what is not the same, and only that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/lockstep_pair.h"
#include "runtime/soft/engine.h"
#include "runtime/translator/fast.h"
#include "runtime/translator/translator.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

struct lab {
    struct translator_lab vms;
    char *text;
};

static int open_lab(void **state)
{
    struct lab *lab = calloc(1, sizeof *lab);
    *state = lab;
    return lab && translator_lab_open(&lab->vms, 0) ? 0 : -1;
}

static int close_lab(void **state)
{
    struct lab *lab = *state;
    translator_lab_close(&lab->vms);
    free(lab->text);
    free(lab);
    return 0;
}

/* 1: mov LAB_DATA, %rax; add $1, %rax; mov %rax, LAB_DATA; dec %rcx; jnz 1b; hlt */
static const uint8_t sums[] = {0x48, 0x8b, 0x04, 0x25, 0, 0, 1, 0,    0x48, 0x83, 0xc0, 1,    0x48,
                               0x89, 0x04, 0x25, 0,    0, 1, 0, 0x48, 0xff, 0xc9, 0x75, 0xe7, 0xf4};
#define ADDEND 11 /* offset of the 1 */

static struct lab *lab_of(void **state)
{
    struct lab *lab = *state;
    translator_lab_put(&lab->vms, LAB_CODE, sums, sizeof sums);
    translator_lab_start(&lab->vms, LAB_CODE, false);
    translator_lab_register(&lab->vms, RCX, 200);
    return lab;
}

/* True: a difference was found, and told in lab->text. */
static bool run(struct lab *lab)
{
    struct error err = {0};
    size_t size;
    FILE *stream = open_memstream(&lab->text, &size);
    assert_non_null(stream);
    if (lockstep_pair_run(lab->vms.translates, lab->vms.interprets, stream, &err) < 0)
        fail_msg("%s", err.text);
    fclose(stream);
    return lab->vms.translates->shutdown == SHUTDOWN_DIFFERENCE;
}

#define NO_DIFFERENCE(lab)                                                                         \
    do {                                                                                           \
        if (run(lab))                                                                              \
            fail_msg("%s", (lab)->text);                                                           \
        assert_non_null(strstr((lab)->text, "no difference between translator and interpreter"));  \
    } while (0)
#define TOLD(lab, pattern)                                                                         \
    do {                                                                                           \
        if (!strstr((lab)->text, pattern))                                                         \
            fail_msg("no '%s' in:\n%s", pattern, (lab)->text);                                     \
    } while (0)
#define DIFFERENCE(lab, pattern)                                                                   \
    do {                                                                                           \
        assert_true(run(lab));                                                                     \
        TOLD(lab, pattern);                                                                        \
    } while (0)

/* ---- no difference ---- */
static void the_same_guest_makes_no_difference_at_any_block(void **state)
{
    struct lab *lab = lab_of(state);
    NO_DIFFERENCE(lab);
    TOLD(lab, " 1001 instructions, compared at 202 points"); /* 200 rounds, HLT, the end */
    assert_int_equal(lab->vms.translates->shutdown, SHUTDOWN_HALT);
    assert_in_range(translator_stats(lab->vms.translates->soft->translator)->blocks, 1, 5);
}

static void with_a_stride_there_are_fewer_points(void **state)
{
    struct lab *lab = lab_of(state);
    lab->vms.translates->config.lockstep_stride = 300;
    NO_DIFFERENCE(lab);
    TOLD(lab, " 1001 instructions");
    uint64_t points = strtoull(strstr(lab->text, "compared at ") + 12, NULL, 10);
    assert_in_range(points, 4, 60);
}

static void it_ends_after_as_many_instructions_as_asked_for(void **state)
{
    struct lab *lab = lab_of(state);
    lab->vms.translates->config.lockstep_count = 500;
    NO_DIFFERENCE(lab);
    TOLD(lab, " 500 instructions, compared at 100 points");
    assert_int_equal(lab->vms.translates->shutdown, SHUTDOWN_STEPS);
}

static void faults_lead_both_to_their_handler(void **state)
{
    struct lab *lab = lab_of(state);
    translator_lab_put(&lab->vms, LAB_CODE + sizeof sums - 1, "\x0f\x0b", 2);
    NO_DIFFERENCE(lab);
    assert_int_equal(lab->vms.interprets->shutdown, SHUTDOWN_HALT);
}

static void triple_fault(struct lab *lab, uint64_t stride)
{
    translator_lab_put(&lab->vms, LAB_CODE + sizeof sums - 1, "\x0f\x0b", 2);
    lab->vms.translates->config.lockstep_stride = stride;
    lab->vms.translates->vcpus[0]->idt_limit = lab->vms.interprets->vcpus[0]->idt_limit = 0;
    NO_DIFFERENCE(lab);
    assert_int_equal(lab->vms.translates->shutdown, SHUTDOWN_TRIPLE_FAULT);
}

static void a_triple_fault_ends_both(void **state)
{
    triple_fault(lab_of(state), 0);
}

static void and_behind_a_stride(void **state)
{
    triple_fault(lab_of(state), 300);
}

/* ---- differences ---- */
static void a_register_that_differs_is_told_with_the_block(void **state)
{
    struct lab *lab = lab_of(state);
    lab->vms.interprets->memory.host[LAB_DATA] = 1;
    DIFFERENCE(lab, "a difference after 5 instructions and 0 points: the states are not the same");
    TOLD(lab, "  rax            0000000000000001, 0000000000000002");
    TOLD(lab, "  0x8008 4883c001 add rax, 0x01");
    assert_int_equal(lab->vms.translates->exit_code, HVRUN_DIFFERENCE);
}

/* What look-ups of translated code find is not where the page is. */
static void mistaken(struct lab *lab, uint64_t stride)
{
    struct vm *vm = lab->vms.translates;
    vm->config.lockstep_stride = stride;
    vm->config.lockstep_count = 500;
    NO_DIFFERENCE(lab);
    vm->shutdown = SHUTDOWN_NONE;
    vm->config.lockstep_count = 0;
    vm->vcpus[0]->fast->addend[FAST_KERNEL][fast_page_slot(LAB_DATA)] += 8;
    free(lab->text);
    lab->text = NULL;
    DIFFERENCE(lab, "the states are not the same");
    TOLD(lab, "hvrun: lockstep: interpreter, ");
    TOLD(lab, "  rax    ");
    TOLD(lab, "dec rcx");
}

static void a_translator_that_is_mistaken_is_found_out(void **state)
{
    mistaken(lab_of(state), 0);
}

static void with_a_stride_too(void **state)
{
    mistaken(lab_of(state), 30);
}

static void another_way_is_a_difference(void **state)
{
    struct lab *lab = lab_of(state);
    lab->vms.translates->config.lockstep_stride = 300;
    lab->vms.interprets->memory.host[LAB_CODE + 23] = 0x74; /* JZ in place of JNZ */
    DIFFERENCE(lab, "a difference after 6 instructions");
}

static void memory_is_compared_at_the_end(void **state)
{
    struct lab *lab = lab_of(state);
    lab->vms.interprets->memory.host[0x12345] = 0x80;
    DIFFERENCE(lab, "memory is not the same");
    TOLD(lab, "RAM 12340      0000000000000000, 0000800000000000");
}

static void system_registers_are_compared(void **state)
{
    struct lab *lab = lab_of(state);
    lab->vms.interprets->vcpus[0]->star = 5;
    DIFFERENCE(lab, "star           0000000000000000, 0000000000000005");
}

int main(void)
{
    if (!freopen("/dev/null", "w", stderr)) /* triple faults say so */
        return 1;
#define T(name) cmocka_unit_test_setup_teardown(name, open_lab, close_lab)
    const struct CMUnitTest tests[] = {
        T(the_same_guest_makes_no_difference_at_any_block),
        T(with_a_stride_there_are_fewer_points),
        T(it_ends_after_as_many_instructions_as_asked_for),
        T(faults_lead_both_to_their_handler),
        T(a_triple_fault_ends_both),
        T(and_behind_a_stride),
        T(a_register_that_differs_is_told_with_the_block),
        T(a_translator_that_is_mistaken_is_found_out),
        T(with_a_stride_too),
        T(another_way_is_a_difference),
        T(memory_is_compared_at_the_end),
        T(system_registers_are_compared),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
