/* SPDX-License-Identifier: MIT */
/* The KVM engine's course: threads that run the vCPUs. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "runtime/console.h"
#include "runtime/kvm/kvm.h"
#include "runtime/stub.h"

#define KICK SIGURG /* makes KVM_RUN return; ignored by default */

/* ---- who must look up ---- */
void kvm_kick(struct kvm_cpu *cpu)
{
    if (cpu->inside && !cpu->run->immediate_exit) {
        cpu->run->immediate_exit = 1;
        pthread_kill(cpu->thread, KICK);
    }
}

/* Under the lock, after anything that may have concerned other vCPUs. */
void kvm_notify(struct kvm *kvm, const struct kvm_cpu *self)
{
    struct vm *vm = kvm->vm;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        struct kvm_cpu *cpu = &kvm->cpus[k];
        if (cpu == self || !((cpu->vcpu->events & ~cpu->known) || kvm_ends(kvm)))
            continue;
        pthread_cond_signal(&cpu->wake);
        kvm_kick(cpu);
    }
}

static void kicked(int signal)
{
    (void)signal;
}

/* ---- one vCPU ---- */
/* Waits, under the lock, until the vCPU has something to do. */
static void wait_for_event(struct kvm_cpu *cpu)
{
    struct kvm *kvm = cpu->kvm;
    if (kvm->vm->stub) /* while nobody runs, nobody looks */
        stub_devices_take(kvm->vm);
    if (!kvm->chips->sleeps(cpu))
        return;
    if (++kvm->halted == kvm_threads(kvm))
        vm_wake(kvm->vm); /* perhaps for ever: the timekeeper decides */
    pthread_cond_wait(&cpu->wake, &kvm->lock);
    kvm->halted--;
}

/* Into the guest and back. The lock is held before and after, not meanwhile. */
static int enter(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm *kvm = cpu->kvm;
    struct vcpu *vcpu = cpu->vcpu;
    cpu->run->immediate_exit = 0;
    kvm->chips->entering(cpu);
    cpu->unfinished = false;
    cpu->inside = true;
    cpu->known = vcpu->events;
    kvm->memory_changed = true;
    kvm->vm->running = NULL;
    kvm->ioctls++;
    kvm->runs++;
    pthread_mutex_unlock(&kvm->lock);
    int result = ioctl(cpu->fd, KVM_RUN, NULL), failure = errno;
    pthread_mutex_lock(&kvm->lock);
    cpu->inside = false;
    cpu->run->immediate_exit = 0;
    kvm->vm->running = vcpu;
    cpu->known = 0;
    kvm_take_writes(kvm, result >= 0 ? cpu->run : NULL);
    if (kvm->chips->left(cpu, err) < 0)
        return -1;
    if (result >= 0) {
        kvm->came++;
        return kvm_handle_exit(cpu, err);
    }
    if (failure == EINTR || failure == EAGAIN)
        return 0;
    return fail(err, HVRUN_HOST, "KVM: vCPU %u: KVM_RUN: %s", vcpu->index, strerror(failure));
}

static int run_cpu(struct kvm_cpu *cpu, struct error *err)
{
    struct vm *vm = cpu->kvm->vm;
    while (!kvm_ends(cpu->kvm)) {
        kvm_notify(cpu->kvm, cpu);
        if (cpu->kvm->chips->sleeps(cpu)) {
            vm->running = NULL;
            wait_for_event(cpu);
            vm->running = cpu->vcpu;
            continue;
        }
        if (cpu->kvm->chips->offer(cpu, err) < 0)
            return -1;
        if (cpu->vcpu->activity != ACTIVITY_ACTIVE)
            continue;
        if (enter(cpu, err) < 0)
            return -1;
    }
    return 0;
}

static void *cpu_thread(void *argument)
{
    struct kvm_cpu *cpu = argument;
    struct kvm *kvm = cpu->kvm;
    struct error err = {0};
    pthread_mutex_lock(&kvm->lock);
    kvm->vm->running = cpu->vcpu;
    if (kvm_set_breakpoints(cpu, &err) < 0 || run_cpu(cpu, &err) < 0) {
        if (!kvm->failure.code)
            kvm->failure = err;
        vm_stop(kvm->vm, SHUTDOWN_HOST_ERROR, HVRUN_HOST);
    } else {
        /* for who looks at the registers afterwards */
        if (kvm_complete(cpu, &err) == 0 && kvm_pull(cpu, &err) == 0 && kvm->leave)
            kvm_settle(cpu);
        if (kvm->chips->ended)
            kvm->chips->ended(cpu);
    }
    kvm->vm->running = NULL;
    vm_wake(kvm->vm);
    kvm_notify(kvm, cpu);
    pthread_mutex_unlock(&kvm->lock);
    return NULL;
}

int kvm_run_threads(struct kvm *kvm, struct error *err)
{
    struct vm *vm = kvm->vm;
    struct sigaction action = {.sa_handler = kicked};
    sigaction(KICK, &action, NULL);
    pthread_mutex_lock(&kvm->lock);
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        struct kvm_cpu *cpu = &kvm->cpus[k];
        cpu->started = false;
        if (!(kvm->taking_part >> k & 1))
            continue;
        cpu->started = pthread_create(&cpu->thread, NULL, cpu_thread, cpu) == 0;
        if (!cpu->started) {
            fail(&kvm->failure, HVRUN_HOST, "no thread for vCPU %u", k);
            vm_stop(vm, SHUTDOWN_HOST_ERROR, HVRUN_HOST);
        }
    }
    kvm_keep_time(kvm);
    pthread_mutex_unlock(&kvm->lock);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (kvm->cpus[k].started)
            pthread_join(kvm->cpus[k].thread, NULL);
    kvm_take_writes(kvm, NULL);
    kvm_count_all(kvm);
    if (vm->stub) {
        stub_devices_take(vm);
        console_flush(vm);
    }
    if (!kvm->failure.code)
        return 0;
    *err = kvm->failure;
    return -1;
}

static int run(struct vm *vm, struct error *err)
{
    vm->kvm->taking_part = (1u << vm->vcpu_count) - 1;
    vm->kvm->leave = false;
    return kvm_run_threads(vm->kvm, err);
}

const struct engine kvm_engine = {.name = "kvm",
                                  .create = kvm_create,
                                  .run = run,
                                  .destroy = kvm_destroy,
                                  .enter = kvm_enter,
                                  .links = kvm_links};
const struct engine kvm_chips_engine = {.name = "kvm",
                                        .create = kvm_create,
                                        .run = run,
                                        .destroy = kvm_destroy,
                                        .links = kvm_links,
                                        .chips = &kvm_kernel_interrupt_chips};
