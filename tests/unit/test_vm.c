/* SPDX-License-Identifier: MIT */
/* A machine put together, and how its run ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "runtime/interrupts.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct vm vm;
static struct error err;

static int set_up(void **state)
{
    (void)state;
    err = (struct error){0};
    memset(&vm, 0, sizeof vm);
    vm.config.memory = 1 << 20;
    vm.config.smp = 2;
    return vm_create(&vm, &err);
}

static int tear_down(void **state)
{
    (void)state;
    vm_destroy(&vm);
    return 0;
}

static bool wake_fd_readable(void)
{
    struct pollfd p = {.fd = vm.wake_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_it_has_its_memory_processors_and_devices(void **state)
{
    (void)state;
    assert_int_equal(vm.memory.size, 1 << 20);
    assert_int_equal(vm.vcpu_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_ptr_equal(vm.vcpus[i]->vm, &vm);
        assert_int_equal(vm.vcpus[i]->index, i);
        assert_non_null(vm.vcpus[i]->lapic);
        assert_int_equal(lapic_id(vm.vcpus[i]), i);
    }
    unsigned count = 0;
    while (device_types[count])
        count++;
    assert_int_equal(vm.device_count, count);
    assert_non_null(vm.uart);
    assert_non_null(vm.i8042);
    assert_non_null(vm.mc146818);
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
}

static void test_its_devices_answer_at_their_addresses(void **state)
{
    (void)state;
    assert_int_equal(bus_in(&vm.bus, 0x3fd, 1), 0x60);
    assert_int_equal(bus_in(&vm.bus, 0x64, 1), 0x14);
    assert_int_equal(bus_in(&vm.bus, 0xe9, 1), 0xe9);
    assert_int_equal(bus_in(&vm.bus, 0x604, 2), 1);
    bus_out(&vm.bus, 0x21, 1, 0xfb);
    assert_int_equal(bus_in(&vm.bus, 0x21, 1), 0xfb);
    bus_out(&vm.bus, 0x70, 1, 0x0d);
    assert_int_equal(bus_in(&vm.bus, 0x71, 1), 0x80);
    assert_int_not_equal(bus_read(&vm.bus, IOAPIC_BASE, 4), UINT32_MAX);
    assert_int_equal(bus_in(&vm.bus, 0xe4, 4), UINT32_MAX); /* the doorbell's port is nobody's */
}

static void test_it_starts_at_the_hosts_date_or_at_a_fixed_one(void **state)
{
    (void)state;
    assert_in_range(vm.start_date, time(NULL) - 60, time(NULL));
    vm_destroy(&vm);
    vm.config.deterministic = true;
    assert_int_equal(vm_create(&vm, &err), 0);
    assert_int_equal(vm.start_date, VM_FIXED_DATE);
}

static void test_it_can_be_destroyed_twice_and_made_again(void **state)
{
    (void)state;
    vm_destroy(&vm);
    assert_null(vm.memory.host);
    assert_int_equal(vm.device_count + vm.vcpu_count, 0);
    assert_int_equal(bus_in(&vm.bus, 0x3fd, 1), 0xff);
    vm_destroy(&vm);
    assert_int_equal(vm_create(&vm, &err), 0);
}

static void test_impossible_machines_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t memory;
        unsigned smp;
    } bad[] = {{1 << 20, 0}, {1 << 20, VCPUS_MAX + 1}, {0, 1}, {4097, 1}, {1ull << 60, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vm_destroy(&vm);
        err = (struct error){0};
        vm.config.memory = bad[i].memory;
        vm.config.smp = bad[i].smp;
        assert_int_equal(vm_create(&vm, &err), -1);
        assert_int_not_equal(err.code, 0);
        assert_null(vm.memory.host);
        assert_int_equal(vm.device_count + vm.vcpu_count, 0);
    }
}

static unsigned engine_calls;

static int broken_create(struct vm *machine, struct error *error)
{
    assert_ptr_equal(machine, &vm);
    assert_int_not_equal(vm.device_count, 0);
    *error = (struct error){.code = HVRUN_NO_ENGINE, .text = "broken"};
    return -1;
}

