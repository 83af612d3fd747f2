/* SPDX-License-Identifier: MIT */
/* VM exits: events and instructions that the VMM's controls ask for (vmcs.h, S2 to S16). */
#include "runtime/soft/enter.h"

#include "runtime/interrupts.h"
#include "runtime/soft/loop.h"

static _Noreturn void leave(struct vcpu *cpu, enum vmcs_exit reason)
{
    cpu->vmcs->exit_reason = reason;
    longjmp(cpu->unwind, UNWIND_EXIT);
}

/* ---- events ---- */
static struct vmcs_event describe(const struct event *event)
{
    static const uint8_t types[] = {
        [EVENT_EXTERNAL] = VMCS_EVENT_EXTERNAL,
        [EVENT_NMI] = VMCS_EVENT_NMI,
        [EVENT_EXCEPTION] = VMCS_EVENT_EXCEPTION,
        [EVENT_SOFTWARE] = VMCS_EVENT_SOFTWARE,
        [EVENT_ICEBP] = VMCS_EVENT_ICEBP,
        [EVENT_SOFTWARE_EXCEPTION] = VMCS_EVENT_SOFTWARE_EXCEPTION,
    };
    return (struct vmcs_event){.valid = true,
                               .has_error = event->has_error,
                               .type = types[event->type],
                               .vector = (uint8_t)event->vector,
                               .error = event->has_error ? event->error : 0};
}

static struct vmcs_event exception(int vector, bool has_error, uint32_t error)
{
    return (struct vmcs_event){.valid = true,
                               .has_error = has_error,
                               .type = VMCS_EVENT_EXCEPTION,
                               .vector = (uint8_t)vector,
                               .error = has_error ? error : 0};
}

static bool wants(const struct vmcs *vmcs, int vector)
{
    return vmcs->exception_bitmap >> vector & 1;
}

/* The instruction under execution has not been executed: what it has ended is there again. */
static void restore_shadow(struct vcpu *cpu)
{
    cpu->shadow |= cpu->shadow_before;
    cpu->rflags |= cpu->resume_before;
    cpu->shadow_before = 0;
    cpu->resume_before = 0;
}

void entry_note_delivered(struct vcpu *cpu, const struct event *event)
{
    struct vmcs *vmcs = entered(cpu);
    if (vmcs)
        vmcs->delivered = describe(event);
}

void entry_note_own_delivery(struct vcpu *cpu, const struct event *event)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs)
        return;
    if (event)
        vmcs->own_delivery = describe(event);
    else if (vmcs->own_delivery.valid) /* else a fault of the task it led to has come since */
        vmcs->delivered = vmcs->own_delivery;
    vmcs->own_delivery.valid = event != NULL;
}

void exit_on_fault(struct vcpu *cpu, const struct event *under_delivery)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs)
        return;
    struct vmcs_event own = vmcs->own_delivery;
    vmcs->own_delivery.valid = false;
    if (!wants(vmcs, cpu->fault.vector))
        return;
    vmcs->event = exception(cpu->fault.vector, cpu->fault.has_error, cpu->fault.error);
    if (under_delivery)
        vmcs->vectoring = describe(under_delivery);
    else
        vmcs->vectoring = own;
    if (cpu->fault.vector == EXC_PF)
        vmcs->qualification = cpu->fault.cr2;
    if (cpu->fault.vector == EXC_DB)
        vmcs->qualification = cpu->fault.dr6;
    restore_shadow(cpu);
    leave(cpu, VMCS_EXIT_EXCEPTION);
}

void exit_on_double_fault(struct vcpu *cpu, const struct event *under_delivery)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs || !wants(vmcs, EXC_DF))
        return;
    vmcs->event = exception(EXC_DF, true, 0);
    vmcs->vectoring = describe(under_delivery);
    restore_shadow(cpu);
    leave(cpu, VMCS_EXIT_EXCEPTION);
}

