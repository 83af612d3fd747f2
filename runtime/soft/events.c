/* SPDX-License-Identifier: MIT */
/* Interrupts and exceptions: from the vector to the handler's first instruction (SDM 3A 6; SDM 2A INT n).
 *
 * A delivery first reads and checks everything, then makes sure that the whole stack frame can be written, and only
 * then changes the vCPU; so a fault on the way finds it as it was, and can be delivered in its place. */
#include "runtime/soft/events.h"

#include "runtime/console.h"
#include "runtime/dump.h"
#include "runtime/raw_terminal.h"
#include "runtime/soft/enter.h"

#define IDT_ERROR(vector) ((uint32_t)(vector) << 3 | 2u)

/* Caused by the program itself: EXT stays clear in error codes, and the gate's DPL is checked. */
static bool is_software(enum event_type type)
{
    return type == EVENT_SOFTWARE || type == EVENT_SOFTWARE_EXCEPTION;
}

uint64_t event_pushed_flags(const struct vcpu *cpu, const struct event *event)
{
    uint64_t flags = vcpu_rflags(cpu);
    if (event->type != EVENT_EXCEPTION)
        return flags;
    switch (event->vector) {
    case EXC_DB: /* of these only general detect is a fault whose instruction is at fault */
        return cpu->fault.vector == EXC_DB && cpu->fault.dr6 & DR6_BD ? flags | RFLAGS_RF : flags;
    case EXC_NMI:
    case EXC_BP:
    case EXC_OF:
    case EXC_DF:
    case EXC_MC:
        return flags;
    default:
        return flags | RFLAGS_RF;
    }
}

/* What every delivery ends with. */
static void arrived(struct vcpu *cpu, const struct event *event, bool interrupt_gate)
{
    cpu->rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
    if (interrupt_gate)
        cpu->rflags &= ~RFLAGS_IF;
    if (event->type == EVENT_NMI)
        cpu->nmi_blocked = true;
    if (event->vector == EXC_DB && (event->type == EVENT_EXCEPTION || event->type == EVENT_ICEBP)) {
        cpu->dr[7] &= ~DR7_GD;
        cpu->debugctl &= ~DEBUGCTL_BTF;
    }
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->shadow = 0;
    vcpu_mode_changed(cpu);
}

/* ---- real mode ---- */
static void deliver_real(struct vcpu *cpu, const struct event *event)
{
    struct frame frame;
    unsigned at = (unsigned)event->vector * 4;
    if (at + 3 > cpu->idt_limit)
        cpu_raise_error(cpu, event->i, EXC_GP, IDT_ERROR(event->vector));
    uint32_t pointer = (uint32_t)table_load(cpu, event->i, cpu->idt_base + at, 4);
    frame_begin(cpu, &frame, 2);
    frame_push(cpu, event->i, &frame, event_pushed_flags(cpu, event));
    frame_push(cpu, event->i, &frame, cpu->segment[SEG_CS].selector);
    frame_push(cpu, event->i, &frame, event->rip);
    frame_commit(cpu, event->i, &frame);
    cpu->r[RSP] = frame.sp;
    segment_set_real(cpu, SEG_CS, (uint16_t)(pointer >> 16));
    cpu->rip = (uint16_t)pointer;
    cpu->rflags &= ~RFLAGS_AC;
    arrived(cpu, event, true);
}

/* ---- gates ---- */
struct gate {
    uint64_t offset;
    uint16_t selector;
    unsigned type, ist;
};

static void read_gate(struct vcpu *cpu, const struct event *event, bool wide, struct gate *gate)
{
    uint32_t error = IDT_ERROR(event->vector);
    unsigned size = wide ? 16 : 8, at = (unsigned)event->vector * size;
    if (at + size - 1 > cpu->idt_limit)
        cpu_raise_error(cpu, event->i, EXC_GP, error);
    uint64_t low = table_load(cpu, event->i, cpu->idt_base + at, 8);
    uint64_t high = wide ? table_load(cpu, event->i, cpu->idt_base + at + 8, 8) : 0;
    uint32_t rights = descriptor_rights(low);
    gate->type = rights & RIGHTS_STYPE;
    gate->selector = (uint16_t)(low >> 16);
    gate->ist = low >> 32 & 7;
    gate->offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32;
    bool interrupt_or_trap = gate->type == TYPE_INTERRUPT || gate->type == TYPE_TRAP;
    bool legacy =
        gate->type == TYPE_INTERRUPT16 || gate->type == TYPE_TRAP16 || gate->type == TYPE_TASK_GATE;
    if (!interrupt_or_trap && (wide || !legacy))
        cpu_raise_error(cpu, event->i, EXC_GP, error);
    if (is_software(event->type) && RIGHTS_DPL(rights) < cpu->cpl)
        cpu_raise_error(cpu, event->i, EXC_GP, error);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, event->i, EXC_NP, error);
    if (gate->type == TYPE_INTERRUPT16 || gate->type == TYPE_TRAP16)
        gate->offset &= 0xffff;
}

