/* SPDX-License-Identifier: MIT */
/* The local APIC: priorities, ends of interrupts, messages between processors, LINT0, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/lapic_registers.h"

#include <cmocka.h>

static int setup(void **state)
{
    *state = lapic_machine();
    return 0;
}

static int teardown(void **state)
{
    machine_free(*state);
    return 0;
}

static uint32_t events(struct machine *m, unsigned vcpu)
{
    return m->vm.vcpus[vcpu]->events;
}

static void to_self(struct machine *m, uint8_t vector)
{
    xapic_send(m, 0, ICR_TO_SELF | vector, 0);
}

/* ---- priority ---- */

static void a_vector_goes_from_irr_to_isr_and_ends(void **state)
{
    struct machine *m = *state;
    to_self(m, 0xf1);
    assert_int_equal(xapic_read(m, 0, APIC_IRR + 0x70), 1u << 17);
    assert_int_equal(events(m, 0), VCPU_EVENT_INTERRUPT);
    assert_int_equal(machine_take(m, 0), 0xf1);
    assert_int_equal(events(m, 0), 0);
    assert_int_equal(xapic_read(m, 0, APIC_IRR + 0x70), 0);
    assert_int_equal(xapic_read(m, 0, APIC_ISR + 0x70), 1u << 17);
    assert_int_equal(xapic_read(m, 0, APIC_PPR), 0xf0);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(xapic_read(m, 0, APIC_ISR + 0x70), 0);
    assert_int_equal(xapic_read(m, 0, APIC_PPR), 0);
}

static void the_highest_class_goes_first_and_interrupts_lower_ones(void **state)
{
    struct machine *m = *state;
    to_self(m, 0x31);
    to_self(m, 0x62);
    to_self(m, 0x65);
    assert_int_equal(machine_take(m, 0), 0x65);
    assert_int_equal(machine_take(m, 0), -1); /* 0x62: the same class */
    to_self(m, 0x70);
    assert_int_equal(machine_take(m, 0), 0x70);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(machine_take(m, 0), -1);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(machine_take(m, 0), 0x62);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(machine_take(m, 0), 0x31);
}

static void the_task_priority_holds_its_class_and_lower_ones_back(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TPR, 0x6f);
    assert_int_equal(lapic_get_tpr(m->vm.vcpus[0]), 6);
    to_self(m, 0x6e);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(xapic_read(m, 0, APIC_PPR), 0x6f);
    lapic_set_tpr(m->vm.vcpus[0], 5);
    assert_int_equal(xapic_read(m, 0, APIC_TPR), 0x50);
    assert_int_equal(machine_take(m, 0), 0x6e);
    assert_int_equal(xapic_read(m, 0, APIC_PPR), 0x60);
}

static void raising_the_priority_takes_the_event_back(void **state)
{
    struct machine *m = *state;
    to_self(m, 0x40);
    assert_int_equal(events(m, 0), VCPU_EVENT_INTERRUPT);
    lapic_set_tpr(m->vm.vcpus[0], 15);
    assert_int_equal(events(m, 0), 0);
    assert_int_equal(lapic_acknowledge(m->vm.vcpus[0]), -1);
    lapic_set_tpr(m->vm.vcpus[0], 0);
    assert_int_equal(events(m, 0), VCPU_EVENT_INTERRUPT);
}

static void the_same_vector_twice_is_one_interrupt(void **state)
{
    struct machine *m = *state;
    to_self(m, 0x40);
    to_self(m, 0x40);
    assert_int_equal(machine_take(m, 0), 0x40);
    assert_int_equal(machine_take(m, 0), -1);
    to_self(m, 0x40); /* but one may wait behind the one in service */
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(machine_take(m, 0), 0x40);
}

static void an_end_without_an_interrupt_is_nothing(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(events(m, 0), 0);
}

