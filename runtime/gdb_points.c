/* SPDX-License-Identifier: MIT */
/* Z and z: breakpoints and watchpoints. A software breakpoint is as little in the guest's memory
 * as a hardware one, and there are thousands of either. */
#include "runtime/breakpoints.h"
#include "runtime/gdb_server.h"

static const enum stop_kind kinds[] = {STOP_SOFTWARE, STOP_HARDWARE, STOP_WRITE, STOP_READ,
                                       STOP_ACCESS};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* TYPE,ADDRESS,LENGTH, and maybe conditions that gdb would like to have evaluated here: it was
 * not told that it may. A type that is not known gets the empty reply. */
static bool parse(struct gdb *gdb, const char *args, enum stop_kind *kind, uint64_t *address,
                  uint64_t *length)
{
    uint64_t type;
    if (!gdb_number_then(&args, &type, ',') || !gdb_number_then(&args, address, ',') ||
        !gdb_number(&args, length) || (*args && *args != ';')) {
        gdb_error(gdb, GDB_BAD_PACKET);
        return false;
    }
    if (type >= KINDS)
        return false;
    *kind = kinds[type];
    return true;
}

static bool is_breakpoint(enum stop_kind kind)
{
    return kind == STOP_SOFTWARE || kind == STOP_HARDWARE;
}

void gdb_insert_point(struct gdb *gdb, const char *args, size_t length)
{
    enum stop_kind kind;
    uint64_t address, size;
    (void)length;
    if (!parse(gdb, args, &kind, &address, &size))
        return;
    if (is_breakpoint(kind) ? breakpoint_set(gdb->vm, address, kind)
                            : watchpoint_set(gdb->vm, address, size, kind))
        gdb_ok(gdb);
    else
        gdb_error(gdb, GDB_NO_ROOM);
}

void gdb_remove_point(struct gdb *gdb, const char *args, size_t length)
{
    enum stop_kind kind;
    uint64_t address, size;
    (void)length;
    if (!parse(gdb, args, &kind, &address, &size))
        return;
    if (is_breakpoint(kind))
        breakpoint_remove(gdb->vm, address, kind);
    else
        watchpoint_remove(gdb->vm, address, size, kind);
    gdb_ok(gdb);
}
