/* SPDX-License-Identifier: MIT */
/* Builds a kallsyms table as the kernel's build does (scripts/kallsyms.c), in each of its layouts.
 */
#ifndef TESTS_KALLSYMS_TABLE_H
#define TESTS_KALLSYMS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kallsyms_name {
    const char *name; /* the type's letter in front */
    uint64_t address;
};

struct kallsyms_layout {
    bool offsets_last;    /* as from Linux 6.4 on */
    bool sequences;       /* with kallsyms_seqs_of_names (from 6.2 on) */
    bool wide_markers;    /* as before Linux 5.0 */
    bool absolute_percpu; /* kernel addresses stored as base - 1 - address
                             (CONFIG_KALLSYMS_ABSOLUTE_PERCPU) */
    unsigned word;        /* bytes of an address: 8 or 4 */
    uint64_t base;        /* kallsyms_relative_base */
};

/* Where the parts begin, as offsets into the bytes. */
struct kallsyms_parts {
    size_t count, names, markers, tokens, index, offsets, base, end;
};

/* Writes the table to `bytes` (of at least `room` bytes, 0-filled); returns its size, 0 if it does
 * not fit. */
size_t kallsyms_table(const struct kallsyms_name *names, size_t count,
                      const struct kallsyms_layout *layout, uint8_t *bytes, size_t room,
                      struct kallsyms_parts *parts);

#endif
