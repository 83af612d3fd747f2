#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # scripts in quotes are for other shells
# The command line of hvrun: what scripts depend on. Exit codes, where output goes, help, the terminal.
. tests/integration/tap.sh
. tests/integration/command.sh
. tests/integration/guests.sh

# What is tested here does not depend on the engine, but for counters and speed: everywhere the software processor.
mkdir "$tmp/work" "$tmp/bin"
program=$tmp/bin/hvrun
printf '#!/bin/sh\nexec "%s" --engine soft "$@"\n' "$(realpath "$BUILD/hvrun")" > "$program"
chmod 755 "$program"

guest halt < /dev/null
guest spin << 'ASM'
        cli
        .globl forever
forever: jmp forever
ASM
guest idle << 'ASM'
        mov $text, %esi
        call say
        jmp 4f
text:   .asciz "waiting\n"
4:      mov $0xff, %al          # no interrupt ever comes
        out %al, $0x21
        out %al, $0xa1
        sti
        hlt
        jmp 4b
ASM
guest triple << 'ASM'
        lidt none
        ud2
none:   .skip 6
ASM
guest power_off << 'ASM'
        mov $0x604, %edx
        mov $0x3400, %eax
        out %ax, (%dx)
ASM
guest fast_reset << 'ASM'
        mov $1, %al
        out %al, $0x92
ASM
guest keyboard_reset << 'ASM'
        mov $0xfe, %al
        out %al, $0x64
ASM
guest chipset_reset << 'ASM'
        mov $6, %al
        mov $0xcf9, %edx
        out %al, (%dx)
ASM
guest hello << 'ASM'
        mov $text, %esi
        call say
        jmp 4f
text:   .asciz "hello\n"
4:
ASM
guest chatty << 'ASM'
4:      mov $'x', %al
        call put
        mov $'\n', %al
        call put
        jmp 4b
ASM
# Gives every byte back plus one; q powers off.
guest echo << 'ASM'
        mov $text, %esi
        call say
4:      call get
        cmp $'q', %al
        je 5f
        inc %eax
        call put
        mov $'\n', %al
        call put
        jmp 4b
text:   .asciz "ready\n"
5:      mov $0x604, %edx
        mov $0x3400, %eax
        out %ax, (%dx)
ASM
for value in 0 1 5 31 200; do
    guest "debug_exit_$value" <<< "mov \$$value, %al; out %al, \$0xf4"
done

# ends STATUS SENTENCE ARGUMENT...: hvrun ends with that status; $out and $errors are set.
ends() {
    local expected=$1 sentence=$2
    shift 2
    run timeout 60 "$program" "$@" < /dev/null
    is "$status" "$expected" "$sentence" || note "$errors"
}

# shutdown_is WORD: of the run that wrote $tmp/stats
shutdown_is() {
    is "$(jq -r .shutdown "$tmp/stats")" "$1" "the counters say \"$1\""
}

# one_line SENTENCE: the last run's standard error
one_line() {
    if [ "$(wc -l < "$tmp/errors")" -eq 1 ] && [[ $errors == 'hvrun: '?* ]]; then
        ok "$1"
    else
        not_ok "$1" "$errors"
    fi
}

