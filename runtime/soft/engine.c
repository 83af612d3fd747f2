/* The soft engine's loop: slices of instructions for each vCPU in turn, events between them. */
#include "runtime/soft/engine.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/breakpoints.h"
#include "runtime/console.h"
#include "runtime/interrupts.h"
#include "runtime/soft/access.h"
#include "runtime/soft/tlb.h"
#include "runtime/stub_devices.h"

#define SLICE_ONE  200000 /* instructions; one vCPU */
#define SLICE_MANY 20000  /* several: how long one waits for another's lock */

/* ---- counting ---- */
/* Instructions of the block under execution that are not done: all from the one under execution on. */
static int64_t block_rest(const struct vcpu *cpu)
{
    const struct block *block = cpu->block;
    if (!block || !cpu->current || cpu->current < block->insns ||
        cpu->current >= block->insns + block->count)
        return 0;
    return block->count - cpu->current->position;
}

uint64_t soft_instructions(const struct vm *vm)
{
    const struct vcpu *cpu = vm->running;
    uint64_t done = vm->soft->executed;
    if (cpu)
        done += (uint64_t)(vm->soft->slice - cpu->budget - cpu->withheld - block_rest(cpu));
    return done;
}

static uint64_t soft_now(void *context)
{
    struct vm *vm = context;
    uint64_t now = soft_instructions(vm) + vm->soft->idle_ns;
    if (now < vm->soft->last_now)
        now = vm->soft->last_now;
    vm->soft->last_now = now;
    return now;
}

void soft_yield(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    soft->slice -= cpu->budget > 0 ? cpu->budget + cpu->withheld : cpu->withheld;
    cpu->withheld = 0;
    if (cpu->budget > 0)
        cpu->budget = 0;
}

/* A timer was armed: a slice that would run past it is cut short. */
static void deadline_changed(void *context)
{
    struct vm *vm = context;
    struct vcpu *cpu = vm->running;
    if (!cpu || !vm->clock.first)
        return;
    uint64_t now = soft_now(vm), deadline = vm->clock.first->deadline;
    int64_t left = deadline > now ? (int64_t)(deadline - now) : 0;
    int64_t excess = cpu->budget + cpu->withheld - left;
    if (excess <= 0)
        return;
    int64_t from_withheld = excess < cpu->withheld ? excess : cpu->withheld;
    cpu->withheld -= from_withheld;
    cpu->budget -= excess - from_withheld;
    vm->soft->slice -= excess;
}

/* ---- one vCPU ---- */
/* Delivering an event takes as long as an instruction, though it is none: a guest whose handlers cannot be reached faults
 * for ever without executing anything, and its slice must end all the same. */
static void charge_event(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    cpu->budget--;
    soft->slice--;
    soft->idle_ns++;
}

/* After cpu_raise: back to the state before the instruction, then through the IDT. */
static void soft_unwound(struct vcpu *cpu)
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
}

static inline void run_block(struct vcpu *cpu, struct block *block)
{
    cpu->code_changed = false;
    cpu->budget -= block->count;
    cpu->block = block;
    for (const struct insn *i = block->insns; i;)
        i = i->run(cpu, i);
    cpu->block = NULL;
}

static bool wakes(const struct vcpu *cpu)
{
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return cpu->events & (VCPU_EVENT_SIPI | VCPU_EVENT_INIT);
    if (cpu->activity == ACTIVITY_HLT)
        return cpu->pending_db || (cpu->events & (VCPU_EVENT_NMI | VCPU_EVENT_INIT)) ||
               ((cpu->events & VCPU_EVENT_INTERRUPT) && (cpu->rflags & RFLAGS_IF));
    return cpu->activity == ACTIVITY_ACTIVE;
}

static void take_init(struct vcpu *cpu)
{
    cpu->events &= ~VCPU_EVENT_INIT;
    vcpu_reset(cpu, true);
    lapic_init(cpu);
}

/* SDM 3A 8.4.3: the processor starts in real mode at vector * 4096. */
static void take_sipi(struct vcpu *cpu)
{
    cpu->events &= ~VCPU_EVENT_SIPI;
    if (cpu->activity != ACTIVITY_WAIT_FOR_SIPI)
        return;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->segment[SEG_CS].selector = (uint16_t)(cpu->sipi_vector << 8);
    cpu->segment[SEG_CS].base = (uint64_t)cpu->sipi_vector << 12;
    cpu->rip = 0;
    vcpu_mode_changed(cpu);
}

