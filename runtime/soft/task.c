/* SPDX-License-Identifier: MIT */
/* The task-state segment: stacks for inner privilege levels, and hardware task switches (SDM 3A 7). */
#include "runtime/soft/events.h"

static bool tss_wide(uint32_t rights)
{
    return (rights & RIGHTS_STYPE & ~TYPE_BUSY) == TYPE_TSS;
}

/* ---- stacks ---- */
uint64_t task_stack(struct vcpu *cpu, const struct insn *i, unsigned dpl, struct segment *ss,
                    uint64_t *linear)
{
    const struct segment *tr = &cpu->segment[SEG_TR];
    bool wide = tss_wide(tr->rights);
    unsigned at = wide ? 4 + 8 * dpl : 2 + 4 * dpl, size = wide ? 4 : 2;
    if (at + size + 1 > tr->limit)
        cpu_raise_error(cpu, i, EXC_TS, SELECTOR_ERROR(tr->selector));
    uint64_t sp = table_load(cpu, i, tr->base + at, size);
    ss->selector = (uint16_t)table_load(cpu, i, tr->base + at + size, 2);
    descriptor_unpack(stack_descriptor(cpu, i, ss->selector, dpl, EXC_TS, linear), ss);
    return sp;
}

uint64_t task_stack64(struct vcpu *cpu, const struct insn *i, unsigned n)
{
    const struct segment *tr = &cpu->segment[SEG_TR];
    unsigned at = n <= 2 ? 4 + 8 * n : 36 + 8 * (n - 4);
    if (at + 7 > tr->limit)
        cpu_raise_error(cpu, i, EXC_TS, SELECTOR_ERROR(tr->selector));
    uint64_t rsp = table_load(cpu, i, tr->base + at, 8);
    if (!canonical(rsp))
        cpu_raise_error(cpu, i, EXC_SS, 0);
    return rsp;
}

/* ---- task switches ---- */
/* Where a TSS keeps what: the 32-bit and the 16-bit form. */
struct layout {
    uint8_t size;        /* of a register */
    uint8_t ip, flags;   /* offsets */
    uint8_t registers;   /* EAX to EDI */
    uint8_t selectors;   /* ES, CS, SS, DS and, in the 32-bit form, FS, GS */
    uint8_t stride;      /* of selectors */
    uint8_t ldt, cr3, t; /* 0 = none */
    uint8_t limit;       /* least */
    uint8_t segments;
};
static const struct layout layout32 = {4, 32, 36, 40, 72, 4, 96, 28, 100, 0x67, 6};
static const struct layout layout16 = {2, 14, 16, 18, 34, 2, 42, 0, 0, 0x2b, 4};

/* The new task as its TSS describes it. */
struct task {
    const struct layout *layout;
    struct segment tr;
    uint64_t linear; /* of its descriptor */
    uint32_t eip, eflags, cr3;
    uint32_t r[8];
    uint16_t selector[6], ldt;
    bool trap;
    const struct event *event;
};