# ---- help, manual and completion agree ----
run "$program" --version
is "$status:$out:$errors" "0:hvrun $(cat VERSION):" '--version prints the version'
run "$program" --help
is "$status:$errors" 0: '--help succeeds and says nothing on stderr'
is "$(awk 'length > 80 || NR > 30' "$tmp/out")" '' '--help fits a screen'
help_options=$(grep -oE '^ .*--[a-z-]+' "$tmp/out" | grep -oE -- '--[a-z-]+' | sort)
manual_options=$(awk '
    /^\.Sh/ { options = 0 }
    /^\.Ss Options/ { options = 1 }
    /^\.El/ { options = 0 }
    options && /^\.It/ {
        for (i = 1; i < NF; i++)
            if ($i == "Fl" && $(i + 1) ~ /^-./) print "-" $(i + 1)
    }' man/hvrun.1 | sort)
is "$help_options" "$manual_options" 'the options of --help are those of hvrun(1)'
completed_options=$(
    # shellcheck source=/dev/null
    . completion/hvrun
    COMP_WORDS=(hvrun --) COMP_CWORD=1 COMPREPLY=()
    _hvrun
    printf '%s\n' "${COMPREPLY[@]}" | sort
)
is "$completed_options" "$help_options" 'the completion offers the options of --help'

# ---- usage errors: 2 ----
refused 2 'no kernel is a usage error'
refused 2 'two kernels are a usage error' "$tmp/halt" "$tmp/halt"
refused 2 'an unknown option is a usage error' --frobnicate "$tmp/halt"
refused 2 'an unknown letter is a usage error' -Z "$tmp/halt"
refused 2 'an option without its value is a usage error' "$tmp/halt" --memory
refused 2 'a flag with a value is a usage error' --summary=yes "$tmp/halt"
refused 2 'an empty name is a usage error' --stats '' "$tmp/halt"
refused 2 'an unknown engine is a usage error' --engine fast "$tmp/halt"
for value in 0 -1 1M1 1.5M 0x100000 65G 4096 18446744073709551616M ' 64M' ''; do
    refused 2 "--memory '$value' is a usage error" --memory "$value" "$tmp/halt"
done
for value in 0 5 1x ''; do
    refused 2 "--smp '$value' is a usage error" --smp "$value" "$tmp/halt"
done
for value in 0 -1 1s nan inf 0x10 1e3 ''; do
    refused 2 "--timeout '$value' is a usage error" --timeout "$value" "$tmp/halt"
done
refused 2 'an unknown mode of IO blocks is a usage error' --io-blocks some "$tmp/halt"
for value in bytes bytes:0 lines -1 ''; do
    refused 2 "--io-extent '$value' is a usage error" --io-extent "$value" "$tmp/halt"
done
refused 2 '--gdb-nowait alone is a usage error' --gdb-nowait "$tmp/halt"
refused 2 'the counters must not overwrite the kernel' --stats "$tmp/halt" "$tmp/halt"
refused 2 'the console must not overwrite the kernel' --serial "$tmp/halt" "$tmp/halt"
cp "$tmp/halt" "$tmp/module"
refused 2 'the console must not overwrite the RAM disk' --initrd "$tmp/module" --serial "$tmp/module" "$tmp/halt"
refused 2 'console and counters need a file each' --serial "$tmp/x" --stats "$tmp/x" "$tmp/halt"

# ---- 0: the guest ended itself ----
ends 0 'power-off ends with 0' --stats "$tmp/stats" "$tmp/power_off"
is "$errors" '' 'and nothing is said about it'
shutdown_is power-off
for reset in fast keyboard chipset; do
    ends 0 "a reset by the $reset ends with 0" --stats "$tmp/stats" "$tmp/${reset}_reset"
    shutdown_is reset
done
ends 0 'halting for ever ends with 0' --stats "$tmp/stats" "$tmp/halt"
shutdown_is halt

# ---- the debug exit ----
for pair in 0:1 1:3 5:11 31:63 200:145; do
    ends "${pair#*:}" "a debug exit with ${pair%:*} ends with ${pair#*:}" --stats "$tmp/stats" \
        "$tmp/debug_exit_${pair%:*}"
done
shutdown_is debug-exit

# ---- 66: the image ----
refused 66 'a kernel that is not there' "$tmp/none"
refused 66 'a folder is no kernel' "$tmp"
if [ "$(id -u)" -ne 0 ]; then
    cp "$tmp/halt" "$tmp/secret"
    chmod 0 "$tmp/secret"
    refused 66 'a kernel that must not be read' "$tmp/secret"
else
    skip 'a kernel that must not be read' 'root may read all'
fi
refused 66 'a file that is no kernel' man/hvrun.1
refused 66 'an empty file' /dev/null
head -c 60 "$tmp/halt" > "$tmp/cut"
refused 66 'a kernel that is cut off' "$tmp/cut"
refused 66 'a program that speaks no boot protocol' "$program"
refused 66 'a RAM disk that is not there' --initrd "$tmp/none" "$tmp/halt"
truncate -s 70M "$tmp/large"
refused 66 'a RAM disk larger than the memory' --memory 64M --initrd "$tmp/large" "$tmp/halt"
check 'the message says what to do' grep -q -- 'large.*--memory' "$tmp/errors"
refused 66 'memory for no kernel' --memory 1M "$tmp/halt"
is "$(ls "$tmp/work")" '' 'refusals write nothing'

# ---- 70: the guest died ----
ends 70 'a triple fault ends with 70' --stats "$tmp/stats" "$tmp/triple"
shutdown_is triple-fault
check 'its registers are on stderr' grep -qi 'rip ' "$tmp/errors"
check 'and where it was' grep -q '_start+' "$tmp/errors"
is "$out" '' 'not on stdout'

# ---- 74: the host ----
for path in "$tmp/none/x" "$tmp"; do
    refused 74 "counters that cannot be written are found before the run: ${path##*/}" --stats "$path" "$tmp/hello"
    refused 74 "so is a console that cannot be written: ${path##*/}" --serial "$path" "$tmp/hello"
done
ends 74 'counters on a full disk' --stats /dev/full "$tmp/hello"
is "$out" hello 'the guest has run then'
one_line 'and one line tells'
for arguments in --help --version "$tmp/hello"; do
    "$program" "$arguments" < /dev/null > /dev/full 2> "$tmp/errors"
    is "$?:$(grep -c '^hvrun: ' "$tmp/errors"):$(wc -l < "$tmp/errors")" 74:1:1 \
        "a full standard output is a write error: ${arguments##*/}"
done
ends 74 'a console on a full disk' --serial /dev/full --stats "$tmp/stats" --timeout 60 "$tmp/chatty"
one_line 'one line tells'
shutdown_is host-error
# shellcheck disable=SC2094 # the reader goes away
timeout 60 "$program" "$tmp/chatty" < /dev/null 2> "$tmp/errors" | head -n 3 > "$tmp/out"
is "${PIPESTATUS[0]}:$(wc -l < "$tmp/errors")" 74:1 'a reader that goes away ends the run'

# ---- 78: the engine ----
refused 78 'an engine that cannot do what is asked' --engine kvm --deterministic "$tmp/halt"
ends 0 'the software processor can be named' --engine soft "$tmp/halt"
ends 0 'or left to hvrun' --engine auto "$tmp/halt"

# ---- 124: the timeout, whatever the guest does ----
ends 124 'a guest that spins with interrupts off is ended' --timeout 0.5 --stats "$tmp/stats" "$tmp/spin"
shutdown_is timeout
check 'a line says that it was the timeout' grep -qx 'hvrun: ended by --timeout after 0.5 s' "$tmp/errors"
check 'a line says where the guest was' grep -q '^hvrun: vCPU 0 was at RIP 0x[0-9a-f]* (forever+0x0)$' "$tmp/errors"
check 'the counters of a guest that hung are whole' jq -e '.wall_seconds >= 0.4' "$tmp/stats"
ends 124 'a guest that waits is ended' --timeout 0.5 "$tmp/idle"
check 'a line says that it was halted' grep -q '^hvrun: vCPU 0 was at RIP .*, halted$' "$tmp/errors"
ends 124 'a guest that floods the console is ended' --timeout 0.5 --serial "$tmp/flood" "$tmp/chatty"
ends 124 'all processors are told' --timeout 0.3 --smp 3 "$tmp/spin"
is "$(grep -c '^hvrun: vCPU' "$tmp/errors")" 3 'a line for each'
mkfifo "$tmp/stuck"
tail -f /dev/null < "$tmp/stuck" &
sleeper=$!
"$program" --timeout 0.5 "$tmp/chatty" < /dev/null > "$tmp/stuck" 2> "$tmp/errors"
is $? 124 'a reader that stops reading does not keep the guest from its end'
kill "$sleeper"
wait "$sleeper" 2> /dev/null

# ---- 129, 130, 143: signals ----
# signalled SIGNAL GUEST: starts the guest in the background, sends the signal once it has spoken
signalled() {
    : > "$tmp/console"
    # a shell makes background commands ignore SIGINT: env gives it its meaning back
    env --default-signal=INT "$program" --timeout 60 --serial "$tmp/console" --stats "$tmp/stats" "$tmp/$2" \
        < /dev/null > "$tmp/out" 2> "$tmp/errors" &
    local child=$! tries=0
    until [ -s "$tmp/console" ] || [ $((tries += 1)) -gt 200 ]; do sleep 0.05; done
    kill "-$1" "$child"
    wait "$child"
    status=$?
    errors=$(cat "$tmp/errors")
}
for pair in INT:130 TERM:143 HUP:129; do
    for kind in chatty idle; do
        signalled "${pair%:*}" $kind
        is "$status" "${pair#*:}" "SIG${pair%:*} ends a guest ($kind) with ${pair#*:}"
        is "$(head -n 1 "$tmp/errors")" "hvrun: ended by SIG${pair%:*}" 'and a line says so'
        shutdown_is signal
    done
done

# ---- data on stdout, messages on stderr ----
ends 0 '--summary tells the run' --summary --io-blocks off "$tmp/hello"
is "$out" hello 'standard output is the guest'\''s alone'
check 'the summary is on stderr: how and how long' grep -Eq '^hvrun: halt after [0-9.]+ s, [0-9]+ guest' "$tmp/errors"
check 'and exits by reason' grep -q '^hvrun: exits 6: io 6; beside these: hlt 1$' "$tmp/errors"
check 'and by place' grep -q '^hvrun: *6 .* put$' "$tmp/errors"
printf 'longer than what follows\n' > "$tmp/console"
ends 0 '--serial writes a file' --serial "$tmp/console" "$tmp/hello"
is "$out:$(cat "$tmp/console")" ':hello' 'whose old contents are gone'

# ---- counters ----
ends 0 '--stats writes a file' --io-blocks off --stats "$tmp/work/stats" "$tmp/hello"
is "$(ls "$tmp/work")" stats 'and nothing beside it'
is "$(jq -c '[.engine, .exits.total, .exits.io, .io.instructions, .io.events, .steps]' "$tmp/work/stats")" \
    '["soft",6,6,6,6,0]' 'the counters are those of the run'
valid='the counters are what their JSON Schema says'
if [ -x "$BUILD/tests/tools/schema_check" ]; then
    check "$valid" "$BUILD/tests/tools/schema_check" docs/stats.schema.json "$tmp/work/stats"
    check "$valid, of a guest that died too" \
        "$BUILD/tests/tools/schema_check" docs/stats.schema.json "$tmp/stats"
    jq '.exits.io = -1' "$tmp/work/stats" > "$tmp/bad"
    check_status 1 'the schema refuses others' \
        "$BUILD/tests/tools/schema_check" docs/stats.schema.json "$tmp/bad"
else
    skip "$valid" 'schema_check is not built'
fi
keys=$(jq -r '[paths[]] | unique[]' "$tmp/work/stats")
is "$(for key in $keys; do grep -qw -- "$key" man/hvrun.1 || echo "$key"; done)" '' 'hvrun(1) has every key'
is "$(jq -r '.. | .enum? // empty | .[]' docs/stats.schema.json | while read -r word; do
    grep -qw -- "$word" man/hvrun.1 || echo "$word"
done)" '' 'and every word'
echo old > "$tmp/work/stats"
"$program" --stats "$tmp/work/stats" "$tmp/echo" < <(sleep 0.3; echo q) > /dev/null &
sleep 0.1
is "$(cat "$tmp/work/stats")" old 'the old counters stay until the new ones are whole'
wait $!
is "$(jq -r .shutdown "$tmp/work/stats")" power-off 'then those are there'