void exit_on_triple_fault(struct vcpu *cpu)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs)
        return;
    vmcs->event = exception(cpu->fault.vector, cpu->fault.has_error, cpu->fault.error);
    cpu->activity = ACTIVITY_SHUTDOWN;
    cpu->shadow = 0; /* only an active processor has one */
    leave(cpu, VMCS_EXIT_TRIPLE_FAULT);
}

void exit_on_debug_trap(struct vcpu *cpu)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs || !wants(vmcs, EXC_DB))
        return;
    vmcs->event = exception(EXC_DB, false, 0);
    vmcs->qualification = cpu->pending_db;
    cpu->pending_db = 0;
    leave(cpu, VMCS_EXIT_EXCEPTION);
}

void exit_on_interrupt(struct vcpu *cpu)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs || !vmcs->interrupt_exiting)
        return;
    if (vmcs->acknowledge_interrupt) {
        int vector = lapic_acknowledge(cpu);
        lapic_update(cpu);
        if (vector < 0)
            return;
        vmcs->event = (struct vmcs_event){
            .valid = true, .type = VMCS_EVENT_EXTERNAL, .vector = (uint8_t)vector};
    }
    leave(cpu, VMCS_EXIT_INTERRUPT);
}

void exit_on_nmi(struct vcpu *cpu)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs || !vmcs->nmi_exiting)
        return;
    vmcs->event = (struct vmcs_event){.valid = true, .type = VMCS_EVENT_NMI, .vector = EXC_NMI};
    leave(cpu, VMCS_EXIT_NMI);
}

void exit_on_init(struct vcpu *cpu)
{
    const struct vmcs *vmcs = entered(cpu);
    if (vmcs && vmcs->init_exiting)
        leave(cpu, VMCS_EXIT_INIT);
}

void exit_on_sipi(struct vcpu *cpu)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs || !vmcs->sipi_exiting)
        return;
    vmcs->qualification = cpu->sipi_vector;
    leave(cpu, VMCS_EXIT_SIPI);
}

/* ---- system-management software ---- */
static void smm_store(const struct vcpu *cpu, struct smm_save *save)
{
    memcpy(save->r, cpu->r, sizeof save->r);
    save->rip = cpu->rip;
    save->rflags = vcpu_rflags(cpu);
    save->cr0 = cpu->cr0;
    save->cr3 = cpu->cr3;
    save->cr4 = cpu->cr4;
    save->efer = cpu->efer;
    save->dr6 = cpu->dr[6];
    save->dr7 = cpu->dr[7];
    save->activity = cpu->activity;
    save->interruptibility = cpu->shadow | (cpu->nmi_blocked ? VMCS_BLOCKED_NMI : 0);
    save->pending_debug = cpu->pending_db;
}

/* RSM. */
static void smm_load(struct vcpu *cpu, const struct smm_save *save)
{
    bool paging = cpu->cr0 != save->cr0 || cpu->cr3 != save->cr3 || cpu->cr4 != save->cr4 ||
                  cpu->efer != save->efer || cpu->dr[7] != save->dr7;
    memcpy(cpu->r, save->r, sizeof save->r);
    cpu->rip = save->rip;
    cpu->cr0 = save->cr0;
    cpu->cr3 = save->cr3;
    cpu->cr4 = save->cr4;
    cpu->efer = save->efer;
    cpu->dr[6] = save->dr6;
    cpu->dr[7] = save->dr7;
    vcpu_set_rflags(cpu, save->rflags);
    cpu->activity = save->activity;
    cpu->shadow = save->interruptibility & (SHADOW_STI | SHADOW_MOVSS);
    cpu->nmi_blocked = save->interruptibility & VMCS_BLOCKED_NMI;
    cpu->pending_db = save->pending_debug;
    cpu->link = NULL;
    if (paging)
        tlb_flush(cpu);
    vcpu_mode_changed(cpu);
}