/* Events between two instructions, in the order of SDM 3A 6.9. True if one was taken: look again. */
static bool take_event(struct vcpu *cpu)
{
    uint8_t shadow = cpu->shadow;
    if (cpu->events & VCPU_EVENT_INIT) {
        take_init(cpu);
        return true;
    }
    if (cpu->events & VCPU_EVENT_SIPI) {
        take_sipi(cpu);
        return true;
    }
    if (cpu->pending_db && !(shadow & SHADOW_MOVSS)) {
        event_deliver(cpu, EVENT_EXCEPTION, EXC_DB, false, 0);
        return true;
    }
    if ((cpu->events & VCPU_EVENT_NMI) && !cpu->nmi_blocked && !shadow) {
        cpu->events &= ~VCPU_EVENT_NMI;
        cpu->activity = ACTIVITY_ACTIVE;
        event_deliver(cpu, EVENT_NMI, EXC_NMI, false, 0);
        return true;
    }
    if ((cpu->events & VCPU_EVENT_INTERRUPT) && (cpu->rflags & RFLAGS_IF) && !shadow) {
        int vector = lapic_acknowledge(cpu);
        lapic_update(cpu);
        if (vector < 0)
            return false;
        cpu->activity = ACTIVITY_ACTIVE;
        stats_exit(&cpu->vm->stats, EXIT_KIND_INTERRUPT, cpu->rip);
        event_deliver(cpu, EVENT_EXTERNAL, vector, false, 0);
        return true;
    }
    return false;
}

/* Instruction breakpoints at RIP (SDM 3B 17.2): the DR6 bits of those that match. */
static uint64_t instruction_breakpoints(const struct vcpu *cpu)
{
    uint64_t hits = 0;
    uint64_t linear =
        vcpu_code64(cpu) ? cpu->rip : (uint32_t)(cpu->rip + cpu->segment[SEG_CS].base);
    for (unsigned n = 0; n < 4; n++)
        if ((cpu->dr[7] >> (2 * n) & 3) && (cpu->dr[7] >> (16 + 4 * n) & 3) == 0 &&
            cpu->dr[n] == linear)
            hits |= 1ull << n;
    return hits;
}

#define BREAKPOINTS_ENABLED(cpu) ((cpu)->dr[7] & 0xff)

/* Does TF trap behind `i`, which began at `rip`? With DEBUGCTL.BTF only if it was a branch, and taken (SDM 3B 17.4.3):
 * it leads elsewhere than to the next instruction, and is no string instruction that goes on. */
static bool single_step_traps(const struct vcpu *cpu, const struct insn *i, uint64_t rip)
{
    if (!(cpu->debugctl & DEBUGCTL_BTF))
        return true;
    return cpu->rip != rip + i->length && !(cpu->rip == rip && i->flags & (INSN_REP | INSN_REPNE));
}

/* Executes one instruction with all that hangs on single instructions: shadows, RF, TF, breakpoints. */
static void step_instruction(struct vcpu *cpu)
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
    cpu->shadow = 0;
    cpu->rflags &= ~RFLAGS_RF;
    int64_t saved = cpu->budget - 1;
    cpu->withheld += saved;
    cpu->budget = 1;
    cpu->untrapped = false;
    uint64_t rip = cpu->rip;
    run_block(cpu, block);
    if (trap && !cpu->untrapped && !(cpu->shadow & SHADOW_MOVSS) &&
        single_step_traps(cpu, block->insns, rip))
        cpu->pending_db |= DR6_BS;
}

static bool needs_steps(const struct vcpu *cpu)
{
    return cpu->shadow || (cpu->rflags & (RFLAGS_TF | RFLAGS_RF)) || BREAKPOINTS_ENABLED(cpu);
}

static void reclaim(struct vcpu *cpu)
{
    cpu->budget += cpu->withheld;
    cpu->withheld = 0;
}

/* The jump that left the last block leads to this one from now on. */
static void link_blocks(struct vcpu *cpu, struct block *block)
{
    if (cpu->link && block->valid && !block->crosses)
        cpu->link->chain = block;
    cpu->link = NULL;
}

/* Instructions may be slow (decoding what was just written): who asked for the end does not wait for that of the slice. */
static bool ends(const struct vm *vm)
{
    return vm->shutdown ||
           unlikely(atomic_load_explicit(&vm->stop_request, memory_order_relaxed) != SHUTDOWN_NONE);
}

static void run_slice(struct vcpu *cpu)
{
    while (!ends(cpu->vm) && cpu->stop.kind == STOP_NONE) {
        reclaim(cpu);
        if (cpu->budget <= 0 || !wakes(cpu))
            return;
        if ((cpu->events || cpu->pending_db) && take_event(cpu)) {
            cpu->link = NULL; /* RIP is no longer where that jump leads */
            charge_event(cpu);
            continue;
        }
        if (cpu->activity != ACTIVITY_ACTIVE)
            return;
        if (unlikely(needs_steps(cpu))) {
            cpu->link = NULL;
            if (cpu->vm->breakpoints && breakpoint_reached(cpu))
                return;
            step_instruction(cpu);
            continue;
        }
        struct block *block = cache_block(cpu, false);
        link_blocks(cpu, block);
        run_block(cpu, block);
    }
}

