/* Paging: the walk, the TLB that remembers it, and who must be told when it changes (SDM 3A 4). */
#ifndef RUNTIME_SOFT_TLB_H
#define RUNTIME_SOFT_TLB_H

#include "runtime/vcpu.h"

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

/* Result of a walk. */
struct translation {
    uint64_t physical; /* of the linear address itself */
    uint32_t error;    /* if it faults: the page-fault error code */
    bool fault;
    bool not_canonical; /* #GP or #SS instead */
    bool writable; /* a write would hit too, with the dirty bit already set: may go into the TLB */
    bool device;   /* not RAM */
};

/* Walks the page tables for one access in the way `mode` looks at memory; sets A and D bits as the processor does.
 * With paging off linear is physical (truncated to 32 bits outside long mode). */
struct translation tlb_walk(struct vcpu *cpu, uint64_t linear, enum access access,
                            enum tlb_mode mode);
/* The same for a debugger: no faults, no A/D bits, kernel view. False if nothing is mapped. */
bool tlb_peek(struct vcpu *cpu, uint64_t linear, uint64_t *physical);

/* Walks and enters the page into the TLB (unless it is a device, holds a watchpoint, or, for writing, holds
 * decoded code). Raises the fault itself if there is one. Returns the physical address. */
uint64_t tlb_fill(struct vcpu *cpu, const struct insn *i, uint64_t linear, enum access access,
                  enum tlb_mode mode, bool *device);

void tlb_flush(struct vcpu *cpu);                       /* all, jump cache included */
void tlb_flush_page(struct vcpu *cpu, uint64_t linear); /* INVLPG (large pages: all of it) */
/* The page at host address `page` (of RAM) has got its first decoded code: no TLB of any vCPU may write to it fast. */
void tlb_protect_page(struct vm *vm, const uint8_t *page);

#endif
