/* SPDX-License-Identifier: MIT */
/* What decoded instructions refer to, and what follows from it when all are known: targets,
 * overlaps, repairs. */
#include <stdlib.h>
#include <string.h>

#include "patchc/code_index.h"

/* Makes room for `more` items of `size` bytes; false (and part->failed) when memory runs out. */
static bool grow(struct code_part *part, void **items, size_t *room, size_t more, size_t size)
{
    size_t wanted = *room * 2 + more;
    void *larger = realloc(*items, wanted * size);
    if (!larger) {
        part->failed = true;
        return false;
    }
    *items = larger;
    *room = wanted;
    return true;
}

bool code_reserve_refs(struct code_part *part, size_t count)
{
    return part->ref_room - part->ref_count >= count ||
           grow(part, (void **)&part->refs, &part->ref_room, count, sizeof *part->refs);
}

static void code_add_ref(struct code_part *part, uint32_t from, enum code_ref_kind kind,
                         uint32_t to)
{
    if (!code_reserve_refs(part, 1))
        return;
    part->refs[part->ref_count++] = code_make_ref(from, kind, to);
}

void code_add_mark(struct code_part *part, uint32_t at, const struct length_info *info)
{
    if (part->mark_count == part->mark_room &&
        !grow(part, (void **)&part->marks, &part->mark_room, 256, sizeof *part->marks))
        return;
    part->marks[part->mark_count++] = (struct code_mark){
        .at = at, .map = info->map, .opcode = info->opcode, .length = info->length};
}

/* A signed value of four bytes at bytes[0]. */
static int64_t read_s32(const uint8_t *bytes)
{
    int32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

void code_note(const struct code *code, const struct code_section *section, uint64_t offset,
               const struct length_info *info, struct code_part *part)
{
    const uint8_t *bytes = section->bytes + offset;
    uint32_t at = section->flat + (uint32_t)offset, to;
    uint64_t next = section->address + offset + info->length;
    if (code_is_sensitive(info))
        code_add_mark(part, at, info);
    if (!(info->flags & (LENGTH_REL8 | LENGTH_REL32 | LENGTH_RIP)))
        return;
    if (info->flags & LENGTH_REL8) {
        if (code_flat(code, section, next + (uint64_t)(int8_t)bytes[info->length - 1], &to))
            code_add_ref(part, at, REF_SHORT, to);
    } else if (info->flags & LENGTH_REL32) {
        if (code_flat(code, section, next + (uint64_t)read_s32(bytes + info->length - 4), &to))
            code_add_ref(part, at, REF_NEAR, to);
    } else if (code_flat(code, section, next + (uint64_t)read_s32(bytes + info->displacement),
                         &to)) {
        code_add_ref(part, at, REF_ADDRESS, to);
    }
}

void code_repair(struct code *code, const struct code_section *section, uint64_t offset,
                 struct code_part *part)
{
    while (offset < section->size && !bit_get(section->starts, offset) &&
           !bit_get(section->other_mode, offset)) {
        struct length_info info;
        if (section->bytes[offset] == 0xcc &&
            code_int3_run(section->bytes, offset, section->size) >= CODE_PADDING)
            return;
        unsigned length = length_decode(section->bytes + offset, section->size - offset, &info);
        if (length == 0)
            return;
        for (unsigned i = 1; i < length; i++)
            code_clear_start(code, section, offset + i);
        code_set_start(code, section, offset);
        code_note(code, section, offset, &info, part);
        offset += length;
    }
}

/* Drops references from what turned out to be no instruction, and sets the bits of the others. */
static void apply_refs(struct code_index *index, struct code_part *part)
{
    size_t kept = 0;
    for (size_t i = 0; i < part->ref_count; i++) {
        struct code_ref ref = part->refs[i];
        if (!bit_get(index->starts, ref.from))
            continue;
        part->refs[kept++] = ref;
        bit_set(index->targets, ref.to);
        if (ref.kind != REF_ADDRESS)
            bit_set(index->branched, ref.to);
    }
    part->ref_count = kept;
}

bool code_covering(const struct code_section *section, uint64_t offset, uint64_t *start)
{
    for (uint64_t back = 1; back < 15 && back <= offset; back++) {
        struct length_info info;
        *start = offset - back;
        if (bit_get(section->starts, *start))
            return length_decode(section->bytes + *start, section->size - *start, &info) > back;
    }
    return false;
}

/* True if [from, to) are LOCK prefixes: Linux jumps over them where there is one CPU. */
static bool only_lock(const uint8_t *bytes, uint64_t from, uint64_t to)
{
    while (from < to && bytes[from] == 0xf0)
        from++;
    return from == to;
}

/* Marks [from, to) as overlapping instructions: none of them is a start. */
static void mark_overlap(struct code *code, const struct code_section *section, uint64_t from,
                         uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        code_clear_start(code, section, i);
        bit_set(section->overlap, i);
    }
}

/* Where the stream of instructions that begins at `offset` meets a start, or ends. Nothing is met
 * twice: what lies between becomes overlap, which ends a stream too. */
static uint64_t meets(const struct code_section *section, uint64_t offset)
{
    while (offset < section->size && !bit_get(section->starts, offset) &&
           !bit_get(section->other_mode, offset) && !bit_get(section->overlap, offset) &&
           section->bytes[offset] != 0xcc) {
        struct length_info info;
        unsigned length = length_decode(section->bytes + offset, section->size - offset, &info);
        if (length == 0)
            break;
        offset += length;
    }
    return offset;
}