/* The handler's code segment; *cpl gets the privilege level it runs at. */
static void read_handler(struct vcpu *cpu, const struct event *event, const struct gate *gate,
                         struct code_target *handler, unsigned *cpl)
{
    const struct insn *i = event->i;
    uint32_t error = SELECTOR_ERROR(gate->selector);
    if (SELECTOR_NULL(gate->selector))
        cpu_raise_error(cpu, i, EXC_GP, 0);
    handler->selector = gate->selector;
    handler->rip = gate->offset;
    handler->descriptor = descriptor_read(cpu, i, gate->selector, EXC_GP, &handler->linear);
    uint32_t rights = descriptor_rights(handler->descriptor), dpl = RIGHTS_DPL(rights);
    if (!rights_code(rights) || dpl > cpu->cpl)
        cpu_raise_error(cpu, i, EXC_GP, error);
    if (vcpu_long_mode(cpu) && (rights & (RIGHTS_L | RIGHTS_DB)) != RIGHTS_L)
        cpu_raise_error(cpu, i, EXC_GP, error);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, error);
    *cpl = rights_conforming(rights) ? cpu->cpl : dpl;
    if (vcpu_v86(cpu) && *cpl != 0)
        cpu_raise_error(cpu, i, EXC_GP, error);
}

/* ---- long mode (SDM 3A 6.14) ---- */
static void deliver64(struct vcpu *cpu, const struct event *event)
{
    const struct insn *i = event->i;
    struct gate gate;
    struct code_target handler;
    struct frame frame;
    unsigned cpl;
    read_gate(cpu, event, true, &gate);
    read_handler(cpu, event, &gate, &handler, &cpl);
    uint64_t rsp = cpu->r[RSP];
    if (gate.ist)
        rsp = task_stack64(cpu, i, 3 + gate.ist);
    else if (cpl != cpu->cpl)
        rsp = task_stack64(cpu, i, cpl);
    code_check_rip(cpu, i, &handler);

    frame_begin_at(cpu, &frame, NULL, rsp & ~0xfull, cpl, 8);
    frame_push(cpu, i, &frame, cpu->segment[SEG_SS].selector);
    frame_push(cpu, i, &frame, cpu->r[RSP]);
    frame_push(cpu, i, &frame, event_pushed_flags(cpu, event));
    frame_push(cpu, i, &frame, cpu->segment[SEG_CS].selector);
    frame_push(cpu, i, &frame, event->rip);
    if (event->has_error)
        frame_push(cpu, i, &frame, event->error);
    handler.descriptor = descriptor_accessed(cpu, i, handler.linear, handler.descriptor);
    frame_commit(cpu, i, &frame);

    bool outer = cpl != cpu->cpl;
    code_enter(cpu, &handler, cpl);
    if (outer)
        segment_set_null(cpu, SEG_SS, (uint16_t)cpl);
    cpu->r[RSP] = frame.sp;
    arrived(cpu, event, gate.type == TYPE_INTERRUPT);
}

/* ---- protected mode and virtual-8086 mode (SDM 3A 6.12, 20.3) ---- */
static void push_interrupted(struct vcpu *cpu, const struct event *event, struct frame *frame,
                             bool stack_changes)
{
    const struct insn *i = event->i;
    if (vcpu_v86(cpu)) {
        frame_push(cpu, i, frame, cpu->segment[SEG_GS].selector);
        frame_push(cpu, i, frame, cpu->segment[SEG_FS].selector);
        frame_push(cpu, i, frame, cpu->segment[SEG_DS].selector);
        frame_push(cpu, i, frame, cpu->segment[SEG_ES].selector);
    }
    if (stack_changes) {
        frame_push(cpu, i, frame, cpu->segment[SEG_SS].selector);
        frame_push(cpu, i, frame, cpu->r[RSP]);
    }
    frame_push(cpu, i, frame, event_pushed_flags(cpu, event));
    frame_push(cpu, i, frame, cpu->segment[SEG_CS].selector);
    frame_push(cpu, i, frame, event->rip);
    if (event->has_error)
        frame_push(cpu, i, frame, event->error);
}

