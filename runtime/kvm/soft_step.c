/* Instructions that the soft processor executes in KVM's place: those that this KVM cannot, and doorbells. The state is
 * pulled before, and pushed with the next KVM_RUN. */
#include <errno.h>
#include <sys/ioctl.h>

#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

int kvm_complete(struct kvm_cpu *cpu, struct error *err)
{
    if (!cpu->unfinished)
        return 0;
    cpu->unfinished = false;
    cpu->run->immediate_exit = 1;
    cpu->kvm->ioctls++;
    cpu->kvm->runs++;
    int result = ioctl(cpu->fd, KVM_RUN, NULL);
    cpu->run->immediate_exit = 0;
    if (result < 0 && errno == EINTR)
        return 0;
    return fail(err, HVRUN_HOST, "KVM: vCPU %u: an instruction is not completed", cpu->vcpu->index);
}

/* Guest memory changed behind the soft processor's back since it was here last. */
static void forget(struct kvm_cpu *cpu)
{
    cache_flush(cpu->kvm->vm->soft->cache);
    tlb_flush(cpu->vcpu);
}

int kvm_soft_step(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    struct vm *vm = cpu->kvm->vm;
    if (kvm_pull(cpu, err) < 0)
        return -1;
    forget(cpu);
    cpu->kvm->soft_steps++;
    struct vcpu *running = vm->running;
    if (vcpu->fault.vector >= 0) /* KVM had begun to deliver it */
        soft_deliver_fault(vcpu);
    else
        soft_step(vcpu);
    /* a debug trap is delivered at once: the kernel has no place for one that waits */
    for (unsigned n = 0; vcpu->pending_db && n < 4 && !vm->shutdown; n++)
        soft_step(vcpu);
    vm->running = running;
    return 0;
}
