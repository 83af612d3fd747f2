/* SPDX-License-Identifier: MIT */
/* `patchc scan`: which instructions of an image the list names. */
#ifndef PATCHC_SCAN_H
#define PATCHC_SCAN_H

#include <stdio.h>

#include "patchc/build.h"

/* Prints the sites of a build_scan() as a table, or as JSON (the report's `summary` and `sites`).
 */
int scan_print(const struct build_result *result, bool json, FILE *out, struct error *err);

#endif
