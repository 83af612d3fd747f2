/* SPDX-License-Identifier: MIT */
/* WRMSR: the host's, but for a deadline of the local APIC's timer that the host need not know yet.
 * A #GP is injected at the native instruction, which carries the exception-table entry
 * (hvstub/hvstub.h). */
#include "templates/template.inc"

/* struct pv_deadline. A deadline changes nothing at once, so PUSHFQ and POPFQ are a small part of
 * what it saves. */
TEMPLATE wrmsr_posted, wrmsr, 10, stack
FORM "wrmsr"
    push  %rcx
    lea   -PV_MSR_TSC_DEADLINE(%rcx), %ecx
    jrcxz 2f
    pop   %rcx
    jmp   PV_NATIVE

2:  push  %rax
    push  %rdx
    pushfq
    shl   $32, %rdx
    mov   %eax, %eax
    or    %rdx, %rax
    jz    3f                        /* disarms, now */
    mov   %rax, PV_STATE_DEADLINE_POSTED(%rip)
    cmp   PV_STATE_DEADLINE_LIMIT(%rip), %rax
    ja    4f
    xor   %ecx, %ecx
    xchg  %rcx, PV_STATE_DEADLINE_POSTED(%rip)
    test  %rcx, %rcx
    jz    4f                        /* the host was faster */
3:  popfq
    pop   %rdx
    pop   %rax
    pop   %rcx
    jmp   PV_NATIVE
4:  popfq
    pop   %rdx
    pop   %rax
    pop   %rcx
END_TEMPLATE

DOORBELL_TEMPLATES wrmsr, wrmsr, "wrmsr"
