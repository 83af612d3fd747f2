/* SPDX-License-Identifier: MIT */
/* Where an image's executable bytes are, for the readers of Linux' tables: they ask for every
 * entry of every table. */
#ifndef PATCHC_LINUX_TEXT_H
#define PATCHC_LINUX_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

struct linux_text_range {
    uint64_t start, size; /* guest-linear, bytes */
    const uint8_t *bytes;
};

struct linux_text {
    struct linux_text_range
        *ranges; /* executable sections (segments, where there are none), largest first */
    size_t count;
};

/* 0, or -1 with *err set when memory runs out. *text is the caller's: linux_text_close(). */
int linux_text_open(const struct image *image, struct linux_text *text, struct error *err);
void linux_text_close(struct linux_text *text);

/* The byte at `address` if it is in an executable section, else NULL; *available gets the number of
 * bytes from there to the section's end. */
static inline const uint8_t *linux_text_span(const struct linux_text *text, uint64_t address,
                                             uint64_t *available)
{
    for (size_t i = 0; i < text->count; i++) {
        const struct linux_text_range *range = &text->ranges[i];
        uint64_t offset = address - range->start;
        if (offset < range->size) {
            *available = range->size - offset;
            return range->bytes + offset;
        }
    }
    return NULL;
}

static inline bool linux_text_holds(const struct linux_text *text, uint64_t address)
{
    uint64_t available;
    return linux_text_span(text, address, &available) != NULL;
}

/* A jump label as it stands in the image: a NOP or a JMP of 2 or 5 bytes. Returns its length, 0 if
 * there is none in the `available` bytes at `code`. *jump: it is a JMP, with that displacement. */
unsigned linux_jump_label(const uint8_t *code, uint64_t available, bool *jump,
                          int32_t *displacement);

/* Length of the direct branch at `code`: CALL, JMP or Jcc rel32, possibly behind a CS prefix (with
 * which the compiler makes room for a retpoline's replacement); 0 if there is none. */
unsigned linux_branch(const uint8_t *code, uint64_t available);

#endif
