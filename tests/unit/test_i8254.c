/* SPDX-License-Identifier: MIT */
/* The 8254: counts and outputs of its modes against guest time, latches, IRQ 0, and port 0x61. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/chipset_machine.h"

#include <cmocka.h>

#define CONTROL 0x43
#define HZ      1193182ull

static const struct device_type *const devices[] = {&i8259_device, &i8254_device, NULL};

/* The 8259 counts IRQ 0s. */
static int setup(void **state)
{
    struct machine *m = machine_new(0, devices);
    out8(m, 0x20, 0x13);
    out8(m, 0x21, 0x30);
    out8(m, 0x21, 0x03); /* automatic end of interrupt */
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    machine_free(*state);
    return 0;
}

static unsigned irqs(struct machine *m, uint64_t ns)
{
    unsigned count = 0;
    uint64_t end = m->now + ns;
    do {
        uint64_t next = clock_deadline(&m->vm.clock);
        machine_advance(m, (next < end ? next : end) - m->now);
        while (i8259_output(&m->vm)) {
            assert_int_equal(i8259_acknowledge(&m->vm), 0x30);
            count++;
        }
    } while (m->now < end);
    return count;
}

static uint64_t ticks(uint64_t n) /* in ns, to the end of the tick */
{
    return (n * 1000000000 + HZ - 1) / HZ;
}

static void program(struct machine *m, unsigned channel, unsigned mode, uint16_t count)
{
    out8(m, CONTROL, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out8(m, (uint16_t)(0x40 + channel), (uint8_t)count);
    out8(m, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t counter(struct machine *m, unsigned channel)
{
    out8(m, CONTROL, (uint8_t)(channel << 6));
    uint8_t low = in8(m, (uint16_t)(0x40 + channel));
    return (uint16_t)(low | in8(m, (uint16_t)(0x40 + channel)) << 8);
}

static bool out2(struct machine *m)
{
    return in8(m, 0x61) & 0x20;
}

static uint8_t status(struct machine *m, unsigned channel)
{
    out8(m, CONTROL, (uint8_t)(0xe0 | 2u << channel));
    return in8(m, (uint16_t)(0x40 + channel));
}

static void at_power_on_channel_0_ticks_eighteen_times_a_second(void **state)
{
    struct machine *m = *state;
    irqs(m, 1);
    unsigned count = irqs(m, 10000000000ull);
    assert_in_range(count, 181, 183);
}

static void rate_generator_interrupts_each_period(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 11931); /* 100 Hz */
    irqs(m, 0);
    assert_int_equal(irqs(m, 9999000), 0);
    assert_int_equal(irqs(m, 2000), 1);
    assert_int_equal(irqs(m, 1000000000), 100);
}

static void rate_generator_does_not_drift(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 1000);
    irqs(m, 0);
    assert_int_equal(irqs(m, ticks(1000 * 100000)), 100000);
}

static void square_wave_interrupts_once_a_period(void **state)
{
    struct machine *m = *state;
    program(m, 0, 3, 11931);
    irqs(m, 0);
    assert_int_equal(irqs(m, ticks(11931 * 10)), 10);
}

static void terminal_count_interrupts_once(void **state)
{
    struct machine *m = *state;
    program(m, 0, 0, 5000);
    irqs(m, 0);
    assert_int_equal(irqs(m, ticks(4999)), 0);
    assert_int_equal(irqs(m, ticks(2)), 1);
    assert_int_equal(irqs(m, 1000000000), 0);
    out8(m, 0x40, 0x10); /* a new count starts it again */
    out8(m, 0x40, 0);
    assert_int_equal(irqs(m, ticks(17)), 1);
}

static void software_strobe_interrupts_once(void **state)
{
    struct machine *m = *state;
    program(m, 0, 4, 100);
    irqs(m, 0);
    assert_int_equal(irqs(m, ticks(99)), 0);
    assert_int_equal(irqs(m, 1000000), 1);
    assert_int_equal(irqs(m, 1000000000), 0);
}

static void a_control_word_alone_stops_the_interrupts(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 100);
    irqs(m, 0);
    out8(m, CONTROL, 0x30);
    assert_int_equal(irqs(m, 1000000000), 0);
}

