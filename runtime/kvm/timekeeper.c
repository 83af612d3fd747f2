/* SPDX-License-Identifier: MIT */
/* The KVM engine's timekeeper: the thread that called run() waits for timers and for what comes from outside. */
#include <poll.h>
#include <time.h>

#include "runtime/console.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/loop.h"
#include "runtime/stub.h"

#define SECOND 1000000000u
#define LOOK                                                                                       \
    900000u /* ns: a state page is looked at every millisecond, timers being as late as they are */
#define POLL_NS 1000000u /* guest time between two questions to a VMM that wants to be asked */

/* Called under the lock: the timekeeper sleeps until a deadline that was the first one then. */
void kvm_deadline_changed(void *context)
{
    struct vm *vm = context;
    if (clock_deadline(&vm->clock) < vm->kvm->deadline)
        vm_wake(vm);
    else if (vm->soft->entered) /* the soft processor runs a vCPU (enter.c) */
        soft_deadline_changed(vm);
}

/* ---- the timekeeper ---- */
/* A VM entry's VMM wants to be asked whether it goes on: then nothing is for ever. */
static bool polls(const struct vm *vm)
{
    return vm->soft->entered && vm->poll.ask;
}

/* What a state page or the ring of writes needs: a look while a vCPU may write to it. */
static bool somebody_runs(const struct kvm *kvm)
{
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++)
        if (!kvm->chips->sleeps(&kvm->cpus[k]))
            return true;
    return false;
}

static void wait_for_time(struct kvm *kvm, bool look)
{
    struct vm *vm = kvm->vm;
    uint64_t present = clock_now(&vm->clock), deadline = clock_deadline(&vm->clock);
    if (kvm->look < deadline)
        deadline = kvm->look;
    if (look && somebody_runs(kvm) && deadline > present + LOOK / kvm->slower)
        deadline = present + LOOK / kvm->slower;
    uint64_t wait = deadline <= present ? 0 : deadline - present;
    if (polls(vm) && wait > POLL_NS)
        wait = POLL_NS;
    kvm->deadline = deadline;
    console_flush(vm);
    pthread_mutex_unlock(&kvm->lock);
    uint64_t ns = wait > CLOCK_NEVER / kvm->slower ? CLOCK_NEVER : wait * kvm->slower;
    struct timespec timeout = {(time_t)(ns / SECOND), (long)(ns % SECOND)};
    struct pollfd wake[2] = {{.fd = vm->wake_fd, .events = POLLIN},
                             {.fd = polls(vm) ? vm->poll.fd : -1, .events = POLLIN}};
    ppoll(wake, 2, wait + present == CLOCK_NEVER ? NULL : &timeout, NULL);
    pthread_mutex_lock(&kvm->lock);
    kvm->deadline = 0; /* awake */
}

void kvm_keep_time(struct kvm *kvm)
{
    struct vm *vm = kvm->vm;
    while (!kvm_ends(kvm)) {
        bool look = stub_devices_look(vm);
        kvm_take_writes(kvm, NULL);
        vm_attend(vm);
        clock_run(&vm->clock);
        if (look)
            stub_devices_changed(vm);
        if (!vm->shutdown && kvm_asked_back(kvm))
            kvm->leave = true;
        if (!kvm_ends(kvm) && !polls(vm) && kvm->chips->halted_for_ever(kvm))
            vm_stop(vm, SHUTDOWN_HALT, HVRUN_DONE);
        kvm_notify(kvm, NULL);
        if (kvm_ends(kvm))
            break;
        wait_for_time(kvm, look || kvm->prompt);
    }
    kvm_notify(kvm, NULL);
}
