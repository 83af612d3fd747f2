/* SPDX-License-Identifier: MIT */
/* Timers: a list sorted by deadline. There are a dozen of them at most, so a list it is. */
#include "runtime/clock.h"

#include <stddef.h>

/* Timers that one clock_run fires at most: see clock.h. */
#define FIRES_MAX 64

static void first_changed(const struct clock *clock, uint64_t before)
{
    if (clock->deadline_changed && clock_deadline(clock) != before)
        clock->deadline_changed(clock->context);
}

static void take_out(struct clock *clock, struct timer *timer)
{
    struct timer **at = &clock->first;

    while (*at && *at != timer)
        at = &(*at)->next;
    if (*at)
        *at = timer->next;
    timer->next = NULL;
    timer->armed = false;
}

void clock_arm(struct clock *clock, struct timer *timer, uint64_t deadline)
{
    uint64_t before = clock_deadline(clock);
    struct timer **at = &clock->first;

    if (timer->armed)
        take_out(clock, timer);
    /* Behind those of the same deadline: equal timers fire in the order they were armed. */
    while (*at && (*at)->deadline <= deadline)
        at = &(*at)->next;
    timer->deadline = deadline;
    timer->armed = true;
    timer->next = *at;
    *at = timer;
    first_changed(clock, before);
}

void clock_cancel(struct clock *clock, struct timer *timer)
{
    uint64_t before = clock_deadline(clock);

    if (!timer->armed)
        return;
    take_out(clock, timer);
    first_changed(clock, before);
}

void clock_run(struct clock *clock)
{
    uint64_t now = clock_now(clock), before = clock_deadline(clock);

    for (unsigned fired = 0; fired < FIRES_MAX; fired++) {
        struct timer *timer = clock->first;
        if (!timer || timer->deadline > now)
            break;
        take_out(clock, timer);
        timer->fire(timer->context, now);
    }
    first_changed(clock, before);
}
