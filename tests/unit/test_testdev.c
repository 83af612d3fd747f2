/* SPDX-License-Identifier: MIT */
/* The test device of kvm-unit-tests: interrupt lines, the echo ports, memory behind the bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type testdev_device;

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    lab_add(&testdev_device);
    return 0;
}

static void test_a_port_for_each_interrupt_line_sets_its_level(void **state)
{
    (void)state;
    for (unsigned line = 0; line < IOAPIC_PINS; line++) {
        out((uint16_t)(0x2000 + line), 1);
        for (unsigned other = 0; other < IOAPIC_PINS; other++)
            assert_int_equal(irq_level[other], other == line);
        out((uint16_t)(0x2000 + line), 0);
        assert_false(irq_level[line]);
    }
    out(0x2018, 1); /* nobody's */
    bus_out(&vm.bus, 0x2017, 4, 0x01010101);
    assert_true(irq_level[23]);
}

static void test_the_echo_ports_give_back_what_was_written(void **state)
{
    (void)state;
    bus_out(&vm.bus, 0xe0, 4, 0x12345678);
    assert_int_equal(bus_in(&vm.bus, 0xe0, 4), 0x12345678);
    assert_int_equal(bus_in(&vm.bus, 0xe1, 2), 0x3456);
    out(0xe3, 0xab);
    assert_int_equal(bus_in(&vm.bus, 0xe0, 4), 0xab345678);
    assert_int_equal(bus_in(&vm.bus, 0xe4, 1), 0xff);
}

static void test_its_memory_is_memory(void **state)
{
    (void)state;
    bus_write(&vm.bus, 0xff000000, 8, 0x1122334455667788);
    assert_true(bus_read(&vm.bus, 0xff000000, 8) == 0x1122334455667788);
    assert_int_equal(bus_read(&vm.bus, 0xff000003, 2), 0x4455);
    bus_write(&vm.bus, 0xff00ffff, 8, 0xaa); /* to its last byte */
    assert_true(bus_read(&vm.bus, 0xff00ffff, 8) == 0xffffffffffffffaa);
    assert_int_equal(bus_read(&vm.bus, 0xff010000, 1), 0xff);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_a_port_for_each_interrupt_line_sets_its_level),
        TEST(test_the_echo_ports_give_back_what_was_written),
        TEST(test_its_memory_is_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
