/* SPDX-License-Identifier: MIT */
/* What every page has: its head, with style and script in it; the bar of filters; the heads of
 * columns. */
#include "patchc/inspect_page.h"

#include <inttypes.h>

/* The style sheet and the script (patchc/inspect_page.css, .js) and their SHA-256 in base64, which
 * the Makefile puts into the library. */
extern const char page_style[], page_style_hash[], page_script[], page_script_hash[];

/* Nothing is fetched, and no script or style runs but those two: should a name from an image ever
 * get into the page as markup, it could still do nothing. */
void page_begin(struct page *page, const char *title)
{
    fprintf(
        page->out,
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
        "style-src 'sha256-%s'; script-src 'sha256-%s'; base-uri 'none'; form-action 'none'\">\n"
        "<meta name=viewport content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=color-scheme content=\"light dark\">\n"
        "<meta name=generator content=\"patchc %s\">\n<title>",
        page_style_hash, page_script_hash, PATCHVISOR_VERSION);
    page_text(page, title);
    fputs("</title>\n<style>", page->out);
    fputs(page_style, page->out);
    fputs("</style>\n</head>\n<body>\n<a class=skip href=\"#sites\">to the sites</a>\n", page->out);
}

void page_end(struct page *page)
{
    fputs("<footer>Written by <code>patchc inspect --html</code>. One file: it fetches nothing and "
          "works offline."
          "</footer>\n<script>",
          page->out);
    fputs(page_script, page->out);
    fputs("</script>\n</body>\n</html>\n", page->out);
}

void page_filter(struct page *page, const char *const *facets, size_t rows)
{
    fputs(
        "<form id=filter role=search hidden>\n"
        "<label class=find><span>Find</span><input id=find name=find type=search autocomplete=off "
        "spellcheck=false placeholder=\"symbol, address, instruction…\" "
        "aria-keyshortcuts=\"/\"></label>\n",
        page->out);
    for (size_t i = 0; facets[i]; i++)
        fprintf(page->out,
                "<label><span>%s</span><select name=%s><option "
                "value=\"\">any</option></select></label>\n",
                facets[i], facets[i]);
    fputs("<button type=button id=range hidden></button><button type=reset>Clear</button>\n"
          "<output id=shown aria-live=polite>",
          page->out);
    page_count(page, rows);
    fputs(" sites</output>\n</form>\n", page->out);
}

void page_columns(struct page *page, const struct page_column *columns, size_t count)
{
    fputs("<div class=heads>", page->out);
    for (size_t i = 0; i < count; i++)
        fprintf(page->out, "<span class=%s>%s</span>", columns[i].name, columns[i].title);
    fputs("</div>\n", page->out);
}

void page_row(struct page *page, const struct view_site *site)
{
    fprintf(page->out, "<details class=row id=s-%" PRIx64 " data-instruction=\"", site->address);
    page_text(page, site->group);
    fprintf(page->out, "\"><summary><span class=address>0x%" PRIx64 "</span>", site->address);
    page_element(page, "span", "symbol", *site->symbol ? site->symbol : "-");
    page_element(page, "span", "instruction", *site->instruction ? site->instruction : "-");
    page_element(page, "span", "section", *site->section ? site->section : "-");
}
