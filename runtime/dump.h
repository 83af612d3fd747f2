/* SPDX-License-Identifier: MIT */
/* What is shown of a virtual processor whose guest died, or did not end. */
#ifndef RUNTIME_DUMP_H
#define RUNTIME_DUMP_H

#include <stdio.h>

#include "runtime/vcpu.h"

/* Registers, the bytes at RIP, and what the stack holds of addresses inside functions; with names where the kernel image
 * (vm.image) has them. */
void vcpu_dump(const struct vcpu *cpu, FILE *stream);

/* Where it is, in a line: "RIP 0xffffffff81234567 (name+0x12)". Returns `text`. */
const char *vcpu_place(const struct vcpu *cpu, char *text, size_t size);

#endif
