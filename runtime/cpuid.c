/* SPDX-License-Identifier: MIT */
/* The CPUID model: AuthenticAMD family 15, a processor that kernels need no workarounds for, with newer features.
 * What is offered is the table in cpuid.h; what leaves hold besides feature bits is the table here. */
#include "runtime/kvmclock.h"
#include "runtime/cpuid.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "runtime/clock.h"
#include "runtime/interrupts.h"
#include "runtime/vm.h"

enum { EAX, EBX, ECX, EDX };
enum offer { HIDDEN, SHOWN, HOST, STATE };

static const struct feature_row {
    uint32_t leaf;
    uint8_t reg, bit, offer;
} features[FEATURES] = {
#define X(name, leaf, reg, bit, offer) [FEATURE_##name] = {leaf, reg, bit, offer},
    CPU_FEATURES(X)
#undef X
};

/* Instruction sets by what they need; a set that is not here is not offered. */
#define ALWAYS FEATURES
static const uint8_t isa_needs[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    [ZYDIS_ISA_SET_I86] = ALWAYS,
    [ZYDIS_ISA_SET_I186] = ALWAYS,
    [ZYDIS_ISA_SET_I286PROTECTED] = ALWAYS,
    [ZYDIS_ISA_SET_I286REAL] = ALWAYS,
    [ZYDIS_ISA_SET_I386] = ALWAYS,
    [ZYDIS_ISA_SET_I486] = ALWAYS,
    [ZYDIS_ISA_SET_I486REAL] = ALWAYS,
    [ZYDIS_ISA_SET_PENTIUMREAL] = ALWAYS,
    [ZYDIS_ISA_SET_PPRO] = ALWAYS,
    [ZYDIS_ISA_SET_PAUSE] = ALWAYS,
    [ZYDIS_ISA_SET_FAT_NOP] = ALWAYS,
    [ZYDIS_ISA_SET_RDPMC] = ALWAYS,
    /* in the space of no-operations: without their feature they are that */
    [ZYDIS_ISA_SET_CET] = ALWAYS,
    [ZYDIS_ISA_SET_CLDEMOTE] = ALWAYS,
    [ZYDIS_ISA_SET_MPX] = ALWAYS,
    [ZYDIS_ISA_SET_PREFETCH_NOP] = ALWAYS,
    [ZYDIS_ISA_SET_PREFETCHWT1] = ALWAYS,
    /* hypercalls: the hypervisor's own */
    [ZYDIS_ISA_SET_SVM] = ALWAYS,
    [ZYDIS_ISA_SET_VTX] = ALWAYS,
    [ZYDIS_ISA_SET_X87] = FEATURE_FPU,
    [ZYDIS_ISA_SET_CMOV] = FEATURE_CMOV,
    [ZYDIS_ISA_SET_FCMOV] = FEATURE_CMOV,
    [ZYDIS_ISA_SET_PENTIUMMMX] = FEATURE_MMX,
    [ZYDIS_ISA_SET_FXSAVE] = FEATURE_FXSR,
    [ZYDIS_ISA_SET_FXSAVE64] = FEATURE_FXSR,
    [ZYDIS_ISA_SET_SSE] = FEATURE_SSE,
    [ZYDIS_ISA_SET_SSEMXCSR] = FEATURE_SSE,
    [ZYDIS_ISA_SET_SSE_PREFETCH] = FEATURE_SSE,
    [ZYDIS_ISA_SET_SSE2] = FEATURE_SSE2,
    [ZYDIS_ISA_SET_SSE2MMX] = FEATURE_SSE2,
    [ZYDIS_ISA_SET_SSE3] = FEATURE_SSE3,
    [ZYDIS_ISA_SET_SSE3X87] = FEATURE_SSE3,
    [ZYDIS_ISA_SET_SSSE3] = FEATURE_SSSE3,
    [ZYDIS_ISA_SET_SSSE3MMX] = FEATURE_SSSE3,
    [ZYDIS_ISA_SET_SSE4] = FEATURE_SSE41,
    [ZYDIS_ISA_SET_SSE42] = FEATURE_SSE42,
    [ZYDIS_ISA_SET_SSE4A] = FEATURE_SSE4A,
    [ZYDIS_ISA_SET_AES] = FEATURE_AES,
    [ZYDIS_ISA_SET_PCLMULQDQ] = FEATURE_PCLMULQDQ,
    [ZYDIS_ISA_SET_SHA] = FEATURE_SHA,
    [ZYDIS_ISA_SET_AVX] = FEATURE_AVX,
    [ZYDIS_ISA_SET_AVX2] = FEATURE_AVX2,
    [ZYDIS_ISA_SET_AVX2GATHER] = FEATURE_AVX2,
    [ZYDIS_ISA_SET_AVXAES] = FEATURE_AES,
    [ZYDIS_ISA_SET_VAES] = FEATURE_VAES,
    [ZYDIS_ISA_SET_VPCLMULQDQ] = FEATURE_VPCLMULQDQ,
    [ZYDIS_ISA_SET_F16C] = FEATURE_F16C,
    [ZYDIS_ISA_SET_FMA] = FEATURE_FMA,
    [ZYDIS_ISA_SET_ADOX_ADCX] = FEATURE_ADX,
    [ZYDIS_ISA_SET_BMI1] = FEATURE_BMI1,
    [ZYDIS_ISA_SET_BMI2] = FEATURE_BMI2,
    [ZYDIS_ISA_SET_LZCNT] = FEATURE_ABM,
    [ZYDIS_ISA_SET_POPCNT] = FEATURE_POPCNT,
    [ZYDIS_ISA_SET_MOVBE] = FEATURE_MOVBE,
    [ZYDIS_ISA_SET_CMPXCHG16B] = FEATURE_CX16,
    [ZYDIS_ISA_SET_LONGMODE] = FEATURE_LM,
    [ZYDIS_ISA_SET_LAHF] = FEATURE_LAHF,
    [ZYDIS_ISA_SET_CLFSH] = FEATURE_CLFSH,
    [ZYDIS_ISA_SET_CLFLUSHOPT] = FEATURE_CLFLUSHOPT,
    [ZYDIS_ISA_SET_CLWB] = FEATURE_CLWB,
    [ZYDIS_ISA_SET_AMD] = FEATURE_SYSCALL,
    [ZYDIS_ISA_SET_INVPCID] = FEATURE_INVPCID,
    [ZYDIS_ISA_SET_MONITOR] = FEATURE_MONITOR,
    [ZYDIS_ISA_SET_PKU] = FEATURE_PKU,
    [ZYDIS_ISA_SET_RDPID] = FEATURE_RDPID,
    [ZYDIS_ISA_SET_RDRAND] = FEATURE_RDRAND,
    [ZYDIS_ISA_SET_RDSEED] = FEATURE_RDSEED,
    [ZYDIS_ISA_SET_RDTSCP] = FEATURE_RDTSCP,
    [ZYDIS_ISA_SET_RDWRFSGS] = FEATURE_FSGSBASE,
    [ZYDIS_ISA_SET_SERIALIZE] = FEATURE_SERIALIZE,
    [ZYDIS_ISA_SET_SMAP] = FEATURE_SMAP,
    [ZYDIS_ISA_SET_XSAVE] = FEATURE_XSAVE,
    [ZYDIS_ISA_SET_XSAVEC] = FEATURE_XSAVEC,
    [ZYDIS_ISA_SET_XSAVEOPT] = FEATURE_XSAVEOPT,
    [ZYDIS_ISA_SET_XSAVES] = FEATURE_XSAVES,
};

