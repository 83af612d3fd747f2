/* SPDX-License-Identifier: MIT */
/* What instructions are written with: registers, addresses, guest memory, faults.
 *
 * Every access to guest memory by an instruction goes through here. The fast path is a TLB look-up in line; what
 * misses, crosses a page, touches a device, a watchpoint or decoded code goes out of line (access.c). */
#ifndef RUNTIME_SOFT_ACCESS_H
#define RUNTIME_SOFT_ACCESS_H

#include <string.h>

#include "runtime/memory.h"
#include "runtime/soft/insn.h"
#include "runtime/vm.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- going on ---- */
#define OP(name) static const struct insn *name(struct vcpu *cpu, const struct insn *i)

/* Threaded code needs sibling calls, which sanitizers and -O0 do not give: then the loop does the calling. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define NEXT return i[1].run(cpu, i + 1)
#else
#define NEXT return (void)cpu, i + 1
#endif
/* After anything done out of line (a local's address may have been taken, code may have changed). */
#define NEXT_SLOW return insn_after_slow(cpu, i)

/* RIP of the instruction, and of the one behind it. */
static inline uint64_t insn_rip(const struct vcpu *cpu, const struct insn *i)
{
    return cpu->rip + i->offset;
}
static inline uint64_t insn_next_rip(const struct vcpu *cpu, const struct insn *i)
{
    return cpu->rip + i->offset + i->length;
}

/* Leaves the block: execution continues at `rip`, found through the engine's loop. The instruction counts as done;
 * for use by the last instruction of a block, or mid-block (the budget is corrected). */
const struct insn *insn_leave(struct vcpu *cpu, const struct insn *i, uint64_t rip);
/* Goes on with the next instruction, unless the block under execution was invalidated. */
const struct insn *insn_after_slow(struct vcpu *cpu, const struct insn *i);

/* ---- registers ---- */
#define REG8(off)  (*(uint8_t *)((char *)cpu + (off)))
#define REG16(off) (*(uint16_t *)((char *)cpu + (off)))
#define REG32(off)                                                                                 \
    (*(uint32_t *)((char *)cpu + (off))) /* reading only: writing goes through SET32 */
#define REG64(off)        (*(uint64_t *)((char *)cpu + (off)))
#define SET32(off, value) (REG64(off) = (uint32_t)(value))

/* ---- faults: do not return; the engine's loop delivers ---- */
/* `i` is the instruction that faults: state must be as before it (registers unchanged). */
_Noreturn void cpu_raise(struct vcpu *cpu, const struct insn *i, int vector); /* no error code */
_Noreturn void cpu_raise_error(struct vcpu *cpu, const struct insn *i, int vector, uint32_t error);
#define RAISE_UD() cpu_raise(cpu, i, EXC_UD)
#define RAISE_GP() cpu_raise_error(cpu, i, EXC_GP, 0)

/* ---- addresses ---- */
uint64_t ea_slow(struct vcpu *cpu, const struct insn *i); /* without the segment base */
uint64_t linear_slow(struct vcpu *cpu, const struct insn *i, uint64_t offset, unsigned size,
                     bool write);
/* The same in a segment that is not that of the memory operand. */
uint64_t linear_in(struct vcpu *cpu, const struct insn *i, int segment, uint64_t offset,
                   unsigned size, bool write);

/* The effective address, without the segment base: what LEA gives (before truncation to the operand size). */
static inline uint64_t ea(struct vcpu *cpu, const struct insn *i)
{
    if (unlikely(i->flags & (INSN_ADDRESS32 | INSN_ADDRESS16 | INSN_RIPREL)))
        return ea_slow(cpu, i);
    return REG64(i->base) + (REG64(i->index) << i->scale) + (int64_t)i->disp;
}
/* The guest-linear address of the memory operand, checked against its segment where the mode has limits
 * (`size` bytes; `write`: for writing). Raises #GP or #SS. Canonicality is checked by the access itself. */
static inline uint64_t linear(struct vcpu *cpu, const struct insn *i, unsigned size, bool write)
{
    if (unlikely(i->flags & (INSN_EA | INSN_RIPREL)))
        return linear_slow(cpu, i, ea(cpu, i), size, write);
    return REG64(i->base) + (REG64(i->index) << i->scale) + (int64_t)i->disp +
           cpu->base[i->segment];
}

/* Guest memory has no alignment and no C type. */
typedef uint8_t memory8;
typedef uint16_t memory16 __attribute__((may_alias, aligned(1)));
typedef uint32_t memory32 __attribute__((may_alias, aligned(1)));
typedef uint64_t memory64 __attribute__((may_alias, aligned(1)));

/* ---- memory by guest-linear address, at the present privilege (vcpu.tlb) ---- */
/* Host address of [linear, linear + size) if one look finds it, else NULL: then use the _slow function. */
static inline void *host_read(const struct vcpu *cpu, uint64_t linear, unsigned size)
{
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(linear)];
    return likely(((linear + size - 1) & ~PAGE_OFFSET) == e->read) ? (void *)(linear + e->addend)
                                                                   : NULL;
}
static inline void *host_write(const struct vcpu *cpu, uint64_t linear, unsigned size)
{
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(linear)];
    return likely(((linear + size - 1) & ~PAGE_OFFSET) == e->write) ? (void *)(linear + e->addend)
                                                                    : NULL;
}

