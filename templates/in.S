/* SPDX-License-Identifier: MIT */
/* IN. A byte from a port whose value the host keeps in the state page is answered there; so are
 * CMOS registers, and the 8254's count and the ACPI timer, worked out from the time-stamp counter.
 * Else the host: port, width and DX are in the operand word; it writes the pushed RAX. */
#include "templates/template.inc"

/* The 8254 channel in pv_state.pit, one byte of its count into AL, then out at `done`. RAX and RCX
 * are pushed. The multiplication changes flags, but a port access that needs no host can afford
 * PUSHFQ. */
.macro READ_PIT done, native
    push  %rdx
    pushfq
    mov   PV_STATE_PIT_VERSION(%rip), %ecx
    rdtsc
    shl   $32, %rdx
    or    %rdx, %rax
    add   PV_STATE_PIT_BASE(%rip), %rax
    mulq  PV_STATE_PIT_SCALE(%rip)  /* RDX: ticks since the base */
    mov   PV_STATE_PIT_START(%rip), %eax
    sub   %edx, %eax
    mov   %eax, %edx
    test  $1, %cl
    jz    1f
    mov   %dh, %dl
1:  mov   %ecx, %eax
    add   PV_STATE_PIT_STEP(%rip), %ecx
    lock cmpxchg %ecx, PV_STATE_PIT_VERSION(%rip)
    jne   2f                        /* somebody else has read or set it */
    mov   %dl, 24(%rsp)
    popfq
    pop   %rdx
    jmp   \done
2:  popfq
    pop   %rdx
    jmp   \native
.endm

/* PV_PORT_IN_CMOS into AL. */
.macro READ_CMOS done, native
    movzbl PV_STATE_PORT_OUT + 4 * PV_CMOS_INDEX_PORT + PV_PORT_VALUE(%rip), %ecx
    lea   (%rcx,%rcx), %ecx
    movzbl %cl, %ecx                /* without the bit that masks NMIs */
    lea   PV_STATE_CMOS(%rip), %rax
    movzwl (%rax,%rcx), %eax
    movzbl %ah, %ecx
    jrcxz 1f
    mov   %al, 8(%rsp)
    jmp   \done
1:  jmp   \native                   /* not this register, or not now */
.endm

/* PV_PORT_IN_ONCE. The port's low byte is in ECX. */
.macro READ_ONCE done, native
    push  %rdx
    pushfq
    lea   PV_STATE_PORT_OUT(%rip), %rdx
    cmpb  $PV_PORT_OUT_WRITTEN, PV_PORT_KIND - 4(%rdx,%rcx,4)
    je    1f
    lea   PV_STATE_PORT_IN(%rip), %rdx
    lea   (%rdx,%rcx,4), %rdx
    mov   (%rdx), %eax
    mov   %eax, %ecx
    shr   $24, %ecx
    cmp   $PV_PORT_IN_ONCE, %ecx
    jne   1f                        /* the host has changed it since the look-up */
    mov   %eax, %ecx
    and   $0xff00ffff, %ecx
    or    PV_STATE_ONCE_AFTER(%rip), %ecx
    lock cmpxchg %ecx, (%rdx)
    jne   1f
    shr   $16, %eax
    mov   %al, 24(%rsp)
    popfq
    pop   %rdx
    jmp   \done
1:  popfq
    pop   %rdx
    jmp   \native
.endm

/* As LOOK_UP_OUT in out.S. */
.macro LOOK_UP_IN place, match
    \place
    lea   PV_STATE_PORT_IN(%rip), %rax
    mov   (%rax,%rcx,4), %eax
    movzwl %ax, %ecx
    \match
    movzwl %cx, %ecx
    jrcxz 4f
3:  pop   %rcx
    pop   %rax
    jmp   PV_NATIVE
4:  bswap %eax                      /* AL: kind, AH: value */
    movzbl %al, %ecx
    jrcxz 5f
    jmp   6f
5:  mov   %ah, 8(%rsp)
    jmp   9f
6:  lea   -PV_PORT_IN_CMOS(%rcx), %ecx
    jrcxz 7f
    lea   PV_PORT_IN_CMOS - PV_PORT_IN_KEPT(%rcx), %ecx
    jrcxz 8f
    lea   PV_PORT_IN_KEPT - PV_PORT_IN_ONCE(%rcx), %ecx
    jrcxz 10f
    jmp   11f
7:  READ_CMOS 9f, 3b
8:  \place
    lea   PV_STATE_PORT_OUT + PV_PORT_VALUE(%rip), %rax
    movzbl (%rax,%rcx,4), %eax
    mov   %al, 8(%rsp)
    jmp   9f
10: \place
    READ_ONCE 9f, 3b
11: READ_PIT 9f, 3b
9:  pop   %rcx
    pop   %rax
.endm

TEMPLATE in_table, in, 10, stack
FORM "in al, dx"
    push  %rax
    push  %rcx
    LOOK_UP_IN "movzbl %dl, %ecx", "lea (%rcx,%rdx), %ecx"
END_TEMPLATE

TEMPLATE in_table_immediate, in, 10, stack
FORM "in al, imm8"
    push  %rax
    push  %rcx
    LOOK_UP_IN "mov $PV_PORT, %ecx", "lea PV_PORT(%rcx), %ecx"
END_TEMPLATE

/* The ACPI timer is what kernels read with IN EAX, DX by the thousand. */
TEMPLATE in_timer, in, 10, stack
FORM "in eax, dx"
    push  %rax
    push  %rcx
    movzwl %dx, %eax
    mov   PV_STATE_PM_PORT(%rip), %ecx
    lea   (%rcx,%rax), %ecx
    jrcxz 2f
1:  pop   %rcx
    pop   %rax
    jmp   PV_NATIVE
2:  push  %rdx
    pushfq
    mov   PV_STATE_PM_VERSION(%rip), %ecx
    rdtsc
    shl   $32, %rdx
    or    %rdx, %rax
    add   PV_STATE_PM_BASE(%rip), %rax
    mulq  PV_STATE_PM_SCALE(%rip)
    add   PV_STATE_PM_START(%rip), %edx
    and   $0xffffff, %edx
    cmp   PV_STATE_PM_VERSION(%rip), %ecx
    jne   3f
    mov   %rdx, 24(%rsp)
    popfq
    pop   %rdx
    jmp   4f
3:  popfq
    pop   %rdx
    jmp   1b
4:  pop   %rcx
    pop   %rax
END_TEMPLATE

DOORBELL_TEMPLATES in, in, "in al, imm8", "in ax, imm8", "in eax, imm8", "in al, dx", "in ax, dx", "in eax, dx"
