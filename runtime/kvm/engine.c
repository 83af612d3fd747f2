/* The KVM engine's course: VM and vCPUs made, threads that run them, guest time. */
#include "runtime/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "runtime/console.h"
#include "runtime/cpuid.h"
#include "runtime/interrupts.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/loop.h"

#define SECOND    1000000000u
#define TSS_PAGES 0xfffbd000ull /* three pages that some processors need for real mode; no RAM */
#define KICK      SIGURG        /* makes KVM_RUN return; ignored by default */
#define POLL_NS   1000000u /* guest time between two questions to a VMM that wants to be asked */

static int system_failed(struct error *err, const char *what)
{
    return fail(err, HVRUN_HOST, "KVM: %s: %s", what, strerror(errno));
}

/* ---- guest time: the host's TSC since the start ---- */
static uint64_t now(void *context)
{
    const struct vm *vm = context;
    uint64_t ticks = __rdtsc() - vm->kvm->tsc_start;
    return (uint64_t)((unsigned __int128)ticks * 1000000u / clock_tsc_khz(&vm->clock));
}

/* Called under the lock: the timekeeper sleeps until a deadline that was the first one then. */
static void deadline_changed(void *context)
{
    struct vm *vm = context;
    if (clock_deadline(&vm->clock) < vm->kvm->deadline)
        vm_wake(vm);
    else if (vm->soft->entered) /* the soft processor runs a vCPU (enter.c) */
        soft_deadline_changed(vm);
}

/* ---- who must look up ---- */
static bool wakes(const struct vcpu *cpu)
{
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return cpu->events & (VCPU_EVENT_SIPI | VCPU_EVENT_INIT);
    if (cpu->activity == ACTIVITY_HLT)
        return cpu->events & (VCPU_EVENT_NMI | VCPU_EVENT_INIT | VCPU_EVENT_INTERRUPT);
    return cpu->activity == ACTIVITY_ACTIVE;
}

/* Under the lock, after anything that may have concerned other vCPUs. */
static void notify(struct kvm *kvm, const struct kvm_cpu *self)
{
    struct vm *vm = kvm->vm;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        struct kvm_cpu *cpu = &kvm->cpus[k];
        if (cpu == self || (!cpu->vcpu->events && !kvm_ends(kvm)))
            continue;
        pthread_cond_signal(&cpu->wake);
        if (cpu->inside && !cpu->run->immediate_exit) {
            cpu->run->immediate_exit = 1;
            pthread_kill(cpu->thread, KICK);
        }
    }
}

static void kicked(int signal)
{
    (void)signal;
}

/* ---- one vCPU ---- */
/* INIT and SIPI change the vCPU as a whole. */
static int take_start_event(struct kvm_cpu *cpu, struct error *err)
{
    if (kvm_complete(cpu, err) < 0 || kvm_pull(cpu, err) < 0)
        return -1;
    kvm_soft_fresh(cpu->kvm);
    kvm_settle(cpu);
    soft_take_event(cpu->vcpu);
    cpu->translations_stale = true;
    cpu->kvm->vm->running = cpu->vcpu;
    return 0;
}

static int inject_nmi(struct kvm_cpu *cpu, struct error *err)
{
    cpu->vcpu->events &= ~VCPU_EVENT_NMI;
    cpu->vcpu->activity = ACTIVITY_ACTIVE;
    return kvm_cpu_ioctl(cpu, KVM_NMI, NULL, "KVM_NMI", err);
}

