/* SPDX-License-Identifier: MIT */
/* The local APIC's registers: as memory (xAPIC), as MSRs (x2APIC), and IA32_APIC_BASE, which chooses.
 * One table says what is where; a register's number is its offset / 16 or its MSR - 0x800. */
#include "runtime/devices/lapic.h"

#include <stdlib.h>

#include "runtime/cpuid.h"

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC       0x800
#define MSR_X2APIC_LAST  0x8ff

#define MODE_BITS     (APIC_BASE_ENABLED | APIC_BASE_X2APIC)
#define BASE_ADDRESS  (((1ull << PHYSICAL_BITS) - 1) & ~PAGE_OFFSET)
#define BASE_RESERVED (~(BASE_ADDRESS | APIC_BASE_BSP | MODE_BITS))

#define VERSION (0x14 | (LVTS - 1) << 16 | 1u << 24) /* bit 24: EOI broadcast can be suppressed */

enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_REMOTE_READ = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10, /* eight of each */
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR_DESTINATION = 0x31,
    REG_LVT = 0x32, /* six, in the order of enum lapic_lvt */
    REG_LVT_LAST = REG_LVT + LVTS - 1,
    REG_INITIAL_COUNT = 0x38,
    REG_CURRENT_COUNT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
    NUMBERS = 0x40
};

/* Access, as memory and as MSR */
#define R  1
#define W  2
#define XR 4
#define XW 8

/* `writable` are the bits that a write changes, `read_only` those it may hold all the same: others raise #GP in
 * x2APIC mode and are ignored in xAPIC mode. */
static const struct row {
    uint8_t access;
    uint32_t writable, read_only;
} rows[NUMBERS] = {
    [REG_ID] = {R | W | XR, 0xff000000, 0},
    [REG_VERSION] = {R | XR, 0, 0},
    [REG_TPR] = {R | W | XR | XW, 0xff, 0},
    [REG_APR] = {R, 0, 0},
    [REG_PPR] = {R | XR, 0, 0},
    [REG_EOI] = {R | W | XW, 0, 0},
    [REG_REMOTE_READ] = {R, 0, 0},
    [REG_LDR] = {R | W | XR, 0xff000000, 0},
    [REG_DFR] = {R | W, 0xf0000000, 0},
    [REG_SVR] = {R | W | XR | XW, 0xff | SVR_ENABLED | 0x200 | SVR_NO_EOI_BROADCAST, 0},
    [REG_ISR... REG_ESR - 1] = {R | XR, 0, 0},
    [REG_ESR] = {R | W | XR | XW, 0, 0},
    [REG_ICR] = {R | W | XR | XW, 0x000ccfff, 0x1000},
    [REG_ICR_DESTINATION] = {R | W, 0xff000000, 0},
    [REG_LVT + LVT_TIMER] = {R | W | XR | XW, 0x700ff, 0x1000},
    [REG_LVT + LVT_THERMAL] = {R | W | XR | XW, 0x107ff, 0x1000},
    [REG_LVT + LVT_PERFORMANCE] = {R | W | XR | XW, 0x107ff, 0x1000},
    [REG_LVT + LVT_LINT0] = {R | W | XR | XW, 0x1a7ff, 0x5000},
    [REG_LVT + LVT_LINT1] = {R | W | XR | XW, 0x1a7ff, 0x5000},
    [REG_LVT + LVT_ERROR] = {R | W | XR | XW, 0x100ff, 0x1000},
    [REG_INITIAL_COUNT] = {R | W | XR | XW, UINT32_MAX, 0},
    [REG_CURRENT_COUNT] = {R | XR, 0, 0},
    [REG_DIVIDE] = {R | W | XR | XW, 0xb, 0},
    [REG_SELF_IPI] = {XW, 0xff, 0},
};

/* ---- reading ---- */

static uint32_t word_of(const struct vectors *v, unsigned n)
{
    return (uint32_t)(v->bits[n / 2] >> n % 2 * 32);
}

static uint32_t register_read(struct lapic *l, unsigned number)
{
    switch (number) {
    case REG_ID:
        return lapic_x2apic(l) ? l->id : l->id << 24;
    case REG_VERSION:
        return VERSION;
    case REG_TPR:
        return l->tpr;
    case REG_APR: /* arbitration is not modelled; what it would begin with */
    case REG_PPR:
        return lapic_processor_priority(l);
    case REG_LDR:
        return l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_SVR:
        return l->svr;
    case REG_ISR ... REG_ISR + 7:
        return word_of(&l->isr, number - REG_ISR);
    case REG_TMR ... REG_TMR + 7:
        return word_of(&l->tmr, number - REG_TMR);
    case REG_IRR ... REG_IRR + 7:
        return word_of(&l->irr, number - REG_IRR);
    case REG_ESR:
        return l->esr;
    case REG_ICR:
        return l->icr;
    case REG_ICR_DESTINATION:
        return l->icr_destination << 24;
    case REG_LVT ... REG_LVT_LAST:
        return l->lvt[number - REG_LVT];
    case REG_INITIAL_COUNT:
        return l->initial_count;
    case REG_CURRENT_COUNT:
        return lapic_timer_count(l);
    case REG_DIVIDE:
        return l->divide;
    default:
        return 0;
    }
}

