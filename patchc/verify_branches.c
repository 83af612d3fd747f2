/* SPDX-License-Identifier: MIT */
/* References to windows from the code around them. No direct branch and no address computation may
 * lead into the middle of a window: a branch to a displaced instruction must have been sent to its
 * copy.
 *
 * Every byte of the text is tried as the displacement of a branch or of a LEA: that finds all true
 * ones and a few chance hits, which are told apart by decoding from the symbol before them. */
#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/verify_internal.h"

struct range { /* executable bytes of the original */
    uint64_t address, size;
    const uint8_t *bytes;
};

enum { FILTER_BITS = 1 << 23 };

struct scan {
    struct verify *v;
    struct range range;
    uint64_t *filter;      /* bit address % FILTER_BITS: such an address may be inside a window */
    struct vector spots;   /* struct window: windows and used padding, sorted */
    struct vector islands; /* uint64_t: addresses of islands that retargeted branches lead to */
};

static void add_to_filter(struct scan *s, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at++)
        s->filter[at % FILTER_BITS / 64] |= (uint64_t)1 << (at % 64);
}

/* No-ops that were used as padding: few, or none where INT3 is the padding. */
static bool in_dead(const struct verify *v, uint64_t address)
{
    const struct window *dead = v->dead.data;
    for (size_t i = 0; i < v->dead.count; i++)
        if (address >= dead[i].start && address < dead[i].end)
            return true;
    return false;
}

static bool is_inside(const struct scan *s, uint64_t address)
{
    uint64_t bit = address % FILTER_BITS;
    return (s->filter[bit / 64] >> (bit % 64) & 1) &&
           (verify_inside_window(s->v, address) || in_dead(s->v, address));
}

/* A short branch cannot reach a trampoline: it may lead to an island, a jump in padding. */
static bool through_island(struct scan *s, uint64_t target, uint64_t island)
{
    struct verify *v = s->v;
    const uint8_t *jump = image_at(&v->after, island, 5);
    const struct image_section *section = image_section_at(&v->before, island);
    if (!jump || jump[0] != 0xe9 || section != image_section_at(&v->before, s->range.address) ||
        !verify_same_target(v, target, island + 5 + (uint64_t)read_s32(jump + 1)))
        return false;
    vector_add(v, &s->islands, &island, sizeof island);
    return true;
}

