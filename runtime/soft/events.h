/* SPDX-License-Identifier: MIT */
/* Inside event delivery: what events.c, task.c and the instructions that make events share. */
#ifndef RUNTIME_SOFT_EVENTS_H
#define RUNTIME_SOFT_EVENTS_H

#include "runtime/soft/segments.h"

#include "runtime/soft/engine.h"

struct event {
    enum event_type type;
    int vector;
    bool has_error;
    uint32_t error;
    uint64_t rip; /* what gets pushed */
    const struct insn
        *i; /* the instruction that is the event (INT n), or NULL: faults are its own */
};

/* INT n, INT3, INTO, INT1 executed by `i`: delivers, vcpu.rip is then the handler's first instruction. Raises as a fault
 * of `i` if that fails. */
void event_software(struct vcpu *cpu, const struct insn *i, enum event_type type, int vector);

/* Delivers an event that was put together elsewhere; as event_deliver. */
void event_inject(struct vcpu *cpu, struct event *event);

/* Runs call(cpu, context). True if it raised: vcpu.fault says what. */
bool cpu_catch(struct vcpu *cpu, void (*call)(struct vcpu *cpu, void *context), void *context);

/* RFLAGS as pushed: RF is set for faults, so that the instruction's breakpoint does not hit again (SDM 3B 17.3.1.1). */
uint64_t event_pushed_flags(const struct vcpu *cpu, const struct event *event);

/* ---- task.c: hardware task switches (SDM 3A 7.3) ---- */
enum task_reason { TASK_JUMP, TASK_CALL, TASK_RETURN, TASK_EVENT };
/* Switches to the task whose TSS `selector` names; `rip` goes into the old TSS. Raises, as a fault of `i` (NULL: of an
 * event), as long as the old task is there; what fails in the new task is raised, or, with an `i`, delivered there.
 * vcpu.rip is the new task's afterwards. `event`, if not NULL, has the error code to push. */
void task_switch(struct vcpu *cpu, const struct insn *i, uint16_t selector, enum task_reason reason,
                 uint64_t rip, const struct event *event);

/* Reads the stack for privilege level `dpl` from the TSS (SDM 3A 5.8.5): the stack segment is checked and unpacked into
 * *ss (with its selector); *linear gets its descriptor's address. Not for long mode. */
uint64_t task_stack(struct vcpu *cpu, const struct insn *i, unsigned dpl, struct segment *ss,
                    uint64_t *linear);
/* RSPn (n = 0 .. 2) or, with n = 3 + k, IST k from the 64-bit TSS; raises #TS or #SS(0). */
uint64_t task_stack64(struct vcpu *cpu, const struct insn *i, unsigned n);

#endif
