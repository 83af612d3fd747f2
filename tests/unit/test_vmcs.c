/* SPDX-License-Identifier: MIT */
/* VM entry with the single-step indicator: instructions, faults, delivery that faults, injected events (S1 to S7). */
#include "tests/unit/step_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define CODE(n) STEP_BEHIND(n)

/* ---- S1 ---- */
STEP_ASM(plain, "mov $5, %eax; add %eax, %ebx; jmp 1f; ud2; 1: push %rax; pop %rcx; nop");
static void S1_one_instruction_completes(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, plain);
    STEPS_TO(CODE(5));
    assert_int_equal(lab->cpu->r[RAX], 5);
    STEPS_TO(CODE(7));
    assert_int_equal(lab->cpu->r[RBX], 5);
    STEPS_TO(CODE(11));
    STEPS_TO(CODE(12));
    assert_int_equal(step_stack(lab, 0), 5);
    STEPS_TO(CODE(13));
    assert_int_equal(lab->cpu->r[RCX], 5);
    assert_int_equal(lab->vmcs->steps, 5);
    assert_int_equal(lab->vm.stats.steps, 5);
    assert_false(lab->vmcs->delivered.valid);
}

STEP_ASM(exiting,
         "in $0x71, %al; outw %ax, %dx; rdmsr; wrmsr; mov %rax, %cr3; mov %rax, %dr0; wbinvd; "
         "hlt; rep outsb; clts");
static void S1_an_instruction_that_exits_does_so_with_its_own_reason(void **state)
{
    static const struct {
        enum vmcs_exit reason;
        unsigned length;
        uint64_t qualification;
    } rows[] = {
        {VMCS_EXIT_IO, 2, 0},     {VMCS_EXIT_IO, 2, 0},  {VMCS_EXIT_RDMSR, 2, 0},
        {VMCS_EXIT_WRMSR, 2, 0},  {VMCS_EXIT_CR, 3, 3},  {VMCS_EXIT_DR, 3, 0},
        {VMCS_EXIT_LISTED, 2, 0}, {VMCS_EXIT_HLT, 1, 0}, {VMCS_EXIT_IO, 2, 0},
        {VMCS_EXIT_CR, 2, 0},
    };
    struct step_lab *lab = *state;
    STEP_LOAD(lab, exiting);
    lab->cpu->r[RDX] = 0x3f8;
    lab->cpu->r[RCX] = 7;
    lab->cpu->r[RSI] = ONE_INSN_DATA;
    lab->vmcs->exiting = VMCS_HLT_EXITING | VMCS_IO_EXITING | VMCS_CPUID_EXITING |
                         VMCS_MSR_EXITING | VMCS_CR_EXITING | VMCS_DR_EXITING | VMCS_LISTED_EXITING;
    for (unsigned n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        uint64_t rip = lab->cpu->rip;
        assert_int_equal(step(lab), rows[n].reason);
        assert_int_equal(lab->cpu->rip, rip);
        assert_int_equal(lab->vmcs->instruction_length, rows[n].length);
        assert_int_equal(lab->vmcs->qualification, rows[n].qualification);
        if (n == 0) {
            assert_int_equal(lab->vmcs->io.port, 0x71);
            assert_true(lab->vmcs->io.in && lab->vmcs->io.width == 1 && !lab->vmcs->io.string);
        }
        if (n == 1)
            assert_true(lab->vmcs->io.port == 0x3f8 && lab->vmcs->io.width == 2 &&
                        !lab->vmcs->io.in);
        if (n == 8)
            assert_true(lab->vmcs->io.string && lab->vmcs->io.repeated);
        lab->cpu->rip += lab->vmcs->instruction_length;
    }
    assert_int_equal(lab->vmcs->steps, 0);
    assert_int_equal(lab->cpu->r[RCX], 7);
}

STEP_ASM(wrmsr, "wrmsr; rdmsr; nop");
static void S1_wrmsr_is_one_step(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, wrmsr);
    lab->cpu->r[RCX] = 0xc0000102; /* KERNEL_GS_BASE */
    lab->cpu->r[RDX] = 0;
    lab->cpu->r[RAX] = 77;
    STEPS_TO(CODE(2));
    assert_int_equal(lab->cpu->kernel_gs_base, 77);
    lab->cpu->r[RAX] = 0;
    STEPS_TO(CODE(4));
    assert_int_equal(lab->cpu->r[RAX], 77);
}

