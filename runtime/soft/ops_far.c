/* SPDX-License-Identifier: MIT */
/* Far branches: JMP, CALL and RET to another code segment, through call gates, or to another task (SDM 3A 5.8, 7.3). */
#include "runtime/soft/ops_segment.h"

/* aux: operand size in bytes. */

/* ---- checks ---- */
static void raise_gp(struct vcpu *cpu, const struct insn *i, uint16_t selector)
{
    cpu_raise_error(cpu, i, EXC_GP, SELECTOR_ERROR(selector));
}

/* A code segment must not claim to be both 64 and 32 bits. */
static void check_long(struct vcpu *cpu, const struct insn *i, uint16_t selector, uint32_t rights)
{
    if (vcpu_long_mode(cpu) && rights & RIGHTS_L && rights & RIGHTS_DB)
        raise_gp(cpu, i, selector);
}

/* Direct transfer to a code segment: no change of CPL. */
static void check_direct(struct vcpu *cpu, const struct insn *i, const struct code_target *target)
{
    uint32_t rights = descriptor_rights(target->descriptor), dpl = RIGHTS_DPL(rights);
    bool good = rights_code(rights) &&
                (rights_conforming(rights) ? dpl <= cpu->cpl
                                           : dpl == cpu->cpl && RPL(target->selector) <= dpl);
    if (!good)
        raise_gp(cpu, i, target->selector);
    check_long(cpu, i, target->selector, rights);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, SELECTOR_ERROR(target->selector));
    code_check_rip(cpu, i, target);
}

/* A gate or TSS may be used at CPL and the selector's RPL. */
static void check_gate(struct vcpu *cpu, const struct insn *i, uint16_t selector, uint32_t rights)
{
    if (RIGHTS_DPL(rights) < cpu->cpl || RIGHTS_DPL(rights) < RPL(selector))
        raise_gp(cpu, i, selector);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, SELECTOR_ERROR(selector));
}

/* ---- going there ---- */
static const struct insn *enter(struct vcpu *cpu, const struct insn *i, struct code_target *target,
                                unsigned cpl)
{
    code_enter(cpu, target, cpl);
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, target->rip);
}

static void push_return(struct vcpu *cpu, const struct insn *i, struct frame *frame)
{
    frame_push(cpu, i, frame, cpu->segment[SEG_CS].selector);
    frame_push(cpu, i, frame, insn_next_rip(cpu, i));
}

/* At the same privilege level; `width`: of the pushes, 0 for a jump. */
static const struct insn *transfer_same(struct vcpu *cpu, const struct insn *i,
                                        struct code_target *target, unsigned width)
{
    struct frame frame;
    if (width) {
        frame_begin(cpu, &frame, width);
        push_return(cpu, i, &frame);
    }
    target->descriptor = descriptor_accessed(cpu, i, target->linear, target->descriptor);
    if (width) {
        frame_commit(cpu, i, &frame);
        cpu->r[RSP] = frame.sp;
    }
    return enter(cpu, i, target, cpu->cpl);
}

static const struct insn *task(struct vcpu *cpu, const struct insn *i, uint16_t selector, bool call)
{
    task_switch(cpu, i, selector, call ? TASK_CALL : TASK_JUMP, insn_next_rip(cpu, i), NULL);
    return insn_leave(cpu, i, cpu->rip);
}

/* ---- call gates ---- */
/* CALL through a gate to an inner level: the old stack's parameters and return address on a new stack. */
static const struct insn *call_inner(struct vcpu *cpu, const struct insn *i,
                                     struct code_target *target, unsigned dpl, unsigned width,
                                     unsigned parameters)
{
    struct frame frame;
    struct segment ss;
    uint64_t linear, values[31], sp = cpu->r[RSP];
    uint64_t esp = task_stack(cpu, i, dpl, &ss, &linear);
    frame_begin_at(cpu, &frame, &ss, esp, dpl, width);
    frame.error = SELECTOR_ERROR(ss.selector);
    for (unsigned n = 0; n < parameters; n++)
        values[n] = stack_pop(cpu, i, &sp, width);
    frame_push(cpu, i, &frame, cpu->segment[SEG_SS].selector);
    frame_push(cpu, i, &frame, cpu->r[RSP]);
    for (unsigned n = parameters; n-- > 0;)
        frame_push(cpu, i, &frame, values[n]);
    push_return(cpu, i, &frame);
    descriptor_accessed(cpu, i, linear, table_load(cpu, i, linear, 8));
    target->descriptor = descriptor_accessed(cpu, i, target->linear, target->descriptor);
    frame_commit(cpu, i, &frame);
    cpu->segment[SEG_SS] = ss;
    cpu->r[RSP] = frame.sp;
    return enter(cpu, i, target, dpl);
}

