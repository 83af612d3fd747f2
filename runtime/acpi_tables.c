/* SPDX-License-Identifier: MIT */
/* The ACPI tables (ACPI 6.4, chapter 5): built in one block and copied to guest memory.
 *
 * RSDP -> RSDT and XSDT -> FADT (-> FACS, DSDT), MADT. Both root tables are there: some guests know
 * the old one only. */
#include "runtime/acpi_tables.h"

#include <string.h>

#include "runtime/devices/acpi_pm.h"
#include "runtime/interrupts.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* AML (chapter 20) written by hand; a package length counts itself.
 *   Name (\_S5, Package () {5, 0, 0, 0})
 *   Scope (\_SB) {
 *     Device (COM1) { Name (_HID, EisaId ("PNP0501")) Name (_UID, 1)
 *       Name (_CRS, ResourceTemplate () { IO (Decode16, 0x3F8, 0x3F8, 1, 8) IRQNoFlags () {4} }) }
 *     Device (RTC0) { Name (_HID, EisaId ("PNP0B00"))
 *       Name (_CRS, ResourceTemplate () { IO (Decode16, 0x70, 0x70, 1, 2) IRQNoFlags () {8} }) } } */
#define NAME(a, b, c, d)  0x08, a, b, c, d
#define PNP_ID(high, low) 0x0c, 0x41, 0xd0, high, low
#define IO_PORTS(low, high, count)                                                                 \
    0x47, 0x01, low, high, low, high, 0x01, count /* 6.4.2.5: 16-bit decode */
#define IRQ_MASK(low, high) 0x22, low, high       /* 6.4.2.1: edge, active high */
#define END_TAG             0x79, 0x00
#define BUFFER(size)        0x11, 3 + (size), 0x0a, size
enum {
    RESOURCES = 8 + 3 + 2,
    CRS = 5 + 4 + RESOURCES,            /* name, buffer op, package length, size (2 bytes) */
    COM1_LENGTH = 1 + 4 + 10 + 6 + CRS, /* itself, name, _HID, _UID, _CRS */
    RTC_LENGTH = 1 + 4 + 10 + CRS,
    SCOPE_LENGTH = 2 + 5 + 2 + COM1_LENGTH + 2 + RTC_LENGTH,
};
_Static_assert(COM1_LENGTH < 64 && SCOPE_LENGTH >= 64, "sizes of the package lengths");

/* A line is an object: */
/* clang-format off */
static const uint8_t dsdt_code[] = {
    NAME('\\', '_', 'S', '5'), '_', 0x12, 7, 4, 0x0a, ACPI_SLP_TYP_S5, 0, 0, 0,
    0x10, 0x40 | (SCOPE_LENGTH & 0xf), SCOPE_LENGTH >> 4, '\\', '_', 'S', 'B', '_',
    0x5b, 0x82, COM1_LENGTH, 'C', 'O', 'M', '1',
    NAME('_', 'H', 'I', 'D'), PNP_ID(0x05, 0x01),
    NAME('_', 'U', 'I', 'D'), 0x01,
    NAME('_', 'C', 'R', 'S'), BUFFER(RESOURCES),
    IO_PORTS(0xf8, 0x03, 8), IRQ_MASK(1 << IRQ_COM1, 0), END_TAG,
    0x5b, 0x82, RTC_LENGTH, 'R', 'T', 'C', '0',
    NAME('_', 'H', 'I', 'D'), PNP_ID(0x0b, 0x00),
    NAME('_', 'C', 'R', 'S'), BUFFER(RESOURCES),
    IO_PORTS(0x70, 0x00, 2), IRQ_MASK(0, 1 << (IRQ_RTC - 8)), END_TAG,
};
/* clang-format on */

/* Offsets of fields that all tables have (5.2.6). */
enum {
    TABLE_LENGTH = 4,
    TABLE_REVISION = 8,
    TABLE_CHECKSUM = 9,
    TABLE_OEM = 10,
    TABLE_HEADER = 36
};

enum { /* offsets in the FADT (5.2.9) */
       FADT_FACS = 36,
       FADT_DSDT = 40,
       FADT_SCI = 46,
       FADT_SMI_COMMAND = 48,
       FADT_PM1A_EVENT = 56,
       FADT_PM1A_CONTROL = 64,
       FADT_PM_TIMER = 76,
       FADT_PM1_EVENT_LENGTH = 88,
       FADT_PM1_CONTROL_LENGTH = 89,
       FADT_PM_TIMER_LENGTH = 91,
       FADT_C2_LATENCY = 96,
       FADT_C3_LATENCY = 98,
       FADT_CENTURY = 108,
       FADT_BOOT_FLAGS = 109,
       FADT_FLAGS = 112,
       FADT_RESET = 116,
       FADT_RESET_VALUE = 128,
       FADT_X_DSDT = 140,
       FADT_X_PM1A_EVENT = 148,
       FADT_X_PM1A_CONTROL = 172,
       FADT_X_PM_TIMER = 208,
       FADT_SIZE = 244,
};

