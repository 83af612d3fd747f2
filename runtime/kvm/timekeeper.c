/* The KVM engine's timekeeper: the thread on which run() was called waits for timers and for what comes from outside. */
#include <poll.h>
#include <time.h>

#include "runtime/console.h"
#include "runtime/kvm/kvm.h"

#define SECOND 1000000000u

/* Called under the lock: the timekeeper sleeps until a deadline that was the first one then. */
void kvm_deadline_changed(void *context)
{
    struct vm *vm = context;
    if (clock_deadline(&vm->clock) < vm->kvm->deadline)
        vm_wake(vm);
}

/* ---- the timekeeper ---- */
static void wait_for_time(struct kvm *kvm)
{
    struct vm *vm = kvm->vm;
    uint64_t present = clock_now(&vm->clock), deadline = clock_deadline(&vm->clock);
    if (kvm->look < deadline)
        deadline = kvm->look;
    uint64_t wait = deadline <= present ? 0 : deadline - present;
    kvm->deadline = deadline;
    console_flush(vm);
    pthread_mutex_unlock(&kvm->lock);
    struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
    struct pollfd wake = {.fd = vm->wake_fd, .events = POLLIN};
    ppoll(&wake, 1, deadline == CLOCK_NEVER ? NULL : &timeout, NULL);
    pthread_mutex_lock(&kvm->lock);
    kvm->deadline = 0; /* awake */
}

void kvm_keep_time(struct kvm *kvm)
{
    struct vm *vm = kvm->vm;
    while (!vm->shutdown) {
        vm_attend(vm);
        clock_run(&vm->clock);
        if (!vm->shutdown && kvm->chips->halted_for_ever(kvm))
            vm_stop(vm, SHUTDOWN_HALT, HVRUN_DONE);
        kvm_notify(kvm, NULL);
        if (vm->shutdown)
            break;
        wait_for_time(kvm);
    }
    kvm_notify(kvm, NULL);
}
