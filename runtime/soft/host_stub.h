/* SPDX-License-Identifier: MIT */
/* From a decoded FP or SIMD instruction to host code that executes it: the two steps between host_assist.c's cache
 * and its code region. */
#ifndef RUNTIME_SOFT_HOST_STUB_H
#define RUNTIME_SOFT_HOST_STUB_H

#include <stddef.h>

#include "runtime/soft/host_assist.h"

#define STUB_MAX     256u /* bytes of a stub at most */
#define STUB_REWRITE 16u  /* bytes of a rewritten instruction at most */

/* A general register that the instruction names: which one of the guest goes in or comes out. */
struct stub_general {
    uint8_t guest; /* RAX .. R15 */
    uint8_t used;  /* ZYDIS_OPERAND_ACTION_READ and _WRITE bits; 0 = not there */
};

/* All that a stub depends on. Compared as bytes: zeroed before it is filled, no padding. */
struct stub_plan {
    uint8_t bytes
        [STUB_REWRITE]; /* the instruction: memory operand [RSI], general registers RAX and RCX */
    uint8_t length;
    uint8_t class;  /* enum assist_class */
    uint8_t memory; /* enum assist_memory */
    uint8_t size;   /* bytes of the memory operand */
    uint8_t how;    /* ASSIST_* */
    bool flags_in, flags_out;
    bool sse;                                        /* names an XMM register */
    uint16_t vector_load, vector_store, vector_wide; /* a bit for each XMM register; wide: YMM */
    uint8_t mmx_load, mmx_store;
    struct stub_general rm, reg; /* ModRM.rm in RAX, ModRM.reg in RCX */
    struct stub_general
        implicit[3]; /* RAX, RCX, RDX that the instruction names without an encoding */
};

/* Rewrites the instruction and decodes the result again to see that it is what was meant. False: cannot be executed. */
bool stub_plan(const struct decoded *d, unsigned how, struct stub_plan *plan);
/* Writes the stub's code; returns its size, at most STUB_MAX. */
size_t stub_emit(const struct stub_plan *plan, uint8_t code[STUB_MAX]);

#endif
