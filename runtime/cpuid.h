/* SPDX-License-Identifier: MIT */
/* What the virtual processor offers: one row a feature. CPUID shows it, the decoder, CR4 and the MSRs go by it. */
#ifndef RUNTIME_CPUID_H
#define RUNTIME_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

#include "runtime/vcpu.h"

/* The rows: name, leaf, register, bit, and whether it is offered:
 *   SHOWN   always
 *   HIDDEN  never: its instructions are #UD
 *   HOST    executed by the host processor, so as that has it
 *   STATE   as the vCPU's state says (and offered)
 * The subleaf is 0, but 1 for leaf 0xd. 0x80000001's EDX repeats leaf 1's (cpuid.c). */
#define CPU_FEATURES(X)                                                                            \
    X(FPU, 1, EDX, 0, SHOWN)                                                                       \
    X(VME, 1, EDX, 1, HIDDEN)                                                                      \
    X(DE, 1, EDX, 2, SHOWN)                                                                        \
    X(PSE, 1, EDX, 3, SHOWN)                                                                       \
    X(TSC, 1, EDX, 4, SHOWN)                                                                       \
    X(MSR, 1, EDX, 5, SHOWN)                                                                       \
    X(PAE, 1, EDX, 6, SHOWN)                                                                       \
    X(MCE, 1, EDX, 7, SHOWN)                                                                       \
    X(CX8, 1, EDX, 8, SHOWN)                                                                       \
    X(APIC, 1, EDX, 9, STATE)                                                                      \
    X(SEP, 1, EDX, 11, SHOWN)                                                                      \
    X(MTRR, 1, EDX, 12, SHOWN)                                                                     \
    X(PGE, 1, EDX, 13, SHOWN)                                                                      \
    X(MCA, 1, EDX, 14, SHOWN)                                                                      \
    X(CMOV, 1, EDX, 15, SHOWN)                                                                     \
    X(PAT, 1, EDX, 16, SHOWN)                                                                      \
    X(PSE36, 1, EDX, 17, SHOWN)                                                                    \
    X(CLFSH, 1, EDX, 19, SHOWN)                                                                    \
    X(MMX, 1, EDX, 23, SHOWN)                                                                      \
    X(FXSR, 1, EDX, 24, SHOWN)                                                                     \
    X(SSE, 1, EDX, 25, SHOWN)                                                                      \
    X(SSE2, 1, EDX, 26, SHOWN)                                                                     \
    X(HTT, 1, EDX, 28, STATE)                                                                      \
    X(SSE3, 1, ECX, 0, SHOWN)                                                                      \
    X(PCLMULQDQ, 1, ECX, 1, HOST)                                                                  \
    X(MONITOR, 1, ECX, 3, HIDDEN)                                                                  \
    X(SSSE3, 1, ECX, 9, SHOWN)                                                                     \
    X(FMA, 1, ECX, 12, HOST)                                                                       \
    X(CX16, 1, ECX, 13, SHOWN)                                                                     \
    X(PCID, 1, ECX, 17, SHOWN)                                                                     \
    X(SSE41, 1, ECX, 19, SHOWN)                                                                    \
    X(SSE42, 1, ECX, 20, SHOWN)                                                                    \
    X(X2APIC, 1, ECX, 21, SHOWN)                                                                   \
    X(MOVBE, 1, ECX, 22, SHOWN)                                                                    \
    X(POPCNT, 1, ECX, 23, SHOWN)                                                                   \
    X(TSC_DEADLINE, 1, ECX, 24, SHOWN)                                                             \
    X(AES, 1, ECX, 25, HOST)                                                                       \
    X(XSAVE, 1, ECX, 26, SHOWN)                                                                    \
    X(OSXSAVE, 1, ECX, 27, STATE)                                                                  \
    X(AVX, 1, ECX, 28, HOST)                                                                       \
    X(F16C, 1, ECX, 29, HOST)                                                                      \
    X(RDRAND, 1, ECX, 30, SHOWN)                                                                   \
    X(HYPERVISOR, 1, ECX, 31, SHOWN)                                                               \
    X(ARAT, 6, EAX, 2, SHOWN)                                                                      \
    X(FSGSBASE, 7, EBX, 0, SHOWN)                                                                  \
    X(TSC_ADJUST, 7, EBX, 1, SHOWN)                                                                \
    X(BMI1, 7, EBX, 3, SHOWN)                                                                      \
    X(AVX2, 7, EBX, 5, HOST)                                                                       \
    X(SMEP, 7, EBX, 7, SHOWN)                                                                      \
    X(BMI2, 7, EBX, 8, SHOWN)                                                                      \
    X(ERMS, 7, EBX, 9, SHOWN)                                                                      \
    X(INVPCID, 7, EBX, 10, SHOWN)                                                                  \
    X(RDSEED, 7, EBX, 18, SHOWN)                                                                   \
    X(ADX, 7, EBX, 19, SHOWN)                                                                      \
    X(SMAP, 7, EBX, 20, SHOWN)                                                                     \
    X(CLFLUSHOPT, 7, EBX, 23, SHOWN)                                                               \
    X(CLWB, 7, EBX, 24, SHOWN)                                                                     \
    X(SHA, 7, EBX, 29, HOST)                                                                       \
    X(UMIP, 7, ECX, 2, SHOWN)                                                                      \
    X(PKU, 7, ECX, 3, SHOWN)                                                                       \
    X(OSPKE, 7, ECX, 4, STATE)                                                                     \
    X(VAES, 7, ECX, 9, HOST)                                                                       \
    X(VPCLMULQDQ, 7, ECX, 10, HOST)                                                                \
    X(RDPID, 7, ECX, 22, SHOWN)                                                                    \
    X(FSRM, 7, EDX, 4, SHOWN)                                                                      \
    X(SERIALIZE, 7, EDX, 14, HIDDEN)                                                               \
    X(XSAVEOPT, 0xd, EAX, 0, SHOWN)                                                                \
    X(XSAVEC, 0xd, EAX, 1, SHOWN)                                                                  \
    X(XGETBV1, 0xd, EAX, 2, SHOWN)                                                                 \
    X(XSAVES, 0xd, EAX, 3, SHOWN)                                                                  \
    X(LAHF, 0x80000001, ECX, 0, SHOWN)                                                             \
    X(CMP_LEGACY, 0x80000001, ECX, 1, STATE)                                                       \
    X(ABM, 0x80000001, ECX, 5, SHOWN)                                                              \
    X(SSE4A, 0x80000001, ECX, 6, HIDDEN)                                                           \
    X(PREFETCHW, 0x80000001, ECX, 8, SHOWN)                                                        \
    X(SYSCALL, 0x80000001, EDX, 11, SHOWN)                                                         \
    X(NX, 0x80000001, EDX, 20, SHOWN)                                                              \
    X(MMXEXT, 0x80000001, EDX, 22, SHOWN)                                                          \
    X(PAGE_1G, 0x80000001, EDX, 26, SHOWN)                                                         \
    X(RDTSCP, 0x80000001, EDX, 27, SHOWN)                                                          \
    X(LM, 0x80000001, EDX, 29, SHOWN)                                                              \
    X(INVARIANT_TSC, 0x80000007, EDX, 8, SHOWN)

