/* SPDX-License-Identifier: MIT */
/* Multiplication, division, and the read-modify-write instructions that compare or exchange.
 *
 * The host's own instruction does the work, so that undefined flags are what this processor leaves. Division is
 * checked first: the host never traps. All vCPUs run on one thread, so LOCK asks for nothing. */
#include "runtime/soft/operands.h"

/* ---- MUL, IMUL with one operand ---- */
#define GUEST_RAX REG_OFFSET(RAX)
#define GUEST_RDX REG_OFFSET(RDX)

/* 8 bits: AX = AL * value. */
#define WIDE_MULTIPLY8(op)                                                                         \
    BODY op##8(struct vcpu * cpu, const struct insn *i, uint8_t value)                             \
    {                                                                                              \
        uint16_t status = cpu->status, product = REG16(GUEST_RAX);                                 \
        (void)i;                                                                                   \
        asm(FLAGS_IN "; movw %1, %%ax; " #op "b %b2; movw %%ax, %1; " FLAGS_OUT                    \
            : "+a"(status), "+&r"(product)                                                         \
            : "r"(value)                                                                           \
            : "cc");                                                                               \
        REG16(GUEST_RAX) = product;                                                                \
        cpu->status = status;                                                                      \
    }                                                                                              \
    OPS_SOURCE(op, 8, dst)

/* Others: xDX:xAX = xAX * value. */
#define WIDE_MULTIPLY(op, bits, suffix, a)                                                         \
    BODY op##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                    \
    {                                                                                              \
        uint16_t status = cpu->status;                                                             \
        uint##bits##_t low = REG##bits(GUEST_RAX), high;                                           \
        (void)i;                                                                                   \
        asm(FLAGS_IN "; mov %1, %%" a "; " #op suffix " %3; mov %%" a ", %1; " FLAGS_OUT           \
            : "+a"(status), "+&r"(low), "=&d"(high)                                                \
            : "r"(value)                                                                           \
            : "cc");                                                                               \
        SET_REG##bits(GUEST_RAX, low);                                                             \
        SET_REG##bits(GUEST_RDX, high);                                                            \
        cpu->status = status;                                                                      \
    }                                                                                              \
    OPS_SOURCE(op, bits, dst)

#define WIDE_MULTIPLIES(op)                                                                        \
    WIDE_MULTIPLY8(op)                                                                             \
    WIDE_MULTIPLY(op, 16, "w", "ax")                                                               \
    WIDE_MULTIPLY(op, 32, "l", "eax")                                                              \
    WIDE_MULTIPLY(op, 64, "q", "rax")

WIDE_MULTIPLIES(mul)
WIDE_MULTIPLIES(imul)

/* ---- DIV, IDIV ---- */
/* True if |dividend| / |divisor| does not fit, or the divisor is 0. */
static inline bool unsigned_overflow(uint64_t high, uint64_t divisor)
{
    return high >= divisor; /* a divisor of 0 included */
}
/* The quotient q fits if q <= 2^(bits-1) - 1, or, where the signs differ, q <= 2^(bits-1): that is,
 * |dividend| < |divisor| * (2^(bits-1) or one more). */
#define SIGNED_OVERFLOW(name, wide)                                                                \
    static inline bool name(wide dividend, int64_t divisor, unsigned bits)                         \
    {                                                                                              \
        bool negative = (dividend < 0) != (divisor < 0);                                           \
        unsigned wide size = dividend < 0 ? -(unsigned wide)dividend : (unsigned wide)dividend;    \
        unsigned wide by = (uint64_t)(divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor);       \
        return size >= by * ((1ull << (bits - 1)) + negative);                                     \
    }
SIGNED_OVERFLOW(signed_overflow, long)
SIGNED_OVERFLOW(signed_overflow128, __int128)

#define HOST_DIVIDE(op, suffix, a)                                                                 \
    asm(FLAGS_IN "; mov %1, %%" a "; " #op suffix " %3; mov %%" a ", %1; " FLAGS_OUT               \
        : "+a"(status), "+&r"(low), "+&d"(high)                                                    \
        : "r"(value)                                                                               \
        : "cc")

