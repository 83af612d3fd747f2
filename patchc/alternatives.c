/* SPDX-License-Identifier: MIT */
/* Sites in .altinstr_replacement: code that a Linux kernel copies over other code at boot.
 *
 * The replacement stays; the alternative's entry is repointed to a five-byte `call T` in padding,
 * whose displacement the kernel corrects when it copies it, and T does what the replacement did and
 * returns through __x86_return_thunk. Where the alternative's place has no stack, it is `jmp T`,
 * and T jumps back. A place shorter than five bytes is moved to a trampoline, where it has room to
 * grow. */
#include <stdlib.h>
#include <string.h>

#include "patchc/atoms.h"
#include "patchc/plan.h"

#define INSTRUCTIONS_MAX 16

/* A replacement, decoded. */
struct replacement {
    struct atom atoms[INSTRUCTIONS_MAX];
    int count;
    bool call_safe; /* may run with a return address on the stack */
};

static bool names_stack_pointer(const ZydisDecodedInstruction *instruction,
                                const ZydisDecodedOperand *operands)
{
    for (unsigned i = 0; i < instruction->operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &operands[i];
        if ((o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base == ZYDIS_REGISTER_RSP) ||
            (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value == ZYDIS_REGISTER_RSP))
            return true;
    }
    return false;
}

static int stack_delta(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_PUSHFQ:
        return 1;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_POPFQ:
        return -1;
    default:
        return 0;
    }
}

/* Decodes a replacement. False if it cannot run elsewhere (relative branches, relocations). */
static bool decode_replacement(const struct plan *plan, const struct linux_entry *entry,
                               struct replacement *r)
{
    ZydisDecoder decoder;
    int depth = 0;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    *r = (struct replacement){.call_safe = true};
    if (plan_relocated(plan, entry->second, entry->second + entry->extra))
        return false;
    for (uint64_t a = entry->second, end = a + entry->extra; a < end;) {
        ZydisDecodedInstruction instruction;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        const uint8_t *bytes = image_at(plan->image, a, end - a);
        if (!bytes || r->count == INSTRUCTIONS_MAX ||
            !ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(&decoder, bytes, end - a, &instruction, operands)) ||
            (instruction.attributes & ZYDIS_ATTRIB_IS_RELATIVE) ||
            instruction.meta.category == ZYDIS_CATEGORY_CALL ||
            instruction.meta.category == ZYDIS_CATEGORY_RET ||
            instruction.meta.category == ZYDIS_CATEGORY_UNCOND_BR)
            return false;
        depth += stack_delta(instruction.mnemonic);
        if (depth < 0 || names_stack_pointer(&instruction, operands))
            r->call_safe = false;
        int32_t site = site_at(plan, a);
        r->atoms[r->count++] = (struct atom){
            .address = a, .length = instruction.length, .kind = ATOM_INSTRUCTION, .site = site};
        a += instruction.length;
    }
    if (depth)
        r->call_safe = false;
    return true;
}

/* The sites in an entry's replacement: their number, *first = index of the first. */
static size_t sites_in(const struct plan *plan, const struct linux_entry *entry, size_t *first)
{
    size_t low = 0, high = plan->site_count, n = 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (plan->sites[middle].address < entry->second)
            low = middle + 1;
        else
            high = middle;
    }
    *first = low;
    while (low + n < plan->site_count &&
           plan->sites[low + n].address < entry->second + entry->extra)
        n++;
    return entry->extra ? n : 0;
}

static bool wanted(const struct plan *plan, const struct linux_entry *entry)
{
    size_t first;
    size_t n = sites_in(plan, entry, &first);
    for (size_t i = first; i < first + n; i++)
        if (plan->sites[i].status != STATUS_LEFT || plan->sites[i].reason == REASON_UNPROVED)
            return false;
    return n > 0;
}

void alternatives_mark(struct plan *plan)
{
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    for (size_t i = 0; i < table->count; i++)
        plan->grow[i] = table->entries[i].length < REGION_MIN && wanted(plan, &table->entries[i]);
}

static void leave(struct plan *plan, const struct linux_entry *entry, enum reason reason)
{
    size_t first;
    size_t n = sites_in(plan, entry, &first);
    for (size_t i = first; i < first + n; i++) {
        plan->sites[i].status = STATUS_LEFT;
        plan->sites[i].reason = reason;
    }
}

