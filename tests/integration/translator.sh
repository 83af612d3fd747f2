#!/bin/bash
# SPDX-License-Identifier: MIT
# The translator: guests come to the same end, with the same counters and console, translated and interpreted; the boot
# of a kernel is compared all the way.
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
same 'loops over a megabyte come to the same end' --append 'count alu copy far movs recurse indirect mpi rounds=10' \
    "$BUILD/samples/loops.elf"

"$BUILD/hvrun" --deterministic --stats "$tmp/stats" "$sample" </dev/null >/dev/null 2>&1
check 'code that runs often is translated' test "$(jq .translator.blocks "$tmp/stats")" -gt 0
"$BUILD/hvrun" --deterministic --translator off --stats "$tmp/stats" "$sample" </dev/null >/dev/null 2>&1
check '--translator off: nothing is' test "$(jq .translator.blocks "$tmp/stats")" -eq 0

if [ -n "${PV_KERNEL_CLOUD:-}" ]; then
    # shellcheck disable=SC2317 # called by check
    boot_lockstep() { # PROCESSORS INSTRUCTIONS
        timeout 600 "$BUILD/tests/tools/translate_boot" "$2" "$1" "$PV_KERNEL_CLOUD" >"$tmp/boot" 2>&1
    }
    check 'the boot of a kernel agrees all the way' boot_lockstep 1 220000000
    check 'with two processors, too' boot_lockstep 2 100000000
else
    skip 'the boot of a kernel agrees all the way' "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD names no kernel}"
    skip 'with two processors, too' "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD names no kernel}"
fi
plan_done
