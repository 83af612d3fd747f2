/* SPDX-License-Identifier: MIT */
/* IRET in all its forms, and the instructions that are events: INT n, INT3, INTO, INT1 (SDM 2A). */
#include "runtime/soft/ops_segment.h"

/* ---- IRET ---- */
/* aux: operand size in bytes. */
struct iret {
    struct code_target target;
    uint64_t flags;
    uint64_t sp; /* behind what was popped */
    unsigned width;
};

/* RFLAGS after IRET at privilege level `cpl` (the old one). */
static uint64_t returned_flags(const struct vcpu *cpu, uint64_t popped, unsigned width,
                               unsigned cpl)
{
    uint64_t mask = RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    if (cpl == 0)
        mask |= RFLAGS_IOPL;
    if (cpl <= (cpu->rflags >> 12 & 3))
        mask |= RFLAGS_IF;
    if (width > 2)
        mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (width > 2 && cpl == 0)
        mask |= RFLAGS_VIF | RFLAGS_VIP;
    return (vcpu_rflags(cpu) & ~mask) | (popped & mask);
}

/* Real and virtual-8086 mode. */
static const struct insn *iret_real(struct vcpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP];
    bool v86 = vcpu_v86(cpu);
    if (v86 && (cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
        RAISE_GP();
    uint64_t rip = stack_pop(cpu, i, &sp, i->aux);
    uint16_t selector = (uint16_t)stack_pop(cpu, i, &sp, i->aux);
    uint64_t flags = stack_pop(cpu, i, &sp, i->aux);
    if (rip > cpu->segment[SEG_CS].limit)
        RAISE_GP();
    stack_set(cpu, sp);
    segment_set_real(cpu, SEG_CS, selector);
    vcpu_set_rflags(cpu, returned_flags(cpu, flags, i->aux, v86 ? 3 : 0));
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, rip);
}

/* From protected to virtual-8086 mode (SDM 3B 20.2.5). */
static const struct insn *iret_to_v86(struct vcpu *cpu, const struct insn *i, struct iret *iret)
{
    static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint16_t selectors[sizeof order];
    uint64_t esp = stack_pop(cpu, i, &iret->sp, 4);
    for (unsigned n = 0; n < sizeof order; n++)
        selectors[n] = (uint16_t)stack_pop(cpu, i, &iret->sp, 4);
    if (iret->target.rip > 0xffff)
        RAISE_GP();
    vcpu_set_rflags(cpu, iret->flags);
    segment_set_real(cpu, SEG_CS, iret->target.selector);
    for (unsigned n = 0; n < sizeof order; n++)
        segment_set_real(cpu, order[n], selectors[n]);
    cpu->r[RSP] = (uint32_t)esp;
    cpu->cpl = 3;
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, iret->target.rip);
}

static const struct insn *iret_task(struct vcpu *cpu, const struct insn *i)
{
    uint16_t link = (uint16_t)table_load(cpu, i, cpu->segment[SEG_TR].base, 2);
    task_switch(cpu, i, link, TASK_RETURN, insn_next_rip(cpu, i), NULL);
    return insn_leave(cpu, i, cpu->rip);
}

/* To the same or an outer level; in 64-bit mode SS:RSP is always popped. */
static const struct insn *iret_protected(struct vcpu *cpu, const struct insn *i, struct iret *iret)
{
    struct code_target *target = &iret->target;
    struct return_stack stack;
    unsigned old = cpu->cpl;
    uint64_t rip = target->rip;
    return_code(cpu, i, target->selector, rip, target);
    unsigned cpl = RPL(target->selector);
    bool pops_stack = vcpu_code64(cpu) || cpl > old;
    if (pops_stack) {
        stack.sp = stack_pop(cpu, i, &iret->sp, iret->width);
        stack.selector = (uint16_t)stack_pop(cpu, i, &iret->sp, iret->width);
        return_stack_check(cpu, i, target, &stack);
        if (stack.descriptor)
            stack.descriptor = descriptor_accessed(cpu, i, stack.linear, stack.descriptor);
    }
    code_check_rip(cpu, i, target);
    target->descriptor = descriptor_accessed(cpu, i, target->linear, target->descriptor);

    uint64_t flags = returned_flags(cpu, iret->flags, iret->width, old);
    if (!pops_stack)
        stack_set(cpu, iret->sp);
    code_enter(cpu, target, cpl);
    if (pops_stack)
        return_stack_set(cpu, i, &stack);
    if (cpl > old)
        segments_drop_privileged(cpu);
    vcpu_set_rflags(cpu, flags);
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, rip);
}

OP(iret)
{
    struct iret iret = {.sp = cpu->r[RSP], .width = i->aux};
    /* Even an IRET that faults lets NMIs in again (SDM 3A 6.7.1). */
    cpu->nmi_blocked = false;
    if (!protected_proper(cpu))
        return iret_real(cpu, i);
    if (cpu->rflags & RFLAGS_NT) {
        if (vcpu_long_mode(cpu))
            RAISE_GP();
        return iret_task(cpu, i);
    }
    iret.target.rip = stack_pop(cpu, i, &iret.sp, i->aux);
    iret.target.selector = (uint16_t)stack_pop(cpu, i, &iret.sp, i->aux);
    iret.flags = stack_pop(cpu, i, &iret.sp, i->aux);
    if (iret.flags & RFLAGS_VM && i->aux == 4 && cpu->cpl == 0 && !vcpu_long_mode(cpu))
        return iret_to_v86(cpu, i, &iret);
    return iret_protected(cpu, i, &iret);
}

insn_fn *select_iret(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return iret;
}

/* ---- INT n and its kind ---- */
static const struct insn *interrupt(struct vcpu *cpu, const struct insn *i, enum event_type type,
                                    int vector)
{
    event_software(cpu, i, type, vector);
    return insn_leave(cpu, i, cpu->rip);
}

OP(int_n)
{
    if (vcpu_v86(cpu) && (cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
        RAISE_GP();
    return interrupt(cpu, i, EVENT_SOFTWARE, (int)i->imm);
}

OP(int1)
{
    return interrupt(cpu, i, EVENT_ICEBP, EXC_DB);
}

OP(int3)
{
    return interrupt(cpu, i, EVENT_SOFTWARE_EXCEPTION, EXC_BP);
}

OP(into)
{
    if (!(cpu->status & STATUS_OF))
        NEXT;
    return interrupt(cpu, i, EVENT_SOFTWARE_EXCEPTION, EXC_OF);
}

insn_fn *select_int(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->imm = (uint8_t)d->operands[0].imm.value.u;
    return int_n;
}

static insn_fn *last(struct decoded *d, insn_fn *run)
{
    d->ends_block = true;
    return run;
}

insn_fn *select_int1(struct decoded *d, struct insn *out)
{
    (void)out;
    return last(d, int1);
}

insn_fn *select_int3(struct decoded *d, struct insn *out)
{
    (void)out;
    return last(d, int3);
}

insn_fn *select_into(struct decoded *d, struct insn *out)
{
    (void)out;
    return last(d, into);
}
