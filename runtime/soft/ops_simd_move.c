/* The SIMD instructions that make up most of what guests execute: moves, bitwise logic, and what string functions
 * compare bytes with. C code serves them without a stub. */
#include <emmintrin.h>

#include "runtime/cpuid.h"
#include "runtime/soft/fpu.h"

/* insn.dst and src are numbers of XMM or YMM registers here, or offsets of general registers. */
#define XMM(n) ((__m128i *)FPU_XMM(&cpu->fpu, n))
#define YMM(n) ((__m128i *)cpu->fpu.ymm_high[n])

#define SSE_CHECK                                                                                  \
    if (!sse_ready(cpu))                                                                           \
    sse_refuse(cpu, i)
#define AVX_CHECK                                                                                  \
    if (!avx_ready(cpu))                                                                           \
    avx_refuse(cpu, i)
#define ALIGNED(address, size)                                                                     \
    if (unlikely((address) & ((size)-1)))                                                          \
    RAISE_GP()

/* ---- moves between XMM registers and memory ---- */
static __attribute__((noinline)) const struct insn *
load16_slow(struct vcpu *cpu, const struct insn *i, uint64_t address)
{
    load_bytes(cpu, i, address, XMM(i->dst), 16);
    NEXT_SLOW;
}

static __attribute__((noinline)) const struct insn *
store16_slow(struct vcpu *cpu, const struct insn *i, uint64_t address)
{
    store_bytes(cpu, i, address, XMM(i->src), 16);
    NEXT_SLOW;
}

OP(movups_load)
{
    SSE_CHECK;
    uint64_t address = linear(cpu, i, 16, false);
    const __m128i *host = host_read(cpu, address, 16);
    if (unlikely(!host))
        return load16_slow(cpu, i, address);
    *XMM(i->dst) = _mm_loadu_si128(host);
    NEXT;
}

OP(movups_store)
{
    SSE_CHECK;
    uint64_t address = linear(cpu, i, 16, true);
    __m128i *host = host_write(cpu, address, 16);
    if (unlikely(!host))
        return store16_slow(cpu, i, address);
    _mm_storeu_si128(host, *XMM(i->src));
    NEXT;
}

OP(movaps_load)
{
    SSE_CHECK;
    uint64_t address = linear(cpu, i, 16, false);
    ALIGNED(address, 16);
    const __m128i *host = host_read(cpu, address, 16);
    if (unlikely(!host))
        return load16_slow(cpu, i, address);
    *XMM(i->dst) = _mm_load_si128(host);
    NEXT;
}

OP(movaps_store)
{
    SSE_CHECK;
    uint64_t address = linear(cpu, i, 16, true);
    ALIGNED(address, 16);
    __m128i *host = host_write(cpu, address, 16);
    if (unlikely(!host))
        return store16_slow(cpu, i, address);
    _mm_store_si128(host, *XMM(i->src));
    NEXT;
}

OP(movups_register)
{
    SSE_CHECK;
    *XMM(i->dst) = *XMM(i->src);
    NEXT;
}

