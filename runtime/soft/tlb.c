/* The page walk in every paging mode, and the TLB that remembers it (SDM 3A 4).
 *
 * A walk has two halves: a path down the structures, which collects what the entries say, and the
 * rights that follow from it for one way of looking at memory. Only an access that has the right sets A and D bits. */
#include "runtime/soft/tlb.h"

#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/soft/access.h"
#include "runtime/translator/fast.h"

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

_Static_assert(TLB_MODES *TLB_ENTRIES / 64 <= 64, "a bit for each word of the bitmaps");
_Static_assert(JUMP_CACHE_ENTRIES / 64 <= 64, "a bit for each word of the bitmaps");

struct tlb_entry tlb_none[TLB_ENTRIES] = {
    [0 ... TLB_ENTRIES - 1] = {TLB_INVALID, TLB_INVALID, TLB_INVALID, 0}};

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

/* ---- the TLB ---- */

uint64_t tlb_watchpoints(const struct vcpu *cpu, uint64_t linear, uint64_t length, bool write)
{
    static const uint8_t bytes[4] = {1, 2, 8, 4}; /* by LENn (SDM 3B 17.2.4) */
    uint64_t hits = 0;
    for (unsigned n = 0; n < 4; n++) {
        unsigned control = cpu->dr[7] >> (16 + 4 * n) & 15;
        uint64_t size = bytes[control >> 2];
        uint64_t first = cpu->dr[n] & ~(size - 1);
        bool enabled = cpu->dr[7] >> 2 * n & 3;
        bool matches = (control & 3) == 3 || ((control & 3) == 1 && write);
        if (enabled && matches && (first - linear < length || linear - first < size))
            hits |= 1ull << n;
    }
    return hits;
}

static inline struct tlb_entry *slot_of(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear)
{
    return &cpu->tlb_table[mode][tlb_slot(linear)];
}

/* The page that an entry is for, or TLB_INVALID. */
static inline uint64_t page_of(const struct tlb_entry *e)
{
    return e->read != TLB_INVALID    ? e->read
           : e->fetch != TLB_INVALID ? e->fetch
                                     : e->write & ~(uint64_t)TLB_CODED;
}

/* Puts an entry into the slot of its page; the page that was there becomes a victim. */
static void put(struct vcpu *cpu, uint64_t page, enum tlb_mode mode, struct tlb_entry entry,
                bool global)
{
    struct tlb_entry *e = slot_of(cpu, mode, page);
    unsigned slot = tlb_slot(page);
    uint64_t bit = 1ull << slot % 64;
    uint64_t *local_word = &cpu->tlb_local[mode][slot / 64];
    uint64_t *global_word = &cpu->tlb_global[mode][slot / 64];
    uint64_t old = page_of(e);
    fast_forget_page(cpu, mode, page);
    if (old != TLB_INVALID)
        fast_forget_page(cpu, mode, old);
    if (old != TLB_INVALID && old != page) {
        struct tlb_victims *victims = &cpu->victims;
        unsigned n = victims->next++ % TLB_VICTIMS;
        victims->key[n] = old | TLB_VICTIM | mode;
        victims->entry[n] = *e;
        victims->global[n] = *global_word & bit;
    }
    *e = entry;
    *local_word = global ? *local_word & ~bit : *local_word | bit;
    *global_word = global ? *global_word | bit : *global_word & ~bit;
    *(global ? &cpu->tlb_words_global : &cpu->tlb_words_local) |=
        1ull << (mode * (TLB_ENTRIES / 64) + slot / 64);
}

