/* SPDX-License-Identifier: MIT */
/* MSRs: what is kept, what is checked, what does not exist. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/interrupts.h"

#define NONCANONICAL 0x8000000000000000ull
#define ADDRESS      0x0000123456789abcull

extern const struct device_type lapic_device;
static uint64_t time_now;

static uint64_t tell_time(void *context)
{
    (void)context;
    return time_now;
}

static int make_machine(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    struct error err;
    time_now = 1000;
    cpu->vm->clock.source = tell_time;
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

static uint64_t get(struct vcpu *cpu, uint32_t msr)
{
    uint64_t value = 0xdeadbeef;
    assert_true(msr_read(cpu, msr, &value));
    return value;
}

static void put(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    assert_true(msr_write(cpu, msr, value));
}

static void registers_that_do_not_exist_fault(void **state)
{
    struct vcpu *cpu = *state;
    const uint32_t msrs[] = {0,          0x13,       0x3a,       0x48,       0x49,
                             0x10a,      0x10b,      0x17b,      0x178,      0x210,
                             0x251,      0x257,      0x25a,      0x267,      0x270,
                             0x276,      0x278,      0x400,      0x47f,      0x480,
                             0x7ff,      0x900,      0x40000000, 0xc000007f, 0xc0000085,
                             0xc00000ff, 0xc0000104, 0xc0010008, 0xc0010114, 0xffffffff};
    uint64_t value;
    for (size_t n = 0; n < sizeof msrs / sizeof msrs[0]; n++) {
        if (msr_read(cpu, msrs[n], &value))
            fail_msg("%x", msrs[n]);
        assert_false(msr_write(cpu, msrs[n], 0));
        assert_false(msr_constant(msrs[n], &value));
    }
}

static void plain_registers_give_back_what_was_written(void **state)
{
    struct vcpu *cpu = *state;
    const uint32_t msrs[] = {0x174,      0x175,      0x176,      0xc0000081, 0xc0000082, 0xc0000083,
                             0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc001001f,
                             0xc0011020, 0xc0011023, 0xc0011029, 0xc001001a};
    for (size_t n = 0; n < sizeof msrs / sizeof msrs[0]; n++)
        put(cpu, msrs[n], 0x12340 + n);
    for (size_t n = 0; n < sizeof msrs / sizeof msrs[0]; n++)
        assert_int_equal(get(cpu, msrs[n]), 0x12340 + n);
    assert_int_equal(cpu->lstar, get(cpu, 0xc0000082));
    assert_int_equal(cpu->base[SEG_FS], get(cpu, 0xc0000100));
    assert_int_equal(cpu->segment[SEG_GS].base, get(cpu, 0xc0000101));
}

static void addresses_must_be_canonical(void **state)
{
    struct vcpu *cpu = *state;
    const uint32_t msrs[] = {0x175,      0x176,      0xc0000082, 0xc0000083,
                             0xc0000100, 0xc0000101, 0xc0000102};
    for (size_t n = 0; n < sizeof msrs / sizeof msrs[0]; n++) {
        put(cpu, msrs[n], ADDRESS);
        assert_false(msr_write(cpu, msrs[n], NONCANONICAL));
        assert_false(msr_write(cpu, msrs[n], 0x0000800000000000));
        assert_int_equal(get(cpu, msrs[n]), ADDRESS);
        put(cpu, msrs[n], 0xffff800000000000);
    }
}

static void efer_keeps_LMA_and_LME_while_paging(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t efer = get(cpu, 0xc0000080);
    assert_true(efer & EFER_LMA);
    assert_false(msr_write(cpu, 0xc0000080, efer & ~(uint64_t)EFER_LME));
    assert_false(msr_write(cpu, 0xc0000080, efer | 0x1000)); /* SVME */
    assert_false(msr_write(cpu, 0xc0000080, efer | 2));
    put(cpu, 0xc0000080, efer & ~(uint64_t)(EFER_LMA | EFER_SCE));
    assert_int_equal(get(cpu, 0xc0000080), efer & ~(uint64_t)EFER_SCE);
    one_insn_mode(cpu, ONE_INSN_32, false);
    put(cpu, 0xc0000080, EFER_LME);
    assert_int_equal(cpu->efer, EFER_LME);
    put(cpu, 0xc0000080, EFER_LMA);
    assert_int_equal(cpu->efer, 0);
}

static void pat_takes_defined_types_only(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, 0x277, 0x0706050401000607);
    assert_false(msr_write(cpu, 0x277, 0x0000000000000002));
    assert_false(msr_write(cpu, 0x277, 0x0300000000000000));
    assert_false(msr_write(cpu, 0x277, 0x0000000800000000));
    assert_int_equal(cpu->pat, 0x0706050401000607);
}

