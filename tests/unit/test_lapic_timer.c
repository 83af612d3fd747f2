/* SPDX-License-Identifier: MIT */
/* The local APIC's timer: its three modes, its count, changes of mode, and small periods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/lapic_registers.h"

#include <cmocka.h>

#define VECTOR 0xee

static int setup(void **state)
{
    struct machine *m = lapic_machine();
    m->now = 1000000;
    xapic_write(m, 0, APIC_DIVIDE, DIVIDE_BY_1);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    machine_free(*state);
    return 0;
}

/* Interrupts of the timer within the time, each ended at once. */
static unsigned interrupts(struct machine *m, uint64_t ns)
{
    unsigned count = 0;
    uint64_t end = m->now + ns;
    do {
        uint64_t next = clock_deadline(&m->vm.clock);
        machine_advance(m, (next < end ? next : end) - m->now);
        for (int vector; (vector = machine_take(m, 0)) >= 0; count++) {
            assert_int_equal(vector, VECTOR);
            xapic_write(m, 0, APIC_EOI, 0);
        }
    } while (m->now < end);
    return count;
}

static uint32_t current(struct machine *m)
{
    return xapic_read(m, 0, APIC_CURRENT);
}

static void one_shot_interrupts_once_after_its_count(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 0x10000);
    assert_int_equal(current(m), 0x10000);
    assert_int_equal(interrupts(m, 0xffff), 0);
    assert_int_equal(current(m), 1);
    assert_int_equal(interrupts(m, 1), 1);
    assert_int_equal(current(m), 0);
    assert_int_equal(xapic_read(m, 0, APIC_INITIAL), 0x10000);
    assert_int_equal(interrupts(m, 1000000), 0);
}

static void every_divide_value_divides(void **state)
{
    struct machine *m = *state;
    static const uint8_t values[][2] = {{0x0, 2},  {0x1, 4},  {0x2, 8},   {0x3, 16},
                                        {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}};
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    for (unsigned i = 0; i < 8; i++) {
        xapic_write(m, 0, APIC_DIVIDE, values[i][0]);
        xapic_write(m, 0, APIC_INITIAL, 1000);
        assert_int_equal(interrupts(m, 1000ull * values[i][1] - 1), 0);
        assert_int_equal(interrupts(m, 1), 1);
    }
}

static void periodic_goes_on_and_does_not_drift(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_PERIODIC | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 2500);
    assert_int_equal(interrupts(m, 2499), 0);
    assert_int_equal(interrupts(m, 1), 1);
    assert_int_equal(current(m), 2500);
    assert_int_equal(interrupts(m, 2500 * 1000), 1000);
}

static void an_initial_count_of_zero_stops_it(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_PERIODIC | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 2500);
    xapic_write(m, 0, APIC_INITIAL, 0);
    assert_int_equal(interrupts(m, 1000000), 0);
    assert_int_equal(current(m), 0);
}

static void masked_it_counts_without_interrupts_or_wake_ups(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_MASK | LVT_PERIODIC | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 1000);
    assert_int_equal(clock_deadline(&m->vm.clock), CLOCK_NEVER);
    assert_int_equal(interrupts(m, 10300), 0);
    assert_int_equal(current(m), 700);
    xapic_write(m, 0, APIC_TIMER, LVT_PERIODIC | VECTOR);
    assert_int_equal(interrupts(m, 0), 0); /* those missed are gone */
    assert_int_equal(interrupts(m, 700), 1);
}

static void periods_below_a_microsecond_are_one(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_PERIODIC | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 1);
    assert_in_range(interrupts(m, 100000), 99, 101);
}

static void missed_periods_are_one_interrupt(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_PERIODIC | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 5000);
    m->now += 52000;
    clock_run(&m->vm.clock);
    assert_int_equal(interrupts(m, 2999), 1);
    assert_int_equal(interrupts(m, 1), 1);
}

static void reading_the_count_late_delivers_what_is_due(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 1000);
    m->now += 1500;
    assert_int_equal(current(m), 0);
    assert_int_equal(machine_take(m, 0), VECTOR);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(interrupts(m, 10000), 0);
}

/* The count goes on from where it was between one-shot and periodic mode; one that ran out stays out. */
static void a_change_of_mode_keeps_the_count(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_MASK | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 10000);
    machine_advance(m, 6000);
    xapic_write(m, 0, APIC_TIMER, LVT_MASK | LVT_PERIODIC | VECTOR);
    assert_int_equal(current(m), 4000);
    machine_advance(m, 4001);
    assert_int_equal(current(m), 9999);
    xapic_write(m, 0, APIC_TIMER, LVT_MASK | VECTOR);
    assert_int_equal(current(m), 9999);
    machine_advance(m, 10000);
    assert_int_equal(current(m), 0);
    xapic_write(m, 0, APIC_TIMER, LVT_MASK | LVT_PERIODIC | VECTOR);
    assert_int_equal(current(m), 0);
    assert_int_equal(xapic_read(m, 0, APIC_INITIAL), 10000);
}

static void a_change_of_the_divider_goes_on_from_the_count(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 1000);
    machine_advance(m, 400);
    xapic_write(m, 0, APIC_DIVIDE, 0);
    assert_int_equal(current(m), 600);
    assert_int_equal(interrupts(m, 1199), 0);
    assert_int_equal(interrupts(m, 1), 1);
}

