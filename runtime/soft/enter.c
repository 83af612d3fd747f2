/* SPDX-License-Identifier: MIT */
/* VM entry on the soft engine (vmcs.h): one vCPU or all, under their controls, until one exits.
 *
 * An entry uses the same turns as a machine that runs (engine.c): it goes on with the turn that the last entry left, and so
 * timers fire and vCPUs alternate behind the same instructions however often the VMM interrupts. */
#include "runtime/soft/enter.h"

#include "runtime/soft/loop.h"
#include "runtime/breakpoints.h"
#include "runtime/stub_devices.h"

/* Guest time, which here is cheap to have; on another engine it is not. */
static inline uint64_t present(const struct vm *vm)
{
    return likely(!vm->kvm) ? vm->soft->executed + vm->soft->idle_ns : clock_now(&vm->clock);
}

/* A breakpoint or watchpoint was met. True: exit. */
static bool stopped(struct vcpu *cpu, struct vmcs *vmcs)
{
    bool data = cpu->stop.kind >= STOP_WRITE;
    if (cpu->stop.kind == STOP_NONE)
        return false;
    if (data) {
        vmcs->watch_linear = cpu->stop.address;
        vmcs->watch_kind = cpu->stop.kind == STOP_WRITE  ? VMCS_WATCH_WRITE
                           : cpu->stop.kind == STOP_READ ? VMCS_WATCH_READ
                                                         : VMCS_WATCH_ACCESS;
    } else {
        vmcs->qualification = cpu->stop.address;
    }
    cpu->stop.kind = STOP_NONE;
    vmcs->exit_reason = data ? VMCS_EXIT_WATCHPOINT : VMCS_EXIT_BREAKPOINT;
    return true;
}

/* ---- the step exit ---- */
static bool exit_step(struct vmcs *vmcs)
{
    stopped(vmcs->cpu, vmcs); /* a watchpoint is told all the same */
    vmcs->exit_reason = VMCS_EXIT_STEP;
    vmcs->steps++;
    vmcs->cpu->vm->stats.steps++;
    return true;
}

/* The instruction or event is done. With the indicator set that is an exit, unless something of higher priority comes
 * between (S12, S13). True: exit. */
static bool step_done(struct vcpu *cpu, struct vmcs *vmcs)
{
    if (!vmcs->single_step)
        return false;
    vmcs->step_due = true;
    while (unlikely(cpu->events & HIGH_EVENTS) && vmcs->step_due)
        if (!take_high_event(cpu))
            break;
    return vmcs->step_due && exit_step(vmcs);
}

/* ---- running under the controls ---- */
/* The vCPU's own exits and what the entry itself brings (S6, S15). True: exit. */
static bool at_entry(struct vcpu *cpu, struct vmcs *vmcs)
{
    static const enum event_type types[] = {
        [VMCS_EVENT_EXTERNAL] = EVENT_EXTERNAL,
        [VMCS_EVENT_NMI] = EVENT_NMI,
        [VMCS_EVENT_EXCEPTION] = EVENT_EXCEPTION,
        [VMCS_EVENT_SOFTWARE] = EVENT_SOFTWARE,
        [VMCS_EVENT_ICEBP] = EVENT_ICEBP,
        [VMCS_EVENT_SOFTWARE_EXCEPTION] = EVENT_SOFTWARE_EXCEPTION,
    };
    if (vmcs->entry_event.valid) {
        const struct vmcs_event *inject = &vmcs->entry_event;
        struct event event = {types[inject->type], inject->vector, inject->has_error,
                              inject->error,       cpu->rip,       NULL};
        if (inject->type >= VMCS_EVENT_SOFTWARE)
            event.rip += vmcs->entry_length;
        vmcs->entry_event.valid = false;
        charge_event(cpu);
        event_inject(cpu, &event);
        if (step_done(cpu, vmcs))
            return true;
    }
    return vmcs->pending_step_exit && exit_step(vmcs);
}

/* A block was executed, or an event delivered. True: exit. */
static bool exit_block(struct vmcs *vmcs)
{
    if (vmcs->one_block)
        vmcs->exit_reason = VMCS_EXIT_LIMIT;
    return vmcs->one_block;
}

/* The budget is that of the block: whatever it would go on with comes back here. */
static void hold_budget(struct vcpu *cpu)
{
    int64_t count = cache_block(cpu, false)->count;
    if (count && count < cpu->budget) {
        cpu->withheld += cpu->budget - count;
        cpu->budget = count;
    }
}

