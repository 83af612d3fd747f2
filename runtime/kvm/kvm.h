/* SPDX-License-Identifier: MIT */
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

struct kvm;

/* What is known of a port's exits (io_events.c). */
#define KVM_PORTS 64
struct kvm_port {
    uint16_t port;
    uint16_t distance; /* exits between two that are tried; 0 = nothing is known */
    uint16_t due;      /* exits up to the next one */
};

struct kvm_cpu {
    struct vcpu *vcpu;
    struct kvm *kvm;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    pthread_t thread;
    bool started;    /* `thread` is one */
    bool inside;     /* in KVM_RUN, or about to be: written under the lock */
    bool pulled;     /* struct vcpu holds the state, the kernel's is old */
    bool has_pdptes; /* KVM gives and takes the PDPTE registers */
    bool unfinished; /* the last exit's instruction is completed by the next KVM_RUN */
    uint32_t known;  /* vcpu->events that it entered the guest with */
    /* chips_kernel.c */
    bool answered, parked;
    uint64_t used;       /* its thread's processor time when looked at last, ns */
    pthread_cond_t wake; /* for a thread whose vCPU is halted */

    /* ---- with the state that was pulled ---- */
    /* an exception, interrupt or NMI that KVM had begun to deliver: `injected` of each */
    struct kvm_vcpu_events queued;
    uint64_t clock_msrs[2];  /* MSR_KVM_WALL_CLOCK and _SYSTEM_TIME as KVM has them */
    uint64_t tsc_offset;     /* vcpu.tsc_offset as KVM has it */
    bool translations_stale; /* the soft processor was here, and may have flushed some */

    struct kvm_port ports[KVM_PORTS];

    /* ---- breakpoints ---- */
    unsigned debugging; /* how many KVM_SET_GUEST_DEBUG has set up */
    bool met;           /* one was met, but the entry ended with another vCPU's exit */
};

/* What KVM_SET_GUEST_DEBUG is worth here. */
struct kvm_debug {
    bool ring0, ring3; /* breakpoints are met there */
    bool guard;        /* what the guest does with its debug registers is an exit */
};

/* Who has the interrupt chips and the timer. All but the first two under the lock. */
struct kvm_chips {
    bool collects; /* not every port access need be an exit (coalesced.c) */
    int (*create)(struct kvm *kvm, struct error *err); /* before the first vCPU; may be NULL */
    int (*set_up_cpu)(struct kvm_cpu *cpu, struct error *err); /* may be NULL */
    /* What waits for the vCPU goes into the kernel, and its state. Behind it, the vCPU may be halted. */
    int (*offer)(struct kvm_cpu *cpu, struct error *err);
    bool (*sleeps)(const struct kvm_cpu *cpu); /* it waits in this process, for `wake` */
    /* just before and after KVM_RUN */
    void (*entering)(struct kvm_cpu *cpu);
    int (*left)(struct kvm_cpu *cpu, struct error *err);
    void (*ended)(struct kvm_cpu *cpu);     /* runs no more; may be NULL */
    void (*tsc_moved)(struct kvm_cpu *cpu); /* behind kvm_set_tsc; may be NULL */
    /* Asked by the timekeeper: at kvm.look, and whenever it is awake. */
    bool (*halted_for_ever)(struct kvm *kvm);
};
extern const struct kvm_chips kvm_user_chips;   /* chips_user.c */
extern const struct kvm_chips kvm_kernel_chips; /* chips_kernel.c */
extern const struct interrupt_chips
    kvm_kernel_interrupt_chips; /* the same, as the machine sees them */

struct kvm {
    struct vm *vm;
    const struct kvm_chips *chips;
    int fd, vm_fd;
    size_t run_size; /* bytes of struct kvm_run's mapping */
    pthread_mutex_t lock;
    struct kvm_cpu cpus[VCPUS_MAX];
    uint32_t taking_part;  /* bit k: vCPU k runs, if the VM does */
    unsigned halted;       /* of those: vCPUs that wait */
    bool leave;            /* a VM entry (enter.c) is to end */
    struct vmcs *left;     /* … by the exit of this one; NULL: not by an exit */
    bool memory_changed;   /* guests ran in KVM: what the soft processor has cached is old */
    uint64_t tsc_start;    /* host TSC at guest time 0 */
    unsigned slower;       /* how many times: guest time against the host's */
    uint64_t deadline;     /* guest time at which the timekeeper wakes by itself */
    uint64_t ioctls;       /* KVM_RUN calls and all others on vCPUs, since the start */
    uint64_t runs;         /* KVM_RUN calls */
    uint64_t came;         /* those that came back with an exit */
    uint64_t pulls;        /* register files copied out of the kernel */
    uint64_t soft_steps;   /* instructions that the soft processor executed instead */
    uint64_t rings;        /* doorbells */
    uint64_t io_pulls;     /* exits of port accesses that needed registers */
    uint64_t rings_pulled; /* those that needed registers */
    /* MSRs that KVM keeps come to user space, too, to be counted: two ioctls instead of none */
    bool counts_msrs;
    struct kvm_debug debug;
    bool debug_known; /* `debug` was found out */
    const char *said; /* why the soft processor runs a guest with breakpoints, once it was said */
    /* chips_kernel.c */
    uint32_t lines;          /* levels */
    bool roll_call, alive;   /* all vCPUs are to come out; one of them is not halted for ever */
    bool look_afresh;        /* the roll call itself used their time */
    uint64_t look, patience; /* guest time of the next look, and ns from one to the next */
    uint64_t line_ioctls;
    /* coalesced.c */
    struct kvm_coalesced_mmio_ring *ring; /* shared with the kernel; NULL: none */
    uint32_t ring_slots;
    bool prompt;          /* somebody waits for what is in it */
    struct error failure; /* why a thread gave up; code 0 = none did */
};

