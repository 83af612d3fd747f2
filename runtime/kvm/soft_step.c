/* SPDX-License-Identifier: MIT */
/* Instructions that the soft processor executes in KVM's place: those that this KVM cannot, and doorbells. The state is
 * pulled before, and pushed with the next KVM_RUN. */
#include <errno.h>
#include <sys/ioctl.h>

#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/enter.h"
#include "runtime/soft/tlb.h"

int kvm_complete(struct kvm_cpu *cpu, struct error *err)
{
    while (cpu->unfinished) {
        cpu->unfinished = false;
        cpu->run->immediate_exit = 1;
        cpu->kvm->ioctls++;
        cpu->kvm->runs++;
        int result = ioctl(cpu->fd, KVM_RUN, NULL);
        cpu->run->immediate_exit = 0;
        if (result < 0 && errno != EINTR)
            return fail(err, HVRUN_HOST, "KVM: vCPU %u: an instruction is not completed",
                        cpu->vcpu->index);
        /* the instruction's next access: another part of a wide one, or of a string */
        if (result == 0 && kvm_handle_exit(cpu, err) < 0)
            return -1;
    }
    return 0;
}

void kvm_soft_fresh(struct kvm *kvm)
{
    if (!kvm->memory_changed)
        return;
    kvm->memory_changed = false;
    cache_flush(kvm->vm->soft->cache);
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++) {
        tlb_flush(kvm->vm->vcpus[k]);
        kvm->memory_changed |= kvm->cpus[k].inside; /* that one goes on */
    }
}

/* Software interrupts and exceptions (INT n, INT3, INTO) are not delivered: RIP is still at the instruction, which
 * does it again. */
void kvm_settle(struct kvm_cpu *cpu)
{
    const struct kvm_vcpu_events e = cpu->queued;
    cpu->queued = (struct kvm_vcpu_events){.flags = 0};
    bool software = e.exception.nr == EXC_BP || e.exception.nr == EXC_OF;
    struct vcpu *running = cpu->kvm->vm->running;
    if ((e.exception.injected && !software) || e.nmi.injected ||
        (e.interrupt.injected && !e.interrupt.soft)) {
        kvm_soft_fresh(cpu->kvm);
        cpu->translations_stale = true;
    }
    if (e.exception.injected && !software)
        soft_deliver(cpu->vcpu, EVENT_EXCEPTION, e.exception.nr, e.exception.has_error_code,
                     e.exception.error_code);
    else if (e.nmi.injected)
        soft_deliver(cpu->vcpu, EVENT_NMI, EXC_NMI, false, 0);
    else if (e.interrupt.injected && !e.interrupt.soft)
        soft_deliver(cpu->vcpu, EVENT_EXTERNAL, e.interrupt.nr, false, 0);
    cpu->kvm->vm->running = running;
}

int kvm_soft_step(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    struct vm *vm = cpu->kvm->vm;
    struct vmcs *vmcs = entered(vcpu);
    if (kvm_pull(cpu, err) < 0)
        return -1;
    kvm_soft_fresh(cpu->kvm);
    cpu->kvm->soft_steps++;
    cpu->translations_stale = true;
    struct vcpu *running = vm->running;
    if (vmcs)
        vmcs->exit_reason = VMCS_EXITS; /* none */
    if (kvm_event_queued(cpu))
        kvm_settle(cpu);
    else
        soft_step(vcpu);
    /* a debug trap is delivered at once: the kernel has no place for one that waits */
    for (unsigned n = 0; vcpu->pending_db && n < 4 && !vm->shutdown; n++)
        soft_step(vcpu);
    vm->running = running;
    if (vmcs && vmcs->exit_reason != VMCS_EXITS)
        kvm_leave(cpu->kvm, vmcs);
    return 0;
}
