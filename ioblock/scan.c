/* SPDX-License-Identifier: MIT */
/* From the explored graph to a block. */
#include "ioblock/scan.h"

#include <stdlib.h>
#include <string.h>

#include "ioblock/graph.h"

struct io_scanner *io_scanner_new(void)
{
    struct io_scanner *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    ZydisDecoderInit(&s->decoder[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&s->decoder[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&s->decoder[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned k = 0; k < 3; k++)
        ZydisDecoderEnableMode(&s->decoder[k], ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
    return s;
}

void io_scanner_free(struct io_scanner *s)
{
    free(s);
}

uint64_t io_scanner_decoded(const struct io_scanner *s)
{
    return s->decoded;
}

/* ---- ranges and masks ---- */
static bool add_range(struct io_block *block, uint64_t address, unsigned length)
{
    int64_t offset = (int64_t)(address - block->key);
    struct io_range *last = block->range_count ? &block->ranges[block->range_count - 1] : NULL;
    if (last && last->offset + last->size == offset)
        last->size += length;
    else if (block->range_count == IO_BLOCK_RANGES_MAX)
        return false;
    else
        block->ranges[block->range_count++] = (struct io_range){offset, length};
    block->size += length;
    return true;
}

static bool add_mask(struct io_block *block, uint32_t position, unsigned size)
{
    struct io_mask *last = block->mask_count ? &block->masks[block->mask_count - 1] : NULL;
    if (last && last->position + last->size == position)
        last->size += size;
    else if (block->mask_count == IO_BLOCK_MASKS_MAX)
        return false;
    else
        block->masks[block->mask_count++] = (struct io_mask){position, size};
    return true;
}

/* Masks what the guest or its loader will change of the instruction that was added last. */
static bool mask_node(const struct io_scanner *s, struct io_block *block, const struct node *node)
{
    uint32_t position = block->size - node->length;
    if (node->flags & NODE_OPAQUE)
        return add_mask(block, position, node->length);
    if (!s->code->relocated)
        return true;
    uint32_t bits = s->code->relocated(s->code->context, node->address, node->length);
    for (unsigned k = 0; k < node->length; k++)
        if (bits >> k & 1 && !add_mask(block, position + k, 1))
            return false;
    return true;
}

static bool add_node(const struct io_scanner *s, struct io_block *block, const struct node *node)
{
    if (node->length > IO_BLOCK_BYTES_MAX - block->size ||
        !add_range(block, node->address, node->length) || !mask_node(s, block, node))
        return false;
    block->insn_count++;
    if (node->class == IO_CLASS_IO) {
        block->io_count++;
        block->exit = (int64_t)(node->address + node->length - block->key);
    }
    if (node->flags & NODE_REPEATS)
        block->flags |= IO_BLOCK_STRING;
    return true;
}

/* ---- calls and guards ---- */
static bool add_edges(const struct io_scanner *s, struct io_block *block)
{
    for (unsigned e = 0; e < s->edge_count; e++) {
        const struct node *from = &s->nodes[s->edges[e].from], *to = &s->nodes[s->edges[e].to];
        if (!(from->flags & to->flags & NODE_KEPT))
            continue;
        if (from->class == IO_CLASS_CALL || from->class == IO_CLASS_INDIRECT_CALL)
            block->flags |= IO_BLOCK_CALL;
        if (!s->edges[e].guarded)
            continue;
        if (block->guard_count == IO_BLOCK_GUARDS_MAX)
            return false;
        block->guards[block->guard_count++] = (struct io_guard){
            (int64_t)(from->address - block->key), (int64_t)(to->address - block->key)};
        block->flags |= IO_BLOCK_GUARD;
    }
    return true;
}

/* The block's counts start anew; its arrays are only as good as these. */
static void start_block(struct io_block *block, uint64_t key)
{
    memset(block, 0, offsetof(struct io_block, ranges));
    block->key = key;
}

/* False if it has more ranges, masks or guards than a block may have. */
static bool make_block(struct io_scanner *s, struct io_block *block)
{
    graph_trim(s);
    start_block(block, s->key);
    for (unsigned i = 0; i < s->order_count; i++)
        if (!add_node(s, block, &s->nodes[s->order[i]]))
            return false;
    if (!add_edges(s, block))
        return false;
    if (graph_loops(s))
        block->flags |= IO_BLOCK_LOOP;
    return true;
}

/* What there is without any search: the first instruction alone. */
static void make_single(const struct io_scanner *s, struct io_block *block)
{
    start_block(block, s->key);
    add_node(s, block, &s->nodes[0]);
}

/* False if the code went away while it was looked at. */
static bool finish(struct io_scanner *s, struct io_block *block)
{
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    if (s->cut)
        block->flags |= IO_BLOCK_CUT;
    if (block->mask_count)
        block->flags |= IO_BLOCK_MASKED;
    if (!io_block_read(block, block->key, s->code->read, s->code->context, bytes))
        return false;
    block->hash = io_block_hash(block, bytes);
    if (s->code->want_ports)
        scan_ports(s->code, block);
    return true;
}

static void start(struct io_scanner *s, const struct io_code *code, const struct io_extent *extent,
                  uint64_t address)
{
    s->code = code;
    s->extent = extent;
    s->mode = &s->decoder[code->bits == 64 ? 2 : code->bits == 32 ? 1 : 0];
    s->key = address;
    s->gap = extent->gap < GAP_MAX ? extent->gap : GAP_MAX;
    for (unsigned k = 0; k < LINES; k++)
        s->lines[k].start = s->lines[k].end = 0;
}

enum io_scan_result io_scan(struct io_scanner *s, const struct io_code *code,
                            const struct io_extent *extent, uint64_t address,
                            struct io_block *block)
{
    start(s, code, extent, address);
    if (!graph_explore(s))
        return IO_SCAN_NOT_IO;
    bool complete = make_block(s, block);
    /* What has too many pieces is looked at again, less far: halving ends at the first
     * instruction. */
    while (!complete && s->gap > 1) {
        s->gap /= 2;
        graph_explore(s);
        s->cut = true;
        complete = make_block(s, block);
    }
    if (!complete || !io_block_saves(block))
        make_single(s, block);
    if (!finish(s, block))
        return IO_SCAN_NOT_IO;
    return io_block_saves(block) ? IO_SCAN_BLOCK : IO_SCAN_SINGLE;
}
