/* SPDX-License-Identifier: MIT */
/* Device fast paths: what a patched guest does by itself reaches the devices complete and in order,
 * and what it reads is what the devices would have given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/devices/uart16550.h"
#include "runtime/interrupts.h"
#include "runtime/soft/engine.h"
#include "tests/unit/console_double.h"
#include "tests/unit/stub_guest.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define THR 0x3f8
#define IER 0x3f9
#define IIR 0x3fa
#define LCR 0x3fb
#define MCR 0x3fc
#define LSR 0x3fd
#define MSR 0x3fe
#define SCR 0x3ff

static struct stub_guest *g;
static int out_byte, in_byte, in_timer,
    wrmsr; /* routines: out dx, al; in al, dx; in eax, dx; wrmsr */

static int set_up(void **state)
{
    (void)state;
    console_clear();
    g = stub_guest_open(true);
    out_byte = stub_guest_add(g, "ee", "out_posted", PV_FORM_JUMP);
    in_byte = stub_guest_add(g, "ec", "in_table", PV_FORM_JUMP);
    in_timer = stub_guest_add(g, "ed", "in_timer", PV_FORM_JUMP);
    wrmsr = stub_guest_add(g, "0f 30", "wrmsr_posted", PV_FORM_JUMP);
    return stub_guest_attach(g);
}

static int tear_down(void **state)
{
    (void)state;
    stub_guest_close(g);
    return 0;
}

static uint64_t io_exits(void)
{
    return g->vm.stats.exits[EXIT_KIND_IO];
}

/* The guest's own accesses, through its patched instructions. Each is a slice of its own. */
static void out(uint16_t port, uint8_t value)
{
    g->cpu->r[RDX] = port;
    g->cpu->r[RAX] = value;
    assert_true(stub_guest_run(g, out_byte));
}

static uint8_t in(uint16_t port)
{
    g->cpu->r[RDX] = port;
    g->cpu->r[RAX] = 0;
    assert_true(stub_guest_run(g, in_byte));
    assert_int_equal(g->cpu->r[RAX] & ~0xffull, 0);
    return (uint8_t)g->cpu->r[RAX];
}

/* Several accesses within one slice: the guest's, who posts as the template does; nothing is taken
 * yet. */
static void begin(void)
{
    stub_devices_begin(g->cpu, 100000);
}

static bool post(uint8_t byte)
{
    struct pv_state *s = g->state;
    if (s->port_out[THR & 0xff].negated != (uint16_t)-THR ||
        s->port_out[THR & 0xff].kind != PV_PORT_OUT_POSTED || !byte || s->ring[s->ring_tail])
        return false;
    s->ring[s->ring_tail] = byte;
    s->ring_tail = (uint16_t)((s->ring_tail + 1) % PV_RING_SLOTS);
    return true;
}

static void assert_sent(const char *text)
{
    assert_int_equal(console.count, strlen(text));
    assert_memory_equal(console.sent, text, console.count);
}

static void pass(uint64_t ns)
{
    g->vm.soft->idle_ns += ns;
    clock_run(&g->vm.clock);
}

/* ---- the ring ---- */
static void test_a_byte_costs_no_exit_and_is_there_when_the_slice_ends(void **state)
{
    (void)state;
    for (const char *p = "posted"; *p; p++)
        out(THR, (uint8_t)*p);
    assert_sent("posted");
    assert_int_equal(io_exits(), 0);
    assert_int_equal(g->vm.stats.posted, 6);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(io_exits(), 0);
}

static void test_order_is_kept_around_the_rings_end(void **state)
{
    (void)state;
    char want[3 * PV_RING_SLOTS + 1] = {0};
    for (unsigned n = 0; n < 3 * PV_RING_SLOTS; n++) {
        want[n] = (char)('!' + n % 90);
        if (n % 700 == 0)
            begin();
        assert_true(post((uint8_t)want[n]));
        if (n % 700 == 699)
            stub_devices_take(&g->vm);
    }
    stub_devices_take(&g->vm);
    assert_sent(want);
}

