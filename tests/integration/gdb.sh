#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # dollars in quotes are gdb's
# hvrun under gdb: real sessions of Debian's gdb, on a sample and on Debian's kernel, and what --gdb promises on the
# command line.
. tests/integration/tap.sh

command -v gdb >/dev/null || skip_all "gdb is not installed"
sample=$BUILD/samples/user_mode.elf

# start OPTION... : hvrun in the background; $server, and $where once it listens.
start() {
    : >"$tmp/err"
    "$BUILD/hvrun" --engine soft "$@" </dev/null >"$tmp/out" 2>"$tmp/err" &
    server=$!
    where=
    for ((i = 0; i < 200; i++)); do
        where=$(sed -n 's/^hvrun: gdb: target remote //p' "$tmp/err")
        [ -z "$where" ] || return 0
        sleep 0.05
    done
    note "hvrun does not listen: $(cat "$tmp/err")"
}

# finish: waits for hvrun; $status.
finish() {
    wait "$server"
    status=$?
}

# session SYMBOLS: runs gdb with the commands on standard input; its output is in $tmp/session.
session() {
    {
        printf 'set pagination off\nset confirm off\nset architecture i386:x86-64\n'
        printf 'set tcp connect-timeout 20\ntarget remote %s\n' "$where"
        cat
    } >"$tmp/commands"
    timeout 240 gdb -nx -batch -x "$tmp/commands" "$1" </dev/null >"$tmp/session" 2>&1
}

# shows SENTENCE PATTERN...: lines of the session match the patterns, in that order.
shows() {
    local sentence=$1 line=0 next pattern
    shift
    for pattern; do
        next=$(tail -n +$((line + 1)) "$tmp/session" | grep -n -m 1 -E -e "$pattern" | cut -d: -f1)
        if [ -z "$next" ]; then
            not_ok "$sentence" "no line behind line $line matches: $pattern"
            note "$(cat "$tmp/session")"
            return
        fi
        line=$((line + next))
    done
    ok "$sentence"
}

# ---- a sample, over TCP ----
start --timeout 100 --gdb 0 "$sample"
check "--gdb PORT listens on the loopback interface" grep -q '^127\.0\.0\.1:[0-9]*$' <<<"$where"
session "$sample" <<'COMMANDS'
info registers rip
stepi
stepi
x/i $pc
break main
continue
backtrace
print $cr0
print $efer
info registers cs fs_base cr3 cr8 mxcsr st0 xmm0
set $xmm1.uint128 = 5
print $xmm1.v4_int32
hbreak syscall_handler
continue
backtrace 1
delete
info threads
monitor help
monitor info exits
monitor xp 0x100010 4
monitor where
print (long)$pc - (long)syscall_handler
stepi
print (long)$pc - (long)syscall_handler
watch -location *(long *)($sp - 8)
continue
delete
continue
COMMANDS
finish
shows "gdb attaches at the guest's first instruction, and steps" '^rip +0x100010 ' '^=> 0x10001[0-9a-f]'
shows "a breakpoint at a function stops there, in 64-bit mode" '^Breakpoint 1, .* in main' '^#0 .* in main' \
    'PE.*PG' 'LME LMA' '^cs +0x' '^cr3 +0x' '^xmm0 '
shows "vector registers can be written" '= \{5, 0, 0, 0\}'
shows "a hardware breakpoint in the handler of user mode's system calls" \
    '^Breakpoint 2, .* in syscall_handler' '^#0 .* in syscall_handler'
shows "threads are vCPUs; monitor commands answer" '^\* 1 +Thread 1 \(vCPU 0, running' '^step-events ' \
    '^exits [0-9]+' '^0x0000100010:( [0-9a-f]{2}){4}$' '^vCPU 0: RIP 0x.*syscall_handler'
shows "a step is one instruction" '^\$[0-9]+ = 0$' '^\$[0-9]+ = [1-9]'
shows "a watchpoint on the stack is met" '^Hardware watchpoint 3' '^New value = '
shows "the guest runs on to its end, and gdb is told" 'exited with code 01'
is "$status" 1 "and hvrun's exit code is the guest's"
check "which printed what it always prints" diff samples/user_mode/expected "$tmp/out"

