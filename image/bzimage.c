/* SPDX-License-Identifier: MIT */
/* Linux bzImage: where the compressed kernel stands in it.
 *
 * The setup header (Documentation/arch/x86/boot.rst) has named the payload since protocol 2.08:
 * its offset from the start of the protected-mode code, and its length. */
#include "image/reader.h"

#include <inttypes.h>
#include <string.h>

enum {
    SETUP_SECTS = 0x1f1, /* 512-byte sectors of real-mode code after the first */
    BOOT_FLAG = 0x1fe,
    HEADER_MAGIC = 0x202,
    VERSION = 0x206,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24c,
    HEADER_END = 0x250,
    VERSION_WITH_PAYLOAD = 0x0208,
};

static uint32_t word(const uint8_t *at)
{
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

bool bzimage_detect(const uint8_t *bytes, size_t size)
{
    return size >= HEADER_END && bytes[BOOT_FLAG] == 0x55 && bytes[BOOT_FLAG + 1] == 0xaa &&
           !memcmp(bytes + HEADER_MAGIC, "HdrS", 4);
}

int bzimage_unpack(const char *name, const uint8_t *bytes, size_t size, uint8_t **out,
                   size_t *out_size, struct error *err)
{
    unsigned version = word(bytes + VERSION) & 0xffff;
    if (version < VERSION_WITH_PAYLOAD)
        return fail(err, EXIT_INPUT,
                    "%s: offset 0x%x: boot protocol %u.%02u does not say where the kernel is "
                    "(2.08 or later does); give the vmlinux file",
                    name, VERSION, version >> 8, version & 0xff);
    unsigned sectors = bytes[SETUP_SECTS] ? bytes[SETUP_SECTS] : 4; /* boot.rst: 0 means 4 */
    uint64_t start = (sectors + 1) * 512u + (uint64_t)word(bytes + PAYLOAD_OFFSET);
    uint64_t length = word(bytes + PAYLOAD_LENGTH);
    if (start > size || length > size - start)
        return fail(err, EXIT_INPUT,
                    "%s: offset 0x%x: the payload (0x%" PRIx64 " bytes at 0x%" PRIx64
                    ") runs past the end of the file (0x%zx bytes); the file is damaged or was cut "
                    "short: get it again",
                    name, PAYLOAD_OFFSET, length, start, size);
    return unpack(name, start, bytes + start, length, out, out_size, err);
}