/* Brings a victim that allows the access back into its slot. */
static bool victim_returns(struct vcpu *cpu, uint64_t linear, enum access access,
                           enum tlb_mode mode, uint64_t *physical)
{
    struct tlb_victims *victims = &cpu->victims;
    uint64_t page = linear & ~PAGE_OFFSET;
    for (unsigned n = 0; n < TLB_VICTIMS; n++) {
        if (victims->key[n] != (page | TLB_VICTIM | mode))
            continue;
        struct tlb_entry entry = victims->entry[n];
        uint64_t hits = access == ACCESS_READ    ? entry.read
                        : access == ACCESS_FETCH ? entry.fetch
                                                 : entry.write & ~(uint64_t)TLB_CODED;
        victims->key[n] = 0;
        if (hits != page)
            return false;
        victims->next = n; /* its place is free for the one that it displaces */
        put(cpu, page, mode, entry, victims->global[n]);
        *physical = memory_physical(&cpu->vm->memory, (uint8_t *)(linear + entry.addend));
        return true;
    }
    return false;
}

static void drop_victims(struct vcpu *cpu)
{
    memset(cpu->victims.key, 0, sizeof cpu->victims.key);
}

static void enter(struct vcpu *cpu, uint64_t linear, enum tlb_mode mode,
                  const struct translation *t)
{
    struct memory *memory = &cpu->vm->memory;
    uint64_t page = linear & ~PAGE_OFFSET;
    uint8_t *host = memory_at(memory, t->physical & ~PAGE_OFFSET, PAGE_SIZE);
    if (!host)
        return;
    bool watched = (cpu->dr[7] & 0xff && tlb_watchpoints(cpu, page, PAGE_SIZE, true)) ||
                   (cpu->vm->breakpoints && watchpoint_in_page(cpu->vm, page));
    bool coded = memory->code_lines[memory_page_index(memory, host)];
    struct tlb_entry entry = {
        .read = t->readable && !watched ? page : TLB_INVALID,
        .write = t->writable && !watched ? page | (coded ? TLB_CODED : 0) : TLB_INVALID,
        .fetch = t->executable ? page : TLB_INVALID,
        .addend = (uintptr_t)host - page,
    };
    put(cpu, page, mode, entry, t->global);
    if (t->shift == 21)
        cpu->tlb_large[linear >> 63] |= 1ull << (linear >> 21 & 63);
    else if (t->shift > 21)
        cpu->tlb_huge[linear >> 63] |= 1ull << (linear >> 30 & 63);
}

static _Noreturn void raise_translation(struct vcpu *cpu, const struct insn *i, uint64_t linear,
                                        const struct translation *t)
{
    if (t->not_canonical)
        cpu_raise_error(cpu, i, i && i->segment == SEG_SS ? EXC_SS : EXC_GP, 0);
    cpu->fault.cr2 = linear;
    cpu_raise_error(cpu, i, EXC_PF, t->error);
}

uint64_t tlb_fill(struct vcpu *cpu, const struct insn *i, uint64_t linear, enum access access,
                  enum tlb_mode mode, bool *device)
{
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    uint64_t physical;
    if (victim_returns(cpu, linear, access, mode, &physical)) {
        *device = false;
        return physical;
    }
    struct translation t = tlb_walk(cpu, linear, access, mode);
    if (unlikely(t.fault))
        raise_translation(cpu, i, linear, &t);
    *device = t.device;
    if (!t.device)
        enter(cpu, linear, mode, &t);
    return t.physical;
}

/* ---- forgetting ---- */

/* Translated code must not find the page of this entry any more. */
static inline void forget(struct vcpu *cpu, const struct tlb_entry *e)
{
    fast_forget_page(cpu, (unsigned)(e - cpu->tlb_table[0]) / TLB_ENTRIES, page_of(e));
}

static inline void drop(struct vcpu *cpu, struct tlb_entry *e)
{
    forget(cpu, e);
    e->read = e->write = e->fetch = TLB_INVALID;
}

/* Drops the entries that the bitmap names, in all modes, and empties it: the words that `words` names. */
static void drop_all(struct vcpu *cpu, uint64_t *bitmap, uint64_t *words)
{
    struct tlb_entry *table = cpu->tlb_table[0];
    for (; *words; *words &= *words - 1) {
        unsigned word = (unsigned)__builtin_ctzll(*words);
        for (uint64_t left = bitmap[word]; left; left &= left - 1)
            drop(cpu, &table[word * 64 + (unsigned)__builtin_ctzll(left)]);
        bitmap[word] = 0;
    }
}