/* One instruction, or a block of them. True: exit. */
static bool execute(struct vcpu *cpu, struct vmcs *vmcs)
{
    bool here = cpu->vm->breakpoints && breakpoint_reached(cpu);
    if (here && !vmcs->fresh && !vmcs->single_step && !cpu->repeating)
        return stopped(cpu, vmcs);
    vmcs->fresh = false;
    cpu->repeating = false;
    if (here || vmcs->single_step || needs_steps(cpu)) {
        cpu->stop.kind = STOP_NONE;
        cpu->link = NULL;
        step_instruction(cpu);
    } else {
        if (unlikely(vmcs->one_block))
            hold_budget(cpu);
        run_next_block(cpu);
    }
    bool met = unlikely(cpu->stop.kind != STOP_NONE) && stopped(cpu, vmcs);
    return vmcs->single_step ? step_done(cpu, vmcs) : met || exit_block(vmcs);
}

/* Runs the vCPU until its instructions are used up or it has nothing to do. True: exit. */
static bool run_entered(struct vcpu *cpu, struct vmcs *vmcs)
{
    switch (setjmp(cpu->unwind)) {
    case UNWIND_EXIT:
        return true;
    case UNWIND_FAULT:
        soft_unwound(cpu);
        if (step_done(cpu, vmcs) || exit_block(vmcs))
            return true;
        break;
    default:
        if (at_entry(cpu, vmcs))
            return true;
    }
    while (!ends(cpu->vm)) {
        reclaim(cpu);
        if (unlikely(stopped(cpu, vmcs))) /* by what an event has pushed */
            return true;
        if (cpu->budget <= 0 || !cpu_wakes(cpu))
            return false;
        if ((cpu->events || cpu->pending_db) && take_event(cpu)) {
            cpu->link = NULL;
            vmcs->fresh = false;
            charge_event(cpu);
            if (step_done(cpu, vmcs) || exit_block(vmcs))
                return true;
            continue;
        }
        if (vmcs->pending_step_exit)
            return exit_step(vmcs);
        if (cpu->activity != ACTIVITY_ACTIVE)
            return false;
        if (execute(cpu, vmcs))
            return true;
    }
    return false;
}

/* The vCPU goes on with its turn. True: exit. */
static bool take_turn(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    struct vmcs *vmcs = entered(cpu);
    int64_t grant = soft->turn_left;
    bool left = false;
    if (!vmcs) {
        soft_run(cpu, grant);
        soft->turn_left = 0;
        return false;
    }
    if (vmcs->limit && vmcs->limit_left < grant)
        grant = vmcs->limit_left;
    soft->yielded = false;
    soft_begin(cpu, grant);
    if (cpu->vm->stub && !soft->turn_shown)
        stub_devices_begin(cpu, (uint64_t)soft->turn_left);
    soft->turn_shown = true;
    left = run_entered(cpu, vmcs);
    int64_t rest = soft_end(cpu);
    if (cpu->vm->stub)
        stub_devices_take(cpu->vm);
    soft->turn_left -= grant - rest;
    if (soft->yielded || !cpu_wakes(cpu))
        soft->turn_left = 0;
    vmcs->limit_left -= soft->slice - rest;
    if (!left && vmcs->limit && vmcs->limit_left <= 0) {
        vmcs->exit_reason = VMCS_EXIT_LIMIT;
        left = true;
    }
    return left;
}

/* ---- entry and exit ---- */
static void clear_exit_information(struct vmcs *vmcs)
{
    vmcs->qualification = 0;
    vmcs->event.valid = vmcs->vectoring.valid = vmcs->delivered.valid = false;
    vmcs->own_delivery.valid = false;
    vmcs->instruction_length = 0;
    vmcs->watch_kind = 0;
    vmcs->invalid = NULL;
}

static void begin(struct vmcs *vmcs)
{
    struct vcpu *cpu = vmcs->cpu;
    clear_exit_information(vmcs);
    cpu->activity = vmcs->activity;
    cpu->shadow = vmcs->interruptibility & (SHADOW_STI | SHADOW_MOVSS);
    cpu->nmi_blocked = vmcs->interruptibility & VMCS_BLOCKED_NMI;
    cpu->pending_db = vmcs->pending_debug;
    cpu->exiting = vmcs->exiting;
    cpu->one_iteration = vmcs->single_step;
    cpu->unbatched = vmcs->single_step || vmcs->exiting || breakpoints_any(cpu->vm) || vmcs->limit;
    cpu->repeating = false;
    cpu->stop.kind = STOP_NONE;
    cpu->fault.vector = -1;
    vmcs->limit_left = (int64_t)vmcs->limit;
    vmcs->step_due = false;
    vmcs->fresh = true;
    vmcs->entered = true;
}

static void finish(struct vmcs *vmcs)
{
    struct vcpu *cpu = vmcs->cpu;
    if (vmcs->save_activity)
        vmcs->activity = cpu->activity;
    vmcs->interruptibility = cpu->shadow | (cpu->nmi_blocked ? VMCS_BLOCKED_NMI : 0);
    vmcs->pending_debug = cpu->pending_db;
    vmcs->pending_step_exit = false;
    vmcs->entered = false;
    cpu->exiting = 0;
    cpu->one_iteration = false;
    cpu->unbatched = false;
}

