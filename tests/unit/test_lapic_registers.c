/* SPDX-License-Identifier: MIT */
/* The local APIC's registers: the memory window, the MSRs, IA32_APIC_BASE and what it refuses. */
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

/* ---- the window ---- */

static void power_on_state_is_the_manuals(void **state)
{
    (void)state;
    static const struct device_type *const devices[] = {&lapic_device, NULL};
    struct machine *m = machine_new(2, devices);
    assert_int_equal(msr_get(m, 0, MSR_BASE), LAPIC_BASE | BASE_ENABLED | BASE_BSP);
    assert_int_equal(msr_get(m, 1, MSR_BASE), LAPIC_BASE | BASE_ENABLED);
    assert_int_equal(xapic_read(m, 1, APIC_ID), 0x01000000);
    assert_int_equal(xapic_read(m, 1, APIC_VERSION), 0x01050014);
    assert_int_equal(xapic_read(m, 1, APIC_SVR), 0xff);
    assert_int_equal(xapic_read(m, 1, APIC_DFR), 0xffffffff);
    assert_int_equal(xapic_read(m, 1, APIC_LDR), 0);
    for (uint32_t lvt = APIC_TIMER; lvt <= APIC_ERROR; lvt += 0x10)
        assert_int_equal(xapic_read(m, 1, lvt), LVT_MASK);
    assert_int_equal(xapic_read(m, 0, APIC_LINT0), 0x700); /* virtual wire */
    assert_int_equal(xapic_read(m, 0, APIC_LINT1), 0x400);
    machine_free(m);
}

static void each_processor_sees_its_own_apic(void **state)
{
    struct machine *m = *state;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(xapic_read(m, i, APIC_ID), i << 24);
        xapic_write(m, i, APIC_TPR, i << 4);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(xapic_read(m, i, APIC_TPR), i << 4);
}

static void only_writable_bits_are_written(void **state)
{
    struct machine *m = *state;
    static const struct {
        uint32_t offset, reads;
    } rows[] = {
        {APIC_ID, 0xff000000},      {APIC_VERSION, 0x01050014},
        {APIC_TPR, 0xff},           {APIC_LDR, 0xff000000},
        {APIC_DFR, 0xffffffff},     {APIC_SVR, 0x13ff},
        {APIC_TIMER, 0x700ff},      {0x330, 0x107ff},
        {0x340, 0x107ff},           {APIC_LINT1, 0x1a7ff},
        {APIC_ERROR, 0x100ff},      {APIC_DIVIDE, 0xb},
        {APIC_INITIAL, 0xffffffff}, {APIC_ISR, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        xapic_write(m, 1, rows[i].offset, 0xffffffff);
        assert_int_equal(xapic_read(m, 1, rows[i].offset), rows[i].reads);
    }
}

static void registers_are_32_bits_on_16_byte_boundaries(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 0, APIC_LDR, 0x12000000);
    m->vm.running = m->vm.vcpus[0];
    assert_int_equal(bus_read(&m->vm.bus, LAPIC_BASE + APIC_LDR + 3, 1), 0x12);
    assert_int_equal(bus_read(&m->vm.bus, LAPIC_BASE + APIC_LDR + 4, 4), 0);
    assert_int_equal(bus_read(&m->vm.bus, LAPIC_BASE + APIC_LDR, 8), 0x12000000);
    bus_write(&m->vm.bus, LAPIC_BASE + APIC_TPR, 1, 0x20);
    bus_write(&m->vm.bus, LAPIC_BASE + APIC_TPR + 4, 4, 0x20);
    bus_write(&m->vm.bus, LAPIC_BASE + APIC_TPR, 8, 0x20);
    assert_int_equal(xapic_read(m, 0, APIC_TPR), 0);
}

static void nobody_running_sees_no_apic(void **state)
{
    struct machine *m = *state;
    m->vm.running = NULL;
    assert_int_equal(bus_read(&m->vm.bus, LAPIC_BASE + APIC_ID, 4), 0xffffffff);
    bus_write(&m->vm.bus, LAPIC_BASE + APIC_TPR, 4, 0x20);
}

static void a_disabled_apic_has_no_registers_but_cr8(void **state)
{
    struct machine *m = *state;
    struct vcpu *cpu = m->vm.vcpus[1];
    assert_int_equal(msr_set(m, 1, MSR_BASE, LAPIC_BASE), 0);
    xapic_write(m, 1, APIC_TPR, 0xff);
    assert_int_equal(xapic_read(m, 1, APIC_VERSION), 0xffffffff);
    lapic_set_tpr(cpu, 9);
    assert_int_equal(lapic_get_tpr(cpu), 9);
    assert_int_equal(xapic_read(m, 1, APIC_TPR), 0xffffffff);
    assert_int_equal(xapic_read(m, 0, APIC_TPR), 0); /* the others go on */
    assert_int_equal(msr_set(m, 1, MSR_BASE, LAPIC_BASE | BASE_ENABLED), 0);
    assert_int_equal(xapic_read(m, 1, APIC_TPR), 0x90);
    assert_int_equal(xapic_read(m, 1, APIC_SVR), 0xff);
}

