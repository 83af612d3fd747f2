# SPDX-License-Identifier: MIT
# Boots kernels under QEMU's own translator (TCG) to a userspace that reports and powers off.
# Source it after tap.sh. Nothing here needs privileges or /dev/kvm.
# shellcheck shell=bash disable=SC2034,SC2154

QEMU=${QEMU:-qemu-system-x86_64}
BUSYBOX=${BUSYBOX:-$(command -v busybox || echo /bin/busybox)}
BOOT_TIMEOUT=${BOOT_TIMEOUT:-300} # seconds for one boot
# Given to the kernel: without it, it calibrates the time-stamp counter by polling the timer, which
# takes long under TCG and does not end on the microvm machine. QEMU shows guests the host's counter.
TSC_KHZ=$(awk -F: '/^cpu MHz/ { printf "%d", $2 * 1000; exit }' /proc/cpuinfo)
TSC_KHZ=${TSC_KHZ:-2000000}

# make_initrd FILE: busybox and an init that says that userspace is reached, shows the processors and
# what the kernel complained about, and powers off. Words on the kernel's command line ask for more or less.
# Same busybox, same bytes.
make_initrd() {
    local root=$tmp/initrd
    mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" || return 1
    cp "$BUSYBOX" "$root/bin/busybox" && ln -sf busybox "$root/bin/sh" || return 1
    busybox_load >"$root/load"
    cat >"$root/init" <<'INIT'
#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev 2>/dev/null
exec >/dev/console 2>&1
say() { echo "patchvisor: $*"; }
say "userspace reached"
wanted() { $b grep -qw "patchvisor.$1" /proc/cmdline; }
# Off, when the terminal has sent what was said: setting a terminal waits for that.
off() { $b stty opost </dev/console; $b poweroff -f; }
wanted quick && off
say "kernel $($b uname -r)"
say "uptime $($b cut -d' ' -f1 /proc/uptime)"
say "text $($b sed -n 's/ T _text$//p' /proc/kallsyms)"
say "processors $($b grep -c ^processor /proc/cpuinfo)"
$b sed -n 's/^\(vendor_id\|model name\|flags\|bugs\).*: /\1: /p' /proc/cpuinfo | $b sort -u | $b sed 's/^/patchvisor: /'
# The clock advances, children run, a file system works.
$b sleep 1 && say "slept"
$b seq 1 1000 >/tmp.txt && say "sum $($b awk '{ s += $1 } END { print s }' /tmp.txt)"
# The kernel rewrites its own code while it runs: jump labels, calls to the tracer at every function
# (long under TCG: only when asked for), a processor that leaves and comes back.
for value in 1 0; do
    echo $value >/proc/sys/kernel/sched_schedstats && say "jump labels $value"
done
if wanted trace && $b mount -t tracefs trace /sys/kernel/tracing; then
    cd /sys/kernel/tracing
    for tracer in function nop; do
        echo $tracer >current_tracer && say "tracer $($b cat current_tracer)"
    done
    cd /
fi
online=/sys/devices/system/cpu/cpu1/online
[ ! -e $online ] || for value in 0 1; do
    echo $value >$online && say "processor 1 online $($b cat $online)"
done
$b dmesg | $b grep -E 'WARNING|BUG|Oops|Call Trace|RIP:|unchecked MSR|general protection|invalid opcode|segfault|[Uu]nable to handle' |
    $b sed 's/^\[[^]]*\] //; s/^/patchvisor: complaint: /'
wanted load && $b sh /load $b /work | $b sed 's/^/patchvisor: load: /'
if wanted shell; then
    say "shell"
    $b setsid $b cttyhack /bin/sh
fi
say "powering off"
off
INIT
    chmod 755 "$root/init"
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible --owner=0:0) >"$1"
}

