/* SPDX-License-Identifier: MIT */
/* Symbols in order of address, and by name through a hash table.
 * A scan asks for the symbol at an address thousands of times. */
#include "image/reader.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int compare(const void *a, const void *b)
{
    const struct image_symbol *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->type > y->type) - (x->type < y->type);
}

/* The slot that holds `name`, or the empty slot where it belongs. */
static size_t slot_of(const struct image *image, const struct image_private *p, const char *name)
{
    size_t slot = XXH3_64bits(name, strlen(name)) & p->symbol_mask;
    while (p->symbol_slots[slot] && strcmp(image->symbols[p->symbol_slots[slot] - 1].name, name))
        slot = (slot + 1) & p->symbol_mask;
    return slot;
}

int symbols_index(struct image *image, struct error *err)
{
    struct image_private *p = image_private(image);
    bool sorted = true;
    for (size_t i = 1; i < image->symbol_count && sorted; i++)
        sorted = compare(&image->symbols[i - 1], &image->symbols[i]) <= 0;
    if (!sorted)
        qsort(image->symbols, image->symbol_count, sizeof *image->symbols, compare);
    if (!image->symbol_count)
        return 0;
    size_t slots = 16;
    while (slots < image->symbol_count * 2)
        slots *= 2;
    p->symbol_mask = slots - 1;
    p->symbol_slots = calloc(slots, sizeof *p->symbol_slots);
    if (!p->symbol_slots)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    for (size_t i = 0; i < image->symbol_count; i++) {
        size_t slot = slot_of(image, p, image->symbols[i].name);
        if (!p->symbol_slots[slot]) /* a name that occurs twice: the lowest address stays */
            p->symbol_slots[slot] = i + 1;
    }
    return 0;
}

const struct image_symbol *image_symbol_named(const struct image *image, const char *name)
{
    const struct image_private *p = image_private(image);
    if (!p->symbol_slots)
        return NULL;
    size_t index = p->symbol_slots[slot_of(image, p, name)];
    return index ? &image->symbols[index - 1] : NULL;
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && !strcmp(name + length - tail, end);
}

/* Lower is better: a reader looks for the function, not for a label that shares its address. */
static unsigned rank(const struct image_symbol *symbol)
{
    unsigned worse = 0;
    if (!strchr("tTwW", symbol->type))
        worse += symbol->type == 'a' || symbol->type == 'A' ? 32 : 16;
    if (!symbol->function)
        worse += 8;
    if (ends_with(symbol->name, "_start") || ends_with(symbol->name, "_end"))
        worse += 4; /* a linker script's bounds of a range */
    if (symbol->name[0] == '_')
        worse += symbol->name[1] == '_' ? 2 : 1;
    return worse;
}

/* Symbols before this address belong to another section. */
static bool lowest_in_section(const struct image *image, uint64_t address, uint64_t *lowest)
{
    const struct image_section *section = image_section_at(image, address);
    if (section) {
        *lowest = section->address;
        return true;
    }
    if (image->section_count)
        return false;
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *segment = &image->segments[i];
        if (segment->mem_size && address - segment->vaddr < segment->mem_size) {
            *lowest = segment->vaddr;
            return true;
        }
    }
    return false;
}

const struct image_symbol *image_symbol_at(const struct image *image, uint64_t address,
                                           uint64_t *offset)
{
    uint64_t lowest;
    size_t low = 0, high = image->symbol_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image->symbols[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || !lowest_in_section(image, address, &lowest) ||
        image->symbols[low - 1].address < lowest)
        return NULL;
    const struct image_symbol *best = &image->symbols[low - 1];
    for (size_t i = low - 1; i-- && image->symbols[i].address == best->address;)
        if (rank(&image->symbols[i]) <= rank(best))
            best = &image->symbols[i];
    if (offset)
        *offset = address - best->address;
    return best;
}
