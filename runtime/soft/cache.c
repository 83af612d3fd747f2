/* SPDX-License-Identifier: MIT */
/* The block cache: decoding, finding, invalidating.
 *
 * Blocks are in a hash table by physical address and mode, and in a list for each page of RAM they
 * stand in, so that a write finds them. */
#include "runtime/soft/cache.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "runtime/breakpoints.h"
#include "runtime/soft/access.h"
#include "runtime/soft/chain.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/host_assist.h"
#include "runtime/soft/tlb.h"
#include "runtime/translator/translator.h"

#define ARENA_BYTES (40ull << 20)
#define BUCKETS     (1u << 17)
#define LINE_SHIFT  6
#define KEY_SINGLE                                                                                 \
    (1ull << 55) /* beside jump_key's bits: a block of one instruction, for stepping */
#define KEY_PASSED                                                                                 \
    (1ull << 56) /* the block itself, where `check_breakpoint` is found without this bit */

struct cache {
    struct vm *vm;
    uint8_t *arena;
    size_t size, used;   /* bytes of the arena */
    struct block **page; /* one list a page of RAM */
    struct block *bucket[BUCKETS];
    struct block *watches; /* all of them, by hash_next */
    uint64_t broken;       /* watches that were broken so far */
};

/* A block that was invalidated: whoever still leads here goes back to the loop and looks again. */
static const struct insn *stale(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->budget += cpu->block->count;
    return block_done(cpu);
}

struct block block_none = {.count = 0, .valid = false, .insns = {{.run = stale}}};

/* Behind the last instruction of a block. */
OP(end_chained)
{
    GO_CHAINED(cpu->rip + i->offset);
}
OP(end_anywhere)
{
    GO_ANYWHERE(cpu->rip + i->offset);
}
OP(end_legacy)
{
    cpu->rip = (uint32_t)(cpu->rip + i->offset);
    cpu->link = NULL;
    return block_done(cpu);
}

/* memory_written found marked lines. */
static void memory_changed(void *context, uint64_t physical, uint64_t length);

struct cache *cache_create(struct vm *vm, struct error *err)
{
    if (assist_init(err)) /* blocks point to stubs */
        return NULL;
    struct cache *cache = calloc(1, sizeof *cache);
    uint64_t pages = vm->memory.size >> PAGE_SHIFT;
    if (cache)
        cache->page = calloc(pages, sizeof(struct block *));
    size_t size = vm->config.code_cache ? vm->config.code_cache : ARENA_BYTES;
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!cache || !cache->page || arena == MAP_FAILED) {
        if (arena != MAP_FAILED)
            munmap(arena, size);
        if (cache)
            free(cache->page);
        free(cache);
        fail(err, HVRUN_HOST, "block cache: out of memory");
        return NULL;
    }
    cache->vm = vm;
    cache->arena = arena;
    cache->size = size;
    vm->memory.code_changed = memory_changed;
    vm->memory.code_context = cache;
    return cache;
}

void cache_destroy(struct cache *cache)
{
    if (!cache)
        return;
    cache->vm->memory.code_changed = NULL;
    while (cache->watches) {
        struct block *watch = cache->watches;
        cache->watches = watch->hash_next;
        free(watch);
    }
    munmap(cache->arena, cache->size);
    free(cache->page);
    free(cache);
}

/* What was never used is only read: then it costs no memory. */
static void clear_pages(struct cache *cache)
{
    struct memory *memory = &cache->vm->memory;
    for (uint64_t page = 0; page < memory->size >> PAGE_SHIFT; page++)
        if (cache->page[page] || memory->code_lines[page]) {
            cache->page[page] = NULL;
            memory->code_lines[page] = 0;
        }
}

void cache_flush(struct cache *cache)
{
    struct vm *vm = cache->vm;
    memset(cache->bucket, 0, sizeof cache->bucket);
    clear_pages(cache);
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        vm->vcpus[k]->link = NULL;
        for (unsigned e = 0; e < JUMP_CACHE_ENTRIES; e++)
            vm->vcpus[k]->jump_cache[e] = (struct jump_entry){~0ull, &block_none};
    }
    for (struct block *watch = cache->watches; watch; watch = watch->hash_next)
        watch->valid = false;
    cache->broken++;
    cache->used = 0;
    if (vm->soft && vm->soft->translator)
        translator_flush(vm->soft->translator);
}