static int inject_interrupt(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    cpu->run->request_interrupt_window = 0;
    if (!(vcpu->events & VCPU_EVENT_INTERRUPT))
        return 0;
    /* what the last exit said of them; state that was pulled may have changed since */
    bool open = cpu->run->ready_for_interrupt_injection && cpu->run->if_flag;
    if (cpu->pulled)
        open = vcpu->rflags & RFLAGS_IF && !vcpu->shadow && !kvm_event_queued(cpu);
    if (!open || cpu->unfinished) {
        cpu->run->request_interrupt_window = 1;
        if (vcpu->activity == ACTIVITY_HLT &&
            cpu->run->if_flag) /* awake: behind the HLT it is let in */
            vcpu->activity = ACTIVITY_ACTIVE;
        return 0;
    }
    if (kvm_push(cpu, err) < 0)
        return -1;
    int vector = lapic_acknowledge(vcpu);
    lapic_update(vcpu);
    if (vector < 0)
        return 0;
    vcpu->activity = ACTIVITY_ACTIVE;
    stats_exit(&cpu->kvm->vm->stats, EXIT_KIND_INTERRUPT, 0);
    cpu->run->request_interrupt_window = !!(vcpu->events & VCPU_EVENT_INTERRUPT);
    struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
    return kvm_cpu_ioctl(cpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT", err);
}

/* Events between two instructions, and state on its way back. */
static int prepare(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    while (vcpu->events & (VCPU_EVENT_INIT | VCPU_EVENT_SIPI) && !kvm_ends(cpu->kvm))
        if (take_start_event(cpu, err) < 0)
            return -1;
    if (!wakes(vcpu))
        return 0;
    if (vcpu->events & VCPU_EVENT_NMI && inject_nmi(cpu, err) < 0)
        return -1;
    if (inject_interrupt(cpu, err) < 0)
        return -1;
    /* a halted vCPU whose interrupts are off goes on waiting, in the kernel's eyes, too */
    if (vcpu->activity == ACTIVITY_HLT && vcpu->events & VCPU_EVENT_INTERRUPT)
        return 0;
    return kvm_push(cpu, err);
}

/* Waits, under the lock, until the vCPU has something to do. */
static void wait_for_event(struct kvm_cpu *cpu)
{
    struct kvm *kvm = cpu->kvm;
    if (++kvm->halted == (unsigned)__builtin_popcount(kvm->taking_part))
        vm_wake(kvm->vm); /* perhaps for ever: the timekeeper decides */
    pthread_cond_wait(&cpu->wake, &kvm->lock);
    kvm->halted--;
}

/* Into the guest and back. The lock is held before and after, not meanwhile. */
static int enter(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm *kvm = cpu->kvm;
    struct vcpu *vcpu = cpu->vcpu;
    cpu->run->cr8 = lapic_get_tpr(vcpu);
    cpu->run->immediate_exit = 0;
    cpu->unfinished = false;
    cpu->inside = true;
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
    if (cpu->run->cr8 != lapic_get_tpr(vcpu))
        lapic_set_tpr(vcpu, (uint8_t)cpu->run->cr8);
    if (result >= 0)
        return kvm_handle_exit(cpu, err);
    if (failure == EINTR || failure == EAGAIN)
        return 0;
    return fail(err, HVRUN_HOST, "KVM: vCPU %u: KVM_RUN: %s", vcpu->index, strerror(failure));
}

/* A vCPU that is halted stays so until an event that it lets in. */
static bool sleeps(const struct kvm_cpu *cpu)
{
    const struct vcpu *vcpu = cpu->vcpu;
    if (!wakes(vcpu))
        return true;
    return vcpu->activity == ACTIVITY_HLT && !cpu->run->if_flag && !cpu->pulled &&
           !(vcpu->events & (VCPU_EVENT_NMI | VCPU_EVENT_INIT));
}

static int run_cpu(struct kvm_cpu *cpu, struct error *err)
{
    struct vm *vm = cpu->kvm->vm;
    while (!kvm_ends(cpu->kvm)) {
        notify(cpu->kvm, cpu);
        if (sleeps(cpu)) {
            vm->running = NULL;
            wait_for_event(cpu);
            vm->running = cpu->vcpu;
            continue;
        }
        if (prepare(cpu, err) < 0)
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
    }
    kvm->vm->running = NULL;
    vm_wake(kvm->vm);
    notify(kvm, cpu);
    pthread_mutex_unlock(&kvm->lock);
    return NULL;
}

/* ---- the timekeeper ---- */
/* A VM entry's VMM wants to be asked whether it goes on. */
static bool polls(const struct vm *vm)
{
    return vm->soft->entered && vm->poll.ask;
}

/* No timer runs, no vCPU does, and nobody can interrupt one: unless bytes come from the console. */
static bool halted_for_ever(const struct kvm *kvm)
{
    if (kvm->halted < (unsigned)__builtin_popcount(kvm->taking_part) || polls(kvm->vm))
        return false;
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++) {
        const struct kvm_cpu *cpu = &kvm->cpus[k];
        if (!(kvm->taking_part >> k & 1))
            continue;
        if (cpu->vcpu->activity == ACTIVITY_HLT && cpu->run->if_flag)
            return false;
        if (wakes(cpu->vcpu) && !sleeps(cpu))
            return false;
    }
    return true;
}