static void test_a_full_ring_and_the_byte_0_go_to_the_device_behind_it(void **state)
{
    (void)state;
    begin();
    char want[PV_RING_SLOTS + 3] = {0};
    for (unsigned n = 0; n < PV_RING_SLOTS; n++)
        assert_true(post((uint8_t)(want[n] = 'a')));
    assert_false(post('b'));
    bus_out(&g->vm.bus, THR, 1, want[PV_RING_SLOTS] = 'b');
    assert_true(post((uint8_t)(want[PV_RING_SLOTS + 1] = 'c'))); /* there is room again */
    assert_false(post(0));
    stub_devices_take(&g->vm);
    assert_sent(want);
    out(THR, 0);
    assert_int_equal(console.count, PV_RING_SLOTS + 3);
    assert_int_equal(io_exits(), 1);
}

static void test_bytes_come_before_any_access_behind_them(void **state)
{
    (void)state;
    begin();
    post('1');
    bus_out(&g->vm.bus, 0xe9, 1, '2'); /* the debug console */
    post('3');
    bus_in(&g->vm.bus, LSR, 1);
    assert_sent("123");
    post('4');
    bus_read(&g->vm.bus, LAPIC_BASE + 0x20, 4); /* memory-mapped ones too */
    assert_sent("1234");
}

static void test_with_the_divisor_latch_on_nothing_is_posted(void **state)
{
    (void)state;
    out(LCR, 0x83);
    out(THR, 'x'); /* the divisor's low byte */
    assert_sent("");
    assert_int_equal(in(THR), 'x');
    out(IER, 0x12);
    assert_int_equal(in(IER), 0x12);
    out(LCR, 0x03);
    assert_int_equal(in(IER), 0);
    out(THR, 'y');
    assert_sent("y");
}

static void test_in_loopback_nothing_is_posted(void **state)
{
    (void)state;
    out(LCR, 3);
    out(MCR, 0x10);
    out(THR, 'x');
    assert_sent("");
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(THR), 'x');
    out(MCR, 0);
    out(THR, 'y');
    assert_sent("y");
}

static void test_the_transmit_interrupt_comes_when_bytes_are_taken(void **state)
{
    (void)state;
    out(MCR, 0x08);
    out(IER, 0x02);
    assert_int_equal(in(IIR), 0x02); /* empty: at once */
    assert_int_equal(in(IIR), 0x01); /* which that read took back */
    begin();
    assert_true(post('a'));
    assert_int_equal(bus_in(&g->vm.bus, IIR, 1), 0x02);
    begin();
    assert_true(post('b'));
    stub_devices_take(&g->vm);
    assert_int_equal(in(IIR), 0x02);
    out(IER, 0);
    out(THR, 'c');
    assert_int_equal(in(IIR), 0x01);
    assert_sent("abc");
}

/* An access to the local APIC takes the bytes too, and the interrupt may come in the same slice. */
static void test_an_interrupt_raised_within_a_slice_is_identified_at_once(void **state)
{
    (void)state;
    const struct pv_port *shown = &g->state->port_in[IIR & 0xff];
    out(MCR, 0x08);
    out(IER, 0x02);
    assert_int_equal(in(IIR), 0x02);
    assert_int_equal(in(IIR), 0x01);
    begin();
    assert_int_equal(shown->value, 0x01);
    assert_true(post('a'));
    bus_write(&g->vm.bus, LAPIC_BASE + 0xb0, 4, 0); /* end of interrupt */
    assert_int_equal(shown->value, 0x02);
    assert_sent("a");
}

static void test_interrupt_enables_are_written_and_read_in_the_guest(void **state)
{
    (void)state;
    out(MCR, 0x08);
    uint64_t before = io_exits();
    out(IER, 0x05);
    assert_int_equal(in(IER), 0x05);
    out(IER, 0x15); /* four bits are there */
    assert_int_equal(in(IER), 0x05);
    assert_int_equal(io_exits(), before);
    assert_int_equal(bus_in(&g->vm.bus, IER, 1), 0x05);
}

static void test_terminal_output_costs_no_exit(void **state)
{
    (void)state;
    out(MCR, 0x08);
    uint64_t before = io_exits();
    out(IER,
        0x07); /* as a driver does: on, then in its interrupt what it has, 16 bytes at a time */
    for (unsigned burst = 0; burst < 4; burst++) {
        assert_int_equal(in(IIR), 0x02);
        assert_int_equal(in(IIR), 0x01);
        for (unsigned n = 0; n < 16; n++)
            out(THR, (uint8_t)('a' + n));
    }
    out(IER, 0x05);
    assert_int_equal(in(IIR), 0x01);
    assert_int_equal(io_exits(), before);
    assert_int_equal(console.count, 64);
}

