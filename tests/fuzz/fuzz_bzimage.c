/* SPDX-License-Identifier: MIT */
/* Unpacks any bytes as the payload of a bzImage, and any bytes as a bzImage. The first byte of the
 * input says which. */
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "tests/unit/tiny_bzimage.h"
#include "tests/unit/tiny_elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image image;
    struct error err = {0};
    if (!size)
        return 0;
    uint8_t *bytes = NULL;
    size_t bytes_size = size - 1;
    if (data[0] & 1) {
        bytes = bzimage_build(data + 1, size - 1, &bytes_size);
    } else {
        bytes = malloc(size);
        memcpy(bytes, data + 1, size - 1);
    }
    if (!image_from_memory("fuzz", bytes, bytes_size, &image, &err)) {
        check_image(&image);
        image_close(&image);
    } else if (!is_one_line(&err)) {
        abort();
    }
    free(bytes);
    return 0;
}
