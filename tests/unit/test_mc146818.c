/* SPDX-License-Identifier: MIT */
/* The real-time clock: what date it shows, how it is set, when it interrupts, what firmware left in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type mc146818_device;

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    A,
    B,
    C,
    D,
    CENTURY = 0x32
};
#define SET    0x80
#define PIE    0x40
#define AIE    0x20
#define UIE    0x10
#define BINARY 0x04
#define H24    0x02

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    vm.start_date = VM_FIXED_DATE;
    vm.config.smp = 2;
    vm.memory.size = 0x150000000; /* 3 GiB below the hole and 2.25 GiB above 4 GiB */
    vm.memory.low_size = MEMORY_HOLE;
    lab_add(&mc146818_device);
    return 0;
}

static unsigned get(unsigned index)
{
    out(0x70, index);
    return in(0x71);
}

static void set(unsigned index, unsigned value)
{
    out(0x70, index);
    out(0x71, value);
}

/* hh:mm:ss as a hexadecimal number of the registers */
static unsigned clock_time(void)
{
    return get(HOURS) << 16 | get(MINUTES) << 8 | get(SECONDS);
}

static unsigned date(void)
{
    return get(CENTURY) << 24 | get(YEAR) << 16 | get(MONTH) << 8 | get(DAY);
}

static void test_it_starts_at_the_machines_date(void **state)
{
    (void)state;
    assert_int_equal(date(), 0x20260101);
    assert_int_equal(clock_time(), 0);
    assert_int_equal(get(WEEKDAY), 5); /* Thursday */
    assert_int_equal(get(D), 0x80);
    assert_int_equal(get(B), H24);
    assert_int_equal(get(A) & 0x7f, 0x26);
}

static void test_any_date_is_shown_as_utc(void **state)
{
    (void)state;
    time_t now = time(NULL);
    vm.start_date = now;
    mc146818_device.reset(device);
    set(B, H24 | BINARY);
    struct tm tm = {.tm_year = (int)(20 * 100 + get(YEAR)) - 1900,
                    .tm_mon = (int)get(MONTH) - 1,
                    .tm_mday = (int)get(DAY),
                    .tm_hour = (int)get(HOURS),
                    .tm_min = (int)get(MINUTES),
                    .tm_sec = (int)get(SECONDS)};
    assert_int_equal(timegm(&tm), now);
}

static void test_it_runs_with_guest_time(void **state)
{
    (void)state;
    pass(S - 1);
    assert_int_equal(clock_time(), 0);
    pass(1);
    assert_int_equal(clock_time(), 0x000001);
    pass((13 * 3600 + 59 * 60 + 58) * S);
    assert_int_equal(clock_time(), 0x135959);
    pass(31 * 86400 * S); /* nobody looks for a month */
    assert_int_equal(clock_time(), 0x135959);
    assert_int_equal(date(), 0x20260201);
}

static void test_formats_are_bcd_or_binary_in_12_or_24_hours(void **state)
{
    (void)state;
    static const struct {
        unsigned format, hour, shown;
    } hours[] = {
        {H24, 0, 0x00},  {H24, 23, 0x23},         {H24 | BINARY, 23, 23},  {0, 0, 0x12},
        {0, 11, 0x11},   {0, 12, 0x92},           {0, 13, 0x81},           {0, 23, 0x91},
        {BINARY, 0, 12}, {BINARY, 12, 0x80 | 12}, {BINARY, 23, 0x80 | 11},
    };
    for (size_t i = 0; i < sizeof hours / sizeof *hours; i++) {
        mc146818_device.reset(device);
        pass((hours[i].hour * 3600 + 59) * S);
        set(B, hours[i].format);
        assert_int_equal(get(HOURS), hours[i].shown);
        assert_int_equal(get(SECONDS), hours[i].format & BINARY ? 59 : 0x59);
        set(B, SET | hours[i].format); /* and the other way round */
        set(HOURS, hours[i].shown);
        set(B, hours[i].format);
        set(B, H24);
        assert_int_equal(get(HOURS), hours[i].hour / 10 * 16 + hours[i].hour % 10);
    }
}

