/* SPDX-License-Identifier: MIT */
/* VM entry on the KVM engine (vmcs.h): what KVM can give exactly it gives, all else is the soft processor's.
 *
 * Between two entries every vCPU's state is here, in struct vcpu. The soft processor works on it as it is, so steps
 * cost no ioctl; KVM gets it back when it is to run again (kvm_push). */
#include <stdio.h>
#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/enter.h"
#include "runtime/soft/loop.h"

void kvm_leave(struct kvm *kvm, struct vmcs *vmcs)
{
    if (kvm->leave && kvm->left)
        return; /* the first one counts */
    kvm->leave = true;
    kvm->left = vmcs;
}

/* ---- whose the entry is ---- */
/* Does this vCPU run in the entry? */
static bool takes_part(const struct vm *vm, const struct vcpu *cpu)
{
    const struct vcpu *only = vm->soft->only;
    return only ? cpu == only : !cpu->vmcs || !cpu->vmcs->held;
}

static bool has_controls(const struct vmcs *vmcs)
{
    return vmcs->single_step || vmcs->pending_step_exit || vmcs->limit || vmcs->exiting ||
           vmcs->exception_bitmap || vmcs->interrupt_exiting || vmcs->nmi_exiting ||
           vmcs->init_exiting || vmcs->sipi_exiting || vmcs->smi_exiting || vmcs->smm;
}

/* System-management software and machine checks. */
static bool special_event(const struct vm *vm)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (takes_part(vm, vm->vcpus[k]) &&
            vm->vcpus[k]->events & (VCPU_EVENT_SMI | VCPU_EVENT_MACHINE_CHECK))
            return true;
    return false;
}

bool kvm_asked_back(struct kvm *kvm)
{
    return soft_asked_back(kvm->vm) || (kvm->vm->soft->entered && special_event(kvm->vm));
}

static bool needs_soft(struct vm *vm, struct vmcs *const *list, unsigned count)
{
    for (unsigned k = 0; k < count; k++)
        if (has_controls(list[k]))
            return true;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (takes_part(vm, vm->vcpus[k]) && vm->vcpus[k]->activity == ACTIVITY_SHUTDOWN)
            return true;
    return special_event(vm) || !kvm_breakpoints_possible(vm);
}

static struct vmcs *enter_soft(struct vm *vm, struct vmcs *first)
{
    kvm_soft_fresh(vm->kvm);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (takes_part(vm, vm->vcpus[k]))
            vm->kvm->cpus[k].translations_stale = true;
    return soft_run_turns(vm, first);
}

/* ---- what comes before KVM ---- */
/* Must the soft processor begin: with an event that the VMM injects, a trap that waits, or the instruction at a
 * breakpoint, which the entry passes over? */
static bool begins_soft(struct vcpu *cpu)
{
    const struct vmcs *vmcs = cpu->vmcs;
    if ((vmcs && vmcs->entry_event.valid) || cpu->pending_db)
        return true;
    bool here = cpu->activity == ACTIVITY_ACTIVE && cpu->vm->breakpoints && breakpoint_reached(cpu);
    cpu->stop.kind = STOP_NONE;
    return here;
}

/* A breakpoint that was met when another vCPU's exit ended the last entry. */
static bool met_before(struct vmcs *vmcs)
{
    struct kvm_cpu *cpu = &vmcs->cpu->vm->kvm->cpus[vmcs->cpu->index];
    bool met = cpu->met && vmcs->cpu->vm->breakpoints;
    cpu->met = false;
    return met && kvm_breakpoint_met(cpu);
}

/* One event or instruction, all iterations of a REP. True: it ended in an exit of another kind, and so does the entry. */
static bool begin_soft(struct vmcs *vmcs)
{
    struct vcpu *cpu = vmcs->cpu;
    struct vm *vm = cpu->vm;
    const struct vcpu *only = vm->soft->only;
    vm->soft->only = cpu;
    vmcs->single_step = cpu->one_iteration = cpu->unbatched = true;
    do {
        enter_soft(vm, vmcs);
        if (vmcs->exit_reason != VMCS_EXIT_STEP)
            break;
        vmcs->steps--; /* none that was asked for */
        vm->stats.steps--;
    } while (cpu->repeating);
    vmcs->single_step = cpu->one_iteration = cpu->unbatched = false;
    vmcs->step_due = false;
    vm->soft->only = only;
    return vmcs->exit_reason != VMCS_EXIT_STEP;
}

/* ---- the entry ---- */
static struct vmcs *ended(struct vmcs *first, enum vmcs_exit reason)
{
    first->exit_reason = reason;
    return first;
}

/* All that take part, until kvm_ends. */
static int run(struct vm *vm, struct error *err)
{
    struct kvm *kvm = vm->kvm;
    kvm->taking_part = 0;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (takes_part(vm, vm->vcpus[k]))
            kvm->taking_part |= 1u << k;
    kvm->leave = false;
    kvm->left = NULL;
    vm->soft->turn = NULL; /* the soft processor begins anew when it comes back */
    vm->soft->turn_left = 0;
    vm->soft->next = 0;
    return kvm_run_threads(kvm, err);
}

struct vmcs *kvm_enter(struct vm *vm, struct vmcs *const *list, unsigned count)
{
    struct error err = {0};
    for (;;) {
        if (needs_soft(vm, list, count))
            return enter_soft(vm, list[0]);
        for (unsigned k = 0; k < count; k++)
            if (met_before(list[k]) || (begins_soft(list[k]->cpu) && begin_soft(list[k])))
                return list[k];
        if (soft_asked_back(vm))
            return ended(list[0], VMCS_EXIT_REQUEST);
        if (run(vm, &err) < 0)
            fprintf(stderr, "hvrun: %s\n", err.text);
        if (vm->kvm->left)
            return vm->kvm->left;
        if (vm->soft->asked || vm->shutdown)
            return ended(list[0], vm->shutdown ? VMCS_EXIT_SHUTDOWN : VMCS_EXIT_REQUEST);
    }
}
