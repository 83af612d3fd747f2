/* SPDX-License-Identifier: MIT */
/* The IO blocks of a report or an image, as `patchc inspect` shows them. A report is a file like
 * any other: whatever in it is not what it should be shows as nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/terminal.h"
#include "patchc/inspect_view.h"

#define SHOWN 12 /* blocks */

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void print_ports(const json_t *block, FILE *out)
{
    const json_t *value;
    size_t i;
    json_array_foreach(json_object_get(block, "ports"), i, value)
    {
        fprintf(out, "%s0x%llx", i ? " " : "", (long long)json_integer_value(value));
    }
    fputc('\n', out);
}

static void print_block(const json_t *block, FILE *out)
{
    char place[64] = "", address[32] = "";
    const char *text = json_string_value(json_object_get(block, "symbol"));
    const char *where = json_string_value(json_object_get(block, "address"));
    if (where)
        terminal_copy(address, sizeof address, where);
    if (text)
        terminal_copy(place, sizeof place, text);
    fprintf(out, "  %-18s %-40.40s %4lld %6lld  ", address, place, number(block, "io_count"),
            number(block, "size"));
    print_ports(block, out);
}

static int compare_blocks(const void *a, const void *b)
{
    long long x = number(*(json_t *const *)a, "io_count"),
              y = number(*(json_t *const *)b, "io_count");
    return x != y ? (x > y ? -1 : 1) : 0;
}

void inspect_blocks_print(const struct view *view, FILE *out)
{
    struct palette colour = terminal_palette(out);
    const json_t *list = json_object_get(view->root, "io_blocks");
    size_t count = json_array_size(list);
    json_t **sorted = count ? malloc(count * sizeof(json_t *)) : NULL;
    if (!sorted)
        return;
    for (size_t i = 0; i < count; i++)
        sorted[i] = json_array_get(list, i);
    qsort(sorted, count, sizeof *sorted, compare_blocks);
    fprintf(out, "\n%sIO BLOCKS%s  %zu\n  %-18s %-40s %4s %6s  %s\n", colour.heading, colour.plain,
            count, "ADDRESS", "SYMBOL (MOST IO)", "IO", "BYTES", "PORTS");
    for (size_t i = 0; i < count && i < SHOWN; i++)
        print_block(sorted[i], out);
    free(sorted);
}
