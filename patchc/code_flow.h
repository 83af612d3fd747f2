/* SPDX-License-Identifier: MIT */
/* What code_follow.c and code_far.c share; nobody else includes it. */
#ifndef PATCHC_CODE_FLOW_H
#define PATCHC_CODE_FLOW_H

#include <Zydis/Zydis.h>

#include "patchc/code_index.h"

enum flow_mode { MODE_16, MODE_32, MODE_64, FLOW_MODES };

struct flow_item { /* control arrives here */
    uint32_t flat;
    uint8_t mode;
};

struct flow_far { /* a far transfer whose selector is not resolved yet */
    uint16_t selector;
    uint64_t target; /* guest-linear */
};

struct flow_gdt {
    uint64_t base;  /* guest-linear */
    uint32_t limit; /* offset of its last byte */
};

enum { FLOW_GDTS = 16 };

struct flow {
    const struct image *image;
    struct code *code;
    struct code_part *part;
    bool other_mode_only;
    bool proved_64; /* some 64-bit instruction was followed */
    bool failed;    /* memory ran out */
    ZydisDecoder decoder[FLOW_MODES];
    uint64_t *block;            /* the bit maps below, flat */
    uint64_t *seen[FLOW_MODES]; /* followed in this mode */
    uint64_t *functions;        /* function symbols */
    struct flow_item *items;    /* a stack */
    size_t count, room;
    struct flow_far *far;
    size_t far_count, far_room;
    size_t far_seen;     /* instructions given to flow_far() */
    uint64_t slots_left; /* jump table entries that may still be read: bounds the work */
    struct flow_gdt gdt[FLOW_GDTS];
    unsigned gdt_count;
};

/* Adds an item, unless it is followed already or in no executable section. */
bool flow_push(struct flow *flow, uint64_t address, enum flow_mode mode);

/* True if the image names a 32-bit entry point. */
bool flow_has_other_mode(const struct flow *flow);

/* Adds the image's entry points. True if one of them is 32-bit code. */
bool flow_push_entries(struct flow *flow);

/* True if flow_far() should see this 64-bit instruction. */
bool flow_may_be_far(const struct length_info *info);

/* Looks at an instruction that may be a far transfer or LGDT, and remembers what it finds. */
void flow_far(struct flow *flow, const struct code_section *section, uint64_t offset,
              enum flow_mode mode);

/* Makes items of the far transfers whose selectors the GDTs found so far resolve. True if there was
 * one. */
bool flow_resolve_far(struct flow *flow);

#endif
