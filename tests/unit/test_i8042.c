/* SPDX-License-Identifier: MIT */
/* The keyboard controller: every command gets its answer, nothing is plugged in, and it can reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type i8042_device;

#define DATA    0x60
#define COMMAND 0x64

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    lab_add(&i8042_device);
    return 0;
}

static unsigned answer(unsigned command)
{
    out(COMMAND, command);
    assert_int_equal(in(COMMAND)&1, 1);
    unsigned value = in(DATA);
    assert_int_equal(in(COMMAND)&1, 0);
    return value;
}

static void test_it_is_always_ready_for_a_command(void **state)
{
    (void)state;
    assert_int_equal(in(COMMAND), 0x14); /* system flag, unlocked; buffers empty */
    out(COMMAND, 0xaa);
    assert_int_equal(in(COMMAND), 0x1d);
    in(DATA);
    out(DATA, 0xff); /* to a keyboard that is not there */
    assert_int_equal(in(COMMAND), 0x14);
}

static void test_it_answers_tests(void **state)
{
    (void)state;
    assert_int_equal(answer(0xaa), 0x55);
    assert_int_equal(answer(0xab), 0x00);
    assert_int_not_equal(answer(0xa9), 0x00); /* no auxiliary port */
    assert_int_equal(answer(0xc0) & 0x80, 0x80);
    assert_int_equal(answer(0xd0) & 3, 3);
}

static void test_its_configuration_is_kept(void **state)
{
    (void)state;
    out(COMMAND, 0x60);
    out(DATA, 0x74);
    assert_int_equal(answer(0x20), 0x74);
    out(COMMAND, 0xae);
    assert_int_equal(answer(0x20), 0x64);
    out(COMMAND, 0xa8);
    assert_int_equal(answer(0x20), 0x44);
    out(COMMAND, 0xad);
    out(COMMAND, 0xa7);
    assert_int_equal(answer(0x20), 0x74);
    out(COMMAND, 0x7f); /* the last byte of its memory */
    out(DATA, 0x5a);
    assert_int_equal(answer(0x3f), 0x5a);
}

static void test_the_auxiliary_loop_shows_that_there_is_no_auxiliary_port(void **state)
{
    (void)state;
    out(COMMAND, 0xd3);
    out(DATA, 0x5a);
    assert_int_equal(in(COMMAND)&0x21, 0x01); /* full, but not from there */
    assert_int_equal(in(DATA), 0x5a);
}

static void test_a_full_output_buffer_interrupts_if_told_to(void **state)
{
    (void)state;
    out(COMMAND, 0xd2);
    out(DATA, 0x1c);
    assert_true(irq_level[1]);
    assert_int_equal(in(DATA), 0x1c);
    assert_false(irq_level[1]);
    out(COMMAND, 0x60);
    out(DATA, 0x04);
    out(COMMAND, 0xd2);
    out(DATA, 0x1c);
    assert_false(irq_level[1]);
}

static void test_pulsing_the_reset_line_resets(void **state)
{
    (void)state;
    out(COMMAND, 0xff); /* pulses nothing */
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    out(COMMAND, 0xfe);
    assert_int_equal(vm.shutdown, SHUTDOWN_RESET);
    assert_int_equal(vm.exit_code, HVRUN_DONE);
}

static void test_pulling_the_reset_line_resets(void **state)
{
    (void)state;
    out(COMMAND, 0xd1);
    out(DATA, 0xdf); /* A20 */
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    out(DATA, 0x00); /* no parameter any more: to the keyboard */
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    out(COMMAND, 0xd1);
    out(DATA, 0xde);
    assert_int_equal(vm.shutdown, SHUTDOWN_RESET);
}

static void test_a_command_replaces_one_that_waits_for_its_parameter(void **state)
{
    (void)state;
    out(COMMAND, 0xd1);
    assert_int_equal(answer(0xaa), 0x55);
    out(DATA, 0x00);
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_it_is_always_ready_for_a_command),
        TEST(test_it_answers_tests),
        TEST(test_its_configuration_is_kept),
        TEST(test_the_auxiliary_loop_shows_that_there_is_no_auxiliary_port),
        TEST(test_a_full_output_buffer_interrupts_if_told_to),
        TEST(test_pulsing_the_reset_line_resets),
        TEST(test_pulling_the_reset_line_resets),
        TEST(test_a_command_replaces_one_that_waits_for_its_parameter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
