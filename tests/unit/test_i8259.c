/* SPDX-License-Identifier: MIT */
/* The 8259 pair: initialisation, priorities, the ends of interrupts, the modes of the data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/chipset_machine.h"

#include <cmocka.h>

#define MASTER 0x20
#define SLAVE  0xa0
#define EOI    0x20

static const struct device_type *const devices[] = {&i8259_device, NULL};

static void initialise(struct machine *m, uint8_t icw4)
{
    out8(m, MASTER, 0x11);
    out8(m, MASTER + 1, 0x30);
    out8(m, MASTER + 1, 0x04);
    out8(m, MASTER + 1, icw4);
    out8(m, SLAVE, 0x11);
    out8(m, SLAVE + 1, 0x38);
    out8(m, SLAVE + 1, 0x02);
    out8(m, SLAVE + 1, icw4);
}

static int setup(void **state)
{
    struct machine *m = machine_new(0, devices);
    initialise(m, 0x01);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    machine_free(*state);
    return 0;
}

static void line(struct machine *m, unsigned n, bool level)
{
    i8259_set_line(&m->vm, n, level);
}

static void pulse(struct machine *m, unsigned n)
{
    line(m, n, true);
    line(m, n, false);
}

static int take(struct machine *m)
{
    return i8259_output(&m->vm) ? i8259_acknowledge(&m->vm) : -1;
}

static uint8_t isr(struct machine *m, uint16_t port)
{
    out8(m, port, 0x0b);
    return in8(m, port);
}

static uint8_t irr(struct machine *m, uint16_t port)
{
    out8(m, port, 0x0a);
    return in8(m, port);
}

static void at_power_on_everything_but_the_cascade_is_masked(void **state)
{
    (void)state;
    struct machine *m = machine_new(0, devices);
    assert_int_equal(in8(m, MASTER + 1), 0xfb);
    assert_int_equal(in8(m, SLAVE + 1), 0xff);
    pulse(m, 0);
    pulse(m, 8);
    assert_false(i8259_output(&m->vm));
    machine_free(m);
}

static void an_edge_gives_the_vector_of_its_line(void **state)
{
    struct machine *m = *state;
    line(m, 4, true);
    assert_true(i8259_output(&m->vm));
    assert_int_equal(take(m), 0x34);
    assert_int_equal(take(m), -1);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), -1); /* still up: no new edge */
    line(m, 4, false);
    line(m, 4, true);
    assert_int_equal(take(m), 0x34);
}

static void the_slave_answers_through_the_cascade(void **state)
{
    struct machine *m = *state;
    pulse(m, 12);
    assert_int_equal(take(m), 0x3c);
    assert_int_equal(isr(m, MASTER), 0x04);
    assert_int_equal(isr(m, SLAVE), 0x10);
    out8(m, SLAVE, EOI);
    out8(m, MASTER, EOI);
    assert_int_equal(isr(m, MASTER), 0);
    assert_int_equal(isr(m, SLAVE), 0);
}

static void two_requests_of_the_slave_come_one_after_the_other(void **state)
{
    struct machine *m = *state;
    pulse(m, 14);
    pulse(m, 9);
    assert_int_equal(take(m), 0x39);
    assert_int_equal(take(m), -1);
    out8(m, SLAVE, EOI);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), 0x3e);
}

static void lower_numbers_go_first_and_interrupt_higher_ones(void **state)
{
    struct machine *m = *state;
    pulse(m, 5);
    pulse(m, 3);
    assert_int_equal(take(m), 0x33);
    assert_int_equal(take(m), -1); /* 5 waits for the end of 3 */
    pulse(m, 1);
    assert_int_equal(take(m), 0x31);
    out8(m, MASTER, EOI); /* ends 1 */
    assert_int_equal(isr(m, MASTER), 0x08);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), 0x35);
}

