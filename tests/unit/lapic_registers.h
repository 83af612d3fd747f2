/* SPDX-License-Identifier: MIT */
/* The local APIC as a guest sees it, for its tests: register offsets, bits, and the two ways to reach them. */
#ifndef TESTS_UNIT_LAPIC_REGISTERS_H
#define TESTS_UNIT_LAPIC_REGISTERS_H

#include "tests/unit/chipset_machine.h"

#define APIC_ID      0x20
#define APIC_VERSION 0x30
#define APIC_TPR     0x80
#define APIC_PPR     0xa0
#define APIC_EOI     0xb0
#define APIC_LDR     0xd0
#define APIC_DFR     0xe0
#define APIC_SVR     0xf0
#define APIC_ISR     0x100
#define APIC_TMR     0x180
#define APIC_IRR     0x200
#define APIC_ESR     0x280
#define APIC_ICR     0x300
#define APIC_ICR2    0x310
#define APIC_TIMER   0x320
#define APIC_LINT0   0x350
#define APIC_LINT1   0x360
#define APIC_ERROR   0x370
#define APIC_INITIAL 0x380
#define APIC_CURRENT 0x390
#define APIC_DIVIDE  0x3e0

#define LVT_MASK         0x10000u
#define LVT_PERIODIC     0x20000u
#define LVT_TSC_DEADLINE 0x40000u
#define DIVIDE_BY_1      0xbu

#define ICR_LOGICAL   0x800u
#define ICR_ASSERT    0x4000u
#define ICR_LEVEL     0x8000u
#define ICR_TO_SELF   0x40000u
#define ICR_TO_ALL    0x80000u
#define ICR_TO_OTHERS 0xc0000u
#define ICR_MODE(n)   ((uint32_t)(n) << 8)

#define MSR_BASE         0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define BASE_BSP         0x100ull
#define BASE_X2APIC      0x400ull
#define BASE_ENABLED     0x800ull

static inline uint32_t xapic_read(struct machine *m, unsigned vcpu, uint32_t offset)
{
    m->vm.running = m->vm.vcpus[vcpu];
    return (uint32_t)bus_read(&m->vm.bus, LAPIC_BASE + offset, 4);
}

static inline void xapic_write(struct machine *m, unsigned vcpu, uint32_t offset, uint32_t value)
{
    m->vm.running = m->vm.vcpus[vcpu];
    bus_write(&m->vm.bus, LAPIC_BASE + offset, 4, value);
}

static inline void xapic_send(struct machine *m, unsigned vcpu, uint32_t icr, uint8_t destination)
{
    xapic_write(m, vcpu, APIC_ICR2, (uint32_t)destination << 24);
    xapic_write(m, vcpu, APIC_ICR, icr);
}

static inline int msr_set(struct machine *m, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return lapic_write_msr(m->vm.vcpus[vcpu], msr, value);
}

/* The MSR's value, or all ones for #GP. */
static inline uint64_t msr_get(struct machine *m, unsigned vcpu, uint32_t msr)
{
    uint64_t value = 0;
    return lapic_read_msr(m->vm.vcpus[vcpu], msr, &value) == 0 ? value : UINT64_MAX;
}

static inline uint32_t x2apic_msr(uint32_t offset)
{
    return 0x800 + offset / 16;
}

static inline void become_x2apic(struct machine *m, unsigned vcpu)
{
    if (msr_set(m, vcpu, MSR_BASE, msr_get(m, vcpu, MSR_BASE) | BASE_X2APIC))
        abort();
}

/* Four vCPUs with all interrupt controllers, the APICs enabled by software. */
static inline struct machine *lapic_machine(void)
{
    static const struct device_type *const devices[] = {&i8259_device, &ioapic_device,
                                                        &lapic_device, NULL};
    struct machine *m = machine_new(4, devices);
    for (unsigned i = 0; i < 4; i++)
        xapic_write(m, i, APIC_SVR, 0x1ff);
    return m;
}

#endif
