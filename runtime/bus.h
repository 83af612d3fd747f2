/* SPDX-License-Identifier: MIT */
/* The device bus: ports and memory-mapped registers, found by address in a table. */
#ifndef RUNTIME_BUS_H
#define RUNTIME_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "image/error.h"

/* A register window of a device. `offset` counts from the window's first port or byte. `width` is 1,
 * 2, 4 (ports) or 1, 2, 4, 8 (memory); an access never leaves the window: the bus splits or refuses
 * what would. A reader returns the value zero-extended. */
struct bus_window {
    const char *name; /* of the device, for messages */
    uint64_t first;   /* port number or guest-physical address */
    uint64_t count;   /* ports or bytes */
    uint64_t (*read)(void *device, uint64_t offset, unsigned width);
    void (*write)(void *device, uint64_t offset, unsigned width, uint64_t value);
    void *device;
    /* bytes; a wider access is made as several of one byte. 0 = the device takes all widths */
    unsigned widest;
};

#define BUS_WINDOWS 64

/* An access as a vCPU makes it, for who watches the bus. */
struct bus_access {
    bool port, write;
    uint8_t width;
    uint64_t address, value;
};

struct bus {
    struct bus_window ports[BUS_WINDOWS];
    unsigned port_windows;
    struct bus_window mmio[BUS_WINDOWS];
    unsigned mmio_windows;
    uint8_t port_owner[65536]; /* index in ports + 1; 0 = nobody */
    /* Is a port or an address of a device that an engine has (engine.chips), so that nobody here may touch it? NULL: none
     * is. */
    bool (*elsewhere)(uint64_t address, bool port);

    /* Called before and after an access; may be NULL. For the stub of a patched guest, which does
     * part of the devices' work in the guest. */
    void (*before)(void *context);
    void (*after)(void *context, uint16_t port);
    void (*after_mmio)(void *context);
    void *context;

    /* Told of every access; may be NULL. */
    void (*watch)(void *context, const struct bus_access *access);
    void *watch_context;
};

/* Registers a window. -1 with *err set if it overlaps another or there are too many. */
int bus_add_ports(struct bus *bus, const struct bus_window *window, struct error *err);
int bus_add_mmio(struct bus *bus, const struct bus_window *window, struct error *err);

/* Port access of 1, 2 or 4 bytes. Nobody there: reads give all ones, writes are dropped. A wide
 * access that begins in a window but leaves it is made byte by byte. */
uint32_t bus_in(struct bus *bus, uint16_t port, unsigned width);
void bus_out(struct bus *bus, uint16_t port, unsigned width, uint32_t value);

/* Ports that nothing ever listens or speaks on: reading gives all ones, writing is dropped. */
bool bus_reads_ones(const struct bus *bus, uint16_t port);
bool bus_drops(const struct bus *bus, uint16_t port);

/* Access to guest-physical memory that is not RAM, of 1, 2, 4 or 8 bytes. Nobody there: all ones. */
uint64_t bus_read(struct bus *bus, uint64_t physical, unsigned width);
void bus_write(struct bus *bus, uint64_t physical, unsigned width, uint64_t value);

#endif
