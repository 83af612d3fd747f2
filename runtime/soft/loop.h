/* SPDX-License-Identifier: MIT */
/* Inside the soft engine's loop: what engine.c (a machine that runs), boundary.c (what happens between two instructions)
 * and enter.c (VM entry) share. */
#ifndef RUNTIME_SOFT_LOOP_H
#define RUNTIME_SOFT_LOOP_H

#include "runtime/soft/access.h"
#include "runtime/soft/engine.h"

/* What longjmp(vcpu.unwind) brings. */
enum {
    UNWIND_FAULT = 1 /* cpu_raise */,
    UNWIND_EXIT /* a VM exit: enter.c; an instruction that is left to another engine */
};

/* ---- counting (engine.c) ---- */
/* What vcpu_kick took out of the budget is there again. */
static inline void reclaim(struct vcpu *cpu)
{
    cpu->budget += cpu->withheld;
    cpu->withheld = 0;
    cpu->kicked = false;
}

/* Delivering an event takes as long as an instruction, though it is none: a guest whose handlers cannot be reached faults
 * for ever without executing anything, and its slice must end all the same. */
static inline void charge_event(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    cpu->budget--;
    soft->slice--;
    soft->idle_ns++;
}

/* Instructions may be slow (decoding what was just written): who asked for the end does not wait for that of the slice. */
static inline bool ends(const struct vm *vm)
{
    return vm->shutdown ||
           unlikely(atomic_load_explicit(&vm->stop_request, memory_order_relaxed) != SHUTDOWN_NONE);
}

static inline void run_block(struct vcpu *cpu, struct block *block)
{
    cpu->code_changed = false;
    cpu->budget -= block->count;
    cpu->block = block;
    for (const struct insn *i = block->insns; i;)
        i = i->run(cpu, i);
    cpu->block = NULL;
}

/* ---- turns (engine.c) ---- */
/* The vCPU whose turn begins now, with soft->turn_left instructions; time passes while all of them wait. NULL: the VM
 * stops, or a VM entry is to end (soft->asked). */
struct vcpu *soft_next_turn(struct vm *vm);
/* During a VM entry: has the VMM asked to be back (soft->asked)? */
bool soft_asked_back(struct vm *vm);
/* What clock.deadline_changed does when this engine runs a vCPU. */
void soft_deadline_changed(struct vm *vm);
/* Executes the block at RIP, or one instruction of it if it is longer than what is left of the slice. */
void run_next_block(struct vcpu *cpu);
/* The vCPU gets `instructions` and becomes the running one; and the other way round: how many it did not use. */
static inline void soft_begin(struct vcpu *cpu, int64_t instructions)
{
    cpu->vm->running = cpu;
    cpu->budget = cpu->vm->soft->slice = instructions;
    cpu->withheld = 0;
    cpu->kicked = false;
    cpu->link = NULL;
}
static inline int64_t soft_end(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    reclaim(cpu);
    soft->executed += (uint64_t)(soft->slice - cpu->budget);
    cpu->vm->running = NULL;
    return cpu->budget;
}

/* ---- boundary.c ---- */
/* Will this vCPU do anything if it gets a turn? */
bool cpu_wakes(const struct vcpu *cpu);
/* Takes the event of highest priority that waits, if it may come in. True if one was taken: look again. */
bool take_event(struct vcpu *cpu);
/* Of these only what comes before a debug trap and a step exit: machine check, INIT, SMI. */
bool take_high_event(struct vcpu *cpu);
#define HIGH_EVENTS (VCPU_EVENT_MACHINE_CHECK | VCPU_EVENT_INIT | VCPU_EVENT_SMI)

#define BREAKPOINTS_ENABLED(cpu) ((cpu)->dr[7] & 0xff)
/* Does something hang on the next instruction alone: a shadow, RF, TF, breakpoints? */
static inline bool needs_steps(const struct vcpu *cpu)
{
    return cpu->shadow || (cpu->rflags & (RFLAGS_TF | RFLAGS_RF)) || BREAKPOINTS_ENABLED(cpu);
}
/* Executes one instruction with all of that. */
void step_instruction(struct vcpu *cpu);
/* After cpu_raise: back to the state before the instruction, then through the IDT. */
void soft_unwound(struct vcpu *cpu);

#endif
