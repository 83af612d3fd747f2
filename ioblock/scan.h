/* SPDX-License-Identifier: MIT */
/* The scanning unit (B6): from an IO instruction, forward through code that a block may hold, to
 * the last IO instruction that the extent lets it reach.
 *
 * The scanner explores the control-flow graph from the key: both ways of branches, back edges,
 * direct jumps, calls into the callee and from its returns back behind the call. It stops a path
 * at what io_classify() does not know, at indirect branches and returns of unknown target, and
 * where the extent ends. Then it keeps the instructions from which an IO instruction can still be
 * reached: those are the block. It decides nothing at run time and trusts nothing: hostile code
 * costs at most IO_BLOCK_INSNS_MAX decoded instructions. */
#ifndef IOBLOCK_SCAN_H
#define IOBLOCK_SCAN_H

#include "ioblock/ioblock.h"

/* ---- the extent: a policy (B6) ---- */
enum io_extent_kind {
    IO_EXTENT_BYTES,  /* `bytes` of code */
    IO_EXTENT_LINE,   /* the 64-byte line of the first IO instruction */
    IO_EXTENT_PAGE,   /* its 4096-byte page */
    IO_EXTENT_ENGINE, /* what a block may be at most */
};

struct io_extent {
    enum io_extent_kind kind;
    uint32_t bytes;        /* looked at, all ranges together; at most IO_BLOCK_BYTES_MAX */
    uint32_t instructions; /* looked at; at most IO_BLOCK_INSNS_MAX */
    uint32_t gap; /* instructions from one IO instruction to the next, on the shortest path */
};

/* The default, by measurement (docs of hvrun): engine. */
struct io_extent io_extent_default(void);

/* Reads `line`, `page`, `engine`, `bytes:N` or a bare number of bytes (1 to IO_BLOCK_BYTES_MAX),
 * as --io-extent takes it. False if it is none of them. */
bool io_extent_parse(const char *text, struct io_extent *extent);

/* ---- the code that is scanned ---- */
/* A place that the guest rewrites at boot, or later: alternatives, jump labels, call sites, return
 * sites. Its bytes are masked; what control does there is said here, the bytes are not decoded. */
struct io_site {
    uint64_t start;  /* guest-linear */
    uint32_t length; /* bytes, > 0 */
    bool falls;      /* control may go on behind it */
    bool returns;    /* it is a return of its function */
    bool branches;   /* control may go to `target` as well */
    bool calls;      /* … which is a call: control comes back behind the site */
    uint64_t target;
};

/* An indirect branch or a return whose target is wanted. */
struct io_branch {
    uint64_t key;     /* of the scan under way */
    uint64_t address; /* of the branch */
    enum io_class class;
};

struct io_code {
    unsigned bits; /* 16, 32 or 64: the mode of the code */
    void *context;
    io_read_fn *read;
    /* True if `address` lies in such a site (*site filled). NULL: the bytes are what they are. */
    bool (*site)(void *context, uint64_t address, struct io_site *site);
    /* Bit n set: byte n of the `length` bytes at `address` is changed by relocation. NULL: none
     * is. */
    uint32_t (*relocated)(void *context, uint64_t address, unsigned length);
    /* Targets that are known of it (what the live guest is about to do, or was seen to do): up to
     * `room`, returns how many. Each that the block then follows is a guard of it. NULL: none are
     * known. */
    unsigned (*targets)(void *context, const struct io_branch *branch, uint64_t *targets,
                        unsigned room);
    /* True if the scan must not follow code there. NULL: anywhere. */
    bool (*forbidden)(void *context, uint64_t address);
    bool want_ports; /* fill block->ports: costs a second, full decoding */
};

/* ---- the scanner ---- */
struct io_scanner; /* its work space: one for each thread */

struct io_scanner *io_scanner_new(void); /* NULL: no memory */
void io_scanner_free(struct io_scanner *scanner);

enum io_scan_result {
    IO_SCAN_BLOCK,  /* *block is complete, its hash too, and saves events (B7) */
    IO_SCAN_SINGLE, /* there is but this IO instruction (B8); *block is that one instruction */
    IO_SCAN_NOT_IO, /* no IO instruction at the address, or not readable; *block is not set */
};

enum io_scan_result io_scan(struct io_scanner *scanner, const struct io_code *code,
                            const struct io_extent *extent, uint64_t address,
                            struct io_block *block);

/* Instructions that the scanner has decoded since it was made: what scanning costs. */
uint64_t io_scanner_decoded(const struct io_scanner *scanner);

#endif
