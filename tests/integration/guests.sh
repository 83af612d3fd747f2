# SPDX-License-Identifier: MIT
# Guests of a few instructions for tests of hvrun itself: multiboot kernels in 32-bit protected mode, from assembly on
# standard input. Source this after tap.sh.
# shellcheck shell=bash disable=SC2154

# guest NAME < BODY: $tmp/NAME. The body finds a stack, say (the string at ESI), put and get (AL) on the serial port; where
# it falls off its end the guest halts.
guest() {
    {
        cat << 'ASM'
        .code32
        .globl _start
        .balign 4
        .long 0x1badb002, 0, -0x1badb002
_start: mov $stack, %esp
ASM
        cat
        cat << 'ASM'
        cli
1:      hlt
        jmp 1b
say:    lodsb                   # the string at ESI, to the serial port
        test %al, %al
        jz 2f
        call put
        jmp say
2:      ret
put:    mov $0x3f8, %edx
        out %al, (%dx)
        ret
get:    mov $0x3fd, %edx
3:      in (%dx), %al
        test $1, %al
        jz 3b
        mov $0x3f8, %edx
        in (%dx), %al
        ret
        .bss
        .skip 4096
stack:
        .section .note.GNU-stack,"",@progbits
ASM
    } > "$tmp/$1.S"
    gcc -m32 -nostdlib -static -Wl,-N,-Ttext=0x100000,--build-id=none -o "$tmp/$1" "$tmp/$1.S" \
        2> "$tmp/gcc" || skip_all "no compiler for guests: $(head -n 1 "$tmp/gcc")"
}
