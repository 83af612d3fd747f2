/* SPDX-License-Identifier: MIT */
/* Instructions in all their shapes: an opcode with every register and with memory operands of every
 * kind. */
#ifndef TESTS_UNIT_INSTRUCTION_SHAPES_H
#define TESTS_UNIT_INSTRUCTION_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum shape {
    SHAPE_PLAIN = 1,    /* the opcode alone */
    SHAPE_REGISTER = 2, /* ModRM.rm is a register: all sixteen */
    SHAPE_MEMORY = 4,   /* ModRM.rm is memory */
    SHAPE_ANY_REG = 8,  /* ModRM.reg is a general-purpose register: several */
    SHAPE_WIDE = 16,    /* REX.W */
};

struct instruction_shape {
    const char *prefix, *opcode; /* hexadecimal; prefix: mandatory, before REX */
    unsigned reg;                /* ModRM.reg, 0 to 15 */
    unsigned shapes;             /* enum shape bits */
};

/* Calls visit with the bytes of each: memory operands that no register decides are at `data`, for
 * an instruction at `site` (both below 2 GB). */
void each_shape(const struct instruction_shape *shape, uint64_t site, uint64_t data,
                void (*visit)(const uint8_t *bytes, size_t length, void *context), void *context);

#endif
