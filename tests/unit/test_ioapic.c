/* SPDX-License-Identifier: MIT */
/* The IO-APIC: its registers, edges and levels, remote IRR, and where messages go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/chipset_machine.h"

#include <cmocka.h>

#define ID          0
#define VERSION     1
#define ARBITRATION 2

#define LOGICAL    0x800u
#define REMOTE_IRR 0x4000u
#define LEVEL      0x8000u
#define MASKED     0x10000u
#define LOWEST     0x100u
#define NMI        0x400u
#define INIT       0x500u
#define EXTINT     0x700u

static const struct device_type *const devices[] = {&i8259_device, &ioapic_device, &lapic_device,
                                                    NULL};

static void lapic_write(struct machine *m, unsigned vcpu, uint32_t offset, uint32_t value)
{
    m->vm.running = m->vm.vcpus[vcpu];
    bus_write(&m->vm.bus, LAPIC_BASE + offset, 4, value);
}

static int setup(void **state)
{
    struct machine *m = machine_new(4, devices);
    for (unsigned i = 0; i < 4; i++)
        lapic_write(m, i, 0xf0, 0x1ff);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    machine_free(*state);
    return 0;
}

static uint32_t get(struct machine *m, uint8_t number)
{
    bus_write(&m->vm.bus, IOAPIC_BASE, 4, number);
    return (uint32_t)bus_read(&m->vm.bus, IOAPIC_BASE + 0x10, 4);
}

static void put(struct machine *m, uint8_t number, uint32_t value)
{
    bus_write(&m->vm.bus, IOAPIC_BASE, 4, number);
    bus_write(&m->vm.bus, IOAPIC_BASE + 0x10, 4, value);
}

static void route(struct machine *m, unsigned pin, uint32_t low, uint8_t destination)
{
    put(m, (uint8_t)(0x11 + 2 * pin), (uint32_t)destination << 24);
    put(m, (uint8_t)(0x10 + 2 * pin), low);
}

static uint32_t entry(struct machine *m, unsigned pin)
{
    return get(m, (uint8_t)(0x10 + 2 * pin));
}

static void line(struct machine *m, unsigned n, bool level)
{
    ioapic_set_line(&m->vm, n, level);
}

static void eoi(struct machine *m, unsigned vcpu)
{
    lapic_write(m, vcpu, 0xb0, 0);
}

static void registers_are_those_of_a_24_pin_chip(void **state)
{
    struct machine *m = *state;
    assert_int_equal(get(m, VERSION), 0x00170020);
    put(m, VERSION, 0);
    assert_int_equal(get(m, VERSION), 0x00170020);
    put(m, ID, 0xffffffff);
    assert_int_equal(get(m, ID), 0x0f000000);
    assert_int_equal(get(m, ARBITRATION), 0x0f000000);
    put(m, ARBITRATION, 0);
    assert_int_equal(get(m, ARBITRATION), 0x0f000000);
    assert_int_equal(get(m, 0x40), 0);
    assert_int_equal(get(m, 0x0f), 0);
    assert_int_equal(bus_read(&m->vm.bus, IOAPIC_BASE, 4), 0x0f);
    assert_int_equal(bus_read(&m->vm.bus, IOAPIC_BASE + 0x20, 4), 0);
}

static void all_pins_are_masked_at_power_on(void **state)
{
    struct machine *m = *state;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        assert_int_equal(entry(m, pin), MASKED);
}

static void status_bits_of_an_entry_are_read_only(void **state)
{
    struct machine *m = *state;
    route(m, 5, 0xffffffff & ~LEVEL, 0x12);
    assert_int_equal(entry(m, 5), 0x00012fff);
    assert_int_equal(get(m, 0x11 + 10), 0x12000000);
}

static void an_edge_is_one_interrupt(void **state)
{
    struct machine *m = *state;
    route(m, 14, 0x76, 0);
    line(m, 14, true);
    assert_int_equal(machine_take(m, 0), 0x76);
    line(m, 14, false);
    eoi(m, 0);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(entry(m, 14), 0x76);
}

static void an_edge_that_meets_a_mask_is_lost(void **state)
{
    struct machine *m = *state;
    route(m, 14, MASKED | 0x81, 0);
    line(m, 14, true);
    line(m, 14, false);
    route(m, 14, 0x81, 0);
    assert_int_equal(machine_take(m, 0), -1);
    line(m, 14, true);
    assert_int_equal(machine_take(m, 0), 0x81);
}

static void a_level_interrupts_again_after_its_end_while_it_is_up(void **state)
{
    struct machine *m = *state;
    route(m, 14, LEVEL | 0x77, 0);
    line(m, 14, true);
    assert_int_equal(entry(m, 14), LEVEL | REMOTE_IRR | 0x77);
    assert_int_equal(machine_take(m, 0), 0x77);
    line(m, 14, false);
    line(m, 14, true);
    assert_int_equal(machine_take(m, 0), -1); /* in service: coalesced */
    eoi(m, 0);
    assert_int_equal(machine_take(m, 0), 0x77);
    line(m, 14, false);
    eoi(m, 0);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(entry(m, 14), LEVEL | 0x77);
}

