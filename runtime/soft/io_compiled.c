/* SPDX-License-Identifier: MIT */
/* IO blocks compiled, and executed. */
#include "runtime/soft/io_compiled.h"

#include <stdlib.h>

#include "runtime/io_hasher.h"
#include "runtime/io_pointer.h"
#include "runtime/soft/access.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

#define NO_PAGE UINT16_MAX

struct io_page {
    uint64_t linear;
    const uint8_t *host; /* NULL: not mapped when it was looked at */
};

struct io_run {
    struct block *block;
    uint64_t linear;      /* of its first instruction */
    uint64_t last;        /* the same of its last one */
    uint16_t page, page2; /* index in pages; page2: the last instruction ends there */
    uint8_t last_class;
};

struct io_place { /* an instruction */
    uint16_t run;
    uint8_t position; /* in the run */
};

struct io_compiled {
    struct cache *cache; /* NULL: writes are not noticed */
    uint64_t broken;     /* cache_broken_watches() when all watches were last found whole */
    bool watched;
    uint64_t key;
    unsigned range_count, page_count, run_count, watch_count;
    struct io_range ranges[IO_BLOCK_RANGES_MAX];
    uint32_t first_byte[IO_BLOCK_RANGES_MAX]; /* in the concatenated bytes */
    struct io_page *pages;
    struct io_run *runs;
    struct io_place *places;
    uint16_t
        *at; /* for each byte of the ranges: index in places + 1; 0 = no instruction begins there */
    struct block **watches;
    uint8_t *blocks; /* the runs' blocks, one behind the other */
};

/* ---- fetching ---- */
/* Host address of the code at guest-linear `linear`, as an instruction fetch of this vCPU finds
 * it: raises what that raises, and marks pages as accessed. NULL: not RAM. */
static const uint8_t *fetch(struct vcpu *cpu, uint64_t linear)
{
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(linear)];
    if (likely((linear & ~PAGE_OFFSET) == e->fetch))
        return (const uint8_t *)(linear + e->addend);
    bool device = false;
    uint64_t physical = tlb_fill(cpu, NULL, linear, ACCESS_FETCH, cpu->mode, &device);
    return device ? NULL : memory_at(&cpu->vm->memory, physical, 1);
}

