#!/bin/bash
# SPDX-License-Identifier: MIT
# The command line of patchc: what scripts depend on. Exit codes, defaults, where output goes, help.
. tests/integration/tap.sh
. tests/integration/command.sh

patchc=$(realpath "$BUILD/patchc")
program=$patchc
commands='build scan inspect verify restore'
mkdir "$tmp/work"

# A guest with a few listed instructions, and padding for their routines.
cat > "$tmp/guest.S" <<'ASM'
        .globl _start
_start: mov $1, %eax
        cpuid
        mov %ebx, %esi
        mov $0x3f8, %edx
        in (%dx), %al
        mov %eax, %edi
        mov $0x1b, %ecx
        rdmsr
        mov %eax, %edi
1:      hlt
        jmp 1b
        .fill 8192, 1, 0xcc
        nop
        .section .note.GNU-stack,"",@progbits
ASM
gcc -nostdlib -static -Wl,-Ttext=0x100000 -Wl,--build-id=none -o "$tmp/guest" "$tmp/guest.S" ||
    skip_all 'no compiler for the guest'

# ---- help and version ----
run "$patchc" --version
is "$status:$out:$errors" "0:patchc $(cat VERSION):" '--version prints the version'
for command in '' $commands; do
    # shellcheck disable=SC2086 # no command is no argument
    run "$patchc" $command --help
    is "$status:$errors" 0: "patchc ${command:+$command }--help succeeds and says nothing on stderr"
    is "$(awk 'length > 80 || NR > 24' "$tmp/out")" '' \
        "patchc ${command:+$command }--help fits a screen"
done
for command in $commands; do
    run "$patchc" "$command" --version
    is "$status:$out" "0:patchc $(cat VERSION)" "patchc $command --version prints the version"
done
run "$patchc" --help
for command in $commands; do
    check "--help names $command" grep -q "^  $command " "$tmp/out"
done

# ---- help, manual and completion agree ----
# The manual's options, one "COMMAND --NAME" a line: an item is followed by the commands that take it.
manual_options() {
    awk '
        /^\.Sh/ { options = 0 }
        /^\.Ss Options/ { options = 1 }
        /^\.El/ { options = 0 }
        options && /^\.It/ {
            pending = ""
            for (i = 1; i < NF; i++)
                if ($i == "Fl" && $(i + 1) ~ /^-./) pending = "-" $(i + 1)
            getline
            if ($1 == ".Pq") { gsub(/[.,]|Pq/, ""); count = split($0, takes, " ") }
            else count = split("build scan inspect verify restore", takes, " ")
            for (i = 1; i <= count; i++) print takes[i], pending
        }' man/patchc.1 | sort
}
help_options() {
    local command
    for command in $commands; do
        "$patchc" "$command" --help | grep -oE '^ .*--[a-z-]+' | grep -oE -- '--[a-z-]+' |
            sed "s/^/$command /"
    done | sort
}
is "$(help_options)" "$(manual_options)" 'the options of every --help are those of patchc(1)'
complete_options() {
    local command
    # shellcheck source=/dev/null
    . completion/patchc
    for command in $commands; do
        COMP_WORDS=(patchc "$command" --) COMP_CWORD=2 COMPREPLY=()
        _patchc
        printf "$command %s\n" "${COMPREPLY[@]}"
    done | sort
}
is "$(complete_options)" "$(help_options)" 'the completion offers the options of every --help'
completed_commands() {
    # shellcheck source=/dev/null
    . completion/patchc
    COMP_WORDS=(patchc '') COMP_CWORD=1 COMPREPLY=()
    _patchc
    printf '%s\n' "${COMPREPLY[@]}" | grep -v '^-' | sort | paste -sd ' '
}
is "$(completed_commands)" "$(tr ' ' '\n' <<< "$commands" | sort | paste -sd ' ')" \
    'the completion offers every command'

# ---- usage errors ----
guest=$tmp/guest
refused 2 'no command is a usage error'
refused 2 'an unknown command is a usage error' patch "$guest"
refused 2 'an unknown option before the command is a usage error' --frobnicate
for command in $commands; do
    refused 2 "patchc $command without operands is a usage error" "$command"
    refused 2 "patchc $command with an unknown option is a usage error" "$command" --frobnicate x y
    refused 2 "patchc $command with an unknown letter is a usage error" "$command" -Z x y
    refused 2 "patchc $command with too many operands is a usage error" "$command" a b c
