/* SPDX-License-Identifier: MIT */
/* Compares two reports (or images): which sites changed what they are, and which came or went.
 *
 * Reports of the same input are compared by address. Otherwise addresses mean nothing, and a site
 * is the same if symbol, offset and instruction are. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/inspect_diff.h"
#include "patchc/json.h"
#include "image/terminal.h"

static const char *const change_names[CHANGES] = {"same", "status", "patch", "gone", "new"};

static int compare_places(const struct view_site *a, const struct view_site *b)
{
    int order = strcmp(a->symbol, b->symbol);

    return order ? order : strcmp(a->instruction, b->instruction);
}

static int compare_addresses(const struct view_site *a, const struct view_site *b)
{
    return (a->address > b->address) - (a->address < b->address);
}

static int by_place(const void *left, const void *right)
{
    const struct view_site *a = *(const struct view_site *const *)left;
    const struct view_site *b = *(const struct view_site *const *)right;
    int order = compare_places(a, b);

    return order ? order : compare_addresses(a, b);
}

/* The sites in the order in which they are compared. */
static const struct view_site **ordered(const struct view *view, bool by_address)
{
    const struct view_site **sites = calloc(view->count + 1, sizeof *sites);

    for (size_t i = 0; sites && i < view->count; i++)
        sites[i] = &view->sites[i];
    if (sites && !by_address)
        qsort(sites, view->count, sizeof *sites, by_place);
    return sites;
}

/* patchc(1) has these words. */
static const char *change_name(enum change change)
{
    return change_names[change];
}

static enum change change_of(const struct difference *difference, const struct view_site *before,
                             const struct view_site *after)
{
    const struct view_site *only = !before ? after : !after ? before : NULL;

    if (difference->image && only && only->status != STATUS_PATCHED)
        return CHANGE_NONE; /* of these an image does not tell */
    if (!before)
        return CHANGE_NEW;
    if (!after)
        return CHANGE_GONE;
    if (before->status != after->status || strcmp(before->reason, after->reason) != 0)
        return CHANGE_STATUS;
    if (strcmp(before->form, after->form) != 0)
        return CHANGE_PATCH;
    if (!difference->image && (strcmp(before->tactic, after->tactic) != 0 ||
                               strcmp(before->template_name, after->template_name) != 0))
        return CHANGE_PATCH;
    return CHANGE_NONE;
}

/* A merge of two sorted sequences. False if memory runs out. */
bool difference_make(const struct view *before, const struct view *after,
                     struct difference *difference)
{
    const char *hash = view_text(before, "input", "xxh3");
    const struct view_site **left, **right;
    size_t i = 0, j = 0;

    /* An image does not tell its input: then its addresses are taken for the same. */
    difference->image = before->patched || after->patched;
    difference->by_address =
        difference->image || strcmp(hash, view_text(after, "input", "xxh3")) == 0;
    difference->pairs = calloc(before->count + after->count + 1, sizeof *difference->pairs);
    left = ordered(before, difference->by_address);
    right = ordered(after, difference->by_address);
    while (left && right && difference->pairs && (i < before->count || j < after->count)) {
        struct site_pair *pair = &difference->pairs[difference->count++];
        int order = i == before->count       ? 1
                    : j == after->count      ? -1
                    : difference->by_address ? compare_addresses(left[i], right[j])
                                             : compare_places(left[i], right[j]);

        pair->before = order <= 0 ? left[i++] : NULL;
        pair->after = order >= 0 ? right[j++] : NULL;
        pair->site = pair->before ? pair->before : pair->after;
        pair->change = change_of(difference, pair->before, pair->after);
        difference->changes[pair->change]++;
    }
    free(left);
    free(right);
    return left && right && difference->pairs;
}

/* "patched (jump, island, cpuid)", "left (no-room)". */
void difference_describe(const struct view_site *site, char *text, size_t size)
{
    const char *parts[] = {site->reason, site->form, site->tactic, site->template_name};
    const char *separator = " (";
    size_t used = (size_t)snprintf(text, size, "%s", status_name(site->status));

    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && used < size; i++) {
        if (!*parts[i])
            continue;
        used += (size_t)snprintf(text + used, size - used, "%s%s", separator, parts[i]);
        separator = ", ";
    }
    if (*separator == ',' && used < size)
        snprintf(text + used, size - used, ")");
}

static void print_pair(const struct site_pair *pair, FILE *out)
{
    const struct view_site *site = pair->site;
    struct palette colour = terminal_palette(out);
    char before[160] = "-", after[160] = "-";
    bool better = pair->after && pair->after->status == STATUS_PATCHED;

    if (pair->before)
        difference_describe(pair->before, before, sizeof before);
    if (pair->after)
        difference_describe(pair->after, after, sizeof after);
    fprintf(out, "0x%" PRIx64 "  %-20s  %s -> %s%s%s  %s\n", site->address, site->instruction,
            before, better ? colour.good : colour.warning, after, colour.plain, site->symbol);
}

bool inspect_diff_print(const struct view *before, const struct view *after, FILE *out)
{
    struct difference difference = {0};
    bool compared = difference_make(before, after, &difference);

    if (compared) {
        if (!difference.by_address)
            fputs("The inputs differ: sites are compared by symbol and instruction.\n", out);
        for (size_t i = 0; i < difference.count; i++)
            if (difference.pairs[i].change != CHANGE_NONE)
                print_pair(&difference.pairs[i], out);
        fprintf(out, "%zu same, %zu changed status, %zu changed patch, %zu gone, %zu new\n",
                difference.changes[CHANGE_NONE], difference.changes[CHANGE_STATUS],
                difference.changes[CHANGE_PATCH], difference.changes[CHANGE_GONE],
                difference.changes[CHANGE_NEW]);
    }
    free(difference.pairs);
    return compared;
}

static json_t *pair_json(bool *failed, const struct site_pair *pair)
{
    const struct view_site *site = pair->site;
    json_t *object = json_object();

    json_put(failed, object, "address", json_hex(site->address));
    json_put(failed, object, "symbol", json_name(site->symbol));
    json_put(failed, object, "change", json_string(change_name(pair->change)));
    json_put(failed, object, "before",
             pair->before ? json_deep_copy(pair->before->object) : json_null());
    json_put(failed, object, "after",
             pair->after ? json_deep_copy(pair->after->object) : json_null());
    return object;
}

json_t *inspect_diff_json(const struct view *before, const struct view *after)
{
    struct difference difference = {0};
    bool failed = !difference_make(before, after, &difference);
    json_t *object = json_object(), *counts = json_object(), *sites = json_array();

    for (unsigned i = 0; i < CHANGES; i++)
        json_put(&failed, counts, change_names[i], json_integer((json_int_t)difference.changes[i]));
    for (size_t i = 0; !failed && i < difference.count; i++)
        if (difference.pairs[i].change != CHANGE_NONE)
            json_append(&failed, sites, pair_json(&failed, &difference.pairs[i]));
    json_put(&failed, object, "schema", json_integer(1));
    json_put(&failed, object, "compared_by",
             json_string(difference.by_address ? "address" : "symbol"));
    json_put(&failed, object, "summary", counts);
    json_put(&failed, object, "sites", sites);
    free(difference.pairs);
    if (!failed)
        return object;
    json_decref(object);
    return NULL;
}
