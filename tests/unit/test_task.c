/* SPDX-License-Identifier: MIT */
/* Hardware task switches (SDM 3A 7.3). */
#include "tests/unit/one_insn.h"

#include "runtime/soft/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define NEW_TSS  0x4000u
#define SELECTOR 0x60 /* of the new TSS */
#define GATE     0x68 /* a task gate to it */
#define TARGET   0x9000u

enum { EIP = 32, EFLAGS = 36, EAX = 40, ESP = 56, ES = 72, CS = 76, SS = 80, DS = 84, LDT = 96 };

static void put(struct vcpu *cpu, unsigned offset, uint32_t value)
{
    one_insn_put(cpu, NEW_TSS + offset, 4, value);
}

static int setup(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    *state = cpu;
    one_insn_mode(cpu, ONE_INSN_32, false);
    one_insn_put(cpu, ONE_INSN_GDT + SELECTOR, 8, 0x0000890000000067 | (uint64_t)NEW_TSS << 16);
    one_insn_put(cpu, ONE_INSN_GDT + GATE, 8, 0x0000850000000000 | (uint64_t)SELECTOR << 16);
    put(cpu, EIP, TARGET);
    put(cpu, EFLAGS, RFLAGS_ONE | RFLAGS_CF);
    put(cpu, EAX, 0x12345678);
    put(cpu, ESP, 0x12340);
    put(cpu, CS, ONE_INSN_CS32);
    put(cpu, SS, ONE_INSN_DS);
    put(cpu, DS, ONE_INSN_DS);
    return 0;
}

static int teardown(void **state)
{
    one_insn_free(*state);
    return 0;
}

static struct one_insn_result jump(struct vcpu *cpu, uint8_t selector)
{
    return ONE_INSN(cpu, 0xea, 0, 0, 0, 0, selector, 0);
}

static struct one_insn_result call(struct vcpu *cpu, uint8_t selector)
{
    return ONE_INSN(cpu, 0x9a, 0, 0, 0, 0, selector, 0);
}

static unsigned type(struct vcpu *cpu, uint16_t selector)
{
    return one_insn_get(cpu, ONE_INSN_GDT + selector + 5, 1) & 0xf;
}

static void a_jump_to_a_tss_switches_tasks(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 0x77;
    assert_false(jump(cpu, SELECTOR).fault);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->r[RAX], 0x12345678);
    assert_int_equal(cpu->r[RSP], 0x12340);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_ONE | RFLAGS_CF);
    assert_int_equal(cpu->segment[SEG_TR].selector, SELECTOR);
    assert_int_equal(cpu->segment[SEG_TR].base, NEW_TSS);
    assert_true(cpu->segment[SEG_ES].rights & RIGHTS_UNUSABLE);
    assert_true(cpu->cr0 & CR0_TS);
    assert_int_equal(type(cpu, SELECTOR), 11);
    assert_int_equal(type(cpu, ONE_INSN_TR), 9);
    /* the old task */
    assert_int_equal(one_insn_get(cpu, ONE_INSN_TSS + EIP, 4), ONE_INSN_CODE + 7);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_TSS + EAX + 4, 4), 0x77);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_TSS + CS, 2), ONE_INSN_CS32);
}

static void a_call_nests_and_iret_returns(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(call(cpu, GATE).fault);
    assert_true(cpu->rflags & RFLAGS_NT);
    assert_int_equal(one_insn_get(cpu, NEW_TSS, 2), ONE_INSN_TR);
    assert_int_equal(type(cpu, ONE_INSN_TR), 11);
    assert_false(ONE_INSN(cpu, 0xcf).fault);
    assert_int_equal(cpu->segment[SEG_TR].selector, ONE_INSN_TR);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 7);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
    assert_false(cpu->rflags & RFLAGS_NT);
    assert_int_equal(type(cpu, SELECTOR), 9);
    assert_int_equal(type(cpu, ONE_INSN_TR), 11);
    assert_int_equal(one_insn_get(cpu, NEW_TSS + EIP, 4), TARGET + 1);
}

static void an_interrupt_goes_through_a_task_gate(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_IDT + 8 * EXC_GP, 8, 0x0000850000000000 | SELECTOR << 16);
    event_deliver(cpu, EVENT_EXCEPTION, EXC_GP, true, 0x1234);
    assert_int_equal(cpu->rip, TARGET);
    assert_true(cpu->rflags & RFLAGS_NT);
    assert_int_equal(cpu->r[RSP], 0x12340 - 4);
    assert_int_equal(one_insn_get(cpu, 0x12340 - 4, 4), 0x1234);
    assert_true(one_insn_get(cpu, ONE_INSN_TSS + EFLAGS, 4) & RFLAGS_RF);
}

static void a_new_ldt_is_loaded_before_the_segments(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_GDT + 0x70, 8, 0x000082000000000f | (uint64_t)ONE_INSN_DATA << 16);
    one_insn_put(cpu, ONE_INSN_DATA + 8, 8, 0x00cf93000000ffff);
    put(cpu, LDT, 0x70);
    put(cpu, DS, 0x0c);
    assert_false(jump(cpu, SELECTOR).fault);
    assert_int_equal(cpu->segment[SEG_DS].selector, 0x0c);
    assert_int_equal(cpu->segment[SEG_LDTR].base, ONE_INSN_DATA);
}

