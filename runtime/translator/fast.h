/* SPDX-License-Identifier: MIT */
/* What translated code looks into by itself: guest pages that need no more than one look, and where guest RIPs are
 * translated. Both hold less than what the interpreter has in vcpu.tlb_table, vcpu.victims and vcpu.jump_cache, never
 * more: whatever leaves those is forgotten here (soft/tlb.c).
 *
 * The tables stand at a fixed distance behind the vCPU, for translated code names both from the same register. They
 * have an entry for each value of 16 address bits, so that code can index them without touching a flag (MOVZX);
 * only what is used takes memory. */
#ifndef RUNTIME_TRANSLATOR_FAST_H
#define RUNTIME_TRANSLATOR_FAST_H

#include "runtime/vcpu.h"

#define FAST_SLOTS 65536u

enum fast_mode { FAST_KERNEL, FAST_USER, FAST_MODES };
enum fast_access { FAST_READ, FAST_WRITE, FAST_ACCESSES };

struct fast {
    /* Minus the linear address of the page that may be accessed: added to an address, it leaves the offset in the
     * page. */
    uint64_t page[FAST_MODES][FAST_ACCESSES][FAST_SLOTS];
    uint64_t addend[FAST_MODES][FAST_SLOTS]; /* host address = linear address + addend */
    /* by the low bits of RIP: minus that RIP, and its code */
    uint64_t rip[FAST_MODES][FAST_SLOTS];
    const void *code[FAST_MODES][FAST_SLOTS];
};

static inline unsigned fast_page_slot(uint64_t linear)
{
    return (uint16_t)(linear >> 12);
}

/* An empty slot holds what no access that comes to it matches: zero stands for page 0, to which accesses come in slot 0
 * and, where they end in the next page, in slot 1. */
static inline uint64_t fast_no_page(unsigned slot)
{
    return slot < 2 ? -(uint64_t)0x5000 : 0;
}
static inline uint64_t fast_no_rip(unsigned slot)
{
    return slot == 0;
}

/* The table that answers in this mode, or FAST_MODES if none does. */
static inline unsigned fast_mode(unsigned mode)
{
    return mode == TLB_KERNEL ? FAST_KERNEL : mode == TLB_USER ? FAST_USER : FAST_MODES;
}

static inline void fast_forget_page(struct vcpu *cpu, unsigned mode, uint64_t linear)
{
    unsigned slot = fast_page_slot(linear), table = fast_mode(mode);
    if (!cpu->fast || table == FAST_MODES)
        return;
    cpu->fast->page[table][FAST_READ][slot] = fast_no_page(slot);
    cpu->fast->page[table][FAST_WRITE][slot] = fast_no_page(slot);
}

static inline void fast_forget_rip(struct vcpu *cpu, uint64_t rip)
{
    unsigned slot = (uint16_t)rip;
    if (!cpu->fast)
        return;
    cpu->fast->rip[FAST_KERNEL][slot] = fast_no_rip(slot);
    cpu->fast->rip[FAST_USER][slot] = fast_no_rip(slot);
}

/* Room for a vCPU and its tables, with a stack for signal handlers below it; all zero but for the tables,
 * which are empty. NULL: no memory. */
struct vcpu *fast_allocate(void);
void fast_release(struct vcpu *cpu);
/* Forgets everything. */
void fast_clear(struct vcpu *cpu);

#endif
