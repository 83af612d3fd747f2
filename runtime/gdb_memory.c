/* SPDX-License-Identifier: MIT */
/* Guest memory by guest-linear address, as the vCPU's paging maps it: without regard to rights,
 * and without a trace in page tables or caches. Device registers are not read: that would be no
 * mere look. */
#include <string.h>

#include "runtime/gdb_server.h"
#include "runtime/soft/tlb.h"

/* The host address of a guest-linear one, and how many bytes from there on are in its page;
 * NULL: no RAM there. */
static uint8_t *host_at(struct vcpu *cpu, uint64_t linear, uint64_t *physical, size_t *here)
{
    *here = PAGE_SIZE - (linear & PAGE_OFFSET);
    return tlb_peek(cpu, linear, physical) ? memory_at(&cpu->vm->memory, *physical, *here) : NULL;
}

static bool address_and_length(const char **args, uint64_t *address, uint64_t *length, char after)
{
    return gdb_number_then(args, address, ',') && gdb_number_then(args, length, after);
}

/* mADDRESS,LENGTH: fewer bytes where memory ends, or the packet. */
void gdb_read_memory(struct gdb *gdb, const char *args, size_t length)
{
    uint64_t address, left, physical;
    size_t done = 0;
    (void)length;
    if (!address_and_length(&args, &address, &left, '\0')) {
        gdb_error(gdb, GDB_BAD_PACKET);
        return;
    }
    if (left > GDB_PACKET_MAX / 2)
        left = GDB_PACKET_MAX / 2;
    while (left) {
        size_t here;
        const uint8_t *host = host_at(gdb_vcpu(gdb), address + done, &physical, &here);
        if (!host)
            break;
        if (here > left)
            here = left;
        gdb_put_hex(&gdb->output, host, here);
        done += here;
        left -= here;
    }
    if (left && !done)
        gdb_error(gdb, GDB_NO_MEMORY);
}

/* All or nothing. */
static void write_memory(struct gdb *gdb, uint64_t address, const uint8_t *bytes, size_t length)
{
    struct vcpu *cpu = gdb_vcpu(gdb);
    uint64_t physical;
    size_t here;
    for (size_t done = 0; done < length; done += here)
        if (!host_at(cpu, address + done, &physical, &here)) {
            gdb_error(gdb, GDB_NO_MEMORY);
            return;
        }
    for (size_t done = 0; done < length; done += here) {
        host_at(cpu, address + done, &physical, &here);
        if (here > length - done)
            here = length - done;
        memory_write(&cpu->vm->memory, physical, bytes + done, here);
    }
    gdb_ok(gdb);
}

/* MADDRESS,LENGTH:XX… */
void gdb_write_memory(struct gdb *gdb, const char *args, size_t length)
{
    uint8_t bytes[GDB_PACKET_MAX / 2];
    uint64_t address, count;
    (void)length;
    if (!address_and_length(&args, &address, &count, ':') || count > sizeof bytes ||
        !gdb_unhex(&args, bytes, count))
        gdb_error(gdb, GDB_BAD_PACKET);
    else
        write_memory(gdb, address, bytes, count);
}

/* XADDRESS,LENGTH:bytes */
void gdb_write_binary(struct gdb *gdb, const char *args, size_t length)
{
    const char *end = args + length;
    uint64_t address, count;
    if (!address_and_length(&args, &address, &count, ':') || count != (uint64_t)(end - args))
        gdb_error(gdb, GDB_BAD_PACKET);
    else
        write_memory(gdb, address, (const uint8_t *)args, count);
}