enum { /* FADT flags (table 5.10) and boot architecture flags (table 5.11) */
       WBINVD_WORKS = 1 << 0,
       C1_ON_ALL = 1 << 2,
       NO_POWER_BUTTON = 1 << 4,
       NO_SLEEP_BUTTON = 1 << 5,
       NO_FIXED_RTC_WAKE = 1 << 6,
       RESET_REGISTER = 1 << 10,
       BOOT_LEGACY_DEVICES = 1 << 0, /* a UART; bit 1 clear: no keyboard controller to probe */
       BOOT_NO_VGA = 1 << 2,
       BOOT_NO_ASPM = 1 << 4,
};

enum { NO_C2 = 101, NO_C3 = 1001, CMOS_CENTURY = 0x32, FACS_SIZE = 64, RSDP_SIZE = 36 };

/* The block under construction; offset 0 is ACPI_TABLES_START. */
struct tables {
    uint8_t bytes[4096];
    uint32_t end;
};

static void put(uint8_t *at, unsigned size, uint64_t value)
{
    memcpy(at, &value, size); /* little-endian, as the host */
}

static uint32_t address(const struct tables *t, const uint8_t *at)
{
    return ACPI_TABLES_START + (at - t->bytes);
}

static uint8_t checksum(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;
    while (size--)
        sum += *bytes++;
    return -sum;
}

/* Room for a table, zeroed. */
static uint8_t *room(struct tables *t, uint32_t size, uint32_t align)
{
    uint32_t at = (t->end + align - 1) & -align;
    t->end = at + size;
    return t->bytes + at;
}

static uint8_t *begin(struct tables *t, const char *signature, uint8_t revision, uint32_t size)
{
    uint8_t *table = room(t, size, 16);
    memcpy(table, signature, 4);
    put(table + TABLE_LENGTH, 4, size);
    table[TABLE_REVISION] = revision;
    /* OEM id (6), OEM table id (8), OEM revision, creator id, creator revision */
    memcpy(table + TABLE_OEM, "PVISORPATCHVSR\1\0\0\0PVSR\1\0\0", 26);
    return table;
}

static void finish(uint8_t *table)
{
    uint32_t size;
    memcpy(&size, table + TABLE_LENGTH, 4);
    table[TABLE_CHECKSUM] = checksum(table, size);
}

/* Generic address structure (5.2.3.2): I/O ports, of whatever access size the register has. */
static void put_port(uint8_t *at, uint16_t port, uint8_t width)
{
    at[0] = 1; /* system I/O */
    at[1] = width * 8;
    put(at + 4, 8, port);
}

static uint8_t *dsdt(struct tables *t)
{
    uint8_t *table = begin(t, "DSDT", 2, TABLE_HEADER + sizeof dsdt_code);
    memcpy(table + TABLE_HEADER, dsdt_code, sizeof dsdt_code);
    finish(table);
    return table;
}

static uint8_t *facs(struct tables *t)
{
    uint8_t *table = room(t, FACS_SIZE, 64);
    memcpy(table, "FACS", 4);
    put(table + TABLE_LENGTH, 4, FACS_SIZE);
    table[32] = 1; /* version */
    return table;
}