/* Features that need the host's operating system to keep the YMM registers. */
static bool needs_ymm(const struct feature_row *row)
{
    static const uint8_t rows[] = {FEATURE_AVX,  FEATURE_AVX2, FEATURE_FMA,
                                   FEATURE_F16C, FEATURE_VAES, FEATURE_VPCLMULQDQ};
    for (size_t n = 0; n < sizeof rows; n++)
        if (row == &features[rows[n]])
            return true;
    return false;
}

static bool host_keeps_ymm(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
        return false;
    __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (eax & (XSTATE_SSE | XSTATE_AVX)) == (XSTATE_SSE | XSTATE_AVX);
}

/* What the host processor and its operating system have. */
static bool host_has(const struct feature_row *row)
{
    unsigned r[4];
    if (needs_ymm(row) && !host_keeps_ymm())
        return false;
    uint32_t subleaf = row->leaf == 0xd ? 1 : 0;
    if (!__get_cpuid_count(row->leaf, subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]))
        return false;
    return r[row->reg] >> row->bit & 1;
}

static bool hidden[FEATURES];

void cpuid_hide(enum cpu_feature feature)
{
    hidden[feature] = true;
}

void cpuid_place(enum cpu_feature feature, struct cpuid_place *place)
{
    const struct feature_row *row = &features[feature];
    *place = (struct cpuid_place){row->leaf, row->leaf == 0xd ? 1 : 0, row->reg, row->bit};
}

