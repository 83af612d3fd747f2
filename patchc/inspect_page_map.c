/* SPDX-License-Identifier: MIT */
/* The map: each section a strip from its first to its last address, cut into columns; each column
 * a stack of how many sites of which kind stand there. Beneath, where their routines are. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/inspect_page.h"

#define COLUMNS  200
#define KINDS    8
#define HEIGHT   46 /* of the strip */
#define SECTIONS 64 /* strips: a forged report must not make a page of a million */

struct strip {
    const char *section;
    uint64_t first, last; /* addresses that it shows, both included */
    size_t sites;
    unsigned count[COLUMNS][KINDS], routines[COLUMNS];
    uint64_t site[COLUMNS]; /* the first in the column */
};

static unsigned column_of(const struct strip *strip, uint64_t address)
{
    uint64_t span = strip->last - strip->first, offset = address - strip->first;

    while (span >> 48) { /* so that the product fits */
        span >>= 1;
        offset >>= 1;
    }
    return (unsigned)(offset * COLUMNS / (span + 1));
}

/* The first address of a column; of the one behind the last, what follows the strip. */
static uint64_t column_start(const struct strip *strip, unsigned column)
{
    uint64_t span = strip->last - strip->first;

    if (span >> 48) /* as exact as anybody can see */
        return column == COLUMNS ? strip->last + 1 : strip->first + span / COLUMNS * column;
    return strip->first + (column * (span + 1) + COLUMNS - 1) / COLUMNS;
}

static int by_section(const void *left, const void *right)
{
    const struct page_mark *a = left, *b = right;
    int order = strcmp(a->section, b->section);

    return order ? order : (a->address > b->address) - (a->address < b->address);
}

/* The section's own bounds, if the image has it and all marks are in it; else the marks'. */
static void bound_strip(struct strip *strip, const struct patched_image *code)
{
    for (size_t i = 0; code && i < code->image.section_count; i++) {
        const struct image_section *section = &code->image.sections[i];

        if (strcmp(section->name, strip->section) == 0 && section->size &&
            section->address <= strip->first && strip->last - section->address < section->size) {
            strip->first = section->address;
            strip->last = section->address + section->size - 1;
            return;
        }
    }
}

static void fill_strip(struct strip *strip, const struct page_mark *marks, size_t count,
                       const struct page_side *side)
{
    memset(strip, 0, sizeof *strip);
    strip->section = marks[0].section;
    strip->first = marks[0].address;
    strip->last = marks[count - 1].address;
    strip->sites = count;
    bound_strip(strip, side->code);
    for (size_t i = 0; i < count; i++) {
        unsigned column = column_of(strip, marks[i].address);

        if (!strip->site[column])
            strip->site[column] = marks[i].address;
        strip->count[column][marks[i].kind]++;
    }
    for (size_t i = 0; side->view && i < side->view->count; i++) {
        uint64_t routine = side->view->sites[i].routine;

        if (routine && routine >= strip->first && routine <= strip->last)
            strip->routines[column_of(strip, routine)]++;
    }
}

static unsigned total(const struct strip *strip, unsigned column)
{
    unsigned sum = 0;

    for (unsigned kind = 0; kind < KINDS; kind++)
        sum += strip->count[column][kind];
    return sum;
}

/* One column: a link to its first site; the script makes it a filter for the range. */
static void put_column(struct page *page, const struct strip *strip, unsigned column,
                       unsigned highest, const struct page_kind *kinds, unsigned kind_count)
{
    uint64_t low = column_start(strip, column), high = column_start(strip, column + 1) - 1;
    double bottom = HEIGHT, scale = (double)HEIGHT / highest;

    fprintf(page->out,
            "<a href=\"#s-%" PRIx64 "\" tabindex=-1 data-range=\"%" PRIx64 "-%" PRIx64
            "\"><title>0x%" PRIx64 "…:",
            strip->site[column], low, high, low);
    for (unsigned kind = 0; kind < kind_count; kind++)
        if (strip->count[column][kind])
            fprintf(page->out, " %u %s", strip->count[column][kind], kinds[kind].name);
    fprintf(page->out, "</title><rect class=back x=%u y=0 width=1 height=%d />", column, HEIGHT);
    for (unsigned kind = 0; kind < kind_count; kind++) {
        double height = strip->count[column][kind] * scale;

        if (!strip->count[column][kind])
            continue;
        if (height < 3) /* one site must be seen beside a hundred */
            height = 3;
        bottom -= height;
        fprintf(page->out, "<rect class=k-%s x=%u y=%.1f width=.92 height=%.1f />",
                kinds[kind].name, column, bottom < 0 ? 0 : bottom, height);
    }
    fputs("</a>", page->out);
}