static void a_disabled_apic_hears_nothing(void **state)
{
    struct machine *m = *state;
    assert_int_equal(msr_set(m, 1, MSR_BASE, LAPIC_BASE), 0);
    xapic_send(m, 0, ICR_TO_OTHERS | ICR_MODE(APIC_NMI), 0);
    xapic_send(m, 0, 0x50, 1);
    assert_int_equal(m->vm.vcpus[1]->events, 0);
    assert_int_equal(m->vm.vcpus[2]->events, VCPU_EVENT_NMI);
}

static void disabling_forgets_what_waits(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 1, APIC_TIMER, 0x60);
    xapic_write(m, 1, APIC_DIVIDE, DIVIDE_BY_1);
    xapic_write(m, 1, APIC_INITIAL, 1000);
    xapic_send(m, 0, 0x50, 1);
    assert_int_equal(msr_set(m, 1, MSR_BASE, LAPIC_BASE), 0);
    assert_int_equal(msr_set(m, 1, MSR_BASE, LAPIC_BASE | BASE_ENABLED), 0);
    xapic_write(m, 1, APIC_SVR, 0x1ff);
    machine_advance(m, 10000);
    assert_int_equal(machine_take(m, 1), -1);
}

static void the_window_moves_with_the_base(void **state)
{
    struct machine *m = *state;
    const uint64_t elsewhere = 0xfed40000;
    assert_int_equal(msr_set(m, 0, MSR_BASE, elsewhere | BASE_ENABLED | BASE_BSP), 0);
    m->vm.running = m->vm.vcpus[0];
    assert_int_equal(bus_read(&m->vm.bus, elsewhere + APIC_VERSION, 4), 0x01050014);
    assert_int_equal(xapic_read(m, 0, APIC_VERSION), 0xffffffff);
    assert_int_equal(xapic_read(m, 1, APIC_VERSION), 0x01050014);
    assert_int_equal(bus_read(&m->vm.bus, elsewhere + APIC_VERSION, 4), 0xffffffff);
    assert_int_equal(msr_set(m, 0, MSR_BASE, LAPIC_BASE | BASE_ENABLED | BASE_BSP), 0);
    assert_int_equal(xapic_read(m, 0, APIC_VERSION), 0x01050014);
}

static void moving_without_end_and_onto_others_is_survived(void **state)
{
    struct machine *m = *state;
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(msr_set(m, 0, MSR_BASE, (0xd0000000 + (i << 12)) | BASE_ENABLED), 0);
    assert_int_equal(msr_set(m, 0, MSR_BASE, IOAPIC_BASE | BASE_ENABLED), 0);
    bus_write(&m->vm.bus, IOAPIC_BASE, 4, 1);
    assert_int_equal(bus_read(&m->vm.bus, IOAPIC_BASE + 0x10, 4), 0x00170020);
    assert_int_equal(msr_set(m, 0, MSR_BASE, LAPIC_BASE | BASE_ENABLED), 0);
    assert_int_equal(xapic_read(m, 0, APIC_VERSION), 0x01050014);
}

/* ---- IA32_APIC_BASE ---- */

static void only_the_manuals_transitions_are_allowed(void **state)
{
    struct machine *m = *state;
    const uint64_t off = LAPIC_BASE, invalid = off | BASE_X2APIC, xapic = off | BASE_ENABLED,
                   x2apic = xapic | BASE_X2APIC;
    assert_int_equal(msr_set(m, 1, MSR_BASE, invalid), -1); /* from xAPIC */
    assert_int_equal(msr_set(m, 1, MSR_BASE, x2apic), 0);
    assert_int_equal(msr_set(m, 1, MSR_BASE, x2apic), 0);
    assert_int_equal(msr_set(m, 1, MSR_BASE, invalid), -1);
    assert_int_equal(msr_set(m, 1, MSR_BASE, xapic), -1);
    assert_int_equal(msr_get(m, 1, MSR_BASE), x2apic);
    assert_int_equal(msr_set(m, 1, MSR_BASE, off), 0);
    assert_int_equal(msr_set(m, 1, MSR_BASE, invalid), -1);
    assert_int_equal(msr_set(m, 1, MSR_BASE, x2apic), -1);
    assert_int_equal(msr_set(m, 1, MSR_BASE, off), 0);
    assert_int_equal(msr_set(m, 1, MSR_BASE, xapic), 0);
    assert_int_equal(msr_get(m, 1, MSR_BASE), xapic);
}