#define DIVIDE8(op, overflow)                                                                      \
    BODY op##8(struct vcpu * cpu, const struct insn *i, uint8_t value)                             \
    {                                                                                              \
        uint16_t status = cpu->status, low = REG16(GUEST_RAX);                                     \
        if (unlikely(overflow))                                                                    \
            cpu_raise(cpu, i, EXC_DE);                                                             \
        asm(FLAGS_IN "; movw %1, %%ax; " #op "b %b2; movw %%ax, %1; " FLAGS_OUT                    \
            : "+a"(status), "+&r"(low)                                                             \
            : "r"(value)                                                                           \
            : "cc");                                                                               \
        REG16(GUEST_RAX) = low;                                                                    \
        cpu->status = status;                                                                      \
    }                                                                                              \
    OPS_SOURCE(op, 8, dst)
#define DIVIDE(op, bits, suffix, a, overflow)                                                      \
    BODY op##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                    \
    {                                                                                              \
        uint16_t status = cpu->status;                                                             \
        uint##bits##_t low = REG##bits(GUEST_RAX), high = REG##bits(GUEST_RDX);                    \
        if (unlikely(overflow))                                                                    \
            cpu_raise(cpu, i, EXC_DE);                                                             \
        HOST_DIVIDE(op, suffix, a);                                                                \
        SET_REG##bits(GUEST_RAX, low);                                                             \
        SET_REG##bits(GUEST_RDX, high);                                                            \
        cpu->status = status;                                                                      \
    }                                                                                              \
    OPS_SOURCE(op, bits, dst)

DIVIDE8(div, unsigned_overflow(low >> 8, value))
DIVIDE(div, 16, "w", "ax", unsigned_overflow(high, value))
DIVIDE(div, 32, "l", "eax", unsigned_overflow(high, value))
DIVIDE(div, 64, "q", "rax", unsigned_overflow(high, value))
DIVIDE8(idiv, signed_overflow((int16_t)low, (int8_t)value, 8))
DIVIDE(idiv, 16, "w", "ax",
       signed_overflow((int32_t)((uint32_t)high << 16 | low), (int16_t)value, 16))
DIVIDE(idiv, 32, "l", "eax",
       signed_overflow((int64_t)((uint64_t)high << 32 | low), (int32_t)value, 32))
DIVIDE(idiv, 64, "q", "rax",
       signed_overflow128((__int128)((unsigned __int128)high << 64 | low), (int64_t)value, 64))

/* ---- IMUL with two and three operands ---- */
#define MULTIPLY(bits, suffix)                                                                     \
    static inline __attribute__((always_inline)) void multiply##bits(                              \
        struct vcpu *cpu, const struct insn *i, uint##bits##_t value, uint##bits##_t by)           \
    {                                                                                              \
        uint16_t status = cpu->status;                                                             \
        asm(FLAGS_IN "; imul" suffix " %2, %1; " FLAGS_OUT                                         \
            : "+a"(status), "+r"(value)                                                            \
            : "r"(by)                                                                              \
            : "cc");                                                                               \
        SET_REG##bits(i->dst, value);                                                              \
        cpu->status = status;                                                                      \
    }                                                                                              \
    BODY imul_two##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)              \
    {                                                                                              \
        multiply##bits(cpu, i, value, REG##bits(i->dst));                                          \
    }                                                                                              \
    OPS_SOURCE(imul_two, bits, src)                                                                \
    BODY imul_three##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)            \
    {                                                                                              \
        multiply##bits(cpu, i, value, (uint##bits##_t)i->imm);                                     \
    }                                                                                              \
    OPS_SOURCE(imul_three, bits, src)

MULTIPLY(16, "w")
MULTIPLY(32, "l")
MULTIPLY(64, "q")

