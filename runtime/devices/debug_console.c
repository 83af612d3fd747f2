/* SPDX-License-Identifier: MIT */
/* The Bochs debug console: a byte written to port 0xe9 goes to the console; reading gives 0xe9, which
 * is how a guest finds out that it is there. */
#include <stdlib.h>

#include "runtime/console.h"
#include "runtime/vm.h"

#define PORT 0xe9

struct debug_console {
    struct vm *vm;
};

static uint64_t debug_console_read(void *device, uint64_t offset, unsigned width)
{
    (void)device;
    (void)offset;
    (void)width;
    return PORT;
}

static void debug_console_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct debug_console *d = device;
    uint8_t byte = (uint8_t)value;
    (void)offset;
    (void)width;
    console_write(d->vm, &byte, 1);
}

static void *debug_console_create(struct vm *vm, struct error *err)
{
    struct debug_console *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->vm = vm;
    const struct bus_window window = {.name = "debug_console",
                                      .first = PORT,
                                      .count = 1,
                                      .read = debug_console_read,
                                      .write = debug_console_write,
                                      .device = d};
    if (bus_add_ports(&vm->bus, &window, err)) {
        free(d);
        return NULL;
    }
    return d;
}

const struct device_type debug_console_device = {.name = "debug_console",
                                                 .create = debug_console_create};