static void reserved_bits_of_the_base_are_refused(void **state)
{
    struct machine *m = *state;
    const uint64_t xapic = LAPIC_BASE | BASE_ENABLED;
    for (unsigned bit = 0; bit < 64; bit++) {
        if (bit == 8 || bit == 10 || (bit >= 11 && bit < 40))
            continue;
        assert_int_equal(msr_set(m, 1, MSR_BASE, xapic | 1ull << bit), -1);
        assert_int_equal(msr_get(m, 1, MSR_BASE), xapic);
    }
}

static void entering_x2apic_mode_keeps_what_waits_and_sets_ids(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 2, APIC_ID, 0x55000000);
    xapic_write(m, 2, APIC_TPR, 0x20);
    xapic_write(m, 2, APIC_ICR2, 0x03000000);
    apic_message(&m->vm, APIC_EVERYBODY, false, APIC_FIXED, 0x50, false);
    become_x2apic(m, 2);
    assert_int_equal(msr_get(m, 2, x2apic_msr(APIC_ID)), 2);
    assert_int_equal(msr_get(m, 2, x2apic_msr(APIC_LDR)), 4);
    assert_int_equal(msr_get(m, 2, x2apic_msr(APIC_TPR)), 0x20);
    assert_int_equal(msr_get(m, 2, x2apic_msr(APIC_ICR)), 0);
    assert_int_equal(machine_take(m, 2), 0x50);
    assert_int_equal(xapic_read(m, 2, APIC_VERSION), 0xffffffff); /* no window in this mode */
}

static void an_id_is_the_initial_one_after_disabling(void **state)
{
    struct machine *m = *state;
    xapic_write(m, 2, APIC_ID, 0x55000000);
    assert_int_equal(msr_set(m, 2, MSR_BASE, LAPIC_BASE), 0);
    assert_int_equal(msr_set(m, 2, MSR_BASE, LAPIC_BASE | BASE_ENABLED), 0);
    assert_int_equal(xapic_read(m, 2, APIC_ID), 0x02000000);
}

/* ---- MSRs ---- */

static void without_x2apic_mode_its_msrs_are_refused(void **state)
{
    struct machine *m = *state;
    for (uint32_t msr = 0x800; msr < 0x900; msr++) {
        assert_int_equal(msr_get(m, 1, msr), UINT64_MAX);
        assert_int_equal(msr_set(m, 1, msr, 0), -1);
    }
}

static void other_msrs_are_not_the_apics(void **state)
{
    struct machine *m = *state;
    uint64_t value;
    static const uint32_t others[] = {0x10, 0x7ff, 0x900, 0x6e1, 0xc0000080};
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        assert_int_equal(lapic_read_msr(m->vm.vcpus[0], others[i], &value), 1);
        assert_int_equal(lapic_write_msr(m->vm.vcpus[0], others[i], 0), 1);
    }
}

/* 'r', 'w' or both, by the register's number; all others are refused. */
static void x2apic_msrs_are_readable_and_writable_as_the_manual_says(void **state)
{
    struct machine *m = *state;
    become_x2apic(m, 1);
    for (uint32_t n = 0; n < 0x100; n++) {
        bool vectors = n >= 0x10 && n < 0x28;
        bool read_only = n == 2 || n == 3 || n == 0xa || n == 0xd || n == 0x39 || vectors;
        bool write_only = n == 0xb || n == 0x3f;
        bool both =
            n == 8 || n == 0xf || n == 0x28 || n == 0x30 || (n >= 0x32 && n <= 0x38) || n == 0x3e;
        uint64_t value;
        assert_int_equal(lapic_read_msr(m->vm.vcpus[1], 0x800 + n, &value),
                         read_only || both ? 0 : -1);
        assert_int_equal(msr_set(m, 1, 0x800 + n, 0), write_only || both ? 0 : -1);
        if (n != 0x30) /* the only one of 64 bits */
            assert_int_equal(msr_set(m, 1, 0x800 + n, UINT64_MAX), -1);
    }
}