void exit_on_smi(struct vcpu *cpu)
{
    struct vmcs *vmcs = entered(cpu);
    struct smm_save save;
    if (!vmcs)
        return;
    if (vmcs->smi_exiting)
        leave(cpu, VMCS_EXIT_SMI);
    if (!vmcs->smm)
        return;
    smm_store(cpu, &save);
    vmcs->pending_step_exit = vmcs->step_due; /* S13 */
    enum smm_result result = vmcs->smm(vmcs, &save, vmcs->smm_context);
    smm_load(cpu, &save);
    vmcs->step_due = vmcs->pending_step_exit; /* S15, S16: the loop finds it */
    if (result == SMM_EXIT)                   /* S14 */
        leave(cpu, vmcs->exit_reason);
}

void smm_deliver_exit(struct vmcs *vmcs)
{
    vmcs->exit_reason = VMCS_EXIT_STEP;
    vmcs->pending_step_exit = false;
    vmcs->steps++;
    vmcs->cpu->vm->stats.steps++;
}

/* ---- instructions ---- */
static void rewind_instruction(struct vcpu *cpu, const struct insn *i)
{
    const struct block *block = cpu->block;
    if (entered(cpu))
        cpu->vmcs->instruction_length = i->length;
    if (block) {
        cpu->budget += block->count - i->position;
        cpu->rip += i->offset;
    }
    cpu->block = NULL;
    cpu->link = NULL;
    cpu->current = NULL;
    cpu->code_changed = false;
    cpu->pending_db = 0; /* data breakpoints of this instruction */
    cpu->stop.kind = STOP_NONE;
    restore_shadow(cpu);
}

void leave_instruction(struct vcpu *cpu, const struct insn *i)
{
    rewind_instruction(cpu, i);
    longjmp(cpu->unwind, UNWIND_EXIT);
}

void exit_on_software(struct vcpu *cpu, const struct insn *i, enum event_type type, int vector)
{
    struct vmcs *vmcs = entered(cpu);
    if (!vmcs || type == EVENT_SOFTWARE || !wants(vmcs, vector))
        return;
    struct event event = {.type = type, .vector = vector};
    uint64_t pending = cpu->pending_db;
    vmcs->event = describe(&event);
    rewind_instruction(cpu, i);
    cpu->pending_db = pending; /* what waits behind MOV SS */
    leave(cpu, VMCS_EXIT_EXCEPTION);
}

void exit_by_instruction(struct vcpu *cpu, const struct insn *i, enum exit_kind kind)
{
    static const enum vmcs_exit reasons[EXIT_KINDS] = {
        [EXIT_KIND_CPUID] = VMCS_EXIT_CPUID,
        [EXIT_KIND_MSR] = VMCS_EXIT_RDMSR,
        [EXIT_KIND_OTHER_LISTED] = VMCS_EXIT_LISTED,
        [EXIT_KIND_HLT] = VMCS_EXIT_HLT,
        [EXIT_KIND_CR3] = VMCS_EXIT_CR,
        [EXIT_KIND_CR] = VMCS_EXIT_CR,
        [EXIT_KIND_DR] = VMCS_EXIT_DR,
    };
    enum vmcs_exit reason = reasons[kind];
    if (kind == EXIT_KIND_MSR && i->aux)
        reason = VMCS_EXIT_WRMSR;
    if (kind == EXIT_KIND_CR || kind == EXIT_KIND_CR3 || kind == EXIT_KIND_DR)
        cpu->vmcs->qualification = i->aux;
    rewind_instruction(cpu, i);
    leave(cpu, reason);
}

void exit_by_io(struct vcpu *cpu, const struct insn *i, uint16_t port, bool in, bool string)
{
    struct vmcs *vmcs = cpu->vmcs;
    vmcs->io.port = port;
    vmcs->io.width = i->aux;
    vmcs->io.in = in;
    vmcs->io.string = string;
    vmcs->io.repeated = string && i->flags & (INSN_REP | INSN_REPNE);
    rewind_instruction(cpu, i);
    leave(cpu, VMCS_EXIT_IO);
}
