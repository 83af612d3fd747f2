/* SPDX-License-Identifier: MIT */
/* Guest time and timers.
 *
 * Guest time is in nanoseconds since power-on. On the soft engine it is the number of instructions
 * executed (one nanosecond each) plus the time spent halted, so a guest sees the same time in every
 * run and no host stall looks like a lost timer. TSC = guest time: 1 GHz (CLOCK_TSC_KHZ). On other
 * engines it is the host's time, and the TSC runs at the frequency that the host can give it (tsc_khz).
 * Everything runs on the one thread that runs the vCPUs; nothing here is locked. */
#ifndef RUNTIME_CLOCK_H
#define RUNTIME_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_TSC_KHZ 1000000u
#define CLOCK_NEVER   UINT64_MAX

struct timer {
    uint64_t deadline; /* guest time in ns; valid while armed */
    /* called once the deadline has passed, disarmed; may arm it again */
    void (*fire)(void *context, uint64_t now);
    void *context;
    bool armed;
    struct timer *next; /* the clock's list, sorted by deadline */
};

struct clock {
    /* guest time now, in ns; set by the engine. Never goes backwards. */
    uint64_t (*source)(void *context);
    /* told when the first deadline changed, so that a running vCPU comes back in time; may be NULL */
    void (*deadline_changed)(void *context);
    void *context;
    uint32_t tsc_khz; /* 0 = CLOCK_TSC_KHZ */
    struct timer *first;
};

static inline uint64_t clock_now(const struct clock *clock)
{
    return clock->source ? clock->source(clock->context) : 0;
}

static inline uint32_t clock_tsc_khz(const struct clock *clock)
{
    return clock->tsc_khz ? clock->tsc_khz : CLOCK_TSC_KHZ;
}

/* The TSC that has counted since guest time 0, at a guest time in ns. */
static inline uint64_t clock_ticks(const struct clock *clock, uint64_t ns)
{
    return clock_tsc_khz(clock) == CLOCK_TSC_KHZ
               ? ns
               : (uint64_t)((unsigned __int128)ns * clock->tsc_khz / 1000000u);
}
/* The time that so many ticks take, in ns, rounded up. */
static inline uint64_t clock_ticks_last(const struct clock *clock, uint64_t ticks)
{
    unsigned __int128 ns = (unsigned __int128)ticks * 1000000u;
    if (clock_tsc_khz(clock) == CLOCK_TSC_KHZ)
        return ticks;
    ns = (ns + clock->tsc_khz - 1) / clock->tsc_khz;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

/* Arms (or moves) the timer. A deadline in the past fires at the next clock_run. */
void clock_arm(struct clock *clock, struct timer *timer, uint64_t deadline);
void clock_cancel(struct clock *clock, struct timer *timer);

/* Deadline of the first armed timer, or CLOCK_NEVER. */
static inline uint64_t clock_deadline(const struct clock *clock)
{
    return clock->first ? clock->first->deadline : CLOCK_NEVER;
}

/* Fires all timers whose deadline has passed, in order. A timer that is re-armed for a time already
 * past fires again, at most 64 times in a call, so that no guest setting can hang the host. */
void clock_run(struct clock *clock);

#endif
