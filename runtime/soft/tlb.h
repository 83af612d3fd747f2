/* SPDX-License-Identifier: MIT */
/* Paging: the walk, the TLB that remembers it, and who must be told when it changes (SDM 3A 4). */
#ifndef RUNTIME_SOFT_TLB_H
#define RUNTIME_SOFT_TLB_H

#include "runtime/vcpu.h"

struct insn;

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

/* Result of a walk. */
struct translation {
    uint64_t physical; /* of the linear address itself */
    uint32_t error;    /* if it faults: the page-fault error code */
    bool fault;
    bool not_canonical; /* with fault: #GP or #SS instead */
    bool readable, executable;
    bool writable; /* a write would hit too, with the dirty bit already set: may go into the TLB */
    bool device;   /* not RAM */
    bool global;
    uint8_t shift; /* log2 of the page's bytes */
};

/* Walks the page tables for one access in the way `mode` looks at memory; sets A and D bits as the processor does,
 * of all levels and only if the access is allowed.
 * With paging off linear is physical (truncated to 32 bits outside long mode).
 * Paging-structure entries outside RAM read as all ones, without asking the bus: page tables have no effect
 * on devices. In the 8-byte formats that is a reserved-bit fault. */
struct translation tlb_walk(struct vcpu *cpu, uint64_t linear, enum access access,
                            enum tlb_mode mode);
/* The same for a debugger: no faults, no A/D bits, kernel view. False if nothing is mapped. */
bool tlb_peek(struct vcpu *cpu, uint64_t linear, uint64_t *physical);

/* Walks and enters the page into the TLB (unless it is a device, holds a watchpoint, or, for writing, holds
 * decoded code). Raises the fault itself if there is one. Returns the physical address. */
uint64_t tlb_fill(struct vcpu *cpu, const struct insn *i, uint64_t linear, enum access access,
                  enum tlb_mode mode, bool *device);

/* Loads the PDPTE registers by CR3 (SDM 3A 4.4.1): to be called where PAE paging is in force after MOV to CR3, or
 * after MOV to CR0 or CR4 has turned it on or changed CR0.CD, NW, PG, CR4.PAE, PGE, PSE, SMEP; and by a task switch.
 * False, with nothing changed: a present one has reserved bits set (#GP(0)). Until the first call for a CR3 every
 * walk reads them from memory, and such an entry is a reserved-bit fault. */
bool tlb_load_pdptes(struct vcpu *cpu, uint64_t cr3);

/* After a change of CR0.WP: it says where the supervisor may write, and nothing else. */
void tlb_forget_writes(struct vcpu *cpu);
/* After a change of CR0.PG, CR4.PAE, PSE, PGE, SMEP, SMAP, PKE or PCIDE, EFER.NXE or LMA, PKRU, DR0-3 or DR7. */
void tlb_flush(struct vcpu *cpu); /* all, jump cache included */
/* MOV to CR3: keeps global pages. PCIDs are not told apart: bit 63 of the value changes nothing. */
void tlb_flush_nonglobal(struct vcpu *cpu);
void tlb_flush_page(struct vcpu *cpu, uint64_t linear); /* INVLPG (large pages: all of it) */
/* The page at host address `page` (of RAM) has got its first decoded code: no TLB of any vCPU may write to it fast. */
void tlb_protect_page(struct vm *vm, const uint8_t *page);

/* DR6 bits of the enabled data breakpoints (DR7) that an access to [linear, linear + length) meets. */
uint64_t tlb_watchpoints(const struct vcpu *cpu, uint64_t linear, uint64_t length, bool write);
/* Enters a block whose code was just fetched, the only way to fill the jump cache: so that a flush knows what to drop. */
void tlb_enter_jump(struct vcpu *cpu, struct jump_entry *entry, struct block *block);

/* A TLB none of whose entries ever hits: vcpu.tlb while alignment is checked. */
extern struct tlb_entry tlb_none[TLB_ENTRIES];

#endif
