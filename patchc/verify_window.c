/* SPDX-License-Identifier: MIT */
/* Patches: what each window holds, by its form, and that it leads to its trampoline.
 * hvstub.h ("What a site holds, by form") has the encodings. */
#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/verify_internal.h"

enum { ISLAND_SIZE = 5, CALL_ENTRY_SIZE = 11 };

static void wrong(struct verify *v, uint32_t index, const char *what)
{
    verify_mismatch(v, "patch %u: window 0x%" PRIx64 ": %s", index,
                    verify_place(v, v->patches[index].window_offset), what);
}

/* `opcode rel32` at `address` in the patched image: true if it goes to `target`. */
static bool leads(const struct verify *v, uint64_t address, uint8_t opcode, uint64_t target)
{
    const uint8_t *at = image_at(&v->after, address, 5);
    return at && at[0] == opcode && address + 5 + (uint64_t)read_s32(at + 1) == target;
}

/* The call entry drops the return address and jumps through the routine table (D4, D5). */
static bool is_call_entry(const struct verify *v, uint64_t address, uint32_t routine)
{
    static const uint8_t drop[] = {0x48, 0x8d, 0x64, 0x24, 0x08, 0xff, 0x25};
    const uint8_t *at = image_at(&v->after, address, CALL_ENTRY_SIZE);
    uint64_t slot = verify_place(v, v->header.routine_table_offset) + 8 * (uint64_t)routine;
    return at && memcmp(at, drop, sizeof drop) == 0 &&
           address + CALL_ENTRY_SIZE + (uint64_t)read_s32(at + sizeof drop) == slot;
}

/* The call entry of code that also runs at a low identity address: it adds to the table's address
 * its own distance from where it was linked, which stands behind it. */
bool verify_low_entry(const struct verify *v, uint64_t address, uint32_t routine)
{
    static const uint8_t code[] = {0x50, 0x51, 0x48, 0x8b, 0x05, 0,    0,    0,    0,    0x48,
                                   0xf7, 0xd0, 0x48, 0x8d, 0x0d, 0,    0,    0,    0,    0x48,
                                   0x8d, 0x44, 0x08, 0x01, 0x48, 0x8b, 0x0d, 0,    0,    0,
                                   0,    0x48, 0x8d, 0x04, 0x08, 0x48, 0x89, 0x44, 0x24, 0x10,
                                   0x59, 0x58, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc};
    static const unsigned fields[] = {5, 15, 27}; /* displacements: linked address, entry, slot */
    const uint8_t *at = image_at(&v->after, address, VERIFY_LOW_ENTRY_SIZE);
    uint64_t slot = verify_place(v, v->header.routine_table_offset) + 8 * (uint64_t)routine;
    const uint64_t targets[] = {address + sizeof code, address, slot};
    if (!at || address % 8 != 0)
        return false;
    for (unsigned i = 0, field = 0; i < sizeof code; i++) {
        if (field < 3 && i == fields[field]) {
            if (address + i + 4 + (uint64_t)read_s32(at + i) != targets[field++])
                return false;
            i += 3;
        } else if (at[i] != code[i]) {
            return false;
        }
    }
    return read_u64(at + sizeof code) == address;
}

/* Bytes of the break instruction for this routine (D3), 0 if it is not there. */
static unsigned break_size(const uint8_t *at, uint64_t size, uint32_t routine)
{
    uint8_t code[7] = {0x0f, 0xb9, 0x80};
    unsigned length = 7;
    memcpy(code + 3, &routine, sizeof routine);
    if (routine < PV_BREAK_SHORT_LIMIT) {
        length = 4;
        code[2] = 0x40 | (routine >> 8) << 3;
        code[3] = routine & 0xff;
    }
    return size >= length && memcmp(at, code, length) == 0 ? length : 0;
}

/* Checks the instruction at the start of a window; returns its length, 0 with a mismatch. */
static unsigned check_form(struct verify *v, uint32_t index)
{
    const struct pv_patch *p = &v->patches[index];
    uint64_t window = verify_place(v, p->window_offset), to = verify_place(v, p->trampoline_offset);
    uint64_t island = p->island_offset ? verify_place(v, p->island_offset) : 0;
    const uint8_t *at = image_at(&v->after, window, p->window_size);
    unsigned length = 0;
    bool uses_island = p->form == PV_FORM_CALL || p->form == PV_FORM_BRANCH;
    if (uses_island != (island != 0)) {
        wrong(v, index, "its form and its island disagree");
        return 0;
    }
    if (!at) {
        wrong(v, index, "is not in the image");
        return 0;
    }
    switch (p->form) {
    case PV_FORM_JUMP:
        length = p->window_size >= 5 && leads(v, window, 0xe9, to) ? 5 : 0;
        break;
    case PV_FORM_CALL:
        length = p->window_size >= 5 && leads(v, window, 0xe8, island) &&
                         (is_call_entry(v, island, p->first_routine) ||
                          verify_low_entry(v, island, p->first_routine))
                     ? 5
                     : 0;
        break;
    case PV_FORM_BRANCH:
        length = p->window_size >= 2 && at[0] == 0xeb &&
                         window + 2 + (uint64_t)(int8_t)at[1] == island &&
                         leads(v, island, 0xe9, to)
                     ? 2
                     : 0;
        break;
    case PV_FORM_BREAK:
        length = break_size(at, p->window_size, p->first_routine);
        break;
    }
    if (!length)
        wrong(v, index, "does not lead to its trampoline");
    return length;
}