done
refused 2 'an option without its value is a usage error' build "$guest" --form
refused 2 'a letter without its value is a usage error' build "$guest" -o
refused 2 'a flag with a value is a usage error' build --assume-reserved=yes "$guest"
refused 2 'an unknown form is a usage error' build --form jumps "$guest"
refused 2 'an empty name is a usage error' build -o '' "$guest"
for percent in -1 101 nan 0x10 1e1 '' 'ten'; do
    refused 2 "--min-coverage '$percent' is a usage error" build --min-coverage "$percent" "$guest"
done
refused 2 'D6: a bad rule of --only is a usage error' build --only 'nosuchmnemonic' "$guest"
refused 2 'D6: a bad rule of --skip is a usage error' build --skip 'cpuid frob=1' "$guest"
refused 2 'restore without -o is a usage error' restore "$guest"
refused 2 'the output must not be the input' build -o "$guest" "$guest"
refused 2 'the report must not be the input' build -o "$tmp/work/x" --report "$guest" "$guest"
refused 2 'inspect shows one thing at a time' inspect --site 0x1 --diff "$guest" "$guest"
is "$(ls "$tmp/work")" '' 'usage errors write nothing'

# ---- build, its defaults and where its output goes ----
cp "$guest" "$tmp/work/guest"
succeeds 'build with the default names succeeds' build "$tmp/work/guest"
is "$(wc -l < "$tmp/out")" 1 'build prints one line'
check 'the line tells how many sites are patched, and the report' \
    grep -Eq '^guest.patched: [0-9]+ of [0-9]+ sites patched \([0-9.]+ %\), report guest.patched.json$' \
    "$tmp/out"
is "$(cd "$tmp/work" && echo ./*)" './guest ./guest.patched ./guest.patched.json' \
    'image and report stand beside the input, and nothing else'
is "$(jq -r '.schema, .input.name, .output.name, .list' "$tmp/work/guest.patched.json" | paste -sd ' ')" \
    '1 guest guest.patched kvm.list' 'the report names its files by base name'
is "$(jq -r '.sites[0].instruction' "$tmp/work/guest.patched.json")" cpuid \
    'D6: the list, not the user, found the instruction'
if [ -x "$BUILD/tests/tools/schema_check" ]; then
    check 'the report is what its JSON Schema says' \
        "$BUILD/tests/tools/schema_check" docs/report.schema.json "$tmp/work/guest.patched.json"
else
    skip 'the report is what its JSON Schema says' 'schema_check is not built'
fi
succeeds '-o names the image, and the report follows' build -o "$tmp/work/other" "$guest"
check 'the report of -o OUT is OUT.json' test -s "$tmp/work/other.json"
check 'the same input gives the same image' cmp "$tmp/work/guest.patched" "$tmp/work/other"
is "$(jq -cS 'del(.output.name)' "$tmp/work/other.json")" \
    "$(jq -cS 'del(.output.name)' "$tmp/work/guest.patched.json")" 'and the same report'
succeeds '--report names the report' build -o "$tmp/work/third" --report "$tmp/work/r" "$guest"
check 'the report stands where --report says' jq -e .schema "$tmp/work/r"
check_status 1 'and not at the default place' test -e "$tmp/work/third.json"
refused 3 'a patched image is refused as input' build -o "$tmp/work/twice" "$tmp/work/guest.patched"
refused 4 'an output folder that is not there is a write error' build -o "$tmp/none/x" "$guest"
refused 4 'an output that is a folder is a write error' build -o "$tmp/work" "$guest"

# ---- lists ----
for list in kvm kvm.list io deprivileged lists/kvm.list; do
    succeeds "D6: -l $list is found" scan -l "$list" "$guest"
done
(cd "$tmp/work" && "$patchc" scan --json guest) > "$tmp/out" 2>&1
is "$(jq -r .list "$tmp/out")" kvm.list 'D6: the default list is found from any folder'
refused 4 'a list that is not there is a read error' scan -l nosuch.list "$guest"
refused 4 'a list path that is not there is a read error' scan -l "$tmp/nosuch.list" "$guest"
echo 'include frobnicate' > "$tmp/bad.list"
refused 3 'a list with an error is unusable input' scan -l "$tmp/bad.list" "$guest"
check 'the error names file, line and column' grep -q 'bad\.list:1:' "$tmp/errors"

