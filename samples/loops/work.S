/* SPDX-License-Identifier: MIT */
/* The loops: RDI rounds over memory at RSI, a copy of RDX bytes; RAX = what came of it. How many instructions a round
 * takes, loops.c says. */
    .text

.macro FUNCTION name
    .balign 64
    .globl \name
    .type \name, @function
\name:
.endm

.macro END name
    .size \name, . - \name
.endm

/* DEC and a branch. */
FUNCTION work_count
    xor %eax, %eax
    imul $1000, %rdi
1:  dec %rdi
    jnz 1b
    ret
END work_count

/* Ten operations of different kinds, most of which wait for the one before. */
FUNCTION work_alu
    imul $100, %rdi, %rcx
    xor %eax, %eax
    mov $3, %edx
1:  add %rdx, %rax
    lea 5(%rax,%rdx), %r8
    xor %r8, %rdx
    sub $7, %rax
    and %rax, %r8
    shl $3, %r8
    or %r8d, %eax
    mov %rax, %r9
    dec %rcx
    jnz 1b
    ret
END work_alu

/* Eight bytes at a time, to `distance` bytes on; added up on the way. */
.macro COPY name, distance
FUNCTION \name
    shr $4, %rdx
    xor %eax, %eax
1:  mov %rdx, %rcx
    mov %rsi, %r8
2:  mov (%r8), %r9
    add %r9, %rax
    mov %r9, \distance(%r8)
    mov 8(%r8), %r10
    add %r10, %rax
    mov %r10, \distance+8(%r8)
    add $16, %r8
    dec %rcx
    jnz 2b
    dec %rdi
    jnz 1b
    ret
END \name
.endm

COPY work_copy, 0x105040
COPY work_far, 0x100000

FUNCTION work_movs
    mov %rdi, %rax
    mov %rsi, %r8
    shr $3, %rdx
1:  mov %rdx, %rcx
    mov %r8, %rsi
    lea 0x105040(%r8), %rdi
    rep movsq
    dec %rax
    jnz 1b
    mov -8(%rdi), %rax
    ret
END work_movs

/* Sixteen calls deep. */
FUNCTION work_recurse
    xor %eax, %eax
1:  mov $16, %ecx
    call 2f
    dec %rdi
    jnz 1b
    ret
2:  push %rdx
    dec %ecx
    jz 3f
    call 2b
3:  inc %rax
    pop %rdx
    ret
END work_recurse

/* Two calls of different targets. */
FUNCTION work_indirect
    imul $100, %rdi
    xor %eax, %eax
    lea 2f(%rip), %rdx
    lea 3f(%rip), %rcx
1:  call *%rdx
    call *%rcx
    dec %rdi
    jnz 1b
    ret
2:  inc %rax
    ret
3:  lea 1(%rax), %rax
    ret
END work_indirect

/* A number of 500 words times one word, subtracted from another: as signature checks do it. */
FUNCTION work_mpi
    push %rbx
    mov $0x123456789, %r10
1:  mov $500, %ecx
    mov %rsi, %rbx
    xor %r9d, %r9d
2:  mov (%rbx), %rax
    mul %r10
    add %r9, %rax
    adc $0, %rdx
    sub %rax, 32768(%rbx)
    adc $0, %rdx
    mov %rdx, %r9
    add $8, %rbx
    dec %ecx
    jnz 2b
    dec %rdi
    jnz 1b
    mov 32760(%rbx), %rax
    pop %rbx
    ret
END work_mpi

/* A copy, and how many of its bytes are zero where: as memcpy and strlen do it. */
FUNCTION work_sse
    shr $4, %rdx
    xor %eax, %eax
    pxor %xmm2, %xmm2
1:  mov %rdx, %rcx
    mov %rsi, %r8
2:  movups (%r8), %xmm0
    movaps %xmm0, %xmm1
    pcmpeqb %xmm2, %xmm1
    pmovmskb %xmm1, %r9d
    add %r9, %rax
    movaps %xmm0, 0x105040(%r8)
    add $16, %r8
    dec %rcx
    jnz 2b
    dec %rdi
    jnz 1b
    ret
END work_sse

/* x = (x + 1) * a - b */
FUNCTION work_x87
    fninit
    fld1
    fldz
1:  mov $100, %ecx
2:  fadd %st(1), %st
    fmull 3f(%rip)
    fsubl 4f(%rip)
    dec %ecx
    jnz 2b
    dec %rdi
    jnz 1b
    fstpl (%rsi)
    fstp %st(0)
    mov (%rsi), %rax
    ret
    .balign 8
3:  .double 0.87
4:  .double 0.31
END work_x87

    .section .note.GNU-stack, "", @progbits
