#!/bin/bash
# SPDX-License-Identifier: MIT
# Hosts that fail: no memory at any allocation of patchc, disks that fill up or break, interrupted and partial reads and
# writes, death at any moment. The output is the old one, the new one or absent; never a part.
# shellcheck disable=SC2317 # functions that are called by name
. tests/integration/tap.sh

[ -z "${SAN:-}" ] || skip_all "sanitizers take the place of the allocator"
gcc -D_GNU_SOURCE -shared -fPIC -O1 -o "$tmp/preload.so" tests/integration/fault_preload.c -ldl 2> "$tmp/gcc" ||
    skip_all "no compiler: $(head -n 1 "$tmp/gcc")"

input=$BUILD/samples/cpuid_msr.elf
"$BUILD/patchc" build -o "$tmp/good" "$input" > "$tmp/log" 2>&1
cp "$tmp/good" "$tmp/good.json.old"
before=$(sha256sum < "$input")

# faulty WHAT=VALUE... -- COMMAND: $status, $allocations, $calls, $tmp/err
faulty() {
    local settings=()
    while [ "$1" != -- ]; do
        settings+=("$1")
        shift
    done
    shift
    env "${settings[@]}" LD_PRELOAD="$tmp/preload.so" "$@" > "$tmp/out" 2> "$tmp/err" 9<> "$tmp/counts"
    status=$?
    read -r allocations calls < "$tmp/counts" || true
}

# What is in folder $tmp/x: nothing, the old output, or the new one, with its report; and no other file.
whole() {
    local file
    for file in "$tmp/x"/* "$tmp/x"/.[!.]*; do
        [ -e "$file" ] || continue
        case $file in
        */out) cmp -s "$file" "$tmp/good" || cmp -s "$file" "$tmp/old" || return 1 ;;
        */out.json) cmp -s "$file" "$tmp/good.json" || cmp -s "$file" "$tmp/old" || return 1 ;;
        *) return 1 ;;
        esac
    done
}

echo 'what was there before' > "$tmp/old"
fresh() { # OLD: with files that are there already
    rm -rf "$tmp/x"
    mkdir "$tmp/x"
    [ "$1" = new ] || cp "$tmp/old" "$tmp/x/out"
}
# The report names its image: both are made under the names that are compared.
fresh new
"$BUILD/patchc" build -o "$tmp/x/out" "$input" > "$tmp/log" 2>&1
cp "$tmp/x/out" "$tmp/good"
cp "$tmp/x/out.json" "$tmp/good.json"

# ---- memory ----
fresh new
faulty PV_FAIL_ALLOC=0 -- "$BUILD/patchc" build -o "$tmp/x/out" "$input"
total=$allocations
cp "$tmp/out" "$tmp/out.good"
is "$status" 0 "patchc build makes $total allocations"
# every allocation, on its own and with all that follow it
try_allocations() { # VARIABLE COMMAND...
    local variable=$1 n bad=
    shift
    for ((n = 1; n <= total; n += step)); do
        fresh $((n % 2 ? 0 : 1))
        faulty "$variable=$n" -- "$@"
        if [ "$status" -gt 4 ] || ! whole || { [ "$status" -ne 0 ] && [ ! -s "$tmp/err" ]; } ||
            { [ "$status" -eq 0 ] && ! cmp -s "$tmp/out" "$tmp/out.good"; }; then
            bad="allocation $n: exit status $status: $(head -n 3 "$tmp/err"); $(ls -A "$tmp/x")"
            break
        fi
    done
    [ -z "$bad" ] || note "$bad"
    [ -z "$bad" ]
}
step=$((total / 400 + 1))
check "no memory from any allocation on (each ${step}th tried): a message, no part of an output" \
    try_allocations PV_FAIL_ALLOC "$BUILD/patchc" build -o "$tmp/x/out" "$input"
check "no memory for one allocation alone: a message or the whole output" \
    try_allocations PV_FAIL_ALLOC_ONCE "$BUILD/patchc" build -o "$tmp/x/out" "$input"
for command in scan inspect page verify restore; do
    case $command in
    scan) set -- scan --json "$input" ;;
    inspect) set -- inspect --json "$tmp/good" ;;
    page) set -- inspect --html "$tmp/x/out" "$tmp/good" ;;
    verify) set -- verify "$input" "$tmp/good" ;;
    restore) set -- restore "$tmp/good" -o "$tmp/x/out" ;;
    esac
    faulty PV_FAIL_ALLOC=0 -- "$BUILD/patchc" "$@"
    total=$allocations step=$((allocations / 150 + 1))
    cp "$tmp/out" "$tmp/out.good"
    case $command in
    restore) "$BUILD/patchc" restore "$tmp/good" -o "$tmp/old" > "$tmp/log" 2>&1 ;;
    page) "$BUILD/patchc" inspect --html "$tmp/old" "$tmp/good" > "$tmp/log" 2>&1 ;;
    esac
    check "patchc $command without memory, from each ${step}th of $total allocations on" \
        try_allocations PV_FAIL_ALLOC "$BUILD/patchc" "$@"
    check "patchc $command without memory for one of them alone" \
        try_allocations PV_FAIL_ALLOC_ONCE "$BUILD/patchc" "$@"
    echo 'what was there before' > "$tmp/old"
done

# ---- disks ----
fresh new
faulty -- "$BUILD/patchc" build -o "$tmp/x/out" "$input"
writes=$calls
try_writes() { # ERRNO
    local n
    for ((n = 1; n <= writes; n++)); do
        fresh $((n % 2))
        faulty PV_FAIL_WRITE="$n" PV_FAIL_ERRNO="$1" -- "$BUILD/patchc" build -o "$tmp/x/out" "$input"
        if ! whole || { [ "$status" -ne 4 ] && [ "$status" -ne 0 ]; } || { [ "$status" -eq 4 ] && [ ! -s "$tmp/err" ]; }; then
            note "call $n: exit status $status: $(cat "$tmp/err"); $(ls -A "$tmp/x")"
            return 1
        fi
    done
}
check "a full disk at each of $writes writes, syncs, links and renames" try_writes 28
check 'a broken disk at each of them' try_writes 5
check 'an interrupted call at each of them' try_writes 4
fresh old
faulty PV_SHORT=1 -- "$BUILD/patchc" build -o "$tmp/x/out" "$input"
is "$status" 0 'partial and interrupted reads and writes are gone on with'
check 'and give the same output' cmp "$tmp/x/out" "$tmp/good"

# ---- death ----
try_deaths() {
    local n
    for ((n = 1; n <= writes; n++)); do
        fresh $((n % 2))
        faulty PV_KILL_WRITE="$n" -- "$BUILD/patchc" build -o "$tmp/x/out" "$input"
        # the temporary name of a file that is whole exists between two calls
        rm -f "$tmp/x"/.patchvisor-*
        if [ "$status" -ne 137 ] || ! whole; then
            note "call $n: exit status $status: $(cat "$tmp/err"); $(ls -A "$tmp/x")"
            return 1
        fi
    done
}
check "killed at each of them" try_deaths
try_moments() {
    local n pid
    for n in $(seq 40); do
        fresh $((n % 2))
        "$BUILD/patchc" build -o "$tmp/x/out" "$input" > /dev/null 2>&1 &
        pid=$!
        sleep "0.00$((n % 10))$((n % 7))"
        kill -KILL "$pid" 2> /dev/null
        wait "$pid" 2> /dev/null
        rm -f "$tmp/x"/.patchvisor-*
        whole || return 1
    done
}
check 'killed at 40 moments' try_moments
is "$(sha256sum < "$input")" "$before" 'the input is as it was'
plan_done
