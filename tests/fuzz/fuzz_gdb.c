/* SPDX-License-Identifier: MIT */
/* A client of the gdb server that sends anything, to a small machine with two vCPUs. Lines of
 * the input are payloads, which are framed as they should be, so that they get further than the
 * checksum; an input that begins with 0xff is sent as it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/gdb_server.h"
#include "tests/gdb_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define INSTRUCTIONS 300 /* of a vCPU, an entry */
#define ENTRIES      40  /* of an input */

static const uint8_t code[] = {
    0x90,                         /* nop */
    0x89, 0x47, 0x10,             /* mov %eax, 0x10(%rdi) */
    0x8b, 0x57, 0x20,             /* mov 0x20(%rdi), %edx */
    0xe8, 0x0b, 0x00, 0x00, 0x00, /* call 0x17 */
    0xb9, 0x03, 0x00, 0x00, 0x00, /* mov $3, %ecx */
    0xf3, 0xaa,                   /* rep stosb */
    0x0f, 0x0b,                   /* ud2, to a handler that comes back */
    0xeb, 0xe9,                   /* jmp 0 */
    0x48, 0xff, 0xc3, 0xc3,       /* inc %rbx; ret */
};

static struct gdb *open_gdb(struct vm *vm)
{
    struct gdb *gdb = calloc(1, sizeof *gdb);
    struct error err = {0};
    if (!gdb || breakpoints_create(vm, &err) < 0)
        abort();
    gdb->vm = vm;
    gdb->connection.listener = gdb->connection.client = -1;
    for (unsigned n = 0; n < vm->vcpu_count; n++) {
        gdb->vmcs[n] = vmcs_create(vm->vcpus[n], &err);
        if (!gdb->vmcs[n])
            abort();
        gdb->vmcs[n]->limit = INSTRUCTIONS;
    }
    vm->gdb = gdb;
    return gdb;
}

static void close_gdb(struct gdb *gdb)
{
    for (unsigned n = 0; n < gdb->vm->vcpu_count; n++)
        vmcs_destroy(gdb->vmcs[n]);
    breakpoints_destroy(gdb->vm);
    gdb->vm->gdb = NULL;
    free(gdb);
}

static void give(struct gdb *gdb, const uint8_t *bytes, size_t size, unsigned *entries)
{
    while (size && !gdb->vm->shutdown) {
        size_t room;
        uint8_t *to = gdb_input_room(&gdb->input, &room);
        size_t part = size < room ? size : room;
        memcpy(to, bytes, part);
        gdb_input_add(&gdb->input, part);
        bytes += part;
        size -= part;
        do {
            gdb_take_packets(gdb);
            for (unsigned n = 0; n < 3 && gdb->running && *entries && !gdb->vm->shutdown; n++) {
                gdb_enter(gdb);
                --*entries;
            }
        } while (gdb->running && (gdb->running = false, *entries) && !gdb->vm->shutdown);
        gdb->running = false;
    }
}

static void give_line(struct gdb *gdb, const uint8_t *bytes, size_t size, unsigned *entries)
{
    uint8_t sum = 0;
    char end[4];
    for (size_t n = 0; n < size; n++)
        sum += bytes[n];
    snprintf(end, sizeof end, "#%02x", sum);
    give(gdb, (const uint8_t *)"$", 1, entries);
    give(gdb, bytes, size, entries);
    give(gdb, (const uint8_t *)end, 3, entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    unsigned entries = ENTRIES;
    if (!vm || gdb_machine_create(vm, 2, code, sizeof code, &err) < 0)
        abort();
    gdb_machine_put(vm, GDB_HANDLER, 0xcf48022404834800 >> 8); /* add $2, (%rsp); iretq */
    struct gdb *gdb = open_gdb(vm);
    if (size && bytes[0] == 0xff) {
        give(gdb, bytes + 1, size - 1, &entries);
    } else {
        for (const uint8_t *end = bytes + size; bytes < end;) {
            const uint8_t *line = memchr(bytes, '\n', (size_t)(end - bytes));
            size_t length = (size_t)((line ? line : end) - bytes);
            give_line(gdb, bytes, length, &entries);
            bytes += length + 1;
        }
    }
    close_gdb(gdb);
    vm_destroy(vm);
    free(vm);
    return 0;
}
