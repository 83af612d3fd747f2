/* SPDX-License-Identifier: MIT */
/* The relocation table: the same places, but for operands of instructions that moved, and one more
 * for each entry of the routine table. Nothing that is relocated points into a window. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/verify_internal.h"

static const char *const kind_name[] = {
    [RELOC_64] = "64-bit", [RELOC_INVERSE_32] = "inverse 32-bit", [RELOC_32] = "32-bit"};

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static uint32_t word_at(const struct relocs *relocs, int kind, size_t index)
{
    return read_u32((const uint8_t *)relocs->words[kind] + 4 * index);
}

/* Where the word's place is now; 0 if it was in a window and has no copy. */
static uint32_t word_moved(const struct verify *v, uint32_t word, unsigned size)
{
    uint64_t place = relocs_address(word);
    if (!verify_in_window(v, place))
        return word;
    const struct move *move = verify_move_containing(v, place);
    if (!move || !move->verbatim || place + size > move->from + move->length)
        return 0;
    return (uint32_t)(move->to + (place - move->from));
}

static void compare(struct verify *v, int kind, uint32_t *expected, uint32_t *found,
                    size_t expected_count)
{
    size_t count = v->relocs_after.count[kind];
    for (size_t i = 0; i < count; i++)
        found[i] = word_at(&v->relocs_after, kind, i);
    qsort(expected, expected_count, sizeof *expected, by_value);
    qsort(found, count, sizeof *found, by_value);
    size_t i = 0, j = 0;
    while (i < expected_count || j < count) {
        if (i < expected_count && j < count && expected[i] == found[j]) {
            i++, j++;
        } else if (j == count || (i < expected_count && expected[i] < found[j])) {
            verify_mismatch(v, "relocation table: the %s place 0x%" PRIx64 " is missing",
                            kind_name[kind], relocs_address(expected[i++]));
        } else {
            verify_mismatch(v,
                            "relocation table: the %s place 0x%" PRIx64 " is in it, and should not",
                            kind_name[kind], relocs_address(found[j++]));
        }
    }
}

/* Call entries that hold their own linked address: those words are relocated too. */
static size_t low_entry_words(const struct verify *v, uint32_t *words)
{
    size_t n = 0;
    for (uint32_t i = 0; i < v->header.patch_count; i++) {
        const struct pv_patch *p = &v->patches[i];
        uint64_t island = verify_place(v, p->island_offset);
        if (p->form == PV_FORM_CALL && !(p->flags & PV_PATCH_REPLACEMENT) &&
            verify_low_entry(v, island, p->first_routine))
            words[n++] = (uint32_t)(island + VERIFY_LOW_ENTRY_WORD);
    }
    return n;
}

static void check_list(struct verify *v, int kind)
{
    size_t count = v->relocs_before.count[kind];
    size_t added = kind == RELOC_64 ? v->header.routine_count : 0;
    uint32_t *expected = calloc(count + added + v->header.patch_count + 1, sizeof *expected);
    uint32_t *found = calloc(v->relocs_after.count[kind] + 1, sizeof *found);
    if (!expected || !found) {
        v->out_of_memory = true;
    } else {
        for (size_t i = 0; i < count; i++) {
            uint32_t word = word_at(&v->relocs_before, kind, i);
            expected[i] = word_moved(v, word, kind == RELOC_64 ? 8 : 4);
            if (!expected[i])
                verify_mismatch(v, "relocation table: the %s place 0x%" PRIx64 " was patched away",
                                kind_name[kind], relocs_address(word));
        }
        uint64_t table = verify_place(v, v->header.routine_table_offset);
        for (uint32_t i = 0; i < added; i++)
            if (!verify_dead_routine(v, i))
                expected[count++] = (uint32_t)(table + 8 * (uint64_t)i);
        if (kind == RELOC_64)
            count += low_entry_words(v, expected + count);
        compare(v, kind, expected, found, count);
    }
    free(expected);
    free(found);
}

/* A pointer to an instruction in the middle of a window would lead into INT3. */
static void check_pointers(struct verify *v, int kind)
{
    for (size_t i = 0; i < v->relocs_after.count[kind]; i++) {
        uint32_t word = word_at(&v->relocs_after, kind, i);
        uint64_t offset, size = kind == RELOC_64 ? 8 : 4;
        if (!relocs_offset(&v->after, word, &offset) || v->after.size - offset < size)
            continue;
        const uint8_t *at = v->after.bytes + offset;
        uint64_t value = kind == RELOC_64 ? read_u64(at) : (uint64_t)read_s32(at);
        if (verify_inside_window(v, value))
            verify_mismatch(
                v, "address 0x%" PRIx64 ": a pointer into the window of a patch, 0x%" PRIx64,
                relocs_address(word), value);
    }
}

void verify_relocs(struct verify *v)
{
    if (v->relocs_before.present != v->relocs_after.present) {
        verify_mismatch(v, "relocation table: %s",
                        v->relocs_after.present ? "there is one now" : "it is missing");
        return;
    }
    if (!v->relocs_before.present)
        return;
    v->tables_checked++;
    for (int kind = 0; kind < RELOC_KINDS; kind++)
        check_list(v, kind);
    check_pointers(v, RELOC_64);
    check_pointers(v, RELOC_32);
    verify_claim_file(v, v->relocs_after.table_offset, v->after.size - v->relocs_after.table_offset,
                      CLAIM_WORD, "relocation table");
}
