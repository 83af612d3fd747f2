/* SPDX-License-Identifier: MIT */
/* Layout: routines, sizes and addresses of everything that the plan adds, and the maps from
 * original to displaced code. */
#include <stdlib.h>
#include <string.h>

#include "hvstub/hvstub.h"
#include "image/length.h"
#include "patchc/atoms.h"
#include "patchc/emit.h"
#include "patchc/plan.h"

#define LARGE_PAGE (2ull << 20)
#define REACH      ((2ull << 30) - (64u << 20)) /* bytes: a rel32, less what one patch may span */

static int compare_patches(const void *a, const void *b)
{
    const struct patch *x = a, *y = b;
    if (x->window != y->window)
        return x->window < y->window ? -1 : 1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

/* Sorts the patches by window and corrects all that names them by index. */
static int sort_patches(struct plan *plan, struct error *err)
{
    uint32_t *new_index = malloc((plan->patch_count + 1) * sizeof *new_index);
    if (!new_index)
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    for (size_t i = 0; i < plan->patch_count; i++)
        plan->patches[i].creation = (uint32_t)i;
    if (plan->patch_count)
        qsort(plan->patches, plan->patch_count, sizeof *plan->patches, compare_patches);
    for (size_t i = 0; i < plan->patch_count; i++)
        new_index[plan->patches[i].creation] = (uint32_t)i;
    for (size_t i = 0; i < plan->patch_count; i++)
        if (plan->patches[i].shares >= 0)
            plan->patches[i].shares = new_index[plan->patches[i].shares];
    for (size_t i = 0; i < plan->site_count; i++)
        if (plan->sites[i].status == STATUS_PATCHED)
            plan->sites[i].patch = new_index[plan->sites[i].patch];
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    for (size_t i = 0; i < table->count; i++)
        if (plan->replaced[i] >= 0)
            plan->replaced[i] = new_index[plan->replaced[i]];
    free(new_index);
    plan->sorted = true;
    return 0;
}

/* Gives each site atom of a patch its routine. */
static int number_routines(struct plan *plan, uint32_t index)
{
    struct patch *patch = &plan->patches[index];
    patch->first_routine = (uint32_t)plan->routine_count;
    for (uint32_t i = 0; i < patch->atom_count; i++) {
        int32_t site = patch->atoms[i].site;
        if (site < 0)
            continue;
        if (plan->routine_count == plan->routine_capacity) {
            size_t capacity = plan->routine_capacity ? 2 * plan->routine_capacity : 1024;
            struct routine *grown = realloc(plan->routines, capacity * sizeof *grown);
            if (!grown)
                return -1;
            plan->routines = grown;
            plan->routine_capacity = capacity;
        }
        struct routine *r = &plan->routines[plan->routine_count];
        *r = (struct routine){.site = (uint32_t)site,
                              .patch = index,
                              .atom = i,
                              .template = plan->sites[site].template};
        r->flags = template_flags(r->template);
        r->kind = template_kind(r->template);
        if (atom_pairs_sti(plan, &patch->atoms[i]))
            r->flags |= PV_ROUTINE_STI;
        if (patch->flags & PV_PATCH_REPLACEMENT)
            r->flags |= PV_ROUTINE_REPLACEMENT;
        patch->routine_count++;
        plan->routine_count++;
    }
    if (patch->routine_count)
        patch->flags &= (uint8_t)~PV_PATCH_EVICTED;
    return 0;
}

static void measure(struct plan *plan, struct patch *patch)
{
    uint32_t size =
        patch->form == PV_FORM_CALL && !(patch->flags & PV_PATCH_REPLACEMENT) ? EMIT_ENDBR_SIZE : 0;
    for (uint32_t i = 0; i < patch->atom_count; i++) {
        patch->atoms[i].offset = size;
        size += (patch->atoms[i].site >= 0 ? EMIT_LINK_SIZE : 0) + emit_size(plan, patch, i);
    }
    if (emit_falls_out(plan, patch))
        size += EMIT_JUMP_SIZE;
    patch->trampoline_size = size;
    for (uint32_t i = 0; i < patch->routine_count; i++)
        size += (uint32_t)template_size(plan->routines[patch->first_routine + i].template) +
                EMIT_JUMP_SIZE;
    patch->total_size = size;
}

/* A jump reaches two gigabytes. Under the user page tables of PTI only the large page of the entry text is mapped. */
static void reach_of(const struct plan *plan, const struct patch *patch, uint64_t *low,
                     uint64_t *high)
{
    enum reason excluded;
    uint64_t at = patch->entry >= 0
                      ? plan->tables->table[LINUX_ALTERNATIVES].entries[patch->entry].address
                      : patch->window;
    *low = at > REACH ? at - REACH : 0;
    *high = at < UINT64_MAX - REACH ? at + REACH : UINT64_MAX;
    if (!(context_at(plan->context, at, &excluded) & CONTEXT_KERNEL_TABLES)) {
        *low = at & ~(LARGE_PAGE - 1);
        *high = *low + LARGE_PAGE;
    }
}

static uint64_t take(struct plan *plan, uint64_t size, uint64_t align)
{
    return space_take(&plan->space, size, align, 0, UINT64_MAX);
}

/* Finds room for a patch. False: there is none within reach. */
static bool place(struct plan *plan, struct patch *patch)
{
    uint64_t low, high;
    reach_of(plan, patch, &low, &high);
    if (patch->flags & PV_PATCH_REPLACEMENT) {
        patch->island = space_take(&plan->space, EMIT_JUMP_SIZE, 1, low, high);
        if (!patch->island)
            return false;
    } else if (patch->form == PV_FORM_CALL) {
        bool far = emit_entry_is_low(plan, patch);
        patch->island = space_take(&plan->space, far ? EMIT_LOW_ENTRY_SIZE : EMIT_CALL_ENTRY_SIZE,
                                   far ? 8 : 1, low, high);
        if (!patch->island)
            return false;
    }
    patch->trampoline = space_take(&plan->space, patch->total_size, 16, low, high);
    return patch->trampoline != 0;
}

static void address_routines(struct plan *plan, const struct patch *patch)
{
    uint64_t at = patch->trampoline + patch->trampoline_size;
    for (uint32_t i = 0; i < patch->routine_count; i++) {
        struct routine *r = &plan->routines[patch->first_routine + i];
        const struct atom *atom = &patch->atoms[r->atom];
        r->link = patch->trampoline + atom->offset;
        r->native = r->link + EMIT_LINK_SIZE;
        r->tail = r->native + emit_size(plan, patch, r->atom);
        if (atom->kind == ATOM_STI && !atom_pairs_sti(plan, atom))
            r->tail = r->native + 1; /* STI alone: what waits for it follows */
        if (atom->flags & ATOM_NO_FALL)
            r->tail = r->native; /* nothing behind it: the emulation path never gets there */
        r->emulation = at;
        r->emulation_size = (uint32_t)template_size(r->template);
        at += r->emulation_size + EMIT_JUMP_SIZE;
    }
}

static void leave_site(struct plan *plan, int32_t site)
{
    if (site < 0 || plan->sites[site].status != STATUS_PATCHED)
        return;
    plan->sites[site].status = STATUS_LEFT;
    plan->sites[site].reason = REASON_NO_SPACE;
}

static void leave_patch(struct plan *plan, struct patch *patch)
{
    for (uint32_t i = 0; i < patch->atom_count; i++) {
        leave_site(plan, patch->atoms[i].site);
        if (patch->atoms[i].kind == ATOM_STI)
            leave_site(plan, site_at(plan, patch->atoms[i].address));
    }
    patch->trampoline = 0;
    for (uint32_t i = 0; i < patch->routine_count && patch->shares < 0; i++)
        plan->routines[patch->first_routine + i].link = 0;
}

/* Finds room for header and tables. False: there is none. */
static bool place_tables(struct plan *plan)
{
    bool cpuid = false, msr = false;
    for (size_t i = 0; i < plan->routine_count; i++) {
        cpuid |= template_needs_cpuid(plan->routines[i].template);
        msr |= template_needs_msr(plan->routines[i].template);
    }
    plan->header = take(plan, sizeof(struct pv_header), 64);
    plan->routine_table = take(plan, 8 * plan->routine_count + 8, 8);
    plan->routine_info = take(plan, sizeof(struct pv_routine) * plan->routine_count + 8, 8);
    plan->patch_info = take(plan, sizeof(struct pv_patch) * plan->patch_count + 8, 8);
    plan->cpuid_table = cpuid ? take(plan, sizeof(struct pv_cpuid_table), 64) : 0;
    plan->msr_table = msr ? take(plan, sizeof(struct pv_msr_table), 64) : 0;
    return plan->header && plan->routine_table && plan->routine_info && plan->patch_info &&
           (!cpuid || plan->cpuid_table) && (!msr || plan->msr_table);
}

/* Without room for the stub nothing is patched: every site is left, for that reason. */
static void leave_all(struct plan *plan)
{
    plan->header = 0;
    for (size_t i = 0; i < plan->patch_count; i++)
        leave_patch(plan, &plan->patches[i]);
}

/* True if the code at `address` was to move and found no room. */
static bool stayed(const struct plan *plan, uint64_t address)
{
    const struct atom *atom;
    const struct patch *patch = plan_patch_at(plan, address, &atom);
    return patch && !patch->trampoline;
}

/* Leaves patches that need what a neighbour gives only by moving: an island, or a place that grows.
 */
static void leave_dependents(struct plan *plan)
{
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    for (size_t i = 0; i < plan->patch_count; i++) {
        struct patch *patch = &plan->patches[i];
        if (!patch->trampoline)
            continue;
        if (patch->form == PV_FORM_BRANCH
                ? stayed(plan, patch->island)
                : patch->entry >= 0 && table->entries[patch->entry].length < REGION_MIN &&
                      stayed(plan, table->entries[patch->entry].address))
            leave_patch(plan, patch);
    }
}

/* Shared replacement trampolines take the address of the patch that has the code. */
static void share(struct plan *plan)
{
    for (size_t i = 0; i < plan->patch_count; i++) {
        struct patch *patch = &plan->patches[i];
        if (patch->shares < 0)
            continue;
        const struct patch *owner = &plan->patches[patch->shares];
        patch->trampoline = owner->trampoline;
        patch->trampoline_size = owner->trampoline_size;
        patch->island = owner->island;
        patch->first_routine = owner->first_routine;
        patch->routine_count = owner->routine_count;
        for (uint32_t k = 0; k < patch->atom_count; k++)
            patch->atoms[k].offset = owner->atoms[k].offset;
        if (!owner->trampoline)
            leave_patch(plan, patch);
    }
}

static void index_sites(struct plan *plan)
{
    for (size_t i = 0; i < plan->patch_count; i++) {
        const struct patch *patch = &plan->patches[i];
        uint32_t next = patch->first_routine;
        for (uint32_t k = 0; k < patch->atom_count && patch->trampoline; k++) {
            const struct atom *atom = &patch->atoms[k];
            if (atom->site < 0)
                continue;
            struct site *site = &plan->sites[atom->site];
            site->index = (int32_t)next;
            site->routine = plan->routines[next++].link;
            int32_t sti = atom_pairs_sti(plan, atom) ? site_at(plan, atom->address) : -1;
            if (sti >= 0) {
                plan->sites[sti].index = site->index;
                plan->sites[sti].routine = site->routine;
            }
        }
    }
}

int plan_layout(struct plan *plan, struct error *err)
{
    if (sort_patches(plan, err))
        return -1;
    for (uint32_t i = 0; i < plan->patch_count; i++)
        if (plan->patches[i].shares < 0 && number_routines(plan, i))
            return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    if (!plan->patch_count)
        return 0;
    if (!place_tables(plan)) {
        leave_all(plan);
        return 0;
    }
    for (size_t i = 0; i < plan->patch_count; i++) {
        struct patch *patch = &plan->patches[i];
        if (patch->shares >= 0)
            continue;
        measure(plan, patch);
        if (!place(plan, patch))
            leave_patch(plan, patch);
        else
            address_routines(plan, patch);
    }
    leave_dependents(plan);
    share(plan);
    leave_dependents(plan); /* those that share, too */
    index_sites(plan);
    return 0;
}

/* --- where things went ------------------------------------------------------------------- */

static const struct atom *atom_in(const struct patch *patch, uint64_t address)
{
    for (uint32_t i = 0; i < patch->atom_count; i++)
        if (address - patch->atoms[i].address < patch->atoms[i].length)
            return &patch->atoms[i];
    return NULL;
}

const struct patch *plan_patch_at(const struct plan *plan, uint64_t address,
                                  const struct atom **atom)
{
    const struct patch *found = NULL;
    if (plan->sorted) {
        size_t low = 0, high = plan->patch_count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (plan->patches[middle].window <= address)
                low = middle + 1;
            else
                high = middle;
        }
        if (low)
            found = &plan->patches[low - 1];
    } else {
        for (size_t i = 0; i < plan->patch_count && !found; i++)
            if (address - plan->patches[i].window < plan->patches[i].window_size)
                found = &plan->patches[i];
    }
    if (!found || (found->flags & PV_PATCH_REPLACEMENT) ||
        address - found->window >= found->window_size)
        return NULL;
    *atom = atom_in(found, address);
    return *atom ? found : NULL;
}

