/* SPDX-License-Identifier: MIT */
/* One site of the report. A large kernel has thousands: this is the part that must be quick. */
#include "patchc/report_site.h"

#include <inttypes.h>
#include <stdio.h>

#include "patchc/json.h"
#include "patchc/template.h"

static void add_string(struct json_text *text, const char *key, const char *value)
{
    json_text_key(text, key);
    json_text_string(text, value);
}

static void add_symbol(struct json_text *text, const struct image *image, uint64_t address)
{
    uint64_t offset = 0;
    const struct image_symbol *symbol = image_symbol_at(image, address, &offset);
    char place[256], digits[HEX_TEXT];

    json_text_key(text, "symbol");
    if (symbol && offset &&
        (size_t)snprintf(place, sizeof place, "%s+%s", symbol->name, hex_text(offset, digits)) >=
            sizeof place)
        json_text_value(text, json_place(symbol->name, offset)); /* longer than any real one */
    else
        json_text_string(text, !symbol ? NULL : offset ? place : symbol->name);
}

static void add_bytes(struct json_text *text, const struct site *site)
{
    static const char digits[] = "0123456789abcdef";
    char bytes[2 * sizeof site->bytes + 1];
    unsigned length = 0;

    for (unsigned i = 0; i < site->length && i < sizeof site->bytes; i++) {
        bytes[length++] = digits[site->bytes[i] >> 4];
        bytes[length++] = digits[site->bytes[i] & 15];
    }
    bytes[length] = '\0';
    add_string(text, "bytes", bytes);
}

/* What was found: the part of a site that a scan knows too. */
static void add_found(struct json_text *text, const struct disassembler *disassembler,
                      const struct image *image, const struct site *site, const char *status)
{
    bool wide = site->status != STATUS_EXCLUDED || site->reason != REASON_OTHER_MODE;
    char instruction[INSTRUCTION_TEXT];

    disassemble(disassembler, wide, site->address, site->bytes, site->length, instruction);
    json_text_add(text, "{");
    json_text_key(text, "address");
    json_text_hex(text, site->address);
    add_symbol(text, image, site->address);
    add_string(text, "section",
               site->section < image->section_count ? image->sections[site->section].name : "");
    add_bytes(text, site);
    add_string(text, "instruction", instruction);
    add_string(text, "status", status);
}

static void add_context(struct json_text *text, unsigned context)
{
    static const struct {
        enum context_flag flag;
        const char *name;
    } names[] = {
        {CONTEXT_STACK, "stack"},
        {CONTEXT_KERNEL_TABLES, "kernel-tables"},
        {CONTEXT_HIGH, "high"},
        {CONTEXT_NMI_SAFE, "nmi-safe"},
        {CONTEXT_FREE_LABELS, "free-labels"},
    };
    const char *separator = "";

    json_text_key(text, "context");
    json_text_add(text, "[");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!(context & names[i].flag))
            continue;
        json_text_add(text, separator);
        json_text_string(text, names[i].name);
        separator = ",";
    }
    json_text_add(text, "]");
}

/* The window's instructions as they were, the site among them at `slot`. */
static void add_displaced(struct json_text *text, const struct disassembler *disassembler,
                          const struct image *image, const struct site *site)
{
    const uint8_t *code = image_at(image, site->window, site->window_size);
    char instruction[INSTRUCTION_TEXT];
    const char *separator = "";

    json_text_key(text, "displaced");
    json_text_add(text, "[");
    for (uint32_t at = 0; code && at < site->window_size;) {
        unsigned length = disassemble(disassembler, true, site->window + at, code + at,
                                      site->window_size - at, instruction);

        json_text_add(text, separator);
        json_text_string(text, instruction);
        separator = ",";
        if (length == 0)
            break;
        at += length;
    }
    json_text_add(text, "]");
}

static void add_patch(struct json_text *text, const struct disassembler *disassembler,
                      const struct image *image, const struct site *site)
{
    add_string(text, "form", form_name(site->form));
    add_string(text, "form_reason", form_reason_name(site->form_reason));
    add_string(text, "tactic", tactic_name(site->tactic));
    json_text_key(text, "slot");
    json_text_number(text, site->slot);
    add_string(text, "template", site->template ? template_name(site->template) : NULL);
    json_text_key(text, "index");
    if (site->index >= 0)
        json_text_number(text, (uint64_t)site->index);
    else
        json_text_add(text, "null");
    json_text_key(text, "routine");
    if (site->routine)
        json_text_hex(text, site->routine);
    else
        json_text_add(text, "null");
    json_text_key(text, "window");
    json_text_add(text, "{");
    json_text_key(text, "address");
    json_text_hex(text, site->window);
    json_text_key(text, "size");
    json_text_number(text, site->window_size);
    json_text_add(text, "}");
    add_displaced(text, disassembler, image, site);
}

void report_site(struct json_text *text, const struct disassembler *disassembler,
                 const struct image *image, const struct site *site, bool planned)
{
    static const char *const unplanned[] = {"form",    "form_reason", "tactic",
                                            "slot",    "template",    "index",
                                            "routine", "window",      "displaced"};
    bool excluded = site->status == STATUS_EXCLUDED;
    const char *status = planned ? status_name(site->status) : excluded ? "excluded" : "eligible";

    add_found(text, disassembler, image, site, status);
    if (planned && site->status == STATUS_PATCHED)
        add_patch(text, disassembler, image, site);
    else
        for (size_t i = 0; planned && i < sizeof unplanned / sizeof unplanned[0]; i++)
            add_string(text, unplanned[i], NULL);
    add_string(text, "reason",
               site->reason != REASON_NONE && (planned || excluded) ? reason_name(site->reason)
                                                                    : NULL);
    add_context(text, site->context);
    json_text_add(text, "}");
}
