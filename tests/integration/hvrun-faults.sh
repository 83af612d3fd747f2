#!/bin/bash
# SPDX-License-Identifier: MIT
# Hosts that fail hvrun: terminals that are taken, resized, hung up; signals at any moment; disks that fill up, interrupted
# and partial reads and writes, no memory, death. The guest ends cleanly, the terminal is as before, and counters are whole
# or not there.
# shellcheck disable=SC2317 # functions that are called by name
. tests/integration/tap.sh
. tests/integration/guests.sh

NO_ENGINE=78 # hvrun(1)
HUP=1 INT=2 QUIT=3 TERM=15 STOP=19 TSTP=20
mkdir "$tmp/jail"
chmod 755 "$tmp" "$tmp/jail"

guest spin << 'ASM'
        mov $text, %esi
        call say
4:      jmp 4b
text:   .asciz "ready\n"
ASM
guest idle << 'ASM'
        mov $text, %esi
        call say
        mov $0xff, %al          # no interrupt ever comes
        out %al, $0x21
        out %al, $0xa1
4:      sti
        hlt
        jmp 4b
text:   .asciz "ready\n"
ASM
# Gives every byte back plus one; q powers off.
guest echo << 'ASM'
        mov $text, %esi
        call say
4:      call get
        cmp $'q', %al
        je 5f
        inc %eax
        call put
        mov $'\n', %al
        call put
        jmp 4b
text:   .asciz "ready\n"
5:      mov $0x604, %edx
        mov $0x3400, %eax
        out %ax, (%dx)
ASM
guest chatty << 'ASM'
4:      mov $text, %esi
        call say
        jmp 4b
text:   .asciz "ready\n"
ASM
guest hello << 'ASM'
        mov $100, %ebx
4:      mov $text, %esi
        call say
        dec %ebx
        jnz 4b
        jmp 5f
text:   .asciz "hello\n"
5:
ASM

# session SENTENCE STEP... -- OPTION... GUEST: hvrun on a terminal (tests/tools/terminal_session.c)
session() {
    local sentence=$1 steps=()
    shift
    while [ "$1" != -- ]; do
        steps+=("$1")
        shift
    done
    shift
    rm -f "$tmp/stats"
    check "$sentence" timeout 60 "$BUILD/tests/tools/terminal_session" "${steps[@]}" -- \
        "$BUILD/hvrun" --timeout 60 --stats "$tmp/stats" "$@"
}
# shutdown_is WORD: in the last run's counters
shutdown_is() {
    is "$(jq -r .shutdown "$tmp/stats")" "$1" "its counters are whole and say \"$1\""
}

# ---- signals, whatever the guest does, on every engine ----
engines=(soft)
"$BUILD/hvrun" --engine kvm --timeout 60 "$tmp/hello" < /dev/null > "$tmp/out" 2> "$tmp/err"
if [ $? -ne $NO_ENGINE ]; then
    engines+=(kvm)
else
    skip 'signals to guests on KVM' "$(sed -n 's/^hvrun: //p' "$tmp/err" | head -n 1)"
fi
for engine in "${engines[@]}"; do
    for kind in spin idle echo; do
        for pair in INT:$INT TERM:$TERM; do
            session "SIG${pair%:*} ends a guest ($engine, $kind), and the terminal is as before" \
                say=ready raw "signal=${pair#*:}" "ended=$((128 + ${pair#*:}))" cooked -- --engine "$engine" "$tmp/$kind"
            shutdown_is signal
        done
    done
    session "stopped, the terminal is the shell's; going on, the guest's again ($engine)" \
        say=ready raw signal=$TSTP stopped cooked give go raw type=A say=B type=q ended=0 cooked -- \
        --engine "$engine" "$tmp/echo"
    shutdown_is power-off
done
set -- --engine soft
if [ -z "${SAN:-}" ]; then
    session 'SIGTERM ends a guest in a jail' say=ready raw signal=$TERM ended=143 cooked -- \
        "$@" --jail "$tmp/jail" "$tmp/spin"
    shutdown_is signal
    session 'which can be stopped' say=ready raw signal=$TSTP stopped cooked give go raw type=q ended=0 cooked -- \
        "$@" --jail "$tmp/jail" "$tmp/echo"
