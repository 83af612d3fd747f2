/* SPDX-License-Identifier: MIT */
/* Where translated code finds things: host registers, and offsets from its stack pointer.
 *
 * The stack pointer is the vCPU's address minus 52. A shift by a register takes its low 6 bits as count, 12: SHRX by
 * RSP gives a page's number without a flag touched and without a register that holds the 12 (vCPUs are aligned to
 * 64 bytes). Below it there is room for a return address (fast.c). */
#ifndef RUNTIME_TRANSLATOR_LAYOUT_H
#define RUNTIME_TRANSLATOR_LAYOUT_H

#include "runtime/translator/fast.h"

#define STACK_BIAS  (-52)
#define FAST_OFFSET ((sizeof(struct vcpu) + 4095) & ~(size_t)4095)

/* Displacements from the stack pointer. */
#define OF_VCPU(field) ((int32_t)offsetof(struct vcpu, field) - STACK_BIAS)
#define OF_FAST(field) ((int32_t)(FAST_OFFSET + offsetof(struct fast, field)) - STACK_BIAS)
#define OF_REGISTER(n) (OF_VCPU(r) + 8 * (int32_t)(n))

/* Host registers have the guest's numbers. Guest registers stand in the host's of the same name, but: */
#define HOST_OF_RSP R12
#define HOST_OF_RCX R13
/* the guest's R12 to R15 stay in memory, and these are free between and during instructions: */
#define TEMP_COUNT   RCX /* what JRCXZ looks at, and shifts by CL */
#define TEMP_ADDRESS R14
#define TEMP_ADDEND  R15

#define IN_MEMORY 0xff
/* The host register that holds this guest register, or IN_MEMORY. */
static inline unsigned host_register(unsigned guest)
{
    if (guest == RSP)
        return HOST_OF_RSP;
    if (guest == RCX)
        return HOST_OF_RCX;
    return guest < R12 ? guest : IN_MEMORY;
}

#endif
