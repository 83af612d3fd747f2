/* SPDX-License-Identifier: MIT */
/* The page walk in every paging mode (SDM 3A 4): a path down the structures, which collects what the entries say, and
 * the rights that follow from it for one way of looking at memory. Only an access that has the right sets A and D bits. */
#include "runtime/soft/tlb.h"

#include <string.h>

#include "runtime/soft/access.h"

#define PTE_P  0x1u
#define PTE_W  0x2u
#define PTE_U  0x4u
#define PTE_A  0x20u
#define PTE_D  0x40u
#define PTE_PS 0x80u
#define PTE_G  0x100u
#define PTE_NX (1ull << 63)

#define PHYSICAL_MASK   ((1ull << PHYSICAL_BITS) - 1)
#define ADDRESS_MASK    (PHYSICAL_MASK & ~PAGE_OFFSET)
#define BITS(high, low) ((2ull << (high)) - (1ull << (low)))
#define PAE_RESERVED    BITS(62, PHYSICAL_BITS) /* SDM 3A 4.4.2 */
#define LONG_RESERVED   BITS(51, PHYSICAL_BITS) /* SDM 3A 4.5 */
#define PDPTE_RESERVED  (BITS(63, PHYSICAL_BITS) | BITS(8, 5) | BITS(2, 1))

#define RIGHT(access) (1u << (access))

/* What the way down to a page says. */
struct path {
    uint8_t *entry[4]; /* host addresses of the entries with an A bit, leaf last; NULL: not RAM */
    unsigned count;
    uint64_t leaf;     /* the last one's value */
    uint64_t physical; /* of the linear address */
    uint8_t shift;     /* log2 of the page's bytes */
    bool present, reserved;
    uint64_t every, some; /* bits that all entries have, and that one has */
};

/* ---- the path ---- */

/* Takes the entry at guest-physical `at` into the path; what is not RAM reads as all ones. */
static inline uint64_t path_entry(const struct vcpu *cpu, struct path *path, uint64_t at,
                                  unsigned width)
{
    uint8_t *host = memory_at(&cpu->vm->memory, at, width);
    uint64_t value = width == 8 ? UINT64_MAX : UINT32_MAX;
    if (host)
        memcpy(&value, host, width);
    path->entry[path->count++] = host;
    path->leaf = value;
    path->every &= value;
    path->some |= value;
    return value;
}

/* True if the walk ends here: the entry is not present or has reserved bits. */
static bool path_ends(struct path *path, uint64_t entry, uint64_t reserved)
{
    path->present = entry & PTE_P;
    path->reserved = path->present && entry & reserved;
    return !path->present || path->reserved;
}

static void path_leaf(struct path *path, uint64_t base, uint64_t linear, unsigned shift)
{
    uint64_t offset = (1ull << shift) - 1;
    path->shift = (uint8_t)shift;
    path->physical = (base & ~offset) | (linear & offset);
}

/* 32-bit paging (SDM 3A 4.3), with PSE-36. */
static void path_32(const struct vcpu *cpu, uint64_t linear, struct path *path)
{
    uint64_t pde = path_entry(cpu, path, (cpu->cr3 & 0xfffff000) + (linear >> 22) * 4, 4);
    if (pde & PTE_PS && cpu->cr4 & CR4_PSE) {
        if (!path_ends(path, pde, BITS(21, 21)))
            path_leaf(path, (pde & 0xffc00000) | (pde >> 13 & 0xff) << 32, linear, 22);
        return;
    }
    if (path_ends(path, pde, 0))
        return;
    uint64_t pte = path_entry(cpu, path, (pde & 0xfffff000) + (linear >> 12 & 0x3ff) * 4, 4);
    if (!path_ends(path, pte, 0))
        path_leaf(path, pte, linear, 12);
}

