/* SPDX-License-Identifier: MIT */
/* Moves that touch no flag: MOV, MOVZX, MOVSX, LEA, CMOVcc, SETcc, XCHG, BSWAP, CBW and its kind. */
#include "runtime/soft/condition.h"

#define PUT8(off, v)  (REG8(off) = (v))
#define PUT16(off, v) (REG16(off) = (v))
#define PUT32(off, v) SET32(off, v)
#define PUT64(off, v) (REG64(off) = (v))

/* ---- MOV ---- */
#define LOAD_OP(name, from, put, value)                                                            \
    SLOW name##_slow(struct vcpu *cpu, const struct insn *i)                                       \
    {                                                                                              \
        uint##from##_t m =                                                                         \
            (uint##from##_t)load(cpu, i, linear(cpu, i, from / 8, false), from / 8);               \
        put(i->dst, value);                                                                        \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name)                                                                                       \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!address_simple(i) || !hit_read(cpu, address_of(cpu, i), from / 8, &host))             \
            return name##_slow(cpu, i);                                                            \
        uint##from##_t m = *(const memory##from *)host;                                            \
        put(i->dst, value);                                                                        \
        NEXT;                                                                                      \
    }

#define STORE_OP(name, bits, value)                                                                \
    SLOW name##_slow(struct vcpu *cpu, const struct insn *i)                                       \
    {                                                                                              \
        store(cpu, i, linear(cpu, i, bits / 8, true), bits / 8, (uint##bits##_t)(value));          \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name)                                                                                       \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!address_simple(i) || !hit_write(cpu, address_of(cpu, i), bits / 8, &host))            \
            return name##_slow(cpu, i);                                                            \
        *(memory##bits *)host = (uint##bits##_t)(value);                                           \
        NEXT;                                                                                      \
    }

#define MOV_SIZE(bits)                                                                             \
    OP(mov_rr##bits)                                                                               \
    {                                                                                              \
        PUT##bits(i->dst, REG##bits(i->src));                                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(mov_ri##bits)                                                                               \
    {                                                                                              \
        PUT##bits(i->dst, (uint##bits##_t)i->imm);                                                 \
        NEXT;                                                                                      \
    }                                                                                              \
    LOAD_OP(mov_rm##bits, bits, PUT##bits, m)                                                      \
    STORE_OP(mov_mr##bits, bits, REG##bits(i->dst))                                                \
    STORE_OP(mov_mi##bits, bits, i->imm)                                                           \
    OP(mov_offset_rm##bits) /* MOV AL/AX/EAX/RAX, [64-bit address] */                              \
    {                                                                                              \
        PUT##bits(i->dst, (uint##bits##_t)load(cpu, i, i->imm + cpu->base[i->segment], bits / 8)); \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(mov_offset_mr##bits)                                                                        \
    {                                                                                              \
        store(cpu, i, i->imm + cpu->base[i->segment], bits / 8, REG##bits(i->dst));                \
        NEXT_SLOW;                                                                                 \
    }

MOV_SIZE(8)
MOV_SIZE(16)
MOV_SIZE(32)
MOV_SIZE(64)

/* Base, displacement and nothing else, in a flat segment: the common address. */
#define PLAIN_ADDRESS (REG64(i->base) + (uint64_t)(int64_t)i->disp)
#define PLAIN(bits)                                                                                \
    OP(mov_plain_rm##bits)                                                                         \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (unlikely(!hit_read(cpu, PLAIN_ADDRESS, bits / 8, &host)))                              \
            return mov_rm##bits##_slow(cpu, i);                                                    \
        REG64(i->dst) = *(const memory##bits *)host;                                               \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(mov_plain_mr##bits)                                                                         \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (unlikely(!hit_write(cpu, PLAIN_ADDRESS, bits / 8, &host)))                             \
            return mov_mr##bits##_slow(cpu, i);                                                    \
        *(memory##bits *)host = REG##bits(i->dst);                                                 \
        NEXT;                                                                                      \
    }
PLAIN(32)
PLAIN(64)

#define ROW(name)                                                                                  \
    {                                                                                              \
        name##8, name##16, name##32, name##64                                                      \
    }

static insn_fn *select_mov(struct decoded *d, struct insn *out)
{
    static insn_fn *const table[][4] = {[FORM_RR] = ROW(mov_rr),
                                        [FORM_RI] = ROW(mov_ri),
                                        [FORM_RM] = ROW(mov_rm),
                                        [FORM_MR] = ROW(mov_mr),
                                        [FORM_MI] = ROW(mov_mi)};
    static insn_fn *const offset[2][4] = {ROW(mov_offset_rm), ROW(mov_offset_mr)};
    static insn_fn *const plain[2][2] = {{mov_plain_rm32, mov_plain_rm64},
                                         {mov_plain_mr32, mov_plain_mr64}};
    enum insn_form form = insn_form(d);
    unsigned size = insn_size(d);
    if (form < FORM_RR || form > FORM_MI)
        return NULL;
    for (unsigned k = 0; k < 2; k++)
        if (d->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass class = ZydisRegisterGetClass(d->operands[k].reg.value);
            extern insn_fn *select_mov_system(struct decoded * d, struct insn * out);
            if (class == ZYDIS_REGCLASS_SEGMENT || class == ZYDIS_REGCLASS_CONTROL ||
                class == ZYDIS_REGCLASS_DEBUG)
                return select_mov_system(d, out);
        }
    if (form == FORM_RM || form == FORM_MR) {
        const ZydisDecodedOperand *memory = &d->operands[form == FORM_RM];
        if (d->code_bits == 64 && memory->mem.disp.value != (int32_t)memory->mem.disp.value)
            return offset[form == FORM_MR][size];
        if (size >= 2 && !(out->flags & (INSN_EA | INSN_RIPREL)) &&
            memory->mem.index == ZYDIS_REGISTER_NONE && out->segment < SEG_FS)
            return plain[form == FORM_MR][size - 2];
    }
    return table[form][size];
}

/* ---- MOVZX, MOVSX, MOVSXD ---- */
#define EXTEND(name, from, to, type)                                                               \
    OP(name##_r##from##_##to)                                                                      \
    {                                                                                              \
        PUT##to(i->dst, (uint##to##_t)(type##to##_t)(type##from##_t)REG##from(i->src));            \
        NEXT;                                                                                      \
    }                                                                                              \
    LOAD_OP(name##_m##from##_##to, from, PUT##to, (uint##to##_t)(type##to##_t)(type##from##_t)m)

#define EXTENDS(name, type)                                                                        \
    EXTEND(name, 8, 16, type)                                                                      \
    EXTEND(name, 8, 32, type)                                                                      \
    EXTEND(name, 8, 64, type)                                                                      \
    EXTEND(name, 16, 16, type)                                                                     \
    EXTEND(name, 16, 32, type)                                                                     \
    EXTEND(name, 16, 64, type)                                                                     \
    EXTEND(name, 32, 16, type)                                                                     \
    EXTEND(name, 32, 32, type)                                                                     \
    EXTEND(name, 32, 64, type)

EXTENDS(movzx, uint)
EXTENDS(movsx, int)

#define EXTEND_ROW(name, kind, from)                                                               \
    {                                                                                              \
        name##_##kind##from##_16, name##_##kind##from##_32, name##_##kind##from##_64               \
    }
#define EXTEND_TABLE(name)                                                                         \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        static insn_fn *const table[2][3][3] = {                                                   \
            {EXTEND_ROW(name, r, 8), EXTEND_ROW(name, r, 16), EXTEND_ROW(name, r, 32)},            \
            {EXTEND_ROW(name, m, 8), EXTEND_ROW(name, m, 16), EXTEND_ROW(name, m, 32)}};           \
        (void)out;                                                                                 \
        unsigned from = d->operands[1].size == 8 ? 0 : d->operands[1].size == 16 ? 1 : 2;          \
        return table[insn_form(d) == FORM_RM][from][insn_size(d) - 1];                             \
    }
EXTEND_TABLE(movzx)
EXTEND_TABLE(movsx)

/* ---- LEA ---- */
OP(lea16)
{
    REG16(i->dst) = (uint16_t)ea(cpu, i);
    NEXT;
}
OP(lea32)
{
    SET32(i->dst, ea(cpu, i));
    NEXT;
}
OP(lea64)
{
    REG64(i->dst) = ea(cpu, i);
    NEXT;
}
OP(lea_simple32)
{
    SET32(i->dst, REG64(i->base) + (REG64(i->index) << i->scale) + (uint64_t)(int64_t)i->disp);
    NEXT;
}
OP(lea_simple64)
{
    REG64(i->dst) = REG64(i->base) + (REG64(i->index) << i->scale) + (uint64_t)(int64_t)i->disp;
    NEXT;
}

static insn_fn *select_lea(struct decoded *d, struct insn *out)
{
    static insn_fn *const table[2][4] = {{NULL, lea16, lea32, lea64},
                                         {NULL, lea16, lea_simple32, lea_simple64}};
    bool simple = !(out->flags & (INSN_ADDRESS16 | INSN_ADDRESS32 | INSN_RIPREL));
    return table[simple][insn_size(d)];
}

/* ---- CMOVcc, SETcc ---- */
/* A 32-bit CMOV clears the upper half whether it moves or not; the memory operand is read in any case. */
#define CMOV(cc, code)                                                                             \
    OP(cmov##cc##_r16)                                                                             \
    {                                                                                              \
        if (condition(cpu->status, code))                                                          \
            REG16(i->dst) = REG16(i->src);                                                         \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(cmov##cc##_r32)                                                                             \
    {                                                                                              \
        SET32(i->dst, condition(cpu->status, code) ? REG32(i->src) : REG32(i->dst));               \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(cmov##cc##_r64)                                                                             \
    {                                                                                              \
        REG64(i->dst) = condition(cpu->status, code) ? REG64(i->src) : REG64(i->dst);              \
        NEXT;                                                                                      \
    }                                                                                              \
    LOAD_OP(cmov##cc##_m16, 16, PUT16, condition(cpu->status, code) ? m : REG16(i->dst))           \
    LOAD_OP(cmov##cc##_m32, 32, PUT32, condition(cpu->status, code) ? m : REG32(i->dst))           \
    LOAD_OP(cmov##cc##_m64, 64, PUT64, condition(cpu->status, code) ? m : REG64(i->dst))           \
    static insn_fn *select_cmov##cc(struct decoded *d, struct insn *out)                           \
    {                                                                                              \
        static insn_fn *const table[2][4] = {                                                      \
            {NULL, cmov##cc##_r16, cmov##cc##_r32, cmov##cc##_r64},                                \
            {NULL, cmov##cc##_m16, cmov##cc##_m32, cmov##cc##_m64}};                               \
        (void)out;                                                                                 \
        return table[insn_form(d) == FORM_RM][insn_size(d)];                                       \
    }                                                                                              \
    OP(set##cc##_r)                                                                                \
    {                                                                                              \
        REG8(i->dst) = condition(cpu->status, code);                                               \
        NEXT;                                                                                      \
    }                                                                                              \
    STORE_OP(set##cc##_m, 8, condition(cpu->status, code))                                         \
    static insn_fn *select_set##cc(struct decoded *d, struct insn *out)                            \
    {                                                                                              \
        (void)out;                                                                                 \
        return insn_form(d) == FORM_M ? set##cc##_m : set##cc##_r;                                 \
    }
CONDITIONS(CMOV)

/* ---- XCHG ---- */
#define XCHG_SIZE(bits)                                                                            \
    OP(xchg_rr##bits)                                                                              \
    {                                                                                              \
        uint##bits##_t a = REG##bits(i->dst), b = REG##bits(i->src);                               \
        PUT##bits(i->dst, b);                                                                      \
        PUT##bits(i->src, a);                                                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(xchg_m##bits) /* i->dst is the register, whatever the order */                              \
    {                                                                                              \
        struct rmw rmw;                                                                            \
        memory##bits *p = rmw_begin(cpu, i, linear(cpu, i, bits / 8, true), bits / 8, &rmw);       \
        uint##bits##_t m = *p;                                                                     \
        *p = REG##bits(i->dst);                                                                    \
        rmw_end(cpu, i, &rmw);                                                                     \
        PUT##bits(i->dst, m);                                                                      \
        NEXT_SLOW;                                                                                 \
    }
XCHG_SIZE(8)
XCHG_SIZE(16)
XCHG_SIZE(32)
XCHG_SIZE(64)

static insn_fn *select_xchg(struct decoded *d, struct insn *out)
{
    static insn_fn *const table[2][4] = {ROW(xchg_rr), ROW(xchg_m)};
    (void)out;
    return table[insn_form(d) != FORM_RR][insn_size(d)];
}

/* ---- BSWAP, CBW … CQO ---- */
OP(bswap16) /* undefined by the manual; processors give zero */
{
    REG16(i->dst) = 0;
    NEXT;
}
OP(bswap32)
{
    SET32(i->dst, __builtin_bswap32(REG32(i->dst)));
    NEXT;
}
OP(bswap64)
{
    REG64(i->dst) = __builtin_bswap64(REG64(i->dst));
    NEXT;
}
static insn_fn *select_bswap(struct decoded *d, struct insn *out)
{
    static insn_fn *const table[4] = {NULL, bswap16, bswap32, bswap64};
    (void)out;
    return table[insn_size(d)];
}

#define GPR(n) cpu->r[n]
#define WIDEN(name, body)                                                                          \
    OP(name)                                                                                       \
    {                                                                                              \
        body;                                                                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        (void)d;                                                                                   \
        (void)out;                                                                                 \
        return name;                                                                               \
    }
#define SET16(n, value) (*(uint16_t *)&GPR(n) = (uint16_t)(value))
WIDEN(cbw, SET16(RAX, (int8_t)GPR(RAX)))
WIDEN(cwde, GPR(RAX) = (uint32_t)(int16_t)GPR(RAX))
WIDEN(cdqe, GPR(RAX) = (uint64_t)(int32_t)GPR(RAX))
WIDEN(cwd, SET16(RDX, (int16_t)GPR(RAX) >> 15))
WIDEN(cdq, GPR(RDX) = (uint32_t)((int32_t)GPR(RAX) >> 31))
WIDEN(cqo, GPR(RDX) = (uint64_t)((int64_t)GPR(RAX) >> 63))

#define CMOV_ROW(cc, code) {ZYDIS_MNEMONIC_CMOV##cc, select_cmov##cc},
#define SET_ROW(cc, code)  {ZYDIS_MNEMONIC_SET##cc, select_set##cc},
const struct op_row ops_move[] = {
    {ZYDIS_MNEMONIC_MOV, select_mov},     {ZYDIS_MNEMONIC_MOVZX, select_movzx},
    {ZYDIS_MNEMONIC_MOVSX, select_movsx}, {ZYDIS_MNEMONIC_MOVSXD, select_movsx},
    {ZYDIS_MNEMONIC_LEA, select_lea},     {ZYDIS_MNEMONIC_XCHG, select_xchg},
    {ZYDIS_MNEMONIC_BSWAP, select_bswap}, {ZYDIS_MNEMONIC_CBW, select_cbw},
    {ZYDIS_MNEMONIC_CWDE, select_cwde},   {ZYDIS_MNEMONIC_CDQE, select_cdqe},
    {ZYDIS_MNEMONIC_CWD, select_cwd},     {ZYDIS_MNEMONIC_CDQ, select_cdq},
    {ZYDIS_MNEMONIC_CQO, select_cqo},     CONDITIONS(CMOV_ROW) CONDITIONS(SET_ROW){0, NULL},
};
