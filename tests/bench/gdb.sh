# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
# Steps per second through gdb's remote protocol: hvrun against QEMU's gdbstub, each over TCP and over a Unix socket, with
# one raw client (gdb_steps.c). Sourced by tests/bench/run.

GDB_SECONDS=${GDB_SECONDS:-1}

# gdb_server NAME KERNEL TARGET: starts a server that waits at the guest's first instruction; $server.
gdb_server() {
    local chardev=socket,id=gdb,server=on,wait=off
    case $1-$3 in
    hvrun-*) "$BUILD/hvrun" --engine soft --serial /dev/null --gdb "$3" "$2" &>/dev/null </dev/null & ;;
    qemu-unix:*) gdb_qemu "$2" -chardev "$chardev,path=${3#unix:}" & ;;
    qemu-*) gdb_qemu "$2" -chardev "$chardev,host=127.0.0.1,port=$3,nodelay=on" & ;;
    esac
    server=$!
}

gdb_qemu() { # KERNEL OPTION...
    local kernel=$1
    shift
    exec "${QEMU:-qemu-system-x86_64}" -accel tcg -display none -serial null -monitor none -S -kernel "$kernel" -gdb chardev:gdb \
        "$@" &>/dev/null </dev/null
}

# gdb_steps NAME KERNEL TARGET: appends the steps per second to gdb.NAME.KIND.times.
gdb_steps() {
    local server kind=tcp
    [[ $3 != unix:* ]] || kind=unix
    gdb_server "$@"
    printf '%s 0\n' "$("$BUILD/tests/bench/gdb_steps" "$GDB_SECONDS" "$3")" >>"$work/gdb.$1.$kind.times"
    kill "$server" 2>/dev/null || :
    wait "$server" 2>/dev/null || :
}

gdb_json() { # KERNEL
    local port=$((20000 + RANDOM % 20000)) i
    for ((i = 0; i < ROUNDS; i++)); do
        gdb_steps hvrun "$1" $((port + 2 * i))
        gdb_steps qemu "$1" $((port + 2 * i + 1))
        gdb_steps hvrun "$1" "unix:$work/gdb.socket"
        gdb_steps qemu "$1" "unix:$work/gdb.socket"
        rm -f "$work/gdb.socket"
    done
    jq -n --argjson ht "$(median "$work/gdb.hvrun.tcp.times" 1)" --argjson qt "$(median "$work/gdb.qemu.tcp.times" 1)" \
        --argjson hu "$(median "$work/gdb.hvrun.unix.times" 1)" --argjson qu "$(median "$work/gdb.qemu.unix.times" 1)" '
        {tcp: {hvrun: $ht, qemu: $qt, times: ($ht / $qt)}, unix: {hvrun: $hu, qemu: $qu, times: ($hu / $qu)}}'
}

print_gdb() { # JSON
    jq -r 'def fixed: . * 10 | round / 10;
        "Steps per second through gdb'\''s protocol, the same client:",
        (to_entries[] | "  \({"tcp": "TCP", "unix": "Unix socket"}[.key]): hvrun \(.value.hvrun), QEMU \(.value.qemu): "
            + "\(.value.times | fixed) times as many"), ""' <<<"$1"
}
