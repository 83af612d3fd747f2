/* SPDX-License-Identifier: MIT */
/* Instructions of the days before 64-bit mode: BCD arithmetic, PUSHA and POPA, BOUND, ARPL, SALC; and XLAT, which
 * stayed. The host runs none of the first in 64-bit mode, so they are written out from their description (SDM 2);
 * flags that it calls undefined are kept, but for those that follow from the result. */
#include "runtime/soft/operands.h"
#include "runtime/soft/segments.h"

#define GUEST_AL REG8(REG_OFFSET(RAX))
#define GUEST_AH REG8(REG_OFFSET(RAX) + 1)
#define GUEST_AX REG16(REG_OFFSET(RAX))

/* SF, ZF and PF of AL; the carries as given. */
static void set_decimal_flags(struct vcpu *cpu, bool carry, bool half_carry)
{
    uint8_t result = GUEST_AL;
    unsigned status = cpu->status & ~(STATUS_SF | STATUS_ZF | STATUS_PF | STATUS_CF | STATUS_AF);
    if (result & 0x80)
        status |= STATUS_SF;
    if (result == 0)
        status |= STATUS_ZF;
    if (!__builtin_parity(result))
        status |= STATUS_PF;
    if (carry)
        status |= STATUS_CF;
    if (half_carry)
        status |= STATUS_AF;
    cpu->status = (uint16_t)status;
}

/* ---- BCD ---- */
/* AAA and AAS: AX by a digit in AL that has overflown. */
static void adjust_unpacked(struct vcpu *cpu, uint16_t by)
{
    bool carry = (GUEST_AL & 15) > 9 || cpu->status & STATUS_AF;
    if (carry)
        GUEST_AX = (uint16_t)(GUEST_AX + by);
    GUEST_AL &= 15;
    set_decimal_flags(cpu, carry, carry);
}

OP(aaa)
{
    adjust_unpacked(cpu, 0x106);
    NEXT;
}

OP(aas)
{
    adjust_unpacked(cpu, (uint16_t)-0x106);
    NEXT;
}

OP(daa)
{
    uint8_t before = GUEST_AL;
    bool half = (before & 15) > 9 || cpu->status & STATUS_AF;
    bool carry = before > 0x99 || cpu->status & STATUS_CF;
    GUEST_AL = (uint8_t)(before + (half ? 6 : 0) + (carry ? 0x60 : 0));
    set_decimal_flags(cpu, carry, half);
    NEXT;
}

OP(das)
{
    uint8_t before = GUEST_AL;
    bool half = (before & 15) > 9 || cpu->status & STATUS_AF;
    bool high = before > 0x99 || cpu->status & STATUS_CF;
    bool borrow = half && before < 6; /* SDM 2A DAS: CF is set by the first step's borrow as well */
    GUEST_AL = (uint8_t)(before - (half ? 6 : 0) - (high ? 0x60 : 0));
    set_decimal_flags(cpu, high || borrow, half);
    NEXT;
}

OP(aam)
{
    uint8_t base = (uint8_t)i->imm;
    if (base == 0)
        cpu_raise(cpu, i, EXC_DE);
    uint8_t before = GUEST_AL;
    GUEST_AH = before / base;
    GUEST_AL = before % base;
    set_decimal_flags(cpu, false, false);
    NEXT;
}

OP(aad)
{
    GUEST_AX = (uint8_t)(GUEST_AL + GUEST_AH * (uint8_t)i->imm);
    set_decimal_flags(cpu, false, false);
    NEXT;
}

OP(salc)
{
    GUEST_AL = cpu->status & STATUS_CF ? 0xff : 0;
    NEXT;
}

/* ---- PUSHA, POPA ---- */
static const struct insn *push_all(struct vcpu *cpu, const struct insn *i, unsigned size)
{
    uint64_t sp = cpu->r[RSP], slots[8];
    /* what faults does so before anything is stored */
    for (unsigned reg = 0; reg < 8; reg++) {
        slots[reg] = stack_linear(cpu, i, sp - (reg + 1) * size, size);
        probe_write(cpu, i, slots[reg], size);
    }
    for (unsigned reg = 0; reg < 8; reg++)
        store(cpu, i, slots[reg], size, cpu->r[reg]); /* RSP as it was */
    stack_set(cpu, sp - 8 * size);
    NEXT_SLOW;
}

static const struct insn *pop_all(struct vcpu *cpu, const struct insn *i, unsigned size)
{
    uint64_t sp = cpu->r[RSP], values[8];
    for (unsigned reg = 8; reg-- > 0;)
        values[reg] = stack_pop(cpu, i, &sp, size);
    for (unsigned reg = 0; reg < 8; reg++) {
        if (reg == RSP)
            continue;
        cpu->r[reg] = size == 2 ? (cpu->r[reg] & ~0xffffull) | values[reg] : values[reg];
    }
    stack_set(cpu, sp);
    NEXT_SLOW;
}

OP(pusha)
{
    return push_all(cpu, i, 2);
}
OP(pushad)
{
    return push_all(cpu, i, 4);
}
OP(popa)
{
    return pop_all(cpu, i, 2);
}
OP(popad)
{
    return pop_all(cpu, i, 4);
}

