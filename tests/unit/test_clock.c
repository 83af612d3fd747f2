/* SPDX-License-Identifier: MIT */
/* Timers: order, re-arming, and that nothing runs without end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/clock.h"

#include <cmocka.h>

static uint64_t present;
static unsigned told;

static uint64_t source(void *context)
{
    (void)context;
    return present;
}

static void changed(void *context)
{
    (void)context;
    told++;
}

struct counted {
    struct clock *clock;
    struct timer timer;
    unsigned fired;
    char name;
    char *log;
    uint64_t step; /* re-arms by this, if not CLOCK_NEVER */
};

static void fire(void *context, uint64_t now)
{
    struct counted *c = context;
    assert_false(c->timer.armed);
    assert_int_equal(now, present);
    c->fired++;
    if (c->log) {
        while (*c->log)
            c->log++;
        *c->log = c->name;
    }
    if (c->step != CLOCK_NEVER)
        clock_arm(c->clock, &c->timer, c->timer.deadline + c->step);
}

static struct clock fresh(void)
{
    present = 0;
    told = 0;
    return (struct clock){.source = source, .deadline_changed = changed};
}

#define COUNTED(c, ch, text)                                                                       \
    struct counted ch = {.clock = &(c), .name = #ch[0], .log = (text), .step = CLOCK_NEVER};       \
    ch.timer = (struct timer)                                                                      \
    {                                                                                              \
        .fire = fire, .context = &ch                                                               \
    }

static void timers_fire_in_order_of_their_deadlines(void **state)
{
    (void)state;
    char log[8] = "";
    struct clock clock = fresh();
    COUNTED(clock, a, log);
    COUNTED(clock, b, log);
    COUNTED(clock, c, log);
    clock_arm(&clock, &a.timer, 30);
    clock_arm(&clock, &b.timer, 10);
    clock_arm(&clock, &c.timer, 20);
    assert_int_equal(clock_deadline(&clock), 10);
    present = 9;
    clock_run(&clock);
    assert_string_equal(log, "");
    present = 25;
    clock_run(&clock);
    assert_string_equal(log, "bc");
    present = 30;
    clock_run(&clock);
    assert_string_equal(log, "bca");
    assert_int_equal(clock_deadline(&clock), CLOCK_NEVER);
}

static void timers_of_one_deadline_fire_as_they_were_armed(void **state)
{
    (void)state;
    char log[8] = "";
    struct clock clock = fresh();
    COUNTED(clock, a, log);
    COUNTED(clock, b, log);
    COUNTED(clock, c, log);
    clock_arm(&clock, &b.timer, 5);
    clock_arm(&clock, &a.timer, 5);
    clock_arm(&clock, &c.timer, 5);
    present = 5;
    clock_run(&clock);
    assert_string_equal(log, "bac");
}

static void arming_again_moves_a_timer(void **state)
{
    (void)state;
    struct clock clock = fresh();
    COUNTED(clock, a, NULL);
    clock_arm(&clock, &a.timer, 5);
    clock_arm(&clock, &a.timer, 50);
    present = 10;
    clock_run(&clock);
    assert_int_equal(a.fired, 0);
    present = 50;
    clock_run(&clock);
    assert_int_equal(a.fired, 1);
}

static void a_cancelled_timer_does_not_fire(void **state)
{
    (void)state;
    struct clock clock = fresh();
    COUNTED(clock, a, NULL);
    COUNTED(clock, b, NULL);
    clock_arm(&clock, &a.timer, 5);
    clock_arm(&clock, &b.timer, 6);
    clock_cancel(&clock, &a.timer);
    clock_cancel(&clock, &a.timer);
    present = 100;
    clock_run(&clock);
    assert_int_equal(a.fired, 0);
    assert_int_equal(b.fired, 1);
}

static void the_engine_is_told_when_the_first_deadline_changes_only(void **state)
{
    (void)state;
    struct clock clock = fresh();
    COUNTED(clock, a, NULL);
    COUNTED(clock, b, NULL);
    clock_arm(&clock, &a.timer, 50);
    assert_int_equal(told, 1);
    clock_arm(&clock, &b.timer, 60);
    assert_int_equal(told, 1);
    clock_arm(&clock, &b.timer, 40);
    assert_int_equal(told, 2);
    clock_cancel(&clock, &a.timer);
    assert_int_equal(told, 2);
    clock_cancel(&clock, &b.timer);
    assert_int_equal(told, 3);
}

static void a_deadline_in_the_past_fires_at_the_next_run(void **state)
{
    (void)state;
    struct clock clock = fresh();
    COUNTED(clock, a, NULL);
    present = 100;
    clock_arm(&clock, &a.timer, 3);
    assert_int_equal(a.fired, 0);
    clock_run(&clock);
    assert_int_equal(a.fired, 1);
}

static void a_timer_that_re_arms_fires_for_each_period_that_passed(void **state)
{
    (void)state;
    struct clock clock = fresh();
    COUNTED(clock, a, NULL);
    a.step = 10;
    clock_arm(&clock, &a.timer, 10);
    present = 35;
    clock_run(&clock);
    assert_int_equal(a.fired, 3);
    assert_int_equal(clock_deadline(&clock), 40);
}

static void a_timer_that_re_arms_for_now_does_not_hang_the_run(void **state)
{
    (void)state;
    struct clock clock = fresh();
    COUNTED(clock, a, NULL);
    a.step = 0;
    clock_arm(&clock, &a.timer, 0);
    clock_run(&clock);
    assert_int_equal(a.fired, 64);
    assert_true(a.timer.armed);
}

static void without_a_source_time_is_zero(void **state)
{
    (void)state;
    struct clock clock = {0};
    assert_int_equal(clock_now(&clock), 0);
    clock_run(&clock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_of_their_deadlines),
        cmocka_unit_test(timers_of_one_deadline_fire_as_they_were_armed),
        cmocka_unit_test(arming_again_moves_a_timer),
        cmocka_unit_test(a_cancelled_timer_does_not_fire),
        cmocka_unit_test(the_engine_is_told_when_the_first_deadline_changes_only),
        cmocka_unit_test(a_deadline_in_the_past_fires_at_the_next_run),
        cmocka_unit_test(a_timer_that_re_arms_fires_for_each_period_that_passed),
        cmocka_unit_test(a_timer_that_re_arms_for_now_does_not_hang_the_run),
        cmocka_unit_test(without_a_source_time_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