STEP_ASM(software, "int $0x21; int3; .byte 0xf1");
static void S1_software_interrupts_arrive_in_one_step(void **state)
{
    static const struct {
        int vector, type;
        unsigned length;
    } rows[] = {{0x21, VMCS_EVENT_SOFTWARE, 2},
                {3, VMCS_EVENT_SOFTWARE_EXCEPTION, 1},
                {1, VMCS_EVENT_ICEBP, 1}};
    struct step_lab *lab = *state;
    STEP_LOAD(lab, software);
    for (unsigned n = 0; n < 3; n++) {
        uint64_t next = lab->cpu->rip + rows[n].length;
        STEPS_TO(STEP_HANDLER(rows[n].vector));
        assert_int_equal(step_stack(lab, 0), next);
        assert_true(lab->vmcs->delivered.valid);
        assert_int_equal(lab->vmcs->delivered.vector, rows[n].vector);
        assert_int_equal(lab->vmcs->delivered.type, rows[n].type);
        STEPS_TO(STEP_HANDLER(rows[n].vector) + 1);
        STEPS_TO(next);
    }
}

static void S1_into_arrives_in_one_step(void **state)
{
    struct step_lab *lab = *state;
    static const uint8_t into[] = {0xce, 0x90};
    step_load(lab, STEP_CODE, into, into + 2);
    one_insn_mode(lab->cpu, ONE_INSN_32, false);
    uint64_t gate = STEP_HANDLER(4) | ONE_INSN_CS32 << 16 | 0x8e00ull << 32;
    one_insn_put(lab->cpu, ONE_INSN_IDT + 8 * 4, 8, gate);
    vmcs_state_changed(lab->vmcs);
    lab->cpu->status |= 1; /* OF */
    STEPS_TO(STEP_HANDLER(4));
    assert_int_equal(lab->vmcs->delivered.type, VMCS_EVENT_SOFTWARE_EXCEPTION);
    lab->cpu->rip = STEP_CODE;
    lab->cpu->status &= 0xff00;
    STEPS_TO(CODE(1));
}

/* ---- S2 ---- */
STEP_ASM(faults, "xor %edx, %edx; div %rdx; ud2; mov 0x20000, %eax; lldt %ax; hlt");
static void S2_a_fault_with_an_exit_leaves_the_guest_as_it_was(void **state)
{
    static const struct {
        int vector;
        uint64_t at, next, qualification;
        bool has_error;
        uint32_t error;
    } rows[] = {{EXC_DE, 2, 5, 0, false, 0},
                {EXC_UD, 5, 7, 0, false, 0},
                {EXC_PF, 7, 14, 0x20000, true, 0},
                {EXC_GP, 14, 17, 0, true, 0x2344}};
    struct step_lab *lab = *state;
    STEP_LOAD(lab, faults);
    step_unmap(lab, 0x20000);
    lab->cpu->r[RAX] = 0x2347;
    lab->cpu->r[RDX] = 0;
    lab->vmcs->exception_bitmap = ~0u;
    for (unsigned n = 0; n < 4; n++) {
        lab->cpu->rip = CODE(rows[n].at);
        uint64_t rsp = lab->cpu->r[RSP];
        assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
        assert_int_equal(lab->vmcs->event.vector, rows[n].vector);
        assert_int_equal(lab->vmcs->event.has_error, rows[n].has_error);
        assert_int_equal(lab->vmcs->event.error, rows[n].error);
        assert_int_equal(lab->vmcs->qualification, rows[n].qualification);
        assert_false(lab->vmcs->vectoring.valid);
        assert_int_equal(lab->cpu->rip, CODE(rows[n].at));
        assert_int_equal(lab->cpu->r[RSP], rsp);
        assert_int_equal(lab->cpu->cr2, 0);
    }
}

