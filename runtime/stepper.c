/* SPDX-License-Identifier: MIT */
/* hvrun --step and --trace: the machine entered step by step, or run to where the steps begin. */
#include "runtime/stepper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "runtime/dump.h"
#include "runtime/soft/engine.h"
#include "runtime/state_hash.h"
#include "runtime/trace.h"
#include "runtime/vmcs.h"

/* Where a trace begins or ends. */
struct place {
    enum { NOWHERE, ADDRESS, INSTRUCTION } kind;
    uint64_t number; /* guest-linear address, or instructions executed */
};

struct stepper {
    struct vm *vm;
    struct trace *trace; /* NULL: none, or it is over */
    struct place start, stop;
    bool tracing;
    uint64_t steps;
};

bool stepper_wanted(const struct vm *vm)
{
    return vm->config.step || vm->config.trace;
}

/* ---- places ---- */
static int symbol_place(const struct vm *vm, const char *option, const char *text,
                        struct place *place, struct error *err)
{
    char name[256];
    const char *plus = strchr(text, '+');
    size_t length = plus ? (size_t)(plus - text) : strlen(text);
    char *end = NULL;
    errno = 0;
    uint64_t offset = plus ? strtoull(plus + 1, &end, 0) : 0;
    if (length == 0 || length >= sizeof name || errno ||
        (plus && (plus[1] < '0' || plus[1] > '9' || *end)))
        return fail(err, HVRUN_USAGE, "%s '%s': an address, a symbol or a count is needed", option,
                    text);
    memcpy(name, text, length);
    name[length] = '\0';
    const struct image_symbol *symbol = vm->image ? image_symbol_named(vm->image, name) : NULL;
    if (!symbol)
        return fail(err, HVRUN_USAGE, "%s '%s': the kernel has no symbol of that name", option,
                    text);
    *place = (struct place){ADDRESS, symbol->address + offset};
    return 0;
}

static int parse_place(const struct vm *vm, const char *option, const char *text,
                       struct place *place, struct error *err)
{
    char *end;
    *place = (struct place){NOWHERE, 0};
    if (!text)
        return 0;
    if (text[0] < '0' || text[0] > '9')
        return symbol_place(vm, option, text, place, err);
    bool address = text[0] == '0' && (text[1] | 32) == 'x';
    place->kind = address ? ADDRESS : INSTRUCTION;
    errno = 0;
    place->number = strtoull(text, &end, address ? 16 : 10);
    bool most = errno || (!address && place->number > INT64_MAX); /* what vmcs.limit takes */
    if (*end || most || (address && !text[2]))
        return fail(err, HVRUN_USAGE, "%s '%s': an address, a symbol or a count is needed", option,
                    text);
    return 0;
}

static int parse_places(struct stepper *s, struct error *err)
{
    const struct vm_config *config = &s->vm->config;
    if (parse_place(s->vm, "--trace-start", config->trace_start, &s->start, err) < 0)
        return -1;
    return parse_place(s->vm, "--trace-stop", config->trace_stop, &s->stop, err);
}

int stepper_check(const struct vm *vm, struct error *err)
{
    struct stepper s = {.vm = (struct vm *)vm};
    return parse_places(&s, err);
}

static bool is_at(const struct stepper *s, const struct place *place, const struct vcpu *cpu)
{
    if (place->kind == INSTRUCTION)
        return soft_instructions(s->vm) >= place->number;
    uint64_t linear = vcpu_linear_rip(cpu);
    return place->kind == ADDRESS && linear == place->number;
}

/* ---- entries ---- */
static void step_all(struct stepper *s, bool single)
{
    for (unsigned k = 0; k < s->vm->vcpu_count; k++)
        s->vm->vcpus[k]->vmcs->single_step = single;
}

/* NULL with *err set: the processor's state is none that can be entered, which would go on for ever. */
static struct vmcs *enter(struct stepper *s, struct error *err)
{
    struct vmcs *vmcs = s->vm->vcpus[0]->vmcs;
    if (s->vm->vcpu_count > 1)
        vmcs = vm_enter_any(s->vm);
    else
        vm_enter(vmcs);
    if (vmcs->exit_reason != VMCS_EXIT_INVALID)
        return vmcs;
    fail(err, HVRUN_HOST, "vCPU %u cannot be stepped: %s", vmcs->cpu->index, vmcs->invalid);
    return NULL;
}

/* Each processor may do its part of so many instructions, so that all of them together do no more. */
static void limit_all(struct vm *vm, uint64_t instructions)
{
    uint64_t part = instructions / vm->vcpu_count;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        vm->vcpus[k]->vmcs->limit = part ? part : 1;
}

