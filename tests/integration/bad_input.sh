#!/bin/bash
# SPDX-License-Identifier: MIT
# Bad input: one clear line, exit code 3 or 4, no output file, no crash, bounded time.
. tests/integration/tap.sh

patchc=$(realpath "$BUILD/patchc")
mkdir "$tmp/in" "$tmp/work"
cat > "$tmp/guest.S" <<'ASM'
        .globl _start
_start: mov $1, %eax
        cpuid
        mov %ebx, %esi
        mov $0x3f8, %edx
        in (%dx), %al
        mov %eax, %edi
1:      hlt
        jmp 1b
        .fill 4096, 1, 0xcc
        nop
        .section .note.GNU-stack,"",@progbits
ASM
guest=$tmp/in/guest
gcc -nostdlib -static -Wl,-Ttext=0x100000 -Wl,--build-id=none -o "$guest" "$tmp/guest.S" ||
    skip_all 'no compiler for the guest'
size=$(stat -c %s "$guest")

# refusal STATUSES COMMAND...: empty if the command ends with one of these statuses, prints nothing, says
# one line on stderr and writes nothing; else what is wrong.
refusal() {
    local expected=$1 status
    shift
    timeout 60 "$@" > "$tmp/out" 2> "$tmp/errors"
    status=$?
    [[ " $expected " == *" $status "* ]] || printf 'exit status %s: %s\n' "$status" "$*"
    [ ! -s "$tmp/out" ] || printf 'something on stdout\n'
    if [ "$(wc -l < "$tmp/errors")" -ne 1 ] || ! grep -q '^patchc: .' "$tmp/errors"; then
        printf 'stderr: %s\n' "$(< "$tmp/errors")"
    fi
    if [ -n "$(ls -A "$tmp/work")" ]; then
        printf 'left behind: %s\n' "$(ls -A "$tmp/work")"
        rm -f "$tmp/work"/*
    fi
}

# refused STATUSES SENTENCE COMMAND...
refused() {
    local expected=$1 sentence=$2
    shift 2
    is "$(refusal "$expected" "$@")" '' "$sentence"
}

# every STATUSES SENTENCE FILE: refused by each command that reads an image.
every() {
    local file=$3
    refused "$1" "build: $2" "$patchc" build -o "$tmp/work/out" "$file"
    refused "$1" "scan: $2" "$patchc" scan "$file"
    refused "$1" "inspect: $2" "$patchc" inspect "$file"
    refused "$1" "verify, as original: $2" "$patchc" verify "$file" "$guest"
    refused "1 $1" "verify, as patched: $2" "$patchc" verify "$guest" "$file"
    refused "$1" "restore: $2" "$patchc" restore "$file" -o "$tmp/work/out"
}

# with OFFSET BYTES: a copy of the guest with these bytes (octal escapes) there.
with() {
    cp "$guest" "$tmp/in/changed"
    printf '%b' "${2//\\/\\0}" | dd of="$tmp/in/changed" bs=1 seek="$1" conv=notrunc status=none
}

# ---- files that are no image ----
: > "$tmp/in/empty"
every 3 'an empty file is refused' "$tmp/in/empty"
head -c 100000 "$BASH" | tr '\0-\377' '\1-\377\0' > "$tmp/in/random"
every 3 'random bytes are refused' "$tmp/in/random"
yes 'not a kernel' | head -c 65536 > "$tmp/in/text"
every 3 'text is refused' "$tmp/in/text"
every 3 'a directory is refused' "$tmp/in"
mkfifo "$tmp/in/fifo"
every 3 'a FIFO is refused, not waited for' "$tmp/in/fifo"
every 3 'a device is refused' /dev/zero
every 4 'a file that is not there is a read error' "$tmp/in/nothing"
every 4 'a path through a file is a read error' "$guest/nothing"

# ---- ELF files that are no kernel of ours ----
with 18 '\267\0' # e_machine EM_AARCH64
every 3 'another architecture is refused' "$tmp/in/changed"
with 5 '\2' # EI_DATA ELFDATA2MSB
every 3 'a big-endian image is refused' "$tmp/in/changed"
with 4 '\3' # EI_CLASS
every 3 'an unknown ELF class is refused' "$tmp/in/changed"
with 16 '\1\0' # e_type ET_REL
every 3 'an object file is refused' "$tmp/in/changed"
with 32 '\377\377\377\377\377\377\377\177' # e_phoff
every 3 'program headers outside the file are refused' "$tmp/in/changed"
with 56 '\377\377' # e_phnum
every 3 'an absurd number of program headers is refused' "$tmp/in/changed"
with 40 '\360\377\377\377\377\377\377\377' # e_shoff
every 3 'section headers outside the file are refused' "$tmp/in/changed"
with 96 '\377\377\377\377\377\377\377\377' # p_filesz of the first segment
every 3 'an absurd segment size is refused' "$tmp/in/changed"

# ---- truncation: at each of the first bytes, then in steps ----
wrong=
cuts=0
for ((cut = 0; cut < size; cut += cut < 128 ? 1 : 97)); do
    head -c "$cut" "$guest" > "$tmp/in/cut"
    wrong+=$(refusal 3 "$patchc" build -o "$tmp/work/out" "$tmp/in/cut")
    cuts=$((cuts + 1))
done
is "$wrong" '' "an image truncated at any of $cuts places is refused"

# ---- patched images that are damaged ----
patched=$tmp/in/patched
if "$patchc" build -o "$patched" "$guest" > "$tmp/out" 2>&1; then
    size=$(stat -c %s "$patched")
    wrong=
    for ((cut = 0; cut < size; cut += cut < 64 ? 7 : 331)); do
        head -c "$cut" "$patched" > "$tmp/in/cut"
        wrong+=$(refusal 3 "$patchc" restore "$tmp/in/cut" -o "$tmp/work/out")
        wrong+=$(refusal 3 "$patchc" inspect "$tmp/in/cut")
        wrong+=$(refusal '1 3' "$patchc" verify "$guest" "$tmp/in/cut")
    done
    is "$wrong" '' 'a truncated patched image is refused by restore, inspect and verify'
    wrong=
    for ((cut = 1; cut < $(stat -c %s "$patched.json"); cut += 41)); do
        head -c "$cut" "$patched.json" > "$tmp/in/cut"
        wrong+=$(refusal 3 "$patchc" inspect "$tmp/in/cut")
    done
    is "$wrong" '' 'a truncated report is refused'
    refused 3 'a patched image is no input' "$patchc" build -o "$tmp/work/out" "$patched"
else
    not_ok 'the guest can be patched' "$(< "$tmp/out")"
fi

# ---- files that cannot be read or written ----
if [ "$(id -u)" -eq 0 ]; then
    as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 755 "$tmp" "$tmp/in"
    chmod 777 "$tmp/work"
else
    as_user=()
fi
cp "$guest" "$tmp/in/unreadable"
chmod 0 "$tmp/in/unreadable"
mkdir "$tmp/locked"
chmod 555 "$tmp/locked"
if "${as_user[@]}" "$patchc" --version > "$tmp/out" 2>&1; then
    for command in build scan inspect; do
        refused 4 "$command: an unreadable file is a read error" \
            "${as_user[@]}" "$patchc" "$command" "$tmp/in/unreadable"
    done
    refused 4 'build: a folder that cannot be written is a write error' \
        "${as_user[@]}" "$patchc" build -o "$tmp/locked/out" "$guest"
    is "$(ls -A "$tmp/locked")" '' 'and nothing is left there'
else
    skip 'unreadable files and folders that cannot be written' 'cannot become another user here'
fi
refused '3 4' 'a list that is a directory is refused' \
    "$patchc" scan -l "$tmp/in/" "$guest"

# ---- a full disk ----
# A limit of one block stands for it: it works without privileges, and a write fails in the same place.
limited=(bash -c 'ulimit -f 1 && exec "$@"' limited)
if [ -s "$patched" ]; then
    refused 4 'restore: a disk that fills up is a write error, and nothing is left' \
        "${limited[@]}" "$patchc" restore "$patched" -o "$tmp/work/out"
fi
refused 4 'build: a disk that fills up is a write error, and nothing is left' \
    "${limited[@]}" "$patchc" build -o "$tmp/work/out" "$guest"
mkdir "$tmp/small"
if mount -t tmpfs -o size=4k patchvisor "$tmp/small" 2> "$tmp/errors"; then
    refused 4 'build: a full file system is a write error' \
        "$patchc" build -o "$tmp/small/out" "$guest"
    is "$(ls -A "$tmp/small")" '' 'and nothing is left there'
    umount "$tmp/small"
else
    skip 'build: a full file system is a write error' 'mounting is not allowed here'
fi

# ---- lists ----
head -c 100000 "$tmp/in/random" > "$tmp/in/random.list"
refused 3 'a list of random bytes is refused' "$patchc" scan -l "$tmp/in/random.list" "$guest"
printf 'include cpuid\0hlt\n' > "$tmp/in/nul.list"
refused 3 'a list with a NUL is refused' "$patchc" scan -l "$tmp/in/nul.list" "$guest"

# ---- a name that is no text ----
bad=$tmp/in/$'two\nlines\e[2J'
cp "$tmp/in/text" "$bad"
refused 3 'control characters of a file name do not get into the error line' "$patchc" scan "$bad"
check_status 1 'nor to the terminal' grep -q $'\e' "$tmp/errors"

plan_done
