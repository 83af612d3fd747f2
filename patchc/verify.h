/* SPDX-License-Identifier: MIT */
/* `patchc verify`: an independent reader of a patched image.
 *
 * It looks at the two images only, decodes the result anew and shares no code with the planning of
 * `patchc build`: what it believes of the patch table is only where to look. */
#ifndef PATCHC_VERIFY_H
#define PATCHC_VERIFY_H

#include <stdio.h>

#include "image/error.h"

/* Verifies that `patched` is `original`, patched, and nothing else. Prints a summary line to `out`,
 * or the mismatches after the first (a bounded number of them). Returns 0, or -1 with *err set:
 * EXIT_CHECK and the first mismatch; EXIT_INPUT or EXIT_IO if the original cannot be used. */
int verify_run(const char *original, const char *patched, FILE *out, struct error *err);

#endif
