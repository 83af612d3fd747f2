/* SPDX-License-Identifier: MIT */
/* `patchc inspect`: opens what it is given and prints the view that the options ask for. */
#include "patchc/inspect.h"

#include <stdlib.h>

#include "image/json_whole.h"
#include "patchc/inspect_view.h"
#include "patchc/json.h"

static int print_json(const struct view *view, json_t *value, FILE *out, struct error *err)
{
    char *text = json_whole(value, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(value);
    if (!text)
        return fail(err, EXIT_IO, "%s: out of memory", view->name);
    fputs(text, out);
    fputc('\n', out);
    free(text);
    return 0;
}

struct found { /* sites that --site names */
    FILE *out; /* where to print them, or NULL: collect them */
    json_t *sites;
    size_t count;
    bool failed;
};

static void visit_site(const struct view *view, const struct view_site *site, void *context)
{
    struct found *found = context;

    if (!found->out) {
        json_append(&found->failed, found->sites, json_deep_copy(site->object));
        return;
    }
    if (found->count++)
        fputc('\n', found->out);
    inspect_site_print(view, site, found->out);
}

static int show_site(const struct view *view, const struct inspect_options *options, FILE *out,
                     struct error *err)
{
    struct found found = {.out = options->json ? NULL : out, .sites = json_array()};
    int status = 0;

    if (view_find(view, options->site, visit_site, &found) == 0)
        status = fail(err, EXIT_CHECK,
                      "%s: no site at '%s'; give an address (0x...) or "
                      "SYMBOL+0xOFFSET",
                      view->name, options->site);
    else if (options->json && !found.failed)
        return print_json(view, found.sites, out, err);
    else if (options->json)
        status = print_json(view, NULL, out, err);
    json_decref(found.sites);
    return status;
}

static int show_diff(const struct view *view, const struct inspect_options *options, FILE *out,
                     struct error *err)
{
    struct view other;
    int status = view_open(options->diff, &other, err);

    if (status == 0 && options->json)
        status = print_json(view, inspect_diff_json(view, &other), out, err);
    else if (status == 0 && !inspect_diff_print(view, &other, out))
        status = fail(err, EXIT_IO, "%s: out of memory", view->name);
    view_close(&other);
    return status;
}

static int show(const struct view *view, const struct inspect_options *options, FILE *out,
                struct error *err)
{
    if (options->html)
        return inspect_html_write(options->path, view, options->diff, options->html, err);
    if (options->diff)
        return show_diff(view, options, out, err);
    if (options->site)
        return show_site(view, options, out, err);
    if (options->json)
        return print_json(view, inspect_summary_json(view), out, err);
    inspect_summary_print(view, out);
    return 0;
}

int inspect_run(const struct inspect_options *options, FILE *out, struct error *err)
{
    struct view view;
    int status;

    if (options->site && (options->html || options->diff))
        return fail(err, EXIT_USAGE, "--site excludes --html and --diff");
    if (options->html && options->json)
        return fail(err, EXIT_USAGE, "--json and --html exclude each other");
    status = view_open(options->path, &view, err);
    if (status == 0)
        status = show(&view, options, out, err);
    view_close(&view);
    return status;
}
