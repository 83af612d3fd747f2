/* SPDX-License-Identifier: MIT */
/* The IO-block table (B2, B9): blocks by where they stand in the image, as patchc ships it and
 * hvrun reads it.
 *
 * The table lies in the patched file, in no segment (struct pv_note, io_table_file and
 * io_table_size). Little-endian, without pointers: header, entries sorted by offset, ranges,
 * masks. Everything is relative: an entry's offset to the table's base address as linked, ranges
 * to their entry. Both survive relocation by a multiple of IO_TABLE_ALIGN, which is what Linux
 * relocates itself by, and what its identity mapping differs by.
 *
 * The reader treats it as hostile: it believes sizes only after it has compared them with the
 * file's, and leaves out each entry that io_block_valid() refuses or whose offset is not above
 * that of the one before. What it accepts is still only a hint: bytes that do not hash to the
 * entry's hash are not its block, and an executor looks at each instruction (ioblock.h). */
#ifndef IOBLOCK_TABLE_H
#define IOBLOCK_TABLE_H

#include "image/error.h"
#include "ioblock/ioblock.h"

#define IO_TABLE_MAGIC       "PVIOBLK\n" /* 8 bytes, no NUL */
#define IO_TABLE_VERSION     1u
#define IO_TABLE_ALIGN       0x200000u  /* bytes */
#define IO_TABLE_ENTRIES_MAX (1u << 18) /* further ones are left out */

/* ---- in the file ---- */
struct io_table_header {
    char magic[8];
    uint32_t version;
    uint32_t header_size; /* bytes of this struct */
    uint64_t base;        /* guest-linear as linked; a multiple of IO_TABLE_ALIGN */
    uint32_t entry_count; /* struct io_table_entry, directly behind the header */
    uint32_t range_count; /* struct io_table_range, behind the entries */
    uint32_t mask_count;  /* struct io_table_mask, behind the ranges; then the table ends */
    uint32_t bits;        /* mode of the code: 64 */
};

struct io_table_entry {
    uint64_t offset; /* of the first IO instruction from the table's base */
    uint64_t hash;   /* XXH3 64, as io_block_hash() */
    int32_t exit;    /* from the entry's own address, as all that follow */
    uint32_t size;   /* bytes of all ranges */
    uint32_t first_range;
    uint32_t first_mask;
    uint16_t range_count, mask_count;
    uint16_t insn_count, io_count;
    uint16_t ports[IO_BLOCK_PORTS_MAX]; /* port_count of them */
    uint8_t port_count, flags;          /* enum io_block_flag */
    uint16_t reserved[3];
};

struct io_table_range {
    int32_t offset;
    uint32_t size;
};

struct io_table_mask {
    uint16_t position, size;
};

/* ---- reading ---- */
struct io_table {
    uint64_t base;                  /* guest-linear as linked */
    struct io_table_entry *entries; /* accepted ones, by offset */
    struct io_table_range *ranges;
    struct io_table_mask *masks;
    uint32_t *by_residue; /* entries sorted by offset modulo IO_TABLE_ALIGN */
    uint32_t entry_count;
    uint32_t range_count, mask_count;
    uint32_t ignored; /* entries left out */
};

/* Copies a table out of `bytes` (any alignment). 0, or -1 with *err set (EXIT_INPUT, and `name` in
 * its text) if it is no table at all; -1 also for want of memory (EXIT_IO). Single bad entries are
 * left out and counted. */
int io_table_read(const char *name, const uint8_t *bytes, size_t size, struct io_table *table,
                  struct error *err);
void io_table_free(struct io_table *table);

/* Entry `index` as a block; its key is the linked address. It has no guards. */
void io_table_block(const struct io_table *table, uint32_t index, struct io_block *block);

/* B2: the entry for guest-linear `address` of a guest that runs `delta` bytes above where it was
 * linked; -1 = none. */
int64_t io_table_find(const struct io_table *table, uint64_t address, uint64_t delta);

/* For a guest that has moved by an unknown multiple of IO_TABLE_ALIGN: the entries that `address`
 * may then be, one after the other; start with *cursor == 0. The hash tells which one, then delta
 * = address - the block's key. -1 = no (further) one. At most IO_TABLE_CANDIDATES are given. */
#define IO_TABLE_CANDIDATES 64u
int64_t io_table_candidate(const struct io_table *table, uint64_t address, uint32_t *cursor);

/* ---- writing ---- */
/* Packs blocks, sorted by key and without repeats, into a table (malloc'd, the caller's) of *size
 * bytes; the same blocks give the same bytes. NULL with *err set: no memory, or blocks that cannot
 * stand in one. */
uint8_t *io_table_pack(const struct io_block *blocks, size_t count, size_t *size,
                       struct error *err);

#endif