/* ---- BOUND, ARPL, XLAT ---- */
/* Two bounds in memory; both are read before they are looked at. */
static int64_t bound(struct vcpu *cpu, const struct insn *i, unsigned n, unsigned size)
{
    uint64_t offset = ea(cpu, i) + n * size;
    if (n && i->flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    if (n && i->flags & INSN_ADDRESS16)
        offset = (uint16_t)offset;
    uint64_t value = load(cpu, i, linear_slow(cpu, i, offset, size, false), size);
    return size == 2 ? (int16_t)value : (int32_t)value;
}

OP(bound16)
{
    int64_t low = bound(cpu, i, 0, 2), high = bound(cpu, i, 1, 2), value = (int16_t)REG16(i->dst);
    if (value < low || value > high)
        cpu_raise(cpu, i, EXC_BR);
    NEXT_SLOW;
}
OP(bound32)
{
    int64_t low = bound(cpu, i, 0, 4), high = bound(cpu, i, 1, 4), value = (int32_t)REG32(i->dst);
    if (value < low || value > high)
        cpu_raise(cpu, i, EXC_BR);
    NEXT_SLOW;
}

/* The selector with the RPL raised to the source's, and ZF set, if it was lower. */
static uint16_t adjust_rpl(struct vcpu *cpu, uint16_t selector, uint16_t source)
{
    bool lower = (selector & 3) < (source & 3);
    cpu->status = (uint16_t)((cpu->status & ~STATUS_ZF) | (lower ? STATUS_ZF : 0));
    return lower ? (uint16_t)((selector & ~3u) | (source & 3u)) : selector;
}

OP(arpl_r)
{
    REG16(i->dst) = adjust_rpl(cpu, REG16(i->dst), REG16(i->src));
    NEXT;
}
OP(arpl_m)
{
    struct rmw rmw;
    memory16 *to = rmw_begin(cpu, i, linear(cpu, i, 2, true), 2, &rmw);
    *to = adjust_rpl(cpu, *to, REG16(i->src));
    rmw_end(cpu, i, &rmw);
    NEXT_SLOW;
}

OP(xlat)
{
    uint64_t offset = cpu->r[RBX] + GUEST_AL;
    if (i->flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    if (i->flags & INSN_ADDRESS16)
        offset = (uint16_t)offset;
    GUEST_AL = (uint8_t)load(cpu, i, linear_slow(cpu, i, offset, 1, false), 1);
    NEXT_SLOW;
}

/* ---- selection ---- */
#define SELECT(name)                                                                               \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        (void)d;                                                                                   \
        (void)out;                                                                                 \
        return name;                                                                               \
    }
SELECT(aaa)
SELECT(aas)
SELECT(daa)
SELECT(das)
SELECT(salc)
SELECT(pusha)
SELECT(pushad)
SELECT(popa)
SELECT(popad)

static insn_fn *select_aam(struct decoded *d, struct insn *out)
{
    out->imm = d->operands[0].imm.value.u & 0xff;
    return aam;
}

static insn_fn *select_aad(struct decoded *d, struct insn *out)
{
    out->imm = d->operands[0].imm.value.u & 0xff;
    return aad;
}

static insn_fn *select_bound(struct decoded *d, struct insn *out)
{
    out->dst = operand_register(d, 0);
    return operand_size(d, 0) == 1 ? bound16 : bound32;
}

/* Protected mode only. */
static insn_fn *select_arpl(struct decoded *d, struct insn *out)
{
    if (!vcpu_protected(d->cpu) || vcpu_v86(d->cpu))
        return NULL;
    out->src = operand_register(d, 1);
    if (operand_is_memory(d, 0))
        return arpl_m;
    out->dst = operand_register(d, 0);
    return arpl_r;
}

static insn_fn *select_xlat(struct decoded *d, struct insn *out)
{
    out->flags = (uint8_t)(out->flags & ~(INSN_EA | INSN_RIPREL));
    if (d->code_bits != 64)
        out->flags |= INSN_LEGACY;
    if (d->zydis->address_width != 64)
        out->flags |= d->zydis->address_width == 32 ? INSN_ADDRESS32 : INSN_ADDRESS16;
    out->segment = (uint8_t)(d->operands[0].mem.segment - ZYDIS_REGISTER_ES);
    return xlat;
}

const struct op_row ops_legacy[] = {
    {ZYDIS_MNEMONIC_AAA, select_aaa},       {ZYDIS_MNEMONIC_AAS, select_aas},
    {ZYDIS_MNEMONIC_DAA, select_daa},       {ZYDIS_MNEMONIC_DAS, select_das},
    {ZYDIS_MNEMONIC_AAM, select_aam},       {ZYDIS_MNEMONIC_AAD, select_aad},
    {ZYDIS_MNEMONIC_SALC, select_salc},     {ZYDIS_MNEMONIC_PUSHA, select_pusha},
    {ZYDIS_MNEMONIC_PUSHAD, select_pushad}, {ZYDIS_MNEMONIC_POPA, select_popa},
    {ZYDIS_MNEMONIC_POPAD, select_popad},   {ZYDIS_MNEMONIC_BOUND, select_bound},
    {ZYDIS_MNEMONIC_ARPL, select_arpl},     {ZYDIS_MNEMONIC_XLAT, select_xlat},
    {ZYDIS_MNEMONIC_INVALID, NULL},
};
