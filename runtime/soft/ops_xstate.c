/* SPDX-License-Identifier: MIT */
/* FXSAVE, XSAVE and their kind, XGETBV, XSETBV, LDMXCSR, STMXCSR, RDPKRU, WRPKRU (SDM 1 10.5, 13). */
#include "runtime/cpuid.h"
#include "runtime/soft/fpu.h"
#include "runtime/soft/system.h"
#include "runtime/soft/tlb.h"

#define LEGACY_SIZE 512u
#define AREA_SIZE   XSTATE_LEGACY_SIZE /* with the header */
#define AREA_MAX    (XSTATE_PKRU_OFFSET + XSTATE_PKRU_SIZE)
#define COMPACTED   (1ull << 63)

/* Extended components in ascending order; offsets of the standard format. */
static const struct {
    uint8_t bit;
    uint16_t size, offset;
} components[] = {{2, XSTATE_AVX_SIZE, XSTATE_AVX_OFFSET},
                  {9, XSTATE_PKRU_SIZE, XSTATE_PKRU_OFFSET}};
#define COMPONENTS (sizeof components / sizeof *components)

/* ---- components that are not in their initial state (SDM 1 13.6, XINUSE) ---- */
static bool all_zero(const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    for (size_t n = 0; n < size; n++)
        if (p[n])
            return false;
    return true;
}

static uint64_t in_use(const struct vcpu *cpu)
{
    const struct fpu *fpu = &cpu->fpu;
    uint64_t used = 0;
    if (FPU_FCW(fpu) != FCW_INITIAL || FPU_FSW(fpu) || FPU_FTW(fpu) || FPU_FOP(fpu) ||
        FPU_FIP(fpu) || FPU_FDP(fpu) || !all_zero(FPU_ST(fpu, 0), 128))
        used |= XSTATE_X87;
    if (!all_zero(FPU_XMM(fpu, 0), 256))
        used |= XSTATE_SSE;
    if (!all_zero(fpu->ymm_high, sizeof fpu->ymm_high))
        used |= XSTATE_AVX;
    if (cpu->pkru)
        used |= XSTATE_PKRU;
    return used;
}

/* ---- the legacy region ---- */
/* Registers that 32-bit code can name. */
static unsigned vector_registers(const struct vcpu *cpu)
{
    return vcpu_code64(cpu) ? 16 : 8;
}

/* insn.aux of FXSAVE and XSAVE: pointers have 64 bits (REX.W). */
static void x87_write(const struct vcpu *cpu, const struct insn *i, uint8_t *area)
{
    memcpy(area, cpu->fpu.legacy, 24);
    memcpy(area + 32, FPU_ST(&cpu->fpu, 0), 128);
    area[5] = 0;
    if (!i->aux && vcpu_code64(cpu)) /* the selectors' places; 32-bit code keeps them there */
        memset(area + 12, 0, 4), memset(area + 20, 0, 4);
}

static void x87_read(struct vcpu *cpu, const struct insn *i, const uint8_t *area)
{
    struct fpu *fpu = &cpu->fpu;
    memcpy(fpu->legacy, area, 24);
    memcpy(FPU_ST(fpu, 0), area + 32, 128);
    for (unsigned n = 0; n < 8; n++)
        memset(FPU_ST(fpu, n) + 10, 0, 6);
    fpu->legacy[5] = 0;
    FPU_FOP(fpu) &= 0x7ff;
    FPU_FCW(fpu) = x87_control_word(FPU_FCW(fpu));
    if (!i->aux && vcpu_code64(cpu)) {
        FPU_FIP(fpu) = (uint32_t)FPU_FIP(fpu);
        FPU_FDP(fpu) = (uint32_t)FPU_FDP(fpu);
    }
    x87_summarize(fpu);
}

static void mxcsr_write(const struct vcpu *cpu, uint8_t *area)
{
    const uint32_t words[2] = {FPU_MXCSR(&cpu->fpu), MXCSR_MASK};
    memcpy(area + 24, words, sizeof words);
}

static uint32_t mxcsr_of(const uint8_t *area)
{
    uint32_t value;
    memcpy(&value, area + 24, sizeof value);
    return value;
}

/* ---- FXSAVE, FXRSTOR ---- */
static void check_legacy(struct vcpu *cpu, const struct insn *i)
{
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        cpu_raise(cpu, i, EXC_NM);
}

/* 16-byte alignment; what is not canonical is not looked at further. */
static void check_area(struct vcpu *cpu, const struct insn *i, uint64_t address)
{
    if (!(address & 15))
        return;
    if (i->segment == SEG_SS && !canonical(address))
        cpu_raise_error(cpu, i, EXC_SS, 0);
    RAISE_GP();
}

