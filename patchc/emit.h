/* SPDX-License-Identifier: MIT */
/* Generation (D8, D9): the bytes of trampolines, patches and tables. */
#ifndef PATCHC_EMIT_H
#define PATCHC_EMIT_H

#include "patchc/plan.h"

enum {
    EMIT_JUMP_SIZE = 5,
    EMIT_LINK_SIZE = 5,
    EMIT_ENDBR_SIZE = 4,
    EMIT_CALL_ENTRY_SIZE = 11, /* lea 8(%rsp),%rsp; jmp *table(%rip) */
    EMIT_PUSHED_CALL_SIZE = 24,
    EMIT_LOW_ENTRY_SIZE = 56, /* call entry that works at any address; see emit_call.c */
    EMIT_LOW_ENTRY_WORD = 48, /* offset of its linked address */
};

/* The output image under construction: the input's bytes with edits, and an appended segment. */
struct output_bytes {
    const struct image *image;
    uint8_t *edited;   /* image->size bytes, owned */
    uint8_t *dirty;    /* one byte per 4096 bytes of `edited` that were written, owned */
    uint8_t *appended; /* owned; NULL = none */
    uint64_t appended_address;
    size_t appended_size;
};

/* Writes `length` bytes at guest-linear `address`. -1 with *err set if nothing backs the address.
 */
int output_put(struct output_bytes *out, uint64_t address, const void *bytes, size_t length,
               struct error *err);
/* The same by file offset. */
void output_put_file(struct output_bytes *out, uint64_t offset, const void *bytes, size_t length);

/* Bytes of the displaced copy of an atom, its link not included. */
uint32_t emit_size(const struct plan *plan, const struct patch *patch, uint32_t atom);

/* Does the trampoline end with a jump (back, or to the return thunk)? */
bool emit_falls_out(const struct plan *plan, const struct patch *patch);

/* Writes all patches, trampolines, islands and routines. */
int emit_patches(const struct plan *plan, struct output_bytes *out, struct error *err);

/* True if a patch's call entry must also work at a low identity address. */
bool emit_entry_is_low(const struct plan *plan, const struct patch *patch);

/* The call entry of a patch, at patch->island. */
int emit_call_entry(const struct plan *plan, const struct patch *patch, struct output_bytes *out,
                    struct error *err);

/* Writes header, routine table, routine and patch information. */
int emit_stub(const struct plan *plan, struct output_bytes *out, struct error *err);

#endif
