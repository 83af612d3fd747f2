/* SPDX-License-Identifier: MIT */
/* The IO-block table: packing it, reading it as hostile input, looking blocks up. */
#include "ioblock/table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */
struct packing { /* a table that is being put together */
    uint8_t *bytes;
    struct io_table_header header;
    struct io_table_entry *entries;
    struct io_table_range *ranges;
    struct io_table_mask *masks;
    uint32_t range_count, mask_count; /* so far */
};

static void pack_entry(struct packing *p, const struct io_block *block)
{
    struct io_table_entry *entry = p->entries++;
    *entry = (struct io_table_entry){
        .offset = block->key - p->header.base,
        .hash = block->hash,
        .exit = (int32_t)block->exit,
        .size = block->size,
        .first_range = p->range_count,
        .first_mask = p->mask_count,
        .range_count = block->range_count,
        .mask_count = block->mask_count,
        .insn_count = block->insn_count,
        .io_count = block->io_count,
        .port_count = block->port_count,
        .flags = block->flags,
    };
    memcpy(entry->ports, block->ports, block->port_count * sizeof *block->ports);
    for (unsigned k = 0; k < block->range_count; k++)
        p->ranges[p->range_count++] =
            (struct io_table_range){(int32_t)block->ranges[k].offset, block->ranges[k].size};
    for (unsigned k = 0; k < block->mask_count; k++)
        p->masks[p->mask_count++] = (struct io_table_mask){(uint16_t)block->masks[k].position,
                                                           (uint16_t)block->masks[k].size};
}

static int check_blocks(const struct io_block *blocks, size_t count, struct io_table_header *h,
                        struct error *err)
{
    if (count > IO_TABLE_ENTRIES_MAX)
        return fail(err, EXIT_INPUT, "%zu IO blocks: a table holds %u", count,
                    IO_TABLE_ENTRIES_MAX);
    for (size_t k = 0; k < count; k++) {
        if (!io_block_valid(&blocks[k]) || blocks[k].guard_count ||
            (k > 0 && blocks[k].key <= blocks[k - 1].key))
            return fail(err, EXIT_INPUT, "IO block at 0x%" PRIx64 ": cannot stand in a table",
                        blocks[k].key);
        h->range_count += blocks[k].range_count;
        h->mask_count += blocks[k].mask_count;
    }
    return 0;
}

uint8_t *io_table_pack(const struct io_block *blocks, size_t count, size_t *size, struct error *err)
{
    struct packing p = {
        .header = {.version = IO_TABLE_VERSION,
                   .header_size = sizeof p.header,
                   .base = count ? blocks[0].key & ~(uint64_t)(IO_TABLE_ALIGN - 1) : 0,
                   .entry_count = (uint32_t)count,
                   .bits = 64}};
    if (check_blocks(blocks, count, &p.header, err) < 0)
        return NULL;
    memcpy(p.header.magic, IO_TABLE_MAGIC, sizeof p.header.magic);
    *size = sizeof p.header + count * sizeof *p.entries + p.header.range_count * sizeof *p.ranges +
            p.header.mask_count * sizeof *p.masks;
    p.bytes = malloc(*size);
    if (!p.bytes) {
        fail(err, EXIT_IO, "IO-block table: out of memory");
        return NULL;
    }
    p.entries = (struct io_table_entry *)(p.bytes + sizeof p.header);
    p.ranges = (struct io_table_range *)(p.entries + count);
    p.masks = (struct io_table_mask *)(p.ranges + p.header.range_count);
    memcpy(p.bytes, &p.header, sizeof p.header);
    for (size_t k = 0; k < count; k++)
        pack_entry(&p, &blocks[k]);
    return p.bytes;
}

/* ---- reading ---- */
/* True if the header is one and the three arrays fill the table exactly. */
static bool header_fits(const struct io_table_header *h, size_t size)
{
    if (memcmp(h->magic, IO_TABLE_MAGIC, sizeof h->magic) != 0 || h->version != IO_TABLE_VERSION ||
        h->header_size != sizeof *h || h->bits != 64 || h->base % IO_TABLE_ALIGN)
        return false;
    uint64_t need = sizeof *h + (uint64_t)h->entry_count * sizeof(struct io_table_entry) +
                    (uint64_t)h->range_count * sizeof(struct io_table_range) +
                    (uint64_t)h->mask_count * sizeof(struct io_table_mask);
    return need == size;
}

static void *copy_array(const uint8_t **from, uint64_t count, size_t element)
{
    void *copy = malloc(count * element + 1);
    if (copy)
        memcpy(copy, *from, count * element);
    *from += count * element;
    return copy;
}

