/* SPDX-License-Identifier: MIT */
/* Bit scans and counts, BMI1 and BMI2, CRC32, MOVBE: rows of ops_bits.
 *
 * Where the host has the instruction it does the work (undefined flags are then this processor's own); where it
 * has not, C does, so that the guest's processor is the same on every host. BMI register forms have the r/m operand's
 * register in insn.base, which is free there. */
#include <cpuid.h>

#include "runtime/soft/operands.h"

/* What the host has; known before the first instruction is selected. */
static struct {
    bool bmi1, bmi2, lzcnt;
} host;

__attribute__((constructor)) static void probe_host(void)
{
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        host.bmi1 = b & bit_BMI;
        host.bmi2 = b & bit_BMI2;
    }
    if (__get_cpuid(0x80000001, &a, &b, &c, &d))
        host.lzcnt = c & bit_LZCNT;
}

unsigned bmi_pretend_host(unsigned has)
{
    unsigned had =
        (host.bmi1 ? HOST_BMI1 : 0) | (host.bmi2 ? HOST_BMI2 : 0) | (host.lzcnt ? HOST_LZCNT : 0);
    host.bmi1 = has & HOST_BMI1;
    host.bmi2 = has & HOST_BMI2;
    host.lzcnt = has & HOST_LZCNT;
    return had;
}

/* Flags after a result computed in C: as a logical operation leaves them, with this carry. */
static uint16_t result_status(uint64_t result, unsigned bits, bool carry)
{
    bool sign = result >> (bits - 1) & 1;
    return (uint16_t)(0x200u | (result ? 0 : STATUS_ZF) | (sign ? STATUS_SF : 0) |
                      (__builtin_parity((unsigned)result & 0xff) ? 0 : STATUS_PF) |
                      (carry ? STATUS_CF : 0));
}

/* ---- scans and counts: dst, r/m ---- */
/* All 64 bits of dst go through the host's instruction: with a source of 0, BSF and BSR leave what they leave. */
#define HOST_COUNT(op, form, value)                                                                \
    do {                                                                                           \
        uint64_t to = REG64(i->dst);                                                               \
        uint16_t status = cpu->status;                                                             \
        asm(FLAGS_IN "; " #op form "; " FLAGS_OUT                                                  \
            : "+a"(status), "+r"(to)                                                               \
            : "r"((uint64_t)(value))                                                               \
            : "cc");                                                                               \
        REG64(i->dst) = to;                                                                        \
        cpu->status = status;                                                                      \
    } while (0)
#define FORM16 "w %w2, %w1"
#define FORM32 "l %k2, %k1"
#define FORM64 "q %2, %1"

static __attribute__((noinline, cold)) void count_zeros(struct vcpu *cpu, const struct insn *i,
                                                        uint64_t value, unsigned bits, bool leading)
{
    unsigned count = bits;
    if (value)
        count = (unsigned)(leading ? __builtin_clzll(value) - (64 - (int)bits)
                                   : __builtin_ctzll(value));
    cpu->status = (uint16_t)(0x200u | (cpu->status & STATUS_OF) | (value ? 0 : STATUS_CF) |
                             (count ? 0 : STATUS_ZF));
    if (bits == 16)
        REG16(i->dst) = (uint16_t)count;
    else
        REG64(i->dst) = count;
}

