/* SPDX-License-Identifier: MIT */
/* From the boot loader (multiboot 1, 32-bit protected mode) to main() in 64-bit mode. */
    MAGIC = 0x1badb002
    FLAGS = 3                   /* modules on pages, memory information */

    CR0_PE_MP_NE_WP_PG = 0x80010023
    CR4_PAE_OSFXSR_OSXMMEXCPT = 0x620
    EFER = 0xc0000080
    EFER_SCE_LME_NXE = 0x901
    KERNEL_CODE = 0x08
    KERNEL_DATA = 0x10
    TSS = 0x30

    .section .multiboot, "a"
    .balign 4
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)

    .text
    .code32
    .globl _start
    .type _start, @function
_start:
    cld
    mov $stack_top, %esp
    mov %ebx, multiboot_info
    /* the first 4 GB, mapped to themselves by 2 MB pages */
    movl $page_directory_pointers + 7, page_map
    mov $page_directories + 7, %eax
    mov $page_directory_pointers, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    loop 1b
    mov $0x83, %eax             /* present, writable, large */
    mov $page_directories, %edi
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b

    mov $CR4_PAE_OSFXSR_OSXMMEXCPT, %eax
    mov %eax, %cr4
    mov $page_map, %eax
    mov %eax, %cr3
    mov $EFER, %ecx
    mov $EFER_SCE_LME_NXE, %eax
    xor %edx, %edx
    wrmsr
    mov $CR0_PE_MP_NE_WP_PG, %eax
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $KERNEL_CODE, $start64
    .size _start, . - _start

    .code64
    .globl start64
    .type start64, @function
start64:
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    call kernel_start
    ud2                         /* it does not return */
    .size start64, . - start64

    /* One entry a vector: the error code (or 0), the vector, then the common part. */
    .balign 16
    .globl vectors
vectors:
    vector = 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
    push $0
    .endif
    push $vector
    jmp interrupted
    vector = vector + 1
    .endr

/* struct frame in kernel.h is this stack, from the top down. */
    .globl interrupted
    .type interrupted, @function
interrupted:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call interrupt
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp               /* vector and error code */
    iretq
    .size interrupted, . - interrupted

    .data
    .balign 16
    .globl gdt, gdt_tss, gdt_pointer
gdt:                            /* the order of user segments is what SYSRET asks for */
    .quad 0
    .quad 0x00af9b000000ffff    /* 08: kernel code, 64-bit */
    .quad 0x00cf93000000ffff    /* 10: kernel data */
    .quad 0x00cffb000000ffff    /* 18: user code, 32-bit */
    .quad 0x00cff3000000ffff    /* 20: user data */
    .quad 0x00affb000000ffff    /* 28: user code, 64-bit */
gdt_tss:
    .quad 0, 0                  /* 30: TSS */
    .quad 0x00cf13000000ffff    /* 40: data, not present */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .globl multiboot_info
multiboot_info:
    .long 0

    .bss
    .balign 4096
    .globl page_map, page_directory_pointers, page_directories
page_map:
    .fill 4096
page_directory_pointers:
    .fill 4096
page_directories:
    .fill 4 * 4096
    .globl stack_top, fault_stack_top
    .fill 16384
stack_top:
    .fill 4096
fault_stack_top:

    .section .note.GNU-stack, "", @progbits
