/* SPDX-License-Identifier: MIT */
/* Event delivery: gates, stacks, error codes, faults on the way (SDM 3A 6). */
#include "tests/unit/one_insn.h"

#include "runtime/soft/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define HANDLER 0x9000u
#define STACK   ONE_INSN_STACK

enum { PRESENT = 0x8000, INTERRUPT = 0x0e00, TRAP = 0x0f00, DPL3 = 0x6000 };

static int setup(void **state)
{
    *state = one_insn_vcpu();
    return 0;
}

static int teardown(void **state)
{
    one_insn_free(*state);
    return 0;
}

/* A 16-byte gate to CS64:HANDLER + 16 * vector; `flags`: type, DPL, present, IST in the low bits. */
static void gate(struct vcpu *cpu, int vector, unsigned flags)
{
    uint64_t offset = HANDLER + 16u * (unsigned)vector;
    one_insn_put(cpu, ONE_INSN_IDT + 16u * (unsigned)vector, 8,
                 offset | ONE_INSN_CS64 << 16 | (uint64_t)flags << 32);
    one_insn_put(cpu, ONE_INSN_IDT + 16u * (unsigned)vector + 8, 8, 0);
}

/* An 8-byte gate to `selector`:HANDLER. */
static void gate32(struct vcpu *cpu, int vector, unsigned flags, uint16_t selector)
{
    one_insn_put(cpu, ONE_INSN_IDT + 8u * (unsigned)vector, 8,
                 HANDLER | (uint64_t)selector << 16 | (uint64_t)flags << 32);
}

struct request {
    enum event_type type;
    int vector;
    bool has_error;
    uint32_t error;
};

static void deliver_once(struct vcpu *cpu, void *context)
{
    const struct request *r = context;
    event_deliver_once(cpu, r->type, r->vector, r->has_error, r->error);
}

static struct one_insn_result try_deliver(struct vcpu *cpu, enum event_type type, int vector)
{
    struct request request = {type, vector, false, 0};
    return one_insn_catch(cpu, deliver_once, &request);
}

static uint64_t at(struct vcpu *cpu, unsigned n)
{
    return one_insn_get(cpu, cpu->r[RSP] + 8 * n, 8);
}

static void not_present(struct vcpu *cpu, uint64_t linear)
{
    *one_insn_pte(cpu, linear) &= ~1ull;
    one_insn_flush(cpu);
}

/* ---- long mode ---- */
static void an_interrupt_pushes_five_words_on_an_aligned_stack(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, PRESENT | INTERRUPT);
    cpu->r[RSP] = STACK - 3;
    vcpu_set_rflags(cpu, RFLAGS_IF | RFLAGS_CF | RFLAGS_TF | RFLAGS_NT | RFLAGS_ONE);
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_int_equal(cpu->rip, HANDLER + 16 * 32);
    assert_int_equal(cpu->r[RSP], ((STACK - 3) & ~0xfu) - 40);
    assert_int_equal(at(cpu, 0), ONE_INSN_CODE);
    assert_int_equal(at(cpu, 1), ONE_INSN_CS64);
    assert_int_equal(at(cpu, 2), RFLAGS_IF | RFLAGS_CF | RFLAGS_TF | RFLAGS_NT | RFLAGS_ONE);
    assert_int_equal(at(cpu, 3), STACK - 3);
    assert_int_equal(at(cpu, 4), ONE_INSN_DS);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_CF | RFLAGS_ONE);
}

static void a_trap_gate_leaves_interrupts_on(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, PRESENT | TRAP);
    cpu->rflags |= RFLAGS_IF;
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_true(cpu->rflags & RFLAGS_IF);
}

static void an_error_code_lies_below_rip(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_GP, PRESENT | INTERRUPT);
    event_deliver(cpu, EVENT_EXCEPTION, EXC_GP, true, 0x1234);
    assert_int_equal(cpu->r[RSP], STACK - 48);
    assert_int_equal(at(cpu, 0), 0x1234);
    assert_int_equal(at(cpu, 1), ONE_INSN_CODE);
}

