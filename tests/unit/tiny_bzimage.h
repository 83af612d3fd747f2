/* SPDX-License-Identifier: MIT */
/* Linux bzImages around any payload, built in memory with the usual compression libraries. */
#ifndef TESTS_UNIT_TINY_BZIMAGE_H
#define TESTS_UNIT_TINY_BZIMAGE_H

#include <stddef.h>
#include <stdint.h>

enum packing {
    PACK_GZIP,
    PACK_XZ,
    PACK_LZMA,
    PACK_LZ4,
    PACK_ZSTD,
    PACK_BZIP2,
    PACK_LZO,
    PACK_NONE,
    PACKINGS
};

extern const char *const packing_names[PACKINGS];

enum { BZIMAGE_SECTORS = 2, BZIMAGE_PAYLOAD = 0x40 }; /* as built: where the payload begins */
enum { BZIMAGE_PAYLOAD_FILE = (BZIMAGE_SECTORS + 1) * 512 + BZIMAGE_PAYLOAD };

/* Packs as the kernel build does, the appended length included. malloc'd. */
uint8_t *pack(enum packing packing, const uint8_t *bytes, size_t size, size_t *packed_size);

/* A bzImage (boot protocol 2.15) with this payload and some code behind it. malloc'd. */
uint8_t *bzimage_build(const uint8_t *payload, size_t payload_size, size_t *size);

#endif
