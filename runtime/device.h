/* SPDX-License-Identifier: MIT */
/* A device is one file in runtime/devices/, one row in the table of devices/devices.c, and this.
 *
 * `create` allocates its state, registers its bus windows and timers, and returns the state;
 * nobody else knows its registers. What devices say to each other goes through interrupts.h. */
#ifndef RUNTIME_DEVICE_H
#define RUNTIME_DEVICE_H

#include <stdbool.h>

#include "image/error.h"

struct vm;

struct device_type {
    const char *name; /* "uart16550" */
    /* The state, or NULL with *err set. The VM owns it until destroy. */
    void *(*create)(struct vm *vm, struct error *err);
    void (*reset)(void *device);   /* to power-on values; may be NULL */
    void (*destroy)(void *device); /* may be NULL: then free() */
    bool interrupt_chip;           /* left out where the engine has its own (engine.chips) */
};

#define DEVICES_MAX 32

/* All devices of the machine, in creation order; ends with NULL (devices/devices.c). */
extern const struct device_type *const device_types[];

#endif
