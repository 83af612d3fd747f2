/* SPDX-License-Identifier: MIT */
/* The soft engine's loop: slices of instructions for each vCPU in turn, events between them. */
#include "runtime/soft/engine.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/breakpoints.h"
#include "runtime/console.h"
#include "runtime/interrupts.h"
#include "runtime/io_dispatcher.h"
#include "runtime/soft/loop.h"
#include "runtime/soft/tlb.h"
#include "runtime/stub_devices.h"
#include "runtime/translator/translator.h"
#include "runtime/vmcs.h"

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
    soft->yielded = true;
    soft->slice -= cpu->budget > 0 ? cpu->budget + cpu->withheld : cpu->withheld;
    cpu->withheld = 0;
    if (cpu->budget > 0)
        cpu->budget = 0;
}

/* A timer was armed: a slice that would run past it is cut short. The instructions of the block behind the one under
 * execution count too: it is left, and they come back to what is withheld. */
void soft_deadline_changed(struct vm *vm)
{
    struct vcpu *cpu = vm->running;
    if (!cpu || !vm->clock.first)
        return;
    uint64_t now = clock_now(&vm->clock), deadline = vm->clock.first->deadline;
    int64_t left = deadline > now ? (int64_t)(deadline - now) : 0;
    int64_t excess = cpu->budget + cpu->withheld + block_rest(cpu) - left;
    if (excess <= 0)
        return;
    vcpu_kick(cpu);
    cpu->withheld -= excess;
    vm->soft->slice -= excess;
}

static void deadline_changed(void *context)
{
    soft_deadline_changed(context);
}

/* ---- one vCPU ---- */
/* The jump that left the last block leads to this one from now on. */
static void link_blocks(struct vcpu *cpu, struct block *block)
{
    if (cpu->link && block->valid && !block->crosses)
        cpu->link->chain = block;
    cpu->link = NULL;
}

void run_next_block(struct vcpu *cpu)
{
    struct block *block = cache_block(cpu, false);
    bool check = block->count == 0; /* before one that has a breakpoint */
    if (unlikely(block->count > cpu->budget || (check && cpu->budget < BLOCK_MAX))) {
        cpu->link = NULL; /* the slice ends inside it */
        if (!check || !breakpoint_reached(cpu))
            step_instruction(cpu);
        return;
    }
    link_blocks(cpu, block);
    run_block(cpu, block);
}

static void run_slice(struct vcpu *cpu)
{
    while (!ends(cpu->vm) && cpu->stop.kind == STOP_NONE) {
        reclaim(cpu);
        if (cpu->budget <= 0 || !cpu_wakes(cpu))
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
        run_next_block(cpu);
    }
}

static void end_slice(struct vcpu *cpu)
{
    soft_end(cpu);
    if (cpu->vm->stub)
        stub_devices_take(cpu->vm);
}

void soft_run(struct vcpu *cpu, int64_t instructions)
{
    soft_begin(cpu, instructions);
    if (cpu->vm->stub)
        stub_devices_begin(cpu, (uint64_t)instructions);
    if (setjmp(cpu->unwind))
        soft_unwound(cpu);
    run_slice(cpu);
    end_slice(cpu);
}

/* A turn of so many instructions in which one thing is done, faults included. */
static void do_once(struct vcpu *cpu, int64_t instructions, void (*what)(struct vcpu *cpu))
{
    soft_begin(cpu, instructions);
    if (cpu->vm->stub)
        stub_devices_begin(cpu, 1);
    switch (setjmp(cpu->unwind)) {
    case 0:
        what(cpu);
        break;
    case UNWIND_FAULT:
        soft_unwound(cpu);
        break;
    case UNWIND_EXIT:
        break;
    }
    cpu->one_iteration = false;
    end_slice(cpu);
}

static void step(struct vcpu *cpu)
{
    cpu->one_iteration = true;
    if (!((cpu->events || cpu->pending_db) && take_event(cpu)) && cpu->activity == ACTIVITY_ACTIVE)
        step_instruction(cpu);
}

void soft_step(struct vcpu *cpu)
{
    do_once(cpu, 1, step);
}

static void dispatch(struct vcpu *cpu)
{
    if (io_dispatch(cpu))
        return;
    cpu->one_iteration = true; /* it was dispatched once */
    step_instruction(cpu);
}

void soft_io_event(struct vcpu *cpu, int64_t instructions)
{
    do_once(cpu, instructions, dispatch);
}

void soft_take_event(struct vcpu *cpu)
{
    soft_begin(cpu, 1);
    if (!setjmp(cpu->unwind)) /* delivery deals with its faults itself */
        take_event(cpu);
    end_slice(cpu);
}

void soft_deliver(struct vcpu *cpu, enum event_type type, int vector, bool has_error,
                  uint32_t error)
{
    soft_begin(cpu, 1);
    if (!setjmp(cpu->unwind)) /* the same */
        event_deliver(cpu, type, vector, has_error, error);
    end_slice(cpu);
}

/* ---- the VM ---- */
static uint64_t host_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Does this vCPU get turns? */
static bool takes_part(const struct vm *vm, const struct vcpu *cpu)
{
    const struct vcpu *only = vm->soft->only;
    return only ? cpu == only : !vm->soft->entered || !cpu->vmcs || !cpu->vmcs->held;
}

