/* SPDX-License-Identifier: MIT */
/* The paravirtual clock: what stands in guest memory after its MSRs are written. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/kvmclock.h"
#include "tests/unit/system_machine.h"

#define PLACE    ONE_INSN_DATA
#define FEATURES cpuid_answer(cpu, 0x40000001, 0).eax

/* ns by the structure at PLACE, for a time-stamp counter */
static uint64_t clock_says(struct vcpu *cpu, uint64_t tsc)
{
    assert_int_equal(at(cpu, PLACE, 4) & 1, 0); /* the version: not being written */
    uint64_t delta = tsc - at(cpu, PLACE + 8, 8);
    int8_t shift = (int8_t)at(cpu, PLACE + 28, 1);
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return at(cpu, PLACE + 16, 8) +
           (uint64_t)((unsigned __int128)delta * at(cpu, PLACE + 24, 4) >> 32);
}

static void the_structure_turns_the_counter_into_guest_time(void **state)
{
    struct vcpu *cpu = *state;
    const uint32_t msrs[] = {MSR_KVM_SYSTEM_TIME, MSR_KVM_OLD_SYSTEM_TIME};
    assert_true(FEATURES & KVM_FEATURE_CLOCKSOURCE && FEATURES & KVM_FEATURE_CLOCKSOURCE2);
    for (unsigned n = 0; n < 2; n++) {
        memset(one_insn_at(cpu, PLACE), 0, 32);
        time_now = 5000 + n;
        assert_true(msr_write(cpu, msrs[n], PLACE)); /* not enabled */
        assert_int_equal(at(cpu, PLACE, 4), 0);
        assert_true(msr_write(cpu, msrs[n], PLACE | 1));
        assert_int_equal(cpu->kvm_system_time, PLACE | 1);
        assert_int_equal(clock_says(cpu, time_now), time_now);
        assert_int_equal(clock_says(cpu, time_now + 12345678), time_now + 12345678);
    }
}

static void the_structure_follows_a_change_of_the_counter(void **state)
{
    struct vcpu *cpu = *state;
    assert_true(msr_write(cpu, MSR_KVM_SYSTEM_TIME, PLACE | 1));
    time_now += 1000;
    assert_true(msr_write(cpu, 0x10, 77));
    assert_int_equal(clock_says(cpu, 77 + 500), time_now + 500);
}

static void the_wall_clock_is_the_date_at_power_on(void **state)
{
    struct vcpu *cpu = *state;
    const uint32_t msrs[] = {MSR_KVM_WALL_CLOCK, MSR_KVM_OLD_WALL_CLOCK};
    cpu->vm->start_date = 1234567890;
    for (unsigned n = 0; n < 2; n++) {
        memset(one_insn_at(cpu, PLACE), 0xff, 12);
        assert_true(msr_write(cpu, msrs[n], PLACE));
        assert_int_equal(at(cpu, PLACE, 4) & 1, 0);
        assert_int_equal(at(cpu, PLACE + 4, 4), 1234567890);
        assert_int_equal(at(cpu, PLACE + 8, 4), 0);
    }
}

static void what_lies_outside_of_memory_is_a_fault(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(msr_write(cpu, MSR_KVM_SYSTEM_TIME, ONE_INSN_RAM | 1));
    assert_false(msr_write(cpu, MSR_KVM_SYSTEM_TIME, (ONE_INSN_RAM - 4) | 1));
    assert_false(msr_write(cpu, MSR_KVM_WALL_CLOCK, ~0ull));
}

static void what_is_not_offered_has_no_registers(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t value;
    /* asynchronous page faults, steal time, end of interrupt, poll control, migration */
    assert_int_equal(FEATURES & (1u << 4 | 1u << 5 | 1u << 6 | 1u << 12 | 1u << 17), 0);
    for (uint32_t msr = 0x4b564d02; msr <= 0x4b564d08; msr++) {
        assert_false(msr_read(cpu, msr, &value));
        assert_false(msr_write(cpu, msr, 0));
    }
    assert_int_equal(FEATURES & (1u << 7 | 1u << 11), 0); /* nor do kernels try the hypercalls */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
    const struct CMUnitTest tests[] = {
        TEST(the_structure_turns_the_counter_into_guest_time),
        TEST(the_structure_follows_a_change_of_the_counter),
        TEST(the_wall_clock_is_the_date_at_power_on),
        TEST(what_lies_outside_of_memory_is_a_fault),
        TEST(what_is_not_offered_has_no_registers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
