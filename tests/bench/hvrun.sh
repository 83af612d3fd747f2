# SPDX-License-Identifier: MIT
# The part of the bench that boots kernels under hvrun; sourced by tests/bench/run, after qemu.sh.
#
# The same unpacked kernel and initrd go to userspace and off again: under QEMU's translator (TCG, machine pc), under hvrun
# (whose translator is on) as it is and patched, each with and without IO blocks, and interpreted. One round runs them right
# after one another, but the interpreter, which is slow and no aim: it runs in the first.
# shellcheck shell=bash disable=SC2154

GUEST_MEMORY=512 # MB
WAYS='unpatched interpreted patched unpatched-blocks patched-blocks'

# hvrun_boot KERNEL WAY IMAGE [OPTION...]: counters to $work/KERNEL-boot-WAY.stats
hvrun_boot() {
    local name=$1-boot-$2 image=$3
    shift 3
    timed "$name" "$BUILD/hvrun" --engine soft --memory ${GUEST_MEMORY}M --initrd "$work/initrd.cpio" --append patchvisor.quick \
        --serial "$work/$name.log" --stats "$work/$name.stats" --timeout 600 "$@" "$image" </dev/null
}

qemu_boot() { # NAME IMAGE
    timed "$1" "$QEMU" -accel tcg -machine pc -m $GUEST_MEMORY -no-reboot -nodefaults -display none \
        -serial file:"$work/$1.log" -kernel "$2" -initrd "$work/initrd.cpio" \
        -append "console=ttyS0 panic=-1 tsc_early_khz=$TSC_KHZ patchvisor.quick" </dev/null
    echo null >"$work/$1.stats" # nobody counts there
}

hvrun_way() { # KERNEL WAY
    case $2 in
    qemu) qemu_boot "$1-boot-qemu" "$work/$1.elf" ;;
    interpreted) hvrun_boot "$@" "$work/$1.elf" --io-blocks off --translator off ;;
    unpatched | patched) hvrun_boot "$@" "$work/$1.${2/unpatched/elf}" --io-blocks off ;;
    unpatched-blocks) hvrun_boot "$@" "$work/$1.elf" ;;
    patched-blocks) hvrun_boot "$@" "$work/$1.patched" ;;
    esac
    grep -aq '^patchvisor: userspace reached' "$work/$1-boot-$2.log" || {
        echo "bench: $1 did not reach userspace under $2: $work/$1-boot-$2.log" >&2
        exit 1
    }
}

hvrun_round() { # KERNEL NUMBER
    local way
    for way in qemu $WAYS; do
        if [ "$way" != interpreted ] || [ "$2" -eq 0 ]; then hvrun_way "$1" "$way"; fi
    done
}

# Kilobytes in memory while the guest's shell waits: "GUEST BESIDE". The guest's memory is the largest mapping.
hvrun_memory() { # IMAGE
    local log=$work/memory.log tries=0 child
    rm -f "$work/keys"
    mkfifo "$work/keys"
    : >"$log"
    "$BUILD/hvrun" --engine soft --memory ${GUEST_MEMORY}M --initrd "$work/initrd.cpio" --append patchvisor.shell --timeout 600 \
        "$1" <"$work/keys" >"$log" 2>&1 &
    child=$!
    exec 3>"$work/keys"
    until grep -aq '^/ # ' "$log" || [ $((tries += 1)) -gt 3000 ]; do sleep 0.1; done
    awk -v size=$((GUEST_MEMORY * 1024)) '/^Size:/ { guest = $2 >= size } /^Rss:/ { if (guest) g += $2; else b += $2 }
        END { print g + 0, b + 0 }' "/proc/$child/smaps"
    echo exit >&3
    exec 3>&-
    wait "$child"
}

hvrun_json() { # KERNEL [MEMORY]
    local way
    for way in qemu $WAYS; do
        jq -n --arg way "$way" --argjson seconds "$(median "$work/$1-boot-$way.times" 1)" \
            --argjson peak "$(median "$work/$1-boot-$way.times" 2)" \
            --argjson processor "$(median "$work/$1-boot-$way.times" 3)" '
            {way: $way, seconds: $seconds, processor_seconds: $processor, peak_kilobytes: $peak} + (input // {}
                | {exits: .exits.total, guest_instructions,
                   mips: (if .wall_seconds then .guest_instructions / .wall_seconds / 1e6 else null end),
                   translating: (if .translator.seconds then .translator.seconds / .wall_seconds else null end)})' \
            "$work/$1-boot-$way.stats"
    done | jq -s --arg memory "${2:-}" '
        (map({key: .way, value: .}) | from_entries) as $w
        | {rows: map(. + {to_qemu: (.seconds / $w.qemu.seconds),
                           processor_to_qemu: (.processor_seconds / $w.qemu.processor_seconds)}),
           exits_left: (if $w.patched then $w.patched.exits / $w.unpatched.exits else null end),
           memory: (if $memory == "" then null else $memory / " " | map(tonumber) | {guest_kilobytes: .[0], beside_kilobytes: .[1]} end)}'
}

print_hvrun() { # JSON
    jq -r "$jq_formats"'
        def title: {"qemu": "QEMU TCG", "unpatched": "hvrun, translator", "interpreted": "hvrun, --translator off",
            "patched": "hvrun, patched",
            "unpatched-blocks": "hvrun, IO blocks", "patched-blocks": "hvrun, patched, IO blocks"}[.];
        "  " + ("power-on to userspace and off" | pad(36)) + ("seconds" | lpad(9)) + ("of QEMU" | lpad(11)) + ("CPU s" | lpad(12))
            + ("of QEMU" | lpad(9)) + ("exits" | lpad(8)) + ("MIPS" | lpad(6)),
        (.rows[] | "  " + (.way | title | pad(36)) + (.seconds | fixed(2) | lpad(9)) + (.to_qemu | fixed(2) | lpad(11))
            + (.processor_seconds | fixed(2) | lpad(12)) + (.processor_to_qemu | fixed(2) | lpad(9))
            + (.exits // "" | lpad(8)) + (if .mips then .mips | round else "" end | lpad(6))),
        (if .exits_left then "  patching leaves \(.exits_left * 100 | fixed(2)) % of the exits" else empty end),
        (.rows[] | select(.way == "unpatched" and .translating) | "  translating takes \(.translating * 100 | fixed(1)) % of the time"),
        (if .memory then "  memory: \(.memory.beside_kilobytes / 1024 | fixed(1)) MB beside the guest'"'"'s own \(.memory.guest_kilobytes / 1024 | fixed(1)) MB" else empty end),
        ""' <<<"$1"
}

# The soft processor's loops, one a row.
print_loops() { # JSON
    jq -r "$jq_formats"'
        "  " + ("soft processor, loops of (MIPS)" | pad(36)) + ("interpreted" | lpad(12)) + ("translated" | lpad(12))
            + ("native" | lpad(11)) + ("slower" | lpad(9)),
        (to_entries[] | "  " + (.key | pad(36)) + (.value.mips | lpad(12)) + (.value.translated_mips | lpad(12))
            + (.value.native_mips | lpad(11)) + (.value.translated_slower | fixed(1) | lpad(9))), ""' <<<"$1"
}
