/* SPDX-License-Identifier: MIT */
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

/* Where the operand is: insn.aux holds the address bits that must be clear. */
static uint64_t operand_address(struct vcpu *cpu, const struct insn *i, unsigned size, bool write)
{
    uint64_t address = linear(cpu, i, size, write);
    if (address & i->aux)
        RAISE_GP();
    return address;
}

/* True if the instruction may execute and one look finds its operand: else the slow sibling does it all. */
static inline bool found_read(struct vcpu *cpu, const struct insn *i, bool ready, unsigned size,
                              uintptr_t *host)
{
    uint64_t address = address_of(cpu, i);
    return likely(ready && address_simple(i) && !(address & i->aux)) &&
           hit_read(cpu, address, size, host);
}
static inline bool found_write(struct vcpu *cpu, const struct insn *i, bool ready, unsigned size,
                               uintptr_t *host)
{
    uint64_t address = address_of(cpu, i);
    return likely(ready && address_simple(i) && !(address & i->aux)) &&
           hit_write(cpu, address, size, host);
}

/* ---- moves between XMM registers and memory ---- */
SLOW move_load_slow(struct vcpu *cpu, const struct insn *i)
{
    SSE_CHECK;
    load_bytes(cpu, i, operand_address(cpu, i, 16, false), XMM(i->dst), 16);
    NEXT_SLOW;
}
SLOW move_store_slow(struct vcpu *cpu, const struct insn *i)
{
    SSE_CHECK;
    store_bytes(cpu, i, operand_address(cpu, i, 16, true), XMM(i->src), 16);
    NEXT_SLOW;
}

OP(move_load)
{
    uintptr_t host;
    if (!found_read(cpu, i, sse_ready(cpu), 16, &host))
        return move_load_slow(cpu, i);
    *XMM(i->dst) = _mm_loadu_si128((const __m128i *)host);
    NEXT;
}
OP(move_store)
{
    uintptr_t host;
    if (!found_write(cpu, i, sse_ready(cpu), 16, &host))
        return move_store_slow(cpu, i);
    _mm_storeu_si128((__m128i *)host, *XMM(i->src));
    NEXT;
}
OP(move_register)
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

static insn_fn *select_move(struct decoded *d, struct insn *out, uint8_t alignment)
{
    out->aux = alignment;
    switch (vector_form(d, out, ZYDIS_REGCLASS_XMM)) {
    case FORM_RR:
        return move_register;
    case FORM_RM:
        return move_load;
    case FORM_MR:
        return move_store;
    default:
        return NULL;
    }
}
insn_fn *select_move_unaligned(struct decoded *d, struct insn *out)
{
    return select_move(d, out, 0);
}
insn_fn *select_move_aligned(struct decoded *d, struct insn *out)
{
    return select_move(d, out, 15);
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

#define MOVE_LOAD(name, type)                                                                      \
    SLOW name##_slow(struct vcpu *cpu, const struct insn *i)                                       \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        unsigned size = sizeof(type);                                                              \
        xmm_set(cpu, i->dst, load(cpu, i, operand_address(cpu, i, size, false), size));            \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name)                                                                                       \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!found_read(cpu, i, sse_ready(cpu), sizeof(type), &host))                              \
            return name##_slow(cpu, i);                                                            \
        xmm_set(cpu, i->dst, *(const type *)host);                                                 \
        NEXT;                                                                                      \
    }
#define MOVE_STORE(name, type)                                                                     \
    SLOW name##_slow(struct vcpu *cpu, const struct insn *i)                                       \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        unsigned size = sizeof(type);                                                              \
        store(cpu, i, operand_address(cpu, i, size, true), size, xmm_low(cpu, i->src));            \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name)                                                                                       \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!found_write(cpu, i, sse_ready(cpu), sizeof(type), &host))                             \
            return name##_slow(cpu, i);                                                            \
        *(type *)host = (type)xmm_low(cpu, i->src);                                                \
        NEXT;                                                                                      \
    }
typedef uint32_t __attribute__((aligned(1))) any_uint32; /* guest addresses are not aligned */
typedef uint64_t __attribute__((aligned(1))) any_uint64;
MOVE_LOAD(movd_load, any_uint32)
MOVE_LOAD(movq_load, any_uint64)
MOVE_STORE(movd_store, any_uint32)
MOVE_STORE(movq_store, any_uint64)

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
    out->aux = 0;
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