static uint8_t *fadt(struct tables *t)
{
    uint32_t facs_address = address(t, facs(t)), dsdt_address = address(t, dsdt(t));
    uint8_t *f = begin(t, "FACP", 3, FADT_SIZE);
    put(f + FADT_FACS, 4, facs_address); /* the 64-bit field stays 0: one of the two (5.2.9) */
    put(f + FADT_DSDT, 4, dsdt_address);
    put(f + FADT_X_DSDT, 8, dsdt_address);
    put(f + FADT_SCI, 2, IRQ_SCI);
    put(f + FADT_SMI_COMMAND, 4, ACPI_SMI_COMMAND); /* 0: always in ACPI mode */
    put(f + FADT_PM1A_EVENT, 4, ACPI_PM1A_EVENT);
    put(f + FADT_PM1A_CONTROL, 4, ACPI_PM1A_CONTROL);
    put(f + FADT_PM_TIMER, 4, ACPI_PM_TIMER);
    f[FADT_PM1_EVENT_LENGTH] = ACPI_PM1A_EVENT_LENGTH;
    f[FADT_PM1_CONTROL_LENGTH] = ACPI_PM1A_CONTROL_LENGTH;
    f[FADT_PM_TIMER_LENGTH] = ACPI_PM_TIMER_LENGTH;
    put_port(f + FADT_X_PM1A_EVENT, ACPI_PM1A_EVENT, ACPI_PM1A_EVENT_LENGTH);
    put_port(f + FADT_X_PM1A_CONTROL, ACPI_PM1A_CONTROL, ACPI_PM1A_CONTROL_LENGTH);
    put_port(f + FADT_X_PM_TIMER, ACPI_PM_TIMER, ACPI_PM_TIMER_LENGTH);
    put(f + FADT_C2_LATENCY, 2, NO_C2);
    put(f + FADT_C3_LATENCY, 2, NO_C3);
    f[FADT_CENTURY] = CMOS_CENTURY;
    put(f + FADT_BOOT_FLAGS, 2, BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM);
    put(f + FADT_FLAGS, 4,
        WBINVD_WORKS | C1_ON_ALL | NO_POWER_BUTTON | NO_SLEEP_BUTTON | NO_FIXED_RTC_WAKE |
            RESET_REGISTER);
    put_port(f + FADT_RESET, ACPI_RESET_PORT, 1);
    f[FADT_RESET_VALUE] = ACPI_RESET_VALUE;
    finish(f);
    return f;
}

/* An interrupt source override: an ISA line that is not on the IO-APIC pin of its number, or not
 * edge-triggered. */
static uint8_t * override(uint8_t *at, uint8_t line, uint32_t pin, uint16_t flags)
{
    at[0] = 2;
    at[1] = 10;
    at[3] = line;
    put(at + 4, 4, pin);
    put(at + 8, 2, flags);
    return at + 10;
}

static uint8_t *madt(struct tables *t, unsigned processors)
{
    enum { FIXED = 44, LOCAL = 8, IO = 12, OVERRIDES = 20, NMI = 6, TIMER_PIN = 2 };
    enum { ACTIVE_HIGH = 1, LEVEL = 3 << 2 };
    uint8_t *m = begin(t, "APIC", 3, FIXED + processors * LOCAL + IO + OVERRIDES + NMI);
    put(m + 36, 4, LAPIC_BASE);
    put(m + 40, 4, 1); /* there is a pair of 8259 as well */
    uint8_t *at = m + FIXED;
    for (unsigned i = 0; i < processors; i++, at += LOCAL) {
        at[1] = LOCAL;
        at[2] = at[3] = i; /* ACPI processor UID, APIC id */
        put(at + 4, 4, 1); /* enabled */
    }
    at[0] = 1;
    at[1] = IO;
    put(at + 4, 4, IOAPIC_BASE);
    at = override(at + IO, IRQ_TIMER, TIMER_PIN, 0);
    at = override(at, IRQ_SCI, IRQ_SCI, ACTIVE_HIGH | LEVEL);
    at[0] = 4; /* NMI on LINT1 of every local APIC */
    at[1] = NMI;
    at[2] = 0xff;
    at[5] = 1;
    finish(m);
    return m;
}

/* A root table: RSDT with 4-byte, XSDT with 8-byte addresses. */
static uint32_t root(struct tables *t, const char *signature, unsigned width, uint32_t first,
                     uint32_t second)
{
    uint8_t *table = begin(t, signature, 1, TABLE_HEADER + 2 * width);
    put(table + TABLE_HEADER, width, first);
    put(table + TABLE_HEADER + width, width, second);
    finish(table);
    return address(t, table);
}

uint64_t acpi_tables_write(struct vm *vm)
{
    struct tables t = {.end = 0};
    uint8_t *rsdp = room(&t, RSDP_SIZE, 16);
    uint32_t fadt_address = address(&t, fadt(&t)),
             madt_address = address(&t, madt(&t, vm->vcpu_count));
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "PVISOR", 6);
    rsdp[15] = 2; /* revision: with XSDT */
    put(rsdp + 16, 4, root(&t, "RSDT", 4, fadt_address, madt_address));
    put(rsdp + 20, 4, RSDP_SIZE);
    put(rsdp + 24, 8, root(&t, "XSDT", 8, fadt_address, madt_address));
    rsdp[8] = checksum(rsdp, 20);
    rsdp[32] = checksum(rsdp, RSDP_SIZE);
    memory_write(&vm->memory, ACPI_TABLES_START, t.bytes, t.end);
    return address(&t, rsdp);
}
