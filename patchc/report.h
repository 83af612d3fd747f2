/* SPDX-License-Identifier: MIT */
/* The JSON report (patchc-report(5)). */
#ifndef PATCHC_REPORT_H
#define PATCHC_REPORT_H

#include "patchc/build.h"

/* Writes the report of a build to `path`, atomically. The same build gives the same bytes: no
 * times, no paths. 0, or -1 with *err set. */
int report_write(const struct build_result *result, const char *path, struct error *err);

/* The same as text: *text is malloc'd, *size bytes long, without a NUL. */
int report_format(const struct build_result *result, char **text, size_t *size, struct error *err);

/* What `patchc scan --json` prints: the found sites, nothing planned. As report_format(). */
int report_format_scan(const struct build_result *result, char **text, size_t *size,
                       struct error *err);

#endif
