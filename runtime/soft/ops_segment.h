/* SPDX-License-Identifier: MIT */
/* What the files of segment instructions share; ops_segment.c has the rows of all of them. */
#ifndef RUNTIME_SOFT_OPS_SEGMENT_H
#define RUNTIME_SOFT_OPS_SEGMENT_H

#include "runtime/soft/system.h"

#include "runtime/soft/events.h"

/* Protected mode proper: neither real nor virtual-8086 mode. Blocks are decoded for one or the other. */
static inline bool protected_proper(const struct vcpu *cpu)
{
    return vcpu_protected(cpu) && !vcpu_v86(cpu);
}

/* ops_descriptor.c: descriptor tables, LAR and its kind */
select_fn select_lgdt, select_lidt, select_sgdt, select_sidt, select_lldt, select_ltr, select_sldt,
    select_str, select_lar, select_lsl, select_verr, select_verw;
/* ops_far.c; the near forms' rows are in ops_branch.c */
select_fn select_jmp_far, select_call_far, select_ret_far;
/* ops_iret.c */
select_fn select_iret, select_int, select_int1, select_int3, select_into;
/* ops_syscall.c */
select_fn select_syscall, select_sysret, select_sysenter, select_sysexit;

/* ---- returns: RET far and IRET ---- */
/* The code segment to return to, checked against CPL (SDM 2B RET). */
void return_code(struct vcpu *cpu, const struct insn *i, uint16_t selector, uint64_t rip,
                 struct code_target *target);
/* The stack to return to, checked: descriptor 0 = a null selector, which 64-bit code may have. */
struct return_stack {
    uint16_t selector;
    uint64_t sp, descriptor, linear;
};
void return_stack_check(struct vcpu *cpu, const struct insn *i, const struct code_target *target,
                        struct return_stack *stack);
void return_stack_set(struct vcpu *cpu, const struct insn *i, const struct return_stack *stack);

#endif