static void tmr_tells_levels_from_edges(void **state)
{
    struct machine *m = *state;
    apic_message(&m->vm, 0, false, APIC_FIXED, 0x79, true);
    assert_int_equal(machine_take(m, 0), 0x79);
    assert_int_equal(xapic_read(m, 0, APIC_TMR + 0x30), 1u << 25);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(xapic_read(m, 0, APIC_TMR + 0x30),
                     1u << 25); /* until the next of that vector */
    apic_message(&m->vm, 0, false, APIC_FIXED, 0x79, false);
    assert_int_equal(xapic_read(m, 0, APIC_TMR + 0x30), 0);
}

/* ---- software enable ---- */

static void disabled_by_software_it_takes_no_vectors_but_nmi(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 1, APIC_TIMER, 0x40);
    xapic_write(m, 1, APIC_SVR, 0xff);
    assert_int_equal(xapic_read(m, 1, APIC_TIMER), LVT_MASK | 0x40);
    xapic_write(m, 1, APIC_TIMER, 0x41);
    assert_int_equal(xapic_read(m, 1, APIC_TIMER), LVT_MASK | 0x41);
    xapic_send(m, 0, 0x50, 1);
    assert_int_equal(events(m, 1), 0);
    xapic_send(m, 0, ICR_MODE(APIC_NMI), 1);
    assert_int_equal(events(m, 1), VCPU_EVENT_NMI);
}

static void what_waits_when_it_is_disabled_waits_on(void **state)
{
    struct machine *m = *state;
    to_self(m, 0x50);
    xapic_write(m, 0, APIC_SVR, 0xff);
    assert_int_equal(machine_take(m, 0), -1);
    xapic_write(m, 0, APIC_SVR, 0x1ff);
    assert_int_equal(machine_take(m, 0), 0x50);
}

/* ---- messages ---- */

static void physical_messages_go_by_id(void **state)
{
    struct machine *m = *state;
    xapic_send(m, 0, 0x50, 2);
    xapic_send(m, 0, 0x51, 9);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 2 ? 0x50 : -1);
    xapic_send(m, 3, 0x60, 0xff);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), 0x60);
}

static void an_id_can_be_changed_in_xapic_mode(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 1, APIC_ID, 0x07ffffff);
    assert_int_equal(xapic_read(m, 1, APIC_ID), 0x07000000);
    assert_int_equal(lapic_id(m->vm.vcpus[1]), 7);
    xapic_send(m, 0, 0x50, 7);
    assert_int_equal(machine_take(m, 1), 0x50);
}

static void shorthands_go_to_self_all_and_others(void **state)
{
    struct machine *m = *state;
    xapic_send(m, 1, ICR_TO_SELF | 0x50, 3);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 1 ? 0x50 : -1);
    xapic_send(m, 1, ICR_TO_ALL | 0x60, 3);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), 0x60);
    xapic_send(m, 1, ICR_TO_OTHERS | 0x70, 3);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 1 ? -1 : 0x70);
}

/* Every logical id, cluster or flat, against every destination. */
static void logical_messages_match_as_the_manual_says(void **state)
{
    struct machine *m = *state;
    for (unsigned flat = 0; flat < 2; flat++) {
        xapic_write(m, 2, APIC_DFR, flat ? 0xffffffff : 0x0fffffff);
        for (unsigned id = 0; id < 256; id++) {
            xapic_write(m, 2, APIC_LDR, id << 24);
            for (unsigned to = 0; to < 256; to++) {
                bool match = to == 0xff || (flat ? id & to : id >> 4 == to >> 4 && id & to & 0xf);
                xapic_send(m, 0, ICR_LOGICAL | 0x50, (uint8_t)to);
                int got = machine_take(m, 2);
                assert_int_equal(got, match ? 0x50 : -1);
                if (match)
                    xapic_write(m, 2, APIC_EOI, 0);
            }
        }
    }
}

static void lowest_priority_goes_to_the_idlest(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_TPR, 0x40);
    xapic_write(m, 1, APIC_TPR, 0x20);
    xapic_write(m, 2, APIC_TPR, 0x10);
    xapic_write(m, 3, APIC_SVR, 0xff); /* disabled: not asked */
    xapic_send(m, 0, ICR_TO_ALL | ICR_MODE(APIC_LOWEST) | 0x50, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 2 ? 0x50 : -1);
}

