/* SPDX-License-Identifier: MIT */
/* Exploring the control-flow graph around an IO instruction.
 *
 * Nodes are taken in the order of their distance from the last IO instruction before them
 * (buckets, as in Dijkstra's algorithm; an IO instruction's own distance is 0), so what is near to
 * IO is seen first and the budget goes where the IO is. A node's distance only ever falls, each
 * fall queues it once, nodes, edges and queue entries are bounded arrays: it ends.
 *
 * Calls: a callee is a function of its own; when one of its returns is found, control goes on
 * behind every call of it. Functions that turn out to share code (tail jumps) become one. That is
 * context-insensitive: a return may seem to lead to another caller than it will. A block may hold
 * too much, never miscompute. */
#include <string.h>

#include "ioblock/graph.h"

/* ---- bytes ---- */
static const struct line *line_at(struct io_scanner *s, uint64_t address)
{
    struct line *line = &s->lines[address / LINE_BYTES % LINES];
    if (address >= line->start && address < line->end)
        return line;
    uint64_t room = LINE_BYTES - address % LINE_BYTES;
    line->start = address;
    line->end = address + s->code->read(s->code->context, address, line->bytes, room);
    return line->end == line->start ? NULL : line;
}

/* Up to INSTRUCTION_ROOM bytes at `address`, where they are or in `room`. */
static const uint8_t *fetch(struct io_scanner *s, uint64_t address, unsigned *available,
                            uint8_t room[INSTRUCTION_ROOM])
{
    unsigned count = 0;
    const struct line *line = line_at(s, address);
    if (line && line->end - address >= INSTRUCTION_ROOM) {
        *available = INSTRUCTION_ROOM;
        return line->bytes + (address - line->start);
    }
    while (line && count < INSTRUCTION_ROOM) {
        uint64_t at = address + count - line->start;
        unsigned some = (unsigned)(line->end - line->start - at);
        if (some > INSTRUCTION_ROOM - count)
            some = INSTRUCTION_ROOM - count;
        memcpy(room + count, line->bytes + at, some);
        count += some;
        line = line_at(s, address + count);
    }
    *available = count;
    return room;
}

/* ---- functions ---- */
static uint8_t root(struct io_scanner *s, uint8_t function)
{
    while (s->parent[function] != function)
        function = s->parent[function] = s->parent[s->parent[function]];
    return function;
}

/* A new one; the scan's own first function where there is no more room: then returns lead too far
 * at worst. */
static uint8_t function_new(struct io_scanner *s)
{
    if (s->function_count == FUNCTIONS_MAX)
        return 0;
    s->parent[s->function_count] = (uint8_t)s->function_count;
    return (uint8_t)s->function_count++;
}

/* ---- nodes ---- */
static unsigned slot_of(uint64_t address)
{
    return (unsigned)(address * 0x9e3779b97f4a7c15ull >> 53) & (SLOTS - 1);
}

static uint16_t node_find(const struct io_scanner *s, uint64_t address)
{
    uint16_t n = s->slots[slot_of(address)];
    while (n != NONE && s->nodes[n].address != address)
        n = s->nodes[n].slot_next;
    return n;
}

/* The function that a call or return to `address` leads to. */
static uint8_t function_at(struct io_scanner *s, uint64_t address)
{
    uint16_t known = node_find(s, address);
    return known != NONE ? s->nodes[known].function : function_new(s);
}

static bool in_extent(const struct io_scanner *s, uint64_t address)
{
    switch (s->extent->kind) {
    case IO_EXTENT_LINE:
        return address / 64 == s->key / 64;
    case IO_EXTENT_PAGE:
        return address / 4096 == s->key / 4096;
    default:
        return true;
    }
}

static bool within_reach(const struct io_scanner *s, uint64_t address)
{
    int64_t distance = (int64_t)(address - s->key), slack = IO_BLOCK_BYTES_MAX;
    return distance < IO_BLOCK_REACH - slack && distance > -(IO_BLOCK_REACH - slack);
}

