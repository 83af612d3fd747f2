/* SPDX-License-Identifier: MIT */
/* Code that runs under other page tables. With page-table isolation a Linux kernel is entered under
 * the user's page tables, in which of the kernel's text only the large page of the entry text is
 * mapped; there RSP need not be a stack. What a patch in the entry text leads to must stay in that
 * page, push nothing and touch no state. */
#include <inttypes.h>

#include "patchc/verify_internal.h"

#define LARGE_PAGE ((uint64_t)2 << 20) /* bytes */

static void wrong(struct verify *v, uint32_t patch, const char *what)
{
    verify_mismatch(v, "patch %u: stands in entry text at 0x%" PRIx64 ", and %s", patch,
                    verify_place(v, v->patches[patch].window_offset), what);
}

static bool same_page(const struct verify *v, uint64_t near, int64_t offset, uint64_t size)
{
    uint64_t at = verify_place(v, offset);
    return at / LARGE_PAGE == near / LARGE_PAGE &&
           (size == 0 || (at + size - 1) / LARGE_PAGE == near / LARGE_PAGE);
}

static void check_routine(struct verify *v, uint32_t patch, const struct pv_routine *r,
                          uint64_t near)
{
    const struct pv_header *h = &v->header;
    if (!r->emulation_offset)
        return;
    if (!same_page(v, near, r->emulation_offset, (uint64_t)r->emulation_size + 5))
        wrong(v, patch, "an emulation path is outside its large page");
    if (r->flags & (PV_ROUTINE_STACK | PV_ROUTINE_STATE))
        wrong(v, patch, "a routine uses the stack or the state page");
    if (!(r->flags & PV_ROUTINE_TABLE))
        return;
    if (r->kind == PV_KIND_CPUID
            ? !same_page(v, near, h->cpuid_table_offset, sizeof(struct pv_cpuid_table))
            : !same_page(v, near, h->msr_table_offset, sizeof(struct pv_msr_table)))
        wrong(v, patch, "a routine reads a table outside its large page");
}

/* One patch whose code runs in the place of entry text at `near`. */
static void check_patch(struct verify *v, uint32_t index, uint64_t near)
{
    const struct pv_patch *p = &v->patches[index];
    if (!same_page(v, near, p->trampoline_offset, p->trampoline_size))
        wrong(v, index, "its trampoline is outside its large page");
    if (p->island_offset && !same_page(v, near, p->island_offset, 5))
        wrong(v, index, "its island is outside its large page");
    if (p->form == PV_FORM_CALL)
        wrong(v, index, "it is a call, which needs a stack");
    for (uint32_t i = 0; i < p->routine_count; i++)
        check_routine(v, index, &v->routines[p->first_routine + i], near);
}

void verify_entry_text(struct verify *v)
{
    const struct image_symbol *from = image_symbol_named(&v->before, "__entry_text_start");
    const struct image_symbol *to = image_symbol_named(&v->before, "__entry_text_end");
    if (!v->tables_before.present || !from || !to)
        return;
    for (uint32_t i = 0; i < v->header.patch_count; i++) {
        uint64_t window = verify_place(v, v->patches[i].window_offset);
        if (window >= from->address && window < to->address)
            check_patch(v, i, window);
    }
    const struct linux_table *before = &v->tables_before.table[LINUX_ALTERNATIVES];
    const struct linux_table *after = &v->tables_after.table[LINUX_ALTERNATIVES];
    for (size_t i = 0; i < before->count && i < after->count; i++) {
        const struct linux_entry *e = &before->entries[i];
        if (e->address < from->address || e->address >= to->address ||
            e->second == after->entries[i].second)
            continue;
        const struct pv_patch *p = verify_replacement(v, e, after->entries[i].second);
        if (p)
            check_patch(v, (uint32_t)(p - v->patches), e->address);
    }
}
