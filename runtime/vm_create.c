/* SPDX-License-Identifier: MIT */
/* A machine put together and taken apart. */
#include <time.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/breakpoints.h"
#include "runtime/console.h"
#include "runtime/io_dispatcher.h"
#include "runtime/stub.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

static int create_vcpus(struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->config.smp; i++) {
        vm->vcpus[i] = vcpu_create(vm, i);
        if (!vm->vcpus[i])
            return fail(err, HVRUN_HOST, "no memory for vCPU %u", i);
        vm->vcpu_count++;
    }
    return 0;
}

static int create_devices(struct vm *vm, struct error *err)
{
    bool has_chips = vm->engine && vm->engine->chips;
    for (const struct device_type *const *type = device_types; *type; type++) {
        if ((*type)->interrupt_chip && has_chips)
            continue;
        if (vm->device_count == DEVICES_MAX)
            return fail(err, HVRUN_HOST, "more than %d devices", DEVICES_MAX);
        void *device = (*type)->create(vm, err);
        if (!device)
            return fail(err, HVRUN_HOST, "no memory for device %s", (*type)->name);
        vm->device_type[vm->device_count] = *type;
        vm->device[vm->device_count++] = device;
    }
    return 0;
}

int vm_create(struct vm *vm, struct error *err)
{
    vm->wake_fd = -1;
    if (vm->config.smp < 1 || vm->config.smp > VCPUS_MAX)
        return fail(err, HVRUN_USAGE, "%u processors: 1 to %d are possible", vm->config.smp,
                    VCPUS_MAX);
    vm->start_date = vm->config.deterministic ? VM_FIXED_DATE : time(NULL);
    if (memory_create(&vm->memory, vm->config.memory, err))
        return -1;
    vm->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (vm->wake_fd < 0)
        fail(err, HVRUN_HOST, "eventfd: %s", strerror(errno));
    if (vm->wake_fd < 0 || create_vcpus(vm, err) || create_devices(vm, err) ||
        (vm->engine && vm->engine->create(vm, err)) ||
        (vm->config.serial && console_open(vm, vm->config.serial, err))) {
        vm_destroy(vm);
        return -1;
    }
    vm_wake(vm); /* the run begins with vm_attend */
    return 0;
}

void vm_destroy(struct vm *vm)
{
    console_close(vm);    /* its thread wakes the VM */
    io_blocks_detach(vm); /* before the engine goes, whose cache it watches */
    if (vm->engine)
        vm->engine->destroy(vm);
    vm->engine = NULL;
    stub_detach(vm);
    breakpoints_destroy(vm);
    vm->clock.source = NULL; /* guest time was the engine's */
    vm->clock.deadline_changed = NULL;
    while (vm->clock.first) /* before the devices go, in which the timers live */
        clock_cancel(&vm->clock, vm->clock.first);
    while (vm->device_count) {
        const struct device_type *type = vm->device_type[--vm->device_count];
        void *device = vm->device[vm->device_count];
        if (type->destroy)
            type->destroy(device);
        else
            free(device);
    }
    vm->uart = vm->i8254 = vm->i8259 = vm->ioapic = vm->i8042 = vm->mc146818 = NULL;
    vm->bus = (struct bus){0};
    while (vm->vcpu_count) {
        vcpu_destroy(vm->vcpus[--vm->vcpu_count]);
        vm->vcpus[vm->vcpu_count] = NULL;
    }
    memory_destroy(&vm->memory);
    if (vm->wake_fd >= 0)
        close(vm->wake_fd);
    vm->wake_fd = -1;
}
