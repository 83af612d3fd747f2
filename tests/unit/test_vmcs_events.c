/* SPDX-License-Identifier: MIT */
/* VM entry with the single-step indicator: halted processors, events of higher priority, system-management software, and
 * what the guest cannot tell (S8 to S17). */
#include "tests/unit/step_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/soft/engine.h"

#define CODE(n) STEP_BEHIND(n)

/* ---- S8 to S11: HLT ---- */
/* Arms the APIC's timer for 1000 ticks, vector 0x30, and halts. */
STEP_ASM(timer, "mov $0x832, %ecx; xor %edx, %edx; mov $0x30, %eax; wrmsr; mov $0x838, %ecx; "
                "mov $100000, %eax; wrmsr; sti; hlt; nop; nop");

static void to_halt(struct step_lab *lab)
{
    STEP_LOAD(lab, timer);
    step_apic(lab);
    for (unsigned n = 0; n < 9; n++)
        assert_int_equal(step(lab), VMCS_EXIT_STEP);
    assert_int_equal(lab->cpu->rip, CODE(timer_end - timer_code - 2));
}

static void S8_S10_a_halted_guest_steps_when_its_timer_wakes_it(void **state)
{
    struct step_lab *lab = *state;
    to_halt(lab);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_HLT);
    uint64_t before = clock_now(&lab->vm.clock), rip = lab->cpu->rip;
    STEPS_TO(STEP_HANDLER(0x30)); /* no exit until then */
    assert_true(clock_now(&lab->vm.clock) - before > 50000);
    assert_int_equal(step_stack(lab, 0), rip);
    assert_int_equal(lab->vmcs->delivered.vector, 0x30);
    assert_int_equal(lab->vmcs->delivered.type, VMCS_EVENT_EXTERNAL);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_ACTIVE);
    STEPS_TO(STEP_HANDLER(0x30) + 1);
    STEPS_TO(rip);
    STEPS_TO(rip + 1);
}

static void S8_without_a_break_event_there_is_no_exit_but_the_machines_end(void **state)
{
    struct step_lab *lab = *state;
    lab->vmcs->activity = ACTIVITY_HLT;
    assert_int_equal(step(lab), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->vm.shutdown, SHUTDOWN_HALT);
    assert_int_equal(lab->vmcs->steps, 0);
}

static bool raise_nmi(void *context)
{
    struct step_lab *lab = context;
    vmcs_raise_nmi(lab->vmcs);
    vmcs_poll(&lab->vm, -1, NULL, NULL);
    return false;
}
static void S8_S10_an_nmi_from_outside_wakes_a_halted_guest(void **state)
{
    struct step_lab *lab = *state;
    lab->vmcs->activity = ACTIVITY_HLT;
    vmcs_poll(&lab->vm, -1, raise_nmi, lab);
    STEPS_TO(STEP_HANDLER(EXC_NMI));
    assert_int_equal(lab->vmcs->interruptibility, VMCS_BLOCKED_NMI);
}

/* S9 */
static void S9_the_break_event_exits(void **state)
{
    struct step_lab *lab = *state;
    to_halt(lab);
    lab->vmcs->interrupt_exiting = true;
    uint64_t rip = lab->cpu->rip;
    assert_int_equal(step(lab), VMCS_EXIT_INTERRUPT);
    assert_int_equal(lab->cpu->rip, rip);
    assert_false(lab->vmcs->event.valid);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_HLT);
    assert_int_equal(step(lab), VMCS_EXIT_INTERRUPT); /* it is still pending */
    lab->vmcs->acknowledge_interrupt = true;
    assert_int_equal(step(lab), VMCS_EXIT_INTERRUPT);
    assert_int_equal(lab->vmcs->event.vector, 0x30);
    lab->vmcs->entry_event = lab->vmcs->event; /* the VMM passes it on */
    STEPS_TO(STEP_HANDLER(0x30));
    assert_int_equal(lab->vmcs->activity, ACTIVITY_ACTIVE);

    lab->vmcs->activity = ACTIVITY_HLT;
    lab->vmcs->nmi_exiting = true;
    vmcs_raise_nmi(lab->vmcs);
    assert_int_equal(step(lab), VMCS_EXIT_NMI);
    assert_int_equal(lab->vmcs->event.vector, EXC_NMI);
    assert_int_equal(lab->vmcs->interruptibility, 0);
}

