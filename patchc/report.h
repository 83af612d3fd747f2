/* The JSON report (patchc-report(5)). */
#ifndef PATCHC_REPORT_H
#define PATCHC_REPORT_H

#include "patchc/build.h"

/* Writes the report of a build to `path`, atomically. The same build gives the same bytes: no
 * times, no paths. 0, or -1 with *err set. */
int report_write(const struct build_result *result, const char *path, struct error *err);

#endif
