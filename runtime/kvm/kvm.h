/* The KVM engine: vCPUs that the host's processor runs, with the devices of this process.
 *
 * Each vCPU has a thread that alternates between the guest (KVM_RUN) and, under the one lock, everything else:
 * devices, the local APICs, the state page of a patched guest. The thread that called run() keeps guest time:
 * timers and what comes from outside (console input, --timeout).
 *
 * Where a vCPU's state is: in the kernel, as a rule. What needs it here pulls it into struct vcpu, which then holds
 * until the next KVM_RUN pushes it back. Nothing on the path of a port access or a memory-mapped register pulls. */
#ifndef RUNTIME_KVM_KVM_H
#define RUNTIME_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/error.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

struct kvm_cpu {
    struct vcpu *vcpu;
    struct kvm *kvm;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    pthread_t thread;
    bool started;        /* `thread` is one */
    bool inside;         /* in KVM_RUN, or about to be: written under the lock */
    bool pulled;         /* struct vcpu holds the state, the kernel's is old */
    bool has_pdptes;     /* KVM gives and takes the PDPTE registers */
    bool unfinished;     /* the last exit's instruction is completed by the next KVM_RUN */
    pthread_cond_t wake; /* for a thread whose vCPU is halted */

    /* ---- with the state that was pulled ---- */
    /* an exception, interrupt or NMI that KVM had begun to deliver: `injected` of each */
    struct kvm_vcpu_events queued;
    uint64_t clock_msrs[2];  /* MSR_KVM_WALL_CLOCK and _SYSTEM_TIME as KVM has them */
    uint64_t tsc_offset;     /* vcpu.tsc_offset as KVM has it */
    bool translations_stale; /* the soft processor was here, and may have flushed some */

    /* ---- breakpoints ---- */
    unsigned debugging; /* how many KVM_SET_GUEST_DEBUG has set up */
    bool met;           /* one was met, but the entry ended with another vCPU's exit */
};

/* What KVM_SET_GUEST_DEBUG is worth here. */
struct kvm_debug {
    bool ring0, ring3; /* breakpoints are met there */
    bool guard;        /* what the guest does with its debug registers is an exit */
};

struct kvm {
    struct vm *vm;
    int fd, vm_fd;
    size_t run_size; /* bytes of struct kvm_run's mapping */
    pthread_mutex_t lock;
    struct kvm_cpu cpus[VCPUS_MAX];
    uint32_t taking_part; /* bit k: vCPU k runs, if the VM does */
    unsigned halted;      /* of those: vCPUs that wait */
    bool leave;           /* a VM entry (enter.c) is to end */
    struct vmcs *left;    /* … by the exit of this one; NULL: not by an exit */
    bool memory_changed;  /* guests ran in KVM: what the soft processor has cached is old */
    uint64_t tsc_start;   /* host TSC at guest time 0 */
    uint64_t deadline;    /* guest time at which the timekeeper wakes by itself */
    uint64_t ioctls;      /* KVM_RUN calls and all others on vCPUs, since the start */
    uint64_t runs;        /* KVM_RUN calls */
    uint64_t soft_steps;  /* instructions that the soft processor executed instead */
    struct kvm_debug debug;
    bool debug_known;     /* `debug` was found out */
    const char *said;     /* why the soft processor runs a guest with breakpoints, once it was said */
    struct error failure; /* why a thread gave up; code 0 = none did */
};

/* Are the threads to come back? */
static inline bool kvm_ends(const struct kvm *kvm)
{
    return kvm->vm->shutdown || kvm->leave;
}

/* ---- engine.c ---- */
/* Runs the vCPUs of vm->taking_part, each on its thread, until kvm_ends; then their state is here. */
int kvm_run_threads(struct kvm *kvm, struct error *err);

/* ---- enter.c: VM entry ---- */
struct vmcs *kvm_enter(struct vm *vm, struct vmcs *const *list, unsigned count);
/* Is the entry that is under way to end, because the VMM asks for it or for what only the soft processor does? */
bool kvm_asked_back(struct kvm *kvm);
/* The entry that is under way ends with an exit of this vCPU: its vmcs says why. */
void kvm_leave(struct kvm *kvm, struct vmcs *vmcs);

/* ---- state.c: a vCPU's state, here and in the kernel. 0, or -1 with *err. ---- */
int kvm_pull(struct kvm_cpu *cpu, struct error *err);
int kvm_push(struct kvm_cpu *cpu, struct error *err);
/* The CPUID table and the rest of what stays as it is. */
int kvm_set_up_cpu(struct kvm_cpu *cpu, struct error *err);
/* Did KVM begin to deliver an event that it has not delivered? Then the soft processor does (kvm_settle). */
static inline bool kvm_event_queued(const struct kvm_cpu *cpu)
{
    return cpu->queued.exception.injected || cpu->queued.interrupt.injected ||
           cpu->queued.nmi.injected;
}
/* The guest's TSC follows vcpu.tsc_offset. */
int kvm_set_tsc(struct kvm_cpu *cpu, struct error *err);

/* ---- probe.c: what this host's KVM is worth ---- */
struct kvm_quality {
    char why_not[160];      /* why `auto` does not take it; empty = it does */
    double mips;            /* ring-0 loop of ALU instructions */
    bool no_xsave, no_cx16; /* cannot be executed in ring 0 */
    bool no_tsc_frequency;  /* the host's TSC changes its pace */
    bool no_tsc_offset;     /* RDTSC gives the host's TSC, whatever is set */
};
/* There is no /dev/kvm, as on many hosts. */
bool kvm_absent(void);
/* 0; or -1 with *err (HVRUN_NO_ENGINE): there is no usable KVM at all. */
int kvm_probe(struct kvm_quality *quality, struct error *err);
/* Takes from the CPUID model what this KVM does not offer or cannot execute. Before the first vCPU is made. */
int kvm_limit_features(const struct kvm_quality *quality, struct error *err);

/* Tries out KVM_SET_GUEST_DEBUG. */
void kvm_probe_debug(struct kvm_debug *debug);

/* ---- breakpoints.c: a debugger's, in KVM ---- */
/* Can KVM run the guest with those that are set? Says why not. */
bool kvm_breakpoints_possible(struct vm *vm);
int kvm_set_breakpoints(struct kvm_cpu *cpu, struct error *err);
/* Stands the vCPU at one? Then its vmcs has the exit. */
bool kvm_breakpoint_met(struct kvm_cpu *cpu);
/* KVM_EXIT_DEBUG. */
int kvm_debug_exit(struct kvm_cpu *cpu, struct error *err);

/* ---- exits.c: what a return from KVM_RUN asks for; under the lock ---- */
int kvm_handle_exit(struct kvm_cpu *cpu, struct error *err);

/* ---- soft_step.c: instructions that KVM cannot execute, or that are the soft processor's ---- */
int kvm_soft_step(struct kvm_cpu *cpu, struct error *err);
/* Delivers what KVM had begun to; the state was pulled. */
void kvm_settle(struct kvm_cpu *cpu);
/* Forgets what the soft processor has cached of guest memory, if a vCPU may have changed that in KVM. */
void kvm_soft_fresh(struct kvm *kvm);
/* Lets KVM complete the instruction of the last exit, without executing a further one. */
int kvm_complete(struct kvm_cpu *cpu, struct error *err);

/* ioctl on a vCPU; failures name the request. */
int kvm_cpu_ioctl(struct kvm_cpu *cpu, unsigned long request, void *argument, const char *name,
                  struct error *err);

#endif