static void find_task(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                      enum task_reason reason, struct task *task)
{
    int vector = reason == TASK_RETURN ? EXC_TS : EXC_GP;
    uint32_t error = SELECTOR_ERROR(selector), busy = reason == TASK_RETURN ? TYPE_BUSY : 0;
    if (selector & 4 || SELECTOR_NULL(selector))
        cpu_raise_error(cpu, i, vector, error);
    uint64_t descriptor = descriptor_read(cpu, i, selector, vector, &task->linear);
    descriptor_unpack(descriptor, &task->tr);
    uint32_t type = task->tr.rights & RIGHTS_STYPE;
    if ((type != (TYPE_TSS | busy) && type != (TYPE_TSS16 | busy)))
        cpu_raise_error(cpu, i, vector, error);
    if (!(task->tr.rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, error);
    task->layout = tss_wide(task->tr.rights) ? &layout32 : &layout16;
    if (task->tr.limit < task->layout->limit)
        cpu_raise_error(cpu, i, EXC_TS, error);
    task->tr.selector = selector;
    task->tr.rights |= TYPE_BUSY;
}

static void read_task(struct vcpu *cpu, const struct insn *i, struct task *task)
{
    const struct layout *l = task->layout;
    uint64_t base = task->tr.base;
    task->eip = (uint32_t)table_load(cpu, i, base + l->ip, l->size);
    task->eflags = (uint32_t)table_load(cpu, i, base + l->flags, l->size);
    for (unsigned n = 0; n < 8; n++)
        task->r[n] = (uint32_t)table_load(cpu, i, base + l->registers + n * l->size, l->size);
    memset(task->selector, 0, sizeof task->selector);
    for (unsigned n = 0; n < l->segments; n++)
        task->selector[n] = (uint16_t)table_load(cpu, i, base + l->selectors + n * l->stride, 2);
    task->ldt = (uint16_t)table_load(cpu, i, base + l->ldt, 2);
    task->cr3 = l->cr3 ? (uint32_t)table_load(cpu, i, base + l->cr3, 4) : 0;
    task->trap = l->t && (table_load(cpu, i, base + l->t, 2) & 1);
}

/* Raises what a write to a system structure would. */
static void probe_table(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size)
{
    bool device;
    tlb_fill(cpu, i, (uint32_t)linear, ACCESS_WRITE, TLB_KERNEL, &device);
    tlb_fill(cpu, i, (uint32_t)(linear + size - 1), ACCESS_WRITE, TLB_KERNEL, &device);
}

/* Nothing has changed before this; after it, the switch goes through. */
static void check_writes(struct vcpu *cpu, const struct insn *i, const struct task *task,
                         const struct layout *old, uint64_t old_linear)
{
    const struct segment *tr = &cpu->segment[SEG_TR];
    if (tr->limit < old->limit)
        cpu_raise_error(cpu, i, EXC_TS, SELECTOR_ERROR(tr->selector));
    probe_table(cpu, i, tr->base, old->limit + 1);
    probe_table(cpu, i, task->tr.base, 2);
    probe_table(cpu, i, task->linear, 8);
    probe_table(cpu, i, old_linear, 8);
}

static void save_task(struct vcpu *cpu, const struct insn *i, const struct layout *l, uint64_t rip,
                      uint64_t flags)
{
    uint64_t base = cpu->segment[SEG_TR].base;
    table_store(cpu, i, base + l->ip, l->size, rip);
    table_store(cpu, i, base + l->flags, l->size, flags);
    for (unsigned n = 0; n < 8; n++)
        table_store(cpu, i, base + l->registers + n * l->size, l->size, cpu->r[n]);
    for (unsigned n = 0; n < l->segments; n++)
        table_store(cpu, i, base + l->selectors + n * l->stride, 2, cpu->segment[n].selector);
}

static void set_busy(struct vcpu *cpu, const struct insn *i, uint64_t linear, bool busy)
{
    uint64_t access = table_load(cpu, i, linear + 5, 1);
    table_store(cpu, i, linear + 5, 1, busy ? access | TYPE_BUSY : access & ~(uint64_t)TYPE_BUSY);
}

/* The new task's registers; its segments are loaded afterwards. */
static void enter_task(struct vcpu *cpu, const struct task *task, bool nested)
{
    cpu->segment[SEG_TR] = task->tr;
    cpu->cr0 |= CR0_TS;
    cpu->dr[7] &= ~0x155ull; /* local breakpoints */
    if (task->layout->cr3 && cpu->cr0 & CR0_PG) {
        if (cpu->cr4 & CR4_PAE)
            tlb_load_pdptes(cpu, task->cr3); /* the walk finds entries that are not valid */
        cpu->cr3 = task->cr3;
        tlb_flush(cpu);
    }
    cpu->rip = task->eip;
    for (unsigned n = 0; n < 8; n++)
        cpu->r[n] = task->layout->size == 4 ? task->r[n] : (cpu->r[n] & 0xffff0000) | task->r[n];
    for (int n = SEG_ES; n <= SEG_GS; n++)
        segment_set_null(cpu, n, task->selector[n]);
    segment_set_null(cpu, SEG_LDTR, task->ldt);
    /* CPL counts from here, though CS is not loaded */
    cpu->cpl = task->eflags & RFLAGS_VM ? 3 : (uint8_t)RPL(task->selector[SEG_CS]);
    cpu->segment[SEG_CS].rights |= (uint32_t)cpu->cpl << 5;
    vcpu_set_rflags(cpu, task->eflags | (nested ? RFLAGS_NT : 0));
    if (task->event) { /* it has arrived, whatever happens next */
        cpu->nmi_blocked |= task->event->type == EVENT_NMI;
        cpu->activity = ACTIVITY_ACTIVE;
        cpu->shadow = 0;
    }
    vcpu_mode_changed(cpu);
}

/* ---- in the new task ---- */
static void load_ldt(struct vcpu *cpu, uint16_t selector)
{
    uint32_t error = SELECTOR_ERROR(selector);
    if (SELECTOR_NULL(selector))
        return;
    if (selector & 4)
        cpu_raise_error(cpu, NULL, EXC_TS, error);
    uint64_t descriptor = descriptor_read(cpu, NULL, selector, EXC_TS, NULL);
    uint32_t rights = descriptor_rights(descriptor);
    if ((rights & RIGHTS_STYPE) != TYPE_LDT || !(rights & RIGHTS_P))
        cpu_raise_error(cpu, NULL, EXC_TS, error);
    segment_set(cpu, SEG_LDTR, selector, descriptor);
}

static void load_code(struct vcpu *cpu, uint16_t selector)
{
    uint32_t error = SELECTOR_ERROR(selector);
    uint64_t linear;
    if (SELECTOR_NULL(selector))
        cpu_raise_error(cpu, NULL, EXC_TS, 0);
    uint64_t descriptor = descriptor_read(cpu, NULL, selector, EXC_TS, &linear);
    uint32_t rights = descriptor_rights(descriptor), dpl = RIGHTS_DPL(rights);
    if (!rights_code(rights) ||
        (rights_conforming(rights) ? dpl > RPL(selector) : dpl != RPL(selector)))
        cpu_raise_error(cpu, NULL, EXC_TS, error);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, NULL, EXC_NP, error);
    segment_set(cpu, SEG_CS, selector, descriptor_accessed(cpu, NULL, linear, descriptor));
}

