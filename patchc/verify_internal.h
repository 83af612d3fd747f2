/* SPDX-License-Identifier: MIT */
/* What the parts of `patchc verify` share.
 *
 * The argument in one paragraph. Every byte of the patched file is either the byte of the original
 * file that stands there, or it is *claimed*: by a check that has read it, in full, and found it to
 * mean what it must. A claim says what kind of place it may be in (a window, padding, a word that
 * follows a move, the part that patchc added). Claims do not overlap. Walking each window in
 * lockstep with its trampoline gives the *moves*: which original instruction now stands where. All
 * that refers to code (branches, tables, relocations) is then compared with the original through
 * the moves. */
#ifndef PATCHC_VERIFY_INTERNAL_H
#define PATCHC_VERIFY_INTERNAL_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "hvstub/hvstub.h"
#include "image/image.h"
#include "image/relocs.h"
#include "patchc/linux_tables.h"
#include "patchc/restore.h"

enum claim_kind {
    CLAIM_WINDOW,  /* a patch's window: original code replaced */
    CLAIM_PADDING, /* was padding in the original's lasting text, or is in the added segment */
    CLAIM_ISLAND,  /* was padding in the original; lasts as long as the code around it */
    CLAIM_WORD,    /* a table field, relocation word, header field or displacement that follows */
    CLAIM_ADDED,   /* not in the original */
};

struct claim {
    uint64_t offset, size; /* patched file, bytes */
    enum claim_kind kind;
    const char *what;
};

struct move {          /* one instruction of a window */
    uint64_t from, to; /* guest-linear: in the original; its copy in the trampoline */
    uint64_t link;     /* link slot through which control arrives; 0 = none */
    uint64_t region;   /* trampoline address up to which the copy (with added NOPs) extends */
    uint32_t patch;
    uint8_t length; /* bytes in the original */
    bool verbatim;  /* the copy has the same bytes, but for a RIP-relative displacement */
};

struct branch_check {       /* a branch in a trampoline, judged when all moves are known */
    uint64_t at;            /* guest-linear, in the trampoline */
    uint64_t before, after; /* its target in the original; its target now */
};

struct vector { /* grows; an element is `size` bytes */
    void *data;
    size_t count, room;
};

struct verify {
    struct image before, after;
    struct patched_record record;
    struct pv_header header;
    uint64_t base;            /* guest-linear address of the header */
    struct pv_patch *patches; /* header.patch_count */
    struct pv_routine *routines;
    uint64_t *routine_table; /* header.routine_count each */
    struct linux_tables tables_before, tables_after;
    struct relocs relocs_before, relocs_after;
    struct vector claims;   /* struct claim */
    struct vector moves;    /* struct move, sorted by `from` once all windows are walked */
    struct vector branches; /* struct branch_check */
    struct vector dead;     /* struct window: no-ops that were used as padding */
    struct window *windows; /* sorted by start; replacements are not among them */
    size_t window_count;
    ZydisDecoder decoder;
    struct { /* where verify_is_start() last stood */
        uint64_t from, at;
    } memo;
    FILE *out;
    struct error *err;
    size_t mismatches;
    size_t tables_checked;
    bool out_of_memory;
};

struct window {
    uint64_t start, end; /* guest-linear */
    uint32_t patch;
};

