/* SPDX-License-Identifier: MIT */
/* SIMD instructions that touch memory by elements: masked moves and gathers. Elements that are not enabled are neither
 * read nor written, so they cannot fault (SDM 2C VMASKMOV, VPGATHERDD). */
#include "runtime/cpuid.h"
#include "runtime/soft/fpu.h"

/* insn.dst is the number of the data register, insn.src that of the mask, for both kinds. */

/* Byte `at` of a register of up to 32 bytes. */
static inline uint8_t *vector_byte(struct vcpu *cpu, unsigned n, unsigned at)
{
    return at < 16 ? FPU_XMM(&cpu->fpu, n) + at : &cpu->fpu.ymm_high[n][at - 16];
}

static inline bool enabled(struct vcpu *cpu, unsigned mask, unsigned element, unsigned size)
{
    return *vector_byte(cpu, mask, (element + 1) * size - 1) & 0x80;
}

static inline uint64_t element_get(struct vcpu *cpu, unsigned n, unsigned element, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, vector_byte(cpu, n, element * size), size);
    return value;
}
static inline void element_set(struct vcpu *cpu, unsigned n, unsigned element, unsigned size,
                               uint64_t value)
{
    memcpy(vector_byte(cpu, n, element * size), &value, size);
}

static void clear_above(struct vcpu *cpu, unsigned n, unsigned size)
{
    if (size < 16)
        memset(FPU_XMM(&cpu->fpu, n) + size, 0, 16 - size);
    if (size < 32)
        memset(cpu->fpu.ymm_high[n], 0, sizeof cpu->fpu.ymm_high[n]);
}

/* ---- masked moves: insn.aux is AUX_* ---- */
#define AUX_SIZE 0xfu /* bytes of an element */
#define AUX_WIDE 0x10u
#define AUX_VEX  0x20u

/* Stores what is enabled: all of it, or nothing and a fault. */
static void store_enabled(struct vcpu *cpu, const struct insn *i, unsigned bytes, unsigned size)
{
    uint64_t address = linear(cpu, i, 1, true);
    for (unsigned n = 0; n < bytes / size; n++)
        if (enabled(cpu, i->src, n, size))
            probe_write(cpu, i, address + n * size, size);
    for (unsigned n = 0; n < bytes / size; n++)
        if (enabled(cpu, i->src, n, size))
            store(cpu, i, address + n * size, size, element_get(cpu, i->dst, n, size));
}

OP(maskmovdqu)
{
    if (i->aux & AUX_VEX ? !avx_ready(cpu) : !sse_ready(cpu))
        i->aux &AUX_VEX ? avx_refuse(cpu, i) : sse_refuse(cpu, i);
    store_enabled(cpu, i, 16, 1);
    NEXT_SLOW;
}

OP(maskmovq)
{
    if (cpu->cr0 & CR0_EM)
        RAISE_UD();
    x87_wait(cpu, i);
    struct fpu fpu = cpu->fpu;
    mmx_enter(&fpu);
    uint64_t address = linear(cpu, i, 1, true);
    const uint8_t *data = FPU_ST(&fpu, i->dst), *mask = FPU_ST(&fpu, i->src);
    for (unsigned n = 0; n < 8; n++)
        if (mask[n] & 0x80)
            probe_write(cpu, i, address + n, 1);
    mmx_enter(&cpu->fpu);
    for (unsigned n = 0; n < 8; n++)
        if (mask[n] & 0x80)
            store(cpu, i, address + n, 1, data[n]);
    NEXT_SLOW;
}

OP(vmaskmov_load)
{
    if (!avx_ready(cpu))
        avx_refuse(cpu, i);
    unsigned bytes = i->aux & AUX_WIDE ? 32 : 16, size = i->aux & AUX_SIZE;
    uint64_t address = linear(cpu, i, 1, false);
    uint64_t value[8] = {0};
    for (unsigned n = 0; n < bytes / size; n++)
        if (enabled(cpu, i->src, n, size))
            value[n] = load(cpu, i, address + n * size, size);
    for (unsigned n = 0; n < bytes / size; n++)
        element_set(cpu, i->dst, n, size, value[n]);
    clear_above(cpu, i->dst, bytes);
    NEXT_SLOW;
}

OP(vmaskmov_store)
{
    if (!avx_ready(cpu))
        avx_refuse(cpu, i);
    store_enabled(cpu, i, i->aux & AUX_WIDE ? 32 : 16, i->aux & AUX_SIZE);
    NEXT_SLOW;
}

static uint8_t vector_number(const struct decoded *d, unsigned operand)
{
    return (uint8_t)ZydisRegisterGetId(d->operands[operand].reg.value);
}

