/* SPDX-License-Identifier: MIT */
/* Hot traces: which blocks follow each other where the guest spends its time.
 *
 * A slice ends wherever the guest happens to be: the block where it does is a sample, and costs nothing. A block that
 * was met often enough begins a trace: the interpreter executes what follows for a moment, and the blocks it comes
 * through are written down. The path that led back most often, or else whatever followed, is translated as one piece
 * (trace_code.c), and whatever leads to its first block leads there.
 *
 * A trace stays in one page, as direct jumps between blocks do: what its first block's RIP shows is what all of it
 * shows. It is dropped with any of its blocks. */
#ifndef RUNTIME_TRANSLATOR_TRACES_H
#define RUNTIME_TRANSLATOR_TRACES_H

#include "runtime/translator/translation.h"

#define SEEN_MAX 192u /* blocks that are written down */

struct traces {
    struct vm *vm;
    struct generator *generator;
    struct translator_stats *stats;
    unsigned hot; /* samples before a trace begins there; laps that are watched */
    /* what is being watched */
    const struct vcpu *watched; /* NULL: nothing */
    struct version *head;
    unsigned patience; /* blocks until it is given up */
    struct version *seen[SEEN_MAX];
    unsigned count, laps;
    /* of the trace that is made */
    struct path path;
    struct item items[TRACE_MAX];
};

struct trace {
    struct version *head;
    bool alive; /* none of its blocks was dropped */
    unsigned count;
    struct trace_member {
        struct trace *trace;
        struct trace_member *next; /* of the same version */
    } members[];
};

/* A slice ended at this block. */
void traces_sample(struct traces *traces, const struct vcpu *cpu, struct version *t);
/* The vCPU comes to this block: must the interpreter execute it, because what follows is watched? */
bool traces_watch(struct traces *traces, const struct vcpu *cpu, struct version *t);
/* The version's block is no more: neither is any trace that it is part of. */
void traces_drop(struct traces *traces, struct version *t);
/* All code is dropped. */
void traces_flush(struct traces *traces);

#endif