struct functions {
    insn_fn *registers[4], *memory[4];
};
#define FUNCTIONS(name)                                                                            \
    {                                                                                              \
        {name##_r8, name##_r16, name##_r32, name##_r64},                                           \
        {                                                                                          \
            name##_m8, name##_m16, name##_m32, name##_m64                                          \
        }                                                                                          \
    }
#define FUNCTIONS_WIDE(name)                                                                       \
    {                                                                                              \
        {NULL, name##_r16, name##_r32, name##_r64},                                                \
        {                                                                                          \
            NULL, name##_m16, name##_m32, name##_m64                                               \
        }                                                                                          \
    }

/* Instructions whose first operand is r/m. */
static insn_fn *select_first(struct decoded *d, struct insn *out, const struct functions *functions)
{
    unsigned size = operand_size(d, 0);
    if (d->zydis->operand_count_visible > 1)
        out->src = operand_register(d, 1);
    if (operand_is_memory(d, 0))
        return functions->memory[size];
    out->dst = operand_register(d, 0);
    return functions->registers[size];
}

#define SELECT_FIRST(name, TABLE)                                                                  \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        static const struct functions functions = TABLE(name);                                     \
        return select_first(d, out, &functions);                                                   \
    }

SELECT_FIRST(mul, FUNCTIONS)
SELECT_FIRST(div, FUNCTIONS)
SELECT_FIRST(idiv, FUNCTIONS)

static insn_fn *select_imul(struct decoded *d, struct insn *out)
{
    static const struct functions one = FUNCTIONS(imul), two = FUNCTIONS_WIDE(imul_two),
                                  three = FUNCTIONS_WIDE(imul_three);
    unsigned size = operand_size(d, 0);
    if (d->zydis->operand_count_visible == 1)
        return select_first(d, out, &one);
    const struct functions *functions = &two;
    if (d->zydis->operand_count_visible == 3) {
        functions = &three;
        out->imm = d->operands[2].imm.value.u;
    }
    out->dst = operand_register(d, 0);
    if (operand_is_memory(d, 1))
        return functions->memory[size];
    out->src = operand_register(d, 1);
    return functions->registers[size];
}

/* ---- MULX, ADCX, ADOX: all their flags are defined ---- */
BODY mulx32(struct vcpu *cpu, const struct insn *i, uint32_t value)
{
    uint64_t product = (uint64_t)REG32(GUEST_RDX) * value;
    SET32(i->src, product);
    SET32(i->dst, product >> 32); /* written last: wins if both are one register */
}
OPS_SOURCE(mulx, 32, base)
BODY mulx64(struct vcpu *cpu, const struct insn *i, uint64_t value)
{
    unsigned __int128 product = (unsigned __int128)REG64(GUEST_RDX) * value;
    REG64(i->src) = (uint64_t)product;
    REG64(i->dst) = (uint64_t)(product >> 64);
}
OPS_SOURCE(mulx, 64, base)

#define CARRY_FUNCTIONS(name, bits, flag)                                                          \
    BODY name##bits(struct vcpu *cpu, const struct insn *i, uint##bits##_t value)                  \
    {                                                                                              \
        uint##bits##_t sum;                                                                        \
        bool carry = __builtin_add_overflow(REG##bits(i->dst), value, &sum);                       \
        carry |= __builtin_add_overflow(sum, (uint##bits##_t) !!(cpu->status & (flag)), &sum);     \
        cpu->status = (uint16_t)((cpu->status & ~(flag)) | (carry ? (flag) : 0));                  \
        SET_REG##bits(i->dst, sum);                                                                \
    }                                                                                              \
    OPS_SOURCE(name, bits, src)
CARRY_FUNCTIONS(adcx, 32, STATUS_CF)
CARRY_FUNCTIONS(adcx, 64, STATUS_CF)
CARRY_FUNCTIONS(adox, 32, STATUS_OF)
CARRY_FUNCTIONS(adox, 64, STATUS_OF)

static insn_fn *select_mulx(struct decoded *d, struct insn *out)
{
    bool wide = operand_size(d, 0) == 3;
    if (!vex_allowed(d) || !cpuid_offers(FEATURE_BMI2))
        return NULL;
    out->dst = operand_register(d, 0);
    out->src = operand_register(d, 1);
    if (operand_is_memory(d, 2))
        return wide ? mulx_m64 : mulx_m32;
    out->base = operand_register(d, 2);
    return wide ? mulx_r64 : mulx_r32;
}

static insn_fn *select_carry(struct decoded *d, struct insn *out, insn_fn *const functions[4])
{
    bool wide = operand_size(d, 0) == 3;
    if (!cpuid_offers(FEATURE_ADX))
        return NULL;
    out->dst = operand_register(d, 0);
    if (operand_is_memory(d, 1))
        return functions[2 + wide];
    out->src = operand_register(d, 1);
    return functions[wide];
}
static insn_fn *select_adcx(struct decoded *d, struct insn *out)
{
    static insn_fn *const functions[4] = {adcx_r32, adcx_r64, adcx_m32, adcx_m64};
    return select_carry(d, out, functions);
}
static insn_fn *select_adox(struct decoded *d, struct insn *out)
{
    static insn_fn *const functions[4] = {adox_r32, adox_r64, adox_m32, adox_m64};
    return select_carry(d, out, functions);
}

/* ---- XADD, CMPXCHG ---- */
/* Both go through the host with all 64 bits of the registers: what happens to upper halves is the processor's. */
#define EXCHANGE_FUNCTIONS(bits, suffix, k)                                                        \
    BODY xadd##bits(struct vcpu *cpu, const struct insn *i, memory##bits *to)                      \
    {                                                                                              \
        uint16_t status;                                                                           \
        uint##bits##_t add = REG##bits(i->src);                                                    \
        asm("xadd" suffix " %1, %2; " FLAGS_OUT : "=a"(status), "+&r"(add), "+m"(*to) : : "cc");   \
        SET_REG##bits(i->src, add);                                                                \
        cpu->status = status;                                                                      \
    }                                                                                              \
    OPS_MODIFY_MEMORY(xadd, bits)                                                                  \
    OP(xadd_r##bits)                                                                               \
    {                                                                                              \
        uint16_t status;                                                                           \
        uint##bits##_t add = REG##bits(i->src), to = REG##bits(i->dst);                            \
        asm("xadd" suffix " %1, %2; " FLAGS_OUT : "=a"(status), "+&r"(add), "+&r"(to) : : "cc");   \
        SET_REG##bits(i->src, add);                                                                \
        SET_REG##bits(i->dst, to); /* written last: the sum wins if both are one register */       \
        cpu->status = status;                                                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    BODY cmpxchg##bits(struct vcpu *cpu, const struct insn *i, memory##bits *to)                   \
    {                                                                                              \
        uint64_t accumulator = REG64(GUEST_RAX), with = REG##bits(i->src), status = 0;             \
        asm("movq %3, %%rax; cmpxchg" suffix " %" k "1, %2; movq %%rax, %3; " FLAGS_OUT            \
            : "=&a"(status), "+&r"(with), "+m"(*to), "+&r"(accumulator)                            \
            :                                                                                      \
            : "cc");                                                                               \
        REG64(GUEST_RAX) = accumulator;                                                            \
        cpu->status = (uint16_t)status;                                                            \
    }                                                                                              \
    OPS_MODIFY_MEMORY(cmpxchg, bits)

#define CMPXCHG_REGISTER(bits, suffix, k)                                                          \
    OP(cmpxchg_r##bits)                                                                            \
    {                                                                                              \
        uint64_t accumulator = REG64(GUEST_RAX), with = REG64(i->src), to = REG64(i->dst), status; \
        asm("movq %3, %%rax; cmpxchg" suffix " %" k "1, %" k "2; movq %%rax, %3; " FLAGS_OUT       \
            : "=&a"(status), "+&r"(with), "+&r"(to), "+&r"(accumulator)                            \
            :                                                                                      \
            : "cc");                                                                               \
        REG64(GUEST_RAX) = accumulator;                                                            \
        REG64(i->dst) = to; /* last: RAX as destination is equal, and replaced */                  \
        cpu->status = (uint16_t)status;                                                            \
        NEXT;                                                                                      \
    }

EXCHANGE_FUNCTIONS(8, "b", "b")
EXCHANGE_FUNCTIONS(16, "w", "w")
EXCHANGE_FUNCTIONS(32, "l", "k")
EXCHANGE_FUNCTIONS(64, "q", "q")
CMPXCHG_REGISTER(16, "w", "w")
CMPXCHG_REGISTER(32, "l", "k")
CMPXCHG_REGISTER(64, "q", "q")
/* Byte registers may be AH to BH: by value. */
OP(cmpxchg_r8)
{
    uint8_t accumulator = REG8(GUEST_RAX), to = REG8(i->dst);
    uint16_t status;
    asm("cmpb %2, %1; " FLAGS_OUT : "=&a"(status) : "q"(accumulator), "q"(to) : "cc");
    if (accumulator == to)
        REG8(i->dst) = REG8(i->src);
    else
        REG8(GUEST_RAX) = to;
    cpu->status = status;
    NEXT;
}

SELECT_FIRST(xadd, FUNCTIONS)
SELECT_FIRST(cmpxchg, FUNCTIONS)

/* ---- CMPXCHG8B, CMPXCHG16B: only ZF changes ---- */
static inline void set_zero_flag(struct vcpu *cpu, bool zero)
{
    cpu->status = (uint16_t)((cpu->status & ~STATUS_ZF) | (zero ? STATUS_ZF : 0));
}

BODY cmpxchg8b64(struct vcpu *cpu, const struct insn *i, memory64 *to)
{
    uint64_t old = *to;
    bool equal = old == (REG64(GUEST_RDX) << 32 | REG32(GUEST_RAX));
    (void)i;
    if (equal) {
        *to = cpu->r[RCX] << 32 | (uint32_t)cpu->r[RBX];
    } else {
        cpu->r[RAX] = (uint32_t)old;
        cpu->r[RDX] = old >> 32;
    }
    set_zero_flag(cpu, equal);
}
OPS_MODIFY_MEMORY(cmpxchg8b, 64)

/* True if `to` was equal and has been replaced. */
static inline bool compare_exchange16(struct vcpu *cpu, memory64 *to)
{
    uint64_t low = to[0], high = to[1];
    bool equal = low == cpu->r[RAX] && high == cpu->r[RDX];
    if (equal) {
        to[0] = cpu->r[RBX];
        to[1] = cpu->r[RCX];
    } else {
        cpu->r[RAX] = low;
        cpu->r[RDX] = high;
    }
    set_zero_flag(cpu, equal);
    return equal;
}

OP_SLOW(cmpxchg16b_slow)
{
    uint64_t address = linear(cpu, i, 16, true), copy[2];
    if (address & 15)
        RAISE_GP();
    probe_write(cpu, i, address, 16);
    load_bytes(cpu, i, address, copy, 16);
    if (compare_exchange16(cpu, copy))
        store_bytes(cpu, i, address, copy, 16);
    NEXT_SLOW;
}
OP(cmpxchg16b)
{
    uintptr_t host;
    if (unlikely(!address_simple(i) || !hit_write(cpu, address_of(cpu, i), 16, &host) || host & 15))
        return cmpxchg16b_slow(cpu, i);
    compare_exchange16(cpu, (memory64 *)host);
    NEXT;
}

static insn_fn *select_cmpxchg8b(struct decoded *d, struct insn *out)
{
    (void)d;
    (void)out;
    return cmpxchg8b_m64;
}
static insn_fn *select_cmpxchg16b(struct decoded *d, struct insn *out)
{
    (void)d;
    (void)out;
    return cmpxchg16b;
}

const struct op_row ops_muldiv[] = {
    {ZYDIS_MNEMONIC_MUL, select_mul},
    {ZYDIS_MNEMONIC_IMUL, select_imul},
    {ZYDIS_MNEMONIC_DIV, select_div},
    {ZYDIS_MNEMONIC_IDIV, select_idiv},
    {ZYDIS_MNEMONIC_MULX, select_mulx},
    {ZYDIS_MNEMONIC_ADCX, select_adcx},
    {ZYDIS_MNEMONIC_ADOX, select_adox},
    {ZYDIS_MNEMONIC_XADD, select_xadd},
    {ZYDIS_MNEMONIC_CMPXCHG, select_cmpxchg},
    {ZYDIS_MNEMONIC_CMPXCHG8B, select_cmpxchg8b},
    {ZYDIS_MNEMONIC_CMPXCHG16B, select_cmpxchg16b},
    {ZYDIS_MNEMONIC_INVALID, NULL},
};