enum cpu_feature {
    FEATURE_NEVER, /* what no row offers */
#define X(name, leaf, reg, bit, offer) FEATURE_##name,
    CPU_FEATURES(X)
#undef X
        FEATURES
};

/* True if the guest is offered the feature. */
bool cpuid_offers(enum cpu_feature feature);
/* Takes a feature from the model, for all machines of this process; before the first one is made. For an engine that
 * cannot execute it. */
void cpuid_hide(enum cpu_feature feature);
/* Where CPUID shows it. */
struct cpuid_place {
    uint32_t leaf, subleaf;
    unsigned reg, bit; /* reg: 0 EAX, 1 EBX, 2 ECX, 3 EDX */
};
void cpuid_place(enum cpu_feature feature, struct cpuid_place *place);

/* True if the guest is offered all that instructions of this set need: else they are #UD. */
bool cpuid_offers_isa(ZydisISASet isa);

/* Bits that CR4, XCR0 and IA32_XSS can hold. */
uint64_t cpuid_cr4_mask(void);
uint64_t cpuid_xcr0_mask(void);
#define CPU_XSS_MASK 0ull

/* XSAVE's components and where the standard format has them (SDM 1 13.4.1, 13.4.3). */
#define XSTATE_X87         0x1u
#define XSTATE_SSE         0x2u
#define XSTATE_AVX         0x4u
#define XSTATE_PKRU        0x200u
#define XSTATE_LEGACY_SIZE 576u /* legacy area and header */
#define XSTATE_AVX_OFFSET  576u
#define XSTATE_AVX_SIZE    256u
#define XSTATE_PKRU_OFFSET 832u
#define XSTATE_PKRU_SIZE   8u

/* Bytes of an XSAVE area that holds these components, in the standard or the compacted format. */
uint32_t cpuid_xsave_size(uint64_t components, bool compacted);

#endif