OP(fxsave)
{
    check_legacy(cpu, i);
    uint8_t area[LEGACY_SIZE];
    unsigned size = 160 + 16 * vector_registers(cpu);
    uint64_t address = linear(cpu, i, LEGACY_SIZE, true);
    check_area(cpu, i, address);
    x87_write(cpu, i, area);
    mxcsr_write(cpu, area);
    memcpy(area + 160, FPU_XMM(&cpu->fpu, 0), 256);
    probe_write(cpu, i, address, LEGACY_SIZE);
    store_bytes(cpu, i, address, area, size);
    NEXT_SLOW;
}

OP(fxrstor)
{
    check_legacy(cpu, i);
    uint8_t area[LEGACY_SIZE];
    uint64_t address = linear(cpu, i, LEGACY_SIZE, false);
    check_area(cpu, i, address);
    load_bytes(cpu, i, address, area, LEGACY_SIZE);
    if (mxcsr_of(area) & ~MXCSR_MASK)
        RAISE_GP();
    x87_read(cpu, i, area);
    FPU_MXCSR(&cpu->fpu) = mxcsr_of(area);
    memcpy(FPU_XMM(&cpu->fpu, 0), area + 160, 16 * vector_registers(cpu));
    NEXT_SLOW;
}

/* ---- XSAVE and its variants: insn.src is SAVE_* ---- */
#define SAVE_OPTIMIZED  1u /* components in their initial state are left out */
#define SAVE_COMPACTED  2u
#define SAVE_SUPERVISOR 4u

static void check_xsave(struct vcpu *cpu, const struct insn *i)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        RAISE_UD();
    if (cpu->cr0 & CR0_TS)
        cpu_raise(cpu, i, EXC_NM);
    if (i->src & SAVE_SUPERVISOR && cpu->cpl)
        RAISE_GP();
}

static uint64_t requested(const struct vcpu *cpu, const struct insn *i)
{
    uint64_t enabled = cpu->xcr0 | (i->src & SAVE_SUPERVISOR ? cpu->xss : 0);
    return enabled & ((uint32_t)cpu->r[RAX] | cpu->r[RDX] << 32);
}

static uint64_t area_address(struct vcpu *cpu, const struct insn *i, bool write)
{
    uint64_t address = linear(cpu, i, AREA_SIZE, write);
    if (address & 63)
        RAISE_GP();
    return address;
}

static void component_write(const struct vcpu *cpu, unsigned bit, uint8_t *to)
{
    if (bit == 2) {
        memcpy(to, cpu->fpu.ymm_high, 16 * vector_registers(cpu));
    } else {
        const uint64_t value = cpu->pkru;
        memcpy(to, &value, sizeof value);
    }
}

static unsigned component_bytes(const struct vcpu *cpu, unsigned n)
{
    return components[n].bit == 2 ? 16 * vector_registers(cpu) : components[n].size;
}

/* What has been put together is stored in pieces: the bytes between them are not the processor's to write. */
struct piece {
    uint16_t offset, size;
};
struct save {
    uint8_t area[AREA_MAX];
    struct piece piece[8];
    unsigned pieces;
};

static void add_piece(struct save *s, unsigned offset, unsigned size)
{
    s->piece[s->pieces++] = (struct piece){(uint16_t)offset, (uint16_t)size};
}

static void save_legacy(const struct vcpu *cpu, const struct insn *i, uint64_t mask, bool mxcsr,
                        struct save *s)
{
    if (mask & XSTATE_X87) {
        x87_write(cpu, i, s->area);
        add_piece(s, 0, 24);
        add_piece(s, 32, 128);
    }
    if (mxcsr) {
        mxcsr_write(cpu, s->area);
        add_piece(s, 24, 8);
    }
    if (mask & XSTATE_SSE) {
        memcpy(s->area + 160, FPU_XMM(&cpu->fpu, 0), 256);
        add_piece(s, 160, 16 * vector_registers(cpu));
    }
}

/* `layout`: the components that take room in the compacted format; `mask`: those to be written. */
static void save_extended(const struct vcpu *cpu, uint64_t layout, uint64_t mask, bool compacted,
                          struct save *s)
{
    unsigned next = AREA_SIZE;
    for (unsigned n = 0; n < COMPONENTS; n++) {
        if (!(layout >> components[n].bit & 1))
            continue;
        unsigned offset = compacted ? next : components[n].offset;
        next = offset + components[n].size;
        if (mask >> components[n].bit & 1) {
            component_write(cpu, components[n].bit, s->area + offset);
            add_piece(s, offset, component_bytes(cpu, n));
        }
    }
}

