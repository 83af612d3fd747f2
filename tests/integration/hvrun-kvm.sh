#!/bin/bash
# SPDX-License-Identifier: MIT
# The samples on the KVM engine. Where /dev/kvm is absent everything is skipped; where it is software that cannot execute
# what a sample is about (hvrun says that it is), that sample is.
. tests/integration/tap.sh

PASSED=1    # exit status of the debug exit with value 0
NO_ENGINE=78 # hvrun(1)

# on KVM|SOFT SAMPLE: $status, $tmp/out, $tmp/err, $tmp/stats
on() {
    "$BUILD/hvrun" --engine "$1" --io-blocks off --timeout 60 --memory 64M --stats "$tmp/stats" "$BUILD/samples/$2.elf" \
        </dev/null >"$tmp/out" 2>"$tmp/err"
    status=$?
}

on kvm hello
if [ $status -eq $NO_ENGINE ]; then
    skip "samples run on KVM" "$(sed -n 's/^hvrun: //p' "$tmp/err" | head -n 1)"
    plan_done
fi
software=$(sed -n 's/^hvrun: \(.*MIPS.*\)/\1/p' "$tmp/err")

# What `auto` makes of this host: a KVM that is software is not taken, in one line; nor is there one to be had in silence.
on auto hello
if [ "$software" ]; then
    is "$(jq -r .engine "$tmp/stats")" soft 'auto takes the soft engine where KVM is software'
    is "$(cut -d' ' -f1-5 "$tmp/err")" 'hvrun: /dev/kvm executes ring 0' 'and says why in one line'
else
    is "$(jq -r .engine "$tmp/stats"):$(cat "$tmp/err")" kvm: 'auto takes KVM, and says nothing'
fi
"$BUILD/hvrun" --deterministic --stats "$tmp/stats" "$BUILD/samples/hello.elf" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$(jq -r .engine "$tmp/stats"):$(cat "$tmp/err")" soft: 'auto takes the soft engine where an option needs it'
"$BUILD/patchc" build --form break -o "$tmp/broken" "$BUILD/samples/hello.elf" >"$tmp/log" 2>&1
"$BUILD/hvrun" --stats "$tmp/stats" "$tmp/broken" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$(jq -r .engine "$tmp/stats"):$(cat "$tmp/err")" soft: 'or break patches do'
if unshare -rm mount -t tmpfs none /dev 2>/dev/null; then
    # shellcheck disable=SC2016 # for the other shell
    unshare -rm bash -c 'mount -t tmpfs none /dev; exec "$@" <&- 2>&1' bash \
        "$BUILD/hvrun" --serial "$tmp/out" "$BUILD/samples/hello.elf" >"$tmp/err"
    is "$?:$(cat "$tmp/err")" "$PASSED:" 'without a /dev/kvm auto says nothing'
else
    skip 'without a /dev/kvm auto says nothing' 'no namespace in which it could be hidden'
fi

for name in hello power_off cpuid_msr faults self_modifying io-burst fpu_switch user_mode; do
    case $name in
    fpu_switch | user_mode)
        if [ "$software" ]; then
            skip "$name runs on KVM" "$software, and it gives #UD where the sample's instructions work"
            continue
        fi
        ;;
    esac
    want=$PASSED
    [ $name != power_off ] || want=0
    on kvm $name
    is "$status" $want "$name runs on KVM"
    check "$name says the same as anywhere" diff "samples/$name/expected" "$tmp/out"
done

on kvm interrupts
if [ $status -ne $PASSED ]; then # it compares timers with each other, which a busy host may stop in between
    on kvm interrupts
fi
is "$status" $PASSED "interrupts runs on KVM, in one of two attempts"

