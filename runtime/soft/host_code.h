/* SPDX-License-Identifier: MIT */
/* Executable memory for code that is made at run time: one region, mapped twice. What is written goes through a
 * mapping that cannot be executed, what is executed stands in one that cannot be written. Single-threaded. */
#ifndef RUNTIME_SOFT_HOST_CODE_H
#define RUNTIME_SOFT_HOST_CODE_H

#include <stddef.h>
#include <stdint.h>

#include "image/error.h"

struct host_code {
    uint8_t *writable;         /* the region for writing */
    const uint8_t *executable; /* the same bytes for executing */
    size_t size;               /* bytes */
    size_t used;
    size_t executed; /* bytes from the start that may have been executed before */
};

/* Maps a region of `size` bytes (a multiple of the page size). Pages never used cost nothing. 0, or -1 with *err. */
int host_code_create(struct host_code *code, size_t size, struct error *err);

/* Copies `size` bytes of code to the next place and returns where to execute it; NULL if the region is full. */
const void *host_code_put(struct host_code *code, const uint8_t *bytes, size_t size);

/* Forgets all code, which must not be executing nor be called again. */
void host_code_reset(struct host_code *code);

#endif
