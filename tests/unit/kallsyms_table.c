/* SPDX-License-Identifier: MIT */
/* A kallsyms table with a fixed set of tokens: each printable character, and a few pieces of names
 * in the places of characters that names do not use. */
#include "kallsyms_table.h"

#include <string.h>

static const char *const pieces[] = {
    [0x00] = "x86_", [0x01] = "sys_",
    [0x02] = "__",   [0x03] = "_a_token_that_is_longer_than_sixteen_characters_",
    [0x80] = "Ta",   [0xff] = "symbol_"};

/* Token `number` as a string in `buffer`; "" if there is none. */
static const char *token_text(unsigned number, char buffer[2])
{
    buffer[0] = number > 0x20 && number < 0x7f ? (char)number : 0;
    buffer[1] = 0;
    if (number < sizeof pieces / sizeof *pieces && pieces[number])
        return pieces[number];
    return buffer;
}

struct writer {
    uint8_t *bytes;
    size_t at, room;
    unsigned word;
};

static void put(struct writer *w, uint64_t value, unsigned size)
{
    if (w->at + size <= w->room)
        memcpy(w->bytes + w->at, &value, size);
    w->at += size;
}

static size_t align(struct writer *w)
{
    w->at = (w->at + w->word - 1) / w->word * w->word;
    return w->at;
}

static void put_name(struct writer *w, const char *name)
{
    uint8_t compressed[1024];
    unsigned length = 0;
    while (*name) {
        char buffer[2];
        unsigned best = (unsigned char)*name;
        size_t best_length = 1;
        for (unsigned token = 0; token < 256; token++) {
            const char *text = token_text(token, buffer);
            size_t size = strlen(text);
            if (size > best_length && !strncmp(name, text, size)) {
                best = token;
                best_length = size;
            }
        }
        compressed[length++] = (uint8_t)best;
        name += best_length;
    }
    if (length > 0x7f) {
        put(w, (length & 0x7f) | 0x80, 1);
        put(w, length >> 7, 1);
    } else {
        put(w, length, 1);
    }
    for (unsigned i = 0; i < length; i++)
        put(w, compressed[i], 1);
}

static void put_offsets(struct writer *w, const struct kallsyms_name *names, size_t count,
                        const struct kallsyms_layout *layout, struct kallsyms_parts *parts)
{
    parts->offsets = align(w);
    for (size_t i = 0; i < count; i++) {
        uint64_t address = names[i].address, offset = address - layout->base;
        if (layout->absolute_percpu)
            offset = address < layout->base ? address : layout->base - 1 - address;
        put(w, offset, 4);
    }
    parts->base = align(w);
    put(w, layout->base, layout->word);
}

static void put_tokens(struct writer *w, struct kallsyms_parts *parts)
{
    size_t index[256];
    char buffer[2];
    parts->tokens = align(w);
    for (unsigned token = 0; token < 256; token++) {
        const char *text = token_text(token, buffer);
        index[token] = w->at - parts->tokens;
        for (size_t i = 0; i <= strlen(text); i++)
            put(w, (unsigned char)text[i], 1);
    }
    parts->index = align(w);
    for (unsigned token = 0; token < 256; token++)
        put(w, index[token], 2);
}

size_t kallsyms_table(const struct kallsyms_name *names, size_t count,
                      const struct kallsyms_layout *layout, uint8_t *bytes, size_t room,
                      struct kallsyms_parts *parts)
{
    struct writer w = {bytes, 0, room, layout->word};
    size_t markers[1024];
    if (!layout->offsets_last)
        put_offsets(&w, names, count, layout, parts);
    parts->count = align(&w);
    put(&w, count, 4);
    parts->names = align(&w);
    for (size_t i = 0; i < count; i++) {
        if (i % 256 == 0)
            markers[i / 256] = w.at - parts->names;
        put_name(&w, names[i].name);
    }
    parts->markers = align(&w);
    for (size_t i = 0; i < count; i += 256)
        put(&w, markers[i / 256], layout->wide_markers ? 8 : 4);
    align(&w);
    for (size_t i = 0; i < 3 * count && layout->sequences && !layout->offsets_last; i++)
        put(&w, i * 0x9d >> 3 & 0xff, 1);
    put_tokens(&w, parts);
    if (layout->offsets_last) {
        put_offsets(&w, names, count, layout, parts);
        for (size_t i = 0; i < 3 * count && layout->sequences; i++)
            put(&w, i * 0x9d >> 3 & 0xff, 1);
    }
    parts->end = align(&w);
    return w.at <= room ? w.at : 0;
}
