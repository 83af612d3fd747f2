/* SPDX-License-Identifier: MIT */
/* RDMSR: constant MSRs from the guest-resident table, the others from the host.
 *
 * RAX and RDX are results, but an MSR that the table does not have may raise #GP in the native
 * instruction: then all registers are to be as they were. */
#include "templates/template.inc"

/* What the table does not know goes to the native instruction. */
TEMPLATE rdmsr_table, rdmsr, 10, stack
FORM "rdmsr"
    push  %rax
    push  %rdx
    movzbl %cl, %eax
    lea   PV_MSR_TABLE(%rip), %rdx
    lea   (%rax,%rax), %eax
    lea   (%rdx,%rax,8), %rdx       /* the entry: 16 bytes each */
    mov   %rcx, %rax
    mov   PV_MSR_NEGATED(%rdx), %ecx
    lea   (%rcx,%rax), %ecx         /* 0 if the entry is this MSR's */
    jrcxz 1f
    mov   %rax, %rcx
    pop   %rdx
    pop   %rax
    jmp   PV_NATIVE
1:  mov   %rax, %rcx
    mov   PV_MSR_EAX(%rdx), %eax
    mov   PV_MSR_EDX(%rdx), %edx
    lea   16(%rsp), %rsp
END_TEMPLATE

DOORBELL_TEMPLATES rdmsr, rdmsr, "rdmsr"