"$BUILD/hvrun" --engine kvm "$tmp/broken" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$?" 66 'break patches are refused on KVM'
# ---- exits, reason by reason ----
# Those that come to user space: docs/kvm.md says which do not. A byte that finds the ring full goes out as an exit. A timer
# that ticks once more, because a busy host makes the guest slow, is an interrupt and the access that ends it.
reasons() {
    jq -c '.exits as $e | .io.posted as $posted | [$e | .msr, .doorbell, .hlt] +
        if $e.interrupt > 0 then [$e.io + $e.mmio - $e.interrupt, $posted]
        elif $posted >= 1024 then [$e.io + $posted, $e.mmio] else [$e.io, $posted, $e.mmio] end' "$tmp/stats"
}
# image ENGINE IMAGE: as `on`, with the interrupt chips of both engines in hvrun
image() {
    "$BUILD/hvrun" --engine "$1" --irqchip user --io-blocks off --timeout 60 --memory 64M --stats "$tmp/stats" "$2" \
        </dev/null >"$tmp/out" 2>"$tmp/err"
    status=$?
}
same_exits() { # NAME IMAGE KIND
    local want attempt
    image soft "$2"
    want=$(reasons)
    for attempt in 1 2 3 4 5; do # a busy host may be late in other ways: a second changes meanwhile
        image kvm "$2"
        [ "$(reasons)" != "$want" ] || break
    done
    is "$(reasons)" "$want" "$1, $3: the same exits, reason by reason, as on the soft engine" || note "attempt $attempt"
    check "$1, $3: and says the same" diff "samples/$1/expected" "$tmp/out"
}
for name in hello power_off cpuid_msr faults self_modifying io-burst interrupts fpu_switch user_mode; do
    case $name in
    fpu_switch | user_mode)
        if [ "$software" ]; then
            skip "$name: the same exits as on the soft engine" "$software, and cannot execute it"
            continue
        fi
        ;;
    esac
    same_exits $name "$BUILD/samples/$name.elf" unpatched
    "$BUILD/patchc" build -o "$tmp/small" "$BUILD/samples/$name.elf" >"$tmp/log" 2>&1
    same_exits $name "$tmp/small" patched
    "$BUILD/patchc" build --assume-reserved -o "$tmp/large" "$BUILD/samples/$name.elf" >"$tmp/log" 2>&1
    same_exits $name "$tmp/large" 'patched with a state page'
done

# ---- what an exit costs ----
image kvm "$BUILD/samples/hello.elf"
is "$(jq '(.exits.io + .exits.msr) as $exits | .kvm | .runs - $exits < 12 and .ioctls - .runs < 45 and .pulls <= 1' "$tmp/stats")" \
    true 'an exit of a port is one ioctl, and copies no registers' || note "$(jq -c '.exits.io, .kvm' "$tmp/stats")"
strace -f -e trace=ioctl -o "$tmp/trace" "$BUILD/hvrun" --engine kvm --irqchip user --io-blocks off --stats "$tmp/stats" \
    "$BUILD/samples/hello.elf" </dev/null >"$tmp/out" 2>"$tmp/err"
if [ -s "$tmp/trace" ]; then
    # the last VM: those before were the self-test's
    first=$(grep -n KVM_CREATE_VCPU "$tmp/trace" | tail -n 1 | cut -d: -f1)
    tail -n "+$first" "$tmp/trace" >"$tmp/calls"
    vcpu=$(sed -n 's/.*ioctl(\([0-9]*\), KVM_RUN.*/\1/p' "$tmp/calls" | tail -n 1)
    is "$(grep -c "ioctl($vcpu, KVM_RUN" "$tmp/calls")" "$(jq .kvm.runs "$tmp/stats")" 'strace counts the same runs'
    is "$(($(grep -c "ioctl($vcpu, " "$tmp/calls") - $(jq .kvm.ioctls "$tmp/stats") <= 8))" 1 \
        'and the same ioctls, but a few at the start' || note "$(grep -c "ioctl($vcpu, " "$tmp/calls"), $(jq -c .kvm "$tmp/stats")"
else
    skip 'strace counts the same' 'it is not there, or not allowed'
fi

# ---- IO blocks ----
on kvm io-burst
alone=$(jq .exits.io "$tmp/stats")
keys=$(jq -c '.io | keys' "$tmp/stats")
"$BUILD/hvrun" --engine kvm --io-blocks auto --timeout 60 --memory 64M --stats "$tmp/stats" "$BUILD/samples/io-burst.elf" \
    </dev/null >"$tmp/out" 2>"$tmp/err"
check 'io-burst with IO blocks says the same' diff samples/io-burst/expected "$tmp/out"
is "$(jq ".exits.io * 3 < $alone and .io.block_hits > 0 and .kvm.io_pulls < 100" "$tmp/stats")" true \
    'with a third of the exits at most' || note "$alone alone; $(jq -c '.exits.io, .io, .kvm.io_pulls' "$tmp/stats")"
is "$(jq -c '.io | keys' "$tmp/stats")" "$keys" 'and with the same counters'

"$BUILD/patchc" build -o "$tmp/patched" "$BUILD/samples/cpuid_msr.elf" >"$tmp/log" 2>&1
"$BUILD/hvrun" --engine kvm --timeout 60 "$tmp/patched" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$?" $PASSED 'a patched sample runs on KVM, its doorbells too'
check 'and says the same' diff samples/cpuid_msr/expected "$tmp/out"
plan_done
