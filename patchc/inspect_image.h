/* SPDX-License-Identifier: MIT */
/* A patched image as `patchc inspect` reads it: the stub's tables, bounded, and the original bytes.
 */
#ifndef PATCHC_INSPECT_IMAGE_H
#define PATCHC_INSPECT_IMAGE_H

#include <jansson.h>

#include "hvstub/hvstub.h"
#include "image/image.h"
#include "patchc/disassembly.h"
#include "patchc/restore.h"

struct patched_image {
    struct image image; /* the patched ELF */
    struct patched_record record;
    uint8_t *original;       /* the whole original ELF */
    uint64_t header_address; /* guest-linear; 0: nothing was patched, the tables are empty */
    struct pv_header header;
    const uint8_t *routines; /* struct pv_routine[header.routine_count], unaligned */
    const uint8_t *patches;  /* struct pv_patch[header.patch_count], unaligned */
    struct disassembler disassembler;
};

/* Opens a patched image. NULL with *err set: EXIT_INPUT if it is not one or is damaged, EXIT_IO.
 * The caller owns the result: patched_image_close(). */
struct patched_image *patched_image_open(const char *path, struct error *err);
void patched_image_close(struct patched_image *patched);

/* Entries of the tables; false if there is none with this index. */
bool patched_image_routine(const struct patched_image *patched, uint64_t index,
                           struct pv_routine *routine);
bool patched_image_patch(const struct patched_image *patched, uint64_t index,
                         struct pv_patch *patch);

/* The guest-linear address that a table's offset means. */
uint64_t patched_image_address(const struct patched_image *patched, int64_t offset);

/* The original bytes that stood at [address, address + count) guest-linear, or NULL. */
const uint8_t *patched_image_original(const struct patched_image *patched, uint64_t address,
                                      uint64_t count);

/* What the image tells about its patches, in the shape of a report (patchc-report(5)). NULL with
 * *err set (EXIT_INPUT) if its tables contradict each other. */
json_t *patched_image_report(const struct patched_image *patched, struct error *err);

#endif