static void deliver32(struct vcpu *cpu, const struct event *event)
{
    const struct insn *i = event->i;
    struct gate gate;
    struct code_target handler;
    struct frame frame;
    struct segment ss;
    uint64_t ss_descriptor, ss_linear = 0;
    unsigned cpl;
    read_gate(cpu, event, false, &gate);
    if (gate.type == TYPE_TASK_GATE) {
        task_switch(cpu, i, gate.selector, TASK_EVENT, event->rip, event);
        return;
    }
    unsigned width = gate.type == TYPE_INTERRUPT || gate.type == TYPE_TRAP ? 4 : 2;
    read_handler(cpu, event, &gate, &handler, &cpl);
    bool inner = cpl != cpu->cpl, v86 = vcpu_v86(cpu);
    if (inner) {
        uint64_t sp = task_stack(cpu, i, cpl, &ss, &ss_linear);
        frame_begin_at(cpu, &frame, &ss, sp, cpl, width);
        frame.error = SELECTOR_ERROR(ss.selector);
    } else {
        frame_begin(cpu, &frame, width);
    }
    push_interrupted(cpu, event, &frame, inner);
    code_check_rip(cpu, i, &handler);
    if (inner) {
        ss_descriptor = table_load(cpu, i, ss_linear, 8);
        descriptor_accessed(cpu, i, ss_linear, ss_descriptor);
    }
    handler.descriptor = descriptor_accessed(cpu, i, handler.linear, handler.descriptor);
    frame_commit(cpu, i, &frame);

    if (inner)
        cpu->segment[SEG_SS] = ss;
    cpu->rflags &= ~RFLAGS_VM;
    code_enter(cpu, &handler, cpl);
    cpu->r[RSP] = frame.sp;
    if (v86) {
        segment_set_null(cpu, SEG_ES, 0);
        segment_set_null(cpu, SEG_DS, 0);
        segment_set_null(cpu, SEG_FS, 0);
        segment_set_null(cpu, SEG_GS, 0);
    }
    arrived(cpu, event, gate.type == TYPE_INTERRUPT || gate.type == TYPE_INTERRUPT16);
}

/* ---- one attempt ---- */
static void deliver(struct vcpu *cpu, const struct event *event)
{
    if (!vcpu_protected(cpu))
        deliver_real(cpu, event);
    else if (vcpu_long_mode(cpu))
        deliver64(cpu, event);
    else
        deliver32(cpu, event);
}

bool cpu_catch(struct vcpu *cpu, void (*call)(struct vcpu *cpu, void *context), void *context)
{
    jmp_buf outer;
    memcpy(&outer, &cpu->unwind, sizeof outer);
    bool raised = setjmp(cpu->unwind) != 0;
    if (!raised)
        call(cpu, context);
    memcpy(&cpu->unwind, &outer, sizeof outer);
    return raised;
}

static void deliver_context(struct vcpu *cpu, void *event)
{
    deliver(cpu, event);
}

/* True if the event is delivered, else vcpu.fault is what prevented it, its error code complete. */
static bool attempt(struct vcpu *cpu, struct event *event)
{
    cpu->current = NULL;
    if (!cpu_catch(cpu, deliver_context, event))
        return true;
    /* The EXT bit: the fault came while delivering what the program did not ask for (SDM 3A 6.13). */
    if (cpu->fault.has_error && cpu->fault.vector >= EXC_TS && cpu->fault.vector <= EXC_GP &&
        !is_software(event->type))
        cpu->fault.error |= 1;
    return false;
}