static void test_it_is_set_while_held(void **state)
{
    (void)state;
    static const uint8_t values[][2] = {{SECONDS, 0x58}, {MINUTES, 0x59}, {HOURS, 0x23},
                                        {DAY, 0x28},     {MONTH, 0x02},   {YEAR, 0x96},
                                        {CENTURY, 0x19}};
    set(B, SET | H24);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        set(values[i][0], values[i][1]);
    pass(10 * S); /* stands still */
    assert_int_equal(clock_time(), 0x235958);
    set(B, H24);
    assert_int_equal(date(), 0x19960228);
    pass(2 * S);
    assert_int_equal(date(), 0x19960229); /* a leap year */
    assert_int_equal(clock_time(), 0);
}

static void test_leaving_divider_reset_gives_half_a_second(void **state)
{
    (void)state;
    pass(123 * MS);
    set(A, 0x70); /* Linux sets the clock this way */
    pass(10 * S);
    set(SECONDS, 0x10);
    set(A, 0x26);
    assert_int_equal(get(SECONDS), 0x10);
    pass(S / 2 - 1);
    assert_int_equal(get(SECONDS), 0x10);
    pass(1);
    assert_int_equal(get(SECONDS), 0x11);
}

static void test_a_register_written_while_it_runs_takes_effect(void **state)
{
    (void)state;
    pass(S / 4);
    set(MINUTES, 0x30);
    assert_int_equal(clock_time(), 0x003000);
    pass(3 * S / 4);
    assert_int_equal(clock_time(), 0x003001);
}

static void test_an_update_is_announced(void **state)
{
    (void)state;
    assert_int_equal(get(A) & 0x80, 0);
    pass(S - 245000);
    assert_int_equal(get(A) & 0x80, 0);
    pass(1000);
    assert_int_equal(get(A) & 0x80, 0x80);
    assert_int_equal(get(SECONDS), 0);
    pass(244000);
    assert_int_equal(get(A) & 0x80, 0);
    assert_int_equal(get(SECONDS), 1);
    set(B, SET | H24);
    pass(S - 1000);
    assert_int_equal(get(A) & 0x80, 0); /* not while held */
    set(A, 0xa6);
    assert_int_equal(get(A), 0x26); /* the bit is read only */
}

static void test_update_interrupts_come_every_second(void **state)
{
    (void)state;
    set(B, UIE | H24);
    pass(S - 1);
    assert_false(irq_level[IRQ_RTC]);
    pass(1);
    assert_true(irq_level[IRQ_RTC]);
    pass(5 * S); /* not again before it is looked at */
    assert_int_equal(irq_raised[IRQ_RTC], 1);
    assert_int_equal(get(C), 0x90 | (1 << 6)); /* the periodic flag sets itself */
    assert_false(irq_level[IRQ_RTC]);
    assert_int_equal(get(C), 0);
    for (unsigned i = 0; i < 3; i++) {
        pass(S);
        assert_true(irq_level[IRQ_RTC]);
        get(C);
    }
    set(B, SET | UIE | H24); /* SET turns it off */
    assert_int_equal(get(B), SET | H24);
}

static void test_the_alarm_goes_off_at_its_time(void **state)
{
    (void)state;
    set(HOURS_ALARM, 0x01);
    set(MINUTES_ALARM, 0x02);
    set(SECONDS_ALARM, 0x03);
    set(B, AIE | H24);
    pass((3600 + 2 * 60 + 2) * S);
    assert_false(irq_level[IRQ_RTC]);
    pass(S);
    assert_true(irq_level[IRQ_RTC]);
    assert_int_equal(get(C) & 0xa0, 0xa0);
    pass(86399 * S);
    assert_false(irq_level[IRQ_RTC]);
    pass(S);
    assert_true(irq_level[IRQ_RTC]);
    get(C);
    set(HOURS_ALARM, 0xff); /* any */
    set(MINUTES_ALARM, 0xc0);
    pass(60 * S);
    assert_true(irq_level[IRQ_RTC]);
}

