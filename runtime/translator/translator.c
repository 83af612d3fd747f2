/* SPDX-License-Identifier: MIT */
/* The translator's life, and where it meets the interpreter: functions of instructions that lead into translated code,
 * and what is done when that is left. */
#include "runtime/translator/translator.h"

#include <cpuid.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/soft/chain.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"
#include "runtime/translator/traces.h"
#include "runtime/translator/vectors.h"

#define CODE_BYTES   (40u << 20)
#define DATA_BYTES   (24u << 20)
#define WARM         24
#define HOT          2
#define VERSIONS_MAX 8  /* of a block, at as many RIPs */
#define CROSSINGS    16 /* of a page's end, after which accesses are looked up one by one */
#define WORTH        3  /* instructions in a row that are worth going into translated code for */
#define LEAVING      4  /* calls of the interpreter that cost as much as leaving translated code */
#define ROOM_CODE    (64u << 10) /* what the largest block may need */
#define ROOM_DATA    (64u << 10)

struct translator {
    struct vm *vm;
    struct code_cache code;
    unsigned warm; /* runs after which a block is translated */
    size_t fixed;  /* bytes of code that are always there */
    struct ways ways;
    struct exit_point
        *link;       /* the jump that was left last: it may be linked to what is entered next */
    uint64_t missed; /* the address of an access that the interpreter makes, or 0 */
    struct {         /* what to do behind an exit: an instruction's function, or nothing */
        insn_fn *run;
        const struct insn *insn;
    } next;
    struct translator_stats stats;
    struct item items[BLOCK_MAX];
    struct generator generator;
    struct traces traces;
};

static bool host_has_bmi2(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & bit_BMI2;
}

const char *translator_missing(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) || !(ecx & bit_LAHF_LM))
        return "the host processor has no LAHF in 64-bit mode";
    return NULL;
}

struct translator *translator_create(struct vm *vm, struct error *err)
{
    struct translator *translator = calloc(1, sizeof *translator);
    if (!translator) {
        fail(err, HVRUN_HOST, "translator: out of memory");
        return NULL;
    }
    translator->vm = vm;
    translator->warm = vm->config.translator_warm ? vm->config.translator_warm : WARM;
    size_t small = (vm->config.code_cache + 4095) & ~(size_t)4095;
    if (code_cache_create(&translator->code, small ? small : CODE_BYTES, small ? small : DATA_BYTES,
                          err)) {
        free(translator);
        return NULL;
    }
    struct generator *g = &translator->generator;
    g->code = &translator->code;
    if (!enter_create(&translator->code, &g->emit, &translator->ways,
                      &translator->stats.exits[TRANSLATOR_CALL])) {
        translator_destroy(translator);
        fail(err, HVRUN_HOST, "translator: no code");
        return NULL;
    }
    g->leave = translator->ways.leave;
    g->call = translator->ways.call;
    g->leave_saved = translator->ways.leave_saved;
    g->bmi2 = host_has_bmi2() && !vm->config.translator_old_host;
    translator->traces = (struct traces){
        .vm = vm,
        .generator = &translator->generator,
        .stats = &translator->stats,
        .hot = vm->config.translator_hot ? vm->config.translator_hot : HOT,
    };
    translator->fixed = translator->code.used;
    return translator;
}

void translator_destroy(struct translator *translator)
{
    if (!translator)
        return;
    code_cache_destroy(&translator->code);
    free(translator);
}

const struct translator_stats *translator_stats(const struct translator *translator)
{
    return &translator->stats;
}

bool translator_full(const struct translator *translator)
{
    const struct code_cache *code = &translator->code;
    return code->used + ROOM_CODE > code->size || code->data_used + ROOM_DATA > code->data_size;
}

void translator_flush(struct translator *translator)
{
    struct vm *vm = translator->vm;
    code_cache_reset(&translator->code, translator->fixed, 0);
    translator->link = NULL;
    traces_flush(&translator->traces);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        fast_clear(vm->vcpus[k]);
    translator->stats.flushes++;
}

/* Nothing leads to its code any more. */
static void unlink_version(struct translator *translator, struct version *t)
{
    struct vm *vm = translator->vm;
    traces_drop(&translator->traces, t);
    for (; t->into; t->into = t->into->next)
        t->into->host = t->into->stub;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        fast_forget_rip(vm->vcpus[k], t->rip);
}