static void wait_for_time(struct kvm *kvm)
{
    struct vm *vm = kvm->vm;
    uint64_t present = clock_now(&vm->clock), deadline = clock_deadline(&vm->clock);
    uint64_t wait = deadline <= present ? 0 : deadline - present;
    if (polls(vm) && wait > POLL_NS)
        wait = POLL_NS;
    kvm->deadline = deadline;
    console_flush(vm);
    pthread_mutex_unlock(&kvm->lock);
    struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
    struct pollfd wake[2] = {{.fd = vm->wake_fd, .events = POLLIN},
                             {.fd = polls(vm) ? vm->poll.fd : -1, .events = POLLIN}};
    ppoll(wake, 2, wait + present == CLOCK_NEVER ? NULL : &timeout, NULL);
    pthread_mutex_lock(&kvm->lock);
    kvm->deadline = 0; /* awake */
}

static void keep_time(struct kvm *kvm)
{
    struct vm *vm = kvm->vm;
    while (!kvm_ends(kvm)) {
        vm_attend(vm);
        clock_run(&vm->clock);
        if (!vm->shutdown && kvm_asked_back(kvm))
            kvm->leave = true;
        if (!kvm_ends(kvm) && halted_for_ever(kvm))
            vm_stop(vm, SHUTDOWN_HALT, HVRUN_DONE);
        notify(kvm, NULL);
        if (kvm_ends(kvm))
            break;
        wait_for_time(kvm);
    }
    notify(kvm, NULL);
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
    keep_time(kvm);
    pthread_mutex_unlock(&kvm->lock);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (kvm->cpus[k].started)
            pthread_join(kvm->cpus[k].thread, NULL);
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

/* ---- making and taking apart ---- */
static int add_memory(struct kvm *kvm, unsigned slot, uint64_t physical, uint8_t *host,
                      uint64_t size, struct error *err)
{
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .guest_phys_addr = physical,
                                                 .memory_size = size,
                                                 .userspace_addr = (uintptr_t)host};
    if (size && ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return system_failed(err, "KVM_SET_USER_MEMORY_REGION");
    return 0;
}

/* Every MSR that KVM does not keep for this machine (state.c) is an exit. */
static int filter_msrs(struct kvm *kvm, struct error *err)
{
    static const uint32_t allowed[] = {0x174,      0x175,      0x176,      0x277,      0xc0000080,
                                       0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
                                       0xc0000101, 0xc0000102, 0xc0000103, 0x4b564d00, 0x4b564d01};
    enum { RANGES = 3, RANGE = 0x400 };
    static const uint32_t bases[RANGES] = {0, 0xc0000000, 0x4b564d00};
    uint8_t bitmap[RANGES][RANGE / 8] = {{0}};
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    for (unsigned r = 0; r < RANGES; r++) {
        for (size_t n = 0; n < sizeof allowed / sizeof allowed[0]; n++)
            if (allowed[n] - bases[r] < RANGE)
                bitmap[r][(allowed[n] - bases[r]) / 8] |=
                    (uint8_t)(1u << ((allowed[n] - bases[r]) & 7));
        filter.ranges[r] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                          .base = bases[r],
                                          .nmsrs = RANGE,
                                          .bitmap = bitmap[r]};
    }
    struct kvm_enable_cap exits = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                   .args = {KVM_MSR_EXIT_REASON_INVAL |
                                            KVM_MSR_EXIT_REASON_UNKNOWN |
                                            KVM_MSR_EXIT_REASON_FILTER}};
    if (ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &exits) < 0 ||
        ioctl(kvm->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
        return system_failed(err, "MSR exits");
    return 0;
}