/* The instruction at `at` refers to the inside of a window, if it is one. */
static void judge(struct scan *s, uint64_t at)
{
    struct verify *v = s->v;
    ZydisDecodedInstruction i;
    const uint8_t *bytes = s->range.bytes + at;
    uint64_t address = s->range.address + at, target;
    unsigned field, bits;
    if (!verify_decode(v, bytes, s->range.size - at, &i) ||
        !verify_relative(&i, bytes, address, &target, &field, &bits) || !is_inside(s, target) ||
        verify_in_window(v, address) || !verify_is_start(v, address))
        return;
    const uint8_t *now = image_at(&v->after, address, i.length);
    ZydisDecodedInstruction j;
    uint64_t to = 0;
    unsigned field_now, bits_now;
    bool branch = i.raw.imm[0].is_relative;
    bool same = now && memcmp(now, bytes, field) == 0 && verify_decode(v, now, i.length, &j) &&
                j.length == i.length &&
                verify_relative(&j, now, address, &to, &field_now, &bits_now);
    if (in_dead(v, target))
        verify_mismatch(v, "address 0x%" PRIx64 ": refers to 0x%" PRIx64 ", used as padding",
                        address, target);
    else if (same && (verify_same_target(v, target, to) ||
                      (branch && bits == 8 && through_island(s, target, to))))
        verify_claim(v, address + field, bits / 8, CLAIM_WORD, "retargeted branch");
    else
        verify_mismatch(v, "address 0x%" PRIx64 ": %s 0x%" PRIx64 ", inside the window of a patch",
                        address, branch ? "a branch leads to" : "an operand refers to", target);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Several branches may share an island. */
static void claim_islands(struct scan *s)
{
    uint64_t *islands = s->islands.data;
    if (s->islands.count)
        qsort(islands, s->islands.count, sizeof *islands, by_value);
    for (size_t i = 0; i < s->islands.count; i++)
        if (i == 0 || islands[i] != islands[i - 1])
            verify_claim(s->v, islands[i], 5, CLAIM_ISLAND, "island of a retargeted branch");
    free(islands);
}

/* If the rel32 at `at` may be the end of a branch or of a LEA, the bytes in front of it. */
static unsigned opcode_before(const uint8_t *bytes, uint64_t at)
{
    uint8_t opcode = bytes[at - 1];
    if ((opcode & 0xfe) == 0xe8)
        return 1;
    if ((opcode & 0xf0) == 0x80 && at >= 2 && bytes[at - 2] == 0x0f)
        return 2;
    if ((opcode & 0xc7) == 0x05 && at >= 3 && bytes[at - 2] == 0x8d &&
        (bytes[at - 3] & 0xf0) == 0x40)
        return 3;
    return 0;
}

/* Branches with rel32 and RIP-relative LEA (with any REX): the displacement ends the instruction.
 */
static void scan_wide(struct scan *s)
{
    const uint8_t *bytes = s->range.bytes;
    uint64_t size = s->range.size, base = s->range.address;
    for (uint64_t at = 1; at + 4 <= size; at++) {
        unsigned opcode = opcode_before(bytes, at);
        if (opcode && is_inside(s, base + at + 4 + (uint64_t)read_s32(bytes + at)))
            judge(s, at - opcode);
    }
}

static bool is_short_branch(uint8_t opcode)
{
    return (opcode & 0xf0) == 0x70 || opcode == 0xeb || (opcode >= 0xe0 && opcode <= 0xe3);
}

/* Short branches, in the neighbourhood of each spot. */
static void scan_short(struct scan *s)
{
    const struct range *r = &s->range;
    const struct window *spots = s->spots.data;
    uint64_t done = r->address;
    for (size_t i = 0; i < s->spots.count; i++) {
        const struct window *w = &spots[i];
        if (w->start < r->address || w->start - r->address >= r->size)
            continue;
        uint64_t from = w->start - r->address < 130 ? r->address : w->start - 130;
        uint64_t to = w->end + 130;
        if (from < done)
            from = done;
        for (uint64_t at = from; at < to && at - r->address + 2 <= r->size; at++) {
            const uint8_t *bytes = r->bytes + (at - r->address);
            if (is_short_branch(bytes[0]) && is_inside(s, at + 2 + (uint64_t)(int8_t)bytes[1]))
                judge(s, at - r->address);
        }
        if (to > done)
            done = to;
    }
}

static void scan_range(struct scan *s, uint64_t address, uint64_t size)
{
    s->range = (struct range){address, size, image_at(&s->v->before, address, size)};
    if (!s->range.bytes || !size)
        return;
    scan_wide(s);
    s->v->memo.at = 0;
    scan_short(s);
    s->v->memo.at = 0;
}

/* No symbol, so no function pointer or entry point that we know, names such an address. */
static void check_symbols(struct scan *s)
{
    struct verify *v = s->v;
    for (size_t i = 0; i < v->before.symbol_count; i++)
        if (is_inside(s, v->before.symbols[i].address))
            verify_mismatch(
                v, "address 0x%" PRIx64 ": the symbol %.80s is inside the window of a patch",
                v->before.symbols[i].address, v->before.symbols[i].name);
    if (is_inside(s, v->before.entry))
        verify_mismatch(v, "address 0x%" PRIx64 ": the entry point is inside the window of a patch",
                        v->before.entry);
}

static int by_start(const void *a, const void *b)
{
    const struct window *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Collects what must not be referred to: windows behind their first byte, used padding. */
static void collect_spots(struct scan *s)
{
    struct verify *v = s->v;
    const struct window *dead = v->dead.data;
    for (size_t i = 0; i < v->window_count; i++) {
        add_to_filter(s, v->windows[i].start + 1, v->windows[i].end);
        vector_add(v, &s->spots, &v->windows[i], sizeof *v->windows);
    }
    for (size_t i = 0; i < v->dead.count; i++) {
        add_to_filter(s, dead[i].start, dead[i].end);
        vector_add(v, &s->spots, &dead[i], sizeof *dead);
        bool falls_into;
        if (verify_is_padding(v, dead[i].start, dead[i].end, &falls_into) && falls_into)
            verify_mismatch(v, "address 0x%" PRIx64 ": code runs into what was used as padding",
                            dead[i].start);
    }
    if (s->spots.count)
        qsort(s->spots.data, s->spots.count, sizeof(struct window), by_start);
}

void verify_branches(struct verify *v)
{
    struct scan s = {.v = v};
    s.filter = calloc(FILTER_BITS / 64, sizeof *s.filter);
    if (!s.filter) {
        v->out_of_memory = true;
        return;
    }
    collect_spots(&s);
    check_symbols(&s);
    bool any = false;
    for (size_t i = 0; i < v->before.section_count; i++) {
        const struct image_section *section = &v->before.sections[i];
        if ((section->flags & SHF_EXECINSTR) && section->type != SHT_NOBITS) {
            scan_range(&s, section->address, section->size);
            any = true;
        }
    }
    for (size_t i = 0; !any && i < v->before.segment_count; i++) {
        const struct image_segment *segment = &v->before.segments[i];
        if (segment->type == PT_LOAD && (segment->flags & PF_X))
            scan_range(&s, segment->vaddr, segment->file_size);
    }
    claim_islands(&s);
    free(s.spots.data);
    free(s.filter);
}
