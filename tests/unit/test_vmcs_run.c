/* SPDX-License-Identifier: MIT */
/* VM entry without the single-step indicator: what ends a run (S0). */
#include "tests/unit/step_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define CODE(n) STEP_BEHIND(n)

/* ---- S0 ---- */
STEP_ASM(count, "1: inc %rax; cmp $1000, %rax; jne 1b; cpuid; hlt");
static void S0_without_the_indicator_it_runs_to_an_exit_of_another_kind(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, count);
    lab->vmcs->single_step = false;
    lab->vmcs->exiting = VMCS_CPUID_EXITING;
    assert_int_equal(step_enter(lab), VMCS_EXIT_CPUID);
    assert_int_equal(lab->cpu->r[RAX], 1000);
    assert_int_equal(lab->cpu->rip, CODE(count_end - count_code - 3));
    assert_int_equal(lab->vmcs->instruction_length, 2);
    assert_int_equal(step_enter(lab), VMCS_EXIT_CPUID); /* still there: it was not executed */
    lab->cpu->rip += lab->vmcs->instruction_length;
    lab->vmcs->exiting = VMCS_HLT_EXITING;
    assert_int_equal(step_enter(lab), VMCS_EXIT_HLT);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_ACTIVE);
    assert_int_equal(lab->vm.stats.steps, 0);
}

STEP_ASM(for_ever, "1: inc %rax; jmp 1b");
static void S0_a_limit_of_instructions_ends_a_run_exactly(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, for_ever);
    lab->vmcs->single_step = false;
    lab->vmcs->limit = 1001;
    assert_int_equal(step_enter(lab), VMCS_EXIT_LIMIT);
    assert_int_equal(lab->cpu->r[RAX], 501);
    lab->vmcs->limit = 300001;
    assert_int_equal(step_enter(lab), VMCS_EXIT_LIMIT);
    assert_int_equal(lab->cpu->r[RAX], 501 + 150000);
}

static bool ask(void *context)
{
    return ++*(unsigned *)context == 3;
}
static void S0_a_request_from_outside_ends_a_run(void **state)
{
    struct step_lab *lab = *state;
    unsigned asked = 0;
    STEP_LOAD(lab, for_ever);
    lab->vmcs->single_step = false;
    vmcs_interrupt(&lab->vm);
    assert_int_equal(step_enter(lab), VMCS_EXIT_REQUEST);
    vmcs_poll(&lab->vm, -1, ask, &asked);
    assert_int_equal(step_enter(lab), VMCS_EXIT_REQUEST);
    assert_int_equal(asked, 3);
    assert_true(lab->cpu->r[RAX] > 0);
}

static void S0_breakpoints_and_watchpoints_end_a_run(void **state)
{
    struct step_lab *lab = *state;
    struct error err;
    STEP_LOAD(lab, count);
    lab->vmcs->single_step = false;
    assert_int_equal(vmcs_break(&lab->vm, CODE(3), &err), 0);
    for (unsigned n = 1; n < 5; n++) {
        assert_int_equal(step_enter(lab), VMCS_EXIT_BREAKPOINT);
        assert_int_equal(lab->cpu->rip, CODE(3));
        assert_int_equal(lab->vmcs->qualification, CODE(3));
        assert_int_equal(lab->cpu->r[RAX], n);
    }
    lab->vmcs->single_step = true;
    STEPS_TO(CODE(9)); /* a step passes over it */
    vmcs_unbreak(&lab->vm, CODE(3));
    lab->vmcs->single_step = false;
    lab->vmcs->exiting = VMCS_CPUID_EXITING;
    assert_int_equal(step_enter(lab), VMCS_EXIT_CPUID);
    assert_int_equal(lab->cpu->r[RAX], 1000);
}

STEP_ASM(touch, "mov %eax, 0x10010; mov 0x10020, %ebx; addl $1, 0x10030; nop; hlt");
static void S0_watchpoints_end_a_run_behind_the_access(void **state)
{
    struct step_lab *lab = *state;
    struct error err;
    STEP_LOAD(lab, touch);
    lab->vmcs->single_step = false;
    assert_int_equal(vmcs_watch(&lab->vm, 0x10020, 4, VMCS_WATCH_READ, &err), 0);
    assert_int_equal(vmcs_watch(&lab->vm, 0x10032, 1, VMCS_WATCH_WRITE, &err), 0);
    assert_int_equal(step_enter(lab), VMCS_EXIT_WATCHPOINT);
    assert_int_equal(lab->cpu->rip, CODE(14));
    assert_int_equal(lab->vmcs->watch_linear, 0x10020);
    assert_int_equal(lab->vmcs->watch_kind, VMCS_WATCH_READ);
    assert_int_equal(step_enter(lab), VMCS_EXIT_WATCHPOINT);
    assert_int_equal(lab->vmcs->watch_linear, 0x10032);
    lab->cpu->rip = STEP_CODE;
    lab->vmcs->single_step = true;
    STEPS_TO(CODE(7));
    assert_int_equal(lab->vmcs->watch_kind, 0);
    STEPS_TO(CODE(14));
    assert_int_equal(lab->vmcs->watch_kind, VMCS_WATCH_READ);
}

int main(void)
{
#define T(name)                                                                                    \
    {                                                                                              \
#name, name, NULL                                                                          \
    }
    static const struct step_test tests[] = {
        T(S0_without_the_indicator_it_runs_to_an_exit_of_another_kind),
        T(S0_a_limit_of_instructions_ends_a_run_exactly),
        T(S0_a_request_from_outside_ends_a_run),
        T(S0_breakpoints_and_watchpoints_end_a_run),
        T(S0_watchpoints_end_a_run_behind_the_access),
    };
    return step_run_tests(tests, sizeof tests / sizeof tests[0]);
}
