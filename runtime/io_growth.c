/* SPDX-License-Identifier: MIT */
/* Blocks that grow. */
#include "runtime/io_growth.h"

#include <string.h>

bool io_extent_holds(const struct io_extent *extent, uint64_t key, uint64_t address)
{
    switch (extent->kind) {
    case IO_EXTENT_LINE:
        return address / 64 == key / 64;
    case IO_EXTENT_PAGE:
        return address / 4096 == key / 4096;
    default:
        return true;
    }
}

/* The ranges first <= k < end touch or overlap the new one: all of them become it. */
static void replace(struct io_block *block, unsigned first, unsigned end, struct io_range range)
{
    for (unsigned k = first; k < end; k++) {
        const struct io_range *old = &block->ranges[k];
        int64_t low = old->offset < range.offset ? old->offset : range.offset;
        int64_t old_end = old->offset + old->size, new_end = range.offset + range.size;
        range = (struct io_range){low, (uint32_t)((old_end > new_end ? old_end : new_end) - low)};
        block->size -= old->size;
    }
    memmove(&block->ranges[first + 1], &block->ranges[end],
            (block->range_count - end) * sizeof block->ranges[0]);
    block->ranges[first] = range;
    block->range_count = (uint16_t)(block->range_count - (end - first) + 1);
    block->size += range.size;
}

bool io_block_join(struct io_block *block, uint64_t address, uint32_t size)
{
    int64_t offset = (int64_t)(address - block->key);
    if (size > IO_BLOCK_BYTES_MAX || offset < -IO_BLOCK_REACH / 2 || offset > IO_BLOCK_REACH / 2)
        return false;
    unsigned first = 0;
    while (first < block->range_count &&
           block->ranges[first].offset + (int64_t)block->ranges[first].size < offset)
        first++;
    unsigned end = first;
    while (end < block->range_count && block->ranges[end].offset <= offset + (int64_t)size)
        end++;
    if (first == end && block->range_count == IO_BLOCK_RANGES_MAX)
        return false;
    if (block->size + size > IO_BLOCK_BYTES_MAX) /* more than it will be where they overlap */
        return false;
    replace(block, first, end, (struct io_range){offset, size});
    return true;
}

bool io_block_join_all(struct io_block *block, const struct io_block *other)
{
    for (unsigned k = 0; k < other->range_count; k++)
        if (!io_block_join(block, other->key + (uint64_t)other->ranges[k].offset,
                           other->ranges[k].size))
            return false;
    block->flags |= other->flags;
    return true;
}
