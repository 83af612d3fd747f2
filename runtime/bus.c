/* SPDX-License-Identifier: MIT */
/* The device bus: a port finds its window by one look into a table of all ports, an address by a walk
 * over the few memory-mapped windows. */
#include "runtime/bus.h"

#include <string.h>

#include "runtime/vm.h"

#define PORTS 0x10000u

static int add(struct bus_window *windows, unsigned *count, const struct bus_window *window,
               uint64_t last_address, struct error *err)
{
    uint64_t last = window->first + (window->count - 1);
    if (!window->count || last < window->first || last > last_address)
        return fail(err, HVRUN_HOST, "device %s: a window that leaves the address space",
                    window->name);
    for (unsigned i = 0; i < *count; i++) {
        const struct bus_window *other = &windows[i];
        if (window->first <= other->first + (other->count - 1) && other->first <= last)
            return fail(
                err, HVRUN_HOST, "devices %s and %s both want address 0x%llx", window->name,
                other->name,
                (unsigned long long)(window->first > other->first ? window->first : other->first));
    }
    if (*count == BUS_WINDOWS)
        return fail(err, HVRUN_HOST, "device %s: no room for its window", window->name);
    windows[(*count)++] = *window;
    return 0;
}

int bus_add_ports(struct bus *bus, const struct bus_window *window, struct error *err)
{
    if (add(bus->ports, &bus->port_windows, window, PORTS - 1, err))
        return -1;
    memset(bus->port_owner + window->first, (int)bus->port_windows, window->count);
    return 0;
}

int bus_add_mmio(struct bus *bus, const struct bus_window *window, struct error *err)
{
    return add(bus->mmio, &bus->mmio_windows, window, UINT64_MAX, err);
}

static uint64_t ones(unsigned width)
{
    return UINT64_MAX >> (64 - 8 * width);
}

/* Whether the device takes the access in one piece. */
static bool whole(const struct bus_window *window, uint64_t offset, unsigned width)
{
    return width <= window->count - offset && (!window->widest || width <= window->widest);
}

static uint64_t window_read(const struct bus_window *window, uint64_t offset, unsigned width)
{
    return window->read ? window->read(window->device, offset, width) & ones(width) : ones(width);
}

static void window_write(const struct bus_window *window, uint64_t offset, unsigned width,
                         uint64_t value)
{
    if (window->write)
        window->write(window->device, offset, width, value & ones(width));
}

static void before(const struct bus *bus)
{
    if (bus->before)
        bus->before(bus->context);
}

static void after(const struct bus *bus, uint16_t port)
{
    if (bus->after)
        bus->after(bus->context, port);
}

static void after_mmio(const struct bus *bus)
{
    if (bus->after_mmio)
        bus->after_mmio(bus->context);
}

/* ---- ports ---- */
bool bus_reads_ones(const struct bus *bus, uint16_t port)
{
    unsigned owner = bus->port_owner[port];
    return !owner || !bus->ports[owner - 1].read;
}

bool bus_drops(const struct bus *bus, uint16_t port)
{
    unsigned owner = bus->port_owner[port];
    return !owner || !bus->ports[owner - 1].write;
}

static uint32_t read_port(const struct bus *bus, uint16_t port, unsigned width)
{
    unsigned owner = bus->port_owner[port];
    if (!owner)
        return (uint32_t)ones(width);
    const struct bus_window *window = &bus->ports[owner - 1];
    if (whole(window, port - window->first, width))
        return (uint32_t)window_read(window, port - window->first, width);
    uint32_t value = 0;
    for (unsigned i = 0; i < width; i++) /* beyond port 0xffff there is nobody */
        value |= (port + i < PORTS ? read_port(bus, (uint16_t)(port + i), 1) : 0xffu) << 8 * i;
    return value;
}

static void write_port(const struct bus *bus, uint16_t port, unsigned width, uint32_t value)
{
    unsigned owner = bus->port_owner[port];
    if (!owner)
        return;
    const struct bus_window *window = &bus->ports[owner - 1];
    if (whole(window, port - window->first, width)) {
        window_write(window, port - window->first, width, value);
        return;
    }
    for (unsigned i = 0; i < width && port + i < PORTS; i++)
        write_port(bus, (uint16_t)(port + i), 1, value >> 8 * i & 0xff);
}

static void tell(const struct bus *bus, bool port, bool write, uint64_t address, unsigned width,
                 uint64_t value)
{
    const struct bus_access access = {port, write, (uint8_t)width, address, value};
    bus->watch(bus->watch_context, &access);
}

uint32_t bus_in(struct bus *bus, uint16_t port, unsigned width)
{
    before(bus);
    uint32_t value = read_port(bus, port, width);
    after(bus, port);
    if (bus->watch)
        tell(bus, true, false, port, width, value);
    return value;
}

void bus_out(struct bus *bus, uint16_t port, unsigned width, uint32_t value)
{
    before(bus);
    write_port(bus, port, width, value);
    after(bus, port);
    if (bus->watch)
        tell(bus, true, true, port, width, value);
}

/* ---- memory-mapped registers ---- */

static const struct bus_window *mmio_window(const struct bus *bus, uint64_t physical)
{
    for (unsigned i = 0; i < bus->mmio_windows; i++)
        if (physical - bus->mmio[i].first < bus->mmio[i].count)
            return &bus->mmio[i];
    return NULL;
}

static uint64_t read_mmio(const struct bus *bus, uint64_t physical, unsigned width)
{
    const struct bus_window *window = mmio_window(bus, physical);
    if (!window)
        return ones(width);
    if (whole(window, physical - window->first, width))
        return window_read(window, physical - window->first, width);
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= read_mmio(bus, physical + i, 1) << 8 * i;
    return value;
}

static void write_mmio(const struct bus *bus, uint64_t physical, unsigned width, uint64_t value)
{
    const struct bus_window *window = mmio_window(bus, physical);
    if (!window)
        return;
    if (whole(window, physical - window->first, width)) {
        window_write(window, physical - window->first, width, value);
        return;
    }
    for (unsigned i = 0; i < width; i++)
        write_mmio(bus, physical + i, 1, value >> 8 * i & 0xff);
}

uint64_t bus_read(struct bus *bus, uint64_t physical, unsigned width)
{
    before(bus);
    uint64_t value = read_mmio(bus, physical, width);
    after_mmio(bus);
    if (bus->watch)
        tell(bus, false, false, physical, width, value);
    return value;
}

void bus_write(struct bus *bus, uint64_t physical, unsigned width, uint64_t value)
{
    before(bus);
    write_mmio(bus, physical, width, value);
    after_mmio(bus);
    if (bus->watch)
        tell(bus, false, true, physical, width, value);
}
