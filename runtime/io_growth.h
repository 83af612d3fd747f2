/* SPDX-License-Identifier: MIT */
/* Blocks that grow: ranges joined to a block that was found before. */
#ifndef RUNTIME_IO_GROWTH_H
#define RUNTIME_IO_GROWTH_H

#include "ioblock/scan.h"

/* Adds [address, address + size) to the block's ranges. False (the block is unchanged): it would
 * have too many ranges or bytes, or reach too far. The hash no longer holds. */
bool io_block_join(struct io_block *block, uint64_t address, uint32_t size);

/* Adds all of another block. False: `block` is to be thrown away. */
bool io_block_join_all(struct io_block *block, const struct io_block *other);

/* Whether code at `address` may belong to a block with this key under this policy. */
bool io_extent_holds(const struct io_extent *extent, uint64_t key, uint64_t address);

#endif
