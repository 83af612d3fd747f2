/* SPDX-License-Identifier: MIT */
/* What became of each site of one report (or image) in another. */
#ifndef PATCHC_INSPECT_DIFF_H
#define PATCHC_INSPECT_DIFF_H

#include "patchc/inspect_view.h"

enum change { CHANGE_NONE, CHANGE_STATUS, CHANGE_PATCH, CHANGE_GONE, CHANGE_NEW, CHANGES };

struct site_pair {
    const struct view_site *before, *after; /* one may be NULL */
    const struct view_site *site;           /* the one that is there */
    enum change change;
};

struct difference {
    bool
        by_address; /* the inputs are the same; else symbol and instruction say which site is which */
    bool image;     /* one side is an image, which tells neither tactics nor what was left */
    struct site_pair *pairs;
    size_t count;
    size_t changes[CHANGES];
};

/* False if memory runs out. The caller owns difference->pairs, then too: free(). */
bool difference_make(const struct view *before, const struct view *after,
                     struct difference *difference);

/* Writes "patched (jump, island, cpuid)", "left (no-room)". */
void difference_describe(const struct view_site *site, char *text, size_t size);

#endif
