#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # $names in jq programs are jq's
# How much of Debian's kernels is patched (D6, D11): thresholds for whatever version the archive has,
# and for known versions the exact numbers of sites, so that coverage cannot be had by listing less.
. tests/integration/tap.sh

# What each list names in a kernel, by the hash of the bzImage. Another version's are printed.
listed_in() { # XXH3 LIST
    case $1.$2 in
    0x4be5ff34bdb4f8c.kvm) echo 865 ;;
    0x4be5ff34bdb4f8c.deprivileged) echo 2992 ;;
    0x4be5ff34bdb4f8c.io) echo 620 ;;
    0x4be5ff34bdb4f8c.prototype) echo 2382 ;;
    0x14baa524f06699f6.kvm) echo 1023 ;;
    0x14baa524f06699f6.deprivileged) echo 3219 ;;
    0x14baa524f06699f6.io) echo 738 ;;
    0x14baa524f06699f6.prototype) echo 2581 ;;
    esac
}

# What --form patches with a list: jump, call, branch and break sites.
forced_in() { # XXH3 LIST
    case $1.$2 in
    0x4be5ff34bdb4f8c.kvm) echo "jump 833 call 824 branch 680 break 754" ;;
    0x4be5ff34bdb4f8c.deprivileged) echo "jump 2843 call 2729 branch 1176 break 1217" ;;
    0x14baa524f06699f6.kvm) echo "jump 985 call 976 branch 832 break 906" ;;
    esac
}

reasons='["other-mode","copied-code","context","overlap"]'
left_reasons='["no-room","table","no-space","no-template","template-needs","form","unproved","alternative","no-block"]'

# at_least ACTUAL MINIMUM SENTENCE: numbers may have a fraction.
at_least() {
    if jq -en "$1 >= $2" >/dev/null; then
        ok "$3 ($1)"
    else
        not_ok "$3" "$1 is less than $2"
    fi
}

# build KERNEL LIST [OPTIONS...]: patched to $tmp/patched, report in $tmp/report.
build() {
    local image=$1 list=$2
    shift 2
    "$BUILD/patchc" build -l "$list" -o "$tmp/patched" --report "$tmp/report" "$@" "$image" >"$tmp/log" 2>&1
}

# accepted ELF SENTENCE: verify accepts the patched image and restore gives the original back.
accepted() {
    if ! "$BUILD/patchc" verify "$1" "$tmp/patched" >"$tmp/log" 2>&1; then
        not_ok "$2" "$(cat "$tmp/log")"
    elif ! "$BUILD/patchc" restore "$tmp/patched" -o "$tmp/restored" >"$tmp/log" 2>&1 ||
        ! cmp -s "$1" "$tmp/restored"; then
        not_ok "$2" "restore does not give the original back: $(cat "$tmp/log")"
    else
        ok "$2"
    fi
}

