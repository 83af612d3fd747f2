/* SPDX-License-Identifier: MIT */
/* From bytes to decoded instructions. */
#ifndef RUNTIME_SOFT_DECODE_H
#define RUNTIME_SOFT_DECODE_H

#include "runtime/soft/insn.h"

enum decode_result {
    DECODE_OK,       /* *out is complete; an undefined opcode is complete too: it raises #UD */
    DECODE_MORE,     /* the instruction goes on behind the bytes given */
    DECODE_TOO_LONG, /* more than 15 bytes: #GP(0) */
};

/* Decodes one instruction of `available` bytes at RIP `rip` into *out; d is filled too (d->ends_block, d->zydis lives
 * until the next call). `out->offset` and `out->position` must be set: RIP-relative operands count from the block. */
enum decode_result decode_insn(struct vcpu *cpu, const uint8_t *bytes, size_t available,
                               uint64_t rip, struct insn *out, struct decoded *d);

/* Bytes of code a block of this vCPU is made of: 16, 32 or 64. */
static inline unsigned vcpu_code_bits(const struct vcpu *cpu)
{
    if (vcpu_code64(cpu))
        return 64;
    return (cpu->segment[SEG_CS].rights & RIGHTS_DB) && vcpu_protected(cpu) && !vcpu_v86(cpu) ? 32
                                                                                              : 16;
}

#endif
