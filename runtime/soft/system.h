/* SPDX-License-Identifier: MIT */
/* What the files of system instructions share. */
#ifndef RUNTIME_SOFT_SYSTEM_H
#define RUNTIME_SOFT_SYSTEM_H

#include "runtime/soft/enter.h"
#include "runtime/soft/segments.h"

/* A select function for a row that is one function. */
#define SELECT(name, function)                                                                     \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        (void)d;                                                                                   \
        (void)out;                                                                                 \
        return function;                                                                           \
    }
#define SELECT_LAST(name, function)                                                                \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        (void)out;                                                                                 \
        d->ends_block = true;                                                                      \
        return function;                                                                           \
    }

#define REQUIRE_CPL0()                                                                             \
    do {                                                                                           \
        if (unlikely(cpu->cpl != 0))                                                               \
            RAISE_GP();                                                                            \
    } while (0)

/* Counts an exit that this instruction is, or would be on hardware. (A doorbell is counted as that.) To be called when the
 * instruction cannot fault for want of privilege, and before it does anything: the VMM may want the exit. */
static inline void count_exit(struct vcpu *cpu, const struct insn *i, enum exit_kind kind)
{
    if (kind < EXIT_KINDS_IN_TOTAL && cpu->block && cpu->block->doorbell)
        return;
    if (unlikely(exits_by(cpu, kind)))
        exit_by_instruction(cpu, i, kind);
    stats_exit(&cpu->vm->stats, kind, cpu->base[SEG_CS] + insn_rip(cpu, i));
}

/* ---- ops_control.c: MOV to and from CRn and DRn, CLTS, LMSW, SMSW ---- */
insn_fn *select_mov_control(struct decoded *d, struct insn *out);
insn_fn *select_clts(struct decoded *d, struct insn *out);
insn_fn *select_lmsw(struct decoded *d, struct insn *out);
insn_fn *select_smsw(struct decoded *d, struct insn *out);

/* What MOV to a control register does once CPL is checked; shared with the doorbell's handlers. #GP (false): nothing
 * has changed. The caller leaves the block. */
bool control_write(struct vcpu *cpu, unsigned number, uint64_t value);
uint64_t control_read(struct vcpu *cpu, unsigned number);

/* MOV to and from a segment register (ops_segment.c). */
insn_fn *select_mov_segment(struct decoded *d, struct insn *out);
/* MOV where an operand is a segment, control or debug register: what ops_move.c calls. */
insn_fn *select_mov_system(struct decoded *d, struct insn *out);

#endif
