# SPDX-License-Identifier: MIT
# The translator of the soft engine against the interpreter (--translator off), QEMU's translator (TCG) and, for loops, the
# host's processor itself, the same code in all of them, right after one another. Sourced by tests/bench/run, after hvrun.sh.
#
# Loops: the sample `loops`, and the same as a program of the host, timed from outside: many rounds of a loop without the time
# of one. Work: busybox in a Linux guest that says when it begins and ends; the host's clock tells how long that was.
# shellcheck shell=bash disable=SC2154

ENGINES='qemu translated interpreted'
LOOP_ENGINES="native $ENGINES"
LOOPS='count alu copy far movs recurse indirect mpi sse x87'
WORK='sha256 sort gzip'
LOOP_ROUNDS=${LOOP_ROUNDS:-3}     # of which the median counts; the interpreter, which is no aim, runs in the first
LOOP_SECONDS=${LOOP_SECONDS:-0.6} # what one measurement is to take at least
WORK_ROUNDS=${WORK_ROUNDS:-3}     # as LOOP_ROUNDS

# ---- loops ----

# loop_run ENGINE LOOP ROUNDS: prints "seconds processor_seconds instructions result".
loop_run() {
    local words="$2 rounds=$3" sample=$BUILD/samples/loops.elf log=$work/loops.log
    rm -f "$work/loops.times"
    case $1 in
    native) # shellcheck disable=SC2016 # it is the inner shell that expands them
        timed loops sh -c 'log=$1 && shift && "$@" >"$log"' sh "$log" "$BUILD/tests/bench/native_loops" "$2" "rounds=$3"
        ;;
    qemu) # the debug exit's status is odd
        timed loops sh -c '"$@"; test $? -eq 1' sh "$QEMU" -accel tcg -m 64 -no-reboot -nodefaults -display none -serial file:"$log" \
            -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$sample" -append "$words" </dev/null
        ;;
    *)
        timed loops sh -c '"$@"; test $? -eq 1' sh "$BUILD/hvrun" --engine soft --memory 64M --timeout 300 --serial "$log" \
            --translator "$([ "$1" = translated ] && echo on || echo off)" --append "$words" "$sample" </dev/null
        ;;
    esac
    awk -v loop="$2" -v times="$(cat "$work/loops.times")" '
        $1 == loop ":" { split(times, t, " "); print t[1], t[3], $4, $7; found = 1 }
        END { exit !found }' "$log" || {
        echo "bench: $1 did not go through the loop $2: $log" >&2
        exit 1
    }
}

# loop_rounds ENGINE LOOP: how many rounds take long enough to tell.
loop_rounds() {
    local rounds=8 one many verdict
    one=$(loop_run "$1" "$2" 1)
    while :; do
        many=$(loop_run "$1" "$2" "$rounds")
        # First to a third of it, then by proportion: a short time says little. It is processor time, which other load does
        # not make longer.
        read -r verdict rounds < <(awk -v a="$one" -v b="$many" -v n="$rounds" -v want="$LOOP_SECONDS" 'BEGIN {
            split(a, x, " "); split(b, y, " "); t = y[2] - x[2]
            if (t >= want) print "done", n
            else if (t < want / 3) print "more", n * 4
            else print "done", int(n * want / t) + 1 }')
        [ "$verdict" = more ] || break
    done
    echo "$rounds"
}

# loop_compare LOOP: appends what loop_run prints to loop.LOOP.ENGINE.one.times (one round) and to .many.times.
loop_compare() {
    local engine i
    declare -A rounds
    for engine in $LOOP_ENGINES; do
        rounds[$engine]=$(loop_rounds "$engine" "$1")
    done
    for ((i = 0; i < LOOP_ROUNDS; i++)); do
        for engine in $LOOP_ENGINES; do
            [ "$engine" != interpreted ] || [ $i -eq 0 ] || continue
            loop_run "$engine" "$1" 1 >>"$work/loop.$1.$engine.one.times"
            loop_run "$engine" "$1" "${rounds[$engine]}" >>"$work/loop.$1.$engine.many.times"
        done
    done
    [ "$(cut -d " " -f 3- "$work/loop.$1".*.one.times | sort -u | wc -l)" -eq 1 ] || {
        echo "bench: the loop $1 did not come to the same everywhere: $work/loop.$1.*.one.times" >&2
        exit 1
    }
}