void translator_drop(struct translator *translator, struct block *block)
{
    if (!block->translated)
        return;
    for (struct version *t = block->translated->first; t; t = t->next)
        unlink_version(translator, t);
}

/* ---- translating ---- */
uint64_t translator_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Code for the block at this RIP, or NULL. */
static struct version *make_version(struct translator *translator, struct block *block,
                                    uint64_t rip, bool apart)
{
    struct code_cache *code = &translator->code;
    size_t data_used = code->data_used;
    struct generator *g = &translator->generator;
    const uint8_t *bytes = memory_at(&translator->vm->memory, block->physical, block->bytes);
    struct version *t = code_cache_data(code, sizeof *t + (block->count + 1u) * sizeof(uint32_t));
    if (!t || !bytes)
        return NULL;
    scan_block(block, bytes, rip, translator->items);
    find_liveness(translator->items, block->count);
    group_items(translator->items, block->count, false, apart);
    bool user = block->key & JUMP_KEY_USER;
    t->block = block;
    t->rip = rip;
    t->apart = apart;
    t->table = user ? FAST_USER : FAST_KERNEL;
    t->tlb_mode = user ? TLB_USER : TLB_KERNEL;
    g->t = t;
    size_t used = code->used;
    if (!generate_block(g, translator->items)) {
        code->data_used = data_used;
        return NULL;
    }
    translator->stats.bytes += code->used - used;
    translator->stats.blocks++;
    translator->stats.instructions += block->count;
    return t;
}

/* Is it worth while? A call of the interpreter costs as much as a few instructions of its own. Leaving translated code
 * for a block that is not translated costs as much as a few calls. */
static bool worth(const struct item *items, unsigned count)
{
    unsigned known = 0, calls = 0;
    for (unsigned n = 0; n < count; n++) {
        known += items[n].class != CLASS_CALL_OUT && items[n].class != CLASS_INTERPRET;
        calls += items[n].class == CLASS_CALL_OUT;
    }
    return known && calls <= known + LEAVING;
}

OP(run_translated);

/* The functions of instructions from which translated code goes on for a while. */
static void lead_in(struct block *block, const struct version *t)
{
    unsigned row = 0;
    for (unsigned n = block->count; n-- > 0;) {
        row = t->at[n] ? row + 1 : 0;
        bool last = n + row == block->count; /* up to the next block */
        if (row >= WORTH || (row && last) || (row && n == 0))
            block->insns[n].run = run_translated;
    }
}

static bool translate(struct translator *translator, struct block *block, uint64_t rip)
{
    if (translator_full(translator))
        return false;
    uint64_t start = translator_clock();
    size_t size = sizeof(struct translated) + block->count * sizeof(insn_fn *);
    struct translated *translated = code_cache_data(&translator->code, size);
    struct version *t = translated ? make_version(translator, block, rip, false) : NULL;
    bool done = t && worth(translator->items, block->count);
    if (done) {
        translated->first = t;
        translated->versions = 1;
        for (unsigned n = 0; n < block->count; n++)
            translated->run[n] = block->insns[n].run;
        block->translated = translated;
        lead_in(block, t);
    }
    translator->stats.nanoseconds += translator_clock() - start;
    return done;
}

/* The translation for the present RIP: the one there is, or another. */
static struct version *version_at(struct translator *translator, struct block *block, uint64_t rip)
{
    struct translated *translated = block->translated;
    for (struct version *t = translated->first; t; t = t->next)
        if (t->rip == rip)
            return t;
    if (translated->versions == VERSIONS_MAX || translator_full(translator))
        return NULL;
    uint64_t start = translator_clock();
    struct version *t = make_version(translator, block, rip, false);
    if (t) {
        t->next = translated->first;
        translated->first = t;
        translated->versions++;
    }
    translator->stats.nanoseconds += translator_clock() - start;
    return t;
}

/* Accesses that were to share a look-up are in two pages. Where that is no accident (a stack frame stays where it is)
 * the version gives way to one in which each has its own. */
static void take_apart(struct translator *translator, struct version *t)
{
    struct version **place = &t->block->translated->first;
    if (t->apart || ++t->crossings < CROSSINGS || translator_full(translator))
        return;
    uint64_t start = translator_clock();
    t->crossings = 0;
    struct version *apart = make_version(translator, t->block, t->rip, true);
    while (*place && *place != t)
        place = &(*place)->next;
    if (apart && *place) {
        unlink_version(translator, t);
        apart->next = t->next;
        *place = apart;
    }
    translator->stats.nanoseconds += translator_clock() - start;
}

