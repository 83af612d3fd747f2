/* SPDX-License-Identifier: MIT */
/* The translator: warm blocks of the block cache as host code.
 *
 * Guest instructions are host instructions, so they are copied: with registers renamed (layout.h), with memory operands
 * that go through a look-up (lookup.c), and with ends that lead to the next block's code. The guest's flags are the
 * host's, wherever anybody may see them. What is not copied is left to the interpreter, for exactly that
 * instruction: the state is stored, its function is called, and the function of the next instruction leads back.
 *
 * The interpreter stays in charge: translated code is what the functions of a block's instructions have become. Budget,
 * faults, events, invalidation, stepping and breakpoints are its own. */
#ifndef RUNTIME_TRANSLATOR_TRANSLATOR_H
#define RUNTIME_TRANSLATOR_TRANSLATOR_H

#include "image/error.h"
#include "runtime/soft/insn.h"

struct translator;
struct vm;

/* Why translated code was left: the keys of "translator" in the stats, in print order. */
enum translator_exit {
    TRANSLATOR_BUDGET,    /* the slice ends */
    TRANSLATOR_CHAIN,     /* a jump within the page, not linked */
    TRANSLATOR_JUMP,      /* a jump to another page, unknown */
    TRANSLATOR_INTERPRET, /* an instruction that is not translated */
    TRANSLATOR_INDIRECT,  /* an indirect jump, call or return whose target is unknown */
    TRANSLATOR_LOOKUP,    /* a page that the interpreter knew */
    TRANSLATOR_ACCESS,    /* an access that it must make: page walk, device, code, page crossing */
    TRANSLATOR_VECTORS,   /* vector registers that are not in the host's */
    TRANSLATOR_CALL,      /* for one instruction, by the short way */
    TRANSLATOR_EXITS
};

struct translator_stats {
    uint64_t blocks, instructions, bytes; /* translated */
    uint64_t traces;                      /* made of those blocks */
    uint64_t nanoseconds;                 /* for it */
    uint64_t flushes;
    uint64_t exits[TRANSLATOR_EXITS];
};

/* NULL if this host cannot run translated code: *reason says why. */
const char *translator_missing(void);
/* NULL with *err: no memory. */
struct translator *translator_create(struct vm *vm, struct error *err);
void translator_destroy(struct translator *translator);

/* A new block: it will be translated when it is warm. */
void translator_watch(struct block *block);
/* The block was invalidated: nothing leads to its code any more. */
void translator_drop(struct translator *translator, struct block *block);
/* True if there is no room for more; then the block cache drops all blocks, and calls translator_flush. */
bool translator_full(const struct translator *translator);
void translator_flush(struct translator *translator);

const struct translator_stats *translator_stats(const struct translator *translator);

#endif
