/* SPDX-License-Identifier: MIT */
/* The comparison of two reports as one page: how coverage moved, where, and each site that
 * changed, before and after. */
#include <stdlib.h>

#include "patchc/inspect_page.h"

/* A change as it matters to a person; "same" is not shown. */
enum outcome { OUTCOME_GAINED, OUTCOME_LOST, OUTCOME_OTHER, OUTCOME_GONE, OUTCOME_NEW, OUTCOMES };

static const struct page_kind kinds[OUTCOMES] = {
    [OUTCOME_GAINED] = {"gained", "change"}, [OUTCOME_LOST] = {"lost", "change"},
    [OUTCOME_OTHER] = {"changed", "change"}, [OUTCOME_GONE] = {"gone", "change"},
    [OUTCOME_NEW] = {"new", "change"},
};

static bool done(const struct view_site *site)
{
    return site->status == STATUS_PATCHED || site->status == STATUS_BLOCK;
}

static enum outcome outcome_of(const struct site_pair *pair)
{
    if (!pair->before || !pair->after)
        return pair->before ? OUTCOME_GONE : OUTCOME_NEW;
    if (done(pair->before) != done(pair->after))
        return done(pair->after) ? OUTCOME_GAINED : OUTCOME_LOST;
    return OUTCOME_OTHER;
}

static bool put_map(struct page *page, const struct difference *difference)
{
    struct page_side nothing = {0};
    struct page_mark *marks = malloc((difference->count + 1) * sizeof *marks);
    size_t count = 0;
    bool drawn;

    if (!marks)
        return false;
    for (size_t i = 0; i < difference->count; i++) {
        const struct site_pair *pair = &difference->pairs[i];

        if (pair->change != CHANGE_NONE)
            marks[count++] =
                (struct page_mark){pair->site->address, pair->site->section, outcome_of(pair)};
    }
    drawn = page_map(page, &nothing, marks, count, kinds, OUTCOMES);
    free(marks);
    return drawn;
}

static void put_side(struct page *page, const char *title, const struct view *view)
{
    size_t patched = view->by_status[STATUS_PATCHED] + view->by_status[STATUS_BLOCK];
    size_t eligible = view->count - view->by_status[STATUS_EXCLUDED];
    const char *list = json_string_value(json_object_get(view->root, "list"));

    fprintf(page->out, "<div><h2>%s: ", title);
    page_text(page, view->name);
    fputs("</h2>", page->out);
    if (!view->patched)
        fprintf(page->out,
                "<p class=share><b>%.1f&#8239;%%</b> of %zu eligible sites patched</p>"
                "<progress max=%zu value=%zu></progress>",
                eligible ? 100.0 * (double)patched / (double)eligible : 100.0, eligible,
                eligible ? eligible : 1, eligible ? patched : 1);
    else
        fprintf(page->out, "<p class=share><b>%zu</b> sites patched</p>", patched);
    fputs("<dl class=files>", page->out);
    page_fact(page, "input", view_text(view, "input", "name"));
    page_fact(page, "XXH3", view_text(view, "input", "xxh3"));
    page_fact(page, "list", list ? list : "");
    fputs("</dl></div>\n", page->out);
}

static void put_head(struct page *page, const struct view *before, const struct view *after,
                     const struct difference *difference)
{
    size_t counts[OUTCOMES] = {0};

    for (size_t i = 0; i < difference->count; i++)
        if (difference->pairs[i].change != CHANGE_NONE)
            counts[outcome_of(&difference->pairs[i])]++;
    fputs("<header><p class=kicker>patchc comparison</p><h1>", page->out);
    page_text(page, before->name);
    fputs(" → ", page->out);
    page_text(page, after->name);
    fputs("</h1>\n<ul class=tiles>", page->out);
    for (unsigned i = 0; i < OUTCOMES; i++)
        fprintf(page->out,
                "<li><a href=\"#sites\" data-facet=change data-value=%s><b class=t-%s>%zu</b> "
                "%s</a></li>",
                kinds[i].name, kinds[i].name, counts[i], kinds[i].name);
    fprintf(page->out, "<li><b>%zu</b> the same</li></ul>\n<div class=lead>\n",
            difference->changes[CHANGE_NONE]);
    put_side(page, "Before", before);
    put_side(page, "After", after);
    fputs("</div>\n", page->out);
    if (!difference->by_address)
        fputs("<p class=hint>The inputs differ: sites are compared by symbol and instruction, and "
              "each "
              "address is that of the first report which has the site.</p>\n",
              page->out);
    fputs("</header>\n", page->out);
}

static void put_half(struct page *page, const char *title, const struct page_side *side,
                     const struct view_site *site)
{
    fprintf(page->out, "<div class=half><h3>%s</h3>", title);
    if (site) {
        char text[160];

        difference_describe(site, text, sizeof text);
        page_element(page, "p", "what", text);
        page_site(page, side, site);
    } else {
        fputs("<p>There is no such site.</p>", page->out);
    }
    fputs("</div>", page->out);
}

static void put_pair(struct page *page, const struct page_side *after, const struct site_pair *pair)
{
    const char *outcome = kinds[outcome_of(pair)].name;
    const struct view_site *site = pair->site;
    char text[160] = "-";

    page_row(page, site);
    fprintf(page->out, "<span class=\"change t-%s\">%s</span>", outcome, outcome);
    if (pair->before)
        difference_describe(pair->before, text, sizeof text);
    page_element(page, "span", "before", text);
    snprintf(text, sizeof text, "-");
    if (pair->after)
        difference_describe(pair->after, text, sizeof text);
    page_element(page, "span", "after", text);
    fputs("</summary><div class=\"detail halves\">", page->out);
    put_half(page, "Before", &page->side, pair->before);
    put_half(page, "After", after, pair->after);
    fputs("</div></details>\n", page->out);
}

static void put_pairs(struct page *page, const struct page_side *after,
                      const struct difference *difference)
{
    static const char *const facets[] = {"change", "section", "instruction", NULL};
    static const struct page_column columns[] = {
        {"address", "address"}, {"symbol", "symbol"}, {"instruction", "instruction"},
        {"section", "section"}, {"change", "change"}, {"before", "before"},
        {"after", "after"}};
    size_t changed = difference->count - difference->changes[CHANGE_NONE];

    fputs("<section id=sites><h2>Sites that changed</h2>\n<div class=tools>\n", page->out);
    page_filter(page, facets, changed);
    page_columns(page, columns, sizeof columns / sizeof columns[0]);
    fputs("</div>\n<div id=rows class=compared>\n", page->out);
    for (size_t i = 0; i < difference->count; i++)
        if (difference->pairs[i].change != CHANGE_NONE)
            put_pair(page, after, &difference->pairs[i]);
    fputs("</div>\n<p id=none hidden>No site is like that.</p>", page->out);
    if (!changed)
        fputs("<p>None: both have done the same to every site.</p>", page->out);
    fputs("</section>\n", page->out);
}

bool page_comparison(struct page *page, const struct page_side *after)
{
    const struct view *before = page->side.view;
    struct difference difference = {0};
    json_t *data = inspect_diff_json(before, after->view);
    bool good = data && difference_make(before, after->view, &difference);

    if (good) {
        page_begin(page, "Comparison of two reports");
        put_head(page, before, after->view, &difference);
        fputs("<main>\n", page->out);
        good = put_map(page, &difference);
        put_pairs(page, after, &difference);
        fputs("</main>\n", page->out);
        good &= page_data(page, "comparison", data);
        page_end(page);
    }
    free(difference.pairs);
    json_decref(data);
    return good;
}
