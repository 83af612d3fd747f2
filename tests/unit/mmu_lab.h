/* SPDX-License-Identifier: MIT */
/* A vCPU with memory, a bus with one device and page tables to build: what the tests of the memory path stand on.
 *
 * Include it before <cmocka.h>, which has a macro of the name fail. */
#ifndef TESTS_MMU_LAB_H
#define TESTS_MMU_LAB_H

#include "runtime/soft/access.h"
#include "runtime/soft/tlb.h"

#define MMU_LAB_RAM    0x800000u      /* bytes, from guest-physical 0 */
#define MMU_LAB_TABLES 0x10000u       /* first page that mmu_lab_map takes for tables */
#define MMU_LAB_ROOT   MMU_LAB_TABLES /* what CR3 holds */
#define MMU_LAB_DEVICE 0xd0000000u    /* guest-physical: 8 KiB of device registers */

#define PTE_P  0x1ull
#define PTE_W  0x2ull
#define PTE_U  0x4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_PS 0x80ull
#define PTE_G  0x100ull
#define PTE_NX (1ull << 63)

enum mmu_lab_paging { MMU_LAB_OFF, MMU_LAB_32, MMU_LAB_PAE, MMU_LAB_LONG };

struct mmu_lab_access { /* one the device saw */
    bool write;
    uint64_t offset, value;
    unsigned width;
};

struct mmu_lab {
    struct vm vm;
    struct vcpu *cpu;
    enum mmu_lab_paging paging;
    uint64_t next_table; /* guest-physical */
    uint8_t registers[0x2000];
    struct mmu_lab_access seen[32];
    unsigned seen_count;
    /* what memory_written found in marked lines */
    uint64_t changed_at, changed_length;
    unsigned changes;
    struct block *block; /* with three instructions; cpu->block */
};

/* 64-bit code at CPL 0 with paging (MMU_LAB_32, MMU_LAB_PAE: 32-bit code), WP and NXE set, nothing mapped. */
struct mmu_lab *mmu_lab_create(enum mmu_lab_paging paging);
void mmu_lab_free(struct mmu_lab *lab);
void mmu_lab_user(struct mmu_lab *lab, bool user); /* CPL 3 or 0 */

/* Maps 2^shift bytes at `linear` to `physical`: `leaf` are the flags of the last entry, `upper` those of all above it.
 * Returns the host address of the leaf entry. Tables are shared and made as needed. */
void *mmu_lab_map(struct mmu_lab *lab, uint64_t linear, uint64_t physical, unsigned shift,
                  uint64_t leaf, uint64_t upper);
/* The entry of `level` (1 = 4 KiB page table) on the way to `linear`, or NULL. */
void *mmu_lab_entry(struct mmu_lab *lab, uint64_t linear, unsigned level);
void *mmu_lab_at(struct mmu_lab *lab, uint64_t physical);

/* The vector that a statement raises, or -1. */
#define MMU_LAB_CATCH(lab, statement)                                                              \
    ({                                                                                             \
        (lab)->cpu->fault.vector = -1;                                                             \
        if (!setjmp((lab)->cpu->unwind)) {                                                         \
            statement;                                                                             \
        }                                                                                          \
        (lab)->cpu->fault.vector;                                                                  \
    })

/* Rights of the upper levels that leave everything to the last one. */
#define MMU_LAB_UPPER (PTE_P | PTE_W | PTE_U)

/* With the rights of the vCPU's mode: by the page tables alone; through the TLB, which returns the physical address or
 * raises. */
static inline struct translation mmu_lab_walk(struct mmu_lab *lab, uint64_t linear,
                                              enum access access)
{
    return tlb_walk(lab->cpu, linear, access, lab->cpu->mode);
}

static inline uint64_t mmu_lab_fill(struct mmu_lab *lab, uint64_t linear, enum access access)
{
    bool device;
    return tlb_fill(lab->cpu, NULL, linear, access, lab->cpu->mode, &device);
}

#endif
