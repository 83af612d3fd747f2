#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # dollars in quotes are gdb's
# Steps, traces, gdb and lockstep with KVM. Where /dev/kvm is absent everything is skipped; --lockstep says that it
# needs it.
. tests/integration/tap.sh

hello=$BUILD/samples/hello.elf
NO_ENGINE=78 # hvrun(1)

# ---- command line ----
check_status 2 "--lockstep is for one virtual processor" "$BUILD/hvrun" --lockstep --smp 2 "$hello"
check_status 2 "--lockstep is not for KVM alone" "$BUILD/hvrun" --lockstep --engine kvm "$hello"
check_status 2 "nor has it a stride there" "$BUILD/hvrun" --lockstep --lockstep-stride 5 "$hello"
check_status 2 "--lockstep is not for a debugger" "$BUILD/hvrun" --lockstep --gdb 0 "$hello"

"$BUILD/hvrun" --lockstep --timeout 60 --memory 64M "$hello" </dev/null >"$tmp/out" 2>"$tmp/err"
status=$?
if [ $status -eq $NO_ENGINE ]; then
    check "--lockstep says what it needs" grep -q '^hvrun: /dev/kvm' "$tmp/err"
    skip "steps, gdb and lockstep with KVM" "$(sed -n 's/^hvrun: //p' "$tmp/err" | head -n 1)"
    plan_done
fi

# ---- lockstep ----
software=$("$BUILD/hvrun" --engine kvm --timeout 60 "$hello" 2>&1 >/dev/null </dev/null | grep -c MIPS)
is $status 0 "lockstep: no difference in hello"
check "and it is said" grep -Eq '^hvrun: lockstep: no difference between soft and kvm in [0-9]+ instructions, compared at [0-9]+ points$' \
    "$tmp/err"
check "the guest says what it always says" diff samples/hello/expected "$tmp/out"
for name in power_off self_modifying io-burst interrupts fpu_switch faults user_mode; do
    "$BUILD/hvrun" --lockstep --timeout 60 --memory 64M "$BUILD/samples/$name.elf" </dev/null >"$tmp/out" 2>"$tmp/err"
    status=$?
    case $software:$name in
    1:faults | 1:user_mode) # the RFLAGS.RF that a double fault pushes; system calls of user mode
        is $status 1 "lockstep: software KVM is not the same in $name"
        check "and the difference is told with both states" grep -q '^hvrun: lockstep: state on kvm:' "$tmp/err"
        ;;
    *)
        is $status 0 "lockstep: no difference in $name"
        [ $status -eq 0 ] || note "$(grep -A 99 'what differs' "$tmp/err")"
        ;;
    esac
done

# ---- steps and traces ----
for engine in soft kvm; do
    "$BUILD/hvrun" --engine $engine --io-blocks off --step 3000 "$hello" </dev/null 2>&1 >"$tmp/out.$engine" |
        grep 'step\|stopped' | sed 's/state .*//' >"$tmp/step.$engine"
    "$BUILD/hvrun" --engine $engine --io-blocks off --timeout 60 --trace "$tmp/trace.$engine" --trace-count 3000 "$hello" \
        </dev/null >"$tmp/traced.$engine" 2>&1
done
check "--step comes to the same place on KVM" diff "$tmp/step.soft" "$tmp/step.kvm"
check "--trace tells the same on KVM" diff "$tmp/trace.soft" "$tmp/trace.kvm"
check "which is long" test "$(wc -l <"$tmp/trace.kvm")" -eq 3000
check "and the guest goes on, in KVM, to its end" grep -q '^hello: passed' "$tmp/traced.kvm"
"$BUILD/hvrun" --engine kvm --timeout 60 --trace "$tmp/main" --trace-start main --trace-count 2 "$hello" </dev/null >/dev/null 2>&1
check "--trace-start SYMBOL on KVM" grep -Eqm1 $'^0x[0-9a-f]+\tmain\t' "$tmp/main"
check_status $NO_ENGINE "interrupt chips in the kernel cannot be stepped" \
    "$BUILD/hvrun" --engine kvm --irqchip kernel --step 1 "$hello"

# ---- gdb ----
if ! command -v gdb >/dev/null; then
    skip "a session with gdb on KVM" "gdb is not installed"
    plan_done
fi
"$BUILD/hvrun" --engine kvm --timeout 100 --gdb "unix:$tmp/s" "$hello" </dev/null >"$tmp/out" 2>"$tmp/err" &
server=$!
for ((i = 0; i < 100; i++)); do
    [ ! -S "$tmp/s" ] || break
    sleep 0.05
done
cat >"$tmp/commands" <<COMMANDS
set pagination off
set confirm off
set architecture i386:x86-64
target remote $tmp/s
stepi
stepi
break main
continue
backtrace 1
print \$cr0
stepi
delete
watch -location *(long *)(\$sp - 8)
continue
delete
continue
COMMANDS
timeout 100 gdb -nx -batch -x "$tmp/commands" "$hello" </dev/null >"$tmp/session" 2>&1
wait $server
is $? 1 "gdb on KVM: the guest comes to its end"
check "past a breakpoint" grep -q '^Breakpoint 1, .* in main' "$tmp/session"
check "and a watchpoint" grep -q '^New value = ' "$tmp/session"
check "gdb is told how it ended" grep -q 'exited with code 01' "$tmp/session"
check "the guest printed what it always prints" diff samples/hello/expected "$tmp/out"
plan_done
