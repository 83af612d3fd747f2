/* SPDX-License-Identifier: MIT */
/* The walk through a window of the original in lockstep with the trampoline that stands for it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/verify_internal.h"

struct walk {
    struct verify *v;
    const struct pv_patch *patch;
    uint32_t index;      /* of the patch */
    const uint8_t *was;  /* the window in the original */
    const uint8_t *now;  /* the trampoline */
    uint64_t from, size; /* the window: guest-linear address, bytes */
    uint64_t to, room;   /* the trampoline: guest-linear address, bytes */
    uint64_t o, t;       /* how far the walk has come in each, bytes */
    uint32_t routine;    /* next routine to be met */
    uint32_t routine_end;
    bool open;        /* between a routine's link and its tail; its number is routine - 1 */
    bool fresh_link;  /* the link stands right before t */
    uint64_t open_o;  /* where in the window it was opened */
    uint64_t open_t;  /* where in the trampoline its native path begins */
    uint64_t site_t;  /* where in the trampoline its site stands */
    uint64_t shift;   /* a shared trampoline: this window's distance from its owner's */
    bool replacement; /* the window is in .altinstr_replacement: nothing moves */
    bool ends;        /* control cannot leave the window by falling out of its last instruction */
    bool called;      /* the trampoline runs with one more return address on the stack */
    int pushed;       /* then: words pushed so far */
};

static bool wrong(struct walk *w, const char *what)
{
    verify_mismatch(w->v,
                    "patch %u: window 0x%" PRIx64 "+0x%" PRIx64 ", trampoline 0x%" PRIx64 ": %s",
                    w->index, w->from, w->o, w->to + w->t, what);
    return false;
}

/* A link slot where the next routine says that its link is. */
static bool meet_link(struct walk *w)
{
    static const uint8_t inactive[] = {0xe9, 0, 0, 0, 0};
    w->fresh_link = false;
    if (w->open || w->routine == w->routine_end ||
        verify_place(w->v, w->v->routines[w->routine].link_offset) != w->to + w->t)
        return true;
    if (w->room - w->t < sizeof inactive || memcmp(w->now + w->t, inactive, sizeof inactive) != 0)
        return wrong(w, "the link slot is not an inactive jump");
    w->open = w->fresh_link = true;
    w->open_o = w->o;
    w->routine++;
    w->t += sizeof inactive;
    w->open_t = w->t;
    return true;
}

static const struct linux_entry *entry_at(const struct linux_table *table, uint64_t address)
{
    size_t first;
    return linux_table_range(table, address, address + 1, &first)
               ? &table->entries[table->by_address[first]]
               : NULL;
}

/* The alternative that covers `address` in the original, if any. */
static const struct linux_entry *alternative_over(const struct verify *v, uint64_t address)
{
    const struct linux_table *table = &v->tables_before.table[LINUX_ALTERNATIVES];
    size_t first,
        count = linux_table_range(table, address < 255 ? 0 : address - 255, address + 1, &first);
    for (size_t i = 0; i < count; i++) {
        const struct linux_entry *e = &table->entries[table->by_address[first + i]];
        if (address - e->address < e->length)
            return e;
    }
    return NULL;
}

/* What the native path of a routine holds besides the site itself: no-ops of its alternatives'
 * region, or the STI that shadows it. */
static bool may_accompany(struct walk *w, const struct pv_routine *r,
                          const ZydisDecodedInstruction *i, uint64_t address, uint64_t site)
{
    if ((r->flags & PV_ROUTINE_STI) && i->mnemonic == ZYDIS_MNEMONIC_STI &&
        address + i->length == site)
        return true;
    const struct linux_entry *e = alternative_over(w->v, site);
    return e && address - e->address < e->length && i->mnemonic == ZYDIS_MNEMONIC_NOP;
}