static void user_mode_goes_to_rsp0_with_a_null_ss(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, 32, PRESENT | INTERRUPT);
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    assert_int_equal(cpu->segment[SEG_CS].selector, ONE_INSN_CS64);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0);
    assert_int_equal(cpu->r[RSP], ONE_INSN_RING0 - 40);
    assert_int_equal(at(cpu, 1), ONE_INSN_USER_CS64);
    assert_int_equal(at(cpu, 3), STACK);
    assert_int_equal(at(cpu, 4), ONE_INSN_USER_DS);
}

static void an_ist_gate_switches_stacks_without_a_change_of_privilege(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, PRESENT | INTERRUPT | 1);
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_int_equal(cpu->r[RSP], ONE_INSN_IST - 40);
    assert_int_equal(cpu->segment[SEG_SS].selector, ONE_INSN_DS);
}

static void software_may_only_use_gates_of_its_level(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, 32, PRESENT | INTERRUPT);
    gate(cpu, 33, PRESENT | INTERRUPT | DPL3);
    struct one_insn_result r = ONE_INSN(cpu, 0xcd, 32);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(r.error, 32 * 8 + 2);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    assert_int_equal(cpu->cpl, 3);
    r = ONE_INSN(cpu, 0xcd, 33);
    assert_false(r.fault);
    assert_int_equal(cpu->rip, HANDLER + 16 * 33);
    assert_int_equal(at(cpu, 0), ONE_INSN_CODE + 2);
    assert_false(at(cpu, 2) & RFLAGS_RF);
}

static void int1_does_not_look_at_the_gate_s_level(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, EXC_DB, PRESENT | INTERRUPT);
    assert_false(ONE_INSN(cpu, 0xf1).fault);
    assert_int_equal(at(cpu, 0), ONE_INSN_CODE + 1);
    assert_int_equal(cpu->dr[6], 0xffff0ff0);
}

static void int3_that_cannot_be_delivered_is_a_fault_of_int3(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_BP, INTERRUPT);
    struct one_insn_result r = ONE_INSN(cpu, 0xcc);
    assert_int_equal(r.vector, EXC_NP);
    assert_int_equal(r.error, EXC_BP * 8 + 2);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
}

/* ---- what can be wrong with a gate ---- */
static void a_gate_that_is_not_present_is_np_with_ext_and_idt_bits(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, INTERRUPT);
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_NP);
    assert_int_equal(r.error, 32 * 8 + 3);
}

static void a_vector_beyond_the_idt_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    cpu->idt_limit = 32 * 16 + 14;
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(r.error, 32 * 8 + 3);
}

static void a_handler_that_is_no_64_bit_code_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, PRESENT | INTERRUPT);
    one_insn_put(cpu, ONE_INSN_IDT + 16 * 32 + 2, 2, ONE_INSN_CS32);
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(r.error, ONE_INSN_CS32 | 1);
}

static void a_stack_outside_the_address_space_is_ss(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, PRESENT | INTERRUPT);
    cpu->r[RSP] = 0x0000800000000010;
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_SS);
    assert_int_equal(r.error, 1);
}

static void a_tss_too_short_for_the_stack_is_ts(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, 32, PRESENT | INTERRUPT);
    cpu->segment[SEG_TR].limit = 10;
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_TS);
    assert_int_equal(r.error, ONE_INSN_TR | 1);
}

static void a_delivery_that_faults_changes_nothing(void **state)
{
    struct vcpu *cpu = *state;
    static struct vcpu before;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, 32, PRESENT | INTERRUPT);
    one_insn_put(cpu, ONE_INSN_TSS + 4, 8, 0x20010); /* the frame crosses into page 0x1f */
    one_insn_put(cpu, 0x20000, 8, 0x1111);
    not_present(cpu, 0x1f000);
    memcpy(&before, cpu, sizeof before);
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_PF);
    assert_int_equal(r.error, PF_WRITE);
    assert_int_equal(one_insn_get(cpu, 0x20000, 8), 0x1111);
    assert_memory_equal(cpu->r, before.r, sizeof cpu->r);
    assert_memory_equal(cpu->segment, before.segment, sizeof cpu->segment);
    assert_int_equal(cpu->rip, before.rip);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->rflags, before.rflags);
}

/* ---- faults, and faults while they are delivered ---- */
static void raise(struct vcpu *cpu, int vector, uint64_t cr2)
{
    cpu->fault.vector = vector;
    cpu->fault.has_error = vector >= EXC_DF && vector <= EXC_PF;
    cpu->fault.error = 0;
    cpu->fault.cr2 = cr2;
    event_deliver_fault(cpu);
}

