/* SPDX-License-Identifier: MIT */
/* ACPI fixed hardware (ACPI 6.4, 4.8.3): the PM1a event and control blocks, the power management timer,
 * and the reset register at port 0xcf9. Power-off is the one sleep state there is. */
#include "runtime/devices/acpi_pm.h"

#include <stdlib.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define TMR_STS    0x0001u /* the timer's highest bit changed */
#define GBL_STS    0x0020u
#define PWRBTN_STS 0x0100u
#define SLPBTN_STS 0x0200u
#define RTC_STS    0x0400u
#define WAK_STS    0x8000u
#define ENABLES    (TMR_STS | GBL_STS | PWRBTN_STS | SLPBTN_STS | RTC_STS)

#define SCI_EN  0x0001u
#define BM_RLD  0x0002u
#define SLP_TYP 0x1c00u
#define SLP_EN  0x2000u
#define TYPE(c) (((c)&SLP_TYP) >> 10)

#define TIMER_HZ   ACPI_PM_TIMER_HZ
#define TIMER_MASK 0xffffffu
#define TIMER_HALF 0x800000u /* ticks between changes of the highest bit */
#define SECOND     1000000000ull

#define RESET_CPU 0x04u /* of the reset register: a write with it set resets */

struct acpi_pm {
    struct vm *vm;
    uint16_t status, enable, control;
    uint8_t reset_register;
    uint64_t half_periods; /* of the timer, up to which TMR_STS is accounted for */
    bool level;            /* of the SCI */
    struct timer overflow; /* armed while TMR_STS may interrupt */
};

static uint64_t ticks(const struct acpi_pm *pm)
{
    uint64_t now = clock_now(&pm->vm->clock);
    return now / SECOND * TIMER_HZ + now % SECOND * TIMER_HZ / SECOND;
}

/* The first time, in ns, at which the timer shows `count`. */
static uint64_t time_of(uint64_t count)
{
    return count / TIMER_HZ * SECOND + (count % TIMER_HZ * SECOND + TIMER_HZ - 1) / TIMER_HZ;
}

/* Brings the timer's status bit and the SCI up to date. */
static void update(struct acpi_pm *pm)
{
    struct clock *clock = &pm->vm->clock;
    uint64_t half_periods = ticks(pm) / TIMER_HALF;
    if (half_periods != pm->half_periods)
        pm->status |= TMR_STS;
    pm->half_periods = half_periods;
    if (pm->enable & TMR_STS && !(pm->status & TMR_STS))
        clock_arm(clock, &pm->overflow, time_of((half_periods + 1) * TIMER_HALF));
    else if (pm->overflow.armed)
        clock_cancel(clock, &pm->overflow);
    bool level = pm->status & pm->enable & ENABLES;
    if (level != pm->level) {
        pm->level = level;
        irq_set(pm->vm, IRQ_SCI, level);
    }
}

static void overflow(void *device, uint64_t now)
{
    (void)now;
    update(device);
}

/* A register block is a little-endian number; these are an access's bits of it. */
static uint64_t part(uint64_t block, uint64_t offset, unsigned width)
{
    return block >> 8 * offset & UINT64_MAX >> (64 - 8 * width);
}

static uint64_t event_read(void *device, uint64_t offset, unsigned width)
{
    struct acpi_pm *pm = device;
    update(pm);
    return part(pm->status | (uint32_t)pm->enable << 16, offset, width);
}

static void event_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct acpi_pm *pm = device;
    uint32_t mask = (uint32_t)part(UINT32_MAX, 0, width) << 8 * offset;
    uint32_t bits = (uint32_t)value << 8 * offset;
    update(pm);
    pm->status &= (uint16_t)~bits; /* writing a one clears */
    pm->enable = (uint16_t)((pm->enable & ~(mask >> 16)) | (bits >> 16 & ENABLES));
    update(pm);
}

static uint64_t control_read(void *device, uint64_t offset, unsigned width)
{
    struct acpi_pm *pm = device;
    return part(pm->control | SCI_EN, offset, width);
}

static void control_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct acpi_pm *pm = device;
    uint16_t mask = (uint16_t)(part(UINT16_MAX, 0, width) << 8 * offset);
    uint16_t control = (uint16_t)((pm->control & ~mask) | (value << 8 * offset & mask));
    pm->control = control & (BM_RLD | SLP_TYP);
    if (!(control & SLP_EN))
        return;
    if (TYPE(control) == ACPI_SLP_TYP_S5) {
        vm_stop(pm->vm, SHUTDOWN_POWER_OFF, HVRUN_DONE);
    } else { /* no such state: awake again at once */
        pm->status |= WAK_STS;
        update(pm);
    }
}

static uint64_t timer_read(void *device, uint64_t offset, unsigned width)
{
    const struct acpi_pm *pm = device;
    return part(ticks(pm) & TIMER_MASK, offset, width);
}

static uint64_t reset_read(void *device, uint64_t offset, unsigned width)
{
    const struct acpi_pm *pm = device;
    (void)offset;
    (void)width;
    return pm->reset_register;
}

static void reset_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct acpi_pm *pm = device;
    (void)offset;
    (void)width;
    pm->reset_register = (uint8_t)(value & ~RESET_CPU);
    if (value & RESET_CPU)
        vm_reset_requested(pm->vm);
}

static void acpi_pm_reset(void *device)
{
    struct acpi_pm *pm = device;
    struct vm *vm = pm->vm;
    if (pm->overflow.armed)
        clock_cancel(&vm->clock, &pm->overflow);
    if (pm->level)
        irq_set(vm, IRQ_SCI, false);
    *pm = (struct acpi_pm){.vm = vm, .overflow = {.fire = overflow, .context = pm}};
    pm->half_periods = ticks(pm) / TIMER_HALF;
}

static void *acpi_pm_create(struct vm *vm, struct error *err)
{
    struct acpi_pm *pm = calloc(1, sizeof *pm);
    if (!pm)
        return NULL;
    pm->vm = vm;
    acpi_pm_reset(pm);
    const struct bus_window windows[] = {
        {"acpi_pm", ACPI_PM1A_EVENT, ACPI_PM1A_EVENT_LENGTH, event_read, event_write, pm, 0},
        {"acpi_pm", ACPI_PM1A_CONTROL, ACPI_PM1A_CONTROL_LENGTH, control_read, control_write, pm,
         0},
        {"acpi_pm", ACPI_PM_TIMER, ACPI_PM_TIMER_LENGTH, timer_read, NULL, pm, 0},
        {"acpi_pm", ACPI_RESET_PORT, 1, reset_read, reset_write, pm, 0},
    };
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        if (bus_add_ports(&vm->bus, &windows[i], err)) {
            free(pm);
            return NULL;
        }
    }
    return pm;
}

const struct device_type acpi_pm_device = {
    .name = "acpi_pm", .create = acpi_pm_create, .reset = acpi_pm_reset};
