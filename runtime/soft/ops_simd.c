/* SPDX-License-Identifier: MIT */
/* MMX, SSE and AVX instructions that the host executes through a stub. */
#include <emmintrin.h>

#include "runtime/cpuid.h"
#include "runtime/soft/fpu.h"

/* ---- checks ---- */
_Noreturn void sse_refuse(struct vcpu *cpu, const struct insn *i)
{
    if (cpu->cr0 & CR0_EM || !(cpu->cr4 & CR4_OSFXSR))
        RAISE_UD();
    cpu_raise(cpu, i, EXC_NM);
}

_Noreturn void avx_refuse(struct vcpu *cpu, const struct insn *i)
{
    if (!vcpu_protected(cpu) || vcpu_v86(cpu) || !(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & 6) != 6)
        RAISE_UD();
    cpu_raise(cpu, i, EXC_NM);
}

static void mmx_check(struct vcpu *cpu, const struct insn *i, bool sse)
{
    if (cpu->cr0 & CR0_EM || (sse && !(cpu->cr4 & CR4_OSFXSR)))
        RAISE_UD();
    x87_wait(cpu, i);
}

/* ---- MXCSR ---- */
/* The host's MXCSR is left with sticky flags, which nobody on the host looks at, but with default control bits. */
static inline void host_mxcsr_restore(uint32_t guest)
{
    if (unlikely(guest & MXCSR_CONTROL)) {
        static const uint32_t initial = MXCSR_INITIAL;
        __asm__ volatile("ldmxcsr %0" : : "m"(initial));
    }
}

/* Executes with all exceptions masked and `control` in MXCSR; returns the flags that were raised. */
static uint32_t run_masked(struct vcpu *cpu, const struct assist *a, void *memory, uint32_t control)
{
    FPU_MXCSR(&cpu->fpu) = (control & ~MXCSR_FLAGS) | MXCSR_MASKS;
    a->run(cpu, memory, NULL);
    uint32_t raised = FPU_MXCSR(&cpu->fpu) & MXCSR_FLAGS;
    host_mxcsr_restore(control | MXCSR_CONTROL);
    return raised;
}

/* What an instruction may change besides memory. */
struct registers {
    struct fpu fpu;
    uint64_t r[REGS];
    uint16_t status;
};
static void registers_save(const struct vcpu *cpu, struct registers *save)
{
    save->fpu = cpu->fpu;
    memcpy(save->r, cpu->r, sizeof save->r);
    save->status = cpu->status;
}
static void registers_restore(struct vcpu *cpu, const struct registers *save)
{
    cpu->fpu = save->fpu;
    memcpy(cpu->r, save->r, sizeof save->r);
    cpu->status = save->status;
}

/* Any of the half-precision results is tiny: VCVTPS2PH does not know FTZ, but denormals are what tiny results are. */
static bool half_tiny(const struct assist *a, const uint8_t *result)
{
    for (unsigned n = 0; n < a->halves; n++) {
        uint16_t half;
        memcpy(&half, result + 2 * n, sizeof half);
        if (!(half & 0x7c00) && half & 0x3ff)
            return true;
    }
    return false;
}

/* The flags that the processor sets when exceptions that are not masked occur (SDM 1 11.5.2 and 11.5.3), or 0 if none
 * does: with one that is found before computing, the others are never found. A masked underflow counts only if the
 * result is inexact too, an unmasked one always: executing again with results flushed to zero tells tiny ones. */
static uint32_t unmasked_flags(struct vcpu *cpu, const struct assist *a, void *memory,
                               uint32_t guest, uint32_t raised, const uint8_t *result)
{
    uint32_t unmasked = ~(guest >> 7) & MXCSR_FLAGS;
    if (raised & unmasked & MXCSR_PRECOMPUTE)
        return raised & MXCSR_PRECOMPUTE;
    if (!(guest & MXCSR_UM)) {
        if (a->halves)
            raised |= half_tiny(a, result) ? MXCSR_UE : 0;
        else
            raised |= run_masked(cpu, a, memory, guest | MXCSR_FTZ) & MXCSR_UE;
    }
    return raised & unmasked ? raised : 0;
}