/* The numbers of the vector registers among the two operands; FORM_RR, FORM_RM, FORM_MR or FORM_NONE. */
static enum insn_form vector_form(const struct decoded *d, struct insn *out,
                                  ZydisRegisterClass class)
{
    bool is[2];
    uint8_t number[2] = {0, 0};
    if (d->zydis->operand_count_visible != 2)
        return FORM_NONE;
    for (unsigned n = 0; n < 2; n++) {
        is[n] = d->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                ZydisRegisterGetClass(d->operands[n].reg.value) == class;
        if (is[n])
            number[n] = (uint8_t)ZydisRegisterGetId(d->operands[n].reg.value);
        else if (d->operands[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
            return FORM_NONE;
    }
    out->dst = number[0];
    out->src = number[1];
    return is[0] ? is[1] ? FORM_RR : FORM_RM : is[1] ? FORM_MR : FORM_NONE;
}

insn_fn *select_move_unaligned(struct decoded *d, struct insn *out)
{
    switch (vector_form(d, out, ZYDIS_REGCLASS_XMM)) {
    case FORM_RR:
        return movups_register;
    case FORM_RM:
        return movups_load;
    case FORM_MR:
        return movups_store;
    default:
        return select_simd_unaligned(d, out);
    }
}

insn_fn *select_move_aligned(struct decoded *d, struct insn *out)
{
    switch (vector_form(d, out, ZYDIS_REGCLASS_XMM)) {
    case FORM_RR:
        return movups_register;
    case FORM_RM:
        return movaps_load;
    case FORM_MR:
        return movaps_store;
    default:
        return select_simd(d, out);
    }
}

/* ---- MOVD and MOVQ ---- */
/* Clears the rest of the register. */
static inline void xmm_set(struct vcpu *cpu, unsigned n, uint64_t value)
{
    *XMM(n) = _mm_set_epi64x(0, (long long)value);
}
static inline uint64_t xmm_low(struct vcpu *cpu, unsigned n)
{
    return (uint64_t)_mm_cvtsi128_si64(*XMM(n));
}

#define MOVE_LOAD(name, size)                                                                      \
    static __attribute__((noinline))                                                               \
    const struct insn *name##_slow(struct vcpu *cpu, const struct insn *i, uint64_t address)       \
    {                                                                                              \
        xmm_set(cpu, i->dst, load_slow(cpu, i, address, size));                                    \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name)                                                                                       \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        uint64_t address = linear(cpu, i, size, false);                                            \
        if (unlikely(!host_read(cpu, address, size)))                                              \
            return name##_slow(cpu, i, address);                                                   \
        xmm_set(cpu, i->dst, load(cpu, i, address, size));                                         \
        NEXT;                                                                                      \
    }
#define MOVE_STORE(name, size)                                                                     \
    static __attribute__((noinline))                                                               \
    const struct insn *name##_slow(struct vcpu *cpu, const struct insn *i, uint64_t address)       \
    {                                                                                              \
        store_slow(cpu, i, address, size, xmm_low(cpu, i->src));                                   \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name)                                                                                       \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        uint64_t address = linear(cpu, i, size, true);                                             \
        if (unlikely(!host_write(cpu, address, size)))                                             \
            return name##_slow(cpu, i, address);                                                   \
        store(cpu, i, address, size, xmm_low(cpu, i->src));                                        \
        NEXT;                                                                                      \
    }
MOVE_LOAD(movd_load, 4)
MOVE_LOAD(movq_load, 8)
MOVE_STORE(movd_store, 4)
MOVE_STORE(movq_store, 8)

OP(movq_register)
{
    SSE_CHECK;
    xmm_set(cpu, i->dst, xmm_low(cpu, i->src));
    NEXT;
}
OP(movq_from_general)
{
    SSE_CHECK;
    xmm_set(cpu, i->dst, REG64(i->src));
    NEXT;
}
OP(movd_from_general)
{
    SSE_CHECK;
    xmm_set(cpu, i->dst, REG32(i->src));
    NEXT;
}
OP(movq_to_general)
{
    SSE_CHECK;
    REG64(i->dst) = xmm_low(cpu, i->src);
    NEXT;
}
OP(movd_to_general)
{
    SSE_CHECK;
    SET32(i->dst, (uint32_t)xmm_low(cpu, i->src));
    NEXT;
}

static ZydisRegisterClass operand_class(const struct decoded *d, unsigned n)
{
    return d->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER
               ? ZydisRegisterGetClass(d->operands[n].reg.value)
               : ZYDIS_REGCLASS_INVALID;
}

/* Both mnemonics: between a register and a general register or memory, 4 or 8 bytes wide. */
static insn_fn *select_movd_movq(struct decoded *d, struct insn *out)
{
    switch (vector_form(d, out, ZYDIS_REGCLASS_XMM)) {
    case FORM_RR:
        return movq_register;
    case FORM_RM:
        return d->operands[1].size == 64 ? movq_load : movd_load;
    case FORM_MR:
        return d->operands[0].size == 64 ? movq_store : movd_store;
    default:
        break;
    }
    ZydisRegisterClass to = operand_class(d, 0), from = operand_class(d, 1);
    bool in =
        to == ZYDIS_REGCLASS_XMM && (from == ZYDIS_REGCLASS_GPR64 || from == ZYDIS_REGCLASS_GPR32);
    bool back =
        from == ZYDIS_REGCLASS_XMM && (to == ZYDIS_REGCLASS_GPR64 || to == ZYDIS_REGCLASS_GPR32);
    if (in) {
        out->dst = (uint8_t)ZydisRegisterGetId(d->operands[0].reg.value);
        out->src = insn_register(d->operands[1].reg.value);
        return from == ZYDIS_REGCLASS_GPR64 ? movq_from_general : movd_from_general;
    }
    if (back) {
        out->dst = insn_register(d->operands[0].reg.value);
        out->src = (uint8_t)ZydisRegisterGetId(d->operands[1].reg.value);
        return to == ZYDIS_REGCLASS_GPR64 ? movq_to_general : movd_to_general;
    }
    return select_simd(d, out); /* MMX */
}
insn_fn *select_movd(struct decoded *d, struct insn *out)
{
    return select_movd_movq(d, out);
}
insn_fn *select_movq(struct decoded *d, struct insn *out)
{
    return select_movd_movq(d, out);
}

