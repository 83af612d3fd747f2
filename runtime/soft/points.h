/* Breakpoints and watchpoints of the VMM (vmcs.h) in the engine.
 *
 * A breakpoint is a guest-linear address, decoded code stands by physical address: so what is marked is an address's offset
 * in its page, in whatever page. An instruction at a marked offset is a block of its own that always goes back to
 * the loop (cache.c), where the linear address decides. A page with a watchpoint is kept out of the TLB, as one with
 * a debug register's is. */
#ifndef RUNTIME_SOFT_POINTS_H
#define RUNTIME_SOFT_POINTS_H

#include "runtime/soft/access.h"

/* The guest-linear address of the next instruction. */
static inline uint64_t linear_rip(const struct vcpu *cpu)
{
    return vcpu_code64(cpu) ? cpu->rip : (uint32_t)(cpu->rip + cpu->segment[SEG_CS].base);
}

/* Is there a breakpoint at the next instruction? */
bool breakpoint_here(const struct vcpu *cpu);

/* Is there a watchpoint that an access to [linear, linear + length) may meet? */
bool watch_near(const struct vm *vm, uint64_t linear, uint64_t length);
/* The instruction under execution accesses [linear, linear + length): notes a watchpoint that it meets. */
void watch_access(struct vcpu *cpu, uint64_t linear, uint64_t length, bool write);

#endif