/* Control enters at `offset`. If that is inside an instruction, it and those decoded from here
 * until both streams agree overlap. Where nothing was decoded, decode from here. */
static void enter(struct code *code, const struct code_section *section, uint64_t offset,
                  struct code_part *part)
{
    uint64_t start;
    if (bit_get(section->starts, offset) || bit_get(section->other_mode, offset) ||
        bit_get(section->overlap, offset))
        return;
    if (!code_covering(section, offset, &start)) {
        code_repair(code, section, offset, part);
    } else if (!only_lock(section->bytes, start, offset)) {
        uint64_t end = meets(section, offset);
        struct length_info info;
        uint64_t whole =
            start + length_decode(section->bytes + start, section->size - start, &info);
        mark_overlap(code, section, start, end > whole ? end : whole);
    }
}

/* Following control flow proves the instructions of both streams where two overlap. */
static void find_overlaps(struct code *code)
{
    for (size_t i = 0; i < code->section_count; i++) {
        const struct code_section *s = &code->sections[i];
        uint64_t from = 0, end = 0; /* the instructions so far that overlap each other */
        unsigned count = 0;
        for (uint64_t at = 0; at < s->size; at++) {
            struct length_info info;
            if (!bit_get(s->starts, at))
                continue;
            if (at >= end || only_lock(s->bytes, from, at)) {
                if (count > 1)
                    mark_overlap(code, s, from, end);
                from = at;
                count = 0;
            }
            uint64_t next = at + length_decode(s->bytes + at, s->size - at, &info);
            end = count++ && end > next ? end : next;
        }
        if (count > 1)
            mark_overlap(code, s, from, end);
    }
}

static bool is_text_symbol(const struct image_symbol *symbol)
{
    return symbol->function || symbol->type == 't' || symbol->type == 'T';
}

/* Enters at the text symbols of a linear sweep: their names say that code begins there. */
static void enter_symbols(const struct image *image, struct code *code, struct code_part *part)
{
    const struct code_section *section = code->sections;
    const struct code_section *end = section + code->section_count;
    for (size_t i = 0; i < image->symbol_count && section < end; i++) {
        const struct image_symbol *symbol = &image->symbols[i];
        while (section < end && symbol->address >= section->address + section->size)
            section++;
        if (section == end || symbol->address < section->address || !is_text_symbol(symbol))
            continue;
        enter(code, section, symbol->address - section->address, part);
    }
}

/* Enters wherever a direct branch leads to what is no start. Entering may prove more code, whose
 * branches are then looked at too: each round proves at least one more start or ends. */
static void enter_branched(struct code *code, struct code_part *part)
{
    struct code_index *index = code->index;
    for (unsigned round = 0; round < 16; round++) {
        size_t before = part->ref_count;
        for (uint32_t word = 0; word < index->bits / 64; word++) {
            uint64_t inside = index->branched[word] & ~index->starts[word];
            for (; inside; inside &= inside - 1) {
                uint32_t flat = word * 64 + (uint32_t)__builtin_ctzll(inside);
                const struct code_section *section = code_flat_section(code, flat);
                enter(code, section, flat - section->flat, part);
            }
        }
        if (part->ref_count == before)
            break;
        apply_refs(index, part);
    }
}

static int mark_order(const void *a, const void *b)
{
    const struct code_mark *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Merges the marks of all parts into one sorted list of those that are starts. */
static int merge_marks(struct code *code, struct error *err)
{
    struct code_index *index = code->index;
    size_t count = 0, kept = 0;
    bool sorted = true;
    for (size_t i = 0; i < index->part_count; i++)
        count += index->parts[i].mark_count;
    index->marks = malloc((count + 1) * sizeof *index->marks);
    if (!index->marks)
        return fail(err, EXIT_IO, "out of memory");
    for (size_t i = 0; i < index->part_count; i++) {
        for (size_t k = 0; k < index->parts[i].mark_count; k++) {
            struct code_mark mark = index->parts[i].marks[k];
            if (!bit_get(index->starts, mark.at))
                continue;
            sorted &= kept == 0 || index->marks[kept - 1].at < mark.at;
            index->marks[kept++] = mark;
        }
    }
    if (!sorted)
        qsort(index->marks, kept, sizeof *index->marks, mark_order);
    index->mark_count = 0;
    for (size_t i = 0; i < kept; i++)
        if (i == 0 || index->marks[i].at != index->marks[index->mark_count - 1].at)
            index->marks[index->mark_count++] = index->marks[i];
    return 0;
}

struct code_part *code_add_part(struct code *code)
{
    struct code_index *index = code->index;
    void *larger = realloc(index->parts, (index->part_count + 1) * sizeof *index->parts);
    if (!larger)
        return NULL;
    index->parts = larger;
    memset(&index->parts[index->part_count], 0, sizeof *index->parts);
    return &index->parts[index->part_count++];
}

int code_settle(const struct image *image, struct code *code, struct error *err)
{
    struct code_index *index = code->index;
    struct code_part *part = code_add_part(code);
    if (!part)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    if (index->linear)
        enter_symbols(image, code, part);
    else
        find_overlaps(code);
    for (size_t i = 0; i < index->part_count; i++)
        apply_refs(index, &index->parts[i]);
    if (index->linear)
        enter_branched(code, part);
    if (merge_marks(code, err) != 0)
        return -1;
    for (size_t i = 0; i < index->part_count; i++)
        if (index->parts[i].failed)
            return fail(err, EXIT_IO, "%s: out of memory", image->name);
    return 0;
}