/* MOVNTI: a store like any other, and not an SSE register in it. */
OP(movnti)
{
    store(cpu, i, linear(cpu, i, i->aux, true), i->aux, REG64(i->src));
    NEXT_SLOW;
}

insn_fn *select_movnti(struct decoded *d, struct insn *out)
{
    out->src = insn_register(d->operands[1].reg.value);
    out->aux = (uint8_t)(d->operands[0].size / 8);
    return movnti;
}

/* ---- two registers, or a register and aligned memory ---- */
#define LOGIC(X)                                                                                   \
    X(PXOR, _mm_xor_si128(a, b))                                                                   \
    X(XORPS, _mm_xor_si128(a, b))                                                                  \
    X(XORPD, _mm_xor_si128(a, b))                                                                  \
    X(PAND, _mm_and_si128(a, b))                                                                   \
    X(ANDPS, _mm_and_si128(a, b))                                                                  \
    X(ANDPD, _mm_and_si128(a, b))                                                                  \
    X(POR, _mm_or_si128(a, b))                                                                     \
    X(ORPS, _mm_or_si128(a, b))                                                                    \
    X(PANDN, _mm_andnot_si128(a, b))                                                               \
    X(PCMPEQB, _mm_cmpeq_epi8(a, b))                                                               \
    X(PCMPEQD, _mm_cmpeq_epi32(a, b))                                                              \
    X(PMINUB, _mm_min_epu8(a, b))                                                                  \
    X(PSUBB, _mm_sub_epi8(a, b))                                                                   \
    X(PADDD, _mm_add_epi32(a, b))                                                                  \
    X(PADDQ, _mm_add_epi64(a, b))                                                                  \
    X(PUNPCKLQDQ, _mm_unpacklo_epi64(a, b))

/* The operand at an aligned address, through a copy where one look does not find it. */
static __attribute__((noinline)) __m128i load16_any(struct vcpu *cpu, const struct insn *i,
                                                    uint64_t address)
{
    __m128i copy;
    load_bytes(cpu, i, address, &copy, sizeof copy);
    return copy;
}

#define LOGIC_OPS(name, expression)                                                                \
    OP(name##_register)                                                                            \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        __m128i a = *XMM(i->dst), b = *XMM(i->src);                                                \
        *XMM(i->dst) = expression;                                                                 \
        NEXT;                                                                                      \
    }                                                                                              \
    static __attribute__((noinline))                                                               \
    const struct insn *name##_load_slow(struct vcpu *cpu, const struct insn *i, uint64_t address)  \
    {                                                                                              \
        __m128i b = load16_any(cpu, i, address), a = *XMM(i->dst);                                 \
        *XMM(i->dst) = expression;                                                                 \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_load)                                                                                \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        uint64_t address = linear(cpu, i, 16, false);                                              \
        ALIGNED(address, 16);                                                                      \
        const __m128i *host = host_read(cpu, address, 16);                                         \
        if (unlikely(!host))                                                                       \
            return name##_load_slow(cpu, i, address);                                              \
        __m128i a = *XMM(i->dst), b = _mm_load_si128(host);                                        \
        *XMM(i->dst) = expression;                                                                 \
        NEXT;                                                                                      \
    }
LOGIC(LOGIC_OPS)

#define LOGIC_ROW(name, expression) {ZYDIS_MNEMONIC_##name, {name##_register, name##_load}},
static const struct {
    ZydisMnemonic mnemonic;
    insn_fn *run[2]; /* register, memory */
} logic[] = {LOGIC(LOGIC_ROW)};

insn_fn *select_logic(struct decoded *d, struct insn *out)
{
    enum insn_form form = vector_form(d, out, ZYDIS_REGCLASS_XMM);
    if (form == FORM_RR || form == FORM_RM)
        for (unsigned n = 0; n < sizeof logic / sizeof *logic; n++)
            if (logic[n].mnemonic == d->zydis->mnemonic)
                return logic[n].run[form == FORM_RM];
    return select_simd(d, out); /* MMX */
}

