/* SPDX-License-Identifier: MIT */
/* A state page that guest and host use at the same time, as on an engine that does not take turns: here threads stand for
 * the vCPUs, and do what the templates do. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/devices/mc146818.h"
#include "runtime/interrupts.h"
#include "runtime/soft/engine.h"
#include "tests/unit/console_double.h"
#include "tests/unit/stub_guest.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define THR   0x3f8
#define IER   0x3f9
#define IIR   0x3fa
#define LCR   0x3fb
#define LSR   0x3fd
#define BYTES 6000 /* by each thread */

static struct engine at_once;
static struct stub_guest *g;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int set_up(void **state)
{
    (void)state;
    console_clear();
    at_once = soft_engine;
    at_once.takes_turns = false;
    g = stub_guest_open_on(&at_once, true);
    return stub_guest_attach(g);
}

static int tear_down(void **state)
{
    (void)state;
    stub_guest_close(g);
    return 0;
}

/* ---- what a guest does ---- */
static struct pv_port look_up(struct pv_port *table, unsigned port)
{
    struct pv_port entry;
    uint32_t bits = __atomic_load_n((uint32_t *)&table[port & 0xff], __ATOMIC_ACQUIRE);
    memcpy(&entry, &bits, sizeof entry);
    if (entry.negated != (uint16_t)-port)
        entry.kind = 0xff;
    return entry;
}

static void native_out(unsigned port, uint8_t value)
{
    pthread_mutex_lock(&lock);
    bus_out(&g->vm.bus, (uint16_t)port, 1, value);
    pthread_mutex_unlock(&lock);
}

static bool post(uint8_t byte)
{
    struct pv_state *s = g->state;
    bool posted = false;
    if (look_up(s->port_out, THR).kind != PV_PORT_OUT_POSTED ||
        __atomic_exchange_n(&s->ring_lock, 1, __ATOMIC_ACQ_REL))
        return false;
    if (!__atomic_load_n(&s->ring[s->ring_tail], __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&s->ring[s->ring_tail], byte, __ATOMIC_RELEASE);
        s->ring_tail = (uint16_t)((s->ring_tail + 1) % PV_RING_SLOTS);
        posted = true;
    }
    __atomic_store_n(&s->ring_lock, 0, __ATOMIC_RELEASE);
    return posted;
}

static void out(unsigned port, uint8_t value)
{
    struct pv_state *s = g->state;
    if (port == THR && post(value))
        return;
    uint8_t kind = look_up(s->port_out, port).kind;
    if (port != THR && (kind == PV_PORT_OUT_KEPT || kind == PV_PORT_OUT_WRITTEN))
        __atomic_store_n((uint16_t *)&s->port_out[port & 0xff].value,
                         (uint16_t)(PV_PORT_OUT_WRITTEN << 8 | value), __ATOMIC_RELEASE);
    else
        native_out(port, value);
}

static uint8_t native_in(unsigned port)
{
    pthread_mutex_lock(&lock);
    uint8_t value = (uint8_t)bus_in(&g->vm.bus, (uint16_t)port, 1);
    pthread_mutex_unlock(&lock);
    return value;
}

static bool host_looks(void)
{
    pthread_mutex_lock(&lock);
    bool shared = stub_devices_look(&g->vm);
    pthread_mutex_unlock(&lock);
    return shared;
}

/* ---- the ring ---- */
struct sender {
    uint8_t first, count; /* the bytes it sends, over and over */
};

static void *send(void *argument)
{
    const struct sender *s = argument;
    for (unsigned n = 0; n < BYTES; n++)
        out(THR, (uint8_t)(s->first + n % s->count));
    return NULL;
}

static void assert_in_order(const struct sender *s)
{
    unsigned n = 0;
    for (size_t k = 0; k < console.count; k++) {
        uint8_t byte = (uint8_t)console.sent[k];
        if (byte < s->first || byte >= s->first + s->count)
            continue;
        assert_int_equal(byte, s->first + n % s->count);
        n++;
    }
    assert_int_equal(n, BYTES);
}

static void test_bytes_of_two_vcpus_arrive_complete_and_in_order_while_the_host_looks(void **state)
{
    (void)state;
    struct sender senders[2] = {{'A', 26}, {'a', 23}};
    pthread_t threads[2];
    for (unsigned k = 0; k < 2; k++)
        assert_int_equal(pthread_create(&threads[k], NULL, send, &senders[k]), 0);
    for (unsigned n = 0; n < 2000; n++)
        assert_true(host_looks());
    for (unsigned k = 0; k < 2; k++)
        pthread_join(threads[k], NULL);
    host_looks();
    assert_int_equal(console.count, 2 * BYTES);
    assert_in_order(&senders[0]);
    assert_in_order(&senders[1]);
    assert_true(g->vm.stats.posted > 0);
}

