/* SPDX-License-Identifier: MIT */
/* The second pass for a trace: blocks in a row as one piece of code.
 *
 * The budget is taken once, for all of them. There is one way out, wherever it is taken: what is behind the block is
 * given back, and the code of that block alone begins the instruction anew. It knows everything else: faults, pages
 * that are not known yet, where a branch leads that does not go on as it did. So a trace needs no exits of its own, and
 * nothing of it is ever returned to from C. */
#include "runtime/translator/translation.h"

/* The block of an item. */
static const struct path_block *block_of(const struct path *path, unsigned position)
{
    unsigned n = path->count - 1;
    while (path->blocks[n].first > position)
        n--;
    return &path->blocks[n];
}

static void emit_budget(struct emit *e, int32_t more)
{
    emit_load(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(budget)));
    emit_lea(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, more));
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(budget)), TEMP_COUNT);
}

/* The middle of a block's code expects the flags in the host's or, without BMI2, in the vCPU. */
static void flags_to_both(struct generator *g)
{
    if (!g->bmi2 && !g->flags_saved)
        flags_to_vcpu(g); /* they stay in the host's as well */
    else
        flags_to_host(g);
    g->flags_saved = false;
}

/* To the instruction at `position` in the code of its block alone, which has been counted. */
static void emit_bail(struct generator *g, unsigned position)
{
    const struct path_block *block = block_of(g->path, position);
    const struct version *t = block->of;
    unsigned rest = g->path->instructions - (block->first + t->block->count);
    uint32_t at = t->at[position - block->first];
    flags_to_both(g);
    if (rest)
        emit_budget(&g->emit, (int32_t)rest);
    if (!at)
        g->emit.failed = true;
    emit_jump_to(&g->emit, t->entry + at);
}

/* Jumps of one instruction share what they lead to. */
static void emit_bails(struct generator *g)
{
    for (unsigned n = 0; n < g->stub_count; n++) {
        const struct stub *stub = &g->stubs[n], *next = stub + 1;
        emit_here(&g->emit, stub->jump);
        if (n + 1 < g->stub_count && next->position == stub->position &&
            next->flags_saved == stub->flags_saved)
            continue;
        g->flags_saved = stub->flags_saved;
        emit_bail(g, stub->position);
    }
}

/* As of a block (generate.c); where the budget is not enough or vector registers are not there, the first block alone
 * looks at it. */
static uint32_t emit_trace_entry(struct generator *g)
{
    struct emit *e = &g->emit;
    int32_t count = (int32_t)g->path->instructions;
    uint32_t spent = e->used;
    emit_budget(e, count);
    emit_jump_to(e, g->path->blocks[0].of->entry);
    uint32_t entry = e->used;
    emit_endbr(e);
    emit_budget(e, -count);
    emit_load_sign(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(budget) + 7));
    emit_lea32(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, 1));
    emit_jump_if_zero_back(e, spent);
    if (g->path->vectors) {
        emit_zero_extend8(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(vectors_here) + g->path->vectors));
        emit_jump_if_zero_back(e, spent);
    }
    return entry;
}

static void emit_items(struct generator *g)
{
    const struct path *path = g->path;
    for (unsigned n = 0; n < path->instructions; n++) {
        g->position = n;
        g->item = &g->items[n];
        if (g->item->inner || !class_rows[g->item->class].ends)
            generate_item(g);
    }
}

/* Back to the beginning, or to the last block's own end. */
static void emit_end(struct generator *g, uint32_t entry)
{
    const struct path *path = g->path;
    unsigned last = path->instructions - 1;
    if (path->closed) {
        flags_to_host(g);
        emit_jump_back(&g->emit, entry);
    } else if (class_rows[g->items[last].class].ends) {
        emit_bail(g, last);
    } else {
        emit_bail(g, last + 1);
    }
}

const uint8_t *generate_trace(struct generator *g, const struct path *path,
                              const struct item *items)
{
    g->items = items;
    g->path = path;
    g->t = path->blocks[0].of;
    g->emit.base = code_cache_next(g->code);
    g->emit.used = 0;
    g->emit.failed = false;
    g->stub_count = 0;
    g->flags_saved = false;
    uint32_t entry = emit_trace_entry(g);
    emit_items(g);
    emit_end(g, entry);
    emit_bails(g);
    if (g->emit.failed || !code_cache_put(g->code, g->emit.bytes, g->emit.used))
        return NULL;
    return g->emit.base + entry;
}
