/* SPDX-License-Identifier: MIT */
/* Segment registers and their bases; the rows of far branches, descriptor tables, INT, IRET and SYSCALL. */
#include "runtime/soft/ops_segment.h"

/* ---- MOV to and from a segment register ---- */
/* aux: the segment register. */
OP(mov_to_segment_r)
{
    segment_load(cpu, i, i->aux, REG16(i->src));
    NEXT_SLOW;
}

OP(mov_to_segment_m)
{
    segment_load(cpu, i, i->aux, (uint16_t)load(cpu, i, linear(cpu, i, 2, false), 2));
    NEXT_SLOW;
}

/* The next instruction, which sets ESP, is not parted from this one (SDM 3A 6.8.3). */
static const struct insn *stack_segment_loaded(struct vcpu *cpu, const struct insn *i)
{
    cpu->shadow |= SHADOW_MOVSS;
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

OP(mov_to_ss_r)
{
    segment_load(cpu, i, SEG_SS, REG16(i->src));
    return stack_segment_loaded(cpu, i);
}

OP(mov_to_ss_m)
{
    segment_load(cpu, i, SEG_SS, (uint16_t)load(cpu, i, linear(cpu, i, 2, false), 2));
    return stack_segment_loaded(cpu, i);
}

OP(mov_from_segment_r16)
{
    REG16(i->dst) = cpu->segment[i->aux].selector;
    NEXT;
}

OP(mov_from_segment_r)
{
    REG64(i->dst) = cpu->segment[i->aux].selector;
    NEXT;
}

OP(mov_from_segment_m)
{
    store(cpu, i, linear(cpu, i, 2, true), 2, cpu->segment[i->aux].selector);
    NEXT_SLOW;
}

insn_fn *select_mov_segment(struct decoded *d, struct insn *out)
{
    const ZydisDecodedOperand *to = &d->operands[0], *from = &d->operands[1];
    bool load = to->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                ZydisRegisterGetClass(to->reg.value) == ZYDIS_REGCLASS_SEGMENT;
    int segment = ZydisRegisterGetId(load ? to->reg.value : from->reg.value);
    const ZydisDecodedOperand *other = load ? from : to;
    bool memory = other->type == ZYDIS_OPERAND_TYPE_MEMORY;
    if (segment > SEG_GS || (load && segment == SEG_CS))
        return NULL;
    out->aux = (uint8_t)segment;
    if (!memory)
        out->dst = out->src = insn_register(other->reg.value);
    if (load && segment == SEG_SS) {
        d->ends_block = true;
        return memory ? mov_to_ss_m : mov_to_ss_r;
    }
    if (load)
        return memory ? mov_to_segment_m : mov_to_segment_r;
    if (memory)
        return mov_from_segment_m;
    return d->zydis->operand_width == 16 ? mov_from_segment_r16 : mov_from_segment_r;
}

/* ---- LDS, LES, LFS, LGS, LSS ---- */
/* aux: bytes of the offset; imm: the segment register. */
OP(load_far_pointer)
{
    uint8_t bytes[10];
    uint64_t offset = 0;
    uint16_t selector;
    load_bytes(cpu, i, linear(cpu, i, i->aux + 2u, false), bytes, i->aux + 2u);
    memcpy(&offset, bytes, i->aux);
    memcpy(&selector, bytes + i->aux, 2);
    segment_load(cpu, i, (int)i->imm, selector);
    if (i->aux == 2)
        REG16(i->dst) = (uint16_t)offset;
    else
        REG64(i->dst) = offset;
    if (i->imm == SEG_SS)
        return insn_leave(cpu, i, insn_next_rip(cpu, i));
    NEXT_SLOW;
}

static insn_fn *select_far_pointer(struct decoded *d, struct insn *out)
{
    switch (d->zydis->mnemonic) {
    case ZYDIS_MNEMONIC_LES:
        out->imm = SEG_ES;
        break;
    case ZYDIS_MNEMONIC_LDS:
        out->imm = SEG_DS;
        break;
    case ZYDIS_MNEMONIC_LSS:
        out->imm = SEG_SS;
        d->ends_block = true;
        break;
    case ZYDIS_MNEMONIC_LFS:
        out->imm = SEG_FS;
        break;
    default:
        out->imm = SEG_GS;
        break;
    }
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return load_far_pointer;
}

/* ---- bases of FS and GS ---- */
OP(swapgs)
{
    uint64_t base = cpu->kernel_gs_base;
    if (unlikely(cpu->cpl != 0))
        RAISE_GP();
    cpu->kernel_gs_base = cpu->segment[SEG_GS].base;
    cpu->segment[SEG_GS].base = cpu->base[SEG_GS] = base;
    NEXT;
}

static insn_fn *select_swapgs(struct decoded *d, struct insn *out)
{
    (void)out;
    return d->code_bits == 64 ? swapgs : NULL;
}

/* aux: the segment register. */
OP(read_base32)
{
    if (unlikely(!(cpu->cr4 & CR4_FSGSBASE)))
        RAISE_UD();
    SET32(i->dst, cpu->base[i->aux]);
    NEXT;
}

OP(read_base64)
{
    if (unlikely(!(cpu->cr4 & CR4_FSGSBASE)))
        RAISE_UD();
    REG64(i->dst) = cpu->base[i->aux];
    NEXT;
}

OP(write_base32)
{
    if (unlikely(!(cpu->cr4 & CR4_FSGSBASE)))
        RAISE_UD();
    cpu->segment[i->aux].base = cpu->base[i->aux] = REG32(i->dst);
    NEXT;
}

OP(write_base64)
{
    uint64_t base = REG64(i->dst);
    if (unlikely(!(cpu->cr4 & CR4_FSGSBASE)))
        RAISE_UD();
    if (unlikely(!canonical(base)))
        RAISE_GP();
    cpu->segment[i->aux].base = cpu->base[i->aux] = base;
    NEXT;
}

static insn_fn *select_base(struct decoded *d, struct insn *out)
{
    ZydisMnemonic m = d->zydis->mnemonic;
    bool read = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE;
    bool wide = d->zydis->operand_width == 64;
    if (d->code_bits != 64)
        return NULL;
    out->aux = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE ? SEG_FS : SEG_GS;
    out->dst = insn_register(d->operands[0].reg.value);
    if (read)
        return wide ? read_base64 : read_base32;
    return wide ? write_base64 : write_base32;
}

const struct op_row ops_segment[] = {
    {ZYDIS_MNEMONIC_LDS, select_far_pointer}, {ZYDIS_MNEMONIC_LES, select_far_pointer},
    {ZYDIS_MNEMONIC_LFS, select_far_pointer}, {ZYDIS_MNEMONIC_LGS, select_far_pointer},
    {ZYDIS_MNEMONIC_LSS, select_far_pointer}, {ZYDIS_MNEMONIC_SWAPGS, select_swapgs},
    {ZYDIS_MNEMONIC_RDFSBASE, select_base},   {ZYDIS_MNEMONIC_RDGSBASE, select_base},
    {ZYDIS_MNEMONIC_WRFSBASE, select_base},   {ZYDIS_MNEMONIC_WRGSBASE, select_base},
    {ZYDIS_MNEMONIC_LGDT, select_lgdt},       {ZYDIS_MNEMONIC_LIDT, select_lidt},
    {ZYDIS_MNEMONIC_SGDT, select_sgdt},       {ZYDIS_MNEMONIC_SIDT, select_sidt},
    {ZYDIS_MNEMONIC_LLDT, select_lldt},       {ZYDIS_MNEMONIC_LTR, select_ltr},
    {ZYDIS_MNEMONIC_SLDT, select_sldt},       {ZYDIS_MNEMONIC_STR, select_str},
    {ZYDIS_MNEMONIC_LAR, select_lar},         {ZYDIS_MNEMONIC_LSL, select_lsl},
    {ZYDIS_MNEMONIC_VERR, select_verr},       {ZYDIS_MNEMONIC_VERW, select_verw},
    {ZYDIS_MNEMONIC_IRET, select_iret},       {ZYDIS_MNEMONIC_IRETD, select_iret},
    {ZYDIS_MNEMONIC_IRETQ, select_iret},      {ZYDIS_MNEMONIC_INT, select_int},
    {ZYDIS_MNEMONIC_INT1, select_int1},       {ZYDIS_MNEMONIC_INT3, select_int3},
    {ZYDIS_MNEMONIC_INTO, select_into},       {ZYDIS_MNEMONIC_SYSCALL, select_syscall},
    {ZYDIS_MNEMONIC_SYSRET, select_sysret},   {ZYDIS_MNEMONIC_SYSENTER, select_sysenter},
    {ZYDIS_MNEMONIC_SYSEXIT, select_sysexit}, {0, NULL},
};
