/* SPDX-License-Identifier: MIT */
/* Names from a stripped Linux image.
 *
 * kallsyms is the kernel's own symbol table, compressed: a name is a length and that many token
 * numbers, a token is a string, the first character of the expanded name is its type as nm prints
 * it. Nothing points to the table, so it is found by what it must look like, from its most peculiar
 * part outwards (scripts/kallsyms.c in the kernel writes it):
 *
 *   token table   256 strings; the characters that symbols are made of stand for themselves, so
 *                 "0\0" "1\0" ... "9\0" is in it
 *   token index   u16[256]: where each string begins
 *   names         before the token table, after their number
 *   markers       one per 256 names, where it begins: the check that the names are the names
 *   offsets       s32 per name, and the base they are relative to: before the names (until Linux
 *                 6.3) or after the token index (from 6.4 on)
 *
 * Each part is fully checked before the next is looked for. The search takes linear time: where to
 * begin follows from one byte pattern, and all attempts together may look at a fixed multiple of
 * the image's bytes (struct search, budget). */
#include "image/kallsyms.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKENS = 256,
    NAMES_PER_MARKER = 256,
    TOKEN_LIMIT = 256, /* characters of one token */
    NAME_LIMIT = 1024, /* characters of one name, type included; the kernel's own limit is 512 */
    COUNT_LIMIT = 1u << 22, /* names; a kernel with everything built in has 500,000 */
    COPY = 16,              /* tokens are copied this many bytes at a time */
    BUDGET_PER_BYTE = 16,   /* of the image, for the whole search */
};

/* Part of the file that may hold the table, as offsets into image->bytes. */
struct extent {
    uint64_t begin, end;
};

struct search {
    const struct image *image;
    const uint8_t *bytes;
    struct extent extent;
    unsigned word;      /* bytes of an address in the kernel; also the alignment of each part */
    uint64_t low, high; /* guest-linear extent of the loadable segments */
    uint64_t budget;    /* bytes still to be looked at in failing attempts */
};

/* The table, once found. All positions are offsets into image->bytes. */
struct table {
    uint64_t tokens, index, names, names_end, offsets;
    uint32_t count;
    uint64_t base;
    bool negative; /* addresses in the image are base - 1 - offset, non-negative ones absolute */
};