static void test_the_identification_of_enables_just_written_is_the_devices(void **state)
{
    (void)state;
    begin();
    struct pv_port *ier = &g->state->port_out[IER & 0xff];
    assert_int_equal(ier->kind, PV_PORT_OUT_KEPT);
    ier->value = 0x02;
    ier->kind = PV_PORT_OUT_WRITTEN; /* in the same slice: */
    assert_int_equal(bus_in(&g->vm.bus, IIR, 1), 0x02);
    assert_int_equal(ier->kind, PV_PORT_OUT_KEPT);
    assert_int_equal(bus_in(&g->vm.bus, IIR, 1), 0x01);
    begin();
    ier->kind = PV_PORT_OUT_WRITTEN; /* off and on again */
    stub_devices_take(&g->vm);
    assert_int_equal(bus_in(&g->vm.bus, IIR, 1), 0x02);
}

static void test_an_interrupt_turned_off_behind_the_bytes_does_not_come(void **state)
{
    (void)state;
    out(MCR, 0x08);
    out(IER, 0x02);
    assert_int_equal(in(IIR), 0x02);
    begin();
    assert_true(post('x'));
    g->state->port_out[IER & 0xff].value = 0;
    g->state->port_out[IER & 0xff].kind = PV_PORT_OUT_WRITTEN;
    stub_devices_take(&g->vm);
    assert_int_equal(in(IIR), 0x01);
    assert_sent("x");
}

static void test_input_is_seen_by_the_guest(void **state)
{
    (void)state;
    out(IIR, 0x01); /* FIFOs on */
    out(IER, 0x01);
    pass(10000000);
    assert_int_equal(in(LSR)&1, 0);
    console.input = "hi";
    uart16550_attend(g->vm.uart);
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(THR), 'h');
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(THR), 'i');
    assert_int_equal(in(LSR), 0x60);
}

static void test_a_guest_that_polls_for_input_gets_it(void **state)
{
    (void)state;
    console.input = "k";
    for (unsigned n = 0; n < 64 && !(in(LSR)&1); n++) {
    }
    assert_int_equal(in(THR), 'k');
}

/* ---- registers that only keep what is written ---- */
static void test_writing_the_same_again_costs_nothing(void **state)
{
    (void)state;
    out(LCR, 0x03);
    out(SCR, 0x77);
    uint64_t before = io_exits();
    out(LCR, 0x03);
    out(SCR, 0x77);
    out(IER, 0x00);
    assert_int_equal(in(SCR), 0x77);
    assert_int_equal(in(LCR), 0x03);
    assert_int_equal(io_exits(), before);
    out(SCR, 0x78);
    assert_int_equal(in(SCR), 0x78);
    assert_int_equal(io_exits(), before + 1);
}

static void test_a_port_that_nobody_has_is_learned(void **state)
{
    (void)state;
    out(0x80, 1);
    assert_int_equal(in(0x5a5), 0xff);
    uint64_t before = io_exits();
    out(0x80, 2);
    assert_int_equal(in(0x5a5), 0xff);
    assert_int_equal(io_exits(), before);
    assert_int_equal(in(0x2fd), 0xff); /* a place that another port has: the host's */
    assert_int_equal(in(0x6a5), 0xff); /* the place of one that was learned first */
    assert_int_equal(io_exits(), before + 2);
    assert_int_equal(in(LSR), 0x60);
}

static void test_masks_of_the_8259_are_known(void **state)
{
    (void)state;
    out(0x21, 0xfb);
    out(0xa1, 0xff);
    uint64_t before = io_exits();
    assert_int_equal(in(0x21), 0xfb);
    assert_int_equal(in(0xa1), 0xff);
    out(0x21, 0xfb);
    assert_int_equal(io_exits(), before);
    out(0x20, 0x11); /* initialization: the next bytes to 0x21 are commands */
    out(0x21, 0x30);
    out(0x21, 0x04);
    out(0x21, 0x01);
    assert_int_equal(in(0x21), 0x00);
}

/* ---- CMOS ---- */
static uint8_t cmos(uint8_t index)
{
    out(0x70, index);
    return in(0x71);
}

