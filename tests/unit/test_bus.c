/* SPDX-License-Identifier: MIT */
/* The bus: who is asked, with what offset and width, and what stands in where nobody is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/bus.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct bus bus;
static char trace[256]; /* accesses as "name offset width value;" */

static uint64_t trace_read(void *name, uint64_t offset, unsigned width)
{
    size_t used = strlen(trace);
    snprintf(trace + used, sizeof trace - used, "%s r%u+%u;", (char *)name, width,
             (unsigned)offset);
    return 0xfedcba9876543210ull + offset; /* more than any width shows */
}

static void trace_write(void *name, uint64_t offset, unsigned width, uint64_t value)
{
    size_t used = strlen(trace);
    snprintf(trace + used, sizeof trace - used, "%s w%u+%u=%llx;", (char *)name, width,
             (unsigned)offset, (unsigned long long)value);
}

static struct bus_window window(char *name, uint64_t first, uint64_t count, unsigned widest)
{
    return (struct bus_window){name, first, count, trace_read, trace_write, name, widest};
}

static int set_up(void **state)
{
    (void)state;
    struct error err = {0};
    memset(&bus, 0, sizeof bus);
    const struct bus_window ports[] = {window("a", 0x100, 4, 0), window("b", 0x104, 4, 1),
                                       window("end", 0xfffe, 2, 0)};
    const struct bus_window mmio[] = {window("m", 0xfec00000, 0x1000, 0),
                                      window("top", UINT64_MAX - 7, 8, 0)};
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        assert_int_equal(bus_add_ports(&bus, &ports[i], &err), 0);
    for (size_t i = 0; i < sizeof mmio / sizeof *mmio; i++)
        assert_int_equal(bus_add_mmio(&bus, &mmio[i], &err), 0);
    trace[0] = 0;
    return 0;
}

#define ASSERT_TRACE(text) (assert_string_equal(trace, text), trace[0] = 0)

static void test_a_port_access_reaches_its_window_with_offset_and_width(void **state)
{
    (void)state;
    assert_int_equal(bus_in(&bus, 0x101, 1), 0x11);
    assert_int_equal(bus_in(&bus, 0x102, 2), 0x3212);
    assert_int_equal(bus_in(&bus, 0x100, 4), 0x76543210);
    bus_out(&bus, 0x100, 2, 0x12345678);
    bus_out(&bus, 0x103, 1, 0x12345678);
    ASSERT_TRACE("a r1+1;a r2+2;a r4+0;a w2+0=5678;a w1+3=78;");
}

static void test_a_port_access_that_leaves_its_window_is_made_byte_by_byte(void **state)
{
    (void)state;
    assert_int_equal(bus_in(&bus, 0x103, 2), 0x1013);
    bus_out(&bus, 0x102, 4, 0x44332211);
    ASSERT_TRACE("a r1+3;b r1+0;a w1+2=11;a w1+3=22;b w1+0=33;b w1+1=44;");
    assert_int_equal(bus_in(&bus, 0x107, 2), 0xff13); /* nobody behind it */
    bus_out(&bus, 0xffff, 4, 0x44332211);             /* not on to port 0 */
    assert_int_equal(bus_in(&bus, 0xffff, 4), 0xffffff11);
    ASSERT_TRACE("b r1+3;end w1+1=11;end r1+1;");
}

static void test_a_device_of_bytes_gets_bytes(void **state)
{
    (void)state;
    assert_int_equal(bus_in(&bus, 0x104, 4), 0x13121110);
    bus_out(&bus, 0x104, 2, 0xaabb);
    ASSERT_TRACE("b r1+0;b r1+1;b r1+2;b r1+3;b w1+0=bb;b w1+1=aa;");
}