#define COUNT_FUNCTIONS(bits)                                                                      \
    BODY bsf##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                   \
    {                                                                                              \
        HOST_COUNT(bsf, FORM##bits, value);                                                        \
    }                                                                                              \
    BODY bsr##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                   \
    {                                                                                              \
        HOST_COUNT(bsr, FORM##bits, value);                                                        \
    }                                                                                              \
    BODY popcnt##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                \
    {                                                                                              \
        HOST_COUNT(popcnt, FORM##bits, value);                                                     \
    }                                                                                              \
    BODY tzcnt##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                 \
    {                                                                                              \
        HOST_COUNT(tzcnt, FORM##bits, value);                                                      \
    }                                                                                              \
    BODY lzcnt##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                 \
    {                                                                                              \
        HOST_COUNT(lzcnt, FORM##bits, value);                                                      \
    }                                                                                              \
    BODY tzcnt_soft##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)            \
    {                                                                                              \
        count_zeros(cpu, i, value, bits, false);                                                   \
    }                                                                                              \
    BODY lzcnt_soft##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)            \
    {                                                                                              \
        count_zeros(cpu, i, value, bits, true);                                                    \
    }                                                                                              \
    OPS_SOURCE(bsf, bits, src)                                                                     \
    OPS_SOURCE(bsr, bits, src)                                                                     \
    OPS_SOURCE(popcnt, bits, src)                                                                  \
    OPS_SOURCE(tzcnt, bits, src)                                                                   \
    OPS_SOURCE(lzcnt, bits, src)                                                                   \
    OPS_SOURCE(tzcnt_soft, bits, src)                                                              \
    OPS_SOURCE(lzcnt_soft, bits, src)

COUNT_FUNCTIONS(16)
COUNT_FUNCTIONS(32)
COUNT_FUNCTIONS(64)

struct source_functions {
    insn_fn *registers[4], *memory[4];
};

static insn_fn *select_source(struct decoded *d, struct insn *out,
                              const struct source_functions *functions)
{
    unsigned size = operand_size(d, 1);
    out->dst = operand_register(d, 0);
    if (operand_is_memory(d, 1))
        return functions->memory[size];
    out->src = operand_register(d, 1);
    return functions->registers[size];
}

#define SOURCE_TABLE(name)                                                                         \
    static const struct source_functions name##_functions = {                                      \
        {NULL, name##_r16, name##_r32, name##_r64}, {NULL, name##_m16, name##_m32, name##_m64}}
SOURCE_TABLE(bsf);
SOURCE_TABLE(bsr);
SOURCE_TABLE(popcnt);
SOURCE_TABLE(tzcnt);
SOURCE_TABLE(lzcnt);
SOURCE_TABLE(tzcnt_soft);
SOURCE_TABLE(lzcnt_soft);

insn_fn *select_bsf(struct decoded *d, struct insn *out)
{
    return select_source(d, out, &bsf_functions);
}

insn_fn *select_bsr(struct decoded *d, struct insn *out)
{
    return select_source(d, out, &bsr_functions);
}

insn_fn *select_popcnt(struct decoded *d, struct insn *out)
{
    return select_source(d, out, &popcnt_functions);
}

/* On a processor without them, TZCNT and LZCNT are BSF and BSR with a prefix that means nothing. */
insn_fn *select_tzcnt(struct decoded *d, struct insn *out)
{
    if (!cpuid_offers(FEATURE_BMI1))
        return select_source(d, out, &bsf_functions);
    return select_source(d, out, host.bmi1 ? &tzcnt_functions : &tzcnt_soft_functions);
}

insn_fn *select_lzcnt(struct decoded *d, struct insn *out)
{
    if (!cpuid_offers(FEATURE_ABM))
        return select_source(d, out, &bsr_functions);
    return select_source(d, out, host.lzcnt ? &lzcnt_functions : &lzcnt_soft_functions);
}

/* ---- BMI: results in C where the host has no instruction ---- */
static uint64_t deposit(uint64_t from, uint64_t mask)
{
    uint64_t result = 0;
    for (; mask; mask &= mask - 1, from >>= 1)
        if (from & 1)
            result |= mask & -mask;
    return result;
}
static uint64_t extract(uint64_t from, uint64_t mask)
{
    uint64_t result = 0;
    for (uint64_t bit = 1; mask; mask &= mask - 1, bit <<= 1)
        if (from & mask & -mask)
            result |= bit;
    return result;
}
static uint64_t field(uint64_t value, uint64_t control, unsigned bits)
{
    unsigned start = control & 0xff, length = control >> 8 & 0xff;
    value = start < bits ? value >> start : 0;
    return length < bits ? value & ((1ull << length) - 1) : value;
}
static uint64_t low_bits(uint64_t value, unsigned count, unsigned bits)
{
    return count < bits ? value & ((1ull << count) - 1) : value;
}

/* BODY of dst, src and value (r/m) by the host's `form`, or by `soft` with the carry `carry` and flags of the
 * result. */
#define BMI_BODY(name, bits, available, form, soft, carry)                                         \
    BODY name##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                  \
    {                                                                                              \
        uint##bits##_t other = REG##bits(i->src), to;                                              \
        if (likely(host.available)) {                                                              \
            uint16_t status = cpu->status;                                                         \
            asm(FLAGS_IN "; " form "; " FLAGS_OUT                                                  \
                : "+a"(status), "=&r"(to)                                                          \
                : "r"(value), "r"(other)                                                           \
                : "cc");                                                                           \
            cpu->status = status;                                                                  \
        } else {                                                                                   \
            to = (uint##bits##_t)(soft);                                                           \
            cpu->status = result_status(to, bits, carry);                                          \
        }                                                                                          \
        SET_REG##bits(i->dst, to);                                                                 \
    }                                                                                              \
    OPS_SOURCE(name, bits, base)
/* The same without flags. */
#define BMI_BODY_FLAGLESS(name, bits, soft)                                                        \
    BODY name##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                  \
    {                                                                                              \
        uint##bits##_t other = REG##bits(i->src);                                                  \
        SET_REG##bits(i->dst, (uint##bits##_t)(soft));                                             \
    }                                                                                              \
    OPS_SOURCE(name, bits, base)

/* %2 is r/m, %3 the other register. */
#define BMI_FUNCTIONS(bits)                                                                        \
    BMI_BODY(andn, bits, bmi1, "andn %2, %3, %1", ~other &value, false)                            \
    BMI_BODY(bextr, bits, bmi1, "bextr %3, %2, %1", field(value, other, bits), false)              \
    BMI_BODY(blsi, bits, bmi1, "blsi %2, %1", value & -value, ((void)other, value != 0))           \
    BMI_BODY(blsr, bits, bmi1, "blsr %2, %1", value &(value - 1), ((void)other, value == 0))       \
    BMI_BODY(blsmsk, bits, bmi1, "blsmsk %2, %1", value ^ (value - 1), ((void)other, value == 0))  \
    BMI_BODY(bzhi, bits, bmi2, "bzhi %3, %2, %1", low_bits(value, (uint8_t)other, bits),           \
             (uint8_t)other >= bits)                                                               \
    BMI_BODY_FLAGLESS(sarx, bits, (int##bits##_t)value >> (other & (bits - 1)))                    \
    BMI_BODY_FLAGLESS(shrx, bits, value >> (other & (bits - 1)))                                   \
    BMI_BODY_FLAGLESS(shlx, bits, value << (other & (bits - 1)))                                   \
    BODY rorx##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                  \
    {                                                                                              \
        unsigned count = i->imm & (bits - 1);                                                      \
        SET_REG##bits(i->dst, value >> count | value << (-count & (bits - 1)));                    \
    }                                                                                              \
    OPS_SOURCE(rorx, bits, base)                                                                   \
    BODY pdep##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                  \
    {                                                                                              \
        uint##bits##_t other = REG##bits(i->src), to;                                              \
        if (likely(host.bmi2))                                                                     \
            asm("pdep %1, %2, %0" : "=r"(to) : "r"(value), "r"(other));                            \
        else                                                                                       \
            to = (uint##bits##_t)deposit(other, value);                                            \
        SET_REG##bits(i->dst, to);                                                                 \
    }                                                                                              \
    OPS_SOURCE(pdep, bits, base)                                                                   \
    BODY pext##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                  \
    {                                                                                              \
        uint##bits##_t other = REG##bits(i->src), to;                                              \
        if (likely(host.bmi2))                                                                     \
            asm("pext %1, %2, %0" : "=r"(to) : "r"(value), "r"(other));                            \
        else                                                                                       \
            to = (uint##bits##_t)extract(other, value);                                            \
        SET_REG##bits(i->dst, to);                                                                 \
    }                                                                                              \
    OPS_SOURCE(pext, bits, base)

BMI_FUNCTIONS(32)
BMI_FUNCTIONS(64)

/* Where the r/m operand stands among the operands, and the other register (0: none but dst). */
static insn_fn *select_bmi(struct decoded *d, struct insn *out, unsigned rm, unsigned other,
                           insn_fn *const functions[4])
{
    bool wide = operand_size(d, 0) == 3;
    if (!vex_allowed(d))
        return NULL;
    out->dst = operand_register(d, 0);
    out->src = operand_register(d, other);
    if (operand_is_memory(d, rm))
        return functions[2 + wide];
    out->base = operand_register(d, rm);
    return functions[wide];
}

#define BMI_SELECT(name, feature, rm, other)                                                       \
    insn_fn *select_##name(struct decoded *d, struct insn *out)                                    \
    {                                                                                              \
        static insn_fn *const functions[4] = {name##_r32, name##_r64, name##_m32, name##_m64};     \
        return cpuid_offers(feature) ? select_bmi(d, out, rm, other, functions) : NULL;            \
    }

BMI_SELECT(andn, FEATURE_BMI1, 2, 1)
BMI_SELECT(bextr, FEATURE_BMI1, 1, 2)
BMI_SELECT(blsi, FEATURE_BMI1, 1, 0)
BMI_SELECT(blsmsk, FEATURE_BMI1, 1, 0)
BMI_SELECT(blsr, FEATURE_BMI1, 1, 0)
BMI_SELECT(bzhi, FEATURE_BMI2, 1, 2)
BMI_SELECT(pdep, FEATURE_BMI2, 2, 1)
BMI_SELECT(pext, FEATURE_BMI2, 2, 1)
BMI_SELECT(sarx, FEATURE_BMI2, 1, 2)
BMI_SELECT(shlx, FEATURE_BMI2, 1, 2)
BMI_SELECT(shrx, FEATURE_BMI2, 1, 2)

insn_fn *select_rorx(struct decoded *d, struct insn *out)
{
    static insn_fn *const functions[4] = {rorx_r32, rorx_r64, rorx_m32, rorx_m64};
    if (!cpuid_offers(FEATURE_BMI2))
        return NULL;
    out->imm = d->operands[2].imm.value.u;
    return select_bmi(d, out, 1, 0, functions);
}

/* ---- CRC32: SSE4.2, which every host has that hvrun runs on ---- */
#define CRC32_FUNCTIONS(bits, suffix)                                                              \
    BODY crc32##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                 \
    {                                                                                              \
        uint64_t sum = REG32(i->dst);                                                              \
        asm("crc32" suffix : "+r"(sum) : "r"(value));                                              \
        REG64(i->dst) = sum;                                                                       \
    }                                                                                              \
    OPS_SOURCE(crc32, bits, src)

CRC32_FUNCTIONS(8, "b %1, %k0")
CRC32_FUNCTIONS(16, "w %1, %k0")
CRC32_FUNCTIONS(32, "l %1, %k0")
CRC32_FUNCTIONS(64, "q %1, %q0")

insn_fn *select_crc32(struct decoded *d, struct insn *out)
{
    static const struct source_functions functions = {{crc32_r8, crc32_r16, crc32_r32, crc32_r64},
                                                      {crc32_m8, crc32_m16, crc32_m32, crc32_m64}};
    return select_source(d, out, &functions);
}

/* ---- MOVBE ---- */
#define MOVBE_FUNCTIONS(bits)                                                                      \
    BODY movbe##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                 \
    {                                                                                              \
        SET_REG##bits(i->dst, __builtin_bswap##bits(value));                                       \
    }                                                                                              \
    OPS_SOURCE_MEMORY(movbe, bits)                                                                 \
    OP_SLOW(movbe_store_slow##bits)                                                                \
    {                                                                                              \
        store(cpu, i, linear(cpu, i, bits / 8, true), bits / 8,                                    \
              __builtin_bswap##bits(REG##bits(i->src)));                                           \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(movbe_store##bits)                                                                          \
    {                                                                                              \
        OPERAND(hit_write, to, bits, movbe_store_slow##bits);                                      \
        *to = __builtin_bswap##bits(REG##bits(i->src));                                            \
        NEXT;                                                                                      \
    }

MOVBE_FUNCTIONS(16)
MOVBE_FUNCTIONS(32)
MOVBE_FUNCTIONS(64)

insn_fn *select_movbe(struct decoded *d, struct insn *out)
{
    static insn_fn *const loads[4] = {NULL, movbe_m16, movbe_m32, movbe_m64};
    static insn_fn *const stores[4] = {NULL, movbe_store16, movbe_store32, movbe_store64};
    unsigned size = operand_size(d, 0);
    if (!cpuid_offers(FEATURE_MOVBE))
        return NULL;
    if (operand_is_memory(d, 0)) {
        out->src = operand_register(d, 1);
        return stores[size];
    }
    out->dst = operand_register(d, 0);
    return loads[size];
}
