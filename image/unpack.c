/* SPDX-License-Identifier: MIT */
/* Unpacking a kernel payload. One row per format, recognised by its magic; the usual libraries do
 * the work.
 *
 * The last four bytes of a payload are its unpacked length: gzip ends that way, and the kernel
 * build appends the word to the other formats. So the output's size is known, and limited, before
 * any of it is unpacked: a stream that gives less or more is damaged. */
#include "image/reader.h"

#include <bzlib.h>
#include <elf.h>
#include <inttypes.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#define HUGE_PAGE    ((size_t)2 << 20)
#define XZ_MEMORY    ((uint64_t)512 << 20) /* bytes for the dictionary; kernels use 32 to 128 MiB */
#define LZ4_BLOCK    ((size_t)8 << 20)     /* unpacked bytes of a block of the legacy format */
#define LZO_CHECKSUM 4u
#define RATIO_LIMIT  1000u             /* no kernel packs better: deflate cannot, zeros apart */
#define RATIO_GRACE  ((size_t)1 << 20) /* bytes that any payload may unpack to */

struct input {
    const uint8_t *at, *end;
};

struct output {
    uint8_t *at, *end;
};

static size_t left(const struct input *in)
{
    return in->end - in->at;
}

static size_t room(const struct output *out)
{
    return out->end - out->at;
}

static bool unpack_gzip(struct input *in, struct output *out)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)in->at,
                       .avail_in = left(in),
                       .next_out = out->at,
                       .avail_out = room(out)};
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) /* 16: with gzip header and CRC */
        return false;
    int result = inflate(&stream, Z_FINISH);
    out->at = stream.next_out;
    inflateEnd(&stream);
    return result == Z_STREAM_END;
}

static bool unpack_bzip2(struct input *in, struct output *out)
{
    unsigned size = room(out);
    int result = BZ2_bzBuffToBuffDecompress((char *)out->at, &size, (char *)(uintptr_t)in->at,
                                            left(in), 0, 0);
    out->at += result == BZ_OK ? size : 0;
    return result == BZ_OK;
}

/* .xz with the x86 branch filter, and the older .lzma: the stream's decoder has been set up. */
static bool run_lzma(lzma_stream *stream, struct input *in, struct output *out)
{
    stream->next_in = in->at;
    stream->avail_in = left(in);
    stream->next_out = out->at;
    stream->avail_out = room(out);
    lzma_ret result;
    do
        result = lzma_code(stream, LZMA_FINISH);
    while (result == LZMA_OK);
    out->at = stream->next_out;
    lzma_end(stream);
    return result == LZMA_STREAM_END;
}

static bool unpack_xz(struct input *in, struct output *out)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    return lzma_stream_decoder(&stream, XZ_MEMORY, 0) == LZMA_OK && run_lzma(&stream, in, out);
}

static bool unpack_lzma(struct input *in, struct output *out)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    return lzma_alone_decoder(&stream, XZ_MEMORY) == LZMA_OK && run_lzma(&stream, in, out);
}

static bool unpack_zstd(struct input *in, struct output *out)
{
    size_t size = ZSTD_decompress(out->at, room(out), in->at, left(in));
    out->at += ZSTD_isError(size) ? 0 : size;
    return !ZSTD_isError(size);
}