/* Are the threads to come back? */
static inline bool kvm_ends(const struct kvm *kvm)
{
    return kvm->vm->shutdown || kvm->leave;
}

/* How many threads there are. */
static inline unsigned kvm_threads(const struct kvm *kvm)
{
    return (unsigned)__builtin_popcount(kvm->taking_part);
}

/* ---- machine.c: the VM and its vCPUs, made and taken apart ---- */
int kvm_create(struct vm *vm, struct error *err);
void kvm_destroy(struct vm *vm);
/* *err from errno: "KVM: what: why". Returns -1. */
int kvm_system_failed(struct error *err, const char *what);

/* ---- engine.c: the vCPUs' threads ---- */
/* Makes the vCPU's KVM_RUN return, if it is inside. */
void kvm_kick(struct kvm_cpu *cpu);
/* After anything that may have concerned other vCPUs than `self` (NULL: none is excepted). */
void kvm_notify(struct kvm *kvm, const struct kvm_cpu *self);

/* Runs the vCPUs of kvm->taking_part, each on its thread, until kvm_ends; then their state is here. */
int kvm_run_threads(struct kvm *kvm, struct error *err);

/* ---- timekeeper.c ---- */
/* Under the lock: timers and the world outside, until kvm_ends. */
void kvm_keep_time(struct kvm *kvm);
void kvm_deadline_changed(void *vm);

/* ---- coalesced.c: writes without an exit ---- */
/* From here on the kernel collects some; behind the making of the vCPUs. */
void kvm_collect_writes(struct kvm *kvm);
/* Those that it has go to the devices. `exit`: what comes next (NULL: nothing). */
void kvm_take_writes(struct kvm *kvm, const struct kvm_run *exit);

/* ---- counters.c ---- */
/* Into vm->stats. */
void kvm_count_all(struct kvm *kvm);

/* ---- enter.c: VM entry ---- */
struct vmcs *kvm_enter(struct vm *vm, struct vmcs *const *list, unsigned count);
/* Is the entry that is under way to end, because the VMM asks for it or for what only the soft processor does? */
bool kvm_asked_back(struct kvm *kvm);
/* The entry that is under way ends with an exit of this vCPU: its vmcs says why. */
void kvm_leave(struct kvm *kvm, struct vmcs *vmcs);

/* ---- state.c: a vCPU's state, here and in the kernel. 0, or -1 with *err. ---- */
int kvm_pull(struct kvm_cpu *cpu, struct error *err);
int kvm_push(struct kvm_cpu *cpu, struct error *err);
/* General registers, RIP and RFLAGS only, for a look: the state stays in the kernel. */
int kvm_pull_registers(struct kvm_cpu *cpu, struct error *err);
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
    char why_not[160]; /* why `auto` does not take it; empty = it does */
    double mips;       /* ring-0 loop of ALU instructions */
    int tsc_khz;       /* the host's TSC */
    const char
        *no_chips; /* what it lacks to have interrupt chips and 8254; NULL = it can have them */
    bool no_xsave, no_cx16; /* cannot be executed in ring 0 */
    bool no_tsc_frequency;  /* the host's TSC changes its pace */
    bool no_tsc_offset;     /* RDTSC gives the host's TSC, whatever is set */
};
/* There is no /dev/kvm, as on many hosts. */
bool kvm_absent(void);
/* 0; or -1 with *err (HVRUN_NO_ENGINE): there is no usable KVM at all. */
int kvm_probe(struct kvm_quality *quality, struct error *err);
/* How many times slower guest time should pass, as the last probe found the host: 1 where it executes ring 0 well. */
unsigned kvm_slowness(void);
/* Takes from the CPUID model what this KVM does not offer or cannot execute. Before the first vCPU is made. */
int kvm_limit_features(const struct kvm_quality *quality, struct error *err);

/* Tries out KVM_SET_GUEST_DEBUG; `fd` is /dev/kvm's. */
void kvm_probe_debug(int fd, struct kvm_debug *debug);

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
/* KVM does not say where an exit came from without a register transfer: it is counted at no address. */
#define KVM_NO_ADDRESS 0

/* The guest's HLT. */
void kvm_halt(struct kvm_cpu *cpu);

/* ---- io_events.c ---- */
/* True if the exit of this port access is to become an event that may take others with it; then kvm_io_event does. */
bool kvm_io_due(struct kvm_cpu *cpu);
int kvm_io_event(struct kvm_cpu *cpu, struct error *err);

/* ---- msrs.c ---- */
/* Which MSR accesses KVM leaves to user space; before the first vCPU is made. */
int kvm_filter_msrs(struct kvm *kvm, struct error *err);
int kvm_exit_rdmsr(struct kvm_cpu *cpu, struct error *err);
int kvm_exit_wrmsr(struct kvm_cpu *cpu, struct error *err);
/* Is this MSR exit of one that KVM keeps? */
bool kvm_asks_to_count(const struct kvm_cpu *cpu);

/* ---- rings.c: routines of a patched guest ---- */
struct stub_routine;
/* engine.links */
bool kvm_links(const struct vm *vm, const struct stub_routine *r);
/* True if this is the doorbell of a routine that was linked; then kvm_ring does what it asks for. */
bool kvm_rings(const struct kvm_cpu *cpu, uint32_t index);
int kvm_ring(struct kvm_cpu *cpu, uint32_t index, struct error *err);

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