/* The low bits of a tag are those of RIP. */
static inline void drop_jump(struct vcpu *cpu, struct jump_entry *entry)
{
    fast_forget_rip(cpu, entry->tag);
    entry->tag = 0;
}

static void drop_jumps(struct vcpu *cpu, uint64_t *bitmap, uint64_t *words, uint64_t *pages)
{
    if (*words)
        memset(pages, 0, JUMP_PAGES / 8);
    for (; *words; *words &= *words - 1) {
        unsigned word = (unsigned)__builtin_ctzll(*words);
        for (uint64_t left = bitmap[word]; left; left &= left - 1)
            drop_jump(cpu, &cpu->jump_cache[word * 64 + (unsigned)__builtin_ctzll(left)]);
        bitmap[word] = 0;
    }
}

void tlb_flush_nonglobal(struct vcpu *cpu)
{
    drop_all(cpu, cpu->tlb_local[0], &cpu->tlb_words_local);
    drop_victims(cpu);
    drop_jumps(cpu, cpu->jump_local, &cpu->jump_words_local, cpu->jump_pages_local);
}

void tlb_flush(struct vcpu *cpu)
{
    drop_all(cpu, cpu->tlb_global[0], &cpu->tlb_words_global);
    memset(cpu->tlb_large, 0, sizeof cpu->tlb_large);
    memset(cpu->tlb_huge, 0, sizeof cpu->tlb_huge);
    drop_jumps(cpu, cpu->jump_global, &cpu->jump_words_global, cpu->jump_pages_global);
    tlb_flush_nonglobal(cpu);
}

static void forget_write(struct vcpu *cpu, struct tlb_entry *e)
{
    forget(cpu, e);
    e->write = TLB_INVALID;
}

void tlb_forget_writes(struct vcpu *cpu)
{
    const unsigned words_of_mode = TLB_ENTRIES / 64;
    _Static_assert(TLB_KERNEL == 0 && TLB_KERNEL_AC == 1, "the supervisor's tables come first");
    uint64_t words =
        (cpu->tlb_words_local | cpu->tlb_words_global) & ((1ull << 2 * words_of_mode) - 1);
    struct tlb_entry *table = cpu->tlb_table[0];
    const uint64_t *local = cpu->tlb_local[0], *global = cpu->tlb_global[0];
    for (; words; words &= words - 1) {
        unsigned word = (unsigned)__builtin_ctzll(words);
        for (uint64_t used = local[word] | global[word]; used; used &= used - 1)
            forget_write(cpu, &table[word * 64 + (unsigned)__builtin_ctzll(used)]);
    }
    drop_victims(cpu);
}

/* Drops the entry if it is for a linear address in [first, first + length). */
static void drop_inside(struct vcpu *cpu, struct tlb_entry *e, uint64_t first, uint64_t length)
{
    if (e->read - first < length || e->write - first < length || e->fetch - first < length)
        drop(cpu, e);
}

/* All of the 2^shift bytes around `linear`, in all modes. */
static void drop_region(struct vcpu *cpu, uint64_t linear, unsigned shift)
{
    uint64_t first = linear >> shift << shift;
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        for (unsigned word = 0; word < TLB_ENTRIES / 64; word++) {
            struct tlb_entry *table = &cpu->tlb_table[mode][word * 64];
            uint64_t used = cpu->tlb_local[mode][word] | cpu->tlb_global[mode][word];
            for (; used; used &= used - 1)
                drop_inside(cpu, &table[__builtin_ctzll(used)], first, 1ull << shift);
        }
}

static uint64_t page_bit(uint64_t linear)
{
    return 1ull << (linear >> PAGE_SHIFT & 63);
}
static unsigned page_word(uint64_t linear)
{
    return linear >> (PAGE_SHIFT + 6) & (JUMP_PAGES / 64 - 1);
}

