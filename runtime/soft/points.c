/* Breakpoints and watchpoints of the VMM: setting, clearing, meeting. */
#include "runtime/soft/points.h"

#include "runtime/soft/enter.h"
#include "runtime/soft/tlb.h"

/* ---- breakpoints ---- */
/* Where the address stands in the sorted list, or would stand. */
static unsigned place_of(const struct vm *vm, uint64_t linear)
{
    unsigned low = 0, high = vm->debug.breaks;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (vm->debug.at[middle] < linear)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_set(const struct vm *vm, unsigned place, uint64_t linear)
{
    return place < vm->debug.breaks && vm->debug.at[place] == linear;
}

bool breakpoint_here(const struct vcpu *cpu)
{
    uint64_t linear = linear_rip(cpu);
    return is_set(cpu->vm, place_of(cpu->vm, linear), linear);
}

int vmcs_break(struct vm *vm, uint64_t linear, struct error *err)
{
    unsigned place = place_of(vm, linear);
    if (is_set(vm, place, linear))
        return 0;
    if (vm->debug.breaks == VMCS_BREAKPOINTS)
        return fail(err, HVRUN_USAGE, "more than %u breakpoints", VMCS_BREAKPOINTS);
    memmove(&vm->debug.at[place + 1], &vm->debug.at[place],
            (vm->debug.breaks - place) * sizeof vm->debug.at[0]);
    vm->debug.at[place] = linear;
    vm->debug.breaks++;
    cache_mark(vm->soft->cache, linear & PAGE_OFFSET, true);
    return 0;
}

void vmcs_unbreak(struct vm *vm, uint64_t linear)
{
    unsigned place = place_of(vm, linear);
    if (!is_set(vm, place, linear))
        return;
    vm->debug.breaks--;
    memmove(&vm->debug.at[place], &vm->debug.at[place + 1],
            (vm->debug.breaks - place) * sizeof vm->debug.at[0]);
    for (unsigned n = 0; n < vm->debug.breaks; n++)
        if ((vm->debug.at[n] & PAGE_OFFSET) == (linear & PAGE_OFFSET))
            return;
    cache_mark(vm->soft->cache, linear & PAGE_OFFSET, false);
}

/* ---- watchpoints ---- */
static bool touches(const struct vm *vm, unsigned n, uint64_t linear, uint64_t length)
{
    uint64_t first = vm->debug.watch[n].linear;
    return first - linear < length || linear - first < vm->debug.watch[n].length;
}

bool watch_near(const struct vm *vm, uint64_t linear, uint64_t length)
{
    for (unsigned n = 0; n < vm->debug.watches; n++)
        if (touches(vm, n, linear, length))
            return true;
    return false;
}

void watch_access(struct vcpu *cpu, uint64_t linear, uint64_t length, bool write)
{
    struct vmcs *vmcs = entered(cpu);
    unsigned kind = write ? VMCS_WATCH_WRITE : VMCS_WATCH_READ;
    if (!vmcs || vmcs->watch_kind)
        return;
    for (unsigned n = 0; n < cpu->vm->debug.watches; n++) {
        uint64_t first = cpu->vm->debug.watch[n].linear;
        if (!(cpu->vm->debug.watch[n].kind & kind) || !touches(cpu->vm, n, linear, length))
            continue;
        vmcs->watch_kind = (uint8_t)kind;
        vmcs->watch_linear = first > linear ? first : linear;
        vcpu_kick(cpu);
        return;
    }
}

static void forget_translations(struct vm *vm)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        tlb_flush(vm->vcpus[k]);
}

int vmcs_watch(struct vm *vm, uint64_t linear, uint64_t length, unsigned kind, struct error *err)
{
    if (length == 0 || kind == 0 || kind & ~VMCS_WATCH_ACCESS)
        return fail(err, HVRUN_USAGE, "a watchpoint needs a length and a kind");
    if (vm->debug.watches == VMCS_WATCHPOINTS)
        return fail(err, HVRUN_USAGE, "more than %u watchpoints", VMCS_WATCHPOINTS);
    unsigned n = vm->debug.watches++;
    vm->debug.watch[n].linear = linear;
    vm->debug.watch[n].length = length;
    vm->debug.watch[n].kind = kind;
    forget_translations(vm);
    return 0;
}

void vmcs_unwatch(struct vm *vm, uint64_t linear, uint64_t length, unsigned kind)
{
    for (unsigned n = 0; n < vm->debug.watches; n++)
        if (vm->debug.watch[n].linear == linear && vm->debug.watch[n].length == length &&
            vm->debug.watch[n].kind == kind) {
            vm->debug.watch[n] = vm->debug.watch[--vm->debug.watches];
            forget_translations(vm);
            return;
        }
}
