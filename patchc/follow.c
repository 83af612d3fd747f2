/* SPDX-License-Identifier: MIT */
/* Kernel tables that follow moved code: each entry is mapped from the original address to where its
 * code is now; slots stay where they are, except that the exception table is sorted again. */
#include "patchc/follow.h"

#include <stdlib.h>
#include <string.h>

struct follower {
    const struct plan *plan;
    struct output_bytes *out;
    struct error *err;
    uint64_t changed; /* entries */
};

static int put_relative(struct follower *f, uint64_t field, uint64_t target)
{
    int32_t relative = (int32_t)(target - field);
    return output_put(f->out, field, &relative, 4, f->err);
}

/* A table whose entries begin with one self-relative code address. */
static int follow_plain(struct follower *f, const struct linux_entry *e)
{
    uint64_t now = plan_moved(f->plan, e->address);
    if (now == e->address)
        return 0;
    f->changed++;
    return put_relative(f, e->slot, now);
}

static int follow_paravirt(struct follower *f, const struct linux_entry *e)
{
    uint64_t now = plan_moved(f->plan, e->address);
    if (now == e->address)
        return 0;
    f->changed++;
    return output_put(f->out, e->slot, &now, 8, f->err);
}

static int follow_jump_label(struct follower *f, const struct linux_entry *e)
{
    uint64_t code = plan_moved(f->plan, e->address), target = plan_forward(f->plan, e->second);
    if (code == e->address && target == e->second)
        return 0;
    f->changed++;
    return put_relative(f, e->slot, code) || put_relative(f, e->slot + 4, target) ? -1 : 0;
}

/* Offsets of instrlen and replacementlen, by the entry's size (it changed over the kernel
 * versions). */
static unsigned lengths_offset(unsigned entry_size)
{
    return entry_size == 14 ? 12 : 10;
}

static int follow_alternative(struct follower *f, const struct linux_entry *e)
{
    const struct plan *plan = f->plan;
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    int64_t replaced = plan->replaced[e - table->entries];
    const struct patch *by = replaced >= 0 ? &plan->patches[replaced] : NULL;
    const struct atom *atom = NULL;
    uint64_t now = plan_moved(plan, e->address);
    uint64_t lengths = e->slot + lengths_offset(table->entry_size);
    const struct patch *place = plan_patch_at(plan, e->address, &atom);
    bool grown = place && place->trampoline && (atom->flags & ATOM_GROW) &&
                 atom->address == e->address && atom->length == e->length;
    if (by && !by->trampoline)
        by = NULL;
    if (now == e->address && !by)
        return 0;
    f->changed++;
    uint8_t length = grown ? REGION_MIN : (uint8_t)e->length, five = 5;
    if (put_relative(f, e->slot, now) || output_put(f->out, lengths, &length, 1, f->err))
        return -1;
    if (by && (put_relative(f, e->slot + 4, by->island) ||
               output_put(f->out, lengths + 1, &five, 1, f->err)))
        return -1;
    return 0;
}

static const struct {
    enum linux_table_kind kind;
    int (*follow)(struct follower *f, const struct linux_entry *e);
} followers[] = {
    {LINUX_BUG_TABLE, follow_plain},       {LINUX_ALTERNATIVES, follow_alternative},
    {LINUX_PARAVIRT, follow_paravirt},     {LINUX_RETPOLINE_SITES, follow_plain},
    {LINUX_RETURN_SITES, follow_plain},    {LINUX_SMP_LOCKS, follow_plain},
    {LINUX_JUMP_TABLE, follow_jump_label}, {LINUX_STATIC_CALLS, follow_plain},
};

struct exception {
    uint64_t instruction, fixup, handler;
    uint32_t data, order;
};

static int compare_exceptions(const void *a, const void *b)
{
    const struct exception *x = a, *y = b;
    if (x->instruction != y->instruction)
        return x->instruction < y->instruction ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* The exception table is searched by bisection: its entries are written anew in sorted order. */
static int follow_exceptions(struct follower *f)
{
    const struct linux_tables *tables = f->plan->tables;
    const struct linux_table *table = &tables->table[LINUX_EX_TABLE];
    struct exception *list = malloc((table->count + 1) * sizeof *list);
    int status = 0;
    if (!list)
        return fail(f->err, EXIT_IO, "%s: out of memory", f->plan->image->name);
    for (size_t i = 0; i < table->count; i++) {
        const struct linux_entry *e = &table->entries[i];
        list[i] = (struct exception){
            plan_moved(f->plan, e->address), plan_forward(f->plan, e->second),
            e->slot + 8 + (uint64_t)(int64_t)(int32_t)e->data, e->data, (uint32_t)i};
        f->changed += list[i].instruction != e->address || list[i].fixup != e->second;
    }
    if (f->changed) {
        qsort(list, table->count, sizeof *list, compare_exceptions);
        for (size_t i = 0; i < table->count && !status; i++) {
            uint64_t slot = table->entries[i].slot;
            uint32_t data =
                tables->ex_handlers ? (uint32_t)(list[i].handler - (slot + 8)) : list[i].data;
            status = put_relative(f, slot, list[i].instruction) ||
                             put_relative(f, slot + 4, list[i].fixup) ||
                             output_put(f->out, slot + 8, &data, 4, f->err)
                         ? -1
                         : 0;
        }
    }
    free(list);
    return status;
}

int follow_tables(const struct plan *plan, struct output_bytes *out, struct build_result *result,
                  struct error *err)
{
    struct follower f = {plan, out, err, 0};
    if (follow_exceptions(&f))
        return -1;
    result->tables_updated[LINUX_EX_TABLE] = f.changed;
    for (size_t i = 0; i < sizeof followers / sizeof followers[0]; i++) {
        const struct linux_table *table = &plan->tables->table[followers[i].kind];
        f.changed = 0;
        for (size_t k = 0; k < table->count; k++)
            if (followers[i].follow(&f, &table->entries[k]))
                return -1;
        result->tables_updated[followers[i].kind] = f.changed;
    }
    return 0;
}

int follow_relocs(const struct plan *plan, struct output_bytes *out, struct build_result *result,
                  uint32_t **added, size_t *added_count, struct error *err)
{
    const struct relocs *relocs = plan->relocs;
    *added = NULL;
    *added_count = 0;
    if (!relocs->present)
        return 0;
    for (int kind = 0; kind < RELOC_KINDS; kind++)
        for (size_t i = 0; i < relocs->count[kind]; i++) {
            uint64_t place = relocs_address(relocs_word(relocs, kind, i));
            uint64_t now = plan_moved(plan, place);
            if (now == place)
                continue;
            uint32_t word = (uint32_t)now;
            output_put_file(out, relocs->offset[kind] + 4 * i, &word, 4);
            result->relocs_updated++;
        }
    *added = malloc((plan->routine_count + plan->patch_count + 1) * sizeof **added);
    if (!*added)
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    for (size_t i = 0; i < plan->routine_count; i++)
        if (plan->routines[i].link)
            (*added)[(*added_count)++] = (uint32_t)(plan->routine_table + 8 * i);
    for (size_t i = 0; i < plan->patch_count; i++)
        if (plan->patches[i].trampoline && emit_entry_is_low(plan, &plan->patches[i]))
            (*added)[(*added_count)++] = (uint32_t)(plan->patches[i].island + EMIT_LOW_ENTRY_WORD);
    return 0;
}
