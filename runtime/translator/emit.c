/* SPDX-License-Identifier: MIT */
/* The encoder (SDM 2A 2.1, 2.2). */
#include "runtime/translator/emit.h"

#include <string.h>

enum { NUMBER_RSP = 4, NUMBER_RBP = 5 };

void emit_raw(struct emit *e, const uint8_t *bytes, size_t count)
{
    if (count > EMIT_MAX - e->used) {
        e->failed = true;
        return;
    }
    memcpy(e->bytes + e->used, bytes, count);
    e->used += (uint32_t)count;
}

static void put(struct emit *e, uint8_t byte)
{
    emit_raw(e, &byte, 1);
}

static void put32(struct emit *e, int32_t value)
{
    emit_raw(e, (const uint8_t *)&value, 4);
}

/* ---- ModRM ---- */
static void put_modrm(struct emit *e, unsigned reg, const struct host_rm *rm)
{
    reg = (reg & 7) << 3;
    if (!rm->memory) {
        put(e, (uint8_t)(0xc0 | reg | (rm->base & 7)));
        return;
    }
    if (rm->base == NO_REGISTER) { /* [index * scale + disp32] */
        unsigned index = rm->index == NO_REGISTER ? NUMBER_RSP : rm->index & 7u;
        put(e, (uint8_t)(reg | 4));
        put(e, (uint8_t)(rm->scale << 6 | index << 3 | 5));
        put32(e, rm->disp);
        return;
    }
    unsigned base = rm->base & 7;
    bool sib = rm->index != NO_REGISTER || base == NUMBER_RSP;
    unsigned mod = rm->disp == 0 && base != NUMBER_RBP ? 0 : rm->disp == (int8_t)rm->disp ? 1 : 2;
    put(e, (uint8_t)(mod << 6 | reg | (sib ? 4 : base)));
    if (sib) {
        unsigned index = rm->index == NO_REGISTER ? NUMBER_RSP : rm->index & 7u;
        put(e, (uint8_t)((rm->index == NO_REGISTER ? 0 : rm->scale) << 6 | index << 3 | base));
    }
    if (mod == 1)
        put(e, (uint8_t)rm->disp);
    else if (mod == 2)
        put32(e, rm->disp);
}

static unsigned high_bit(unsigned reg)
{
    return reg != NO_REGISTER && reg & 8;
}

/* `rex`: bits R, X, B as REX has them. */
static void put_vex(struct emit *e, const struct host_insn *insn, unsigned rex)
{
    put(e, 0xc4);
    put(e, (uint8_t)(((~rex & 7) << 5) | insn->map));
    put(e, (uint8_t)(insn->wide << 7 | (~insn->vex_register & 15) << 3 | insn->vex_long << 2 |
                     insn->vex_prefix));
}

static void put_prefixes(struct emit *e, const struct host_insn *insn, unsigned rex)
{
    if (insn->operand16)
        put(e, 0x66);
    if (insn->repeat)
        put(e, insn->repeat);
    if (rex || insn->rex)
        put(e, (uint8_t)(0x40 | rex));
    if (insn->map)
        put(e, 0x0f);
    if (insn->map > 1)
        put(e, insn->map == 2 ? 0x38 : 0x3a);
}

bool emit_insn(struct emit *e, const struct host_insn *insn, bool legacy_high)
{
    unsigned rex = insn->wide ? 8 : 0;
    if (insn->no_modrm) {
        rex |= high_bit(insn->reg) ? 1 : 0;
    } else {
        rex |= high_bit(insn->reg) ? 4 : 0;
        rex |= insn->rm.memory && high_bit(insn->rm.index) ? 2 : 0;
        rex |= high_bit(insn->rm.base) ? 1 : 0;
    }
    if (legacy_high && (rex || insn->rex))
        return false;
    if (insn->vex)
        put_vex(e, insn, rex);
    else
        put_prefixes(e, insn, rex);
    if (insn->no_modrm) {
        put(e, (uint8_t)(insn->opcode | (insn->reg & 7)));
    } else {
        put(e, insn->opcode);
        put_modrm(e, insn->reg, &insn->rm);
    }
    emit_raw(e, insn->immediate, insn->immediate_size);
    return true;
}

/* ---- one opcode, a register and an operand ---- */
static void simple(struct emit *e, bool wide, uint8_t map, uint8_t opcode, unsigned reg,
                   struct host_rm rm)
{
    struct host_insn insn = {
        .wide = wide, .map = map, .opcode = opcode, .reg = (uint8_t)reg, .rm = rm};
    emit_insn(e, &insn, false);
}

void emit_mov(struct emit *e, unsigned to, unsigned from)
{
    simple(e, true, 0, 0x8b, to, RM_REGISTER(from));
}
void emit_mov_sized(struct emit *e, bool wide, unsigned to, struct host_rm from)
{
    simple(e, wide, 0, 0x8b, to, from);
}
void emit_load(struct emit *e, unsigned to, struct host_rm from)
{
    simple(e, true, 0, 0x8b, to, from);
}
void emit_store(struct emit *e, struct host_rm to, unsigned from)
{
    simple(e, true, 0, 0x89, from, to);
}
void emit_store_immediate(struct emit *e, struct host_rm to, int32_t value)
{
    simple(e, true, 0, 0xc7, 0, to);
    put32(e, value);
}
void emit_store_byte(struct emit *e, struct host_rm to, uint8_t value)
{
    simple(e, false, 0, 0xc6, 0, to);
    put(e, value);
}
void emit_load_sign(struct emit *e, unsigned to, struct host_rm from)
{
    simple(e, false, 1, 0xbe, to, from);
}
void emit_lea(struct emit *e, unsigned to, struct host_rm from)
{
    simple(e, true, 0, 0x8d, to, from);
}
void emit_lea32(struct emit *e, unsigned to, struct host_rm from)
{
    simple(e, false, 0, 0x8d, to, from);
}
void emit_zero_extend16(struct emit *e, unsigned to, unsigned from)
{
    simple(e, false, 1, 0xb7, to, RM_REGISTER(from));
}