static void store_pieces(struct vcpu *cpu, const struct insn *i, uint64_t address,
                         const struct save *s)
{
    for (unsigned n = 0; n < s->pieces; n++)
        probe_write(cpu, i, address + s->piece[n].offset, s->piece[n].size);
    for (unsigned n = 0; n < s->pieces; n++)
        store_bytes(cpu, i, address + s->piece[n].offset, s->area + s->piece[n].offset,
                    s->piece[n].size);
}

OP(xsave)
{
    check_xsave(cpu, i);
    struct save s = {.pieces = 0};
    bool compacted = i->src & SAVE_COMPACTED;
    uint64_t address = area_address(cpu, i, true);
    uint64_t mask = requested(cpu, i), used = in_use(cpu);
    uint64_t header[2] = {0, COMPACTED | mask};
    if (compacted) {
        /* MXCSR belongs to SSE in this format, and keeps it from being in its initial state (SDM 1 13.6). */
        if (FPU_MXCSR(&cpu->fpu) != MXCSR_INITIAL)
            used |= XSTATE_SSE;
        header[0] = mask & used;
    } else {
        load_bytes(cpu, i, address + LEGACY_SIZE, header, 8);
        header[0] = (header[0] & ~mask) | (mask & used);
    }
    uint64_t write = i->src & SAVE_OPTIMIZED ? mask & used : mask;
    bool mxcsr = compacted ? write & XSTATE_SSE : mask & (XSTATE_SSE | XSTATE_AVX);
    save_legacy(cpu, i, write, mxcsr, &s);
    memcpy(s.area + LEGACY_SIZE, header, sizeof header);
    add_piece(&s, LEGACY_SIZE, compacted ? 16 : 8);
    save_extended(cpu, mask, write, compacted, &s);
    store_pieces(cpu, i, address, &s);
    NEXT_SLOW;
}

/* ---- XRSTOR, XRSTORS ---- */
/* The header's checks (SDM 2D XRSTOR): what makes it #GP. */
static void check_header(struct vcpu *cpu, const struct insn *i, const uint64_t header[8])
{
    uint64_t enabled = cpu->xcr0 | (i->src & SAVE_SUPERVISOR ? cpu->xss : 0);
    uint64_t reserved = 0;
    for (unsigned n = 2; n < 8; n++)
        reserved |= header[n];
    if (header[1] & COMPACTED) {
        if ((header[1] & ~COMPACTED & ~enabled) || (header[0] & ~header[1]) || reserved)
            RAISE_GP();
    } else if (header[1] || header[2] || header[0] & ~enabled || i->src & SAVE_SUPERVISOR) {
        RAISE_GP();
    }
}

static void restore_x87(struct vcpu *cpu, const struct insn *i, const uint8_t *area, bool present)
{
    if (present) {
        x87_read(cpu, i, area);
        return;
    }
    x87_init(&cpu->fpu);
    memset(FPU_ST(&cpu->fpu, 0), 0, 128);
}

static void restore_component(struct vcpu *cpu, unsigned bit, const uint8_t *from, bool present)
{
    static const uint8_t zero[256];
    const uint8_t *bytes = present ? from : zero;
    if (bit == 2) {
        memcpy(cpu->fpu.ymm_high, bytes, 16 * vector_registers(cpu));
        return;
    }
    uint32_t before = cpu->pkru;
    memcpy(&cpu->pkru, bytes, sizeof cpu->pkru);
    if (cpu->pkru != before)
        tlb_flush(cpu);
}

