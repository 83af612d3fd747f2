/* SPDX-License-Identifier: MIT */
/* Inside the scanner: an instruction as far as a scan needs it. */
#ifndef IOBLOCK_INSTRUCTION_H
#define IOBLOCK_INSTRUCTION_H

#include "ioblock/ioblock.h"

/* What lets the length decoder read without asking for the end of the bytes. */
#define INSTRUCTION_ROOM 24u

struct instruction {
    uint8_t length;       /* bytes */
    uint8_t class;        /* enum io_class */
    bool repeats;         /* has a repeat prefix */
    int64_t displacement; /* of a direct branch, from the next instruction */
};

/* Decodes the instruction at bytes[0 .. available) of 64-bit code without Zydis, in a few ns.
 * False if it needs Zydis; what it does decode it classifies as io_classify() does. */
bool instruction_quick(const uint8_t *bytes, unsigned available, struct instruction *out);

/* The same by Zydis, for any mode. False if it is no instruction. */
bool instruction_full(const ZydisDecoder *decoder, const uint8_t *bytes, unsigned available,
                      struct instruction *out);

#endif