/* Can anything ever wake a halted machine? An interrupt needs a vCPU that lets interrupts in. */
static bool halted_for_ever(const struct vm *vm)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        const struct vcpu *cpu = vm->vcpus[k];
        if (takes_part(vm, cpu) && cpu->activity == ACTIVITY_HLT && (cpu->rflags & RFLAGS_IF))
            return false;
    }
    return !(vm->soft->entered && vm->poll.ask);
}

/* All vCPUs are halted: guest time goes on to the next timer, in step with the host's clock unless the run is to be
 * deterministic. */
static void idle(struct vm *vm)
{
    if (halted_for_ever(vm)) {
        vm_stop(vm, SHUTDOWN_HALT, HVRUN_DONE);
        return;
    }
    uint64_t now = clock_now(&vm->clock), deadline = clock_deadline(&vm->clock);
    uint64_t wait = deadline > now ? deadline - now : 0;
    if (deadline != CLOCK_NEVER && vm->config.deterministic && vm->clock.source == soft_now) {
        vm->soft->idle_ns += wait;
        return;
    }
    if (wait == 0)
        return;
    struct timespec timeout = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
    struct pollfd wake[2] = {{.fd = vm->wake_fd, .events = POLLIN},
                             {.fd = vm->poll.ask ? vm->poll.fd : -1, .events = POLLIN}};
    uint64_t before = host_ns();
    console_flush(vm);
    ppoll(wake, vm->soft->entered ? 2 : 1, deadline == CLOCK_NEVER ? NULL : &timeout,
          NULL); /* vm_attend empties wake_fd */
    uint64_t slept = host_ns() - before;
    vm->soft->idle_ns += slept < wait ? slept : wait;
}

static int64_t slice(const struct vm *vm)
{
    int64_t length = vm->vcpu_count > 1 ? SLICE_MANY : SLICE_ONE;
    uint64_t now = clock_now(&vm->clock), deadline = clock_deadline(&vm->clock);
    if (deadline <= now)
        return 1;
    return deadline - now < (uint64_t)length ? (int64_t)(deadline - now) : length;
}

static void end_round(struct vm *vm)
{
    struct soft *soft = vm->soft;
    console_flush(vm);
    if (!soft->ran)
        idle(vm);
    soft->next = 0;
    soft->ran = false;
}

bool soft_asked_back(struct vm *vm)
{
    if (!vm->soft->entered)
        return false;
    if (atomic_exchange(&vm->exit_request, false))
        vm->soft->asked = true;
    if (!vm->soft->asked && vm->poll.ask && vm->poll.ask(vm->poll.context))
        vm->soft->asked = true;
    return vm->soft->asked;
}

struct vcpu *soft_next_turn(struct vm *vm)
{
    struct soft *soft = vm->soft;
    soft->turn = NULL;
    soft->turn_left = 0;
    while (!vm->shutdown) {
        if (soft->next == vm->vcpu_count) {
            end_round(vm);
            continue;
        }
        if (atomic_load_explicit(&vm->attention, memory_order_acquire))
            vm_attend(vm);
        clock_run(&vm->clock);
        if (vm->shutdown || soft_asked_back(vm))
            break;
        struct vcpu *cpu = vm->vcpus[soft->next++];
        if (!takes_part(vm, cpu) || !cpu_wakes(cpu))
            continue;
        soft->ran = true;
        soft->turn_shown = false;
        soft->turn = cpu;
        soft->turn_left = slice(vm);
        return cpu;
    }
    return NULL;
}

static int soft_engine_run(struct vm *vm, struct error *err)
{
    struct vcpu *cpu;
    (void)err;
    vm_attend(vm);
    while ((cpu = soft_next_turn(vm)))
        soft_run(cpu, vm->soft->turn_left);
    vm->soft->turn_left = 0;
    console_flush(vm);
    vm->stats.guest_instructions = soft_instructions(vm);
    return 0;
}

/* Where the host cannot run translated code the interpreter does everything. */
static int soft_translator_create(struct vm *vm, struct error *err)
{
    if (!vm->config.translator)
        return 0;
    const char *missing = translator_missing();
    if (missing) {
        fprintf(stderr, "hvrun: no translator: %s\n", missing);
        return 0;
    }
    vm->soft->translator = translator_create(vm, err);
    return vm->soft->translator ? 0 : -1;
}

static int soft_engine_create(struct vm *vm, struct error *err)
{
    vm->soft = calloc(1, sizeof *vm->soft);
    if (!vm->soft)
        return fail(err, HVRUN_HOST, "soft engine: out of memory");
    vm->soft->cache = cache_create(vm, err);
    if (!vm->soft->cache || soft_translator_create(vm, err))
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
    translator_destroy(vm->soft->translator);
    free(vm->soft);
    vm->soft = NULL;
    vm->clock.source = NULL;
}

const struct engine soft_engine = {.name = "soft",
                                   .create = soft_engine_create,
                                   .run = soft_engine_run,
                                   .destroy = soft_engine_destroy,
                                   .takes_turns = true};
