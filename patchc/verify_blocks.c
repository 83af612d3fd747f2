/* SPDX-License-Identifier: MIT */
/* The IO-block table of a patched image (B9): a runtime will take its word for where blocks are.
 *
 * The table must be in its canonical form, so that there is one for the same blocks; each block
 * must begin with an IO instruction, hash as it says, and leave out of its hash every byte that
 * relocation, the kernel's own patching or the linking of routines changes. That a block holds
 * more or less code than it might is no mismatch. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/table.h"
#include "patchc/verify_internal.h"

struct span { /* bytes that some block holds; spans do not overlap */
    uint64_t start, end;
    size_t flat; /* index of the first one in `changes` */
};

struct blocks {
    struct verify *v;
    struct io_table table;
    struct span *spans;
    size_t span_count, bytes;
    uint8_t *changes; /* one for each byte of the spans: it will not stay as it is */
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Collects what all blocks hold. */
static bool collect(struct blocks *b)
{
    struct io_block block;
    size_t count = 0;
    b->spans = malloc((b->table.range_count + 1ull) * sizeof *b->spans);
    if (!b->spans)
        return false;
    for (uint32_t i = 0; i < b->table.entry_count; i++) {
        io_table_block(&b->table, i, &block);
        for (unsigned k = 0; k < block.range_count && count < b->table.range_count; k++) {
            uint64_t start = block.key + (uint64_t)block.ranges[k].offset;
            b->spans[count++] = (struct span){start, start + block.ranges[k].size, 0};
        }
    }
    qsort(b->spans, count, sizeof *b->spans, compare_spans);
    for (size_t i = 0; i < count; i++) {
        struct span *last = b->span_count ? &b->spans[b->span_count - 1] : NULL;
        if (last && b->spans[i].start <= last->end)
            last->end = b->spans[i].end > last->end ? b->spans[i].end : last->end;
        else
            b->spans[b->span_count++] = b->spans[i];
    }
    for (size_t i = 0; i < b->span_count; i++) {
        b->spans[i].flat = b->bytes;
        b->bytes += b->spans[i].end - b->spans[i].start;
    }
    b->changes = calloc(b->bytes + 1, 1);
    return b->changes != NULL;
}

/* The last span that begins at or before `address`, or NULL. */
static const struct span *span_before(const struct blocks *b, uint64_t address)
{
    size_t low = 0, high = b->span_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (b->spans[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &b->spans[low - 1] : NULL;
}

static void changes(struct blocks *b, uint64_t address, uint64_t length)
{
    for (uint64_t at = address; at < address + length; at++) {
        const struct span *span = span_before(b, at);
        if (span && at < span->end)
            b->changes[span->flat + (at - span->start)] = 1;
    }
}

static void mark_changes(struct blocks *b)
{
    static const enum linux_table_kind kinds[] = {
        LINUX_ALTERNATIVES, LINUX_PARAVIRT,        LINUX_JUMP_TABLE,
        LINUX_STATIC_CALLS, LINUX_RETPOLINE_SITES, LINUX_RETURN_SITES,
        LINUX_MCOUNT,       LINUX_PINNED,          LINUX_SMP_LOCKS};
    const struct verify *v = b->v;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const struct linux_table *table = &v->tables_after.table[kinds[k]];
        for (size_t i = 0; i < table->count; i++)
            changes(b, table->entries[i].address, table->entries[i].length);
    }
    for (int kind = 0; kind < RELOC_KINDS; kind++)
        for (size_t i = 0; i < v->relocs_after.count[kind]; i++)
            changes(b, relocs_address(relocs_word(&v->relocs_after, (enum reloc_kind)kind, i)),
                    kind == RELOC_64 ? 8 : 4);
    for (uint32_t i = 0; i < v->header.routine_count; i++)
        if (!verify_dead_routine(v, i))
            changes(b, verify_place(v, v->routines[i].link_offset) + 1, 4);
}

static size_t read_after(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    const struct verify *v = context;
    const uint8_t *from = image_at(&v->after, address, size);
    if (!from)
        return 0;
    memcpy(bytes, from, size);
    return size;
}

static bool masked(const struct io_block *block, uint32_t position)
{
    for (unsigned k = 0; k < block->mask_count; k++)
        if (position >= block->masks[k].position &&
            position - block->masks[k].position < block->masks[k].size)
            return true;
    return false;
}

/* The first byte that changes and is not masked is reported. */
static void check_masks(struct blocks *b, const struct io_block *block)
{
    uint32_t position = 0;
    for (unsigned k = 0; k < block->range_count; k++) {
        uint64_t start = block->key + (uint64_t)block->ranges[k].offset;
        const struct span *span = span_before(b, start);
        for (uint32_t i = 0; i < block->ranges[k].size; i++, position++)
            if (b->changes[span->flat + (start - span->start) + i] && !masked(block, position)) {
                verify_mismatch(b->v,
                                "IO block at 0x%" PRIx64 ": byte 0x%" PRIx64
                                " is in its hash, and will not stay as it is",
                                block->key, start + i);
                return;
            }
    }
}

static void check_block(struct blocks *b, const struct io_block *block)
{
    ZydisDecodedInstruction first;
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    const uint8_t *key = image_at(&b->v->after, block->key, 1);
    uint64_t room = 1;
    while (room < 15 && image_at(&b->v->after, block->key, room + 1))
        room++;
    if (!key || !verify_decode(b->v, key, room, &first) || io_classify(&first) != IO_CLASS_IO)
        verify_mismatch(b->v, "IO block at 0x%" PRIx64 ": does not begin with an IO instruction",
                        block->key);
    else if (!io_block_read(block, block->key, read_after, b->v, bytes) ||
             io_block_hash(block, bytes) != block->hash)
        verify_mismatch(b->v, "IO block at 0x%" PRIx64 ": its bytes have another hash", block->key);
    else
        check_masks(b, block);
}

/* One right way to write a table: pieces in the entries' order, none shared, none left over, the
 * rest zero. */
static bool is_canonical(const struct io_table *table)
{
    static const struct io_table_entry zero;
    uint32_t ranges = 0, masks = 0;
    for (uint32_t i = 0; i < table->entry_count; i++) {
        const struct io_table_entry *e = &table->entries[i];
        if (e->first_range != ranges || e->first_mask != masks ||
            memcmp(e->reserved, zero.reserved, sizeof zero.reserved) != 0 ||
            memcmp(e->ports + e->port_count, zero.ports,
                   (IO_BLOCK_PORTS_MAX - e->port_count) * sizeof *e->ports) != 0)
            return false;
        ranges += e->range_count;
        masks += e->mask_count;
    }
    return ranges == table->range_count && masks == table->mask_count && table->entry_count &&
           table->entries[0].offset < IO_TABLE_ALIGN;
}

void verify_blocks(struct verify *v)
{
    const struct pv_note *note = &v->record.note;
    const uint8_t *bytes = v->after.bytes + note->io_table_file;
    struct blocks b = {.v = v};
    struct io_block block;
    struct error err = {0};
    if (io_table_read(v->after.name, bytes, note->io_table_size, &b.table, &err)) {
        verify_mismatch(v, "%s", err.text);
        return;
    }
    if (b.table.ignored || !is_canonical(&b.table)) {
        verify_mismatch(v, "IO-block table: %u impossible entries, or it is not in order",
                        b.table.ignored);
    } else if (collect(&b)) {
        mark_changes(&b);
        for (uint32_t i = 0; i < b.table.entry_count; i++) {
            io_table_block(&b.table, i, &block);
            check_block(&b, &block);
        }
    } else {
        v->out_of_memory = true;
    }
    free(b.spans);
    free(b.changes);
    io_table_free(&b.table);
}
