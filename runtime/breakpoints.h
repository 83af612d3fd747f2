/* SPDX-License-Identifier: MIT */
/* What a debugger stops the guest at: instructions (breakpoints) and data (watchpoints), by
 * guest-linear address.
 *
 * The guest's memory is not touched, so a guest cannot see them, and neither slows it down.
 * Breakpoints live in decoded code: a linear address and what it maps to have the same low 12
 * bits, so that blocks are cut wherever some breakpoint has an instruction's page offset,
 * whatever is or will be mapped there, and what begins at such a place first looks whether its
 * linear address is one. Watchpoints live in the TLB: a page that holds one is never entered, so
 * that accesses to it, and to no other page, are made out of line. */
#ifndef RUNTIME_BREAKPOINTS_H
#define RUNTIME_BREAKPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/memory.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

#define BREAKPOINTS_MAX  4096u
#define WATCHPOINTS_MAX  64u
#define WATCH_LENGTH_MAX (1ull << 20)

struct breakpoint {
    uint64_t address; /* guest-linear; outside 64-bit mode CS's base is part of it */
    uint8_t kinds;    /* 1 << STOP_SOFTWARE, 1 << STOP_HARDWARE: they differ in name only */
};

struct watchpoint {
    uint64_t address, length; /* bytes, 1 to WATCH_LENGTH_MAX */
    enum stop_kind kind;      /* STOP_WRITE, STOP_READ, STOP_ACCESS */
};

struct breakpoints {
    uint64_t cuts[PAGE_SIZE / 64]; /* page offsets that have, or had, a breakpoint */
    size_t count, room;
    struct breakpoint *sorted; /* by address */
    unsigned watched;
    struct watchpoint watch[WATCHPOINTS_MAX];
};

/* Makes vm->breakpoints, empty. 0, or -1 with *err. */
int breakpoints_create(struct vm *vm, struct error *err);
void breakpoints_destroy(struct vm *vm);
void breakpoints_clear(struct vm *vm);

/* Sets or removes one, between instructions. Setting twice is setting once, removing what is not
 * there does nothing. False: there is no room, or the length is not one that can be watched.
 * `kind`: STOP_SOFTWARE or STOP_HARDWARE. */
bool breakpoint_set(struct vm *vm, uint64_t address, enum stop_kind kind);
void breakpoint_remove(struct vm *vm, uint64_t address, enum stop_kind kind);
bool watchpoint_set(struct vm *vm, uint64_t address, uint64_t length, enum stop_kind kind);
void watchpoint_remove(struct vm *vm, uint64_t address, uint64_t length, enum stop_kind kind);

/* STOP_HARDWARE or STOP_SOFTWARE, or STOP_NONE if there is none. */
enum stop_kind breakpoint_kind(const struct vm *vm, uint64_t address);

/* ---- for the engine ---- */
/* True if blocks are cut before an instruction at this address. */
static inline bool breakpoints_cut(const struct vm *vm, uint64_t linear)
{
    const struct breakpoints *b = vm->breakpoints;
    return b && b->cuts[(linear & PAGE_OFFSET) / 64] >> (linear & 63) & 1;
}

static inline bool breakpoints_any(const struct vm *vm)
{
    const struct breakpoints *b = vm->breakpoints;
    return b && (b->count || b->watched);
}

/* True if the next instruction has a breakpoint: vcpu.stop says so. */
bool breakpoint_reached(struct vcpu *cpu);

/* True if there is a watchpoint in the page. */
bool watchpoint_in_page(const struct vm *vm, uint64_t page);

/* The vCPU accesses [linear, linear + length): vcpu.stop is set if a watchpoint is met, and the
 * block is left after this instruction. */
void watchpoint_access(struct vcpu *cpu, uint64_t linear, uint64_t length, bool write);

#endif