static void a_deadline_in_the_past_interrupts_at_once(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    assert_int_equal(msr_set(m, 0, MSR_TSC_DEADLINE, m->now), 0);
    assert_int_equal(machine_take(m, 0), VECTOR);
    assert_int_equal(msr_get(m, 0, MSR_TSC_DEADLINE), 0);
}

static void a_deadline_interrupts_when_the_tsc_gets_there(void **state)
{
    struct machine *m = *state;
    struct vcpu *cpu = m->vm.vcpus[0];
    cpu->tsc_offset = 5000000;
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    uint64_t deadline = m->now + cpu->tsc_offset + 700;
    msr_set(m, 0, MSR_TSC_DEADLINE, deadline);
    assert_int_equal(msr_get(m, 0, MSR_TSC_DEADLINE), deadline);
    assert_int_equal(interrupts(m, 699), 0);
    assert_int_equal(interrupts(m, 1), 1);
    assert_int_equal(msr_get(m, 0, MSR_TSC_DEADLINE), 0);
    assert_int_equal(current(m), 0);
    cpu->tsc_offset = (uint64_t)-900000; /* a TSC behind guest time */
    msr_set(m, 0, MSR_TSC_DEADLINE, m->now - 900000 + 50);
    assert_int_equal(interrupts(m, 49), 0);
    assert_int_equal(interrupts(m, 1), 1);
}

static void a_new_deadline_takes_the_place_of_the_old_and_zero_disarms(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    msr_set(m, 0, MSR_TSC_DEADLINE, m->now + 100);
    msr_set(m, 0, MSR_TSC_DEADLINE, m->now + 1000);
    assert_int_equal(interrupts(m, 999), 0);
    msr_set(m, 0, MSR_TSC_DEADLINE, 0);
    assert_int_equal(clock_deadline(&m->vm.clock), CLOCK_NEVER);
    assert_int_equal(interrupts(m, 10000), 0);
}

static void the_farthest_deadline_never_comes(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    msr_set(m, 0, MSR_TSC_DEADLINE, UINT64_MAX);
    assert_int_equal(msr_get(m, 0, MSR_TSC_DEADLINE), UINT64_MAX);
    assert_int_equal(interrupts(m, 1000000), 0);
}

static void a_tsc_that_was_moved_is_what_counts(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    msr_set(m, 0, MSR_TSC_DEADLINE, m->now + 100);
    m->vm.vcpus[0]->tsc_offset = (uint64_t)-500;
    assert_int_equal(interrupts(m, 599), 0);
    assert_int_equal(interrupts(m, 1), 1);
}

static void outside_its_mode_the_deadline_is_ignored(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    assert_int_equal(msr_set(m, 0, MSR_TSC_DEADLINE, m->now + 10), 0);
    assert_int_equal(msr_get(m, 0, MSR_TSC_DEADLINE), 0);
    assert_int_equal(interrupts(m, 1000), 0);
}

static void deadline_mode_and_the_others_disarm_each_other(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 1000);
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 1000); /* ignored in this mode */
    assert_int_equal(interrupts(m, 10000), 0);
    msr_set(m, 0, MSR_TSC_DEADLINE, m->now + 1000);
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    assert_int_equal(interrupts(m, 10000), 0);
}

static void a_masked_deadline_passes_silently(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TIMER, LVT_MASK | LVT_TSC_DEADLINE | VECTOR);
    msr_set(m, 0, MSR_TSC_DEADLINE, m->now + 1000);
    assert_int_equal(interrupts(m, 2000), 0);
    assert_int_equal(msr_get(m, 0, MSR_TSC_DEADLINE), 0);
    xapic_write(m, 0, APIC_TIMER, LVT_TSC_DEADLINE | VECTOR);
    assert_int_equal(interrupts(m, 2000), 0);
}

static void timers_of_processors_are_their_own(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 1, APIC_DIVIDE, DIVIDE_BY_1);
    xapic_write(m, 1, APIC_TIMER, 0x77);
    xapic_write(m, 1, APIC_INITIAL, 500);
    xapic_write(m, 0, APIC_TIMER, VECTOR);
    xapic_write(m, 0, APIC_INITIAL, 900);
    machine_advance(m, 600);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(machine_take(m, 1), 0x77);
    machine_advance(m, 300);
    assert_int_equal(machine_take(m, 0), VECTOR);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_shot_interrupts_once_after_its_count),
        TEST(every_divide_value_divides),
        TEST(periodic_goes_on_and_does_not_drift),
        TEST(an_initial_count_of_zero_stops_it),
        TEST(masked_it_counts_without_interrupts_or_wake_ups),
        TEST(periods_below_a_microsecond_are_one),
        TEST(missed_periods_are_one_interrupt),
        TEST(reading_the_count_late_delivers_what_is_due),
        TEST(a_change_of_mode_keeps_the_count),
        TEST(a_change_of_the_divider_goes_on_from_the_count),
        TEST(a_deadline_in_the_past_interrupts_at_once),
        TEST(a_deadline_interrupts_when_the_tsc_gets_there),
        TEST(a_new_deadline_takes_the_place_of_the_old_and_zero_disarms),
        TEST(the_farthest_deadline_never_comes),
        TEST(a_tsc_that_was_moved_is_what_counts),
        TEST(outside_its_mode_the_deadline_is_ignored),
        TEST(deadline_mode_and_the_others_disarm_each_other),
        TEST(a_masked_deadline_passes_silently),
        TEST(timers_of_processors_are_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