static void start_up_is_taken_after_init_only(void **state)
{
    struct machine *m = *state;
    struct vcpu *cpu = m->vm.vcpus[1];
    cpu->activity = ACTIVITY_ACTIVE;
    xapic_send(m, 0, ICR_MODE(APIC_SIPI) | 0x9a, 1);
    assert_int_equal(events(m, 1), 0);
    xapic_send(m, 0, ICR_MODE(APIC_INIT) | ICR_LEVEL | ICR_ASSERT, 1);
    assert_int_equal(events(m, 1), VCPU_EVENT_INIT);
    xapic_send(m, 0, ICR_MODE(APIC_INIT) | ICR_LEVEL, 1); /* de-assert */
    assert_int_equal(events(m, 1), VCPU_EVENT_INIT);
    xapic_send(m, 0, ICR_MODE(APIC_SIPI) | 0x9a, 1);
    assert_int_equal(events(m, 1), VCPU_EVENT_INIT | VCPU_EVENT_SIPI);
    assert_int_equal(cpu->sipi_vector, 0x9a);
    cpu->events = 0;
    cpu->activity = ACTIVITY_WAIT_FOR_SIPI;
    xapic_send(m, 0, ICR_TO_OTHERS | ICR_MODE(APIC_SIPI) | 0x9b, 0);
    assert_int_equal(events(m, 1), VCPU_EVENT_SIPI);
    assert_int_equal(cpu->sipi_vector, 0x9b);
    assert_int_equal(events(m, 0), 0);
}

static void init_resets_registers_but_id_and_base(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 1, APIC_ID, 0x05000000);
    xapic_write(m, 1, APIC_TPR, 0x50);
    xapic_write(m, 1, APIC_TIMER, 0x50);
    xapic_write(m, 1, APIC_INITIAL, 1000);
    xapic_send(m, 0, 0x40, 5);
    lapic_init(m->vm.vcpus[1]);
    assert_int_equal(events(m, 1), 0);
    assert_int_equal(xapic_read(m, 1, APIC_ID), 0x05000000);
    assert_int_equal(xapic_read(m, 1, APIC_TPR), 0);
    assert_int_equal(xapic_read(m, 1, APIC_SVR), 0xff);
    assert_int_equal(xapic_read(m, 1, APIC_TIMER), LVT_MASK);
    assert_int_equal(xapic_read(m, 1, APIC_CURRENT), 0);
    assert_int_equal(xapic_read(m, 1, APIC_IRR + 0x20), 0);
    assert_int_equal(msr_get(m, 1, MSR_BASE), LAPIC_BASE | BASE_ENABLED);
}

static void smi_and_nmi_messages_become_events(void **state)
{
    struct machine *m = *state;
    xapic_send(m, 0, ICR_MODE(APIC_NMI) | ICR_ASSERT, 0);
    assert_int_equal(events(m, 0), VCPU_EVENT_NMI);
    xapic_send(m, 0, ICR_MODE(APIC_SMI), 3);
    assert_int_equal(events(m, 3), VCPU_EVENT_SMI);
}

