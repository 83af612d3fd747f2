/* SPDX-License-Identifier: MIT */
/* The code map: which bytes of an image are proved to be 64-bit instructions, where each begins,
 * and which addresses control may reach other than by falling through.
 *
 * Linux: each executable section is decoded linearly (its tables and symbols are the check); code
 * reached from 32-bit entry points (PVH) until it enters long mode is marked as other-mode.
 * Other images: control flow is followed from the entry points and from symbols of functions whose
 * mode is proved, with the mode carried along; far jumps are resolved through the image's own GDT.
 * What is not reached is not proved. */
#ifndef PATCHC_CODE_H
#define PATCHC_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "image/relocs.h"

struct code_section { /* one executable section (or segment, where there are no sections) */
    uint32_t section; /* index in image->sections, or UINT32_MAX */
    const char *name; /* "" if none */
    uint64_t address; /* guest-linear */
    uint64_t size;    /* bytes */
    const uint8_t *bytes;
    /* One bit per byte: */
    uint64_t *starts;     /* an instruction proved to be 64-bit code begins here. Each int3 of a run
                           * shorter than CODE_PADDING is one; longer runs of int3 are padding, no
                           * starts */
    uint64_t *targets;    /* control may arrive here other than by falling through: `branched`, or
                           * its address is taken (LEA, RIP-relative operand, code_add_target) */
    uint64_t *other_mode; /* 16- or 32-bit code */
    uint64_t *branched;   /* target of a direct branch of proved code */
    uint64_t *overlap;    /* see code_is_overlap() */
    uint32_t flat;        /* private: index of the first byte in all sections' bits */
    bool executable;      /* by its flags; else it is here because control flow leads to it */
};

/* Shortest run of int3 bytes that is padding: more than alignment to 16 bytes needs. */
enum { CODE_PADDING = 16 };

struct code {
    struct code_section *sections; /* sorted by address */
    size_t section_count;
    uint64_t instruction_count; /* starts other than int3 */
    bool linux_image;
    struct code_index *index; /* private: code_index.h */
};

/* Builds the map. *code is the caller's: code_close(). Uses up to two threads. relocs may be NULL.
 * 0, or -1 with *err set: EXIT_INPUT if the image has no executable bytes, or absurdly many. */
int code_open(const struct image *image, const struct relocs *relocs, struct code *code,
              struct error *err);
void code_close(struct code *code);

const struct code_section *code_section_at(const struct code *code, uint64_t address);
bool code_is_start(const struct code *code, uint64_t address);
bool code_is_target(const struct code *code, uint64_t address);
bool code_is_other_mode(const struct code *code, uint64_t address);
void code_add_target(struct code *code, uint64_t address); /* ignored outside executable sections */

/* True if `address` lies in code whose instructions overlap: a direct branch or a symbol enters an
 * instruction in the middle (other than right behind its LOCK prefix). Such bytes are no starts. */
bool code_is_overlap(const struct code *code, uint64_t address);

/* The start of the instruction before `address` in the same section, if it ends at `address`; 0 if
 * none is proved. */
uint64_t code_previous(const struct code *code, uint64_t address);

/* Calls `visit` for each proved instruction whose (map, opcode) bit is set in
 * wanted[map][opcode / 64], in address order. map as in struct length_info; VEX and EVEX encoded
 * instructions under map + 4 where that is below 8, the others never. 0, or -1 when memory runs out
 * (then nothing was visited). */
int code_each_opcode(const struct code *code, const uint64_t wanted[8][4],
                     void (*visit)(void *context, const struct code_section *section,
                                   uint64_t address, unsigned length),
                     void *context);

#endif
