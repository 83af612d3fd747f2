/* SPDX-License-Identifier: MIT */
/* The FP and SIMD state of a vCPU, and the checks that every instruction on it begins with. */
#ifndef RUNTIME_SOFT_FPU_H
#define RUNTIME_SOFT_FPU_H

#include "runtime/soft/access.h"
#include "runtime/soft/host_assist.h"

/* Fields of the FXSAVE64 image (SDM 1 10.5.1). The stack registers stand in it by their place on the stack, ST(0)
 * first, the tags by physical register. */
#define FPU_FCW(fpu)   (*(uint16_t *)((fpu)->legacy + 0))
#define FPU_FSW(fpu)   (*(uint16_t *)((fpu)->legacy + 2))
#define FPU_FTW(fpu)   ((fpu)->legacy[4]) /* a bit for each physical register that is not empty */
#define FPU_FOP(fpu)   (*(uint16_t *)((fpu)->legacy + 6))
#define FPU_FIP(fpu)   (*(uint64_t *)((fpu)->legacy + 8))
#define FPU_FDP(fpu)   (*(uint64_t *)((fpu)->legacy + 16))
#define FPU_ST(fpu, n) ((fpu)->legacy + 32 + 16 * (n))
#define FPU_TOP(fpu)   (FPU_FSW(fpu) >> 11 & 7)

#define FCW_INITIAL    0x37fu
#define FSW_EXCEPTIONS 0x3fu /* FCW has the masks in the same bits */
#define FSW_PE         0x20u
#define FSW_SF         0x40u
#define FSW_ES         0x80u
#define FSW_TOP        0x3800u
#define FSW_B          0x8000u

#define MXCSR_INITIAL    0x1f80u
#define MXCSR_MASK       0xffffu /* bits that may be set: CPUID shows no misaligned SSE mode */
#define MXCSR_FLAGS      0x3fu
#define MXCSR_UE         0x10u
#define MXCSR_DAZ        0x40u
#define MXCSR_MASKS      0x1f80u
#define MXCSR_UM         0x800u
#define MXCSR_FTZ        0x8000u
#define MXCSR_CONTROL    0xe040u /* rounding, FTZ, DAZ */
#define MXCSR_PRECOMPUTE 0x7u    /* IE, DE, ZE: found before the computation */

/* ---- may the instruction execute? ---- */
/* Raise #UD or #NM, whichever is first. */
_Noreturn void sse_refuse(struct vcpu *cpu, const struct insn *i);
_Noreturn void avx_refuse(struct vcpu *cpu, const struct insn *i);

static inline bool sse_ready(const struct vcpu *cpu)
{
    return likely(!(cpu->cr0 & (CR0_EM | CR0_TS)) && cpu->cr4 & CR4_OSFXSR);
}
static inline bool avx_ready(const struct vcpu *cpu)
{
    return likely((cpu->cr0 & (CR0_PE | CR0_TS)) == CR0_PE && cpu->cr4 & CR4_OSXSAVE &&
                  (cpu->xcr0 & 6) == 6 && !(cpu->rflags & RFLAGS_VM));
}

/* ---- x87 (ops_x87.c) ---- */
/* #MF, or IRQ 13 where the guest chose that (CR0.NE clear), if an exception is pending. True if it is pending all the
 * same: the instruction executes as if exceptions were masked. */
bool x87_pending(struct vcpu *cpu, const struct insn *i);
/* What waiting x87 instructions begin with: #NM, then that. */
bool x87_wait(struct vcpu *cpu, const struct insn *i);
/* FSW.ES and B as the exception flags and masks give them. */
void x87_summarize(struct fpu *fpu);
/* Sets TOP and moves the registers in the image, so that each physical register keeps its contents. */
void x87_set_top(struct fpu *fpu, unsigned top);
void x87_init(struct fpu *fpu);            /* FNINIT: all but the data registers */
uint16_t x87_control_word(uint16_t value); /* as FCW takes it */
/* What an MMX instruction does to the x87 state before it executes: TOP 0, all registers valid. */
static inline void mmx_enter(struct fpu *fpu)
{
    if (unlikely(FPU_FSW(fpu) & FSW_TOP))
        x87_set_top(fpu, 0);
    FPU_FTW(fpu) = 0xff;
}

/* ---- rows of the white list: how their instructions are chosen ---- */
select_fn select_simd;           /* a stub */
select_fn select_simd_unaligned; /* 16-byte operands anywhere */
select_fn select_simd_lenient;   /* 16-byte operands of which processors differ */
select_fn select_simd_fp;        /* MXCSR */
select_fn select_simd_half;      /* MXCSR; results of half precision */
select_fn select_move_unaligned, select_move_aligned, select_movq, select_movd,
    select_vmove_unaligned, select_vmove_aligned, select_logic;
select_fn select_move_scalar, select_pmovmskb, select_movnti;
select_fn select_vzeroupper, select_vzeroall;
select_fn select_maskmov, select_vmaskmov, select_gather;
select_fn select_x87, select_x87_flags, select_x87_control;

#endif
