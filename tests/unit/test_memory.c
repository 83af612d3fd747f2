/* SPDX-License-Identifier: MIT */
/* Guest memory: what is RAM, what is not, and that writes to decoded code are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/memory.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct memory memory;

static int create(uint64_t size)
{
    struct error err = {0};
    return memory_create(&memory, size, &err);
}

static int tear_down(void **state)
{
    (void)state;
    memory_destroy(&memory);
    return 0;
}

static void test_ram_begins_zeroed_at_zero_and_ends_at_its_size(void **state)
{
    (void)state;
    assert_int_equal(create(1 << 20), 0);
    assert_ptr_equal(memory_at(&memory, 0, 1 << 20), memory.host);
    assert_int_equal(memory.host[0] | memory.host[(1 << 20) - 1], 0);
    assert_non_null(memory_at(&memory, (1 << 20) - 1, 1));
    assert_null(memory_at(&memory, (1 << 20) - 1, 2));
    assert_null(memory_at(&memory, 1 << 20, 0));
    assert_null(memory_at(&memory, 0, UINT64_MAX));
    assert_null(memory_at(&memory, UINT64_MAX, 1));
    assert_null(memory_at(&memory, MEMORY_HIGH, 1));
}

static void test_what_does_not_fit_below_the_hole_stands_from_4_gib_on(void **state)
{
    (void)state;
    assert_int_equal(create(MEMORY_HOLE + 2 * PAGE_SIZE), 0);
    assert_int_equal(memory.low_size, MEMORY_HOLE);
    assert_non_null(memory_at(&memory, MEMORY_HOLE - 1, 1));
    assert_null(memory_at(&memory, MEMORY_HOLE - 1, 2)); /* into the hole */
    assert_null(memory_at(&memory, MEMORY_HOLE, 1));
    assert_null(memory_at(&memory, MEMORY_HIGH - 1, 1));
    assert_ptr_equal(memory_at(&memory, MEMORY_HIGH, 1), memory.host + MEMORY_HOLE);
    assert_non_null(memory_at(&memory, MEMORY_HIGH, 2 * PAGE_SIZE));
    assert_null(memory_at(&memory, MEMORY_HIGH, 2 * PAGE_SIZE + 1));
    assert_null(memory_at(&memory, MEMORY_HIGH + 2 * PAGE_SIZE, 1));
    /* the host's contiguity is no way across */
    uint64_t word = 1;
    assert_false(memory_write(&memory, MEMORY_HOLE - 4, &word, sizeof word));
    assert_true(memory_write(&memory, MEMORY_HOLE - 8, &word, sizeof word));
    assert_true(memory_read(&memory, MEMORY_HOLE - 8, &word, sizeof word));
    assert_int_equal(word, 1);
}

static void test_sizes_that_are_no_pages_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(memory_create(&memory, 0, &err), -1);
    assert_int_not_equal(err.code, 0);
    assert_int_equal(create(PAGE_SIZE + 1), -1);
    assert_int_equal(create(UINT64_MAX & ~PAGE_OFFSET), -1);
    assert_int_equal(create(1ull << 62), -1);
    assert_null(memory.host);
}

static struct {
    unsigned calls;
    uint64_t physical, length;
} told;

static void code_changed(void *context, uint64_t physical, uint64_t length)
{
    assert_ptr_equal(context, &told);
    told.calls++;
    told.physical = physical;
    told.length = length;
}

static unsigned write_at(uint64_t physical, uint64_t length)
{
    static const uint8_t bytes[3 * PAGE_SIZE];
    told.calls = 0;
    assert_true(memory_write(&memory, physical, bytes, length));
    return told.calls;
}

static void test_a_write_is_told_exactly_if_it_meets_a_line_of_code(void **state)
{
    (void)state;
    assert_int_equal(create(16 * PAGE_SIZE), 0);
    memory.code_changed = code_changed;
    memory.code_context = &told;
    memory.code_lines[1] = 1ull << 63; /* the last line of page 1 */
    memory.code_lines[2] = 1;          /* and the first of page 2 */
    assert_int_equal(write_at(0, PAGE_SIZE), 0);
    assert_int_equal(write_at(PAGE_SIZE, PAGE_SIZE - 64), 0);
    assert_int_equal(write_at(2 * PAGE_SIZE - 65, 1), 0);
    assert_int_equal(write_at(2 * PAGE_SIZE - 65, 2), 1);
    assert_int_equal(told.physical, 2 * PAGE_SIZE - 65);
    assert_int_equal(told.length, 2);
    assert_int_equal(write_at(2 * PAGE_SIZE - 1, 1), 1);
    assert_int_equal(write_at(2 * PAGE_SIZE - 1, 2), 1); /* once, not once a page */
    assert_int_equal(write_at(2 * PAGE_SIZE + 63, 1), 1);
    assert_int_equal(write_at(2 * PAGE_SIZE + 64, PAGE_SIZE - 64), 0);
    assert_int_equal(write_at(0, 3 * PAGE_SIZE), 1); /* a page before does not hide them */
    assert_int_equal(write_at(2 * PAGE_SIZE, 0), 0);
    memory_written(&memory, UINT64_MAX, 1); /* not RAM: nothing to tell */
}

int main(void)
{
#define TEST(test) cmocka_unit_test_teardown(test, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_ram_begins_zeroed_at_zero_and_ends_at_its_size),
        TEST(test_what_does_not_fit_below_the_hole_stands_from_4_gib_on),
        TEST(test_sizes_that_are_no_pages_are_refused),
        TEST(test_a_write_is_told_exactly_if_it_meets_a_line_of_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
