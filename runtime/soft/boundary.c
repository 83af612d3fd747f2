/* SPDX-License-Identifier: MIT */
/* Between two instructions: events in their order, and what hangs on a single instruction. */
#include "runtime/interrupts.h"
#include "runtime/soft/enter.h"
#include "runtime/soft/loop.h"

void soft_unwound(struct vcpu *cpu)
{
    const struct block *block = cpu->block;
    const struct insn *i = cpu->current;
    if (block && i >= block->insns && i < block->insns + block->count) {
        cpu->budget += block->count - i->position;
        cpu->rip += i->offset;
        if (block->in_event) /* its jumps found no block */
            vcpu_mode_changed(cpu);
    }
    cpu->block = NULL;
    cpu->link = NULL;
    cpu->current = NULL;
    cpu->code_changed = false;
    charge_event(cpu);
    event_deliver_fault(cpu);
    cpu->shadow_before = 0;
    cpu->resume_before = 0;
}

bool cpu_wakes(const struct vcpu *cpu)
{
    const uint32_t always = HIGH_EVENTS | (cpu->nmi_blocked ? 0 : VCPU_EVENT_NMI);
    switch (cpu->activity) {
    case ACTIVITY_ACTIVE:
        return true;
    case ACTIVITY_HLT:
        return cpu->pending_db || cpu->events & always ||
               ((cpu->events & VCPU_EVENT_INTERRUPT) && (cpu->rflags & RFLAGS_IF)) ||
               entry_waits(cpu);
    case ACTIVITY_WAIT_FOR_SIPI:
        return cpu->events & (VCPU_EVENT_SIPI | VCPU_EVENT_INIT) || entry_waits(cpu);
    case ACTIVITY_SHUTDOWN:
        return cpu->events & always || entry_waits(cpu);
    }
    return false;
}

/* ---- events ---- */
static void take_init(struct vcpu *cpu)
{
    cpu->events &= ~VCPU_EVENT_INIT;
    exit_on_init(cpu);
    vcpu_reset(cpu, true);
    lapic_init(cpu);
}

/* SDM 3A 8.4.3: the processor starts in real mode at vector * 4096. */
static bool take_sipi(struct vcpu *cpu)
{
    cpu->events &= ~VCPU_EVENT_SIPI;
    if (cpu->activity != ACTIVITY_WAIT_FOR_SIPI)
        return false;
    exit_on_sipi(cpu);
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->segment[SEG_CS].selector = (uint16_t)(cpu->sipi_vector << 8);
    cpu->segment[SEG_CS].base = (uint64_t)cpu->sipi_vector << 12;
    cpu->rip = 0;
    vcpu_mode_changed(cpu);
    return true;
}

/* Without CR4.MCE the processor shuts down (SDM 3B 15.3.1). */
static void take_machine_check(struct vcpu *cpu)
{
    cpu->events &= ~VCPU_EVENT_MACHINE_CHECK;
    cpu->fault.vector = EXC_MC;
    cpu->fault.has_error = false;
    exit_on_fault(cpu, NULL);
    if (cpu->cr4 & CR4_MCE)
        event_deliver(cpu, EVENT_EXCEPTION, EXC_MC, false, 0);
    else
        cpu_triple_fault(cpu);
}

/* In the order of APM 2 8.5 (and SDM 3A 6.9). An SMI is no event of the guest's: nothing shows in its state. */
bool take_high_event(struct vcpu *cpu)
{
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI && !(cpu->events & VCPU_EVENT_INIT))
        return false;
    if (cpu->events & VCPU_EVENT_MACHINE_CHECK) {
        take_machine_check(cpu);
        return true;
    }
    if (cpu->events & VCPU_EVENT_INIT) {
        take_init(cpu);
        return true;
    }
    if (cpu->events & VCPU_EVENT_SMI) {
        cpu->events &= ~VCPU_EVENT_SMI;
        exit_on_smi(cpu);
    }
    return false;
}

