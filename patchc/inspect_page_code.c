/* SPDX-License-Identifier: MIT */
/* A site in detail, as a part of a page: what was decided, and the code before and after. */
#include <inttypes.h>
#include <string.h>

#include "patchc/inspect_code.h"
#include "patchc/inspect_page.h"

#define LISTED_MAX 20000 /* sites with code: a forged report must not make a page of gigabytes */
#define LEFT_SHOWN 24    /* bytes of code from a site on that was left */

static void put_line(struct page *page, const struct code_line *line, bool site, const char *about)
{
    fprintf(page->out, "<i>%016" PRIx64 "  %-16s</i> %s", line->address, line->bytes,
            site ? "<mark>" : "");
    page_text(page, line->text);
    fputs(site ? "</mark>" : "", page->out);
    if (*about) {
        fputs("  ", page->out);
        page_element(page, "em", "about", about);
    }
    fputc('\n', page->out);
}

static void put_listing(struct page *page, const struct patched_image *patched,
                        const struct pv_patch *patch, const struct code_part *part, uint64_t site)
{
    char text[64];

    fputs("<pre>", page->out);
    for (uint64_t at = 0; at < part->size;) {
        struct code_line line;
        uint64_t address = part->address + at;
        const char *about = patch ? code_remark(patched, patch, address, text, sizeof text) : "";

        at += code_line(&patched->disassembler, part->address, part->code, part->size, at, &line);
        put_line(page, &line, address == site, about);
    }
    fputs("</pre>", page->out);
}

static void put_window(struct page *page, const struct patched_image *patched,
                       const struct view_site *site)
{
    struct code_part part = {.address = site->window, .size = site->window_size};
    const uint8_t *before, *after;

    if (!code_window(patched, site, &before, &after))
        return;
    fputs("<div class=sides><figure><figcaption>Original</figcaption>", page->out);
    part.code = before;
    put_listing(page, patched, NULL, &part, site->address);
    fputs("</figure><figure><figcaption>Patched</figcaption>", page->out);
    part.code = after;
    put_listing(page, patched, NULL, &part, UINT64_MAX);
    fputs("</figure></div>", page->out);
}

static void put_parts(struct page *page, const struct patched_image *patched,
                      const struct view_site *site)
{
    struct code_part parts[CODE_PARTS];
    struct pv_patch patch;
    unsigned count = code_parts(patched, site, &patch, parts);

    for (unsigned i = 0; i < count; i++) {
        bool open = strcmp(parts[i].title, "Emulation path") != 0; /* which is long */

        if (!parts[i].code)
            continue;
        fprintf(page->out,
                "<details class=part%s><summary>%s <small>%" PRIu64 " bytes at 0x%" PRIx64
                "</small></summary>",
                open ? " open" : "", parts[i].title, parts[i].size, parts[i].address);
        put_listing(page, patched, &patch, &parts[i], UINT64_MAX);
        fputs("</details>", page->out);
    }
}

/* A site that was not touched: the code from there on. */
static void put_untouched(struct page *page, const struct patched_image *patched,
                          const struct view_site *site)
{
    struct code_part part = {.address = site->address, .size = LEFT_SHOWN};

    part.code = image_at(&patched->image, part.address, part.size);
    if (!part.code)
        return;
    fputs("<figure><figcaption>As it was and is</figcaption><pre>", page->out);
    for (uint64_t at = 0; at + 15 < part.size;) { /* 15 bytes: no instruction is longer */
        struct code_line line;
        bool here = at == 0;

        at += code_line(&patched->disassembler, part.address, part.code, part.size, at, &line);
        put_line(page, &line, here, "");
    }
    fputs("</pre></figure>", page->out);
}

/* Without an image: what the report has of the window's instructions. */
static void put_displaced(struct page *page, const struct view_site *site)
{
    size_t i;
    json_t *value;

    if (json_array_size(site->displaced) == 0)
        return;
    fputs("<figure><figcaption>Displaced instructions</figcaption><pre>", page->out);
    json_array_foreach(site->displaced, i, value)
    {
        page_element(page, (long long)i == site->slot ? "mark" : "span", "line",
                     json_string_value(value));
        fputc('\n', page->out);
    }
    fputs("</pre></figure>", page->out);
}

static void put_reason(struct page *page, const struct view_site *site)
{
    if (!*site->reason)
        return;
    fputs("<div class=wide><dt>why</dt><dd><b>", page->out);
    page_text(page, site->reason);
    fputs("</b>", page->out);
    if (*view_explanation(site->reason))
        fprintf(page->out, ": %s", view_explanation(site->reason));
    fputs("</dd></div>", page->out);
}

static void put_facts(struct page *page, const struct view_site *site)
{
    char text[96];
    size_t i;
    json_t *value;

    fputs("<dl>", page->out);
    put_reason(page, site);
    page_fact(page, "bytes", site->bytes);
    page_fact(page, "form, because", site->form_reason);
    if (site->routine) {
        snprintf(text, sizeof text, "%lld at 0x%" PRIx64, site->index, site->routine);
        page_fact(page, "routine", text);
    }
    if (site->window_size) {
        snprintf(text, sizeof text, "%" PRIu64 " bytes at 0x%" PRIx64, site->window_size,
                 site->window);
        page_fact(page, "window", text);
        snprintf(text, sizeof text, "%lld", site->slot);
        page_fact(page, "slot", text);
    }
    if (json_array_size(json_object_get(site->object, "context")) > 0) {
        fputs("<div><dt>context</dt><dd>", page->out);
        json_array_foreach(json_object_get(site->object, "context"), i, value)
        {
            fputs(i ? ", " : "", page->out);
            page_text(page, json_is_string(value) ? json_string_value(value) : "");
        }
        fputs("</dd></div>", page->out);
    }
    fputs("</dl>", page->out);
}

void page_site(struct page *page, const struct page_side *side, const struct view_site *site)
{
    put_facts(page, site);
    if (!side->code || page->listed >= LISTED_MAX) {
        put_displaced(page, site);
        return;
    }
    page->listed++;
    if (site->status == STATUS_PATCHED) {
        put_window(page, side->code, site);
        put_parts(page, side->code, site);
    } else {
        put_untouched(page, side->code, site);
    }
}
