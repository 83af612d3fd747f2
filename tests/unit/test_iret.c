/* SPDX-License-Identifier: MIT */
/* IRET in all its forms (SDM 2A IRET). */
#include "tests/unit/one_insn.h"

#include "runtime/soft/segments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define TARGET 0x9000u

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

/* Puts words of `size` bytes on the stack, the first on top. */
static void stack(struct vcpu *cpu, unsigned size, unsigned count, const uint64_t *words)
{
    cpu->r[RSP] = ONE_INSN_STACK - 0x100;
    for (unsigned n = 0; n < count; n++)
        one_insn_put(cpu, cpu->r[RSP] + n * size, size, words[n]);
}
#define STACK(cpu, size, ...)                                                                      \
    stack(cpu, size, sizeof((const uint64_t[]){__VA_ARGS__}) / 8, (const uint64_t[]){__VA_ARGS__})

static struct one_insn_result iretq(struct vcpu *cpu)
{
    return ONE_INSN(cpu, 0x48, 0xcf);
}

static struct one_insn_result iretd(struct vcpu *cpu)
{
    return ONE_INSN(cpu, 0xcf);
}

static void check(struct vcpu *cpu, struct one_insn_result r, int vector, uint32_t error)
{
    assert_true(r.fault);
    assert_int_equal(r.vector, vector);
    assert_int_equal(r.error, error);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 0x100);
}

/* ---- long mode ---- */
static void iretq_pops_five_words_at_the_same_level(void **state)
{
    struct vcpu *cpu = *state;
    STACK(cpu, 8, TARGET, ONE_INSN_CS64, RFLAGS_IF | RFLAGS_ZF | RFLAGS_RF | RFLAGS_ID, 0x12340,
          ONE_INSN_DS);
    assert_false(iretq(cpu).fault);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->r[RSP], 0x12340);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_IF | RFLAGS_ZF | RFLAGS_RF | RFLAGS_ID | RFLAGS_ONE);
}

static void iretq_goes_to_user_mode(void **state)
{
    struct vcpu *cpu = *state;
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS64, RFLAGS_IF, 0x12340, ONE_INSN_USER_DS);
    assert_false(iretq(cpu).fault);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->mode, TLB_USER);
    assert_int_equal(cpu->segment[SEG_SS].selector, ONE_INSN_USER_DS);
    /* data segments of the kernel are dropped */
    assert_int_equal(cpu->segment[SEG_DS].selector, 0);
    assert_true(cpu->segment[SEG_DS].rights & RIGHTS_UNUSABLE);
}

static void dropped_segments_keep_their_base(void **state)
{
    struct vcpu *cpu = *state;
    cpu->segment[SEG_GS].base = 0x5000;
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS64, RFLAGS_IF, 0x12340, ONE_INSN_USER_DS);
    assert_false(iretq(cpu).fault);
    assert_int_equal(cpu->segment[SEG_GS].selector, 0);
    assert_int_equal(cpu->base[SEG_GS], 0x5000);
}

static void iretq_goes_to_compatibility_mode(void **state)
{
    struct vcpu *cpu = *state;
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS32, 0, 0x12340, ONE_INSN_USER_DS);
    assert_false(iretq(cpu).fault);
    assert_false(vcpu_code64(cpu));
    assert_int_equal(cpu->r[RSP], 0x12340);
}

static void a_16_bit_stack_gets_sp_only(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_GDT + 0x60, 8, 0x0000f3000000ffff);
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS32, 0, 0xabcd1234, 0x63);
    assert_false(iretq(cpu).fault);
    assert_int_equal(cpu->r[RSP], ((ONE_INSN_STACK - 0x100) & 0xffff0000) | 0x1234);
}

static void the_kernel_may_have_a_null_stack_segment(void **state)
{
    struct vcpu *cpu = *state;
    STACK(cpu, 8, TARGET, ONE_INSN_CS64, 0, 0x12340, 0);
    assert_false(iretq(cpu).fault);
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS64, 0, 0x12340, 3);
    cpu->rip = ONE_INSN_CODE;
    check(cpu, iretq(cpu), EXC_GP, 0);
}

static void user_mode_does_not_change_iopl_or_if(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->rflags |= RFLAGS_IF;
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS64, RFLAGS_IOPL | RFLAGS_CF | RFLAGS_VIP, 0x12340,
          ONE_INSN_USER_DS);
    assert_false(iretq(cpu).fault);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_IF | RFLAGS_CF | RFLAGS_ONE);
}

static void a_return_inwards_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    STACK(cpu, 8, TARGET, ONE_INSN_CS64, 0, 0x12340, ONE_INSN_DS);
    check(cpu, iretq(cpu), EXC_GP, ONE_INSN_CS64);
}

static void an_address_that_is_not_canonical_is_gp_before_anything_changes(void **state)
{
    struct vcpu *cpu = *state;
    STACK(cpu, 8, 0x0000800000000000, ONE_INSN_USER_CS64, 0, 0x12340, ONE_INSN_USER_DS);
    check(cpu, iretq(cpu), EXC_GP, 0);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->segment[SEG_SS].selector, ONE_INSN_DS);
}

static void a_bad_stack_segment_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    STACK(cpu, 8, TARGET, ONE_INSN_USER_CS64, 0, 0x12340, ONE_INSN_DS);
    check(cpu, iretq(cpu), EXC_GP, ONE_INSN_DS);
}

static void long_mode_has_no_nested_tasks(void **state)
{
    struct vcpu *cpu = *state;
    cpu->rflags |= RFLAGS_NT;
    STACK(cpu, 8, TARGET, ONE_INSN_CS64, 0, 0x12340, ONE_INSN_DS);
    check(cpu, iretq(cpu), EXC_GP, 0);
}

