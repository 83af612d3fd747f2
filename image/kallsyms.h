/* SPDX-License-Identifier: MIT */
/* Names from a stripped Linux image: the kernel's own compressed symbol table (kallsyms). */
#ifndef IMAGE_KALLSYMS_H
#define IMAGE_KALLSYMS_H

#include "image/image.h"

/* Looks for kallsyms in the image's read-only data and appends what it finds to image->symbols
 * (unsorted; image_open sorts). Returns the number of symbols found, 0 if there is no table; -1
 * with *err set only when memory runs out. `storage` receives a block that holds the names and that
 * the caller frees with the image. Never reads outside image->bytes. */
long kallsyms_read(struct image *image, void **storage, struct error *err);

#endif
