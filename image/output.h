/* SPDX-License-Identifier: MIT */
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

/* The same in parts, for who writes over a long time. */
struct output;
/* Finds a place and opens it, with permission bits `mode`. NULL with *err set (EXIT_IO). */
struct output *output_open(const char *path, mode_t mode, struct error *err);
/* Appends. 0, or -1 with *err set (EXIT_IO): discard it then. */
int output_append(struct output *output, const struct iovec *pieces, size_t count,
                  struct error *err);
/* The file appears, and `output` is freed. 0, or -1 with *err set (EXIT_IO): nothing is left behind then. */
int output_commit(struct output *output, struct error *err);
/* For one of two processes that share it: closed and freed here, the other one commits or discards. */
void output_leave(struct output *output);
/* Nothing appears; `output` is freed. */
void output_discard(struct output *output);

#endif
