/* SPDX-License-Identifier: MIT */
/* Where translated code stands: one region mapped twice, for writing and for executing, and next to the executable
 * mapping the data that code refers to. Never is a page writable where it is executable. */
#ifndef RUNTIME_TRANSLATOR_CODE_CACHE_H
#define RUNTIME_TRANSLATOR_CODE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/error.h"

struct code_cache {
    uint8_t *writable;
    const uint8_t *executable;
    size_t size, used;
    size_t executed; /* bytes from the start that may have been executed before */
    uint8_t *data;   /* within 2 GiB of `executable` */
    size_t data_size, data_used;
};

/* 0, or -1 with *err. Sizes are multiples of the page size; what is never used costs nothing. */
int code_cache_create(struct code_cache *code, size_t size, size_t data_size, struct error *err);
void code_cache_destroy(struct code_cache *code);

/* Where the next code will be executed. */
const uint8_t *code_cache_next(const struct code_cache *code);
/* Puts it there. False: no room. */
bool code_cache_put(struct code_cache *code, const uint8_t *bytes, size_t size);
/* Zeroed memory, aligned to 8 bytes; NULL: no room. */
void *code_cache_data(struct code_cache *code, size_t size);
/* Forgets everything behind these sizes; code there is not executed again. */
void code_cache_reset(struct code_cache *code, size_t used, size_t data_used);

#endif
