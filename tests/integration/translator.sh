#!/bin/bash
# SPDX-License-Identifier: MIT
# The translator: guests come to the same end, with the same counters and console, translated and interpreted; in
# lockstep they are the same all the way, and so is the boot of a kernel.
. tests/integration/tap.sh

# What a run did but for the time it took.
counters() { # FILE
    jq -c 'del(.wall_seconds, .translator)' "$1"
}

# same SENTENCE HVRUN-ARGUMENTS...
same() {
    local sentence=$1 mode
    shift
    for mode in on off; do
        timeout 120 "$BUILD/hvrun" --deterministic --timeout 100 --translator $mode --stats "$tmp/stats-$mode" "$@" \
            </dev/null >"$tmp/out-$mode" 2>"$tmp/err-$mode"
        echo "exit code $?" >>"$tmp/out-$mode"
    done
    if [ "$(counters "$tmp/stats-on")" = "$(counters "$tmp/stats-off")" ] && cmp -s "$tmp/out-on" "$tmp/out-off"; then
        ok "$sentence"
    else
        not_ok "$sentence"
        diff <(counters "$tmp/stats-on") <(counters "$tmp/stats-off") | sed 's/^/# /'
        diff -a "$tmp/out-on" "$tmp/out-off" | head -n 5 | sed 's/^/# /'
    fi
}

sample=$BUILD/samples/interrupts.elf
if "$BUILD/hvrun" --deterministic "$sample" </dev/null 2>&1 >/dev/null | grep -q '^hvrun: no translator'; then
    skip 'guests come to the same end translated and interpreted' 'the host has no LAHF in 64-bit mode'
    plan_done
fi

for image in "$BUILD"/samples/*.elf; do
    name=$(basename "$image" .elf)
    same "the sample $name comes to the same end" "$image"
done
same 'loops over a megabyte come to the same end' --append 'count alu copy far movs recurse indirect mpi sse x87 rounds=10' \
    "$BUILD/samples/loops.elf"

"$BUILD/hvrun" --deterministic --stats "$tmp/stats" "$sample" </dev/null >/dev/null 2>&1
check 'code that runs often is translated' test "$(jq .translator.blocks "$tmp/stats")" -gt 0
"$BUILD/hvrun" --deterministic --translator off --stats "$tmp/stats" "$sample" </dev/null >/dev/null 2>&1
check '--translator off: nothing is' test "$(jq .translator.blocks "$tmp/stats")" -eq 0

# ---- lockstep ----
# lockstep ARGUMENTS...: no difference, in $instructions instructions and at $points points
lockstep() {
    instructions='' points=''
    timeout 600 "$BUILD/hvrun" --engine soft --lockstep "$@" </dev/null >"$tmp/out" 2>"$tmp/err" || return
    read -r instructions points < <(sed -nE \
        's/^hvrun: lockstep: no difference between .* in ([0-9]+) instructions, compared at ([0-9]+) points$/\1 \2/p' \
        "$tmp/err")
    [ -n "${points:-}" ] || sed 's/^/# /' "$tmp/err"
    [ -n "${points:-}" ]
}

for image in "$BUILD"/samples/*.elf; do
    name=$(basename "$image" .elf)
    [ "$name" != forms ] || continue # starts only when patched
    check "lockstep: no difference in $name" lockstep --timeout 60 --memory 64M "$image"
    lockstep --timeout 60 --memory 64M --lockstep-stride 1000 "$image"
    check "nor with a stride" test "${points:-0}" -gt 0
done
lockstep "$sample"
check 'behind every block the two are compared' test $((points * 20)) -gt "$instructions"
check 'the guest says what it always says' diff samples/interrupts/expected "$tmp/out"
lockstep --stats "$tmp/stats" "$sample"
check 'the counters say so' test "$(jq .lockstep.points "$tmp/stats")" = "$points"
check 'as their JSON Schema wants it' "$BUILD/tests/tools/schema_check" docs/stats.schema.json "$tmp/stats"
lockstep --lockstep-count 10000 "$sample"
check '--lockstep-count ends it' test $((instructions - 10000)) -lt 64
check_status 2 '--lockstep needs the translator' "$BUILD/hvrun" --engine soft --lockstep --translator off "$sample"
check_status 2 '--lockstep-stride is for --lockstep' "$BUILD/hvrun" --engine soft --lockstep-stride 5 "$sample"

# boot SENTENCE INSTRUCTIONS ARGUMENTS...
boot() {
    local sentence=$1 count=$2
    shift 2
    if [ -n "${PV_KERNEL_CLOUD:-}" ]; then
        check "$sentence" lockstep --lockstep-count "$count" "$@" --append 'console=ttyS0 earlyprintk=serial' "$PV_KERNEL_CLOUD"
    else
        skip "$sentence" "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD names no kernel}"
    fi
}
boot 'lockstep: no difference in the boot of a kernel, at any block' 40000000
boot 'nor in 200 million instructions of it' 200000000 --lockstep-stride 4000
boot 'nor with two processors' 40000000 --smp 2
plan_done
