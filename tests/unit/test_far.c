/* SPDX-License-Identifier: MIT */
/* Far JMP, CALL and RET, direct and through call gates (SDM 2A CALL, 3A 5.8). */
#include "tests/unit/one_insn.h"

#include "runtime/soft/segments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define TARGET 0x9000u
#define GATE   0x60
#define FREE   0x70

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

/* A call gate to selector:TARGET with these access rights (bits 40-47) and parameters. */
static void gate(struct vcpu *cpu, uint16_t selector, unsigned access, unsigned parameters)
{
    one_insn_put(cpu, ONE_INSN_GDT + GATE, 8,
                 TARGET | (uint64_t)selector << 16 | (uint64_t)parameters << 32 |
                     (uint64_t)access << 40);
    one_insn_put(cpu, ONE_INSN_GDT + GATE + 8, 8, 0);
}

static struct one_insn_result far_memory(struct vcpu *cpu, uint16_t selector, uint32_t offset,
                                         unsigned extension)
{
    one_insn_put(cpu, ONE_INSN_DATA, 8, (uint64_t)selector << 32 | offset);
    cpu->r[RBX] = ONE_INSN_DATA;
    return ONE_INSN(cpu, 0xff, (uint8_t)(0x03 | extension << 3));
}

static struct one_insn_result jump(struct vcpu *cpu, uint16_t selector, uint32_t offset)
{
    return far_memory(cpu, selector, offset, 5);
}

static struct one_insn_result call(struct vcpu *cpu, uint16_t selector, uint32_t offset)
{
    return far_memory(cpu, selector, offset, 3);
}

static void check(struct vcpu *cpu, struct one_insn_result r, int vector, uint32_t error)
{
    assert_true(r.fault);
    assert_int_equal(r.vector, vector);
    assert_int_equal(r.error, error);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
}

/* ---- JMP ---- */
static void a_jump_changes_between_the_code_sizes(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(jump(cpu, ONE_INSN_CS32, TARGET).fault);
    assert_int_equal(cpu->rip, TARGET);
    assert_false(vcpu_code64(cpu));
    assert_true(vcpu_long_mode(cpu));
    assert_false(ONE_INSN(cpu, 0xea, 0, 0xa0, 0, 0, ONE_INSN_CS64, 0).fault);
    assert_true(vcpu_code64(cpu));
    assert_int_equal(cpu->rip, 0xa000);
}

static void a_jump_leaves_real_mode_s_segments_behind(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    assert_false(ONE_INSN(cpu, 0xea, 0x56, 0, 0x34, 0x12).fault);
    assert_int_equal(cpu->rip, 0x56);
    assert_int_equal(cpu->base[SEG_CS], 0x12340);
    /* as a kernel does it: CR0.PE, then a far jump */
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->rip = ONE_INSN_CODE;
    cpu->cr0 |= CR0_PE;
    vcpu_mode_changed(cpu);
    assert_false(ONE_INSN(cpu, 0x66, 0xea, 0, 0x90, 0, 0, ONE_INSN_CS32, 0).fault);
    assert_int_equal(cpu->segment[SEG_CS].rights, 0xc09b);
    assert_int_equal(cpu->rip, TARGET);
}

static void a_jump_keeps_its_level(void **state)
{
    struct vcpu *cpu = *state;
    check(cpu, jump(cpu, ONE_INSN_USER_CS64, TARGET), EXC_GP, ONE_INSN_USER_CS64 & ~3);
    check(cpu, jump(cpu, 0, TARGET), EXC_GP, 0);
    check(cpu, jump(cpu, ONE_INSN_DS, TARGET), EXC_GP, ONE_INSN_DS);
    check(cpu, jump(cpu, ONE_INSN_CS64 | 1, TARGET), EXC_GP, ONE_INSN_CS64);
    one_insn_mode(cpu, ONE_INSN_64, true);
    check(cpu, jump(cpu, ONE_INSN_CS64, TARGET), EXC_GP, ONE_INSN_CS64);
}