# busybox_load: prints a script that lets busybox work, and prints the same wherever it runs: `sh SCRIPT BUSYBOX FOLDER`.
busybox_load() {
    cat <<'LOAD'
b=$1 d=$2
$b mkdir $d
$b seq 1 2000 | $b awk '{ printf "%d %.15g %s\n", ($1 * 7919) % 2003, 1 / ($1 - 0.5), $1 * $1 * 1e-3 }' >$d/numbers
echo "awk $($b sha256sum <$d/numbers)"
echo "sort $($b sort -n $d/numbers | $b sha256sum) $($b sort -k2 -g -r $d/numbers | $b md5sum)"
echo "gzip $($b gzip -c <$d/numbers | $b sha1sum) $($b gzip -c <$d/numbers | $b gunzip | $b cmp - $d/numbers && echo same)"
echo "float $($b seq 1 500 | $b awk '{ x = $1; for (i = 0; i < 9; i++) x = (x + $1 / x) / 2; s += x } END { printf "%.17g", s }')"
n=0 sum=0
while [ $n -lt 50 ]; do
    n=$((n + 1)) sum=$((sum + $($b expr $n \* $n)))
done
echo "processes $sum"
echo "sha512 $($b seq 1 10000 | $b sha512sum)"
echo "text $($b tr 0-9 a-j <$d/numbers | $b sed 's/\(.*\) \(.*\)/\2-\1/' | $b grep -c ^b)"
$b rm -r $d
LOAD
}

# What the guest reported that must not depend on patching: without times and addresses.
boot_report() { # LOG
    grep -a '^patchvisor: ' "$1" | grep -av 'uptime' |
        sed 's/0x[0-9a-f]*/0xN/g; s/\<[0-9a-f]\{16\}\>/N/g; s/\(CPU\|PID\): [0-9]*/\1: N/g'
}

# The console without time stamps, and without the numbers that the kernel prints because they depend on the time, the
# memory that the image takes, or the day.
console() { # LOG
    sed -E 's/^\[ *[0-9]+\.[0-9]+\] //
        s/[0-9]+K\/[0-9]+K available.*/K available/
        s/Marking stable \(.*/Marking stable/
        s/(setting system clock to|using sched offset of|audit: type=2000).*/\1/
        s/Freeing (.*) memory: .*/Freeing \1 memory/' "$1" | grep -av '^patchvisor: uptime'
}

# boot LOG VARIANT KERNEL INITRD: boots one way; the console goes to LOG, the time in seconds to
# $boot_seconds. Returns QEMU's exit status, 124 after the timeout.
boot() {
    local log=$1 variant=$2 kernel=$3 initrd=$4 status begin
    local append="console=ttyS0 panic=-1 tsc_early_khz=$TSC_KHZ"
    # One thread for all processors, so that a boot does not depend on how the host schedules them; `make check-boots`
    # has one each. (Two boots of a patched kernel once locked up that way on a loaded machine, in stop_machine; in
    # some 200 further ones, most of them on a loaded machine, too, none did.)
    local threads=single
    [ "${PV_BOOTS:-}" != all ] || threads=multi
    local machine=(-accel "tcg,thread=$threads" -m 512M -no-reboot)
    case $variant in
    default) machine+=(-nographic) ;;
    smp2) machine+=(-smp 2) ;;
    trace)
        machine+=(-smp 2)
        append+=" patchvisor.trace"
        ;;
    pti)
        machine+=(-cpu Haswell)
        append+=" pti=on"
        ;;
    smp2-pti)
        machine+=(-cpu Haswell -smp 2)
        append+=" pti=on"
        ;;
    max) machine+=(-cpu max) ;;
    microvm) machine+=(-M microvm) ;;
    *)
        echo "boot: unknown variant $variant" >&2
        return 2
        ;;
    esac
    [ "$variant" = default ] || machine+=(-nodefaults -display none -serial stdio)
    begin=$(date +%s.%N)
    timeout -k 5 "$BOOT_TIMEOUT" "$QEMU" "${machine[@]}" -kernel "$kernel" -initrd "$initrd" \
        -append "$append" </dev/null >"$log" 2>&1
    status=$?
    boot_seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    tr -d '\r' <"$log" >"$log.tmp" && mv "$log.tmp" "$log"
    return $status
}