/* Runs on, without steps, to where the trace begins. False: the machine has ended before that. */
static bool run_to_start(struct stepper *s, struct error *err)
{
    struct vm *vm = s->vm;
    if (s->start.kind == ADDRESS && vmcs_break(vm, s->start.number, err) < 0)
        return false;
    for (;;) {
        if (is_at(s, &s->start, vm->vcpus[0]))
            break;
        if (s->start.kind == INSTRUCTION)
            limit_all(vm, s->start.number - soft_instructions(vm));
        struct vmcs *vmcs = enter(s, err);
        if (!vmcs)
            return false;
        if (vmcs->exit_reason == VMCS_EXIT_TRIPLE_FAULT)
            cpu_triple_fault(vmcs->cpu);
        if (vm->shutdown)
            return false;
        if (vmcs->exit_reason == VMCS_EXIT_BREAKPOINT)
            break;
    }
    if (s->start.kind == ADDRESS)
        vmcs_unbreak(vm, s->start.number);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        vm->vcpus[k]->vmcs->limit = 0;
    return true;
}

static int begin_trace(struct stepper *s)
{
    s->tracing = true;
    trace_begin(s->trace);
    return 0;
}

/* After a step: is the trace over? */
static bool trace_is_over(const struct stepper *s, const struct vmcs *vmcs)
{
    const struct vm_config *config = &s->vm->config;
    return is_at(s, &s->stop, vmcs->cpu) ||
           (config->trace_count && trace_lines(s->trace) >= config->trace_count);
}

static int end_trace(struct stepper *s, struct error *err)
{
    struct trace *trace = s->trace;
    s->trace = NULL;
    s->tracing = false;
    return trace_close(trace, err);
}

/* Steps until the steps are done, the trace is over or the machine has ended. */
static int step_on(struct stepper *s, struct error *err)
{
    struct vm *vm = s->vm;
    uint64_t most = vm->config.step;
    while (!vm->shutdown && (most || s->tracing)) {
        struct vmcs *vmcs = enter(s, err);
        if (!vmcs)
            return -1;
        if (vmcs->exit_reason == VMCS_EXIT_SHUTDOWN)
            break;
        if (vmcs->exit_reason == VMCS_EXIT_TRIPLE_FAULT) {
            cpu_triple_fault(vmcs->cpu);
            break;
        }
        s->steps++;
        if (!s->tracing && s->trace && is_at(s, &s->start, vmcs->cpu))
            begin_trace(s);
        else if (s->tracing && trace_step(s->trace, vmcs, err) < 0)
            return -1;
        if (s->tracing && trace_is_over(s, vmcs) && end_trace(s, err) < 0)
            return -1;
        if (s->steps == most)
            vm_stop(vm, SHUTDOWN_STEPS, HVRUN_DONE);
    }
    return 0;
}

static void report(const struct stepper *s)
{
    char place[256];
    const struct vm *vm = s->vm;
    if (!vm->config.step)
        return;
    fprintf(stderr, "hvrun: %" PRIu64 " step%s, %" PRIu64 " instructions; state %016" PRIx64 "\n",
            s->steps, s->steps == 1 ? "" : "s", soft_instructions(vm), vm_state_hash(vm));
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        fprintf(stderr, "hvrun: vCPU %u stopped at %s%s\n", k,
                vcpu_place(vm->vcpus[k], place, sizeof place),
                vm->vcpus[k]->activity == ACTIVITY_ACTIVE ? "" : ", halted");
}

static int run(struct stepper *s, struct error *err)
{
    struct vm *vm = s->vm;
    bool from_start = vm->config.step || s->start.kind == NOWHERE;
    if (!from_start && !run_to_start(s, err))
        return err->code ? -1 : 0;
    step_all(s, true);
    if (s->trace && (!vm->config.step || s->start.kind == NOWHERE))
        begin_trace(s);
    if (step_on(s, err) < 0)
        return -1;
    report(s);
    return 0;
}

int stepper_run(struct vm *vm, struct error *err)
{
    struct stepper s = {.vm = vm};
    bool good = parse_places(&s, err) == 0;
    for (unsigned k = 0; good && k < vm->vcpu_count; k++)
        good = vmcs_create(vm->vcpus[k], err) != NULL;
    if (good && vm->trace_file)
        good = (s.trace = trace_open(vm, vm->trace_file, err)) != NULL;
    if (good) {
        vm_attend(vm);
        good = run(&s, err) == 0;
    }
    if (s.trace) {
        struct error second = {0};
        if (trace_close(s.trace, good ? err : &second) < 0)
            good = false;
    }
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        vmcs_destroy(vm->vcpus[k]->vmcs);
    vm->stats.guest_instructions = soft_instructions(vm);
    if (!good)
        return -1;
    return vm->shutdown ? 0 : vm->engine->run(vm, err);
}
