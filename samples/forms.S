/* SPDX-License-Identifier: MIT */
/* A guest of small functions, each with one instruction that exits, in one position among its
 * neighbours. Tests patch it with each form and call the functions in their own process; the
 * dispatch bench counts the loops. 64-bit code throughout. */
    .text

.macro FUNCTION name
    .balign 16, 0xcc
    .globl \name
    .type \name, @function
\name:
.endm

.macro END name
    .size \name, . - \name
    .fill 16, 1, 0xcc               /* padding: room for islands */
.endm

FUNCTION _start
    call first
    call second
    call third
    call narrow
    call other
    call read_port
    call write_port
    call write_byte
    call loop_cpuid
    call loop_empty
1:  hlt
    jmp 1b
END _start

/* Slot 0 of its window: CPUID and what follows it. */
FUNCTION first
    cpuid
    mov %r8, %r9
    mov $1, %r12d
    ret
END first

/* Slot 1: a branch target behind CPUID keeps the window from growing that way. */
FUNCTION second
    mov %r8, %r9
    cpuid
1:  dec %r13b
    jnz 1b
    mov $2, %r12d
    ret
END second

/* Slot 2. */
FUNCTION third
    mov %r8d, %r9d
    push %rdi
    cpuid
1:  dec %r13b
    jnz 1b
    pop %r10
    mov $3, %r12d
    ret
END third

/* Branch targets on both sides: two bytes are all there is. */
FUNCTION narrow
    jmp 2f
1:  mov $4, %r12d
    ret
2:  cpuid
3:  dec %r13b
    jnz 3b
    jmp 1b
END narrow

/* As `first`, with other neighbours: what a swapped table entry leads to is seen in R11 and R12. */
FUNCTION other
    cpuid
    mov %r10, %r11
    mov $5, %r12d
    ret
END other

FUNCTION read_port
    in %dx, %ax
    mov %r8, %r9
    mov $6, %r12d
    ret
END read_port

FUNCTION write_port
    out %eax, $0x80
    mov %r8, %r9
    mov $7, %r12d
    ret
END write_port

/* Bytes have the device fast paths. */
FUNCTION write_byte
    out %al, $0x80
    mov %r8, %r9
    mov $8, %r12d
    ret
END write_byte

/* R8 times CPUID leaf 0. AND, unlike XOR, waits for the register: the answers' latency counts. */
FUNCTION loop_cpuid
1:  and $0, %eax
    and $0, %ecx
    cpuid
    dec %r8
    jnz 1b
    ret
END loop_cpuid

FUNCTION loop_empty
1:  and $0, %eax
    and $0, %ecx
    dec %r8
    jnz 1b
    ret
END loop_empty

    .data
    .balign 64
    .globl scratch
scratch:
    .fill 4096, 1, 0

    .section .note.GNU-stack, "", @progbits
