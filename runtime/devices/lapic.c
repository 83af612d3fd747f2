/* SPDX-License-Identifier: MIT */
/* The local APICs: priorities, messages between them, and what reaches the processors (SDM 3A 11). */
#include "runtime/devices/lapic.h"

#include <stdlib.h>

/* The ICR, beside the vector (SDM 3A 11.6.1) */
#define ICR_DELIVERY(icr)  ((enum apic_delivery)((icr) >> 8 & 7))
#define ICR_LOGICAL        0x800u
#define ICR_ASSERT         0x4000u
#define ICR_LEVEL          0x8000u
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3)
enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

#define FIRST_VECTOR 16 /* those below are illegal */
#define CLASS(v)     ((v)&0xf0u)

/* ---- sets of vectors ---- */

static int highest(const struct vectors *v)
{
    for (int i = 3; i >= 0; i--)
        if (v->bits[i])
            return 64 * i + 63 - __builtin_clzll(v->bits[i]);
    return -1;
}

static void set(struct vectors *v, uint8_t vector, bool on)
{
    uint64_t bit = 1ull << vector % 64;

    v->bits[vector / 64] = on ? v->bits[vector / 64] | bit : v->bits[vector / 64] & ~bit;
}

/* ---- what the processor sees ---- */

/* SDM 3A 11.8.3.1 */
uint8_t lapic_processor_priority(const struct lapic *l)
{
    int serving = highest(&l->isr);

    if (serving < 0 || CLASS(l->tpr) >= CLASS((unsigned)serving))
        return (uint8_t)l->tpr;
    return (uint8_t)CLASS((unsigned)serving);
}

/* The vector in IRR that priority lets in, or -1. */
static int deliverable(const struct lapic *l)
{
    int vector = highest(&l->irr);

    if (vector < 0 || !lapic_enabled(l) || !(l->svr & SVR_ENABLED) ||
        CLASS((unsigned)vector) <= CLASS(lapic_processor_priority(l)))
        return -1;
    return vector;
}

/* True if the 8259 asks this processor: through LINT0, by an ExtINT message, or, with the APIC disabled
 * in IA32_APIC_BASE, directly (SDM 3A 11.4.3). Priority does not hold it back. */
static bool extint_waits(const struct lapic *l)
{
    if (!i8259_output(l->vm))
        return false;
    if (!lapic_enabled(l))
        return l->lint0;
    return l->extint || (l->lint0 && !(l->lvt[LVT_LINT0] & LVT_MASKED) &&
                         LVT_DELIVERY(l->lvt[LVT_LINT0]) == APIC_EXTINT);
}

bool lapic_update(struct vcpu *vcpu)
{
    const struct lapic *l = vcpu->lapic;
    bool waits = l && (deliverable(l) >= 0 || extint_waits(l));

    if (waits)
        vcpu_event(vcpu, VCPU_EVENT_INTERRUPT);
    else
        vcpu->events &= ~VCPU_EVENT_INTERRUPT;
    return waits;
}

int lapic_acknowledge(struct vcpu *vcpu)
{
    struct lapic *l = vcpu->lapic;

    if (!l)
        return -1;
    int vector = deliverable(l);
    if (vector >= 0) {
        set(&l->irr, (uint8_t)vector, false);
        set(&l->isr, (uint8_t)vector, true);
    } else if (extint_waits(l)) {
        l->extint = false;
        vector = i8259_acknowledge(l->vm);
    }
    lapic_update(vcpu);
    return vector;
}

/* SDM 3A 11.8.5 */
void lapic_end_of_interrupt(struct lapic *l)
{
    int serving = highest(&l->isr);

    if (serving < 0)
        return;
    uint8_t vector = (uint8_t)serving;
    set(&l->isr, vector, false);
    if (vectors_has(&l->tmr, vector)) {
        uint32_t *lint0 = &l->lvt[LVT_LINT0];
        if (LVT_VECTOR(*lint0) == vector && (*lint0 & LVT_REMOTE_IRR)) {
            *lint0 &= ~LVT_REMOTE_IRR;
            lapic_lint0_changed(l);
        }
        if (!(l->svr & SVR_NO_EOI_BROADCAST))
            ioapic_end_of_interrupt(l->vm, vector);
    }
    lapic_update(l->cpu);
}

uint8_t lapic_get_tpr(struct vcpu *vcpu)
{
    if (lapic_elsewhere(vcpu))
        return lapic_elsewhere(vcpu)->get_tpr(vcpu);
    return vcpu->lapic ? (uint8_t)(vcpu->lapic->tpr >> 4) : 0;
}

void lapic_set_tpr(struct vcpu *vcpu, uint8_t cr8)
{
    if (lapic_elsewhere(vcpu))
        lapic_elsewhere(vcpu)->set_tpr(vcpu, cr8);
    if (!vcpu->lapic)
        return;
    vcpu->lapic->tpr = (cr8 & 15u) << 4;
    lapic_update(vcpu);
}

uint32_t lapic_id(struct vcpu *vcpu)
{
    return vcpu->lapic ? vcpu->lapic->id : vcpu->index;
}

