/* SPDX-License-Identifier: MIT */
/* What CPUID shows: the model is one that exists, agrees with itself, and is told by the same table to the decoder and
 * CR4. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/cpuid.h"
#include "runtime/interrupts.h"
#include "runtime/soft/decode.h"

extern const struct device_type lapic_device;

static int make_machine(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    struct error err;
    cpu->vm->device[0] = lapic_device.create(cpu->vm, &err);
    assert_non_null(cpu->vm->device[0]);
    *state = cpu;
    return 0;
}

static int free_machine(void **state)
{
    struct vcpu *cpu = *state;
    lapic_device.destroy(cpu->vm->device[0]);
    one_insn_free(cpu);
    return 0;
}

static void the_vendor_is_AMD_and_the_family_15_model_107(void **state)
{
    struct vcpu *cpu = *state;
    struct cpuid_answer a = cpuid_answer(cpu, 0, 0);
    assert_memory_equal(&a.ebx, "Auth", 4);
    assert_memory_equal(&a.edx, "enti", 4);
    assert_memory_equal(&a.ecx, "cAMD", 4);
    assert_int_equal(a.eax, 0xd);
    uint32_t signature = cpuid_answer(cpu, 1, 0).eax;
    assert_int_equal(signature >> 8 & 15, 15);
    assert_int_equal(signature >> 20 & 0xff, 0);
    assert_int_equal((signature >> 16 & 15) << 4 | (signature >> 4 & 15), 107);
    assert_int_equal(signature & 15, 1);
    assert_int_equal(cpuid_answer(cpu, 0x80000001, 0).eax, signature);
}

static void assert_signature(const struct vcpu *cpu, uint32_t leaf, const char *expected)
{
    struct cpuid_answer a = cpuid_answer(cpu, leaf, 0);
    char name[13] = {0};
    memcpy(name, &a.ebx, 4);
    memcpy(name + 4, &a.ecx, 4);
    memcpy(name + 8, &a.edx, 4);
    assert_string_equal(name, expected);
}

static void the_hypervisor_names_its_interfaces_and_frequencies(void **state)
{
    struct vcpu *cpu = *state;
    assert_true(cpuid_answer(cpu, 1, 0).ecx >> 31);
    assert_signature(cpu, 0x40000000, "KVMKVMKVM");
    assert_int_equal(cpuid_answer(cpu, 0x40000000, 0).eax, 0x40000010);
    struct cpuid_answer a = cpuid_answer(cpu, 0x40000010, 0);
    assert_int_equal(a.eax, CLOCK_TSC_KHZ);
    assert_int_equal(a.ebx, CLOCK_TSC_KHZ);
    assert_signature(cpu, 0x40000100, "PatchvisorHv");
}

static void the_brand_is_text(void **state)
{
    struct cpuid_answer a[3];
    for (unsigned n = 0; n < 3; n++)
        a[n] = cpuid_answer(*state, 0x80000002 + n, 0);
    assert_string_equal((const char *)a, "Patchvisor virtual processor");
}

static void all_of_x86_64_v2_is_there(void **state)
{
    struct cpuid_answer one = cpuid_answer(*state, 1, 0), amd = cpuid_answer(*state, 0x80000001, 0);
    /* FPU PSE TSC MSR PAE CX8 APIC SEP PGE CMOV PAT CLFSH MMX FXSR SSE SSE2 */
    const uint32_t edx = 0x0708ab79 & ~0x80u;
    assert_int_equal(one.edx & edx, edx);
    /* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT */
    const uint32_t ecx = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
    assert_int_equal(one.ecx & ecx, ecx);
    assert_true(amd.ecx & 1); /* LAHF in 64-bit mode */
    assert_true(amd.edx & 1 << 29 && amd.edx & 1 << 11 && amd.edx & 1 << 20); /* LM, SYSCALL, NX */
}

static void leaf_80000001_repeats_the_bits_of_leaf_1(void **state)
{
    uint32_t one = cpuid_answer(*state, 1, 0).edx, amd = cpuid_answer(*state, 0x80000001, 0).edx;
    assert_int_equal(one & 0x0183f3ff, amd & 0x0183f3ff);
}

static void features_follow_the_state_that_enables_them(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(cpuid_answer(cpu, 1, 0).ecx & 1 << 27);
    assert_false(cpuid_answer(cpu, 7, 0).ecx & 1 << 4);
    cpu->cr4 |= CR4_OSXSAVE | CR4_PKE;
    assert_true(cpuid_answer(cpu, 1, 0).ecx & 1 << 27);
    assert_true(cpuid_answer(cpu, 7, 0).ecx & 1 << 4);
    assert_true(cpuid_answer(cpu, 1, 0).edx & 1 << 9);
    assert_int_equal(lapic_write_msr(cpu, 0x1b, LAPIC_BASE | 0x100), 0);
    assert_false(cpuid_answer(cpu, 1, 0).edx & 1 << 9);
}

