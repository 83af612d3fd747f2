/* SPDX-License-Identifier: MIT */
/* The test device that kvm-unit-tests expect of a PC: a byte written to port 0x2000 + n sets the level of
 * interrupt line n, ports 0xe0 to 0xe3 give back what was written, and 64 KiB at 0xff000000 are memory that
 * every access reaches as a device. (Its flush port, 0xe4, is the doorbell of patched guests here.) */
#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define IRQ_PORTS  0x2000
#define ECHO_PORTS 0xe0
#define ECHO_SIZE  4
#define RAM_BASE   0xff000000ull
#define RAM_SIZE   0x10000u

struct testdev {
    struct vm *vm;
    uint8_t echo[ECHO_SIZE];
    uint8_t ram[RAM_SIZE];
};

static void irq_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct testdev *t = device;
    (void)width;
    irq_set(t->vm, (unsigned)offset, value != 0);
}

/* Plain bytes. The bus keeps accesses inside the window. */
static uint64_t load(const uint8_t *from, unsigned width)
{
    uint64_t value = 0;
    memcpy(&value, from, width);
    return value;
}

static uint64_t echo_read(void *device, uint64_t offset, unsigned width)
{
    struct testdev *t = device;
    return load(t->echo + offset, width);
}

static void echo_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct testdev *t = device;
    memcpy(t->echo + offset, &value, width);
}

static uint64_t ram_read(void *device, uint64_t offset, unsigned width)
{
    struct testdev *t = device;
    return load(t->ram + offset, width);
}

static void ram_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct testdev *t = device;
    memcpy(t->ram + offset, &value, width);
}

static void *testdev_create(struct vm *vm, struct error *err)
{
    struct testdev *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->vm = vm;
    const struct bus_window irqs = {"testdev", IRQ_PORTS, IOAPIC_PINS, NULL, irq_write, t, 1};
    const struct bus_window echo = {"testdev", ECHO_PORTS, ECHO_SIZE, echo_read, echo_write, t, 0};
    const struct bus_window ram = {"testdev", RAM_BASE, RAM_SIZE, ram_read, ram_write, t, 0};
    if (bus_add_ports(&vm->bus, &irqs, err) || bus_add_ports(&vm->bus, &echo, err) ||
        bus_add_mmio(&vm->bus, &ram, err)) {
        free(t);
        return NULL;
    }
    return t;
}

const struct device_type testdev_device = {.name = "testdev", .create = testdev_create};
