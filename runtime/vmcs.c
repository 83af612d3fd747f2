/* SPDX-License-Identifier: MIT */
/* The VM control structure: making one, checking it, and what a VMM does between entries. */
#include "runtime/vmcs.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/soft/enter.h"
#include "runtime/soft/tlb.h"

const char *const vmcs_exit_names[VMCS_EXITS] = {
    [VMCS_EXIT_INVALID] = "invalid state",
    [VMCS_EXIT_STEP] = "single step",
    [VMCS_EXIT_EXCEPTION] = "exception",
    [VMCS_EXIT_TRIPLE_FAULT] = "triple fault",
    [VMCS_EXIT_INTERRUPT] = "external interrupt",
    [VMCS_EXIT_NMI] = "NMI",
    [VMCS_EXIT_INIT] = "INIT",
    [VMCS_EXIT_SIPI] = "SIPI",
    [VMCS_EXIT_SMI] = "SMI",
    [VMCS_EXIT_HLT] = "HLT",
    [VMCS_EXIT_IO] = "IO instruction",
    [VMCS_EXIT_CPUID] = "CPUID",
    [VMCS_EXIT_RDMSR] = "RDMSR",
    [VMCS_EXIT_WRMSR] = "WRMSR",
    [VMCS_EXIT_CR] = "control register",
    [VMCS_EXIT_DR] = "debug register",
    [VMCS_EXIT_LISTED] = "listed instruction",
    [VMCS_EXIT_BREAKPOINT] = "breakpoint",
    [VMCS_EXIT_WATCHPOINT] = "watchpoint",
    [VMCS_EXIT_LIMIT] = "instruction limit",
    [VMCS_EXIT_REQUEST] = "request",
    [VMCS_EXIT_SHUTDOWN] = "shutdown",
};

struct vmcs *vmcs_create(struct vcpu *cpu, struct error *err)
{
    if (cpu->vmcs) {
        fail(err, HVRUN_USAGE, "vCPU %u has a VM control structure already", cpu->index);
        return NULL;
    }
    struct vmcs *vmcs = calloc(1, sizeof *vmcs);
    if (!vmcs) {
        fail(err, HVRUN_HOST, "VM control structure: out of memory");
        return NULL;
    }
    vmcs->cpu = cpu;
    vmcs->activity = cpu->activity;
    vmcs->interruptibility = cpu->shadow | (cpu->nmi_blocked ? VMCS_BLOCKED_NMI : 0);
    vmcs->pending_debug = cpu->pending_db;
    vmcs->save_activity = true;
    cpu->vmcs = vmcs;
    return vmcs;
}

void vmcs_destroy(struct vmcs *vmcs)
{
    if (vmcs)
        vmcs->cpu->vmcs = NULL;
    free(vmcs);
}

/* ---- the checks of an entry ---- */
static const char *invalid_state(const struct vmcs *vmcs)
{
    const uint32_t blocked = VMCS_BLOCKED_STI | VMCS_BLOCKED_MOVSS;
    if ((unsigned)vmcs->activity > ACTIVITY_WAIT_FOR_SIPI)
        return "activity: no such state";
    if (vmcs->interruptibility & ~(blocked | VMCS_BLOCKED_NMI))
        return "interruptibility: unknown bits";
    if ((vmcs->interruptibility & blocked) == blocked)
        return "interruptibility: blocking by STI and by MOV SS at once";
    if (vmcs->interruptibility & blocked && vmcs->activity != ACTIVITY_ACTIVE) /* SDM 3C 26.3.1.5 */
        return "activity: blocking by STI or MOV SS, which only an active processor has";
    if (vmcs->pending_debug & ~0xe00full)
        return "pending_debug: bits that DR6 does not have";
    if (vmcs->limit > INT64_MAX)
        return "limit: more than 2^63 - 1 instructions";
    return NULL;
}

static const char *invalid_event(const struct vmcs *vmcs)
{
    const struct vmcs_event *event = &vmcs->entry_event;
    bool known = false;
    switch (event->type) {
    case VMCS_EVENT_EXTERNAL:
    case VMCS_EVENT_SOFTWARE:
        known = true;
        break;
    case VMCS_EVENT_NMI:
        known = event->vector == EXC_NMI;
        break;
    case VMCS_EVENT_EXCEPTION:
        known = event->vector < 32 && event->vector != EXC_NMI;
        break;
    case VMCS_EVENT_ICEBP:
        known = event->vector == EXC_DB;
        break;
    case VMCS_EVENT_SOFTWARE_EXCEPTION:
        known = event->vector == EXC_BP || event->vector == EXC_OF;
        break;
    }
    if (!known)
        return "entry_event: type and vector do not go together";
    if (event->has_error && event->type != VMCS_EVENT_EXCEPTION)
        return "entry_event: only exceptions have an error code";
    if (vmcs->entry_length > 15)
        return "entry_length: more than 15 bytes";
    if (vmcs->activity == ACTIVITY_WAIT_FOR_SIPI)
        return "entry_event: the processor waits for a SIPI";
    return NULL;
}