static void one_shot_modes_of_channel_0_never_start(void **state)
{
    struct machine *m = *state;
    program(m, 0, 1, 100);
    irqs(m, 0);
    assert_int_equal(irqs(m, 100000000), 0);
    program(m, 0, 5, 100);
    assert_int_equal(irqs(m, 100000000), 0);
}

static void the_shortest_period_is_a_microsecond(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 1);
    irqs(m, 0);
    assert_in_range(irqs(m, 1000000), 900, 1000);
}

static void missed_periods_are_one_interrupt(void **state)
{
    struct machine *m = *state;
    program(m, 0, 3, 1000);
    irqs(m, 0);
    m->now += ticks(10500); /* nobody ran the clock meanwhile; and the output is low now */
    clock_run(&m->vm.clock);
    assert_int_equal(irqs(m, 0), 1);
    assert_int_equal(irqs(m, ticks(501)), 1);
}

static void count_runs_down_and_on_in_mode_0(void **state)
{
    struct machine *m = *state;
    program(m, 0, 0, 1000);
    assert_int_equal(counter(m, 0), 1000);
    machine_advance(m, ticks(400));
    assert_int_equal(counter(m, 0), 600);
    machine_advance(m, ticks(601));
    assert_in_range(counter(m, 0), 65534, 65535);
}

static void count_reloads_in_mode_2(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 1000);
    machine_advance(m, ticks(999));
    assert_int_equal(counter(m, 0), 1);
    machine_advance(m, ticks(2));
    assert_in_range(counter(m, 0), 999, 1000);
}

static void count_goes_down_by_two_in_mode_3(void **state)
{
    struct machine *m = *state;
    program(m, 2, 3, 1000);
    out8(m, 0x61, 1);
    machine_advance(m, ticks(100));
    assert_int_equal(counter(m, 2), 800);
    assert_true(out2(m));
    machine_advance(m, ticks(500));
    assert_in_range(counter(m, 2), 798, 800);
    assert_false(out2(m));
}

static void an_odd_square_wave_is_high_for_longer(void **state)
{
    struct machine *m = *state;
    program(m, 2, 3, 5);
    out8(m, 0x61, 1);
    uint64_t began = m->now;
    const bool wave[] = {true, true, true, false, false, true, true, true, false, false};
    for (unsigned n = 0; n < sizeof wave / sizeof *wave; n++) {
        m->now = began + ticks(n) + 1;
        assert_int_equal(out2(m), wave[n]);
        assert_int_equal(counter(m, 2) % 2, 0);
    }
}

static void zero_is_the_longest_count(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 0);
    irqs(m, 0);
    assert_int_equal(irqs(m, ticks(65535)), 0);
    assert_int_equal(irqs(m, ticks(2)), 1);
}

static void binary_coded_decimals_count_in_tens(void **state)
{
    struct machine *m = *state;
    out8(m, CONTROL, 0x35);
    out8(m, 0x40, 0x00);
    out8(m, 0x40, 0x10);
    assert_int_equal(counter(m, 0), 0x1000);
    machine_advance(m, ticks(1));
    assert_int_equal(counter(m, 0), 0x0999);
    machine_advance(m, ticks(899));
    assert_in_range(counter(m, 0), 0x0099, 0x0101);
}

static void a_latched_count_stands_still_until_it_is_read(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 10000);
    machine_advance(m, ticks(10));
    out8(m, CONTROL, 0x00);
    machine_advance(m, ticks(1000));
    out8(m, CONTROL, 0x00); /* the first latch holds */
    uint8_t low = in8(m, 0x40);
    assert_int_equal(low | in8(m, 0x40) << 8, 9990);
    low = in8(m, 0x40);
    assert_in_range(low | in8(m, 0x40) << 8, 8989, 8990);
}

static void one_byte_access_modes_read_and_write_one_byte(void **state)
{
    struct machine *m = *state;
    out8(m, CONTROL, 0x14); /* low byte, mode 2 */
    out8(m, 0x40, 200);
    assert_int_equal(in8(m, 0x40), 200);
    assert_int_equal(in8(m, 0x40), 200);
    out8(m, CONTROL, 0x24); /* high byte */
    out8(m, 0x40, 0x12);
    assert_int_equal(in8(m, 0x40), 0x12);
    machine_advance(m, ticks(1));
    assert_int_equal(in8(m, 0x40), 0x11);
}