static void broken_destroy(struct vm *machine)
{
    (void)machine;
    engine_calls++;
}

static void test_what_was_made_goes_when_the_engine_fails(void **state)
{
    (void)state;
    static const struct engine broken = {
        .name = "broken", .create = broken_create, .destroy = broken_destroy};
    vm_destroy(&vm);
    vm.engine = &broken;
    assert_int_equal(vm_create(&vm, &err), -1);
    assert_int_equal(err.code, HVRUN_NO_ENGINE);
    assert_int_equal(engine_calls, 1);
    assert_null(vm.memory.host);
}

static void test_the_first_stop_counts(void **state)
{
    (void)state;
    vm_stop(&vm, SHUTDOWN_DEBUG_EXIT, 33);
    vm_stop(&vm, SHUTDOWN_TRIPLE_FAULT, HVRUN_GUEST_DEATH);
    vm_reset_requested(&vm);
    assert_int_equal(vm.shutdown, SHUTDOWN_DEBUG_EXIT);
    assert_int_equal(vm.exit_code, 33);
}

static void test_a_stop_brings_the_running_vcpu_back(void **state)
{
    (void)state;
    vm.running = vm.vcpus[1];
    vm.running->budget = 1000;
    vm_reset_requested(&vm);
    assert_int_equal(vm.running->budget, 0);
    vm.running = NULL;
}

static void test_waking_is_seen_once_and_again(void **state)
{
    (void)state;
    vm_attend(&vm); /* as every run begins */
    assert_false(wake_fd_readable());
    for (unsigned i = 0; i < 3; i++) {
        vm_wake(&vm);
        vm_wake(&vm);
        assert_true(atomic_load(&vm.attention));
        assert_true(wake_fd_readable());
        vm_attend(&vm);
        assert_false(atomic_load(&vm.attention));
        assert_false(wake_fd_readable());
        assert_int_equal(vm.shutdown, SHUTDOWN_NONE);
    }
}

static void *ask_to_stop(void *context)
{
    (void)context;
    vm_request_stop(&vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
    return NULL;
}

static void test_another_thread_can_ask_for_the_end(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_to_stop, NULL), 0);
    struct pollfd p = {.fd = vm.wake_fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    pthread_join(thread, NULL);
    assert_int_equal(vm.shutdown, SHUTDOWN_NONE); /* only asked */
    vm_attend(&vm);
    assert_int_equal(vm.shutdown, SHUTDOWN_TIMEOUT);
    assert_int_equal(vm.exit_code, HVRUN_TIMEOUT);
}

static void on_signal(int number)
{
    // NOLINTNEXTLINE(bugprone-signal-handler): made for that
    vm_request_stop(&vm, SHUTDOWN_SIGNAL, number == SIGUSR1 ? HVRUN_SIGTERM : HVRUN_SIGINT);
}

static void test_a_signal_can_ask_and_the_first_one_counts(void **state)
{
    (void)state;
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    raise(SIGUSR1);
    raise(SIGUSR2);
    vm_attend(&vm);
    assert_int_equal(vm.shutdown, SHUTDOWN_SIGNAL);
    assert_int_equal(vm.exit_code, HVRUN_SIGTERM);
}

static void test_every_way_to_end_has_its_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SHUTDOWNS; i++) {
        assert_non_null(shutdown_names[i]);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(shutdown_names[i], shutdown_names[j]);
    }
    assert_string_equal(shutdown_names[SHUTDOWN_POWER_OFF], "power-off");
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_it_has_its_memory_processors_and_devices),
        TEST(test_its_devices_answer_at_their_addresses),
        TEST(test_it_starts_at_the_hosts_date_or_at_a_fixed_one),
        TEST(test_it_can_be_destroyed_twice_and_made_again),
        TEST(test_impossible_machines_are_refused),
        TEST(test_what_was_made_goes_when_the_engine_fails),
        TEST(test_the_first_stop_counts),
        TEST(test_a_stop_brings_the_running_vcpu_back),
        TEST(test_waking_is_seen_once_and_again),
        TEST(test_another_thread_can_ask_for_the_end),
        TEST(test_a_signal_can_ask_and_the_first_one_counts),
        TEST(test_every_way_to_end_has_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
