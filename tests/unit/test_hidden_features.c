/* SPDX-License-Identifier: MIT */
/* Instructions of features that the CPUID model does not offer. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/cpuid.h"

/* F3 is a prefix that means nothing to BSF and BSR, which leave the destination of 0 as it is. */
static void counts_of_zeros_are_bit_scans_then(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    cpu->r[RCX] = 0x100;
    cpuid_hide(FEATURE_BMI1);
    cpuid_hide(FEATURE_ABM);
    assert_false(ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xbc, 0xc1).fault); /* tzcnt %rcx, %rax */
    assert_int_equal(cpu->r[RAX], 8);
    assert_false(ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xbd, 0xc1).fault); /* lzcnt %rcx, %rax */
    assert_int_equal(cpu->r[RAX], 8);
    one_insn_free(cpu);
}

static void others_are_undefined(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    cpuid_hide(FEATURE_POPCNT);
    struct one_insn_result result = ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xb8, 0xc1); /* popcnt */
    assert_true(result.fault);
    assert_int_equal(result.vector, EXC_UD);
    one_insn_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_zeros_are_bit_scans_then),
        cmocka_unit_test(others_are_undefined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