else
    skip 'a guest in a jail' 'sanitizers want what is outside'
fi
for pair in INT:$INT TERM:$TERM HUP:$HUP; do
    session "SIG${pair%:*} ends hvrun while it waits for gdb" say='target remote' raw "signal=${pair#*:}" \
        "ended=$((128 + ${pair#*:}))" cooked -- "$@" --gdb "unix:$tmp/gdb" "$tmp/spin"
    check 'and nothing is left of the socket' test ! -e "$tmp/gdb"
    shutdown_is signal
done
session 'SIGQUIT ends it as ever, and the terminal is as before' say=ready raw signal=$QUIT ended=131 cooked -- \
    "$@" "$tmp/spin"
check 'no counters are there then' test ! -e "$tmp/stats"

# ---- job control, sizes, a terminal that goes away ----
session 'a terminal may change its size' say=ready raw resize running resize type=A say=B raw type=q ended=0 cooked -- \
    "$@" "$tmp/echo"
session 'stopped by SIGSTOP, hvrun takes the terminal when it goes on' \
    say=ready raw signal=$STOP stopped give go raw type=A say=B type=q ended=0 cooked -- "$@" "$tmp/echo"
session 'going on in the background it leaves keys to others, until it is in the foreground' \
    say=ready raw signal=$TSTP stopped cooked go running cooked type=x running give raw type=A say=B type=q ended=0 cooked -- \
    "$@" "$tmp/echo"
session 'stopped again and again' say=ready raw signal=$TSTP stopped cooked give go raw signal=$TSTP stopped cooked \
    give go raw type=q ended=0 cooked -- "$@" "$tmp/echo"
session 'stopped, it can be ended' say=ready raw signal=$TSTP stopped cooked signal=$TERM go ended=143 cooked -- \
    "$@" "$tmp/echo"
shutdown_is signal
session 'begun in the background it takes the terminal once it is in the foreground' \
    -b say=ready running cooked give raw type=A say=B type=q ended=0 cooked -- "$@" "$tmp/echo"
session 'a terminal that hangs up ends the guest' say=ready raw hangup signal=$HUP ended=129 -- "$@" "$tmp/spin"
shutdown_is signal
session 'with nobody to tell it, its next output does' say=ready raw hangup ended=74 -- "$@" "$tmp/chatty"
shutdown_is host-error

# ---- others that go away ----
(trap '' HUP && exec "$BUILD/hvrun" "$@" --timeout 60 --stats "$tmp/stats" --serial "$tmp/console" "$tmp/spin") 2> "$tmp/err" &
pid=$!
settled() { # CONDITION...
    for _ in $(seq 200); do
        "$@" && return 0
        sleep 0.05
    done
    return 1
}
check 'a guest runs under nohup' settled grep -q ready "$tmp/console"
kill -HUP $pid
rm "$tmp/console"
sleep 0.2
check 'SIGHUP does not end it' kill -0 $pid
kill -TERM $pid
wait $pid
is $? 143 'its serial file is gone, and it ends as ever'
shutdown_is signal

rm -f "$tmp/stats"
# shellcheck disable=SC2016 # for the other shell
{
    bash -c '"$@" < /dev/null > "$0" 2>&1 & kill -KILL $$' "$tmp/out" \
        "$BUILD/hvrun" "$@" --timeout 0.5 --stats "$tmp/stats" "$tmp/idle"
} 2> "$tmp/err"
check 'the death of its parent is none of hvrun'\''s concern' settled test -s "$tmp/stats"
shutdown_is timeout

mkfifo "$tmp/pipe"
head -n 3 "$tmp/pipe" > "$tmp/out" &
"$BUILD/hvrun" "$@" --timeout 60 --stats "$tmp/stats" --serial "$tmp/pipe" "$tmp/chatty" < /dev/null 2> "$tmp/err"
is "$?:$(wc -l < "$tmp/err")" 74:1 'a reader of --serial that goes away ends the run'
shutdown_is host-error