/* The entry as a block, its pieces in bounds of the arrays; io_block_valid() then says the rest. */
static bool unpack_entry(const struct io_table *table, const struct io_table_entry *entry,
                         struct io_block *block)
{
    if (entry->range_count > IO_BLOCK_RANGES_MAX || entry->mask_count > IO_BLOCK_MASKS_MAX ||
        entry->port_count > IO_BLOCK_PORTS_MAX || entry->first_range > table->range_count ||
        entry->range_count > table->range_count - entry->first_range ||
        entry->first_mask > table->mask_count ||
        entry->mask_count > table->mask_count - entry->first_mask)
        return false;
    memset(block, 0, offsetof(struct io_block, ranges));
    block->key = table->base + entry->offset;
    block->hash = entry->hash;
    block->exit = entry->exit;
    block->size = entry->size;
    block->insn_count = entry->insn_count;
    block->io_count = entry->io_count;
    block->range_count = entry->range_count;
    block->mask_count = entry->mask_count;
    block->port_count = entry->port_count;
    block->flags = entry->flags;
    memcpy(block->ports, entry->ports, sizeof block->ports);
    for (unsigned k = 0; k < entry->range_count; k++) {
        const struct io_table_range *range = &table->ranges[entry->first_range + k];
        block->ranges[k] = (struct io_range){range->offset, range->size};
    }
    for (unsigned k = 0; k < entry->mask_count; k++) {
        const struct io_table_mask *mask = &table->masks[entry->first_mask + k];
        block->masks[k] = (struct io_mask){mask->position, mask->size};
    }
    return true;
}

/* Keeps the entries that are blocks, in ascending order. */
static void accept_entries(struct io_table *table, uint32_t count)
{
    struct io_block block;
    for (uint32_t k = 0; k < count; k++) {
        const struct io_table_entry *entry = &table->entries[k];
        bool ascends = table->entry_count == 0 ||
                       entry->offset > table->entries[table->entry_count - 1].offset;
        if (ascends && !(entry->flags & IO_BLOCK_GUARD) && unpack_entry(table, entry, &block) &&
            io_block_valid(&block))
            table->entries[table->entry_count++] = *entry;
        else
            table->ignored++;
    }
}

static uint32_t residue(const struct io_table *table, uint32_t index)
{
    return (uint32_t)(table->entries[index].offset % IO_TABLE_ALIGN);
}

static int compare_residues(const void *a, const void *b, void *context)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    uint32_t rx = residue(context, x), ry = residue(context, y);
    return rx != ry ? (rx < ry ? -1 : 1) : x < y ? -1 : x > y;
}

static int index_entries(struct io_table *table)
{
    table->by_residue = malloc(table->entry_count * sizeof *table->by_residue + 1);
    if (!table->by_residue)
        return -1;
    for (uint32_t k = 0; k < table->entry_count; k++)
        table->by_residue[k] = k;
    qsort_r(table->by_residue, table->entry_count, sizeof *table->by_residue, compare_residues,
            table);
    return 0;
}

int io_table_read(const char *name, const uint8_t *bytes, size_t size, struct io_table *table,
                  struct error *err)
{
    struct io_table_header header;
    *table = (struct io_table){0};
    if (size < sizeof header)
        return fail(err, EXIT_INPUT, "%s: IO-block table of %zu bytes: too small", name, size);
    memcpy(&header, bytes, sizeof header);
    if (!header_fits(&header, size))
        return fail(err, EXIT_INPUT,
                    "%s: IO-block table of %zu bytes: its header is damaged or of another version",
                    name, size);
    const uint8_t *from = bytes + sizeof header;
    uint32_t count =
        header.entry_count < IO_TABLE_ENTRIES_MAX ? header.entry_count : IO_TABLE_ENTRIES_MAX;
    table->base = header.base;
    table->range_count = header.range_count;
    table->mask_count = header.mask_count;
    table->ignored = header.entry_count - count;
    table->entries = copy_array(&from, header.entry_count, sizeof *table->entries);
    table->ranges = copy_array(&from, header.range_count, sizeof *table->ranges);
    table->masks = copy_array(&from, header.mask_count, sizeof *table->masks);
    if (table->entries && table->ranges && table->masks) {
        accept_entries(table, count);
        if (index_entries(table) == 0)
            return 0;
    }
    io_table_free(table);
    return fail(err, EXIT_IO, "%s: IO-block table: out of memory", name);
}

void io_table_free(struct io_table *table)
{
    free(table->entries);
    free(table->ranges);
    free(table->masks);
    free(table->by_residue);
    *table = (struct io_table){0};
}

void io_table_block(const struct io_table *table, uint32_t index, struct io_block *block)
{
    unpack_entry(table, &table->entries[index], block);
}

/* ---- looking up ---- */
int64_t io_table_find(const struct io_table *table, uint64_t address, uint64_t delta)
{
    uint64_t offset = address - delta - table->base;
    uint32_t low = 0, high = table->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->entries[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < table->entry_count && table->entries[low].offset == offset;
    return found ? (int64_t)low : -1;
}

int64_t io_table_candidate(const struct io_table *table, uint64_t address, uint32_t *cursor)
{
    uint32_t wanted = (uint32_t)((address - table->base) % IO_TABLE_ALIGN);
    uint32_t low = 0, high = table->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (residue(table, table->by_residue[middle]) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    if (*cursor >= IO_TABLE_CANDIDATES || *cursor >= table->entry_count - low ||
        residue(table, table->by_residue[low + *cursor]) != wanted)
        return -1;
    return table->by_residue[low + (*cursor)++];
}
