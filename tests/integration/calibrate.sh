#!/bin/bash
# SPDX-License-Identifier: MIT
# hvrun --calibrate: the table's shape, and that its numbers can be: what they are is the machine's affair.
. tests/integration/tap.sh

rows='out in out_delay doorbell mmio apic_eoi hlt cpuid cpuid_table rdmsr rdmsr_cpu rdmsr_table wrmsr wbinvd cr3'

start=$SECONDS
"$BUILD/hvrun" --calibrate --stats "$tmp/costs" </dev/null >"$tmp/out" 2>"$tmp/err"
is "$?" 0 '--calibrate needs no kernel'
took=$((SECONDS - start))
check 'it ends within half a minute, on a busy host' [ $took -lt 30 ] || note "$took s"
columns=$(sed -n 's/^ *\(soft .*\) counter$/\1/p' "$tmp/out" | xargs)
is "${columns%% *}" soft 'the soft engine is always measured'
# shellcheck disable=SC2086 # the columns are words
is "$(sed -n '/counter$/,/^$/p' "$tmp/out" | sed '1d;/^$/d' | cut -d' ' -f1 | xargs)" "$rows" 'the table has its rows'
is "$(sed -n '/counter$/,/^$/p' "$tmp/out" | sed '1d;/^$/d' | awk -v n="$(wc -w <<<"$columns")" '
    { for (k = 0; k < n; k++) if ($(NF - 1 - k) !~ /^[0-9.]+$/) bad++ } END { print bad + 0 }')" 0 'and a number for each engine in each'
is "$(jq -r 'keys_unsorted | join(" ")' "$tmp/costs")" "$rows" '--stats writes the same as JSON'
is "$(jq -r '.out | keys_unsorted | join(" ")' "$tmp/costs")" "$columns" 'with the same columns'

cost() { # ROW COLUMN: in the JSON
    jq ".$1[\"$2\"]" "$tmp/costs"
}
# shellcheck disable=SC2317 # called by name
greater() { # A B
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'
}
is "$(jq '[.[][]] | min >= 0 and max < 1e8' "$tmp/costs")" true 'no number is below zero, or beyond 0.1 s'
for column in $columns; do
    check "$column: an exit costs something" greater "$(cost out "$column")" 1
    check "$column: HLT and its interrupt cost more than an OUT" greater "$(cost hlt "$column")" "$(cost out "$column")"
done
case $columns in
*kvm-kernel*)
    check 'an exit costs more on KVM than on the soft engine' greater "$(cost out kvm-user)" "$(cost out soft)"
    check 'the local APIC of the kernel costs less than one in user space' \
        greater "$(cost apic_eoi kvm-user)" "$(cost apic_eoi kvm-kernel)"
    ;;
*) skip 'an exit costs more on KVM than on the soft engine' 'there is no KVM, or no interrupt chips in it' ;;
esac

"$BUILD/hvrun" --calibrate --engine soft </dev/null >"$tmp/out" 2>"$tmp/err"
is "$?:$(sed -n 's/^ *\(.*\) counter$/\1/p' "$tmp/out" | xargs):$(cat "$tmp/err")" 0:soft: '--engine chooses'
check_status 2 'a kernel is not wanted' "$BUILD/hvrun" --calibrate "$BUILD/samples/hello.elf"
check_status 74 'a file that cannot be written is an error' "$BUILD/hvrun" --calibrate --engine soft --stats "$tmp/no/file"
plan_done
