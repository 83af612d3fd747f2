/* SPDX-License-Identifier: MIT */
/* Shifts, rotates, bit tests. The counts and BMI are in ops_bmi.c; the table for both is here.
 *
 * The host's own instruction does the work, so that undefined flags are what this processor leaves. Rotates, shifts by
 * CL (whose count may be 0) and bit tests keep some flags: they get the guest's first. */
#include "runtime/soft/operands.h"

#define SIZES(X, ...)                                                                              \
    X(__VA_ARGS__, 8, "b") X(__VA_ARGS__, 16, "w") X(__VA_ARGS__, 32, "l") X(__VA_ARGS__, 64, "q")
/* A row of functions by size. */
#define BY_SIZE(name)                                                                              \
    {                                                                                              \
        name##8, name##16, name##32, name##64                                                      \
    }

/* ---- shifts and rotates by one register or immediate count ---- */
/* to (an lvalue; "m" or "r") is changed, the other flags are the guest's. */
#define HOST_SHIFT(op, suffix, where, to, count)                                                   \
    do {                                                                                           \
        uint16_t status = cpu->status;                                                             \
        asm(FLAGS_IN "; " #op suffix " %%cl, %1; " FLAGS_OUT                                       \
            : "+a"(status), "+" where(to)                                                          \
            : "c"((uint8_t)(count))                                                                \
            : "cc");                                                                               \
        cpu->status = status;                                                                      \
    } while (0)
/* The same for shifts by a count that is not 0: nothing of the flags before survives. */
#define HOST_SHIFT_FRESH(op, suffix, where, to, count)                                             \
    do {                                                                                           \
        uint16_t status;                                                                           \
        asm(#op suffix " %%cl, %1; " FLAGS_OUT                                                     \
            : "=a"(status), "+" where(to)                                                          \
            : "c"((uint8_t)(count))                                                                \
            : "cc");                                                                               \
        cpu->status = status;                                                                      \
    } while (0)
#define BY_CL REG8(REG_OFFSET(RCX))

/* Register: 32 bits clear the upper half. */
#define SHIFT_REGISTER(HOST, op, bits, suffix, count) SHIFT_REGISTER##bits(HOST, op, suffix, count)
#define SHIFT_REGISTER8(HOST, op, suffix, count)      HOST(op, suffix, "m", REG8(i->dst), count)
#define SHIFT_REGISTER16(HOST, op, suffix, count)     HOST(op, suffix, "m", REG16(i->dst), count)
#define SHIFT_REGISTER64(HOST, op, suffix, count)     HOST(op, suffix, "m", REG64(i->dst), count)
#define SHIFT_REGISTER32(HOST, op, suffix, count)                                                  \
    do {                                                                                           \
        uint32_t value = REG32(i->dst);                                                            \
        HOST(op, suffix, "r", value, count);                                                       \
        SET32(i->dst, value);                                                                      \
    } while (0)

