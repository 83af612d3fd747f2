/* SPDX-License-Identifier: MIT */
/* OUT. A byte that the device would only send on goes to the ring in the state page, one that it
 * would only keep to the port's entry there, one that would change nothing nowhere. Else the host:
 * port, width and DX are in the operand word; it reads the pushed RAX. */
#include "templates/template.inc"

/* Puts the byte at 8(%rsp), which is not 0, into the ring; RAX and RCX are free. */
.macro POST native
    mov   $1, %ecx
    xchg  %cl, PV_STATE_RING_LOCK(%rip)
    movzbl %cl, %ecx
    jrcxz 6f
    jmp   \native
6:  push  %rdx
    movzwl PV_STATE_RING_TAIL(%rip), %eax
    lea   PV_STATE_RING(%rip), %rdx
    lea   (%rdx,%rax), %rdx
    movzbl (%rdx), %ecx
    jrcxz 7f
    movb  $0, PV_STATE_RING_LOCK(%rip)
    pop   %rdx
    jmp   \native
7:  mov   16(%rsp), %cl
    mov   %cl, (%rdx)
    lea   -(PV_RING_SLOTS - 1)(%rax), %ecx
    jrcxz 8f
    lea   1(%rax), %ecx
8:  mov   %cx, PV_STATE_RING_TAIL(%rip) /* 0 behind the last slot */
    movb  $0, PV_STATE_RING_LOCK(%rip)
    pop   %rdx
.endm

/* RAX and RCX are pushed. `place` puts the port's low byte into ECX; `match` makes ECX 0 in 16 bits
 * if the entry, whose negated port is in ECX, is the port's. */
.macro LOOK_UP_OUT place, match
    \place
    lea   PV_STATE_PORT_OUT(%rip), %rax
    mov   (%rax,%rcx,4), %eax
    movzwl %ax, %ecx
    \match
    movzwl %cx, %ecx
    jrcxz 2f
1:  pop   %rcx
    pop   %rax
    jmp   PV_NATIVE
2:  bswap %eax                      /* AL: kind, AH: value */
    movzbl %al, %ecx
    jrcxz 3f
    lea   -PV_PORT_OUT_SAME(%rcx), %ecx
    jrcxz 4f
    lea   PV_PORT_OUT_SAME - PV_PORT_OUT_NOTHING(%rcx), %ecx
    jrcxz 5f
    \place                          /* PV_PORT_OUT_KEPT, PV_PORT_OUT_WRITTEN */
    lea   PV_STATE_PORT_OUT + PV_PORT_VALUE(%rip), %rax
    lea   (%rax,%rcx,4), %rax
    movzbl 8(%rsp), %ecx
    lea   (PV_PORT_OUT_WRITTEN << 8)(%rcx), %ecx
    mov   %cx, (%rax)               /* value and kind */
5:  pop   %rcx
    pop   %rax
    jmp   PV_TAIL
4:  movzbl %ah, %eax
    movzbl 8(%rsp), %ecx
    lea   (%rcx,%rax), %ecx
    movzbl %cl, %ecx                /* 0 if the byte is the same */
    jrcxz 5b
    jmp   1b
3:  movzbl 8(%rsp), %ecx
    jrcxz 1b
    POST 1b
    pop   %rcx
    pop   %rax
.endm

TEMPLATE out_posted, out, 10, stack
FORM "out dx, al"
    push  %rax
    push  %rcx
    LOOK_UP_OUT "movzbl %dl, %ecx", "lea (%rcx,%rdx), %ecx"
END_TEMPLATE

TEMPLATE out_posted_immediate, out, 10, stack
FORM "out imm8, al"
    push  %rax
    push  %rcx
    LOOK_UP_OUT "mov $PV_PORT, %ecx", "lea PV_PORT(%rcx), %ecx"
END_TEMPLATE

DOORBELL_TEMPLATES out, out, "out imm8, al", "out imm8, ax", "out imm8, eax", "out dx, al", "out dx, ax", "out dx, eax"
