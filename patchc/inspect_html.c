/* SPDX-License-Identifier: MIT */
/* The report as one page that needs no other file and no network: how much was patched, where the
 * sites are, what was left and why, each site with its code, the IO blocks. Without scripts it is
 * complete and can be read; the script finds, filters and sorts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hvstub/hvstub.h"
#include "patchc/inspect_page.h"

enum { KIND_LEFT = PV_FORMS, KIND_EXCLUDED, KIND_BLOCK, KINDS };

static const struct page_kind kinds[KINDS] = {
    [PV_FORM_NONE] = {"patched", "status"},   [PV_FORM_JUMP] = {"jump", "form"},
    [PV_FORM_CALL] = {"call", "form"},        [PV_FORM_BRANCH] = {"branch", "form"},
    [PV_FORM_BREAK] = {"break", "form"},      [KIND_LEFT] = {"left", "status"},
    [KIND_EXCLUDED] = {"excluded", "status"}, [KIND_BLOCK] = {"block", "status"},
};

/* From the best to the worst, as they stand beside each other. */
static const enum site_status order[STATUSES] = {STATUS_PATCHED, STATUS_BLOCK, STATUS_LEFT,
                                                 STATUS_EXCLUDED};

static unsigned kind_of(const struct view_site *site)
{
    static const unsigned of_status[STATUSES] = {
        [STATUS_LEFT] = KIND_LEFT, [STATUS_EXCLUDED] = KIND_EXCLUDED, [STATUS_BLOCK] = KIND_BLOCK};

    for (unsigned form = PV_FORM_NONE + 1; site->status == STATUS_PATCHED && form < PV_FORMS;
         form++)
        if (strcmp(site->form, form_name(form)) == 0)
            return form;
    return of_status[site->status];
}

static bool put_map(struct page *page, const struct view *view)
{
    struct page_mark *marks = malloc((view->count + 1) * sizeof *marks);
    bool done;

    if (!marks)
        return false;
    for (size_t i = 0; i < view->count; i++)
        marks[i] = (struct page_mark){view->sites[i].address, view->sites[i].section,
                                      kind_of(&view->sites[i])};
    done = page_map(page, &page->side, marks, view->count, kinds, KINDS);
    free(marks);
    return done;
}

/* ---- how much ---- */

static void put_coverage(struct page *page, const struct view *view)
{
    size_t patched = view->by_status[STATUS_PATCHED] + view->by_status[STATUS_BLOCK];
    size_t eligible = view->count - view->by_status[STATUS_EXCLUDED];

    if (view->patched) {
        fputs("<p class=share><b>", page->out);
        page_count(page, patched);
        fputs("</b> sites patched</p><p>What was left is in the report, which an image alone does "
              "not tell.</p>\n",
              page->out);
        return;
    }
    fprintf(page->out, "<p class=share><b>%.1f&#8239;%%</b> of ",
            eligible ? 100.0 * (double)patched / (double)eligible : 100.0);
    page_count(page, eligible);
    fprintf(
        page->out,
        " eligible sites patched</p>\n<progress max=%zu value=%zu></progress>\n<ul class=tiles>",
        eligible ? eligible : 1, eligible ? patched : 1);
    for (unsigned i = 0; i < STATUSES; i++) {
        const char *name = status_name(order[i]);

        if (order[i] == STATUS_BLOCK && !view->by_status[STATUS_BLOCK])
            continue;
        fprintf(page->out, "<li><a href=\"#sites\" data-facet=status data-value=%s><b class=t-%s>",
                name, name);
        page_count(page, view->by_status[order[i]]);
        fprintf(page->out, "</b> %s</a></li>", order[i] == STATUS_BLOCK ? "in IO blocks" : name);
    }
    fputs("</ul>\n", page->out);
}

static void put_file(struct page *page, const char *what, const json_t *file)
{
    const char *name = json_string_value(json_object_get(file, "name"));
    const char *hash = json_string_value(json_object_get(file, "xxh3"));

    if (!name)
        return;
    fprintf(page->out, "<div><dt>%s</dt><dd>", what);
    page_text(page, name);
    fputs("<small>", page->out);
    page_count(page, (unsigned long long)json_integer_value(json_object_get(file, "size")));
    fputs(" bytes", page->out);
    if (hash) {
        fputs(", XXH3 ", page->out);
        page_text(page, hash);
    }
    fputs("</small></dd></div>", page->out);
}

