/* Files appear whole or not at all: temporary file beside the target, fsync, rename. */
#ifndef IMAGE_OUTPUT_H
#define IMAGE_OUTPUT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "image/error.h"

/* Writes the concatenation of `pieces` to `path` with permission bits `mode`, atomically.
 * Returns 0, or -1 with *err set (EXIT_IO) and nothing left behind. A symbolic link is followed;
 * a device or FIFO is written to as it is. */
int output_write(const char *path, const struct iovec *pieces, size_t count, mode_t mode,
                 struct error *err);

/* Would output_write find a place? For who writes only at the end of something long. Writes nothing;
 * a disk that is full is not found. Returns as output_write. */
int output_check(const char *path, struct error *err);

#endif
