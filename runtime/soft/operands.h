/* SPDX-License-Identifier: MIT */
/* Operands of the integer instructions: which register or memory, fast where one look finds it.
 *
 * An instruction has up to three functions for an operand that may be a register or memory: `name_r` (register),
 * `name_m` (memory that the TLB answers for at once: no call, no stack frame) and `name_m_slow`, where `name_m`
 * jumps for everything else. All three share one inline body, the instruction proper. */
#ifndef RUNTIME_SOFT_OPERANDS_H
#define RUNTIME_SOFT_OPERANDS_H

#include "runtime/cpuid.h"
#include "runtime/soft/access.h"

#define BODY static inline __attribute__((always_inline)) void
/* Out of line: OP_SLOW functions may call, so they must not be merged into the fast ones. */
#define OP_SLOW(name) SLOW name(struct vcpu *cpu, const struct insn *i)
/* `pointer` to the memory operand in the host; goes to `slow` where that takes more than one look. */
#define OPERAND(hit, pointer, bits, slow)                                                          \
    uintptr_t operand_host;                                                                        \
    if (unlikely(!address_simple(i) || !hit(cpu, address_of(cpu, i), (bits) / 8, &operand_host)))  \
        return slow(cpu, i);                                                                       \
    memory##bits *pointer = (memory##bits *)operand_host

#define REG_OFFSET(n) ((uint8_t)(offsetof(struct vcpu, r) + 8 * (n)))

/* Writing a register of 8, 16, 32, 64 bits: 32 clear the upper half. */
#define SET_REG8(off, value)  (REG8(off) = (uint8_t)(value))
#define SET_REG16(off, value) (REG16(off) = (uint16_t)(value))
#define SET_REG32(off, value) SET32(off, value)
#define SET_REG64(off, value) (REG64(off) = (value))

/* The memory operand's value, wherever it is. */
static inline uint64_t operand_load(struct vcpu *cpu, const struct insn *i, unsigned size)
{
    return load(cpu, i, linear(cpu, i, size, false), size);
}

/* The functions of an instruction that reads register i->REG or memory and changes registers only:
 * name<bits>(cpu, i, value) is the body. */
#define OPS_SOURCE(name, bits, reg)                                                                \
    OP(name##_r##bits)                                                                             \
    {                                                                                              \
        name##bits(cpu, i, REG##bits(i->reg));                                                     \
        NEXT;                                                                                      \
    }                                                                                              \
    OPS_SOURCE_MEMORY(name, bits)
#define OPS_SOURCE_MEMORY(name, bits)                                                              \
    OP_SLOW(name##_m_slow##bits)                                                                   \
    {                                                                                              \
        name##bits(cpu, i, (uint##bits##_t)operand_load(cpu, i, bits / 8));                        \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_m##bits)                                                                             \
    {                                                                                              \
        OPERAND(hit_read, from, bits, name##_m_slow##bits);                                        \
        name##bits(cpu, i, *from);                                                                 \
        NEXT;                                                                                      \
    }

/* The functions of an instruction that changes memory in place: name<bits>(cpu, i, to) is the body, `to` a
 * pointer to memory<bits>. */
#define OPS_MODIFY_MEMORY(name, bits)                                                              \
    OP_SLOW(name##_m_slow##bits)                                                                   \
    {                                                                                              \
        struct rmw rmw;                                                                            \
        name##bits(cpu, i, rmw_begin(cpu, i, linear(cpu, i, bits / 8, true), bits / 8, &rmw));     \
        rmw_end(cpu, i, &rmw);                                                                     \
        NEXT_SLOW;                                                                                 \
    }                                                                                              \
    OP(name##_m##bits)                                                                             \
    {                                                                                              \
        OPERAND(hit_write, to, bits, name##_m_slow##bits);                                         \
        name##bits(cpu, i, to);                                                                    \
        NEXT;                                                                                      \
    }

/* ---- for select functions ---- */
static inline bool operand_is_memory(const struct decoded *d, unsigned n)
{
    return d->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY;
}
static inline bool operand_is_immediate(const struct decoded *d, unsigned n)
{
    return d->operands[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}
static inline uint8_t operand_register(const struct decoded *d, unsigned n)
{
    return insn_register(d->operands[n].reg.value);
}
/* log2 of an operand's bytes: 0 .. 3. */
static inline unsigned operand_size(const struct decoded *d, unsigned n)
{
    return (unsigned)__builtin_ctz(d->operands[n].size) - 3;
}
/* VEX-encoded instructions exist in protected mode only (SDM 2A 2.6, exception type 13). */
static inline bool vex_allowed(const struct decoded *d)
{
    return vcpu_protected(d->cpu) && !vcpu_v86(d->cpu);
}

/* Tests: pretend that the host has not got some instructions; returns what it has, as the same mask. */
#define HOST_BMI1  1u
#define HOST_BMI2  2u
#define HOST_LZCNT 4u
unsigned bmi_pretend_host(unsigned has);

/* Selects of the rows of ops_bits that are in ops_bmi.c. */
select_fn select_bsf, select_bsr, select_tzcnt, select_lzcnt, select_popcnt, select_crc32,
    select_movbe, select_andn, select_bextr, select_blsi, select_blsmsk, select_blsr, select_bzhi,
    select_pdep, select_pext, select_rorx, select_sarx, select_shlx, select_shrx;

#endif