static void even_an_iret_that_faults_lets_nmis_in(void **state)
{
    struct vcpu *cpu = *state;
    cpu->nmi_blocked = true;
    STACK(cpu, 8, TARGET, 0, 0, 0x12340, ONE_INSN_DS);
    check(cpu, iretq(cpu), EXC_GP, 0);
    assert_false(cpu->nmi_blocked);
}

/* ---- protected mode ---- */
static void iretd_pops_three_words_at_the_same_level(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    STACK(cpu, 4, TARGET, ONE_INSN_CS32, RFLAGS_IF | RFLAGS_IOPL);
    assert_false(iretd(cpu).fault);
    assert_int_equal(cpu->rip, TARGET);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 0x100 + 12);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_IF | RFLAGS_IOPL | RFLAGS_ONE);
}

static void iretd_goes_outwards_with_a_stack(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    STACK(cpu, 4, TARGET, ONE_INSN_USER_CS32, 0, 0x12340, ONE_INSN_USER_DS);
    assert_false(iretd(cpu).fault);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->r[RSP], 0x12340);
}

static void iret_with_16_bits_keeps_the_upper_flags(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->rflags |= RFLAGS_AC | RFLAGS_ID;
    STACK(cpu, 2, TARGET, ONE_INSN_CS32, RFLAGS_CF);
    assert_false(ONE_INSN(cpu, 0x66, 0xcf).fault);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_AC | RFLAGS_ID | RFLAGS_CF | RFLAGS_ONE);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 0x100 + 6);
}

static void a_target_beyond_the_limit_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    STACK(cpu, 4, 0x10000, ONE_INSN_CS16, 0);
    check(cpu, iretd(cpu), EXC_GP, 0);
}

static void a_code_segment_that_is_absent_is_np(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    one_insn_put(cpu, ONE_INSN_GDT + 0x60, 8, 0x00cf1b000000ffff);
    STACK(cpu, 4, TARGET, 0x60, 0);
    check(cpu, iretd(cpu), EXC_NP, 0x60);
}

/* ---- virtual-8086 and real mode ---- */
static void iretd_enters_virtual_8086_mode(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    STACK(cpu, 4, 0x56, 0x1234, RFLAGS_VM | RFLAGS_IF, 0x8000, 0x2000, 0x3000, 0x4000, 0x5000,
          0x6000);
    assert_false(iretd(cpu).fault);
    assert_true(vcpu_v86(cpu));
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->rip, 0x56);
    assert_int_equal(cpu->base[SEG_CS], 0x12340);
    assert_int_equal(cpu->base[SEG_SS], 0x20000);
    assert_int_equal(cpu->base[SEG_ES], 0x30000);
    assert_int_equal(cpu->base[SEG_DS], 0x40000);
    assert_int_equal(cpu->base[SEG_FS], 0x50000);
    assert_int_equal(cpu->base[SEG_GS], 0x60000);
    assert_int_equal(cpu->segment[SEG_DS].rights, 0xf3);
    assert_int_equal(cpu->r[RSP], 0x8000);
}

static void user_mode_does_not_enter_virtual_8086_mode(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    STACK(cpu, 4, TARGET, ONE_INSN_USER_CS32, RFLAGS_VM);
    assert_false(iretd(cpu).fault);
    assert_false(vcpu_v86(cpu));
}

static void virtual_8086_mode_returns_within_itself(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_V86, false);
    cpu->r[RSP] = 0x7000;
    one_insn_put(cpu, 0x7000, 8, 0x56 | 0x1234 << 16 | (uint64_t)RFLAGS_IF << 32);
    assert_false(iretd(cpu).fault); /* 16 bits */
    assert_true(vcpu_v86(cpu));
    assert_int_equal(cpu->base[SEG_CS], 0x12340);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_VM | RFLAGS_IOPL | RFLAGS_IF | RFLAGS_ONE);
    cpu->rflags &= ~RFLAGS_IOPL;
    assert_int_equal(iretd(cpu).vector, EXC_GP);
}

static void real_mode_pops_words(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->r[RSP] = 0xfffe; /* wraps */
    one_insn_put(cpu, 0xfffe, 2, 0x56);
    one_insn_put(cpu, 0, 4, 0x1234 | RFLAGS_IF << 16);
    assert_false(iretd(cpu).fault);
    assert_int_equal(cpu->rip, 0x56);
    assert_int_equal(cpu->base[SEG_CS], 0x12340);
    assert_int_equal(cpu->r[RSP], 4);
    assert_true(cpu->rflags & RFLAGS_IF);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(iretq_pops_five_words_at_the_same_level),
        TEST(iretq_goes_to_user_mode),
        TEST(dropped_segments_keep_their_base),
        TEST(iretq_goes_to_compatibility_mode),
        TEST(a_16_bit_stack_gets_sp_only),
        TEST(the_kernel_may_have_a_null_stack_segment),
        TEST(user_mode_does_not_change_iopl_or_if),
        TEST(a_return_inwards_is_gp),
        TEST(an_address_that_is_not_canonical_is_gp_before_anything_changes),
        TEST(a_bad_stack_segment_is_gp),
        TEST(long_mode_has_no_nested_tasks),
        TEST(even_an_iret_that_faults_lets_nmis_in),
        TEST(iretd_pops_three_words_at_the_same_level),
        TEST(iretd_goes_outwards_with_a_stack),
        TEST(iret_with_16_bits_keeps_the_upper_flags),
        TEST(a_target_beyond_the_limit_is_gp),
        TEST(a_code_segment_that_is_absent_is_np),
        TEST(iretd_enters_virtual_8086_mode),
        TEST(user_mode_does_not_enter_virtual_8086_mode),
        TEST(virtual_8086_mode_returns_within_itself),
        TEST(real_mode_pops_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
