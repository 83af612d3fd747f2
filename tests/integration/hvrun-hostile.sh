#!/bin/bash
# SPDX-License-Identifier: MIT
# Guests that would hang, crash or starve a careless host (samples/hostile): --timeout ends each within
# a second of what was asked, one that dies says so, and nothing else ends any of them.
. tests/integration/tap.sh

HVRUN=$BUILD/hvrun
image=$BUILD/samples/hostile.elf
asked=0.1 # seconds
late=1.0  # more than that is too late
[ -x "$HVRUN" ] || skip_all "there is no $HVRUN"
# Sanitizers and other loads on the machine take their time, too.
[ -z "${SAN:-}" ] || late=2.0

# run WORD OPTION...: the guest of that name. $status and $took get how it ended and after how many seconds.
run() {
    local word=$1 begin
    shift
    begin=$(date +%s.%N)
    timeout 60 "$HVRUN" --engine soft --memory 64M --smp 4 --append "$word" "$@" "$image" </dev/null >"$tmp/out" 2>"$tmp/err"
    status=$?
    took=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')
}

in_time() {
    awk -v took="$took" -v most="$asked" -v late=$late 'BEGIN { exit !(took <= most + late) }'
}

# hostile STATUS WORD SENTENCE
hostile() {
    run "$2" --timeout $asked
    if [ "$status" -ne "$1" ]; then
        not_ok "$3" "$2: exit status $status instead of $1"
        note "$(tail -n 5 "$tmp/out" "$tmp/err")"
    elif [ "$(head -c ${#2} "$tmp/out")" != "$2" ]; then
        not_ok "$3" "$2: it did not even start"
    elif ! in_time; then
        not_ok "$3" "$2: took $took s, asked for $asked s"
    else
        ok "$3"
    fi
}

hostile 124 fault-loop "a fault whose handler returns to it"
hostile 124 unreachable-handler "a page fault whose handler is not there: no instruction is ever executed"
hostile 124 step-loop "a single-step trap after each instruction"
hostile 124 breakpoint-loop "a breakpoint at every turn of a loop"
hostile 124 timer-storm "a timer that is always due"
hostile 124 deadline-storm "a TSC deadline that has always passed"
hostile 124 self-storm "interrupts to itself"
hostile 124 level-storm "a level-triggered line that nobody serves"
hostile 124 pit-storm "the PIT at its fastest"
hostile 124 rtc-storm "the RTC at its fastest"
hostile 124 nmi-storm "NMIs to all processors"
hostile 124 repeat "REP over memory, for ever"
hostile 124 repeat-ports "REP over ports, for ever"
hostile 124 repeat-device "REP over devices' registers"
hostile 124 save-state "processor state saved and restored"
hostile 124 rewriting "code that rewrites itself across pages"
hostile 124 decode-all "code that is decoded, dropped and decoded again"
hostile 124 crowded "stores into a page crowded with code"
hostile 124 overrun "a string instruction that overruns itself"
hostile 124 execute-device "a device's registers, executed"
hostile 124 execute-hole "addresses where nothing is, executed"
hostile 124 recursive-tables "page tables that are one page, which holds itself"
hostile 70 tables-outside "page tables outside memory: a triple fault"
hostile 124 flushing "translations made and flushed"
hostile 124 flushing-large "a large page flushed again and again"
hostile 124 spinning "four processors that spin"
hostile 124 pausing "four processors that pause"
hostile 124 halted "four processors that wait for an interrupt that never comes"
hostile 124 starting "processors started, interrupted and reset"
hostile 124 hammering "random writes to devices' registers"
hostile 124 flooding "output without end"

# The same when each instruction is an entry and an exit, or a debugger might come.
for way in "--step 1000000000" "--trace /dev/null" "--gdb unix:$tmp/gdb --gdb-nowait"; do
    bad=''
    for word in fault-loop unreachable-handler step-loop timer-storm self-storm nmi-storm repeat rewriting execute-hole \
        halted starting flooding; do
        # shellcheck disable=SC2086 # several words
        run $word $way --timeout $asked
        { [ "$status" -eq 124 ] && in_time; } || bad="$bad $word (exit status $status after $took s)"
    done
    is "$bad" '' "--timeout ends them with ${way%% *} too"
done

# What a triple fault leaves behind.
run triple
is "$status" 70 "a triple fault's exit code"
check "it is called by its name" grep -q '^hvrun: vCPU 0: triple fault' "$tmp/err"
check "the registers are shown" grep -q '  rax 0000000000007e57 ' "$tmp/err"
check "with the name of the function" grep -q ' rip [0-9a-f]\{16\} .* triple+0x' "$tmp/err"

# Output that nobody reads: a pipe whose reader sleeps.
begin=$(date +%s.%N)
"$HVRUN" --engine soft --memory 64M --append flooding --timeout $asked "$image" </dev/null 2>"$tmp/err" | {
    sleep 2.5
    cat >/dev/null
} &
while [ "$(jobs -r | wc -l)" -gt 0 ] && ! grep -q 'ended by --timeout' "$tmp/err"; do
    sleep 0.05
done
took=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')
check "output without end that nobody reads" in_time
wait
plan_done