bool cpuid_offers(enum cpu_feature feature)
{
    if (feature >= FEATURES)
        return feature == ALWAYS;
    const struct feature_row *row = &features[feature];
    if (hidden[feature])
        return false;
    if (row->offer != HOST)
        return row->offer != HIDDEN;
    static atomic_uchar asked[FEATURES]; /* 0 not yet, 1 no, 2 yes: asking may cost a VM exit */
    if (!asked[feature])
        asked[feature] = host_has(row) ? 2 : 1;
    return asked[feature] == 2;
}

bool cpuid_offers_isa(ZydisISASet isa)
{
    return (unsigned)isa <= ZYDIS_ISA_SET_MAX_VALUE && cpuid_offers(isa_needs[isa]);
}

uint64_t cpuid_cr4_mask(void)
{
    static const struct {
        uint64_t bits;
        enum cpu_feature feature;
    } rows[] = {
        {CR4_VME | CR4_PVI, FEATURE_VME},
        {CR4_TSD, FEATURE_TSC},
        {CR4_DE, FEATURE_DE},
        {CR4_PSE, FEATURE_PSE},
        {CR4_PAE, FEATURE_PAE},
        {CR4_MCE, FEATURE_MCE},
        {CR4_PGE, FEATURE_PGE},
        {CR4_PCE, ALWAYS},
        {CR4_OSFXSR, FEATURE_FXSR},
        {CR4_OSXMMEXCPT, FEATURE_SSE},
        {CR4_UMIP, FEATURE_UMIP},
        {CR4_FSGSBASE, FEATURE_FSGSBASE},
        {CR4_PCIDE, FEATURE_PCID},
        {CR4_OSXSAVE, FEATURE_XSAVE},
        {CR4_SMEP, FEATURE_SMEP},
        {CR4_SMAP, FEATURE_SMAP},
        {CR4_PKE, FEATURE_PKU},
    };
    uint64_t mask = 0;
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++)
        if (cpuid_offers(rows[n].feature))
            mask |= rows[n].bits;
    return mask;
}

uint64_t cpuid_xcr0_mask(void)
{
    return XSTATE_X87 | XSTATE_SSE | (cpuid_offers(FEATURE_AVX) ? XSTATE_AVX : 0) |
           (cpuid_offers(FEATURE_PKU) ? XSTATE_PKRU : 0);
}

uint32_t cpuid_xsave_size(uint64_t components, bool compacted)
{
    uint32_t size = XSTATE_LEGACY_SIZE;
    if (components & XSTATE_AVX)
        size = XSTATE_AVX_OFFSET + XSTATE_AVX_SIZE;
    if (components & XSTATE_PKRU)
        size = (compacted ? size : XSTATE_PKRU_OFFSET) + XSTATE_PKRU_SIZE;
    return size;
}

/* ---- the leaves ---- */

static void name_basic(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)cpu;
    (void)subleaf;
    memcpy(&r[EBX], "Auth", 4);
    memcpy(&r[EDX], "enti", 4);
    memcpy(&r[ECX], "cAMD", 4);
}

static void name_hypervisor(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)cpu;
    (void)subleaf;
    memcpy(&r[EBX], "Patc", 4);
    memcpy(&r[ECX], "hvis", 4);
    memcpy(&r[EDX], "orHv", 4);
}