static uint32_t little(const uint8_t *at)
{
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The legacy frame: magic, then blocks, each preceded by its packed size. */
static bool unpack_lz4(struct input *in, struct output *out)
{
    in->at += 4;
    while (left(in)) {
        if (left(in) < 4)
            return false;
        uint32_t size = little(in->at);
        in->at += 4;
        if (!size || size > left(in))
            return false;
        int got = LZ4_decompress_safe((const char *)in->at, (char *)out->at, size,
                                      room(out) < LZ4_BLOCK ? room(out) : LZ4_BLOCK);
        if (got < 0)
            return false;
        in->at += size;
        out->at += got;
    }
    return true;
}

/* The lzop container: big-endian fields. */
enum {
    LZOP_ADLER32_UNPACKED = 0x1,
    LZOP_ADLER32_PACKED = 0x2,
    LZOP_EXTRA_FIELD = 0x40,
    LZOP_CRC32_UNPACKED = 0x100,
    LZOP_CRC32_PACKED = 0x200,
    LZOP_FILTER = 0x800,
};

static uint32_t take(struct input *in, unsigned bytes, bool *ok)
{
    uint32_t value = 0;
    if (left(in) < bytes) {
        *ok = false;
        return 0;
    }
    while (bytes--)
        value = value << 8 | *in->at++;
    return value;
}

static void skip(struct input *in, size_t bytes, bool *ok)
{
    if (left(in) < bytes)
        *ok = false;
    else
        in->at += bytes;
}

static bool lzop_header(struct input *in, uint32_t *flags)
{
    bool ok = true;
    skip(in, 9, &ok); /* magic */
    uint32_t version = take(in, 2, &ok);
    skip(in, 2, &ok); /* library version */
    if (version >= 0x940)
        skip(in, 2, &ok); /* version needed */
    uint32_t method = take(in, 1, &ok);
    if (version >= 0x940)
        skip(in, 1, &ok); /* level */
    *flags = take(in, 4, &ok);
    if (*flags & LZOP_FILTER)
        return false;
    skip(in, 8, &ok); /* mode, time */
    if (version >= 0x940)
        skip(in, 4, &ok);            /* high word of the time */
    skip(in, take(in, 1, &ok), &ok); /* file name */
    skip(in, LZO_CHECKSUM, &ok);
    if (*flags & LZOP_EXTRA_FIELD) {
        skip(in, take(in, 4, &ok), &ok);
        skip(in, LZO_CHECKSUM, &ok);
    }
    return ok && method >= 1 && method <= 3; /* all of them LZO1X */
}

/* One block of `packed` bytes that unpack to `size`. */
static bool lzop_block(const uint8_t *at, size_t packed, struct output *out, size_t size)
{
    if (packed == size) {
        memcpy(out->at, at, size);
    } else {
        lzo_uint got = size;
        if (lzo1x_decompress_safe(at, packed, out->at, &got, NULL) != LZO_E_OK || got != size)
            return false;
    }
    out->at += size;
    return true;
}

static bool unpack_lzo(struct input *in, struct output *out)
{
    uint32_t flags;
    bool ok = true;
    if (lzo_init() != LZO_E_OK || !lzop_header(in, &flags))
        return false;
    uint32_t size;
    while ((size = take(in, 4, &ok))) {
        uint32_t packed = take(in, 4, &ok), adler = 0;
        bool checked = flags & LZOP_ADLER32_UNPACKED;
        if (checked)
            adler = take(in, 4, &ok);
        if (flags & LZOP_CRC32_UNPACKED)
            skip(in, LZO_CHECKSUM, &ok);
        if (flags & LZOP_ADLER32_PACKED && packed < size)
            skip(in, LZO_CHECKSUM, &ok);
        if (flags & LZOP_CRC32_PACKED && packed < size)
            skip(in, LZO_CHECKSUM, &ok);
        if (!ok || packed > size || packed > left(in) || size > room(out))
            return false;
        uint8_t *start = out->at;
        if (!lzop_block(in->at, packed, out, size) ||
            (checked && lzo_adler32(lzo_adler32(0, NULL, 0), start, size) != adler))
            return false;
        in->at += packed;
    }
    return ok;
}

static bool unpack_none(struct input *in, struct output *out)
{
    if (left(in) > room(out))
        return false;
    memcpy(out->at, in->at, left(in));
    out->at += left(in);
    return true;
}

static const struct format {
    const char *name;
    uint8_t magic[9];
    uint8_t magic_size;
    enum { LENGTH_INSIDE, LENGTH_APPENDED, LENGTH_NONE } length; /* the last word */
    bool (*unpack)(struct input *in, struct output *out);
} formats[] = {
    {"gzip", {0x1f, 0x8b}, 2, LENGTH_INSIDE, unpack_gzip},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, LENGTH_APPENDED, unpack_xz},
    {"lzma", {0x5d, 0, 0}, 3, LENGTH_APPENDED, unpack_lzma},
    {"lz4", {0x02, 0x21, 0x4c, 0x18}, 4, LENGTH_APPENDED, unpack_lz4},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, LENGTH_APPENDED, unpack_zstd},
    {"bzip2", {'B', 'Z', 'h'}, 3, LENGTH_APPENDED, unpack_bzip2},
    {"lzo", {0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1a, '\n'}, 9, LENGTH_APPENDED, unpack_lzo},
    {"uncompressed", {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3}, 4, LENGTH_NONE, unpack_none},
};

static const struct format *format_of(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (size >= formats[i].magic_size + 4u &&
            !memcmp(bytes, formats[i].magic, formats[i].magic_size))
            return &formats[i];
    return NULL;
}

uint8_t *allocate_large(size_t size)
{
    void *memory;
    if (posix_memalign(&memory, HUGE_PAGE, size))
        return NULL;
    madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

int unpack(const char *name, uint64_t offset, const uint8_t *bytes, size_t size, uint8_t **out,
           size_t *out_size, struct error *err)
{
    const struct format *format = format_of(bytes, size);
    if (!format)
        return fail(err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64
                    ": the payload's compression is unknown; give the vmlinux file",
                    name, offset);
    size_t length = format->length == LENGTH_NONE ? size : little(bytes + size - 4);
    size_t limit =
        size < UNPACK_LIMIT / RATIO_LIMIT ? RATIO_GRACE + size * RATIO_LIMIT : UNPACK_LIMIT;
    if (limit > UNPACK_LIMIT)
        limit = UNPACK_LIMIT;
    if (length > limit)
        return fail(err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64
                    ": the payload of %zu bytes claims to unpack to %zu (the "
                    "limit is %zu); the file is damaged: get it again",
                    name, offset + size - 4, size, length, limit);
    /* one byte more, so that a stream that holds more than it should shows */
    uint8_t *memory = allocate_large(length + 1);
    if (!memory)
        return fail(err, EXIT_IO, "%s: out of memory", name);
    struct input input = {bytes, bytes + size - (format->length == LENGTH_APPENDED ? 4 : 0)};
    struct output output = {memory, memory + length + 1};
    if (!format->unpack(&input, &output) || output.at != memory + length) {
        free(memory);
        return fail(err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64
                    ": the %s payload (%zu bytes, unpacked %zu) is damaged; get the file again",
                    name, offset, format->name, size, length);
    }
    *out = memory;
    *out_size = length;
    return 0;
}