static bool take_interrupt(struct vcpu *cpu)
{
    exit_on_interrupt(cpu);
    int vector = lapic_acknowledge(cpu);
    lapic_update(cpu);
    if (vector < 0)
        return false;
    cpu->activity = ACTIVITY_ACTIVE;
    stats_exit(&cpu->vm->stats, EXIT_KIND_INTERRUPT, cpu->rip);
    event_deliver(cpu, EVENT_EXTERNAL, vector, false, 0);
    return true;
}

bool take_event(struct vcpu *cpu)
{
    uint8_t shadow = cpu->shadow;
    if (cpu->events & HIGH_EVENTS && take_high_event(cpu))
        return true;
    if (cpu->events & VCPU_EVENT_SIPI && take_sipi(cpu))
        return true;
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return false;
    if (cpu->pending_db && !(shadow & SHADOW_MOVSS)) {
        exit_on_debug_trap(cpu);
        event_deliver(cpu, EVENT_EXCEPTION, EXC_DB, false, 0);
        return true;
    }
    if ((cpu->events & VCPU_EVENT_NMI) && !cpu->nmi_blocked && !shadow) {
        cpu->events &= ~VCPU_EVENT_NMI;
        exit_on_nmi(cpu);
        cpu->activity = ACTIVITY_ACTIVE;
        event_deliver(cpu, EVENT_NMI, EXC_NMI, false, 0);
        return true;
    }
    if ((cpu->events & VCPU_EVENT_INTERRUPT) && (cpu->rflags & RFLAGS_IF) && !shadow &&
        cpu->activity != ACTIVITY_SHUTDOWN)
        return take_interrupt(cpu);
    return false;
}

/* ---- one instruction ---- */
/* Instruction breakpoints at RIP (SDM 3B 17.2): the DR6 bits of those that match. */
static uint64_t instruction_breakpoints(const struct vcpu *cpu)
{
    uint64_t hits = 0;
    uint64_t linear = vcpu_linear_rip(cpu);
    for (unsigned n = 0; n < 4; n++)
        if ((cpu->dr[7] >> (2 * n) & 3) && (cpu->dr[7] >> (16 + 4 * n) & 3) == 0 &&
            cpu->dr[n] == linear)
            hits |= 1ull << n;
    return hits;
}

/* Does TF trap behind `i`, which began at `rip`? With DEBUGCTL.BTF only if it was a branch, and taken (SDM 3B 17.4.3):
 * it leads elsewhere than to the next instruction, and is no string instruction that goes on. */
static bool single_step_traps(const struct vcpu *cpu, const struct insn *i, uint64_t rip)
{
    if (!(cpu->debugctl & DEBUGCTL_BTF))
        return true;
    return cpu->rip != rip + i->length && !(cpu->rip == rip && i->flags & (INSN_REP | INSN_REPNE));
}

void step_instruction(struct vcpu *cpu)
{
    if (BREAKPOINTS_ENABLED(cpu) && !(cpu->rflags & RFLAGS_RF)) {
        uint64_t hits = instruction_breakpoints(cpu);
        if (hits) {
            cpu->fault.dr6 = hits;
            cpu->fault.vector = EXC_DB;
            cpu->fault.has_error = false;
            event_deliver_fault(cpu);
            return;
        }
    }
    bool trap = cpu->rflags & RFLAGS_TF;
    struct block *block = cache_block(cpu, true);
    cpu->shadow_before = cpu->shadow;
    cpu->resume_before = cpu->rflags & RFLAGS_RF;
    cpu->shadow = 0;
    cpu->rflags &= ~RFLAGS_RF;
    cpu->withheld += cpu->budget - 1;
    cpu->budget = 1;
    cpu->untrapped = false;
    uint64_t rip = cpu->rip;
    run_block(cpu, block);
    cpu->shadow_before = 0;
    cpu->resume_before = 0;
    if (trap && !cpu->untrapped && !(cpu->shadow & SHADOW_MOVSS) &&
        single_step_traps(cpu, block->insns, rip))
        cpu->pending_db |= DR6_BS;
}
