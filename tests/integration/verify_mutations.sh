#!/bin/bash
# SPDX-License-Identifier: MIT
# patchc verify and restore on a real kernel: the patched image is accepted, the original comes back
# bit for bit, and a change of any kind of byte is found.
. tests/integration/tap.sh
need_kernel CLOUD
flips=${FLIPS:-2} # of each kind: one with a wrong checksum, one with the right one

# build_and_check LIST: a patched kernel that verify accepts, $patched; its original is $original.
build_and_check() {
    patched=$tmp/$1.patched
    check "build patches the kernel with $1.list" "$BUILD/patchc" build -l "lists/$1.list" \
        -o "$patched" --report "$tmp/$1.json" "$kernel"
    check "verify accepts it" "$BUILD/patchc" verify "$kernel" "$patched"
    original=$tmp/original.$1
    check "restore gives the payload back" "$BUILD/patchc" restore "$patched" -o "$original"
    check "verify accepts the payload as the original" "$BUILD/patchc" verify "$original" "$patched"
}

# mutations LIST: a test for each kind of byte.
mutations() {
    local before=$tap_count line
    while IFS= read -r line; do
        case $line in
        'ok '*) ok "$1.list: ${line#* - }" ;;
        'not ok '*) not_ok "$1.list: ${line#* - }" ;;
        'Bail out!'*) not_ok "$1.list: $line" ;;
        *) note "${line#\# }" ;;
        esac
    done < <("$BUILD/tests/tools/mutate" "$original" "$patched" "$tmp/work" "$flips" 2>&1)
    is "$((tap_count - before >= 40))" 1 "$1.list: every kind of byte was changed"
}

build_and_check kvm
check_status 1 "verify refuses the original as its own patched image" \
    "$BUILD/patchc" verify "$original" "$original"
check_status 3 "restore refuses an image that is not patched" \
    "$BUILD/patchc" restore "$original" -o "$tmp/again"

# One change through the command line, for the exit code; the others in one process.
cp "$patched" "$tmp/changed"
printf 'A' | dd of="$tmp/changed" bs=1 seek=$((0x200010)) conv=notrunc status=none
check_status 1 "verify ends with exit code 1 when a byte of text is changed" \
    "$BUILD/patchc" verify "$original" "$tmp/changed"
rm -f "$tmp/changed"
mutations kvm
rm -f "$patched" "$original"

build_and_check deprivileged # it has patches of code that the kernel copies, and entry text
mutations deprivileged
plan_done