static void S10_delivery_of_the_break_event_faults(void **state)
{
    struct step_lab *lab = *state;
    step_gate(lab, 0x30, STEP_ABSENT);
    to_halt(lab);
    lab->vmcs->exception_bitmap = 1u << EXC_NP;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION); /* S4 */
    assert_int_equal(lab->vmcs->event.vector, EXC_NP);
    assert_int_equal(lab->vmcs->vectoring.vector, 0x30);
    lab->vmcs->exception_bitmap = 0;
    lab->vmcs->entry_event = lab->vmcs->vectoring;
    STEPS_TO(STEP_HANDLER(EXC_NP)); /* S5 */
}

STEP_ASM(halt, "hlt; nop; nop");
static void S11_the_activity_state_is_saved_if_asked_for(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, halt);
    lab->vmcs->save_activity = false;
    STEPS_TO(CODE(1));
    assert_int_equal(lab->vmcs->activity, ACTIVITY_ACTIVE); /* as it was */
    STEPS_TO(CODE(2));                                      /* so the guest goes on */
    lab->cpu->rip = STEP_CODE;
    lab->vmcs->save_activity = true;
    STEPS_TO(CODE(1));
    assert_int_equal(lab->vmcs->activity, ACTIVITY_HLT);
    /* and the other way round: entered halted, woken, but not saved */
    lab->vmcs->save_activity = false;
    vmcs_raise_nmi(lab->vmcs);
    STEPS_TO(STEP_HANDLER(EXC_NMI));
    assert_int_equal(lab->vmcs->activity, ACTIVITY_HLT);
}

/* ---- S12: higher priority, the VMM's ---- */
/* Writes the x2APIC's interrupt command register: whatever it sends to this processor comes behind the instruction. */
STEP_ASM(send, "wrmsr; nop; nop");

static void send(struct step_lab *lab, uint32_t command)
{
    STEP_LOAD(lab, send);
    step_apic(lab);
    lab->cpu->rip = STEP_CODE;
    lab->cpu->r[RCX] = 0x830;
    lab->cpu->r[RAX] = command;
    lab->cpu->r[RDX] = 0;
}
#define SEND_SMI  0x200
#define SEND_NMI  0x400
#define SEND_INIT 0x4500

static void S12_an_smi_for_the_vmm(void **state)
{
    struct step_lab *lab = *state;
    send(lab, SEND_SMI);
    lab->vmcs->smi_exiting = true;
    assert_int_equal(step(lab), VMCS_EXIT_SMI);
    assert_int_equal(lab->cpu->rip, CODE(2)); /* the instruction is done */
    assert_false(lab->vmcs->pending_step_exit);
    assert_int_equal(lab->vmcs->steps, 0);
    STEPS_TO(CODE(3));
}

static void S12_init_and_machine_check_for_the_vmm(void **state)
{
    struct step_lab *lab = *state;
    send(lab, SEND_INIT);
    lab->vmcs->init_exiting = true;
    lab->vmcs->exception_bitmap = 1u << EXC_MC;
    assert_int_equal(step(lab), VMCS_EXIT_INIT);
    assert_int_equal(lab->cpu->rip, CODE(2)); /* not reset */
    vmcs_raise_machine_check(lab->vmcs);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_MC);
    assert_int_equal(lab->cpu->rip, CODE(2));
}

