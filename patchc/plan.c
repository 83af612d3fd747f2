/* SPDX-License-Identifier: MIT */
/* Planning: for each site a form and a window.
 *
 * A window is a run of consecutive atoms that contains the site, is long enough for the form's
 * instruction, and is entered by nothing but its first byte. Among those possible the cheapest is
 * taken: fewest displaced instructions, no kernel tables, no calls in the middle. Sites are
 * planned in address order; a window's bytes are claimed, and other sites in it are emulated in
 * its trampoline. Where no jump fits, a two-byte branch to an island in dead padding is tried, then
 * neighbours are moved to make such an island. */
#include "patchc/plan.h"

#include <stdlib.h>
#include <string.h>

#include "image/length.h"
#include "patchc/atoms.h"

#define JUMP_SIZE   5u
#define BRANCH_SIZE 2u
#define WINDOW_MAX  64u /* bytes */

bool plan_table_leads_to(const struct plan *plan, uint64_t address)
{
    size_t low = 0, high = plan->led_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (plan->led[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < plan->led_count && plan->led[low] == address;
}

struct patch *plan_add_patch(struct plan *plan, const struct atom *atoms, int count)
{
    if (plan->patch_count == plan->patch_capacity) {
        size_t capacity = plan->patch_capacity ? 2 * plan->patch_capacity : 1024;
        struct patch *grown = realloc(plan->patches, capacity * sizeof *grown);
        if (!grown)
            return plan->failed = true, NULL;
        plan->patches = grown;
        plan->patch_capacity = capacity;
    }
    struct patch *patch = &plan->patches[plan->patch_count];
    *patch = (struct patch){.atom_count = (uint32_t)count, .shares = -1, .entry = -1};
    patch->atoms = malloc((size_t)count * sizeof *atoms);
    if (!patch->atoms)
        return plan->failed = true, NULL;
    memcpy(patch->atoms, atoms, (size_t)count * sizeof *atoms);
    patch->window = atoms[0].address;
    for (int i = 0; i < count; i++)
        patch->window_size += atoms[i].length;
    plan->patch_count++;
    return patch;
}

/* Finds a site's template. False, with the reason, if there is none that may be used there. */
bool plan_choose_template(struct plan *plan, struct site *site, enum reason *why)
{
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    struct template_available available = plan->facilities;
    bool form_known = false;
    *why = REASON_NO_TEMPLATE;
    if (!site_decode(site, &instruction, operands))
        return false;
    available.context = site->context;
    if (!(site->context & CONTEXT_KERNEL_TABLES)) /* neither the state nor the tables are mapped */
        available.state = available.cpuid = available.msr = false;
    site->template = template_find(plan->templates, list_rule_template(site->rule), &instruction,
                                   operands, &available, &form_known);
    if (site->template && template_copies_displacement(site->template) &&
        plan_relocated(plan, site->address, site->address + site->length)) {
        available.context = 0; /* the bare doorbell has no copy of the operand */
        available.state = false;
        site->template =
            template_find(plan->templates, NULL, &instruction, operands, &available, &form_known);
        if (site->template && template_copies_displacement(site->template))
            site->template = NULL;
    }
    if (site->template)
        return true;
    *why = form_known ? REASON_TEMPLATE_NEEDS : REASON_NO_TEMPLATE;
    return false;
}

static bool enterable(const struct atom *atoms, int first, int last)
{
    for (int i = first + 1; i <= last; i++)
        if (atoms[i].flags & ATOM_TARGET)
            return false;
    return true;
}

/* What displacing atoms[first..last] costs; negative if it cannot be done. */
static int window_cost(const struct atom *atoms, int first, int last, int center)
{
    int cost = first < center ? 1 : 0;
    if (atoms[last].kind == ATOM_PADDING && last == first)
        return -1;
    if (atoms[first].kind == ATOM_PADDING)
        return -1;
    for (int i = first; i <= last; i++) {
        const struct atom *a = &atoms[i];
        if (a->kind == ATOM_PADDING)
            continue;
        cost += 2;
        if ((a->flags & ATOM_CALL) && i < last)
            cost += 16;
        if (a->flags & ATOM_TABLES)
            cost += 6;
        if (a->kind == ATOM_REGION)
            cost += 6;
        if (a->site >= 0 && i != center)
            cost -= 3; /* one patch for two sites */
    }
    /* STI alone at the end of a trampoline would give its shadow to the jump back. */
    if (last == center && atoms[last].length == 1)
        cost += 2;
    return cost < 0 ? 0 : cost;
}

struct window {
    int first, last, cost;
    uint64_t island; /* for a branch */
};

/* Dead padding of JUMP_SIZE bytes that a two-byte branch at `from` reaches; 0 if there is none. */
static uint64_t find_island(const struct plan *plan, uint64_t from, uint64_t from_end)
{
    const struct code_section *section = code_section_at(plan->code, from);
    uint64_t low = from + BRANCH_SIZE - 128, high = from + BRANCH_SIZE + 127;
    if (!section)
        return 0;
    if (low < section->address)
        low = section->address;
    for (uint64_t a = low > section->address + 16 ? low - 16 : section->address;
         a <= high && a < section->address + section->size; a++) {
        enum reason why;
        struct atom atom;
        if (!code_is_start(plan->code, a) || !atom_at(plan, a, &atom, &why) ||
            !(atom.flags & ATOM_NO_FALL))
            continue;
        uint64_t island = atom.address + atom.length;
        uint64_t dead = atoms_dead_bytes(plan, island, 64);
        if (dead >= JUMP_SIZE && island >= low && island <= high &&
            (island >= from_end || island + JUMP_SIZE <= from))
            return island;
    }
    return 0;
}

/* The cheapest window of at least `bytes` around the center; with `branch`, one that has an island.
 */
static bool choose_window(const struct plan *plan, const struct atom_run *run, unsigned bytes,
                          bool branch, struct window *best)
{
    best->cost = -1;
    for (int first = run->center; first >= 0; first--)
        for (int last = run->center; last < run->count; last++) {
            uint64_t start = run->atom[first].address;
            uint64_t end = run->atom[last].address + run->atom[last].length;
            int cost = window_cost(run->atom, first, last, run->center);
            if (end - start > WINDOW_MAX || !enterable(run->atom, first, last))
                break;
            if (end - start < bytes || cost < 0 || (best->cost >= 0 && cost >= best->cost))
                continue;
            uint64_t island = branch ? find_island(plan, start, end) : 0;
            if (branch && !island)
                continue;
            *best = (struct window){first, last, cost, island};
        }
    return best->cost >= 0;
}

static enum tactic tactic_of(const struct atom_run *run, const struct window *w)
{
    for (int i = w->first; i <= w->last; i++)
        if (run->atom[i].kind == ATOM_REGION)
            return TACTIC_REGION;
    if (w->first == w->last)
        return TACTIC_EXACT;
    return w->first < run->center ? TACTIC_BACKWARD : TACTIC_FORWARD;
}

/* Records that a site is emulated by a routine of this patch. */
void plan_assign_site(struct plan *plan, uint32_t index, uint32_t patch, unsigned slot, bool leads)
{
    struct site *site = &plan->sites[index];
    site->status = STATUS_PATCHED;
    site->reason = REASON_NONE;
    site->patch = patch;
    site->slot = slot;
    site->form = plan->patches[patch].form;
    site->window = plan->patches[patch].window;
    site->window_size = plan->patches[patch].window_size;
    site->tactic = leads ? (enum tactic)plan->patches[patch].tactic : TACTIC_SHARED;
}

/* Settles which atoms of a new patch hold sites that get a routine. */
static void assign_sites(struct plan *plan, uint32_t patch, uint32_t leader,
                         enum form_reason reason)
{
    struct patch *p = &plan->patches[patch];
    for (uint32_t i = 0; i < p->atom_count; i++) {
        struct atom *atom = &p->atoms[i];
        enum reason why;
        if (atom->site < 0)
            continue;
        struct site *site = &plan->sites[atom->site];
        if ((uint32_t)atom->site != leader && !site->template &&
            !plan_choose_template(plan, site, &why)) {
            site->reason = why;
            atom->site = -1; /* displaced like any other instruction */
            continue;
        }
        plan_assign_site(plan, (uint32_t)atom->site, patch, i, (uint32_t)atom->site == leader);
        site->form_reason = reason;
        int32_t sti = atom_pairs_sti(plan, atom) ? site_at(plan, atom->address) : -1;
        if (sti >= 0 && plan->sites[sti].status != STATUS_EXCLUDED) {
            plan->sites[sti].template = site->template;
            plan_assign_site(plan, (uint32_t)sti, patch, i, (uint32_t)sti == leader);
            plan->sites[sti].form_reason = reason;
        }
    }
    claim(plan, p->window, p->window_size);
    if (p->form == PV_FORM_BRANCH)
        claim(plan, p->island, JUMP_SIZE);
}

/* Routines stand in the order of their sites: no routine's index is larger than its site's. */
static unsigned form_bytes(enum pv_form form, uint32_t site)
{
    if (form == PV_FORM_BRANCH)
        return BRANCH_SIZE;
    if (form == PV_FORM_BREAK)
        return site < PV_BREAK_SHORT_LIMIT ? 4 : 7;
    return JUMP_SIZE;
}

static bool try_form(struct plan *plan, uint32_t index, enum pv_form form, enum form_reason reason)
{
    struct site *site = &plan->sites[index];
    struct atom_run run;
    struct window window;
    enum reason why;
    if (form == PV_FORM_CALL && !(site->context & CONTEXT_STACK)) {
        site->reason = REASON_FORM;
        return false;
    }
    if (!atoms_around(plan, site->address, &run, &why)) {
        site->reason = why;
        return false;
    }
    if (run.atom[run.center].site < 0) {
        site->reason = REASON_ALTERNATIVE;
        return false;
    }
    site->reason = REASON_NO_ROOM;
    if (!choose_window(plan, &run, form_bytes(form, index), form == PV_FORM_BRANCH, &window))
        return false;
    struct patch *patch =
        plan_add_patch(plan, &run.atom[window.first], window.last - window.first + 1);
    if (!patch)
        return false;
    patch->form = (uint8_t)form;
    patch->island = window.island;
    patch->tactic = (uint8_t)(form == PV_FORM_BRANCH  ? TACTIC_ISLAND
                              : form == PV_FORM_BREAK ? TACTIC_BREAK
                                                      : tactic_of(&run, &window));
    assign_sites(plan, (uint32_t)(plan->patch_count - 1), index, reason);
    return true;
}

/* Chooses the form (D11): the forced one, the list's, else a jump, and a short branch where no jump
 * fits. */
static void plan_site(struct plan *plan, uint32_t index)
{
    struct site *site = &plan->sites[index];
    enum pv_form forced = plan->options->form, listed = list_rule_form(site->rule);
    enum reason why;
    if (!plan_choose_template(plan, site, &why)) {
        site->reason = why;
        return;
    }
    if (forced) {
        try_form(plan, index, forced, FORM_REASON_FORCED);
        return;
    }
    if (listed && try_form(plan, index, listed, FORM_REASON_LIST))
        return;
    if (!try_form(plan, index, PV_FORM_JUMP, FORM_REASON_CHEAPEST))
        try_form(plan, index, PV_FORM_BRANCH, FORM_REASON_SHORT);
}

/* Moves the code around `address`, which holds no site, so that it can grow or make room. */
bool plan_region_window(struct plan *plan, uint64_t address)
{
    struct atom_run run;
    struct window window;
    enum reason why;
    if (!atoms_around(plan, address, &run, &why) ||
        !choose_window(plan, &run, JUMP_SIZE, false, &window))
        return false;
    struct patch *patch =
        plan_add_patch(plan, &run.atom[window.first], window.last - window.first + 1);
    if (!patch)
        return false;
    patch->form = PV_FORM_JUMP;
    patch->tactic = TACTIC_REGION;
    patch->flags = PV_PATCH_EVICTED;
    assign_sites(plan, (uint32_t)(plan->patch_count - 1), UINT32_MAX, FORM_REASON_CHEAPEST);
    return true;
}

/* Moves a neighbour of ten bytes or more within reach of a two-byte branch at `from`: its jump
 * takes five, the rest is dead and makes an island. */
static bool evict_neighbour(struct plan *plan, uint64_t from, uint64_t from_end)
{
    const struct code_section *section = code_section_at(plan->code, from);
    uint64_t low = from > section->address + 110 ? from - 110 : section->address;
    for (uint64_t a = low; a < from + 110 && a < section->address + section->size; a++) {
        struct atom_run run;
        enum reason why;
        if (!code_is_start(plan->code, a) || !atoms_around(plan, a, &run, &why))
            continue;
        int first = run.center, last = first;
        uint64_t start = run.atom[first].address, end = start;
        for (; last < run.count; last++) {
            const struct atom *atom = &run.atom[last];
            end = atom->address + atom->length;
            if (end - start >= 2 * JUMP_SIZE || (last > first && (atom->flags & ATOM_TARGET)) ||
                atom->site >= 0 || (atom->flags & (ATOM_CALL | ATOM_TABLES)))
                break;
        }
        if (last >= run.count || end - start < 2 * JUMP_SIZE || !enterable(run.atom, first, last) ||
            run.atom[last].site >= 0 || (start < from_end && end > from))
            continue;
        struct patch *patch = plan_add_patch(plan, &run.atom[first], last - first + 1);
        if (!patch)
            return false;
        patch->form = PV_FORM_JUMP;
        patch->tactic = TACTIC_EVICT;
        patch->flags = PV_PATCH_EVICTED;
        claim(plan, patch->window, JUMP_SIZE); /* the rest is the island's */
        patch->spare = patch->window + JUMP_SIZE;
        return true;
    }
    return false;
}

/* A two-byte branch whose island is made by moving a neighbour. */
static void plan_evicting(struct plan *plan, uint32_t index)
{
    struct site *site = &plan->sites[index];
    struct atom_run run;
    enum reason why;
    if (!atoms_around(plan, site->address, &run, &why) || run.atom[run.center].site < 0)
        return;
    for (int first = run.center; first >= 0; first--)
        for (int last = run.center; last < run.count; last++) {
            uint64_t start = run.atom[first].address;
            uint64_t end = run.atom[last].address + run.atom[last].length;
            if (!enterable(run.atom, first, last) || end - start > WINDOW_MAX)
                break;
            if (end - start < BRANCH_SIZE || window_cost(run.atom, first, last, run.center) < 0 ||
                !evict_neighbour(plan, start, end))
                continue;
            uint64_t island = plan->patches[plan->patch_count - 1].spare;
            claim(plan, island, plan->patches[plan->patch_count - 1].window_size - JUMP_SIZE);
            struct patch *patch = plan_add_patch(plan, &run.atom[first], last - first + 1);
            if (!patch)
                return;
            patch->form = PV_FORM_BRANCH;
            patch->tactic = TACTIC_EVICT;
            patch->island = island;
            assign_sites(plan, (uint32_t)(plan->patch_count - 1), index, FORM_REASON_SHORT);
            return;
        }
}

static int compare_addresses(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int allocate(struct plan *plan)
{
    const struct linux_table *ex = &plan->tables->table[LINUX_EX_TABLE];
    const struct linux_table *jump = &plan->tables->table[LINUX_JUMP_TABLE];
    const struct linux_table *alternatives = &plan->tables->table[LINUX_ALTERNATIVES];
    plan->claimed = calloc(plan->code->section_count + 1, sizeof *plan->claimed);
    plan->grow = calloc(alternatives->count + 1, sizeof *plan->grow);
    plan->replaced = malloc((alternatives->count + 1) * sizeof *plan->replaced);
    plan->led = malloc((ex->count + jump->count + 1) * sizeof *plan->led);
    if (!plan->claimed || !plan->grow || !plan->led || !plan->replaced)
        return -1;
    for (size_t i = 0; i < plan->code->section_count; i++) {
        plan->claimed[i] = calloc(plan->code->sections[i].size / 64 + 1, sizeof(uint64_t));
        if (!plan->claimed[i])
            return -1;
    }
    for (size_t i = 0; i < alternatives->count; i++)
        plan->replaced[i] = -1;
    for (size_t i = 0; i < ex->count; i++)
        plan->led[plan->led_count++] = ex->entries[i].second;
    for (size_t i = 0; i < jump->count; i++)
        plan->led[plan->led_count++] = jump->entries[i].second;
    qsort(plan->led, plan->led_count, sizeof *plan->led, compare_addresses);
    return 0;
}

int plan_open(struct plan *plan, struct error *err)
{
    if (allocate(plan))
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    alternatives_mark(plan);
    for (uint32_t i = 0; i < plan->site_count; i++)
        if (plan->sites[i].status == STATUS_LEFT && plan->sites[i].reason != REASON_UNPROVED &&
            !plan->sites[i].in_replacement)
            plan_site(plan, i);
    if (!plan->options->form || plan->options->form == PV_FORM_BRANCH)
        for (uint32_t i = 0; i < plan->site_count; i++)
            if (plan->sites[i].status == STATUS_LEFT && plan->sites[i].reason == REASON_NO_ROOM &&
                !plan->sites[i].in_replacement)
                plan_evicting(plan, i);
    if (alternatives_plan(plan, err))
        return -1;
    /* Another form might have found room: that this one did not is all that is known. */
    for (uint32_t i = 0; plan->options->form && i < plan->site_count; i++)
        if (plan->sites[i].status == STATUS_LEFT && plan->sites[i].reason == REASON_NO_ROOM)
            plan->sites[i].reason = REASON_FORM;
    if (plan->failed)
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    return plan_layout(plan, err);
}

void plan_close(struct plan *plan)
{
    for (size_t i = 0; i < plan->patch_count; i++)
        free(plan->patches[i].atoms);
    for (size_t i = 0; plan->claimed && i < plan->code->section_count; i++)
        free(plan->claimed[i]);
    free(plan->claimed);
    free(plan->patches);
    free(plan->routines);
    free(plan->grow);
    free(plan->replaced);
    free(plan->led);
    space_close(&plan->space);
}
