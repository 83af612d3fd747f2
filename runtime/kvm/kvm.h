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
    bool unfinished;     /* the last exit's instruction is completed by the next KVM_RUN */
    pthread_cond_t wake; /* for a thread whose vCPU is halted */
};

struct kvm {
    struct vm *vm;
    int fd, vm_fd;
    size_t run_size; /* bytes of struct kvm_run's mapping */
    pthread_mutex_t lock;
    struct kvm_cpu cpus[VCPUS_MAX];
    unsigned halted;      /* vCPUs that wait */
    uint64_t tsc_start;   /* host TSC at guest time 0 */
    uint64_t deadline;    /* guest time at which the timekeeper wakes by itself */
    uint64_t ioctls;      /* KVM_RUN calls and all others on vCPUs, since the start */
    uint64_t runs;        /* KVM_RUN calls */
    uint64_t soft_steps;  /* instructions that the soft processor executed instead */
    struct error failure; /* why a thread gave up; code 0 = none did */
};

/* ---- state.c: a vCPU's state, here and in the kernel. 0, or -1 with *err. ---- */
int kvm_pull(struct kvm_cpu *cpu, struct error *err);
int kvm_push(struct kvm_cpu *cpu, struct error *err);
/* The CPUID table and the rest of what stays as it is. */
int kvm_set_up_cpu(struct kvm_cpu *cpu, struct error *err);
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

/* ---- exits.c: what a return from KVM_RUN asks for; under the lock ---- */
int kvm_handle_exit(struct kvm_cpu *cpu, struct error *err);

/* ---- soft_step.c: instructions that KVM cannot execute, or that are the soft processor's ---- */
int kvm_soft_step(struct kvm_cpu *cpu, struct error *err);
/* Lets KVM complete the instruction of the last exit, without executing a further one. */
int kvm_complete(struct kvm_cpu *cpu, struct error *err);

/* ioctl on a vCPU; failures name the request. */
int kvm_cpu_ioctl(struct kvm_cpu *cpu, unsigned long request, void *argument, const char *name,
                  struct error *err);

#endif