static void S12_the_order_is_machine_check_init_smi_then_the_step(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, send);
    lab->cpu->rip = CODE(2);
    lab->vmcs->smi_exiting = lab->vmcs->init_exiting = lab->vmcs->nmi_exiting = true;
    lab->vmcs->exception_bitmap = 1u << EXC_MC;
    vmcs_raise_smi(lab->vmcs);
    vmcs_raise_init(lab->vmcs);
    vmcs_raise_machine_check(lab->vmcs);
    vmcs_raise_nmi(lab->vmcs);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_MC);
    assert_int_equal(step(lab), VMCS_EXIT_INIT);
    assert_int_equal(step(lab), VMCS_EXIT_SMI);
    assert_int_equal(step(lab), VMCS_EXIT_NMI);
    assert_int_equal(lab->cpu->rip, CODE(2));
    STEPS_TO(CODE(3));
}

static void S12_debug_traps_nmis_and_interrupts_stay_pending(void **state)
{
    struct step_lab *lab = *state;
    send(lab, SEND_NMI);
    STEPS_TO(CODE(2)); /* the step comes first … */
    assert_false(lab->vmcs->delivered.valid);
    STEPS_TO(STEP_HANDLER(
        EXC_NMI)); /* … and the NMI with the next one, before the guest's next instruction */
    assert_int_equal(step_stack(lab, 0), CODE(2));
    STEPS_TO(STEP_HANDLER(EXC_NMI) + 1);
    STEPS_TO(CODE(2));

    lab->cpu->rflags |= RFLAGS_TF;
    STEPS_TO(CODE(3));
    assert_int_equal(lab->vmcs->pending_debug, DR6_BS);
    STEPS_TO(STEP_HANDLER(EXC_DB));
    assert_int_equal(lab->vmcs->pending_debug, 0);
    assert_int_equal(step_stack(lab, 0), CODE(3));

    lab->cpu->rflags &= ~RFLAGS_TF;
    lab->cpu->rflags |= RFLAGS_IF;
    send(lab, 0x44000 | 0x35); /* to itself, fixed */
    STEPS_TO(CODE(2));
    STEPS_TO(STEP_HANDLER(0x35));
}

static void S12_a_machine_check_and_an_init_of_the_guests_own(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, halt);
    lab->cpu->cr4 |= CR4_MCE;
    lab->cpu->rip = CODE(1);
    vmcs_raise_machine_check(lab->vmcs);
    STEPS_TO(STEP_HANDLER(EXC_MC));
    vmcs_raise_init(lab->vmcs);
    STEPS_TO(0xfff0);
    assert_int_equal(lab->cpu->segment[SEG_CS].base, 0xffff0000);
    vmcs_raise_machine_check(lab->vmcs); /* CR4.MCE is clear now */
    assert_int_equal(step(lab), VMCS_EXIT_TRIPLE_FAULT);
}

/* ---- S13 to S16: higher priority, designated software's ---- */
struct manager {
    unsigned calls;
    bool indicated; /* the pending-step-exit indicator, as it was found */
    uint64_t rip;
    enum { RESUME, DELIVER, WITHDRAW, REQUEST, CHANGE } does;
};

static enum smm_result manage(struct vmcs *vmcs, struct smm_save *save, void *context)
{
    struct manager *m = context;
    m->calls++;
    m->indicated = vmcs->pending_step_exit;
    m->rip = save->rip;
    switch (m->does) {
    case DELIVER:
        smm_deliver_exit(vmcs);
        return SMM_EXIT;
    case WITHDRAW:
        vmcs->pending_step_exit = false;
        break;
    case REQUEST:
        vmcs->pending_step_exit = true;
        break;
    case CHANGE:
        save->r[RBX] = 0x5a5a;
        save->rip++;
        break;
    case RESUME:
        break;
    }
    return SMM_RESUME;
}

static void managed(struct step_lab *lab, struct manager *m)
{
    send(lab, SEND_SMI);
    lab->vmcs->smm = manage;
    lab->vmcs->smm_context = m;
}