static const struct insn *call_inner64(struct vcpu *cpu, const struct insn *i,
                                       struct code_target *target, unsigned dpl)
{
    struct frame frame;
    frame_begin_at(cpu, &frame, NULL, task_stack64(cpu, i, dpl), dpl, 8);
    frame_push(cpu, i, &frame, cpu->segment[SEG_SS].selector);
    frame_push(cpu, i, &frame, cpu->r[RSP]);
    push_return(cpu, i, &frame);
    target->descriptor = descriptor_accessed(cpu, i, target->linear, target->descriptor);
    frame_commit(cpu, i, &frame);
    cpu->r[RSP] = frame.sp;
    cpu->cpl = (uint8_t)dpl;
    segment_set_null(cpu, SEG_SS, (uint16_t)dpl);
    return enter(cpu, i, target, dpl);
}

static const struct insn *through_gate(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                                       uint64_t gate, uint64_t gate_linear, bool call)
{
    bool wide = vcpu_long_mode(cpu);
    uint32_t rights = descriptor_rights(gate);
    bool gate16 = (rights & RIGHTS_STYPE) == TYPE_CALL16;
    struct code_target target = {.selector = (uint16_t)(gate >> 16),
                                 .rip = (gate & 0xffff) | (gate >> 32 & 0xffff0000)};
    check_gate(cpu, i, selector, rights);
    if (wide)
        target.rip |= descriptor_read_high(cpu, i, selector, gate_linear) << 32;
    else if (gate16)
        target.rip &= 0xffff;
    if (SELECTOR_NULL(target.selector))
        raise_gp(cpu, i, 0);
    target.descriptor = descriptor_read(cpu, i, target.selector, EXC_GP, &target.linear);
    rights = descriptor_rights(target.descriptor);
    unsigned dpl = RIGHTS_DPL(rights);
    bool conforming = rights_conforming(rights);
    if (!rights_code(rights) || dpl > cpu->cpl || (!call && !conforming && dpl != cpu->cpl))
        raise_gp(cpu, i, target.selector);
    if (wide && (rights & (RIGHTS_L | RIGHTS_DB)) != RIGHTS_L)
        raise_gp(cpu, i, target.selector);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, SELECTOR_ERROR(target.selector));
    code_check_rip(cpu, i, &target);
    unsigned width = wide ? 8 : gate16 ? 2 : 4;
    if (!call || conforming || dpl == cpu->cpl)
        return transfer_same(cpu, i, &target, call ? width : 0);
    if (wide)
        return call_inner64(cpu, i, &target, dpl);
    return call_inner(cpu, i, &target, dpl, width, gate >> 32 & 31);
}

/* ---- JMP and CALL ---- */
static const struct insn *transfer_real(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                                        uint64_t rip, bool call)
{
    struct frame frame;
    if (rip > cpu->segment[SEG_CS].limit)
        RAISE_GP();
    if (call) {
        frame_begin(cpu, &frame, i->aux);
        push_return(cpu, i, &frame);
        frame_commit(cpu, i, &frame);
        cpu->r[RSP] = frame.sp;
    }
    segment_set_real(cpu, SEG_CS, selector);
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, rip);
}

static const struct insn *transfer(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                                   uint64_t rip, bool call)
{
    struct code_target target = {.selector = selector, .rip = rip};
    if (!protected_proper(cpu))
        return transfer_real(cpu, i, selector, rip, call);
    if (SELECTOR_NULL(selector))
        RAISE_GP();
    target.descriptor = descriptor_read(cpu, i, selector, EXC_GP, &target.linear);
    uint32_t rights = descriptor_rights(target.descriptor);
    if (rights & RIGHTS_S) {
        check_direct(cpu, i, &target);
        return transfer_same(cpu, i, &target, call ? i->aux : 0);
    }
    unsigned type = rights & RIGHTS_STYPE;
    if (type == TYPE_CALL || (type == TYPE_CALL16 && !vcpu_long_mode(cpu)))
        return through_gate(cpu, i, selector, target.descriptor, target.linear, call);
    if (vcpu_long_mode(cpu) || (type != TYPE_TASK_GATE && type != TYPE_TSS && type != TYPE_TSS16))
        raise_gp(cpu, i, selector);
    check_gate(cpu, i, selector, rights);
    if (type == TYPE_TASK_GATE)
        selector = (uint16_t)(target.descriptor >> 16);
    return task(cpu, i, selector, call);
}

/* imm: the selector above 32 bits of offset. */
OP(jmp_far_pointer)
{
    return transfer(cpu, i, (uint16_t)(i->imm >> 32), (uint32_t)i->imm, false);
}

OP(call_far_pointer)
{
    return transfer(cpu, i, (uint16_t)(i->imm >> 32), (uint32_t)i->imm, true);
}

static const struct insn *transfer_memory(struct vcpu *cpu, const struct insn *i, bool call)
{
    uint8_t bytes[10];
    uint64_t rip = 0;
    uint16_t selector;
    load_bytes(cpu, i, linear(cpu, i, i->aux + 2u, false), bytes, i->aux + 2u);
    memcpy(&rip, bytes, i->aux);
    memcpy(&selector, bytes + i->aux, 2);
    return transfer(cpu, i, selector, rip, call);
}