# ---- how a session can end ----
start --timeout 100 --gdb "unix:$tmp/s" "$sample"
session "$sample" <<<'kill'
finish
is "$status" 0 "gdb's kill ends hvrun with 0"
check "the Unix socket is gone then" test ! -e "$tmp/s"

start --timeout 100 --gdb "unix:$tmp/s" "$sample"
session "$sample" <<'COMMANDS'
break main
continue
detach
COMMANDS
finish
is "$status" 1 "detached, the guest runs to its end, past its breakpoints"
check "and prints what it always prints" diff samples/user_mode/expected "$tmp/out"

start --timeout 100 --gdb 127.0.0.1:0 --gdb-nowait "$sample"
finish
is "$status" 1 "with --gdb-nowait the guest waits for nobody"

start --timeout 1 --gdb 0 "$sample"
finish
is "$status" 124 "--timeout ends a guest that waits for gdb"

start --gdb 0 "$sample"
sleep 0.3
kill -TERM "$server"
finish
is "$status" 143 "and so does SIGTERM"

# ---- what cannot be ----
check_status 2 "--gdb needs a place that can be understood" "$BUILD/hvrun" --engine soft --gdb localhost: "$sample"
check_status 2 "a port has at most 65535" "$BUILD/hvrun" --engine soft --gdb 65536 "$sample"
check_status 2 "a Unix socket needs a path" "$BUILD/hvrun" --engine soft --gdb unix: "$sample"
check_status 2 "--gdb-nowait needs --gdb" "$BUILD/hvrun" --engine soft --gdb-nowait "$sample"
check_status 74 "a place that cannot be had is an error" "$BUILD/hvrun" --engine soft --gdb "unix:$tmp/no/s" "$sample"

# ---- Debian's kernel, with its own symbols ----
if [ -z "${PV_KERNEL_CLOUD:-}" ]; then
    skip "a session on Debian's kernel" "${PV_KERNEL_MISSING:-PV_KERNEL_CLOUD is not set}"
    plan_done
fi
"$BUILD/tests/tools/symbols" "$PV_KERNEL_CLOUD" "$tmp/symbols.elf"
mkdir "$tmp/root"
cat >"$tmp/init.S" <<'ASSEMBLY'
        .globl _start           # reboot(LINUX_REBOOT_CMD_POWER_OFF)
_start: mov $169, %eax
        mov $0xfee1dead, %edi
        mov $672274793, %esi
        mov $0x4321fedc, %edx
        syscall
ASSEMBLY
gcc -nostdlib -static -o "$tmp/root/init" "$tmp/init.S"
(cd "$tmp/root" && echo init | cpio -o -H newc --quiet) >"$tmp/initrd"
start --timeout 300 --memory 256M --initrd "$tmp/initrd" --gdb "unix:$tmp/k" "$PV_KERNEL_CLOUD"
session "$tmp/symbols.elf" <<'COMMANDS'
break start_kernel
continue
backtrace
stepi 5
x/i $pc
x/s linux_banner
print $cr4
break kernel_init
continue
backtrace
watch *(unsigned long *)&jiffies_64
continue
backtrace 1
delete
hbreak machine_power_off
continue
backtrace
info registers rip cr3 gs_base
continue
COMMANDS
finish
shows "a breakpoint at start_kernel, and who called it" '^Breakpoint 1, .* in start_kernel' \
    '^#0 .* in start_kernel' '^#1 .* in (x86_64_start|secondary_startup)' '^=> ' 'Linux version'
shows "a breakpoint in another thread of the kernel" '^Breakpoint 2, .* in kernel_init' '^#1 .* in ret_from_fork'
shows "a watchpoint on a variable says who writes it" 'Hardware watchpoint 3' 'Old value = ' 'New value = ' \
    '^#0 .* in .*(timer|jiffies)'
shows "a backtrace at the end, from machine_power_off to the system call" \
    'Breakpoint 4, .* in machine_power_off' '^#0 .* in machine_power_off' '^#1 .* in .*reboot'
shows "and the machine powers off" 'exited normally'
is "$status" 0 "with exit code 0"
plan_done
