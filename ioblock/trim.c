/* SPDX-License-Identifier: MIT */
/* What the block keeps of the graph: the instructions from which IO can still be reached, by
 * address. */
#include "ioblock/graph.h"

/* Backwards along the edges from the IO instructions, until nothing changes. Edges were made
 * roughly in the order of execution, so a pass from the last to the first does most of it. */
static void mark_kept(struct io_scanner *s)
{
    bool more = true;
    for (unsigned n = 0; n < s->node_count; n++) {
        s->nodes[n].flags &= (uint8_t)~NODE_KEPT;
        if (s->nodes[n].class == IO_CLASS_IO)
            s->nodes[n].flags |= NODE_KEPT;
    }
    while (more) {
        more = false;
        for (unsigned e = s->edge_count; e-- > 0;) {
            struct node *from = &s->nodes[s->edges[e].from];
            if (!(from->flags & NODE_KEPT) && s->nodes[s->edges[e].to].flags & NODE_KEPT) {
                from->flags |= NODE_KEPT;
                more = true;
            }
        }
    }
}

/* Shell's sort: for these few hundred a call for each comparison would cost more. */
static void sort_by_address(struct io_scanner *s)
{
    static const unsigned steps[] = {301, 132, 57, 23, 10, 4, 1};
    for (unsigned k = 0; k < sizeof steps / sizeof steps[0]; k++)
        for (unsigned step = steps[k], i = step; i < s->order_count; i++) {
            uint16_t node = s->order[i];
            uint64_t address = s->nodes[node].address;
            unsigned j = i;
            for (; j >= step && s->nodes[s->order[j - step]].address > address; j -= step)
                s->order[j] = s->order[j - step];
            s->order[j] = node;
        }
}

/* Instructions that overlap cannot both stand in a range that is decoded linearly: the later one
 * goes, but never the key (node 0). */
static void drop_overlaps(struct io_scanner *s)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < s->order_count; i++) {
        struct node *node = &s->nodes[s->order[i]];
        bool drop = false;
        while (kept > 0 && !drop) {
            struct node *before = &s->nodes[s->order[kept - 1]];
            if (before->address + before->length <= node->address)
                break;
            drop = s->order[i] != 0;
            if (!drop) {
                before->flags &= (uint8_t)~NODE_KEPT;
                kept--;
            }
        }
        if (drop)
            node->flags &= (uint8_t)~NODE_KEPT;
        else
            s->order[kept++] = s->order[i];
    }
    s->order_count = kept;
}

void graph_trim(struct io_scanner *s)
{
    mark_kept(s);
    s->order_count = 0;
    for (unsigned n = 0; n < s->node_count; n++)
        if (s->nodes[n].flags & NODE_KEPT)
            s->order[s->order_count++] = (uint16_t)n;
    sort_by_address(s);
    drop_overlaps(s);
}

/* ---- loops ---- */
static bool kept(const struct io_scanner *s, const struct edge *edge)
{
    return s->nodes[edge->from].flags & s->nodes[edge->to].flags & NODE_KEPT;
}

/* Takes away, one after the other, the nodes that no kept edge leads to: what has `mark` left lies
 * on a cycle or behind one. False if nothing is left. */
static bool mark_behind_cycles(struct io_scanner *s)
{
    uint16_t free[NODES_MAX];
    unsigned count = 0, left = s->order_count;
    for (unsigned n = 0; n < s->node_count; n++)
        s->nodes[n].mark = 0;
    for (unsigned e = 0; e < s->edge_count; e++)
        s->nodes[s->edges[e].to].mark += kept(s, &s->edges[e]);
    for (unsigned k = 0; k < s->order_count; k++)
        if (!s->nodes[s->order[k]].mark)
            free[count++] = s->order[k];
    for (; count > 0; left--)
        for (uint16_t e = s->nodes[free[--count]].first_edge; e != NONE; e = s->edges[e].next)
            if (kept(s, &s->edges[e]) && --s->nodes[s->edges[e].to].mark == 0)
                free[count++] = s->edges[e].to;
    return left > 0;
}

/* Can control come from this node back to it? */
static bool in_cycle(struct io_scanner *s, uint16_t start)
{
    uint16_t stack[NODES_MAX];
    unsigned depth = 0;
    for (unsigned n = 0; n < s->node_count; n++)
        s->nodes[n].mark = 0;
    stack[depth++] = start;
    while (depth > 0)
        for (uint16_t e = s->nodes[stack[--depth]].first_edge; e != NONE; e = s->edges[e].next) {
            uint16_t n = s->edges[e].to;
            if (!kept(s, &s->edges[e]) || s->nodes[n].mark)
                continue;
            if (n == start)
                return true;
            s->nodes[n].mark = 1;
            stack[depth++] = n;
        }
    return false;
}

bool graph_loops(struct io_scanner *s)
{
    uint16_t suspects[16];
    unsigned count = 0;
    if (!mark_behind_cycles(s))
        return false;
    for (unsigned k = 0; k < s->order_count && count < 16; k++)
        if (s->nodes[s->order[k]].class == IO_CLASS_IO && s->nodes[s->order[k]].mark)
            suspects[count++] = s->order[k];
    for (unsigned k = 0; k < count; k++)
        if (in_cycle(s, suspects[k]))
            return true;
    return count == 16; /* bounded: then it counts as a loop */
}
