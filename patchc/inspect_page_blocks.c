/* SPDX-License-Identifier: MIT */
/* The parts of a report's page that are not about sites: IO blocks, kernel tables, notes. */
#include <string.h>

#include "patchc/inspect_page.h"

static const char *string_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static unsigned long long number_of(const json_t *object, const char *key)
{
    return (unsigned long long)json_integer_value(json_object_get(object, key));
}

static void put_ports(struct page *page, const json_t *block)
{
    size_t i;
    json_t *port;

    json_array_foreach(json_object_get(block, "ports"), i, port)
    {
        fprintf(page->out, "%s0x%llx", i ? " " : "", (unsigned long long)json_integer_value(port));
    }
}

static void put_ranges(struct page *page, const json_t *block)
{
    size_t i;
    json_t *range;

    fputs("<div class=wide><dt>code</dt><dd><ul class=ranges>", page->out);
    json_array_foreach(json_object_get(block, "ranges"), i, range)
    {
        fputs("<li>", page->out);
        page_text(page, string_of(range, "address"));
        fprintf(page->out, " <small>%llu bytes</small></li>", number_of(range, "size"));
    }
    fputs("</ul></dd></div>", page->out);
}

static void put_block(struct page *page, const json_t *block)
{
    size_t i;
    json_t *trait;

    fputs("<details class=block><summary><span class=address>", page->out);
    page_text(page, string_of(block, "address"));
    fputs("</span><span class=symbol>", page->out);
    page_text(page, string_of(block, "symbol"));
    fprintf(page->out,
            "</span><span class=n>%llu IO</span><span class=n>%llu bytes</span><span class=ports>",
            number_of(block, "io_count"), number_of(block, "size"));
    put_ports(page, block);
    fputs("</span></summary><div class=detail><dl>", page->out);
    page_fact(page, "hash", string_of(block, "hash"));
    page_fact(page, "site", string_of(block, "site"));
    fprintf(page->out,
            "<div><dt>instructions</dt><dd>%llu</dd></div><div><dt>masked</dt><dd>%llu "
            "bytes</dd></div>",
            number_of(block, "instructions"), number_of(block, "masked"));
    if (json_array_size(json_object_get(block, "traits")) > 0)
        fputs("<div><dt>traits</dt><dd>", page->out);
    json_array_foreach(json_object_get(block, "traits"), i, trait)
    {
        const char *text = json_string_value(trait);

        fputs(i ? ", " : "", page->out);
        page_text(page, text ? text : "");
    }
    if (json_array_size(json_object_get(block, "traits")) > 0)
        fputs("</dd></div>", page->out);
    put_ranges(page, block);
    fputs("</dl></div></details>\n", page->out);
}

void page_blocks(struct page *page, const struct view *view)
{
    const json_t *blocks = json_object_get(view->root, "io_blocks");
    size_t i;
    json_t *block;

    if (json_array_size(blocks) == 0)
        return;
    fputs("<section id=blocks><h2>IO blocks <small>", page->out);
    page_count(page, json_array_size(blocks));
    fputs("</small></h2>\n<p class=hint>Runs of instructions around port IO that a runtime "
          "emulates in one exit, "
          "as long as their bytes hash to what stands here.</p>\n<div>\n",
          page->out);
    json_array_foreach(blocks, i, block)
    {
        put_block(page, block);
    }
    fputs("</div></section>\n", page->out);
}

void page_tables(struct page *page, const struct view *view)
{
    const char *name;
    bool any = false;
    size_t i;
    json_t *value;

    json_object_foreach(json_object_get(view->root, "tables_updated"), name, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) == 0)
            continue;
        if (!any)
            fputs("<section class=card><h3>Kernel tables that "
                  "followed</h3><table><thead><tr><th>table</th>"
                  "<th class=n>entries</th></tr></thead><tbody>\n",
                  page->out);
        any = true;
        fputs("<tr><td class=c>", page->out);
        page_text(page, name);
        fprintf(page->out, "</td><td class=n>%lld</td></tr>\n",
                (long long)json_integer_value(value));
    }
    if (any)
        fputs("</tbody></table></section>\n", page->out);
    json_array_foreach(json_object_get(view->root, "warnings"), i, value)
    {
        fputs("<section class=card><h3>Note</h3><p>", page->out);
        page_count(page, number_of(value, "count"));
        fputs(" ", page->out);
        page_text(page, string_of(value, "text"));
        fputs("</p></section>\n", page->out);
    }
}
