/* One site in detail. A report tells what was decided; a patched image also shows the code: the
 * window as it was and as it is, side by side, and the routine that the patch leads to. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "patchc/inspect_image.h"
#include "patchc/inspect_view.h"
#include "image/terminal.h"

#define BYTES_SHOWN 7     /* more are cut: two columns must fit a line */
#define LISTING_MAX 65536 /* bytes of code in one listing: more is no trampoline */

struct cell { /* one instruction, as text */
    uint64_t address;
    unsigned length;
    char bytes[2 * BYTES_SHOWN + 3];
    char text[INSTRUCTION_TEXT];
};

/* Decodes the instruction at `at` in code[0 .. size), which stands at `address`. A byte that is no
 * instruction is a cell of its own, so that a listing always goes on. */
static unsigned decode_cell(const struct disassembler *disassembler, uint64_t address,
                            const uint8_t *code, size_t size, size_t at, struct cell *cell)
{
    cell->address = address + at;
    cell->length = disassemble(disassembler, true, address + at, code + at, size - at, cell->text);
    if (cell->length == 0)
        cell->length = 1;
    for (unsigned i = 0; i < cell->length && i < BYTES_SHOWN; i++)
        snprintf(cell->bytes + 2 * i, 3, "%02x", code[at + i]);
    if (cell->length > BYTES_SHOWN)
        snprintf(cell->bytes + 2 * BYTES_SHOWN, 3, "..");
    return cell->length;
}

static void print_cell(const struct cell *cell, int width, FILE *out)
{
    if (cell)
        fprintf(out, "%-16s %-*s", cell->bytes, width, cell->text);
    else
        fprintf(out, "%-16s %-*s", "", width, "");
}

/* Both columns in one walk by address: an instruction stands on the line of its first byte. */
static void print_side_by_side(const struct patched_image *patched, const struct view_site *site,
                               FILE *out)
{
    uint64_t size = site->window_size;
    const uint8_t *before = patched_image_original(patched, site->window, size);
    const uint8_t *after = image_at(&patched->image, site->window, size);
    uint64_t next_before = 0, next_after = 0;
    struct palette colour = terminal_palette(out);

    if (!before || !after)
        return;
    fprintf(out, "\n%s%-18s%-47s%s%s\n", colour.heading, "ADDRESS", "ORIGINAL", "PATCHED",
            colour.plain);
    for (uint64_t at = 0; at < size; at++) {
        struct cell left, right;
        bool has_left = at == next_before, has_right = at == next_after;

        if (!has_left && !has_right)
            continue;
        if (has_left)
            next_before +=
                decode_cell(&patched->disassembler, site->window, before, size, at, &left);
        if (has_right)
            next_after +=
                decode_cell(&patched->disassembler, site->window, after, size, at, &right);
        fprintf(out, "%016" PRIx64 "  ", site->window + at);
        if (has_left && site->window + at == site->address)
            fputs(colour.warning, out);
        print_cell(has_left ? &left : NULL, 30, out);
        fputs(has_left && site->window + at == site->address ? colour.plain : "", out);
        print_cell(has_right ? &right : NULL, 0, out);
        fputc('\n', out);
    }
}

