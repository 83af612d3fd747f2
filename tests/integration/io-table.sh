#!/bin/bash
# SPDX-License-Identifier: MIT
# The IO-block table of a real kernel (B9, B11): what patchc computes, what its report says, that verify finds a table
# that is not right, and that the kernel finds its blocks when it runs elsewhere than it was linked.
. tests/integration/tap.sh
need_kernel CLOUD
DELTA=0x7a00000 # a multiple of 2 MiB, as Linux' own relocation
patched=$tmp/patched
check "patchc builds the kernel" "$BUILD/patchc" build -o "$patched" --report "$tmp/report" "$kernel"
check "verify accepts its IO-block table" "$BUILD/patchc" verify "$kernel" "$patched"

says() { # SENTENCE FILTER: jq's filter holds for the report
    check "$1" jq -e "$2" "$tmp/report"
}
says "B9: the report has more than 150 IO blocks" '.io_blocks | length > 150'
says "each saves events: several IO instructions, a loop or a string" \
    '.io_blocks | all(.io_count > 1 or any(.traits[]; . == "loop" or . == "string"))'
says "B10: some have several ranges, loops and calls" \
    '.io_blocks | any(.ranges | length > 1) and any(.traits | contains(["loop"])) and any(.traits | contains(["call"]))'
says "ranges add up to the size, ascend and do not overlap" \
    '.io_blocks | all((.ranges | map(.size) | add) == .size and ([.ranges[].address] == ([.ranges[].address] | sort)))'
says "ports are those of a PC: the interrupt controllers, the timer, the clock" \
    '[.io_blocks[].ports[]] | contains([32, 33, 160, 161, 66, 67, 112, 113])'
says "B11: what the kernel rewrites is masked, and most is not" \
    '.io_blocks | (map(.masked) | add) > 0 and (map(.masked) | add) * 2 < (map(.size) | add)'
is "$("$BUILD/patchc" inspect --json "$patched" | jq .io_blocks)" "$(jq '.io_blocks | length' "$tmp/report")" \
    "inspect finds as many in the image as the report has"

# A list that leaves sites to blocks.
printf 'include in action=block\ninclude out action=block\n' >"$tmp/block.list"
check "action=block builds" "$BUILD/patchc" build -l "$tmp/block.list" -o "$tmp/left" --report "$tmp/report" "$kernel"
check "verify accepts it" "$BUILD/patchc" verify "$kernel" "$tmp/left"
says "action=block: what a block covers is left to it, the rest is patched" \
    '.summary.block > 100 and .summary.patched > 50 and ([.sites[] | select(.status == "block" and .window != null)] == [])'
rm -f "$tmp/left"

# hits IMAGE: "block hits, hash mismatches" of a boot to the panic for want of a root.
hits() {
    timeout 120 "$BUILD/hvrun" --engine soft --timeout 110 --memory 512M --no-patch --io-blocks table --stats "$tmp/stats" \
        --append 'console=ttyS0 panic=-1' "$1" </dev/null >"$tmp/log" 2>&1 || tail -n 3 "$tmp/log"
    jq -r '.io | "\(.block_hits > 30), \(.hash_mismatches)"' "$tmp/stats"
}
if [ -x "$BUILD/hvrun" ]; then
    check "the image is relocated" "$BUILD/tests/tools/relocate" "$patched" "$tmp/relocated" $DELTA
    is "$(hits "$tmp/relocated")" "true, 0" "B9: a relocated kernel finds its blocks in the table, by their hashes"
else
    skip "B9: a relocated kernel finds its blocks in the table" "there is no $BUILD/hvrun"
fi
plan_done
