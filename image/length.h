/* SPDX-License-Identifier: MIT */
/* Instruction length decoder for 64-bit code: only a length, an opcode and where operands stand.
 *
 * Finding sites in 15 MB of kernel text needs no operand semantics for 99.9 % of the instructions.
 * This table-driven decoder reads prefixes, opcode, ModRM, SIB, displacement and immediate and
 * nothing else; Zydis decodes the few that matter. It must agree with Zydis on the length of every
 * valid instruction (tests/unit/test_length.c compares them on real kernels and random bytes). */
#ifndef IMAGE_LENGTH_H
#define IMAGE_LENGTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum length_flag {
    LENGTH_REL8 = 1,     /* direct branch with 8-bit displacement (the instruction's last byte) */
    LENGTH_REL32 = 2,    /* direct branch with 32-bit displacement (its last four bytes) */
    LENGTH_CALL = 4,     /* with LENGTH_REL32: a call */
    LENGTH_RIP = 8,      /* memory operand relative to RIP; its disp32 is at `displacement` */
    LENGTH_NO_FALL = 16, /* control does not continue at the next instruction by itself: jmp, ret,
                          * iret, sysret, sysexit, rsm, int3, ud0, ud1, ud2 (hlt is not one) */
    LENGTH_VEX = 32,     /* VEX, XOP or EVEX encoded */
    LENGTH_AMD16 = 64,   /* with LENGTH_REL32: has a 66 prefix, which Intel ignores but which makes
                          * AMD read a displacement of two bytes: not the same code on both */
};

struct length_info {
    uint8_t length; /* bytes, 1..15 */
    uint8_t map;    /* 0: one-byte opcodes, 1: 0f, 2: 0f 38, 3: 0f 3a; with LENGTH_VEX the
                     * encoding's own map field (VEX 1..3, EVEX 1..3, 5, 6, XOP 8..10) */
    uint8_t opcode; /* last opcode byte (3DNow: 0f, its suffix counts as the immediate) */
    uint8_t modrm;  /* its value, 0 if there is none */
    uint8_t has_modrm;
    uint8_t displacement; /* offset of the displacement in the instruction (moffs included), 0 if
                             none */
    uint8_t immediate;    /* offset of the immediate (branch displacement included), 0 if none */
    uint8_t flags;        /* enum length_flag */
};

/* Decodes the instruction at code[0 .. available). Returns its length, or 0 if the bytes are no
 * valid 64-bit instruction or end too soon. Invalid opcodes, reserved group members and wrong
 * mandatory prefixes are told from valid ones for legacy encodings; of VEX, XOP and EVEX encodings
 * only the map is checked. Never reads beyond code[available - 1]. */
unsigned length_decode(const uint8_t *code, size_t available, struct length_info *info);

/* For sweeps over text: what the first two bytes of an instruction (after a REX prefix, without
 * which they mean the same) say, for the nine instructions of ten where that is its length and
 * kind. entry[0] is indexed by opcode << 8 | ModRM; an entry with LENGTH_TWO there means that the
 * second byte is an opcode of map 0f with ModRM, and entry[1] has to be indexed with the next two
 * bytes. */
struct length_table {
    uint16_t entry[2][65536];
};

enum length_entry {
    LENGTH_BYTES = 15,  /* length from opcode on (0f included), without prefixes */
    LENGTH_ASK = 0x100, /* not that easy: ask length_decode() */
    LENGTH_TWO = 0x200,
    LENGTH_KIND = 4, /* bits 4 to 7: LENGTH_REL8, LENGTH_REL32, LENGTH_CALL, LENGTH_RIP, shifted */
};

void length_table_fill(struct length_table *table);

#endif