static void mtrrs_are_kept_and_checked(void **state)
{
    struct vcpu *cpu = *state;
    assert_int_equal(get(cpu, 0xfe), 0x508);
    for (uint32_t msr = 0x200; msr < 0x210; msr++)
        put(cpu, msr, 0x1000ull * msr | (msr & 1 ? 0x800 : 6));
    const uint32_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                              0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
    for (size_t n = 0; n < 11; n++)
        put(cpu, fixed[n], n & 1 ? 0x0606060606060606 : 0x0504010006050401);
    put(cpu, 0x2ff, 0xc06);
    for (uint32_t msr = 0x200; msr < 0x210; msr++)
        assert_int_equal(get(cpu, msr), 0x1000ull * msr | (msr & 1 ? 0x800 : 6));
    for (size_t n = 0; n < 11; n++)
        assert_int_equal(get(cpu, fixed[n]), n & 1 ? 0x0606060606060606 : 0x0504010006050401);
    assert_int_equal(get(cpu, 0x2ff), 0xc06);
    assert_false(msr_write(cpu, 0x200, 2));
    assert_false(msr_write(cpu, 0x200, 1ull << 40));
    assert_false(msr_write(cpu, 0x201, 0x400));
    assert_false(msr_write(cpu, 0x250, 7));
    assert_false(msr_write(cpu, 0x2ff, 0xc07));
    assert_false(msr_write(cpu, 0x2ff, 0x1000));
}

static void the_counter_and_its_adjustment_move_together(void **state)
{
    struct vcpu *cpu = *state;
    assert_int_equal(get(cpu, 0x10), 1000);
    assert_int_equal(get(cpu, 0x3b), 0);
    put(cpu, 0x3b, 100000);
    assert_int_equal(get(cpu, 0x10), 101000);
    put(cpu, 0x10, 5);
    assert_int_equal(get(cpu, 0x10), 5);
    assert_int_equal(get(cpu, 0x3b), (uint64_t)5 - 1000);
    time_now = 1500;
    assert_int_equal(get(cpu, 0x10), 505);
}

static void a_deadline_is_one_of_the_counter_as_the_guest_sees_it(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, 0x1b, LAPIC_BASE | 0xd00); /* x2APIC */
    put(cpu, 0x80f, 0x1ff);
    put(cpu, 0x832, 0x40030); /* TSC deadline */
    put(cpu, 0x6e0, 5000);
    assert_int_equal(clock_deadline(&cpu->vm->clock), 5000);
    put(cpu, 0x3b, 1000);
    assert_int_equal(get(cpu, 0x6e0), 5000);
    assert_int_equal(clock_deadline(&cpu->vm->clock), 4000);
}

static void apic_registers_are_the_local_apics(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t value;
    assert_int_equal(get(cpu, 0x1b) & ~0xfffull, LAPIC_BASE);
    assert_false(msr_read(cpu, 0x802, &value));
    put(cpu, 0x1b, LAPIC_BASE | 0xd00);
    assert_int_equal(get(cpu, 0x802), 0);
    assert_false(msr_write(cpu, 0x802, 1));
}

static void reserved_bits_fault(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(msr_write(cpu, 0x174, 1ull << 32));
    assert_false(msr_write(cpu, 0xc0000084, 1ull << 32));
    assert_false(msr_write(cpu, 0x17a, 8));
    assert_false(msr_write(cpu, 0x1d9, 0x1000));
    assert_false(msr_write(cpu, 0xc0010015, 1ull << 32));
    put(cpu, 0xda0, 0); /* IA32_XSS */
    assert_false(msr_write(cpu, 0xda0, 1));
}

static void the_upper_half_of_TSC_AUX_is_dropped(void **state)
{
    put(*state, 0xc0000103, 0x1234567800000042);
    assert_int_equal(get(*state, 0xc0000103), 0x42);
}

static void misc_enable_keeps_what_it_tells(void **state)
{
    struct vcpu *cpu = *state;
    cpu->misc_enable = 0x1801;
    put(cpu, 0x1a0, 0x400c50809);
    assert_int_equal(get(cpu, 0x1a0), (0x400c50809 & ~0x1880ull) | 0x1800);
}

static void constants_are_read_only_and_the_same_as_read(void **state)
{
    struct vcpu *cpu = *state;
    unsigned constants = 0;
    const uint32_t bases[] = {0, 0xc0000000, 0xc0010008, 0xc0011000};
    for (size_t b = 0; b < 4; b++)
        for (uint32_t msr = bases[b]; msr < bases[b] + 0x1000; msr++) {
            uint64_t value, read;
            if (!msr_constant(msr, &value))
                continue;
            constants++;
            (void)msr_write(cpu, msr, ~value);
            (void)msr_write(cpu, msr, 1);
            assert_true(msr_read(cpu, msr, &read));
            assert_int_equal(read, value);
        }
    assert_true(constants >= 5);
    uint64_t value;
    assert_false(msr_constant(0x277, &value));
    assert_false(msr_write(cpu, 0xfe, 0));
    assert_false(msr_write(cpu, 0x179, 0));
    assert_true(msr_write(cpu, 0x8b, 0)); /* as kernels do before they read it */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
    const struct CMUnitTest tests[] = {
        TEST(registers_that_do_not_exist_fault),
        TEST(plain_registers_give_back_what_was_written),
        TEST(addresses_must_be_canonical),
        TEST(efer_keeps_LMA_and_LME_while_paging),
        TEST(pat_takes_defined_types_only),
        TEST(mtrrs_are_kept_and_checked),
        TEST(the_counter_and_its_adjustment_move_together),
        TEST(a_deadline_is_one_of_the_counter_as_the_guest_sees_it),
        TEST(apic_registers_are_the_local_apics),
        TEST(reserved_bits_fault),
        TEST(the_upper_half_of_TSC_AUX_is_dropped),
        TEST(misc_enable_keeps_what_it_tells),
        TEST(constants_are_read_only_and_the_same_as_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
