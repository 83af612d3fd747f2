/* SPDX-License-Identifier: MIT */
/* ACPI fixed hardware: power-off, the timer, status and enable bits, the reset register. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/devices/acpi_pm.h"
#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type acpi_pm_device;

#define STATUS  ACPI_PM1A_EVENT
#define ENABLE  (ACPI_PM1A_EVENT + 2)
#define CONTROL ACPI_PM1A_CONTROL
#define SLP_EN  0x2000u

#define HALF_PERIOD 2343484438ull /* ns: 2^23 ticks of 3.579545 MHz, rounded up */

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    lab_time = 0;
    lab_add(&acpi_pm_device);
    return 0;
}

static unsigned in16(uint16_t port)
{
    return bus_in(&vm.bus, port, 2);
}

static void out16(uint16_t port, unsigned value)
{
    bus_out(&vm.bus, port, 2, value);
}

static uint32_t timer(void)
{
    return bus_in(&vm.bus, ACPI_PM_TIMER, 4);
}

static void test_sleep_type_s5_powers_off(void **state)
{
    (void)state;
    out16(CONTROL, ACPI_SLP_TYP_S5 << 10); /* without SLP_EN */
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    assert_int_equal(in16(CONTROL), ACPI_SLP_TYP_S5 << 10 | 1);
    out16(CONTROL, ACPI_SLP_TYP_S5 << 10 | SLP_EN);
    assert_int_equal(vm.shutdown, SHUTDOWN_POWER_OFF);
    assert_int_equal(vm.exit_code, HVRUN_DONE);
}

static void test_power_off_by_bytes(void **state)
{
    (void)state;
    out(CONTROL, 0);
    out(CONTROL + 1, (ACPI_SLP_TYP_S5 << 10 | SLP_EN) >> 8);
    assert_int_equal(vm.shutdown, SHUTDOWN_POWER_OFF);
}

static void test_a_sleep_state_that_is_not_there_ends_at_once(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 8; type++)
        if (type != ACPI_SLP_TYP_S5)
            out16(CONTROL, type << 10 | SLP_EN);
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    assert_int_equal(in16(STATUS) & 0x8000, 0x8000); /* woken */
    assert_int_equal(in16(CONTROL) & SLP_EN, 0);     /* write only */
}

static void test_acpi_mode_is_always_on(void **state)
{
    (void)state;
    out16(CONTROL, 0);
    assert_int_equal(in16(CONTROL), 1);
}

static void test_the_timer_counts_at_its_rate_in_24_bits(void **state)
{
    (void)state;
    assert_int_equal(timer(), 0);
    pass(S);
    assert_int_equal(timer(), 3579545);
    assert_int_equal(in(ACPI_PM_TIMER + 1), 3579545 >> 8 & 0xff);
    pass(4 * S);
    assert_int_equal(timer(), 5 * 3579545 - 0x1000000);
    lab_time = UINT64_MAX - 1; /* 584 years */
    assert_int_equal(timer() >> 24, 0);
}

static void test_the_timer_tells_when_its_highest_bit_changes(void **state)
{
    (void)state;
    out16(STATUS, 0xffff);
    out16(ENABLE, 1);
    pass(HALF_PERIOD - 1000);
    assert_false(irq_level[IRQ_SCI]);
    pass(1000);
    assert_int_equal(timer(), 0x800000);
    assert_true(irq_level[IRQ_SCI]);
    pass(10 * HALF_PERIOD); /* stays until cleared */
    assert_int_equal(irq_raised[IRQ_SCI], 1);
    assert_int_equal(in16(STATUS), 1);
    out16(STATUS, 1);
    assert_false(irq_level[IRQ_SCI]);
    pass(HALF_PERIOD);
    assert_true(irq_level[IRQ_SCI]);
    out16(ENABLE, 0);
    assert_false(irq_level[IRQ_SCI]);
    out16(STATUS, 1);
    pass(HALF_PERIOD);
    assert_int_equal(in16(STATUS), 1); /* without the interrupt, too */
    assert_null(vm.clock.first);
}

static void test_status_bits_clear_by_writing_ones_and_enables_are_kept(void **state)
{
    (void)state;
    out16(CONTROL, 1 << 10 | SLP_EN);
    bus_out(&vm.bus, STATUS, 4, 0xffff0000);
    assert_int_equal(bus_in(&vm.bus, STATUS, 4), 0x07218000);
    out(ENABLE, 0); /* a byte of it */
    assert_int_equal(in16(ENABLE), 0x0700);
    out(STATUS + 1, 0x80);
    assert_int_equal(in16(STATUS), 0);
}

static void test_the_reset_register_resets(void **state)
{
    (void)state;
    out(ACPI_RESET_PORT, 0x02); /* Linux says which kind first */
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    assert_int_equal(in(ACPI_RESET_PORT), 0x02);
    out(ACPI_RESET_PORT, ACPI_RESET_VALUE);
    assert_int_equal(vm.shutdown, SHUTDOWN_RESET);
}

static void test_a_pci_address_is_no_reset(void **state)
{
    (void)state;
    bus_out(&vm.bus, 0xcf8, 4, 0x8000ff00);
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    assert_int_equal(bus_in(&vm.bus, 0xcf8, 4), 0xffffffff); /* there is no PCI */
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_sleep_type_s5_powers_off),
        TEST(test_power_off_by_bytes),
        TEST(test_a_sleep_state_that_is_not_there_ends_at_once),
        TEST(test_acpi_mode_is_always_on),
        TEST(test_the_timer_counts_at_its_rate_in_24_bits),
        TEST(test_the_timer_tells_when_its_highest_bit_changes),
        TEST(test_status_bits_clear_by_writing_ones_and_enables_are_kept),
        TEST(test_the_reset_register_resets),
        TEST(test_a_pci_address_is_no_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