/* Memory operands have one function for both kinds of count: aux says CL. */
#define SHIFT_FUNCTIONS(HOST_IMM, op, bits, suffix)                                                \
    OP(op##_ri##bits)                                                                              \
    {                                                                                              \
        SHIFT_REGISTER(HOST_IMM, op, bits, suffix, i->imm);                                        \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(op##_rc##bits)                                                                              \
    {                                                                                              \
        SHIFT_REGISTER(HOST_SHIFT, op, bits, suffix, BY_CL);                                       \
        NEXT;                                                                                      \
    }                                                                                              \
    BODY op##bits(struct vcpu *cpu, const struct insn *i, memory##bits *to)                        \
    {                                                                                              \
        uint8_t count = i->aux ? BY_CL : (uint8_t)i->imm;                                          \
        HOST_SHIFT(op, suffix, "m", *to, count);                                                   \
    }                                                                                              \
    OPS_MODIFY_MEMORY(op, bits)

struct shift {
    insn_fn *by_immediate[4], *by_cl[4], *memory[4];
};

#define SHIFT(op, HOST_IMM)                                                                        \
    SIZES(SHIFT_FUNCTIONS, HOST_IMM, op)                                                           \
    static const struct shift op##_functions = {BY_SIZE(op##_ri), BY_SIZE(op##_rc),                \
                                                BY_SIZE(op##_m)};                                  \
    static insn_fn *select_##op(struct decoded *d, struct insn *out)                               \
    {                                                                                              \
        return select_shift(d, out, &op##_functions);                                              \
    }

/* A shift of a register by an immediate 0: no flags, but a 32-bit register loses its upper half. */
OP(shift_nothing)
{
    (void)cpu; /* in builds without sibling calls */
    NEXT;
}
OP(shift_nothing32)
{
    SET32(i->dst, REG32(i->dst));
    NEXT;
}

static insn_fn *select_shift(struct decoded *d, struct insn *out, const struct shift *functions)
{
    unsigned size = operand_size(d, 0);
    bool by_cl = !operand_is_immediate(d, 1);
    out->aux = by_cl;
    if (!by_cl)
        out->imm = d->operands[1].imm.value.u & (size == 3 ? 63 : 31);
    if (operand_is_memory(d, 0))
        return functions->memory[size];
    out->dst = operand_register(d, 0);
    if (by_cl)
        return functions->by_cl[size];
    if (out->imm == 0)
        return size == 2 ? shift_nothing32 : shift_nothing;
    return functions->by_immediate[size];
}

SHIFT(shl, HOST_SHIFT_FRESH)
SHIFT(shr, HOST_SHIFT_FRESH)
SHIFT(sar, HOST_SHIFT_FRESH)
SHIFT(rol, HOST_SHIFT)
SHIFT(ror, HOST_SHIFT)
SHIFT(rcl, HOST_SHIFT)
SHIFT(rcr, HOST_SHIFT)

/* ---- double shifts ---- */
#define DOUBLE_SHIFT_FUNCTIONS(op, bits, suffix)                                                   \
    static inline __attribute__((always_inline))                                                   \
    uint##bits##_t op##_value##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)  \
    {                                                                                              \
        uint16_t status = cpu->status;                                                             \
        uint8_t count = i->aux ? BY_CL : (uint8_t)i->imm;                                          \
        asm(FLAGS_IN "; " #op suffix " %%cl, %2, %1; " FLAGS_OUT                                   \
            : "+a"(status), "+r"(value)                                                            \
            : "r"(REG##bits(i->src)), "c"(count)                                                   \
            : "cc");                                                                               \
        cpu->status = status;                                                                      \
        return value;                                                                              \
    }                                                                                              \
    OP(op##_r##bits)                                                                               \
    {                                                                                              \
        SET_REG##bits(i->dst, op##_value##bits(cpu, i, REG##bits(i->dst)));                        \
        NEXT;                                                                                      \
    }                                                                                              \
    BODY op##bits(struct vcpu *cpu, const struct insn *i, memory##bits *to)                        \
    {                                                                                              \
        *to = op##_value##bits(cpu, i, *to);                                                       \
    }                                                                                              \
    OPS_MODIFY_MEMORY(op, bits)

#define DOUBLE_SHIFT(op)                                                                           \
    DOUBLE_SHIFT_FUNCTIONS(op, 16, "w")                                                            \
    DOUBLE_SHIFT_FUNCTIONS(op, 32, "l")                                                            \
    DOUBLE_SHIFT_FUNCTIONS(op, 64, "q")                                                            \
    static insn_fn *select_##op(struct decoded *d, struct insn *out)                               \
    {                                                                                              \
        static insn_fn *const registers[4] = {NULL, op##_r16, op##_r32, op##_r64};                 \
        static insn_fn *const memory[4] = {NULL, op##_m16, op##_m32, op##_m64};                    \
        unsigned size = operand_size(d, 0);                                                        \
        out->src = operand_register(d, 1);                                                         \
        out->aux = !operand_is_immediate(d, 2);                                                    \
        if (!out->aux)                                                                             \
            out->imm = d->operands[2].imm.value.u;                                                 \
        if (operand_is_memory(d, 0))                                                               \
            return memory[size];                                                                   \
        out->dst = operand_register(d, 0);                                                         \
        return registers[size];                                                                    \
    }

DOUBLE_SHIFT(shld)
DOUBLE_SHIFT(shrd)

/* ---- bit tests ---- */
/* A register as bit offset reaches beyond a memory operand: it is signed, and selects the operand at
 * (offset / bits) * bytes from the address (SDM 1 3.1.1.9); the address wraps before the segment base is added. */
#define BIT_DISTANCE(bits, log)                                                                    \
    (((int64_t)(int##bits##_t)REG##bits(i->src) >> (log)) * ((bits) / 8))

static uint64_t bit_linear_slow(struct vcpu *cpu, const struct insn *i, int64_t distance,
                                unsigned size, bool write)
{
    uint64_t offset = ea(cpu, i) + (uint64_t)distance;
    if (i->flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    if (i->flags & INSN_ADDRESS16)
        offset = (uint16_t)offset;
    return linear_slow(cpu, i, offset, size, write);
}

/* OPERAND at such a distance. */
#define BIT_OPERAND(hit, pointer, bits, log, slow)                                                 \
    uintptr_t operand_host;                                                                        \
    if (unlikely(!address_simple(i) ||                                                             \
                 !hit(cpu, address_of(cpu, i) + (uint64_t)BIT_DISTANCE(bits, log), (bits) / 8,     \
                      &operand_host)))                                                             \
        return slow(cpu, i);                                                                       \
    memory##bits *pointer = (memory##bits *)operand_host

/* Names of the functions: r/m operand by i(mmediate) or r(egister). aux says register to the slow ones. */
#define BIT_VALUE(op, bits, suffix)                                                                \
    static inline __attribute__((always_inline))                                                   \
    uint##bits##_t op##bits(struct vcpu *cpu, uint##bits##_t value, uint##bits##_t bit)            \
    {                                                                                              \
        uint16_t status = cpu->status;                                                             \
        asm(FLAGS_IN "; " #op suffix " %2, %1; " FLAGS_OUT                                         \
            : "+a"(status), "+r"(value)                                                            \
            : "r"(bit)                                                                             \
            : "cc");                                                                               \
        cpu->status = status;                                                                      \
        return value;                                                                              \
    }
#define BIT_IMM(bits) ((uint##bits##_t)i->imm)

/* BT only reads. */
#define BT_FUNCTIONS(bits, log, suffix)                                                            \
    BIT_VALUE(bt, bits, suffix)                                                                    \
    OP(bt_ri##bits)                                                                                \
    {                                                                                              \
        bt##bits(cpu, REG##bits(i->dst), BIT_IMM(bits));                                           \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(bt_rr##bits)                                                                                \
    {                                                                                              \
        bt##bits(cpu, REG##bits(i->dst), REG##bits(i->src));                                       \
        NEXT;                                                                                      \
    }                                                                                              \
    OP_SLOW(bt_m_slow##bits)                                                                       \
    {                                                                                              \
        uint64_t address =                                                                         \
            bit_linear_slow(cpu, i, i->aux ? BIT_DISTANCE(bits, log) : 0, bits / 8, false);        \
        bt##bits(cpu, (uint##bits##_t)load(cpu, i, address, bits / 8),                             \
                 i->aux ? REG##bits(i->src) : BIT_IMM(bits));                                      \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(bt_mi##bits)                                                                                \
    {                                                                                              \
        OPERAND(hit_read, from, bits, bt_m_slow##bits);                                            \
        bt##bits(cpu, *from, BIT_IMM(bits));                                                       \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(bt_mr##bits)                                                                                \
    {                                                                                              \
        BIT_OPERAND(hit_read, from, bits, log, bt_m_slow##bits);                                   \
        bt##bits(cpu, *from, REG##bits(i->src));                                                   \
        NEXT;                                                                                      \
    }

/* BTS, BTR, BTC change the operand. */
#define BIT_CHANGE_FUNCTIONS(op, bits, log, suffix)                                                \
    BIT_VALUE(op, bits, suffix)                                                                    \
    OP(op##_ri##bits)                                                                              \
    {                                                                                              \
        SET_REG##bits(i->dst, op##bits(cpu, REG##bits(i->dst), BIT_IMM(bits)));                    \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(op##_rr##bits)                                                                              \
    {                                                                                              \
        SET_REG##bits(i->dst, op##bits(cpu, REG##bits(i->dst), REG##bits(i->src)));                \
        NEXT;                                                                                      \
    }                                                                                              \
    OP_SLOW(op##_m_slow##bits)                                                                     \
    {                                                                                              \
        struct rmw rmw;                                                                            \
        uint64_t address =                                                                         \
            bit_linear_slow(cpu, i, i->aux ? BIT_DISTANCE(bits, log) : 0, bits / 8, true);         \
        memory##bits *to = rmw_begin(cpu, i, address, bits / 8, &rmw);                             \
        *to = op##bits(cpu, *to, i->aux ? REG##bits(i->src) : BIT_IMM(bits));                      \
        rmw_end(cpu, i, &rmw);                                                                     \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(op##_mi##bits)                                                                              \
    {                                                                                              \
        OPERAND(hit_write, to, bits, op##_m_slow##bits);                                           \
        *to = op##bits(cpu, *to, BIT_IMM(bits));                                                   \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(op##_mr##bits)                                                                              \
    {                                                                                              \
        BIT_OPERAND(hit_write, to, bits, log, op##_m_slow##bits);                                  \
        *to = op##bits(cpu, *to, REG##bits(i->src));                                               \
        NEXT;                                                                                      \
    }

struct bit_test {
    insn_fn *ri[4], *rr[4], *mi[4], *mr[4];
};

static insn_fn *select_bit_test(struct decoded *d, struct insn *out,
                                const struct bit_test *functions)
{
    unsigned size = operand_size(d, 0);
    bool immediate = operand_is_immediate(d, 1);
    if (immediate)
        out->imm = d->operands[1].imm.value.u;
    else
        out->src = operand_register(d, 1);
    out->aux = !immediate;
    if (operand_is_memory(d, 0))
        return immediate ? functions->mi[size] : functions->mr[size];
    out->dst = operand_register(d, 0);
    return immediate ? functions->ri[size] : functions->rr[size];
}

#define BIT_TABLE(name)                                                                            \
    {                                                                                              \
        NULL, name##16, name##32, name##64                                                         \
    }
#define BIT_SELECT(op)                                                                             \
    static insn_fn *select_##op(struct decoded *d, struct insn *out)                               \
    {                                                                                              \
        static const struct bit_test functions = {BIT_TABLE(op##_ri), BIT_TABLE(op##_rr),          \
                                                  BIT_TABLE(op##_mi), BIT_TABLE(op##_mr)};         \
        return select_bit_test(d, out, &functions);                                                \
    }
#define BIT_CHANGE(op)                                                                             \
    BIT_CHANGE_FUNCTIONS(op, 16, 4, "w")                                                           \
    BIT_CHANGE_FUNCTIONS(op, 32, 5, "l")                                                           \
    BIT_CHANGE_FUNCTIONS(op, 64, 6, "q")                                                           \
    BIT_SELECT(op)

BT_FUNCTIONS(16, 4, "w")
BT_FUNCTIONS(32, 5, "l")
BT_FUNCTIONS(64, 6, "q")
BIT_SELECT(bt)
BIT_CHANGE(bts)
BIT_CHANGE(btr)
BIT_CHANGE(btc)

const struct op_row ops_bits[] = {
    {ZYDIS_MNEMONIC_SHL, select_shl},     {ZYDIS_MNEMONIC_SHR, select_shr},
    {ZYDIS_MNEMONIC_SAR, select_sar},     {ZYDIS_MNEMONIC_ROL, select_rol},
    {ZYDIS_MNEMONIC_ROR, select_ror},     {ZYDIS_MNEMONIC_RCL, select_rcl},
    {ZYDIS_MNEMONIC_RCR, select_rcr},     {ZYDIS_MNEMONIC_SHLD, select_shld},
    {ZYDIS_MNEMONIC_SHRD, select_shrd},   {ZYDIS_MNEMONIC_BT, select_bt},
    {ZYDIS_MNEMONIC_BTS, select_bts},     {ZYDIS_MNEMONIC_BTR, select_btr},
    {ZYDIS_MNEMONIC_BTC, select_btc},     {ZYDIS_MNEMONIC_BSF, select_bsf},
    {ZYDIS_MNEMONIC_BSR, select_bsr},     {ZYDIS_MNEMONIC_TZCNT, select_tzcnt},
    {ZYDIS_MNEMONIC_LZCNT, select_lzcnt}, {ZYDIS_MNEMONIC_POPCNT, select_popcnt},
    {ZYDIS_MNEMONIC_CRC32, select_crc32}, {ZYDIS_MNEMONIC_MOVBE, select_movbe},
    {ZYDIS_MNEMONIC_ANDN, select_andn},   {ZYDIS_MNEMONIC_BEXTR, select_bextr},
    {ZYDIS_MNEMONIC_BLSI, select_blsi},   {ZYDIS_MNEMONIC_BLSMSK, select_blsmsk},
    {ZYDIS_MNEMONIC_BLSR, select_blsr},   {ZYDIS_MNEMONIC_BZHI, select_bzhi},
    {ZYDIS_MNEMONIC_PDEP, select_pdep},   {ZYDIS_MNEMONIC_PEXT, select_pext},
    {ZYDIS_MNEMONIC_RORX, select_rorx},   {ZYDIS_MNEMONIC_SARX, select_sarx},
    {ZYDIS_MNEMONIC_SHLX, select_shlx},   {ZYDIS_MNEMONIC_SHRX, select_shrx},
    {ZYDIS_MNEMONIC_INVALID, NULL},
};
