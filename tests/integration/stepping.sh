#!/bin/bash
# SPDX-License-Identifier: MIT
# Single-stepping as people use it: --step, --trace, the library; and its proofs: a boot that is stepped is the boot that
# runs, a step is the host processor's step. PV_STEPS and PV_BOOT_STEPS say how many.
# shellcheck source=tests/integration/tap.sh disable=SC2086,SC2016
. tests/integration/tap.sh

hvrun=$BUILD/hvrun
interrupts=$BUILD/samples/interrupts.elf
user=$BUILD/samples/user_mode.elf

# ---- --step ----
"$hvrun" --engine soft --deterministic --step 1000 "$interrupts" >"$tmp/out" 2>"$tmp/step" </dev/null
check "--step ends with exit code 0" test $? -eq 0
check "--step says how many steps and where it stopped" \
    grep -Eq '^hvrun: vCPU 0 stopped at RIP 0x[0-9a-f]+ \([a-z_0-9+]+\)$' "$tmp/step"
check "--step counts" grep -q '^hvrun: 1000 steps, ' "$tmp/step"
"$hvrun" --engine soft --deterministic --step 1000 "$interrupts" >"$tmp/out" 2>"$tmp/again" </dev/null
check "--step is repeatable" cmp -s "$tmp/step" "$tmp/again"
"$hvrun" --engine soft --deterministic "$interrupts" >"$tmp/ran" 2>/dev/null </dev/null
"$hvrun" --engine soft --deterministic --step 100000000 --stats "$tmp/stats" "$interrupts" >"$tmp/stepped" 2>/dev/null </dev/null
check "a guest that is stepped to its end prints what it prints when it runs" cmp -s "$tmp/ran" "$tmp/stepped"
check "the stats count the steps" test "$(jq .steps "$tmp/stats")" -gt 1000
for bad in 0 -1 x 1e3 ''; do
    "$hvrun" --engine soft --step "$bad" "$interrupts" >/dev/null 2>"$tmp/err" </dev/null
    check "--step '$bad' is refused" test $? -eq 2
done

# ---- --trace ----
"$hvrun" --engine soft --deterministic --trace "$tmp/trace" --trace-count 500 "$user" >"$tmp/out" 2>&1 </dev/null
check "--trace-count: the guest runs on to its end" test $? -eq 1
check "--trace writes a line for each instruction" test "$(wc -l <"$tmp/trace")" -eq 500
check "a line has six columns" test "$(awk -F'\t' 'NF != 6' "$tmp/trace" | wc -l)" -eq 0
check "the first line is the guest's first instruction" grep -Eqm1 $'^0x[0-9a-f]+\t_start\t' "$tmp/trace"
"$hvrun" --engine soft --deterministic --trace "$tmp/trace" "$interrupts" >"$tmp/traced" 2>/dev/null </dev/null
check "a traced guest prints what it prints untraced" cmp -s "$tmp/ran" "$tmp/traced"
check "events are in the trace" grep -Eq $'\tinterrupt=[0-9a-f]+$' "$tmp/trace"
"$hvrun" --engine soft --deterministic --trace "$tmp/fpu" "$BUILD/samples/fpu_switch.elf" >/dev/null 2>&1 </dev/null
for change in 'wrmsr efer=901' 'lgdt .* gdtr_base=[0-9a-f]+ gdtr_limit=' 'ltr ax tr=[0-9a-f]+' 'mov cr3, .* cr3=' \
    'ldmxcsr .* mxcsr=' 'fld1 fsw=3000 ftw=[0-9a-f]+ st0=3fff8000000000000000' 'fxrstor64 .* xmm0=[0-9a-f]{17,}'; do
    check "a line has what the instruction changed: $change" grep -Eqm1 "^${change}" <(cut -f 4,5 --output-delimiter=' ' "$tmp/fpu")