/* KVM's interface, as far as kvmclock.h has it. */
static void name_kvm(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)cpu;
    (void)subleaf;
    memcpy(&r[EBX], "KVMK", 4);
    memcpy(&r[ECX], "VMKV", 4);
    memcpy(&r[EDX], "M\0\0\0", 4);
}

/* Bits of the APIC id that tell processors of the package apart. */
static unsigned core_bits(const struct vcpu *cpu)
{
    unsigned bits = 0;
    while (1u << bits < cpu->vm->vcpu_count)
        bits++;
    return bits;
}

static void clear(uint32_t r[4], enum cpu_feature feature)
{
    r[features[feature].reg] &= ~(1u << features[feature].bit);
}

static void processor(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    uint64_t base = 0;
    r[EBX] |= cpu->index << 24;
    if (cpu->vm->vcpu_count > 1)
        r[EBX] |= cpu->vm->vcpu_count << 16;
    else
        clear(r, FEATURE_HTT);
    if (!(cpu->cr4 & CR4_OSXSAVE))
        clear(r, FEATURE_OSXSAVE);
    /* reading does not change the APIC */
    if (lapic_read_msr((struct vcpu *)(uintptr_t)cpu, 0x1b, &base) == 0 && !(base & 0x800))
        clear(r, FEATURE_APIC);
}

static void structured(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    if (!(cpu->cr4 & CR4_PKE))
        clear(r, FEATURE_OSPKE);
}

static void topology(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    enum { LEVEL_THREAD = 1, LEVEL_CORE = 2 };
    r[ECX] = subleaf & 0xff;
    r[EDX] = cpu->index;
    if (subleaf == 0) {
        r[EBX] = 1;
        r[ECX] |= LEVEL_THREAD << 8;
    } else if (subleaf == 1) {
        r[EAX] = core_bits(cpu);
        r[EBX] = cpu->vm->vcpu_count;
        r[ECX] |= LEVEL_CORE << 8;
    }
}

static void xsave(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    uint64_t all = cpuid_xcr0_mask();
    if (subleaf == 0) {
        r[EAX] = (uint32_t)all;
        r[EBX] = cpuid_xsave_size(cpu->xcr0, false);
        r[ECX] = cpuid_xsave_size(all, false);
        r[EDX] = (uint32_t)(all >> 32);
    } else if (subleaf == 1) {
        if (cpuid_offers(FEATURE_XSAVEC) || cpuid_offers(FEATURE_XSAVES))
            r[EBX] = cpuid_xsave_size(cpu->xcr0 | cpu->xss, true);
        r[ECX] = (uint32_t)CPU_XSS_MASK;
    } else if (subleaf == 2 && all & XSTATE_AVX) {
        r[EAX] = XSTATE_AVX_SIZE;
        r[EBX] = XSTATE_AVX_OFFSET;
    } else if (subleaf == 9 && all & XSTATE_PKRU) {
        r[EAX] = XSTATE_PKRU_SIZE;
        r[EBX] = XSTATE_PKRU_OFFSET;
    }
}

static void processor_amd(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    if (cpu->vm->vcpu_count == 1)
        clear(r, FEATURE_CMP_LEGACY);
}

static void sizes(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[ECX] = (cpu->vm->vcpu_count - 1) | core_bits(cpu) << 12;
}

static void frequencies(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[EAX] = clock_tsc_khz(&cpu->vm->clock);
}

/* `varies`: which subleaves differ between vCPUs or change, as bits; bit 31 stands for 31 and more.
 * `subleaves`: ECX matters; else every ECX gives the same. */
