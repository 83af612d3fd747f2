/* SPDX-License-Identifier: MIT */
/* One IO block of the report. */
#ifndef PATCHC_REPORT_BLOCKS_H
#define PATCHC_REPORT_BLOCKS_H

#include "image/image.h"
#include "ioblock/ioblock.h"
#include "patchc/json_text.h"

/* Adds a block as a JSON object on one line (patchc-report(5)). `site`: where its first IO
 * instruction stood in the original, whose symbols `image` has; 0 = unknown. */
void report_block(struct json_text *text, const struct image *image, const struct io_block *block,
                  uint64_t site);

#endif