static uint16_t get16(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint64_t get_word(const struct search *search, uint64_t at)
{
    uint64_t value = 0;
    memcpy(&value, search->bytes + at, search->word);
    return value;
}

static uint64_t align_up(const struct search *search, uint64_t at)
{
    return (at + search->word - 1) & ~(uint64_t)(search->word - 1);
}

/* True as long as the search may go on. */
static bool spend(struct search *search, uint64_t bytes)
{
    if (search->budget <= bytes) {
        search->budget = 0;
        return false;
    }
    search->budget -= bytes;
    return true;
}

/* From the token "0" at `digits`: the end of the table follows, from that the index, and from its
 * entry for '0' the start. All 256 strings must then be where the index says. */
static bool tokens_at(struct search *search, uint64_t digits, struct table *table)
{
    uint64_t at = digits;
    if (!spend(search, 2 * TOKENS))
        return false;
    for (unsigned token = '0'; token < TOKENS; token++) {
        uint64_t left = search->extent.end - at;
        const uint8_t *nul =
            memchr(search->bytes + at, 0, left < TOKEN_LIMIT ? left : (size_t)TOKEN_LIMIT);
        if (!nul || !spend(search, (uint64_t)(nul - search->bytes) - at))
            return false;
        at = (uint64_t)(nul - search->bytes) + 1;
    }
    table->index = align_up(search, at);
    if (table->index > search->extent.end || search->extent.end - table->index < 2 * TOKENS)
        return false;
    const uint8_t *index = search->bytes + table->index;
    uint64_t back = get16(index + 2 * '0');
    if (back > digits - search->extent.begin)
        return false;
    table->tokens = digits - back;
    if (table->tokens % search->word)
        return false;
    at = table->tokens;
    for (unsigned token = 0; token < TOKENS; token++) {
        if (get16(index + 2 * token) != at - table->tokens)
            return false;
        const uint8_t *nul = memchr(search->bytes + at, 0, table->index - at);
        if (!nul || nul - (search->bytes + at) >= TOKEN_LIMIT)
            return false;
        at = (uint64_t)(nul - search->bytes) + 1;
    }
    return align_up(search, at) == table->index;
}

/* The number of compressed bytes of the name at `at`, which is moved to the first of them. */
static unsigned name_length(const uint8_t *bytes, uint64_t *at)
{
    unsigned length = bytes[(*at)++];
    if (length & 0x80)
        length = (length & 0x7f) | (unsigned)bytes[(*at)++] << 7;
    return length;
}

/* Walks the names that would begin at table->names, `limit` being the end of what they may fill;
 * the position of each 256th must be in the markers, of `marker_size` bytes each. */
static bool names_match(struct search *search, struct table *table, uint64_t markers,
                        unsigned marker_size)
{
    const uint8_t *bytes = search->bytes;
    uint64_t at = table->names;
    uint32_t i = 0;
    for (; i < table->count; i++) {
        if (i % NAMES_PER_MARKER == 0) {
            const uint8_t *marker = bytes + markers + (uint64_t)i / NAMES_PER_MARKER * marker_size;
            if (get32(marker) != at - table->names || (marker_size == 8 && get32(marker + 4)))
                break;
        }
        if (markers - at < 2)
            break;
        unsigned length = name_length(bytes, &at);
        if (!length || length > markers - at)
            break;
        at += length;
    }
    spend(search, at - table->names);
    table->names_end = at;
    return i == table->count && align_up(search, at) == markers;
}

/* The markers' place follows from the number of names: they stand before the token table, with
 * nothing or with kallsyms_seqs_of_names (3 bytes a name) between. Before Linux 5.0 a marker was
 * as wide as an address. */
static bool names_at(struct search *search, uint64_t names, struct table *table)
{
    table->names = names;
    uint64_t room = table->tokens - names;
    uint64_t marker_count = ((uint64_t)table->count + NAMES_PER_MARKER - 1) / NAMES_PER_MARKER;
    for (unsigned variant = 0; variant < 4; variant++) {
        unsigned marker_size = variant & 2 ? 8 : 4;
        if (marker_size > search->word)
            break;
        uint64_t behind = align_up(search, marker_count * marker_size);
        if (variant & 1)
            behind += align_up(search, (uint64_t)table->count * 3);
        if (behind + 2 * (uint64_t)table->count > room)
            continue;
        uint64_t markers = table->tokens - behind;
        if (get32(search->bytes + markers) == 0 && names_match(search, table, markers, marker_size))
            return true;
    }
    return false;
}

/* Whether s32[count] at `offsets` with this base gives addresses in the image. Sets
 * table->negative: with CONFIG_KALLSYMS_ABSOLUTE_PERCPU, kernel addresses are stored negative. */
static bool offsets_fit(struct search *search, uint64_t offsets, uint64_t base, struct table *table)
{
    if (base < search->low || base > search->high)
        return false;
    uint32_t negative = 0, inside = 0;
    for (uint32_t i = 0; i < table->count; i++)
        negative += get32(search->bytes + offsets + 4 * (uint64_t)i) >> 31;
    table->negative = negative != 0;
    uint32_t relative = table->negative ? negative : table->count;
    for (uint32_t i = 0; i < table->count; i++) {
        uint32_t offset = get32(search->bytes + offsets + 4 * (uint64_t)i);
        if (table->negative && !(offset >> 31))
            continue;
        uint64_t address = table->negative ? base - 1 - (uint64_t)(int32_t)offset : base + offset;
        inside += address >= search->low && address <= search->high;
    }
    spend(search, 4 * (uint64_t)table->count);
    table->offsets = offsets;
    table->base = base;
    /* Some absolute symbols are far away; most are in the image. */
    return relative >= table->count / 2 && inside >= relative - relative / 8;
}

/* The offsets of the table whose names begin at `names`, in either layout. */
static bool offsets_found(struct search *search, uint64_t names, struct table *table)
{
    uint64_t size = 4 * (uint64_t)table->count, word = search->word;
    uint64_t base_at = names - 2 * word;
    if (names - search->extent.begin >= 2 * word &&
        base_at - search->extent.begin >= align_up(search, size) &&
        offsets_fit(search, base_at - align_up(search, size), get_word(search, base_at), table))
        return true;
    uint64_t offsets = table->index + 2 * TOKENS;
    base_at = align_up(search, offsets + size);
    return search->extent.end >= word && base_at <= search->extent.end - word &&
           offsets_fit(search, offsets, get_word(search, base_at), table);
}

/* Looks downwards from the token table for the number of names, which stands right before them. */
static bool names_found(struct search *search, struct table *table)
{
    uint64_t word = search->word, begin = align_up(search, search->extent.begin) + word;
    for (uint64_t names = table->tokens; names >= begin; names -= word) {
        if (!spend(search, 1))
            return false;
        uint64_t count = get_word(search, names - word);
        if (!count || count > COUNT_LIMIT || count > (table->tokens - names) / 2)
            continue;
        table->count = (uint32_t)count;
        if (names_at(search, names, table) && offsets_found(search, names, table))
            return true;
    }
    return false;
}

/* Looks through one part of the file. */
static bool table_found(struct search *search, struct table *table)
{
    static const uint8_t digits[] = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009";
    uint64_t at = search->extent.begin;
    while (search->budget) {
        const uint8_t *hit =
            memmem(search->bytes + at, search->extent.end - at, digits, sizeof digits);
        if (!hit)
            return false;
        uint64_t position = (uint64_t)(hit - search->bytes);
        if (tokens_at(search, position, table) && names_found(search, table))
            return true;
        spend(search, sizeof digits);
        at = position + sizeof digits;
    }
    return false;
}

/* A token, ready to be copied. */
struct token {
    const uint8_t *text;
    uint32_t length;
    uint8_t first[COPY]; /* its first characters, padded */
};

static void tokens_load(const struct search *search, const struct table *table,
                        struct token *tokens)
{
    for (unsigned i = 0; i < TOKENS; i++) {
        struct token *token = &tokens[i];
        token->text = search->bytes + table->tokens + get16(search->bytes + table->index + 2 * i);
        token->length = (uint32_t)strlen((const char *)token->text);
        memset(token->first, 0, sizeof token->first);
        memcpy(token->first, token->text, token->length < COPY ? token->length : COPY);
    }
}

/* Bytes that all names take with their terminators; 0 if a name is empty or too long. */
static uint64_t names_size(const struct search *search, const struct table *table,
                           const struct token *tokens)
{
    const uint8_t *bytes = search->bytes;
    uint64_t at = table->names, total = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        uint64_t size = 0;
        for (unsigned length = name_length(bytes, &at); length; length--)
            size += tokens[bytes[at++]].length;
        if (size < 2 || size > NAME_LIMIT)
            return 0;
        total += size; /* the type's byte is the terminator's */
    }
    return total;
}

