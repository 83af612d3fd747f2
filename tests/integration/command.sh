# SPDX-License-Identifier: MIT
# Runs of a command line, judged by exit status, standard output and standard error; sourced after tap.sh.
# $program is the command's path; its messages begin with its name.
# shellcheck shell=bash disable=SC2034,SC2154

# run COMMAND...: sets $status, $out and $errors; the two streams are in $tmp/out and $tmp/errors.
run() {
    "$@" > "$tmp/out" 2> "$tmp/errors"
    status=$?
    out=$(tr -d '\0' < "$tmp/out")
    errors=$(tr -d '\0' < "$tmp/errors")
}

# refused STATUS SENTENCE ARGUMENT...: it ends with that status, prints nothing, says one line.
refused() {
    local expected=$1 sentence=$2
    shift 2
    run "$program" "$@"
    if [ $status -eq "$expected" ] && [ -z "$out" ] && [ "$(wc -l < "$tmp/errors")" -eq 1 ] &&
        [[ $errors == "$(basename "$program"): "?* ]]; then
        ok "$sentence"
    else
        not_ok "$sentence" "exit status $status instead of $expected: $program $*"
        note "stdout: $out"
        note "stderr: $errors"
    fi
}

# succeeds SENTENCE ARGUMENT...: exit status 0 and nothing on stderr.
succeeds() {
    local sentence=$1
    shift
    run "$program" "$@"
    is "$status:$errors" 0: "$sentence"
}