static bool canonical_address(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

/* ---- decoding ---- */
struct draft { /* instructions on their way into runs */
    struct insn insns[IO_BLOCK_INSNS_MAX];
    uint64_t linear[IO_BLOCK_INSNS_MAX];
    uint8_t class[IO_BLOCK_INSNS_MAX];
    bool begins[IO_BLOCK_INSNS_MAX]; /* a run */
    unsigned count, runs;
};

/* Behind the last instruction of a run. */
OP(run_ends)
{
    cpu->rip += i->offset;
    if (i->flags & INSN_LEGACY)
        cpu->rip = (uint32_t)cpu->rip;
    return NULL;
}

static bool crosses(uint64_t linear, unsigned length)
{
    return (linear & PAGE_OFFSET) + length > PAGE_SIZE;
}

/* One instruction behind those of the draft. False: the range is not decoded further. */
static bool draft_insn(struct vcpu *cpu, struct draft *draft, uint64_t linear, const uint8_t *bytes,
                       uint32_t available, bool *begin)
{
    unsigned n = draft->count;
    const struct insn *before = n ? &draft->insns[n - 1] : NULL;
    struct insn *insn = &draft->insns[n];
    struct decoded d;
    if (n == IO_BLOCK_INSNS_MAX)
        return false;
    if (!before || before->position + 1u == BLOCK_MAX || !(linear & PAGE_OFFSET))
        *begin = true;
    for (;;) {
        *insn = (struct insn){0};
        if (before && !*begin) {
            insn->offset = (uint16_t)(before->offset + before->length);
            insn->position = (uint8_t)(before->position + 1);
        }
        if (decode_insn(cpu, bytes, available, linear, insn, &d) != DECODE_OK)
            return false;
        if (*begin || !crosses(linear, insn->length))
            break;
        *begin = true; /* its fetch may fault when those before it are done: a run of its own */
    }
    enum io_class class = io_classify(d.zydis);
    if (class == IO_CLASS_UNKNOWN)
        return false;
    draft->linear[n] = linear;
    draft->class[n] = (uint8_t) class;
    draft->begins[n] = *begin;
    draft->runs += *begin;
    draft->count++;
    *begin = d.ends_block || class == IO_CLASS_IO || crosses(linear, insn->length);
    return true;
}

static void draft_range(struct vcpu *cpu, struct draft *draft, struct io_compiled *code,
                        const struct io_range *range, uint32_t first, const uint8_t *bytes)
{
    bool begin = true;
    for (uint32_t done = 0; done < range->size;) {
        uint64_t linear = code->key + (uint64_t)range->offset + done;
        if (!vcpu_code64(cpu))
            linear = (uint32_t)linear;
        if (!draft_insn(cpu, draft, linear, bytes + first + done, range->size - done, &begin))
            return;
        code->at[first + done] = (uint16_t)draft->count;
        done += draft->insns[draft->count - 1].length;
    }
}

/* ---- packing ---- */
static uint16_t page_index(struct io_compiled *code, uint64_t linear)
{
    uint64_t page = linear & ~PAGE_OFFSET;
    for (unsigned k = code->page_count; k-- > 0;)
        if (code->pages[k].linear == page)
            return (uint16_t)k;
    code->pages[code->page_count] = (struct io_page){page, NULL};
    return (uint16_t)code->page_count++;
}

/* The draft's instructions from `first` on, up to the next run, as the next run. Returns where
 * that one begins. */
static unsigned pack_run(struct vcpu *cpu, struct io_compiled *code, const struct draft *draft,
                         unsigned first, uint8_t **room)
{
    unsigned end = first + 1;
    while (end < draft->count && !draft->begins[end])
        end++;
    struct io_run *run = &code->runs[code->run_count];
    struct block *block = (struct block *)*room;
    unsigned count = end - first;
    const struct insn *last = &draft->insns[end - 1];
    memcpy(block->insns, draft->insns + first, count * sizeof *last);
    block->insns[count] = (struct insn){.run = run_ends,
                                        .offset = (uint16_t)(last->offset + last->length),
                                        .position = (uint8_t)(count - 1),
                                        .flags = vcpu_code64(cpu) ? 0 : INSN_LEGACY};
    block->key = cpu->jump_key;
    block->bytes = last->offset + last->length;
    block->count = (uint16_t)count;
    block->valid = block->in_event = true;
    *room += sizeof *block + (count + 1) * sizeof block->insns[0];
    *run = (struct io_run){.block = block,
                           .linear = draft->linear[first],
                           .last = draft->linear[end - 1],
                           .page = page_index(code, draft->linear[first]),
                           .page2 = NO_PAGE,
                           .last_class = draft->class[end - 1]};
    if (crosses(run->last, last->length))
        run->page2 = page_index(code, run->last + last->length - 1);
    for (unsigned k = 0; k < count; k++)
        code->places[first + k] = (struct io_place){(uint16_t)code->run_count, (uint8_t)k};
    code->run_count++;
    return end;
}

static bool pack(struct vcpu *cpu, struct io_compiled *code, const struct draft *draft)
{
    code->runs = calloc(draft->runs, sizeof *code->runs);
    code->places = calloc(draft->count, sizeof *code->places);
    code->pages = calloc(2 * draft->runs, sizeof *code->pages);
    code->blocks = calloc(1, draft->runs * (sizeof(struct block) + sizeof(struct insn)) +
                                 draft->count * sizeof(struct insn));
    if (!code->runs || !code->places || !code->pages || !code->blocks)
        return false;
    uint8_t *room = code->blocks;
    for (unsigned k = 0; k < draft->count;)
        k = pack_run(cpu, code, draft, k, &room);
    return true;
}

struct io_compiled *io_compiled_make(struct vcpu *cpu, const struct io_block *block, uint64_t key,
                                     const uint8_t *bytes)
{
    struct draft *draft = malloc(sizeof *draft);
    struct io_compiled *code = calloc(1, sizeof *code);
    if (code)
        code->at = calloc(block->size, sizeof *code->at);
    if (!draft || !code || !code->at) {
        free(draft);
        io_compiled_free(code);
        return NULL;
    }
    draft->count = draft->runs = 0;
    code->key = key;
    code->range_count = block->range_count;
    memcpy(code->ranges, block->ranges, block->range_count * sizeof block->ranges[0]);
    uint32_t first = 0;
    for (unsigned k = 0; k < block->range_count; k++) {
        code->first_byte[k] = first;
        draft_range(cpu, draft, code, &block->ranges[k], first, bytes);
        first += block->ranges[k].size;
    }
    if (!draft->count || !pack(cpu, code, draft)) {
        io_compiled_free(code);
        code = NULL;
    }
    free(draft);
    return code;
}

/* ---- knowing that it has not changed ---- */
static void unwatch(struct io_compiled *code)
{
    for (unsigned k = 0; k < code->watch_count; k++)
        cache_unwatch(code->cache, code->watches[k]);
    free(code->watches);
    code->watches = NULL;
    code->watch_count = 0;
    code->watched = false;
}

void io_compiled_free(struct io_compiled *code)
{
    if (!code)
        return;
    unwatch(code);
    free(code->pages);
    free(code->runs);
    free(code->places);
    free(code->at);
    free(code->blocks);
    free(code);
}

bool io_compiled_unchanged(struct io_compiled *code)
{
    if (!code->watched)
        return false;
    uint64_t broken = cache_broken_watches(code->cache);
    if (broken == code->broken)
        return true;
    for (unsigned k = 0; k < code->watch_count; k++)
        if (!code->watches[k]->valid)
            return false;
    code->broken = broken;
    return true;
}

/* Watches the part of a range that lies in one page; returns its size. */
static uint32_t watch_part(struct vcpu *cpu, struct io_compiled *code, uint64_t linear,
                           uint32_t size)
{
    uint32_t part = PAGE_SIZE - (uint32_t)(linear & PAGE_OFFSET);
    uint64_t physical;
    if (part > size)
        part = size;
    struct block *watch =
        tlb_peek(cpu, linear, &physical) ? cache_watch(code->cache, physical, part) : NULL;
    if (watch)
        code->watches[code->watch_count++] = watch;
    else
        code->watched = false;
    return part;
}

bool io_compiled_watch(struct vcpu *cpu, struct io_compiled *code)
{
    unwatch(code);
    for (unsigned k = 0; k < code->page_count; k++)
        code->pages[k].host = io_guest_code(cpu, code->pages[k].linear);
    code->cache = cpu->vm->soft ? cpu->vm->soft->cache : NULL;
    if (!code->cache)
        return false;
    uint32_t parts = 0;
    for (unsigned k = 0; k < code->range_count; k++)
        parts += 2 + code->ranges[k].size / PAGE_SIZE;
    code->watches = calloc(parts, sizeof(struct block *));
    code->watched = code->watches;
    for (unsigned k = 0; k < code->range_count && code->watches; k++) {
        uint64_t linear = code->key + (uint64_t)code->ranges[k].offset;
        for (uint32_t done = 0; done < code->ranges[k].size;)
            done += watch_part(cpu, code, linear + done, code->ranges[k].size - done);
    }
    code->broken = cache_broken_watches(code->cache);
    return code->watched;
}

/* ---- executing ---- */
static const struct io_place *place_of(const struct io_compiled *code, uint64_t linear)
{
    int64_t offset = (int64_t)(linear - code->key);
    unsigned low = 0, high = code->range_count;
    while (low < high) { /* the first range that ends behind it */
        unsigned middle = (low + high) / 2;
        const struct io_range *range = &code->ranges[middle];
        if (range->offset + (int64_t)range->size <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == code->range_count || code->ranges[low].offset > offset)
        return NULL;
    unsigned index =
        code->at[code->first_byte[low] + (uint32_t)(offset - code->ranges[low].offset)];
    return index ? &code->places[index - 1] : NULL;
}

bool io_compiled_has(const struct io_compiled *code, uint64_t linear)
{
    return place_of(code, linear);
}

bool io_event_waits(const struct vcpu *cpu)
{
    if (cpu->vm->shutdown || cpu->pending_db || cpu->events & (VCPU_EVENT_INIT | VCPU_EVENT_SIPI))
        return true;
    if (cpu->events & VCPU_EVENT_NMI && !cpu->nmi_blocked)
        return true;
    return cpu->events & VCPU_EVENT_INTERRUPT && cpu->rflags & RFLAGS_IF;
}

/* The page is where it was when the code was compared. RIP is at the instruction whose fetch
 * this is. */
static bool page_holds(struct vcpu *cpu, const struct io_page *page)
{
    return canonical_address(page->linear) && page->host && fetch(cpu, page->linear) == page->host;
}

/* All of the run's pages. */
static bool run_holds(struct vcpu *cpu, const struct io_compiled *code, const struct io_run *run)
{
    return page_holds(cpu, &code->pages[run->page]) &&
           (run->page2 == NO_PAGE || page_holds(cpu, &code->pages[run->page2]));
}

bool io_compiled_enters(struct vcpu *cpu, const struct io_compiled *code)
{
    const struct io_place *place = place_of(code, code->key);
    return place && run_holds(cpu, code, &code->runs[place->run]);
}

/* As the engine's loop runs a block, from an instruction in its middle on. */
static void run_from(struct vcpu *cpu, struct block *block, uint64_t rip, unsigned position)
{
    uint64_t key = cpu->jump_key;
    cpu->code_changed = false;
    cpu->rip = rip;
    cpu->budget -= block->count - position;
    cpu->block = block;
    cpu->jump_key = JUMP_KEY_NOWHERE;
    for (const struct insn *i = block->insns + position; i;)
        i = i->run(cpu, i);
    cpu->jump_key = key;
    cpu->block = NULL;
    cpu->link = NULL;
    cpu->code_changed = false;
    cpu->budget += cpu->withheld; /* of a kick, whose reason is looked at next */
    cpu->withheld = 0;
    cpu->kicked = false;
}

static bool goes_anywhere(unsigned class)
{
    return class == IO_CLASS_RETURN || class == IO_CLASS_INDIRECT_JUMP ||
           class == IO_CLASS_INDIRECT_CALL;
}

struct io_trip io_compiled_run(struct vcpu *cpu, struct io_compiled *code, uint64_t io_limit)
{
    const uint64_t *done = &cpu->vm->stats.io_instructions, first = *done;
    const struct io_run *run = NULL;
    unsigned checked = NO_PAGE;
    for (;;) {
        const struct io_place *place = place_of(code, io_pointer_linear(cpu));
        if (!place && run && goes_anywhere(run->last_class))
            return (struct io_trip){IO_END_GUARD, run->last};
        if (!place)
            return (struct io_trip){.end = IO_END_OUTSIDE};
        run = &code->runs[place->run];
        if (run->block->count - place->position > cpu->budget) /* slices end exactly */
            return (struct io_trip){.end = IO_END_BUDGET};
        if ((run->page != checked || run->page2 != NO_PAGE) && !run_holds(cpu, code, run))
            return (struct io_trip){.end = IO_END_CHANGED};
        checked = run->page;
        run_from(cpu, run->block, run->linear, place->position);
        if (unlikely(cpu->events || cpu->pending_db || cpu->vm->shutdown) && io_event_waits(cpu))
            return (struct io_trip){.end = IO_END_EVENT};
        if (unlikely(code->watched && !io_compiled_unchanged(code)))
            return (struct io_trip){.end = IO_END_CHANGED};
        if (*done - first >= io_limit)
            return (struct io_trip){.end = IO_END_BUDGET};
    }
}

/* ---- one instruction, decoded for this once ---- */
/* Decodes the instruction at RIP, which may go on in the next page. *d lives until the next
 * call. */
static bool decode_here(struct vcpu *cpu, uint64_t linear, struct insn *insn, struct decoded *d)
{
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    unsigned here = PAGE_SIZE - (unsigned)(linear & PAGE_OFFSET);
    unsigned available = here < sizeof bytes ? here : sizeof bytes;
    const uint8_t *host = canonical_address(linear) ? fetch(cpu, linear) : NULL;
    if (!host) /* a device's registers are not code */
        return false;
    memcpy(bytes, host, available);
    *insn = (struct insn){0};
    enum decode_result result = decode_insn(cpu, bytes, available, cpu->rip, insn, d);
    if (result == DECODE_MORE) {
        uint64_t next = vcpu_code64(cpu) ? linear + here : (uint32_t)(linear + here);
        host = canonical_address(next) ? fetch(cpu, next) : NULL;
        if (!host)
            return false;
        memcpy(bytes + here, host, sizeof bytes - here);
        *insn = (struct insn){0};
        result = decode_insn(cpu, bytes, sizeof bytes, cpu->rip, insn, d);
    }
    return result == DECODE_OK;
}

bool io_compiled_step(struct vcpu *cpu, struct io_step *step)
{
    static _Thread_local uint64_t
        scratch[(sizeof(struct block) + 2 * sizeof(struct insn)) / sizeof(uint64_t)];
    struct block *block = (struct block *)scratch;
    uint64_t linear = io_pointer_linear(cpu);
    struct decoded d;
    *step = (struct io_step){.address = linear, .class = IO_CLASS_UNKNOWN};
    if (!decode_here(cpu, linear, block->insns, &d))
        return false;
    step->class = io_classify(d.zydis);
    step->length = block->insns[0].length;
    if (step->class == IO_CLASS_UNKNOWN || step->class == IO_CLASS_IO)
        return false;
    block->insns[1] = (struct insn){.run = run_ends,
                                    .offset = block->insns[0].length,
                                    .flags = vcpu_code64(cpu) ? 0 : INSN_LEGACY};
    block->count = 1;
    block->valid = block->in_event = true;
    run_from(cpu, block, cpu->rip, 0);
    return true;
}