static void finish(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    reclaim(cpu);
    soft->executed += (uint64_t)(soft->slice - cpu->budget);
    cpu->vm->running = NULL;
    if (cpu->vm->stub)
        stub_devices_take(cpu->vm);
}

void soft_run(struct vcpu *cpu, int64_t instructions)
{
    struct soft *soft = cpu->vm->soft;
    cpu->vm->running = cpu;
    cpu->budget = soft->slice = instructions;
    cpu->withheld = 0;
    cpu->link = NULL;
    if (cpu->vm->stub)
        stub_devices_begin(cpu, (uint64_t)instructions);
    if (setjmp(cpu->unwind))
        soft_unwound(cpu);
    run_slice(cpu);
    finish(cpu);
}

void soft_step(struct vcpu *cpu)
{
    struct soft *soft = cpu->vm->soft;
    cpu->vm->running = cpu;
    cpu->budget = soft->slice = 1;
    cpu->withheld = 0;
    cpu->one_iteration = true;
    cpu->link = NULL;
    if (cpu->vm->stub)
        stub_devices_begin(cpu, 1);
    if (setjmp(cpu->unwind))
        soft_unwound(cpu);
    else if (!((cpu->events || cpu->pending_db) && take_event(cpu)) &&
             cpu->activity == ACTIVITY_ACTIVE)
        step_instruction(cpu);
    cpu->one_iteration = false;
    finish(cpu);
}

/* ---- the VM ---- */
static uint64_t host_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Can anything ever wake a halted machine? An interrupt needs a vCPU that lets interrupts in. */
static bool halted_for_ever(const struct vm *vm)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        const struct vcpu *cpu = vm->vcpus[k];
        if (cpu->activity == ACTIVITY_HLT && (cpu->rflags & RFLAGS_IF))
            return false;
    }
    return true;
}

/* All vCPUs are halted: guest time goes on to the next timer, in step with the host's clock unless the run is to be
 * deterministic. */
static void idle(struct vm *vm)
{
    if (halted_for_ever(vm)) {
        vm_stop(vm, SHUTDOWN_HALT, HVRUN_DONE);
        return;
    }
    uint64_t now = soft_now(vm), deadline = clock_deadline(&vm->clock);
    uint64_t wait = deadline > now ? deadline - now : 0;
    if (deadline != CLOCK_NEVER && vm->config.deterministic) {
        vm->soft->idle_ns += wait;
        return;
    }
    if (wait == 0)
        return;
    struct timespec timeout = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
    struct pollfd wake = {.fd = vm->wake_fd, .events = POLLIN};
    uint64_t before = host_ns();
    console_flush(vm);
    ppoll(&wake, 1, deadline == CLOCK_NEVER ? NULL : &timeout,
          NULL); /* vm_attend empties wake_fd */
    uint64_t slept = host_ns() - before;
    vm->soft->idle_ns += slept < wait ? slept : wait;
}

static int64_t slice(const struct vm *vm)
{
    int64_t length = vm->vcpu_count > 1 ? SLICE_MANY : SLICE_ONE;
    uint64_t now = soft_now((void *)vm), deadline = clock_deadline(&vm->clock);
    if (deadline <= now)
        return 1;
    return deadline - now < (uint64_t)length ? (int64_t)(deadline - now) : length;
}

static int soft_engine_run(struct vm *vm, struct error *err)
{
    (void)err;
    vm_attend(vm);
    while (!vm->shutdown) {
        bool ran = false;
        for (unsigned k = 0; k < vm->vcpu_count && !vm->shutdown; k++) {
            if (atomic_load_explicit(&vm->attention, memory_order_acquire))
                vm_attend(vm);
            clock_run(&vm->clock);
            if (!wakes(vm->vcpus[k]))
                continue;
            soft_run(vm->vcpus[k], slice(vm));
            ran = true;
        }
        console_flush(vm);
        if (!ran && !vm->shutdown)
            idle(vm);
    }
    vm->stats.guest_instructions = soft_instructions(vm);
    return 0;
}

static int soft_engine_create(struct vm *vm, struct error *err)
{
    vm->soft = calloc(1, sizeof *vm->soft);
    if (!vm->soft)
        return fail(err, HVRUN_HOST, "soft engine: out of memory");
    vm->soft->cache = cache_create(vm, err);
    if (!vm->soft->cache)
        return -1;
    cache_flush(vm->soft->cache);
    vm->clock.source = soft_now;
    vm->clock.deadline_changed = deadline_changed;
    vm->clock.context = vm;
    return 0;
}

static void soft_engine_destroy(struct vm *vm)
{
    if (!vm->soft)
        return;
    cache_destroy(vm->soft->cache);
    free(vm->soft);
    vm->soft = NULL;
    vm->clock.source = NULL;
}

const struct engine soft_engine = {.name = "soft",
                                   .create = soft_engine_create,
                                   .run = soft_engine_run,
                                   .destroy = soft_engine_destroy};
