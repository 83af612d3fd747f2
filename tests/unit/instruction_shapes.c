/* SPDX-License-Identifier: MIT */
/* Encodes instructions in all their shapes (SDM 2A 2.1, 2.2.1). */
#include "tests/unit/instruction_shapes.h"

#include <stdio.h>
#include <string.h>

enum { NO_BASE = -1, NO_INDEX = -1, RIP_BASE = 16 };

struct memory_shape {
    int base, index;
    unsigned scale; /* log2 */
    int32_t displacement;
    uint8_t prefix; /* 0: none */
};

static const struct memory_shape memory_shapes[] = {
    /* one register: RAX, RCX, RDI, RSP, RBP, R12, R13 */
    {0, NO_INDEX, 0, 0, 0},
    {1, NO_INDEX, 0, 0, 0},
    {7, NO_INDEX, 0, 0, 0},
    {4, NO_INDEX, 0, 0, 0},
    {5, NO_INDEX, 0, 0, 0},
    {12, NO_INDEX, 0, 0, 0},
    {13, NO_INDEX, 0, 0, 0},
    /* with displacement, index, both; the registers that templates spill among them */
    {0, NO_INDEX, 0, 0x10, 0},
    {1, NO_INDEX, 0, -0x1000, 0},
    {4, NO_INDEX, 0, 6, 0},
    {4, NO_INDEX, 0, 0x14, 0},
    {12, NO_INDEX, 0, 0x7fffffff, 0},
    {0, 1, 2, 0, 0},
    {1, 0, 3, 8, 0},
    {4, 0, 0, 0, 0},
    {4, 1, 3, 16, 0},
    {13, 15, 1, -0x80, 0},
    {3, 6, 0, 0, 0},
    {NO_BASE, 1, 3, 0x100, 0},
    /* no register */
    {NO_BASE, NO_INDEX, 0, 0, 0},
    {RIP_BASE, NO_INDEX, 0, 0, 0},
    /* GS, 32-bit addresses */
    {7, NO_INDEX, 0, 0, 0x65},
    {4, NO_INDEX, 0, 8, 0x65},
    {0, 1, 1, 0x20, 0x65},
    {NO_BASE, NO_INDEX, 0, 0, 0x65},
    {7, NO_INDEX, 0, 0, 0x67},
    {0, 1, 2, 0x40, 0x67},
};

struct encoding {
    uint8_t bytes[24];
    size_t length;
};

static void put(struct encoding *e, unsigned byte)
{
    e->bytes[e->length++] = (uint8_t)byte;
}

static void put_hex(struct encoding *e, const char *hex)
{
    unsigned byte;
    for (int used; sscanf(hex, "%2x%n", &byte, &used) == 1; hex += used)
        put(e, byte);
}

static void put_rex(struct encoding *e, const struct instruction_shape *shape, unsigned reg, int x,
                    int b)
{
    unsigned rex = (shape->shapes & SHAPE_WIDE ? 8u : 0) | reg >> 3 << 2 | (x >= 8 ? 2u : 0) |
                   (b >= 8 && b < 16 ? 1u : 0);
    if (rex)
        put(e, 0x40 | rex);
}

static void put_displacement(struct encoding *e, int32_t displacement)
{
    memcpy(e->bytes + e->length, &displacement, 4);
    e->length += 4;
}

static void encode_memory(struct encoding *e, const struct instruction_shape *shape, unsigned reg,
                          const struct memory_shape *m, uint64_t site, uint64_t data)
{
    if (m->prefix)
        put(e, m->prefix);
    put_hex(e, shape->prefix);
    put_rex(e, shape, reg, m->index, m->base);
    put_hex(e, shape->opcode);
    reg = (reg & 7) << 3;
    if (m->base == RIP_BASE) {
        put(e, reg | 5);
        put_displacement(e, (int32_t)(data - (site + e->length + 4)));
        return;
    }
    unsigned low = m->base < 0 ? 5 : (unsigned)m->base & 7;
    bool sib = m->base < 0 || m->index >= 0 || low == 4;
    bool none = m->base >= 0 && m->displacement == 0 && low != 5;
    unsigned mod = m->base < 0 || none ? 0 : m->displacement == 0 ? 0x40 : 0x80;
    put(e, mod | reg | (sib ? 4 : low));
    if (sib)
        put(e, m->scale << 6 | (m->index < 0 ? 4u : (unsigned)m->index & 7) << 3 | low);
    if (mod == 0x40)
        put(e, 0);
    else if (mod == 0x80 || m->base < 0)
        put_displacement(e, m->base < 0 && m->index < 0 ? (int32_t)data : m->displacement);
}

static void encode_register(struct encoding *e, const struct instruction_shape *shape, unsigned reg,
                            unsigned rm)
{
    put_hex(e, shape->prefix);
    put_rex(e, shape, reg, NO_INDEX, (int)rm);
    put_hex(e, shape->opcode);
    put(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void each_shape(const struct instruction_shape *shape, uint64_t site, uint64_t data,
                void (*visit)(const uint8_t *bytes, size_t length, void *context), void *context)
{
    static const unsigned any[] = {0, 1, 4, 12};
    bool any_reg = shape->shapes & SHAPE_ANY_REG;
    for (size_t i = 0; i < (any_reg ? sizeof any / sizeof *any : 1); i++) {
        unsigned reg = any_reg ? any[i] : shape->reg;
        struct encoding e = {.length = 0};
        if (shape->shapes & SHAPE_PLAIN) {
            put_hex(&e, shape->prefix);
            put_rex(&e, shape, 0, NO_INDEX, 0);
            put_hex(&e, shape->opcode);
            visit(e.bytes, e.length, context);
        }
        for (unsigned rm = 0; rm < 16 && (shape->shapes & SHAPE_REGISTER); rm++) {
            e.length = 0;
            encode_register(&e, shape, reg, rm);
            visit(e.bytes, e.length, context);
        }
        size_t count = sizeof memory_shapes / sizeof *memory_shapes;
        for (size_t m = 0; m < count && (shape->shapes & SHAPE_MEMORY); m++) {
            e.length = 0;
            encode_memory(&e, shape, reg, &memory_shapes[m], site, data);
            visit(e.bytes, e.length, context);
        }
    }
}
