/* SPDX-License-Identifier: MIT */
/* VM entry with the single-step indicator in a kernel that switches tasks by hardware: task gates, and tasks whose own
 * state faults (S2 to S5, S12). */
#include "tests/unit/step_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { TASK = 0x50, TSS = 0x4000, OLD_TSS = 0x5000, TARGET = 0x9800, TASK_STACK = 0x28000 };
enum { EIP = 32, EFLAGS = 36, ESP = 56, ES = 72, CS = 76, DS = 84 }; /* in a TSS */

static void gate(struct vcpu *cpu, int vector, uint64_t descriptor)
{
    one_insn_put(cpu, ONE_INSN_IDT + 8 * (unsigned)vector, 8, descriptor);
}
#define TASK_GATE          ((uint64_t)TASK << 16 | 0x8500ull << 32)
#define INTERRUPT_GATE(at) ((uint64_t)(at) | (uint64_t)ONE_INSN_CS32 << 16 | 0x8e00ull << 32)

/* A 32-bit kernel without gates, with a second task. */
static void make_tasks(struct step_lab *lab)
{
    struct vcpu *cpu = lab->cpu;
    one_insn_mode(cpu, ONE_INSN_32, false);
    one_insn_put(cpu, ONE_INSN_GDT + TASK, 8, 0x0000890000000000 | (uint64_t)TSS << 16 | 0x67);
    one_insn_put(cpu, ONE_INSN_GDT + ONE_INSN_TR, 8,
                 0x00008b0000000000 | (uint64_t)OLD_TSS << 16 | 0x67);
    cpu->segment[SEG_TR] = (struct segment){ONE_INSN_TR, RIGHTS_P | 0xb, 0x67, OLD_TSS};
    one_insn_put(cpu, TSS + EIP, 4, TARGET);
    one_insn_put(cpu, TSS + EFLAGS, 4, RFLAGS_ONE);
    one_insn_put(cpu, TSS + ESP, 4, TASK_STACK);
    for (unsigned n = 0; n < 6; n++)
        one_insn_put(cpu, TSS + ES + 4 * n, 4, ES + 4 * n == CS ? ONE_INSN_CS32 : ONE_INSN_DS);
    memset(one_insn_at(cpu, ONE_INSN_IDT), 0, 0x800);
    cpu->idt_limit = 0x7ff;
    vmcs_state_changed(lab->vmcs);
}

/* Its data segment cannot be loaded: #TS in the new task. */
static void spoil_task(struct step_lab *lab)
{
    one_insn_put(lab->cpu, TSS + DS, 4, 0x58); /* an empty descriptor */
}

static void S5_a_double_fault_through_a_task_gate(void **state)
{
    static const uint8_t ud[] = {0x0f, 0x0b};
    struct step_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    gate(cpu, EXC_DF, TASK_GATE);
    step_load(lab, STEP_CODE, ud, ud + sizeof ud); /* #UD, no gate: #GP, no gate: #DF */
    STEPS_TO(TARGET);
    assert_int_equal(cpu->segment[SEG_TR].selector, TASK);
    assert_int_equal(cpu->r[RSP], TASK_STACK - 4);
    assert_int_equal(one_insn_get(cpu, OLD_TSS + EIP, 4), STEP_CODE);
    /* the same with a TSS that is busy: refused, and that is the third */
    cpu->rip = STEP_CODE;
    assert_int_equal(step(lab), VMCS_EXIT_TRIPLE_FAULT);
}

/* JMP 0x50:0 behind MOV SS, at a breakpoint that RF lets pass: both end with the instruction. */
static const uint8_t jump[] = {0xea, 0, 0, 0, 0, TASK, 0};