static bool take_site(struct node *node, const struct io_site *site)
{
    if (site->start != node->address || site->length == 0 || site->length > IO_BLOCK_BYTES_MAX)
        return false; /* its middle: nobody knows what will stand there */
    node->length = (uint16_t)site->length;
    node->flags = NODE_OPAQUE | (site->falls ? NODE_FALLS : 0) | (site->returns ? NODE_RETURNS : 0);
    node->class = !site->branches ? IO_CLASS_PLAIN : site->calls ? IO_CLASS_CALL : IO_CLASS_JUMP;
    node->target = site->target;
    return true;
}

static bool take_instruction(struct io_scanner *s, struct node *node)
{
    uint8_t room[INSTRUCTION_ROOM];
    unsigned available;
    struct instruction i;
    const uint8_t *bytes = fetch(s, node->address, &available, room);
    s->decoded++;
    if (!(s->code->bits == 64 && instruction_quick(bytes, available, &i)) &&
        !instruction_full(s->mode, bytes, available, &i))
        return false;
    if (i.class == IO_CLASS_UNKNOWN)
        return false;
    node->class = i.class;
    node->length = i.length;
    if (i.class <= IO_CLASS_BRANCH)
        node->flags = NODE_FALLS;
    if (i.class == IO_CLASS_IO && i.repeats)
        node->flags |= NODE_REPEATS;
    if (i.class == IO_CLASS_RETURN)
        node->flags = NODE_RETURNS;
    node->target = node->address + i.length + (uint64_t)i.displacement;
    if (s->code->bits < 64)
        node->target &= s->code->bits == 32 ? 0xffffffffu : 0xffffu;
    return true;
}

/* The budget grows with what is found: one IO instruction far away is not worth a long search. */
static bool budget_left(struct io_scanner *s, unsigned length)
{
    unsigned nodes = s->gap + s->gap / 2 * s->io_found;
    if (nodes > s->extent->instructions)
        nodes = s->extent->instructions;
    if (s->node_count == 0 || (s->node_count < nodes && s->node_count < NODES_MAX &&
                               s->bytes + length <= s->extent->bytes))
        return true;
    s->cut = true;
    return false;
}

/* A node is made in its place in the array, and counts once all is well. */
static uint16_t node_new(struct io_scanner *s, uint64_t address, uint8_t function)
{
    struct io_site site;
    struct node *node = &s->nodes[s->node_count];
    if (!in_extent(s, address) || !budget_left(s, 1)) {
        s->cut = true;
        return NONE;
    }
    if (!within_reach(s, address) ||
        (s->code->forbidden && s->code->forbidden(s->code->context, address)))
        return NONE;
    node->address = address;
    node->first_edge = NONE;
    node->distance = GAP_MAX;
    node->flags = 0;
    node->function = function;
    bool opaque = s->code->site && s->code->site(s->code->context, address, &site);
    if (!(opaque ? take_site(node, &site) : take_instruction(s, node)) ||
        !budget_left(s, node->length))
        return NONE;
    s->bytes += node->length;
    s->io_found += node->class == IO_CLASS_IO;
    unsigned slot = slot_of(address);
    node->slot_next = s->slots[slot];
    s->slots[slot] = (uint16_t)s->node_count;
    return (uint16_t)s->node_count++;
}

/* ---- distances ---- */
static void reach(struct io_scanner *s, uint16_t n, unsigned distance)
{
    struct node *node = &s->nodes[n];
    if (node->class == IO_CLASS_IO)
        distance = 0;
    if (distance >= node->distance)
        return;
    node->distance = (uint16_t)distance;
    if (distance > s->gap || s->waiting_count == WAITING_MAX) {
        s->cut = true;
        return;
    }
    s->waiting[s->waiting_count] = (struct waiting){n, s->queue[distance]};
    s->queue[distance] = (uint16_t)s->waiting_count++;
    if (distance < s->nearest)
        s->nearest = distance;
}

static void add_edge(struct io_scanner *s, uint16_t from, uint64_t address, uint8_t function,
                     bool guarded)
{
    uint16_t to = node_find(s, address);
    if (to == NONE)
        to = node_new(s, address, function);
    else
        s->parent[root(s, s->nodes[to].function)] = root(s, function);
    if (to == NONE || s->edge_count == EDGES_MAX)
        return;
    for (uint16_t e = s->nodes[from].first_edge; e != NONE; e = s->edges[e].next)
        if (s->edges[e].to == to)
            return;
    s->edges[s->edge_count] = (struct edge){from, to, s->nodes[from].first_edge, guarded};
    s->nodes[from].first_edge = (uint16_t)s->edge_count++;
    reach(s, to, s->nodes[from].distance + 1u);
}

