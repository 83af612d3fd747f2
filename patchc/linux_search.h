/* SPDX-License-Identifier: MIT */
/* Tables of a Linux image that neither a section name nor a symbol leads to. */
#ifndef PATCHC_LINUX_SEARCH_H
#define PATCHC_LINUX_SEARCH_H

#include "image/image.h"
#include "patchc/linux_tables.h"
#include "patchc/linux_text.h"

enum linux_section {
    LINUX_SECTION_OTHER,   /* holds no table of code addresses, or one that is read by name */
    LINUX_SECTION_PINNED,  /* a table of s32 code addresses that belongs to LINUX_PINNED */
    LINUX_SECTION_UNKNOWN, /* may be such a table */
};

/* What a section's name says about it. */
enum linux_section linux_section_kind(const struct image_section *section);

/* Looks for a table by what its entries must name: LINUX_JUMP_TABLE, LINUX_STATIC_CALLS and
 * LINUX_MCOUNT only. True, with its guest-linear extent, if there is exactly one candidate that
 * stands out by its length. */
bool linux_search(const struct image *image, const struct linux_text *text,
                  enum linux_table_kind kind, uint64_t *start, uint64_t *end);

#endif