static void read_back_latches_status_then_count_of_several_channels(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 1000);
    program(m, 1, 3, 500);
    machine_advance(m, ticks(10));
    out8(m, CONTROL, 0xc6);
    machine_advance(m, ticks(100));
    assert_int_equal(in8(m, 0x40), 0xb4); /* OUT, both bytes, mode 2 */
    assert_int_equal(in8(m, 0x40), 990 & 0xff);
    assert_int_equal(in8(m, 0x40), 990 >> 8);
    assert_int_equal(in8(m, 0x41), 0xb6);
    assert_int_equal(in8(m, 0x41), 480 & 0xff);
    assert_int_equal(in8(m, 0x41), 480 >> 8);
}

static void status_tells_a_count_that_is_not_loaded(void **state)
{
    struct machine *m = *state;
    out8(m, CONTROL, 0x30);
    assert_int_equal(status(m, 0), 0x70);
    out8(m, 0x40, 10);
    out8(m, 0x40, 0);
    assert_int_equal(status(m, 0), 0x30);
    machine_advance(m, ticks(11));
    assert_int_equal(status(m, 0), 0xb0);
}

static void modes_6_and_7_are_2_and_3(void **state)
{
    struct machine *m = *state;
    out8(m, CONTROL, 0x3c);
    assert_int_equal(status(m, 0) & 0x0e, 0x04);
    out8(m, CONTROL, 0x3e);
    assert_int_equal(status(m, 0) & 0x0e, 0x06);
}

static void a_new_count_of_a_rate_waits_for_the_period(void **state)
{
    struct machine *m = *state;
    program(m, 0, 2, 1000);
    irqs(m, 0);
    irqs(m, ticks(500));
    out8(m, 0x40, 100);
    out8(m, 0x40, 0);
    assert_int_equal(status(m, 0) & 0x40, 0x40);
    assert_in_range(counter(m, 0), 498, 500);
    assert_int_equal(irqs(m, ticks(498)), 0);
    assert_int_equal(irqs(m, ticks(3)), 1);
    assert_int_equal(status(m, 0) & 0x40, 0);
    assert_int_equal(irqs(m, ticks(1000)), 10);
}

static void a_new_count_of_a_square_wave_waits_for_the_half(void **state)
{
    struct machine *m = *state;
    program(m, 0, 3, 1000);
    irqs(m, 0);
    irqs(m, ticks(100));
    out8(m, 0x40, 100);
    out8(m, 0x40, 0);
    /* 400 more of the high half, 50 of a low one, then periods of 100 */
    assert_int_equal(irqs(m, ticks(445)), 0);
    assert_int_equal(irqs(m, ticks(10)), 1);
    assert_int_equal(irqs(m, ticks(1000)), 10);
}

static void channel_2_counts_while_its_gate_is_up(void **state)
{
    struct machine *m = *state;
    out8(m, 0x61, 1);
    program(m, 2, 0, 1000);
    machine_advance(m, ticks(300));
    out8(m, 0x61, 0);
    assert_int_equal(counter(m, 2), 700);
    machine_advance(m, ticks(5000));
    assert_int_equal(counter(m, 2), 700);
    assert_false(out2(m));
    out8(m, 0x61, 1);
    machine_advance(m, ticks(698));
    assert_false(out2(m));
    machine_advance(m, ticks(3));
    assert_true(out2(m));
}

static void the_gate_restarts_a_rate(void **state)
{
    struct machine *m = *state;
    out8(m, 0x61, 1);
    program(m, 2, 2, 1000);
    machine_advance(m, ticks(300));
    out8(m, 0x61, 0);
    assert_true(out2(m));
    out8(m, 0x61, 1);
    assert_int_equal(counter(m, 2), 1000);
}

