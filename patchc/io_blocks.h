/* SPDX-License-Identifier: MIT */
/* The IO-block stage: the table that a patched image carries (B9). */
#ifndef PATCHC_IO_BLOCKS_H
#define PATCHC_IO_BLOCKS_H

#include "patchc/build.h"
#include "patchc/emit.h"

/* Before windows are planned: sites that the list leaves to an IO block (action=block), and that
 * one covers, get STATUS_BLOCK; those that none covers are patched like the others. plan's
 * borrowed fields must be set. 0, or -1 with *err set when memory runs out. */
int io_blocks_leave(struct plan *plan, const struct build_result *result, struct error *err);

/* With all bytes of the output written: finds the blocks at their IO instructions, wherever
 * patching put those. Fills result->io_blocks and result->io_table; sites with STATUS_BLOCK that
 * none of them covers any more become left. 0, or -1 with *err set when memory runs out. */
int io_blocks_find(const struct plan *plan, const struct output_bytes *out,
                   struct build_result *result, struct error *err);

#endif
