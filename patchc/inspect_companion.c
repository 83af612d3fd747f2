/* SPDX-License-Identifier: MIT */
/* A report tells what was decided, its image has the code: whoever is given one of them looks for
 * the other beside it, and takes it if the report's hash says that they belong together. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "patchc/inspect_image.h"
#include "patchc/inspect_view.h"
#include "patchc/json.h"

/* The file that stands beside a report under the name it gives its image. A name with a folder in it is none. */
static char *image_beside(const char *report, const struct view *view)
{
    const char *name = view_text(view, "output", "name"), *slash = strrchr(report, '/');
    char *path = NULL;

    if (!*name || strchr(name, '/'))
        return NULL;
    return asprintf(&path, "%.*s%s", slash ? (int)(slash + 1 - report) : 0, report, name) < 0
               ? NULL
               : path;
}

static char *report_beside(const char *image)
{
    char *path = NULL;

    return asprintf(&path, "%s.json", image) < 0 ? NULL : path;
}

static bool belong(const struct view *report, const struct view *image)
{
    uint64_t hash;
    const json_t *output = json_object_get(report->root, "output");

    return image->patched && !report->patched &&
           json_hex_value(json_object_get(output, "xxh3"), &hash) &&
           hash == image->patched->image.input_xxh3;
}

int view_companion(const char *path, const struct view *view, struct view *companion,
                   struct error *err)
{
    char *beside = view->patched ? report_beside(path) : image_beside(path, view);
    struct error wrong = {0};
    bool found = false;

    *companion = (struct view){0};
    if (beside && access(beside, R_OK) == 0 && view_open(beside, companion, &wrong) == 0)
        found = view->patched ? belong(companion, view) : belong(view, companion);
    free(beside);
    if (!found)
        view_close(companion);
    /* An image's name may be any file's; but a damaged report is worth a word. */
    if (!wrong.code || (!view->patched && wrong.code != EXIT_IO))
        return found;
    *err = wrong;
    return -1;
}
