/* SPDX-License-Identifier: MIT */
/* A small kernel image and its patched form, both written by hand: what the tests of verify and
 * restore read, and break. It has each patch form and each kind of displaced instruction. */
#ifndef TESTS_UNIT_PATCHED_IMAGE_H
#define TESTS_UNIT_PATCHED_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "hvstub/hvstub.h"

struct patched_image {
    char folder[64]; /* scratch folder with the two files */
    char original_path[96], patched_path[96];
    uint8_t *original, *patched;
    size_t original_size, patched_size;
    /* Into `patched`: */
    struct pv_note *note;
    struct pv_original *record;
    struct pv_header *header;
    struct pv_patch *patches;
    struct pv_routine *routines;
    uint64_t *routine_table;
    uint8_t *text; /* first byte of .text */
};

/* Indices of the patches, in order of their windows. */
enum {
    PATCH_JUMP,     /* cpuid; mov rip-relative */
    PATCH_CALL,     /* hlt; jrcxz; je inside the window; inc */
    PATCH_BRANCH,   /* wbinvd, island in padding */
    PATCH_EVICTED,  /* two movs that make room for the next one's island */
    PATCH_NEAR,     /* out, island in the evicted window */
    PATCH_BREAK,    /* rdmsr; mov */
    PATCH_TAIL,     /* in; call */
    PATCH_RETARGET, /* cpuid; mov that is a branch target */
    PATCH_STI,      /* sti; hlt; mov; nop */
    PATCH_RET,      /* cpuid; xor; ret */
    PATCH_COUNT
};

/* Builds both images and writes both files. */
void patched_image_make(struct patched_image *image);
/* Writes the original as a test has changed it, and patches it anew. */
void patched_image_remake(struct patched_image *image);
void patched_image_free(struct patched_image *image);

/* Recomputes the checksum (if `seal`), and writes the patched file again. */
void patched_image_write(struct patched_image *image, int seal);

/* Offset in .text of a label of the patched code. */
size_t patched_image_label(const char *name);

#endif
