/* SPDX-License-Identifier: MIT */
/* Decoded code: instructions, and the basic blocks they stand in.
 *
 * A block is a run of instructions that begins at a guest-physical address, decoded once. Executing it
 * is a chain of tail calls: each instruction's function does its work and calls the next one's. A
 * function gets the vCPU and the instruction and returns the instruction to go on with, or NULL to go
 * back to the engine's loop (vcpu.rip is then the RIP to continue at).
 *
 * A block ends after a branch, an instruction that changes how code is found or executed, at the
 * end of a page, or after BLOCK_MAX instructions. A translator would put host code into the same block.
 *
 * Blocks are found by guest-physical address and mode (cache.h), so they survive CR3 writes. A direct
 * jump within a page chains to its target block; everything else goes through vcpu.jump_cache, whose
 * entries are good until the TLB is flushed. */
#ifndef RUNTIME_SOFT_INSN_H
#define RUNTIME_SOFT_INSN_H

#include <stdbool.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

#include "runtime/vcpu.h"

typedef const struct insn *insn_fn(struct vcpu *cpu, const struct insn *i);

/* Operands by what the functions need. Registers are byte offsets in struct vcpu (AH is that of AX + 1). */
struct insn {
    insn_fn *run;
    union {
        uint64_t imm; /* immediate, sign-extended to 64 bits; relative branches: the displacement */
        struct block *chain; /* direct branches: the target block, &block_none as long as unknown */
        const void *data;    /* whatever the function's module keeps for it */
    };
    int32_t
        disp; /* of the memory operand; branches that need `chain`: displacement from the next instruction */
    uint8_t base;     /* offset of the base register, or of r[REG_ZERO] */
    uint8_t index;    /* the same for the index */
    uint8_t scale;    /* log2 */
    uint8_t segment;  /* SEG_ES .. SEG_GS of the memory operand */
    uint8_t dst, src; /* offsets of register operands */
    uint8_t length;   /* bytes */
    uint8_t flags;    /* INSN_* */
    uint16_t offset;  /* bytes from the block's first instruction */
    uint8_t position; /* instructions before it in the block */
    uint8_t aux;      /* whatever the function's module wants: condition, width, … */
};

/* insn.flags: the address is not simply base + index << scale + disp + segment base (ea_slow) */
#define INSN_ADDRESS32 1u /* truncated to 32 bits before the segment base is added */
#define INSN_ADDRESS16 2u
#define INSN_LEGACY    4u /* not 64-bit mode: segment limits and rights are checked */
#define INSN_EA        (INSN_ADDRESS32 | INSN_ADDRESS16 | INSN_LEGACY)
/* other properties */
#define INSN_REP   8u  /* F3 */
#define INSN_REPNE 16u /* F2 */
#define INSN_LOCK  32u
/* RIP-relative operands have vcpu.rip, the block's first instruction, as base, and a displacement that counts from there;
 * this flag only where that displacement would not fit: it then counts from the next instruction */
#define INSN_RIPREL 64u

#define BLOCK_MAX 64u

struct block {
    uint64_t physical; /* of its first byte */
    uint64_t key;      /* vcpu.jump_key it was decoded under (mode bits that matter for decoding) */
    uint32_t bytes;
    uint16_t count; /* instructions */
    bool crosses;   /* its last instruction ends in the next page: never chained to */
    bool valid;
    bool doorbell; /* not decoded guest code: what a routine that rang stands for (doorbell.c) */
    /* part of an IO block (io_compiled.h): its IO instructions are no events of their own */
    bool in_event;
    struct block *hash_next;
    struct block *page_next[2]; /* lists of blocks in the page(s) */
    uint64_t physical2;         /* page of the part beyond the page end, if crosses */
    /* the translator's (translator/translator.h) */
    uint16_t runs;      /* until it is warm */
    insn_fn *first_run; /* what the first instruction's function was before they were counted */
    struct translated *translated; /* its code; NULL = none */
    struct insn insns[];           /* count, then one that leaves */
};

/* What stands in for a chain not yet made, and for a block that was invalidated. */
extern struct block block_none;

/* ---- decoding: one row a mnemonic ---- */
struct decoded {
    const ZydisDecodedInstruction *zydis;
    const ZydisDecodedOperand *operands; /* all, visible ones first */
    const uint8_t *bytes;                /* zydis->length of them */
    struct vcpu *cpu;  /* for modes; its state must not be baked into the block beyond jump_key */
    uint64_t rip;      /* of the instruction */
    uint8_t code_bits; /* 16, 32, 64 */
    bool ends_block;   /* a select function sets it: nothing is decoded behind this instruction */
};

/* Chooses the function that executes the instruction and fills what of *out it needs. decode.c has already filled:
 * length, flags, base, index, scale, disp and segment of the (first) memory operand, dst and src from the
 * first and second visible register operand, imm from the immediate (sign-extended). Returns NULL for #UD. */
typedef insn_fn *select_fn(struct decoded *d, struct insn *out);

struct op_row {
    ZydisMnemonic mnemonic;
    select_fn *select;
};
/* Each ops_*.c exports its rows, ended by a NULL select; decode.c knows the modules. */
extern const struct op_row ops_alu[], ops_move[], ops_branch[], ops_bits[], ops_muldiv[],
    ops_string[], ops_stack[], ops_system[], ops_segment[], ops_io[], ops_fpu[], ops_xstate[],
    ops_legacy[];

/* Offset in struct vcpu of a Zydis general-purpose register (any size). */
uint8_t insn_register(ZydisRegister reg);

/* The form of the visible operands of a two-operand instruction. */
enum insn_form { FORM_NONE, FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_R, FORM_M, FORM_I };
enum insn_form insn_form(const struct decoded *d);
/* log2 of the first visible operand's bytes: 0 .. 3 (the index into tables of functions by size). */
unsigned insn_size(const struct decoded *d);

#endif
