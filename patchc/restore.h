/* SPDX-License-Identifier: MIT */
/* What a patched image says about its original, and `patchc restore`, which gives it back.
 *
 * The record (struct pv_note, struct pv_original and its runs) is hostile input: it is bounded
 * against the file before anything is computed from it, and the result is believed only if its hash
 * is the recorded one. */
#ifndef PATCHC_RESTORE_H
#define PATCHC_RESTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hvstub/hvstub.h"
#include "image/error.h"
#include "image/image.h"
#include "image/patched_note.h"

/* The record, found and bounded. Pointers lead into image->bytes. */
struct patched_record {
    struct pv_note note;
    uint64_t note_file;       /* file offset of the note itself (its Elf_Nhdr) */
    uint64_t descriptor_file; /* file offset of struct pv_note */
    struct pv_original original;
    const uint8_t *runs;      /* struct pv_original_run[original.run_count], unaligned */
    const uint8_t *run_bytes; /* the runs' bytes, concatenated */
    uint64_t run_bytes_size;
};

/* Finds and checks the record. 0, or -1 with *err set (EXIT_INPUT): no note, another ABI version,
 * or a record that does not fit the file. */
int patched_record_read(const struct image *image, struct patched_record *record,
                        struct error *err);

/* Maps a file offset of the patched image to the original's. False for bytes that patchc added. */
bool patched_record_origin(const struct patched_record *record, uint64_t patched_offset,
                           uint64_t *original_offset);

/* Rebuilds the original into out[0 .. record->original.size). Its hash is not checked here. */
void patched_record_undo(const struct image *image, const struct patched_record *record,
                         uint8_t *out);

/* `patchc restore PATCHED -o OUT`: writes the original ELF (of a bzImage: its payload), bit for
 * bit, atomically. 0, or -1 with *err set: EXIT_INPUT if the image is not a patched one or is
 * damaged, EXIT_IO. */
int restore_run(const char *patched, const char *output, struct error *err);

#endif