static void test_cmos_registers_are_read_without_an_exit(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x0b), 0x02);
    assert_int_equal(cmos(0x00), 0x00);
    assert_int_equal(cmos(0x09), 0x26); /* 2026 */
    assert_int_equal(cmos(0x32), 0x20);
    assert_int_equal(cmos(0x80 | 0x0d), 0x80); /* bit 7 is no part of the index */
    assert_int_equal(io_exits(), 0);
    pass(1500000000);
    assert_int_equal(cmos(0x0a), 0x26); /* the host learns that a second is over */
    uint64_t before = io_exits();
    assert_int_equal(cmos(0x00), 0x01);
    assert_int_equal(io_exits(), before);
}

static void test_cmos_reads_with_effects_or_near_an_update_are_the_devices(void **state)
{
    (void)state;
    pass(1000000);
    assert_int_equal(cmos(0x0c) & 0x40, 0x40); /* flags, which the read clears */
    assert_int_equal(io_exits(), 1);
    pass(1000000000 - 1000000 - 300000); /* the slice reaches into the update in progress */
    uint64_t before = io_exits();
    begin();
    assert_int_equal(g->state->cmos[0] >> 8, 0);
    assert_int_equal(g->state->cmos[0x0a] >> 8, 0);
    assert_int_equal(g->state->cmos[0x0f] >> 8, 1);
    pass(100000);
    assert_int_equal(cmos(0x0a), 0xa6);
    assert_int_equal(io_exits(), before + 1);
}

static void test_a_cmos_write_goes_where_the_guest_left_the_index(void **state)
{
    (void)state;
    out(0x70, 0x40);
    out(0x71, 0x99);
    out(0x70, 0x41);
    assert_int_equal(in(0x71), 0);
    assert_int_equal(cmos(0x40), 0x99);
    assert_int_equal(io_exits(), 1);
    out(0x70, 0x0b);
    out(0x71, 0x06); /* binary */
    assert_int_equal(cmos(0x09), 26);
}

/* ---- counters ---- */
static unsigned pit_of_device(void)
{
    unsigned count = bus_in(&g->vm.bus, 0x40, 1);
    return count | bus_in(&g->vm.bus, 0x40, 1) << 8;
}

static void test_the_pit_is_read_in_the_guest_byte_by_byte(void **state)
{
    (void)state;
    out(0x43, 0x34); /* channel 0, low then high byte, mode 2 */
    out(0x40, 0);
    out(0x40, 0); /* 65536 */
    uint64_t before = io_exits();
    for (unsigned n = 0; n < 1000; n++) {
        pass(7777);
        unsigned first = pit_of_device();
        unsigned count = in(0x40);
        count |= (unsigned)in(0x40) << 8;
        unsigned last = pit_of_device();
        assert_true(((first - count) & 0xffff) <= ((first - last) & 0xffff));
    }
    assert_int_equal(io_exits(), before);
    begin();
    unsigned low = in(0x40); /* the device knows that the high byte is next */
    unsigned high = bus_in(&g->vm.bus, 0x40, 1);
    unsigned next = pit_of_device();
    assert_true((((high << 8 | low) - next) & 0xffff) < 300);
}

static void test_the_acpi_timer_is_read_in_the_guest(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 200; n++) {
        pass(123456789);
        g->cpu->r[RDX] = 0x608;
        g->cpu->r[RAX] = ~0ull;
        uint32_t first = bus_in(&g->vm.bus, 0x608, 4);
        assert_true(stub_guest_run(g, in_timer));
        uint32_t last = bus_in(&g->vm.bus, 0x608, 4);
        assert_int_equal(g->cpu->r[RAX] >> 24, 0);
        assert_true(((g->cpu->r[RAX] - first) & 0xffffff) <= ((last - first) & 0xffffff));
    }
    assert_int_equal(io_exits(), 0);
}

/* ---- the APIC timer's deadline ---- */
static void set_deadline(uint64_t tsc)
{
    g->cpu->r[RCX] = PV_MSR_TSC_DEADLINE;
    g->cpu->r[RAX] = (uint32_t)tsc;
    g->cpu->r[RDX] = tsc >> 32;
    assert_true(stub_guest_run(g, wrmsr));
}

static uint64_t deadline(void)
{
    uint64_t value = 0;
    assert_true(msr_read(g->cpu, PV_MSR_TSC_DEADLINE, &value));
    return value;
}

