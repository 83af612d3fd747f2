/* SPDX-License-Identifier: MIT */
/* From one block to the next. Both ways count the next block's instructions against the slice, and go
 * back to the engine's loop when they are more than are left of it (an interrupt or a timer may wait: it comes behind
 * the same instruction however the code is cut into blocks) or the block is not known yet. */
#ifndef RUNTIME_SOFT_CHAIN_H
#define RUNTIME_SOFT_CHAIN_H

#include "runtime/soft/access.h"

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define ENTER(block) return (block)->insns->run(cpu, (block)->insns)
#else
#define ENTER(block) return (block)->insns
#endif

static inline struct jump_entry *jump_entry(struct vcpu *cpu, uint64_t rip)
{
    return &cpu->jump_cache[(rip ^ rip >> 11) & (JUMP_CACHE_ENTRIES - 1)];
}

/* To `target`, which is in the same page as this block: through the chain that the engine's loop made. */
#define GO_CHAINED(target)                                                                         \
    do {                                                                                           \
        cpu->rip = (target);                                                                       \
        cpu->link = (struct insn *)i;                                                              \
        struct block *go_block = i->chain;                                                         \
        int64_t go_left = cpu->budget - go_block->count;                                           \
        if (unlikely(go_left < 0))                                                                 \
            return block_done(cpu);                                                                \
        cpu->budget = go_left;                                                                     \
        cpu->block = go_block;                                                                     \
        ENTER(go_block);                                                                           \
    } while (0)

/* To any `target`. */
#define GO_ANYWHERE(target)                                                                        \
    do {                                                                                           \
        uint64_t go_rip = (target);                                                                \
        const struct jump_entry *go_entry = jump_entry(cpu, go_rip);                               \
        cpu->rip = go_rip;                                                                         \
        cpu->link = NULL;                                                                          \
        if (unlikely(go_entry->tag != (go_rip ^ cpu->jump_key)))                                   \
            return block_done(cpu);                                                                \
        struct block *go_block = go_entry->block;                                                  \
        int64_t go_left = cpu->budget - go_block->count;                                           \
        if (unlikely(go_left < 0))                                                                 \
            return block_done(cpu);                                                                \
        cpu->budget = go_left;                                                                     \
        cpu->block = go_block;                                                                     \
        ENTER(go_block);                                                                           \
    } while (0)

/* Back to the loop, all instructions of the block done, vcpu.rip set. */
static inline const struct insn *block_done(struct vcpu *cpu)
{
    cpu->block = NULL;
    return NULL;
}

#endif