static void one_processor_claims_no_siblings(void **state)
{
    struct cpuid_answer one = cpuid_answer(*state, 1, 0);
    assert_false(one.edx & 1 << 28);
    assert_int_equal(one.ebx >> 16, 0);
    assert_int_equal(cpuid_answer(*state, 0x80000008, 0).ecx, 0);
    assert_false(cpuid_answer(*state, 0x80000001, 0).ecx & 2);
    assert_int_equal(cpuid_answer(*state, 0xb, 1).eax, 0);
    assert_int_equal(cpuid_answer(*state, 0xb, 1).ebx, 1);
}

static void three_processors_are_cores_of_one_package(void **state)
{
    struct vcpu *cpu = *state;
    cpu->vm->vcpu_count = 3;
    cpu->index = 2;
    struct cpuid_answer one = cpuid_answer(cpu, 1, 0);
    assert_true(one.edx & 1 << 28);
    assert_int_equal(one.ebx >> 24, 2);
    assert_int_equal(one.ebx >> 16 & 0xff, 3);
    assert_int_equal(cpuid_answer(cpu, 0x80000008, 0).ecx, 2 | 2 << 12);
    struct cpuid_answer threads = cpuid_answer(cpu, 0xb, 0), cores = cpuid_answer(cpu, 0xb, 1);
    assert_int_equal(threads.eax, 0);
    assert_int_equal(threads.ebx, 1);
    assert_int_equal(threads.ecx, 0x100);
    assert_int_equal(cores.eax, 2);
    assert_int_equal(cores.ebx, 3);
    assert_int_equal(cores.ecx, 0x201);
    assert_int_equal(cores.edx, 2);
    assert_int_equal(cpuid_answer(cpu, 0xb, 2).ebx, 0);
    assert_int_equal(cpuid_answer(cpu, 0xb, 2).ecx, 2);
    cpu->vm->vcpu_count = 1;
    cpu->index = 0;
}

static void xsave_areas_have_room_for_what_is_enabled(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t all = cpuid_xcr0_mask();
    struct cpuid_answer a = cpuid_answer(cpu, 0xd, 0);
    assert_int_equal(a.eax, (uint32_t)all);
    assert_int_equal(a.ebx, XSTATE_LEGACY_SIZE);
    assert_int_equal(a.ecx, cpuid_xsave_size(all, false));
    cpu->xcr0 = all;
    assert_int_equal(cpuid_answer(cpu, 0xd, 0).ebx, a.ecx);
    for (unsigned component = 2; component < 32; component++) {
        struct cpuid_answer c = cpuid_answer(cpu, 0xd, component);
        assert_int_equal(c.eax != 0, all >> component & 1);
        assert_true(c.eax == 0 || c.ebx >= XSTATE_LEGACY_SIZE);
        assert_true(c.eax + c.ebx <= a.ecx);
    }
}

static void leaves_that_do_not_exist_are_zero_whatever_ecx_is(void **state)
{
    const uint32_t leaves[] = {2,          4,          9,          0xc,
                               0xe,        0x15,       0x40000002, 0x7fffffff,
                               0x80000009, 0x8000001e, 0x8fffffff, 0xffffffff};
    for (size_t n = 0; n < sizeof leaves / sizeof leaves[0]; n++)
        for (uint32_t subleaf = 0; subleaf < 3; subleaf++) {
            struct cpuid_answer a = cpuid_answer(*state, leaves[n], subleaf);
            assert_int_equal(a.eax | a.ebx | a.ecx | a.edx, 0);
            assert_true(cpuid_constant(leaves[n], subleaf));
        }
    struct cpuid_answer seven = cpuid_answer(*state, 7, 1);
    assert_int_equal(seven.eax | seven.ebx | seven.ecx | seven.edx, 0);
}

/* A leaf called constant gives the same for every state that changes other leaves. */
static void constant_leaves_do_not_depend_on_state(void **state)
{
    struct vcpu *cpu = *state;
    const uint32_t bases[] = {0, 0x40000000, 0x80000000};
    for (size_t b = 0; b < 3; b++)
        for (uint32_t leaf = bases[b]; leaf < bases[b] + 0x30; leaf++)
            for (uint32_t subleaf = 0; subleaf < 40; subleaf++) {
                if (!cpuid_constant(leaf, subleaf))
                    continue;
                struct cpuid_answer before = cpuid_answer(cpu, leaf, subleaf);
                struct vcpu saved = {.cr4 = cpu->cr4, .xcr0 = cpu->xcr0};
                cpu->cr4 ^= CR4_OSXSAVE | CR4_PKE;
                cpu->xcr0 = cpuid_xcr0_mask();
                cpu->index = 1;
                struct cpuid_answer after = cpuid_answer(cpu, leaf, subleaf);
                cpu->cr4 = saved.cr4;
                cpu->xcr0 = saved.xcr0;
                cpu->index = 0;
                assert_memory_equal(&before, &after, sizeof before);
            }
    assert_false(cpuid_constant(1, 0));
    assert_false(cpuid_constant(7, 0));
    assert_true(cpuid_constant(7, 1));
    assert_false(cpuid_constant(0xb, 77));
    assert_false(cpuid_constant(0xd, 0));
    assert_true(cpuid_constant(0xd, 2));
    assert_true(cpuid_constant(0x80000001, 0));
}

