/* SPDX-License-Identifier: MIT */
/* Site context (design: prove the context): what a routine may rely on at an address. */
#ifndef PATCHC_CONTEXT_H
#define PATCHC_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "patchc/site.h"

struct context_range {
    uint64_t start, end;  /* guest-linear, [start, end) */
    unsigned lacks;       /* enum context_flag bits that code there does not have */
    enum reason excluded; /* REASON_NONE: may be patched */
};

struct context {
    struct context_range *ranges; /* may overlap */
    size_t count;
    bool linux_image;
    bool linux_without_names; /* nothing can be proved: every site is left */
};

/* Collects the ranges of an image. *context is the caller's: context_close(). */
int context_open(const struct image *image, struct context *context, struct error *err);
void context_close(struct context *context);

/* The context of code at `address`: enum context_flag bits; *excluded gets the reason why it must
 * not be touched, or REASON_NONE. */
unsigned context_at(const struct context *context, uint64_t address, enum reason *excluded);

/* May the code in [address, address + length) be moved? False where saved RIPs are compared with it
 * or where it is copied before it runs. */
bool context_may_move(const struct context *context, uint64_t address, uint64_t length);

#endif
