/* SPDX-License-Identifier: MIT */
/* `patchc inspect`: reads a patched image or a report and tells what was done. */
#ifndef PATCHC_INSPECT_H
#define PATCHC_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "image/error.h"

struct inspect_options {
    const char *path; /* a patched image or a report */
    const char *site; /* NULL: the summary; else "0x…" or "symbol+0x…" */
    const char *html; /* NULL, or the page to write */
    const char *diff; /* NULL, or the other report */
    bool json;
};

/* 0, or -1 with *err set (EXIT_USAGE; EXIT_INPUT: neither a patched image nor a report; EXIT_CHECK: no such
 * site). */
int inspect_run(const struct inspect_options *options, FILE *out, struct error *err);

#endif