static void test_the_alarm_flag_is_set_though_nobody_looked_for_long(void **state)
{
    (void)state;
    set(HOURS_ALARM, 0x01);
    get(C);
    pass(50000 * S);
    assert_int_equal(get(C) & 0x20, 0x20);
    pass(30000 * S);
    assert_int_equal(get(C) & 0x20, 0);
    pass(1000000 * S);
    assert_int_equal(get(C) & 0x20, 0x20);
}

static void test_periodic_interrupts_come_at_their_rate(void **state)
{
    (void)state;
    static const unsigned hz[16] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                    256, 128, 64,  32,   16,   8,    4,    2};
    for (unsigned rate = 0; rate < 16; rate++) {
        mc146818_device.reset(device);
        set(A, 0x20 | rate);
        set(B, PIE | H24);
        irq_raised[IRQ_RTC] = 0;
        uint64_t end = lab_time + S + 1000;
        while (clock_deadline(&vm.clock) <= end) {
            pass(clock_deadline(&vm.clock) - lab_time);
            assert_int_equal(get(C) & 0xc0, 0xc0);
        }
        assert_in_range(irq_raised[IRQ_RTC], hz[rate] ? hz[rate] - 1 : 0, hz[rate] + 1);
        pass(end - lab_time);
    }
}

static void test_firmware_left_the_memory_sizes(void **state)
{
    (void)state;
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
    assert_int_equal(get(0x30) | get(0x31) << 8, 0xffff);
    assert_int_equal(get(0x34) | get(0x35) << 8, (0xc0000000 - 0x1000000) >> 16);
    assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0x90000000u >> 16);
    assert_int_equal(get(0x5f), 1); /* processors - 1 */
    unsigned sum = 0;
    for (unsigned i = 0x10; i < 0x2e; i++)
        sum += get(i);
    assert_int_equal(get(0x2e) << 8 | get(0x2f), sum);
}

static void test_the_rest_is_memory(void **state)
{
    (void)state;
    set(0x7f, 0x5a);
    set(0x0f, 0x0a); /* shutdown status */
    assert_int_equal(get(0x7f), 0x5a);
    assert_int_equal(get(0xff), 0x5a); /* bit 7 of the index is not part of it */
    assert_int_equal(get(0x0f), 0x0a);
    set(D, 0);
    assert_int_equal(get(D), 0x80);
    assert_int_equal(in(0x70), 0xff);
}

static void test_nonsense_dates_are_harmless(void **state)
{
    (void)state;
    for (unsigned value = 0; value < 256; value += 17) {
        for (unsigned index = 0; index < 128; index++) {
            set(B, SET);
            set(index, value);
            set(B, value & ~SET & 0xff);
            pass(S);
            clock_time();
            date();
            get(WEEKDAY);
            get(C);
        }
    }
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_it_starts_at_the_machines_date),
        TEST(test_any_date_is_shown_as_utc),
        TEST(test_it_runs_with_guest_time),
        TEST(test_formats_are_bcd_or_binary_in_12_or_24_hours),
        TEST(test_it_is_set_while_held),
        TEST(test_leaving_divider_reset_gives_half_a_second),
        TEST(test_a_register_written_while_it_runs_takes_effect),
        TEST(test_an_update_is_announced),
        TEST(test_update_interrupts_come_every_second),
        TEST(test_the_alarm_goes_off_at_its_time),
        TEST(test_the_alarm_flag_is_set_though_nobody_looked_for_long),
        TEST(test_periodic_interrupts_come_at_their_rate),
        TEST(test_firmware_left_the_memory_sizes),
        TEST(test_the_rest_is_memory),
        TEST(test_nonsense_dates_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
