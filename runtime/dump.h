/* What is shown of a virtual processor whose guest died. */
#ifndef RUNTIME_DUMP_H
#define RUNTIME_DUMP_H

#include <stdio.h>

#include "runtime/vcpu.h"

/* Registers, the bytes at RIP, and what the stack holds of addresses inside functions; with names where the kernel image
 * (vm.image) has them. */
void vcpu_dump(const struct vcpu *cpu, FILE *stream);

#endif
