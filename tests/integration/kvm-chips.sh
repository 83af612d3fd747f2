#!/bin/bash
# SPDX-License-Identifier: MIT
# Interrupt chips of the kernel (--irqchip kernel) against those of hvrun: the same verdicts, which exits are gone, the end of
# a guest that halts for ever, and writes that KVM collects. Where /dev/kvm is absent everything is skipped.
. tests/integration/tap.sh

PASSED=1     # exit status of the debug exit with value 0
NO_ENGINE=78 # hvrun(1)

# on CHIPS IMAGE [OPTION...]: $status, $tmp/out, $tmp/err, $tmp/stats
on() {
    local chips=$1 image=$2
    shift 2
    rm -f "$tmp/stats"
    "$BUILD/hvrun" --engine kvm --irqchip "$chips" --timeout 60 --memory 64M --stats "$tmp/stats" "$@" "$image" </dev/null \
        >"$tmp/out" 2>"$tmp/err"
    status=$?
}

counter() { # JQ-PATH
    jq -r "$1" "$tmp/stats"
}

on kernel "$BUILD/samples/hello.elf"
if [ $status -eq $NO_ENGINE ]; then
    skip 'chips in the kernel' "$(sed -n 's/^hvrun: //p' "$tmp/err" | head -n 1)"
    plan_done
fi
software=$(sed -n 's/^hvrun: \(.*MIPS.*\)/\1/p' "$tmp/err")

# ---- guests: multiboot kernels of a few instructions ----
guest() { # NAME < BODY
    {
        cat <<'ASM'
        .code32
        .globl _start
        .balign 4
        .long 0x1badb002, 0, -0x1badb002
_start:
ASM
        cat
    } >"$tmp/$1.S"
    gcc -m32 -nostdlib -static -Wl,-N,-Ttext=0x100000,--build-id=none -o "$tmp/$1" "$tmp/$1.S" 2>"$tmp/gcc" ||
        skip_all "no compiler for guests: $(head -n 1 "$tmp/gcc")"
}
guest halt <<'ASM'
        cli
1:      hlt
        jmp 1b
        .section .note.GNU-stack,"",@progbits
ASM
guest idle <<'ASM'
        mov $0xff, %al          # no interrupt ever comes
        out %al, $0x21
        out %al, $0xa1
1:      sti
        hlt
        jmp 1b
        .section .note.GNU-stack,"",@progbits
ASM
# To the debug console and the serial line in turns, with delays between them.
guest order <<'ASM'
        mov $0x3f8, %edx
        mov $100, %ecx
1:      mov $'a', %al
        out %al, $0xe9
        out %al, $0x80
        out %al, $0xed
        mov $'b', %al
        out %al, $0xe9
        mov $'c', %al
        out %al, (%dx)
        loop 1b
        cli
2:      hlt
        jmp 2b
        .section .note.GNU-stack,"",@progbits
ASM
# More than the kernel can collect.
guest many <<'ASM'
        mov $1000, %ecx
1:      mov $'x', %al
        out %al, $0xe9
        loop 1b
        cli
2:      hlt
        jmp 2b
        .section .note.GNU-stack,"",@progbits
ASM
# Writes its words, and never exits again.
guest last_words <<'ASM'
        mov $'1', %al
        out %al, $0xe9
        mov $'2', %al
        out %al, $0xe9
        mov $'3', %al
        out %al, $0xe9
        cli
1:      jmp 1b
        .section .note.GNU-stack,"",@progbits
ASM

# Ports of hvrun, and between them a register of an 8259 and one of the local APIC: k if these are right.
guest between <<'ASM'
        mov $400, %ecx
1:      mov %cl, %al
        .rept 6
        out %al, $0xe0
        in $0xe0, %al
        .endr
        out %al, $0x21
        .rept 6
        out %al, $0xe0
        in $0xe0, %al
        .endr
        in $0x21, %al
        cmp %cl, %al
        jne 2f
        out %al, $0xe0
        in $0xe0, %al
        cmpl $-1, 0xfee00030
        je 2f
        out %al, $0xe0
        loop 1b
        mov $'k', %al
        jmp 3f
2:      mov $'b', %al
3:      mov $0x3f8, %edx
        out %al, (%dx)
        cli
4:      hlt
        jmp 4b
        .section .note.GNU-stack,"",@progbits
ASM

# Values that these registers do not take: #GP, for which there is no handler.
guest bad_efer <<'ASM'
        movl $0x83, 0x200000    # the first 4 MB at their own addresses
        mov $0x200000, %eax
        mov %eax, %cr3
        mov $0x10, %eax         # pages of 4 MB
        mov %eax, %cr4
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        mov $0xc0000080, %ecx
        rdmsr
        or $0x100, %eax         # long mode, with paging on
        wrmsr
        cli
1:      hlt
        jmp 1b
        .section .note.GNU-stack,"",@progbits
ASM
guest bad_apic <<'ASM'
        mov $0x1b, %ecx
        rdmsr
        or $0x400, %eax         # x2APIC mode
        wrmsr
        and $~0x400, %eax       # and straight back
        wrmsr
        cli
1:      hlt
        jmp 1b
        .section .note.GNU-stack,"",@progbits
ASM

# ---- the end ----
for smp in 1 4; do
    on kernel "$tmp/halt" --smp $smp
    is "$status:$(counter .shutdown)" 0:halt "a guest with $smp processors that has halted for ever ends"
