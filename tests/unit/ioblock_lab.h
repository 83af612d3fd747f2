/* SPDX-License-Identifier: MIT */
/* Hand-written code for the IO-block scanner, and what the scanner may ask about it. Header only:
 * each test program has its own guest. */
#ifndef TESTS_UNIT_IOBLOCK_LAB_H
#define TESTS_UNIT_IOBLOCK_LAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/scan.h"

#include <cmocka.h>

#define BASE 0x400000u

struct guest { /* code at BASE, and what the scanner may ask about it */
    uint8_t bytes[8192];
    size_t size;
    uint64_t base;
    struct io_site sites[4];
    unsigned site_count;
    uint64_t relocated_at; /* four bytes; 0 = none */
    uint64_t branch[4], target[4];
    unsigned target_count;
};

static struct guest guest;
static struct io_scanner *scanner;
static struct io_block block;

static inline size_t read_code(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    const struct guest *g = context;
    if (address < g->base || address - g->base >= g->size)
        return 0;
    size_t room = g->size - (address - g->base);
    size = size < room ? size : room;
    memcpy(bytes, g->bytes + (address - g->base), size);
    return size;
}

static inline bool find_site(void *context, uint64_t address, struct io_site *site)
{
    const struct guest *g = context;
    for (unsigned k = 0; k < g->site_count; k++)
        if (address - g->sites[k].start < g->sites[k].length) {
            *site = g->sites[k];
            return true;
        }
    return false;
}

static inline uint32_t relocated(void *context, uint64_t address, unsigned length)
{
    const struct guest *g = context;
    uint32_t bits = 0;
    for (unsigned k = 0; k < length; k++)
        if (g->relocated_at && address + k - g->relocated_at < 4)
            bits |= 1u << k;
    return bits;
}

static inline unsigned known_targets(void *context, const struct io_branch *branch,
                                     uint64_t *targets, unsigned room)
{
    const struct guest *g = context;
    unsigned count = 0;
    for (unsigned k = 0; k < g->target_count && count < room; k++)
        if (g->branch[k] == branch->address)
            targets[count++] = g->target[k];
    return count;
}

static inline struct io_code code(unsigned bits)
{
    return (struct io_code){.bits = bits,
                            .context = &guest,
                            .read = read_code,
                            .site = find_site,
                            .relocated = relocated,
                            .targets = known_targets,
                            .want_ports = true};
}

static inline int put(const char *bytes, size_t size)
{
    memset(&guest, 0, sizeof guest);
    guest.base = BASE;
    guest.size = size;
    memcpy(guest.bytes, bytes, size);
    return 0;
}
/* Sets the guest's code to a string of bytes. */
#define CODE(text) put(text, sizeof(text) - 1)

static inline enum io_scan_result scan_at(unsigned offset, const char *policy)
{
    struct io_extent extent = io_extent_default();
    struct io_code c = code(64);
    if (policy)
        assert_true(io_extent_parse(policy, &extent));
    enum io_scan_result result = io_scan(scanner, &c, &extent, guest.base + offset, &block);
    if (result != IO_SCAN_NOT_IO)
        assert_true(io_block_valid(&block));
    return result;
}

static inline void assert_range(unsigned k, int64_t offset, uint32_t size)
{
    assert_true(k < block.range_count);
    assert_int_equal(block.ranges[k].offset, offset);
    assert_int_equal(block.ranges[k].size, size);
}

static inline int open_scanner(void **state)
{
    (void)state;
    scanner = io_scanner_new();
    return scanner ? 0 : -1;
}

static inline int close_scanner(void **state)
{
    (void)state;
    io_scanner_free(scanner);
    return 0;
}

#endif