static void a_fault_is_pushed_with_rf(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_UD, PRESENT | INTERRUPT);
    raise(cpu, EXC_UD, 0);
    assert_true(at(cpu, 2) & RFLAGS_RF);
    assert_false(cpu->rflags & RFLAGS_RF);
}

static void a_page_fault_sets_cr2_as_it_is_delivered(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_PF, PRESENT | INTERRUPT);
    raise(cpu, EXC_PF, 0xabc000);
    assert_int_equal(cpu->cr2, 0xabc000);
    assert_int_equal(cpu->rip, HANDLER + 16 * EXC_PF);
}

static void two_contributory_faults_are_a_double_fault(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_DF, PRESENT | INTERRUPT);
    raise(cpu, EXC_GP, 0); /* its gate is empty: #GP again */
    assert_int_equal(cpu->rip, HANDLER + 16 * EXC_DF);
    assert_int_equal(at(cpu, 0), 0);
    assert_int_equal(at(cpu, 1), ONE_INSN_CODE);
}

static void a_page_fault_while_a_contributory_fault_is_delivered_comes_after_it(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_GP, PRESENT | INTERRUPT | 2);
    gate(cpu, EXC_PF, PRESENT | INTERRUPT);
    one_insn_put(cpu, ONE_INSN_TSS + 36 + 8, 8, 0x20000); /* IST 2 */
    not_present(cpu, 0x1f000);
    raise(cpu, EXC_GP, 0);
    assert_int_equal(cpu->rip, HANDLER + 16 * EXC_PF);
    assert_int_equal(cpu->cr2, 0x20000 - 8);
}

static void a_page_fault_while_a_page_fault_is_delivered_is_a_double_fault(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_PF, PRESENT | INTERRUPT | 2);
    gate(cpu, EXC_DF, PRESENT | INTERRUPT | 1);
    one_insn_put(cpu, ONE_INSN_TSS + 36 + 8, 8, 0x20000);
    not_present(cpu, 0x1f000);
    raise(cpu, EXC_PF, 0x123);
    assert_int_equal(cpu->rip, HANDLER + 16 * EXC_DF);
    assert_int_equal(cpu->cr2, 0x20000 - 8);
}

static void a_fault_behind_a_benign_event_is_delivered_alone(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_NP, PRESENT | INTERRUPT);
    gate(cpu, 32, INTERRUPT);
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_int_equal(cpu->rip, HANDLER + 16 * EXC_NP);
    assert_int_equal(at(cpu, 0), 32 * 8 + 3);
}

static void no_way_to_deliver_a_double_fault_ends_the_guest(void **state)
{
    struct vcpu *cpu = *state;
    cpu->idt_limit = 0;
    raise(cpu, EXC_GP, 0);
    assert_int_equal(cpu->activity, ACTIVITY_SHUTDOWN);
    assert_int_equal(cpu->vm->shutdown, SHUTDOWN_TRIPLE_FAULT);
    assert_int_equal(cpu->vm->exit_code, HVRUN_GUEST_DEATH);
}

/* ---- what else an event does ---- */
static void an_nmi_blocks_others_until_iret(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_NMI, PRESENT | INTERRUPT);
    event_deliver(cpu, EVENT_NMI, EXC_NMI, false, 0);
    assert_true(cpu->nmi_blocked);
    assert_false(ONE_INSN(cpu, 0x48, 0xcf).fault);
    assert_false(cpu->nmi_blocked);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
}

static void a_debug_exception_sets_dr6_and_clears_general_detect(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_DB, PRESENT | INTERRUPT);
    cpu->dr[7] |= DR7_GD;
    cpu->dr[6] |= 1;
    cpu->pending_db = DR6_BS | 4;
    event_deliver(cpu, EVENT_EXCEPTION, EXC_DB, false, 0);
    assert_int_equal(cpu->dr[6], 0xffff0ff0 | DR6_BS | 4);
    assert_false(cpu->dr[7] & DR7_GD);
    assert_int_equal(cpu->pending_db, 0);
    assert_false(at(cpu, 2) & RFLAGS_RF);
}

