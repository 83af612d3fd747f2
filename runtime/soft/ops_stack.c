/* SPDX-License-Identifier: MIT */
/* PUSH, POP, ENTER, LEAVE, PUSHF, POPF, LAHF, SAHF and the flag bits. */
#include "runtime/soft/system.h"

/* insn.aux holds the bytes of a push. */

/* ---- out of line: any mode, any size ---- */
static void push(struct vcpu *cpu, const struct insn *i, uint64_t value)
{
    uint64_t sp = cpu->r[RSP] - i->aux;
    store(cpu, i, stack_linear(cpu, i, sp, i->aux), i->aux, value);
    stack_set(cpu, sp);
}

static void set_register(struct vcpu *cpu, unsigned offset, unsigned size, uint64_t value)
{
    if (size == 2)
        REG16(offset) = (uint16_t)value;
    else if (size == 4)
        SET32(offset, value);
    else
        REG64(offset) = value;
}

SLOW push_register_slow(struct vcpu *cpu, const struct insn *i)
{
    push(cpu, i, REG64(i->dst));
    NEXT_SLOW;
}

SLOW push_immediate_slow(struct vcpu *cpu, const struct insn *i)
{
    push(cpu, i, i->imm);
    NEXT_SLOW;
}

SLOW push_memory_slow(struct vcpu *cpu, const struct insn *i)
{
    push(cpu, i, load(cpu, i, linear(cpu, i, i->aux, false), i->aux));
    NEXT_SLOW;
}

SLOW pop_register_slow(struct vcpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP];
    uint64_t value = stack_pop(cpu, i, &sp, i->aux);
    stack_set(cpu, sp);
    set_register(cpu, i->dst, i->aux, value);
    NEXT_SLOW;
}

/* ---- PUSH ---- */
OP(push_r64)
{
    uint64_t sp = cpu->r[RSP] - 8;
    uintptr_t host;
    if (!hit_write(cpu, sp, 8, &host))
        return push_register_slow(cpu, i);
    *(memory64 *)host = REG64(i->dst);
    cpu->r[RSP] = sp;
    NEXT;
}

OP(push_i64)
{
    uint64_t sp = cpu->r[RSP] - 8;
    uintptr_t host;
    if (!hit_write(cpu, sp, 8, &host))
        return push_immediate_slow(cpu, i);
    *(memory64 *)host = i->imm;
    cpu->r[RSP] = sp;
    NEXT;
}

OP(push_m64)
{
    uint64_t sp = cpu->r[RSP] - 8;
    uintptr_t from, host;
    if (!address_simple(i) || !hit_read(cpu, address_of(cpu, i), 8, &from) ||
        !hit_write(cpu, sp, 8, &host))
        return push_memory_slow(cpu, i);
    *(memory64 *)host = *(const memory64 *)from;
    cpu->r[RSP] = sp;
    NEXT;
}

/* The selector, zero-extended (APM 3 PUSH). */
OP(push_segment)
{
    push(cpu, i, cpu->segment[i->src].selector);
    NEXT_SLOW;
}

static insn_fn *select_push(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    switch (d->operands[0].type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (ZydisRegisterGetClass(d->operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
            out->src = (uint8_t)ZydisRegisterGetId(d->operands[0].reg.value);
            return push_segment;
        }
        return out->aux == 8 ? push_r64 : push_register_slow;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return out->aux == 8 ? push_m64 : push_memory_slow;
    default:
        return out->aux == 8 ? push_i64 : push_immediate_slow;
    }
}

/* ---- POP ---- */
OP(pop_r64)
{
    uint64_t sp = cpu->r[RSP];
    uintptr_t host;
    if (!hit_read(cpu, sp, 8, &host))
        return pop_register_slow(cpu, i);
    cpu->r[RSP] = sp + 8;
    REG64(i->dst) = *(const memory64 *)host; /* POP RSP: the value wins */
    NEXT;
}

/* An address with RSP as base is computed after the increment (SDM 2B POP); RSP itself moves once nothing can fault. */
OP(pop_memory)
{
    uint64_t sp = cpu->r[RSP];
    uint64_t value = stack_pop(cpu, i, &sp, i->aux);
    uint64_t offset = ea(cpu, i), address;
    if (i->base == offsetof(struct vcpu, r[RSP]))
        offset += i->aux;
    if (i->flags & INSN_EA) {
        if (i->flags & INSN_ADDRESS32)
            offset = (uint32_t)offset;
        address = linear_slow(cpu, i, offset, i->aux, true);
    } else {
        address = offset + cpu->base[i->segment];
    }
    store(cpu, i, address, i->aux, value);
    stack_set(cpu, sp);
    NEXT_SLOW;
}

OP(pop_segment)
{
    uint64_t sp = cpu->r[RSP];
    int segment = i->src;
    uint16_t selector = (uint16_t)load(cpu, i, stack_linear(cpu, i, sp, i->aux), 2);
    uint64_t next = insn_next_rip(cpu, i), mask = stack_mask(cpu);
    if (vcpu_protected(cpu) && !vcpu_v86(cpu))
        segment_load(cpu, i, segment, selector);
    else
        segment_set_real(cpu, segment, selector);
    /* as wide as the stack was before SS changed */
    sp = (sp + i->aux) & mask;
    cpu->r[RSP] = mask == 0xffff ? (cpu->r[RSP] & ~mask) | sp : sp;
    if (segment == SEG_SS)
        cpu->shadow |= SHADOW_MOVSS;
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, next);
}

