/* SPDX-License-Identifier: MIT */
/* One site in detail. A report tells what was decided; a patched image also shows the code: the
 * window as it was and as it is, side by side, and the routine that the patch leads to. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "image/terminal.h"
#include "patchc/inspect_code.h"

static void print_line(const struct code_line *line, int width, FILE *out)
{
    if (line)
        fprintf(out, "%-16s %-*s", line->bytes, width, line->text);
    else
        fprintf(out, "%-16s %-*s", "", width, "");
}

/* Both columns in one walk by address: an instruction stands on the line of its first byte. */
static void print_side_by_side(const struct patched_image *patched, const struct view_site *site,
                               FILE *out)
{
    uint64_t size = site->window_size, next_before = 0, next_after = 0;
    const uint8_t *before, *after;
    struct palette colour = terminal_palette(out);

    if (!code_window(patched, site, &before, &after))
        return;
    fprintf(out, "\n%s%-18s%-47s%s%s\n", colour.heading, "ADDRESS", "ORIGINAL", "PATCHED",
            colour.plain);
    for (uint64_t at = 0; at < size; at++) {
        struct code_line left, right;
        bool has_left = at == next_before, has_right = at == next_after;

        if (!has_left && !has_right)
            continue;
        if (has_left)
            next_before += code_line(&patched->disassembler, site->window, before, size, at, &left);
        if (has_right)
            next_after += code_line(&patched->disassembler, site->window, after, size, at, &right);
        fprintf(out, "%016" PRIx64 "  ", site->window + at);
        if (has_left && site->window + at == site->address)
            fputs(colour.warning, out);
        print_line(has_left ? &left : NULL, 30, out);
        fputs(has_left && site->window + at == site->address ? colour.plain : "", out);
        print_line(has_right ? &right : NULL, 0, out);
        fputc('\n', out);
    }
}

static void print_part(const struct patched_image *patched, const struct pv_patch *patch,
                       const struct code_part *part, FILE *out)
{
    struct palette colour = terminal_palette(out);
    char text[64];

    fprintf(out, "\n%s%s%s", colour.heading, part->title, colour.plain);
    fprintf(out, " at 0x%" PRIx64 ", %" PRIu64 " bytes%s\n", part->address, part->size,
            part->code ? "" : " (not in the image)");
    for (uint64_t at = 0; part->code && at < part->size;) {
        struct code_line line;
        const char *about = code_remark(patched, patch, part->address + at, text, sizeof text);

        at += code_line(&patched->disassembler, part->address, part->code, part->size, at, &line);
        fprintf(out, "%016" PRIx64 "  ", line.address);
        print_line(&line, *about ? 40 : 0, out);
        fprintf(out, "%s%s%s%s\n", colour.faint, *about ? "; " : "", about, colour.plain);
    }
}

static void print_code(const struct patched_image *patched, const struct view_site *site, FILE *out)
{
    struct code_part parts[CODE_PARTS];
    struct pv_patch patch;
    struct pv_routine routine;
    unsigned count;

    print_side_by_side(patched, site, out);
    count = code_parts(patched, site, &patch, parts);
    for (unsigned i = 0; i < count; i++)
        print_part(patched, &patch, &parts[i], out);
    if (count && site->index >= 0 &&
        patched_image_routine(patched, (uint64_t)site->index, &routine) &&
        !routine.emulation_offset)
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