static void pushes_meet_data_breakpoints(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 40, PRESENT | INTERRUPT);
    cpu->dr[1] = ONE_INSN_STACK - 12; /* in SS, the first of five words */
    cpu->dr[2] = ONE_INSN_STACK - 48; /* below the last one */
    cpu->dr[7] = 0x400 | 0xfull << 2 | 0xddull << 20;
    tlb_flush(cpu);
    event_deliver(cpu, EVENT_EXTERNAL, 40, false, 0);
    assert_int_equal(cpu->pending_db, 2);
    assert_int_equal(cpu->rip, HANDLER + 16 * 40);
}

static void a_debug_exception_ends_stepping_by_branches(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, EXC_DB, PRESENT | INTERRUPT);
    gate(cpu, 40, PRESENT | INTERRUPT);
    cpu->debugctl = DEBUGCTL_BTF | 1;
    event_deliver(cpu, EVENT_EXTERNAL, 40, false, 0);
    assert_int_equal(cpu->debugctl, DEBUGCTL_BTF | 1);
    event_deliver(cpu, EVENT_EXCEPTION, EXC_DB, false, 0);
    assert_int_equal(cpu->debugctl, 1);
}

static void an_interrupt_ends_a_halt(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, 32, PRESENT | INTERRUPT);
    cpu->activity = ACTIVITY_HLT;
    cpu->shadow = SHADOW_STI;
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_int_equal(cpu->activity, ACTIVITY_ACTIVE);
    assert_int_equal(cpu->shadow, 0);
}

static void the_engine_s_place_to_unwind_to_survives(void **state)
{
    struct vcpu *cpu = *state;
    jmp_buf before;
    gate(cpu, EXC_DF, PRESENT | INTERRUPT);
    memset(&cpu->unwind, 0x5a, sizeof cpu->unwind);
    memcpy(&before, &cpu->unwind, sizeof before);
    raise(cpu, EXC_GP, 0);
    assert_memory_equal(&before, &cpu->unwind, sizeof before);
}

/* ---- real mode ---- */
static void real_mode_goes_through_the_vector_table(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->idt_base = 0;
    cpu->idt_limit = 0x3ff;
    cpu->r[RSP] = 0xabcd8000;
    one_insn_put(cpu, 0x21 * 4, 4, 0x12340056);
    cpu->rflags |= RFLAGS_IF | RFLAGS_TF | RFLAGS_AC;
    assert_false(ONE_INSN(cpu, 0xcd, 0x21).fault);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x1234);
    assert_int_equal(cpu->segment[SEG_CS].base, 0x12340);
    assert_int_equal(cpu->rip, 0x56);
    assert_int_equal(cpu->r[RSP], 0xabcd7ffa);
    assert_int_equal(one_insn_get(cpu, 0x7ffa, 2), ONE_INSN_CODE + 2);
    assert_int_equal(one_insn_get(cpu, 0x7ffc, 2), 0);
    assert_int_equal(one_insn_get(cpu, 0x7ffe, 2), RFLAGS_IF | RFLAGS_TF | RFLAGS_ONE);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_ONE);
}

/* ---- protected mode ---- */
static void protected_mode_switches_to_the_stack_of_the_32_bit_tss(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    one_insn_put(cpu, ONE_INSN_TSS + 4, 4, 0x6800);
    one_insn_put(cpu, ONE_INSN_TSS + 8, 4, ONE_INSN_DS);
    gate32(cpu, 32, PRESENT | INTERRUPT, ONE_INSN_CS32);
    event_deliver(cpu, EVENT_EXCEPTION, 32, true, 0x77);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->segment[SEG_SS].selector, ONE_INSN_DS);
    assert_int_equal(cpu->r[RSP], 0x6800 - 24);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 24, 4), 0x77);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 20, 4), ONE_INSN_CODE);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 16, 4), ONE_INSN_USER_CS32);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 8, 4), STACK);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 4, 4), ONE_INSN_USER_DS);
}

static void a_16_bit_gate_pushes_words(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    gate32(cpu, 32, PRESENT | 0x0600, ONE_INSN_CS32);
    one_insn_put(cpu, ONE_INSN_IDT + 32 * 8 + 6, 2, 0xffff); /* not part of the offset */
    event_deliver(cpu, EVENT_EXTERNAL, 32, false, 0);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->r[RSP], STACK - 6);
    assert_int_equal(one_insn_get(cpu, STACK - 6, 2), ONE_INSN_CODE);
}