/* ---- counting ---- */
OP(run_counted)
{
    struct block *block = cpu->block;
    struct translator *translator = cpu->vm->soft->translator;
    if (likely(++block->runs < translator->warm))
        return block->first_run(cpu, i);
    block->insns[0].run = block->first_run;
    translate(translator, block, cpu->rip);
    return block->insns[0].run(cpu, i);
}

void translator_watch(struct block *block)
{
    const uint64_t needed = JUMP_KEY_CODE64 | JUMP_KEY_LONG | JUMP_KEY_PROTECTED;
    if ((block->key & ~(uint64_t)JUMP_KEY_USER) != needed || block->crosses || !block->count)
        return;
    block->first_run = block->insns[0].run;
    block->insns[0].run = run_counted;
}

/* ---- in ---- */
/* Makes the way that led here shorter: RIP, which the jump cache knows for this mapping, and the jump left last. */
static void shorten(struct translator *translator, struct vcpu *cpu, struct version *t)
{
    struct exit_point *link = translator->link;
    const struct jump_entry *entry = jump_entry(cpu, t->rip);
    if (entry->tag == (t->rip ^ cpu->jump_key) && entry->block == t->block) {
        unsigned slot = (uint16_t)t->rip;
        cpu->fast->rip[t->table][slot] = -t->rip;
        cpu->fast->code[t->table][slot] = t->lead;
    }
    translator->link = NULL;
    if (!link || link->target != t->rip || !link->of->block->valid || !t->block->valid ||
        link->of->block->key != t->block->key ||
        (link->of->block->physical ^ t->block->physical) >= PAGE_SIZE || link->host != link->stub)
        return;
    link->host = t->lead;
    link->next = t->into;
    t->into = link;
}

/* Does the interpreter execute what follows, so that it is seen which way it goes? */
static inline bool is_watched(struct translator *translator, const struct vcpu *cpu,
                              struct version *t, const struct insn *i)
{
    return translator->traces.watched == cpu &&
           (i->position || traces_watch(&translator->traces, cpu, t));
}

/* Where to enter a block, which has been counted. */
static const uint8_t *first_code(struct vcpu *cpu, const struct version *t)
{
    if (t->lead == t->entry || (t->lead_vectors && !vectors_take(cpu, t->lead_vectors)))
        return t->entry + t->at[0];
    cpu->budget += t->block->count; /* a trace counts it itself */
    return t->lead;
}

/* Takes over what the interpreter's TLB knows of the page. */
static bool look_up(struct vcpu *cpu, const struct version *t, uint64_t address, bool write)
{
    unsigned table = t->table, slot = fast_page_slot(address);
    uint64_t page = address & ~PAGE_OFFSET;
    const struct tlb_entry *e = &cpu->tlb_table[t->tlb_mode][tlb_slot(address)];
    if ((write ? e->write : e->read) != page)
        return false;
    cpu->fast->addend[table][slot] = e->addend;
    cpu->fast->page[table][FAST_READ][slot] = e->read == page ? -page : fast_no_page(slot);
    cpu->fast->page[table][FAST_WRITE][slot] = e->write == page ? -page : fast_no_page(slot);
    return true;
}

/* The code for this instruction of the block under execution, or NULL: it is the interpreter's. */
static const void *code_at(struct translator *translator, struct vcpu *cpu, const struct insn *i)
{
    struct block *block = cpu->block;
    struct version *t = block->translated->first;
    if (unlikely(t->rip != cpu->rip))
        t = version_at(translator, block, cpu->rip);
    /* not where alignment or SMAP is looked at otherwise */
    if (unlikely(!t || !cpu->fast || cpu->tlb != cpu->tlb_table[t->tlb_mode]) ||
        unlikely(is_watched(translator, cpu, t, i)) ||
        (t->vectors && i->position <= t->vectors_until && !vectors_take(cpu, t->vectors)))
        return NULL;
    if (translator->missed) { /* it knows the page by now, if there is one */
        look_up(cpu, t, translator->missed, false);
        translator->missed = 0;
    }
    if (i->position)
        return t->entry + t->at[i->position];
    shorten(translator, cpu, t);
    return first_code(cpu, t);
}

