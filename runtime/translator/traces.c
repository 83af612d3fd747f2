/* SPDX-License-Identifier: MIT */
/* Hot traces: found, made and dropped. */
#include "runtime/translator/traces.h"

#include "runtime/memory.h"
#include "runtime/vm.h"

#define PATIENCE 256 /* blocks until the watched one comes again */
#define UNROLLED 64  /* instructions that a loop's trace has at least, if its rounds are shorter */
#define NEVER    0xff
#define MEMBERS  8 /* times as many samples begin a trace in what is part of another one */

/* ---- watching ---- */
void traces_flush(struct traces *traces)
{
    traces->watched = NULL;
}

static bool is_part(const struct version *t)
{
    for (const struct trace_member *member = t->in; member; member = member->next)
        if (member->trace->alive)
            return true;
    return false;
}

void traces_sample(struct traces *traces, const struct vcpu *cpu, struct version *t)
{
    if (traces->watched || t->samples == NEVER || t->lead != t->entry)
        return;
    unsigned enough = is_part(t) ? MEMBERS * traces->hot : traces->hot;
    if (++t->samples < enough)
        return;
    t->samples = 0;
    traces->watched = cpu;
    traces->head = t;
    traces->patience = PATIENCE;
    traces->count = traces->laps = 0;
}

static void make_trace(struct traces *traces);

bool traces_watch(struct traces *traces, const struct vcpu *cpu, struct version *t)
{
    if (traces->watched != cpu)
        return false;
    if (!traces->count && t != traces->head) {
        if (!--traces->patience)
            traces->watched = NULL;
        return traces->watched;
    }
    traces->laps += traces->count && t == traces->head;
    if (traces->laps <= traces->hot && traces->count < SEEN_MAX) {
        traces->seen[traces->count++] = t;
        return true;
    }
    traces->watched = NULL;
    make_trace(traces);
    return false;
}

/* ---- which way ---- */
struct lap {
    unsigned first, count;
    bool closed;
};

/* The lap that begins at seen[first]. */
static struct lap lap_at(const struct traces *traces, unsigned first)
{
    struct lap lap = {.first = first, .count = 1};
    while (first + lap.count < traces->count && traces->seen[first + lap.count] != traces->head)
        lap.count++;
    lap.closed = first + lap.count < traces->count || traces->laps > traces->hot;
    return lap;
}

static bool same_lap(const struct traces *traces, struct lap a, struct lap b)
{
    for (unsigned n = 0; n < a.count && a.count == b.count; n++)
        if (traces->seen[a.first + n] != traces->seen[b.first + n])
            return false;
    return a.count == b.count && a.closed == b.closed;
}

/* The one that was taken most often. */
static struct lap usual_lap(const struct traces *traces)
{
    struct lap best = lap_at(traces, 0), lap, other;
    unsigned most = 0;
    for (unsigned n = 0; n < traces->count; n += lap.count) {
        unsigned times = 0;
        lap = lap_at(traces, n);
        for (unsigned k = 0; k < traces->count; k += other.count) {
            other = lap_at(traces, k);
            times += same_lap(traces, lap, other);
        }
        if (times > most && (lap.closed || !best.closed || !most)) {
            most = times;
            best = lap;
        }
    }
    return best;
}

/* ---- the path ---- */
/* Does the interpreter do any of them? Time (the budget) and everything else is as the block alone has it then. */
static bool leaves_out(const struct item *items, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        if (items[n].class == CLASS_INTERPRET || items[n].class == CLASS_CALL_OUT)
            return true;
    return false;
}

static bool belongs(const struct path *path, const struct version *t)
{
    const struct version *head = path->count ? path->blocks[0].of : t;
    return path->count < TRACE_BLOCKS && path->instructions + t->block->count <= TRACE_MAX &&
           t->block->valid && t->block->key == head->block->key &&
           (t->rip ^ head->rip) < PAGE_SIZE &&
           (t->block->physical ^ head->block->physical) < PAGE_SIZE;
}

/* Can the block that ends with this item lead there? What cannot is an interrupt, or blocks that were not seen. */
static bool leads_to(const struct item *last, uint64_t rip)
{
    switch (last->class) {
    case CLASS_RETURN:
        return true;
    case CLASS_JUMP:
    case CLASS_CALL:
        return !is_relative(last) || relative_target(last) == rip;
    case CLASS_JUMP_IF:
        return relative_target(last) == rip || last->next == rip;
    default:
        return !class_rows[last->class].ends && last->next == rip;
    }
}