/* At the tail of the open routine: it stands for its site, all of it and nothing else. */
static bool close_routine(struct walk *w)
{
    const struct verify *v = w->v;
    const struct pv_routine *r = &v->routines[w->routine - 1];
    uint64_t site = verify_place(v, r->site_offset) + w->shift;
    bool met = false, sti = false;
    for (uint64_t at = w->open_o; at < w->o;) {
        ZydisDecodedInstruction i;
        if (!verify_decode(v, w->was + at, w->size - at, &i))
            return wrong(w, "the original cannot be decoded here");
        if (w->from + at == site)
            met = true;
        else if (may_accompany(w, r, &i, w->from + at, site))
            sti |= i.mnemonic == ZYDIS_MNEMONIC_STI;
        else
            return wrong(w, "an instruction is on the native path of another's routine");
        at += i.length;
    }
    if (!met)
        return wrong(w, "the routine does not hold its site");
    if (sti != ((r->flags & PV_ROUTINE_STI) != 0))
        return wrong(w, "the routine's STI flag is not what the original has");
    uint64_t native = verify_place(v, r->native_offset);
    if (native != w->to + w->open_t && native != w->to + w->site_t)
        return wrong(w, "the native path is not where its routine says");
    w->open = false;
    return true;
}

/* No-ops that fill a moved alternative's region up to five bytes, so that its new replacement fits.
 */
static void skip_growth(struct walk *w)
{
    const struct linux_entry *e = w->o ? alternative_over(w->v, w->from + w->o - 1) : NULL;
    if (!e || e->address + e->length != w->from + w->o || e->length >= 5)
        return;
    for (unsigned more = 5 - e->length; more && w->t < w->room && w->now[w->t] == 0x90; more--)
        w->t++;
}

/* Can control fall out of this instruction? What the kernel rewrites at boot always may. */
bool verify_falls_through(const struct verify *v, const ZydisDecodedInstruction *i,
                          uint64_t address)
{
    const struct linux_entry *bug;
    if (entry_at(&v->tables_before.table[LINUX_JUMP_TABLE], address) ||
        alternative_over(v, address))
        return true;
    switch (i->meta.category) {
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSRET:
        return false;
    default:
        break;
    }
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_UD2: /* BUG() does not return, WARN() does (BUGFLAG_WARNING) */
        bug = entry_at(&v->tables_before.table[LINUX_BUG_TABLE], address);
        return bug && (bug->data & 1);
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return false;
    default:
        return true;
    }
}

/* Code that is called in the place of a replacement has a return address on its stack: what it
 * pushes it must pop, and it must not look at the stack otherwise. */
static bool stack_neutral(struct walk *w, const uint8_t *bytes, uint64_t size)
{
    ZydisDecodedInstruction i;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&w->v->decoder, bytes, size, &i, operands)))
        return false;
    for (unsigned k = 0; k < i.operand_count_visible; k++) {
        ZydisRegister reg = operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY ? operands[k].mem.base
                                                                          : operands[k].reg.value;
        if ((operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY ||
             operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER) &&
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) == ZYDIS_REGISTER_RSP)
            return false;
    }
    if (i.meta.category == ZYDIS_CATEGORY_PUSH)
        w->pushed++;
    else if (i.meta.category == ZYDIS_CATEGORY_POP)
        w->pushed--;
    else if (i.meta.category == ZYDIS_CATEGORY_CALL || i.meta.category == ZYDIS_CATEGORY_RET)
        return false;
    return w->pushed >= 0;
}

/* One instruction of the window and its copy. */
static bool step(struct walk *w)
{
    struct verify *v = w->v;
    ZydisDecodedInstruction i;
    if (!verify_decode(v, w->was + w->o, w->size - w->o, &i))
        return wrong(w, "the window does not end where an instruction of the original ends");
    const struct linux_entry *label =
        entry_at(&v->tables_before.table[LINUX_JUMP_TABLE], w->from + w->o);
    struct displaced d = {.instruction = &i,
                          .bytes = w->was + w->o,
                          .address = w->from + w->o,
                          .window_end = w->from + w->size,
                          .jump_label = label != NULL,
                          .now = w->now + w->t,
                          .now_address = w->to + w->t,
                          .room = w->room - w->t};
    const char *why;
    bool verbatim;
    if (w->called && !stack_neutral(w, d.bytes, w->size - w->o))
        return wrong(w, "the instruction uses the stack, and is called");
    unsigned length = verify_copy(v, &d, &verbatim, &why);
    if (!length)
        return wrong(w, why);
    struct move move = {.from = d.address,
                        .to = d.now_address,
                        .patch = w->index,
                        .link = w->fresh_link ? d.now_address - 5 : 0,
                        .length = i.length,
                        .verbatim = verbatim};
    if (w->open && d.address == verify_place(v, v->routines[w->routine - 1].site_offset) + w->shift)
        w->site_t = w->t;
    w->o += i.length;
    w->t += length;
    w->ends = !verify_falls_through(v, &i, d.address);
    if (w->o == w->size && i.meta.category == ZYDIS_CATEGORY_CALL && w->now[w->t - 5] == 0xe9)
        w->ends = true; /* the pushed return address leads back */
    skip_growth(w);
    move.region = w->to + w->t;
    if (!w->replacement)
        vector_add(v, &v->moves, &move, sizeof move);
    return true;
}

