/* SPDX-License-Identifier: MIT */
/* Holes of templates: what each hole symbol stands for, and how it is filled (D8). */
#ifndef PATCHC_HOLE_H
#define PATCHC_HOLE_H

#include "patchc/template.h"

/* What holes tell about the template that has them. */
enum hole_use {
    HOLE_USES_STATE = 1,
    HOLE_USES_CPUID = 2,
    HOLE_USES_MSR = 4,
    HOLE_RINGS_DOORBELL = 8,
    HOLE_COPIES_MEMORY = 16, /* PV_LEA: base, index and displacement of the memory operand */
    HOLE_TAKES_SEGMENT = 32, /* PV_SEGMENT */
};

struct hole_kind; /* a row of the table in hole.c */

struct hole {
    const struct hole_kind *kind;
    uint32_t offset; /* in the template's code, bytes */
    uint32_t type;   /* R_X86_64_* */
    int64_t addend;
};

/* Finds the kind by its symbol; NULL if there is none. */
const struct hole_kind *hole_kind_named(const char *symbol);

unsigned hole_kind_uses(const struct hole_kind *kind); /* enum hole_use bits */

/* Checks that relocation type, place and kind go together in a template of `size` bytes. 0, or -1
 * with *err set. `name` is the template's, for the message. */
int hole_check(const struct hole *hole, size_t size, const char *name, struct error *err);

/* Fills the hole in `code`, which will run at guest-linear `address`. 0, or -1 with *err set. */
int hole_fill(const struct hole *hole, const struct template_values *values, uint8_t *code,
              uint64_t address, struct error *err);

#endif
