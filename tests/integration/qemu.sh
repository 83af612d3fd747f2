# Boots kernels under QEMU's own translator (TCG) to a userspace that reports and powers off.
# Source it after tap.sh. Nothing here needs privileges or /dev/kvm.
# shellcheck shell=bash

QEMU=${QEMU:-qemu-system-x86_64}
BUSYBOX=${BUSYBOX:-$(command -v busybox || echo /bin/busybox)}
BOOT_TIMEOUT=${BOOT_TIMEOUT:-240} # seconds for one boot
# Given to the kernel: without it, it calibrates the time-stamp counter by polling the timer, which
# takes long under TCG and does not end on the microvm machine. QEMU shows guests the host's counter.
TSC_KHZ=$(awk -F: '/^cpu MHz/ { printf "%d", $2 * 1000; exit }' /proc/cpuinfo)
TSC_KHZ=${TSC_KHZ:-2000000}

# make_initrd FILE: busybox and an init that says that userspace is reached, shows the processors and
# what the kernel complained about, and powers off. Same busybox, same bytes.
make_initrd() {
    local root=$tmp/initrd
    mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" || return 1
    cp "$BUSYBOX" "$root/bin/busybox" && ln -sf busybox "$root/bin/sh" || return 1
    cat >"$root/init" <<'INIT'
#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev 2>/dev/null
exec >/dev/console 2>&1
echo "patchvisor: userspace reached"
echo "patchvisor: kernel $($b uname -r)"
echo "patchvisor: processors $($b grep -c ^processor /proc/cpuinfo)"
echo "patchvisor: text $($b sed -n "s/ T _text\$//p" /proc/kallsyms)"
echo "patchvisor: uptime $($b cut -d' ' -f1 /proc/uptime)"
# The clock advances, a child runs, a file system works.
$b sleep 1 && echo "patchvisor: slept"
$b seq 1 1000 >/tmp.txt && echo "patchvisor: sum $($b awk '{ s += $1 } END { print s }' /tmp.txt)"
$b dmesg | $b grep -E 'WARNING|BUG|Oops|Call Trace|unchecked MSR|general protection|invalid opcode|segfault|Unable to handle' |
    $b sed 's/^/patchvisor: complaint /'
echo "patchvisor: powering off"
$b poweroff -f
INIT
    chmod 755 "$root/init"
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible --owner=0:0) >"$1"
}

# boot LOG VARIANT KERNEL INITRD: boots one way; the console goes to LOG, the time in seconds to
# $boot_seconds. Returns QEMU's exit status, 124 after the timeout.
boot() {
    local log=$1 variant=$2 kernel=$3 initrd=$4 status begin
    local append="console=ttyS0 panic=-1 tsc_early_khz=$TSC_KHZ"
    local machine=(-accel tcg -m 512M)
    case $variant in
    default) ;;
    smp2) machine+=(-smp 2) ;;
    pti)
        machine+=(-cpu Haswell)
        append+=" pti=on"
        ;;
    microvm) machine+=(-M microvm) ;;
    *)
        echo "boot: unknown variant $variant" >&2
        return 2
        ;;
    esac
    begin=$(date +%s.%N)
    timeout -k 5 "$BOOT_TIMEOUT" "$QEMU" "${machine[@]}" -nodefaults -display none -no-reboot -serial stdio \
        -kernel "$kernel" -initrd "$initrd" -append "$append" </dev/null >"$log" 2>&1
    status=$?
    boot_seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    tr -d '\r' <"$log" >"$log.tmp" && mv "$log.tmp" "$log"
    return $status
}
