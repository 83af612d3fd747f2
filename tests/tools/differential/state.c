/* SPDX-License-Identifier: MIT */
/* The state that a case begins in. */
#include <string.h>

#include "tests/tools/differential/generate.h"

uint64_t value_of_some_shape(uint64_t *state)
{
    uint64_t value = random_next(state), bit = random_next(state) & 63;
    switch (random_next(state) % 10) {
    case 0:
        return value & 0xff;
    case 1:
        return 0 - (value & 0xff);
    case 2:
        return 1ull << bit;
    case 3:
        return (1ull << bit) - 1;
    case 4:
        return (uint32_t)value;
    case 5:
        return (uint64_t)(int64_t)(int32_t)value;
    case 6:
        return value >> bit;
    case 7:
        return 0;
    default:
        return value;
    }
}

static unsigned percent(struct generator *g)
{
    return (unsigned)(random_next(&g->state) % 100);
}

/* ---- general registers ---- */
/* Somewhere in the writable data, mostly well inside; at times close to a page's end or to where nothing is. */
static uint64_t pointer(struct generator *g)
{
    uint64_t r = random_next(&g->state);
    unsigned kind = percent(g);
    if (kind < 70)
        return DATA_FIRST + 0x400 + r % (DATA_WRITABLE * 4096 - 0x800);
    if (kind < 85) /* about a page boundary */
        return DATA_FIRST + 4096 * (1 + (r >> 32) % (DATA_WRITABLE - 1)) - 32 + r % 64;
    if (kind < 90)
        return DATA_FIRST + DATA_BYTES - 64 + r % 96;
    if (kind < 95)
        return DATA_FIRST + r % 48;
    if (kind < 98)
        return DATA_READ_ONLY + r % 4000;
    return r; /* nowhere, as a rule not canonical */
}

static void make_registers(struct generator *g, struct machine *m)
{
    for (int reg = 0; reg < 16; reg++) {
        unsigned kind = percent(g);
        g->role[reg] = kind < 35 ? ROLE_POINTER : kind < 50 ? ROLE_SMALL : ROLE_VALUE;
    }
    g->role[RSP_NUMBER] = ROLE_POINTER;
    if (percent(g) < 80) /* RSI and RDI for string instructions, RCX for their count */
        g->role[6] = g->role[7] = ROLE_POINTER;
    if (percent(g) < 70)
        g->role[1] = ROLE_SMALL;
    do
        g->aligned = (int)(random_next(&g->state) % 16);
    while (g->aligned == RSP_NUMBER);
    g->role[g->aligned] = ROLE_POINTER;
    for (int reg = 0; reg < 16; reg++) {
        switch (g->role[reg]) {
        case ROLE_POINTER:
            m->r[reg] = pointer(g);
            if (percent(g) < 40)
                m->r[reg] &= ~15ull;
            break;
        case ROLE_SMALL:
            m->r[reg] = random_next(&g->state) & 15;
            if (reg == 1 && percent(g) < 20)
                m->r[reg] = random_next(&g->state) % 3000;
            break;
        default:
            m->r[reg] = value_of_some_shape(&g->state);
        }
    }
    m->r[g->aligned] &= ~15ull;
    if (percent(g) < 90)
        m->r[RSP_NUMBER] = DATA_FIRST + 0x1800 + (random_next(&g->state) & 0x7f8);
    m->rip = CODE_BASE;
    m->rflags = 2 | (random_next(&g->state) & FLAGS_RANDOM);
    if (percent(g) < 60)
        m->rflags &= ~0x400ull; /* DF */
}

/* ---- FP state ---- */
static uint64_t double_of_some_shape(struct generator *g)
{
    uint64_t r = random_next(&g->state), sign = r & 1ull << 63;
    union {
        double value;
        uint64_t bits;
    } number;
    switch (percent(g) / 8) {
    case 0:
        return sign;
    case 1:
        return sign | 0x7ff0000000000000;
    case 2:
        return sign | 0x7ff8000000000000 | (r & 0xffff);
    case 3:
        return sign | 0x7ff0000000000000 | (r & 0xffffffff) | 1; /* signalling */
    case 4:
        return sign | (r & 0xfffffffffffff); /* denormal */
    case 5:
    case 6:
    case 7:
        number.value = (double)(int64_t)(r >> (r & 63)) / 8;
        return number.bits | sign;
    default:
        return r;
    }
}

static uint32_t single_of_some_shape(struct generator *g)
{
    uint32_t r = (uint32_t)random_next(&g->state), sign = r & 1u << 31;
    union {
        float value;
        uint32_t bits;
    } number;
    switch (percent(g) / 8) {
    case 0:
        return sign;
    case 1:
        return sign | 0x7f800000;
    case 2:
        return sign | 0x7fc00000 | (r & 0xff);
    case 3:
        return sign | 0x7f800000 | (r & 0xffff) | 1;
    case 4:
        return sign | (r & 0x7fffff);
    case 5:
    case 6:
    case 7:
        number.value = (float)(int32_t)(r >> (r & 31)) / 8;
        return number.bits | sign;
    default:
        return r;
    }
}