static void a_level_that_comes_and_goes_while_it_is_served_is_coalesced(void **state)
{
    struct machine *m = *state;
    route(m, 14, LEVEL | 0x98, 0);
    line(m, 14, true);
    assert_int_equal(machine_take(m, 0), 0x98);
    line(m, 14, false);
    line(m, 14, true);
    line(m, 14, false);
    eoi(m, 0);
    assert_int_equal(machine_take(m, 0), -1);
}

static void a_level_that_meets_a_mask_comes_through_later(void **state)
{
    struct machine *m = *state;
    route(m, 14, LEVEL | MASKED | 0x82, 0);
    line(m, 14, true);
    assert_int_equal(machine_take(m, 0), -1);
    put(m, 0x10 + 28, LEVEL | 0x82);
    assert_int_equal(machine_take(m, 0), 0x82);
}

static void masking_inside_the_handler_holds_the_level_back(void **state)
{
    struct machine *m = *state;
    route(m, 14, LEVEL | 0x83, 0);
    line(m, 14, true);
    assert_int_equal(machine_take(m, 0), 0x83);
    put(m, 0x10 + 28, LEVEL | MASKED | 0x83);
    eoi(m, 0);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(entry(m, 14), LEVEL | MASKED | 0x83);
    put(m, 0x10 + 28, LEVEL | 0x83);
    assert_int_equal(machine_take(m, 0), 0x83);
}

static void the_end_is_found_by_vector_when_the_destination_has_changed(void **state)
{
    struct machine *m = *state;
    route(m, 13, LEVEL | 0x64, 0);
    line(m, 13, true);
    assert_int_equal(machine_take(m, 0), 0x64);
    line(m, 13, false);
    put(m, 0x11 + 26, 1u << 24);
    assert_int_equal(entry(m, 13), LEVEL | REMOTE_IRR | 0x64);
    eoi(m, 0);
    assert_int_equal(entry(m, 13), LEVEL | 0x64);
    line(m, 13, true);
    assert_int_equal(machine_take(m, 1), 0x64);
}

static void the_eoi_register_ends_a_level(void **state)
{
    struct machine *m = *state;
    route(m, 16, LEVEL | 0x50, 0);
    line(m, 16, true);
    line(m, 16, false);
    bus_write(&m->vm.bus, IOAPIC_BASE + 0x40, 4, 0x51);
    assert_int_equal(entry(m, 16), LEVEL | REMOTE_IRR | 0x50);
    bus_write(&m->vm.bus, IOAPIC_BASE + 0x40, 4, 0x50);
    assert_int_equal(entry(m, 16), LEVEL | 0x50);
}

static void switching_to_edge_clears_remote_irr(void **state)
{
    struct machine *m = *state;
    route(m, 16, LEVEL | 0x50, 0);
    line(m, 16, true);
    line(m, 16, false);
    put(m, 0x10 + 32, MASKED | 0x50);
    assert_int_equal(entry(m, 16), MASKED | 0x50);
}

static void a_level_that_nobody_takes_is_not_in_service(void **state)
{
    struct machine *m = *state;
    route(m, 16, LEVEL | 0x50, 9);
    line(m, 16, true);
    assert_int_equal(entry(m, 16), LEVEL | 0x50);
    put(m, 0x11 + 32, 2u << 24); /* there is somebody now */
    assert_int_equal(entry(m, 16), LEVEL | REMOTE_IRR | 0x50);
    assert_int_equal(machine_take(m, 2), 0x50);
}

static void physical_destinations_are_ids_and_ff_is_everybody(void **state)
{
    struct machine *m = *state;
    route(m, 3, 0x40, 2);
    line(m, 3, true);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 2 ? 0x40 : -1);
    route(m, 4, 0x41, 0xff);
    line(m, 4, true);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 2 ? -1 : 0x41); /* 2 serves its class */
}

static void logical_destinations_are_bits_of_the_ldr(void **state)
{
    struct machine *m = *state;
    for (unsigned i = 0; i < 4; i++)
        lapic_write(m, i, 0xd0, 1u << (24 + i));
    route(m, 3, LOGICAL | 0x40, 0x0a);
    line(m, 3, true);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i % 2 ? 0x40 : -1);
}

static void logical_destinations_reach_x2apics_of_cluster_0(void **state)
{
    struct machine *m = *state;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(
            lapic_write_msr(m->vm.vcpus[i], 0x1b, LAPIC_BASE | 0xc00 | (i ? 0 : 0x100)), 0);
    route(m, 3, LOGICAL | LEVEL | 0x86, 0x0d);
    line(m, 3, true);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 1 ? -1 : 0x86);
}

