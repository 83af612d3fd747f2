/* SPDX-License-Identifier: MIT */
/* The summary: what was patched, how, and what was left and why, as tables a person reads. */
#include <stdlib.h>
#include <string.h>

#include "patchc/inspect_view.h"
#include "patchc/json.h"
#include "image/terminal.h"

#define TOP_SYMBOLS 10

struct row { /* sites with one value of something */
    char name[96];
    size_t count, by_status[STATUSES];
};

struct breakdown {
    struct row *rows;
    size_t count;
};

/* Copies the value that a site is counted under; false: it is not counted. */
typedef bool key_of(const struct view_site *site, char *key, size_t size);

static bool key_instruction(const struct view_site *site, char *key, size_t size)
{
    snprintf(key, size, "%s", site->group);
    return true;
}

static bool key_section(const struct view_site *site, char *key, size_t size)
{
    snprintf(key, size, "%s", *site->section ? site->section : "(none)");
    return true;
}

static bool key_form(const struct view_site *site, char *key, size_t size)
{
    snprintf(key, size, "%s", site->form);
    return *key != '\0';
}

static bool key_tactic(const struct view_site *site, char *key, size_t size)
{
    snprintf(key, size, "%s", site->tactic);
    return *key != '\0';
}

static bool key_reason(const struct view_site *site, char *key, size_t size)
{
    snprintf(key, size, "%s", site->reason);
    return *key != '\0' && site->status == STATUS_LEFT;
}

static bool key_excluded(const struct view_site *site, char *key, size_t size)
{
    snprintf(key, size, "%s", site->reason);
    return *key != '\0' && site->status == STATUS_EXCLUDED;
}

static bool key_symbol(const struct view_site *site, char *key, size_t size)
{
    view_symbol(site, key, size);
    return *key != '\0';
}

static int by_name(const void *left, const void *right)
{
    return strcmp(((const struct row *)left)->name, ((const struct row *)right)->name);
}

static int by_count(const void *left, const void *right)
{
    const struct row *a = left, *b = right;

    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->name, b->name);
}

/* Counts the sites by key: one row each, sorted, equal ones merged, most frequent first. */
static struct breakdown count_by(const struct view *view, key_of *key)
{
    struct breakdown result = {.rows = calloc(view->count + 1, sizeof *result.rows)};
    size_t filled = 0;

    if (!result.rows)
        return result;
    for (size_t i = 0; i < view->count; i++) {
        struct row *row = &result.rows[filled];

        if (!key(&view->sites[i], row->name, sizeof row->name))
            continue;
        row->count = 1;
        row->by_status[view->sites[i].status] = 1;
        filled++;
    }
    qsort(result.rows, filled, sizeof *result.rows, by_name);
    for (size_t i = 0; i < filled; i++) {
        struct row *last = result.count ? &result.rows[result.count - 1] : NULL;

        if (!last || strcmp(last->name, result.rows[i].name) != 0) {
            result.rows[result.count++] = result.rows[i];
            continue;
        }
        last->count += result.rows[i].count;
        for (unsigned s = 0; s < STATUSES; s++)
            last->by_status[s] += result.rows[i].by_status[s];
    }
    qsort(result.rows, result.count, sizeof *result.rows, by_count);
    return result;
}

static double coverage(const struct view *view)
{
    size_t eligible = view->count - view->by_status[STATUS_EXCLUDED];
    size_t done = view->by_status[STATUS_PATCHED] + view->by_status[STATUS_BLOCK];

    return eligible ? 100.0 * (double)done / (double)eligible : 100.0;
}

static void print_count(size_t count, const char *before, const char *after, FILE *out)
{
    if (count)
        fprintf(out, "  %s%9zu%s", before, count, after);
    else
        fprintf(out, "  %9s", "-");
}