/* Levels of 512 entries of 8 bytes, from the one that covers 2^shift bytes an entry down. */
static void path_levels(const struct vcpu *cpu, uint64_t table, uint64_t linear, unsigned shift,
                        uint64_t always_reserved, struct path *path)
{
    if (!(cpu->efer & EFER_NXE))
        always_reserved |= PTE_NX;
    for (;; shift -= 9) {
        uint64_t entry = path_entry(cpu, path, table + (linear >> shift & 0x1ff) * 8, 8);
        bool large = entry & PTE_PS && shift > 12;
        uint64_t reserved = always_reserved;
        if (large)
            reserved |= shift == 39 ? PTE_PS : BITS(shift - 1, 13);
        if (path_ends(path, entry, reserved))
            return;
        if (large || shift == 12) {
            path_leaf(path, entry & ADDRESS_MASK, linear, shift);
            return;
        }
        table = entry & ADDRESS_MASK;
    }
}

static bool pdptes_read(const struct vcpu *cpu, uint64_t cr3, uint64_t pdpte[4])
{
    const uint8_t *host = memory_at(&cpu->vm->memory, cr3 & 0xffffffe0, 32);
    bool good = true;
    memset(pdpte, 0xff, 32);
    if (host)
        memcpy(pdpte, host, 32);
    for (unsigned n = 0; n < 4; n++)
        good &= !(pdpte[n] & PTE_P && pdpte[n] & PDPTE_RESERVED);
    return good;
}

bool tlb_load_pdptes(struct vcpu *cpu, uint64_t cr3)
{
    uint64_t pdpte[4];
    if (!pdptes_read(cpu, cr3, pdpte))
        return false;
    memcpy(cpu->pdpte, pdpte, sizeof pdpte);
    cpu->pdpte_from = (cr3 & 0xffffffff) + 1;
    return true;
}

/* PAE paging (SDM 3A 4.4). The PDPTE registers have no A, R/W and U/S bits. */
static void path_pae(const struct vcpu *cpu, uint64_t linear, struct path *path)
{
    uint64_t pdpte[4];
    memcpy(pdpte, cpu->pdpte, sizeof pdpte);
    if (cpu->pdpte_from != (cpu->cr3 & 0xffffffff) + 1)
        pdptes_read(cpu, cpu->cr3, pdpte);
    uint64_t entry = pdpte[linear >> 30 & 3];
    if (!path_ends(path, entry, PDPTE_RESERVED))
        path_levels(cpu, entry & ADDRESS_MASK, linear, 21, PAE_RESERVED, path);
}

static void path_find(const struct vcpu *cpu, uint64_t linear, struct path *path)
{
    path->count = 0;
    path->every = ~0ull;
    path->some = 0;
    if (vcpu_long_mode(cpu))
        path_levels(cpu, cpu->cr3 & ADDRESS_MASK, linear, 39, LONG_RESERVED, path);
    else if (cpu->cr4 & CR4_PAE)
        path_pae(cpu, linear, path);
    else
        path_32(cpu, linear, path);
}

/* ---- rights ---- */

/* RIGHT() of the accesses that the protection key forbids (SDM 3A 4.6.2): data in user pages, in long mode. */
static unsigned key_forbids(const struct vcpu *cpu, const struct path *path, bool write_protect)
{
    if (!(cpu->cr4 & CR4_PKE) || !vcpu_long_mode(cpu) || !(path->every & PTE_U))
        return 0;
    unsigned pair = cpu->pkru >> (path->leaf >> 59 & 15) * 2 & 3;
    if (pair & 1)
        return RIGHT(ACCESS_READ) | RIGHT(ACCESS_WRITE);
    return pair & 2 && write_protect ? RIGHT(ACCESS_WRITE) : 0;
}

/* RIGHT() of the accesses that the path's mode bits allow (SDM 3A 4.6.1). */
static unsigned bits_allow(const struct vcpu *cpu, const struct path *path, enum tlb_mode mode,
                           bool write_protect)
{
    bool supervisor = mode != TLB_USER, user_page = path->every & PTE_U;
    if (!supervisor && !user_page)
        return 0;
    unsigned rights = RIGHT(ACCESS_READ);
    if (path->every & PTE_W || !write_protect)
        rights |= RIGHT(ACCESS_WRITE);
    if (supervisor && user_page && mode == TLB_KERNEL && cpu->cr4 & CR4_SMAP)
        rights = 0;
    if (!(path->some & PTE_NX) && !(supervisor && user_page && cpu->cr4 & CR4_SMEP))
        rights |= RIGHT(ACCESS_FETCH);
    return rights;
}