/* The guest has unmasked exceptions: the instruction executes on a copy of what it may change, so to speak. `memory`
 * is not the guest's for a store. */
static void run_unmasked(struct vcpu *cpu, const struct insn *i, const struct assist *a,
                         void *memory)
{
    struct registers before, after;
    uint32_t guest = FPU_MXCSR(&cpu->fpu);
    if (a->class == ASSIST_CLASS_MMX) /* even if the instruction then raises #XM */
        mmx_enter(&cpu->fpu);
    registers_save(cpu, &before);
    /* The guest's FTZ has no effect on an underflow that is not masked. */
    uint32_t control = guest & MXCSR_UM ? guest : guest & ~MXCSR_FTZ;
    uint32_t raised = run_masked(cpu, a, memory, control);
    registers_save(cpu, &after);
    registers_restore(cpu, &before);
    const uint8_t *result =
        a->memory == ASSIST_STORE ? memory : FPU_XMM(&after.fpu, a->destination);
    uint32_t flags = unmasked_flags(cpu, a, memory, guest, raised, result);
    registers_restore(cpu, flags ? &before : &after);
    FPU_MXCSR(&cpu->fpu) = guest | (flags ? flags : raised);
    if (flags)
        cpu_raise(cpu, i, cpu->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

/* ---- execution ---- */
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void run(struct vcpu *cpu, const struct insn *i, const struct assist *a, bool mmx,
                bool mxcsr, void *memory)
{
    uint32_t guest = FPU_MXCSR(&cpu->fpu);
    if (mxcsr && unlikely((guest & MXCSR_MASKS) != MXCSR_MASKS)) {
        run_unmasked(cpu, i, a, memory);
        return;
    }
    if (mmx)
        mmx_enter(&cpu->fpu);
    a->run(cpu, memory, NULL);
    if (mxcsr)
        host_mxcsr_restore(guest);
}

/* Any memory operand, through a copy: all that can fault comes before anything changes. */
static __attribute__((noinline)) const struct insn *
run_copied(struct vcpu *cpu, const struct insn *i, uint64_t address)
{
    const struct assist *a = i->data;
    _Alignas(64) uint8_t copy[64] = {0};
    if (a->memory == ASSIST_LOAD)
        load_bytes(cpu, i, address, copy, a->size);
    else
        probe_write(cpu, i, address, a->size);
    run(cpu, i, a, a->class == ASSIST_CLASS_MMX, a->mxcsr, copy);
    if (a->memory == ASSIST_STORE)
        store_bytes(cpu, i, address, copy, a->size);
    NEXT_SLOW;
}

/* All variants by what is known when the instruction is decoded. */
ALWAYS const struct insn *execute(struct vcpu *cpu, const struct insn *i, enum assist_class class,
                                  bool mxcsr, enum assist_memory memory)
{
    const struct assist *a = i->data;
    void *host = NULL;
    if (class == ASSIST_CLASS_SSE && !sse_ready(cpu))
        sse_refuse(cpu, i);
    if (class == ASSIST_CLASS_AVX && !avx_ready(cpu))
        avx_refuse(cpu, i);
    if (class == ASSIST_CLASS_MMX)
        mmx_check(cpu, i, a->sse);
    if (memory != ASSIST_NO_MEMORY) {
        uint64_t address = linear(cpu, i, a->size, memory == ASSIST_STORE);
        if (unlikely(address & a->align)) {
            if (!a->lenient)
                RAISE_GP();
            return run_copied(cpu, i, address);
        }
        host = memory == ASSIST_LOAD ? host_read(cpu, address, a->size)
                                     : host_write(cpu, address, a->size);
        /* What an exception must not store goes through a copy. */
        if (unlikely(!host || (memory == ASSIST_STORE && mxcsr)))
            return run_copied(cpu, i, address);
    }
    run(cpu, i, a, class == ASSIST_CLASS_MMX, mxcsr, host);
    NEXT;
}

#define VARIANT(name, class, mxcsr, memory)                                                        \
    OP(name)                                                                                       \
    {                                                                                              \
        return execute(cpu, i, class, mxcsr, memory);                                              \
    }
#define VARIANTS(name, class)                                                                      \
    VARIANT(name, class, false, ASSIST_NO_MEMORY)                                                  \
    VARIANT(name##_load, class, false, ASSIST_LOAD)                                                \
    VARIANT(name##_store, class, false, ASSIST_STORE)                                              \
    VARIANT(name##_fp, class, true, ASSIST_NO_MEMORY)                                              \
    VARIANT(name##_fp_load, class, true, ASSIST_LOAD)                                              \
    VARIANT(name##_fp_store, class, true, ASSIST_STORE)
VARIANTS(sse, ASSIST_CLASS_SSE)
VARIANTS(avx, ASSIST_CLASS_AVX)
VARIANTS(mmx, ASSIST_CLASS_MMX)

#define TABLE(name)                                                                                \
    {                                                                                              \
        {name, name##_load, name##_store},                                                         \
        {                                                                                          \
            name##_fp, name##_fp_load, name##_fp_store                                             \
        }                                                                                          \
    }
static insn_fn *const variants[][2][3] = {
    [ASSIST_CLASS_SSE] = TABLE(sse),
    [ASSIST_CLASS_AVX] = TABLE(avx),
    [ASSIST_CLASS_MMX] = TABLE(mmx),
};

static insn_fn *choose(struct decoded *d, struct insn *out, unsigned how)
{
    const struct assist *a = assist_find(d, how);
    if (!a || a->class == ASSIST_CLASS_X87)
        return NULL;
    out->data = a;
    return variants[a->class][a->mxcsr][a->memory];
}

insn_fn *select_simd(struct decoded *d, struct insn *out)
{
    return choose(d, out, 0);
}
insn_fn *select_simd_unaligned(struct decoded *d, struct insn *out)
{
    return choose(d, out, ASSIST_UNALIGNED);
}
insn_fn *select_simd_lenient(struct decoded *d, struct insn *out)
{
    return choose(d, out, ASSIST_LENIENT);
}
insn_fn *select_simd_fp(struct decoded *d, struct insn *out)
{
    return choose(d, out, ASSIST_MXCSR);
}
insn_fn *select_simd_half(struct decoded *d, struct insn *out)
{
    return choose(d, out, ASSIST_MXCSR | ASSIST_HALF);
}

/* ---- the upper halves ---- */
/* Code of 32 bits leaves the registers that it cannot name as they are. */
static inline void clear_registers(void *registers, bool all)
{
    __m128i zero = _mm_setzero_si128(), *p = registers;
    __asm__("" : "+x"(zero)); /* else the compiler makes it a slow string instruction */
    for (unsigned n = 0; n < 8; n++)
        p[n] = zero;
    for (unsigned n = 8; all && n < 16; n++)
        p[n] = zero;
}

OP(vzeroupper)
{
    if (!avx_ready(cpu))
        avx_refuse(cpu, i);
    clear_registers(cpu->fpu.ymm_high, vcpu_code64(cpu));
    NEXT;
}

OP(vzeroall)
{
    if (!avx_ready(cpu))
        avx_refuse(cpu, i);
    clear_registers(cpu->fpu.ymm_high, vcpu_code64(cpu));
    clear_registers(FPU_XMM(&cpu->fpu, 0), vcpu_code64(cpu));
    NEXT;
}

insn_fn *select_vzeroupper(struct decoded *d, struct insn *out)
{
    (void)out;
    return cpuid_offers_isa(d->zydis->meta.isa_set) ? vzeroupper : NULL;
}
insn_fn *select_vzeroall(struct decoded *d, struct insn *out)
{
    (void)out;
    return cpuid_offers_isa(d->zydis->meta.isa_set) ? vzeroall : NULL;
}
