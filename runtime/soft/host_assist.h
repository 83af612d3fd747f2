/* SPDX-License-Identifier: MIT */
/* FP and SIMD instructions of the guest, executed by the host processor on the guest's registers.
 *
 * For each distinct instruction a small function is made once (a stub): it loads the XMM, YMM or MMX registers that
 * the instruction names from vcpu.fpu, general registers from vcpu.r, executes the instruction itself with its memory
 * operand rewritten to [RSI], and stores what it writes. Only mnemonics that have a row in ops_fpu get that far, of
 * instruction sets that CPUID offers, and what was rewritten is decoded again before it is used: nothing else can be
 * executed. */
#ifndef RUNTIME_SOFT_HOST_ASSIST_H
#define RUNTIME_SOFT_HOST_ASSIST_H

#include <stdbool.h>
#include <stdint.h>

#include "image/error.h"
#include "runtime/soft/insn.h"

enum assist_class { ASSIST_CLASS_SSE, ASSIST_CLASS_AVX, ASSIST_CLASS_MMX, ASSIST_CLASS_X87 };
enum assist_memory { ASSIST_NO_MEMORY, ASSIST_LOAD, ASSIST_STORE };

struct assist {
    /* `memory`: the operand's bytes, for reading or writing; x87 only: `image` is what FXRSTOR64 and FXSAVE64 take */
    void (*run)(struct vcpu *cpu, void *memory, void *image);
    uint8_t size;   /* bytes of the memory operand; 0 = none */
    uint8_t align;  /* its address must have none of these bits */
    uint8_t class;  /* enum assist_class */
    uint8_t memory; /* enum assist_memory */
    bool mxcsr;     /* depends on MXCSR, or changes its flags */
    bool lenient;   /* a misaligned operand is copied, it does not fault */
    uint8_t halves; /* results of half precision in the operand written; 0 = other precisions */
    uint8_t destination; /* the XMM register written, if any */
    bool sse;            /* needs CR4.OSFXSR besides being MMX */
};

/* How a row of the white list is to be executed. */
enum assist_how {
    ASSIST_MXCSR = 1, /* loads the guest's MXCSR before, stores it after */
    ASSIST_UNALIGNED =
        2, /* a 16-byte operand need not be aligned, though the encoding is not VEX */
    ASSIST_LENIENT =
        4, /* nor this one on AMD's processors; on Intel's it must: the host gets it so */
    ASSIST_FLAGS = 8, /* x87: reads or writes the status flags */
    ASSIST_HALF = 16, /* results of half precision */
};

/* The stub for the instruction; lives until assist_reset. NULL if the host cannot execute it: #UD. */
const struct assist *assist_find(const struct decoded *d, unsigned how);

/* Makes the region for stubs; assist_find does so by itself, this one says why it cannot. 0, or -1 with *err. */
int assist_init(struct error *err);
/* True if there is no more room for a block's worth of stubs. The block cache then drops all blocks (their
 * instructions point to stubs), calls assist_reset, and decoding begins anew. */
bool assist_full(void);
void assist_reset(void);

#endif