static void reserved_bits_of_x2apic_msrs_are_refused(void **state)
{
    struct machine *m = *state;
    become_x2apic(m, 1);
    static const struct {
        uint32_t offset, allowed;
    } rows[] = {
        {APIC_TPR, 0xff},       {APIC_EOI, 0},         {APIC_SVR, 0x13ff}, {APIC_ESR, 0},
        {APIC_TIMER, 0x710ff},  {0x330, 0x117ff},      {0x340, 0x117ff},   {APIC_LINT0, 0x1f7ff},
        {APIC_LINT1, 0x1f7ff},  {APIC_ERROR, 0x110ff}, {APIC_DIVIDE, 0xb}, {0x3f0, 0xff},
        {APIC_ICR, 0x000cdfff}, {APIC_INITIAL, ~0u},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        for (unsigned bit = 0; bit < 32; bit++)
            assert_int_equal(msr_set(m, 1, x2apic_msr(rows[i].offset), 1ull << bit),
                             rows[i].allowed >> bit & 1 ? 0 : -1);
}

static void x2apic_messages_have_32_bit_destinations(void **state)
{
    struct machine *m = *state;
    for (unsigned i = 0; i < 4; i++)
        become_x2apic(m, i);
    const uint32_t icr = x2apic_msr(APIC_ICR);
    assert_int_equal(msr_set(m, 0, icr, 2ull << 32 | 0x50), 0);
    assert_int_equal(msr_get(m, 0, icr), 2ull << 32 | 0x50);
    assert_int_equal(msr_set(m, 0, icr, 0x103ull << 32 | 0x51), 0);
    assert_int_equal(msr_set(m, 0, icr, 0xffull << 32 | 0x52), 0); /* no broadcast here */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i == 2 ? 0x50 : -1);
    assert_int_equal(msr_set(m, 0, icr, 0xffffffffull << 32 | 0x60), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), 0x60);
    assert_int_equal(msr_set(m, 0, icr, 0xaull << 32 | ICR_LOGICAL | 0x70), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), i % 2 ? 0x70 : -1);
    assert_int_equal(msr_set(m, 0, icr, 0x1000aull << 32 | ICR_LOGICAL | 0x80), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(machine_take(m, i), -1);
}

static void the_self_ipi_register_sends_to_self(void **state)
{
    struct machine *m = *state;
    become_x2apic(m, 1);
    assert_int_equal(msr_set(m, 1, 0x83f, 0xf1), 0);
    assert_int_equal(machine_take(m, 1), 0xf1);
    assert_int_equal(msr_set(m, 1, x2apic_msr(APIC_EOI), 0), 0);
    assert_int_equal(msr_get(m, 1, x2apic_msr(APIC_ISR + 0x70)), 0);
    assert_int_equal(msr_set(m, 1, 0x83f, 0x05), 0);
    assert_int_equal(msr_set(m, 1, x2apic_msr(APIC_ESR), 0), 0);
    assert_int_equal(msr_get(m, 1, x2apic_msr(APIC_ESR)), 0x20);
}

static void random_accesses_are_survived(void **state)
{
    struct machine *m = *state;
    uint32_t seed = 11;
    for (unsigned i = 0; i < 300000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned vcpu = seed >> 30;
        uint64_t value = seed * 0x9e3779b97f4a7c15ull;
        xapic_write(m, vcpu, seed >> 8 & 0x3f0, (uint32_t)(value >> (seed >> 4 & 31)));
        xapic_read(m, vcpu, seed >> 10 & 0xfff);
        msr_set(m, vcpu, 0x800 + (seed >> 12 & 0x3f), value >> (seed >> 6 & 63));
        msr_get(m, vcpu, 0x800 + (seed >> 14 & 0x3f));
        if (i % 16 == 0)
            msr_set(m, vcpu, MSR_BASE, LAPIC_BASE | (seed >> 16 & 0xc00));
        if (i % 32 == 0)
            msr_set(m, vcpu, MSR_TSC_DEADLINE, value);
        i8259_set_line(&m->vm, seed >> 18 & 15, seed >> 22 & 1);
        machine_advance(m, seed >> 22);
        machine_take(m, seed >> 24 & 3);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(power_on_state_is_the_manuals),
        TEST(each_processor_sees_its_own_apic),
        TEST(only_writable_bits_are_written),
        TEST(registers_are_32_bits_on_16_byte_boundaries),
        TEST(nobody_running_sees_no_apic),
        TEST(a_disabled_apic_has_no_registers_but_cr8),
        TEST(a_disabled_apic_hears_nothing),
        TEST(disabling_forgets_what_waits),
        TEST(the_window_moves_with_the_base),
        TEST(moving_without_end_and_onto_others_is_survived),
        TEST(only_the_manuals_transitions_are_allowed),
        TEST(reserved_bits_of_the_base_are_refused),
        TEST(entering_x2apic_mode_keeps_what_waits_and_sets_ids),
        TEST(an_id_is_the_initial_one_after_disabling),
        TEST(without_x2apic_mode_its_msrs_are_refused),
        TEST(other_msrs_are_not_the_apics),
        TEST(x2apic_msrs_are_readable_and_writable_as_the_manual_says),
        TEST(reserved_bits_of_x2apic_msrs_are_refused),
        TEST(x2apic_messages_have_32_bit_destinations),
        TEST(the_self_ipi_register_sends_to_self),
        TEST(random_accesses_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
