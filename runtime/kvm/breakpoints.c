/* SPDX-License-Identifier: MIT */
/* A debugger's breakpoints at KVM's speed: KVM_SET_GUEST_DEBUG lends it the processor's breakpoint registers. The
 * guest's memory is not touched, and what the guest reads and writes of its debug registers stays its own; but only
 * one of the two can have breakpoints in force. So the soft processor runs the guest where it is not the debugger
 * alone who has some, and where there are more than the processor has registers. */
#include <stdio.h>
#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/enter.h"

#define REGISTERS  4u
#define DR7_ONE    0x400u /* reads as 1 */
#define DR7_IN_USE 0xffu  /* local and global enables of all */
#define UPPER_HALF (1ull << 63)

static bool guest_has_some(const struct vm *vm)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        if (vm->vcpus[k]->dr[7] & DR7_IN_USE)
            return true;
    return false;
}

/* Why KVM cannot have the breakpoints that there are; NULL: it can. */
static const char *refusal(struct vm *vm)
{
    const struct breakpoints *b = vm->breakpoints;
    struct kvm *kvm = vm->kvm;
    if (!breakpoints_any(vm))
        return NULL;
    if (b->watched)
        return "watchpoints";
    if (b->count > REGISTERS)
        return "more breakpoints than the processor has registers";
    if (guest_has_some(vm))
        return "the guest uses the debug registers";
    if (!kvm->debug_known)
        kvm_probe_debug(kvm->fd, &kvm->debug);
    kvm->debug_known = true;
    for (size_t n = 0; n < b->count; n++)
        if (!(b->sorted[n].address & UPPER_HALF ? kvm->debug.ring0 : kvm->debug.ring3))
            return "this KVM has no breakpoints there";
    return NULL;
}

bool kvm_breakpoints_possible(struct vm *vm)
{
    const char *why = refusal(vm);
    if (why && why != vm->kvm->said)
        fprintf(stderr, "hvrun: %s: the soft processor runs the guest until they are gone\n", why);
    vm->kvm->said = why;
    return !why;
}

int kvm_set_breakpoints(struct kvm_cpu *cpu, struct error *err)
{
    const struct vm *vm = cpu->kvm->vm;
    unsigned count = vm->breakpoints ? (unsigned)vm->breakpoints->count : 0;
    struct kvm_guest_debug debug = {.control = 0};
    if (count == 0 && !cpu->debugging)
        return 0;
    cpu->debugging = count;
    if (count) {
        debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[7] = DR7_ONE | (cpu->kvm->debug.guard ? DR7_GD : 0);
    }
    for (unsigned n = 0; n < count; n++) {
        debug.arch.debugreg[n] = vm->breakpoints->sorted[n].address;
        debug.arch.debugreg[7] |= 2ull
                                  << 2 * n; /* globally enabled; length and kind 0: execution */
    }
    return kvm_cpu_ioctl(cpu, KVM_SET_GUEST_DEBUG, &debug, "KVM_SET_GUEST_DEBUG", err);
}

bool kvm_breakpoint_met(struct kvm_cpu *cpu)
{
    struct vmcs *vmcs = entered(cpu->vcpu);
    bool here = breakpoint_reached(cpu->vcpu);
    if (here && vmcs) {
        vmcs->qualification = cpu->vcpu->stop.address;
        vmcs->exit_reason = VMCS_EXIT_BREAKPOINT;
    }
    cpu->vcpu->stop.kind = STOP_NONE;
    return here && vmcs;
}

int kvm_debug_exit(struct kvm_cpu *cpu, struct error *err)
{
    const struct kvm_debug_exit_arch debug = cpu->run->debug.arch;
    struct kvm *kvm = cpu->kvm;
    if (kvm_pull(cpu, err) < 0)
        return -1;
    if (debug.dr6 & 0xf && kvm_breakpoint_met(cpu)) {
        cpu->met = kvm->left; /* another vCPU's exit is told first */
        kvm_leave(kvm, cpu->vcpu->vmcs);
        return 0;
    }
    if (debug.dr6 &
        DR6_BD) { /* the guest wants its debug registers: from here on it may have breakpoints */
        if (kvm_soft_step(cpu, err) < 0)
            return -1;
        kvm->leave = true;
        return 0;
    }
    if (!(debug.dr6 & 0xf)) /* the guest's own: TF, INT1 */
        cpu->vcpu->pending_db |= debug.dr6 & (DR6_BS | DR6_BT);
    return kvm_soft_step(cpu, err);
}