static void the_decoder_hears_the_same_as_the_guest(void **state)
{
    struct cpuid_answer seven = cpuid_answer(*state, 7, 0), one = cpuid_answer(*state, 1, 0);
    assert_int_equal(cpuid_offers_isa(ZYDIS_ISA_SET_AVX2), seven.ebx >> 5 & 1);
    assert_int_equal(cpuid_offers_isa(ZYDIS_ISA_SET_BMI2), seven.ebx >> 8 & 1);
    assert_int_equal(cpuid_offers_isa(ZYDIS_ISA_SET_AES), one.ecx >> 25 & 1);
    assert_int_equal(cpuid_offers_isa(ZYDIS_ISA_SET_RDRAND), one.ecx >> 30 & 1);
    assert_true(cpuid_offers_isa(ZYDIS_ISA_SET_I86));
    assert_true(cpuid_offers_isa(ZYDIS_ISA_SET_CET));
    assert_false(cpuid_offers_isa(ZYDIS_ISA_SET_AVX512F_512));
    assert_false(cpuid_offers_isa(ZYDIS_ISA_SET_SGX));
    assert_false(cpuid_offers_isa((ZydisISASet)(ZYDIS_ISA_SET_MAX_VALUE + 1)));
}

/* Random bytes, for the most part in the maps behind 0F and VEX: what decodes to more than #UD is offered. */
static void no_instruction_executes_that_is_not_offered(void **state)
{
    struct vcpu *cpu = *state;
    struct decoded d;
    struct insn undefined = {0};
    decode_insn(cpu, (const uint8_t[15]){0x0f, 0x0a}, 15, 0, &undefined, &d);
    uint64_t random = 88172645463325252;
    for (unsigned n = 0; n < 200000; n++) {
        static const uint8_t maps[][2] = {{0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}, {0xc4}, {0xc5}};
        uint8_t bytes[16];
        for (unsigned k = 0; k < 16; k += 8) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            memcpy(bytes + k, &random, 8);
        }
        if (n % 6 < 5)
            memcpy(bytes, maps[n % 6], maps[n % 6][1] ? 2 : 1);
        struct insn i = {0};
        if (decode_insn(cpu, bytes, 15, 0, &i, &d) != DECODE_OK || i.run == undefined.run)
            continue;
        ZydisMnemonic mnemonic = d.zydis->mnemonic;
        if (mnemonic != ZYDIS_MNEMONIC_TZCNT && mnemonic != ZYDIS_MNEMONIC_LZCNT) /* BSF and BSR */
            assert_true(cpuid_offers_isa(d.zydis->meta.isa_set));
    }
}

static void cr4_holds_what_is_offered_and_no_more(void **state)
{
    (void)state;
    uint64_t mask = cpuid_cr4_mask();
    assert_true(mask & CR4_PAE && mask & CR4_PCIDE && mask & CR4_SMEP && mask & CR4_SMAP);
    assert_true(mask & CR4_UMIP && mask & CR4_PKE && mask & CR4_FSGSBASE && mask & CR4_OSXSAVE);
    assert_false(mask & (CR4_VME | CR4_PVI));
    assert_false(mask & 0x2000); /* VMXE */
    assert_false(mask & 0x1000); /* LA57 */
    assert_int_equal(mask >> 23, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
    const struct CMUnitTest tests[] = {
        TEST(the_vendor_is_AMD_and_the_family_15_model_107),
        TEST(the_hypervisor_names_its_interfaces_and_frequencies),
        TEST(the_brand_is_text),
        TEST(all_of_x86_64_v2_is_there),
        TEST(leaf_80000001_repeats_the_bits_of_leaf_1),
        TEST(features_follow_the_state_that_enables_them),
        TEST(one_processor_claims_no_siblings),
        TEST(three_processors_are_cores_of_one_package),
        TEST(xsave_areas_have_room_for_what_is_enabled),
        TEST(leaves_that_do_not_exist_are_zero_whatever_ecx_is),
        TEST(constant_leaves_do_not_depend_on_state),
        TEST(the_decoder_hears_the_same_as_the_guest),
        TEST(no_instruction_executes_that_is_not_offered),
        TEST(cr4_holds_what_is_offered_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