static void a_masked_request_waits_in_irr(void **state)
{
    struct machine *m = *state;
    out8(m, MASTER + 1, 0x10);
    pulse(m, 4);
    assert_int_equal(take(m), -1);
    assert_int_equal(irr(m, MASTER), 0x10);
    out8(m, MASTER + 1, 0);
    assert_int_equal(take(m), 0x34);
    assert_int_equal(irr(m, MASTER), 0);
}

static void a_level_triggered_line_asks_until_it_falls(void **state)
{
    struct machine *m = *state;
    out8(m, 0x4d1, 0x02);
    assert_int_equal(in8(m, 0x4d1), 0x02);
    line(m, 9, true);
    assert_int_equal(take(m), 0x39);
    out8(m, SLAVE, EOI);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), 0x39);
    line(m, 9, false);
    out8(m, SLAVE, EOI);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), -1);
}

static void lines_of_the_board_cannot_be_level_triggered(void **state)
{
    struct machine *m = *state;
    out8(m, 0x4d0, 0xff);
    out8(m, 0x4d1, 0xff);
    assert_int_equal(in8(m, 0x4d0), 0xf8);
    assert_int_equal(in8(m, 0x4d1), 0xde);
}

static void a_request_that_has_gone_is_spurious(void **state)
{
    struct machine *m = *state;
    out8(m, 0x4d0, 0x20);
    line(m, 5, true);
    assert_true(i8259_output(&m->vm));
    line(m, 5, false);
    assert_false(i8259_output(&m->vm));
    assert_int_equal(i8259_acknowledge(&m->vm), 0x37);
    assert_int_equal(isr(m, MASTER), 0);
}

static void specific_end_of_interrupt_ends_that_one(void **state)
{
    struct machine *m = *state;
    pulse(m, 5);
    assert_int_equal(take(m), 0x35);
    pulse(m, 3);
    assert_int_equal(take(m), 0x33);
    out8(m, MASTER, 0x60 | 5);
    assert_int_equal(isr(m, MASTER), 0x08);
}

static void automatic_end_of_interrupt_leaves_nothing_in_service(void **state)
{
    struct machine *m = *state;
    initialise(m, 0x03);
    pulse(m, 6);
    assert_int_equal(take(m), 0x36);
    assert_int_equal(isr(m, MASTER), 0);
    pulse(m, 7);
    assert_int_equal(take(m), 0x37);
}

static void rotation_puts_the_served_line_last(void **state)
{
    struct machine *m = *state;
    pulse(m, 3);
    assert_int_equal(take(m), 0x33);
    out8(m, MASTER, 0xa0); /* rotate on non-specific EOI */
    pulse(m, 3);
    pulse(m, 4);
    pulse(m, 1);
    assert_int_equal(take(m), 0x34);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), 0x31);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), 0x33);
}

static void set_priority_names_the_last_line(void **state)
{
    struct machine *m = *state;
    out8(m, MASTER, 0xc0 | 5);
    pulse(m, 0);
    pulse(m, 6);
    assert_int_equal(take(m), 0x36);
    out8(m, MASTER, EOI);
    assert_int_equal(take(m), 0x30);
}

static void special_mask_mode_lets_lower_lines_in(void **state)
{
    struct machine *m = *state;
    pulse(m, 1);
    assert_int_equal(take(m), 0x31);
    pulse(m, 5);
    assert_int_equal(take(m), -1);
    out8(m, MASTER + 1, 0x02);
    assert_int_equal(take(m), -1); /* still in service */
    out8(m, MASTER, 0x68);
    assert_int_equal(take(m), 0x35);
    out8(m, MASTER, EOI); /* non-specific: not the masked one */
    assert_int_equal(isr(m, MASTER), 0x02);
    out8(m, MASTER, 0x48);
    assert_int_equal(take(m), -1);
}

static void special_fully_nested_mode_lets_the_slave_interrupt_itself(void **state)
{
    struct machine *m = *state;
    pulse(m, 12);
    assert_int_equal(take(m), 0x3c);
    pulse(m, 9);
    assert_int_equal(take(m), -1); /* the master serves its IR2 */
    initialise(m, 0x11);
    pulse(m, 12);
    assert_int_equal(take(m), 0x3c);
    pulse(m, 9);
    assert_int_equal(take(m), 0x39);
}

