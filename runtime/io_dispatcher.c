/* SPDX-License-Identifier: MIT */
/* The dispatcher of IO blocks. */
#include "runtime/io_dispatcher.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/io_entries.h"
#include "runtime/io_growth.h"
#include "runtime/io_hasher.h"
#include "runtime/io_interpreter.h"
#include "runtime/io_pointer.h"
#include "runtime/soft/access.h"
#include "runtime/soft/decode.h"

/* IO instructions of one event: a polling loop comes up for air. Its instructions are bounded by
 * the slice. */
#define EVENT_IO 4096u
/* Targets found in one event: each may mean another scan. */
#define EVENT_SCANS 16u

/* ---- becoming known ---- */
static bool uses_table(const struct io_blocks *io)
{
    return io->has_table && io->mode != IO_BLOCKS_SCAN;
}

static bool scans(const struct io_blocks *io)
{
    return io->mode == IO_BLOCKS_SCAN || io->mode == IO_BLOCKS_AUTO;
}

/* Makes the entry's block executable from the bytes that were hashed. */
static bool adopt(struct io_entry *entry, struct vcpu *cpu, const struct io_block *block,
                  const struct io_bytes *read)
{
    struct io_compiled *compiled = io_compiled_make(cpu, block, entry->key, read->bytes);
    if (!compiled)
        return false;
    if (!io_entry_set(entry, block, compiled)) {
        io_compiled_free(compiled);
        return false;
    }
    entry->all = read->all;
    io_compiled_watch(cpu, compiled);
    return true;
}

/* B2, B9: the table's block for the address. A guest that has moved is found by the hash of its
 * code. */
static bool from_table(struct io_blocks *io, struct vcpu *cpu, struct io_entry *entry)
{
    struct io_block *block = &io->block;
    int64_t index = io_table_find(&io->table, entry->key, io->delta);
    uint32_t cursor = 0;
    bool mismatch = false;
    if (vcpu_code_bits(cpu) != 64)
        return false;
    if (index < 0)
        index = io_table_candidate(&io->table, entry->key, &cursor);
    for (; index >= 0; index = io_table_candidate(&io->table, entry->key, &cursor)) {
        io_table_block(&io->table, (uint32_t)index, block);
        enum io_match match = io_hash(cpu, block, entry->key, &io->bytes);
        if (match == IO_MATCH) {
            io->delta = entry->key - block->key;
            return adopt(entry, cpu, block, &io->bytes);
        }
        mismatch |= match == IO_DIFFERENT;
    }
    cpu->vm->stats.hash_mismatches += mismatch;
    return false;
}

/* B6, B7: what the scanner finds from the entry's instruction on; the single instruction too. */
static bool from_scan(struct io_blocks *io, struct vcpu *cpu, struct io_entry *entry)
{
    struct io_block *block = &io->block;
    return io_scan_guest(io->scanner, cpu, &io->extent, entry->key, block) != IO_SCAN_NOT_IO &&
           io_hash(cpu, block, entry->key, &io->bytes) == IO_MATCH &&
           adopt(entry, cpu, block, &io->bytes);
}

/* B1: the bytes at RIP are an IO instruction. */
static bool is_io(struct vcpu *cpu, uint64_t key)
{
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    struct io_instruction instruction;
    size_t available = io_guest_read(cpu, key, bytes, sizeof bytes);
    return io_interpret(bytes, available, vcpu_code_bits(cpu), &instruction);
}

/* B3: the entry's block is what stands there now. */
static bool still_there(struct io_blocks *io, struct vcpu *cpu, struct io_entry *entry)
{
    if (!entry->compiled)
        return false;
    if (io_compiled_unchanged(entry->compiled) && io_compiled_enters(cpu, entry->compiled))
        return true;
    switch (io_hash(cpu, entry->block, entry->key, &io->bytes)) {
    case IO_MATCH:
        if (io->bytes.all != entry->all) { /* masked bytes: the same block, other instructions */
            io->block = *entry->block;
            return adopt(entry, cpu, &io->block, &io->bytes);
        }
        io_compiled_watch(cpu, entry->compiled);
        return true;
    case IO_DIFFERENT:
        cpu->vm->stats.hash_mismatches++;
        io_entry_forget(entry);
        return false;
    default:
        return false;
    }
}