# loop_json LOOP ENGINE: million instructions a second of wall time and of processor time.
loop_json() {
    local base=$work/loop.$1.$2
    jq -n --arg loop "$1" --arg engine "$2" --argjson seconds "$(median "$base.one.times" 1)" \
        --argjson long_seconds "$(median "$base.many.times" 1)" --argjson processor "$(median "$base.one.times" 2)" \
        --argjson long_processor "$(median "$base.many.times" 2)" --argjson instructions "$(median "$base.one.times" 3)" \
        --argjson long_instructions "$(median "$base.many.times" 3)" '
        def rate(seconds): ($long_instructions - $instructions) / 1e6 / ([seconds, 1e-6] | max);
        {loop: $loop, engine: $engine, mips: rate($long_seconds - $seconds), processor_mips: rate($long_processor - $processor)}'
}

loops_json() {
    local loop engine
    for loop in $LOOPS; do
        loop_compare "$loop"
        for engine in $LOOP_ENGINES; do
            loop_json "$loop" "$engine"
        done
    done | jq -s 'group_by(.loop) | map({key: .[0].loop, value: (map({key: .engine, value: {mips, processor_mips}}) | from_entries
        | . + {times_qemu: (.translated.mips / .qemu.mips), times_interpreted: (.translated.mips / .interpreted.mips),
        to_native: (.translated.processor_mips / .native.processor_mips)})})
        | from_entries'
}

# ---- work ----

# make_work_initrd FILE: busybox, something to work on, and an init that goes through it and powers off.
make_work_initrd() {
    local root=$tmp/work-initrd
    mkdir -p "$root/bin" "$root/dev" || return 1
    cp "$BUSYBOX" "$root/bin/busybox" && ln -sf busybox "$root/bin/sh" || return 1
    awk 'BEGIN { for (x = i = 1; i <= 40000; i++) { x = (x * 16807) % 2147483647; print x, "line", i } }' >"$root/lines"
    work_script >"$root/work"
    cat >"$root/init" <<'INIT'
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev 2>/dev/null
exec >/dev/console 2>&1
echo "patchvisor: userspace reached"
$b sh /work $b /lines
$b stty opost </dev/console
$b poweroff -f
INIT
    chmod 755 "$root/init"
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --owner=0:0) >"$1"
}

# Prints a script: `sh SCRIPT BUSYBOX LINES`.
work_script() {
    cat <<'WORK'
b=$1 l=$2
say() { echo "work: $*"; }
for n in 1 2 3 4; do $b cat $l $l $l $l $l $l; done >/big
say begin sha256
r=$($b sha256sum </big)
say end sha256 $r
say begin sort
r=$($b sort -n $l | $b md5sum)
say end sort $r
say begin gzip
r=$($b cat $l $l $l | $b gzip -c | $b md5sum)
say end gzip $r
WORK
}

# work_run ENGINE: appends each work's seconds to work.WORK.ENGINE.times.
work_run() {
    local log=$work/work-$1.log translator=on line name
    local boot=("$QEMU" -accel tcg -machine pc -m "$GUEST_MEMORY" -no-reboot -nodefaults -display none -serial stdio
        -kernel "$work/cloud.elf" -initrd "$work/work.cpio" -append "console=ttyS0 panic=-1 quiet tsc_early_khz=$TSC_KHZ")
    [ "$1" != interpreted ] || translator=off
    [ "$1" = qemu ] || boot=("$BUILD/hvrun" --engine soft --translator "$translator" --memory "${GUEST_MEMORY}M" --timeout 300
        --initrd "$work/work.cpio" --append quiet "$work/cloud.elf")
    timeout 300 "${boot[@]}" </dev/null 2>"$log.err" | while IFS= read -r line; do
        printf '%s %s\n' "$EPOCHREALTIME" "${line%$'\r'}"
    done >"$log"
    for name in $WORK; do
        awk -v name="$name" '$2 == "work:" && $4 == name { at[$3] = $1 } END { if (!("end" in at)) exit 1
            printf "%.6f 0\n", at["end"] - at["begin"] }' "$log" >>"$work/work.$name.$1.times" || {
            echo "bench: the guest did not end its work, $name, under $1: $log" >&2
            exit 1
        }
    done
    # All come to the same.
    sed -n 's/^[^ ]* work: end //p' "$log" >"$work/work.$1"
    cmp "$work/work.qemu" "$work/work.$1" >&2 || exit 1
}