static void test_where_nobody_is_reads_are_all_ones_and_writes_are_dropped(void **state)
{
    (void)state;
    assert_int_equal(bus_in(&bus, 0xff, 1), 0xff);
    assert_int_equal(bus_in(&bus, 0xfe, 2), 0xffff);
    assert_int_equal(bus_in(&bus, 0xfd, 4), 0xffffffff); /* not on into the window */
    bus_out(&bus, 0xff, 4, 0);
    assert_int_equal(bus_read(&bus, 0xfebfffff, 1), 0xff);
    assert_true(bus_read(&bus, 0xfec01000, 8) == UINT64_MAX);
    bus_write(&bus, 0xfec01000, 8, 0);
    ASSERT_TRACE("");
}

static void test_memory_mapped_accesses_do_the_same(void **state)
{
    (void)state;
    assert_true(bus_read(&bus, 0xfec00000, 8) == 0xfedcba9876543210ull);
    assert_int_equal(bus_read(&bus, 0xfec00010, 4), 0x76543220);
    bus_write(&bus, 0xfec00ffe, 2, 0x112233);
    ASSERT_TRACE("m r8+0;m r4+16;m w2+4094=2233;");
    assert_int_equal(bus_read(&bus, 0xfec00ffe, 4), 0xffff0f0e); /* leaves it */
    ASSERT_TRACE("m r1+4094;m r1+4095;");
    bus_read(&bus, UINT64_MAX - 7, 8);
    bus_write(&bus, UINT64_MAX, 2, 0x1122); /* wraps round to nobody */
    ASSERT_TRACE("top r8+0;top w1+7=22;");
}

static void test_a_window_without_a_reader_or_writer_is_as_nobody(void **state)
{
    (void)state;
    struct error err = {0};
    const struct bus_window mute = {"mute", 0x200, 1, NULL, NULL, NULL, 0};
    assert_int_equal(bus_add_ports(&bus, &mute, &err), 0);
    assert_int_equal(bus_in(&bus, 0x200, 1), 0xff);
    bus_out(&bus, 0x200, 1, 0);
}

static void test_windows_that_overlap_or_leave_the_space_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    const struct bus_window bad[] = {window("x", 0x103, 1, 0),     window("x", 0xf0, 0x11, 0),
                                     window("x", 0x0, 0x10000, 0), window("x", 0x300, 0, 0),
                                     window("x", 0x10000, 1, 0),   window("x", 0xfffd, 4, 0),
                                     window("x", UINT64_MAX, 2, 0)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct error){0};
        assert_int_equal(bus_add_ports(&bus, &bad[i], &err), -1);
        assert_int_not_equal(err.code, 0);
    }
    err = (struct error){0};
    const struct bus_window mmio = window("x", 0xfec00fff, 1, 0);
    assert_int_equal(bus_add_mmio(&bus, &mmio, &err), -1);
    assert_non_null(strstr(err.text, "0xfec00fff"));
}

static void test_too_many_windows_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    for (unsigned i = bus.port_windows; i < BUS_WINDOWS; i++) {
        const struct bus_window one = window("x", 0x1000 + i, 1, 0);
        assert_int_equal(bus_add_ports(&bus, &one, &err), 0);
    }
    const struct bus_window more = window("x", 0x2000, 1, 0);
    assert_int_equal(bus_add_ports(&bus, &more, &err), -1);
    assert_int_equal(bus_in(&bus, 0x2000, 1), 0xff);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup(test, set_up)
    const struct CMUnitTest tests[] = {
        TEST(test_a_port_access_reaches_its_window_with_offset_and_width),
        TEST(test_a_port_access_that_leaves_its_window_is_made_byte_by_byte),
        TEST(test_a_device_of_bytes_gets_bytes),
        TEST(test_where_nobody_is_reads_are_all_ones_and_writes_are_dropped),
        TEST(test_memory_mapped_accesses_do_the_same),
        TEST(test_a_window_without_a_reader_or_writer_is_as_nobody),
        TEST(test_windows_that_overlap_or_leave_the_space_are_refused),
        TEST(test_too_many_windows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