/* The island that begins at `address`, if a patch has one there: its size. */
static unsigned island_size(const uint64_t *islands, size_t count, uint64_t address)
{

    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (islands[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && islands[low] == address ? ISLAND_SIZE : 0;
}

/* Behind its first instruction a window is INT3, but for islands of other patches. */
static void check_rest(struct verify *v, uint32_t index, unsigned length, const uint64_t *islands,
                       size_t island_count)
{
    const struct pv_patch *p = &v->patches[index];
    uint64_t window = verify_place(v, p->window_offset), end = window + p->window_size;
    const uint8_t *bytes = image_at(&v->after, window, p->window_size);
    uint64_t from = window;
    for (uint64_t at = window + length; at < end;) {
        unsigned island = island_size(islands, island_count, at);
        if (island && end - at >= island) {
            verify_claim(v, from, at - from, CLAIM_WINDOW, "window");
            at += island;
            from = at;
        } else if (bytes[at - window] != 0xcc) {
            wrong(v, index, "is not filled with INT3");
            return;
        } else {
            at++;
        }
    }
    if (from < end)
        verify_claim(v, from, end - from, CLAIM_WINDOW, "window");
}

static void check_flags(struct verify *v, uint32_t index)
{
    const struct pv_patch *p = &v->patches[index];
    if (p->flags & ~(PV_PATCH_REPLACEMENT | PV_PATCH_EVICTED) ||
        ((p->flags & PV_PATCH_EVICTED) != 0) != (p->routine_count == 0))
        wrong(v, index, "its flags and its number of routines disagree");
    for (uint32_t i = 0; i < p->routine_count; i++) {
        const struct pv_routine *r = &v->routines[p->first_routine + i];
        uint64_t entry = verify_place(v, i ? r->link_offset : p->trampoline_offset);
        if (r->form != p->form)
            wrong(v, index, "a routine of it has another form");
        if (!(r->flags & PV_ROUTINE_REPLACEMENT) != !(p->flags & PV_PATCH_REPLACEMENT))
            wrong(v, index, "a routine of it is not where the patch is");
        if (v->routine_table[p->first_routine + i] != entry)
            verify_mismatch(v,
                            "routine table: entry %u leads to 0x%" PRIx64 " instead of 0x%" PRIx64,
                            p->first_routine + i, v->routine_table[p->first_routine + i], entry);
    }
}

/* The end of the place into which the kernel copies `jmp T`; 0 if it is not exactly one. */
static uint64_t replaced_end(const struct verify *v, uint64_t island)
{
    const struct linux_table *table = &v->tables_after.table[LINUX_ALTERNATIVES];
    uint64_t end = 0;
    for (size_t i = 0; i < table->count; i++)
        if (table->entries[i].second == island) {
            if (end)
                return 0;
            end = table->entries[i].address + table->entries[i].length;
        }
    return end;
}

/* A patch of code that the kernel copies: the window is untouched, `call T` or `jmp T` is copied in
 * its place. verify_alternatives() checks who names it. */
static void check_replacement(struct verify *v, uint32_t index)
{
    const struct pv_patch *p = &v->patches[index];
    uint64_t window = verify_place(v, p->window_offset);
    uint64_t island = verify_place(v, p->island_offset);
    uint64_t trampoline = verify_place(v, p->trampoline_offset);
    const struct image_section *section = image_section_at(&v->before, window);
    uint32_t owner_index = p->routine_count ? v->routines[p->first_routine].patch : index;
    const struct pv_patch *owner = &v->patches[owner_index];
    bool call = p->form == PV_FORM_CALL;
    if (!section || strcmp(section->name, ".altinstr_replacement") != 0)
        wrong(v, index, "is no replacement of an alternative");
    if (!(owner->flags & PV_PATCH_REPLACEMENT) ||
        owner->trampoline_offset != p->trampoline_offset ||
        owner->island_offset != p->island_offset || owner->trampoline_size != p->trampoline_size ||
        owner->first_routine != p->first_routine || owner->routine_count != p->routine_count) {
        wrong(v, index, "shares routines with a patch that is not like it");
        return;
    }
    if ((p->form != PV_FORM_JUMP && !call) || !p->island_offset ||
        !leads(v, island, call ? 0xe8 : 0xe9, trampoline)) {
        wrong(v, index, "what is copied in its place does not lead to its trampoline");
        return;
    }
    const struct image_symbol *thunk = image_symbol_named(&v->before, "__x86_return_thunk");
    uint64_t back = call ? (thunk ? thunk->address : 0) : replaced_end(v, island);
    if (verify_walk(v, index, back) && owner_index == index) {
        verify_claim(v, island, ISLAND_SIZE, CLAIM_PADDING, "copied call");
        verify_claim(v, trampoline, p->trampoline_size, CLAIM_PADDING, "trampoline");
    }
}

static void claim_island(struct verify *v, uint32_t index)
{
    const struct pv_patch *p = &v->patches[index];
    uint64_t island = verify_place(v, p->island_offset);
    if (p->form == PV_FORM_CALL)
        verify_claim(v, island,
                     verify_low_entry(v, island, p->first_routine) ? VERIFY_LOW_ENTRY_SIZE
                                                                   : CALL_ENTRY_SIZE,
                     CLAIM_PADDING, "call entry");
    else if (verify_in_window(v, island))
        verify_claim(v, island, ISLAND_SIZE, CLAIM_WINDOW, "island");
    else
        verify_claim(v, island, ISLAND_SIZE, CLAIM_ISLAND, "island");
    if (p->form == PV_FORM_BRANCH &&
        image_section_at(&v->before, island) !=
            image_section_at(&v->before, verify_place(v, p->window_offset)))
        wrong(v, index, "its island is in another section");
}

static void check_patch(struct verify *v, uint32_t index, const uint64_t *islands, size_t count)
{
    const struct pv_patch *p = &v->patches[index];
    uint64_t window = verify_place(v, p->window_offset);
    if (p->flags & PV_PATCH_REPLACEMENT) {
        check_replacement(v, index);
        return;
    }
    if (p->routine_count && v->routines[p->first_routine].patch != index)
        wrong(v, index, "its routines are another patch's");
    unsigned length = check_form(v, index);
    if (!length)
        return;
    check_rest(v, index, length, islands, count);
    if (!verify_is_start(v, window))
        wrong(v, index, "does not begin where an instruction of the original begins");
    if (p->island_offset)
        claim_island(v, index);
    if (verify_walk(v, index, window + p->window_size))
        verify_claim(v, verify_place(v, p->trampoline_offset), p->trampoline_size, CLAIM_PADDING,
                     "trampoline");
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static bool in_text(const struct verify *v, uint64_t address, uint64_t size)
{
    const struct image_section *section = image_section_at(&v->before, address);
    if (section)
        return (section->flags & SHF_EXECINSTR) &&
               size <= section->size - (address - section->address);
    for (size_t i = 0; i < v->before.segment_count; i++) {
        const struct image_segment *s = &v->before.segments[i];
        if (s->type == PT_LOAD && (s->flags & PF_X) && address >= s->vaddr &&
            address - s->vaddr < s->file_size)
            return size <= s->file_size - (address - s->vaddr);
    }
    return false;
}

/* Collects the windows (in order: the patch table is sorted) and the islands of branches. */
static bool collect(struct verify *v, uint64_t **islands, size_t *count)
{
    uint32_t patches = v->header.patch_count;
    v->windows = calloc(patches + 1, sizeof *v->windows);
    *islands = calloc(patches + 1, sizeof **islands);
    if (!v->windows || !*islands) {
        v->out_of_memory = true;
        return false;
    }
    for (uint32_t i = 0; i < patches; i++) {
        const struct pv_patch *p = &v->patches[i];
        if (p->form == PV_FORM_BRANCH)
            (*islands)[(*count)++] = verify_place(v, p->island_offset);
        if (p->flags & PV_PATCH_REPLACEMENT)
            continue;
        uint64_t start = verify_place(v, p->window_offset);
        struct window *w = &v->windows[v->window_count++];
        *w = (struct window){start, start + p->window_size, i};
        if (!in_text(v, start, p->window_size) || p->window_size == 0)
            wrong(v, i, "is not in executable bytes of the original");
        else if (w > v->windows && w[-1].end > start)
            wrong(v, i, "overlaps the window before it");
        else
            continue;
        return false;
    }
    qsort(*islands, *count, sizeof **islands, by_value);
    return true;
}

void verify_patches(struct verify *v)
{
    uint64_t *islands = NULL;
    size_t count = 0;
    if (collect(v, &islands, &count)) {
        for (uint32_t i = 0; i < v->header.patch_count; i++) {
            check_flags(v, i);
            check_patch(v, i, islands, count);
        }
    }
    free(islands);
    verify_moves_sort(v);
    const struct branch_check *checks = v->branches.data;
    for (size_t i = 0; i < v->branches.count; i++)
        if (!verify_same_target(v, checks[i].before, checks[i].after))
            verify_mismatch(v,
                            "address 0x%" PRIx64 ": a displaced branch goes to 0x%" PRIx64
                            " instead of 0x%" PRIx64,
                            checks[i].at, checks[i].after, checks[i].before);
}