/* Makes the entry executable if that is possible. *known: it was before. */
static bool ready(struct io_blocks *io, struct vcpu *cpu, struct io_entry *entry, bool *known)
{
    *known = still_there(io, cpu, entry);
    if (*known)
        return entry->batches || io_entry_due(entry);
    if (!io_entry_due(entry) || !is_io(cpu, entry->key))
        return false;
    if (uses_table(io) && from_table(io, cpu, entry)) {
        entry->batches = *known = true;
        return true;
    }
    if (scans(io) && from_scan(io, cpu, entry)) {
        entry->batches = io_block_saves(entry->block);
        return true;
    }
    io_entry_failed(entry);
    return false;
}

/* ---- execution ---- */
/* Steps on from where the block ended, to the next IO instruction, and adds what it executes to
 * the block. True: it is there. */
static bool explore(struct io_blocks *io, struct vcpu *cpu, const struct io_entry *entry,
                    struct io_block *block)
{
    for (unsigned n = 0; n < io->extent.gap; n++) {
        struct io_step step;
        if (!io_compiled_step(cpu, &step))
            return step.class == IO_CLASS_IO &&
                   io_extent_holds(&io->extent, entry->key, step.address);
        if (!io_extent_holds(&io->extent, entry->key, step.address) ||
            !io_block_join(block, step.address, step.length) || block->size > io->extent.bytes ||
            cpu->budget <= 0 || io_event_waits(cpu))
            return false;
    }
    return false;
}

/* The block ended where the scanner saw no further. True: it goes on there now, and RIP is in
 * it. */
static bool extend(struct io_blocks *io, struct vcpu *cpu, struct io_entry *entry)
{
    struct io_block *grown = &io->grown;
    if (!scans(io) || !io_entry_due(entry))
        return false;
    *grown = *entry->block;
    grown->mask_count = grown->guard_count = 0;
    grown->flags = (grown->flags | IO_BLOCK_GUARD | IO_BLOCK_CUT) & ~IO_BLOCK_MASKED;
    if (explore(io, cpu, entry, grown) &&
        io_scan_guest(io->scanner, cpu, &io->extent, io_pointer_linear(cpu), &io->block) !=
            IO_SCAN_NOT_IO &&
        io_block_join_all(grown, &io->block) && grown->size <= io->extent.bytes &&
        io_block_read(grown, entry->key, io_guest_read, cpu, io->bytes.bytes)) {
        io->bytes.all = io_block_hash_all(grown, io->bytes.bytes);
        grown->hash = io_block_hash(grown, io->bytes.bytes);
        if (adopt(entry, cpu, grown, &io->bytes) &&
            io_compiled_has(entry->compiled, io_pointer_linear(cpu))) {
            io_entry_grew(entry);
            return true;
        }
    }
    io_entry_failed(entry);
    return false;
}

/* B4: one event. Interrupts that become deliverable, the end of the slice, and the bound end it
 * early. */
static void execute(struct io_blocks *io, struct vcpu *cpu, struct io_entry *entry)
{
    struct stats *stats = &cpu->vm->stats;
    uint64_t end = stats->io_instructions + EVENT_IO;
    stats->io_events++;
    stats_exit(stats, EXIT_KIND_IO, entry->key);
    for (unsigned scan = 0; scan <= EVENT_SCANS; scan++) {
        struct io_trip trip = io_compiled_run(cpu, entry->compiled, end - stats->io_instructions);
        if (trip.end != IO_END_GUARD && trip.end != IO_END_OUTSIDE)
            return;
        if (stats->io_instructions >= end || !extend(io, cpu, entry))
            return;
    }
}

bool io_dispatch(struct vcpu *cpu)
{
    struct io_blocks *io = cpu->vm->io_blocks;
    bool known;
    if (!io_pointer_flat(cpu))
        return false;
    cpu->budget += cpu->withheld;
    cpu->withheld = 0;
    cpu->kicked = false;
    struct io_entry *entry = io_entry_at(io, io_pointer_linear(cpu), cpu->jump_key);
    if (!entry)
        return false;
    entry->visits++;
    bool go = ready(io, cpu, entry, &known) && io_compiled_enters(cpu, entry->compiled);
    if (go && known && entry->batches)
        cpu->vm->stats.block_hits++;
    else
        cpu->vm->stats.block_misses++;
    if (go)
        execute(io, cpu, entry);
    return go;
}
