/* SPDX-License-Identifier: MIT */
/* What the dispatcher of IO blocks knows: made, kept, forgotten. */
#include "runtime/io_entries.h"

#include <stdio.h>
#include <stdlib.h>

#include "image/image.h"
#include "image/patched_note.h"
#include "image/terminal.h"
#include "runtime/io_dispatcher.h"

#define FREE_TRIES 4u  /* visits at which a failure is not held against an address */
#define GROWTH_MAX 64u /* times that a block may grow */
#define LOSSES_MAX 64u /* times that code may change under a block, and all begins anew */

/* ---- entries ---- */
static void entry_free(struct io_entry *entry)
{
    io_entry_forget(entry);
    free(entry);
}

void io_entries_forget(struct io_blocks *io)
{
    for (unsigned k = 0; k < IO_ENTRY_BUCKETS; k++)
        while (io->bucket[k]) {
            struct io_entry *entry = io->bucket[k];
            io->bucket[k] = entry->next;
            entry_free(entry);
        }
    io->count = 0;
}

struct io_entry *io_entry_at(struct io_blocks *io, uint64_t key, uint64_t mode)
{
    unsigned bucket = (unsigned)((key ^ mode >> 48) * 0x9e3779b97f4a7c15ull >> 54);
    _Static_assert(IO_ENTRY_BUCKETS == 1u << (64 - 54), "io_entry_at");
    for (struct io_entry *entry = io->bucket[bucket]; entry; entry = entry->next)
        if (entry->key == key && entry->mode == mode)
            return entry;
    if (io->count == IO_ENTRIES_MAX)
        io_entries_forget(io);
    struct io_entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    entry->key = key;
    entry->mode = mode;
    entry->next = io->bucket[bucket];
    io->bucket[bucket] = entry;
    io->count++;
    return entry;
}

bool io_entry_set(struct io_entry *entry, const struct io_block *block,
                  struct io_compiled *compiled)
{
    if (!entry->block)
        entry->block = malloc(sizeof *entry->block);
    if (!entry->block)
        return false;
    *entry->block = *block;
    io_compiled_free(entry->compiled);
    entry->compiled = compiled;
    return true;
}

void io_entry_forget(struct io_entry *entry)
{
    io_compiled_free(entry->compiled);
    free(entry->block);
    entry->compiled = NULL;
    entry->block = NULL;
    entry->batches = false;
    if (entry->losses++ < LOSSES_MAX)
        entry->due = 0;
}

bool io_entry_due(const struct io_entry *entry)
{
    return entry->visits >= entry->due;
}

void io_entry_failed(struct io_entry *entry)
{
    if (entry->visits >= FREE_TRIES)
        entry->due = entry->visits < UINT32_MAX / 2 ? 2 * entry->visits : UINT32_MAX;
}

void io_entry_grew(struct io_entry *entry)
{
    entry->batches = true;
    entry->due = ++entry->growths < GROWTH_MAX ? 0 : UINT32_MAX;
}

/* ---- the VM's ---- */
/* The table that the image's note points to. A bad one is left out: it is a hint, the guest runs
 * without. */
static void read_table(struct vm *vm, struct io_blocks *io, const struct image *image)
{
    struct error err = {0};
    struct pv_note note;
    if (!image || !patched_note_find(image, &note, NULL, NULL) || !note.io_table_file)
        return;
    if (note.io_table_size > image->size || note.io_table_file > image->size - note.io_table_size)
        fail(&err, EXIT_INPUT, "%s: the IO-block table is outside the file", image->name);
    else
        io->has_table = !io_table_read(image->name, image->bytes + note.io_table_file,
                                       note.io_table_size, &io->table, &err);
    if (io->has_table)
        vm->stats.table_ignored = io->table.ignored;
    if (err.code) {
        terminal_clean(err.text);
        fprintf(stderr, "hvrun: %s; going on without it\n", err.text);
    }
}

int io_blocks_attach(struct vm *vm, const struct image *image, struct error *err)
{
    if (vm->config.io_blocks == IO_BLOCKS_OFF)
        return 0;
    struct io_blocks *io = calloc(1, sizeof *io);
    if (!io || !(io->scanner = io_scanner_new())) {
        free(io);
        return fail(err, HVRUN_HOST, "IO blocks: out of memory");
    }
    vm->io_blocks = io;
    io->mode = vm->config.io_blocks;
    io->extent = io_extent_default();
    if (vm->config.io_extent && !io_extent_parse(vm->config.io_extent, &io->extent))
        return fail(err, HVRUN_USAGE, "no extent of IO blocks: '%s'", vm->config.io_extent);
    if (io->mode != IO_BLOCKS_SCAN)
        read_table(vm, io, image);
    return 0;
}

void io_blocks_detach(struct vm *vm)
{
    struct io_blocks *io = vm->io_blocks;
    if (!io)
        return;
    io_entries_forget(io);
    if (io->has_table)
        io_table_free(&io->table);
    io_scanner_free(io->scanner);
    free(io);
    vm->io_blocks = NULL;
}
