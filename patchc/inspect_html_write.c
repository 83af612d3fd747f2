/* SPDX-License-Identifier: MIT */
/* `patchc inspect --html`: gathers what the page is about, makes it in memory and writes it whole. */
#include <stdlib.h>

#include "image/output.h"
#include "patchc/inspect_image.h"
#include "patchc/inspect_page.h"

struct gathered { /* one side, and what was found beside it */
    struct view companion;
    struct page_side side;
};

/* The report says more than an image alone: it is what the page is about, if there is one. */
static int gather(const char *path, const struct view *view, struct gathered *gathered,
                  struct error *err)
{
    int found = view_companion(path, view, &gathered->companion, err);

    gathered->side = (struct page_side){view, view->patched};
    if (found <= 0)
        return found;
    if (view->patched)
        gathered->side.view = &gathered->companion;
    else
        gathered->side.code = gathered->companion.patched;
    return 0;
}

static int write_page(const struct page_side *side, const struct page_side *after, const char *path,
                      struct error *err)
{
    struct iovec piece = {0};
    char *text = NULL;
    struct page page = {.side = *side, .out = open_memstream(&text, &piece.iov_len)};
    bool whole = page.out && (after ? page_comparison(&page, after) : page_report(&page));
    int status = 0;

    whole = whole && !ferror(page.out);
    if (page.out && fclose(page.out) != 0)
        whole = false;
    piece.iov_base = text;
    if (!whole)
        status = fail(err, EXIT_IO, "%s: out of memory", side->view->name);
    else
        status = output_write(path, &piece, 1, 0644, err);
    free(text);
    return status;
}

int inspect_html_write(const char *path, const struct view *view, const char *other,
                       const char *page, struct error *err)
{
    struct gathered before = {0}, after = {0};
    struct view other_view = {0};
    int status = other ? view_open(other, &other_view, err) : 0;

    if (status == 0)
        status = gather(path, view, &before, err);
    if (status == 0 && other)
        status = gather(other, &other_view, &after, err);
    if (status == 0)
        status = write_page(&before.side, other ? &after.side : NULL, page, err);
    view_close(&before.companion);
    view_close(&after.companion);
    view_close(&other_view);
    return status;
}
