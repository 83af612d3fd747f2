/* SPDX-License-Identifier: MIT */
/* Inside the scanner: the control-flow graph that it explores, and nobody else includes. */
#ifndef IOBLOCK_GRAPH_H
#define IOBLOCK_GRAPH_H

#include "ioblock/instruction.h"
#include "ioblock/scan.h"

#define NODES_MAX     IO_BLOCK_INSNS_MAX
#define EDGES_MAX     (4 * NODES_MAX)
#define SLOTS         2048u /* of the hash table of nodes: a power of two, above 2 * NODES_MAX */
#define WAITING_MAX   (4 * NODES_MAX)
#define GAP_MAX       255u
#define FUNCTIONS_MAX 64u
#define CALLS_MAX     64u
#define RETURNS_MAX   64u
#define LINES         32u /* lines of code kept at hand: a power of two */
#define LINE_BYTES    64u
#define NONE          0xffffu

enum node_flag {
    NODE_EXPANDED = 1,
    NODE_FALLS = 2,   /* control may go on behind it */
    NODE_OPAQUE = 4,  /* a site that the guest rewrites: masked */
    NODE_REPEATS = 8, /* INS or OUTS with a repeat prefix */
    NODE_KEPT = 16,   /* an IO instruction can be reached from it */
    NODE_RETURNS = 32,
};

struct node { /* an instruction, or a whole site */
    uint64_t address;
    uint64_t target;     /* of a direct branch or call */
    uint16_t length;     /* bytes */
    uint16_t distance;   /* instructions since an IO instruction, on the shortest path */
    uint16_t first_edge; /* out of it; NONE */
    uint16_t slot_next;  /* same hash; NONE */
    uint16_t mark;       /* scratch of the passes */
    uint8_t class;       /* enum io_class */
    uint8_t flags;       /* enum node_flag */
    uint8_t function;    /* index of the function it was first reached in */
};

struct edge {
    uint16_t from, to;
    uint16_t next; /* out of the same node; NONE */
    bool guarded;  /* the target is an assumption */
};

struct waiting { /* a node in the queue of its distance */
    uint16_t node, next;
};

struct call { /* a call that is followed: the callee's returns come back behind it */
    uint64_t behind;
    uint8_t callee, caller; /* functions */
};

struct line {            /* code as read */
    uint64_t start, end; /* guest-linear; start == end: nothing */
    uint8_t bytes[LINE_BYTES];
};

struct io_scanner {
    ZydisDecoder decoder[3]; /* 16, 32, 64 bits; no operands */
    uint64_t decoded;

    /* the scan under way */
    const struct io_code *code;
    const struct io_extent *extent;
    const ZydisDecoder *mode;
    uint64_t key;
    uint32_t gap;      /* the extent's, or less */
    uint32_t io_found; /* IO instructions among the nodes */
    uint32_t bytes;    /* of all nodes */
    bool cut;          /* something was not followed for the extent's sake */
    struct line lines[LINES];

    struct node nodes[NODES_MAX];
    uint16_t slots[SLOTS];
    unsigned node_count;
    struct edge edges[EDGES_MAX];
    unsigned edge_count;
    struct waiting waiting[WAITING_MAX];
    unsigned waiting_count;
    uint16_t queue[GAP_MAX + 1]; /* by distance: first waiting, NONE */
    unsigned nearest;            /* no queue below it holds anything */

    uint8_t parent[FUNCTIONS_MAX]; /* functions that share code are one: union-find */
    unsigned function_count;
    struct call calls[CALLS_MAX];
    unsigned call_count;
    uint16_t returns[RETURNS_MAX]; /* nodes */
    uint64_t linked[RETURNS_MAX];  /* bit n: with call n */
    unsigned return_count;

    uint16_t order[NODES_MAX]; /* the block's nodes by address */
    unsigned order_count;
};

/* graph.c: explores from the scanner's key. False if the key is no IO instruction that can be
 * read. */
bool graph_explore(struct io_scanner *scanner);

/* trim.c: marks what leads to IO (NODE_KEPT), puts it in order. True if some IO instruction of it
 * may run twice. */
void graph_trim(struct io_scanner *scanner);
bool graph_loops(struct io_scanner *scanner);

/* ports.c: the constant ports of a complete block. */
void scan_ports(const struct io_code *code, struct io_block *block);

#endif
