/* SPDX-License-Identifier: MIT */
/* The run of a VM: how it ends, and how other threads and signal handlers reach it. */
#include "runtime/vm.h"

#include <errno.h>
#include <unistd.h>

#include "runtime/console.h"
#include "runtime/devices/uart16550.h"
#include "runtime/vcpu.h"

const char *const shutdown_names[SHUTDOWNS] = {
    [SHUTDOWN_NONE] = "none",
    [SHUTDOWN_POWER_OFF] = "power-off",
    [SHUTDOWN_HALT] = "halt",
    [SHUTDOWN_RESET] = "reset",
    [SHUTDOWN_DEBUG_EXIT] = "debug-exit",
    [SHUTDOWN_TRIPLE_FAULT] = "triple-fault",
    [SHUTDOWN_TIMEOUT] = "timeout",
    [SHUTDOWN_SIGNAL] = "signal",
    [SHUTDOWN_QUIT] = "quit",
    [SHUTDOWN_STEPS] = "steps",
    [SHUTDOWN_HOST_ERROR] = "host-error",
    [SHUTDOWN_DIFFERENCE] = "difference",
};

void vm_stop(struct vm *vm, enum shutdown shutdown, int exit_code)
{
    if (vm->shutdown != SHUTDOWN_NONE)
        return;
    vm->shutdown = shutdown;
    vm->exit_code = exit_code;
    if (vm->running)
        vcpu_kick(vm->running);
}

void vm_reset_requested(struct vm *vm)
{
    vm_stop(vm, SHUTDOWN_RESET, HVRUN_DONE);
}

void vm_wake(struct vm *vm)
{
    /* Whoever finds the flag already set need not write: the one who set it does. vm_attend empties
     * the eventfd before it clears the flag, so no wake-up is lost. */
    if (atomic_exchange(&vm->attention, true))
        return;
    int saved = errno; /* a signal handler must not change it */
    const uint64_t one = 1;
    if (write(vm->wake_fd, &one, sizeof one) != sizeof one) {
        /* only if the counter is full, and then the VM is awake */
    }
    errno = saved;
}

void vm_request_stop(struct vm *vm, enum shutdown shutdown, int exit_code)
{
    int none = SHUTDOWN_NONE;
    atomic_compare_exchange_strong(&vm->stop_request, &none, VM_STOP_REQUEST(shutdown, exit_code));
    vm_wake(vm);
}

void vm_attend(struct vm *vm)
{
    uint64_t count;
    if (read(vm->wake_fd, &count, sizeof count) != sizeof count) {
        /* nothing there: the flag alone brought us here */
    }
    atomic_store(&vm->attention, false);
    int request = atomic_load(&vm->stop_request);
    if (request != SHUTDOWN_NONE)
        vm_stop(vm, request & 0xff, request >> 8);
    if (vm->uart)
        uart16550_attend(vm->uart);
    console_attend(vm);
}