static const struct leaf_row {
    uint32_t leaf;
    bool subleaves;
    uint32_t varies;
    uint32_t fixed[4];
    void (*fill)(const struct vcpu *cpu, uint32_t subleaf, uint32_t r[4]);
} leaves[] = {
    {0, false, 0, {0xd}, name_basic},
    /* family 15, model 107, stepping 1; cache lines of 64 bytes */
    {1, false, ~0u, {VCPU_SIGNATURE, 8 << 8}, processor},
    {6, false, 0, {0}, NULL},
    {7, true, 1, {0}, structured},
    {0xb, true, ~0u, {0}, topology},
    {0xd, true, 3, {0}, xsave},
    {0x40000000, false, 0, {0x40000010}, name_kvm},
    {0x40000001, false, 0, {KVM_FEATURES}, NULL},
    {0x40000010, false, 0, {0, CLOCK_TSC_KHZ}, frequencies}, /* TSC, APIC timer: kHz */
    {0x40000100, false, 0, {0x40000100}, name_hypervisor},
    {0x80000000, false, 0, {0x80000008}, name_basic},
    {0x80000001, false, 0, {VCPU_SIGNATURE}, processor_amd},
    {0x80000002, false, 0, {0x63746150, 0x73697668, 0x7620726f, 0x75747269}, NULL}, /* the name */
    {0x80000003, false, 0, {0x70206c61, 0x65636f72, 0x726f7373, 0}, NULL},
    {0x80000004, false, 0, {0}, NULL},
    /* TLBs; L1 caches 64 KiB, two ways, lines of 64 bytes */
    {0x80000005, false, 0, {0x01ff01ff, 0x01ff01ff, 0x40020140, 0x40020140}, NULL},
    {0x80000006, false, 0, {0, 0x42004200, 0x02008140, 0}, NULL}, /* L2 512 KiB, 16 ways */
    {0x80000007, false, 0, {0}, NULL},
    {0x80000008, false, 0, {PHYSICAL_BITS | LINEAR_BITS << 8}, sizes},
};

#define LEAVES (sizeof leaves / sizeof leaves[0])

/* Feature bits of each leaf, whatever the state; of leaf 0xd those of subleaf 1. */
static uint32_t leaf_bits[LEAVES][4];

static void collect_bits(void)
{
    const uint32_t repeated = 0x0183f3ff; /* of leaf 1's EDX in 0x80000001's (APM 3 E.4.2) */
    for (size_t n = 0; n < LEAVES; n++)
        for (unsigned f = 1; f < FEATURES; f++) {
            const struct feature_row *row = &features[f];
            if (!cpuid_offers((enum cpu_feature)f))
                continue;
            if (row->leaf == leaves[n].leaf)
                leaf_bits[n][row->reg] |= 1u << row->bit;
            else if (leaves[n].leaf == 0x80000001 && row->leaf == 1 && row->reg == EDX)
                leaf_bits[n][EDX] |= 1u << row->bit & repeated;
        }
}

static const struct leaf_row *find_leaf(uint32_t leaf)
{
    for (size_t n = 0; n < LEAVES; n++)
        if (leaves[n].leaf == leaf)
            return &leaves[n];
    return NULL;
}

/* A leaf that is not in the table, beyond the greatest ones included, is all zeros (APM 3 E.3). */
struct cpuid_answer cpuid_answer(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    static pthread_once_t collected = PTHREAD_ONCE_INIT;
    const struct leaf_row *row = find_leaf(leaf);
    if (!row)
        return (struct cpuid_answer){0};
    pthread_once(&collected, collect_bits);
    uint32_t r[4];
    memcpy(r, row->fixed, sizeof r);
    if (!row->subleaves || subleaf == (leaf == 0xd ? 1 : 0))
        for (unsigned n = 0; n < 4; n++)
            r[n] |= leaf_bits[row - leaves][n];
    if (row->fill)
        row->fill(cpu, subleaf, r);
    return (struct cpuid_answer){r[EAX], r[EBX], r[ECX], r[EDX]};
}

bool cpuid_constant(uint32_t leaf, uint32_t subleaf)
{
    const struct leaf_row *row = find_leaf(leaf);
    if (!row)
        return true;
    return !(row->varies >> (subleaf > 31 ? 31 : subleaf) & 1);
}

bool cpuid_has_leaf(uint32_t leaf, bool *subleaves)
{
    const struct leaf_row *row = find_leaf(leaf);
    *subleaves = row && row->subleaves;
    return row;
}
