#!/bin/bash
# patchc verify and restore on a real kernel: the patched image is accepted, the original comes back bit for
# bit, and a change of any kind of byte is found.
. tests/integration/tap.sh
need_kernel CLOUD
flips=${FLIPS:-4} # of each kind

patched=$tmp/patched
check "build patches the kernel" \
    "$BUILD/patchc" build -o "$patched" --report "$tmp/report.json" "$kernel"
check "verify accepts the patched kernel" "$BUILD/patchc" verify "$kernel" "$patched"
check "restore gives the payload back" "$BUILD/patchc" restore "$patched" -o "$tmp/original"
check "verify accepts the restored payload as the original" \
    "$BUILD/patchc" verify "$tmp/original" "$patched"
check_status 1 "verify refuses the original as its own patched image" \
    "$BUILD/patchc" verify "$tmp/original" "$tmp/original"
check_status 3 "restore refuses an image that is not patched" \
    "$BUILD/patchc" restore "$tmp/original" -o "$tmp/again"

# One change through the command line, for the exit code; the others in one process.
cp "$patched" "$tmp/changed"
printf '\101' | dd of="$tmp/changed" bs=1 seek=$((0x200010)) conv=notrunc status=none
check_status 1 "verify ends with exit code 1 when a byte of text is changed" \
    "$BUILD/patchc" verify "$tmp/original" "$tmp/changed"
rm -f "$tmp/changed"

while IFS= read -r line; do
    case $line in
    'ok '*) ok "${line#* - }" ;;
    'not ok '*) not_ok "${line#* - }" ;;
    *) note "${line#\# }" ;;
    esac
done < <("$BUILD/tests/tools/mutate" "$tmp/original" "$patched" "$tmp/work" "$flips" 2>&1)
is "$((tap_count >= 40))" 1 "every kind of byte was changed"
plan_done