/* The error code (SDM 3A 4.7) but for PF_PRESENT, PF_RESERVED and PF_KEY. */
static uint32_t error_code(const struct vcpu *cpu, enum access access, enum tlb_mode mode)
{
    uint32_t error = 0;
    if (access == ACCESS_WRITE)
        error |= PF_WRITE;
    if (mode == TLB_USER)
        error |= PF_USER;
    if (access == ACCESS_FETCH &&
        ((cpu->cr4 & CR4_PAE && cpu->efer & EFER_NXE) || cpu->cr4 & CR4_SMEP))
        error |= PF_FETCH;
    return error;
}

/* ---- the walk ---- */

static void mark_entry(struct memory *memory, uint8_t *entry, uint8_t bits)
{
    if (!entry || (*entry & bits) == bits)
        return;
    *entry |= bits;
    if (memory->code_lines[memory_page_index(memory, entry)])
        memory_written(memory, memory_physical(memory, entry), 1);
}

static void mark_path(struct vcpu *cpu, const struct path *path, bool write)
{
    struct memory *memory = &cpu->vm->memory;
    if (likely(path->every & PTE_A && (!write || path->leaf & PTE_D)))
        return;
    for (unsigned n = 0; n + 1 < path->count; n++)
        mark_entry(memory, path->entry[n], PTE_A);
    mark_entry(memory, path->entry[path->count - 1], write ? PTE_A | PTE_D : PTE_A);
}

static bool canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << (64 - LINEAR_BITS)) >> (64 - LINEAR_BITS)) == linear;
}

static bool is_device(const struct vcpu *cpu, uint64_t physical)
{
    return !memory_at(&cpu->vm->memory, physical & ~PAGE_OFFSET, PAGE_SIZE);
}

struct translation tlb_walk(struct vcpu *cpu, uint64_t linear, enum access access,
                            enum tlb_mode mode)
{
    struct translation t = {0};
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    if (!(cpu->cr0 & CR0_PG)) {
        t = (struct translation){.physical = linear & PHYSICAL_MASK,
                                 .readable = true,
                                 .writable = true,
                                 .executable = true,
                                 .shift = 12};
        t.device = is_device(cpu, t.physical);
        return t;
    }
    if (vcpu_long_mode(cpu) && !canonical(linear)) {
        t.fault = t.not_canonical = true;
        return t;
    }

    struct path path;
    path_find(cpu, linear, &path);
    t.error = error_code(cpu, access, mode);
    if (!path.present || path.reserved) {
        t.error |= path.present ? PF_PRESENT | PF_RESERVED : 0;
        t.fault = true;
        return t;
    }
    bool write_protect = mode == TLB_USER || cpu->cr0 & CR0_WP;
    unsigned forbidden = key_forbids(cpu, &path, write_protect);
    unsigned rights = bits_allow(cpu, &path, mode, write_protect) & ~forbidden;
    if (!(rights & RIGHT(access))) {
        t.error |= PF_PRESENT | (forbidden & RIGHT(access) ? PF_KEY : 0);
        t.fault = true;
        return t;
    }
    mark_path(cpu, &path, access == ACCESS_WRITE);
    t.error = 0;
    t.physical = path.physical;
    t.readable = rights & RIGHT(ACCESS_READ);
    t.writable = rights & RIGHT(ACCESS_WRITE) && (access == ACCESS_WRITE || path.leaf & PTE_D);
    t.executable = rights & RIGHT(ACCESS_FETCH);
    t.global = path.leaf & PTE_G && cpu->cr4 & CR4_PGE;
    t.shift = path.shift;
    t.device = is_device(cpu, t.physical);
    return t;
}

bool tlb_peek(struct vcpu *cpu, uint64_t linear, uint64_t *physical)
{
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    if (!(cpu->cr0 & CR0_PG)) {
        *physical = linear & PHYSICAL_MASK;
        return true;
    }
    if (vcpu_long_mode(cpu) && !canonical(linear))
        return false;
    struct path path;
    path_find(cpu, linear, &path);
    if (!path.present || path.reserved)
        return false;
    *physical = path.physical;
    return true;
}