static uint64_t address_of(const struct search *search, const struct table *table, uint32_t i)
{
    uint32_t offset = get32(search->bytes + table->offsets + 4 * (uint64_t)i);
    uint64_t address = table->base + offset;
    if (table->negative)
        address = offset >> 31 ? table->base - 1 - (uint64_t)(int64_t)(int32_t)offset : offset;
    return search->word == 4 ? (uint32_t)address : address;
}

static void names_expand(const struct search *search, const struct table *table,
                         const struct token *tokens, char *text, struct image_symbol *symbols)
{
    const uint8_t *bytes = search->bytes;
    uint64_t at = table->names;
    for (uint32_t i = 0; i < table->count; i++) {
        unsigned length = name_length(bytes, &at);
        const struct token *token = &tokens[bytes[at++]];
        for (; token->length == 0; length--)
            token = &tokens[bytes[at++]];
        /* The first character is the type. */
        symbols[i] = (struct image_symbol){
            .address = address_of(search, table, i), .name = text, .type = (char)token->text[0]};
        memcpy(text, token->text + 1, token->length - 1);
        text += token->length - 1;
        while (--length) {
            token = &tokens[bytes[at++]];
            if (token->length <= COPY)
                memcpy(text, token->first, COPY);
            else
                memcpy(text, token->text, token->length);
            text += token->length;
        }
        *text++ = 0;
    }
}

