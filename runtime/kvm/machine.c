/* SPDX-License-Identifier: MIT */
/* The KVM engine's machine: the VM with its memory and MSR exits, and the vCPUs. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

#include "runtime/cpuid.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"

#define SECOND        1000000000u
#define FREQUENCY_MAX 16000000u     /* kHz */
#define TSS_PAGES     0xfffbd000ull /* three pages that some processors need for real mode; no RAM */

int kvm_system_failed(struct error *err, const char *what)
{
    return fail(err, HVRUN_HOST, "KVM: %s: %s", what, strerror(errno));
}

/* ---- the VM ---- */
static int add_memory(struct kvm *kvm, unsigned slot, uint64_t physical, uint8_t *host,
                      uint64_t size, struct error *err)
{
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .guest_phys_addr = physical,
                                                 .memory_size = size,
                                                 .userspace_addr = (uintptr_t)host};
    if (size && ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return kvm_system_failed(err, "KVM_SET_USER_MEMORY_REGION");
    return 0;
}

static int create_vm(struct kvm *kvm, struct error *err)
{
    struct memory *memory = &kvm->vm->memory;
    kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm->fd < 0)
        return kvm_system_failed(err, "/dev/kvm");
    kvm->vm_fd = ioctl(kvm->fd, KVM_CREATE_VM, 0);
    if (kvm->vm_fd < 0)
        return kvm_system_failed(err, "KVM_CREATE_VM");
    int size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return kvm_system_failed(err, "KVM_GET_VCPU_MMAP_SIZE");
    kvm->run_size = (size_t)size;
    if (ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, TSS_PAGES) < 0)
        return kvm_system_failed(err, "KVM_SET_TSS_ADDR");
    if (kvm_filter_msrs(kvm, err) < 0 || (kvm->chips->create && kvm->chips->create(kvm, err) < 0))
        return -1;
    if (add_memory(kvm, 0, 0, memory->host, memory->low_size, err) < 0)
        return -1;
    return add_memory(kvm, 1, MEMORY_HIGH, memory->host + memory->low_size,
                      memory->size - memory->low_size, err);
}

/* ---- vCPUs ---- */
/* The guest's TSC is the host's but for an offset, and the machine says at what frequency that runs. Where KVM executes
 * ring 0 at some thousand instructions a millisecond, a kernel's timer interrupts would leave it no time for anything
 * else: there the machine says a higher frequency, so guest time passes that much slower. Chips of the kernel's know but the
 * real one. */
static int set_frequency(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm *kvm = cpu->kvm;
    int khz = ioctl(cpu->fd, KVM_GET_TSC_KHZ, 0);
    if (khz <= 0)
        return fail(err, HVRUN_NO_ENGINE, "KVM: the host's TSC has no constant frequency");
    kvm->slower = kvm->chips == &kvm_user_chips ? kvm_slowness() : 1;
    kvm->vm->clock.tsc_khz = (uint32_t)khz * kvm->slower;
    return 0;
}

static int create_cpu(struct kvm *kvm, unsigned index, struct error *err)
{
    struct kvm_cpu *cpu = &kvm->cpus[index];
    cpu->kvm = kvm;
    cpu->vcpu = kvm->vm->vcpus[index];
    cpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (cpu->fd < 0)
        return kvm_system_failed(err, "KVM_CREATE_VCPU");
    cpu->run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (cpu->run == MAP_FAILED) {
        cpu->run = NULL;
        return kvm_system_failed(err, "run page");
    }
    cpu->pulled = true; /* power-on state, and what the loader makes of it */
    return set_frequency(cpu, err);
}

/* ---- guest time: the host's TSC since the start ---- */
static uint64_t now(void *context)
{
    const struct vm *vm = context;
    uint64_t ticks = __rdtsc() - vm->kvm->tsc_start;
    return (uint64_t)((unsigned __int128)ticks * 1000000u / clock_tsc_khz(&vm->clock));
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

/* ---- all of it ---- */
void kvm_destroy(struct vm *vm)
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

int kvm_create(struct vm *vm, struct error *err)
{
    struct kvm *kvm = calloc(1, sizeof *kvm);
    if (!kvm)
        return fail(err, HVRUN_HOST, "KVM engine: out of memory");
    vm->kvm = kvm;
    kvm->vm = vm;
    kvm->chips = vm->engine && vm->engine->chips ? &kvm_kernel_chips : &kvm_user_chips;
    kvm->counts_msrs = kvm->chips == &kvm_user_chips; /* the mode to compare with the soft engine */
    kvm->look = CLOCK_NEVER;
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
    vm->clock.deadline_changed = kvm_deadline_changed;
    if (kvm->chips->collects)
        kvm_collect_writes(kvm);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (kvm_set_up_cpu(&kvm->cpus[k], err) < 0 ||
            (kvm->chips->set_up_cpu && kvm->chips->set_up_cpu(&kvm->cpus[k], err) < 0))
            return -1;
    return 0;
}