static void S2_a_fault_of_the_task_jumped_to_finds_that_task(void **state)
{
    struct step_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    spoil_task(lab);
    step_load(lab, STEP_CODE, jump, jump + sizeof jump);
    lab->vmcs->interruptibility = VMCS_BLOCKED_MOVSS;
    lab->vmcs->exception_bitmap = 1u << EXC_TS;
    vcpu_set_rflags(cpu, vcpu_rflags(cpu) | RFLAGS_RF);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_TS);
    assert_int_equal(lab->vmcs->event.error, 0x58);
    assert_false(lab->vmcs->vectoring.valid);
    assert_int_equal(cpu->segment[SEG_TR].selector, TASK);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(lab->vmcs->interruptibility, 0);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_ONE);
    assert_int_equal(one_insn_get(cpu, OLD_TSS + EIP, 4), STEP_BEHIND(sizeof jump));
}

static void S3_and_is_delivered_there(void **state)
{
    struct step_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    spoil_task(lab);
    gate(cpu, EXC_TS, INTERRUPT_GATE(0xa000));
    step_load(lab, STEP_CODE, jump, jump + sizeof jump);
    STEPS_TO(0xa000);
    assert_int_equal(lab->vmcs->delivered.vector, EXC_TS);
    assert_int_equal(cpu->r[RSP], TASK_STACK - 16);
    assert_int_equal(one_insn_get(cpu, TASK_STACK - 12, 4), TARGET);
}

static void S5_a_triple_fault_of_the_task_jumped_to(void **state)
{
    struct step_lab *lab = *state;
    spoil_task(lab); /* #TS, no gate: #GP, no gate: #DF, no gate */
    step_load(lab, STEP_CODE, jump, jump + sizeof jump);
    assert_int_equal(step(lab), VMCS_EXIT_TRIPLE_FAULT);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_SHUTDOWN);
    assert_int_equal(lab->cpu->rip, TARGET);
}

static void S5_what_arrives_last_is_the_fault_of_the_interrupt_s_task(void **state)
{
    static const uint8_t software[] = {0xcd, 0x40}; /* INT 0x40 */
    struct step_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    spoil_task(lab);
    gate(cpu, 0x40, TASK_GATE);
    gate(cpu, EXC_TS, INTERRUPT_GATE(0xa000));
    step_load(lab, STEP_CODE, software, software + sizeof software);
    STEPS_TO(0xa000);
    assert_int_equal(lab->vmcs->delivered.vector, EXC_TS);
    assert_int_equal(lab->vmcs->delivered.type, VMCS_EVENT_EXCEPTION);
    assert_int_equal(one_insn_get(cpu, TASK_STACK - 12, 4), TARGET);
    assert_int_equal(one_insn_get(cpu, OLD_TSS + EIP, 4), STEP_BEHIND(sizeof software));
}

static void S4_an_nmi_whose_task_faults_has_arrived_there(void **state)
{
    struct step_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    spoil_task(lab);
    gate(cpu, EXC_NMI, TASK_GATE);
    lab->vmcs->exception_bitmap = 1u << EXC_TS;
    vmcs_raise_nmi(lab->vmcs);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_TS);
    assert_int_equal(lab->vmcs->vectoring.vector, EXC_NMI);
    assert_int_equal(lab->vmcs->vectoring.type, VMCS_EVENT_NMI);
    assert_int_equal(cpu->segment[SEG_TR].selector, TASK);
    assert_int_equal(lab->vmcs->interruptibility, VMCS_BLOCKED_NMI);
}

int main(void)
{
#define T(name)                                                                                    \
    {                                                                                              \
#name, name, make_tasks                                                                    \
    }
    static const struct step_test tests[] = {
        T(S5_a_double_fault_through_a_task_gate),
        T(S2_a_fault_of_the_task_jumped_to_finds_that_task),
        T(S3_and_is_delivered_there),
        T(S5_a_triple_fault_of_the_task_jumped_to),
        T(S5_what_arrives_last_is_the_fault_of_the_interrupt_s_task),
        T(S4_an_nmi_whose_task_faults_has_arrived_there),
    };
    return step_run_tests(tests, sizeof tests / sizeof tests[0]);
}