static void a_task_can_be_a_virtual_8086_one(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, EFLAGS, RFLAGS_VM | RFLAGS_ONE);
    put(cpu, CS, 0x1234);
    put(cpu, EIP, 0x56);
    assert_false(jump(cpu, SELECTOR).fault);
    assert_true(vcpu_v86(cpu));
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->base[SEG_CS], 0x12340);
}

static void a_16_bit_tss_works_too(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_GDT + SELECTOR, 8, 0x000081000000002b | (uint64_t)NEW_TSS << 16);
    memset(one_insn_at(cpu, NEW_TSS), 0, 0x68);
    one_insn_put(cpu, NEW_TSS + 14, 2, TARGET);
    one_insn_put(cpu, NEW_TSS + 16, 2, RFLAGS_ONE);
    one_insn_put(cpu, NEW_TSS + 18, 2, 0x5678);
    one_insn_put(cpu, NEW_TSS + 36, 2, ONE_INSN_CS32);
    one_insn_put(cpu, NEW_TSS + 38, 2, ONE_INSN_DS);
    assert_false(jump(cpu, SELECTOR).fault);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->r[RAX], 0x5678);
    assert_int_equal(type(cpu, SELECTOR), 3);
}

static void the_trap_bit_is_a_debug_exception_in_the_new_task(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, 100, 1);
    assert_false(jump(cpu, SELECTOR).fault);
    assert_int_equal(cpu->pending_db, DR6_BT);
}

static void paging_switches_page_tables(void **state)
{
    struct vcpu *cpu = *state;
    /* 32-bit paging: one directory of 4 MiB pages at 0x40000, another at 0x41000 */
    one_insn_put(cpu, 0x40000, 4, 0x83);
    one_insn_put(cpu, 0x41000, 4, 0x83);
    cpu->cr4 = CR4_PSE;
    cpu->cr3 = 0x40000;
    cpu->cr0 |= CR0_PG;
    tlb_flush(cpu);
    vcpu_mode_changed(cpu);
    put(cpu, 28, 0x41000);
    assert_false(jump(cpu, SELECTOR).fault);
    assert_int_equal(cpu->cr3, 0x41000);
}

/* ---- refusals ---- */
static void check(struct vcpu *cpu, struct one_insn_result r, int vector, uint32_t error)
{
    assert_true(r.fault);
    assert_int_equal(r.vector, vector);
    assert_int_equal(r.error, error);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    assert_int_equal(cpu->segment[SEG_TR].selector, ONE_INSN_TR);
    assert_int_equal(type(cpu, ONE_INSN_TR), 11);
}

static void a_tss_that_cannot_be_used_is_refused_in_the_old_task(void **state)
{
    struct vcpu *cpu = *state;
    check(cpu, jump(cpu, ONE_INSN_TR), EXC_GP, ONE_INSN_TR); /* busy */
    one_insn_put(cpu, ONE_INSN_GDT + SELECTOR, 1, 0x66);
    check(cpu, jump(cpu, SELECTOR), EXC_TS, SELECTOR); /* too short */
    one_insn_put(cpu, ONE_INSN_GDT + SELECTOR + 5, 1, 0x09);
    check(cpu, jump(cpu, SELECTOR), EXC_NP, SELECTOR); /* absent */
    cpu->rflags |= RFLAGS_NT;
    one_insn_put(cpu, ONE_INSN_TSS, 2, SELECTOR);
    check(cpu, ONE_INSN(cpu, 0xcf), EXC_TS, SELECTOR); /* not busy */
}

static void user_mode_needs_a_gate(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    check(cpu, jump(cpu, SELECTOR | 3), EXC_GP, SELECTOR);
    check(cpu, jump(cpu, GATE | 3), EXC_GP, GATE);
    one_insn_put(cpu, ONE_INSN_GDT + GATE + 5, 1, 0xe5);
    assert_false(jump(cpu, GATE | 3).fault);
    assert_int_equal(cpu->cpl, 0);
}

static void what_is_wrong_with_the_new_task_is_its_own_exception(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, DS, 0x58); /* an empty descriptor */
    one_insn_put(cpu, ONE_INSN_IDT + 8 * EXC_TS, 8,
                 0x00008e0000000000 | ONE_INSN_CS32 << 16 | 0xa000);
    assert_false(jump(cpu, SELECTOR).fault);
    assert_int_equal(cpu->segment[SEG_TR].selector, SELECTOR);
    assert_int_equal(cpu->rip, 0xa000);
    assert_int_equal(cpu->r[RSP], 0x12340 - 16);
    assert_int_equal(one_insn_get(cpu, 0x12340 - 16, 4), 0x58);
    assert_int_equal(one_insn_get(cpu, 0x12340 - 12, 4), TARGET);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_jump_to_a_tss_switches_tasks),
        TEST(a_call_nests_and_iret_returns),
        TEST(an_interrupt_goes_through_a_task_gate),
        TEST(a_new_ldt_is_loaded_before_the_segments),
        TEST(a_task_can_be_a_virtual_8086_one),
        TEST(a_16_bit_tss_works_too),
        TEST(the_trap_bit_is_a_debug_exception_in_the_new_task),
        TEST(paging_switches_page_tables),
        TEST(a_tss_that_cannot_be_used_is_refused_in_the_old_task),
        TEST(user_mode_needs_a_gate),
        TEST(what_is_wrong_with_the_new_task_is_its_own_exception),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
