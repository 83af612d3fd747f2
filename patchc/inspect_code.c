/* SPDX-License-Identifier: MIT */
/* Finds and decodes the code of a site in a patched image. The image is hostile input: addresses
 * and sizes of its tables go through the image's own accessors, and listings are bounded. */
#include "patchc/inspect_code.h"

#include <inttypes.h>
#include <stdio.h>

#include "patchc/emit.h"

#define LISTING_MAX 65536 /* bytes of code in one listing: more is no trampoline */
#define PUSH_RAX    0x50  /* with which the low entry begins */
#define WINDOW_MAX  4096  /* the longest real one is an alternatives' region, 255 and a bit */

unsigned code_line(const struct disassembler *disassembler, uint64_t address, const uint8_t *code,
                   size_t size, size_t at, struct code_line *line)
{
    line->address = address + at;
    line->length = disassemble(disassembler, true, address + at, code + at, size - at, line->text);
    if (line->length == 0)
        line->length = 1;
    for (unsigned i = 0; i < line->length && i < CODE_BYTES_SHOWN; i++)
        snprintf(line->bytes + 2 * i, 3, "%02x", code[at + i]);
    if (line->length > CODE_BYTES_SHOWN)
        snprintf(line->bytes + 2 * CODE_BYTES_SHOWN, 3, "..");
    return line->length;
}

bool code_window(const struct patched_image *patched, const struct view_site *site,
                 const uint8_t **before, const uint8_t **after)
{
    if (site->window_size > WINDOW_MAX)
        return false;
    *before = patched_image_original(patched, site->window, site->window_size);
    *after = image_at(&patched->image, site->window, site->window_size);
    return *before && *after;
}

const char *code_remark(const struct patched_image *patched, const struct pv_patch *patch,
                        uint64_t address, char *text, size_t size)
{
    struct pv_routine routine;
    struct pv_patch owner;
    uint64_t first = patch->first_routine;

    for (uint64_t i = first; i < first + patch->routine_count; i++) {
        if (!patched_image_routine(patched, i, &routine) ||
            !patched_image_patch(patched, routine.patch, &owner))
            break;
        if (address == patched_image_address(patched, routine.native_offset))
            snprintf(text, size, "native path of routine %" PRIu64, i);
        else if (address == patched_image_address(patched, routine.link_offset))
            snprintf(text, size, "link of routine %" PRIu64 "%s", i,
                     routine.emulation_offset ? "" : " (native only)");
        else if (address == patched_image_address(patched, routine.tail_offset))
            snprintf(text, size, "tail");
        else
            continue;
        return text;
    }
    return "";
}

/* The patch whose window this is. The table is sorted by window; in one that is forged, some are not found. */
static bool patch_of(const struct patched_image *patched, const struct view_site *site,
                     struct pv_patch *patch)
{
    uint64_t low = 0, high = patched->header.patch_count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2, window;

        if (!patched_image_patch(patched, middle, patch))
            return false;
        window = patched_image_address(patched, patch->window_offset);
        if (window == site->window)
            return true;
        if (window < site->window)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* What stands at island_offset (hvstub.h): the usual call entry or that for low addresses, of which the last word is no
 * code; else a jump or call rel32. */
static uint64_t island_size(const struct patched_image *patched, const struct pv_patch *patch)
{
    const uint8_t *code;

    if (patch->form != PV_FORM_CALL || patch->flags & PV_PATCH_REPLACEMENT)
        return 5;
    code = image_at(&patched->image, patched_image_address(patched, patch->island_offset), 1);
    return code && *code == PUSH_RAX ? EMIT_LOW_ENTRY_WORD : EMIT_CALL_ENTRY_SIZE;
}

static struct code_part part_at(const struct patched_image *patched, const char *title,
                                int64_t offset, uint64_t size)
{
    struct code_part part = {title, patched_image_address(patched, offset), size, NULL};

    if (size <= LISTING_MAX)
        part.code = image_at(&patched->image, part.address, size);
    return part;
}

unsigned code_parts(const struct patched_image *patched, const struct view_site *site,
                    struct pv_patch *patch, struct code_part parts[CODE_PARTS])
{
    struct pv_routine routine;
    unsigned count = 0;

    if (!site->window_size || !patch_of(patched, site, patch))
        return 0;
    if (patch->island_offset)
        parts[count++] = part_at(patched,
                                 patch->flags & PV_PATCH_REPLACEMENT ? "New replacement"
                                 : patch->form == PV_FORM_CALL       ? "Call entry"
                                                                     : "Island",
                                 patch->island_offset, island_size(patched, patch));
    parts[count++] =
        part_at(patched, "Trampoline", patch->trampoline_offset, patch->trampoline_size);
    if (site->index >= 0 && patched_image_routine(patched, (uint64_t)site->index, &routine) &&
        routine.emulation_offset) /* and its closing jump to the tail */
        parts[count++] = part_at(patched, "Emulation path", routine.emulation_offset,
                                 (uint64_t)routine.emulation_size + 5);
    return count;
}