static void conforming_code_runs_at_the_caller_s_level(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    one_insn_put(cpu, ONE_INSN_GDT + FREE, 8, 0x00af9e000000ffff);
    assert_false(jump(cpu, FREE, TARGET).fault);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->segment[SEG_CS].selector, FREE | 3);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_GDT + FREE + 5, 1), 0x9f);
}

static void code_cannot_be_64_and_32_bits(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_GDT + FREE, 8, 0x00ef9b000000ffff);
    check(cpu, jump(cpu, FREE, TARGET), EXC_GP, FREE);
}

static void a_jump_beyond_the_limit_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    check(cpu, jump(cpu, ONE_INSN_CS16, 0x10000), EXC_GP, 0);
}

static void an_absent_segment_is_np(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_GDT + FREE, 8, 0x00af1b000000ffff);
    check(cpu, jump(cpu, FREE, TARGET), EXC_NP, FREE);
}

/* ---- CALL and RET ---- */
static void a_call_pushes_cs_and_rip_and_ret_pops_them(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    assert_false(ONE_INSN(cpu, 0x9a, 0, 0x90, 0, 0, ONE_INSN_CS32, 0).fault);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 8);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_STACK - 8, 4), ONE_INSN_CODE + 7);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_STACK - 4, 4), ONE_INSN_CS32);
    assert_false(ONE_INSN(cpu, 0xca, 4, 0).fault); /* retf 4 */
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 7);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 4);
}

static void a_call_in_64_bit_mode_pushes_as_wide_as_its_operand(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(call(cpu, ONE_INSN_CS64, TARGET).fault);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 8);
    assert_false(ONE_INSN(cpu, 0xcb).fault); /* retf: 32 bits */
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 2);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

static void retfq_goes_outwards_with_a_stack(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RSP] -= 64;
    one_insn_put(cpu, cpu->r[RSP], 8, TARGET);
    one_insn_put(cpu, cpu->r[RSP] + 8, 8, ONE_INSN_USER_CS64);
    one_insn_put(cpu, cpu->r[RSP] + 24, 8, 0x12340);
    one_insn_put(cpu, cpu->r[RSP] + 32, 8, ONE_INSN_USER_DS);
    assert_false(ONE_INSN(cpu, 0x48, 0xca, 8, 0).fault); /* 8 bytes of parameters */
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->r[RSP], 0x12348);
    assert_true(cpu->segment[SEG_DS].rights & RIGHTS_UNUSABLE);
}

static void a_return_inwards_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RSP] -= 64;
    one_insn_put(cpu, cpu->r[RSP], 8, TARGET);
    one_insn_put(cpu, cpu->r[RSP] + 8, 8, ONE_INSN_CS64);
    check(cpu, ONE_INSN(cpu, 0x48, 0xcb), EXC_GP, ONE_INSN_CS64);
}

static void real_mode_calls_and_returns_in_words(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->r[RSP] = 0x7000;
    assert_false(ONE_INSN(cpu, 0x9a, 0x56, 0, 0, 1).fault);
    assert_int_equal(cpu->base[SEG_CS], 0x1000);
    assert_int_equal(one_insn_get(cpu, 0x6ffc, 4), ONE_INSN_CODE + 5);
    assert_false(ONE_INSN(cpu, 0xcb).fault);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 5);
    assert_int_equal(cpu->base[SEG_CS], 0);
    assert_int_equal(cpu->r[RSP], 0x7000);
}

static void a_call_whose_push_faults_changes_nothing(void **state)
{
    struct vcpu *cpu = *state;
    *one_insn_pte(cpu, ONE_INSN_STACK - 1) &= ~2ull;
    one_insn_flush(cpu);
    struct one_insn_result r = call(cpu, ONE_INSN_CS32, TARGET);
    check(cpu, r, EXC_PF, PF_PRESENT | PF_WRITE);
    assert_int_equal(cpu->segment[SEG_CS].selector, ONE_INSN_CS64);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

/* ---- call gates ---- */
static void a_64_bit_gate_goes_inwards(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, ONE_INSN_CS64, 0xec, 0);
    assert_false(call(cpu, GATE | 3, 0x5555).fault);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0);
    assert_int_equal(cpu->r[RSP], ONE_INSN_RING0 - 32);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_RING0 - 32, 8), ONE_INSN_CODE + 2);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_RING0 - 24, 8), ONE_INSN_USER_CS64);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_RING0 - 16, 8), ONE_INSN_STACK);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_RING0 - 8, 8), ONE_INSN_USER_DS);
}