/* MOVSS and MOVSD between a register and memory do the same; between registers they merge. */
insn_fn *select_move_scalar(struct decoded *d, struct insn *out)
{
    switch (vector_form(d, out, ZYDIS_REGCLASS_XMM)) {
    case FORM_RM:
    case FORM_MR:
        return select_movd_movq(d, out);
    default:
        return select_simd(d, out);
    }
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

#define LOGIC_OPS(name, expression)                                                                \
    OP(name##_register)                                                                            \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        __m128i a = *XMM(i->dst), b = *XMM(i->src);                                                \
        *XMM(i->dst) = expression;                                                                 \
        NEXT;                                                                                      \
    }                                                                                              \
    SLOW name##_load_slow(struct vcpu *cpu, const struct insn *i)                                  \
    {                                                                                              \
        SSE_CHECK;                                                                                 \
        __m128i a = *XMM(i->dst), b;                                                               \
        load_bytes(cpu, i, operand_address(cpu, i, 16, false), &b, sizeof b);                      \
        *XMM(i->dst) = expression;                                                                 \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_load)                                                                                \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!found_read(cpu, i, sse_ready(cpu), 16, &host))                                        \
            return name##_load_slow(cpu, i);                                                       \
        __m128i a = *XMM(i->dst), b = _mm_load_si128((const __m128i *)host);                       \
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
    out->aux = 15;
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
OP(vmove_register16)
{
    AVX_CHECK;
    *XMM(i->dst) = *XMM(i->src);
    *YMM(i->dst) = _mm_setzero_si128();
    NEXT;
}
OP(vmove_register32)
{
    AVX_CHECK;
    *XMM(i->dst) = *XMM(i->src);
    *YMM(i->dst) = *YMM(i->src);
    NEXT;
}

#define VMOVE(size)                                                                                \
    SLOW vmove_load##size##_slow(struct vcpu *cpu, const struct insn *i)                           \
    {                                                                                              \
        AVX_CHECK;                                                                                 \
        __m128i copy[2] = {_mm_setzero_si128(), _mm_setzero_si128()};                              \
        load_bytes(cpu, i, operand_address(cpu, i, size, false), copy, size);                      \
        *XMM(i->dst) = copy[0];                                                                    \
        *YMM(i->dst) = copy[1];                                                                    \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    SLOW vmove_store##size##_slow(struct vcpu *cpu, const struct insn *i)                          \
    {                                                                                              \
        AVX_CHECK;                                                                                 \
        const __m128i copy[2] = {*XMM(i->src), *YMM(i->src)};                                      \
        store_bytes(cpu, i, operand_address(cpu, i, size, true), copy, size);                      \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(vmove_load##size)                                                                           \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!found_read(cpu, i, avx_ready(cpu), size, &host))                                      \
            return vmove_load##size##_slow(cpu, i);                                                \
        const __m128i *from = (const __m128i *)host;                                               \
        *XMM(i->dst) = _mm_loadu_si128(from);                                                      \
        *YMM(i->dst) = (size) == 32 ? _mm_loadu_si128(from + 1) : _mm_setzero_si128();             \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(vmove_store##size)                                                                          \
    {                                                                                              \
        uintptr_t host;                                                                            \
        if (!found_write(cpu, i, avx_ready(cpu), size, &host))                                     \
            return vmove_store##size##_slow(cpu, i);                                               \
        __m128i *to = (__m128i *)host;                                                             \
        _mm_storeu_si128(to, *XMM(i->src));                                                        \
        if ((size) == 32)                                                                          \
            _mm_storeu_si128(to + 1, *YMM(i->src));                                                \
        NEXT;                                                                                      \
    }
VMOVE(16)
VMOVE(32)

static insn_fn *select_vmove(struct decoded *d, struct insn *out, bool aligned)
{
    if (!cpuid_offers_isa(d->zydis->meta.isa_set) ||
        d->zydis->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return NULL;
    bool wide = d->zydis->raw.vex.L;
    out->aux = aligned ? wide ? 31 : 15 : 0;
    switch (vector_form(d, out, wide ? ZYDIS_REGCLASS_YMM : ZYDIS_REGCLASS_XMM)) {
    case FORM_RR:
        return wide ? vmove_register32 : vmove_register16;
    case FORM_RM:
        return wide ? vmove_load32 : vmove_load16;
    case FORM_MR:
        return wide ? vmove_store32 : vmove_store16;
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