/* The control structures that take part in the entry: of `only`, or of all that are not held. */
static unsigned participants(struct vm *vm, const struct vcpu *only, struct vmcs **list)
{
    unsigned count = 0;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        struct vmcs *vmcs = vm->vcpus[k]->vmcs;
        if (vmcs && (only ? vm->vcpus[k] == only : !vmcs->held))
            list[count++] = vmcs;
    }
    return count;
}

/* The vCPU whose turn the last entry left unfinished, if nothing has come between; else NULL. */
static struct vcpu *turn_to_go_on_with(struct vm *vm)
{
    struct soft *soft = vm->soft;
    struct vcpu *cpu = soft->turn;
    uint64_t now = present(vm), deadline = clock_deadline(&vm->clock);
    if (soft->turn_left <= 0 || ends(vm) || deadline <= now ||
        atomic_load_explicit(&vm->attention, memory_order_acquire))
        return NULL;
    if (soft->only ? cpu != soft->only : cpu->vmcs && cpu->vmcs->held)
        return NULL;
    if (vm->poll.ask && vm->poll.ask(vm->poll.context)) {
        soft->asked = true;
        return NULL;
    }
    if (deadline - now < (uint64_t)soft->turn_left)
        soft->turn_left = (int64_t)(deadline - now);
    return cpu;
}

struct vmcs *soft_run_turns(struct vm *vm, struct vmcs *first)
{
    struct soft *soft = vm->soft;
    for (;;) {
        struct vcpu *cpu = turn_to_go_on_with(vm);
        if (!cpu)
            cpu = soft_next_turn(vm);
        if (!cpu) {
            first->exit_reason = soft->asked ? VMCS_EXIT_REQUEST : VMCS_EXIT_SHUTDOWN;
            return first;
        }
        if (take_turn(cpu))
            return cpu->vmcs;
    }
}

static struct vmcs *enter(struct vm *vm, const struct vcpu *only)
{
    struct soft *soft = vm->soft;
    struct vmcs *list[VCPUS_MAX];
    unsigned count = participants(vm, only, list);
    if (count == 0)
        return NULL;
    for (unsigned k = 0; k < count; k++)
        if (!vmcs_valid(list[k])) {
            list[k]->exit_reason = VMCS_EXIT_INVALID;
            return list[k];
        }
    for (unsigned k = 0; k < count; k++)
        begin(list[k]);
    soft->entered = true;
    soft->asked = false;
    soft->only = only;
    struct vmcs *left =
        vm->engine->enter ? vm->engine->enter(vm, list, count) : soft_run_turns(vm, list[0]);
    soft->entered = false;
    soft->only = NULL;
    for (unsigned k = 0; k < count; k++)
        finish(list[k]);
    vm->stats.guest_instructions = soft->executed;
    return left;
}

struct vmcs *vm_enter_any(struct vm *vm)
{
    return enter(vm, NULL);
}

/* ---- the plain step: nothing waits, nothing is injected, the turn goes on ---- */
static inline bool plain(const struct vmcs *vmcs)
{
    const struct vcpu *cpu = vmcs->cpu;
    const struct vm *vm = cpu->vm;
    const struct soft *soft = vm->soft;
    bool state = !vmcs->entry_event.valid && !vmcs->pending_step_exit && !vmcs->limit &&
                 vmcs->activity == ACTIVITY_ACTIVE && !vmcs->pending_debug &&
                 !(vmcs->interruptibility & ~VMCS_BLOCKED_NMI) && !cpu->events && vcpu_code64(cpu);
    bool machine = soft->turn == cpu && soft->turn_left > 1 && !vm->shutdown && !vm->poll.ask &&
                   !atomic_load_explicit(&vm->attention, memory_order_relaxed) &&
                   clock_deadline(&vm->clock) > present(vm) + 1;
    return vmcs->single_step && state && machine;
}

enum vmcs_exit vm_enter(struct vmcs *vmcs)
{
    struct vcpu *cpu = vmcs->cpu;
    struct soft *soft = cpu->vm->soft;
    if (unlikely(!plain(vmcs))) {
        enter(cpu->vm, cpu);
        return vmcs->exit_reason;
    }
    begin(vmcs);
    soft->entered = true;
    soft->asked = false;
    soft->only = cpu;
    if (unlikely(!take_turn(cpu)))
        soft_run_turns(cpu->vm, vmcs);
    soft->entered = false;
    soft->only = NULL;
    finish(vmcs);
    return vmcs->exit_reason;
}
