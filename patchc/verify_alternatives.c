/* SPDX-License-Identifier: MIT */
/* .altinstructions: places that the kernel rewrites at boot, and what it writes there. A place may
 * have moved (and grown to five bytes); a replacement may have become a call or a jump to a
 * routine. */
#include <inttypes.h>

#include "patchc/verify_internal.h"

enum { COPIED_SIZE = 5 }; /* `call T` or `jmp T` */

/* Offsets of an entry's fields. Linux 6.3 made the feature word longer, and the entry 14 bytes. */
enum { FIELD_ADDRESS = 0, FIELD_REPLACEMENT = 4 };

static unsigned field_length(const struct linux_table *table)
{
    return table->entry_size == 14 ? 12 : 10; /* the replacement's length follows it */
}

static void wrong(struct verify *v, uint64_t slot, const char *what)
{
    verify_mismatch(v, ".altinstructions: entry at 0x%" PRIx64 ": %s", slot, what);
}

/* The patch of the replacement that `was` names, reached through `island`. */
const struct pv_patch *verify_replacement(const struct verify *v, const struct linux_entry *was,
                                          uint64_t island)
{
    uint32_t low = 0, high = v->header.patch_count;
    while (low < high) { /* the table is sorted by window */
        uint32_t middle = low + (high - low) / 2;
        if (verify_place(v, v->patches[middle].window_offset) < was->second)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < v->header.patch_count; low++) { /* several entries may name one replacement */
        const struct pv_patch *p = &v->patches[low];
        if (verify_place(v, p->window_offset) != was->second)
            break;
        if ((p->flags & PV_PATCH_REPLACEMENT) && p->window_size == was->extra &&
            verify_place(v, p->island_offset) == island)
            return p;
    }
    return NULL;
}

/* The place: where its code is now, all of it; grown only with no-ops, only by moving. */
static bool check_place(struct verify *v, const struct linux_entry *was,
                        const struct linux_entry *now)
{
    if (now->slot != was->slot || now->data != was->data)
        return false;
    if (!verify_in_window(v, was->address))
        return now->address == was->address && now->length == was->length &&
               !verify_window_overlaps(v, was->address, was->address + was->length);
    const struct window *window = verify_window_containing(v, was->address);
    const struct move *first = verify_move_at(v, was->address), *last = first;
    if (!first || now->address != first->to || was->length > window->end - was->address)
        return false;
    uint64_t at = was->address, end = was->address + was->length;
    while (at < end) {
        last = verify_move_at(v, at);
        if (!last || last->to - first->to != last->from - first->from)
            return false;
        at += last->length;
    }
    return at == end && (was->length ? last->region - first->to : 0) == now->length;
}

void verify_alternatives(struct verify *v)
{
    const struct linux_table *before = &v->tables_before.table[LINUX_ALTERNATIVES];
    const struct linux_table *after = &v->tables_after.table[LINUX_ALTERNATIVES];
    if (before->count != after->count)
        return; /* verify_tables() has said so */
    for (size_t i = 0; i < before->count; i++) {
        const struct linux_entry *was = &before->entries[i], *now = &after->entries[i];
        if (!check_place(v, was, now))
            wrong(v, was->slot, "does not name the place that it named, where it is now");
        if (was->address != now->address)
            verify_claim(v, was->slot + FIELD_ADDRESS, 4, CLAIM_WORD, "alternative's place");
        if (was->length != now->length)
            verify_claim(v, was->slot + field_length(before), 1, CLAIM_WORD,
                         "alternative's length");
        if (was->second == now->second && was->extra == now->extra)
            continue;
        if (now->extra != COPIED_SIZE || now->length < COPIED_SIZE ||
            !verify_replacement(v, was, now->second))
            wrong(v, was->slot,
                  "its replacement is neither the original's nor leads to its routine");
        verify_claim(v, was->slot + FIELD_REPLACEMENT, 4, CLAIM_WORD, "alternative's replacement");
        if (was->extra != now->extra)
            verify_claim(v, was->slot + field_length(before) + 1, 1, CLAIM_WORD,
                         "alternative's replacement length");
    }
}