static void reserved_delivery_modes_send_nothing(void **state)
{
    struct machine *m = *state;
    xapic_send(m, 0, ICR_TO_ALL | ICR_MODE(3) | 0x50, 0);
    xapic_send(m, 0, ICR_TO_ALL | ICR_MODE(APIC_EXTINT) | 0x50, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(events(m, i), 0);
}

static void icr_reads_back_without_its_status(void **state)
{
    struct machine *m = *state;
    xapic_send(m, 0, 0xfff33fff & ~0x700u, 0x1e);
    assert_int_equal(xapic_read(m, 0, APIC_ICR), 0x08ff);
    assert_int_equal(xapic_read(m, 0, APIC_ICR2), 0x1e000000);
}

/* ---- the 8259 ---- */

static void irq_of_8259(struct machine *m, bool level)
{
    i8259_set_line(&m->vm, 4, level);
}

static void program_8259(struct machine *m)
{
    out8(m, 0x20, 0x13);
    out8(m, 0x21, 0x30);
    out8(m, 0x21, 0x03);
}

static void the_8259_reaches_the_boot_processor_from_power_on(void **state)
{
    (void)state;
    static const struct device_type *const devices[] = {&i8259_device, &ioapic_device,
                                                        &lapic_device, NULL};
    struct machine *m = machine_new(2, devices);
    program_8259(m);
    irq_of_8259(m, true);
    assert_int_equal(events(m, 1), 0);
    assert_int_equal(machine_take(m, 0), 0x34);
    assert_int_equal(machine_take(m, 0), -1);
    machine_free(m);
}

static void lint0_masked_keeps_the_8259_out(void **state)
{
    struct machine *m = *state;
    program_8259(m);
    xapic_write(m, 0, APIC_LINT0, LVT_MASK | 0x700);
    irq_of_8259(m, true);
    assert_int_equal(machine_take(m, 0), -1);
    xapic_write(m, 0, APIC_LINT0, 0x700);
    assert_int_equal(machine_take(m, 0), 0x34);
}

static void task_priority_does_not_hold_the_8259_back(void **state)
{
    struct machine *m = *state;
    program_8259(m);
    lapic_set_tpr(m->vm.vcpus[0], 15);
    irq_of_8259(m, true);
    assert_int_equal(machine_take(m, 0), 0x34);
    assert_int_equal(xapic_read(m, 0, APIC_ISR + 0x10), 0); /* not the APIC's to end */
}

static void without_an_apic_the_8259_reaches_the_processor(void **state)
{
    struct machine *m = *state;
    program_8259(m);
    xapic_write(m, 0, APIC_LINT0, LVT_MASK);
    assert_int_equal(msr_set(m, 0, MSR_BASE, LAPIC_BASE | BASE_BSP), 0);
    irq_of_8259(m, true);
    assert_int_equal(machine_take(m, 0), 0x34);
    assert_int_equal(machine_take(m, 1), -1);
}

static void lint0_can_be_a_vector_or_an_nmi(void **state)
{
    struct machine *m = *state;
    program_8259(m);
    xapic_write(m, 0, APIC_LINT0, 0x55);
    irq_of_8259(m, true);
    assert_int_equal(machine_take(m, 0), 0x55);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(i8259_acknowledge(&m->vm), 0x34);
    irq_of_8259(m, false);
    xapic_write(m, 0, APIC_LINT0, ICR_MODE(APIC_NMI));
    irq_of_8259(m, true);
    assert_int_equal(events(m, 0), VCPU_EVENT_NMI);
}

static void lint0_as_a_level_asks_again_after_its_end(void **state)
{
    struct machine *m = *state;
    program_8259(m);
    xapic_write(m, 0, APIC_LINT0, ICR_LEVEL | 0x55);
    irq_of_8259(m, true);
    assert_int_equal(xapic_read(m, 0, APIC_LINT0), ICR_LEVEL | 0x4055);
    assert_int_equal(machine_take(m, 0), 0x55);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(machine_take(m, 0), 0x55);
    assert_int_equal(i8259_acknowledge(&m->vm), 0x34);
    xapic_write(m, 0, APIC_EOI, 0);
    assert_int_equal(machine_take(m, 0), -1);
    assert_int_equal(xapic_read(m, 0, APIC_LINT0), ICR_LEVEL | 0x55);
}

/* ---- EOI and the IO-APIC ---- */

static uint32_t entry_16(struct machine *m)
{
    bus_write(&m->vm.bus, IOAPIC_BASE, 4, 0x10 + 32);
    return (uint32_t)bus_read(&m->vm.bus, IOAPIC_BASE + 0x10, 4);
}

static void the_end_of_a_level_is_broadcast_unless_suppressed(void **state)
{
    struct machine *m = *state;
    bus_write(&m->vm.bus, IOAPIC_BASE, 4, 0x10 + 32);
    bus_write(&m->vm.bus, IOAPIC_BASE + 0x10, 4, 0x8050);
    for (unsigned suppressed = 0; suppressed < 2; suppressed++) {
        xapic_write(m, 0, APIC_SVR, suppressed ? 0x11ff : 0x1ff);
        ioapic_set_line(&m->vm, 16, true);
        ioapic_set_line(&m->vm, 16, false);
        assert_int_equal(entry_16(m), 0xc050);
        assert_int_equal(machine_take(m, 0), 0x50);
        xapic_write(m, 0, APIC_EOI, 0);
        assert_int_equal(entry_16(m), suppressed ? 0xc050 : 0x8050);
    }
}

/* ---- errors ---- */

static void illegal_vectors_are_errors_of_sender_and_receiver(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_ERROR, 0xfe);
    to_self(m, 0x0f);
    assert_int_equal(xapic_read(m, 0, APIC_ESR), 0); /* not before it is written */
    xapic_write(m, 0, APIC_ESR, 0);
    assert_int_equal(xapic_read(m, 0, APIC_ESR), 0x20);
    assert_int_equal(machine_take(m, 0), 0xfe);
    xapic_write(m, 0, APIC_ESR, 0);
    assert_int_equal(xapic_read(m, 0, APIC_ESR), 0);
    apic_message(&m->vm, 1, false, APIC_FIXED, 3, false);
    xapic_write(m, 1, APIC_ESR, 0);
    assert_int_equal(xapic_read(m, 1, APIC_ESR), 0x40);
    assert_int_equal(machine_take(m, 1), -1);
}