static void make_vector(struct generator *g, uint8_t lane[16])
{
    unsigned kind = percent(g);
    for (unsigned n = 0; n < 2; n++) {
        uint64_t value = kind < 30 ? double_of_some_shape(g)
                         : kind < 60
                             ? single_of_some_shape(g) | (uint64_t)single_of_some_shape(g) << 32
                             : value_of_some_shape(&g->state);
        memcpy(lane + 8 * n, &value, 8);
    }
}

/* An 80-bit number: mostly normal; zeros, infinities, NaNs, denormals, and what no operation produces any more. */
static void make_extended(struct generator *g, uint8_t st[16])
{
    uint64_t mantissa = random_next(&g->state);
    uint16_t high = (uint16_t)random_next(&g->state);
    switch (percent(g) / 6) {
    case 0:
        mantissa = 0;
        high &= 0x8000;
        break;
    case 1:
        mantissa = 1ull << 63;
        high |= 0x7fff;
        break;
    case 2:
        high |= 0x7fff; /* a NaN of either kind, or unsupported */
        break;
    case 3:
        high &= 0x8000; /* denormal */
        break;
    case 4:
        break; /* integer bit at random: unnormal */
    case 5:
    case 6:
    case 7:
    case 8: { /* a small integer */
        uint64_t value = (mantissa & 0xffff) | 1;
        unsigned zeros = (unsigned)__builtin_clzll(value);
        mantissa = value << zeros;
        high = (uint16_t)((high & 0x8000) | (16383 + 63 - zeros));
        break;
    }
    default:
        mantissa |= 1ull << 63;
        if (percent(g) < 70)
            high = (uint16_t)((high & 0x8000) | (16383 - 40 + high % 80));
    }
    memset(st, 0, 16);
    memcpy(st, &mantissa, 8);
    memcpy(st + 8, &high, 2);
}

static void make_fp(struct generator *g, struct machine *m)
{
    uint64_t r = random_next(&g->state);
    uint16_t control = 0x37f, status = 0;
    uint32_t mxcsr = 0x1f80;
    memset(m->fx, 0, sizeof m->fx);
    if (percent(g) < 40)
        control = (uint16_t)(0x7f | (r & 0xf00));
    if (percent(g) < 15)
        control &= (uint16_t) ~(r >> 16 & 0x3f);
    if ((control & 0x300) == 0x100)
        control |= 0x300; /* a precision that is reserved */
    if (percent(g) < 50)
        status = (uint16_t)(r >> 32 & 0x7f00); /* TOP, condition codes */
    if (percent(g) < 20)
        status |= (uint16_t)(r >> 48 & 0x7f & (percent(g) < 80 ? control | 0x40 : 0x7f));
    if (status & ~control & 0x3f)
        status |= 0x8080; /* ES, B */
    if (percent(g) < 50)
        mxcsr |= (uint32_t)(r >> 20 & 0xe07f);
    if (percent(g) < 15)
        mxcsr &= ~(uint32_t)(r >> 40 & 0x1f80);
    memcpy(m->fx, &control, 2);
    memcpy(m->fx + 2, &status, 2);
    m->fx[4] = (uint8_t)(percent(g) < 40 ? 0xff : percent(g) < 30 ? 0 : r >> 8);
    memcpy(FX_MXCSR(m), &mxcsr, 4);
    for (unsigned n = 0; n < 8; n++)
        make_extended(g, FX_ST(m, n));
    for (unsigned n = 0; n < 16; n++) {
        make_vector(g, FX_XMM(m, n));
        make_vector(g, m->ymm_high[n]);
    }
}

/* ---- memory ---- */
static void make_data(struct generator *g, struct machine *m)
{
    unsigned kind = percent(g);
    uint64_t fill = percent(g) < 30 ? 0 : (random_next(&g->state) & 0xff) * 0x0101010101010101u;
    for (unsigned at = 0; at < DATA_BYTES; at += 16) {
        uint8_t *to = m->data + at;
        uint64_t value = fill;
        if (kind < 25) { /* runs of equal bytes, for string comparisons */
            memcpy(to, &value, 8);
            memcpy(to + 8, &value, 8);
            if (random_next(&g->state) % 8 == 0)
                to[random_next(&g->state) & 15] ^= (uint8_t)random_next(&g->state);
            continue;
        }
        if (kind < 50 || random_next(&g->state) & 1) {
            make_vector(g, to);
            continue;
        }
        make_extended(g, to);
    }
}

void make_state(struct generator *g, struct machine *m)
{
    make_registers(g, m);
    make_fp(g, m);
    make_data(g, m);
    m->vector = VECTOR_NONE;
    m->error = 0;
    m->cr2 = 0;
}
