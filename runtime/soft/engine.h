/* SPDX-License-Identifier: MIT */
/* The soft engine's loop: slices of instructions for each vCPU in turn, events between them. */
#ifndef RUNTIME_SOFT_ENGINE_H
#define RUNTIME_SOFT_ENGINE_H

#include "runtime/soft/cache.h"
#include "runtime/vm.h"

struct soft {
    struct cache *cache;
    struct translator *translator; /* NULL = off */
    uint64_t idle_ns;              /* guest time spent halted */
    uint64_t executed;             /* instructions done in slices that ended, all vCPUs */
    int64_t slice;                 /* instructions granted to the running vCPU */
    uint64_t last_now;             /* guest time never goes back */

    /* whose turn it is: the vCPUs take turns in order */
    struct vcpu *turn;       /* NULL: nobody's yet */
    int64_t turn_left;       /* instructions left of it; counted down by VM entries (enter.c) */
    unsigned next;           /* index of the vCPU whose turn is next */
    bool turn_shown;         /* the state page of a patched guest is up to date for it */
    bool yielded;            /* it was given up (soft_yield) */
    bool ran;                /* somebody had a turn in this round */
    bool entered;            /* a VM entry is under way */
    const struct vcpu *only; /* by it, of this vCPU alone; NULL: of all */
    bool asked;              /* the entry is to end: vmcs_interrupt, vmcs_poll */
};

/* Executes `instructions` on this vCPU (fewer if it halts, is kicked or the VM stops). Events that wait are
 * delivered before and between. */
void soft_run(struct vcpu *cpu, int64_t instructions);
/* Executes exactly one instruction (or one iteration of a REP string instruction), or delivers one event. */
void soft_step(struct vcpu *cpu);
/* The vCPU stands at an IO instruction, which is executed, with others of its block (io_dispatcher.h). */
void soft_io_event(struct vcpu *cpu, int64_t instructions);
/* Takes the event of highest priority that waits, if it may come in; executes nothing. */
void soft_take_event(struct vcpu *cpu);
/* Gives up the rest of the slice (PAUSE, a timer that is due earlier): guest time does not jump. */
void soft_yield(struct vcpu *cpu);
/* Instructions executed so far by all vCPUs, the running one's block position included. */
uint64_t soft_instructions(const struct vm *vm);

/* ---- events.c: exceptions and interrupts ---- */
enum event_type {
    EVENT_EXTERNAL,
    EVENT_NMI,
    EVENT_EXCEPTION,
    EVENT_SOFTWARE /* INT n */,
    EVENT_ICEBP,
    EVENT_SOFTWARE_EXCEPTION /* INT3, INTO */
};

/* Delivers through the IDT; vcpu.rip is what gets pushed. Faults on the way are delivered in turn, double faults too;
 * a triple fault ends in cpu_triple_fault. On return the vCPU is at the handler's first instruction. */
void event_deliver(struct vcpu *cpu, enum event_type type, int vector, bool has_error,
                   uint32_t error);
/* One attempt of it, which unwinds (cpu_raise) if delivery faults: what vmcs stepping needs to look at. */
void event_deliver_once(struct vcpu *cpu, enum event_type type, int vector, bool has_error,
                        uint32_t error);
/* Delivers it when no vCPU is running here. */
void soft_deliver(struct vcpu *cpu, enum event_type type, int vector, bool has_error,
                  uint32_t error);
/* Delivers vcpu.fault (set by cpu_raise): the loop calls it after unwinding; RIP and registers are restored by then. */
void event_deliver_fault(struct vcpu *cpu);
/* Shutdown state: a register dump on stderr, then the VM stops with HVRUN_GUEST_DEATH. */
void cpu_triple_fault(struct vcpu *cpu);

#endif