# ---- repeatable runs ----
for n in 1 2; do
    ends 1 'a guest with timers and interrupts runs' --deterministic --stats "$tmp/run$n" "$BUILD/samples/interrupts.elf"
    cp "$tmp/out" "$tmp/out$n"
done
is "$(jq -c 'del(.wall_seconds, .translator.seconds)' "$tmp/run1")" \
    "$(jq -c 'del(.wall_seconds, .translator.seconds)' "$tmp/run2")" \
    '--deterministic: a second run counts the same'
check 'and says the same' cmp "$tmp/out1" "$tmp/out2"

# ---- closed descriptors ----
"$program" "$tmp/hello" <&- > "$tmp/out" 2> "$tmp/errors"
is "$?:$(cat "$tmp/out" "$tmp/errors")" 0:hello 'without a standard input the guest runs'
"$program" --stats "$tmp/work/stats" "$tmp/hello" < /dev/null >&- 2> "$tmp/errors"
is "$?:$(wc -l < "$tmp/errors")" 74:1 'without a standard output its output is lost, and a line says so'
is "$(jq -r .engine "$tmp/work/stats")" soft 'the counters do not land in its place'
"$program" "$tmp/triple" < /dev/null > "$tmp/out" 2>&-
is "$?:$(cat "$tmp/out")" 70: 'without a standard error the exit code tells'
"$program" --stats "$tmp/work/stats" --summary "$tmp/hello" <&- >&- 2>&-
is "$?" 74 'without any of them too'
check 'and the counters are whole' jq -e .engine "$tmp/work/stats"