static void put_provenance(struct page *page, const struct view *view)
{
    static const char *const texts[] = {"list", "tool"};
    json_t *stub = json_object_get(view->root, "stub"), *used = json_object_get(stub, "space_used");
    const char *header = json_string_value(json_object_get(stub, "header"));

    fputs("<dl class=files>", page->out);
    put_file(page, "input", json_object_get(view->root, "input"));
    put_file(page, "output", json_object_get(view->root, "output"));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *text = json_string_value(json_object_get(view->root, texts[i]));

        page_fact(page, texts[i], text ? text : "");
    }
    if (header) {
        fputs("<div><dt>stub</dt><dd>", page->out);
        page_text(page, header);
        if (json_is_integer(used)) {
            fputs("<small>", page->out);
            page_count(page, (unsigned long long)json_integer_value(used));
            fputs(" bytes of routines and tables</small>", page->out);
        }
        fputs("</dd></div>", page->out);
    }
    fputs("</dl>\n", page->out);
}

/* ---- what, by what ---- */

static long long count_of(const json_t *row, const char *key)
{
    return (long long)json_integer_value(json_object_get(row, key));
}

static void put_bar(struct page *page, const json_t *row, long long whole)
{
    double x = 0;

    fputs("<svg class=bar viewBox=\"0 0 100 1\" preserveAspectRatio=none aria-hidden=true>",
          page->out);
    for (unsigned s = 0; s < STATUSES && whole > 0; s++) {
        double width = 100.0 * (double)count_of(row, status_name(order[s])) / (double)whole;

        if (width > 0)
            fprintf(page->out, "<rect class=t-%s x=%.2f width=%.2f y=0 height=1 />",
                    status_name(order[s]), x, width);
        x += width;
    }
    fputs("</svg>", page->out);
}

/* A row of a breakdown; where all sites are patched, because the others have no such thing, its bar is
 * its share of all. */
static void put_row(struct page *page, const json_t *row, const char *facet, bool statuses)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    long long counts[] = {count_of(row, "patched") + count_of(row, "block"), count_of(row, "left"),
                          count_of(row, "excluded")};

    fprintf(page->out, "<tr><td class=c><a href=\"#sites\" data-facet=%s data-value=\"", facet);
    page_text(page, name ? name : "");
    fputs("\">", page->out);
    page_text(page, name ? name : "");
    fputs("</a></td><td class=n>", page->out);
    page_count(page, (unsigned long long)count_of(row, "sites"));
    fputs("</td>", page->out);
    for (size_t i = 0; statuses && i < sizeof counts / sizeof counts[0]; i++) {
        fputs(counts[i] ? "<td class=n>" : "<td class=\"n zero\">", page->out);
        page_count(page, (unsigned long long)counts[i]);
        fputs("</td>", page->out);
    }
    fputs("<td class=share-bar>", page->out);
    put_bar(page, row, statuses ? count_of(row, "sites") : (long long)page->side.view->count);
    fputs("</td></tr>\n", page->out);
}

/* `facet`: the filter that a row sets; a symbol is looked for. */
static void put_breakdown(struct page *page, const json_t *summary, const char *key,
                          const char *facet, const char *title, bool statuses)
{
    const json_t *list = json_object_get(summary, key);
    size_t i;
    json_t *row;

    if (json_array_size(list) == 0)
        return;
    fprintf(page->out,
            "<section class=card><h3>%s</h3><table><thead><tr><th></th><th "
            "class=n>sites</th>%s<th></th></tr></thead><tbody>\n",
            title,
            statuses ? "<th class=n>patched</th><th class=n>left</th><th class=n>excluded</th>"
                     : "");
    json_array_foreach(list, i, row)
    {
        put_row(page, row, facet, statuses);
    }
    fputs("</tbody></table></section>\n", page->out);
}

static void put_breakdowns(struct page *page, const json_t *summary)
{
    fputs("<section id=what><h2>What</h2>\n<div class=cards>\n", page->out);
    put_breakdown(page, summary, "instructions", "instruction", "Instructions", true);
    put_breakdown(page, summary, "tactics", "tactic", "How room was made", false);
    put_breakdown(page, summary, "forms", "form", "Forms", false);
    put_breakdown(page, summary, "symbols", "find", "Symbols with most sites", true);
    page_tables(page, page->side.view);
    fputs("</div></section>\n", page->out);
}

/* ---- what was left ---- */