static struct block **bucket_of(struct cache *cache, uint64_t physical, uint64_t key)
{
    uint64_t mixed = (physical ^ key) * 0x9e3779b97f4a7c15ull;
    return &cache->bucket[mixed >> 47];
}
_Static_assert(BUCKETS == 1u << (64 - 47), "bucket_of");

static uint64_t page_of(const struct cache *cache, uint64_t physical)
{
    const struct memory *memory = &cache->vm->memory;
    return memory_page_index(memory, memory_at(memory, physical, 1));
}

/* The lines of its page that a block's part in that page covers. */
static uint64_t lines(uint64_t physical, uint64_t bytes)
{
    uint64_t first = (physical & PAGE_OFFSET) >> LINE_SHIFT;
    uint64_t last = ((physical & PAGE_OFFSET) + bytes - 1) >> LINE_SHIFT;
    if (last > 63)
        last = 63;
    return (~0ull << first) & (~0ull >> (63 - last));
}

/* The lines that its part in one page covers; both parts may be in the same page. */
static uint64_t lines_of(const struct block *block, unsigned part)
{
    uint64_t in_first = PAGE_SIZE - (block->physical & PAGE_OFFSET), covered = 0;
    if (part == 0)
        covered = lines(block->physical, block->bytes);
    if (part == 1 ||
        (block->crosses && block->physical2 >> PAGE_SHIFT == block->physical >> PAGE_SHIFT))
        covered |= lines(block->physical2, block->bytes - in_first);
    return covered;
}

static void mark(struct cache *cache, struct block *block, unsigned part)
{
    struct memory *memory = &cache->vm->memory;
    uint64_t physical = part ? block->physical2 : block->physical;
    uint64_t page = page_of(cache, physical);
    block->page_next[part] = cache->page[page];
    cache->page[page] = block;
    if (!memory->code_lines[page])
        tlb_protect_page(cache->vm, memory->host + (page << PAGE_SHIFT));
    memory->code_lines[page] |= lines_of(block, part);
}

/* Which link of a block belongs to the list of this page. */
static unsigned part_in(const struct cache *cache, const struct block *block, uint64_t page)
{
    return page_of(cache, block->physical) == page ? 0 : 1;
}

static void unlist(struct cache *cache, struct block *block, uint64_t page)
{
    for (struct block **at = &cache->page[page]; *at;) {
        unsigned part = part_in(cache, *at, page);
        if (*at == block) {
            *at = block->page_next[part];
            return;
        }
        at = &(*at)->page_next[part];
    }
}

static bool is_watch(const struct block *block)
{
    return !block->count;
}

/* `page`: the one whose list the caller has taken it out of. */
static void drop(struct cache *cache, struct block *block, uint64_t page)
{
    for (struct block **at = bucket_of(cache, block->physical, block->key); *at;
         at = &(*at)->hash_next)
        if (*at == block) {
            *at = block->hash_next;
            break;
        }
    if (page_of(cache, block->physical) != page)
        unlist(cache, block, page_of(cache, block->physical));
    if (block->crosses && page_of(cache, block->physical2) != page)
        unlist(cache, block, page_of(cache, block->physical2));
    block->valid = false;
    block->insns[0].run = stale;
    if (block->translated)
        translator_drop(cache->vm->soft->translator, block);
    struct vcpu *running = cache->vm->running;
    const struct block *executed = running ? running->block : NULL;
    if (is_watch(block))
        cache->broken++;
    if (executed && (executed == block || (executed->in_event && is_watch(block))))
        running->code_changed = true;
}

static bool overlaps(const struct block *block, uint64_t physical, uint64_t length)
{
    uint64_t in_first = PAGE_SIZE - (block->physical & PAGE_OFFSET);
    uint64_t bytes = block->crosses ? in_first : block->bytes;
    if (physical < block->physical + bytes && block->physical < physical + length)
        return true;
    return block->crosses && physical < block->physical2 + (block->bytes - in_first) &&
           block->physical2 < physical + length;
}

/* A page may be crowded with blocks, and each write to it looks at all of them: then the engine's loop gets to see in
 * between whether the run is to end. (Guest time does not pay for it: it must not depend on what is decoded.) */
#define LOOKS_UNNOTICED 64
static void notice(struct vcpu *running, unsigned looks)
{
    if (running && looks > LOOKS_UNNOTICED)
        vcpu_kick(running);
}

