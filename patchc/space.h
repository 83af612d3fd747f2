/* SPDX-License-Identifier: MIT */
/* Routine space: bytes of an image that nothing uses, where trampolines and tables may go. */
#ifndef PATCHC_SPACE_H
#define PATCHC_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "patchc/code.h"

struct space_run {
    uint64_t address; /* guest-linear */
    uint64_t size;    /* bytes */
    uint64_t used;    /* bytes from the start */
};

struct space {
    struct space_run *runs; /* largest first */
    size_t count;
    uint64_t total; /* bytes found */
    uint64_t used;  /* bytes handed out */
    /* an appended segment, under --assume-reserved or where the guest provably leaves it alone */
    bool appended;
    uint64_t appended_address, appended_physical, appended_limit, appended_used;
};

/* Finds the providers of an image. Returns 0, or -1 with *err set (memory). */
int space_open(const struct image *image, const struct code *code, bool assume_reserved,
               struct space *space, struct error *err);
void space_close(struct space *space);

/* Takes `size` bytes aligned to `align` (power of two) within [low, high). Returns the guest-linear
 * address, or 0 if there is no room. */
uint64_t space_take(struct space *space, uint64_t size, uint64_t align, uint64_t low,
                    uint64_t high);

/* The same from the appended segment only, which is writable; 0 if there is none. */
uint64_t space_take_appended(struct space *space, uint64_t size, uint64_t align, uint64_t low,
                             uint64_t high);

#endif
