/* SPDX-License-Identifier: MIT */
/* The pages of `patchc inspect --html`, whose pieces are a file each. Nothing that comes from an
 * image or a report reaches a page but through page_text() or as a number. */
#ifndef PATCHC_INSPECT_PAGE_H
#define PATCHC_INSPECT_PAGE_H

#include "patchc/inspect_diff.h"

struct page_side { /* a report, and the image that it is about */
    const struct view *view;
    const struct patched_image *code; /* NULL: no code to show */
};

struct page {
    FILE *out;
    struct page_side side; /* of a comparison: the one before */
    size_t listed;         /* sites whose code was shown: a page has room for so many */
};

/* What is counted together and has one colour: sites of a form, what was left, what a comparison
 * found to have changed. Names are classes of the style sheet. */
struct page_kind {
    const char *name;
    const char *facet; /* the filter that shows these and no others */
};

struct page_mark { /* a site on the map */
    uint64_t address;
    const char *section;
    unsigned kind;
};

/* ---- inspect_page_text.c ---- */

/* Writes text as text of the page or of a quoted attribute. Characters that could deceive the reader
 * (controls, changes of direction) become U+FFFD. */
void page_text(struct page *page, const char *text);

/* <TAG class=CLASS>text</TAG>; nothing if `text` is "". `class` and `tag` are literals. */
void page_element(struct page *page, const char *tag, const char *class, const char *text);

/* A row of a list of facts; nothing if `value` is "". */
void page_fact(struct page *page, const char *name, const char *value);

/* JSON as a data block that a script, or anybody, can read back. False if memory runs out. */
bool page_data(struct page *page, const char *id, const json_t *value);

/* ---- inspect_page_code.c ---- */

/* The facts of a site, and its code as far as there is an image. */
void page_site(struct page *page, const struct page_side *side, const struct view_site *site);

/* ---- inspect_page_map.c ---- */

/* Where the marks stand, section by section, and, if the side has an image, where its routines
 * are. False if memory runs out. */
bool page_map(struct page *page, const struct page_side *side, const struct page_mark *marks,
              size_t count, const struct page_kind *kinds, unsigned kind_count);

/* ---- inspect_page_parts.c: what every page has ---- */

void page_begin(struct page *page, const char *title);
void page_end(struct page *page);

/* "Find" and the filters for `facets`, a NULL-terminated list of row cells' classes; the script fills them. */
void page_filter(struct page *page, const char *const *facets, size_t rows);

/* The heads of the rows' columns: classes of cells, and how they are called. */
struct page_column {
    const char *name, *title;
};
void page_columns(struct page *page, const struct page_column *columns, size_t count);
/* Opens a site's row: the cells that every table of sites begins with. */
void page_row(struct page *page, const struct view_site *site);

/* "4 096" */
void page_count(struct page *page, unsigned long long count);

/* ---- inspect_page_blocks.c: what a report has besides sites ---- */
void page_blocks(struct page *page, const struct view *view);
void page_tables(struct page *page, const struct view *view);

/* ---- the pages: false if memory ran out ---- */
bool page_report(struct page *page);                                    /* inspect_html.c */
bool page_comparison(struct page *page, const struct page_side *after); /* inspect_html_diff.c */

#endif