static void a_32_bit_gate_copies_parameters(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    one_insn_put(cpu, ONE_INSN_TSS + 4, 4, 0x6800);
    one_insn_put(cpu, ONE_INSN_TSS + 8, 4, ONE_INSN_DS);
    gate(cpu, ONE_INSN_CS32, 0xec, 2);
    one_insn_put(cpu, ONE_INSN_STACK - 8, 4, 0x1111);
    one_insn_put(cpu, ONE_INSN_STACK - 4, 4, 0x2222);
    cpu->r[RSP] = ONE_INSN_STACK - 8;
    assert_false(call(cpu, GATE | 3, 0).fault);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->r[RSP], 0x6800 - 24);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 24, 4), ONE_INSN_CODE + 2);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 16, 4), 0x1111);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 12, 4), 0x2222);
    assert_int_equal(one_insn_get(cpu, 0x6800 - 8, 4), ONE_INSN_STACK - 8);
}

static void a_gate_is_for_its_level_and_its_target_checked(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    gate(cpu, ONE_INSN_CS64, 0x8c, 0);
    check(cpu, call(cpu, GATE | 3, 0), EXC_GP, GATE);
    gate(cpu, ONE_INSN_CS64, 0x6c, 0);
    check(cpu, call(cpu, GATE | 3, 0), EXC_NP, GATE);
    gate(cpu, ONE_INSN_CS32, 0xec, 0);
    check(cpu, call(cpu, GATE | 3, 0), EXC_GP, ONE_INSN_CS32);
    gate(cpu, 0, 0xec, 0);
    check(cpu, call(cpu, GATE | 3, 0), EXC_GP, 0);
    gate(cpu, ONE_INSN_CS64, 0xec, 0);
    one_insn_put(cpu, ONE_INSN_GDT + GATE + 13, 1, 0x0c); /* type bits of the second half */
    check(cpu, call(cpu, GATE | 3, 0), EXC_GP, GATE);
    /* a jump may not go inwards */
    gate(cpu, ONE_INSN_CS64, 0xec, 0);
    check(cpu, jump(cpu, GATE | 3, 0), EXC_GP, ONE_INSN_CS64);
}

static void long_mode_has_no_16_bit_gates_and_no_tasks(void **state)
{
    struct vcpu *cpu = *state;
    gate(cpu, ONE_INSN_CS64, 0x84, 0);
    check(cpu, call(cpu, GATE, 0), EXC_GP, GATE);
    gate(cpu, ONE_INSN_CS64, 0x85, 0);
    check(cpu, call(cpu, GATE, 0), EXC_GP, GATE);
    check(cpu, call(cpu, ONE_INSN_TR, 0), EXC_GP, ONE_INSN_TR);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_jump_changes_between_the_code_sizes),
        TEST(a_jump_leaves_real_mode_s_segments_behind),
        TEST(a_jump_keeps_its_level),
        TEST(conforming_code_runs_at_the_caller_s_level),
        TEST(code_cannot_be_64_and_32_bits),
        TEST(a_jump_beyond_the_limit_is_gp),
        TEST(an_absent_segment_is_np),
        TEST(a_call_pushes_cs_and_rip_and_ret_pops_them),
        TEST(a_call_in_64_bit_mode_pushes_as_wide_as_its_operand),
        TEST(retfq_goes_outwards_with_a_stack),
        TEST(a_return_inwards_is_gp),
        TEST(real_mode_calls_and_returns_in_words),
        TEST(a_call_whose_push_faults_changes_nothing),
        TEST(a_64_bit_gate_goes_inwards),
        TEST(a_32_bit_gate_copies_parameters),
        TEST(a_gate_is_for_its_level_and_its_target_checked),
        TEST(long_mode_has_no_16_bit_gates_and_no_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