static void lowest_priority_goes_to_one(void **state)
{
    struct machine *m = *state;
    for (unsigned i = 0; i < 4; i++)
        lapic_write(m, i, 0xd0, 1u << (24 + i));
    lapic_write(m, 0, 0x80, 0x50);
    lapic_write(m, 1, 0x80, 0x30);
    lapic_write(m, 2, 0x80, 0x20);
    route(m, 3, LOGICAL | LOWEST | 0x90, 0x07);
    line(m, 3, true);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 2 ? 0x90 : -1);
}

static void nmi_and_init_are_edges_whatever_the_entry_says(void **state)
{
    struct machine *m = *state;
    route(m, 3, LEVEL | NMI, 1);
    line(m, 3, true);
    assert_int_equal(m->vm.vcpus[1]->events, VCPU_EVENT_NMI);
    assert_int_equal(entry(m, 3), LEVEL | NMI);
    route(m, 4, INIT, 2);
    line(m, 4, true);
    assert_int_equal(m->vm.vcpus[2]->events, VCPU_EVENT_INIT);
}

static void irq_0_is_on_pin_2_and_the_cascade_on_none(void **state)
{
    struct machine *m = *state;
    for (unsigned pin = 1; pin < IOAPIC_PINS; pin++)
        route(m, pin, 0x40 + pin, 0);
    irq_set(&m->vm, IRQ_TIMER, true);
    assert_int_equal(machine_take(m, 0), 0x42);
    eoi(m, 0);
    irq_set(&m->vm, 2, true);
    assert_int_equal(machine_take(m, 0), -1);
    irq_set(&m->vm, IRQ_COM1, true);
    assert_int_equal(machine_take(m, 0), 0x44);
    eoi(m, 0);
    irq_set(&m->vm, 20, true);
    assert_int_equal(machine_take(m, 0), 0x54);
    irq_set(&m->vm, 24, true); /* there is none */
    irq_set(&m->vm, 4000000000u, true);
}

static void isa_lines_drive_the_8259_as_well(void **state)
{
    struct machine *m = *state;
    out8(m, 0x21, 0);
    irq_set(&m->vm, IRQ_COM1, true);
    assert_true(i8259_output(&m->vm));
    assert_int_equal(i8259_acknowledge(&m->vm), 0x0c);
}

static void an_extint_entry_takes_the_vector_from_the_8259(void **state)
{
    struct machine *m = *state;
    lapic_write(m, 0, 0x350, MASKED); /* LINT0 out of the way */
    out8(m, 0x20, 0x13);
    out8(m, 0x21, 0x30);
    out8(m, 0x21, 0x03);
    route(m, IOAPIC_EXTINT_PIN, EXTINT, 1);
    irq_set(&m->vm, 5, true);
    irq_set(&m->vm, 6, true);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(machine_take(m, 1), 0x35);
    assert_int_equal(machine_take(m, 1), 0x36); /* the output rose anew */
    assert_int_equal(machine_take(m, 1), -1);
}

static void reset_masks_all_pins(void **state)
{
    struct machine *m = *state;
    route(m, 3, 0x40, 0);
    ioapic_device.reset(m->vm.ioapic);
    assert_int_equal(entry(m, 3), MASKED);
}

static void random_writes_are_survived(void **state)
{
    struct machine *m = *state;
    uint32_t seed = 3;
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        put(m, (uint8_t)(seed >> 8), seed * 2654435761u);
        get(m, (uint8_t)(seed >> 16));
        bus_write(&m->vm.bus, IOAPIC_BASE + (seed >> 20), 1u << (seed >> 4 & 3), seed);
        bus_read(&m->vm.bus, IOAPIC_BASE + (seed >> 20), 1u << (seed >> 4 & 3));
        line(m, seed >> 24, seed & 0x10000);
        machine_take(m, seed >> 28 & 3);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_are_those_of_a_24_pin_chip),
        TEST(all_pins_are_masked_at_power_on),
        TEST(status_bits_of_an_entry_are_read_only),
        TEST(an_edge_is_one_interrupt),
        TEST(an_edge_that_meets_a_mask_is_lost),
        TEST(a_level_interrupts_again_after_its_end_while_it_is_up),
        TEST(a_level_that_comes_and_goes_while_it_is_served_is_coalesced),
        TEST(a_level_that_meets_a_mask_comes_through_later),
        TEST(masking_inside_the_handler_holds_the_level_back),
        TEST(the_end_is_found_by_vector_when_the_destination_has_changed),
        TEST(the_eoi_register_ends_a_level),
        TEST(switching_to_edge_clears_remote_irr),
        TEST(a_level_that_nobody_takes_is_not_in_service),
        TEST(physical_destinations_are_ids_and_ff_is_everybody),
        TEST(logical_destinations_are_bits_of_the_ldr),
        TEST(logical_destinations_reach_x2apics_of_cluster_0),
        TEST(lowest_priority_goes_to_one),
        TEST(nmi_and_init_are_edges_whatever_the_entry_says),
        TEST(irq_0_is_on_pin_2_and_the_cascade_on_none),
        TEST(isa_lines_drive_the_8259_as_well),
        TEST(an_extint_entry_takes_the_vector_from_the_8259),
        TEST(reset_masks_all_pins),
        TEST(random_writes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