/* ---- writing ---- */

static void write_lvt(struct lapic *l, enum lapic_lvt entry, uint32_t value)
{
    if (!(l->svr & SVR_ENABLED))
        value |= LVT_MASKED; /* SDM 3A 11.4.7.2 */
    if (entry == LVT_TIMER) {
        lapic_timer_set_lvt(l, value);
        return;
    }
    if (value & LVT_LEVEL)
        value |= l->lvt[entry] & LVT_REMOTE_IRR;
    l->lvt[entry] = value;
    if (entry == LVT_LINT0)
        lapic_lint0_changed(l);
}

static void write_svr(struct lapic *l, uint32_t value)
{
    l->svr = value;
    if (!(value & SVR_ENABLED))
        for (unsigned i = 0; i < LVTS; i++)
            write_lvt(l, i, l->lvt[i]);
    lapic_update(l->cpu);
}

/* `value` holds writable bits only. */
static void register_write(struct lapic *l, unsigned number, uint32_t value)
{
    switch (number) {
    case REG_ID:
        l->id = value >> 24;
        break;
    case REG_TPR:
        l->tpr = value;
        lapic_update(l->cpu);
        break;
    case REG_EOI:
        lapic_end_of_interrupt(l);
        break;
    case REG_LDR:
        l->ldr = value;
        break;
    case REG_DFR:
        l->dfr = value | 0x0fffffff;
        break;
    case REG_SVR:
        write_svr(l, value);
        break;
    case REG_ESR: /* a write shows what happened since the last one */
        l->esr = l->errors;
        l->errors = 0;
        break;
    case REG_ICR:
        l->icr = value;
        lapic_send(l, value, l->icr_destination == 0xff ? APIC_EVERYBODY : l->icr_destination);
        break;
    case REG_ICR_DESTINATION:
        l->icr_destination = value >> 24;
        break;
    case REG_LVT ... REG_LVT_LAST:
        write_lvt(l, number - REG_LVT, value);
        break;
    case REG_INITIAL_COUNT:
        lapic_timer_start(l, value);
        break;
    case REG_DIVIDE:
        lapic_timer_set_divide(l, value);
        break;
    case REG_SELF_IPI:
        lapic_send(l, ICR_SELF | value, 0);
        break;
    default:
        break;
    }
}

/* ---- xAPIC: the memory window ---- */

/* The bus keeps a window for ever, so a guest that moves its APIC about gets this many places; beyond them, or
 * over RAM or another device, the registers are not to be seen. */
#define WINDOWS_MAX 8

struct lapic_windows {
    struct vm *vm;
    unsigned count;
    struct lapic_window {
        struct vm *vm;
        uint64_t base;
    } window[WINDOWS_MAX];
};

/* The APIC of the vCPU that makes the access, or NULL if it is not here. */
static struct lapic *here(const struct lapic_window *window)
{
    struct lapic *l = window->vm->running ? window->vm->running->lapic : NULL;

    return l && lapic_enabled(l) && !lapic_x2apic(l) && (l->base & BASE_ADDRESS) == window->base
               ? l
               : NULL;
}

/* Registers are 32 bits wide, on 16-byte boundaries; of anything else reads give what of a register is there. */
static uint64_t window_read(void *device, uint64_t offset, unsigned width)
{
    struct lapic *l = here(device);
    uint64_t number = offset / 16, byte = offset % 16;

    (void)width;
    if (!l)
        return UINT64_MAX;
    if (number >= NUMBERS || !(rows[number].access & R)) {
        lapic_error(l, ESR_ILLEGAL_REGISTER);
        return 0;
    }
    return byte < 4 ? register_read(l, (unsigned)number) >> 8 * byte : 0;
}

static void window_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct lapic *l = here(device);
    uint64_t number = offset / 16;

    if (!l || width != 4 || offset % 16)
        return;
    if (number >= NUMBERS || !(rows[number].access & W)) {
        lapic_error(l, ESR_ILLEGAL_REGISTER);
        return;
    }
    register_write(l, (unsigned)number, (uint32_t)value & rows[number].writable);
}

