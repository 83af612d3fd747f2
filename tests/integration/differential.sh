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

run() { # WHAT CASES
    local output status
    output=$("$BUILD"/tests/tools/differential --cases "$2" --only "$1" ${seed:+--seed "$seed"} 2>&1)
    status=$?
    case $status in
    0) ok "$1: $2 cases end on the software processor as on the host's" ;;
    2) skip "$1: the software processor against the host's" "$(tail -n 1 <<<"$output")" ;;
    *) not_ok "$1: $2 cases end on the software processor as on the host's" ;;
    esac
    note "${output//# /}"
}

run integer,string,sse,x87,vex $((cases * 6 / 10))
run integer,string $((cases * 2 / 10))
run sse,vex $((cases / 10))
run x87 $((cases / 10))
plan_done
