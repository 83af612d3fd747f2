/* SPDX-License-Identifier: MIT */
/* fw_cfg: what guests read through the selector and the data port. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type fw_cfg_device;

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    vm.memory.size = 0x123456000;
    vm.config.smp = 3;
    lab_add(&fw_cfg_device);
    return 0;
}

static uint64_t item(unsigned key, unsigned bytes)
{
    uint64_t value = 0;
    bus_out(&vm.bus, 0x510, 2, key);
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)in(0x511) << 8 * i;
    return value;
}

static void test_it_says_who_it_is(void **state)
{
    (void)state;
    assert_int_equal(item(0x00, 4), 0x554d4551); /* QEMU */
    assert_int_equal(item(0x01, 4), 1);          /* no DMA */
}

static void test_it_gives_the_size_of_ram_and_the_number_of_processors(void **state)
{
    (void)state;
    assert_int_equal(item(0x03, 8), 0x123456000);
    assert_int_equal(item(0x05, 2), 3);
    assert_int_equal(item(0x0f, 2), 3);
}

static void test_its_file_directory_is_empty(void **state)
{
    (void)state;
    assert_int_equal(item(0x19, 4), 0);
}

static void test_beyond_an_item_and_without_one_it_reads_zero(void **state)
{
    (void)state;
    assert_int_equal(item(0x05, 8), 3);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(in(0x511), 0);
    assert_int_equal(item(0x8000, 8), 0);
    assert_int_equal(item(0xffff, 8), 0);
    assert_int_equal(item(0x11, 8), 0);
}

static void test_selecting_begins_at_the_first_byte(void **state)
{
    (void)state;
    assert_int_equal(item(0x00, 2), 0x4551);
    assert_int_equal(item(0x00, 2), 0x4551);
    out(0x510, 0x05); /* a byte selects nothing */
    out(0x511, 0x05); /* and items are read only */
    assert_int_equal(in(0x511), 'M');
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_it_says_who_it_is),
        TEST(test_it_gives_the_size_of_ram_and_the_number_of_processors),
        TEST(test_its_file_directory_is_empty),
        TEST(test_beyond_an_item_and_without_one_it_reads_zero),
        TEST(test_selecting_begins_at_the_first_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