work_json() {
    local i name engine
    make_work_initrd "$work/work.cpio"
    for ((i = 0; i < WORK_ROUNDS; i++)); do
        work_run qemu
        work_run translated
        [ $i -gt 0 ] || work_run interpreted # slow, and nobody's aim
    done
    for name in $WORK; do
        for engine in $ENGINES; do
            jq -n --arg work "$name" --arg engine "$engine" --argjson seconds "$(median "$work/work.$name.$engine.times" 1)" \
                '{work: $work, engine: $engine, seconds: $seconds}'
        done
    done | jq -s 'group_by(.work) | map({key: .[0].work, value: (map({key: .engine, value: .seconds}) | from_entries
        | . + {to_qemu: (.translated / .qemu), to_interpreted: (.translated / .interpreted)})}) | from_entries'
}

# A failure in here ends the shell, which is to be one of its own.
translator_json() {
    local loops guest
    set -e -o pipefail
    shopt -s inherit_errexit
    loops=$(loops_json)
    guest=$(work_json)
    jq -n --argjson loops "$loops" --argjson work "$guest" '{loops: $loops, work: $work}'
}

print_translator() { # JSON
    jq -r "$jq_formats"'
        def rate: if .mips >= 100 then .mips | round else .mips | fixed(1) end;
        def title: {"count": "dec/jnz", "alu": "ten mixed ALU operations", "copy": "1 MB copied and summed up",
            "far": "  the same, exactly 1 MB apart", "movs": "REP MOVSQ (MB/s)", "recurse": "recursive calls",
            "indirect": "indirect calls", "mpi": "multi-word arithmetic", "sse": "1 MB copied and searched, SSE", "x87": "x87 arithmetic"}[.] // .;
        def order: {"count": 0, "alu": 1, "copy": 2, "far": 3, "movs": 4, "recurse": 5, "indirect": 6, "mpi": 7, "sse": 8, "x87": 9}[.];
        def head(name): "  " + (name | pad(36)) + ("QEMU TCG" | lpad(10)) + ("translated" | lpad(12)) + ("interpreted" | lpad(12));
        head("a guest'"'"'s loops (MIPS)") + ("of QEMU" | lpad(9)) + (" in CPU time" | lpad(13)) + ("native" | lpad(9)) + ("of it" | lpad(7)),
        (.loops | .movs |= map_values(if type == "object" then .mips *= 8 else . end) | to_entries | sort_by(.key | order) | .[] | "  " + (.key | title | pad(36)) + (.value
            | (.qemu | rate | lpad(10)) + (.translated | rate | lpad(12)) + (.interpreted | rate | lpad(12))
            + (.times_qemu | fixed(2) | lpad(9))
            + (.translated.processor_mips / .qemu.processor_mips | fixed(2) | lpad(13))
            + (.native | rate | lpad(9)) + (.to_native | fixed(2) | lpad(7)))),
        "",
        head("busybox in a guest (seconds)") + ("of QEMU" | lpad(9)),
        (.work | to_entries[] | "  " + (.key | pad(36)) + (.value | (.qemu | fixed(2) | lpad(10)) + (.translated | fixed(2) | lpad(12))
            + (.interpreted | fixed(2) | lpad(12)) + (.to_qemu | fixed(2) | lpad(9)))),
        ""' <<<"$1"
}