OP(xrstor)
{
    check_xsave(cpu, i);
    uint8_t area[AREA_MAX] = {0};
    uint64_t address = area_address(cpu, i, false);
    uint64_t mask = requested(cpu, i), header[8];
    load_bytes(cpu, i, address, area, AREA_SIZE);
    memcpy(header, area + LEGACY_SIZE, sizeof header);
    check_header(cpu, i, header);
    bool compacted = header[1] & COMPACTED;
    uint64_t layout = compacted ? header[1] & ~COMPACTED : mask;
    uint64_t present = mask & header[0];
    /* In the standard format MXCSR is loaded whatever XSTATE_BV says. */
    bool mxcsr = compacted ? present & XSTATE_SSE : mask & (XSTATE_SSE | XSTATE_AVX);
    if (mxcsr && mxcsr_of(area) & ~MXCSR_MASK)
        RAISE_GP();
    if (present & ~(uint64_t)(XSTATE_X87 | XSTATE_SSE))
        load_bytes(cpu, i, address + AREA_SIZE, area + AREA_SIZE,
                   cpuid_xsave_size(layout, compacted) - AREA_SIZE);
    if (mask & XSTATE_X87)
        restore_x87(cpu, i, area, present & XSTATE_X87);
    if (mask & XSTATE_SSE) {
        memset(FPU_XMM(&cpu->fpu, 0), 0, 16 * vector_registers(cpu));
        if (present & XSTATE_SSE)
            memcpy(FPU_XMM(&cpu->fpu, 0), area + 160, 16 * vector_registers(cpu));
        FPU_MXCSR(&cpu->fpu) = mxcsr ? mxcsr_of(area) : MXCSR_INITIAL;
    } else if (mxcsr) {
        FPU_MXCSR(&cpu->fpu) = mxcsr_of(area);
    }
    unsigned next = AREA_SIZE;
    for (unsigned n = 0; n < COMPONENTS; n++) {
        unsigned bit = components[n].bit;
        unsigned offset = compacted ? next : components[n].offset;
        if (layout >> bit & 1)
            next = offset + components[n].size;
        if (mask >> bit & 1)
            restore_component(cpu, bit, area + offset, present >> bit & 1);
    }
    NEXT_SLOW;
}

/* ---- XCR0 ---- */
OP(xgetbv)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        RAISE_UD();
    uint32_t number = (uint32_t)cpu->r[RCX];
    if (number > cpuid_offers(FEATURE_XGETBV1))
        RAISE_GP();
    uint64_t value = number == 0 ? cpu->xcr0 : cpu->xcr0 & in_use(cpu);
    cpu->r[RAX] = (uint32_t)value;
    cpu->r[RDX] = value >> 32;
    NEXT_SLOW;
}

OP(xsetbv)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        RAISE_UD();
    count_exit(cpu, i, EXIT_KIND_OTHER_LISTED);
    uint64_t value = (uint32_t)cpu->r[RAX] | cpu->r[RDX] << 32;
    if (cpu->cpl || (uint32_t)cpu->r[RCX] || value & ~cpuid_xcr0_mask() || !(value & XSTATE_X87) ||
        (value & XSTATE_AVX && !(value & XSTATE_SSE)))
        RAISE_GP();
    cpu->xcr0 = value;
    NEXT_SLOW;
}

/* ---- MXCSR: insn.aux is 1 for the VEX-encoded forms ---- */
static void check_mxcsr(struct vcpu *cpu, const struct insn *i)
{
    if (i->aux) {
        if (!avx_ready(cpu))
            avx_refuse(cpu, i);
    } else if (!sse_ready(cpu)) {
        sse_refuse(cpu, i);
    }
}

OP(ldmxcsr)
{
    check_mxcsr(cpu, i);
    uint64_t value = load(cpu, i, linear(cpu, i, 4, false), 4);
    if (value & ~(uint64_t)MXCSR_MASK)
        RAISE_GP();
    FPU_MXCSR(&cpu->fpu) = (uint32_t)value;
    NEXT_SLOW;
}

OP(stmxcsr)
{
    check_mxcsr(cpu, i);
    store(cpu, i, linear(cpu, i, 4, true), 4, FPU_MXCSR(&cpu->fpu));
    NEXT_SLOW;
}

/* ---- PKRU ---- */
OP(rdpkru)
{
    if (!(cpu->cr4 & CR4_PKE))
        RAISE_UD();
    if ((uint32_t)cpu->r[RCX])
        RAISE_GP();
    cpu->r[RAX] = cpu->pkru;
    cpu->r[RDX] = 0;
    NEXT;
}

OP(wrpkru)
{
    if (!(cpu->cr4 & CR4_PKE))
        RAISE_UD();
    if ((uint32_t)cpu->r[RCX] || (uint32_t)cpu->r[RDX])
        RAISE_GP();
    if (cpu->pkru != (uint32_t)cpu->r[RAX]) {
        cpu->pkru = (uint32_t)cpu->r[RAX];
        tlb_flush(cpu);
    }
    NEXT_SLOW;
}

/* ---- rows ---- */
#define OFFERED(name)                                                                              \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        (void)out;                                                                                 \
        return cpuid_offers_isa(d->zydis->meta.isa_set) ? name : NULL;                             \
    }
OFFERED(rdpkru)
OFFERED(xgetbv)
OFFERED(xsetbv)
OFFERED(wrpkru)