bool vmcs_valid(struct vmcs *vmcs)
{
    vmcs->invalid = invalid_state(vmcs);
    if (!vmcs->invalid && vmcs->entry_event.valid)
        vmcs->invalid = invalid_event(vmcs);
    return !vmcs->invalid;
}

/* ---- between entries ---- */
void vmcs_state_changed(struct vmcs *vmcs)
{
    struct vcpu *cpu = vmcs->cpu;
    vcpu_mode_changed(cpu);
    tlb_flush(cpu);
}

void vmcs_interrupt(struct vm *vm)
{
    atomic_store(&vm->exit_request, true);
    vm_wake(vm);
}

void vmcs_poll(struct vm *vm, int fd, bool (*poll)(void *context), void *context)
{
    vm->poll.ask = poll;
    vm->poll.context = context;
    vm->poll.fd = fd;
}

void vmcs_raise_nmi(struct vmcs *vmcs)
{
    vcpu_event(vmcs->cpu, VCPU_EVENT_NMI);
}

void vmcs_raise_smi(struct vmcs *vmcs)
{
    vcpu_event(vmcs->cpu, VCPU_EVENT_SMI);
}

void vmcs_raise_init(struct vmcs *vmcs)
{
    vcpu_event(vmcs->cpu, VCPU_EVENT_INIT);
}

void vmcs_raise_machine_check(struct vmcs *vmcs)
{
    vcpu_event(vmcs->cpu, VCPU_EVENT_MACHINE_CHECK);
}

/* ---- guest memory ---- */
/* The host address of what is mapped at `linear`, *length cut down to the page's end; NULL if nothing is. */
static uint8_t *mapped(struct vmcs *vmcs, uint64_t linear, size_t *length, uint64_t *physical)
{
    size_t here = PAGE_SIZE - (linear & PAGE_OFFSET);
    if (*length > here)
        *length = here;
    if (!tlb_peek(vmcs->cpu, linear, physical))
        return NULL;
    return memory_at(&vmcs->cpu->vm->memory, *physical, *length);
}

size_t vmcs_read(struct vmcs *vmcs, uint64_t linear, void *to, size_t length)
{
    size_t done = 0;
    while (done < length) {
        uint64_t physical;
        size_t part = length - done;
        const uint8_t *host = mapped(vmcs, linear + done, &part, &physical);
        if (!host)
            break;
        memcpy((uint8_t *)to + done, host, part);
        done += part;
    }
    return done;
}

size_t vmcs_write(struct vmcs *vmcs, uint64_t linear, const void *from, size_t length)
{
    size_t done = 0;
    while (done < length) {
        uint64_t physical;
        size_t part = length - done;
        if (!mapped(vmcs, linear + done, &part, &physical) ||
            !memory_write(&vmcs->cpu->vm->memory, physical, (const uint8_t *)from + done, part))
            break;
        done += part;
    }
    return done;
}

/* ---- breakpoints and watchpoints (breakpoints.h) ---- */
static int need_breakpoints(struct vm *vm, struct error *err)
{
    return vm->breakpoints ? 0 : breakpoints_create(vm, err);
}

int vmcs_break(struct vm *vm, uint64_t linear, struct error *err)
{
    if (need_breakpoints(vm, err) < 0)
        return -1;
    if (!breakpoint_set(vm, linear, STOP_HARDWARE))
        return fail(err, HVRUN_HOST, "breakpoint at 0x%llx: there is no room for more",
                    (unsigned long long)linear);
    return 0;
}

void vmcs_unbreak(struct vm *vm, uint64_t linear)
{
    if (vm->breakpoints)
        breakpoint_remove(vm, linear, STOP_HARDWARE);
}

static enum stop_kind watch_stop(unsigned kind)
{
    return kind == VMCS_WATCH_WRITE  ? STOP_WRITE
           : kind == VMCS_WATCH_READ ? STOP_READ
                                     : STOP_ACCESS;
}

int vmcs_watch(struct vm *vm, uint64_t linear, uint64_t length, unsigned kind, struct error *err)
{
    if (need_breakpoints(vm, err) < 0)
        return -1;
    if (kind == 0 || kind > VMCS_WATCH_ACCESS ||
        !watchpoint_set(vm, linear, length, watch_stop(kind)))
        return fail(err, HVRUN_USAGE, "watchpoint at 0x%llx: %llu bytes cannot be watched",
                    (unsigned long long)linear, (unsigned long long)length);
    return 0;
}

void vmcs_unwatch(struct vm *vm, uint64_t linear, uint64_t length, unsigned kind)
{
    if (vm->breakpoints)
        watchpoint_remove(vm, linear, length, watch_stop(kind));
}