done
gzip -kf "$tmp/trace"
check "a trace compresses ten times at least" \
    test "$(($(stat -c %s "$tmp/trace.gz") * 10))" -lt "$(stat -c %s "$tmp/trace")"
"$hvrun" --engine soft --deterministic --trace "$tmp/part" --trace-start main --trace-count 3 "$interrupts" \
    >/dev/null 2>&1 </dev/null
check "--trace-start SYMBOL" grep -Eqm1 $'^0x[0-9a-f]+\tmain\t' "$tmp/part"
at=$(head -n 1 "$tmp/part" | cut -f1)
"$hvrun" --engine soft --deterministic --trace "$tmp/before" --trace-stop "$at" "$interrupts" >/dev/null 2>&1 </dev/null
check "--trace-stop ADDRESS: what comes before is what was traced of the whole" \
    cmp -s "$tmp/before" <(head -n "$(wc -l <"$tmp/before")" "$tmp/trace")
check "--trace-stop ends before its address" test -z "$(cut -f1 "$tmp/before" | grep -x "$at")"
"$hvrun" --engine soft --deterministic --trace "$tmp/counted" --trace-start 100 --trace-count 1 "$interrupts" \
    >/dev/null 2>&1 </dev/null
check "--trace-start COUNT" cmp -s "$tmp/counted" <(sed -n 101p "$tmp/trace")
"$hvrun" --engine soft --trace "$tmp/none" --trace-start no_such_symbol "$interrupts" >/dev/null 2>"$tmp/err" </dev/null
check "a symbol that is not there is refused" test $? -eq 2
check "and no trace is left" test ! -e "$tmp/none"
for bad in 99999999999999999999 9223372036854775808 0x 0x10000000000000000 main+ main+-5 main+0x10000000000000000 +5; do
    timeout -k 1 20 "$hvrun" --engine soft --trace "$tmp/none" --trace-start "$bad" "$interrupts" >/dev/null 2>"$tmp/err" </dev/null
    check "--trace-start '$bad' is refused" test $? -eq 2
done
timeout -k 1 60 "$hvrun" --engine soft --deterministic --trace "$tmp/far" --trace-start 9223372036854775807 "$interrupts" \
    >"$tmp/out" 2>/dev/null </dev/null
check "a trace that never begins leaves the guest alone" cmp -s "$tmp/ran" "$tmp/out"
"$hvrun" --engine soft --trace /dev/full "$interrupts" >/dev/null 2>"$tmp/err" </dev/null
check "a trace that cannot be written ends the run" test $? -eq 74
check "with one line that names it" grep -q '^hvrun: /dev/full: cannot write it: No space left' "$tmp/err"
"$hvrun" --engine soft --trace "$tmp/nowhere/x" "$interrupts" >/dev/null 2>"$tmp/err" </dev/null
check "a trace in a folder that is not there" test $? -eq 74
check "nothing is left behind" test -z "$(find "$tmp" -name 'trace.*' ! -name '*.gz' -o -name 'none*')"

# ---- a patched guest: routines and IO blocks are stepped through as the instructions they are ----
patched=$tmp/patched
"$BUILD/patchc" build -o "$patched" --report "$tmp/report" "$BUILD/samples/io-burst.elf" >/dev/null 2>&1
# way OPTION: it runs and is stepped; counters in $tmp/ran.json and $tmp/stepped.json
way() {
    "$hvrun" --engine soft --deterministic $1 --stats "$tmp/ran.json" "$patched" >"$tmp/ran" 2>/dev/null </dev/null
    "$hvrun" --engine soft --deterministic $1 --step 100000000 --stats "$tmp/stepped.json" "$patched" \
        >"$tmp/stepped" 2>/dev/null </dev/null
    check "a patched guest that is stepped prints what it prints when it runs${1:+ ($1)}" cmp -s "$tmp/ran" "$tmp/stepped"
}
way --link-all
check "its routines ring as many doorbells" \
    test "$(jq -c .dispatch "$tmp/ran.json")" = "$(jq -c '.dispatch | select(.host_calls > 1000)' "$tmp/stepped.json")"
