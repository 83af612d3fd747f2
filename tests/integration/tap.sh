# SPDX-License-Identifier: MIT
# TAP for integration tests: source this file, report with its functions, end with plan_done.
#
#   . tests/integration/tap.sh
#   check "D6: the list decides what is patched" build/patchc build -l x.list image
#   plan_done
#
# $tmp is a scratch folder that goes away with the test. Tests run from the top of the tree.
# shellcheck shell=bash disable=SC2034

set -u
BUILD=${BUILD:-build}
tap_count=0
tap_failed=0
tmp=$(mktemp -d "${TMPDIR:-/tmp}/patchvisor.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the scratch folder.
tmp() {
    printf '%s\n' "$tmp"
}

# note TEXT...: a diagnostic, every line of it as a TAP comment.
note() {
    printf '%s\n' "$*" | sed 's/^/# /'
}

# ok SENTENCE
ok() {
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s\n' "$tap_count" "$1"
}

# not_ok SENTENCE [DIAGNOSTIC]
not_ok() {
    tap_count=$((tap_count + 1))
    tap_failed=$((tap_failed + 1))
    printf 'not ok %d - %s\n' "$tap_count" "$1"
    [ $# -lt 2 ] || note "$2"
}

# skip SENTENCE REASON
skip() {
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s # SKIP %s\n' "$tap_count" "$1" "$2"
}

# check SENTENCE COMMAND...: ok if the command succeeds; otherwise its output is shown.
check() {
    local sentence=$1 output status
    shift
    output=$("$@" 2>&1)
    status=$?
    if [ $status -eq 0 ]; then
        ok "$sentence"
    else
        not_ok "$sentence" "exit status $status: $*"
        [ -z "$output" ] || note "$output"
    fi
    return $status
}

# check_status STATUS SENTENCE COMMAND...: ok if the command ends with exactly that exit status.
check_status() {
    local expected=$1 sentence=$2 output status
    shift 2
    output=$("$@" 2>&1)
    status=$?
    if [ $status -eq "$expected" ]; then
        ok "$sentence"
        return 0
    fi
    not_ok "$sentence" "exit status $status instead of $expected: $*"
    [ -z "$output" ] || note "$output"
    return 1
}

# is ACTUAL EXPECTED SENTENCE
is() {
    if [ "$1" = "$2" ]; then
        ok "$3"
        return 0
    fi
    not_ok "$3" "got:      $1"
    note "expected: $2"
    return 1
}

# skip_all REASON: the whole test cannot run here; ends it.
skip_all() {
    printf '1..0 # SKIP %s\n' "$1"
    exit 0
}

# need_kernel CLOUD|GENERIC: sets $kernel to Debian's bzImage, or skips the whole test.
need_kernel() {
    local variable=PV_KERNEL_$1
    kernel=${!variable:-}
    [ -n "$kernel" ] || skip_all "${PV_KERNEL_MISSING:-$variable is not set}"
    [ -r "$kernel" ] || skip_all "$variable=$kernel is not readable"
}

# plan_done: prints the plan and ends the test.
plan_done() {
    printf '1..%d\n' "$tap_count"
    [ "$tap_failed" -eq 0 ]
    exit
}
