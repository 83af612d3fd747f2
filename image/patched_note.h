/* SPDX-License-Identifier: MIT */
/* The ELF note by which a patched image is recognised: what patchc writes, patchc and hvrun read. */
#ifndef IMAGE_PATCHED_NOTE_H
#define IMAGE_PATCHED_NOTE_H

#include "hvstub/hvstub.h"
#include "image/image.h"

/* True if the image carries our note; *note and the two file offsets (may be NULL) are filled. */
bool patched_note_find(const struct image *image, struct pv_note *note, uint64_t *note_file,
                       uint64_t *descriptor_file);

#endif
