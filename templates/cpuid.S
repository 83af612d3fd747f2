/* SPDX-License-Identifier: MIT */
/* CPUID, answered from the guest-resident table (struct pv_cpuid_table; D2: no frame, no stack).
 *
 * RBX and RDX are CPUID's results, so they are free from the start; RAX and RCX are the question
 * and are kept until the answer is certain. No instruction here changes a flag. */
#include "templates/template.inc"

/* Goes to `unknown` with RAX and RCX as they were, or falls out of its end with the answer. */
.macro CPUID_LOOK_UP unknown
    movzbl %al, %ebx
    movzbl %ah, %edx
    lea   (%rbx,%rdx), %ebx
    movzbl %bl, %ebx
    mov   %eax, %edx
    bswap %edx                      /* DL: the leaf's top byte */
    movzbl %dl, %edx
    lea   (%rbx,%rdx), %ebx         /* entry number, 0 … 510 */
    lea   PV_CPUID_TABLE(%rip), %rdx
    lea   (,%rbx,4), %ebx
    lea   (%rdx,%rbx,8), %rdx       /* the entry: 32 bytes each */
    mov   %rcx, %rbx
    mov   PV_CPUID_NEGATED_LEAF(%rdx), %ecx
    lea   (%rcx,%rax), %ecx         /* 0 if the entry is the leaf's */
    jrcxz 2f
1:  mov   %rbx, %rcx
    jmp   \unknown

2:  mov   PV_CPUID_SUBLEAVES(%rdx), %ecx
    jrcxz 4f

    lea   PV_CPUID_TABLE(%rip), %rdx
    lea   (%rdx,%rcx), %rdx
    movzbl %bl, %ecx
    lea   (,%rcx,4), %ecx
    lea   (%rdx,%rcx,8), %rdx       /* the subleaf's entry, if there is one */
    mov   PV_CPUID_NEGATED_LEAF(%rdx), %ecx
    lea   (%rcx,%rax), %ecx
    jrcxz 3f
    jmp   1b
3:  mov   PV_CPUID_NEGATED_SUBLEAF(%rdx), %ecx
    lea   (%rcx,%rbx), %ecx
    jrcxz 4f
    jmp   1b

4:  mov   PV_CPUID_EAX(%rdx), %eax
    mov   PV_CPUID_EBX(%rdx), %ebx
    mov   PV_CPUID_ECX(%rdx), %ecx
    mov   PV_CPUID_EDX(%rdx), %edx
.endm

TEMPLATE cpuid_table, cpuid, 10
FORM "cpuid"
    CPUID_LOOK_UP PV_NATIVE
END_TEMPLATE

/* For a deprivileged guest the native instruction is no way out: it does not trap, and shows the host's
 * processor. The host is asked; it finds RAX and RCX as they were. */
TEMPLATE cpuid_table_or_host, cpuid, 5, stack, deprivileged
FORM "cpuid"
    CPUID_LOOK_UP 5f
    jmp   PV_TAIL
5:  DOORBELL
END_TEMPLATE

TEMPLATE cpuid_table_or_bare_host, cpuid, 6, bare, deprivileged
FORM "cpuid"
    CPUID_LOOK_UP 5f
    jmp   PV_TAIL
5:  BARE_DOORBELL
END_TEMPLATE

DOORBELL_TEMPLATES cpuid, cpuid, "cpuid"
