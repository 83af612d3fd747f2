/* SPDX-License-Identifier: MIT */
/* Lockstep: one guest on two engines, whose states are compared.
 *
 * The leader is a VM on the soft engine, which steps its one vCPU (vmcs.h) and has the devices. The follower is a VM
 * with the same memory and the same vCPU state at the start, and no devices: it executes the same instructions by
 * other means, and comes to a point wherever the leader did something that is not of the processor alone. There it
 * gets what devices answered, and is compared: what it accessed and wrote, and its state.
 *
 * Interrupts reach the leader at such points only, where the follower can be given the same ones. A guest that waits
 * for one without coming to any is followed to the instruction it is at. */
#ifndef RUNTIME_LOCKSTEP_H
#define RUNTIME_LOCKSTEP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "image/error.h"
#include "runtime/bus.h"
#include "runtime/vcpu.h"

enum lockstep_kind {
    LOCKSTEP_ACCESS,   /* behind an instruction that accessed ports or memory-mapped registers */
    LOCKSTEP_MSR,      /* behind RDMSR, WRMSR */
    LOCKSTEP_HALT,     /* behind HLT */
    LOCKSTEP_SHUTDOWN, /* a triple fault */
    LOCKSTEP_BEFORE, /* before an instruction whose result is not the guest's alone (RDTSC, CPUID) */
    LOCKSTEP_SEARCH, /* before any instruction: its address may have been passed before, with other registers */
};

struct lockstep_point {
    enum lockstep_kind kind;
    struct vcpu *cpu;                  /* the leader's */
    uint64_t rip;                      /* ACCESS, MSR: of the instruction */
    uint64_t instructions;             /* by the leader since the follower last came to one */
    const struct bus_access *accesses; /* ACCESS: in order */
    unsigned count;
    uint32_t msr;   /* MSR: its number, … */
    bool faulted;   /* … an exception was the answer, … */
    uint64_t value; /* … or this was read or written */
};

enum lockstep_answer {
    LOCKSTEP_THERE,   /* it stands where the leader does */
    LOCKSTEP_PASSED,  /* this is no place where it can be stopped; all is well so far */
    LOCKSTEP_DIFFERS, /* it has done something else: err->text */
    LOCKSTEP_FAILED,  /* *err */
};

struct lockstep_follower {
    const char *name; /* "kvm" */
    struct vm *vm;
    void *own;
    enum lockstep_answer (*come)(struct lockstep_follower *follower,
                                 const struct lockstep_point *point, struct error *err);
    /* For a follower that is there. 0, or -1 with *err. */
    /* The external interrupt is delivered to it, too. */
    int (*interrupt)(struct lockstep_follower *follower, uint8_t vector, struct error *err);
    /* General registers, RIP and RFLAGS become the leader's, and what blocks interrupts for an instruction is over. */
    int (*give)(struct lockstep_follower *follower, const struct vcpu *leader, struct error *err);
    /* Brings vm->vcpus[0] up to date: general registers, RIP and RFLAGS; `all`: everything. */
    int (*state)(struct lockstep_follower *follower, bool all, struct error *err);
    void (*close)(struct lockstep_follower *follower);
};

/* Runs the leader's guest to its end, or to the first difference, which is told on `stream`: vm->shutdown is
 * SHUTDOWN_DIFFERENCE then. 0, or -1 with *err. */
int lockstep_run(struct vm *leader, struct lockstep_follower *follower, FILE *stream,
                 struct error *err);

/* ---- lockstep_state.c ---- */
/* The follower begins as the leader is: memory and vCPU. */
void lockstep_copy(struct vm *to, const struct vm *from);
/* Tells the fields that differ, a line each: "rax: 1, 2". Returns how many. `all` false: general registers, RIP and
 * RFLAGS. Status flags in `undefined` do not count. */
unsigned lockstep_compare(const struct vcpu *a, const struct vcpu *b, bool all, uint64_t undefined,
                          FILE *stream);
/* The same for memory, up to 16 lines. Bits that processors set on their own in page tables (accessed, dirty) do not
 * count, nor do what they are not alike in of what FXSAVE and XSAVE have stored: `images` has a bit for each 16 bytes
 * of memory where that is. NULL: all bits count. */
unsigned lockstep_compare_memory(const struct vm *a, const struct vm *b, const uint64_t *images,
                                 FILE *stream);

/* A line for the instruction in `bytes`, of which so many are there. Returns its length, at least 1. */
unsigned lockstep_print_instruction(const struct vm *vm, uint64_t address, unsigned bits,
                                    const uint8_t *bytes, unsigned available, FILE *stream);

/* Behind a run in lockstep: the exit code of a guest that ended without a difference, whatever it says of itself. */
void lockstep_conclude(struct vm *vm);

#endif