/* verify.c: reports a mismatch. The first goes to v->err, further ones to v->out, 20 at most. */
void verify_mismatch(struct verify *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Appends a copy of *element; NULL and v->out_of_memory when memory runs out. */
void *vector_add(struct verify *v, struct vector *vector, const void *element, size_t size);

/* verify_claim.c */
void verify_claim_file(struct verify *v, uint64_t offset, uint64_t size, enum claim_kind kind,
                       const char *what);
/* Claims [address, address + size) of the patched image; a mismatch if it has no such bytes. */
bool verify_claim(struct verify *v, uint64_t address, uint64_t size, enum claim_kind kind,
                  const char *what);
void verify_claims_judge(struct verify *v); /* every byte equal or claimed, no claims overlap */

/* verify_elf.c */
void verify_elf(struct verify *v);

/* verify_header.c: reads the header and its tables; false if nothing can be checked without them.
 */
bool verify_header(struct verify *v);
bool verify_dead_routine(const struct verify *v, uint32_t index); /* there was no room for it */

/* verify_window.c: what each window holds and where it leads; fills windows, moves and branches. */
void verify_patches(struct verify *v);

/* verify_walk.c: the window of a patch against its trampoline, which must lead to `back`. */
bool verify_walk(struct verify *v, uint32_t index, uint64_t back);

/* Can control go on behind this instruction of the original? What the kernel rewrites always may.
 */
bool verify_falls_through(const struct verify *v, const ZydisDecodedInstruction *i,
                          uint64_t address);

/* The address that an offset of the header means. */
static inline uint64_t verify_place(const struct verify *v, int64_t offset)
{
    return v->base + (uint64_t)offset;
}

/* verify_copy.c: is the code at `now` in the patched image a copy of this instruction of the
 * original, displaced? */
struct displaced {
    const ZydisDecodedInstruction *instruction; /* of the original */
    const uint8_t *bytes;
    uint64_t address;    /* of the original */
    uint64_t window_end; /* guest-linear */
    bool jump_label;     /* must be five bytes */
    const uint8_t *now;  /* its copy, `room` bytes readable */
    uint64_t now_address;
    uint64_t room;
};
/* Returns the bytes that the copy takes, or 0 with *why set. */
unsigned verify_copy(struct verify *v, const struct displaced *d, bool *verbatim, const char **why);
bool verify_decode(const struct verify *v, const uint8_t *bytes, uint64_t size,
                   ZydisDecodedInstruction *instruction);
/* Target of a direct branch or address of a RIP-relative operand at `address`; false if it has
 * none. *field = offset of its displacement, *bits its size. */
bool verify_relative(const ZydisDecodedInstruction *instruction, const uint8_t *bytes,
                     uint64_t address, uint64_t *target, unsigned *field, unsigned *bits);

/* verify_emulation.c */
void verify_emulation(struct verify *v);

/* verify_tables.c, verify_alternatives.c, verify_relocs.c, verify_branches.c,
 * verify_entry.c */
void verify_tables(struct verify *v);
void verify_alternatives(struct verify *v);
/* The patch of the replacement that this entry of the original names, if the kernel now copies what
 * stands at `island` in its place; NULL if there is none. */
const struct pv_patch *verify_replacement(const struct verify *v, const struct linux_entry *was,
                                          uint64_t island);
void verify_relocs(struct verify *v);
void verify_branches(struct verify *v);
void verify_entry_text(struct verify *v);

/* verify_blocks.c: the IO-block table, which is known to lie in the file. */
void verify_blocks(struct verify *v);

/* verify_moves.c. The move of the instruction that begins at / contains an original address. */
const struct move *verify_move_at(const struct verify *v, uint64_t address);
const struct move *verify_move_containing(const struct verify *v, uint64_t address);
const struct window *verify_window_containing(const struct verify *v, uint64_t address);
bool verify_window_overlaps(const struct verify *v, uint64_t from, uint64_t to);
enum { VERIFY_LOW_ENTRY_SIZE = 56, VERIFY_LOW_ENTRY_WORD = 48 };
bool verify_low_entry(const struct verify *v, uint64_t address, uint32_t routine);
bool verify_in_window(const struct verify *v, uint64_t address);     /* first byte included */
bool verify_inside_window(const struct verify *v, uint64_t address); /* first byte not included */
/* Where an entry that names the instruction at `address` must point now; 0 if nowhere. */
uint64_t verify_moved(const struct verify *v, uint64_t address);
/* May control that went to `before` in the original go to `after` now? */
bool verify_same_target(const struct verify *v, uint64_t before, uint64_t after);
/* Does an instruction begin at this original address? Decodes from the symbol before it. */
bool verify_is_start(struct verify *v, uint64_t address);
/* Is [from, to) of the original INT3 and no-ops only (the first and last may be cut)? Then
 * *falls_into tells whether control may fall into them from the code before. */
bool verify_is_padding(const struct verify *v, uint64_t from, uint64_t to, bool *falls_into);
void verify_moves_sort(struct verify *v);

static inline uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t value;
    __builtin_memcpy(&value, bytes, sizeof value);
    return value;
}

static inline int64_t read_s32(const uint8_t *bytes)
{
    return (int32_t)read_u32(bytes);
}

static inline uint64_t read_u64(const uint8_t *bytes)
{
    uint64_t value;
    __builtin_memcpy(&value, bytes, sizeof value);
    return value;
}

#endif