OP(jmp_far_memory)
{
    return transfer_memory(cpu, i, false);
}

OP(call_far_memory)
{
    return transfer_memory(cpu, i, true);
}

static insn_fn *select_far(struct decoded *d, struct insn *out, insn_fn *pointer, insn_fn *memory)
{
    const ZydisDecodedOperand *operand = &d->operands[0];
    d->ends_block = true;
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return memory;
    if (operand->type != ZYDIS_OPERAND_TYPE_POINTER)
        return NULL;
    out->imm = (uint64_t)operand->ptr.segment << 32 | operand->ptr.offset;
    if (out->aux == 2)
        out->imm &= 0xffff0000ffff;
    return pointer;
}

insn_fn *select_jmp_far(struct decoded *d, struct insn *out)
{
    return select_far(d, out, jmp_far_pointer, jmp_far_memory);
}

insn_fn *select_call_far(struct decoded *d, struct insn *out)
{
    return select_far(d, out, call_far_pointer, call_far_memory);
}

/* ---- RET ---- */
void return_code(struct vcpu *cpu, const struct insn *i, uint16_t selector, uint64_t rip,
                 struct code_target *target)
{
    target->selector = selector;
    target->rip = rip;
    if (SELECTOR_NULL(selector))
        raise_gp(cpu, i, 0);
    target->descriptor = descriptor_read(cpu, i, selector, EXC_GP, &target->linear);
    uint32_t rights = descriptor_rights(target->descriptor), dpl = RIGHTS_DPL(rights);
    if (!rights_code(rights) || RPL(selector) < cpu->cpl ||
        (rights_conforming(rights) ? dpl > RPL(selector) : dpl != RPL(selector)))
        raise_gp(cpu, i, selector);
    check_long(cpu, i, selector, rights);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, SELECTOR_ERROR(selector));
}

void return_stack_check(struct vcpu *cpu, const struct insn *i, const struct code_target *target,
                        struct return_stack *stack)
{
    unsigned cpl = RPL(target->selector);
    bool to64 = vcpu_long_mode(cpu) && descriptor_rights(target->descriptor) & RIGHTS_L;
    stack->descriptor = 0;
    if (SELECTOR_NULL(stack->selector) && to64 && cpl != 3)
        return;
    stack->descriptor = stack_descriptor(cpu, i, stack->selector, cpl, EXC_GP, &stack->linear);
}

/* After CS and CPL: RSP is as wide as the new stack. */
void return_stack_set(struct vcpu *cpu, const struct insn *i, const struct return_stack *stack)
{
    (void)i;
    if (stack->descriptor)
        segment_set(cpu, SEG_SS, stack->selector, stack->descriptor);
    else
        segment_set_null(cpu, SEG_SS, stack->selector);
    stack_set(cpu, stack->sp);
}

static const struct insn *return_real(struct vcpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->r[RSP];
    uint64_t rip = stack_pop(cpu, i, &sp, i->aux);
    uint16_t selector = (uint16_t)stack_pop(cpu, i, &sp, i->aux);
    if (rip > cpu->segment[SEG_CS].limit)
        RAISE_GP();
    stack_set(cpu, sp + i->imm);
    segment_set_real(cpu, SEG_CS, selector);
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, rip);
}

/* imm: bytes of parameters to drop. */
OP(ret_far)
{
    struct code_target target;
    struct return_stack stack;
    uint64_t sp = cpu->r[RSP];
    if (!protected_proper(cpu))
        return return_real(cpu, i);
    uint64_t rip = stack_pop(cpu, i, &sp, i->aux);
    uint16_t selector = (uint16_t)stack_pop(cpu, i, &sp, i->aux);
    return_code(cpu, i, selector, rip, &target);
    unsigned cpl = RPL(selector);
    bool outer = cpl > cpu->cpl;
    sp += i->imm;
    if (outer) {
        stack.sp = stack_pop(cpu, i, &sp, i->aux);
        stack.selector = (uint16_t)stack_pop(cpu, i, &sp, i->aux);
        return_stack_check(cpu, i, &target, &stack);
        stack.sp += i->imm;
        if (stack.descriptor)
            stack.descriptor = descriptor_accessed(cpu, i, stack.linear, stack.descriptor);
    }
    code_check_rip(cpu, i, &target);
    target.descriptor = descriptor_accessed(cpu, i, target.linear, target.descriptor);
    if (!outer)
        stack_set(cpu, sp);
    code_enter(cpu, &target, cpl);
    if (outer) {
        return_stack_set(cpu, i, &stack);
        segments_drop_privileged(cpu);
    }
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, rip);
}

insn_fn *select_ret_far(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    if (d->zydis->operand_count_visible == 0)
        out->imm = 0;
    out->imm &= 0xffff;
    return ret_far;
}