/* The native path of the open routine ends here: its tail is here, or it has none, because the site
 * never falls through; then the native path stands for it. */
static bool at_tail(const struct walk *w)
{
    const struct pv_routine *r = &w->v->routines[w->routine - 1];
    uint64_t tail = verify_place(w->v, r->tail_offset);
    return tail == w->to + w->t || (w->ends && tail == w->to + w->open_t);
}

/* Behind an instruction that never falls through, a window may take in padding (and cut its last
 * no-op short): it stands nowhere now, and verify_branches() sees to it that nothing leads there.
 */
static bool only_padding_left(const struct walk *w)
{
    if (!w->ends)
        return false;
    uint64_t room = image_at(&w->v->before, w->from, w->size + 15) ? w->size + 15 : w->size;
    for (uint64_t at = w->o; at < w->size;) {
        ZydisDecodedInstruction i;
        if (!verify_decode(w->v, w->was + at, room - at, &i) ||
            (i.mnemonic != ZYDIS_MNEMONIC_INT3 && i.mnemonic != ZYDIS_MNEMONIC_NOP))
            return false;
        at += i.length;
    }
    return true;
}

static bool walk_window(struct walk *w)
{
    static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
    if (w->patch->form == PV_FORM_CALL && !w->replacement) {
        if (w->room < sizeof endbr64 || memcmp(w->now, endbr64, sizeof endbr64) != 0)
            return wrong(w, "the trampoline of a call does not begin with ENDBR64");
        w->t = sizeof endbr64;
    }
    while (w->o < w->size && !only_padding_left(w)) {
        if (!meet_link(w) || !step(w))
            return false;
        if (w->open && at_tail(w) && !close_routine(w))
            return false;
    }
    if (w->open)
        return wrong(w, "a routine has no tail");
    if (w->routine != w->routine_end)
        return wrong(w, "a routine of the patch is not met");
    return true;
}

/* The last instruction of the trampoline: a jump back, or, behind a call, a return. */
static bool leave(struct walk *w, uint64_t target)
{
    if (w->pushed)
        return wrong(w, "what is called leaves something on the stack");
    if (w->ends && w->t == w->room)
        return true;
    if (w->called && w->room - w->t == 1 && w->now[w->t] == 0xc3)
        return image_symbol_named(&w->v->before, "__x86_return_thunk")
                   ? wrong(w, "the trampoline returns without the kernel's return thunk")
                   : true;
    if (w->room - w->t != 5 || w->now[w->t] != 0xe9)
        return wrong(w, "the trampoline does not end with a jump back");
    uint64_t to = w->to + w->room + (uint64_t)read_s32(w->now + w->t + 1);
    if (to != target)
        return wrong(w, "the trampoline leads back to another address");
    return true;
}

bool verify_walk(struct verify *v, uint32_t index, uint64_t back)
{
    const struct pv_patch *p = &v->patches[index];
    struct walk w = {.v = v,
                     .patch = p,
                     .index = index,
                     .from = verify_place(v, p->window_offset),
                     .size = p->window_size,
                     .to = verify_place(v, p->trampoline_offset),
                     .room = p->trampoline_size,
                     .routine = p->first_routine,
                     .routine_end = p->first_routine + p->routine_count};
    w.replacement = p->flags & PV_PATCH_REPLACEMENT;
    w.called = w.replacement && p->form == PV_FORM_CALL;
    if (w.replacement)
        w.shift =
            w.from - verify_place(v, v->patches[v->routines[p->first_routine].patch].window_offset);
    w.was = image_at(&v->before, w.from, w.size);
    w.now = image_at(&v->after, w.to, w.room);
    if (!w.was || !w.now)
        return wrong(&w, "the window or the trampoline is not in the image");
    return walk_window(&w) && leave(&w, back);
}
