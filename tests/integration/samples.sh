#!/bin/bash
# SPDX-License-Identifier: MIT
# The sample kernels: each says what it expects of a processor and a PC. They run under QEMU, which nobody here
# wrote, and under hvrun, as built and as patched.
. tests/integration/tap.sh

QEMU=${QEMU:-qemu-system-x86_64}
PASSED=1 # exit status of the debug exit with value 0

# under_qemu IMAGE [WORDS]: what it prints; $status gets the exit status.
under_qemu() {
    timeout 120 "$QEMU" -accel tcg -no-reboot -kernel "$1" ${2:+-append "$2"} \
        -device isa-debug-exit,iobase=0xf4,iosize=4 -serial stdio -display none -monitor none </dev/null \
        >"$tmp/out" 2>"$tmp/err"
    status=$?
}

under_hvrun() {
    "$BUILD/hvrun" --engine soft --timeout 120 --memory 64M --serial stdio ${2:+--append "$2"} "$1" </dev/null >"$tmp/out" \
        2>"$tmp/err"
    status=$?
}

# runs SENTENCE STATUS EXPECTED: whether the last run printed the lines of that file, or ends with that line.
runs() {
    if [ "$status" -ne "$2" ]; then
        not_ok "$1" "exit status $status instead of $2"
        note "$(tail -n 20 "$tmp/out" "$tmp/err")"
    elif [ -f "$3" ]; then
        check "$1" diff "$3" "$tmp/out"
    else
        is "$(tail -n 1 "$tmp/out")" "$3" "$1"
    fi
}

# What QEMU does not offer, or is known to get wrong, a sample marks with dashes.
forgive() {
    sed -i 's/^-- /ok /' "$tmp/out"
}

have_qemu='' have_hvrun=''
command -v "$QEMU" >/dev/null && have_qemu=1
[ -x "$BUILD/hvrun" ] && have_hvrun=1

# on_hvrun IMAGE WHAT STATUS EXPECTED [WORDS]
on_hvrun() {
    if [ $have_hvrun ]; then
        under_hvrun "$1" "${5:-}"
        runs "$2 runs under hvrun" "$3" "$4"
    else
        skip "$2 runs under hvrun" "there is no $BUILD/hvrun"
    fi
}

# everywhere IMAGE WHAT STATUS EXPECTED [WORDS [STATUS]]: the last is QEMU's, where it differs.
everywhere() {
    if [ $have_qemu ]; then
        under_qemu "$1" "${5:-}"
        forgive
        runs "$2 runs under QEMU" "${6:-$3}" "$4"
    else
        skip "$2 runs under QEMU" "there is no $QEMU"
    fi
    on_hvrun "$@"
}

for expected in samples/*/expected; do
    name=$(basename "$(dirname "$expected")")
    image=$BUILD/samples/$name.elf
    want=$PASSED
    [ "$name" != power_off ] || want=0
    everywhere "$image" "$name" $want "$expected"
    for options in "" --assume-reserved "--form jump" "--form call" "--form branch" "--form break"; do
        what="$name, patched${options:+ ($options)}"
        patched=$tmp/$name.patched
        # shellcheck disable=SC2086 # several words
        check "$what" "$BUILD/patchc" build $options -o "$patched" "$image" || continue
        check "$what, is verified" "$BUILD/patchc" verify "$image" "$patched"
        case $options in
        "" | --assume-reserved) everywhere "$patched" "$what," $want "$expected" ;;
        *) on_hvrun "$patched" "$what," $want "$expected" ;;
        esac
    done
done

everywhere "$BUILD/samples/hello.elf" "a sample that is told to fail" 3 "hello: failed" "one fail two"
everywhere "$BUILD/samples/faults.elf" "a triple fault" 70 \
    "a double fault whose delivery faults: shutdown" triple 0
if [ $have_hvrun ]; then
    under_hvrun "$BUILD/samples/power_off.elf" reset
    runs "the FADT's reset register ends hvrun" 0 "power_off: reset"
    under_hvrun "$BUILD/samples/faults.elf" triple
    check "a triple fault gives a register dump" grep -qi 'rip ' "$tmp/err"
else
    skip "the FADT's reset register ends hvrun" "there is no $BUILD/hvrun"
fi
plan_done
