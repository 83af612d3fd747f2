/* SPDX-License-Identifier: MIT */
/* The TLB and the jump cache: what is entered, and what is forgotten when. */
#include "runtime/soft/tlb.h"

#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/soft/access.h"
#include "runtime/translator/fast.h"

_Static_assert(TLB_MODES *TLB_ENTRIES / 64 <= 64, "a bit for each word of the bitmaps");
_Static_assert(JUMP_CACHE_ENTRIES % 4096 == 0, "a bit for each word of the bitmaps");

struct tlb_entry tlb_none[TLB_ENTRIES] = {
    [0 ... TLB_ENTRIES - 1] = {TLB_INVALID, TLB_INVALID, TLB_INVALID, 0}};

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

/* It is one no more: translated code must not find its page any more. */
static void forget_victim(struct vcpu *cpu, unsigned n)
{
    uint64_t key = cpu->victims.key[n];
    if (key)
        fast_forget_page(cpu, key & (TLB_VICTIM - 1), key & ~PAGE_OFFSET);
    cpu->victims.key[n] = 0;
}

/* Puts an entry into the slot of its page; the page that was there becomes a victim, which translated code goes on to
 * find: two pages that share a slot are both found there. */
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
    /* Translated code does not say when it uses a victim, so that another one may go first than in the interpreter. Only a
     * guest that changes page tables without a flush can see it; lockstep would. */
    if (old != TLB_INVALID && cpu->vm->config.lockstep)
        fast_forget_page(cpu, mode, old);
    if (old != TLB_INVALID && old != page) {
        struct tlb_victims *victims = &cpu->victims;
        unsigned n = victims->next++ % TLB_VICTIMS;
        forget_victim(cpu, n);
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
        forget_victim(cpu, n);
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
    for (unsigned n = 0; n < TLB_VICTIMS; n++)
        forget_victim(cpu, n);
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

/* Drops what the bitmap names and empties it; `summary` has a bit for each of its words. */
static void drop_jumps(struct vcpu *cpu, uint64_t *bitmap, uint64_t *summary, uint64_t *pages)
{
    bool any = false;
    for (unsigned part = 0; part < JUMP_CACHE_ENTRIES / 4096; part++)
        for (; summary[part]; summary[part] &= summary[part] - 1) {
            unsigned word = part * 64 + (unsigned)__builtin_ctzll(summary[part]);
            for (uint64_t left = bitmap[word]; left; left &= left - 1)
                drop_jump(cpu, &cpu->jump_cache[word * 64 + (unsigned)__builtin_ctzll(left)]);
            bitmap[word] = 0;
            any = true;
        }
    if (any)
        memset(pages, 0, JUMP_PAGES / 8);
}

void tlb_flush_nonglobal(struct vcpu *cpu)
{
    drop_all(cpu, cpu->tlb_local[0], &cpu->tlb_words_local);
    drop_victims(cpu);
    drop_jumps(cpu, cpu->jump_local, cpu->jump_words_local, cpu->jump_pages_local);
}

void tlb_flush(struct vcpu *cpu)
{
    drop_all(cpu, cpu->tlb_global[0], &cpu->tlb_words_global);
    memset(cpu->tlb_large, 0, sizeof cpu->tlb_large);
    memset(cpu->tlb_huge, 0, sizeof cpu->tlb_huge);
    drop_jumps(cpu, cpu->jump_global, cpu->jump_words_global, cpu->jump_pages_global);
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
    (global ? cpu->jump_words_global : cpu->jump_words_local)[index / 4096] |= 1ull
                                                                               << index / 64 % 64;
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
