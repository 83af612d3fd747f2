/* SPDX-License-Identifier: MIT */
/* Breakpoints and watchpoints of a debugger: the sets, and who is told when they change. */
#include "runtime/breakpoints.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/soft/cache.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

int breakpoints_create(struct vm *vm, struct error *err)
{
    vm->breakpoints = calloc(1, sizeof *vm->breakpoints);
    return vm->breakpoints ? 0 : fail(err, HVRUN_HOST, "no memory for breakpoints");
}

void breakpoints_destroy(struct vm *vm)
{
    if (!vm->breakpoints)
        return;
    free(vm->breakpoints->sorted);
    free(vm->breakpoints);
    vm->breakpoints = NULL;
}

/* Where blocks are cut they stay cut: a place that had a breakpoint is likely to get it back,
 * and looking there costs a vCPU that passes next to nothing. */
void breakpoints_clear(struct vm *vm)
{
    if (!vm->breakpoints)
        return;
    vm->breakpoints->count = 0;
    vm->breakpoints->watched = 0;
}

/* ---- breakpoints ---- */
/* Index of the first one that is not below `address`. */
static size_t find(const struct breakpoints *b, uint64_t address)
{
    size_t low = 0, high = b->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (b->sorted[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct breakpoint *at(const struct breakpoints *b, uint64_t address)
{
    size_t n = find(b, address);
    return n < b->count && b->sorted[n].address == address ? &b->sorted[n] : NULL;
}

static void cut(struct vm *vm, uint64_t offset)
{
    uint64_t *word = &vm->breakpoints->cuts[offset / 64];
    if (*word >> offset % 64 & 1)
        return;
    *word |= 1ull << offset % 64;
    if (vm->soft)
        cache_cut(vm->soft->cache, offset);
}

static bool make_room(struct breakpoints *b)
{
    if (b->count < b->room)
        return true;
    size_t room = b->room ? 2 * b->room : 64;
    struct breakpoint *more =
        room <= BREAKPOINTS_MAX ? realloc(b->sorted, room * sizeof *more) : NULL;
    if (!more)
        return false;
    b->sorted = more;
    b->room = room;
    return true;
}

bool breakpoint_set(struct vm *vm, uint64_t address, enum stop_kind kind)
{
    struct breakpoints *b = vm->breakpoints;
    struct breakpoint *old = at(b, address);
    if (old) {
        old->kinds |= (uint8_t)(1u << kind);
        return true;
    }
    if (!make_room(b))
        return false;
    size_t n = find(b, address);
    memmove(&b->sorted[n + 1], &b->sorted[n], (b->count - n) * sizeof b->sorted[0]);
    b->sorted[n] = (struct breakpoint){address, (uint8_t)(1u << kind)};
    b->count++;
    cut(vm, address & PAGE_OFFSET);
    return true;
}

void breakpoint_remove(struct vm *vm, uint64_t address, enum stop_kind kind)
{
    struct breakpoints *b = vm->breakpoints;
    struct breakpoint *old = at(b, address);
    if (!old)
        return;
    old->kinds &= (uint8_t) ~(1u << kind);
    if (old->kinds)
        return;
    b->count--;
    memmove(old, old + 1, (size_t)(b->sorted + b->count - old) * sizeof *old);
}

enum stop_kind breakpoint_kind(const struct vm *vm, uint64_t address)
{
    const struct breakpoint *found = at(vm->breakpoints, address);
    if (!found)
        return STOP_NONE;
    return found->kinds & 1u << STOP_HARDWARE ? STOP_HARDWARE : STOP_SOFTWARE;
}

bool breakpoint_reached(struct vcpu *cpu)
{
    uint64_t linear = vcpu_linear_rip(cpu);
    enum stop_kind kind = breakpoint_kind(cpu->vm, linear);
    if (kind == STOP_NONE)
        return false;
    cpu->stop.kind = kind;
    cpu->stop.address = linear;
    return true;
}

/* ---- watchpoints ---- */
/* What may be in the TLBs of the pages that hold [address, address + length) goes. */
static void forget_pages(struct vm *vm, uint64_t address, uint64_t length)
{
    uint64_t first = address & ~PAGE_OFFSET, last = (address + length - 1) & ~PAGE_OFFSET;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        if (last - first > 16 * PAGE_SIZE) {
            tlb_flush(vm->vcpus[k]);
            continue;
        }
        for (uint64_t page = first; page != last + PAGE_SIZE; page += PAGE_SIZE)
            tlb_flush_page(vm->vcpus[k], page);
    }
}

static struct watchpoint *watchpoint_find(struct breakpoints *b, uint64_t address, uint64_t length,
                                          enum stop_kind kind)
{
    for (unsigned n = 0; n < b->watched; n++)
        if (b->watch[n].address == address && b->watch[n].length == length &&
            b->watch[n].kind == kind)
            return &b->watch[n];
    return NULL;
}

bool watchpoint_set(struct vm *vm, uint64_t address, uint64_t length, enum stop_kind kind)
{
    struct breakpoints *b = vm->breakpoints;
    if (length == 0 || length > WATCH_LENGTH_MAX || address + (length - 1) < address)
        return false;
    if (watchpoint_find(b, address, length, kind))
        return true;
    if (b->watched == WATCHPOINTS_MAX)
        return false;
    b->watch[b->watched++] = (struct watchpoint){address, length, kind};
    forget_pages(vm, address, length);
    return true;
}

void watchpoint_remove(struct vm *vm, uint64_t address, uint64_t length, enum stop_kind kind)
{
    struct breakpoints *b = vm->breakpoints;
    struct watchpoint *old = watchpoint_find(b, address, length, kind);
    if (old)
        *old = b->watch[--b->watched];
}

static bool meets(const struct watchpoint *w, uint64_t linear, uint64_t length)
{
    return w->address - linear < length || linear - w->address < w->length;
}

bool watchpoint_in_page(const struct vm *vm, uint64_t page)
{
    const struct breakpoints *b = vm->breakpoints;
    for (unsigned n = 0; n < b->watched; n++)
        if (meets(&b->watch[n], page, PAGE_SIZE))
            return true;
    return false;
}

void watchpoint_access(struct vcpu *cpu, uint64_t linear, uint64_t length, bool write)
{
    const struct breakpoints *b = cpu->vm->breakpoints;
    for (unsigned n = 0; n < b->watched; n++) {
        const struct watchpoint *w = &b->watch[n];
        if (w->kind == (write ? STOP_READ : STOP_WRITE) || !meets(w, linear, length))
            continue;
        if (cpu->stop.kind == STOP_NONE) { /* the first one is told */
            cpu->stop.kind = w->kind;
            cpu->stop.address = w->address > linear ? w->address : linear;
        }
        cpu->code_changed = true;
        vcpu_kick(cpu);
    }
}
