/* SPDX-License-Identifier: MIT */
/* FP and SIMD instructions twice: by the host processor on a loaded state, and by the software processor. Both start
 * from the same registers, flags and memory; simd_lab_compare says where they ended differently.
 *
 * Include it before <cmocka.h>. */
#ifndef TESTS_SIMD_LAB_H
#define TESTS_SIMD_LAB_H

#include "tests/unit/one_insn.h"

/* Two pages of memory with nothing mapped before and behind; the instruction's memory operand is at RBX + 0 (or RDI,
 * where that is implicit), `operand` bytes from the start. */
#define LAB_MEMORY 8192u

struct lab_state {
    struct fpu fpu;
    uint64_t r[16]; /* RBX, RDI and RSP are the lab's */
    uint64_t flags; /* arithmetic flags */
    uint8_t memory[LAB_MEMORY];
    int vector; /* the exception that ended it, -1 = none; a fault of memory is EXC_GP whichever it was */
};

struct lab_case {
    uint8_t bytes[16];
    unsigned length;
    unsigned operand; /* offset of RBX and RDI in memory */
    struct lab_state before;
};

/* The vCPU that the lab uses, made on first use: 64-bit mode, CPL 3, all state enabled. */
struct vcpu *simd_lab_vcpu(void);
void simd_lab_close(void);

/* Random registers, flags and memory: numbers that matter to floating point, and noise. MXCSR has its exceptions
 * masked; x87 is as FNINIT leaves it but for the registers' contents. */
void simd_lab_randomize(struct lab_state *state);
/* A random value that matters: zero, denormal, infinity, NaN, integer, largest … `bits`: 32, 64 or 80 (x87). */
uint64_t simd_lab_number(unsigned bits);
void simd_lab_number80(uint8_t number[10]);

void simd_lab_native(const struct lab_case *c, struct lab_state *after);
void simd_lab_soft(const struct lab_case *c, struct lab_state *after);

/* NULL if equal, else what differs. FOP, FIP and FDP are not compared: native ones are the host's. */
const char *simd_lab_compare(const struct lab_state *native, const struct lab_state *soft);

/* Executes both; false, with a line on stderr, if they end differently. */
bool simd_lab_agrees(const struct lab_case *c);

/* The host can load and store YMM registers. */
bool simd_lab_has_avx(void);

#endif
