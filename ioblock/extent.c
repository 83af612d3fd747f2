/* SPDX-License-Identifier: MIT */
/* The extent: how far a scan may look (B6). */
#include <stdlib.h>
#include <string.h>

#include "ioblock/scan.h"

/* From one IO instruction to the next on the shortest path. Measured on Debian's boot with its log on
 * the serial line: with 48, seven times as many events as with 96. */
#define GAP_DEFAULT 96u

static struct io_extent extent_of(enum io_extent_kind kind, uint32_t bytes)
{
    return (struct io_extent){
        .kind = kind, .bytes = bytes, .instructions = IO_BLOCK_INSNS_MAX, .gap = GAP_DEFAULT};
}

struct io_extent io_extent_default(void)
{
    return extent_of(IO_EXTENT_ENGINE, IO_BLOCK_BYTES_MAX);
}

bool io_extent_parse(const char *text, struct io_extent *extent)
{
    static const struct {
        const char *name;
        enum io_extent_kind kind;
    } named[] = {{"line", IO_EXTENT_LINE}, {"page", IO_EXTENT_PAGE}, {"engine", IO_EXTENT_ENGINE}};
    for (size_t k = 0; k < sizeof named / sizeof named[0]; k++)
        if (strcmp(text, named[k].name) == 0) {
            *extent = extent_of(named[k].kind, IO_BLOCK_BYTES_MAX);
            return true;
        }
    if (strncmp(text, "bytes:", 6) == 0)
        text += 6;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 4 || text[digits])
        return false;
    unsigned long bytes = strtoul(text, NULL, 10);
    if (bytes == 0 || bytes > IO_BLOCK_BYTES_MAX)
        return false;
    *extent = extent_of(IO_EXTENT_BYTES, (uint32_t)bytes);
    return true;
}