static insn_fn *select_pop(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    if (d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        return pop_memory;
    if (ZydisRegisterGetClass(d->operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
        out->src = (uint8_t)ZydisRegisterGetId(d->operands[0].reg.value);
        d->ends_block = true;
        return pop_segment;
    }
    return out->aux == 8 ? pop_r64 : pop_register_slow;
}

/* ---- ENTER and LEAVE ---- */
/* insn.imm: bytes of locals and, above 16 bits, the nesting level. */
OP(enter)
{
    unsigned size = i->aux, level = i->imm >> 16 & 31;
    uint64_t mask = stack_mask(cpu);
    uint64_t bp = cpu->r[RBP], sp = cpu->r[RSP] - size, frame = sp;
    store(cpu, i, stack_linear(cpu, i, sp, size), size, bp);
    for (unsigned n = 1; n < level; n++) {
        bp -= size;
        uint64_t pointer = load(cpu, i, stack_linear(cpu, i, bp, size), size);
        sp -= size;
        store(cpu, i, stack_linear(cpu, i, sp, size), size, pointer);
    }
    if (level > 0) {
        sp -= size;
        store(cpu, i, stack_linear(cpu, i, sp, size), size, frame);
    }
    sp -= i->imm & 0xffff;
    /* the new top must be writable (SDM 2A ENTER) */
    probe_write(cpu, i, stack_linear(cpu, i, sp, size), size);
    set_register(cpu, offsetof(struct vcpu, r[RBP]), mask == 0xffff ? 2 : 8, frame & mask);
    stack_set(cpu, sp);
    NEXT_SLOW;
}

static insn_fn *select_enter(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    out->imm = (d->operands[0].imm.value.u & 0xffff) | (d->operands[1].imm.value.u & 0xff) << 16;
    return enter;
}

OP(leave_slow)
{
    uint64_t sp = cpu->r[RBP];
    uint64_t value = stack_pop(cpu, i, &sp, i->aux);
    stack_set(cpu, sp);
    set_register(cpu, offsetof(struct vcpu, r[RBP]), i->aux, value);
    NEXT_SLOW;
}

OP(leave64)
{
    uint64_t sp = cpu->r[RBP];
    uintptr_t host;
    if (!hit_read(cpu, sp, 8, &host))
        return leave_slow(cpu, i);
    cpu->r[RSP] = sp + 8;
    cpu->r[RBP] = *(const memory64 *)host;
    NEXT;
}

static insn_fn *select_leave(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return out->aux == 8 ? leave64 : leave_slow;
}

/* ---- the flags as a whole ---- */
/* PUSHF, POPF in virtual-8086 mode need IOPL 3: CR4.VME is not offered (SDM 3B 20.2.7). */
static void check_v86(struct vcpu *cpu, const struct insn *i)
{
    if (vcpu_v86(cpu) && (cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
        RAISE_GP();
}

OP(pushf_slow)
{
    check_v86(cpu, i);
    push(cpu, i, vcpu_rflags(cpu) & ~(uint64_t)(RFLAGS_VM | RFLAGS_RF));
    NEXT_SLOW;
}

OP(pushf64)
{
    uint64_t sp = cpu->r[RSP] - 8;
    uintptr_t host;
    if (!hit_write(cpu, sp, 8, &host))
        return pushf_slow(cpu, i);
    *(memory64 *)host = vcpu_rflags(cpu) & ~(uint64_t)(RFLAGS_VM | RFLAGS_RF);
    cpu->r[RSP] = sp;
    NEXT;
}

static insn_fn *select_pushf(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return out->aux == 8 ? pushf64 : pushf_slow;
}

/* SDM 2B POPF: who may change what. Interrupts that can now come, and single steps, are the engine's. */
OP(popf)
{
    check_v86(cpu, i);
    uint64_t sp = cpu->r[RSP];
    uint64_t value = stack_pop(cpu, i, &sp, i->aux);
    uint64_t change = RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    if (i->aux != 2)
        change |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (cpu->cpl == 0)
        change |= RFLAGS_IOPL;
    if (cpu->cpl <= (cpu->rflags & RFLAGS_IOPL) >> 12)
        change |= RFLAGS_IF;
    uint64_t before = vcpu_rflags(cpu);
    uint64_t flags = (before & ~change) | (value & change & ~(uint64_t)RFLAGS_RF);
    stack_set(cpu, sp);
    vcpu_set_rflags(cpu, flags);
    if ((flags & ~before & RFLAGS_IF) || (flags & RFLAGS_TF))
        return insn_leave(cpu, i, insn_next_rip(cpu, i));
    NEXT_SLOW;
}

static insn_fn *select_popf(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return popf;
}

/* ---- single flags ---- */
OP(lahf)
{
    REG8(offsetof(struct vcpu, r[RAX]) + 1) = (uint8_t)(cpu->status >> 8 | RFLAGS_ONE);
    NEXT;
}

OP(sahf)
{
    unsigned ah = REG8(offsetof(struct vcpu, r[RAX]) + 1);
    cpu->status = (uint16_t)((ah & 0xd5) << 8 | RFLAGS_ONE << 8 | (cpu->status & STATUS_OF));
    NEXT;
}

OP(clc)
{
    cpu->status &= (uint16_t)~STATUS_CF;
    NEXT;
}

OP(stc)
{
    cpu->status |= STATUS_CF;
    NEXT;
}

OP(cmc)
{
    cpu->status ^= STATUS_CF;
    NEXT;
}

OP(cld)
{
    cpu->rflags &= ~RFLAGS_DF;
    NEXT;
}

OP(std)
{
    cpu->rflags |= RFLAGS_DF;
    NEXT;
}

/* CLI and STI: CPL must not be above IOPL; CR4.VME and PVI are not offered. */
OP(cli)
{
    if (unlikely(cpu->cpl > (cpu->rflags & RFLAGS_IOPL) >> 12))
        RAISE_GP();
    cpu->rflags &= ~RFLAGS_IF;
    NEXT;
}

/* Interrupts stay off for one more instruction, if they were (SDM 2B STI). */
OP(sti)
{
    if (unlikely(cpu->cpl > (cpu->rflags & RFLAGS_IOPL) >> 12))
        RAISE_GP();
    if (!(cpu->rflags & RFLAGS_IF)) {
        cpu->rflags |= RFLAGS_IF;
        cpu->shadow |= SHADOW_STI;
    }
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

SELECT(lahf, lahf)
SELECT(sahf, sahf)
SELECT(clc, clc)
SELECT(stc, stc)
SELECT(cmc, cmc)
SELECT(cld, cld)
SELECT(std, std)
SELECT(cli, cli)

static insn_fn *select_sti(struct decoded *d, struct insn *out)
{
    (void)out;
    d->ends_block = true;
    return sti;
}

const struct op_row ops_stack[] = {
    {ZYDIS_MNEMONIC_PUSH, select_push},    {ZYDIS_MNEMONIC_POP, select_pop},
    {ZYDIS_MNEMONIC_ENTER, select_enter},  {ZYDIS_MNEMONIC_LEAVE, select_leave},
    {ZYDIS_MNEMONIC_PUSHF, select_pushf},  {ZYDIS_MNEMONIC_PUSHFD, select_pushf},
    {ZYDIS_MNEMONIC_PUSHFQ, select_pushf}, {ZYDIS_MNEMONIC_POPF, select_popf},
    {ZYDIS_MNEMONIC_POPFD, select_popf},   {ZYDIS_MNEMONIC_POPFQ, select_popf},
    {ZYDIS_MNEMONIC_LAHF, select_lahf},    {ZYDIS_MNEMONIC_SAHF, select_sahf},
    {ZYDIS_MNEMONIC_CLC, select_clc},      {ZYDIS_MNEMONIC_STC, select_stc},
    {ZYDIS_MNEMONIC_CMC, select_cmc},      {ZYDIS_MNEMONIC_CLD, select_cld},
    {ZYDIS_MNEMONIC_STD, select_std},      {ZYDIS_MNEMONIC_CLI, select_cli},
    {ZYDIS_MNEMONIC_STI, select_sti},      {0, NULL},
};