static void test_the_ring_steps_aside_for_divisor_loopback_and_transmit_interrupts(void **state)
{
    (void)state;
    assert_int_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
    native_out(LCR, 0x83);
    assert_int_not_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
    native_out(LCR, 3);
    assert_int_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
    native_out(LCR + 1, 0x10);
    assert_int_not_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
    native_out(LCR + 1, 0);
    out(IER, 2); /* kept: the host sees it when it looks */
    host_looks();
    assert_int_not_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
    assert_int_equal(look_up(g->state->port_out, IER).kind, 0xff);
    native_out(IER, 0);
    assert_int_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
}

/* ---- what is kept for the host ---- */
static void *enable_and_disable(void *argument)
{
    (void)argument;
    for (unsigned n = 0; n <= 20000; n++)
        out(IER, n & 1);
    out(IER, 4);
    return NULL;
}

static void test_the_last_of_many_enables_is_the_one_that_counts(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, enable_and_disable, NULL), 0);
    for (unsigned n = 0; n < 5000; n++)
        host_looks();
    pthread_join(thread, NULL);
    host_looks();
    assert_int_equal(native_in(IER), 4);
}

static void test_what_is_left_in_an_entry_that_was_just_withdrawn_is_taken(void **state)
{
    (void)state;
    out(IER, 2);
    host_looks(); /* withdraws it; a vCPU that had found it before stores now: */
    struct pv_port *entry = &g->state->port_out[IER & 0xff];
    *(uint16_t *)&entry->value = PV_PORT_OUT_WRITTEN << 8 | 0;
    host_looks();
    assert_int_equal(native_in(IER), 0);
    assert_int_equal(look_up(g->state->port_out, IER).kind, PV_PORT_OUT_KEPT);
    assert_int_equal(look_up(g->state->port_out, THR).kind, PV_PORT_OUT_POSTED);
}

/* ---- what is offered, and what is not ---- */
static void test_an_identification_is_read_from_the_device(void **state)
{
    (void)state;
    assert_int_equal(look_up(g->state->port_in, IIR).kind, 0xff);
    assert_int_equal(look_up(g->state->port_in, LSR).kind, PV_PORT_IN_VALUE);
}

static void test_the_clocks_registers_are_offered_but_near_an_update(void **state)
{
    (void)state;
    struct soft *soft = g->vm.soft;
    assert_true(g->state->cmos[0] & MC146818_KNOWN);
    soft->idle_ns += 998500000 - clock_now(&g->vm.clock);
    host_looks();
    assert_false(g->state->cmos[0] & MC146818_KNOWN);
    assert_true(g->state->cmos[0x0d] & MC146818_KNOWN);
}

static void test_the_pm_timer_keeps_its_formula_until_a_counter_is_set(void **state)
{
    (void)state;
    struct pv_counter before = g->state->pm;
    assert_int_not_equal(before.negated_port, 1);
    g->vm.soft->idle_ns += 60 * 1000000000ull;
    host_looks();
    assert_memory_equal(&before, &g->state->pm, sizeof before);
    assert_true(msr_write(g->cpu, 0x10, 1ull << 40));
    assert_int_equal(g->state->pm.negated_port, 1);
    assert_int_not_equal(g->state->pm.version, before.version);
    assert_int_equal(g->state->pm.negated_base, before.negated_base); /* for who is reading */
}

static void test_a_deadline_left_in_the_page_is_taken_at_the_next_look(void **state)
{
    (void)state;
    uint64_t value = 0, now;
    g->vm.running = g->cpu;
    bus_write(&g->vm.bus, LAPIC_BASE + 0xf0, 4, 0x1ff);
    bus_write(&g->vm.bus, LAPIC_BASE + 0x320, 4, 2u << 17 | 0x40);
    host_looks();
    now = clock_now(&g->vm.clock);
    assert_true(g->state->deadline.limit > now + 1800000); /* two looks of 0.9 ms */
    g->state->deadline.posted = now + 4000000;
    host_looks();
    assert_int_equal(g->state->deadline.posted, 0);
    assert_true(msr_read(g->cpu, PV_MSR_TSC_DEADLINE, &value));
    assert_int_equal(value, now + 4000000);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_of_two_vcpus_arrive_complete_and_in_order_while_the_host_looks),
        TEST(test_the_ring_steps_aside_for_divisor_loopback_and_transmit_interrupts),
        TEST(test_the_last_of_many_enables_is_the_one_that_counts),
        TEST(test_what_is_left_in_an_entry_that_was_just_withdrawn_is_taken),
        TEST(test_an_identification_is_read_from_the_device),
        TEST(test_the_clocks_registers_are_offered_but_near_an_update),
        TEST(test_the_pm_timer_keeps_its_formula_until_a_counter_is_set),
        TEST(test_a_deadline_left_in_the_page_is_taken_at_the_next_look),
    };
    return cmocka_run_group_tests_name("shared state page", tests, NULL, NULL);
}