static void put_reason(struct page *page, const struct view *view, enum site_status status,
                       const char *reason, long long sites)
{
    fprintf(page->out, "<details class=reason%s><summary><b class=t-%s>%s</b> <code>",
            sites <= 20 ? " open" : "", status_name(status), status_name(status));
    page_text(page, reason);
    fprintf(page->out, "</code> <small>%lld site%s</small> <span>", sites, sites == 1 ? "" : "s");
    page_text(page, view_explanation(reason));
    fputs("</span></summary><ul>", page->out);
    for (size_t i = 0; i < view->count; i++) {
        const struct view_site *site = &view->sites[i];

        if (site->status != status || strcmp(site->reason, reason) != 0)
            continue;
        fprintf(page->out, "<li><a href=\"#s-%" PRIx64 "\">0x%" PRIx64 "</a> ", site->address,
                site->address);
        page_element(page, "code", "c", site->instruction);
        fputs(" ", page->out);
        page_element(page, "span", "c", site->symbol);
        fputs("</li>\n", page->out);
    }
    fputs("</ul></details>\n", page->out);
}

static void put_left(struct page *page, const struct view *view, const json_t *summary)
{
    static const struct {
        const char *key;
        enum site_status status;
    } lists[] = {{"left_reasons", STATUS_LEFT}, {"excluded_reasons", STATUS_EXCLUDED}};
    size_t i;
    json_t *row;

    if (view->patched)
        return;
    fputs("<section id=left><h2>Not patched, and why</h2>\n", page->out);
    for (size_t list = 0; list < sizeof lists / sizeof lists[0]; list++) {
        json_array_foreach(json_object_get(summary, lists[list].key), i, row)
        {
            if (i == REASONS) /* a forged report may have any number */
                break;
            const char *name = json_string_value(json_object_get(row, "name"));

            put_reason(page, view, lists[list].status, name ? name : "", count_of(row, "sites"));
        }
    }
    if (view->by_status[STATUS_LEFT] + view->by_status[STATUS_EXCLUDED] == 0)
        fputs("<p>Nothing: every site is patched.</p>", page->out);
    fputs("</section>\n", page->out);
}

/* ---- site by site ---- */

static void put_site(struct page *page, const struct view_site *site)
{
    const char *status = status_name(site->status);

    page_row(page, site);
    fprintf(page->out, "<span class=\"status t-%s\">%s</span>", status, status);
    fprintf(page->out, "<span class=\"form t-%s\">", kinds[kind_of(site)].name);
    page_text(page, site->form);
    fputs("</span><span class=tactic>", page->out);
    page_text(page, site->tactic);
    fputs("</span><span class=", page->out);
    fputs(*site->reason ? "reason>" : "template>", page->out);
    page_text(page, *site->reason ? site->reason : site->template_name);
    fputs("</span></summary><div class=detail>", page->out);
    page_site(page, &page->side, site);
    fputs("</div></details>\n", page->out);
}

static void put_sites(struct page *page, const struct view *view)
{
    static const char *const facets[] = {"status", "form",   "section", "instruction",
                                         "tactic", "reason", NULL};
    static const struct page_column columns[] = {
        {"address", "address"},         {"symbol", "symbol"},
        {"instruction", "instruction"}, {"section", "section"},
        {"status", "status"},           {"form", "form"},
        {"tactic", "tactic"},           {"template", "template or reason"}};

    fputs("<section id=sites><h2>Sites</h2>\n", page->out);
    if (!page->side.code)
        fputs("<p class=hint>The patched image was not found beside the report: this page has no "
              "code.</p>\n",
              page->out);
    fputs("<div class=tools>\n", page->out);
    page_filter(page, facets, view->count);
    page_columns(page, columns, sizeof columns / sizeof columns[0]);
    fputs("</div>\n<div id=rows>\n", page->out);
    for (size_t i = 0; i < view->count; i++)
        put_site(page, &view->sites[i]);
    fputs("</div>\n<p id=none hidden>No site is like that.</p></section>\n", page->out);
}

bool page_report(struct page *page)
{
    const struct view *view = page->side.view;
    json_t *summary = inspect_summary_json(view);
    const char *name = view_text(view, "input", "name");
    bool done = summary != NULL;

    if (!done)
        return false;
    name = *name ? name : view->name;
    page_begin(page, name);
    fputs("<header><p class=kicker>patchc report</p><h1>", page->out);
    page_text(page, name);
    fputs("</h1>\n<div class=lead><div>", page->out);
    put_coverage(page, view);
    fputs("</div>\n", page->out);
    put_provenance(page, view);
    fputs("</div></header>\n<main>\n", page->out);
    done = put_map(page, view);
    put_left(page, view, summary);
    put_breakdowns(page, summary);
    put_sites(page, view);
    page_blocks(page, view);
    fputs("</main>\n", page->out);
    done &= view->patched || page_data(page, "report", view->root);
    page_end(page);
    json_decref(summary);
    return done;
}
