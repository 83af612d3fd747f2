#!/bin/bash
# SPDX-License-Identifier: MIT
# IO blocks (B1 to B11): the sample io-burst phase by phase, each way to know its blocks; Debian's kernel, unpatched,
# with its log on the serial port.
. tests/integration/tap.sh
. tests/integration/qemu.sh

[ -x "$BUILD/hvrun" ] || skip_all "there is no $BUILD/hvrun"
sample=$BUILD/samples/io-burst.elf
patched=$tmp/io-burst.patched

# counted IMAGE WORDS OPTION...: runs the sample; sets $instructions and $events.
counted() {
    local image=$1 words=$2
    shift 2
    "$BUILD/hvrun" --engine soft --timeout 120 --memory 64M --stats "$tmp/stats" --append "$words" "$@" "$image" </dev/null \
        >"$tmp/out" 2>"$tmp/err"
    status=$?
    read -r instructions events < <(jq -r '"\(.io.instructions) \(.io.events)"' "$tmp/stats")
}

# measured IMAGE PHASE OPTION...: those of the phase alone, without what stands around it.
measured() {
    local image=$1 phase=$2 around_instructions around_events
    shift 2
    counted "$image" bare "$@"
    around_instructions=$instructions around_events=$events
    counted "$image" "bare $phase" "$@"
    instructions=$((instructions - around_instructions)) events=$((events - around_events))
}

# What the first exits of a run, around the phases, may take more or less in one run than in another.
SLACK=2
VISITS=4

# total_of MODE IMAGE: sets $all_instructions and $all_events; reports phases that take too many events.
total_of() {
    local mode=$1 image=$2 phase bad=''
    all_instructions=0 all_events=0
    for phase in pic pit uart pci cmos serial delay strings driver retpoline; do
        measured "$image" $phase --io-blocks "$mode"
        [ $status -eq 1 ] || bad="$bad $phase (exit status $status)"
        note "$mode, $phase: $events events for $instructions IO instructions"
        all_instructions=$((all_instructions + instructions)) all_events=$((all_events + events))
        case $mode:$phase in
        off:strings) ;; # an exit for each iteration
        off:*) [ $events -eq $instructions ] || bad="$bad $phase" ;;
        table:driver | table:retpoline) ;; # who calls is not known before the guest runs
        *) [ $events -le $((VISITS + SLACK)) ] || bad="$bad $phase" ;;
        esac
    done
    is "$bad" '' "io-burst, $mode: $all_events events for $all_instructions IO instructions"
}

tenth() { # MODE
    if [ $all_events -gt 0 ] && [ $((all_events * 10)) -le $all_instructions ]; then
        ok "io-burst, $1: at least ten times fewer events than IO instructions"
    else
        not_ok "io-burst, $1: at least ten times fewer events than IO instructions" \
            "$all_events for $all_instructions"
    fi
}

check 'the sample is patched' "$BUILD/patchc" build -o "$patched" --report "$tmp/report" "$sample"
total_of off "$sample"
total_of scan "$sample"
tenth scan
total_of table "$patched"
total_of auto "$patched"
tenth auto

counted "$patched" 'bare pic' --io-blocks table
is "$(jq .io.hash_mismatches "$tmp/stats")" 0 'the table describes the bytes as they are after patching'
for mode in off table scan auto; do
    "$BUILD/hvrun" --engine soft --timeout 120 --memory 64M --io-blocks $mode "$patched" </dev/null >"$tmp/out" 2>&1
    check "the sample says the same, $mode" diff samples/io-burst/expected "$tmp/out"
done

# ---- a table that is damaged ----
# Bytes of the table changed, one place at a time: the guest runs on.
table=$(grep -abo PVIOBLK "$patched" | head -n 1 | cut -d: -f1)
if [ -n "$table" ]; then
    bad=''
    for at in 0 8 12 16 24 28 32 40 44 48 52 56 60 64 68 72 80 96 104 112 400 1000; do
        cp "$patched" "$tmp/damaged"
        printf '\377' | dd of="$tmp/damaged" bs=1 seek=$((table + at)) conv=notrunc status=none
        "$BUILD/hvrun" --engine soft --timeout 120 --memory 64M --io-blocks table "$tmp/damaged" </dev/null >"$tmp/out" 2>"$tmp/err"
        diff -q samples/io-burst/expected "$tmp/out" >/dev/null || bad="$bad $at"
        [ "$(wc -l <"$tmp/err")" -le 1 ] || bad="$bad $at (messages)"
    done
    is "$bad" '' 'a damaged table changes nothing but events'
    cp "$patched" "$tmp/damaged"
    printf '\377' | dd of="$tmp/damaged" bs=1 seek=$((table + 60)) conv=notrunc status=none # the first entry's size
    counted "$tmp/damaged" bare --io-blocks table
    is "$(jq .io.table_ignored "$tmp/stats")" 1 'and the counters say that an entry is damaged'
else
    not_ok 'a damaged table changes nothing but events' 'there is no table in the patched sample'
fi

# ---- Debian's kernel ----
kernel=${PV_KERNEL_CLOUD:-}
five='Debian, unpatched: at least five times fewer IO events by IO blocks'
same='and the console has the same bytes'
if [ -z "$kernel" ]; then
    skip "$five" "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD is not set}"
    skip "$same" "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD is not set}"
elif ! make_initrd "$tmp/initrd.cpio"; then
    skip "$five" "no initrd: busybox-static and cpio are needed"
    skip "$same" "no initrd: busybox-static and cpio are needed"
else
    for mode in off auto; do
        "$BUILD/hvrun" --engine soft --timeout 240 --memory 512M --deterministic --io-blocks $mode --initrd "$tmp/initrd.cpio" \
            --append 'patchvisor.quick printk.time=0' --stats "$tmp/$mode.stats" "$kernel" </dev/null >"$tmp/$mode.log" 2>"$tmp/err" ||
            note "$mode: exit status $?: $(cat "$tmp/err")"
        # Times that the kernel prints: a write to a page of code takes the longer the more of it is decoded.
        sed -i 's/Marking stable (.*/Marking stable/' "$tmp/$mode.log"
    done
    off=$(jq .io.events "$tmp/off.stats") auto=$(jq .io.events "$tmp/auto.stats")
    if [ "${auto:-0}" -gt 0 ] && [ $((auto * 5)) -le "${off:-0}" ]; then
        ok "$five ($auto of $off)"
    else
        not_ok "$five" "$auto of $off"
    fi
    if grep -aq '^patchvisor: userspace reached' "$tmp/auto.log"; then
        check "$same" cmp "$tmp/off.log" "$tmp/auto.log"
    else
        not_ok "$same" "$(tail -n 20 "$tmp/auto.log")"
    fi
fi
plan_done
