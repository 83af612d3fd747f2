/* SPDX-License-Identifier: MIT */
/* Power-off as ACPI describes it: RSDP, RSDT, FADT, the DSDT's \_S5 package, then PM1a_CNT. With `reset` on the
 * command line the FADT's reset register instead. */
#include "samples/kernel/kernel.h"

enum { /* offsets (ACPI 6.4, 5.2) */
       RSDP_RSDT = 16,
       RSDP_SIZE = 20,
       TABLE_LENGTH = 4,
       TABLE_HEADER = 36,
       FADT_DSDT = 40,
       FADT_PM1A_CONTROL = 64,
       FADT_FLAGS = 112,
       FADT_RESET_PORT = 120,
       FADT_RESET_VALUE = 128,
};

static uint32_t word(const uint8_t *at)
{
    uint32_t value;
    __builtin_memcpy(&value, at, 4);
    return value;
}

static bool is(const uint8_t *at, const char *name)
{
    while (*name)
        if (*at++ != (uint8_t)*name++)
            return false;
    return true;
}

static bool sums_to_zero(const uint8_t *at, uint32_t size)
{
    uint8_t sum = 0;
    while (size--)
        sum = (uint8_t)(sum + *at++);
    return !sum;
}

const uint8_t *find_rsdp(void)
{
    for (const uint8_t *at = (const uint8_t *)0xe0000; at < (const uint8_t *)0x100000; at += 16)
        if (is(at, "RSD PTR ") && sums_to_zero(at, RSDP_SIZE))
            return at;
    return NULL;
}

const uint8_t *find_table(const uint8_t *rsdp, const char *name)
{
    const uint8_t *root = (const uint8_t *)(uintptr_t)word(rsdp + RSDP_RSDT);
    for (uint32_t at = TABLE_HEADER; at < word(root + TABLE_LENGTH); at += 4) {
        const uint8_t *table = (const uint8_t *)(uintptr_t)word(root + at);
        if (is(table, name) && sums_to_zero(table, word(table + TABLE_LENGTH)))
            return table;
    }
    return NULL;
}

/* SLP_TYPa from Name (_S5, Package () {SLP_TYPa, ...}); -1 if there is none. */
int sleep_type(const uint8_t *dsdt)
{
    enum { PACKAGE = 0x12, BYTE_PREFIX = 0x0a };
    const uint8_t *end = dsdt + word(dsdt + TABLE_LENGTH) - 8;
    for (const uint8_t *at = dsdt + TABLE_HEADER; at < end; at++)
        if (is(at, "_S5_") && at[4] == PACKAGE)
            return at[7] == BYTE_PREFIX ? at[8] : at[7];
    return -1;
}

void main(void)
{
    enum { SLEEP_ENABLE = 1 << 13, SLEEP_TYPE_SHIFT = 10, RESET_WORKS = 1 << 10 };
    const uint8_t *rsdp = find_rsdp();
    check(rsdp, "there is an RSDP");
    const uint8_t *fadt = rsdp ? find_table(rsdp, "FACP") : NULL;
    check(fadt, "there is a FADT");
    check(rsdp && find_table(rsdp, "APIC"), "there is a MADT");
    if (!fadt)
        finish("power_off");
    int type = sleep_type((const uint8_t *)(uintptr_t)word(fadt + FADT_DSDT));
    check(type >= 0, "the DSDT has an S5 package");
    if (command_line_has("reset")) {
        check(word(fadt + FADT_FLAGS) & RESET_WORKS, "the FADT has a reset register");
        print("power_off: reset\n");
        out8((uint16_t)word(fadt + FADT_RESET_PORT), fadt[FADT_RESET_VALUE]);
    } else if (type >= 0) {
        print("power_off: off\n");
        out16((uint16_t)word(fadt + FADT_PM1A_CONTROL),
              (uint16_t)(SLEEP_ENABLE | type << SLEEP_TYPE_SHIFT));
    }
    for (volatile unsigned n = 0; n < 1000000; n++)
        ;
    check(false, "the machine is still on");
    finish("power_off");
}
