#!/bin/bash
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
    case $name in
    hello | power_off | faults | self_modifying | cpuid_msr)
        kvm_ports=$(jq .exits.io "$tmp/stats")
        on soft $name
        soft_ports=$(jq .exits.io "$tmp/stats")
        is "${kvm_ports:-nothing}" "${soft_ports:-none}" "$name: as many IO exits as on the soft engine"
        ;;
    esac
done

on kvm interrupts
if [ $status -ne $PASSED ]; then # it compares timers with each other, which a busy host may stop in between
    on kvm interrupts
fi
is "$status" $PASSED "interrupts runs on KVM, in one of two attempts"

"$BUILD/hvrun" --engine kvm "$tmp/broken" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$?" 66 'break patches are refused on KVM'
"$BUILD/patchc" build -o "$tmp/patched" "$BUILD/samples/cpuid_msr.elf" >"$tmp/log" 2>&1
"$BUILD/hvrun" --engine kvm --timeout 60 "$tmp/patched" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$?" $PASSED 'a patched sample runs on KVM, its doorbells too'
check 'and says the same' diff samples/cpuid_msr/expected "$tmp/out"
plan_done