way ''
check "its IO instructions, which share exits when it runs," \
    jq -e '.io.block_hits > 10 and .io.events * 10 < .io.instructions' "$tmp/ran.json"
check "are steps of their own" jq -e '.io.block_hits == 0 and .io.events >= .io.instructions' "$tmp/stepped.json"
"$hvrun" --engine soft --deterministic --link-all --trace "$tmp/trace" "$patched" >"$tmp/traced" 2>/dev/null </dev/null
check "a trace leads from each patched site that is reached to its routine" awk -F '\t' '
    NR == FNR { routine[$1] = $2; next }
    site { $1 == routine[site] ? right++ : wrong++ }
    { site = $1 in routine ? $1 : "" }
    END { exit !(right > 100 && !wrong) }' \
    <(jq -r '.sites[] | select(.status == "patched" and .window.address == .address) | "\(.address)\t\(.routine)"' \
        "$tmp/report") "$tmp/trace"

# ---- the library ----
# shellcheck disable=SC2046
if command -v pkg-config >/dev/null; then
    # with the PREFIX it is built for: for another it would be built anew, under the other tests' feet
    make -s BUILD="${BUILD%/san}" SAN="${SAN:-}" DESTDIR="$tmp/root" install >"$tmp/install" 2>&1
    check "make install puts library, headers and hvrun.pc in place" test $? -eq 0
    installed=$tmp/root/usr/local
    export PKG_CONFIG_PATH=$installed/lib/pkgconfig
    cp "$installed/share/doc/patchvisor/examples/step_guest.c" "$tmp/"
    (cd "$tmp" && gcc ${SAN:+-fsanitize=address,undefined} -Wall -Wextra step_guest.c \
        $(pkg-config --define-variable=prefix="$installed" --cflags --libs hvrun) -o step_guest) >"$tmp/cc" 2>&1
    check "the example compiles against what is installed" test $? -eq 0
    "$tmp/step_guest" >"$tmp/example"
    check "and steps its guest" grep -qx '7c0a: the guest says 120' "$tmp/example"
    check "through its exception" grep -q '^7c0c: .*exception 0$' "$tmp/example"
else
    skip "the library, installed" "no pkg-config"
fi

# ---- the proofs ----
steps=${PV_STEPS:-100000}
status=2
echo "random addresses find the sanitizers' own memory in the host's process" >"$tmp/host"
if [ -z "${SAN:-}" ]; then
    "$BUILD"/tests/tools/step_host "$steps" >"$tmp/host" 2>&1
    status=$?
fi
case $status in
0) ok "$steps steps of random user-mode code are the host processor's (S1, S2, S17)" ;;
2) skip "steps compared with the host processor's" "$(tail -n 1 "$tmp/host")" ;;
*) not_ok "$steps steps of random user-mode code are the host processor's (S1, S2, S17)" ;;
esac
note "$(head -n 3 "$tmp/host")"
count=${PV_BOOT_STEPS:-50000000}
[ -z "${SAN:-}" ] || count=${PV_BOOT_STEPS:-1000000}
if [ -n "${PV_KERNEL_CLOUD:-}" ]; then
    "$BUILD"/tests/tools/step_boot "$count" 1 "$PV_KERNEL_CLOUD" 5 >"$tmp/boot" 2>&1
    check "stepping Debian's boot for $count instructions ends where running it does, five times compared" \
        test $? -eq 0
    check "and the console has printed the same" \
        test "$(grep -c ' [1-9][0-9]* bytes printed$' "$tmp/boot")" -gt 0
    note "$(tail -n 1 "$tmp/boot")"
else
    skip "stepping Debian's boot is running it" "PV_KERNEL_CLOUD is not set"
fi
plan_done
