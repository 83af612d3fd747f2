/* SPDX-License-Identifier: MIT */
/* runtime/acpi_tables.c: what a guest finds that walks the tables as ACPI says. */
#include "runtime/acpi_tables.h"
#include "runtime/devices/acpi_pm.h"
#include "runtime/interrupts.h"
#include "tests/unit/loader_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct loader_lab lab;
static uint64_t rsdp;

static int setup(void **state)
{
    (void)state;
    lab_begin(&lab, 4);
    lab.vm.vcpu_count = 3;
    rsdp = acpi_tables_write(&lab.vm);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lab_end(&lab);
    return 0;
}

static uint64_t number(uint64_t at, unsigned width)
{
    return lab_number(&lab, at, width);
}

static bool is(uint64_t at, const char *text)
{
    return !memcmp(memory_at(&lab.vm.memory, at, strlen(text)), text, strlen(text));
}

static uint8_t sum(uint64_t at, uint64_t size)
{
    uint8_t all = 0;
    for (uint64_t i = 0; i < size; i++)
        all += number(at + i, 1);
    return all;
}

/* The address of a table with that signature, by XSDT or RSDT. */
static uint64_t table(const char *signature, bool extended)
{
    uint64_t root = number(rsdp + (extended ? 24 : 16), extended ? 8 : 4);
    unsigned width = extended ? 8 : 4;
    assert_true(is(root, extended ? "XSDT" : "RSDT"));
    for (uint64_t at = root + 36; at < root + number(root + 4, 4); at += width)
        if (is(number(at, width), signature))
            return number(at, width);
    fail_msg("no %s", signature);
    return 0;
}

static void test_rsdp_is_found_by_search(void **state)
{
    (void)state;
    uint64_t at = 0xe0000;
    while (!is(at, "RSD PTR "))
        at += 16;
    assert_int_equal(at, rsdp);
    assert_int_equal(number(rsdp + 15, 1), 2);
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
}

static void check_table(uint64_t at, bool summed)
{
    assert_true(at >= ACPI_TABLES_START && at + number(at + 4, 4) <= ACPI_TABLES_END);
    if (summed)
        assert_int_equal(sum(at, number(at + 4, 4)), 0);
}

static void test_all_tables_have_right_checksums_and_lie_in_the_area(void **state)
{
    (void)state;
    check_table(number(rsdp + 16, 4), true);
    check_table(number(rsdp + 24, 8), true);
    for (unsigned extended = 0; extended < 2; extended++) {
        check_table(table("FACP", extended), true);
        check_table(table("APIC", extended), true);
    }
    uint64_t fadt = table("FACP", true);
    assert_int_equal(number(fadt + 4, 4), 244);
    check_table(number(fadt + 40, 4), true);
    assert_int_equal(number(fadt + 40, 4), number(fadt + 140, 8));
    check_table(number(fadt + 36, 4), false);
    assert_int_equal(number(fadt + 132, 8), 0);
    assert_true(is(number(fadt + 36, 4), "FACS"));
    assert_int_equal(number(fadt + 36, 4) % 64, 0);
}

static void test_fadt_names_the_power_management_ports(void **state)
{
    (void)state;
    uint64_t fadt = table("FACP", true);
    assert_int_equal(number(fadt + 46, 2), IRQ_SCI);
    assert_int_equal(number(fadt + 48, 4), 0);
    static const struct {
        unsigned old, extended, length_at, port, length;
    } blocks[] = {{56, 148, 88, ACPI_PM1A_EVENT, 4},
                  {64, 172, 89, ACPI_PM1A_CONTROL, 2},
                  {76, 208, 91, ACPI_PM_TIMER, 4}};
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(number(fadt + blocks[i].old, 4), blocks[i].port);
        assert_int_equal(number(fadt + blocks[i].length_at, 1), blocks[i].length);
        assert_int_equal(number(fadt + blocks[i].extended, 1), 1);
        assert_int_equal(number(fadt + blocks[i].extended + 1, 1), blocks[i].length * 8);
        assert_int_equal(number(fadt + blocks[i].extended + 4, 8), blocks[i].port);
    }
    assert_true(number(fadt + 112, 4) & 1 << 10); /* the reset register works */
    assert_int_equal(number(fadt + 116, 1), 1);
    assert_int_equal(number(fadt + 120, 8), ACPI_RESET_PORT);
    assert_int_equal(number(fadt + 128, 1), ACPI_RESET_VALUE);
    assert_int_equal(number(fadt + 109, 2) & 2, 0); /* no keyboard to probe */
}