static void an_error_vector_that_is_an_error_does_not_recurse(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_ERROR, 0x01);
    to_self(m, 0x02);
    xapic_write(m, 0, APIC_ESR, 0);
    assert_int_equal(xapic_read(m, 0, APIC_ESR), 0x60);
}

static void registers_that_are_not_there_are_an_error(void **state)
{
    struct machine *m = *state;
    assert_int_equal(xapic_read(m, 0, 0x40), 0);
    xapic_write(m, 0, APIC_ESR, 0);
    assert_int_equal(xapic_read(m, 0, APIC_ESR), 0x80);
    xapic_write(m, 0, 0x800, 1);
    xapic_write(m, 0, APIC_ESR, 0);
    assert_int_equal(xapic_read(m, 0, APIC_ESR), 0x80);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_vector_goes_from_irr_to_isr_and_ends),
        TEST(the_highest_class_goes_first_and_interrupts_lower_ones),
        TEST(the_task_priority_holds_its_class_and_lower_ones_back),
        TEST(raising_the_priority_takes_the_event_back),
        TEST(the_same_vector_twice_is_one_interrupt),
        TEST(an_end_without_an_interrupt_is_nothing),
        TEST(tmr_tells_levels_from_edges),
        TEST(disabled_by_software_it_takes_no_vectors_but_nmi),
        TEST(what_waits_when_it_is_disabled_waits_on),
        TEST(physical_messages_go_by_id),
        TEST(an_id_can_be_changed_in_xapic_mode),
        TEST(shorthands_go_to_self_all_and_others),
        TEST(logical_messages_match_as_the_manual_says),
        TEST(lowest_priority_goes_to_the_idlest),
        TEST(start_up_is_taken_after_init_only),
        TEST(init_resets_registers_but_id_and_base),
        TEST(smi_and_nmi_messages_become_events),
        TEST(reserved_delivery_modes_send_nothing),
        TEST(icr_reads_back_without_its_status),
        TEST(the_8259_reaches_the_boot_processor_from_power_on),
        TEST(lint0_masked_keeps_the_8259_out),
        TEST(task_priority_does_not_hold_the_8259_back),
        TEST(without_an_apic_the_8259_reaches_the_processor),
        TEST(lint0_can_be_a_vector_or_an_nmi),
        TEST(lint0_as_a_level_asks_again_after_its_end),
        TEST(the_end_of_a_level_is_broadcast_unless_suppressed),
        TEST(illegal_vectors_are_errors_of_sender_and_receiver),
        TEST(an_error_vector_that_is_an_error_does_not_recurse),
        TEST(registers_that_are_not_there_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
