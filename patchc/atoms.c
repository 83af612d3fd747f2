/* SPDX-License-Identifier: MIT */
/* Atoms: the smallest units of code that move, and what refers to them. */
#include "patchc/atoms.h"

#include <string.h>

#include "image/length.h"
#include "patchc/context.h"

#define OPCODE_STI  0xfb
#define OPCODE_INT3 0xcc

int32_t site_at(const struct plan *plan, uint64_t address)
{
    size_t low = 0, high = plan->site_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (plan->sites[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < plan->site_count && plan->sites[low].address == address ? (int32_t)low : -1;
}

static size_t section_index(const struct plan *plan, const struct code_section *section)
{
    return (size_t)(section - plan->code->sections);
}

static bool claimed_any(const struct plan *plan, uint64_t address, uint64_t size)
{
    const struct code_section *section = code_section_at(plan->code, address);
    if (!section || size > section->address + section->size - address)
        return true;
    const uint64_t *bits = plan->claimed[section_index(plan, section)];
    for (uint64_t i = address - section->address; size--; i++)
        if (bits[i / 64] >> (i % 64) & 1)
            return true;
    return false;
}

void claim(struct plan *plan, uint64_t address, uint64_t size)
{
    const struct code_section *section = code_section_at(plan->code, address);
    if (!section)
        return;
    uint64_t *bits = plan->claimed[section_index(plan, section)];
    for (uint64_t i = address - section->address; size-- && i < section->size; i++)
        bits[i / 64] |= 1ull << (i % 64);
}

/* The instruction at `address`, if it is proved 64-bit code that does not overlap another. */
static unsigned decode_at(const struct plan *plan, uint64_t address, struct length_info *info)
{
    const struct code_section *section = code_section_at(plan->code, address);
    if (!section || !code_is_start(plan->code, address) || code_is_overlap(plan->code, address))
        return 0;
    uint64_t offset = address - section->address;
    return length_decode(section->bytes + offset, section->size - offset, info);
}

/* The alternative's place that contains `address`: the union of all entries that overlap there. */
static bool region_of(const struct plan *plan, uint64_t address, uint64_t *start, uint64_t *end)
{
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    bool found = false;
    *start = address;
    *end = address + 1;
    for (bool grown = true; grown;) {
        grown = false;
        size_t first;
        size_t n = linux_table_range(table, *start > 255 ? *start - 255 : 0, *end, &first);
        for (size_t i = first; i < first + n; i++) {
            const struct linux_entry *e = &table->entries[table->by_address[i]];
            uint64_t e_end = e->address + e->length;
            if (e_end <= *start || e->address >= *end || !e->length)
                continue;
            if (!found || e->address < *start || e_end > *end) {
                *start = e->address < *start || !found ? e->address : *start;
                *end = e_end > *end || !found ? e_end : *end;
                grown = found = true;
            }
        }
    }
    return found;
}

/* A replacement became a call, which needs REGION_MIN bytes at the alternative's place. */
static bool wants_room(const struct plan *plan, uint64_t start)
{
    const struct linux_table *table = &plan->tables->table[LINUX_ALTERNATIVES];
    size_t first;
    size_t n = linux_table_range(table, start, start + 1, &first);
    for (size_t i = first; i < first + n; i++)
        if (plan->grow[table->by_address[i]])
            return true;
    return false;
}

/* True if `length` bytes at `code` are one NOP (90, 66 90, 0f 1f /0 with prefixes). */
static bool is_nop(const uint8_t *code, unsigned length)
{
    unsigned i = 0;
    while (i < length && (code[i] == 0x66 || code[i] == 0x2e))
        i++;
    return (i + 1 == length && code[i] == 0x90) ||
           (i + 1 < length && code[i] == 0x0f && code[i + 1] == 0x1f);
}

/* Can the region's bytes be copied with nothing but RIP-relative and rel32 fix-ups? Finds its site,
 * if it holds one and otherwise only NOPs. */
static bool region_moves(const struct plan *plan, struct atom *atom)
{
    uint64_t end = atom->address + atom->length;
    int32_t site = -1;
    unsigned others = 0;
    for (uint64_t a = atom->address; a < end;) {
        struct length_info info;
        unsigned length = decode_at(plan, a, &info);
        if (!length || length > end - a || (info.flags & LENGTH_REL8))
            return false;
        int32_t here = site_at(plan, a);
        const uint8_t *bytes = image_at(plan->image, a, length);
        if (here >= 0 && site < 0 && plan->sites[here].status != STATUS_EXCLUDED)
            site = here;
        else if (!bytes || !is_nop(bytes, length))
            others++;
        a += length;
    }
    atom->site = others ? -1 : site;
    return true;
}

/* A place that paravirt calls are patched into may be longer than the atom: it would move in part. */
static bool splits_place(const struct plan *plan, const struct atom *atom)
{
    const struct linux_table *table = &plan->tables->table[LINUX_PARAVIRT];
    uint64_t end = atom->address + atom->length;
    size_t first;
    size_t n = linux_table_range(table, atom->address > 255 ? atom->address - 255 : 0, end, &first);
    for (size_t i = first; i < first + n; i++) {
        const struct linux_entry *e = &table->entries[table->by_address[i]];
        uint64_t e_end = e->address + e->length;
        if (e_end > atom->address && (e->address < atom->address || e_end > end))
            return true;
    }
    return false;
}

/* A table that nothing leads to may name this instruction, and would not follow. */
static bool may_be_named(const struct plan *plan, const uint8_t *code, unsigned length)
{
    const struct linux_table *table = plan->tables->table;
    uint8_t opcode = code[0];
    bool nop = is_nop(code, length), call = opcode == 0xe8, jump = opcode == 0xe9;
    if (table[LINUX_EX_TABLE].unknown || table[LINUX_ALTERNATIVES].unknown ||
        table[LINUX_PARAVIRT].unknown)
        return true;
    return ((nop || jump || opcode == 0xeb) && table[LINUX_JUMP_TABLE].unknown) ||
           ((call || jump) && table[LINUX_STATIC_CALLS].unknown) ||
           ((call || nop) && table[LINUX_MCOUNT].unknown) ||
           (jump && table[LINUX_RETURN_SITES].unknown) ||
           ((call || jump || opcode == 0x2e || opcode == 0x0f) &&
            table[LINUX_RETPOLINE_SITES].unknown) ||
           (opcode == 0x0f && table[LINUX_BUG_TABLE].unknown) ||
           ((opcode == 0xf0 || opcode == 0x3e) && table[LINUX_SMP_LOCKS].unknown);
}

static bool names_may_be_unknown(const struct plan *plan, const struct atom *atom)
{
    for (uint32_t at = 0; plan->tables->present && at < atom->length;) {
        struct length_info info;
        const uint8_t *code = image_at(plan->image, atom->address + at, atom->length - at);
        unsigned length = code ? length_decode(code, atom->length - at, &info) : 0;
        if (!length || may_be_named(plan, code, length))
            return true;
        at += length;
    }
    return false;
}

/* Tables whose entries cannot follow: what they name stays where it is. */
static bool is_pinned(const struct plan *plan, const struct atom *atom)
{
    static const enum linux_table_kind kinds[] = {LINUX_MCOUNT, LINUX_PINNED};
    size_t first;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (linux_table_range(&plan->tables->table[kinds[i]], atom->address,
                              atom->address + atom->length, &first))
            return true;
    return splits_place(plan, atom) || names_may_be_unknown(plan, atom) ||
           !context_may_move(plan->context, atom->address, atom->length);
}

static unsigned tables_over(const struct plan *plan, const struct atom *atom)
{
    unsigned kinds = 0;
    size_t first;
    for (int k = 0; k < LINUX_TABLES; k++)
        if (linux_table_range(&plan->tables->table[k], atom->address, atom->address + atom->length,
                              &first))
            kinds |= 1u << k;
    return kinds;
}

/* HLT or MWAIT at `address`, which nothing but the STI before it leads to: its length, else 0. */
static unsigned sti_waits_for(const struct plan *plan, uint64_t address)
{
    static const uint8_t hlt[] = {0xf4}, mwait[] = {0x0f, 0x01, 0xc9};
    struct length_info info;
    unsigned length = decode_at(plan, address, &info);
    const uint8_t *bytes = length ? image_at(plan->image, address, length) : NULL;
    if (!bytes || code_is_target(plan->code, address))
        return 0;
    return (length == sizeof hlt && !memcmp(bytes, hlt, length)) ||
                   (length == sizeof mwait && !memcmp(bytes, mwait, length))
               ? length
               : 0;
}

/* sti; hlt and sti; mwait: the interrupt shadow spans both, so they are one atom, sites or not. */
static bool sti_pair(const struct plan *plan, uint64_t address, struct atom *atom)
{
    struct length_info info;
    const uint8_t *byte = image_at(plan->image, address, 1);
    uint64_t sti = address;
    if (!byte)
        return false;
    if (*byte != OPCODE_STI) {
        sti = address - 1;
        byte = image_at(plan->image, sti, 1);
        if (!byte || *byte != OPCODE_STI || code_previous(plan->code, address) != sti)
            return false;
    }
    unsigned length = sti_waits_for(plan, sti + 1);
    if (!length || !decode_at(plan, sti, &info))
        return false;
    int32_t site = site_at(plan, sti + 1);
    if (site < 0 || plan->sites[site].status == STATUS_EXCLUDED)
        site = site_at(plan, sti); /* STI alone is emulated, what waits for it is its tail */
    if (site >= 0 && plan->sites[site].status == STATUS_EXCLUDED)
        site = -1;
    *atom = (struct atom){.address = sti, .length = 1 + length, .kind = ATOM_STI, .site = site};
    return true;
}

bool atom_pairs_sti(const struct plan *plan, const struct atom *atom)
{
    return atom->kind == ATOM_STI && atom->site >= 0 &&
           plan->sites[atom->site].address != atom->address;
}

static bool plain_atom(const struct plan *plan, uint64_t address, struct atom *atom)
{
    struct length_info info;
    unsigned length = decode_at(plan, address, &info);
    if (!length)
        return false;
    *atom = (struct atom){.address = address,
                          .length = length,
                          .kind = ATOM_INSTRUCTION,
                          .site = site_at(plan, address)};
    if (atom->site >= 0 && plan->sites[atom->site].status == STATUS_EXCLUDED)
        atom->site = -1;
    if (info.flags & LENGTH_NO_FALL)
        atom->flags |= ATOM_NO_FALL;
    if (info.opcode == OPCODE_INT3 && info.map == 0)
        atom->flags &= (uint8_t)~ATOM_NO_FALL; /* a debugger's breakpoint: it may be resumed */
    if (info.flags & LENGTH_CALL)
        atom->flags |= ATOM_CALL;
    /* 16-bit branches and xbegin have no corrected form. */
    if (info.flags & (LENGTH_REL8 | LENGTH_REL32)) {
        const struct code_section *section = code_section_at(plan->code, address);
        uint8_t opcode = section->bytes[address - section->address];
        if (opcode == 0x66 || opcode == 0xc7)
            return false;
    }
    return true;
}

bool atom_at(const struct plan *plan, uint64_t address, struct atom *atom, enum reason *why)
{
    uint64_t start, end;
    *why = REASON_UNPROVED;
    if (region_of(plan, address, &start, &end)) {
        *atom = (struct atom){
            .address = start, .length = (uint32_t)(end - start), .kind = ATOM_REGION, .site = -1};
        *why = REASON_TABLE;
        if (end - start > 255 || !region_moves(plan, atom))
            return false;
        if (atom->length < REGION_MIN && wants_room(plan, start))
            atom->flags |= ATOM_GROW;
    } else if (!sti_pair(plan, address, atom) && !plain_atom(plan, address, atom)) {
        return false;
    }
    *why = REASON_TABLE;
    if (is_pinned(plan, atom))
        return false;
    unsigned tables = tables_over(plan, atom);
    if (tables) {
        atom->flags |= ATOM_TABLES;
        atom->flags &= (uint8_t)~ATOM_CALL;
        if (tables & (1u << LINUX_JUMP_TABLE | 1u << LINUX_BUG_TABLE | 1u << LINUX_EX_TABLE |
                      1u << LINUX_STATIC_CALLS))
            atom->flags &= (uint8_t)~ATOM_NO_FALL;
    }
    if (code_is_target(plan->code, atom->address))
        atom->flags |= ATOM_TARGET;
    *why = REASON_NO_ROOM;
    for (uint64_t a = atom->address + 1; a < atom->address + atom->length; a++)
        if (code_is_target(plan->code, a))
            return false;
    return !claimed_any(plan, atom->address, atom->length);
}

uint64_t atoms_dead_bytes(const struct plan *plan, uint64_t address, uint64_t limit)
{
    const struct code_section *section = code_section_at(plan->code, address);
    uint64_t n = 0;
    while (section && n < limit && address + n < section->address + section->size) {
        uint64_t offset = address + n - section->address;
        const uint8_t *code = section->bytes + offset;
        struct length_info info;
        unsigned length = length_decode(code, section->size - offset, &info);
        if (!length || !(code[0] == 0xcc || is_nop(code, length)))
            break;
        struct atom probe = {.address = address + n, .length = length};
        bool referred = tables_over(plan, &probe) || claimed_any(plan, address + n, length);
        for (unsigned i = 0; i < length; i++)
            referred |= code_is_target(plan->code, address + n + i) ||
                        plan_table_leads_to(plan, address + n + i);
        uint64_t region_start, region_end;
        if (referred || region_of(plan, address + n, &region_start, &region_end))
            break;
        n += length;
    }
    return n < limit ? n : limit;
}

bool atoms_around(const struct plan *plan, uint64_t address, struct atom_run *run, enum reason *why)
{
    struct atom backward[ATOM_REACH], center;
    enum reason ignored;
    int before = 0;
    if (!atom_at(plan, address, &center, why))
        return false;
    for (uint64_t a = center.address; before < ATOM_REACH; before++) {
        uint64_t previous = code_previous(plan->code, a);
        if (!previous || !atom_at(plan, previous, &backward[before], &ignored) ||
            backward[before].address + backward[before].length != a ||
            (backward[before].flags & ATOM_NO_FALL))
            break;
        a = backward[before].address;
    }
    run->count = run->center = before;
    for (int i = 0; i < before; i++)
        run->atom[i] = backward[before - 1 - i];
    run->atom[run->count++] = center;
    while (run->count < before + 1 + ATOM_REACH) {
        const struct atom *last = &run->atom[run->count - 1];
        uint64_t next = last->address + last->length;
        struct atom *atom = &run->atom[run->count];
        if (last->flags & ATOM_NO_FALL) {
            uint64_t dead = atoms_dead_bytes(plan, next, 16);
            if (dead)
                run->atom[run->count++] = (struct atom){
                    .address = next, .length = (uint32_t)dead, .kind = ATOM_PADDING, .site = -1};
            break;
        }
        if (!atom_at(plan, next, atom, &ignored) || atom->address != next)
            break;
        run->count++;
    }
    return true;
}
