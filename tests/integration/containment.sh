#!/bin/bash
# SPDX-License-Identifier: MIT
# hvrun while a guest runs: what its process can still do, and that it does its work all the same.
# shellcheck disable=SC2317 # functions that are called by name
. tests/integration/tap.sh
. tests/integration/guests.sh

mkdir "$tmp/jail"
chmod 755 "$tmp" "$tmp/jail"
[ -z "${SAN:-}" ] || skip_all "sanitizers need system calls that the filter forbids"

guest spin <<< '1: jmp 1b' # until hvrun is told to end

# A running hvrun with OPTIONS: $pid, once its guest runs.
# shellcheck disable=SC2317 # called by name
start() { # OPTIONS...
    "$BUILD/hvrun" --engine soft --timeout 60 "$@" "$tmp/spin" < /dev/null > "$tmp/out" 2> "$tmp/err" 9< Makefile &
    pid=$!
    for _ in $(seq 200); do
        ! kill -0 $pid 2> /dev/null || ! grep -q '^NoNewPrivs:.*1' "/proc/$pid/status" || return 0
        sleep 0.05
    done
    note "$(cat "$tmp/err")"
    return 1
}
finish() {
    kill -TERM $pid
    wait $pid
    status=$?
}
every_thread() { # FIELD VALUE
    ! grep -h "^$1:" "/proc/$pid/task/"*/status | grep -vqw "$2"
}
settled() { # CONDITION...
    for _ in $(seq 100); do
        "$@" && return 0
        sleep 0.05
    done
    return 1
}

start --stats "$tmp/stats"
check 'system calls of every thread are filtered' settled every_thread Seccomp 2
check 'no thread can gain privileges' every_thread NoNewPrivs 1
check 'an inherited descriptor is closed' test ! -e "/proc/$pid/fd/9"
finish
is "$status" 143 'SIGTERM ends it'
check 'and its counters appear' jq -e '.shutdown == "signal"' "$tmp/stats"

start --stats "$tmp/killed"
clerk=$(grep -ls "^PPid:[[:space:]]*$pid\$" /proc/[0-9]*/status | cut -d / -f 3)
kill -KILL $pid
wait $pid 2> /dev/null
check 'killed, its second process ends too' settled test ! -e "/proc/$clerk"
check 'and no counters appear' test ! -e "$tmp/killed"

start --no-sandbox
check 'without the filter there is none' every_thread Seccomp 0
finish

if start --jail "$tmp/jail" --stats "$tmp/jailed"; then
    is "$(stat -c %i "/proc/$pid/root/")" "$(stat -c %i "$tmp/jail")" 'in the jail its root is the folder'
    check 'and its network is its own' test "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)"
    if [ "$(id -u)" = 0 ]; then
        check 'and root is nobody' every_thread Uid "$(id -u nobody)"
    else
        skip 'and root is nobody' 'the test does not run as root'
    fi
    finish
    check 'its counters appear outside' test -s "$tmp/jailed"
elif grep -q 'namespaces' "$tmp/err"; then
    skip 'a run in a jail' "$(sed -n 's/^hvrun: //p' "$tmp/err")"
else
    not_ok 'a run in a jail' "$(cat "$tmp/err")"
fi

"$BUILD/hvrun" --jail "$tmp/none" "$tmp/spin" < /dev/null > "$tmp/out" 2> "$tmp/err"
is "$?" 74 'a jail that is not there'
plan_done
