/* SPDX-License-Identifier: MIT */
/* The IO-block stage (B9): each IO instruction of the guest may be where an event begins, so each
 * gets a scan, and each scan that finds more than its first instruction an entry in the table. */
#include "patchc/io_blocks.h"

#include <stdlib.h>
#include <string.h>

#include "ioblock/table.h"
#include "patchc/patched_code.h"

/* Instructions from one IO instruction to the next. What is farther is cold code (messages, error
 * paths), which would make hashes long and more likely to differ; a runtime's own scan, which
 * knows the targets, looks farther. */
#define STATIC_GAP 24u

/* A table that is larger would say more of the image than of its IO. */
#define BLOCKS_MAX 65536u

/* Bytes between two IO instructions of which the second may need no entry of its own. */
#define BEHIND_MAX 64u

struct search {
    struct patched_code guest;
    struct io_code code;
    struct io_extent extent;
    struct io_scanner *scanner;
    struct io_block *blocks;
    uint64_t *sites; /* of each block: where its key was in the original */
    size_t count, room;
};

static int search_open(struct search *s, const struct plan *plan, const struct output_bytes *out,
                       struct error *err)
{
    *s = (struct search){.extent = io_extent_default()};
    s->extent.gap = STATIC_GAP;
    if (patched_code_open(plan, out, &s->guest, err))
        return -1;
    s->code = patched_code_view(&s->guest);
    s->scanner = io_scanner_new();
    return s->scanner ? 0 : fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
}

static void search_close(struct search *s)
{
    io_scanner_free(s->scanner);
    patched_code_close(&s->guest);
}

static bool block_covers(const struct io_block *block, uint64_t address)
{
    int64_t offset = (int64_t)(address - block->key);
    for (unsigned k = 0; k < block->range_count; k++)
        if (offset >= block->ranges[k].offset &&
            offset - block->ranges[k].offset < block->ranges[k].size)
            return true;
    return false;
}

/* Room for one more block at s->blocks[s->count]. */
static int make_room(struct search *s, struct error *err)
{
    if (s->count < s->room)
        return 0;
    size_t room = s->room ? 2 * s->room : 256;
    struct io_block *grown = realloc(s->blocks, room * sizeof *grown);
    if (grown)
        s->blocks = grown;
    uint64_t *sites = realloc(s->sites, room * sizeof *sites);
    if (sites)
        s->sites = sites;
    if (!grown || !sites)
        return fail(err, EXIT_IO, "%s: out of memory", s->guest.plan->image->name);
    s->room = room;
    return 0;
}

/* Can `address` be reached only by falling from `from`, an IO instruction shortly before it? Then an
 * event there begins a block only where another one was interrupted. */
static bool only_behind(const struct plan *plan, uint64_t from, uint64_t address)
{
    if (address - from > BEHIND_MAX)
        return false;
    for (uint64_t at = from + 1; at <= address; at++)
        if (code_is_target(plan->code, at))
            return false;
    return true;
}

static int compare_addresses(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Scans from the IO instructions, in the order of the original; with `moved`, from where patching
 * has put them. */
static int scan_all(struct search *s, const struct build_result *result, bool moved,
                    struct error *err)
{
    const struct plan *plan = s->guest.plan;
    uint64_t *io = result->io_addresses;
    qsort(io, result->io_count, sizeof *io, compare_addresses);
    for (size_t i = 0; i < result->io_count && s->count < BLOCKS_MAX; i++) {
        uint64_t key = moved ? plan_moved(plan, io[i]) : io[i];
        if (i > 0 && s->count && only_behind(plan, io[i - 1], io[i]) &&
            block_covers(&s->blocks[s->count - 1], key))
            continue;
        if (make_room(s, err))
            return -1;
        s->sites[s->count] = io[i];
        s->count +=
            io_scan(s->scanner, &s->code, &s->extent, key, &s->blocks[s->count]) == IO_SCAN_BLOCK;
    }
    return 0;
}

struct order {
    uint64_t key;
    size_t index;
};

/* Sorts the blocks by key: patching moves them far apart. */
static int sort_blocks(struct search *s, struct error *err)
{
    struct order *order = malloc((s->count + 1) * sizeof *order);
    struct io_block *sorted = malloc((s->count + 1) * sizeof *sorted);
    uint64_t *sites = malloc((s->count + 1) * sizeof *sites);
    size_t count = 0;
    if (!order || !sorted || !sites) {
        free(order);
        free(sorted);
        free(sites);
        return fail(err, EXIT_IO, "%s: out of memory", s->guest.plan->image->name);
    }
    for (size_t i = 0; i < s->count; i++)
        order[i] = (struct order){s->blocks[i].key, i};
    qsort(order, s->count, sizeof *order, compare_addresses); /* by its first member */
    for (size_t i = 0; i < s->count; i++)
        if (i == 0 || order[i].key != order[i - 1].key) {
            sites[count] = s->sites[order[i].index];
            sorted[count++] = s->blocks[order[i].index];
        }
    free(order);
    free(s->blocks);
    free(s->sites);
    s->blocks = sorted;
    s->sites = sites;
    s->count = count;
    return 0;
}

static bool covered(const struct search *s, uint64_t address)
{
    for (size_t i = 0; i < s->count; i++)
        if (block_covers(&s->blocks[i], address))
            return true;
    return false;
}

int io_blocks_leave(struct plan *plan, const struct build_result *result, struct error *err)
{
    struct search s = {0};
    bool asked = false;
    for (size_t i = 0; i < plan->site_count; i++)
        asked |= list_rule_prefers_block(plan->sites[i].rule);
    if (!asked)
        return 0;
    int status = search_open(&s, plan, NULL, err);
    if (!status)
        status = scan_all(&s, result, false, err);
    for (size_t i = 0; !status && i < plan->site_count; i++) {
        struct site *site = &plan->sites[i];
        if (site->status == STATUS_LEFT && site->reason != REASON_UNPROVED &&
            list_rule_prefers_block(site->rule) && covered(&s, site->address)) {
            site->status = STATUS_BLOCK;
            site->reason = REASON_NONE;
        }
    }
    free(s.blocks);
    free(s.sites);
    search_close(&s);
    return status;
}

int io_blocks_find(const struct plan *plan, const struct output_bytes *out,
                   struct build_result *result, struct error *err)
{
    struct search s = {0};
    if (!result->io_count)
        return 0;
    int status = search_open(&s, plan, out, err);
    if (!status)
        status = scan_all(&s, result, true, err) || sort_blocks(&s, err) ? -1 : 0;
    for (size_t i = 0; !status && i < result->site_count; i++) {
        struct site *site = &result->sites[i];
        if (site->status == STATUS_BLOCK && !covered(&s, plan_moved(plan, site->address))) {
            site->status = STATUS_LEFT;
            site->reason = REASON_NO_BLOCK;
        }
    }
    result->io_blocks = s.blocks;
    result->io_block_sites = s.sites;
    result->io_block_count = s.count;
    if (!status && s.count) {
        result->io_table = io_table_pack(s.blocks, s.count, &result->io_table_size, err);
        status = result->io_table ? 0 : -1;
    }
    search_close(&s);
    return status;
}