OP(run_translated)
{
    struct translator *translator = cpu->vm->soft->translator;
    if (cpu->translator_called) { /* translated code goes on here */
        cpu->translator_called = false;
        return i;
    }
    vectors_leave(cpu); /* a fault in a function that translated code called came here */
    const void *code = code_at(translator, cpu, i);
    if (unlikely(!code))
        return cpu->block->translated->run[i->position](cpu, i);
    translator->ways.enter(cpu, code);
    vectors_leave(cpu);
    if (!translator->next.run)
        return NULL;
    return translator->next.run(cpu, translator->next.insn);
}

/* ---- out ---- */
static const void *back_to_loop(struct translator *translator, struct vcpu *cpu, uint64_t rip)
{
    cpu->rip = rip;
    cpu->block = NULL;
    translator->next.run = NULL;
    return NULL;
}

/* To `rip` as a branch of the interpreter goes there. */
static const void *go_on(struct translator *translator, struct vcpu *cpu, uint64_t rip)
{
    const struct jump_entry *entry = jump_entry(cpu, rip);
    struct block *block = entry->block;
    if (entry->tag != (rip ^ cpu->jump_key) || block->count > cpu->budget)
        return back_to_loop(translator, cpu, rip);
    cpu->budget -= block->count;
    cpu->rip = rip;
    cpu->block = block;
    translator->next.run = block->insns[0].run;
    translator->next.insn = block->insns;
    return NULL;
}

/* The interpreter executes the instruction. */
static const void *interpret(struct translator *translator, struct vcpu *cpu,
                             const struct exit_point *exit)
{
    struct block *block = exit->of->block;
    cpu->rip = exit->of->rip;
    cpu->block = block;
    translator->next.run = block->translated->run[exit->position];
    translator->next.insn = &block->insns[exit->position];
    return NULL;
}

const void *translator_leave(struct vcpu *cpu, struct exit_point *exit, uint64_t address)
{
    struct translator *translator = cpu->vm->soft->translator;
    bool one_page;
    cpu->link = NULL;
    translator->link = NULL;
    switch ((enum translator_exit)exit->reason) {
    case TRANSLATOR_BUDGET:
        translator->stats.exits[TRANSLATOR_BUDGET]++;
        cpu->budget += exit->of->block->count;
        traces_sample(&translator->traces, cpu, exit->of);
        return back_to_loop(translator, cpu, exit->of->rip);
    case TRANSLATOR_CHAIN:
    case TRANSLATOR_JUMP:
        translator->stats.exits[exit->reason]++;
        if (exit->reason == TRANSLATOR_CHAIN)
            translator->link = exit;
        return go_on(translator, cpu, exit->target);
    case TRANSLATOR_LOOKUP:
        one_page = ((address + exit->size - 1) ^ address) < PAGE_SIZE;
        if (one_page && look_up(cpu, exit->of, address, exit->write)) {
            translator->stats.exits[TRANSLATOR_LOOKUP]++;
            return exit->host;
        }
        translator->stats.exits[TRANSLATOR_ACCESS]++;
        if (exit->group && !one_page)
            take_apart(translator, exit->of);
        translator->missed = one_page ? address : 0;
        return interpret(translator, cpu, exit);
    case TRANSLATOR_VECTORS:
        translator->stats.exits[TRANSLATOR_VECTORS]++;
        return vectors_take(cpu, exit->of->vectors) ? exit->host : interpret(translator, cpu, exit);
    case TRANSLATOR_ACCESS:
    case TRANSLATOR_INTERPRET:
    case TRANSLATOR_INDIRECT:
    case TRANSLATOR_CALL:
    case TRANSLATOR_EXITS:
        break;
    }
    translator->stats.exits[exit->reason]++;
    return interpret(translator, cpu, exit);
}

const void *translator_resume(struct vcpu *cpu, const struct insn *i)
{
    struct translator *translator = cpu->vm->soft->translator;
    vectors_again(cpu);
    bool translated = i && i->run == run_translated;
    const void *code = translated ? code_at(translator, cpu, i) : NULL;
    translator->next.insn = i;
    translator->next.run = translated ? cpu->block->translated->run[i->position]
                           : i        ? i->run
                                      : NULL;
    return code;
}