static void invalidate_in_page(struct cache *cache, uint64_t physical, uint64_t length)
{
    struct memory *memory = &cache->vm->memory;
    uint64_t page = page_of(cache, physical);
    if (!(memory->code_lines[page] & lines(physical, length)))
        return;
    uint64_t left = 0;
    unsigned looked_at = 0;
    for (struct block **at = &cache->page[page]; *at; looked_at++) {
        struct block *block = *at;
        unsigned part = part_in(cache, block, page);
        if (overlaps(block, physical, length)) {
            *at = block->page_next[part];
            drop(cache, block, page);
        } else {
            left |= lines_of(block, part);
            at = &block->page_next[part];
        }
    }
    memory->code_lines[page] = left;
    notice(cache->vm->running, looked_at);
}

/* Guest-physical RAM [physical, physical + length) changes: drops blocks that overlap (64-byte lines that hold code
 * decide quickly). Sets vcpu.code_changed where the block under execution is one of them. */
static void memory_changed(void *context, uint64_t physical, uint64_t length)
{
    struct cache *cache = context;
    while (length) {
        uint64_t part = PAGE_SIZE - (physical & PAGE_OFFSET);
        if (part > length)
            part = length;
        if (memory_at(&cache->vm->memory, physical, part))
            invalidate_in_page(cache, physical, part);
        physical += part;
        length -= part;
    }
}

void cache_cut(struct cache *cache, uint64_t offset)
{
    const struct memory *memory = &cache->vm->memory;
    for (uint64_t page = 0; page < memory->size >> PAGE_SHIFT; page++)
        if (memory->code_lines[page] >> (offset >> LINE_SHIFT) & 1)
            memory_changed(
                cache, memory_physical(memory, memory->host + (page << PAGE_SHIFT)) + offset, 1);
}

/* ---- watches: blocks without instructions, in the pages' lists and in no bucket ---- */
struct block *cache_watch(struct cache *cache, uint64_t physical, uint32_t bytes)
{
    if (!bytes || bytes > PAGE_SIZE - (physical & PAGE_OFFSET) ||
        !memory_at(&cache->vm->memory, physical, bytes))
        return NULL;
    struct block *watch = calloc(1, sizeof *watch + sizeof watch->insns[0]);
    if (!watch)
        return NULL;
    watch->physical = physical;
    watch->bytes = bytes;
    watch->valid = true;
    watch->hash_next = cache->watches;
    cache->watches = watch;
    mark(cache, watch, 0);
    return watch;
}

void cache_unwatch(struct cache *cache, struct block *watch)
{
    if (watch->valid) /* else it is in no page's list */
        unlist(cache, watch, page_of(cache, watch->physical));
    for (struct block **at = &cache->watches; *at; at = &(*at)->hash_next)
        if (*at == watch) {
            *at = watch->hash_next;
            break;
        }
    free(watch);
}

uint64_t cache_broken_watches(const struct cache *cache)
{
    return cache->broken;
}

/* ---- making blocks ---- */
struct draft { /* a block on its way */
    struct insn insns[BLOCK_MAX + 1];
    unsigned count;
    uint32_t bytes;
    bool ends; /* its last instruction never falls through to a chained successor */
};

static void draft_end(const struct vcpu *cpu, struct draft *draft, uint64_t physical)
{
    struct insn *end = &draft->insns[draft->count];
    *end = (struct insn){.chain = &block_none,
                         .offset = (uint16_t)draft->bytes,
                         .position = (uint8_t)(draft->count - 1)};
    if (!vcpu_code64(cpu))
        end->run = end_legacy;
    else
        end->run = (physical & PAGE_OFFSET) + draft->bytes < PAGE_SIZE ? end_chained : end_anywhere;
}

/* Decodes into the draft from `bytes`, which are at `linear`, until something ends the block. Returns the last result. */
static enum decode_result decode_run(struct vcpu *cpu, uint64_t linear, const uint8_t *bytes,
                                     size_t available, unsigned max, struct draft *draft)
{
    while (draft->count < max && draft->bytes < available) {
        if (draft->count && breakpoints_cut(cpu->vm, linear + draft->bytes))
            return DECODE_OK;
        struct decoded d;
        struct insn *insn = &draft->insns[draft->count];
        *insn = (struct insn){.offset = (uint16_t)draft->bytes, .position = (uint8_t)draft->count};
        enum decode_result result = decode_insn(cpu, bytes + draft->bytes, available - draft->bytes,
                                                cpu->rip + draft->bytes, insn, &d);
        if (result != DECODE_OK)
            return result;
        draft->count++;
        draft->bytes += insn->length;
        if (d.ends_block)
            return DECODE_OK;
    }
    return DECODE_OK;
}