/* ---- what follows an instruction ---- */
static void follow_call(struct io_scanner *s, uint16_t n, uint64_t target, bool guarded)
{
    const struct node *node = &s->nodes[n];
    if (s->call_count == CALLS_MAX)
        return;
    uint8_t callee = function_at(s, target);
    s->calls[s->call_count++] = (struct call){node->address + node->length, callee, node->function};
    add_edge(s, n, target, callee, guarded);
}

#define TARGETS_MAX 8u

static void follow_known_targets(struct io_scanner *s, uint16_t n)
{
    uint64_t targets[TARGETS_MAX];
    const struct node *node = &s->nodes[n];
    struct io_branch branch = {s->key, node->address, node->class};
    if (!s->code->targets)
        return;
    unsigned count = s->code->targets(s->code->context, &branch, targets, TARGETS_MAX);
    for (unsigned k = 0; k < count && k < TARGETS_MAX; k++)
        if (node->class == IO_CLASS_INDIRECT_CALL)
            follow_call(s, n, targets[k], true);
        else
            add_edge(s, n, targets[k],
                     node->class == IO_CLASS_RETURN ? function_at(s, targets[k]) : node->function,
                     true);
}

static void expand(struct io_scanner *s, uint16_t n)
{
    struct node *node = &s->nodes[n];
    node->flags |= NODE_EXPANDED;
    if (node->class == IO_CLASS_BRANCH || node->class == IO_CLASS_JUMP)
        add_edge(s, n, node->target, node->function, false);
    else if (node->class == IO_CLASS_CALL)
        follow_call(s, n, node->target, false);
    if (node->flags & NODE_FALLS)
        add_edge(s, n, node->address + node->length, node->function, false);
    if (node->flags & NODE_RETURNS && s->return_count < RETURNS_MAX) {
        s->linked[s->return_count] = 0;
        s->returns[s->return_count++] = n;
    }
    if (node->class >= IO_CLASS_RETURN && !(node->flags & NODE_OPAQUE))
        follow_known_targets(s, n);
}

static void run_queue(struct io_scanner *s)
{
    for (;;) {
        while (s->nearest <= s->gap && s->queue[s->nearest] == NONE)
            s->nearest++;
        if (s->nearest > s->gap)
            return;
        unsigned distance = s->nearest;
        struct waiting first = s->waiting[s->queue[distance]];
        struct node *node = &s->nodes[first.node];
        s->queue[distance] = first.next;
        if (node->distance != distance)
            continue; /* it has come nearer since, and was queued there */
        if (!(node->flags & NODE_EXPANDED))
            expand(s, first.node);
        else
            for (uint16_t e = node->first_edge; e != NONE; e = s->edges[e].next)
                reach(s, s->edges[e].to, distance + 1);
    }
}

/* Leads returns back behind the calls of their functions. True if there was one more. */
static bool link_returns(struct io_scanner *s)
{
    bool more = false;
    for (unsigned r = 0; r < s->return_count; r++)
        for (unsigned c = 0; c < s->call_count; c++) {
            uint16_t n = s->returns[r];
            if (s->linked[r] >> c & 1 ||
                root(s, s->calls[c].callee) != root(s, s->nodes[n].function))
                continue;
            s->linked[r] |= 1ull << c;
            add_edge(s, n, s->calls[c].behind, s->calls[c].caller, false);
            more = true;
        }
    return more;
}

bool graph_explore(struct io_scanner *s)
{
    s->node_count = s->edge_count = s->waiting_count = s->function_count = 0;
    s->call_count = s->return_count = 0;
    s->io_found = s->bytes = 0;
    s->cut = false;
    memset(s->slots, 0xff, sizeof s->slots);
    memset(s->queue, 0xff, sizeof s->queue);
    s->nearest = GAP_MAX;
    uint16_t first = node_new(s, s->key, function_new(s));
    if (first == NONE || s->nodes[first].class != IO_CLASS_IO)
        return false;
    reach(s, first, 0);
    do
        run_queue(s);
    while (link_returns(s));
    return true;
}
