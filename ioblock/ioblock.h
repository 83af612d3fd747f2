/* SPDX-License-Identifier: MIT */
/* IO blocks: a stretch of guest code around several IO instructions that one virtualization event
 * may execute (requirements B1 to B11). patchc computes them offline and ships a table of them
 * (table.h), hvrun finds those that the table lacks (scan.h); both see the same structure.
 *
 * A block is entered at one IO instruction, its key. It is a set of ranges of code (B10), nothing
 * else: an executor that has the ranges' present bytes decodes each range linearly from its first
 * byte, executes the instructions one after the other from the key on, and goes on as long as the
 * next instruction pointer is the start of one of them. The first instruction pointer that is not,
 * or an instruction that io_classify() does not know, is where the block ends, precisely. Loops,
 * both ways of a branch, calls, returns and indirect branches need nothing more: that a target
 * lies in the block is their guard. So a wrong or hostile block costs time, never exactness.
 *
 * Two hashes. `hash` leaves out the masked bytes, which relocation or the guest's own boot-time
 * patching changes: it says that a block is the one that was scanned (B3). Who keeps something
 * made from all bytes (decoded instructions) must check those too, for example with
 * io_block_hash_all() of the bytes it was made from. */
#ifndef IOBLOCK_IOBLOCK_H
#define IOBLOCK_IOBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

/* No block is larger; readers of tables enforce it. */
#define IO_BLOCK_BYTES_MAX  4096u /* of all ranges together */
#define IO_BLOCK_INSNS_MAX  768u  /* instructions */
#define IO_BLOCK_RANGES_MAX 64u
#define IO_BLOCK_MASKS_MAX  64u
#define IO_BLOCK_PORTS_MAX  8u
#define IO_BLOCK_GUARDS_MAX 64u
#define IO_BLOCK_REACH      ((int64_t)1 << 30) /* a range lies no farther than that from the key */

enum io_block_flag {
    IO_BLOCK_LOOP = 1,    /* an IO instruction may execute more than once: a back edge */
    IO_BLOCK_STRING = 2,  /* has an INS or OUTS with a repeat prefix */
    IO_BLOCK_CALL = 4,    /* follows a call */
    IO_BLOCK_GUARD = 8,   /* follows an indirect branch or a return under a guard */
    IO_BLOCK_MASKED = 16, /* some bytes are masked */
    IO_BLOCK_CUT = 32,    /* the extent, not the code, was its limit */
    IO_BLOCK_FLAGS = 63,
};

struct io_range {
    int64_t offset; /* of its first byte from the key */
    uint32_t size;  /* bytes, > 0 */
};

struct io_mask {       /* bytes that hash as zero */
    uint32_t position; /* in the ranges' concatenated bytes */
    uint32_t size;     /* bytes, > 0 */
};

struct io_guard {           /* an indirect branch or return, and a target that the block follows */
    int64_t branch, target; /* offsets from the key */
};

struct io_block {
    /* Guest-linear address of the IO instruction it is entered at. In a table: as linked. */
    uint64_t key;
    uint64_t hash; /* XXH3 64 of the ranges' bytes, masked ones zero */
    int64_t
        exit; /* offset from the key: where straight-line execution leaves it, behind the last IO
                    * instruction in address order (information: the executor knows better) */
    uint32_t size; /* bytes of all ranges */
    uint16_t insn_count;
    uint16_t io_count; /* IO instructions */
    uint16_t range_count, mask_count, guard_count;
    uint8_t port_count;
    uint8_t flags;                               /* enum io_block_flag */
    uint16_t ports[IO_BLOCK_PORTS_MAX];          /* constant ports, ascending, without repeats */
    struct io_range ranges[IO_BLOCK_RANGES_MAX]; /* ascending, neither overlapping nor touching */
    struct io_mask masks[IO_BLOCK_MASKS_MAX];    /* ascending, not overlapping */
    struct io_guard guards[IO_BLOCK_GUARDS_MAX];
};

/* What an instruction is to a block. */
enum io_class {
    /* Ends the block before it: system, x87, SSE, HLT, INT, far, segment loads, … */
    IO_CLASS_UNKNOWN,
    IO_CLASS_PLAIN,  /* loads, stores, ALU, string instructions, PUSH, POP, PAUSE, fences, RDTSC */
    IO_CLASS_IO,     /* IN, OUT, INS, OUTS */
    IO_CLASS_BRANCH, /* conditional: falls through, or goes to its target */
    IO_CLASS_JUMP,   /* direct */
    IO_CLASS_CALL,   /* direct */
    IO_CLASS_RETURN, /* near */
    IO_CLASS_INDIRECT_JUMP, /* near, through register or memory */
    IO_CLASS_INDIRECT_CALL,
};

/* Classifies a decoded instruction; no operands are needed (ZYDIS_DECODER_MODE_MINIMAL will do).
 * The doorbell (hvstub.h) is not an IO instruction: it is unknown. */
enum io_class io_classify(const ZydisDecodedInstruction *instruction);

/* True if a block saves an event against executing its first instruction alone (B7, B8). */
static inline bool io_block_saves(const struct io_block *block)
{
    return block->io_count > 1 || block->flags & (IO_BLOCK_LOOP | IO_BLOCK_STRING);
}

/* Reads up to `size` bytes of code at guest-linear `address`; returns how many it could (fewer
 * only at the end of what there is). */
typedef size_t io_read_fn(void *context, uint64_t address, uint8_t *bytes, size_t size);

/* The bytes of all ranges, concatenated, as they are for a block entered at guest-linear `key`
 * (which is block->key plus how far the guest was relocated). `bytes` has room for
 * IO_BLOCK_BYTES_MAX. False if some cannot be read. */
bool io_block_read(const struct io_block *block, uint64_t key, io_read_fn *read, void *context,
                   uint8_t *bytes);

/* The hash of such bytes with masked ones as zero. Changes them to that if there are any. */
uint64_t io_block_hash(const struct io_block *block, uint8_t *bytes);
/* The hash of all of them: whether anything at all has changed. */
uint64_t io_block_hash_all(const struct io_block *block, const uint8_t *bytes);

/* True if the bounds above hold: ranges ascending and within reach, masks within them, counts and
 * flags in their limits, the key inside a range. What it says nothing about is the code. */
bool io_block_valid(const struct io_block *block);

#endif
