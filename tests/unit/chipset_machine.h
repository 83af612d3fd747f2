/* SPDX-License-Identifier: MIT */
/* A machine of clock, bus, vCPUs and whichever interrupt devices a test wants; guest time is the test's. */
#ifndef TESTS_UNIT_CHIPSET_MACHINE_H
#define TESTS_UNIT_CHIPSET_MACHINE_H

#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

extern const struct device_type i8259_device, i8254_device, ioapic_device, lapic_device;

struct machine {
    struct vm vm;
    uint64_t now; /* ns */
};

static inline uint64_t machine_now(void *context)
{
    return ((struct machine *)context)->now;
}

/* Ends with NULL. */
static inline struct machine *machine_new(unsigned vcpus, const struct device_type *const *devices)
{
    struct machine *m = calloc(1, sizeof *m);
    m->vm.clock.source = machine_now;
    m->vm.clock.context = m;
    for (unsigned i = 0; i < vcpus; i++) {
        size_t size = (sizeof(struct vcpu) + 63) & ~(size_t)63;
        struct vcpu *cpu = aligned_alloc(64, size);
        memset(cpu, 0, size);
        cpu->vm = &m->vm;
        cpu->index = i;
        cpu->activity = i ? ACTIVITY_WAIT_FOR_SIPI : ACTIVITY_ACTIVE;
        m->vm.vcpus[i] = cpu;
    }
    m->vm.vcpu_count = vcpus;
    m->vm.running = vcpus ? m->vm.vcpus[0] : NULL;
    for (; *devices; devices++) {
        struct error err = {0};
        void *device = (*devices)->create(&m->vm, &err);
        if (!device)
            abort();
        m->vm.device_type[m->vm.device_count] = *devices;
        m->vm.device[m->vm.device_count++] = device;
    }
    return m;
}

static inline void machine_free(struct machine *m)
{
    while (m->vm.device_count) {
        const struct device_type *type = m->vm.device_type[--m->vm.device_count];
        (type->destroy ? type->destroy : free)(m->vm.device[m->vm.device_count]);
    }
    for (unsigned i = 0; i < m->vm.vcpu_count; i++)
        free(m->vm.vcpus[i]);
    free(m);
}

/* Lets guest time pass, timers at their times. */
static inline void machine_advance(struct machine *m, uint64_t ns)
{
    uint64_t end = m->now + ns;
    while (clock_deadline(&m->vm.clock) <= end) {
        if (clock_deadline(&m->vm.clock) > m->now)
            m->now = clock_deadline(&m->vm.clock);
        clock_run(&m->vm.clock);
    }
    m->now = end;
}

static inline void out8(struct machine *m, uint16_t port, uint8_t value)
{
    bus_out(&m->vm.bus, port, 1, value);
}

static inline uint8_t in8(struct machine *m, uint16_t port)
{
    return (uint8_t)bus_in(&m->vm.bus, port, 1);
}

/* The interrupt that this vCPU would take now, taken; -1 = none. */
static inline int machine_take(struct machine *m, unsigned vcpu)
{
    struct vcpu *cpu = m->vm.vcpus[vcpu];
    if (!(cpu->events & VCPU_EVENT_INTERRUPT))
        return -1;
    return lapic_acknowledge(cpu);
}

#endif