OP(pmovmskb)
{
    SSE_CHECK;
    REG64(i->dst) = (uint32_t)_mm_movemask_epi8(*XMM(i->src));
    NEXT;
}

insn_fn *select_pmovmskb(struct decoded *d, struct insn *out)
{
    if (operand_class(d, 1) != ZYDIS_REGCLASS_XMM)
        return select_simd(d, out);
    out->dst = insn_register(d->operands[0].reg.value);
    out->src = (uint8_t)ZydisRegisterGetId(d->operands[1].reg.value);
    return pmovmskb;
}

/* ---- AVX moves ---- */
/* A VEX-encoded instruction that writes an XMM register clears the rest of the YMM register. */
OP(vmovups_register16)
{
    AVX_CHECK;
    *XMM(i->dst) = *XMM(i->src);
    *YMM(i->dst) = _mm_setzero_si128();
    NEXT;
}
OP(vmovups_register32)
{
    AVX_CHECK;
    *XMM(i->dst) = *XMM(i->src);
    *YMM(i->dst) = *YMM(i->src);
    NEXT;
}

static __attribute__((noinline)) const struct insn *
vload_slow(struct vcpu *cpu, const struct insn *i, uint64_t address, unsigned size)
{
    __m128i copy[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
    load_bytes(cpu, i, address, copy, size);
    *XMM(i->dst) = copy[0];
    *YMM(i->dst) = copy[1];
    NEXT_SLOW;
}

static __attribute__((noinline)) const struct insn *
vstore_slow(struct vcpu *cpu, const struct insn *i, uint64_t address, unsigned size)
{
    const __m128i copy[2] = {*XMM(i->src), *YMM(i->src)};
    store_bytes(cpu, i, address, copy, size);
    NEXT_SLOW;
}

#define VMOVE(name, size, alignment)                                                               \
    OP(name##_load##size)                                                                          \
    {                                                                                              \
        AVX_CHECK;                                                                                 \
        uint64_t address = linear(cpu, i, size, false);                                            \
        ALIGNED(address, alignment);                                                               \
        const __m128i *host = host_read(cpu, address, size);                                       \
        if (unlikely(!host))                                                                       \
            return vload_slow(cpu, i, address, size);                                              \
        *XMM(i->dst) = _mm_loadu_si128(host);                                                      \
        *YMM(i->dst) = (size) == 32 ? _mm_loadu_si128(host + 1) : _mm_setzero_si128();             \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(name##_store##size)                                                                         \
    {                                                                                              \
        AVX_CHECK;                                                                                 \
        uint64_t address = linear(cpu, i, size, true);                                             \
        ALIGNED(address, alignment);                                                               \
        __m128i *host = host_write(cpu, address, size);                                            \
        if (unlikely(!host))                                                                       \
            return vstore_slow(cpu, i, address, size);                                             \
        _mm_storeu_si128(host, *XMM(i->src));                                                      \
        if ((size) == 32)                                                                          \
            _mm_storeu_si128(host + 1, *YMM(i->src));                                              \
        NEXT;                                                                                      \
    }
VMOVE(vmovups, 16, 1)
VMOVE(vmovups, 32, 1)
VMOVE(vmovaps, 16, 16)
VMOVE(vmovaps, 32, 32)

static insn_fn *select_vmove(struct decoded *d, struct insn *out, bool aligned)
{
    static insn_fn *const load[2][2] = {{vmovups_load16, vmovups_load32},
                                        {vmovaps_load16, vmovaps_load32}};
    static insn_fn *const store[2][2] = {{vmovups_store16, vmovups_store32},
                                         {vmovaps_store16, vmovaps_store32}};
    if (!cpuid_offers_isa(d->zydis->meta.isa_set) ||
        d->zydis->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return NULL;
    bool wide = d->zydis->raw.vex.L;
    switch (vector_form(d, out, wide ? ZYDIS_REGCLASS_YMM : ZYDIS_REGCLASS_XMM)) {
    case FORM_RR:
        return wide ? vmovups_register32 : vmovups_register16;
    case FORM_RM:
        return load[aligned][wide];
    case FORM_MR:
        return store[aligned][wide];
    default:
        return NULL;
    }
}
insn_fn *select_vmove_unaligned(struct decoded *d, struct insn *out)
{
    return select_vmove(d, out, false);
}
insn_fn *select_vmove_aligned(struct decoded *d, struct insn *out)
{
    return select_vmove(d, out, true);
}
