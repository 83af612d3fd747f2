/* SPDX-License-Identifier: MIT */
/* The instruction-pointer update unit. */
#include "runtime/io_pointer.h"

bool io_pointer_flat(const struct vcpu *cpu)
{
    if (vcpu_code64(cpu))
        return true;
    const struct segment *code = &cpu->segment[SEG_CS];
    return vcpu_protected(cpu) && !vcpu_v86(cpu) && code->base == 0 && code->limit == UINT32_MAX;
}

uint64_t io_pointer_linear(const struct vcpu *cpu)
{
    if (vcpu_code64(cpu))
        return cpu->rip;
    return (uint32_t)(cpu->rip + cpu->segment[SEG_CS].base);
}

/* SDM 3A 3.3.1: linear addresses of 16- and 32-bit code wrap at 4 GiB. */
void io_pointer_set(struct vcpu *cpu, uint64_t address)
{
    cpu->rip = vcpu_code64(cpu) ? address : (uint32_t)(address - cpu->segment[SEG_CS].base);
}
