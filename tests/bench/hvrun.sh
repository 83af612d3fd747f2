# The part of the bench that boots kernels under hvrun; sourced by tests/bench/run, after qemu.sh.
#
# The same unpacked kernel and initrd go to userspace and off again: under QEMU's translator (TCG, machine pc),
# under hvrun, and under hvrun with the kernel patched. One round runs them right after one another.
# shellcheck shell=bash disable=SC2154

GUEST_MEMORY=512 # MB

# hvrun_boot NAME IMAGE: counters to $work/NAME.stats
hvrun_boot() {
    timed "$1" "$BUILD/hvrun" --memory ${GUEST_MEMORY}M --initrd "$work/initrd.cpio" --append patchvisor.quick \
        --serial "$work/$1.log" --stats "$work/$1.stats" --timeout 600 "$2" </dev/null
}

qemu_boot() { # NAME IMAGE
    timed "$1" "$QEMU" -accel tcg -machine pc -m $GUEST_MEMORY -no-reboot -nodefaults -display none \
        -serial file:"$work/$1.log" -kernel "$2" -initrd "$work/initrd.cpio" \
        -append "console=ttyS0 panic=-1 tsc_early_khz=$TSC_KHZ patchvisor.quick" </dev/null
}

hvrun_round() { # KERNEL
    local name
    qemu_boot "$1-boot-qemu" "$work/$1.elf"
    hvrun_boot "$1-boot-hvrun" "$work/$1.elf"
    hvrun_boot "$1-boot-hvrun-patched" "$work/$1.patched"
    for name in qemu hvrun hvrun-patched; do
        grep -aq '^patchvisor: userspace reached' "$work/$1-boot-$name.log" || {
            echo "bench: $1 did not reach userspace under $name: $work/$1-boot-$name.log" >&2
            exit 1
        }
    done
}

# Kilobytes in memory while the guest's shell waits: "GUEST BESIDE". The guest's memory is the largest mapping.
hvrun_memory() { # IMAGE
    local log=$work/memory.log tries=0 child
    rm -f "$work/keys"
    mkfifo "$work/keys"
    : >"$log"
    "$BUILD/hvrun" --memory ${GUEST_MEMORY}M --initrd "$work/initrd.cpio" --append patchvisor.shell --timeout 600 \
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

hvrun_json() { # KERNEL MEMORY
    local way
    for way in qemu hvrun hvrun-patched; do
        printf '%s %s\n' "$(median "$work/$1-boot-$way.times" 1)" "$(median "$work/$1-boot-$way.times" 2)"
    done | jq -Rn --arg memory "$2" --slurpfile before "$work/$1-boot-hvrun.stats" \
        --slurpfile after "$work/$1-boot-hvrun-patched.stats" '
        [inputs / " " | map(tonumber)] as [$qemu, $plain, $patched]
        | def way($times; $stats): {seconds: $times[0], to_qemu: ($times[0] / $qemu[0]), peak_kilobytes: $times[1],
              exits: $stats.exits.total, guest_instructions: $stats.guest_instructions,
              mips: ($stats.guest_instructions / $stats.wall_seconds / 1e6)};
        {qemu: {seconds: $qemu[0], peak_kilobytes: $qemu[1]},
         unpatched: way($plain; $before[0]), patched: way($patched; $after[0]),
         exits_left: ($after[0].exits.total / $before[0].exits.total),
         memory: ($memory / " " | map(tonumber) | {guest_kilobytes: .[0], beside_kilobytes: .[1]})}'
}

print_hvrun() { # JSON
    jq -r "$jq_formats"'
        def row(title; w): "  " + (title | pad(36)) + (w.seconds | fixed(2) | lpad(9))
            + ((w.to_qemu // 1) | fixed(2) | lpad(11)) + (w.exits // "" | lpad(12));
        "  " + ("power-on to userspace and off" | pad(36)) + ("seconds" | lpad(9)) + ("of QEMU" | lpad(11)) + ("exits" | lpad(12)),
        row("QEMU TCG"; .qemu), row("hvrun"; .unpatched), row("hvrun, patched"; .patched),
        "  of the exits \(.exits_left * 100 | fixed(2)) % are left by patching; \(.unpatched.mips | round) and \(.patched.mips | round) MIPS",
        "  memory: hvrun has \(.memory.beside_kilobytes / 1024 | fixed(1)) MB beside the guest'"'"'s \(.memory.guest_kilobytes / 1024 | fixed(1)) MB",
        ""' <<<"$1"
}

# The soft processor's loops, one a row.
print_loops() { # JSON
    jq -r "$jq_formats"'
        "  " + ("soft processor, loops of" | pad(36)) + ("MIPS" | lpad(9)) + ("native" | lpad(11)) + ("slower" | lpad(12)),
        (to_entries[] | "  " + (.key | pad(36)) + (.value.mips | lpad(9)) + (.value.native_mips | lpad(11))
            + (.value.slower | fixed(1) | lpad(12))), ""' <<<"$1"
}