/* A table, with a column per status or of patched sites only. */
static void print_table(const struct view *view, const char *title, key_of *key, size_t limit,
                        bool statuses, FILE *out)
{
    struct palette colour = terminal_palette(out);
    struct breakdown table = count_by(view, key);
    size_t shown = table.count < limit ? table.count : limit;
    int width = 24;

    for (size_t i = 0; i < shown; i++)
        if ((int)strlen(table.rows[i].name) > width)
            width = (int)strlen(table.rows[i].name);
    if (shown)
        fprintf(out, "\n%s%-*s  %9s", colour.heading, width + 2, title, "SITES");
    if (shown && statuses)
        fprintf(out, "  %9s  %9s  %9s", "PATCHED", "LEFT", "EXCLUDED");
    fputs(shown ? colour.plain : "", out);
    for (size_t i = 0; i < shown; i++) {
        const struct row *row = &table.rows[i];

        fprintf(out, "\n  %-*s  %9zu", width, row->name, row->count);
        if (!statuses)
            continue;
        print_count(row->by_status[STATUS_PATCHED] + row->by_status[STATUS_BLOCK], colour.good,
                    colour.plain, out);
        print_count(row->by_status[STATUS_LEFT], colour.warning, colour.plain, out);
        print_count(row->by_status[STATUS_EXCLUDED], "", "", out);
    }
    fputs(shown ? "\n" : "", out);
    free(table.rows);
}

static void print_reasons(const struct view *view, const char *title, key_of *key, FILE *out)
{
    struct palette colour = terminal_palette(out);
    struct breakdown table = count_by(view, key);

    if (table.count)
        fprintf(out, "\n%s%s%s\n", colour.heading, title, colour.plain);
    for (size_t i = 0; i < table.count; i++)
        fprintf(out, "  %6zu  %-16s %s\n", table.rows[i].count, table.rows[i].name,
                view_explanation(table.rows[i].name));
    free(table.rows);
}

/* What was left, site by site: people want the addresses, and there are few. */
static void print_left(const struct view *view, size_t limit, FILE *out)
{
    size_t shown = 0;

    for (size_t i = 0; i < view->count && shown < limit; i++) {
        const struct view_site *site = &view->sites[i];

        if (site->status != STATUS_LEFT)
            continue;
        fprintf(out, "          0x%llx  %-20s %-14s %s\n", (unsigned long long)site->address,
                site->instruction, site->reason, site->symbol);
        shown++;
    }
    if (view->by_status[STATUS_LEFT] > shown)
        fprintf(out, "          and %zu more\n", view->by_status[STATUS_LEFT] - shown);
}

static void print_tables_updated(const struct view *view, FILE *out)
{
    struct palette colour = terminal_palette(out);
    const char *name;
    json_t *value;
    bool first = true;

    json_object_foreach(json_object_get(view->root, "tables_updated"), name, value)
    {
        char copy[64];

        if (!json_is_integer(value) || json_integer_value(value) == 0)
            continue;
        if (first)
            fprintf(out, "\n%sKernel tables that followed%s\n", colour.heading, colour.plain);
        first = false;
        fprintf(out, "  %-24s  %9lld entries\n", terminal_copy(copy, sizeof copy, name),
                (long long)json_integer_value(value));
    }
}

static void print_warnings(const struct view *view, FILE *out)
{
    struct palette colour = terminal_palette(out);
    size_t i;
    json_t *value;

    json_array_foreach(json_object_get(view->root, "warnings"), i, value)
    {
        const char *text = json_string_value(json_object_get(value, "text"));
        char copy[256];

        if (text)
            fprintf(out, "\n%sNote:%s %lld %s\n", colour.warning, colour.plain,
                    (long long)json_integer_value(json_object_get(value, "count")),
                    terminal_copy(copy, sizeof copy, text));
    }
}