static void put_strip(struct page *page, const struct strip *strip, const struct page_kind *kinds,
                      unsigned kind_count)
{
    unsigned highest = 1;

    for (unsigned i = 0; i < COLUMNS; i++)
        if (total(strip, i) > highest)
            highest = total(strip, i);
    fputs("<div class=strip><a class=name href=\"#sites\" data-facet=section data-value=\"",
          page->out);
    page_text(page, strip->section);
    fputs("\">", page->out);
    page_text(page, *strip->section ? strip->section : "(none)");
    fputs("</a><span class=size>", page->out);
    page_count(page, strip->sites);
    fprintf(page->out, " site%s</span>", strip->sites == 1 ? "" : "s");
    fprintf(page->out, "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=none aria-hidden=true>",
            COLUMNS, HEIGHT + 7);
    fprintf(page->out, "<rect class=ground x=0 y=%d width=%d height=1 />", HEIGHT, COLUMNS);
    for (unsigned i = 0; i < COLUMNS; i++) {
        if (total(strip, i))
            put_column(page, strip, i, highest, kinds, kind_count);
        if (strip->routines[i])
            fprintf(page->out, "<rect class=k-routine x=%u y=%d width=1 height=4 />", i,
                    HEIGHT + 3);
    }
    fprintf(page->out,
            "</svg><span class=ends><span>0x%" PRIx64 "</span><span>0x%" PRIx64
            "</span></span></div>\n",
            strip->first, strip->last);
}

static void put_legend(struct page *page, const struct page_mark *marks, size_t count,
                       const struct page_kind *kinds, unsigned kind_count, bool routines)
{
    fputs("<ul class=legend>", page->out);
    for (unsigned kind = 0; kind < kind_count; kind++) {
        size_t sites = 0;

        for (size_t i = 0; i < count; i++)
            sites += marks[i].kind == kind;
        if (!sites)
            continue;
        fprintf(page->out,
                "<li><a href=\"#sites\" data-facet=%s data-value=%s><b class=k-%s></b>%s <small>",
                kinds[kind].facet, kinds[kind].name, kinds[kind].name, kinds[kind].name);
        page_count(page, sites);
        fputs("</small></a></li>", page->out);
    }
    if (routines)
        fputs("<li><b class=k-routine></b>where routines are</li>", page->out);
    fputs("</ul>\n", page->out);
}

struct group { /* the marks of one section */
    const struct page_mark *marks;
    size_t count;
};

static int by_place(const void *left, const void *right)
{
    uint64_t a = ((const struct group *)left)->marks->address;
    uint64_t b = ((const struct group *)right)->marks->address;

    return (a > b) - (a < b);
}

/* Cuts marks, sorted by section, into groups, and sorts these by where they begin. */
static unsigned group(const struct page_mark *marks, size_t count, struct group groups[SECTIONS])
{
    unsigned found = 0;

    for (size_t i = 0, next; i < count && found < SECTIONS; i = next) {
        for (next = i + 1; next < count && strcmp(marks[i].section, marks[next].section) == 0;)
            next++;
        groups[found++] = (struct group){marks + i, next - i};
    }
    qsort(groups, found, sizeof *groups, by_place);
    return found;
}

bool page_map(struct page *page, const struct page_side *side, const struct page_mark *marks,
              size_t count, const struct page_kind *kinds, unsigned kind_count)
{
    struct page_mark *sorted = malloc((count + 1) * sizeof *sorted);
    struct strip *strip = malloc(sizeof *strip);
    struct group groups[SECTIONS];

    if (sorted && strip) {
        memcpy(sorted, marks, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, by_section);
        unsigned strips = group(sorted, count, groups);

        fputs("<section id=map><h2>Where</h2>\n", page->out);
        put_legend(page, marks, count, kinds, kind_count, side->code && side->view);
        for (unsigned i = 0; i < strips; i++) {
            fill_strip(strip, groups[i].marks, groups[i].count, side);
            put_strip(page, strip, kinds, kind_count);
        }
        fputs("</section>\n", page->out);
    }
    free(strip);
    free(sorted);
    return sorted && strip;
}