static insn_fn *select_mxcsr(struct decoded *d, struct insn *out)
{
    ZydisMnemonic m = d->zydis->mnemonic;
    out->aux = d->zydis->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (!cpuid_offers_isa(d->zydis->meta.isa_set))
        return NULL;
    return m == ZYDIS_MNEMONIC_LDMXCSR || m == ZYDIS_MNEMONIC_VLDMXCSR ? ldmxcsr : stmxcsr;
}

static insn_fn *select_area(struct decoded *d, struct insn *out)
{
    static const struct {
        ZydisMnemonic mnemonic;
        insn_fn *run;
        uint8_t pointers64, kind;
    } rows[] = {
        {ZYDIS_MNEMONIC_FXSAVE, fxsave, 0, 0},
        {ZYDIS_MNEMONIC_FXSAVE64, fxsave, 1, 0},
        {ZYDIS_MNEMONIC_FXRSTOR, fxrstor, 0, 0},
        {ZYDIS_MNEMONIC_FXRSTOR64, fxrstor, 1, 0},
        {ZYDIS_MNEMONIC_XSAVE, xsave, 0, 0},
        {ZYDIS_MNEMONIC_XSAVE64, xsave, 1, 0},
        {ZYDIS_MNEMONIC_XSAVEOPT, xsave, 0, SAVE_OPTIMIZED},
        {ZYDIS_MNEMONIC_XSAVEOPT64, xsave, 1, SAVE_OPTIMIZED},
        {ZYDIS_MNEMONIC_XSAVEC, xsave, 0, SAVE_OPTIMIZED | SAVE_COMPACTED},
        {ZYDIS_MNEMONIC_XSAVEC64, xsave, 1, SAVE_OPTIMIZED | SAVE_COMPACTED},
        {ZYDIS_MNEMONIC_XSAVES, xsave, 0, SAVE_OPTIMIZED | SAVE_COMPACTED | SAVE_SUPERVISOR},
        {ZYDIS_MNEMONIC_XSAVES64, xsave, 1, SAVE_OPTIMIZED | SAVE_COMPACTED | SAVE_SUPERVISOR},
        {ZYDIS_MNEMONIC_XRSTOR, xrstor, 0, 0},
        {ZYDIS_MNEMONIC_XRSTOR64, xrstor, 1, 0},
        {ZYDIS_MNEMONIC_XRSTORS, xrstor, 0, SAVE_SUPERVISOR},
        {ZYDIS_MNEMONIC_XRSTORS64, xrstor, 1, SAVE_SUPERVISOR},
    };
    for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++)
        if (rows[n].mnemonic == d->zydis->mnemonic && cpuid_offers_isa(d->zydis->meta.isa_set)) {
            out->aux = rows[n].pointers64;
            out->src = rows[n].kind;
            return rows[n].run;
        }
    return NULL;
}

const struct op_row ops_xstate[] = {
    {ZYDIS_MNEMONIC_FXSAVE, select_area},    {ZYDIS_MNEMONIC_FXSAVE64, select_area},
    {ZYDIS_MNEMONIC_FXRSTOR, select_area},   {ZYDIS_MNEMONIC_FXRSTOR64, select_area},
    {ZYDIS_MNEMONIC_XSAVE, select_area},     {ZYDIS_MNEMONIC_XSAVE64, select_area},
    {ZYDIS_MNEMONIC_XSAVEOPT, select_area},  {ZYDIS_MNEMONIC_XSAVEOPT64, select_area},
    {ZYDIS_MNEMONIC_XSAVEC, select_area},    {ZYDIS_MNEMONIC_XSAVEC64, select_area},
    {ZYDIS_MNEMONIC_XSAVES, select_area},    {ZYDIS_MNEMONIC_XSAVES64, select_area},
    {ZYDIS_MNEMONIC_XRSTOR, select_area},    {ZYDIS_MNEMONIC_XRSTOR64, select_area},
    {ZYDIS_MNEMONIC_XRSTORS, select_area},   {ZYDIS_MNEMONIC_XRSTORS64, select_area},
    {ZYDIS_MNEMONIC_XGETBV, select_xgetbv},  {ZYDIS_MNEMONIC_XSETBV, select_xsetbv},
    {ZYDIS_MNEMONIC_LDMXCSR, select_mxcsr},  {ZYDIS_MNEMONIC_STMXCSR, select_mxcsr},
    {ZYDIS_MNEMONIC_VLDMXCSR, select_mxcsr}, {ZYDIS_MNEMONIC_VSTMXCSR, select_mxcsr},
    {ZYDIS_MNEMONIC_RDPKRU, select_rdpkru},  {ZYDIS_MNEMONIC_WRPKRU, select_wrpkru},
    {ZYDIS_MNEMONIC_INVALID, NULL},
};