static long table_read(const struct search *search, const struct table *table, struct image *image,
                       void **storage, struct error *err)
{
    struct token tokens[TOKENS];
    tokens_load(search, table, tokens);
    uint64_t size = names_size(search, table, tokens);
    if (!size || size > 64 * (table->names_end - table->names))
        return 0;
    size_t total = image->symbol_count + table->count;
    struct image_symbol *symbols = realloc(image->symbols, total * sizeof *symbols);
    if (!symbols)
        return fail(err, EXIT_IO, "%s: no memory for %zu symbols", image->name, total);
    image->symbols = symbols;
    char *text = malloc(size + COPY);
    if (!text)
        return fail(err, EXIT_IO, "%s: no memory for symbol names", image->name);
    names_expand(search, table, tokens, text, symbols + image->symbol_count);
    image->symbol_count = total;
    *storage = text;
    return (long)table->count;
}

/* The i-th part of the file to look through: .rodata, then the other sections with data, or,
 * where there are no sections, the segments. False when there is no i-th. */
static bool extent_nth(const struct image *image, size_t i, struct extent *extent)
{
    *extent = (struct extent){0, 0};
    if (!image->section_count) {
        if (i >= image->segment_count)
            return false;
        const struct image_segment *segment = &image->segments[i];
        if (segment->type == PT_LOAD)
            *extent = (struct extent){segment->offset, segment->offset + segment->file_size};
        return true;
    }
    bool rodata = i < image->section_count;
    if (!rodata && (i -= image->section_count) >= image->section_count)
        return false;
    const struct image_section *section = &image->sections[i];
    if (section->type == SHT_PROGBITS && (section->flags & SHF_ALLOC) &&
        !(section->flags & SHF_EXECINSTR) && rodata == !strcmp(section->name, ".rodata"))
        *extent = (struct extent){section->offset, section->offset + section->size};
    return true;
}

long kallsyms_read(struct image *image, void **storage, struct error *err)
{
    *storage = NULL;
    struct search search = {.image = image,
                            .bytes = image->bytes,
                            .word = image->elf_class == 32 ? 4 : 8,
                            .low = UINT64_MAX,
                            .budget = BUDGET_PER_BYTE * (uint64_t)image->size};
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *segment = &image->segments[i];
        /* The per-CPU segment is linked at 0 and has its addresses stored as absolute ones. */
        if (segment->type != PT_LOAD || (segment->vaddr == 0 && image->elf_class == 64))
            continue;
        if (segment->vaddr < search.low)
            search.low = segment->vaddr;
        if (segment->vaddr + segment->mem_size > search.high)
            search.high = segment->vaddr + segment->mem_size;
    }
    for (size_t i = 0; extent_nth(image, i, &search.extent); i++) {
        struct table table = {0};
        if (search.extent.end > image->size || search.extent.begin >= search.extent.end)
            continue;
        if (table_found(&search, &table))
            return table_read(&search, &table, image, storage, err);
    }
    return 0;
}