/* A trampoline for equal bytes that can be used by any place with a stack. */
static int64_t find_shared(const struct plan *plan, const struct linux_entry *entry, size_t from)
{
    const uint8_t *bytes = image_at(plan->image, entry->second, entry->extra);
    for (size_t i = from; i < plan->patch_count; i++) {
        const struct patch *p = &plan->patches[i];
        if (p->returns && p->shares < 0 && p->window_size == entry->extra &&
            !memcmp(image_at(plan->image, p->window, p->window_size), bytes, entry->extra))
            return (int64_t)i;
    }
    return -1;
}

static bool choose_templates(struct plan *plan, const struct replacement *r, unsigned context,
                             enum reason *why)
{
    for (int i = 0; i < r->count; i++)
        if (r->atoms[i].site >= 0) {
            struct site *site = &plan->sites[r->atoms[i].site];
            site->context = context;
            if (!plan_choose_template(plan, site, why))
                return false;
        }
    return true;
}

/* The alternative's place has room for five bytes, or gets it. */
static bool place_has_room(struct plan *plan, size_t index)
{
    const struct linux_entry *entry = &plan->tables->table[LINUX_ALTERNATIVES].entries[index];
    const struct atom *atom;
    if (entry->length >= REGION_MIN)
        return true;
    if (!plan_patch_at(plan, entry->address, &atom) && !plan_region_window(plan, entry->address))
        return false;
    /* The window may be another patch's: did the region grow there? */
    return plan_patch_at(plan, entry->address, &atom) && atom->kind == ATOM_REGION &&
           (atom->flags & ATOM_GROW) && atom->address == entry->address &&
           atom->length == entry->length;
}

static bool plan_entry(struct plan *plan, size_t index, size_t first_replacement, enum reason *why)
{
    const struct linux_entry *entry = &plan->tables->table[LINUX_ALTERNATIVES].entries[index];
    struct replacement r;
    enum reason excluded;
    unsigned context = context_at(plan->context, entry->address, &excluded);
    *why = REASON_ALTERNATIVE;
    if (!decode_replacement(plan, entry, &r))
        return false;
    enum pv_form forced = plan->options->form;
    bool call =
        r.call_safe && (context & CONTEXT_STACK) && plan->return_thunk && forced != PV_FORM_JUMP;
    if (forced && forced != (call ? PV_FORM_CALL : PV_FORM_JUMP)) {
        *why = REASON_FORM;
        return false;
    }
    if (!choose_templates(plan, &r, context, why))
        return false;
    *why = REASON_ALTERNATIVE;
    if (!place_has_room(plan, index))
        return false;
    int64_t shared = call ? find_shared(plan, entry, first_replacement) : -1;
    struct patch *patch = plan_add_patch(plan, r.atoms, r.count);
    if (!patch)
        return false;
    patch->form = call ? PV_FORM_CALL : PV_FORM_JUMP;
    patch->tactic = TACTIC_REPLACEMENT;
    patch->flags = PV_PATCH_REPLACEMENT;
    patch->returns = call;
    patch->shares = shared;
    patch->entry = (int64_t)index;
    plan->replaced[index] = (int64_t)(plan->patch_count - 1);
    for (int i = 0; i < r.count; i++)
        if (r.atoms[i].site >= 0) {
            plan_assign_site(plan, (uint32_t)r.atoms[i].site, (uint32_t)(plan->patch_count - 1),
                             (unsigned)i, true);
            plan->sites[r.atoms[i].site].form_reason = FORM_REASON_COPIED;
        }
    return true;
}

int alternatives_plan(struct plan *plan, struct error *err)
{
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    size_t first_replacement = plan->patch_count;
    enum reason why;
    for (size_t i = 0; i < table->count && !plan->failed; i++) {
        const struct linux_entry *entry = &table->entries[i];
        if (wanted(plan, entry) && !plan_entry(plan, i, first_replacement, &why))
            leave(plan, entry, why);
    }
    return plan->failed ? fail(err, EXIT_IO, "%s: out of memory", plan->image->name) : 0;
}
