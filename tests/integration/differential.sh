#!/bin/bash
# SPDX-License-Identifier: MIT
# The software processor against the host's: random user-mode code, everything compared. PV_DIFFERENTIAL_CASES says how
# many cases (millions take minutes), PV_DIFFERENTIAL_SEED from which seed ("random" for another one each time).
# shellcheck source=tests/integration/tap.sh
. tests/integration/tap.sh

[ -z "${SAN:-}" ] || skip_all "random addresses find the sanitizers' own memory in the host's process"
cases=${PV_DIFFERENTIAL_CASES:-100000}
seed=${PV_DIFFERENTIAL_SEED:-0x5eed}
[ "$seed" != random ] || seed=

run() { # WHAT CASES [--translated]
    local output status sentence="$1: $2 cases${3:+, translated,} end on the software processor as on the host's"
    output=$("$BUILD"/tests/tools/differential --cases "$2" --only "$1" ${seed:+--seed "$seed"} ${3:+"$3"} 2>&1)
    status=$?
    case $status in
    0) ok "$sentence" ;;
    2) skip "$sentence" "$(tail -n 1 <<<"$output")" ;;
    *) not_ok "$sentence" ;;
    esac
    note "${output//# /}"
}

run integer,string,sse,x87,vex $((cases * 6 / 10))
run integer,string $((cases * 2 / 10))
run sse,vex $((cases / 10))
run x87 $((cases / 10))
run integer,string,sse,x87,vex $((cases / 4)) --translated
plan_done
