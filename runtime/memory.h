/* SPDX-License-Identifier: MIT */
/* Guest-physical memory: one host mapping, reached only through checked accessors.
 *
 * RAM begins at guest-physical 0. What does not fit below MEMORY_HOLE stands from 4 GiB on, as on a PC;
 * the hole holds the APICs. It is a file of memory of its own: pages that nobody
 * touches cost nothing.
 *
 * Pages that hold decoded code are marked, a bit for each 64-byte line, so that a write finds out
 * with one look whether it changes code. The marks belong to the engine (soft/cache.h); everybody
 * who writes guest memory goes through memory_write or calls memory_written, so that no decoded
 * copy of old bytes survives. */
#ifndef RUNTIME_MEMORY_H
#define RUNTIME_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/error.h"

#define PAGE_SIZE   4096u
#define PAGE_SHIFT  12
#define PAGE_OFFSET 0xfffull
#define MEMORY_HOLE 0xc0000000ull /* guest-physical: RAM below 4 GiB ends here at the latest */
#define MEMORY_HIGH 0x100000000ull

struct memory {
    uint8_t *host;     /* of guest-physical 0; RAM is contiguous in the host */
    uint64_t size;     /* bytes of RAM, a multiple of PAGE_SIZE */
    uint64_t low_size; /* bytes below MEMORY_HOLE */

    uint64_t
        *code_lines; /* one word a page of RAM: bit n = line n of 64 bytes holds decoded code */
    /* called before marked lines are considered clean; may be NULL */
    void (*code_changed)(void *context, uint64_t physical, uint64_t length);
    void *code_context;
};

/* Maps `size` bytes of zeroed RAM. 0, or -1 with *err set. Release with memory_destroy. */
int memory_create(struct memory *memory, uint64_t size, struct error *err);
void memory_destroy(struct memory *memory);

/* The host address of guest-physical [physical, physical + length), or NULL if any of it is not RAM
 * (the hole included). Never NULL for length 0 inside RAM. For writing through the pointer, call
 * memory_written afterwards. */
static inline uint8_t *memory_at(const struct memory *memory, uint64_t physical, uint64_t length)
{
    if (physical < memory->low_size)
        return length <= memory->low_size - physical ? memory->host + physical : NULL;
    if (physical < MEMORY_HIGH)
        return NULL;
    uint64_t offset = physical - MEMORY_HIGH + memory->low_size;
    if (offset >= memory->size || length > memory->size - offset)
        return NULL;
    return memory->host + offset;
}

/* Index of the page in code_lines of a RAM address that memory_at accepted. */
static inline uint64_t memory_page_index(const struct memory *memory, const uint8_t *host)
{
    return (uint64_t)(host - memory->host) >> PAGE_SHIFT;
}

/* Guest-physical address of a host address in RAM. */
static inline uint64_t memory_physical(const struct memory *memory, const uint8_t *host)
{
    uint64_t offset = (uint64_t)(host - memory->host);
    return offset < memory->low_size ? offset : offset - memory->low_size + MEMORY_HIGH;
}

/* Tells that RAM at [physical, physical + length) changed: decoded copies of it are dropped. */
void memory_written(struct memory *memory, uint64_t physical, uint64_t length);

/* Copies; false (nothing copied) if any of the range is not RAM. */
bool memory_read(const struct memory *memory, uint64_t physical, void *to, uint64_t length);
bool memory_write(struct memory *memory, uint64_t physical, const void *from, uint64_t length);

#endif