static void load_data(struct vcpu *cpu, int segment, uint16_t selector)
{
    uint32_t error = SELECTOR_ERROR(selector);
    uint64_t linear;
    if (SELECTOR_NULL(selector))
        return;
    uint64_t descriptor = descriptor_read(cpu, NULL, selector, EXC_TS, &linear);
    uint32_t rights = descriptor_rights(descriptor), dpl = RIGHTS_DPL(rights);
    bool code = rights & RIGHTS_CODE;
    if (!(rights & RIGHTS_S) || (code && !(rights & RIGHTS_WRITABLE)) ||
        (!(code && rights_conforming(rights)) && (RPL(selector) > dpl || cpu->cpl > dpl)))
        cpu_raise_error(cpu, NULL, EXC_TS, error);
    if (!(rights & RIGHTS_P))
        cpu_raise_error(cpu, NULL, EXC_NP, error);
    segment_set(cpu, segment, selector, descriptor_accessed(cpu, NULL, linear, descriptor));
}

static void load_segments(struct vcpu *cpu, const struct task *task)
{
    const uint16_t *selector = task->selector;
    uint64_t linear;
    load_ldt(cpu, task->ldt);
    if (vcpu_v86(cpu)) {
        for (int n = SEG_ES; n <= SEG_GS; n++)
            segment_set_real(cpu, n, selector[n]);
    } else {
        load_code(cpu, selector[SEG_CS]);
        uint64_t ss = stack_descriptor(cpu, NULL, selector[SEG_SS], cpu->cpl, EXC_TS, &linear);
        segment_set(cpu, SEG_SS, selector[SEG_SS], descriptor_accessed(cpu, NULL, linear, ss));
        load_data(cpu, SEG_DS, selector[SEG_DS]);
        load_data(cpu, SEG_ES, selector[SEG_ES]);
        load_data(cpu, SEG_FS, selector[SEG_FS]);
        load_data(cpu, SEG_GS, selector[SEG_GS]);
    }
    vcpu_mode_changed(cpu);
}

static void start_task(struct vcpu *cpu, void *context)
{
    const struct task *task = context;
    load_segments(cpu, task);
    if (task->event && task->event->has_error) {
        struct frame frame;
        frame_begin(cpu, &frame, task->layout->size);
        frame_push(cpu, NULL, &frame, task->event->error);
        frame_commit(cpu, NULL, &frame);
        cpu->r[RSP] = frame.sp;
    }
    if (cpu->rip > cpu->segment[SEG_CS].limit)
        cpu_raise_error(cpu, NULL, EXC_GP, 0);
    if (task->trap)
        cpu->pending_db |= DR6_BT;
}

void task_switch(struct vcpu *cpu, const struct insn *i, uint16_t selector, enum task_reason reason,
                 uint64_t rip, const struct event *event)
{
    struct task task = {.event = event};
    const struct segment *tr = &cpu->segment[SEG_TR];
    const struct layout *old = tss_wide(tr->rights) ? &layout32 : &layout16;
    bool nested = reason == TASK_CALL || reason == TASK_EVENT;
    uint16_t old_selector = tr->selector;
    uint64_t old_linear, flags = event ? event_pushed_flags(cpu, event) : vcpu_rflags(cpu);

    find_task(cpu, i, selector, reason, &task);
    read_task(cpu, i, &task);
    if (!descriptor_find(cpu, old_selector, &old_linear))
        cpu_raise_error(cpu, i, EXC_TS, SELECTOR_ERROR(old_selector));
    check_writes(cpu, i, &task, old, old_linear);

    if (!nested)
        set_busy(cpu, i, old_linear, false);
    if (reason == TASK_RETURN)
        flags &= ~(uint64_t)RFLAGS_NT;
    save_task(cpu, i, old, rip, flags);
    if (nested)
        table_store(cpu, i, task.tr.base, 2, old_selector);
    if (reason != TASK_RETURN)
        set_busy(cpu, i, task.linear, true);
    enter_task(cpu, &task, nested);
    if (!i) {
        start_task(cpu, &task);
    } else if (cpu_catch(cpu, start_task, &task)) {
        /* The fault is the new task's, the instruction is done; delivering may end the entry. */
        insn_leave(cpu, i, cpu->rip);
        cpu->block = NULL;
        cpu->shadow_before = 0;
        cpu->resume_before = 0;
        event_deliver_fault(cpu);
    }
}