uint64_t plan_forward(const struct plan *plan, uint64_t address)
{
    const struct atom *atom;
    const struct patch *patch = plan_patch_at(plan, address, &atom);
    if (!patch || !patch->trampoline || address == patch->window || atom->kind == ATOM_PADDING)
        return address;
    uint64_t copy = patch->trampoline + atom->offset;
    if (address != atom->address)
        copy += (atom->site >= 0 ? EMIT_LINK_SIZE : 0) + (address - atom->address);
    return copy;
}

uint64_t plan_moved(const struct plan *plan, uint64_t address)
{
    const struct atom *atom;
    const struct patch *patch = plan_patch_at(plan, address, &atom);
    if (!patch || !patch->trampoline || atom->kind == ATOM_PADDING)
        return address;
    return patch->trampoline + atom->offset + (atom->site >= 0 ? EMIT_LINK_SIZE : 0) +
           (address - atom->address);
}

/* Words of the first sorted list place at or behind `low`. */
bool plan_relocated(const struct plan *plan, uint64_t from, uint64_t to)
{
    for (int kind = 0; kind < RELOC_KINDS; kind++) {
        size_t low = 0, high = plan->relocs->count[kind];
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (relocs_address(plan->relocs_sorted[kind][middle]) < from)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < plan->relocs->count[kind] && relocs_address(plan->relocs_sorted[kind][low]) < to)
            return true;
    }
    return false;
}
