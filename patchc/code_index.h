/* SPDX-License-Identifier: MIT */
/* What the files of the code map share; nobody else includes it.
 *
 * All executable sections are laid side by side in one flat index, each aligned to 64, so that one
 * 32-bit number names a byte of code and each bit map is one array. */
#ifndef PATCHC_CODE_INDEX_H
#define PATCHC_CODE_INDEX_H

#include "image/length.h"
#include "patchc/code.h"

enum code_ref_kind {
    REF_ADDRESS,             /* the target's address is taken */
    REF_SHORT = LENGTH_REL8, /* direct branch, rel8 */
    REF_NEAR = LENGTH_REL32, /* direct branch, rel32 */
};

/* A reference from an instruction to a code address; both flat. */
struct code_ref {
    uint32_t from : 30, kind : 2;
    uint32_t to;
};

/* An instruction with an opcode that lists name (code_query.c: sensitive). */
struct code_mark {
    uint32_t at;
    uint8_t map, opcode, length;
};

static inline struct code_ref code_make_ref(uint32_t from, enum code_ref_kind kind, uint32_t to)
{
    return (struct code_ref){.from = from & 0x3fffffff, .kind = kind & 3, .to = to};
}

/* What decoding a stretch of code found, in address order. */
struct code_part {
    struct code_ref *refs;
    size_t ref_count, ref_room;
    struct code_mark *marks;
    size_t mark_count, mark_room;
    bool failed; /* memory ran out */
};

struct code_index {
    uint32_t bits;   /* flat size, a multiple of 64 */
    uint64_t *block; /* all bit maps */
    uint64_t *starts, *targets, *other_mode, *branched, *overlap;
    struct code_part *parts;
    size_t part_count;
    struct code_mark *marks; /* of all parts, sorted, starts only; complete after code_settle() */
    size_t mark_count;
    bool linear; /* the starts come from a linear sweep */
};

enum { CODE_BITS_MAX = 1 << 27 }; /* bytes of code; distribution kernels have an eighth of it */

static inline bool bit_get(const uint64_t *bits, uint64_t at)
{
    return bits[at >> 6] >> (at & 63) & 1;
}

static inline void bit_set(uint64_t *bits, uint64_t at)
{
    bits[at >> 6] |= 1ull << (at & 63);
}

static inline void bit_clear(uint64_t *bits, uint64_t at)
{
    bits[at >> 6] &= ~(1ull << (at & 63));
}

/* The section of a flat index, which must be one of code's. */
const struct code_section *code_flat_section(const struct code *code, uint32_t flat);

/* Translates an address to its flat index; false if it is in no executable section. `near` is a
 * section to try first. */
static inline bool code_flat(const struct code *code, const struct code_section *near,
                             uint64_t address, uint32_t *flat)
{
    if (address - near->address >= near->size) {
        near = code_section_at(code, address);
        if (!near)
            return false;
    }
    *flat = near->flat + (uint32_t)(address - near->address);
    return true;
}

/* Marks a 64-bit instruction start, or takes it back; keeps the count. */
void code_set_start(struct code *code, const struct code_section *section, uint64_t offset);
void code_clear_start(struct code *code, const struct code_section *section, uint64_t offset);

/* Adds to a part what the instruction at `offset` of the section refers to, and its mark. */
void code_note(const struct code *code, const struct code_section *section, uint64_t offset,
               const struct length_info *info, struct code_part *part);

/* A new empty part; NULL when memory runs out. Pointers to parts are void after it. */
struct code_part *code_add_part(struct code *code);
bool code_reserve_refs(struct code_part *part, size_t count);
void code_add_mark(struct code_part *part, uint32_t at, const struct length_info *info);

/* Opcodes that are marked (code_query.c). */
extern const uint64_t code_sensitive[4][4];
static inline bool code_is_sensitive(const struct length_info *info)
{
    return !(info->flags & LENGTH_VEX) &&
           (code_sensitive[info->map][info->opcode >> 6] >> (info->opcode & 63) & 1);
}

/* The offset of the instruction that covers `offset` but does not begin there; false if none does.
 */
bool code_covering(const struct code_section *section, uint64_t offset, uint64_t *start);

/* Decodes from `offset` until the stream meets a start, stop bytes or an invalid instruction;
 * starts that the new instructions cover are taken back. */
void code_repair(struct code *code, const struct code_section *section, uint64_t offset,
                 struct code_part *part);

/* Runs work(context, 0 .. jobs - 1) on two threads. */
void code_parallel(size_t jobs, void (*work)(void *context, size_t job), void *context);

/* Length of the run of int3 bytes that begins at bytes[at]. */
uint64_t code_int3_run(const uint8_t *bytes, uint64_t at, uint64_t size);

/* code_linear.c: decodes every section linearly. */
int code_linear(const struct image *image, struct code *code, struct error *err);

/* code_follow.c: follows control flow. With `other_mode_only`, only 32-bit code from its entry
 * points is followed and marked, and the 64-bit code that it enters repaired. */
int code_follow(const struct image *image, struct code *code, bool other_mode_only,
                struct error *err);

/* code_settle.c: when all starts are known: targets from references, overlaps. */
int code_settle(const struct image *image, struct code *code, struct error *err);

/* code_unproved.c: makes targets of all that code which is not proved might refer to. */
void code_unproved_targets(struct code *code);

#endif
