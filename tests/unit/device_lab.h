/* SPDX-License-Identifier: MIT */
/* A machine around one device: a bus, a clock that the test turns, and interrupt lines it can look at.
 * Included by one test program each: it defines irq_set. */
#ifndef TESTS_UNIT_DEVICE_LAB_H
#define TESTS_UNIT_DEVICE_LAB_H

#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define MS 1000000ull
#define S  1000000000ull

static struct vm vm;
static void *device;
static uint64_t lab_time; /* guest time in ns */
static bool irq_level[IOAPIC_PINS];
static unsigned irq_raised[IOAPIC_PINS]; /* how often the line went up */

void irq_set(struct vm *machine, unsigned line, bool level)
{
    (void)machine;
    irq_raised[line] += level && !irq_level[line];
    irq_level[line] = level;
}

static inline uint64_t lab_clock(void *context)
{
    (void)context;
    return lab_time;
}

/* A machine with nothing in it yet. */
static inline void lab_machine(void)
{
    memset(&vm, 0, sizeof vm);
    memset(irq_level, 0, sizeof irq_level);
    memset(irq_raised, 0, sizeof irq_raised);
    vm.config.smp = 1;
    vm.wake_fd = -1;
    vm.clock.source = lab_clock;
    lab_time = 10 * S;
}

static inline void lab_add(const struct device_type *type)
{
    struct error err = {0};
    device = type->create(&vm, &err);
    if (!device)
        abort();
}

static inline int lab_close(void **state)
{
    (void)state;
    free(device);
    device = NULL;
    return 0;
}

static inline uint32_t in(uint16_t port)
{
    return bus_in(&vm.bus, port, 1);
}

static inline void out(uint16_t port, uint32_t value)
{
    bus_out(&vm.bus, port, 1, value);
}

/* Lets guest time pass; timers fire at their time. */
static inline void pass(uint64_t ns)
{
    uint64_t end = lab_time + ns;
    while (clock_deadline(&vm.clock) <= end) {
        if (clock_deadline(&vm.clock) > lab_time)
            lab_time = clock_deadline(&vm.clock);
        clock_run(&vm.clock);
    }
    lab_time = end;
}

#endif
