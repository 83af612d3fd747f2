/* RDMSR: constant MSRs from the guest-resident table, the others from the host.
 *
 * RAX and RDX are results and free from the start; RCX is the question. */
#include "templates/template.inc"

/* No stack: what the table does not know goes to the native instruction. */
TEMPLATE rdmsr_table, rdmsr, 10
FORM "rdmsr"
    movzbl %cl, %eax
    lea   PV_MSR_TABLE(%rip), %rdx
    lea   (%rax,%rax), %eax
    lea   (%rdx,%rax,8), %rdx       /* the entry: 16 bytes each */
    mov   %rcx, %rax
    mov   PV_MSR_NEGATED(%rdx), %ecx
    lea   (%rcx,%rax), %ecx         /* 0 if the entry is this MSR's */
    jrcxz 1f
    mov   %rax, %rcx
    jmp   PV_NATIVE
1:  mov   %rax, %rcx
    mov   PV_MSR_EAX(%rdx), %eax
    mov   PV_MSR_EDX(%rdx), %edx
END_TEMPLATE

DOORBELL_TEMPLATES rdmsr, rdmsr, "rdmsr"
