/* SPDX-License-Identifier: MIT */
/* Ports of the PC's system board that belong to no chip here: the POST code at 0x80, the delay port
 * 0xed, and system control port A, 0x92, with the A20 gate and the fast reset. */
#include <stdlib.h>

#include "runtime/vm.h"

#define POST      0x80
#define CONTROL_A 0x92
#define DELAY     0xed

#define FAST_RESET 0x01
#define A20        0x02 /* kept for the guest; address line 20 is always on */

struct misc_ports {
    struct vm *vm;
    uint8_t control_a;
};

static uint64_t control_read(void *device, uint64_t offset, unsigned width)
{
    const struct misc_ports *m = device;
    (void)offset;
    (void)width;
    return m->control_a;
}

static void control_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct misc_ports *m = device;
    (void)offset;
    (void)width;
    uint8_t rising = (uint8_t)(value & ~m->control_a);
    m->control_a = (uint8_t)value;
    if (rising & FAST_RESET)
        vm_reset_requested(m->vm);
}

static void misc_ports_reset(void *device)
{
    struct misc_ports *m = device;
    m->control_a = A20;
}

static void *misc_ports_create(struct vm *vm, struct error *err)
{
    struct misc_ports *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->vm = vm;
    misc_ports_reset(m);
    const struct bus_window windows[] = {
        {"misc_ports", POST, 1, NULL, NULL, m, 0}, /* nobody looks at the display */
        {"misc_ports", CONTROL_A, 1, control_read, control_write, m, 0},
        {"misc_ports", DELAY, 1, NULL, NULL, m, 0},
    };
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        if (bus_add_ports(&vm->bus, &windows[i], err)) {
            free(m);
            return NULL;
        }
    }
    return m;
}

const struct device_type misc_ports_device = {
    .name = "misc_ports", .create = misc_ports_create, .reset = misc_ports_reset};