static void poll_is_an_acknowledge_cycle(void **state)
{
    struct machine *m = *state;
    out8(m, MASTER, 0x0c);
    assert_int_equal(in8(m, MASTER) & 0x80, 0);
    pulse(m, 6);
    out8(m, MASTER, 0x0c);
    assert_int_equal(in8(m, MASTER), 0x86);
    assert_int_equal(isr(m, MASTER), 0x40);
    assert_false(i8259_output(&m->vm));
}

static void initialisation_forgets_edges_masks_and_service(void **state)
{
    struct machine *m = *state;
    pulse(m, 3);
    assert_int_equal(take(m), 0x33);
    pulse(m, 4);
    out8(m, MASTER + 1, 0xf0);
    initialise(m, 0x01);
    assert_int_equal(in8(m, MASTER + 1), 0);
    assert_int_equal(isr(m, MASTER), 0);
    assert_int_equal(irr(m, MASTER), 0);
    assert_int_equal(take(m), -1);
}

static void a_single_chip_needs_no_third_word(void **state)
{
    struct machine *m = *state;
    out8(m, MASTER, 0x13);
    out8(m, MASTER + 1, 0x50);
    out8(m, MASTER + 1, 0x01);
    out8(m, MASTER + 1, 0xa5);
    assert_int_equal(in8(m, MASTER + 1), 0xa5);
    pulse(m, 1);
    assert_int_equal(take(m), 0x51);
}

static void wide_accesses_reach_both_registers(void **state)
{
    struct machine *m = *state;
    bus_out(&m->vm.bus, MASTER, 2, 0x5a0b);
    assert_int_equal(in8(m, MASTER + 1), 0x5a);
    assert_int_equal(bus_in(&m->vm.bus, MASTER, 2), 0x5a00);
}

static void reset_masks_everything_again(void **state)
{
    struct machine *m = *state;
    line(m, 3, true);
    assert_true(i8259_output(&m->vm));
    i8259_device.reset(m->vm.i8259);
    assert_false(i8259_output(&m->vm));
    assert_int_equal(in8(m, MASTER + 1), 0xfb);
}

/* Whatever is written, vectors stay in their chip's eight and reads stay bytes. */
static void random_writes_are_survived(void **state)
{
    struct machine *m = *state;
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
    uint32_t seed = 1;
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        out8(m, ports[(seed >> 8) % 6], (uint8_t)(seed >> 16));
        line(m, (seed >> 24) % 20, seed >> 5 & 1);
        in8(m, ports[(seed >> 12) % 6]);
        if (i8259_output(&m->vm))
            i8259_acknowledge(&m->vm);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_power_on_everything_but_the_cascade_is_masked),
        TEST(an_edge_gives_the_vector_of_its_line),
        TEST(the_slave_answers_through_the_cascade),
        TEST(two_requests_of_the_slave_come_one_after_the_other),
        TEST(lower_numbers_go_first_and_interrupt_higher_ones),
        TEST(a_masked_request_waits_in_irr),
        TEST(a_level_triggered_line_asks_until_it_falls),
        TEST(lines_of_the_board_cannot_be_level_triggered),
        TEST(a_request_that_has_gone_is_spurious),
        TEST(specific_end_of_interrupt_ends_that_one),
        TEST(automatic_end_of_interrupt_leaves_nothing_in_service),
        TEST(rotation_puts_the_served_line_last),
        TEST(set_priority_names_the_last_line),
        TEST(special_mask_mode_lets_lower_lines_in),
        TEST(special_fully_nested_mode_lets_the_slave_interrupt_itself),
        TEST(poll_is_an_acknowledge_cycle),
        TEST(initialisation_forgets_edges_masks_and_service),
        TEST(a_single_chip_needs_no_third_word),
        TEST(wide_accesses_reach_both_registers),
        TEST(reset_masks_everything_again),
        TEST(random_writes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