# ---- disks, interruptions, memory, death, by injection ----
[ -z "${SAN:-}" ] || {
    skip 'injected failures' 'sanitizers take the place of the allocator'
    plan_done
}
gcc -D_GNU_SOURCE -shared -fPIC -O1 -o "$tmp/preload.so" tests/integration/fault_preload.c -ldl 2> "$tmp/gcc" || {
    skip 'injected failures' "no compiler: $(head -n 1 "$tmp/gcc")"
    plan_done
}

# faulty WHAT=VALUE...: a guest with console and counters in folder $tmp/x, where old counters are; $status,
# $allocations, $calls, $tmp/err
echo '{"engine": "old"}' > "$tmp/old"
faulty() {
    rm -rf "$tmp/x"
    mkdir "$tmp/x"
    cp "$tmp/old" "$tmp/x/stats"
    env "$@" LD_PRELOAD="$tmp/preload.so" "$BUILD/hvrun" --engine soft --deterministic --timeout 60 \
        --serial "$tmp/x/console" --stats "$tmp/x/stats" "$tmp/hello" < /dev/null 8>&1 > "$tmp/out" 2> "$tmp/err" \
        9<> "$tmp/counts" | cat # which waits for the clerk too
    status=${PIPESTATUS[0]}
    read -r allocations calls < "$tmp/counts" || true
}
# The counters are the old ones or whole, and there is no other file.
whole() {
    rm -f "$tmp/x/console"
    [ "$(ls -A "$tmp/x")" = stats ] || return 1
    cmp -s "$tmp/x/stats" "$tmp/old" || jq -e '.engine == "soft" and .wall_seconds >= 0' "$tmp/x/stats" > /dev/null
}
complain() { # N
    note "call $1: exit status $status: $(head -n 3 "$tmp/err"); $(ls -A "$tmp/x")"
    return 1
}

faulty PV_FAIL_ALLOC=0
total=$allocations count=$calls
is "$status:$(sort -u "$tmp/x/console")" 0:hello "a guest runs, with $total allocations and $count writes"
jq 'del(.wall_seconds, .translator.seconds)' "$tmp/x/stats" > "$tmp/good"
faulty PV_SHORT=1
is "$status:$(grep -c hello "$tmp/x/console")" 0:100 'partial and interrupted reads, writes and waiting are gone on with'
check 'and give the same counters' cmp "$tmp/good" <(jq 'del(.wall_seconds, .translator.seconds)' "$tmp/x/stats")

try_writes() { # ERRNO
    local n
    for ((n = 1; n <= count; n += n < 6 || n > count - 10 ? 1 : 20)); do
        faulty PV_FAIL_WRITE="$n" PV_FAIL_ERRNO="$1"
        # or nobody minds: a write that only wakes
        { { [ "$status" -eq 74 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ]; } ||
            { [ "$status" -eq 0 ] && grep -q '"soft"' "$tmp/x/stats"; }; } && whole || complain "$n" || return 1
    done
}
check 'a full disk at any write: one line, exit status 74, counters old or whole' try_writes 28
check 'a broken disk' try_writes 5
try_deaths() {
    local n
    for ((n = 1; n <= count; n += n < 6 || n > count - 10 ? 1 : 20)); do
        faulty PV_KILL_WRITE="$n"
        # hvrun or the clerk; the temporary name of a file that is whole exists between two calls
        rm -f "$tmp/x"/.patchvisor-*
        { [ "$status" -eq 137 ] || [ "$status" -eq 74 ]; } && whole || complain "$n" || return 1
    done
}
check 'killed at any write: counters old or whole' try_deaths
try_allocations() { # VARIABLE
    local n
    for ((n = 1; n <= total; n += total / 60 + 1)); do
        faulty "$1=$n"
        { [ "$status" -eq 0 ] || { [ "$status" -lt 128 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ]; }; } && whole ||
            complain "$n" || return 1
    done
}
check 'no memory from any allocation on: one line, counters old or whole' try_allocations PV_FAIL_ALLOC
check 'no memory for one allocation alone' try_allocations PV_FAIL_ALLOC_ONCE
plan_done