done
on kernel "$tmp/idle" --smp 2 --timeout 1.5
is "$status:$(counter .shutdown)" 124:timeout 'one that an interrupt could wake does not'
is "$(grep -c ', halted$' "$tmp/err")" 2 'and is said to be halted'
is "$(counter '.kvm.runs < 25')" true 'it is left in peace' || note "$(counter .kvm.runs) runs"

# ---- samples ----
# What is an exit with chips of this process and not with the kernel's: docs/kvm.md lists it.
exits() { # the counters that patching is about, and others
    jq -r '.exits | "io \(.io) msr \(.msr) hlt \(.hlt) interrupt \(.interrupt) mmio \(.mmio)"' "$tmp/stats"
}
for name in hello power_off cpuid_msr faults self_modifying io-burst interrupts; do
    want=$PASSED
    [ $name != power_off ] || want=0
    on kernel "$BUILD/samples/$name.elf" --io-blocks off
    if [ $name = interrupts ] && [ $status -ne $PASSED ]; then # it compares timers, which a busy host may stop in between
        on kernel "$BUILD/samples/$name.elf"
    fi
    is "$status" $want "$name runs with chips in the kernel"
    check "$name says the same as anywhere" diff "samples/$name/expected" "$tmp/out"
    is "$(exits | cut -d' ' -f3-)" 'msr 0 hlt 0 interrupt 0 mmio 0' "$name: only ports are exits" || note "$(exits)"
    documented=$(sed -n "s/^| $name | \([0-9]*\) | .*/\1/p" docs/kvm.md)
    # one that polls may find what it waits for sooner or later
    is "$(counter "(.exits.io - ${documented:-0}) | fabs * 100 < ${documented:-0}")" true \
        "$name: as many port exits as docs/kvm.md says" || note "$(counter .exits.io)"
done

# KVM's own statistics, of that last run
if [ "$(counter '.kvm.kernel_exits')" = null ]; then
    skip 'exits that the kernel handled are counted' 'this kernel has no statistics for programs'
else
    is "$(counter '.kvm.kernel_handled > 0 and .kvm.kernel_interrupts > 10 and .kvm.kernel_hlt > 10')" true \
        'exits that the kernel handled are counted' || note "$(jq -c .kvm "$tmp/stats")"
fi


on kernel "$tmp/between" --io-blocks scan
is "$status:$(cat "$tmp/out")" 0:k 'the soft processor leaves the chips to the kernel in IO blocks'
is "$(counter '.io.block_hits > 20')" true 'of which there are some' || note "$(counter .io)"

"$BUILD/patchc" build -o "$tmp/patched" "$BUILD/samples/cpuid_msr.elf" >"$tmp/log" 2>&1
on kernel "$tmp/patched" --link-all
is "$status" $PASSED 'a patched sample runs with chips in the kernel, all its routines active'
check 'and says the same' diff samples/cpuid_msr/expected "$tmp/out"
"$BUILD/patchc" build -o "$tmp/patched" "$BUILD/samples/interrupts.elf" >"$tmp/log" 2>&1
on kernel "$tmp/patched" --link-all
[ $status -eq $PASSED ] || on kernel "$tmp/patched" --link-all
is "$status" $PASSED 'HLT and the local APIC by way of doorbells, too'

# ---- registers that KVM keeps ----
for chips in kernel user; do
    for name in bad_efer bad_apic; do
        on $chips "$tmp/$name"
        is "$status:$(counter .shutdown)" 70:triple-fault "$name: what the processor refuses is refused, chips in $chips"
    done
done

# ---- writes without an exit ----
on kernel "$tmp/order"
is "$(cat "$tmp/out")" "$(printf 'abc%.0s' {1..100})" 'writes that were collected come in their order, with IO blocks'
on kernel "$tmp/order" --io-blocks off
is "$(cat "$tmp/out")" "$(printf 'abc%.0s' {1..100})" 'and without'
is "$(counter '.io | "\(.instructions)"')" 500 'all of them are counted'
is "$(counter '.io.instructions - .io.coalesced')" "$(counter .exits.io)" 'as exits those that were'
is "$(counter .exits.io)" 101 'which are the serial line and the first to the debug console'
on user "$tmp/order" --io-blocks off
is "$(counter '.exits.io, .io.coalesced' | tr '\n' ' ')" '500 0 ' 'with chips of this process each is an exit'
on kernel "$tmp/many" --io-blocks off
is "$(tr -d x <"$tmp/out" | wc -c):$(wc -c <"$tmp/out")" 0:1000 'more than fit in the ring are not lost'
"$BUILD/hvrun" --engine kvm --irqchip kernel --timeout 20 --serial "$tmp/words" "$tmp/last_words" </dev/null >"$tmp/out" 2>&1 &
pid=$!
for _ in {1..100}; do
    sleep 0.1
    [ "$(cat "$tmp/words" 2>/dev/null)" != 123 ] || break
done
is "$(cat "$tmp/words")" 123 'the last words of a guest that exits no more are seen while it runs'
kill $pid
wait $pid

# ---- what does not go together ----
check_status 2 'chips in the kernel are not for the software processor' \
    "$BUILD/hvrun" --engine soft --irqchip kernel "$BUILD/samples/hello.elf"
check_status $NO_ENGINE 'nor for single steps' \
    "$BUILD/hvrun" --engine kvm --irqchip kernel --step 10 "$BUILD/samples/hello.elf"
check_status 2 'nor are there others' "$BUILD/hvrun" --irqchip other "$BUILD/samples/hello.elf"
on auto "$tmp/halt"
if [ "$software" ]; then
    is "$(counter .exits.hlt)" 1 'auto has them here where KVM is software'
else
    is "$(counter .exits.hlt)" 0 'auto has them in the kernel'
fi
plan_done