/* ---- interrupts that arrive ---- */

void lapic_error(struct lapic *l, uint32_t error)
{
    bool news = !(l->errors & error);

    l->errors |= error;
    if (news)
        lapic_local_interrupt(l, LVT_ERROR);
}

/* A vector arrives: IRR, or an error. */
static void accept_vector(struct lapic *l, uint8_t vector, bool level)
{
    if (vector < FIRST_VECTOR) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL);
        return;
    }
    set(&l->irr, vector, true);
    set(&l->tmr, vector, level);
    lapic_update(l->cpu);
}

/* A message for this APIC. False if it does not take it. */
static bool receive(struct lapic *l, enum apic_delivery delivery, uint8_t vector, bool level)
{
    struct vcpu *cpu = l->cpu;

    switch (delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!(l->svr & SVR_ENABLED))
            return false;
        accept_vector(l, vector, level);
        return true;
    case APIC_SMI:
        vcpu_event(cpu, VCPU_EVENT_SMI);
        return true;
    case APIC_NMI:
        vcpu_event(cpu, VCPU_EVENT_NMI);
        return true;
    case APIC_INIT:
        /* A start-up message that came before is for nothing now. */
        cpu->events &= ~VCPU_EVENT_SIPI;
        vcpu_event(cpu, VCPU_EVENT_INIT);
        return true;
    case APIC_SIPI:
        /* Taken only after INIT, which may be on its way itself (SDM 3A 9.4.2). */
        if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI || (cpu->events & VCPU_EVENT_INIT)) {
            cpu->sipi_vector = vector;
            vcpu_event(cpu, VCPU_EVENT_SIPI);
        }
        return true;
    case APIC_EXTINT:
        l->extint = true;
        lapic_update(cpu);
        return true;
    }
    return false;
}

void lapic_local_interrupt(struct lapic *l, enum lapic_lvt source)
{
    uint32_t entry = l->lvt[source];
    bool pin = source == LVT_LINT0 || source == LVT_LINT1;

    if ((entry & LVT_MASKED) || !lapic_enabled(l))
        return;
    /* The timer and error entries have no delivery mode: those bits are 0. */
    if (LVT_DELIVERY(entry) == APIC_FIXED) {
        bool level = pin && (entry & LVT_LEVEL);
        if (level)
            l->lvt[source] |= LVT_REMOTE_IRR;
        receive(l, APIC_FIXED, LVT_VECTOR(entry), level);
    } else if (LVT_DELIVERY(entry) != APIC_EXTINT) {
        receive(l, LVT_DELIVERY(entry), LVT_VECTOR(entry), false);
    }
}

void lapic_lint0_changed(struct lapic *l)
{
    uint32_t entry = l->lvt[LVT_LINT0];

    /* A level that stays up asks again after each EOI; edges are lapic_extint's. */
    if (l->lint0 && LVT_DELIVERY(entry) == APIC_FIXED && (entry & LVT_LEVEL) &&
        !(entry & LVT_REMOTE_IRR))
        lapic_local_interrupt(l, LVT_LINT0);
    lapic_update(l->cpu);
}

void lapic_extint(struct vm *vm, bool level)
{
    struct vcpu *cpu = vm->vcpus[0];
    struct lapic *l = cpu ? cpu->lapic : NULL;

    if (l) {
        uint32_t entry = l->lvt[LVT_LINT0];
        bool edge = level && !l->lint0;
        l->lint0 = level;
        if (edge && !(LVT_DELIVERY(entry) == APIC_FIXED && (entry & LVT_LEVEL)))
            lapic_local_interrupt(l, LVT_LINT0);
        lapic_lint0_changed(l);
    }
    /* A vCPU with an ExtINT message waits for the same line. */
    for (unsigned i = 1; i < vm->vcpu_count; i++)
        lapic_update(vm->vcpus[i]);
}

/* ---- messages ---- */

/* SDM 3A 11.6.2.2 and 11.12.10.2 */
static bool logical_match(const struct lapic *l, uint32_t destination)
{
    if (lapic_x2apic(l))
        return l->ldr >> 16 == destination >> 16 && (l->ldr & destination & 0xffff);
    uint32_t id = l->ldr >> 24;
    if (destination > 0xff)
        return false;
    if (l->dfr >> 28 == 0xf) /* flat */
        return id & destination;
    if (l->dfr >> 28 == 0) /* cluster */
        return id >> 4 == destination >> 4 && (id & destination & 0xf);
    return false;
}

static bool match(const struct lapic *l, uint32_t destination, bool logical)
{
    if (!l || !lapic_enabled(l))
        return false;
    if (destination == APIC_EVERYBODY)
        return true;
    return logical ? logical_match(l, destination) : l->id == destination;
}

/* The one of lowest priority takes it: of equals the first, so that runs repeat. */
static bool message_to_lowest(struct vm *vm, uint32_t destination, bool logical, uint8_t vector,
                              bool level)
{
    struct lapic *lowest = NULL;

    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct lapic *l = vm->vcpus[i]->lapic;
        if (match(l, destination, logical) && (l->svr & SVR_ENABLED) &&
            (!lowest || lapic_processor_priority(l) < lapic_processor_priority(lowest)))
            lowest = l;
    }
    return lowest && receive(lowest, APIC_LOWEST, vector, level);
}

