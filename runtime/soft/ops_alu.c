/* SPDX-License-Identifier: MIT */
/* Integer arithmetic and logic: ADD to CMP, INC, DEC, NEG, NOT, TEST.
 *
 * Each runs as the host's own instruction, so its flags are the host's, undefined ones included. */
#include "runtime/soft/access.h"

#define PUT8(off, v)  (REG8(off) = (v))
#define PUT16(off, v) (REG16(off) = (v))
#define PUT32(off, v) SET32(off, v)
#define PUT64(off, v) (REG64(off) = (v))
#define NOPUT(off, v) ((void)0)

/* Two operands: d op= s. The carry goes in where the operation takes one. */
#define APPLY_PLAIN(mn, d, s)                                                                      \
    asm(mn " %[src], %[dst]\n\t" FLAGS_OUT : [dst] "+r"(d), "=a"(st) : [src] "r"(s) : "cc")
#define APPLY_CARRY(mn, d, s)                                                                      \
    st = cpu->status;                                                                              \
    asm("btw $8, %w[st]\n\t" mn " %[src], %[dst]\n\t" FLAGS_OUT                                    \
        : [dst] "+r"(d), [st] "+a"(st)                                                             \
        : [src] "r"(s)                                                                             \
        : "cc")

/* A memory operand that is only read, and one that is written back. */
#define MEMORY_DEST(name, apply, mn, bits, form, source)                                           \
    SLOW name##_##form##bits##_slow(struct vcpu *cpu, const struct insn *i)                        \
    {                                                                                              \
        struct rmw rmw;                                                                            \
        memory##bits *p = rmw_begin(cpu, i, linear(cpu, i, bits / 8, true), bits / 8, &rmw);       \
        uint##bits##_t d = *p, s = (uint##bits##_t)(source);                                       \
        uint16_t st;                                                                               \
        apply(mn, d, s);                                                                           \
        *p = d;                                                                                    \
        rmw_end(cpu, i, &rmw);                                                                     \
        cpu->status = st;                                                                          \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_##form##bits)                                                                        \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!address_simple(i) || !hit_write(cpu, address_of(cpu, i), bits / 8, &host))            \
            return name##_##form##bits##_slow(cpu, i);                                             \
        memory##bits *p = (memory##bits *)host;                                                    \
        uint##bits##_t d = *p, s = (uint##bits##_t)(source);                                       \
        uint16_t st;                                                                               \
        apply(mn, d, s);                                                                           \
        *p = d;                                                                                    \
        cpu->status = st;                                                                          \
        NEXT;                                                                                      \
    }