/* The memory operand at rDI, which is not among the visible ones. */
static void fill_implicit(const struct decoded *d, struct insn *out)
{
    for (unsigned n = 0; n < d->zydis->operand_count; n++)
        if (d->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            const ZydisDecodedOperandMem *m = &d->operands[n].mem;
            out->base = insn_register(m->base);
            out->segment = (uint8_t)(m->segment - ZYDIS_REGISTER_ES);
        }
}

insn_fn *select_maskmov(struct decoded *d, struct insn *out)
{
    out->dst = vector_number(d, 0);
    out->src = vector_number(d, 1);
    fill_implicit(d, out);
    if (d->zydis->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ)
        return maskmovq;
    bool vex = d->zydis->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    out->aux = vex ? AUX_VEX : 0;
    return cpuid_offers_isa(d->zydis->meta.isa_set) ? maskmovdqu : NULL;
}

insn_fn *select_vmaskmov(struct decoded *d, struct insn *out)
{
    bool is_store = d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    ZydisMnemonic m = d->zydis->mnemonic;
    bool wide_elements = m == ZYDIS_MNEMONIC_VMASKMOVPD || m == ZYDIS_MNEMONIC_VPMASKMOVQ;
    if (!cpuid_offers_isa(d->zydis->meta.isa_set))
        return NULL;
    out->dst = vector_number(d, is_store ? 2 : 0);
    out->src = vector_number(d, 1);
    out->aux = (uint8_t)((wide_elements ? 8 : 4) | (d->zydis->raw.vex.L ? AUX_WIDE : 0));
    return is_store ? vmaskmov_store : vmaskmov_load;
}

/* ---- gathers: insn.aux is the index register's number and GATHER_* ---- */
#define GATHER_INDEX   0xfu
#define GATHER_INDEX64 0x10u
#define GATHER_VALUE64 0x20u
#define GATHER_WIDE    0x40u

static uint64_t gather_address(struct vcpu *cpu, const struct insn *i, unsigned element,
                               unsigned size)
{
    unsigned index_size = i->aux & GATHER_INDEX64 ? 8 : 4;
    uint64_t index = element_get(cpu, i->aux & GATHER_INDEX, element, index_size);
    if (index_size == 4)
        index = (uint64_t)(int64_t)(int32_t)index;
    uint64_t offset = REG64(i->base) + (index << i->scale) + (uint64_t)(int64_t)i->disp;
    if (i->flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    return i->flags & INSN_EA ? linear_slow(cpu, i, offset, size, false)
                              : offset + cpu->base[i->segment];
}

/* Each element that has been loaded leaves its mask element zero, so a fault loses nothing: executed again, the
 * instruction goes on with the element that faulted. */
OP(gather)
{
    if (!avx_ready(cpu))
        avx_refuse(cpu, i);
    unsigned size = i->aux & GATHER_VALUE64 ? 8 : 4;
    unsigned larger = i->aux & (GATHER_VALUE64 | GATHER_INDEX64) ? 8 : 4;
    unsigned elements = (i->aux & GATHER_WIDE ? 32 : 16) / larger;
    for (unsigned n = 0; n < elements; n++) {
        if (!enabled(cpu, i->src, n, size)) {
            element_set(cpu, i->src, n, size, 0);
            continue;
        }
        uint64_t value = load(cpu, i, gather_address(cpu, i, n, size), size);
        element_set(cpu, i->dst, n, size, value);
        element_set(cpu, i->src, n, size, 0);
    }
    clear_above(cpu, i->src, 0);
    clear_above(cpu, i->dst, elements * size);
    NEXT_SLOW;
}

insn_fn *select_gather(struct decoded *d, struct insn *out)
{
    ZydisMnemonic m = d->zydis->mnemonic;
    bool index64 = m == ZYDIS_MNEMONIC_VPGATHERQD || m == ZYDIS_MNEMONIC_VPGATHERQQ ||
                   m == ZYDIS_MNEMONIC_VGATHERQPS || m == ZYDIS_MNEMONIC_VGATHERQPD;
    bool value64 = m == ZYDIS_MNEMONIC_VPGATHERDQ || m == ZYDIS_MNEMONIC_VPGATHERQQ ||
                   m == ZYDIS_MNEMONIC_VGATHERDPD || m == ZYDIS_MNEMONIC_VGATHERQPD;
    if (!cpuid_offers_isa(d->zydis->meta.isa_set) ||
        d->zydis->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return NULL;
    uint8_t index = (uint8_t)ZydisRegisterGetId(d->operands[1].mem.index);
    out->dst = vector_number(d, 0);
    out->src = vector_number(d, 2);
    if (out->dst == out->src || out->dst == index || out->src == index)
        return NULL;
    out->index = offsetof(struct vcpu, r[REG_ZERO]);
    out->aux = (uint8_t)(index | (index64 ? GATHER_INDEX64 : 0) | (value64 ? GATHER_VALUE64 : 0) |
                         (d->zydis->raw.vex.L ? GATHER_WIDE : 0));
    return gather;
}