/* Makes the path's last block go on to `next`. False: it does not. */
static bool go_on(struct traces *traces, const struct version *next)
{
    struct item *last = &traces->items[traces->path.instructions - 1];
    if (!leads_to(last, next->rip))
        return false;
    last->inner = class_rows[last->class].ends;
    last->onward = next->rip;
    return true;
}

static bool append(struct traces *traces, struct version *t)
{
    struct path *path = &traces->path;
    const struct block *block = t->block;
    struct item *items = traces->items + path->instructions;
    if (!belongs(path, t))
        return false;
    const uint8_t *bytes = memory_at(&traces->vm->memory, block->physical, block->bytes);
    scan_block(block, bytes, t->rip, items);
    if (leaves_out(items, block->count) || (path->count && !go_on(traces, t)))
        return false;
    path->blocks[path->count++] = (struct path_block){t, path->instructions};
    path->instructions += block->count;
    path->vectors |= t->vectors;
    path->apart |= t->apart;
    return true;
}

static bool is_in(const struct path *path, const struct version *t)
{
    for (unsigned n = 0; n < path->count; n++)
        if (path->blocks[n].of == t)
            return true;
    return false;
}

/* A loop inside that makes the lap too long gets a trace of its own. */
static void follow(struct traces *traces, struct lap lap)
{
    struct path *path = &traces->path;
    unsigned instructions = 0;
    for (unsigned n = 0; n < lap.count; n++)
        instructions += traces->seen[lap.first + n]->block->count;
    for (unsigned n = 0; n < lap.count; n++) {
        struct version *t = traces->seen[lap.first + n];
        if ((instructions > TRACE_MAX && is_in(path, t)) || !append(traces, t))
            return;
    }
    path->closed = lap.closed && go_on(traces, traces->head);
}

/* Rounds of a loop that is short. */
static void unroll(struct traces *traces)
{
    struct path *path = &traces->path;
    unsigned round = path->instructions, blocks = path->count;
    while (path->instructions < UNROLLED && path->instructions + round <= TRACE_MAX &&
           path->count + blocks <= TRACE_BLOCKS)
        for (unsigned n = 0; n < blocks; n++)
            append(traces, path->blocks[n].of);
    path->closed = go_on(traces, traces->head);
}

/* ---- leading there ---- */
/* Whatever leads to the version leads to this code. */
static void lead_to(struct traces *traces, struct version *t, const uint8_t *code)
{
    t->lead = code;
    for (struct exit_point *exit = t->into; exit; exit = exit->next)
        exit->host = code;
    for (unsigned k = 0; k < traces->vm->vcpu_count; k++)
        fast_forget_rip(traces->vm->vcpus[k], t->rip);
}

static void install(struct traces *traces, const uint8_t *code, struct trace *trace)
{
    const struct path *path = &traces->path;
    trace->alive = true;
    trace->head = traces->head;
    trace->head->lead_vectors = path->vectors;
    trace->count = path->count;
    for (unsigned n = 0; n < path->count; n++) {
        struct trace_member *member = &trace->members[n];
        member->trace = trace;
        member->next = path->blocks[n].of->in;
        path->blocks[n].of->in = member;
    }
    lead_to(traces, trace->head, code);
}

static void translate_path(struct traces *traces)
{
    struct path *path = &traces->path;
    struct code_cache *code = traces->generator->code;
    size_t used = code->used;
    struct trace *trace =
        code_cache_data(code, sizeof *trace + path->count * sizeof trace->members[0]);
    find_liveness(traces->items, path->instructions);
    group_items(traces->items, path->instructions, true, path->apart);
    const uint8_t *lead = trace ? generate_trace(traces->generator, path, traces->items) : NULL;
    if (!lead)
        return;
    install(traces, lead, trace);
    traces->stats->traces++;
    traces->stats->bytes += code->used - used;
}

static void make_trace(struct traces *traces)
{
    struct path *path = &traces->path;
    uint64_t start = translator_clock();
    path->count = path->instructions = path->vectors = 0;
    path->closed = path->apart = false;
    traces->head->samples = NEVER;
    follow(traces, usual_lap(traces));
    if (path->closed)
        unroll(traces);
    if (path->closed || path->count > 1)
        translate_path(traces);
    traces->stats->nanoseconds += translator_clock() - start;
}

void traces_drop(struct traces *traces, struct version *t)
{
    traces->watched = NULL;
    for (; t->in; t->in = t->in->next) {
        struct trace *trace = t->in->trace;
        if (!trace->alive)
            continue;
        trace->alive = false;
        trace->head->samples = 0;
        lead_to(traces, trace->head, trace->head->entry);
    }
}