static void print_head(const struct view *view, FILE *out)
{
    struct palette colour = terminal_palette(out);
    char list[128] = "";
    const char *name = json_string_value(json_object_get(view->root, "list"));

    if (view->patched) {
        fprintf(out, "%s%s%s: a patched image, %zu sites; what was left is in its report\n",
                colour.heading, view->name, colour.plain, view->by_status[STATUS_PATCHED]);
        return;
    }
    if (name)
        terminal_copy(list, sizeof list, name);
    fprintf(out, "%s%s%s (%s) patched with %s: %s\n", colour.heading,
            view_text(view, "input", "name"), colour.plain, view_text(view, "input", "format"),
            list, view_text(view, "output", "name"));
    fprintf(out,
            "%zu sites listed, %zu excluded, %zu eligible; %s%zu patched (%.1f %%)%s, %zu left",
            view->count, view->by_status[STATUS_EXCLUDED],
            view->count - view->by_status[STATUS_EXCLUDED], colour.good,
            view->by_status[STATUS_PATCHED] + view->by_status[STATUS_BLOCK], coverage(view),
            colour.plain, view->by_status[STATUS_LEFT]);
    if (view->by_status[STATUS_BLOCK])
        fprintf(out, ", %zu of the patched in IO blocks", view->by_status[STATUS_BLOCK]);
    fputc('\n', out);
}

void inspect_summary_print(const struct view *view, FILE *out)
{
    bool statuses = !view->patched; /* an image knows its patched sites only */

    print_head(view, out);
    print_table(view, "INSTRUCTION", key_instruction, SIZE_MAX, statuses, out);
    print_table(view, "FORM", key_form, SIZE_MAX, false, out);
    print_table(view, "TACTIC", key_tactic, SIZE_MAX, false, out);
    print_table(view, "SECTION", key_section, SIZE_MAX, statuses, out);
    print_table(view, "SYMBOL (MOST SITES)", key_symbol, TOP_SYMBOLS, statuses, out);
    print_reasons(view, "LEFT, AND WHY", key_reason, out);
    print_left(view, 20, out);
    print_reasons(view, "EXCLUDED, AND WHY", key_excluded, out);
    inspect_blocks_print(view, out);
    print_tables_updated(view, out);
    print_warnings(view, out);
}

static json_t *breakdown_json(const struct view *view, key_of *key, size_t limit)
{
    struct breakdown table = count_by(view, key);
    json_t *list = json_array();
    bool failed = false;

    for (size_t i = 0; i < table.count && i < limit; i++) {
        json_t *row = json_object();

        json_put(&failed, row, "name", json_name(table.rows[i].name));
        json_put(&failed, row, "sites", json_integer((json_int_t)table.rows[i].count));
        for (unsigned s = 0; s < STATUSES; s++)
            json_put(&failed, row, status_name((enum site_status)s),
                     json_integer((json_int_t)table.rows[i].by_status[s]));
        json_append(&failed, list, row);
    }
    failed |= !table.rows;
    free(table.rows);
    if (!failed)
        return list;
    json_decref(list);
    return NULL;
}

json_t *inspect_summary_json(const struct view *view)
{
    static const struct {
        const char *name;
        key_of *key;
        size_t limit;
    } tables[] = {
        {"instructions", key_instruction, SIZE_MAX},
        {"forms", key_form, SIZE_MAX},
        {"tactics", key_tactic, SIZE_MAX},
        {"sections", key_section, SIZE_MAX},
        {"symbols", key_symbol, TOP_SYMBOLS},
        {"left_reasons", key_reason, SIZE_MAX},
        {"excluded_reasons", key_excluded, SIZE_MAX},
    };
    json_t *object = json_object();
    bool failed = false;

    json_put(&failed, object, "schema", json_integer(1));
    json_put(&failed, object, "name", json_name(view->name));
    json_put(&failed, object, "source", json_string(view->patched ? "image" : "report"));
    json_put(&failed, object, "sites", json_integer((json_int_t)view->count));
    json_put(&failed, object, "io_blocks",
             json_integer((json_int_t)json_array_size(json_object_get(view->root, "io_blocks"))));
    for (unsigned s = 0; s < STATUSES; s++)
        json_put(&failed, object, status_name((enum site_status)s),
                 json_integer((json_int_t)view->by_status[s]));
    if (!view->patched)
        json_put(&failed, object, "coverage", json_real(coverage(view)));
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        json_put(&failed, object, tables[i].name,
                 breakdown_json(view, tables[i].key, tables[i].limit));
    if (!failed)
        return object;
    json_decref(object);
    return NULL;
}