static void S13_S16_the_pending_exit_is_taken_when_the_software_has_completed(void **state)
{
    struct step_lab *lab = *state;
    struct manager m = {.does = RESUME};
    managed(lab, &m);
    STEPS_TO(CODE(2));
    assert_int_equal(m.calls, 1);
    assert_true(m.indicated); /* S13 */
    assert_int_equal(m.rip, CODE(2));
    assert_false(lab->vmcs->pending_step_exit);
    assert_int_equal(lab->vmcs->steps, 1);
    STEPS_TO(CODE(3));
    assert_int_equal(m.calls, 1);
}

/* S14 */
static void S14_the_software_delivers_the_exit_itself(void **state)
{
    struct step_lab *lab = *state;
    struct manager m = {.does = DELIVER};
    managed(lab, &m);
    STEPS_TO(CODE(2));
    assert_true(m.indicated);
    assert_false(lab->vmcs->pending_step_exit);
    assert_int_equal(lab->vmcs->steps, 1); /* once, not twice */
    STEPS_TO(CODE(3));
}

/* S15, this and the next */
static void S15_the_software_asks_the_processor_for_it(void **state)
{
    struct step_lab *lab = *state;
    struct manager m = {.does = REQUEST};
    managed(lab, &m);
    STEPS_TO(CODE(2));
    assert_int_equal(lab->vmcs->steps, 1);
    /* where no step exit waited: an SMI before the instruction */
    STEP_LOAD(lab, halt);
    lab->cpu->rip = CODE(1);
    vmcs_raise_smi(lab->vmcs);
    STEPS_TO(CODE(1));
    assert_false(m.indicated);
    /* and a VMM that sets the indicator for its entry */
    lab->vmcs->pending_step_exit = true;
    lab->vmcs->single_step = false;
    STEPS_TO(CODE(1));
    assert_false(lab->vmcs->pending_step_exit);
    /* an event to inject comes before that exit */
    lab->vmcs->pending_step_exit = true;
    lab->vmcs->entry_event = (struct vmcs_event){.valid = true, .vector = 0x40};
    STEPS_TO(STEP_HANDLER(0x40));
}

static void S15_an_exit_that_the_software_withdraws_does_not_come(void **state)
{
    struct step_lab *lab = *state;
    struct manager m = {.does = WITHDRAW};
    managed(lab, &m);
    STEPS_TO(CODE(3)); /* the one behind the next instruction */
    assert_int_equal(lab->vmcs->steps, 1);
}

static void S16_rsm_brings_back_what_the_software_has_left_in_its_save_area(void **state)
{
    struct step_lab *lab = *state;
    struct manager m = {.does = CHANGE};
    managed(lab, &m);
    STEPS_TO(CODE(3));
    assert_int_equal(lab->cpu->r[RBX], 0x5a5a);
    /* a halted processor is halted again behind RSM */
    m = (struct manager){.does = RESUME};
    lab->vmcs->activity = ACTIVITY_HLT;
    vmcs_raise_smi(lab->vmcs);
    assert_int_equal(step(lab), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(m.calls, 1);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_HLT);
}

/* ---- S17 ---- */
STEP_ASM(flags, "pushfq; pop %rax; push %rax; popfq; int $0x21; nop");
static void S17_no_trap_flag_in_what_the_guest_sees(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, flags);
    STEPS_TO(CODE(1));
    STEPS_TO(CODE(2));
    assert_int_equal(lab->cpu->r[RAX] & RFLAGS_TF, 0);
    STEPS_TO(CODE(3));
    STEPS_TO(CODE(4));
    assert_int_equal(lab->vmcs->pending_debug, 0);
    STEPS_TO(STEP_HANDLER(0x21));
    assert_int_equal(step_stack(lab, 2) & RFLAGS_TF, 0);
}