static void S2_a_page_fault_on_the_fetch(void **state)
{
    struct step_lab *lab = *state;
    step_unmap(lab, 0x21000);
    lab->cpu->rip = 0x21004;
    lab->vmcs->exception_bitmap = 1u << EXC_PF;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->qualification, 0x21004);
    assert_int_equal(lab->cpu->rip, 0x21004);
    /* an instruction that goes on in the next page, which is not there */
    one_insn_put(lab->cpu, 0x20ffe, 2, 0xb848); /* movabs */
    lab->cpu->rip = 0x20ffe;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->qualification, 0x21000);
    assert_int_equal(lab->cpu->rip, 0x20ffe);
}

static void S2_int3_and_icebp_exit_before_they_are_executed(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, software);
    lab->vmcs->exception_bitmap = 1u << EXC_BP | 1u << EXC_DB;
    STEPS_TO(STEP_HANDLER(0x21)); /* INT n never exits */
    lab->cpu->rip = CODE(2);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_BP);
    assert_int_equal(lab->vmcs->event.type, VMCS_EVENT_SOFTWARE_EXCEPTION);
    assert_int_equal(lab->vmcs->instruction_length, 1);
    assert_int_equal(lab->cpu->rip, CODE(2));
    lab->cpu->rip = CODE(3);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.type, VMCS_EVENT_ICEBP);
}

/* ---- S3 ---- */
static void S3_a_fault_without_an_exit_is_delivered_then_the_step_ends(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, faults);
    step_unmap(lab, 0x20000);
    STEPS_TO(CODE(2));
    STEPS_TO(STEP_HANDLER(EXC_DE));
    assert_int_equal(step_stack(lab, 0), CODE(2));
    assert_int_equal(step_stack(lab, 2) & RFLAGS_TF, 0);
    assert_int_equal(lab->vmcs->delivered.vector, EXC_DE);
    lab->cpu->rip = CODE(7);
    lab->cpu->r[RSP] = STEP_STACK;
    STEPS_TO(STEP_HANDLER(EXC_PF));
    assert_int_equal(lab->cpu->cr2, 0x20000);
    assert_int_equal(step_stack(lab, 0), 0);
    assert_int_equal(step_stack(lab, 1), CODE(7));
    assert_true(lab->vmcs->delivered.has_error);
    STEPS_TO(STEP_HANDLER(EXC_PF) +
             1); /* and the handler's first instruction is a step of its own */
}

static void S3_on_an_ist_stack_and_from_user_mode(void **state)
{
    struct step_lab *lab = *state;
    step_gate(lab, EXC_UD, STEP_INTERRUPT | 1);
    STEP_LOAD(lab, faults);
    lab->cpu->rip = CODE(5);
    STEPS_TO(STEP_HANDLER(EXC_UD));
    assert_int_equal(lab->cpu->r[RSP], ONE_INSN_IST - 40);
    step_gate(lab, EXC_UD, STEP_INTERRUPT);
    one_insn_mode(lab->cpu, ONE_INSN_64, true);
    lab->cpu->rip = CODE(5);
    lab->cpu->r[RSP] = STEP_STACK;
    STEPS_TO(STEP_HANDLER(EXC_UD));
    assert_int_equal(lab->cpu->cpl, 0);
    assert_int_equal(lab->cpu->r[RSP], ONE_INSN_RING0 - 40);
}

/* Each class of exception in one step: fault, trap, software, with and without error code. */
STEP_ASM(classes, "ud2; fwait; int3; movaps 0x10001, %xmm0; mov %cr0, %rax");
static void S3_every_class_of_exception(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, classes);
    STEPS_TO(STEP_HANDLER(EXC_UD));
    lab->cpu->rip = CODE(2);
    lab->cpu->cr0 |= CR0_TS | CR0_MP;
    STEPS_TO(STEP_HANDLER(EXC_NM));
    lab->cpu->cr0 &= ~(uint64_t)CR0_TS;
    lab->cpu->rip = CODE(3);
    STEPS_TO(STEP_HANDLER(EXC_BP));
    lab->cpu->rip = CODE(4);
    STEPS_TO(STEP_HANDLER(EXC_GP));
    lab->cpu->r[RSP] = 0x0000900000000000; /* not canonical */
    static const uint8_t push[] = {0x50};
    step_load(lab, STEP_CODE, push, push + 1);
    step_gate(lab, EXC_SS, STEP_INTERRUPT | 1);
    lab->cpu->rip = STEP_CODE;
    STEPS_TO(STEP_HANDLER(EXC_SS));
}