/* What an instruction at the present RIP is fetched from: host address, bytes to the page's end. */
static const uint8_t *fetch_page(struct vcpu *cpu, uint64_t linear, uint64_t *physical)
{
    static const uint8_t nothing[PAGE_SIZE] = {0};
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(linear)];
    if ((linear & ~PAGE_OFFSET) == e->fetch) {
        const uint8_t *host = (const uint8_t *)(linear + e->addend);
        uint64_t offset = (uint64_t)(host - cpu->vm->memory.host);
        *physical = offset < cpu->vm->memory.low_size
                        ? offset
                        : offset - cpu->vm->memory.low_size + MEMORY_HIGH;
        return host;
    }
    bool device = false;
    *physical = tlb_fill(cpu, NULL, linear, ACCESS_FETCH, cpu->mode, &device);
    const uint8_t *host = device ? NULL : memory_at(&cpu->vm->memory, *physical, 1);
    return host ? host : nothing;
}

static struct block *block_allocate(struct cache *cache, const struct draft *draft)
{
    size_t size = sizeof(struct block) + (draft->count + 1) * sizeof(struct insn);
    size = (size + 63) & ~(size_t)63;
    if (cache->used + size > cache->size)
        cache_flush(cache);
    struct block *block = (struct block *)(cache->arena + cache->used);
    cache->used += size;
    *block = (struct block){.bytes = draft->bytes, .count = (uint16_t)draft->count, .valid = true};
    memcpy(block->insns, draft->insns, (draft->count + 1) * sizeof(struct insn));
    return block;
}

/* RIP must be canonical, or within the code segment: else #GP(0) at the present RIP (SDM 3A 5.3.1). */
static uint64_t fetch_linear(struct vcpu *cpu)
{
    if (vcpu_code64(cpu)) {
        if ((uint64_t)((int64_t)(cpu->rip << 16) >> 16) != cpu->rip)
            cpu_raise_error(cpu, NULL, EXC_GP, 0);
        return cpu->rip;
    }
    if (cpu->rip > cpu->segment[SEG_CS].limit)
        cpu_raise_error(cpu, NULL, EXC_GP, 0);
    uint64_t linear = cpu->rip + cpu->segment[SEG_CS].base;
    return (uint32_t)linear;
}

/* A limit of the code segment that cuts the page short: bytes beyond it are not fetched. */
static size_t legacy_available(const struct vcpu *cpu, size_t available)
{
    if (vcpu_code64(cpu))
        return available;
    uint64_t to_limit = (uint64_t)cpu->segment[SEG_CS].limit - cpu->rip + 1;
    return available < to_limit ? available : (size_t)to_limit;
}

/* The instruction at RIP reaches into the next page: a block of its own. */
static void decode_crossing(struct vcpu *cpu, uint64_t linear, const uint8_t *bytes,
                            size_t available, struct draft *draft, uint64_t *physical2)
{
    uint8_t both[2 * ZYDIS_MAX_INSTRUCTION_LENGTH];
    memcpy(both, bytes, available);
    uint64_t next = (linear & ~PAGE_OFFSET) + PAGE_SIZE;
    if (!vcpu_code64(cpu))
        next = (uint32_t)next;
    size_t more = legacy_available(cpu, available + ZYDIS_MAX_INSTRUCTION_LENGTH) - available;
    if (more == 0)
        cpu_raise_error(cpu, NULL, EXC_GP, 0);
    memcpy(both + available, fetch_page(cpu, next, physical2), more);
    draft->count = draft->bytes = 0;
    if (decode_run(cpu, linear, both, available + more, 1, draft) != DECODE_OK)
        cpu_raise_error(cpu, NULL, EXC_GP,
                        0); /* longer than 15 bytes, or cut by the segment limit */
}

static void block_enter(struct cache *cache, struct block *block)
{
    struct block **bucket = bucket_of(cache, block->physical, block->key);
    block->hash_next = *bucket;
    *bucket = block;
    mark(cache, block, 0);
    if (block->crosses && page_of(cache, block->physical) != page_of(cache, block->physical2))
        mark(cache, block, 1);
}