static void S17_the_guests_own_trap_flag_works_as_ever(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, flags);
    lab->cpu->rflags |= RFLAGS_TF;
    STEPS_TO(CODE(1));
    assert_int_equal(step_stack(lab, 0) & RFLAGS_TF, RFLAGS_TF);
    STEPS_TO(STEP_HANDLER(EXC_DB)); /* its trap is a step of its own */
    assert_int_equal(step_stack(lab, 2) & RFLAGS_TF, RFLAGS_TF);
    assert_int_equal(lab->cpu->dr[6] & DR6_BS, DR6_BS);
    STEPS_TO(STEP_HANDLER(EXC_DB) + 1); /* TF is clear in the handler */
    STEPS_TO(CODE(1));                  /* IRETQ sets it again … */
    STEPS_TO(CODE(2));                  /* … so the next instruction traps */
    STEPS_TO(STEP_HANDLER(EXC_DB));
    /* the VMM may take the trap for itself */
    STEPS_TO(STEP_HANDLER(EXC_DB) + 1);
    STEPS_TO(CODE(2));
    lab->vmcs->exception_bitmap = 1u << EXC_DB;
    STEPS_TO(CODE(3));
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_DB);
    assert_int_equal(lab->vmcs->qualification, DR6_BS);
    assert_int_equal(lab->cpu->rip, CODE(3));
}

STEP_ASM(sti, "sti; nop; nop");
static void S17_the_shadow_of_sti_holds(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, sti);
    step_apic(lab);
    step_interrupt(lab, 0x40);
    STEPS_TO(CODE(1));
    assert_int_equal(lab->vmcs->interruptibility, VMCS_BLOCKED_STI);
    STEPS_TO(CODE(2)); /* one instruction more */
    assert_int_equal(lab->vmcs->interruptibility, 0);
    STEPS_TO(STEP_HANDLER(0x40));
    assert_int_equal(step_stack(lab, 0), CODE(2));
}

STEP_ASM(movss, "mov %eax, %ss; nop; nop");
static void S17_the_shadow_of_mov_ss_holds(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, movss);
    lab->cpu->r[RAX] = ONE_INSN_DS;
    lab->cpu->rflags |= RFLAGS_IF | RFLAGS_TF;
    step_apic(lab);
    lab->cpu->rflags &= ~RFLAGS_TF;
    STEPS_TO(CODE(2));
    assert_int_equal(lab->vmcs->interruptibility, VMCS_BLOCKED_MOVSS);
    step_interrupt(lab, 0x40);
    vmcs_raise_nmi(lab->vmcs);
    STEPS_TO(CODE(3));
    STEPS_TO(STEP_HANDLER(EXC_NMI));
    assert_int_equal(step_stack(lab, 0), CODE(3));
}

static void S17_a_shadow_outlives_an_exit_that_executed_nothing(void **state)
{
    struct step_lab *lab = *state;
    static const uint8_t code[] = {0xfb, 0xf4, 0x90}; /* sti; hlt */
    step_load(lab, STEP_CODE, code, code + 3);
    step_apic(lab);
    step_interrupt(lab, 0x40);
    lab->vmcs->exiting = VMCS_HLT_EXITING;
    STEPS_TO(CODE(1));
    assert_int_equal(step(lab), VMCS_EXIT_HLT);
    assert_int_equal(lab->vmcs->interruptibility, VMCS_BLOCKED_STI);
    lab->vmcs->exiting = 0;
    STEPS_TO(CODE(2)); /* the HLT under the shadow */
    STEPS_TO(STEP_HANDLER(0x40));
}

STEP_ASM(string, "rep movsb; nop");
static void S17_every_iteration_of_a_string_instruction_is_a_step(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, string);
    lab->cpu->r[RCX] = 40;
    lab->cpu->r[RSI] = ONE_INSN_DATA;
    lab->cpu->r[RDI] = ONE_INSN_DATA + 0x1000;
    for (unsigned left = 39; left; left--) {
        STEPS_TO(STEP_CODE);
        assert_int_equal(lab->cpu->r[RCX], left);
    }
    STEPS_TO(CODE(2));
    lab->cpu->rip = STEP_CODE; /* none: a step, too */
    STEPS_TO(CODE(2));
}

