/* SPDX-License-Identifier: MIT */
/* Claims: which bytes of the patched file some check has accounted for, and that all others are the
 * original's. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/verify_internal.h"

void verify_claim_file(struct verify *v, uint64_t offset, uint64_t size, enum claim_kind kind,
                       const char *what)
{
    struct claim claim = {offset, size, kind, what};
    if (size)
        vector_add(v, &v->claims, &claim, sizeof claim);
}

static uint64_t int3_run(const uint8_t *bytes, uint64_t size)
{
    uint64_t at = 0;
    while (at < size && bytes[at] == 0xcc)
        at++;
    return at;
}

bool verify_claim(struct verify *v, uint64_t address, uint64_t size, enum claim_kind kind,
                  const char *what)
{
    uint64_t offset;
    if (!image_offset(&v->after, address, size, &offset)) {
        verify_mismatch(v, "address 0x%" PRIx64 ": %s of %" PRIu64 " bytes is not in the image",
                        address, what, size);
        return false;
    }
    verify_claim_file(v, offset, size, kind, what);
    bool padding = kind == CLAIM_PADDING || kind == CLAIM_ISLAND;
    const uint8_t *was = padding ? image_at(&v->before, address, size) : NULL;
    if (was && int3_run(was, size) != size) {
        struct window dead = {.start = address, .end = address + size};
        vector_add(v, &v->dead, &dead, sizeof dead);
    }
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* A place in the patched file for a message: its address, if it has one. */
static void name_place(const struct verify *v, uint64_t offset, char *text, size_t size)
{
    uint64_t address, distance;
    if (!image_address(&v->after, offset, &address)) {
        snprintf(text, size, "offset 0x%" PRIx64, offset);
        return;
    }
    const struct image_symbol *symbol = image_symbol_at(&v->before, address, &distance);
    if (symbol)
        snprintf(text, size, "address 0x%" PRIx64 " (%.80s+0x%" PRIx64 ", offset 0x%" PRIx64 ")",
                 address, symbol->name, distance, offset);
    else
        snprintf(text, size, "address 0x%" PRIx64 " (offset 0x%" PRIx64 ")", address, offset);
}

static void report_change(struct verify *v, uint64_t offset, const char *what)
{
    char place[160];
    name_place(v, offset, place, sizeof place);
    verify_mismatch(v, "%s: %s", place, what);
}

/* First index in [0, size) at which the two differ; size if none. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t size)
{
    enum { BLOCK = 4096 };
    uint64_t at = 0;
    while (size - at >= BLOCK && memcmp(a + at, b + at, BLOCK) == 0)
        at += BLOCK;
    while (at < size && a[at] == b[at])
        at++;
    return at;
}

/* The length of the piece at `offset` (up to `end`) that comes from one contiguous piece of the
 * original, beginning at *origin, or that was added (*added). */
static uint64_t piece(const struct verify *v, uint64_t offset, uint64_t end, uint64_t *origin,
                      bool *added)
{
    const struct pv_original *o = &v->record.original;
    uint64_t insert = o->tail_insert_at + o->added_size; /* in the patched file */
    uint64_t bound[] = {o->tail_offset, o->tail_offset + o->added_size, insert,
                        insert + o->tail_insert_size};
    uint64_t stop = end;
    for (size_t i = 0; i < sizeof bound / sizeof *bound; i++)
        if (bound[i] > offset && bound[i] < stop)
            stop = bound[i];
    *added = !patched_record_origin(&v->record, offset, origin);
    return stop - offset;
}

/* Bytes that nobody claimed: the original's, or zero where patchc added them. One message for each
 * run of changed bytes. */
static void judge_unclaimed(struct verify *v, uint64_t offset, uint64_t end)
{
    static const uint8_t zeros[4096];
    while (offset < end) {
        uint64_t origin;
        bool added;
        uint64_t size = piece(v, offset, end, &origin, &added);
        if (added && size > sizeof zeros)
            size = sizeof zeros;
        const uint8_t *now = v->after.bytes + offset;
        const uint8_t *before = added ? zeros : v->before.bytes + origin;
        uint64_t same = first_difference(now, before, size);
        if (same == size) {
            offset += size;
            continue;
        }
        report_change(v, offset + same,
                      added ? "bytes were added that belong to nothing"
                            : "changed, and belongs to no patch, routine or table");
        offset += same;
        while (same < size && now[same] != before[same]) {
            same++;
            offset++;
        }
    }
}

/* Padding in executable memory: INT3, or INT3 and no-ops. */
static bool is_padding(const struct verify *v, uint64_t origin, const struct claim *claim)
{
    uint64_t address;
    bool falls_into;
    return int3_run(v->before.bytes + origin, claim->size) == claim->size ||
           (image_address(&v->before, origin, &address) &&
            verify_is_padding(v, address, address + claim->size, &falls_into));
}

/* Memory that the guest gives away after boot, or never maps as text. */
static bool is_lasting_text(const struct verify *v, uint64_t address)
{
    const struct image_section *section = image_section_at(&v->before, address);
    if (!section)
        return v->before.section_count == 0;
    return (section->flags & 4) && strncmp(section->name, ".init", 5) != 0 &&
           strncmp(section->name, ".exit", 5) != 0 && strncmp(section->name, ".altinstr", 9) != 0;
}

static void judge_claim(struct verify *v, const struct claim *claim)
{
    uint64_t origin, address;
    bool added;
    uint64_t size = piece(v, claim->offset, claim->offset + claim->size, &origin, &added);
    bool mixed = size < claim->size;
    const char *wrong = NULL;
    switch (claim->kind) {
    case CLAIM_ADDED:
        if (!added || mixed)
            wrong = "stands where the original has bytes of its own";
        break;
    case CLAIM_WINDOW:
        if (added || mixed)
            wrong = "is not in the original";
        break;
    case CLAIM_WORD:
        break;
    case CLAIM_PADDING:
    case CLAIM_ISLAND:
        if (mixed)
            wrong = "straddles the end of the original's bytes";
        else if (!added && !is_padding(v, origin, claim))
            wrong = "stands where the original has no padding";
        else if (!added && claim->kind == CLAIM_PADDING &&
                 !(image_address(&v->after, claim->offset, &address) &&
                   is_lasting_text(v, address)))
            wrong = "stands in memory that is not text for ever";
        break;
    }
    if (wrong) {
        char text[120];
        snprintf(text, sizeof text, "%s %s", claim->what, wrong);
        report_change(v, claim->offset, text);
    }
}

void verify_claims_judge(struct verify *v)
{
    struct claim *claims = v->claims.data;
    if (v->claims.count)
        qsort(claims, v->claims.count, sizeof *claims, by_offset);
    uint64_t end = 0;
    for (size_t i = 0; i < v->claims.count; i++) {
        const struct claim *c = &claims[i];
        if (c->offset < end) {
            char text[120];
            snprintf(text, sizeof text, "%s overlaps %s", c->what, claims[i - 1].what);
            report_change(v, c->offset, text);
        }
        if (c->offset > end)
            judge_unclaimed(v, end, c->offset);
        judge_claim(v, c);
        if (c->offset + c->size > end)
            end = c->offset + c->size;
    }
    judge_unclaimed(v, end, v->after.size);
}
