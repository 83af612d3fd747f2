/* SPDX-License-Identifier: MIT */
/* The guest's vector and x87 registers in the host's.
 *
 * They are there only while translated code runs that needs them: integer code never pays. A block with vector
 * instructions looks first whether what it needs of them is there (vcpu.vectors_here), and leaves if it is not; then,
 * if the instructions may execute at all, they are loaded, on the way back in. On every way out they are stored
 * (enter.c): all other code finds them in vcpu.fpu. */
#ifndef RUNTIME_TRANSLATOR_VECTORS_H
#define RUNTIME_TRANSLATOR_VECTORS_H

#include "runtime/vcpu.h"

/* Of an x87 instruction: what FIP and FOP are behind it. */
struct x87_place {
    uint64_t rip;
    uint16_t opcode;
};

/* Before translated code is entered or goes on: `needed` will be in the host's registers besides what is in
 * vcpu.vectors. False, and nothing changes: the first instruction that needs them would fault, or is the interpreter's. */
bool vectors_take(struct vcpu *cpu, unsigned needed);
/* After the interpreter was called, and may have made them unusable: what goes back. x87 registers, which take long to
 * load, wait until they are asked for. */
void vectors_again(struct vcpu *cpu);
/* After it was left for good: they are in the vCPU, all of them. */
void vectors_leave(struct vcpu *cpu);

#endif
