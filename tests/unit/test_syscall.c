/* SPDX-License-Identifier: MIT */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT (APM 3, SDM 2B). */
#include "tests/unit/one_insn.h"

#include "runtime/soft/segments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define LSTAR 0xffffffff81000000ull
#define CSTAR 0xffffffff82000000ull

static int setup(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    *state = cpu;
    cpu->star = 0x0023000800005678;
    cpu->lstar = LSTAR;
    cpu->cstar = CSTAR;
    cpu->fmask = RFLAGS_IF | RFLAGS_TF | RFLAGS_CF;
    cpu->sysenter_cs = 0x10;
    cpu->sysenter_eip = LSTAR + 0x1000;
    cpu->sysenter_esp = 0xffff888000001000;
    return 0;
}

static int teardown(void **state)
{
    one_insn_free(*state);
    return 0;
}

static struct one_insn_result syscall(struct vcpu *cpu)
{
    return ONE_INSN(cpu, 0x0f, 0x05);
}

static struct one_insn_result sysretq(struct vcpu *cpu)
{
    return ONE_INSN(cpu, 0x48, 0x0f, 0x07);
}

static struct one_insn_result sysretl(struct vcpu *cpu)
{
    return ONE_INSN(cpu, 0x0f, 0x07);
}

static void syscall_saves_rip_and_flags_and_enters_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    vcpu_set_rflags(cpu, RFLAGS_IF | RFLAGS_CF | RFLAGS_ZF | RFLAGS_RF);
    assert_false(syscall(cpu).fault);
    assert_int_equal(cpu->rip, LSTAR);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    assert_int_equal(cpu->r[RCX], ONE_INSN_CODE + 2);
    assert_int_equal(cpu->r[R11], RFLAGS_IF | RFLAGS_CF | RFLAGS_ZF | RFLAGS_ONE);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_ZF | RFLAGS_ONE);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x08);
    assert_int_equal(cpu->segment[SEG_CS].rights, 0xa09b);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0x10);
    assert_int_equal(cpu->segment[SEG_SS].rights, 0xc093);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

static void compatibility_mode_has_its_own_entry(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_COMPAT32, true);
    assert_false(syscall(cpu).fault);
    assert_int_equal(cpu->rip, CSTAR);
    assert_true(vcpu_code64(cpu));
}

static void legacy_mode_enters_at_star(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    cpu->efer |= EFER_SCE;
    assert_false(syscall(cpu).fault);
    assert_int_equal(cpu->rip, 0x5678);
    assert_int_equal(cpu->r[RCX], ONE_INSN_CODE + 2);
    assert_int_equal(cpu->cpl, 0);
}

static void without_sce_they_are_undefined(void **state)
{
    struct vcpu *cpu = *state;
    cpu->efer &= ~(uint64_t)EFER_SCE;
    assert_int_equal(syscall(cpu).vector, EXC_UD);
    assert_int_equal(sysretq(cpu).vector, EXC_UD);
}

static void sysretq_returns_to_64_bit_user_code(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 0x1234;
    cpu->r[R11] = RFLAGS_IF | RFLAGS_CF | RFLAGS_RF | RFLAGS_VM | 0xffffffff00000000;
    assert_false(sysretq(cpu).fault);
    assert_int_equal(cpu->rip, 0x1234);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->mode, TLB_USER);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x33);
    assert_int_equal(cpu->segment[SEG_CS].rights, 0xa0fb);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0x2b);
    assert_int_equal(cpu->segment[SEG_SS].rights, 0xc0f3);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_IF | RFLAGS_CF | RFLAGS_ONE);
}

static void sysretl_returns_to_compatibility_mode(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 0xffffffff00001234;
    assert_false(sysretl(cpu).fault);
    assert_int_equal(cpu->rip, 0x1234);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x23);
    assert_false(vcpu_code64(cpu));
    assert_true(cpu->segment[SEG_CS].rights & RIGHTS_DB);
}

static void sysret_is_for_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    struct one_insn_result r = sysretq(cpu);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(r.error, 0);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
}

static void sysret_with_tf_traps_at_once_and_syscall_without_it_does_not(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[R11] = RFLAGS_TF;
    assert_false(sysretq(cpu).fault);
    assert_int_equal(cpu->pending_db, DR6_BS);
    cpu->pending_db = 0;
    cpu->rip = ONE_INSN_CODE;
    cpu->untrapped = false;
    assert_false(syscall(cpu).fault);
    assert_true(cpu->untrapped);
    assert_int_equal(cpu->pending_db, 0);
}

/* ---- SYSENTER, SYSEXIT ---- */
static void sysenter_enters_with_a_stack(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->rflags |= RFLAGS_IF;
    assert_false(ONE_INSN(cpu, 0x0f, 0x34).fault);
    assert_int_equal(cpu->rip, LSTAR + 0x1000);
    assert_int_equal(cpu->r[RSP], 0xffff888000001000);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x10);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0x18);
    assert_int_equal(cpu->cpl, 0);
    assert_false(cpu->rflags & RFLAGS_IF);
}

static void sysenter_in_legacy_mode_has_32_bits(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, true);
    assert_false(ONE_INSN(cpu, 0x0f, 0x34).fault);
    assert_int_equal(cpu->rip, 0x81001000);
    assert_int_equal(cpu->r[RSP], 0x1000);
}

static void sysenter_without_a_segment_is_gp(void **state)
{
    struct vcpu *cpu = *state;
    cpu->sysenter_cs = 3;
    assert_int_equal(ONE_INSN(cpu, 0x0f, 0x34).vector, EXC_GP);
    assert_int_equal(ONE_INSN(cpu, 0x0f, 0x35).vector, EXC_GP);
}

static void sysexit_returns_to_either_size(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RDX] = 0x1234;
    cpu->r[RCX] = 0x5678;
    assert_false(ONE_INSN(cpu, 0x48, 0x0f, 0x35).fault);
    assert_int_equal(cpu->rip, 0x1234);
    assert_int_equal(cpu->r[RSP], 0x5678);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x33);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0x3b);
    assert_true(vcpu_code64(cpu));
    one_insn_mode(cpu, ONE_INSN_64, false);
    cpu->rip = ONE_INSN_CODE;
    assert_false(ONE_INSN(cpu, 0x0f, 0x35).fault);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x23);
    assert_int_equal(cpu->segment[SEG_SS].selector, 0x2b);
    assert_false(vcpu_code64(cpu));
}

static void sysexit_checks_before_it_changes(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RDX] = 0x0000800000000000;
    assert_int_equal(ONE_INSN(cpu, 0x48, 0x0f, 0x35).vector, EXC_GP);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
    one_insn_mode(cpu, ONE_INSN_64, true);
    assert_int_equal(ONE_INSN(cpu, 0x0f, 0x35).vector, EXC_GP);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(syscall_saves_rip_and_flags_and_enters_the_kernel),
        TEST(compatibility_mode_has_its_own_entry),
        TEST(legacy_mode_enters_at_star),
        TEST(without_sce_they_are_undefined),
        TEST(sysretq_returns_to_64_bit_user_code),
        TEST(sysretl_returns_to_compatibility_mode),
        TEST(sysret_is_for_the_kernel),
        TEST(sysret_with_tf_traps_at_once_and_syscall_without_it_does_not),
        TEST(sysenter_enters_with_a_stack),
        TEST(sysenter_in_legacy_mode_has_32_bits),
        TEST(sysenter_without_a_segment_is_gp),
        TEST(sysexit_returns_to_either_size),
        TEST(sysexit_checks_before_it_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
