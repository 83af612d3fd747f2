#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # backquotes are Markdown's
# What the documents say of the tree is so: who includes whom (docs/architecture.md), that each requirement's code and tests
# are there (docs/requirements.md), and every file that a page names.
. tests/integration/tap.sh

find image ioblock patchc hvstub runtime templates lists tests docs man samples examples completion debian .ci -type f \
    > "$tmp/files"
ls -- *.md Makefile VERSION LICENSE >> "$tmp/files"

# ---- arrows ----
# Each folder and those that its sources may include; hvstub/, the ABI, is everybody's.
stranger() { # FOLDER KNOWN...
    local folder=$1 known
    shift
    known=$(printf '%s|' "$folder" "$@")
    grep -rhoE '^# *include "[a-z]+/' "$folder" --include='*.[chS]' | sed 's/.*"//; s|/$||' |
        grep -vxE "${known%|}" | sort -u
}
is "$(stranger hvstub)" '' 'hvstub/ includes nobody'
is "$(stranger image hvstub)" '' 'image/ includes the ABI alone'
is "$(stranger ioblock hvstub image)" '' 'ioblock/ includes image/ and the ABI'
is "$(stranger patchc hvstub image ioblock)" '' 'patchc/ does not know the runtime'
is "$(stranger runtime hvstub image ioblock)" '' 'runtime/ does not know patchc'
is "$(stranger templates hvstub)" '' 'templates know the ABI and each other'
check 'what is not allowed is found' test "$(stranger patchc image)" = $'hvstub\nioblock'

# ---- requirements ----
grep -E '^\| [A-Z][0-9]' docs/requirements.md > "$tmp/rows"
check 'there are requirements' test "$(wc -l < "$tmp/rows")" -gt 30
is "$(awk -F' *[|] *' 'NF != 6 || $4 == "" || $5 == ""' "$tmp/rows")" '' 'each has code and tests'

grep -E '\.(c|h|S|inc|sh)$' "$tmp/files" | grep -v "/${0##*/}\$" | xargs -d '\n' grep -ohE '[A-Za-z_][A-Za-z0-9_]{2,}' |
    sort -u > "$tmp/words"
# is_there CITATION: a file by its name or the end of its path, a target, or a name in the sources; with * for the rest.
is_there() {
    local pattern
    pattern=$(sed 's/[.]/\\./g; s/\*/.*/g; s/^…/.*/' <<< "$1")
    case $1 in
    */) grep -qE "(^|/)$pattern" "$tmp/files" ;;
    *.[a-z]* | */*) grep -qE "(^|/)$pattern\$" "$tmp/files" ;;
    fuzz_*) grep -qE "/$pattern\.c\$" "$tmp/files" ;;
    *) grep -qxE "$pattern" "$tmp/words" ;;
    esac
}
check 'what is there is found' is_there 'test_D5_*'
check_status 1 'and what is not is not' is_there 'test_D5_nothing_of_the_kind'
check_status 1 'nor a file' is_there 'patchc/nothing*.c'
is "$(cut -d'|' -f4,5 "$tmp/rows" | grep -oE '`[^`]+`' | tr -d '`' | sort -u | while read -r citation; do
    is_there "$citation" || echo "$citation"
done)" '' 'all that they cite is there'
# `name` in `file`, or `name` and `name` in `file`: there and not elsewhere
is "$(grep -oE '`[a-z_]+`( and `[a-z_]+`)? in `[^`*]+\.c`' "$tmp/rows" | tr -d '`' | sed 's/ and / /; s/ in / /' |
    while read -ra words; do
        file=${words[-1]}
        unset 'words[-1]'
        for name in "${words[@]}"; do
            grep -qw "$name" "$file" || echo "$name in $file"
        done
    done)" '' 'where they say'

# ---- files that pages name ----
# `alarm` and `random` are what porting.md's reader adds.
for page in README.md CONTRIBUTING.md docs/*.md; do
    is "$(grep -oE '`[A-Za-z_./*-]+(/|\.(c|h|S|inc|sh|md|json|list|supp))`' "$page" | tr -d '`' | grep -v '[A-Z]\{4\}\|^build/\|alarm\|random' |
        sort -u | while read -r citation; do
        is_there "$citation" || echo "$citation"
    done)" '' "$page names files that are there"
done
plan_done
