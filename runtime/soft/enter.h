/* SPDX-License-Identifier: MIT */
/* VM exits: where the engine asks whether the VMM wants to be told (vmcs.h).
 *
 * Each exit_on_… returns at once if no VM entry of this vCPU is under way or no control asks for the exit; else it records
 * the exit and unwinds to vm_enter. */
#ifndef RUNTIME_SOFT_ENTER_H
#define RUNTIME_SOFT_ENTER_H

#include "runtime/soft/events.h"
#include "runtime/vmcs.h"

/* Are the fields fit for an entry (vmcs.c)? Else vmcs.invalid says why not. */
bool vmcs_valid(struct vmcs *vmcs);

/* The controls in force, or NULL. */
static inline struct vmcs *entered(const struct vcpu *cpu)
{
    return cpu->vmcs && cpu->vmcs->entered ? cpu->vmcs : NULL;
}

/* Is there something to do for this entry before anything else, whatever the activity state? */
static inline bool entry_waits(const struct vcpu *cpu)
{
    const struct vmcs *vmcs = entered(cpu);
    return vmcs && (vmcs->entry_event.valid || vmcs->pending_step_exit);
}

/* The entry's course on this engine: turn after turn until a vCPU exits. Returns whose exit it is: `first`'s, if the
 * machine ends or the VMM asks to be back. */
struct vmcs *soft_run_turns(struct vm *vm, struct vmcs *first);

/* ---- events ---- */
/* The fault in vcpu.fault, not yet delivered: of an instruction (RIP and registers as before it), or one that prevented
 * the delivery of `under_delivery`. */
void exit_on_fault(struct vcpu *cpu, const struct event *under_delivery);
/* Two faults have merged into a double fault. */
void exit_on_double_fault(struct vcpu *cpu, const struct event *under_delivery);
void exit_on_triple_fault(struct vcpu *cpu);
void exit_on_debug_trap(struct vcpu *cpu); /* vcpu.pending_db */
void exit_on_interrupt(struct vcpu *cpu);
void exit_on_nmi(struct vcpu *cpu);
void exit_on_init(struct vcpu *cpu);
void exit_on_sipi(struct vcpu *cpu);
/* Here designated software runs, too. */
void exit_on_smi(struct vcpu *cpu);
/* INT3, INTO, INT1, about to deliver itself. */
void exit_on_software(struct vcpu *cpu, const struct insn *i, enum event_type type, int vector);

/* An event has arrived: the handler's first instruction is next. */
void entry_note_delivered(struct vcpu *cpu, const struct event *event);
/* INT n and its kind begins to deliver itself (`event`), or is through (NULL): it has arrived, unless the task it led to
 * has faulted since. */
void entry_note_own_delivery(struct vcpu *cpu, const struct event *event);

/* ---- instructions: the control is vcpu.exiting ---- */
_Noreturn void exit_by_instruction(struct vcpu *cpu, const struct insn *i, enum exit_kind kind);
/* Not an exit of an entry: the instruction accesses a device that another engine has (bus.elsewhere), and is left to it. */
_Noreturn void leave_instruction(struct vcpu *cpu, const struct insn *i);
_Noreturn void exit_by_io(struct vcpu *cpu, const struct insn *i, uint16_t port, bool in,
                          bool string);
static inline bool exits_by(const struct vcpu *cpu, enum exit_kind kind)
{
    return cpu->exiting >> kind & 1;
}

#endif
