/* SPDX-License-Identifier: MIT */
/* The instruction-pointer update unit (B5), and its reverse: RIP and guest-linear addresses of
 * code. */
#ifndef RUNTIME_IO_POINTER_H
#define RUNTIME_IO_POINTER_H

#include "runtime/vcpu.h"

/* True if code in the present mode may be batched: 64-bit code, or a flat code segment, so that
 * a linear address is a RIP. */
bool io_pointer_flat(const struct vcpu *cpu);

/* The guest-linear address of the instruction at RIP. */
uint64_t io_pointer_linear(const struct vcpu *cpu);

/* Moves RIP to the instruction at guest-linear `address`: past a block, to its exit, or to the
 * instruction inside it where it ended early. */
void io_pointer_set(struct vcpu *cpu, uint64_t address);

#endif
