# SPDX-License-Identifier: MIT
# What the hvrun boot tests of both Debian kernels have in common; sourced after tap.sh and qemu.sh.
#
# Each kernel is booted as Debian ships it (bzImage), unpacked, and patched; with one and two processors; to a
# userspace that reports, works, is typed at, and powers off. What it says must not depend on patching; how often it
# needs the host must.
# shellcheck shell=bash disable=SC2154,SC2016

HVRUN_TIMEOUT=${HVRUN_TIMEOUT:-${SAN:+600}} # seconds for one boot; machines are shared
HVRUN_TIMEOUT=${HVRUN_TIMEOUT:-240}
EXITS_LEFT=5 # percent of the unpatched kernel's exits that a patched one may take, neither with IO blocks

# start NAME IMAGE WORDS [OPTION...]: hvrun with $tmp/initrd.cpio; console to $tmp/NAME.log, counters to
# $tmp/NAME.stats, messages to $tmp/NAME.err. Input is what this is given.
start() {
    local name=$1 image=$2 words=$3
    shift 3
    "$BUILD/hvrun" --engine soft --timeout "$HVRUN_TIMEOUT" --memory 512M --initrd "$tmp/initrd.cpio" --append "$words" \
        --stats "$tmp/$name.stats" "$@" "$image" >"$tmp/$name.log" 2>"$tmp/$name.err"
}

# boots NAME WHAT IMAGE WORDS [OPTION...]: it reaches userspace and powers off with exit code 0.
boots() {
    local name=$1 what=$2
    shift 2
    start "$name" "$@" </dev/null
    ended $? "$name" "$what"
}

ended() { # STATUS NAME WHAT
    local log=$tmp/$2.log
    tr -d '\r' <"$log" >"$log.tmp" && mv "$log.tmp" "$log"
    if [ "$1" -eq 0 ] && [ "$(stat "$2" .shutdown)" = power-off ] &&
        grep -aq '^patchvisor: userspace reached' "$log"; then
        ok "$3 boots to userspace and powers off ($(stat "$2" '.wall_seconds * 10 | round / 10') s)"
    else
        not_ok "$3 boots to userspace and powers off" "exit status $1"
        last_words "$2"
        return 1
    fi
}

# last_words NAME: what a run that failed has said, to be read where its files are gone.
last_words() {
    note "hvrun: $(tail -n 60 "$tmp/$1.err")"
    [ ! -s "$tmp/$1.stats" ] || note "counters: $(jq -c . "$tmp/$1.stats")"
    note "the console's end: $(tail -n 100 "$tmp/$1.log" | tr -d '\r')"
}

stat() { # NAME FILTER
    jq -r "$2" "$tmp/$1.stats"
}

# same_report NAME OTHER SENTENCE: userspace saw the same.
same_report() {
    local differences
    if grep -aq "^patchvisor: slept" "$tmp/$1.log" &&
        differences=$(diff <(boot_report "$tmp/$1.log") <(boot_report "$tmp/$2.log")); then
        ok "$3"
    else
        not_ok "$3" "${differences:-there is no report}"
    fi
}

# same_console NAME OTHER SENTENCE
same_console() {
    local differences
    if [ "$(console "$tmp/$1.log" | wc -l)" -gt 50 ] &&
        differences=$(diff <(console "$tmp/$1.log") <(console "$tmp/$2.log")); then
        ok "$3"
    else
        not_ok "$3" "${differences:-too few lines}"
    fi
}

# no_complaints NAME SENTENCE: the kernel printed no warning.
no_complaints() {
    local complaints
    complaints=$(grep -aE 'WARNING|BUG|Oops|Call Trace|unchecked MSR|general protection|segfault' "$tmp/$1.log")
    is "$complaints" '' "$2"
}

# works_like_the_host NAME SENTENCE: busybox gave what it gives here.
works_like_the_host() {
    is "$(sed -n 's/^patchvisor: load: //p' "$tmp/$1.log")" "$host_load" "$2"
}

# few_exits UNPATCHED PATCHED SENTENCE
few_exits() {
    local before after
    before=$(stat "$1" .exits.total) after=$(stat "$2" .exits.total)
    if [ "$after" -gt 0 ] && [ $((after * 100)) -le $((before * EXITS_LEFT)) ]; then
        ok "$3 ($after of $before exits)"
    else
        not_ok "$3" "$after of $before exits are left: $(stat "$2" '.exits | tojson')"
    fi
}

# ---- a session at the shell ----