#define MEMORY_READ(name, apply, mn, bits, form, first, second, put)                               \
    SLOW name##_##form##bits##_slow(struct vcpu *cpu, const struct insn *i)                        \
    {                                                                                              \
        uint##bits##_t m =                                                                         \
            (uint##bits##_t)load(cpu, i, linear(cpu, i, bits / 8, false), bits / 8);               \
        uint##bits##_t d = (uint##bits##_t)(first), s = (uint##bits##_t)(second);                  \
        uint16_t st;                                                                               \
        apply(mn, d, s);                                                                           \
        put(i->dst, d);                                                                            \
        cpu->status = st;                                                                          \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_##form##bits)                                                                        \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!address_simple(i) || !hit_read(cpu, address_of(cpu, i), bits / 8, &host))             \
            return name##_##form##bits##_slow(cpu, i);                                             \
        const memory##bits *p = (const memory##bits *)host;                                        \
        uint##bits##_t m = *p;                                                                     \
        uint##bits##_t d = (uint##bits##_t)(first), s = (uint##bits##_t)(second);                  \
        uint16_t st;                                                                               \
        apply(mn, d, s);                                                                           \
        put(i->dst, d);                                                                            \
        cpu->status = st;                                                                          \
        NEXT;                                                                                      \
    }

#define REGISTER_DEST(name, apply, mn, bits, form, source, put)                                    \
    OP(name##_##form##bits)                                                                        \
    {                                                                                              \
        uint##bits##_t d = REG##bits(i->dst), s = (uint##bits##_t)(source);                        \
        uint16_t st;                                                                               \
        apply(mn, d, s);                                                                           \
        put(i->dst, d);                                                                            \
        cpu->status = st;                                                                          \
        NEXT;                                                                                      \
    }

#define BINARY_SIZE(name, apply, mn, bits)                                                         \
    REGISTER_DEST(name, apply, mn, bits, rr, REG##bits(i->src), PUT##bits)                         \
    REGISTER_DEST(name, apply, mn, bits, ri, i->imm, PUT##bits)                                    \
    MEMORY_READ(name, apply, mn, bits, rm, REG##bits(i->dst), m, PUT##bits)                        \
    MEMORY_DEST(name, apply, mn, bits, mr, REG##bits(i->dst))                                      \
    MEMORY_DEST(name, apply, mn, bits, mi, i->imm)

#define TEST_SIZE(name, apply, mn, bits)                                                           \
    REGISTER_DEST(name, apply, mn, bits, rr, REG##bits(i->src), NOPUT)                             \
    REGISTER_DEST(name, apply, mn, bits, ri, i->imm, NOPUT)                                        \
    MEMORY_READ(name, apply, mn, bits, rm, REG##bits(i->dst), m, NOPUT)                            \
    MEMORY_READ(name, apply, mn, bits, mr, m, REG##bits(i->dst), NOPUT)                            \
    MEMORY_READ(name, apply, mn, bits, mi, m, i->imm, NOPUT)

#define SIZES(what, name, apply, mn)                                                               \
    what(name, apply, mn "b", 8) what(name, apply, mn "w", 16) what(name, apply, mn "l", 32)       \
        what(name, apply, mn "q", 64) TABLE(name)

#define ROW(name, form)                                                                            \
    {                                                                                              \
        name##_##form##8, name##_##form##16, name##_##form##32, name##_##form##64                  \
    }
#define TABLE(name)                                                                                \
    static insn_fn *const name##_table[][4] = {[FORM_RR] = ROW(name, rr),                          \
                                               [FORM_RI] = ROW(name, ri),                          \
                                               [FORM_RM] = ROW(name, rm),                          \
                                               [FORM_MR] = ROW(name, mr),                          \
                                               [FORM_MI] = ROW(name, mi)};                         \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        (void)out;                                                                                 \
        enum insn_form form = insn_form(d);                                                        \
        return form >= FORM_RR && form <= FORM_MI ? name##_table[form][insn_size(d)] : NULL;       \
    }

SIZES(BINARY_SIZE, add, APPLY_PLAIN, "add")
SIZES(BINARY_SIZE, or, APPLY_PLAIN, "or")
SIZES(BINARY_SIZE, adc, APPLY_CARRY, "adc")
SIZES(BINARY_SIZE, sbb, APPLY_CARRY, "sbb")
SIZES(BINARY_SIZE, and, APPLY_PLAIN, "and")
SIZES(BINARY_SIZE, sub, APPLY_PLAIN, "sub")
SIZES(BINARY_SIZE, xor, APPLY_PLAIN, "xor")
SIZES(TEST_SIZE, cmp, APPLY_PLAIN, "cmp")
SIZES(TEST_SIZE, test, APPLY_PLAIN, "test")

/* XOR of a register with itself: the usual way to write a zero. */
OP(zero32)
{
    REG64(i->dst) = 0;
    cpu->status = STATUS_ZF | STATUS_PF | 0x200;
    NEXT;
}

static insn_fn *select_xor_zero(struct decoded *d, struct insn *out)
{
    insn_fn *run = select_xor(d, out);
    if ((run == xor_rr32 || run == xor_rr64) && out->dst == out->src)
        return zero32;
    return run;
}

/* One operand. INC and DEC keep CF; NOT keeps all flags. */
#define UNARY_FLAGS(mn, d) asm(mn " %[dst]\n\t" FLAGS_OUT : [dst] "+r"(d), "=a"(st) : : "cc")
#define APPLY_KEEP_CF(mn, d)                                                                       \
    UNARY_FLAGS(mn, d);                                                                            \
    st = (uint16_t)((st & ~STATUS_CF) | (cpu->status & STATUS_CF))
#define APPLY_NEG(mn, d) UNARY_FLAGS(mn, d)
#define APPLY_NOT(mn, d)                                                                           \
    d = ~d;                                                                                        \
    st = cpu->status

#define UNARY_SIZE(name, apply, mn, bits)                                                          \
    OP(name##_r##bits)                                                                             \
    {                                                                                              \
        uint##bits##_t d = REG##bits(i->dst);                                                      \
        uint16_t st;                                                                               \
        apply(mn, d);                                                                              \
        PUT##bits(i->dst, d);                                                                      \
        cpu->status = st;                                                                          \
        NEXT;                                                                                      \
    }                                                                                              \
    SLOW name##_m##bits##_slow(struct vcpu *cpu, const struct insn *i)                             \
    {                                                                                              \
        struct rmw rmw;                                                                            \
        memory##bits *p = rmw_begin(cpu, i, linear(cpu, i, bits / 8, true), bits / 8, &rmw);       \
        uint##bits##_t d = *p;                                                                     \
        uint16_t st;                                                                               \
        apply(mn, d);                                                                              \
        *p = d;                                                                                    \
        rmw_end(cpu, i, &rmw);                                                                     \
        cpu->status = st;                                                                          \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_m##bits)                                                                             \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!address_simple(i) || !hit_write(cpu, address_of(cpu, i), bits / 8, &host))            \
            return name##_m##bits##_slow(cpu, i);                                                  \
        memory##bits *p = (memory##bits *)host;                                                    \
        uint##bits##_t d = *p;                                                                     \
        uint16_t st;                                                                               \
        apply(mn, d);                                                                              \
        *p = d;                                                                                    \
        cpu->status = st;                                                                          \
        NEXT;                                                                                      \
    }

#define UNARY(name, apply, mn)                                                                     \
    UNARY_SIZE(name, apply, mn "b", 8)                                                             \
    UNARY_SIZE(name, apply, mn "w", 16)                                                            \
    UNARY_SIZE(name, apply, mn "l", 32)                                                            \
    UNARY_SIZE(name, apply, mn "q", 64)                                                            \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        static insn_fn *const table[2][4] = {ROW(name, r), ROW(name, m)};                          \
        (void)out;                                                                                 \
        return table[insn_form(d) == FORM_M][insn_size(d)];                                        \
    }

UNARY(inc, APPLY_KEEP_CF, "inc")
UNARY(dec, APPLY_KEEP_CF, "dec")
UNARY(neg, APPLY_NEG, "neg")
UNARY(not, APPLY_NOT, "not")

const struct op_row ops_alu[] = {
    {ZYDIS_MNEMONIC_ADD, select_add},      {ZYDIS_MNEMONIC_OR, select_or},
    {ZYDIS_MNEMONIC_ADC, select_adc},      {ZYDIS_MNEMONIC_SBB, select_sbb},
    {ZYDIS_MNEMONIC_AND, select_and},      {ZYDIS_MNEMONIC_SUB, select_sub},
    {ZYDIS_MNEMONIC_XOR, select_xor_zero}, {ZYDIS_MNEMONIC_CMP, select_cmp},
    {ZYDIS_MNEMONIC_TEST, select_test},    {ZYDIS_MNEMONIC_INC, select_inc},
    {ZYDIS_MNEMONIC_DEC, select_dec},      {ZYDIS_MNEMONIC_NEG, select_neg},
    {ZYDIS_MNEMONIC_NOT, select_not},      {0, NULL},
};
