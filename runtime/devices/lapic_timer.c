/* SPDX-License-Identifier: MIT */
/* The local APIC's timer (SDM 3A 11.5.4): counts down at 1 GHz over the divide value, or waits for a
 * TSC value. The count is worked out from guest time when somebody looks; a timer of the clock is armed only
 * while an interrupt would come of it. */
#include "runtime/devices/lapic.h"

/* ns: a periodic timer interrupts no more often, so that no setting keeps the host busy with ticks */
#define PERIOD_MIN 1000

static unsigned mode(const struct lapic *l)
{
    return LVT_TIMER_MODE(l->lvt[LVT_TIMER]);
}

static uint64_t now_of(const struct lapic *l)
{
    return clock_now(&l->vm->clock);
}

static uint64_t tsc_at(const struct lapic *l, uint64_t now)
{
    return clock_ticks(&l->vm->clock, now) + l->cpu->tsc_offset;
}

/* ns a count takes: 2, 4, 8, 16, 32, 64, 128, 1 by bits 3, 1 and 0. */
static uint64_t tick(const struct lapic *l)
{
    unsigned value = (l->divide & 3) | (l->divide >> 1 & 4);

    return 1ull << (value + 1) % 8;
}

static uint64_t period(const struct lapic *l)
{
    return l->initial_count * tick(l);
}

/* ---- what guest time brings ---- */

static void arm(struct lapic *l, uint64_t now)
{
    bool masked = l->lvt[LVT_TIMER] & LVT_MASKED;

    if (mode(l) == TIMER_TSC_DEADLINE && l->tsc_deadline) {
        /* positive: run() came first */
        uint64_t left = clock_ticks_last(&l->vm->clock, l->tsc_deadline - tsc_at(l, now));
        if (left <= UINT64_MAX - 1 - now) {
            clock_arm(&l->vm->clock, &l->timer, now + left);
            return;
        }
    } else if (l->timer_runs && !masked) {
        uint64_t deadline = l->expiry;
        if (mode(l) == TIMER_PERIODIC && period(l) < PERIOD_MIN && deadline < now + PERIOD_MIN)
            deadline = now + PERIOD_MIN;
        clock_arm(&l->vm->clock, &l->timer, deadline);
        return;
    }
    clock_cancel(&l->vm->clock, &l->timer);
}

static void run_counter(struct lapic *l, uint64_t now)
{
    if (!l->timer_runs || now < l->expiry)
        return;
    if (mode(l) == TIMER_PERIODIC && l->initial_count)
        l->expiry += ((now - l->expiry) / period(l) + 1) * period(l); /* missed ones are one */
    else
        l->timer_runs = false;
    lapic_local_interrupt(l, LVT_TIMER);
}

static void run_deadline(struct lapic *l, uint64_t now)
{
    if (!l->tsc_deadline || tsc_at(l, now) < l->tsc_deadline)
        return;
    l->tsc_deadline = 0;
    lapic_local_interrupt(l, LVT_TIMER);
}

/* Does what should have happened by now. */
static void run(struct lapic *l, uint64_t now)
{
    if (mode(l) == TIMER_TSC_DEADLINE)
        run_deadline(l, now);
    else
        run_counter(l, now);
}

static void fired(void *context, uint64_t now)
{
    struct lapic *l = context;

    run(l, now);
    arm(l, now);
}

/* ---- what the guest does ---- */

void lapic_timer_create(struct lapic *l)
{
    l->timer = (struct timer){.fire = fired, .context = l};
}

void lapic_timer_reset(struct lapic *l)
{
    l->timer_runs = false;
    l->initial_count = l->divide = 0;
    l->tsc_deadline = 0;
    clock_cancel(&l->vm->clock, &l->timer);
}

uint32_t lapic_timer_count(struct lapic *l)
{
    uint64_t now = now_of(l);

    run(l, now);
    return l->timer_runs ? (uint32_t)((l->expiry - now + tick(l) - 1) / tick(l)) : 0;
}

void lapic_timer_start(struct lapic *l, uint32_t initial_count)
{
    uint64_t now = now_of(l);

    if (mode(l) == TIMER_TSC_DEADLINE) /* not used in this mode: a write is ignored */
        return;
    run(l, now);
    l->initial_count = initial_count;
    l->timer_runs = initial_count != 0;
    l->expiry = now + period(l);
    arm(l, now);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t divide)
{
    uint64_t now = now_of(l);
    uint32_t count = lapic_timer_count(l);

    l->divide = divide;
    l->expiry = now + count * tick(l); /* goes on from the same count */
    arm(l, now);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t value)
{
    uint64_t now = now_of(l);
    bool was_deadline = mode(l) == TIMER_TSC_DEADLINE;

    run(l, now);
    l->lvt[LVT_TIMER] = value;
    /* From or to TSC-deadline mode: disarmed. Between the others: counts on. */
    if (was_deadline != (mode(l) == TIMER_TSC_DEADLINE)) {
        l->timer_runs = false;
        l->initial_count = 0;
        l->tsc_deadline = 0;
    }
    arm(l, now);
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
    run(l, now_of(l));
    return l->tsc_deadline; /* 0 outside TSC-deadline mode, and once it has passed */
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    uint64_t now = now_of(l);

    if (mode(l) != TIMER_TSC_DEADLINE)
        return;
    run(l, now);
    l->tsc_deadline = tsc;
    run(l, now);
    arm(l, now);
}

bool lapic_takes_deadlines(const struct vcpu *vcpu)
{
    return vcpu->lapic && mode(vcpu->lapic) == TIMER_TSC_DEADLINE;
}
