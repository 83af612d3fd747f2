/* SPDX-License-Identifier: MIT */
/* One site of the report. */
#ifndef PATCHC_REPORT_SITE_H
#define PATCHC_REPORT_SITE_H

#include "image/image.h"
#include "patchc/disassembly.h"
#include "patchc/json_text.h"
#include "patchc/site.h"

/* Adds a site as a JSON object on one line. With `planned` all keys of patchc-report(5) are there,
 * null where they say nothing; else what a scan knows. */
void report_site(struct json_text *text, const struct disassembler *disassembler,
                 const struct image *image, const struct site *site, bool planned);

#endif
