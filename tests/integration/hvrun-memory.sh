#!/bin/bash
# SPDX-License-Identifier: MIT
# What hvrun takes of the memory of the host: what the guest touched of its own, and at most 64 MB more, 128 MB with the
# translator.
. tests/integration/tap.sh

HVRUN=$BUILD/hvrun
memory=512 # MB
[ -x "$HVRUN" ] || skip_all "there is no $HVRUN"
[ -z "${SAN:-}" ] || skip_all "sanitizers take memory of their own"
need_kernel CLOUD

# A boot: the highest mark of the process, and the part of the guest, whose memory is the one mapping of that size.
beside() { # MOST TRANSLATOR
    local most=$1 pid peak guest
    # without an initrd the kernel panics, and stays: the process can be looked at
    "$HVRUN" --engine soft --translator "$2" --timeout 120 --memory ${memory}M --smp 4 \
        --append "console=ttyS0 tsc=reliable no_timer_check panic=0" "$kernel" </dev/null >"$tmp/out" 2>"$tmp/err" &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! grep -aq 'Kernel panic' "$tmp/out"; do
        sleep 0.1
    done
    sleep 0.2
    cp /proc/$pid/status "$tmp/status" 2>/dev/null
    cp /proc/$pid/smaps "$tmp/smaps" 2>/dev/null
    kill -TERM $pid 2>/dev/null
    wait $pid
    check "translator $2: the kernel boots as far as that" grep -aq 'Kernel panic' "$tmp/out"
    # kB
    peak=$(awk '/^VmHWM:/ { print $2 }' "$tmp/status")
    guest=$(awk -v size=$((memory * 1024)) '/^Size:/ { here = $2 == size } /^Rss:/ && here { print $2 }' "$tmp/smaps")
    note "peak ${peak:-?} kB, of which ${guest:-?} kB are the guest's"
    check "the guest has touched some of its memory" [ "${guest:-0}" -gt 10000 ]
    check "beside it there are at most $most MB" [ $((${peak:-999999} - ${guest:-0})) -le $((most * 1024)) ]
}

beside 64 off
beside 128 on # tables for each processor, code
plan_done