/* What stands at an address of the trampoline. */
static const char *remark(const struct patched_image *patched, const struct pv_patch *patch,
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

static void print_listing(const struct patched_image *patched, const struct pv_patch *patch,
                          const char *title, uint64_t address, uint64_t size, FILE *out)
{
    const uint8_t *code = size <= LISTING_MAX ? image_at(&patched->image, address, size) : NULL;
    struct palette colour = terminal_palette(out);
    char text[64];

    fprintf(out, "\n%s%s%s", colour.heading, title, colour.plain);
    fprintf(out, " at 0x%" PRIx64 ", %" PRIu64 " bytes%s\n", address, size,
            code ? "" : " (not in the image)");
    for (uint64_t at = 0; code && at < size;) {
        struct cell cell;
        const char *about = remark(patched, patch, address + at, text, sizeof text);

        at += decode_cell(&patched->disassembler, address, code, size, at, &cell);
        fprintf(out, "%016" PRIx64 "  ", cell.address);
        print_cell(&cell, *about ? 40 : 0, out);
        fprintf(out, "%s%s%s%s\n", colour.faint, *about ? "; " : "", about, colour.plain);
    }
}

/* The patch whose window this is. Windows of the table are sorted; a forged table may not be, so
 * all are looked at. */
static bool patch_of(const struct patched_image *patched, const struct view_site *site,
                     struct pv_patch *patch)
{
    for (uint64_t i = 0; patched_image_patch(patched, i, patch); i++)
        if (patched_image_address(patched, patch->window_offset) == site->window)
            return true;
    return false;
}

static uint64_t island_size(const struct pv_patch *patch)
{
    /* call: lea 8(%rsp),%rsp; jmp *routine_table[index](%rip). Else a jump or call rel32. */
    return patch->form == PV_FORM_CALL && !(patch->flags & PV_PATCH_REPLACEMENT) ? 11 : 5;
}

static void print_code(const struct patched_image *patched, const struct view_site *site, FILE *out)
{
    struct pv_patch patch;
    struct pv_routine routine;

    print_side_by_side(patched, site, out);
    if (!patch_of(patched, site, &patch))
        return;
    if (patch.island_offset)
        print_listing(patched, &patch,
                      patch.flags & PV_PATCH_REPLACEMENT ? "New replacement"
                      : patch.form == PV_FORM_CALL       ? "Call entry"
                                                         : "Island",
                      patched_image_address(patched, patch.island_offset), island_size(&patch),
                      out);
    print_listing(patched, &patch, "Trampoline",
                  patched_image_address(patched, patch.trampoline_offset), patch.trampoline_size,
                  out);
    if (site->index < 0 || !patched_image_routine(patched, (uint64_t)site->index, &routine))
        return;
    if (routine.emulation_offset) /* and its closing jump to the tail */
        print_listing(patched, &patch, "Emulation path",
                      patched_image_address(patched, routine.emulation_offset),
                      (uint64_t)routine.emulation_size + 5, out);
    else
        fputs("\nNo emulation path: the routine executes the instruction itself.\n", out);
}

static void print_field(FILE *out, const char *name, const char *value)
{
    if (*value)
        fprintf(out, "  %-12s %s\n", name, value);
}

static void print_fields(const struct view_site *site, FILE *out)
{
    print_field(out, "bytes", site->bytes);
    print_field(out, "section", site->section);
    print_field(out, "status", status_name(site->status));
    if (*site->reason)
        fprintf(out, "  %-12s %s: %s\n", "reason", site->reason, view_explanation(site->reason));
    if (*site->form)
        fprintf(out, "  %-12s %s%s%s%s\n", "form", site->form, *site->form_reason ? " (" : "",
                site->form_reason, *site->form_reason ? ")" : "");
    print_field(out, "tactic", site->tactic);
    print_field(out, "template", site->template_name);
    if (site->routine)
        fprintf(out, "  %-12s 0x%" PRIx64 ", number %lld\n", "routine", site->routine, site->index);
    if (site->window_size)
        fprintf(out, "  %-12s 0x%" PRIx64 ", %" PRIu64 " bytes, the site in slot %lld\n", "window",
                site->window, site->window_size, site->slot);
}

void inspect_site_print(const struct view *view, const struct view_site *site, FILE *out)
{
    struct palette colour = terminal_palette(out);
    size_t i;
    json_t *value;

    fprintf(out, "%s0x%" PRIx64 "%s  %s  %s\n", colour.heading, site->address, colour.plain,
            site->instruction, site->symbol);
    print_fields(site, out);
    if (view->patched) {
        print_code(view->patched, site, out);
        return;
    }
    if (site->displaced)
        fputs("  displaced\n", out);
    json_array_foreach(site->displaced, i, value)
    {
        char text[INSTRUCTION_TEXT];

        fprintf(out, "    %s %s\n", (long long)i == site->slot ? "*" : " ",
                terminal_copy(text, sizeof text, json_string_value(value)));
    }
}