/* ---- S4, S5 ---- */
static void S4_delivery_faults_and_the_new_fault_exits(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, faults);
    step_gate(lab, EXC_DE, STEP_ABSENT);
    lab->cpu->rip = CODE(2);
    lab->cpu->r[RDX] = 0;
    lab->vmcs->exception_bitmap = 1u << EXC_NP;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_NP); /* its own bit, before they merge into #DF */
    assert_int_equal(lab->vmcs->event.error, EXC_DE << 3 | 2 | 1);
    assert_true(lab->vmcs->vectoring.valid);
    assert_int_equal(lab->vmcs->vectoring.vector, EXC_DE);
    assert_int_equal(lab->vmcs->vectoring.type, VMCS_EVENT_EXCEPTION);
    assert_int_equal(lab->cpu->rip, CODE(2));
    assert_int_equal(lab->cpu->r[RSP], STEP_STACK);
}

static void S4_a_double_fault_that_exits(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, faults);
    step_gate(lab, EXC_DE, STEP_ABSENT);
    lab->cpu->rip = CODE(2);
    lab->cpu->r[RDX] = 0;
    lab->vmcs->exception_bitmap = 1u << EXC_DF;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_DF);
    assert_int_equal(lab->vmcs->vectoring.vector, EXC_DE);
    assert_int_equal(lab->cpu->rip, CODE(2));
}

/* The stack has run into its guard page: the push faults, and so does the delivery of that fault. */
STEP_ASM(overflow, "push %rax; nop");
static void S4_a_guard_page_below_the_stack(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, overflow);
    step_unmap(lab, 0x2f000);
    lab->cpu->r[RSP] = 0x30000;
    lab->vmcs->exception_bitmap = 1u << EXC_PF;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->qualification, 0x2fff8);
    assert_false(lab->vmcs->vectoring.valid);
    lab->vmcs->exception_bitmap = 1u << EXC_DF;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION);
    assert_int_equal(lab->vmcs->event.vector, EXC_DF);
    assert_int_equal(lab->vmcs->vectoring.vector, EXC_PF);
}

static void S5_the_new_fault_is_delivered_in_its_place(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, software);
    step_gate(lab, 0x21, STEP_ABSENT);
    STEPS_TO(STEP_HANDLER(EXC_NP)); /* INT n: benign, so no double fault */
    assert_int_equal(step_stack(lab, 0), 0x21 << 3 | 2);
    assert_int_equal(step_stack(lab, 1), STEP_CODE); /* a fault of the INT n */
    assert_int_equal(lab->vmcs->delivered.vector, EXC_NP);
    lab->cpu->rip = STEP_CODE;
    lab->vmcs->exception_bitmap = 1u << EXC_NP;
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION); /* S4 of it */
    assert_int_equal(lab->vmcs->vectoring.type, VMCS_EVENT_SOFTWARE);
    assert_int_equal(lab->vmcs->vectoring.vector, 0x21);
}

static void S5_a_double_fault_on_an_ist_stack(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, overflow);
    step_unmap(lab, 0x2f000);
    step_gate(lab, EXC_DF, STEP_INTERRUPT | 1);
    lab->cpu->r[RSP] = 0x30000;
    STEPS_TO(STEP_HANDLER(EXC_DF));
    assert_int_equal(lab->cpu->r[RSP], ONE_INSN_IST - 48);
    assert_int_equal(step_stack(lab, 1), STEP_CODE);
    assert_int_equal(lab->vmcs->delivered.vector, EXC_DF);
}

