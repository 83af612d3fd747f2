/* SPDX-License-Identifier: MIT */
/* The IO-APIC (Intel 82093AA data sheet, 290566; the EOI register of version 0x20: ICH data sheets).
 *
 * A line's level means asserted, whatever the polarity its redirection entry gives: devices here have
 * no electrical levels. An edge that meets a masked entry is lost, as the chip loses it. */
#include "runtime/device.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define VERSION 0x20

/* Memory-mapped registers */
#define WINDOW_SIZE 0x1000
#define IOREGSEL    0x00
#define IOWIN       0x10
#define EOI         0x40

/* Indirect registers */
enum { REGISTER_ID, REGISTER_VERSION, REGISTER_ARBITRATION, REGISTER_REDIRECTION = 0x10 };
#define ID_WRITABLE 0x0f000000u

/* Redirection entry */
#define ENTRY_VECTOR(e)      ((uint8_t)(e))
#define ENTRY_DELIVERY(e)    ((enum apic_delivery)((e) >> 8 & 7))
#define ENTRY_LOGICAL        0x800ull
#define ENTRY_STATUS         0x1000ull /* read-only; messages here are delivered at once */
#define ENTRY_REMOTE_IRR     0x4000ull /* read-only */
#define ENTRY_LEVEL          0x8000ull
#define ENTRY_MASKED         0x10000ull
#define ENTRY_WRITABLE       0xff0000000001afffull
#define ENTRY_DESTINATION(e) ((uint32_t)((e) >> 56))

struct ioapic {
    struct vm *vm;
    uint32_t select; /* the indirect register that IOWIN shows */
    uint32_t id;
    uint32_t lines; /* levels of the pins */
    uint64_t entry[IOAPIC_PINS];
};

/* ---- messages ---- */

static bool send(struct ioapic *io, uint64_t entry, bool level)
{
    uint32_t destination = ENTRY_DESTINATION(entry);

    if (destination == 0xff)
        destination = APIC_EVERYBODY;
    return apic_message(io->vm, destination, entry & ENTRY_LOGICAL, ENTRY_DELIVERY(entry),
                        ENTRY_VECTOR(entry), level);
}

/* NMI, INIT, SMI and ExtINT are edges whatever the entry says: nothing would end them. */
static bool level_triggered(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) && ENTRY_DELIVERY(entry) <= APIC_LOWEST;
}

/* Sends for a level-triggered pin that is up and not yet being served. */
static void serve_level(struct ioapic *io, unsigned pin)
{
    uint64_t *entry = &io->entry[pin];

    if (!level_triggered(*entry) || (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) ||
        !(io->lines & 1u << pin))
        return;
    if (send(io, *entry, true))
        *entry |= ENTRY_REMOTE_IRR;
}

void ioapic_set_line(struct vm *vm, unsigned pin, bool level)
{
    struct ioapic *io = vm->ioapic;

    if (!io || pin >= IOAPIC_PINS)
        return;
    bool rises = level && !(io->lines & 1u << pin);
    uint64_t entry = io->entry[pin];

    io->lines = level ? io->lines | 1u << pin : io->lines & ~(1u << pin);
    if (level_triggered(entry))
        serve_level(io, pin);
    else if (rises && !(entry & ENTRY_MASKED))
        send(io, entry, false);
}

void ioapic_end_of_interrupt(struct vm *vm, uint8_t vector)
{
    struct ioapic *io = vm->ioapic;

    if (!io)
        return;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &io->entry[pin];
        if (ENTRY_VECTOR(*entry) != vector || !(*entry & ENTRY_REMOTE_IRR))
            continue;
        *entry &= ~ENTRY_REMOTE_IRR;
        serve_level(io, pin); /* still up: another one */
    }
}

/* ---- registers ---- */

static uint32_t indirect_read(const struct ioapic *io)
{
    uint32_t number = io->select;

    switch (number) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION: /* loaded with the id */
        return io->id;
    case REGISTER_VERSION:
        return (IOAPIC_PINS - 1) << 16 | VERSION;
    default:
        if (number < REGISTER_REDIRECTION || number >= REGISTER_REDIRECTION + 2 * IOAPIC_PINS)
            return 0;
        return (uint32_t)(io->entry[(number - REGISTER_REDIRECTION) / 2] >> number % 2 * 32);
    }
}

static void indirect_write(struct ioapic *io, uint32_t value)
{
    uint32_t number = io->select;

    if (number == REGISTER_ID)
        io->id = value & ID_WRITABLE;
    if (number < REGISTER_REDIRECTION || number >= REGISTER_REDIRECTION + 2 * IOAPIC_PINS)
        return;
    unsigned pin = (number - REGISTER_REDIRECTION) / 2, shift = number % 2 * 32;
    uint64_t *entry = &io->entry[pin], half = 0xffffffffull << shift & ENTRY_WRITABLE;

    *entry = (*entry & ~half) | ((uint64_t)value << shift & half);
    /* An edge-triggered entry has no remote IRR: guests clear a stuck one by switching over and back. */
    if (!(*entry & ENTRY_LEVEL))
        *entry &= ~ENTRY_REMOTE_IRR;
    serve_level(io, pin);
}

static uint64_t ioapic_read(void *device, uint64_t offset, unsigned width)
{
    const struct ioapic *io = device;

    (void)width;
    switch (offset) {
    case IOREGSEL:
        return io->select;
    case IOWIN:
        return indirect_read(io);
    default:
        return 0;
    }
}

static void ioapic_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct ioapic *io = device;

    (void)width;
    switch (offset) {
    case IOREGSEL:
        io->select = (uint8_t)value;
        break;
    case IOWIN:
        indirect_write(io, (uint32_t)value);
        break;
    case EOI:
        ioapic_end_of_interrupt(io->vm, (uint8_t)value);
        break;
    default:
        break;
    }
}

/* ---- the device ---- */

static void ioapic_reset(void *device)
{
    struct ioapic *io = device;

    io->select = io->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entry[pin] = ENTRY_MASKED;
}

static void *ioapic_create(struct vm *vm, struct error *err)
{
    struct ioapic *io = calloc(1, sizeof(*io));

    if (!io) {
        fail(err, HVRUN_HOST, "ioapic: out of memory");
        return NULL;
    }
    io->vm = vm;
    ioapic_reset(io);
    const struct bus_window window = {.name = "ioapic",
                                      .first = IOAPIC_BASE,
                                      .count = WINDOW_SIZE,
                                      .read = ioapic_read,
                                      .write = ioapic_write,
                                      .device = io};
    if (bus_add_mmio(&vm->bus, &window, err)) {
        free(io);
        return NULL;
    }
    vm->ioapic = io;
    return io;
}

const struct device_type ioapic_device = {
    .name = "ioapic",
    .create = ioapic_create,
    .reset = ioapic_reset,
    .interrupt_chip = true,
};
