#!/bin/bash
# SPDX-License-Identifier: MIT
# Debian's cloud kernel, patched with each form (D11) and with every routine linked, boots under hvrun and says what the
# unpatched one says; so does one of which every sensitive instruction is patched.
. tests/integration/tap.sh
. tests/integration/qemu.sh
. tests/integration/hvrun-boots.sh

need_kernel CLOUD
[ -x "$BUILD/hvrun" ] || skip_all "there is no $BUILD/hvrun"
make_initrd "$tmp/initrd.cpio" || skip_all "no initrd: busybox-static and cpio are needed"

# form NAME WHAT OPTION...: patched with these options, checked, booted, compared.
form() {
    local name=$1 what=$2
    shift 2
    check "$what is built" "$BUILD/patchc" build -o "$tmp/$name.image" --report "$tmp/$name.json" "$@" "$kernel"
    boots "$name" "$what, with every routine linked," "$tmp/$name.image" patchvisor.quick --link-all
    same_console plain "$name" "its console is that of the unpatched kernel"
    is "$(stat "$name" '.exits.doorbell > 0 and .dispatch.host_calls > 0')" true "its doorbells ring"
}

boots plain "the unpatched kernel" "$kernel" patchvisor.quick
for each in jump call branch break; do
    form "$each" "the kernel in form $each" --form "$each"
done
is "$(stat break '.dispatch.by_form.break > 30000')" true "a break is dispatched by its index (D3, D5)"
is "$(stat jump '.dispatch.by_form.break')" 0 "the other forms need no break"
form sensitive "the kernel with every sensitive instruction patched" -l lists/deprivileged.list

"$BUILD/hvrun" --engine soft --no-patch "$tmp/break.image" >"$tmp/refused" 2>&1
is $? 66 "an image with break patches is refused without its stub"
check "and it is said why" grep -q 'break patches' "$tmp/refused"
plan_done
