/* SPDX-License-Identifier: MIT */
/* What `patchc inspect` looks at: a report, or what a patched image tells about itself in the
 * shape of a report. All of it comes from a file that is not to be trusted: the loader has checked
 * types, vocabularies and addresses, and no string holds control characters. */
#ifndef PATCHC_INSPECT_VIEW_H
#define PATCHC_INSPECT_VIEW_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "image/error.h"
#include "patchc/vocabulary.h"

struct patched_image; /* patchc/inspect_image.h */

struct view_site { /* strings are "" where the file says nothing */
    uint64_t address;
    const char *symbol; /* "native_cpuid+0x12" */
    const char *section;
    const char *bytes;
    const char *instruction;
    enum site_status status;
    const char *form, *form_reason, *tactic, *template_name, *reason;
    const json_t *displaced; /* array of strings, or NULL */
    uint64_t routine;        /* 0: none */
    uint64_t window;
    uint64_t window_size;  /* bytes; 0: none */
    long long slot, index; /* -1: none */
    const json_t *object;  /* the site as it stands in the file */
    char group[32];        /* what it is counted under: "cpuid", "mov to cr3" */
};

struct view {
    char *name;              /* base name of the file */
    json_t *root;            /* what the strings are in */
    struct view_site *sites; /* sorted by address */
    size_t count;
    size_t by_status[STATUSES];
    struct patched_image *patched; /* NULL: a report */
};

/* Opens a patched image or a report. 0, or -1 with *err set. The caller owns *view: view_close().
 */
int view_open(const char *path, struct view *view, struct error *err);
void view_close(struct view *view);

/* Finds the sites that a person means: "0x…" an address in the instruction or its window,
 * "symbol+0x…" one site, "symbol" all of that symbol. Calls `visit` for each; returns how many. */
size_t view_find(const struct view *view, const char *what,
                 void (*visit)(const struct view *view, const struct view_site *site,
                               void *context),
                 void *context);

/* The string of a member of an object of the root ("input", "name"); "" if there is none. */
const char *view_text(const struct view *view, const char *object, const char *member);

/* What a reason means, by its name; "" if it is unknown. */
const char *view_explanation(const char *reason);

/* The symbol of a site without its offset. */
char *view_symbol(const struct view_site *site, char *name, size_t size);

/* inspect_site.c: a site in detail; of a patched image with the code as it was and as it is. */
void inspect_site_print(const struct view *view, const struct view_site *site, FILE *out);

/* inspect_summary.c */
void inspect_summary_print(const struct view *view, FILE *out);
json_t *inspect_summary_json(const struct view *view);

/* inspect_blocks.c */
void inspect_blocks_print(const struct view *view, FILE *out);

/* inspect_diff.c: what became of each site in `after` compared with `before`. False or NULL if
 * memory runs out. */
bool inspect_diff_print(const struct view *before, const struct view *after, FILE *out);
json_t *inspect_diff_json(const struct view *before, const struct view *after);

/* inspect_companion.c: opens the image of a report, or the report of an image, if it stands beside `path`, which is the file that
 * `view` is of. True if there is one; the caller owns it then: view_close(). */
bool view_companion(const char *path, const struct view *view, struct view *companion);

/* inspect_html_write.c: a page that needs no other file, of a report or image, or of two compared (`other` is
 * NULL or a path). 0, or -1 with *err set. */
int inspect_html_write(const char *path, const struct view *view, const char *other,
                       const char *page, struct error *err);

#endif