/* For the fastest functions, which keep to registers: where the address is not simple or the look misses, they tail-call
 * a slow sibling that begins again. */
static inline bool address_simple(const struct insn *i)
{
    return likely(!(i->flags & (INSN_EA | INSN_RIPREL)));
}
static inline uint64_t address_of(struct vcpu *cpu, const struct insn *i)
{
    return REG64(i->base) + (REG64(i->index) << i->scale) + (uint64_t)(int64_t)i->disp +
           cpu->base[i->segment];
}
static inline bool hit_read(const struct vcpu *cpu, uint64_t linear, unsigned size, uintptr_t *host)
{
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(linear)];
    *host = linear + e->addend;
    return likely(((linear + size - 1) & ~PAGE_OFFSET) == e->read);
}
static inline bool hit_write(const struct vcpu *cpu, uint64_t linear, unsigned size,
                             uintptr_t *host)
{
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(linear)];
    *host = linear + e->addend;
    return likely(((linear + size - 1) & ~PAGE_OFFSET) == e->write);
}
#define SLOW static const struct insn *__attribute__((noinline, cold))

/* Out of line, any case: raises #PF, #GP(0)/#SS(0) (not canonical), #AC; devices; page crossings; code. `i` is the
 * instruction (its segment decides between #GP and #SS). Sizes 1, 2, 4, 8. A store that faults stores nothing. */
uint64_t load_slow(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size);
void store_slow(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                uint64_t value);
/* Any number of bytes up to 4096 (FXSAVE, SSE operands, …); all or nothing as to faults. */
void load_bytes(struct vcpu *cpu, const struct insn *i, uint64_t linear, void *to, unsigned size);
void store_bytes(struct vcpu *cpu, const struct insn *i, uint64_t linear, const void *from,
                 unsigned size);
/* Raises what a write of [linear, linear + size) would, and changes nothing. */
void probe_write(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size);

/* Data breakpoints that the access meets (SDM 3B 17.2.4) wait for the end of the instruction. */
void check_watchpoints(struct vcpu *cpu, uint64_t linear, unsigned size, bool write);

/* Supervisor accesses that an instruction or event makes by itself (descriptor tables, TSS): CPL does not matter,
 * SMAP does, AC does not. Sizes 1 to 8. Faults are #PF with U clear, #GP(0) if not canonical. They are raised for vcpu.current: an
 * instruction stores itself there before its first one; outside of instructions it is NULL. */
uint64_t system_load(struct vcpu *cpu, uint64_t linear, unsigned size);
void system_store(struct vcpu *cpu, uint64_t linear, unsigned size, uint64_t value);

/* A value of 1, 2, 4 or 8 bytes in host memory, at any alignment. */
static inline uint64_t host_get(const void *from, unsigned size)
{
    switch (size) {
    case 1:
        return *(const memory8 *)from;
    case 2:
        return *(const memory16 *)from;
    case 4:
        return *(const memory32 *)from;
    default:
        return *(const memory64 *)from;
    }
}
static inline void host_put(void *to, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(memory8 *)to = (uint8_t)value;
        break;
    case 2:
        *(memory16 *)to = (uint16_t)value;
        break;
    case 4:
        *(memory32 *)to = (uint32_t)value;
        break;
    default:
        *(memory64 *)to = value;
    }
}

/* Fast or slow, for code that need not be the fastest. */
static inline uint64_t load(struct vcpu *cpu, const struct insn *i, uint64_t address, unsigned size)
{
    const void *host = host_read(cpu, address, size);
    return likely(host) ? host_get(host, size) : load_slow(cpu, i, address, size);
}
static inline void store(struct vcpu *cpu, const struct insn *i, uint64_t address, unsigned size,
                         uint64_t value)
{
    void *host = host_write(cpu, address, size);
    if (unlikely(!host))
        store_slow(cpu, i, address, size, value);
    else
        host_put(host, size, value);
}

/* Read-modify-write: a pointer to operate on, host memory itself or a copy that rmw_end writes back. The write
 * permission is checked first, so the operation between the two cannot fault. */
struct rmw {
    uint64_t linear;
    uint64_t copy;
    unsigned size;
    bool copied;
};
void *rmw_begin(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                struct rmw *rmw);
void rmw_end(struct vcpu *cpu, const struct insn *i, struct rmw *rmw);

/* ---- status flags ----
 * An operation runs as the host's own instruction and leaves its flags with LAHF and SETO:
 *     asm("addq %2, %0; lahf; seto %%al" : "+r"(d), "=a"(status) : "r"(s) : "cc"); cpu->status = status;
 * Flags that an instruction does not change must be put into the host's first (FLAGS_IN). */
#define FLAGS_OUT "lahf; seto %%al"
/* AL + 0x7f overflows exactly if AL = 1: sets OF; then SAHF loads the others. AX is consumed. */
#define FLAGS_IN  "addb $0x7f, %%al; sahf"
#define STATUS_CF 0x100u
#define STATUS_PF 0x400u
#define STATUS_AF 0x1000u
#define STATUS_ZF 0x4000u
#define STATUS_SF 0x8000u
#define STATUS_OF 0x1u

#endif