static bool may_jump_to(const struct vcpu *cpu, uint64_t linear)
{
    unsigned word = page_word(linear);
    return (cpu->jump_pages_local[word] | cpu->jump_pages_global[word]) & page_bit(linear);
}

/* A block that goes on in the next page is as local as that may be. */
void tlb_enter_jump(struct vcpu *cpu, struct jump_entry *entry, struct block *block)
{
    uint64_t page = cpu->rip & ~PAGE_OFFSET;
    unsigned slot = tlb_slot(cpu->rip);
    bool global = !block->crosses && cpu->tlb_table[cpu->mode][slot].fetch == page &&
                  cpu->tlb_global[cpu->mode][slot / 64] >> slot % 64 & 1;
    unsigned index = (unsigned)(entry - cpu->jump_cache);
    uint64_t bit = 1ull << index % 64;
    uint64_t *local_word = &cpu->jump_local[index / 64];
    uint64_t *global_word = &cpu->jump_global[index / 64];
    *local_word = global ? *local_word & ~bit : *local_word | bit;
    *global_word = global ? *global_word | bit : *global_word & ~bit;
    *(global ? &cpu->jump_words_global : &cpu->jump_words_local) |= 1ull << index / 64;
    (global ? cpu->jump_pages_global : cpu->jump_pages_local)[page_word(page)] |= page_bit(page);
    fast_forget_rip(cpu, entry->tag);
    *entry = (struct jump_entry){cpu->rip ^ block->key, block};
}

/* Blocks that begin in [first, first + 2^shift), and in the page before it: their last instruction may end in it.
 * Bits 48-54 of the tags hold the mode: they are left out, for too much may go. */
static void drop_jumps_to(struct vcpu *cpu, uint64_t linear, unsigned shift)
{
    if (shift == PAGE_SHIFT && !may_jump_to(cpu, linear) && !may_jump_to(cpu, linear - PAGE_SIZE))
        return;
    const uint64_t mask = (1ull << LINEAR_BITS) - 1;
    uint64_t first = (linear >> shift << shift) - PAGE_SIZE;
    uint64_t length = (1ull << shift) + PAGE_SIZE;
    for (unsigned word = 0; word < JUMP_CACHE_ENTRIES / 64; word++) {
        struct jump_entry *entry = &cpu->jump_cache[word * 64];
        uint64_t used = cpu->jump_local[word] | cpu->jump_global[word];
        for (; used; used &= used - 1) {
            struct jump_entry *jump = &entry[__builtin_ctzll(used)];
            if (((jump->tag - first) & mask) < length)
                drop_jump(cpu, jump);
        }
    }
}

void tlb_flush_page(struct vcpu *cpu, uint64_t linear)
{
    unsigned shift = PAGE_SHIFT;
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    if (cpu->tlb_huge[linear >> 63] >> (linear >> 30 & 63) & 1)
        shift = 30;
    else if (cpu->tlb_large[linear >> 63] >> (linear >> 21 & 63) & 1)
        shift = 21;
    if (shift > PAGE_SHIFT)
        drop_region(cpu, linear, shift);
    else
        for (unsigned mode = 0; mode < TLB_MODES; mode++)
            drop_inside(cpu, slot_of(cpu, mode, linear), linear & ~PAGE_OFFSET, PAGE_SIZE);
    drop_victims(cpu);
    drop_jumps_to(cpu, linear, shift);
}

void tlb_protect_page(struct vm *vm, const uint8_t *page)
{
    for (unsigned v = 0; v < vm->vcpu_count; v++) {
        struct tlb_entry *e = vm->vcpus[v]->tlb_table[0];
        for (unsigned n = 0; n < TLB_MODES * TLB_ENTRIES; n++, e++)
            if (e->write + e->addend == (uintptr_t)page) {
                forget(vm->vcpus[v], e);
                e->write |= TLB_CODED;
            }
        drop_victims(vm->vcpus[v]);
    }
}