static void test_madt_lists_processors_and_interrupt_wiring(void **state)
{
    (void)state;
    uint64_t madt = table("APIC", false), end = madt + number(madt + 4, 4), at = madt + 44;
    unsigned processors = 0, io_apics = 0, overrides = 0;
    assert_int_equal(number(madt + 36, 4), LAPIC_BASE);
    for (; at < end; at += number(at + 1, 1)) {
        assert_true(number(at + 1, 1) >= 2);
        switch (number(at, 1)) {
        case 0:
            assert_int_equal(number(at + 3, 1), processors++);
            assert_int_equal(number(at + 4, 4), 1);
            break;
        case 1:
            io_apics++;
            assert_int_equal(number(at + 4, 4), IOAPIC_BASE);
            assert_int_equal(number(at + 8, 4), 0);
            break;
        case 2:
            overrides++;
            assert_int_equal(number(at + 4, 4), number(at + 3, 1) == 0 ? 2 : IRQ_SCI);
            assert_int_equal(number(at + 8, 2), number(at + 3, 1) == 0 ? 0 : 0xd);
            break;
        }
    }
    assert_int_equal(at, end);
    assert_int_equal(processors, 3);
    assert_int_equal(io_apics, 1);
    assert_int_equal(overrides, 2);
}

/* A package length (ACPI 20.2.4): *at moves behind it; returns the end of what it measures. */
static uint64_t package_end(uint64_t *at)
{
    uint64_t start = *at, length = number(start, 1);
    unsigned more = length >> 6;
    *at += 1 + more;
    if (!more)
        return start + length;
    length &= 0xf;
    for (unsigned i = 0; i < more; i++)
        length |= number(start + 1 + i, 1) << (4 + 8 * i);
    return start + length;
}

static uint64_t find(uint64_t from, uint64_t to, const char *text)
{
    while (from < to && !is(from, text))
        from++;
    assert_true(from < to);
    return from;
}

static void test_dsdt_has_s5_and_devices_whose_lengths_nest(void **state)
{
    (void)state;
    uint64_t dsdt = number(table("FACP", true) + 40, 4), end = dsdt + number(dsdt + 4, 4);
    uint64_t s5 = dsdt + 36;
    assert_true(is(s5, "\x08\\_S5_\x12"));
    uint64_t at = s5 + 7, s5_end = package_end(&at);
    assert_int_equal(number(at, 1), 4);          /* elements */
    assert_int_equal(number(at + 1, 2), 0x050a); /* byte 5 */
    assert_int_equal(number(s5_end, 1), 0x10);   /* Scope follows */
    at = s5_end + 1;
    assert_int_equal(package_end(&at), end);
    assert_true(is(at, "\\_SB_"));
    at += 5;
    unsigned devices = 0;
    for (; at < end; devices++) {
        assert_true(is(at, "\x5b\x82"));
        uint64_t body = at + 2, device_end = package_end(&body);
        uint64_t crs = find(body, device_end, "_CRS\x11") + 5;
        assert_int_equal(package_end(&crs), device_end); /* the last object of each */
        assert_int_equal(number(crs, 1), 0x0a);
        assert_int_equal(crs + 2 + number(crs + 1, 1), device_end);
        assert_true(is(device_end - 2, "\x79"));
        at = device_end;
    }
    assert_int_equal(at, end);
    assert_int_equal(devices, 2);
}

int main(void)
{
#define ROW(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(test_rsdp_is_found_by_search),
        ROW(test_all_tables_have_right_checksums_and_lie_in_the_area),
        ROW(test_fadt_names_the_power_management_ports),
        ROW(test_madt_lists_processors_and_interrupt_wiring),
        ROW(test_dsdt_has_s5_and_devices_whose_lengths_nest),
    };
    return cmocka_run_group_tests_name("acpi_tables", tests, NULL, NULL);
}