static void S5_however_often_a_delivery_fails(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, software);
    step_gate(lab, 0x21, STEP_ABSENT);   /* #NP … */
    step_gate(lab, EXC_NP, STEP_ABSENT); /* … #NP on the way: both contributory, a double fault */
    STEPS_TO(STEP_HANDLER(EXC_DF));
    assert_int_equal(step_stack(lab, 1), STEP_CODE);
    /* a page fault on the way to a benign event, then on the way to the page fault */
    step_gate(lab, 0x21, STEP_INTERRUPT | 2); /* IST 2 is 0: its first push goes below address 0 */
    lab->cpu->rip = STEP_CODE;
    lab->cpu->r[RSP] = STEP_STACK;
    STEPS_TO(STEP_HANDLER(EXC_PF));
    assert_int_equal(lab->cpu->cr2, -8ull);
}

static void S5_a_triple_fault_is_an_exit_of_its_own(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, overflow);
    step_unmap(lab, 0x2f000);
    lab->cpu->r[RSP] = 0x30000;
    assert_int_equal(step(lab), VMCS_EXIT_TRIPLE_FAULT);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_SHUTDOWN);
    assert_int_equal(lab->vmcs->event.vector, EXC_PF);
    assert_int_equal(lab->vm.shutdown, SHUTDOWN_NONE); /* the VMM decides what becomes of it */
    /* an NMI brings the processor out of shutdown (SDM 3A 6.15) */
    lab->cpu->r[RSP] = 0x28000;
    vmcs_raise_nmi(lab->vmcs);
    STEPS_TO(STEP_HANDLER(EXC_NMI));
    assert_int_equal(lab->vmcs->activity, ACTIVITY_ACTIVE);
}

/* ---- S6, S7 ---- */
static void inject(struct step_lab *lab, enum vmcs_event_type type, uint8_t vector)
{
    lab->vmcs->entry_event =
        (struct vmcs_event){.valid = true, .type = (uint8_t)type, .vector = vector};
}

static void S6_an_injected_event_arrives_and_the_step_ends_there(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, plain);
    inject(lab, VMCS_EVENT_EXTERNAL, 0x40);
    STEPS_TO(STEP_HANDLER(0x40));
    assert_int_equal(step_stack(lab, 0), STEP_CODE);
    assert_int_equal(lab->cpu->r[RAX], 0); /* nothing of the guest was executed */
    assert_false(lab->vmcs->entry_event.valid);
    assert_int_equal(lab->vmcs->delivered.vector, 0x40);

    lab->cpu->rip = STEP_CODE;
    inject(lab, VMCS_EVENT_EXCEPTION, EXC_PF);
    lab->vmcs->entry_event.has_error = true;
    lab->vmcs->entry_event.error = 6;
    lab->cpu->cr2 = 0x1234;
    STEPS_TO(STEP_HANDLER(EXC_PF));
    assert_int_equal(step_stack(lab, 0), 6);
    assert_int_equal(lab->cpu->cr2, 0x1234);

    lab->cpu->rip = STEP_CODE;
    inject(lab, VMCS_EVENT_NMI, EXC_NMI);
    STEPS_TO(STEP_HANDLER(EXC_NMI));
    assert_int_equal(lab->vmcs->interruptibility, VMCS_BLOCKED_NMI);
    STEPS_TO(STEP_HANDLER(EXC_NMI) + 1);
    STEPS_TO(STEP_CODE); /* IRET lets NMIs in again */
    assert_int_equal(lab->vmcs->interruptibility, 0);

    inject(lab, VMCS_EVENT_SOFTWARE, 0x80);
    lab->vmcs->entry_length = 2;
    STEPS_TO(STEP_HANDLER(0x80));
    assert_int_equal(step_stack(lab, 0), CODE(2));
}

STEP_ASM(count, "1: inc %rax; cmp $1000, %rax; jne 1b; cpuid; hlt");
static void S6_injected_without_the_indicator_the_handler_runs(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, count);
    lab->vmcs->single_step = false;
    lab->vmcs->exiting = VMCS_CPUID_EXITING;
    inject(lab, VMCS_EVENT_EXTERNAL, 0x40);
    assert_int_equal(step_enter(lab), VMCS_EXIT_CPUID);
    assert_int_equal(lab->cpu->r[RAX], 1000);
    assert_int_equal(lab->cpu->r[RSP], STEP_STACK);
}

