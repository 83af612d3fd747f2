/* SPDX-License-Identifier: MIT */
/* The second pass: code for each item, one after the other, by its class; the way into a block and the ways out. */
#include "runtime/translator/translation.h"

#include <string.h>

/* ---- exits ---- */
struct exit_point *exit_make(struct generator *g, enum translator_exit reason)
{
    struct exit_point *exit = g->path ? &g->bail : code_cache_data(g->code, sizeof *exit);
    if (!exit) {
        g->emit.failed = true;
        return NULL;
    }
    exit->of = g->t;
    exit->reason = (uint8_t)reason;
    exit->position = (uint8_t)g->position;
    return exit;
}

static void add_stub(struct generator *g, uint32_t jump, struct exit_point *exit)
{
    if (!exit || g->stub_count == sizeof g->stubs / sizeof g->stubs[0]) {
        g->emit.failed = true;
        return;
    }
    g->stubs[g->stub_count++] = (struct stub){.jump = jump,
                                              .flags_saved = g->flags_saved,
                                              .exit = exit,
                                              .position = (uint8_t)g->position};
}

void exit_jump(struct generator *g, struct exit_point *exit)
{
    add_stub(g, emit_jump(&g->emit), exit);
}

void exit_jump_if(struct generator *g, unsigned condition, struct exit_point *exit)
{
    add_stub(g, emit_jump_if(&g->emit, condition), exit);
}

static void exit_stubs(struct generator *g)
{
    struct emit *e = &g->emit;
    for (unsigned n = 0; n < g->stub_count; n++) {
        struct exit_point *exit = g->stubs[n].exit;
        if (exit->reason == TRANSLATOR_CHAIN) { /* comes through its slot: an indirect jump */
            exit->host = exit->stub = e->base + e->used;
            emit_endbr(e);
        } else {
            emit_here(e, g->stubs[n].jump);
        }
        if (g->stubs[n].has_address)
            emit_lea(e, TEMP_ADDRESS, g->stubs[n].address);
        emit_lea_of(e, TEMP_COUNT, exit);
        emit_jump_to(e, g->stubs[n].flags_saved ? g->leave_saved : g->leave);
    }
}

/* ---- a block ---- */
void generate_interpret(struct generator *g)
{
    exit_jump(g, exit_make(g, TRANSLATOR_INTERPRET));
}

void generate_call_out(struct generator *g)
{
    struct block *block = g->t->block;
    struct call_point *point = code_cache_data(g->code, sizeof *point);
    if (!point) {
        g->emit.failed = true;
        return;
    }
    const struct insn *insn = &block->insns[g->position];
    *point = (struct call_point){.run = block->translated ? block->translated->run[g->position]
                                                          : insn->run,
                                 .insn = insn,
                                 .block = block,
                                 .rip = g->t->rip,
                                 .tlb = offsetof(struct vcpu, tlb_table) +
                                        g->t->tlb_mode * sizeof((struct vcpu *)0)->tlb_table[0]};
    flags_to_vcpu(g);
    emit_lea_of(&g->emit, TEMP_COUNT, point);
    emit_call_to(&g->emit, g->call);
}

void generate_nothing(struct generator *g)
{
    (void)g;
}

static uint32_t generate_entry_exit(struct generator *g, const struct exit_point *exit)
{
    uint32_t at = g->emit.used;
    if (exit) {
        emit_lea_of(&g->emit, TEMP_COUNT, exit);
        emit_jump_to(&g->emit, g->leave);
    }
    return at;
}

/* Entries from other blocks take the block's instructions out of the budget, and leave where it is not enough; so
 * do they where vector registers are needed that are not there. The stubs stand before so that the usual way falls
 * through. */
static uint32_t generate_entry(struct generator *g)
{
    struct emit *e = &g->emit;
    struct exit_point *exit = exit_make(g, TRANSLATOR_BUDGET);
    struct exit_point *vectors = g->t->vectors ? exit_make(g, TRANSLATOR_VECTORS) : NULL;
    if (!exit || (g->t->vectors && !vectors))
        return 0;
    uint32_t away = generate_entry_exit(g, vectors), spent = generate_entry_exit(g, exit);
    uint32_t entry = e->used;
    emit_endbr(e);
    emit_load(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(budget)));
    emit_lea(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, -(int32_t)g->t->block->count));
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(budget)), TEMP_COUNT);
    /* the highest byte is 0, or -1 if the budget is below zero */
    emit_load_sign(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(budget) + 7));
    emit_lea32(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, 1));
    emit_jump_if_zero_back(e, spent);
    if (vectors) {
        emit_zero_extend8(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(vectors_here) + g->t->vectors));
        emit_jump_if_zero_back(e, away);
        vectors->host = e->base + e->used;
    }
    return entry;
}

/* Where the code of an item begins, and where it expects the flags. */
struct start {
    uint32_t at;
    bool flags_saved;
};

/* Whoever comes back from the interpreter into the middle of a group looks up the rest of it, out of line. All who come
 * back have the flags in the host's and in the vCPU. */
static void generate_returns(struct generator *g, struct start *starts, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        const struct item *item = &g->items[n];
        if (!item->grouped || item->first == n)
            continue;
        g->position = n;
        g->item = item;
        g->flags_saved = !g->bmi2;
        uint32_t back = g->emit.used;
        emit_group_lookup(g);
        if (!starts[n].flags_saved)
            flags_to_host(g);
        emit_jump_back(&g->emit, starts[n].at);
        starts[n].at = back;
    }
}

void generate_item(struct generator *g)
{
    const struct item *item = g->item;
    const struct class_row *row = &class_rows[item->class];
    /* accesses see to it behind their look-up */
    bool accesses = row->plain_flags && (item->member || item->memory != NO_OPERAND);
    if (item->needs_flags && !accesses)
        flags_to_host(g);
    if (item->grouped && item->first == g->position && !item->member)
        emit_group_lookup(g);
    if (item->inner)
        generate_inner(g);
    else
        row->generate(g);
    if (!item->keeps_flags)
        g->flags_saved = false;
}

bool generate_block(struct generator *g, const struct item *items)
{
    const unsigned count = g->t->block->count;
    struct start starts[BLOCK_MAX];
    g->items = items;
    g->path = NULL;
    g->emit.base = code_cache_next(g->code);
    g->emit.used = 0;
    g->emit.failed = false;
    g->stub_count = 0;
    g->position = 0;
    g->flags_saved = false;
    unsigned until;
    g->t->vectors = (uint8_t)vectors_needed(items, count, &until);
    g->t->vectors_until = (uint8_t)until;
    uint32_t entry = generate_entry(g);
    for (unsigned n = 0; n < count; n++) {
        g->position = n;
        g->item = &items[n];
        starts[n] = (struct start){g->emit.used, g->flags_saved};
        generate_item(g);
    }
    uint32_t end = g->emit.used;
    if (!class_rows[items[count - 1].class].ends)
        generate_end(g, items[count - 1].next);
    generate_returns(g, starts, count);
    exit_stubs(g);
    if (g->emit.failed || !code_cache_put(g->code, g->emit.bytes, g->emit.used))
        return false;
    g->t->entry = g->t->lead = g->emit.base + entry;
    for (unsigned n = 0; n < count; n++)
        g->t->at[n] = items[n].class == CLASS_INTERPRET ? 0 : starts[n].at - entry;
    g->t->at[count] = end - entry;
    return true;
}