static struct block *make_block(struct cache *cache, struct vcpu *cpu, uint64_t linear,
                                const uint8_t *bytes, uint64_t physical, uint64_t key)
{
    struct draft draft;
    draft.count = draft.bytes = 0;
    struct translator *translator = cpu->vm->soft->translator;
    if (assist_full() || (translator && translator_full(translator))) {
        cache_flush(cache); /* decoded instructions point to stubs: both are made anew */
        assist_reset();
    }
    size_t available = legacy_available(cpu, PAGE_SIZE - (linear & PAGE_OFFSET));
    bool ram = memory_at(&cache->vm->memory, physical, 1);
    uint64_t physical2 = 0;
    bool crosses = false;
    enum decode_result result =
        decode_run(cpu, linear, bytes, available, key & KEY_SINGLE ? 1 : BLOCK_MAX, &draft);
    if (draft.count == 0) {
        if (result == DECODE_TOO_LONG)
            cpu_raise_error(cpu, NULL, EXC_GP, 0);
        decode_crossing(cpu, linear, bytes, available, &draft, &physical2);
        crosses = true;
        ram = ram && memory_at(&cache->vm->memory, physical2, 1);
    }
    draft_end(cpu, &draft, physical);
    if (crosses && vcpu_code64(cpu))
        draft.insns[draft.count].run = end_anywhere;
    struct block *block = block_allocate(cache, &draft);
    block->physical = physical;
    block->key = key;
    block->crosses = crosses || !ram;
    block->physical2 = physical2;
    if (!ram) { /* executed once: devices' registers are not code */
        block->valid = false;
        return block;
    }
    block_enter(cache, block);
    if (translator)
        translator_watch(block);
    return block;
}

static struct block *find(struct cache *cache, struct vcpu *cpu, uint64_t linear, uint64_t physical,
                          uint64_t key)
{
    for (struct block *block = *bucket_of(cache, physical, key); block; block = block->hash_next) {
        if (block->physical != physical || block->key != key)
            continue;
        if (block->crosses) { /* the second page may be another one now */
            uint64_t physical2, next = (linear & ~PAGE_OFFSET) + PAGE_SIZE;
            fetch_page(cpu, vcpu_code64(cpu) ? next : (uint32_t)next, &physical2);
            if (physical2 != block->physical2)
                continue;
        }
        return block;
    }
    return NULL;
}

/* ---- places that have a breakpoint, here or elsewhere ---- */
/* The block at RIP, looked for as `key` says. */
static struct block *find_or_make(struct vcpu *cpu, uint64_t key)
{
    struct cache *cache = cpu->vm->soft->cache;
    uint64_t linear = fetch_linear(cpu), physical;
    const uint8_t *bytes = fetch_page(cpu, linear, &physical);
    struct block *block = find(cache, cpu, linear, physical, key);
    return block ? block : make_block(cache, cpu, linear, bytes, physical, key);
}

/* Stands before such a block, and counts for no instruction. */
OP(check_breakpoint)
{
    (void)i;
    if (breakpoint_reached(cpu))
        return block_done(cpu);
    cpu->current = NULL;
    struct block *block = find_or_make(cpu, cpu->jump_key | KEY_PASSED);
    if (block->count > cpu->budget) /* the loop does one instruction of it */
        return block_done(cpu);
    cpu->budget -= block->count;
    cpu->block = block;
    return block->insns;
}

/* The check that goes before `block`: dropped whenever that is. Code outside RAM has none. */
static struct block *make_check(struct cache *cache, const struct block *block)
{
    const struct block model = *block;
    const struct draft draft = {.insns = {{.run = check_breakpoint}}, .bytes = model.bytes};
    struct block *check = block_allocate(cache, &draft);
    check->physical = model.physical;
    check->physical2 = model.physical2;
    check->crosses = model.crosses;
    check->key = model.key & ~KEY_PASSED;
    block_enter(cache, check);
    return check;
}

struct block *cache_block(struct vcpu *cpu, bool single)
{
    struct cache *cache = cpu->vm->soft->cache;
    struct jump_entry *entry = jump_entry(cpu, cpu->rip);
    uint64_t key = cpu->jump_key | (single ? KEY_SINGLE : 0);
    if (entry->tag == (cpu->rip ^ key) && entry->block->valid)
        return entry->block;
    uint64_t linear = fetch_linear(cpu), physical;
    const uint8_t *bytes = fetch_page(cpu, linear, &physical);
    struct block *block = find(cache, cpu, linear, physical, key);
    if (!block && !single && breakpoints_cut(cpu->vm, linear)) {
        block = find_or_make(cpu, key | KEY_PASSED);
        if (block->valid)
            block = make_check(cache, block);
    } else if (!block) {
        block = make_block(cache, cpu, linear, bytes, physical, key);
    }
    if (block->valid && vcpu_code64(cpu))
        tlb_enter_jump(cpu, entry, block);
    return block;
}