static void S6_events_that_cannot_be_are_refused(void **state)
{
    struct step_lab *lab = *state;
    inject(lab, VMCS_EVENT_NMI, 3);
    assert_int_equal(step(lab), VMCS_EXIT_INVALID);
    assert_non_null(lab->vmcs->invalid);
    inject(lab, VMCS_EVENT_EXCEPTION, 40);
    assert_int_equal(step(lab), VMCS_EXIT_INVALID);
    lab->vmcs->entry_event.valid = false;
    lab->vmcs->interruptibility = VMCS_BLOCKED_STI | VMCS_BLOCKED_MOVSS;
    assert_int_equal(step(lab), VMCS_EXIT_INVALID);
    lab->vmcs->interruptibility = VMCS_BLOCKED_MOVSS;
    lab->vmcs->activity = ACTIVITY_HLT;
    assert_int_equal(step(lab), VMCS_EXIT_INVALID);
    assert_int_equal(lab->cpu->rip, STEP_CODE);
}

static void S7_delivery_of_the_injected_event_faults(void **state)
{
    struct step_lab *lab = *state;
    STEP_LOAD(lab, plain);
    step_gate(lab, 0x40, STEP_ABSENT);
    inject(lab, VMCS_EVENT_EXTERNAL, 0x40);
    STEPS_TO(STEP_HANDLER(EXC_NP)); /* as S5 */
    assert_int_equal(step_stack(lab, 0), 0x40 << 3 | 2 | 1);
    assert_int_equal(step_stack(lab, 1), STEP_CODE);

    lab->cpu->rip = STEP_CODE;
    lab->cpu->r[RSP] = STEP_STACK;
    lab->vmcs->exception_bitmap = 1u << EXC_NP;
    inject(lab, VMCS_EVENT_EXTERNAL, 0x40);
    assert_int_equal(step(lab), VMCS_EXIT_EXCEPTION); /* as S4 */
    assert_int_equal(lab->vmcs->event.vector, EXC_NP);
    assert_int_equal(lab->vmcs->vectoring.type, VMCS_EVENT_EXTERNAL);
    assert_int_equal(lab->vmcs->vectoring.vector, 0x40);
    assert_int_equal(lab->cpu->rip, STEP_CODE);
    assert_int_equal(lab->cpu->r[RSP], STEP_STACK);

    lab->vmcs->exception_bitmap = 0; /* a page fault that cannot be pushed */
    step_unmap(lab, STEP_STACK - 8);
    inject(lab, VMCS_EVENT_EXCEPTION, EXC_PF);
    lab->vmcs->entry_event.has_error = true;
    step_gate(lab, EXC_DF, STEP_INTERRUPT | 1);
    STEPS_TO(STEP_HANDLER(EXC_DF));
}

int main(void)
{
#define T(name)                                                                                    \
    {                                                                                              \
#name, name, NULL                                                                          \
    }
    static const struct step_test tests[] = {
        T(S1_one_instruction_completes),
        T(S1_an_instruction_that_exits_does_so_with_its_own_reason),
        T(S1_wrmsr_is_one_step),
        T(S1_software_interrupts_arrive_in_one_step),
        T(S1_into_arrives_in_one_step),
        T(S2_a_fault_with_an_exit_leaves_the_guest_as_it_was),
        T(S2_a_page_fault_on_the_fetch),
        T(S2_int3_and_icebp_exit_before_they_are_executed),
        T(S3_a_fault_without_an_exit_is_delivered_then_the_step_ends),
        T(S3_on_an_ist_stack_and_from_user_mode),
        T(S3_every_class_of_exception),
        T(S4_delivery_faults_and_the_new_fault_exits),
        T(S4_a_double_fault_that_exits),
        T(S4_a_guard_page_below_the_stack),
        T(S5_the_new_fault_is_delivered_in_its_place),
        T(S5_a_double_fault_on_an_ist_stack),
        T(S5_however_often_a_delivery_fails),
        T(S5_a_triple_fault_is_an_exit_of_its_own),
        T(S6_an_injected_event_arrives_and_the_step_ends_there),
        T(S6_injected_without_the_indicator_the_handler_runs),
        T(S6_events_that_cannot_be_are_refused),
        T(S7_delivery_of_the_injected_event_faults),
    };
    return step_run_tests(tests, sizeof tests / sizeof tests[0]);
}