# ---- coverage ----
echo 'include fninit' > "$tmp/fninit.list"
sed 's/cpuid/fninit/' "$tmp/guest.S" > "$tmp/fninit.S"
gcc -nostdlib -static -Wl,-Ttext=0x100000 -o "$tmp/fninit" "$tmp/fninit.S"
refused 1 'too little coverage is a failed check' \
    build -l "$tmp/fninit.list" --min-coverage 50 -o "$tmp/work/low" "$tmp/fninit"
check_status 1 'then the image is not written' test -e "$tmp/work/low"
is "$(jq -r '"\(.summary.coverage) \(.output)"' "$tmp/work/low.json")" '0 null' 'but the report is'
succeeds 'enough coverage is none' build --min-coverage 0% -o "$tmp/work/high" "$guest"

# ---- --only and --skip ----
succeeds 'D6: --only takes a rule' build --only cpuid -o "$tmp/work/only" "$guest"
is "$(jq -r '[.sites[] | select(.status == "patched") | .instruction] | unique | .[]' \
    "$tmp/work/only.json")" cpuid 'D6: --only cpuid patches cpuid only'
succeeds 'D6: --skip takes a rule' build --skip cpuid --skip hlt -o "$tmp/work/skip" "$guest"
is "$(jq -r '[.sites[] | select(.status == "patched") | .instruction |
    select(. == "cpuid" or . == "hlt")] | length' "$tmp/work/skip.json")" 0 \
    'D6: --skip cpuid --skip hlt patches neither'

# ---- scan ----
succeeds 'scan prints a table' scan "$guest"
check 'the table tells address, bytes and instruction' grep -Eq '^0000000000100005 +0fa2 +cpuid ' \
    "$tmp/out"
succeeds 'scan prints JSON' scan --json "$guest"
is "$(jq -r '.sites[0] | "\(.address) \(.bytes) \(.status)"' "$tmp/out")" \
    '0x100005 0fa2 eligible' 'the JSON tells the same'
is "$(find "$tmp/work" -newer "$tmp/out")" '' 'scan writes no file'

# ---- inspect, verify, restore ----
report=$tmp/work/guest.patched.json
succeeds 'inspect summarises a report' inspect "$report"
check 'the summary counts instructions' grep -Eq '^  cpuid +1' "$tmp/out"
check_status 1 'and has no colours in a pipe' grep -q $'\e' "$tmp/out"
succeeds 'inspect prints JSON' inspect --json "$report"
check 'which is JSON' jq -e '.sites > 0' "$tmp/out"
succeeds 'inspect shows one site' inspect --site _start+0x5 "$report"
refused 1 'a site that is not there is a failed check' inspect --site 0x1 "$report"
succeeds 'inspect reads the image alone' inspect "$tmp/work/guest.patched"
succeeds 'inspect shows a site of the image' inspect --site 0x100005 "$tmp/work/guest.patched"
check 'with the code of both' grep -q 'ORIGINAL .*PATCHED' "$tmp/out"
succeeds 'inspect compares two reports' inspect --diff "$tmp/work/only.json" "$report"
succeeds 'inspect writes a page' inspect --html "$tmp/work/page.html" "$report"
check 'the page has the sites' grep -q 0x100005 "$tmp/work/page.html"
succeeds 'verify finds nothing wrong' verify "$guest" "$tmp/work/guest.patched"
refused 3 'restore needs a patched image' restore "$guest" -o "$tmp/work/nothing"
check_status 1 'and writes nothing else' test -e "$tmp/work/nothing"
succeeds 'restore gives the original back' restore "$tmp/work/guest.patched" -o "$tmp/work/again"
check 'bit for bit' cmp "$guest" "$tmp/work/again"

# ---- output that cannot be printed ----
for arguments in --help "scan $guest" "inspect $report"; do
    # shellcheck disable=SC2086 # several arguments
    "$patchc" $arguments > /dev/full 2> "$tmp/errors"
    is "$?:$(wc -l < "$tmp/errors")" 4:1 "a full standard output is a write error: ${arguments%% *}"
done

plan_done
