/* SPDX-License-Identifier: MIT */
/* The support for tests of single instructions: modes, faults caught, bytes nobody takes. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void raise_ud(struct vcpu *cpu, void *context)
{
    (void)context;
    cpu_raise(cpu, NULL, EXC_UD);
}

static void faults_are_caught(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    struct one_insn_result r = one_insn_catch(cpu, raise_ud, NULL);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_UD);
    one_insn_free(cpu);
}

static void bytes_that_mean_nothing_are_undefined_opcodes(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    struct one_insn_result r = ONE_INSN(cpu, 0x0f, 0x04);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_UD);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    one_insn_free(cpu);
}

static void every_mode_can_be_set_up(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    assert_true(vcpu_code64(cpu));
    one_insn_mode(cpu, ONE_INSN_COMPAT32, true);
    assert_true(vcpu_long_mode(cpu) && !vcpu_code64(cpu) && cpu->cpl == 3);
    one_insn_mode(cpu, ONE_INSN_32, false);
    assert_true(vcpu_protected(cpu) && !vcpu_long_mode(cpu));
    one_insn_mode(cpu, ONE_INSN_V86, false);
    assert_true(vcpu_v86(cpu) && cpu->cpl == 3);
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    assert_false(vcpu_protected(cpu));
    one_insn_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_are_caught),
        cmocka_unit_test(bytes_that_mean_nothing_are_undefined_opcodes),
        cmocka_unit_test(every_mode_can_be_set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
