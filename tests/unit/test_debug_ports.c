/* SPDX-License-Identifier: MIT */
/* The debug console, the debug exit, and the ports of the system board. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/console.h"
#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type debug_console_device, debug_exit_device, misc_ports_device;

static char written[64];

void console_write(struct vm *machine, const uint8_t *bytes, size_t count)
{
    (void)machine;
    strncat(written, (const char *)bytes, count);
}

void console_flush(struct vm *machine)
{
    (void)machine;
}

void console_attend(struct vm *machine)
{
    (void)machine;
}

bool console_readable(struct vm *machine)
{
    (void)machine;
    return false;
}

int console_read(struct vm *machine)
{
    (void)machine;
    return -1;
}

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    return 0;
}

static void test_the_debug_console_prints_and_shows_that_it_is_there(void **state)
{
    (void)state;
    lab_add(&debug_console_device);
    assert_int_equal(in(0xe9), 0xe9);
    out(0xe9, 'o');
    out(0xe9, 'k');
    assert_string_equal(written, "ok");
}

static void test_the_debug_exit_gives_twice_the_value_and_one(void **state)
{
    (void)state;
    static const struct {
        unsigned width;
        uint32_t value;
        int code;
    } exits[] = {{1, 0, 1}, {1, 0x10, 33},         {2, 1, 3},
                 {4, 3, 7}, {4, 0xffffffff, 0xff}, {1, 0x80, 1}};
    lab_add(&debug_exit_device);
    assert_int_equal(in(0xf4), 0);
    for (size_t i = 0; i < sizeof exits / sizeof *exits; i++) {
        vm.shutdown = SHUTDOWN_NONE;
        bus_out(&vm.bus, 0xf4, exits[i].width, exits[i].value);
        assert_int_equal(vm.shutdown, SHUTDOWN_DEBUG_EXIT);
        assert_int_equal(vm.exit_code, exits[i].code);
    }
}

static void test_the_system_control_port_resets_when_its_bit_rises(void **state)
{
    (void)state;
    lab_add(&misc_ports_device);
    assert_int_equal(in(0x92), 2); /* A20 is on */
    out(0x92, 0);
    assert_int_equal(in(0x92), 0);
    out(0x92, 2);
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    out(0x92, 3);
    assert_int_equal(vm.shutdown, SHUTDOWN_RESET);
}

static void test_the_post_code_and_the_delay_port_do_nothing(void **state)
{
    (void)state;
    lab_add(&misc_ports_device);
    out(0x80, 0x5a);
    out(0xed, 0x5a);
    assert_int_equal(in(0x80), 0xff);
    assert_int_equal(in(0xed), 0xff);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_the_debug_console_prints_and_shows_that_it_is_there),
        TEST(test_the_debug_exit_gives_twice_the_value_and_one),
        TEST(test_the_system_control_port_resets_when_its_bit_rises),
        TEST(test_the_post_code_and_the_delay_port_do_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
