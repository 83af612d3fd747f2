/* SPDX-License-Identifier: MIT */
/* Any bytes as guest code around an IO instruction: the scanner ends, within its budget, with a
 * valid block whose hash is that of its bytes, or none; the same again gives the same. The first
 * bytes choose mode, extent, where the scan begins, places that the guest rewrites and targets of
 * indirect branches. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BASE 0x7ffff000u

struct code {
    const uint8_t *choice, *bytes;
    size_t size;
};

static void expect(int holds)
{
    if (!holds)
        abort();
}

static size_t read_code(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    const struct code *c = context;
    if (address < BASE || address - BASE >= c->size)
        return 0;
    size_t room = c->size - (address - BASE);
    size = size < room ? size : room;
    memcpy(bytes, c->bytes + (address - BASE), size);
    return size;
}

static bool find_site(void *context, uint64_t address, struct io_site *site)
{
    const struct code *c = context;
    uint8_t what = c->choice[4];
    if ((address ^ c->choice[3]) % 31)
        return false;
    *site = (struct io_site){.start = address - (what >> 6),
                             .length = what % 9,
                             .falls = what & 16,
                             .returns = what & 32,
                             .branches = c->choice[5] & 1,
                             .calls = c->choice[5] & 2,
                             .target = BASE + c->choice[6]};
    return true;
}

static uint32_t relocated(void *context, uint64_t address, unsigned length)
{
    const struct code *c = context;
    return (uint32_t)(address * c->choice[7]) & ((1u << length) - 1);
}

static unsigned targets(void *context, const struct io_branch *branch, uint64_t *targets_out,
                        unsigned room)
{
    const struct code *c = context;
    unsigned count = 0;
    for (; count < room && count < c->choice[8] % 9u; count++)
        targets_out[count] = BASE + (branch->address * (count + 3) + c->choice[9]) % (c->size + 9);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { CHOICES = 10 };
    static const unsigned modes[] = {64, 64, 32, 16};
    static struct io_scanner *scanner;
    static struct io_block block, again;
    static uint8_t bytes[IO_BLOCK_BYTES_MAX];
    if (!scanner)
        scanner = io_scanner_new();
    if (size <= CHOICES || !scanner)
        return 0;
    struct code c = {data, data + CHOICES, size - CHOICES};
    struct io_extent extent = io_extent_default();
    extent.kind = (enum io_extent_kind)(data[1] & 3);
    if (data[1] & 4)
        extent.bytes = data[1];
    extent.gap = data[1] & 8 ? 1u << (data[1] >> 4) : extent.gap;
    struct io_code code = {.bits = modes[data[0] & 3],
                           .context = &c,
                           .read = read_code,
                           .site = data[0] & 4 ? find_site : NULL,
                           .relocated = data[0] & 8 ? relocated : NULL,
                           .targets = data[0] & 16 ? targets : NULL,
                           .want_ports = data[0] & 32};
    uint64_t key = BASE + data[2] % c.size, before = io_scanner_decoded(scanner);
    enum io_scan_result result = io_scan(scanner, &code, &extent, key, &block);
    expect(io_scanner_decoded(scanner) - before < 100 * IO_BLOCK_INSNS_MAX);
    if (result == IO_SCAN_NOT_IO)
        return 0;
    expect(io_block_valid(&block));
    expect(io_block_saves(&block) == (result == IO_SCAN_BLOCK));
    expect(io_block_read(&block, key, read_code, &c, bytes));
    expect(io_block_hash(&block, bytes) == block.hash);
    expect(io_scan(scanner, &code, &extent, key, &again) == result);
    expect(memcmp(&block, &again, offsetof(struct io_block, ranges)) == 0);
    return 0;
}
