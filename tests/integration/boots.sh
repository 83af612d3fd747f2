# SPDX-License-Identifier: MIT
# What the boot tests of both Debian kernels have in common; sourced after tap.sh and qemu.sh.
#
# A kernel is patched, verified, and booted in several ways; the same ways with the unpatched kernel
# tell what a boot looks like there: the report of its userspace must be the same, kernel warnings
# included. Environment: PV_BOOTS=all for every way, SAN=1 for few (patchc is slower, QEMU is not
# what is being tested).
# shellcheck shell=bash disable=SC2154

KASLR_OFFSET=0x5600000 # any multiple of 2 MB below 1 GB that guest memory has room for

# patch NAME IMAGE OPTIONS...: IMAGE patched to $tmp/NAME, verified.
patch() {
    local name=$1 image=$2
    shift 2
    check "$name: patchc build $*" "$BUILD/patchc" build "$@" -o "$tmp/$name" --report "$tmp/$name.json" "$image" &&
        check "$name: patchc verify" "$BUILD/patchc" verify "$image" "$tmp/$name"
}

# baseline VARIANT: the unpatched kernel's boot, once; its report in $tmp/unpatched.VARIANT.
baseline() {
    [ -e "$tmp/unpatched.$1" ] && return 0
    if ! boot "$tmp/log" "$1" "$tmp/unpatched" "$tmp/initrd.cpio" || ! reached "$tmp/log"; then
        note "the unpatched kernel does not boot this way ($boot_seconds s):"
        note "$(tail -n 100 "$tmp/log")"
        return 1
    fi
    note "unpatched, $1: $boot_seconds s"
    text_address "$tmp/log" >"$tmp/unpatched.text"
    boot_report "$tmp/log" >"$tmp/unpatched.$1"
}

# reached LOG: it got to userspace and went all the way.
reached() {
    grep -aq '^patchvisor: userspace reached' "$1" && grep -aq '^patchvisor: powering off' "$1"
}

# Where the kernel ran.
text_address() { # LOG
    sed -n 's/^patchvisor: text //p' "$1"
}

# boots NAME VARIANT [KASLR]: the patched kernel $tmp/NAME reaches userspace, powers off, and looks
# like the unpatched one from there. With KASLR it is relocated first.
boots() {
    local name=$1 variant=$2 kaslr=${3:-} image=$tmp/$1 sentence log differences status
    sentence="$name boots: $variant${kaslr:+, relocated by $KASLR_OFFSET}"
    log=$tmp/$name.$variant$kaslr.log
    if [ ! -e "$image" ]; then
        not_ok "$sentence" "there is no patched image"
        return 1
    fi
    baseline "$variant" || {
        not_ok "$sentence" "no unpatched boot to compare with"
        return 1
    }
    if [ -n "$kaslr" ]; then
        image=$tmp/relocated
        "$BUILD/tests/tools/relocate" "$tmp/$name" "$image" "$KASLR_OFFSET" >"$tmp/relocate.log" 2>&1 || {
            not_ok "$sentence" "$(cat "$tmp/relocate.log")"
            return 1
        }
    fi
    boot "$log" "$variant" "$image" "$tmp/initrd.cpio"
    status=$?
    if [ $status -ne 0 ] || ! reached "$log"; then
        not_ok "$sentence" "QEMU ended with status $status after $boot_seconds s; the console's end:"
        note "$(tail -n 100 "$log")"
        return 1
    fi
    if [ -n "$kaslr" ] && text_address "$log" | cmp -s - "$tmp/unpatched.text"; then
        not_ok "$sentence" "the kernel runs where it was linked, at $(text_address "$log")"
        return 1
    fi
    if differences=$(diff "$tmp/unpatched.$variant" <(boot_report "$log")); then
        ok "$sentence ($boot_seconds s)"
    else
        not_ok "$sentence" "userspace sees other things than under the unpatched kernel (<):"
        note "$differences"
        return 1
    fi
}

# prepare IMAGE: the initrd, and the unpatched ELF, which is what restore gives back.
prepare() {
    make_initrd "$tmp/initrd.cpio" || skip_all "no initrd: busybox-static and cpio are needed"
    command -v "$QEMU" >/dev/null || skip_all "no $QEMU: package qemu-system-x86"
    patch kvm "$1" -l kvm.list
    check "the patched image gives the unpatched ELF back" \
        "$BUILD/patchc" restore "$tmp/kvm" -o "$tmp/unpatched"
}

# boot_ways IMAGE: everything.
boot_ways() {
    local list way
    prepare "$1"
    boots kvm default
    boots kvm smp2-pti
    if [ -n "${SAN:-}" ]; then
        skip "the other ways to boot" "the plain build boots them, sanitizers do not reach into the guest"
        return
    fi
    boots kvm microvm
    boots kvm smp2-pti KASLR
    patch deprivileged "$1" -l deprivileged.list
    boots deprivileged default
    boots deprivileged smp2-pti
    boots deprivileged smp2 KASLR
    if [ "${PV_BOOTS:-}" != all ]; then
        skip "every way to boot, list and form, and with the function tracer" "takes long: make check-boots"
        return
    fi
    patch io "$1" -l io.list
    patch call "$1" --form call
    patch branch "$1" --form branch
    for list in kvm deprivileged io call branch; do
        for way in default smp2 smp2-pti pti max microvm trace; do
            boots $list $way
            boots $list $way KASLR
        done
    done
}