/* ---- faults during delivery (SDM 3A 6.15, tables 6-4 and 6-5) ---- */
enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum severity classify(enum event_type type, int vector)
{
    if (type != EVENT_EXCEPTION)
        return BENIGN;
    switch (vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
        return CONTRIBUTORY;
    case EXC_PF:
        return PAGE_FAULT;
    case EXC_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

/* Bits 0 to 3 tell of this exception, the others stay until software clears them (SDM 3B 17.2.3). */
static void set_dr6(struct vcpu *cpu, uint64_t bits)
{
    cpu->dr[6] = (cpu->dr[6] & ~0xfull) | bits;
}

/* What a fault does outside the frame. */
static void fault_registers(struct vcpu *cpu)
{
    if (cpu->fault.vector == EXC_PF)
        cpu->cr2 = cpu->fault.cr2;
    if (cpu->fault.vector == EXC_DB)
        set_dr6(cpu, cpu->fault.dr6);
}

/* vcpu.fault prevented the event: makes *event what is to be delivered now. False: a triple fault. */
static bool combine(struct vcpu *cpu, struct event *event)
{
    enum severity first = classify(event->type, event->vector);
    enum severity second = classify(EVENT_EXCEPTION, cpu->fault.vector);
    fault_registers(cpu);
    bool both = (first == CONTRIBUTORY && second == CONTRIBUTORY) ||
                (first >= PAGE_FAULT && (second == CONTRIBUTORY || second == PAGE_FAULT));
    if (both && first == DOUBLE_FAULT)
        return false;
    event->type = EVENT_EXCEPTION;
    event->vector = both ? EXC_DF : cpu->fault.vector;
    event->has_error = both || cpu->fault.has_error;
    event->error = both ? 0 : cpu->fault.error;
    event->rip = cpu->rip;
    return true;
}

void event_inject(struct vcpu *cpu, struct event *event)
{
    while (!attempt(cpu, event)) {
        const struct event prevented = *event;
        exit_on_fault(cpu, &prevented); /* S4: the second fault's own bit comes first */
        if (!combine(cpu, event)) {
            cpu_triple_fault(cpu);
            return;
        }
        if (event->vector == EXC_DF && cpu->fault.vector != EXC_DF)
            exit_on_double_fault(cpu, &prevented);
    }
    entry_note_delivered(cpu, event);
    cpu->fault.vector = -1;
}

void event_deliver(struct vcpu *cpu, enum event_type type, int vector, bool has_error,
                   uint32_t error)
{
    struct event event = {type, vector, has_error, error, cpu->rip, NULL};
    if (type == EVENT_EXCEPTION && vector == EXC_DB && cpu->pending_db) {
        set_dr6(cpu, cpu->pending_db);
        cpu->pending_db = 0;
    }
    event_inject(cpu, &event);
}

void event_deliver_once(struct vcpu *cpu, enum event_type type, int vector, bool has_error,
                        uint32_t error)
{
    struct event event = {type, vector, has_error, error, cpu->rip, NULL};
    if (!attempt(cpu, &event))
        longjmp(cpu->unwind, 1);
}

void event_deliver_fault(struct vcpu *cpu)
{
    stats_exit(&cpu->vm->stats, EXIT_KIND_EXCEPTION, cpu->rip);
    exit_on_fault(cpu, NULL);
    if (cpu->fault.vector == EXC_DB)
        cpu->pending_db |= cpu->fault.dr6;
    else
        fault_registers(cpu);
    event_deliver(cpu, EVENT_EXCEPTION, cpu->fault.vector, cpu->fault.has_error, cpu->fault.error);
}

void event_software(struct vcpu *cpu, const struct insn *i, enum event_type type, int vector)
{
    struct event event = {type, vector, false, 0, insn_next_rip(cpu, i), i};
    /* what waits behind MOV SS is part of the same #DB */
    uint64_t pending = type == EVENT_ICEBP ? cpu->pending_db : 0;
    exit_on_software(cpu, i, type, vector);
    entry_note_own_delivery(cpu, &event);
    deliver(cpu, &event);
    entry_note_own_delivery(cpu, NULL);
    cpu->untrapped = true;
    if (pending)
        set_dr6(cpu, pending);
    cpu->pending_db &= ~pending;
}

/* ---- shutdown ---- */
void cpu_triple_fault(struct vcpu *cpu)
{
    exit_on_triple_fault(cpu);
    console_flush(cpu->vm);
    raw_terminal_leave(); /* or every line would begin where the last one ended */
    fprintf(stderr, "hvrun: vCPU %u: triple fault (last exception %d, error code 0x%x)\n",
            cpu->index, cpu->fault.vector, cpu->fault.has_error ? cpu->fault.error : 0);
    vcpu_dump(cpu, stderr);
    cpu->activity = ACTIVITY_SHUTDOWN;
    cpu->fault.vector = -1;
    vm_stop(cpu->vm, SHUTDOWN_TRIPLE_FAULT, HVRUN_GUEST_DEATH);
}