# ---- input from a pipe ----
is "$(printf 'HALq' | "$program" --timeout 60 "$tmp/echo")" $'ready\nI\nB\nM' 'input from a pipe reaches the guest'
is "$(printf '\001xq' | "$program" --timeout 60 "$tmp/echo" | od -An -c | tr -d ' \n')" 'ready\n002\ny\n' \
    'where Ctrl-A is like any other byte'

# ---- a terminal ----
# on_terminal GUEST KEYS: runs the guest on a pseudoterminal, types the keys once it is ready; the screen is in
# $tmp/screen, the terminal's settings before and after in $tmp/before and $tmp/after, $status is hvrun's
on_terminal() {
    cat > "$tmp/session" << SESSION
stty -a > "$tmp/before"
"$program" --timeout 60 --stats "$tmp/stats" "$tmp/$1" 2> "$tmp/errors"
echo \$? > "$tmp/status"
stty -a > "$tmp/after"
SESSION
    rm -f "$tmp/keys" "$tmp/screen" "$tmp/status"
    mkfifo "$tmp/keys"
    timeout 60 script -qfc "sh $tmp/session" "$tmp/screen" < "$tmp/keys" > "$tmp/script" 2>&1 &
    local child=$! tries=0
    exec 3> "$tmp/keys"
    until grep -aq "$2" "$tmp/screen" 2> /dev/null || [ $((tries += 1)) -gt 200 ]; do sleep 0.05; done
    printf '%b' "$3" >&3
    tries=0
    until [ -s "$tmp/status" ] || [ $((tries += 1)) -gt 200 ]; do sleep 0.05; done
    exec 3>&-
    wait "$child"
    status=$(cat "$tmp/status")
}
if command -v script > /dev/null; then
    on_terminal echo ready 'H\003\032q'
    is "$status" 0 'a guest on a terminal powers off'
    is "$(tr -d '\r' < "$tmp/screen" | grep -ax -A 3 ready | od -An -c | tr -d ' \n')" 'ready\nI\n004\n033\n' \
        'keys reach it at once and without echo, Ctrl-C and Ctrl-Z among them'
    check 'the terminal is as before' cmp "$tmp/before" "$tmp/after"
    for kind in echo:ready idle:waiting chatty:x; do
        on_terminal "${kind%:*}" "${kind#*:}" '\001x'
        is "$status" 0 "Ctrl-A x ends a guest ($kind) with 0"
        shutdown_is quit
        check 'the terminal is as before' cmp "$tmp/before" "$tmp/after"
    done
    on_terminal echo ready '\001h\001\001\001zHq'
    check 'Ctrl-A h prints help' grep -aq 'Ctrl-A x *quit' "$tmp/screen"
    is "$(tr -d '\r' < "$tmp/screen" | grep -a -A 4 'send Ctrl-A' | tail -n +2 | head -n 2 | od -An -c | tr -d ' \n')" \
        '002\nI\n' 'Ctrl-A Ctrl-A sends one, and unknown commands send nothing'
else
    skip 'a guest on a terminal' 'there is no script(1)'
fi

plan_done
