/* SPDX-License-Identifier: MIT */
/* IO blocks compiled: the soft processor's own decoded instructions, one compact array for each
 * block.
 *
 * The ranges of a block (ioblock/ioblock.h) are decoded into runs: straight stretches that end with
 * a branch, an IO instruction or at a page's end. A run has the shape of the block cache's blocks,
 * so the functions of instructions cannot tell the difference: faults are precise, time and kicks
 * are counted as ever. While a run executes, no jump finds a block of the cache (JUMP_KEY_NOWHERE):
 * each comes back here, and here is looked up where RIP is now. What it finds there is the guard of
 * every branch.
 *
 * It stands on the vCPU's state alone and needs no engine's loop around it, only vcpu.budget
 * (instructions granted) and vcpu.unwind (where faults go). With a block cache, writes to the
 * code are noticed by watches. */
#ifndef RUNTIME_SOFT_IO_COMPILED_H
#define RUNTIME_SOFT_IO_COMPILED_H

#include "ioblock/ioblock.h"
#include "runtime/soft/cache.h"

struct io_compiled;

/* Decodes the block for a vCPU that stands at its key, of these bytes (io_block_read). NULL: no
 * memory. */
struct io_compiled *io_compiled_make(struct vcpu *cpu, const struct io_block *block, uint64_t key,
                                     const uint8_t *bytes);
void io_compiled_free(struct io_compiled *code);

/* True if its bytes are proved to be those it was made of: watches are whole. False says
 * nothing. */
bool io_compiled_unchanged(struct io_compiled *code);
/* True if the instruction at its key, where RIP is, can be executed: it is one of the block's,
 * and is fetched from where it was when the bytes were compared. (Other pages are looked at when
 * execution gets there.) May raise what the fetch does. */
bool io_compiled_enters(struct vcpu *cpu, const struct io_compiled *code);
/* Watches the places where the code is now; the caller has compared the bytes. Pages that cannot
 * be reached without a fault are left out: no execution gets there. False: there is no write
 * tracking (another engine). */
bool io_compiled_watch(struct vcpu *cpu, struct io_compiled *code);

/* Why execution of a block ended, RIP being at the first instruction that was not executed. */
enum io_end {
    IO_END_OUTSIDE, /* the block does not go on there */
    IO_END_GUARD,  /* the same, behind an indirect branch or return: another target than it knows */
    IO_END_EVENT,  /* an interrupt or another event can be delivered, or the VM stops */
    IO_END_BUDGET, /* instructions of the slice or IO instructions of the event are used up */
    IO_END_CHANGED, /* its code was written, or is mapped elsewhere */
};

struct io_trip { /* one execution */
    enum io_end end;
    uint64_t branch; /* IO_END_GUARD: guest-linear address of the branch */
};

/* Executes the block from RIP, which must be in it, until it ends. At most `io_limit` IO
 * instructions. Does not return if an instruction faults: state is exactly that at the
 * instruction, as everywhere (cpu_raise). */
struct io_trip io_compiled_run(struct vcpu *cpu, struct io_compiled *code, uint64_t io_limit);

/* True if RIP is the start of one of its instructions. */
bool io_compiled_has(const struct io_compiled *code, uint64_t linear);

struct io_step {
    uint64_t address; /* guest-linear, of the instruction */
    enum io_class class;
    uint8_t length; /* bytes */
};

/* Executes the one instruction at RIP if it is of a class that a block may hold, other than IO.
 * False (nothing has happened): it is another; class is IO or unknown. */
bool io_compiled_step(struct vcpu *cpu, struct io_step *step);

/* True if something waits that is to be delivered before the next instruction. */
bool io_event_waits(const struct vcpu *cpu);

#endif