# check_report NAME: the report's sums and vocabulary.
check_report() {
    check "$1: each site that is not patched has a reason of the closed vocabulary" \
        jq -e --argjson excluded "$reasons" --argjson left "$left_reasons" '
        all(.sites[]; if .status == "excluded" then .reason as $r | $excluded | index($r) != null
            elif .status == "left" then .reason as $r | $left | index($r) != null
            else (.reason // "") == "" end)' "$tmp/report"
    check "$1: the summary counts the sites" \
        jq -e '. as $r | [.sites[].status] as $s | .summary |
        .listed == ($s | length) and .eligible == .listed - .excluded and
        .patched == ($s | map(select(. == "patched")) | length) and
        .left == ($s | map(select(. == "left")) | length) and
        .patched == ([.forms[]] | add) and .patched == ([.tactics[]] | add) and
        .left == ([.left_reasons[]] | add) and .excluded == ([.excluded_reasons[]] | add)' "$tmp/report"
}

# check_list FLAVOUR ELF LIST PERCENT
check_list() {
    local flavour=$1 elf=$2 list=$3 percent=$4 name listed
    name=$flavour.$(basename "$list" .list)
    if ! build "$elf" "$list"; then
        not_ok "$name: build" "$(cat "$tmp/log")"
        return
    fi
    accepted "$elf" "$name: verified, and restore gives the original bit for bit"
    check_report "$name"
    listed=$(listed_in "$hash" "${name#*.}")
    if [ -n "$listed" ]; then
        is "$(jq .summary.listed "$tmp/report")" "$listed" "$name: the list names the pinned number of sites"
    else
        note "$name: kernel $hash is not pinned, $(jq .summary.listed "$tmp/report") sites are listed"
    fi
    at_least "$(jq .summary.coverage "$tmp/report")" "$percent" "$name: percent of eligible sites patched"
}

# check_forms FLAVOUR ELF LIST: each form forced.
check_forms() {
    local flavour=$1 elf=$2 list=$3 name form counts=
    name=$flavour.$(basename "$list" .list)
    for form in jump call branch break; do
        if ! build "$elf" "$list" --form "$form"; then
            not_ok "$name: --form $form" "$(cat "$tmp/log")"
            continue
        fi
        accepted "$elf" "$name: --form $form verified, and restore gives the original bit for bit"
        check "$name: --form $form uses no other form, and says so" jq -e --arg form "$form" '
            all(.sites[] | select(.status == "patched"); .form == $form) and
            .summary.patched == .summary.forms[$form] and
            (.summary.left == 0 or .summary.left_reasons.form > 0)' "$tmp/report"
        counts="$counts $form $(jq .summary.patched "$tmp/report")"
    done
    if [ -n "$(forced_in "$hash" "${name#*.}")" ]; then
        is "${counts# }" "$(forced_in "$hash" "${name#*.}")" "$name: forced forms patch the pinned numbers of sites"
    else
        note "$name: kernel $hash is not pinned, forced forms patch${counts}"
    fi
}

# The prototype's figures: sites outside .altinstr_replacement, and those inside.
check_prototype() { # FLAVOUR OUTSIDE
    local outside inside
    outside=$(jq '[.sites[] | select(.section != ".altinstr_replacement" and .status == "patched")] | length' "$tmp/report")
    inside=$(jq '[.sites[] | select(.section == ".altinstr_replacement" and .status == "patched")] | length' "$tmp/report")
    at_least "$outside" "$2" "$1.prototype: sites patched outside .altinstr_replacement"
    at_least "$inside" 1321 "$1.prototype: sites patched inside .altinstr_replacement"
}

check_kernel() { # FLAVOUR OUTSIDE
    local elf=$tmp/$1.elf
    # The payload, once: from here on nothing is unpacked. What is pinned is known by this hash.
    if ! build "$kernel" lists/kvm.list || ! "$BUILD/patchc" restore "$tmp/patched" -o "$elf" >"$tmp/log" 2>&1; then
        not_ok "$1: build and restore" "$(cat "$tmp/log")"
        return
    fi
    hash=$(jq -r .input.xxh3 "$tmp/report")
    check_list "$1" "$elf" lists/kvm.list 98
    check_list "$1" "$elf" lists/deprivileged.list 98
    check_list "$1" "$elf" lists/io.list 98
    check_list "$1" "$elf" tests/lists/prototype.list 98
    check_prototype "$1" "$2"
    check_forms "$1" "$elf" lists/kvm.list
}

check_determinism() {
    local first
    build "$kernel" lists/kvm.list
    first=$(cksum <"$tmp/patched")$(cksum <"$tmp/report")
    build "$kernel" lists/kvm.list
    is "$(cksum <"$tmp/patched")$(cksum <"$tmp/report")" "$first" "two builds give the same image and report"
}

tested=
if [ -r "${PV_KERNEL_CLOUD:-}" ]; then
    kernel=$PV_KERNEL_CLOUD tested=1
    check_kernel cloud 914
    check_forms cloud "$tmp/cloud.elf" lists/deprivileged.list
    check_determinism
else
    skip "coverage of the cloud kernel" "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD is not set}"
fi
if [ -r "${PV_KERNEL_GENERIC:-}" ]; then
    kernel=$PV_KERNEL_GENERIC tested=1
    check_kernel generic 1079
else
    skip "coverage of the generic kernel" "${PV_KERNEL_MISSING:-PV_KERNEL_GENERIC is not set}"
fi
[ -n "$tested" ] || note "no kernel: nothing was tested"
plan_done