bool apic_message(struct vm *vm, uint32_t destination, bool logical, enum apic_delivery delivery,
                  uint8_t vector, bool level)
{
    bool taken = false;

    if (delivery == APIC_LOWEST)
        return message_to_lowest(vm, destination, logical, vector, level);
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct lapic *l = vm->vcpus[i]->lapic;
        if (match(l, destination, logical))
            taken |= receive(l, delivery, vector, level);
    }
    return taken;
}

/* SDM 3A 11.6.1: the level and trigger bits matter for INIT only; interrupts between processors are edges. */
void lapic_send(struct lapic *l, uint32_t icr, uint32_t destination)
{
    enum apic_delivery delivery = ICR_DELIVERY(icr);
    uint8_t vector = (uint8_t)icr;

    if ((delivery == APIC_FIXED || delivery == APIC_LOWEST) && vector < FIRST_VECTOR) {
        lapic_error(l, ESR_SEND_ILLEGAL);
        return;
    }
    if (delivery == APIC_EXTINT || delivery == 3) /* reserved */
        return;
    if (delivery == APIC_INIT && (icr & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return; /* the de-assert that only old buses knew */
    switch (ICR_SHORTHAND(icr)) {
    case SHORTHAND_NONE:
        apic_message(l->vm, destination, icr & ICR_LOGICAL, delivery, vector, false);
        break;
    case SHORTHAND_SELF:
        receive(l, delivery, vector, false);
        break;
    case SHORTHAND_ALL:
        apic_message(l->vm, APIC_EVERYBODY, false, delivery, vector, false);
        break;
    case SHORTHAND_OTHERS:
        for (unsigned i = 0; i < l->vm->vcpu_count; i++) {
            struct lapic *other = l->vm->vcpus[i]->lapic;
            if (other != l && match(other, APIC_EVERYBODY, false))
                receive(other, delivery, vector, false);
        }
        break;
    }
}

/* ---- the device ---- */

void lapic_registers_reset(struct lapic *l)
{
    l->tpr = 0;
    l->ldr = lapic_x2apic(l) ? (l->id & ~15u) << 12 | 1u << (l->id & 15) : 0;
    l->dfr = UINT32_MAX;
    l->svr = 0xff;
    l->esr = l->errors = 0;
    l->icr = l->icr_destination = 0;
    l->irr = l->isr = l->tmr = (struct vectors){{0}};
    l->extint = false;
    for (unsigned i = 0; i < LVTS; i++)
        l->lvt[i] = LVT_MASKED;
    /* Virtual wire mode, as firmware leaves the boot processor: kernels that know no APIC get the 8259's
     * interrupts. */
    if (l->cpu->index == 0) {
        l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
        l->lvt[LVT_LINT1] = APIC_NMI << 8;
    }
    lapic_timer_reset(l);
    lapic_update(l->cpu);
}

void lapic_init(struct vcpu *vcpu)
{
    if (vcpu->lapic)
        lapic_registers_reset(vcpu->lapic);
}

/* The device is all the local APICs. */
struct lapics {
    struct vm *vm;
    struct lapic_windows *windows;
    struct lapic lapic[VCPUS_MAX];
};

static void lapic_reset(void *device)
{
    struct lapics *all = device;

    for (unsigned i = 0; i < all->vm->vcpu_count; i++) {
        struct lapic *l = &all->lapic[i];
        l->base = LAPIC_BASE | APIC_BASE_ENABLED | (i ? 0 : APIC_BASE_BSP);
        l->id = i;
        l->lint0 = i == 0 && i8259_output(all->vm);
        lapic_registers_reset(l);
    }
}

static void lapic_destroy(void *device)
{
    struct lapics *all = device;

    for (unsigned i = 0; i < all->vm->vcpu_count; i++) {
        clock_cancel(&all->vm->clock, &all->lapic[i].timer);
        all->vm->vcpus[i]->lapic = NULL;
    }
    free(all->windows);
    free(all);
}

static void *lapic_create(struct vm *vm, struct error *err)
{
    struct lapics *all = calloc(1, sizeof(*all));

    if (!all) {
        fail(err, HVRUN_HOST, "lapic: out of memory");
        return NULL;
    }
    all->vm = vm;
    all->windows = lapic_windows_create(vm, err);
    if (!all->windows) {
        free(all);
        return NULL;
    }
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct lapic *l = &all->lapic[i];
        l->cpu = vm->vcpus[i];
        l->vm = vm;
        l->windows = all->windows;
        lapic_timer_create(l);
        vm->vcpus[i]->lapic = l;
    }
    lapic_reset(all);
    return all;
}

const struct device_type lapic_device = {
    .name = "lapic",
    .create = lapic_create,
    .reset = lapic_reset,
    .destroy = lapic_destroy,
    .interrupt_chip = true,
};
