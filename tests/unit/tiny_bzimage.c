/* SPDX-License-Identifier: MIT */
/* Building bzImages: the compressing side of image/unpack.c. */
#include "tests/unit/tiny_bzimage.h"
#include "tests/unit/tiny_elf.h"

#include <bzlib.h>
#include <lz4hc.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

const char *const packing_names[PACKINGS] = {"gzip", "xz",    "lzma", "lz4",
                                             "zstd", "bzip2", "lzo",  "uncompressed"};

static void must(int good)
{
    if (good)
        return;
    fprintf(stderr, "tiny_bzimage: a compression library failed\n");
    abort();
}

static size_t pack_gzip(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    z_stream stream = {
        .next_in = (Bytef *)(uintptr_t)in, .avail_in = size, .next_out = out, .avail_out = room};
    must(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY) == Z_OK);
    must(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&stream);
    return stream.total_out;
}

/* As scripts/xz_wrap.sh: x86 branch filter, CRC32. */
static size_t pack_xz(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    lzma_options_lzma options;
    must(!lzma_lzma_preset(&options, 1));
    lzma_filter filters[] = {
        {LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    size_t at = 0;
    must(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, in, size, out, &at, room) ==
         LZMA_OK);
    return at;
}

static size_t pack_lzma(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    lzma_options_lzma options;
    lzma_stream stream = LZMA_STREAM_INIT;
    must(!lzma_lzma_preset(&options, 1) && lzma_alone_encoder(&stream, &options) == LZMA_OK);
    stream.next_in = in;
    stream.avail_in = size;
    stream.next_out = out;
    stream.avail_out = room;
    must(lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
    lzma_end(&stream);
    return room - stream.avail_out;
}

static size_t pack_lz4(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    size_t at = 4, block = 8 << 20;
    tiny_put(out, 0, 4, 0x184c2102);
    for (size_t from = 0; from < size; from += block) {
        size_t part = size - from < block ? size - from : block;
        int got =
            LZ4_compress_HC((const char *)in + from, (char *)out + at + 4, part, room - at - 4, 3);
        must(got > 0);
        tiny_put(out, at, 4, got);
        at += 4 + got;
    }
    return at;
}

static size_t pack_zstd(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    size_t got = ZSTD_compress(out, room, in, size, 3);
    must(!ZSTD_isError(got));
    return got;
}

static size_t pack_bzip2(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    unsigned got = room;
    must(BZ2_bzBuffToBuffCompress((char *)out, &got, (char *)(uintptr_t)in, size, 9, 0, 0) ==
         BZ_OK);
    return got;
}

static size_t put_big(uint8_t *out, size_t at, unsigned bytes, uint32_t value)
{
    while (bytes--)
        out[at++] = value >> 8 * bytes;
    return at;
}

static size_t pack_lzo(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    static const uint8_t magic[] = {0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1a, '\n'};
    static uint8_t work[LZO1X_1_MEM_COMPRESS] __attribute__((aligned(16)));
    size_t at = sizeof magic, block = 256 << 10;
    must(lzo_init() == LZO_E_OK && room > size + size / 16 + 4096);
    memcpy(out, magic, sizeof magic);
    at = put_big(out, at, 2, 0x1040); /* version */
    at = put_big(out, at, 2, 0x20a0);
    at = put_big(out, at, 2, 0x0940); /* version needed */
    at = put_big(out, at, 1, 1);      /* LZO1X */
    at = put_big(out, at, 1, 5);
    at = put_big(out, at, 4, 1); /* each block has the Adler-32 of its unpacked bytes */
    at = put_big(out, at, 4, 0100644);
    at = put_big(out, at, 4, 0);
    at = put_big(out, at, 4, 0);
    at = put_big(out, at, 1, 4);
    memcpy(out + at, "vmlx", 4);
    at += 4;
    at = put_big(out, at, 4, lzo_adler32(1, out + sizeof magic, at - sizeof magic));
    for (size_t from = 0; from < size; from += block) {
        size_t part = size - from < block ? size - from : block;
        uint8_t *data = out + at + 12;
        lzo_uint got = 0;
        must(lzo1x_1_compress(in + from, part, data, &got, work) == LZO_E_OK);
        if (got >= part) {
            memcpy(data, in + from, part);
            got = part;
        }
        at = put_big(out, at, 4, part);
        at = put_big(out, at, 4, got);
        at = put_big(out, at, 4, lzo_adler32(1, in + from, part)) + got;
    }
    return put_big(out, at, 4, 0);
}

static size_t pack_none(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    must(size <= room);
    memcpy(out, in, size);
    return size;
}

uint8_t *pack(enum packing packing, const uint8_t *bytes, size_t size, size_t *packed_size)
{
    static size_t (*const packers[PACKINGS])(const uint8_t *, size_t, uint8_t *, size_t) = {
        pack_gzip, pack_xz, pack_lzma, pack_lz4, pack_zstd, pack_bzip2, pack_lzo, pack_none};
    size_t room = size + size / 8 + 16384;
    uint8_t *out = malloc(room + 4);
    must(out != NULL);
    *packed_size = packers[packing](bytes, size, out, room);
    if (packing != PACK_GZIP && packing != PACK_NONE) {
        tiny_put(out, *packed_size, 4, size);
        *packed_size += 4;
    }
    return out;
}

uint8_t *bzimage_build(const uint8_t *payload, size_t payload_size, size_t *size)
{
    *size = BZIMAGE_PAYLOAD_FILE + payload_size + 64;
    uint8_t *image = malloc(*size);
    must(image != NULL);
    memset(image, 0x90, *size);
    memset(image, 0, BZIMAGE_PAYLOAD_FILE);
    image[0x1f1] = BZIMAGE_SECTORS;
    tiny_put(image, 0x1fe, 2, 0xaa55);
    memcpy(image + 0x202, "HdrS", 4);
    tiny_put(image, 0x206, 2, 0x020f);
    tiny_put(image, 0x248, 4, BZIMAGE_PAYLOAD);
    tiny_put(image, 0x24c, 4, payload_size);
    memcpy(image + BZIMAGE_PAYLOAD_FILE, payload, payload_size);
    return image;
}