static int open_window(struct lapic_windows *w, uint64_t base, struct error *err)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->window[i].base == base)
            return 0;
    if (w->count == WINDOWS_MAX)
        return fail(err, HVRUN_HOST, "lapic: more than %d places", WINDOWS_MAX);
    struct lapic_window *new = &w->window[w->count];
    *new = (struct lapic_window){w->vm, base};
    if (bus_add_mmio(&w->vm->bus,
                     &(struct bus_window){.name = "lapic",
                                          .first = base,
                                          .count = PAGE_SIZE,
                                          .read = window_read,
                                          .write = window_write,
                                          .device = new},
                     err))
        return -1;
    w->count++;
    return 0;
}

struct lapic_windows *lapic_windows_create(struct vm *vm, struct error *err)
{
    struct lapic_windows *w = calloc(1, sizeof(*w));

    if (!w) {
        fail(err, HVRUN_HOST, "lapic: out of memory");
        return NULL;
    }
    w->vm = vm;
    if (open_window(w, LAPIC_BASE, err)) {
        free(w);
        return NULL;
    }
    return w;
}

/* ---- x2APIC: MSRs (SDM 3A 11.12.1) ---- */

static int x2apic_read(struct lapic *l, unsigned number, uint64_t *value)
{
    if (!lapic_x2apic(l) || number >= NUMBERS || !(rows[number].access & XR))
        return -1;
    *value = register_read(l, number);
    if (number == REG_ICR)
        *value |= (uint64_t)l->icr_destination << 32;
    return 0;
}

static int x2apic_write(struct lapic *l, unsigned number, uint64_t value)
{
    if (!lapic_x2apic(l) || number >= NUMBERS || !(rows[number].access & XW))
        return -1;
    const struct row *row = &rows[number];
    uint32_t low = (uint32_t)value, high = (uint32_t)(value >> 32);
    if (low & ~(row->writable | row->read_only))
        return -1;
    if (number == REG_ICR) {
        l->icr = low & row->writable;
        l->icr_destination = high;
        lapic_send(l, l->icr, high);
        return 0;
    }
    if (high)
        return -1;
    register_write(l, number, low & row->writable);
    return 0;
}

/* ---- IA32_APIC_BASE ---- */

/* The transitions that SDM 3A 11.12.5 allows: x2APIC mode is entered from xAPIC mode only, and left for
 * the disabled state only. */
static bool may_become(uint64_t from, uint64_t to)
{
    switch (to & MODE_BITS) {
    case 0:
        return true;
    case APIC_BASE_ENABLED:
        return !(from & APIC_BASE_X2APIC);
    case MODE_BITS:
        return from & APIC_BASE_ENABLED;
    default:
        return false;
    }
}

static int write_base(struct lapic *l, uint64_t value)
{
    uint64_t old = l->base;

    if ((value & BASE_RESERVED) || !may_become(old, value))
        return -1;
    l->base = value;
    if ((old ^ value) & MODE_BITS)
        l->id = l->cpu->index;
    if ((old & ~value) & APIC_BASE_ENABLED) {
        /* All but the TPR goes back to its power-up state: that is CR8, which the processor keeps. */
        uint32_t tpr = l->tpr;
        lapic_registers_reset(l);
        l->tpr = tpr;
    } else if ((value & ~old) & APIC_BASE_X2APIC) {
        l->ldr = (l->id & ~15u) << 12 | 1u << (l->id & 15);
        l->icr_destination = 0;
    }
    /* A place it cannot have leaves it without a window: see WINDOWS_MAX. */
    if ((value & APIC_BASE_ENABLED) && !(value & APIC_BASE_X2APIC))
        (void)open_window(l->windows, value & BASE_ADDRESS, NULL);
    lapic_update(l->cpu);
    return 0;
}

/* ---- MSRs ---- */

int lapic_read_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    struct lapic *l = vcpu->lapic;

    if (!l)
        return lapic_elsewhere(vcpu) ? lapic_elsewhere(vcpu)->read_msr(vcpu, msr, value) : 1;
    if (msr >= MSR_X2APIC && msr <= MSR_X2APIC_LAST)
        return x2apic_read(l, msr - MSR_X2APIC, value);
    switch (msr) {
    case MSR_APIC_BASE:
        *value = l->base;
        return 0;
    case MSR_TSC_DEADLINE:
        *value = lapic_timer_deadline(l);
        return 0;
    default:
        return 1;
    }
}

int lapic_write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    struct lapic *l = vcpu->lapic;

    if (!l)
        return lapic_elsewhere(vcpu) ? lapic_elsewhere(vcpu)->write_msr(vcpu, msr, value) : 1;
    if (msr >= MSR_X2APIC && msr <= MSR_X2APIC_LAST)
        return x2apic_write(l, msr - MSR_X2APIC, value);
    switch (msr) {
    case MSR_APIC_BASE:
        return write_base(l, value);
    case MSR_TSC_DEADLINE:
        lapic_timer_set_deadline(l, value);
        return 0;
    default:
        return 1;
    }
}