static void S17_a_string_instruction_runs_into_a_page_that_is_not_there(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, string);
    step_unmap(lab, ONE_INSN_DATA + 0x1000);
    lab->cpu->r[RCX] = 10;
    lab->cpu->r[RSI] = ONE_INSN_DATA;
    lab->cpu->r[RDI] = ONE_INSN_DATA + 0xffd;
    for (unsigned n = 0; n < 3; n++)
        STEPS_TO(STEP_CODE);
    STEPS_TO(STEP_HANDLER(EXC_PF));
    assert_int_equal(lab->cpu->r[RCX], 7);
    assert_int_equal(lab->cpu->cr2, ONE_INSN_DATA + 0x1000);
    assert_int_equal(step_stack(lab, 1), STEP_CODE);
}

/* Into user mode by IRETQ, back by SYSCALL, again by SYSRETQ. */
STEP_ASM(iret, "iretq; nop");
STEP_ASM(user, "nop; syscall; nop");
STEP_ASM(sysret, "sysretq");
static void S17_across_iret_syscall_and_sysret(void **state)
{
    struct step_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    const uint64_t frame[] = {STEP_USER, ONE_INSN_USER_CS64, RFLAGS_ONE | RFLAGS_IF, STEP_STACK,
                              ONE_INSN_USER_DS};
    STEP_LOAD(lab, iret);
    step_load(lab, STEP_USER, user_code, user_end);
    step_load(lab, 0x9800, sysret_code, sysret_end);
    cpu->star = (uint64_t)(ONE_INSN_USER_DS - 8) << 48 | (uint64_t)ONE_INSN_CS64 << 32;
    cpu->lstar = 0x9800;
    cpu->fmask = RFLAGS_IF;
    cpu->r[RSP] = STEP_STACK - sizeof frame;
    memcpy(one_insn_at(cpu, cpu->r[RSP]), frame, sizeof frame);
    STEPS_TO(STEP_USER);
    assert_int_equal(cpu->cpl, 3);
    STEPS_TO(STEP_USER + 1);
    STEPS_TO(0x9800);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->r[R11] & RFLAGS_TF, 0);
    STEPS_TO(STEP_USER + 3);
    assert_int_equal(cpu->cpl, 3);
    STEPS_TO(STEP_USER + 4);
}

int main(void)
{
#define T(name)                                                                                    \
    {                                                                                              \
#name, name, NULL                                                                          \
    }
    static const struct step_test tests[] = {
        T(S8_S10_a_halted_guest_steps_when_its_timer_wakes_it),
        T(S8_without_a_break_event_there_is_no_exit_but_the_machines_end),
        T(S8_S10_an_nmi_from_outside_wakes_a_halted_guest),
        T(S9_the_break_event_exits),
        T(S10_delivery_of_the_break_event_faults),
        T(S11_the_activity_state_is_saved_if_asked_for),
        T(S12_an_smi_for_the_vmm),
        T(S12_init_and_machine_check_for_the_vmm),
        T(S12_the_order_is_machine_check_init_smi_then_the_step),
        T(S12_debug_traps_nmis_and_interrupts_stay_pending),
        T(S12_a_machine_check_and_an_init_of_the_guests_own),
        T(S13_S16_the_pending_exit_is_taken_when_the_software_has_completed),
        T(S14_the_software_delivers_the_exit_itself),
        T(S15_the_software_asks_the_processor_for_it),
        T(S15_an_exit_that_the_software_withdraws_does_not_come),
        T(S16_rsm_brings_back_what_the_software_has_left_in_its_save_area),
        T(S17_no_trap_flag_in_what_the_guest_sees),
        T(S17_the_guests_own_trap_flag_works_as_ever),
        T(S17_the_shadow_of_sti_holds),
        T(S17_the_shadow_of_mov_ss_holds),
        T(S17_a_shadow_outlives_an_exit_that_executed_nothing),
        T(S17_every_iteration_of_a_string_instruction_is_a_step),
        T(S17_a_string_instruction_runs_into_a_page_that_is_not_there),
        T(S17_across_iret_syscall_and_sysret),
    };
    return step_run_tests(tests, sizeof tests / sizeof tests[0]);
}
