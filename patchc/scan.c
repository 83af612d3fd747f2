/* SPDX-License-Identifier: MIT */
/* `patchc scan`: the sites as a table, one line each, or as JSON. */
#include "patchc/scan.h"

#include <inttypes.h>
#include <stdlib.h>

#include "patchc/disassembly.h"
#include "patchc/report.h"
#include "image/terminal.h"

static int print_json(const struct build_result *result, FILE *out, struct error *err)
{
    char *text;
    size_t size;

    if (report_format_scan(result, &text, &size, err) < 0)
        return -1;
    fwrite(text, 1, size, out); /* a failure shows in ferror(), which main() looks at */
    free(text);
    return 0;
}

static void print_site(const struct image *image, const struct disassembler *disassembler,
                       const struct site *site, FILE *out)
{
    char text[INSTRUCTION_TEXT], bytes[2 * sizeof site->bytes + 1] = "", place[24] = "";
    bool excluded = site->status == STATUS_EXCLUDED;
    uint64_t offset = 0;
    const struct image_symbol *symbol = image_symbol_at(image, site->address, &offset);
    const char *section_name =
        site->section < image->section_count ? image->sections[site->section].name : "";
    char section[64], name[256];

    for (unsigned i = 0; i < site->length && i < sizeof site->bytes; i++)
        snprintf(bytes + 2 * i, 3, "%02x", site->bytes[i]);
    disassemble(disassembler, !excluded || site->reason != REASON_OTHER_MODE, site->address,
                site->bytes, site->length, text);
    if (offset)
        snprintf(place, sizeof place, "+0x%" PRIx64, offset);
    fprintf(out, "%016" PRIx64 "  %-14s  %-26s  %-14s  %-20s  %s%s\n", site->address, bytes, text,
            excluded ? reason_name(site->reason) : "eligible",
            terminal_copy(section, sizeof section, section_name),
            terminal_copy(name, sizeof name, symbol ? symbol->name : ""), place);
}

int scan_print(const struct build_result *result, bool json, FILE *out, struct error *err)
{
    struct build_counts counts = build_count(result);
    struct disassembler disassembler;

    if (json)
        return print_json(result, out, err);
    disassembler_init(&disassembler);
    fprintf(out, "%-16s  %-14s  %-26s  %-14s  %-20s  %s\n", "ADDRESS", "BYTES", "INSTRUCTION",
            "STATUS", "SECTION", "SYMBOL");
    for (size_t i = 0; i < result->site_count; i++)
        print_site(&result->image, &disassembler, &result->sites[i], out);
    fprintf(out, "%s: %zu listed by %s: %zu eligible, %zu excluded\n", result->image.name,
            counts.listed, list_name(result->list), counts.eligible, counts.excluded);
    return 0;
}