static void use_deadlines(void)
{
    g->vm.running = g->cpu; /* whose APIC is meant */
    bus_write(&g->vm.bus, LAPIC_BASE + 0xf0, 4, 0x1ff);
    bus_write(&g->vm.bus, LAPIC_BASE + 0x320, 4, 2u << 17 | 0x40);
}

static uint64_t tsc(void)
{
    return clock_now(&g->vm.clock) + g->cpu->tsc_offset;
}

static void test_a_far_deadline_is_posted_and_kept(void **state)
{
    (void)state;
    use_deadlines();
    uint64_t far = tsc() + 4000000;
    set_deadline(far);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_MSR], 0);
    assert_int_equal(deadline(), far);
    assert_int_equal(clock_deadline(&g->vm.clock), far);
    assert_int_equal(g->state->deadline.posted, 0);
    pass(4000001);
    assert_true(g->cpu->events & VCPU_EVENT_INTERRUPT);
    assert_int_equal(deadline(), 0);
}

static void test_a_near_deadline_and_none_are_told_at_once(void **state)
{
    (void)state;
    use_deadlines();
    uint64_t near = tsc() + 900; /* within the slice of 1000 */
    set_deadline(near);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_MSR], 1);
    assert_int_equal(deadline(), near);
    set_deadline(0);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_MSR], 2);
    assert_int_equal(deadline(), 0);
}

static void test_deadlines_are_posted_in_their_mode_only(void **state)
{
    (void)state;
    set_deadline(tsc() + 4000000); /* the timer is one-shot: ignored, by the device */
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_MSR], 1);
    use_deadlines();
    begin();
    g->vm.running = g->cpu;
    g->state->deadline.posted = tsc() + 4000000;
    bus_write(&g->vm.bus, LAPIC_BASE + 0x320, 4, 0x40); /* one-shot: disarmed */
    assert_int_equal(g->state->deadline.limit, UINT64_MAX);
    assert_int_equal(deadline(), 0);
    assert_int_equal(g->state->deadline.posted, 0);
}

static void test_deadlines_follow_the_time_stamp_counter(void **state)
{
    (void)state;
    use_deadlines();
    assert_true(msr_write(g->cpu, 0x10, 1ull << 40));
    uint64_t far = tsc() + 4000000;
    assert_true(far > 1ull << 40);
    set_deadline(far);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_MSR], 0);
    assert_int_equal(clock_deadline(&g->vm.clock), far - g->cpu->tsc_offset);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_byte_costs_no_exit_and_is_there_when_the_slice_ends),
        TEST(test_order_is_kept_around_the_rings_end),
        TEST(test_a_full_ring_and_the_byte_0_go_to_the_device_behind_it),
        TEST(test_bytes_come_before_any_access_behind_them),
        TEST(test_with_the_divisor_latch_on_nothing_is_posted),
        TEST(test_in_loopback_nothing_is_posted),
        TEST(test_the_transmit_interrupt_comes_when_bytes_are_taken),
        TEST(test_an_interrupt_raised_within_a_slice_is_identified_at_once),
        TEST(test_interrupt_enables_are_written_and_read_in_the_guest),
        TEST(test_terminal_output_costs_no_exit),
        TEST(test_the_identification_of_enables_just_written_is_the_devices),
        TEST(test_an_interrupt_turned_off_behind_the_bytes_does_not_come),
        TEST(test_input_is_seen_by_the_guest),
        TEST(test_a_guest_that_polls_for_input_gets_it),
        TEST(test_writing_the_same_again_costs_nothing),
        TEST(test_a_port_that_nobody_has_is_learned),
        TEST(test_masks_of_the_8259_are_known),
        TEST(test_cmos_registers_are_read_without_an_exit),
        TEST(test_cmos_reads_with_effects_or_near_an_update_are_the_devices),
        TEST(test_a_cmos_write_goes_where_the_guest_left_the_index),
        TEST(test_the_pit_is_read_in_the_guest_byte_by_byte),
        TEST(test_the_acpi_timer_is_read_in_the_guest),
        TEST(test_a_far_deadline_is_posted_and_kept),
        TEST(test_a_near_deadline_and_none_are_told_at_once),
        TEST(test_deadlines_are_posted_in_their_mode_only),
        TEST(test_deadlines_follow_the_time_stamp_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
