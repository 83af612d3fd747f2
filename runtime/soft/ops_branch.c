/* SPDX-License-Identifier: MIT */
/* Near branches: JMP, Jcc, CALL, RET, LOOP, JRCXZ.
 *
 * In 64-bit mode a direct branch within its page chains to the target's block; others look in the jump
 * cache. In 16- and 32-bit code, which is rare, every branch goes through the engine's loop. Branch
 * targets of direct branches are counted from the block's start: imm cannot hold them (it is the chain),
 * so disp does, relative to vcpu.rip. */
#include "runtime/soft/chain.h"
#include "runtime/soft/condition.h"
#include "runtime/soft/segments.h"

/* The instruction behind every block's last one: the fall-through. */
#define FALL_THROUGH return i[1].run(cpu, i + 1)
#define TARGET       (cpu->rip + (uint64_t)(int64_t)i->disp)

/* ---- 64-bit mode ---- */
OP(jmp_chained)
{
    GO_CHAINED(TARGET);
}
OP(jmp_anywhere)
{
    GO_ANYWHERE(TARGET);
}

#define JCC(cc, code)                                                                              \
    OP(j##cc##_chained)                                                                            \
    {                                                                                              \
        if (!condition(cpu->status, code))                                                         \
            NEXT;                                                                                  \
        GO_CHAINED(TARGET);                                                                        \
    }                                                                                              \
    OP(j##cc##_anywhere)                                                                           \
    {                                                                                              \
        if (!condition(cpu->status, code))                                                         \
            NEXT;                                                                                  \
        GO_ANYWHERE(TARGET);                                                                       \
    }
CONDITIONS(JCC)

SLOW push_slow(struct vcpu *cpu, const struct insn *i, uint64_t value, uint64_t target)
{
    store_slow(cpu, i, stack_linear(cpu, i, cpu->r[RSP] - 8, 8), 8, value);
    cpu->r[RSP] -= 8;
    cpu->code_changed = false; /* the block is left anyway */
    return insn_leave(cpu, i, target);
}

#define PUSH_RETURN(target)                                                                        \
    uintptr_t host;                                                                                \
    uint64_t back = insn_next_rip(cpu, i);                                                         \
    if (unlikely(!hit_write(cpu, cpu->r[RSP] - 8, 8, &host)))                                      \
        return push_slow(cpu, i, back, target);                                                    \
    *(memory64 *)host = back;                                                                      \
    cpu->r[RSP] -= 8

OP(call_chained)
{
    uint64_t target = TARGET;
    PUSH_RETURN(target);
    GO_CHAINED(target);
}
OP(call_anywhere)
{
    uint64_t target = TARGET;
    PUSH_RETURN(target);
    GO_ANYWHERE(target);
}

SLOW not_canonical(struct vcpu *cpu, const struct insn *i)
{
    RAISE_GP();
}

OP(jmp_r64)
{
    uint64_t target = REG64(i->dst);
    if (unlikely(!canonical(target)))
        return not_canonical(cpu, i);
    GO_ANYWHERE(target);
}
OP(call_r64)
{
    uint64_t target = REG64(i->dst);
    if (unlikely(!canonical(target)))
        return not_canonical(cpu, i);
    PUSH_RETURN(target);
    GO_ANYWHERE(target);
}
SLOW jmp_m64_slow(struct vcpu *cpu, const struct insn *i)
{
    uint64_t target = load(cpu, i, linear(cpu, i, 8, false), 8);
    if (!canonical(target))
        RAISE_GP();
    return insn_leave(cpu, i, target);
}
OP(jmp_m64)
{
    uintptr_t host;
    if (!address_simple(i) || !hit_read(cpu, address_of(cpu, i), 8, &host))
        return jmp_m64_slow(cpu, i);
    uint64_t target = *(const memory64 *)host;
    if (unlikely(!canonical(target)))
        return not_canonical(cpu, i);
    GO_ANYWHERE(target);
}
OP(call_m64)
{
    uint64_t target = load(cpu, i, linear(cpu, i, 8, false), 8);
    if (unlikely(!canonical(target)))
        return not_canonical(cpu, i);
    store(cpu, i, stack_linear(cpu, i, cpu->r[RSP] - 8, 8), 8, insn_next_rip(cpu, i));
    cpu->r[RSP] -= 8;
    cpu->code_changed = false;
    return insn_leave(cpu, i, target);
}

SLOW ret_slow(struct vcpu *cpu, const struct insn *i)
{
    uint64_t target = load(cpu, i, stack_linear(cpu, i, cpu->r[RSP], 8), 8);
    if (!canonical(target))
        RAISE_GP();
    cpu->r[RSP] += 8 + (uint16_t)i->imm;
    return insn_leave(cpu, i, target);
}
OP(ret64)
{
    uintptr_t host;
    if (unlikely(!hit_read(cpu, cpu->r[RSP], 8, &host)))
        return ret_slow(cpu, i);
    uint64_t target = *(const memory64 *)host;
    if (unlikely(!canonical(target)))
        return not_canonical(cpu, i);
    cpu->r[RSP] += 8 + (uint16_t)i->imm;
    GO_ANYWHERE(target);
}

/* LOOP, LOOPE, LOOPNE, JRCXZ: aux is 0 LOOP, 1 LOOPE, 2 LOOPNE, 3 JRCXZ. The count has the address size. */
static bool loop_taken(struct vcpu *cpu, const struct insn *i)
{
    uint64_t *rcx = &cpu->r[RCX];
    uint64_t mask = i->flags & INSN_ADDRESS16   ? 0xffff
                    : i->flags & INSN_ADDRESS32 ? 0xffffffff
                                                : UINT64_MAX;
    if (i->aux == 3)
        return !(*rcx & mask);
    uint64_t count = (*rcx - 1) & mask;
    if (mask == 0xffff)
        *(uint16_t *)rcx = (uint16_t)count;
    else
        *rcx = count;
    bool zf = cpu->status & STATUS_ZF;
    return count && (i->aux == 0 || (i->aux == 1) == zf);
}
OP(loop64)
{
    if (!loop_taken(cpu, i))
        NEXT;
    GO_ANYWHERE(TARGET);
}

/* ---- 16- and 32-bit code ---- */
/* Leaves for `target`, which must lie in the code segment. */
static const struct insn *legacy_go(struct vcpu *cpu, const struct insn *i, uint64_t target)
{
    if (target > cpu->segment[SEG_CS].limit)
        RAISE_GP();
    return insn_leave(cpu, i, target);
}
static uint64_t legacy_mask(const struct insn *i, uint64_t value)
{
    return (i->aux & 15) == 2 ? value & 0xffff : value & 0xffffffff;
}
#define LEGACY_TARGET legacy_mask(i, TARGET)

static void legacy_call(struct vcpu *cpu, const struct insn *i, uint64_t target)
{
    unsigned size = i->aux & 15;
    if (target > cpu->segment[SEG_CS].limit)
        RAISE_GP();
    uint64_t rsp = cpu->r[RSP] - size;
    store(cpu, i, stack_linear(cpu, i, rsp, size), size, insn_next_rip(cpu, i));
    stack_set(cpu, rsp);
    cpu->code_changed = false;
}
OP(legacy_jmp)
{
    return legacy_go(cpu, i, LEGACY_TARGET);
}
OP(legacy_jcc)
{
    if (!condition(cpu->status, i->aux >> 4))
        NEXT;
    return legacy_go(cpu, i, LEGACY_TARGET);
}
OP(legacy_loop)
{
    uint64_t rcx = cpu->r[RCX];
    struct insn plain = *i;
    plain.aux = i->aux >> 4;
    if (!loop_taken(cpu, &plain))
        return i + 1;
    if (LEGACY_TARGET > cpu->segment[SEG_CS].limit)
        cpu->r[RCX] = rcx;
    return legacy_go(cpu, i, LEGACY_TARGET);
}
OP(legacy_call_relative)
{
    uint64_t target = LEGACY_TARGET;
    legacy_call(cpu, i, target);
    return insn_leave(cpu, i, target);
}
static uint64_t legacy_operand(struct vcpu *cpu, const struct insn *i, bool memory)
{
    unsigned size = i->aux & 15;
    uint64_t value = memory ? load(cpu, i, linear(cpu, i, size, false), size) : REG64(i->dst);
    return legacy_mask(i, value);
}
OP(legacy_jmp_r)
{
    return legacy_go(cpu, i, legacy_operand(cpu, i, false));
}
OP(legacy_jmp_m)
{
    return legacy_go(cpu, i, legacy_operand(cpu, i, true));
}
OP(legacy_call_r)
{
    uint64_t target = legacy_operand(cpu, i, false);
    legacy_call(cpu, i, target);
    return insn_leave(cpu, i, target);
}
OP(legacy_call_m)
{
    uint64_t target = legacy_operand(cpu, i, true);
    legacy_call(cpu, i, target);
    return insn_leave(cpu, i, target);
}
OP(legacy_ret)
{
    unsigned size = i->aux & 15;
    uint64_t rsp = cpu->r[RSP];
    uint64_t target = stack_pop(cpu, i, &rsp, size);
    if (target > cpu->segment[SEG_CS].limit)
        RAISE_GP();
    stack_set(cpu, rsp + (uint16_t)i->imm);
    return insn_leave(cpu, i, target);
}

/* ---- choosing ---- */
/* Makes disp count from the block's start. True if the target is in the block's page, so that it can chain: pages of
 * linear and physical addresses have the same offsets. */
static bool place_target(const struct decoded *d, struct insn *out)
{
    int64_t disp = (int64_t)out->disp + out->offset + out->length;
    uint64_t start = d->rip - out->offset, target = start + (uint64_t)disp;
    out->disp = (int32_t)disp;
    out->chain = &block_none;
    return (start ^ target) < PAGE_SIZE;
}

/* A displacement so large that it does not fit once it counts from the block's start: the decoder begins a block
 * with such an instruction only if it is the first, where what is added is its length. */
static bool displacement_fits(const struct insn *out)
{
    int64_t disp = (int64_t)out->disp + out->offset + out->length;
    return disp == (int32_t)disp;
}
OP(jmp_wide) /* imm is the whole displacement */
{
    GO_ANYWHERE(insn_next_rip(cpu, i) + i->imm);
}
OP(call_wide)
{
    uint64_t target = insn_next_rip(cpu, i) + i->imm;
    PUSH_RETURN(target);
    GO_ANYWHERE(target);
}
#define JCC_WIDE(cc, code) [code] = j##cc##_wide,
#define JCC_WIDE_OP(cc, code)                                                                      \
    OP(j##cc##_wide)                                                                               \
    {                                                                                              \
        if (!condition(cpu->status, code))                                                         \
            NEXT;                                                                                  \
        GO_ANYWHERE(insn_next_rip(cpu, i) + i->imm);                                               \
    }
CONDITIONS(JCC_WIDE_OP)

static insn_fn *wide(const struct insn *in, struct insn *out, insn_fn *run)
{
    out->imm = (uint64_t)(int64_t)in->disp;
    return run;
}

static void legacy_aux(const struct decoded *d, struct insn *out, unsigned high)
{
    out->aux = (uint8_t)(high << 4 | (d->zydis->operand_width == 16 ? 2 : 4));
}

static insn_fn *select_jmp(struct decoded *d, struct insn *out)
{
    if (d->zydis->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        extern insn_fn *select_jmp_far(struct decoded * d, struct insn * out);
        return select_jmp_far(d, out);
    }
    d->ends_block = true;
    enum insn_form form = insn_form(d);
    if (d->code_bits == 64) {
        if (form != FORM_I)
            return form == FORM_M ? jmp_m64 : jmp_r64;
        if (!displacement_fits(out))
            return wide(out, out, jmp_wide);
        return place_target(d, out) ? jmp_chained : jmp_anywhere;
    }
    legacy_aux(d, out, 0);
    if (form == FORM_I)
        place_target(d, out);
    return form == FORM_I ? legacy_jmp : form == FORM_M ? legacy_jmp_m : legacy_jmp_r;
}

static insn_fn *select_call(struct decoded *d, struct insn *out)
{
    if (d->zydis->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        extern insn_fn *select_call_far(struct decoded * d, struct insn * out);
        return select_call_far(d, out);
    }
    d->ends_block = true;
    enum insn_form form = insn_form(d);
    if (d->code_bits == 64) {
        if (form != FORM_I)
            return form == FORM_M ? call_m64 : call_r64;
        if (!displacement_fits(out))
            return wide(out, out, call_wide);
        return place_target(d, out) ? call_chained : call_anywhere;
    }
    legacy_aux(d, out, 0);
    if (form == FORM_I)
        place_target(d, out);
    return form == FORM_I ? legacy_call_relative : form == FORM_M ? legacy_call_m : legacy_call_r;
}

static insn_fn *select_ret(struct decoded *d, struct insn *out)
{
    if (d->zydis->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        extern insn_fn *select_ret_far(struct decoded * d, struct insn * out);
        return select_ret_far(d, out);
    }
    d->ends_block = true;
    if (d->zydis->operand_count_visible == 0)
        out->imm = 0;
    if (d->code_bits == 64)
        return ret64;
    legacy_aux(d, out, 0);
    return legacy_ret;
}

static insn_fn *select_jcc(struct decoded *d, struct insn *out, unsigned code, insn_fn *chained,
                           insn_fn *anywhere)
{
    static insn_fn *const wide_of[16] = {CONDITIONS(JCC_WIDE)};
    d->ends_block = true;
    if (d->code_bits == 64) {
        if (!displacement_fits(out))
            return wide(out, out, wide_of[code]);
        return place_target(d, out) ? chained : anywhere;
    }
    legacy_aux(d, out, code);
    place_target(d, out);
    return legacy_jcc;
}
#define SELECT_JCC(cc, code)                                                                       \
    static insn_fn *select_j##cc(struct decoded *d, struct insn *out)                              \
    {                                                                                              \
        return select_jcc(d, out, code, j##cc##_chained, j##cc##_anywhere);                        \
    }
CONDITIONS(SELECT_JCC)

static insn_fn *select_loop(struct decoded *d, struct insn *out)
{
    unsigned kind = d->zydis->mnemonic == ZYDIS_MNEMONIC_LOOP     ? 0
                    : d->zydis->mnemonic == ZYDIS_MNEMONIC_LOOPE  ? 1
                    : d->zydis->mnemonic == ZYDIS_MNEMONIC_LOOPNE ? 2
                                                                  : 3;
    d->ends_block = true;
    place_target(d, out);
    out->aux = (uint8_t)kind;
    if (d->code_bits == 64)
        return loop64;
    legacy_aux(d, out, kind);
    return legacy_loop;
}

#define JCC_ROW(cc, code) {ZYDIS_MNEMONIC_J##cc, select_j##cc},
const struct op_row ops_branch[] = {
    {ZYDIS_MNEMONIC_JMP, select_jmp},    {ZYDIS_MNEMONIC_CALL, select_call},
    {ZYDIS_MNEMONIC_RET, select_ret},    {ZYDIS_MNEMONIC_LOOP, select_loop},
    {ZYDIS_MNEMONIC_LOOPE, select_loop}, {ZYDIS_MNEMONIC_LOOPNE, select_loop},
    {ZYDIS_MNEMONIC_JCXZ, select_loop},  {ZYDIS_MNEMONIC_JECXZ, select_loop},
    {ZYDIS_MNEMONIC_JRCXZ, select_loop}, CONDITIONS(JCC_ROW){0, NULL},
};
