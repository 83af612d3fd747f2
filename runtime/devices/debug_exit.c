/* SPDX-License-Identifier: MIT */
/* Debug exit: writing v (1, 2 or 4 bytes) to port 0xf4 ends the run with exit code (v << 1) | 1, of which
 * the host's process keeps eight bits. */
#include <stdlib.h>

#include "runtime/vm.h"

#define PORT  0xf4
#define PORTS 4

struct debug_exit {
    struct vm *vm;
};

static uint64_t debug_exit_read(void *device, uint64_t offset, unsigned width)
{
    (void)device;
    (void)offset;
    (void)width;
    return 0;
}

static void debug_exit_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct debug_exit *d = device;
    (void)offset;
    (void)width;
    vm_stop(d->vm, SHUTDOWN_DEBUG_EXIT, (int)((value << 1 | 1) & 0xff));
}

static void *debug_exit_create(struct vm *vm, struct error *err)
{
    struct debug_exit *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->vm = vm;
    const struct bus_window window = {.name = "debug_exit",
                                      .first = PORT,
                                      .count = PORTS,
                                      .read = debug_exit_read,
                                      .write = debug_exit_write,
                                      .device = d};
    if (bus_add_ports(&vm->bus, &window, err)) {
        free(d);
        return NULL;
    }
    return d;
}

const struct device_type debug_exit_device = {.name = "debug_exit", .create = debug_exit_create};