static void a_stack_segment_of_the_wrong_level_is_ts(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    one_insn_put(cpu, ONE_INSN_TSS + 4, 4, 0x6800);
    one_insn_put(cpu, ONE_INSN_TSS + 8, 4, ONE_INSN_USER_DS);
    gate32(cpu, 32, PRESENT | INTERRUPT, ONE_INSN_CS32);
    struct one_insn_result r = try_deliver(cpu, EVENT_EXTERNAL, 32);
    assert_int_equal(r.vector, EXC_TS);
    assert_int_equal(r.error, (ONE_INSN_USER_DS & ~3) | 1);
}

static void virtual_8086_mode_leaves_its_segments_on_the_stack(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_V86, false);
    one_insn_put(cpu, ONE_INSN_TSS + 4, 4, 0x6800);
    one_insn_put(cpu, ONE_INSN_TSS + 8, 4, ONE_INSN_DS);
    gate32(cpu, 32, PRESENT | INTERRUPT | DPL3, ONE_INSN_CS32);
    segment_set_real(cpu, SEG_GS, 0x1111);
    segment_set_real(cpu, SEG_ES, 0x2222);
    vcpu_mode_changed(cpu);
    assert_false(ONE_INSN(cpu, 0xcd, 32).fault);
    assert_false(vcpu_v86(cpu));
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->r[RSP], 0x6800 - 36);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 4, 4), 0x1111);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 16, 4), 0x2222);
    assert_true(one_insn_get(cpu, 0x6800 - 28, 4) & RFLAGS_VM);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 36, 4), ONE_INSN_CODE + 2);
    assert_true(cpu->segment[SEG_GS].rights & RIGHTS_UNUSABLE);
}

static void int_n_in_virtual_8086_mode_takes_iopl_3(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_V86, false);
    cpu->rflags &= ~RFLAGS_IOPL;
    struct one_insn_result r = ONE_INSN(cpu, 0xcd, 32);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(r.error, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_interrupt_pushes_five_words_on_an_aligned_stack),
        TEST(a_trap_gate_leaves_interrupts_on),
        TEST(an_error_code_lies_below_rip),
        TEST(user_mode_goes_to_rsp0_with_a_null_ss),
        TEST(an_ist_gate_switches_stacks_without_a_change_of_privilege),
        TEST(software_may_only_use_gates_of_its_level),
        TEST(int1_does_not_look_at_the_gate_s_level),
        TEST(int3_that_cannot_be_delivered_is_a_fault_of_int3),
        TEST(a_gate_that_is_not_present_is_np_with_ext_and_idt_bits),
        TEST(a_vector_beyond_the_idt_is_gp),
        TEST(a_handler_that_is_no_64_bit_code_is_gp),
        TEST(a_stack_outside_the_address_space_is_ss),
        TEST(a_tss_too_short_for_the_stack_is_ts),
        TEST(a_delivery_that_faults_changes_nothing),
        TEST(a_fault_is_pushed_with_rf),
        TEST(a_page_fault_sets_cr2_as_it_is_delivered),
        TEST(two_contributory_faults_are_a_double_fault),
        TEST(a_page_fault_while_a_contributory_fault_is_delivered_comes_after_it),
        TEST(a_page_fault_while_a_page_fault_is_delivered_is_a_double_fault),
        TEST(a_fault_behind_a_benign_event_is_delivered_alone),
        TEST(no_way_to_deliver_a_double_fault_ends_the_guest),
        TEST(an_nmi_blocks_others_until_iret),
        TEST(a_debug_exception_sets_dr6_and_clears_general_detect),
        TEST(an_interrupt_ends_a_halt),
        TEST(pushes_meet_data_breakpoints),
        TEST(a_debug_exception_ends_stepping_by_branches),
        TEST(the_engine_s_place_to_unwind_to_survives),
        TEST(real_mode_goes_through_the_vector_table),
        TEST(protected_mode_switches_to_the_stack_of_the_32_bit_tss),
        TEST(a_16_bit_gate_pushes_words),
        TEST(a_stack_segment_of_the_wrong_level_is_ts),
        TEST(virtual_8086_mode_leaves_its_segments_on_the_stack),
        TEST(int_n_in_virtual_8086_mode_takes_iopl_3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