void emit_zero_extend8(struct emit *e, unsigned to, struct host_rm from)
{
    simple(e, false, 1, 0xb6, to, from);
}

void emit_constant(struct emit *e, unsigned to, uint64_t value)
{
    struct host_insn insn = {.opcode = 0xb8, .no_modrm = true, .reg = (uint8_t)to};
    if (value == (uint32_t)value) {
        insn.immediate_size = 4;
    } else if (value == (uint64_t)(int64_t)(int32_t)value) {
        simple(e, true, 0, 0xc7, 0, RM_REGISTER(to));
        put32(e, (int32_t)value);
        return;
    } else {
        insn.wide = true;
        insn.immediate_size = 8;
    }
    memcpy(insn.immediate, &value, 8);
    emit_insn(e, &insn, false);
}

/* shrx to, from, rsp: VEX.LZ.F2.0F38.W1 F7 /r, the count in vvvv. */
void emit_shift_by_12(struct emit *e, unsigned to, unsigned from)
{
    put(e, 0xc4);
    put(e, (uint8_t)((to & 8 ? 0 : 0x80) | 0x40 | (from & 8 ? 0 : 0x20) | 2));
    put(e, (uint8_t)(0x80 | (~(unsigned)NUMBER_RSP & 15) << 3 | 3));
    put(e, 0xf7);
    put(e, (uint8_t)(0xc0 | (to & 7) << 3 | (from & 7)));
}

void emit_flags_to_rax(struct emit *e)
{
    EMIT_RAW(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto %al */
}
void emit_flags_from_rax(struct emit *e)
{
    EMIT_RAW(e, 0x04, 0x7f, 0x9e); /* add $0x7f, %al: OF as it was; sahf */
}

void emit_shift_right(struct emit *e, unsigned reg, uint8_t count)
{
    simple(e, true, 0, 0xc1, 5, RM_REGISTER(reg));
    put(e, count);
}
void emit_compare(struct emit *e, unsigned reg, int32_t value)
{
    simple(e, true, 0, 0x81, 7, RM_REGISTER(reg));
    put32(e, value);
}

void emit_endbr(struct emit *e)
{
    EMIT_RAW(e, 0xf3, 0x0f, 0x1e, 0xfa);
}

/* ---- jumps ---- */
void emit_jump_register(struct emit *e, unsigned reg)
{
    simple(e, false, 0, 0xff, 4, RM_REGISTER(reg));
}
void emit_jump_memory(struct emit *e, struct host_rm from)
{
    simple(e, false, 0, 0xff, 4, from);
}

/* The displacement of what has just been emitted but for it. */
static void put_relative(struct emit *e, const void *target)
{
    int64_t from = (int64_t)(intptr_t)e->base + e->used + 4;
    int64_t distance = (int64_t)(intptr_t)target - from;
    if (distance != (int32_t)distance)
        e->failed = true;
    put32(e, (int32_t)distance);
}

void emit_jump_to(struct emit *e, const void *target)
{
    put(e, 0xe9);
    put_relative(e, target);
}
void emit_call_to(struct emit *e, const void *target)
{
    put(e, 0xe8);
    put_relative(e, target);
}
void emit_jump_slot(struct emit *e, const void *slot)
{
    EMIT_RAW(e, 0xff, 0x25);
    put_relative(e, slot);
}
void emit_lea_of(struct emit *e, unsigned to, const void *address)
{
    EMIT_RAW(e, (uint8_t)(0x48 | (to & 8 ? 4 : 0)), 0x8d, (uint8_t)((to & 7) << 3 | 5));
    put_relative(e, address);
}

uint32_t emit_jump_if(struct emit *e, unsigned condition)
{
    EMIT_RAW(e, 0x0f, (uint8_t)(0x80 | condition), 0, 0, 0, 0);
    return e->used - 4;
}
uint32_t emit_jump(struct emit *e)
{
    EMIT_RAW(e, 0xe9, 0, 0, 0, 0);
    return e->used - 4;
}
uint32_t emit_jump_if_zero(struct emit *e)
{
    EMIT_RAW(e, 0xe3, 0);
    return e->used - 1;
}
void emit_here(struct emit *e, uint32_t jump)
{
    int32_t distance = (int32_t)(e->used - (jump + 4));
    if (!e->failed)
        memcpy(e->bytes + jump, &distance, 4);
}
void emit_here_short(struct emit *e, uint32_t jump)
{
    uint32_t distance = e->used - (jump + 1);
    if (distance > 127)
        e->failed = true;
    if (!e->failed)
        e->bytes[jump] = (uint8_t)distance;
}
void emit_jump_back(struct emit *e, uint32_t target)
{
    emit_jump_to(e, e->base + target);
}
void emit_jump_if_zero_back(struct emit *e, uint32_t target)
{
    int32_t distance = (int32_t)target - (int32_t)(e->used + 2);
    if (distance < -128)
        e->failed = true;
    EMIT_RAW(e, 0xe3, (uint8_t)distance);
}
