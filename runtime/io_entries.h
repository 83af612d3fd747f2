/* SPDX-License-Identifier: MIT */
/* What the dispatcher of IO blocks knows: the table of the image, and an entry for each address
 * that an event came from. */
#ifndef RUNTIME_IO_ENTRIES_H
#define RUNTIME_IO_ENTRIES_H

#include "ioblock/table.h"
#include "runtime/io_hasher.h"
#include "runtime/io_scanner.h"
#include "runtime/soft/io_compiled.h"
#include "runtime/vm.h"

/* When all are taken, everything learned is forgotten: a guest cannot make the host's memory
 * grow. */
#define IO_ENTRIES_MAX   2048u
#define IO_ENTRY_BUCKETS 1024u

struct io_entry {
    uint64_t key;  /* guest-linear address of the IO instruction */
    uint64_t mode; /* vcpu.jump_key it was met under */
    struct io_entry *next;
    struct io_block *block;       /* owned, with `compiled`; NULL = nothing is known */
    struct io_compiled *compiled; /* of `block`, or of the single instruction */
    bool batches;                 /* the block saves events; else it waits to be explored from */
    uint64_t all;                 /* hash of all bytes that were compiled */
    uint32_t visits, due;         /* nothing is tried again before visit `due` */
    uint32_t growths, losses;
};

struct io_blocks {
    enum io_blocks_mode mode;
    struct io_extent extent;
    struct io_scanner *scanner;
    struct io_table table;
    bool has_table;
    uint64_t delta; /* the guest runs so many bytes above where it was linked, as last seen */
    struct io_entry *bucket[IO_ENTRY_BUCKETS];
    unsigned count;
    /* work space */
    struct io_block block, grown;
    struct io_bytes bytes;
};

/* The entry for an address in a mode, made if need be. NULL: no memory. */
struct io_entry *io_entry_at(struct io_blocks *io, uint64_t key, uint64_t mode);
void io_entries_forget(struct io_blocks *io);

/* The entry's block from now on is a copy of `block`; it takes `compiled`. False: no memory,
 * nothing has changed. */
bool io_entry_set(struct io_entry *entry, const struct io_block *block,
                  struct io_compiled *compiled);
void io_entry_forget(
    struct io_entry *entry); /* its block: the code has changed, it may be looked at again */

/* True at visits when something may be tried that failed before: the first ones, and then each
 * time twice as many later. */
bool io_entry_due(const struct io_entry *entry);
void io_entry_failed(struct io_entry *entry);
void io_entry_grew(struct io_entry *entry);

#endif