# wait_for NAME TEXT SECONDS: until the console has shown it; false after the timeout or when hvrun has ended.
wait_for() {
    local tries=0
    until grep -saqF -- "$2" "$tmp/$1.log"; do
        [ $((tries += 1)) -le $(($3 * 10)) ] && kill -0 "$session" 2>/dev/null || return 1
        sleep 0.1
    done
}

# types NAME SENTENCE INPUT ANSWER: the answer is not in what is typed, which the terminal shows too.
types() {
    printf '%b' "$3" >&3
    if wait_for "$1" "$4" 60; then
        ok "$2"
    else
        not_ok "$2"
        last_words "$1"
    fi
}

# session NAME WHAT IMAGE WORDS [OPTION...]: boots, and works at the shell through --serial stdio.
session() {
    local name=$1 what=$2
    shift 2
    rm -f "$tmp/keys"
    mkfifo "$tmp/keys"
    start "$name" "$1" "$2 patchvisor.shell" --serial stdio "${@:3}" <"$tmp/keys" &
    session=$!
    exec 3>"$tmp/keys"
    if wait_for "$name" '/ # ' "$HVRUN_TIMEOUT"; then
        types "$name" "$what: what is typed reaches the shell, and its answer comes back" \
            'echo $((6 * 7))-answer\n' 42-answer
        types "$name" "$what: a paste longer than every buffer arrives whole" \
            "wc -lc >/count\n$(printf 'line %04d of a paste\\n' {1..300})\004cat /count\n" '300      6300'
        types "$name" "$what: a command runs" "sh -c 'echo asleep-\$((6 * 8)); sleep 1000'\n" asleep-48
        types "$name" "$what: Ctrl-C interrupts it, not hvrun" '\003echo status=$?\n' status=130
        printf 'exit\n' >&3
    else
        not_ok "$what: there is a shell"
        last_words "$name"
        kill "$session"
    fi
    exec 3>&-
    wait "$session"
    ended $? "$name" "$what"
}

# ---- everything ----

hvrun_boots() { # BZIMAGE
    [ -x "$BUILD/hvrun" ] || skip_all "there is no $BUILD/hvrun"
    make_initrd "$tmp/initrd.cpio" || skip_all "no initrd: busybox-static and cpio are needed"
    host_load=$("$BUSYBOX" sh "$tmp/initrd/load" "$BUSYBOX" "$tmp/work")
    check "the kernel is patched" "$BUILD/patchc" build -o "$tmp/patched" --report "$tmp/report" "$1"
    check "and unpacked" "$BUILD/patchc" restore "$tmp/patched" -o "$tmp/unpacked"

    boots bzimage "the bzImage" "$1" patchvisor.load
    boots patched "the patched kernel" "$tmp/patched" patchvisor.load
    no_complaints patched "the patched kernel has nothing to complain about"
    same_report bzimage patched "its userspace sees what that of the unpatched kernel sees"
    works_like_the_host bzimage "busybox works as on the host: sorting, packing, hashing, floating point, processes"
    works_like_the_host patched "in the patched guest too"
    valid_counters patched

    boots quick "the unpacked kernel, only to userspace," "$tmp/unpacked" patchvisor.quick --io-blocks off
    boots quick-patched "the patched kernel, only to userspace," "$tmp/patched" patchvisor.quick --io-blocks off
    same_console quick quick-patched "their consoles are the same but for time stamps"
    few_exits quick quick-patched "of the exits to userspace at most $EXITS_LEFT % are left by patching"

    session smp2 "the bzImage with two processors" "$1" patchvisor.load --smp 2
    session smp2-patched "the patched kernel with two processors" "$tmp/patched" patchvisor.load --smp 2
    is "$(sed -n 's/^patchvisor: processors //p' "$tmp/smp2-patched.log")" 2 "userspace sees both"
    same_report smp2 smp2-patched "and the same as with the unpatched kernel"
    works_like_the_host smp2-patched "busybox works as on the host with two processors"
    boots smp4-patched "the patched kernel with four processors" "$tmp/patched" patchvisor.quick --smp 4
    check "and Linux has brought all of them up" grep -aq 'Brought up 1 node, 4 CPUs' "$tmp/smp4-patched.log"
}

valid_counters() { # NAME
    local sentence="the counters are what their JSON Schema says"
    if [ -x "$BUILD/tests/tools/schema_check" ]; then
        check "$sentence" "$BUILD/tests/tools/schema_check" docs/stats.schema.json "$tmp/$1.stats"
    else
        skip "$sentence" "schema_check is not built"
    fi
}
