/* SPDX-License-Identifier: MIT */
/* Interrupt chips of this process: their interrupts go into a vCPU when it can take them, a halted one waits here. */
#include "runtime/interrupts.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"

/* ---- what a halted vCPU waits for ---- */
static bool wakes(const struct vcpu *cpu)
{
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return cpu->events & (VCPU_EVENT_SIPI | VCPU_EVENT_INIT);
    if (cpu->activity == ACTIVITY_HLT)
        return cpu->events & (VCPU_EVENT_NMI | VCPU_EVENT_INIT | VCPU_EVENT_INTERRUPT);
    return cpu->activity == ACTIVITY_ACTIVE;
}

/* A vCPU that is halted stays so until an event that it lets in. */
static bool sleeps(const struct kvm_cpu *cpu)
{
    const struct vcpu *vcpu = cpu->vcpu;
    if (!wakes(vcpu))
        return true;
    return vcpu->activity == ACTIVITY_HLT && !cpu->run->if_flag && !cpu->pulled &&
           !(vcpu->events & (VCPU_EVENT_NMI | VCPU_EVENT_INIT));
}

/* No timer runs, no vCPU does, and nobody can interrupt one: unless bytes come from the console. */
static bool halted_for_ever(struct kvm *kvm)
{
    if (kvm->halted < kvm_threads(kvm))
        return false;
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++) {
        const struct kvm_cpu *cpu = &kvm->cpus[k];
        if (!(kvm->taking_part >> k & 1))
            continue;
        if (cpu->vcpu->activity == ACTIVITY_HLT && cpu->run->if_flag)
            return false;
        if (wakes(cpu->vcpu) && !sleeps(cpu))
            return false;
    }
    return true;
}

/* ---- into the vCPU ---- */
/* INIT and SIPI change the vCPU as a whole. */
static int take_start_event(struct kvm_cpu *cpu, struct error *err)
{
    if (kvm_complete(cpu, err) < 0 || kvm_pull(cpu, err) < 0)
        return -1;
    kvm_soft_fresh(cpu->kvm);
    kvm_settle(cpu);
    soft_take_event(cpu->vcpu);
    cpu->translations_stale = true;
    cpu->kvm->vm->running = cpu->vcpu;
    return 0;
}

static int inject_nmi(struct kvm_cpu *cpu, struct error *err)
{
    cpu->vcpu->events &= ~VCPU_EVENT_NMI;
    cpu->vcpu->activity = ACTIVITY_ACTIVE;
    return kvm_cpu_ioctl(cpu, KVM_NMI, NULL, "KVM_NMI", err);
}

/* What the last exit said of them; state that was pulled may have changed since. */
static bool open_to_interrupts(const struct kvm_cpu *cpu)
{
    const struct vcpu *vcpu = cpu->vcpu;
    if (cpu->pulled)
        return vcpu->rflags & RFLAGS_IF && !vcpu->shadow && !kvm_event_queued(cpu);
    return cpu->run->ready_for_interrupt_injection && cpu->run->if_flag;
}

static int inject_interrupt(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    cpu->run->request_interrupt_window = 0;
    if (!(vcpu->events & VCPU_EVENT_INTERRUPT))
        return 0;
    /* cheaper than to let KVM say when the next instruction begins */
    if (cpu->unfinished && open_to_interrupts(cpu) && kvm_complete(cpu, err) < 0)
        return -1;
    if (cpu->unfinished || !(vcpu->events & VCPU_EVENT_INTERRUPT) || !open_to_interrupts(cpu)) {
        cpu->run->request_interrupt_window = 1;
        if (vcpu->activity == ACTIVITY_HLT &&
            cpu->run->if_flag) /* awake: behind the HLT it is let in */
            vcpu->activity = ACTIVITY_ACTIVE;
        return 0;
    }
    if (kvm_push(cpu, err) < 0)
        return -1;
    int vector = lapic_acknowledge(vcpu);
    lapic_update(vcpu);
    if (vector < 0)
        return 0;
    vcpu->activity = ACTIVITY_ACTIVE;
    stats_exit(&cpu->kvm->vm->stats, EXIT_KIND_INTERRUPT, 0);
    cpu->run->request_interrupt_window = !!(vcpu->events & VCPU_EVENT_INTERRUPT);
    struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
    return kvm_cpu_ioctl(cpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT", err);
}

/* Events between two instructions, and state on its way back. */
static int offer(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    while (vcpu->events & (VCPU_EVENT_INIT | VCPU_EVENT_SIPI) && !kvm_ends(cpu->kvm))
        if (take_start_event(cpu, err) < 0)
            return -1;
    if (!wakes(vcpu))
        return 0;
    if (vcpu->events & VCPU_EVENT_NMI && inject_nmi(cpu, err) < 0)
        return -1;
    if (inject_interrupt(cpu, err) < 0)
        return -1;
    /* a halted vCPU whose interrupts are off goes on waiting, in the kernel's eyes, too */
    if (vcpu->activity == ACTIVITY_HLT && vcpu->events & VCPU_EVENT_INTERRUPT)
        return 0;
    return kvm_push(cpu, err);
}

/* ---- the task priority, which is the local APIC's and CR8 ---- */
static void entering(struct kvm_cpu *cpu)
{
    cpu->run->cr8 = lapic_get_tpr(cpu->vcpu);
}

static int left(struct kvm_cpu *cpu, struct error *err)
{
    (void)err;
    if (cpu->run->cr8 != lapic_get_tpr(cpu->vcpu))
        lapic_set_tpr(cpu->vcpu, (uint8_t)cpu->run->cr8);
    return 0;
}

const struct kvm_chips kvm_user_chips = {.offer = offer,
                                         .sleeps = sleeps,
                                         .entering = entering,
                                         .left = left,
                                         .halted_for_ever = halted_for_ever};
