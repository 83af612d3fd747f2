/* SPDX-License-Identifier: MIT */
/* Writing the patched image: note, original bytes, composition, atomic output. */
#ifndef PATCHC_WRITE_H
#define PATCHC_WRITE_H

#include "patchc/emit.h"

/* Writes the patched image to `path` and fills result->output_size and output_xxh3. `added` are the
 * words that the 64-bit relocation list gains. */
int write_image(const struct plan *plan, struct output_bytes *out, const uint32_t *added,
                size_t added_count, const char *path, struct build_result *result,
                struct error *err);

#endif