static void the_gate_triggers_the_one_shot(void **state)
{
    struct machine *m = *state;
    program(m, 2, 1, 100);
    machine_advance(m, ticks(1000));
    assert_true(out2(m));
    out8(m, 0x61, 1);
    assert_false(out2(m));
    machine_advance(m, ticks(50));
    out8(m, 0x61, 0);
    out8(m, 0x61, 1); /* again, from the start */
    machine_advance(m, ticks(60));
    assert_false(out2(m));
    machine_advance(m, ticks(41));
    assert_true(out2(m));
}

static void the_gate_triggers_the_strobe(void **state)
{
    struct machine *m = *state;
    program(m, 2, 5, 100);
    machine_advance(m, ticks(1000));
    assert_true(out2(m));
    out8(m, 0x61, 1);
    uint64_t began = m->now;
    m->now = began + ticks(100) + 10;
    assert_false(out2(m));
    m->now = began + ticks(101) + 10;
    assert_true(out2(m));
}

static void port_61_keeps_its_low_bits_and_toggles_refresh(void **state)
{
    struct machine *m = *state;
    out8(m, 0x61, 0xff);
    assert_int_equal(in8(m, 0x61) & 0x0f, 0x0f);
    assert_int_equal(in8(m, 0x61) & 0xc0, 0);
    unsigned toggles = 0;
    for (unsigned i = 0; i < 1000; i++) {
        uint8_t before = in8(m, 0x61);
        machine_advance(m, 1000);
        toggles += (before ^ in8(m, 0x61)) >> 4 & 1;
    }
    assert_in_range(toggles, 64, 68);
}

/* How kernels measure the TSC: channel 2 in mode 0, the gate up, until the output rises. */
static void a_calibration_against_channel_2_gives_guest_time(void **state)
{
    struct machine *m = *state;
    out8(m, 0x61, 0x01);
    uint64_t began = m->now;
    program(m, 2, 0, 59659); /* 50 ms */
    while (!out2(m))
        machine_advance(m, 500);
    assert_in_range(m->now - began, 49999000, 50001000);
}

static void the_control_word_cannot_be_read(void **state)
{
    struct machine *m = *state;
    assert_int_equal(in8(m, CONTROL), 0xff);
}

static void random_writes_are_survived(void **state)
{
    struct machine *m = *state;
    static const uint16_t ports[] = {0x40, 0x41, 0x42, 0x43, 0x43, 0x61};
    uint32_t seed = 7;
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        out8(m, ports[(seed >> 8) % 6], (uint8_t)(seed >> 16));
        in8(m, ports[(seed >> 12) % 6]);
        machine_advance(m, seed >> 20);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(at_power_on_channel_0_ticks_eighteen_times_a_second),
        TEST(rate_generator_interrupts_each_period),
        TEST(rate_generator_does_not_drift),
        TEST(square_wave_interrupts_once_a_period),
        TEST(terminal_count_interrupts_once),
        TEST(software_strobe_interrupts_once),
        TEST(a_control_word_alone_stops_the_interrupts),
        TEST(one_shot_modes_of_channel_0_never_start),
        TEST(the_shortest_period_is_a_microsecond),
        TEST(missed_periods_are_one_interrupt),
        TEST(count_runs_down_and_on_in_mode_0),
        TEST(count_reloads_in_mode_2),
        TEST(count_goes_down_by_two_in_mode_3),
        TEST(an_odd_square_wave_is_high_for_longer),
        TEST(zero_is_the_longest_count),
        TEST(binary_coded_decimals_count_in_tens),
        TEST(a_latched_count_stands_still_until_it_is_read),
        TEST(one_byte_access_modes_read_and_write_one_byte),
        TEST(read_back_latches_status_then_count_of_several_channels),
        TEST(status_tells_a_count_that_is_not_loaded),
        TEST(modes_6_and_7_are_2_and_3),
        TEST(a_new_count_of_a_rate_waits_for_the_period),
        TEST(a_new_count_of_a_square_wave_waits_for_the_half),
        TEST(channel_2_counts_while_its_gate_is_up),
        TEST(the_gate_restarts_a_rate),
        TEST(the_gate_triggers_the_one_shot),
        TEST(the_gate_triggers_the_strobe),
        TEST(port_61_keeps_its_low_bits_and_toggles_refresh),
        TEST(a_calibration_against_channel_2_gives_guest_time),
        TEST(the_control_word_cannot_be_read),
        TEST(random_writes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
