/* One IO block of the report. */
#ifndef PATCHC_REPORT_BLOCKS_H
#define PATCHC_REPORT_BLOCKS_H

#include <jansson.h>

#include "image/image.h"
#include "ioblock/ioblock.h"

/* A block as JSON (patchc-report(5)). `site`: where its first IO instruction stood in the
 * original, whose symbols `image` has; 0 = unknown. *failed is set when memory runs out. */
json_t *report_block(const struct image *image, const struct io_block *block, uint64_t site,
                     bool *failed);

#endif