static int create_vm(struct kvm *kvm, struct error *err)
{
    struct memory *memory = &kvm->vm->memory;
    kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm->fd < 0)
        return system_failed(err, "/dev/kvm");
    kvm->vm_fd = ioctl(kvm->fd, KVM_CREATE_VM, 0);
    if (kvm->vm_fd < 0)
        return system_failed(err, "KVM_CREATE_VM");
    int size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return system_failed(err, "KVM_GET_VCPU_MMAP_SIZE");
    kvm->run_size = (size_t)size;
    if (ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, TSS_PAGES) < 0)
        return system_failed(err, "KVM_SET_TSS_ADDR");
    if (filter_msrs(kvm, err) < 0)
        return -1;
    if (add_memory(kvm, 0, 0, memory->host, memory->low_size, err) < 0)
        return -1;
    return add_memory(kvm, 1, MEMORY_HIGH, memory->host + memory->low_size,
                      memory->size - memory->low_size, err);
}

/* The guest's TSC runs at the frequency that the machine says it does, or the machine says another. */
static int set_frequency(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm *kvm = cpu->kvm;
    bool scales = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
    if (scales && ioctl(cpu->fd, KVM_SET_TSC_KHZ, CLOCK_TSC_KHZ) == 0)
        return 0;
    int khz = ioctl(cpu->fd, KVM_GET_TSC_KHZ, 0);
    if (khz <= 0)
        return fail(err, HVRUN_NO_ENGINE, "KVM: the host's TSC has no constant frequency");
    kvm->vm->clock.tsc_khz = (uint32_t)khz;
    return 0;
}

static int create_cpu(struct kvm *kvm, unsigned index, struct error *err)
{
    struct kvm_cpu *cpu = &kvm->cpus[index];
    cpu->kvm = kvm;
    cpu->vcpu = kvm->vm->vcpus[index];
    cpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (cpu->fd < 0)
        return system_failed(err, "KVM_CREATE_VCPU");
    cpu->run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (cpu->run == MAP_FAILED) {
        cpu->run = NULL;
        return system_failed(err, "run page");
    }
    cpu->pulled = true; /* power-on state, and what the loader makes of it */
    return set_frequency(cpu, err);
}

static void destroy(struct vm *vm)
{
    struct kvm *kvm = vm->kvm;
    soft_engine.destroy(vm);
    if (!kvm)
        return;
    for (unsigned k = 0; k < VCPUS_MAX; k++) {
        if (kvm->cpus[k].run)
            munmap(kvm->cpus[k].run, kvm->run_size);
        if (kvm->cpus[k].fd > 0)
            close(kvm->cpus[k].fd);
        pthread_cond_destroy(&kvm->cpus[k].wake);
    }
    if (kvm->vm_fd > 0)
        close(kvm->vm_fd);
    if (kvm->fd > 0)
        close(kvm->fd);
    pthread_mutex_destroy(&kvm->lock);
    free(kvm);
    vm->kvm = NULL;
    vm->clock.source = NULL;
}

/* Guest time 0 is now; where the guest cannot have a TSC of its own, when the host started. */
static void start_clock(struct vm *vm)
{
    vm->clock.source = now;
    if (cpuid_offers(FEATURE_TSC_ADJUST))
        vm->kvm->tsc_start = __rdtsc();
    else
        vm->start_date -= (int64_t)(clock_now(&vm->clock) / SECOND);
}

static int create(struct vm *vm, struct error *err)
{
    struct kvm *kvm = calloc(1, sizeof *kvm);
    if (!kvm)
        return fail(err, HVRUN_HOST, "KVM engine: out of memory");
    vm->kvm = kvm;
    kvm->vm = vm;
    pthread_mutex_init(&kvm->lock, NULL);
    for (unsigned k = 0; k < VCPUS_MAX; k++)
        pthread_cond_init(&kvm->cpus[k].wake, NULL);
    if (soft_engine.create(vm, err) < 0 || create_vm(kvm, err) < 0)
        return -1;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (create_cpu(kvm, k, err) < 0)
            return -1;
    vm->clock.context = vm;
    start_clock(vm);
    vm->clock.deadline_changed = deadline_changed;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (kvm_set_up_cpu(&kvm->cpus[k], err) < 0)
            return -1;
    return 0;
}

const struct engine kvm_engine = {
    .name = "kvm", .create = create, .run = run, .destroy = destroy, .enter = kvm_enter};
