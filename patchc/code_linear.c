/* SPDX-License-Identifier: MIT */
/* Linear sweep: every section is one stream of instructions from its first byte to its last, as a
 * Linux build makes them.
 *
 * Two threads decode chunks. x86 code synchronises itself: a decoder that begins at a wrong byte is
 * in step after a few instructions. So a chunk is entered WARM_UP bytes early, and afterwards it is
 * checked that the stream of the chunk before ends exactly where this one's counted part begins;
 * where it does not, the chunk is decoded again from there. The result is that of one pass. */
#include <stdlib.h>
#include <string.h>

#include "patchc/code_index.h"

enum { CHUNK = 256 << 10, WARM_UP = 512 };

struct chunk {
    const struct code_section *section;
    uint64_t begin, end;  /* offsets: starts in [begin, end) are this chunk's; multiples of 64 */
    uint64_t first, next; /* the first start at or after begin, at or after end */
    uint64_t count;       /* instructions other than int3 */
};

struct sweep {
    const struct code *code;
    struct length_table *table;
    struct chunk *chunks;
    size_t chunk_count;
};

/* The prefix with which a kernel asks Xen to emulate CPUID: ud2 and the letters "xen", then CPUID.
 * These are no instructions. */
static const uint8_t xen_prefix[7] = {0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2};

static bool is_xen_prefix(const uint8_t *bytes, uint64_t available)
{
    return available >= sizeof xen_prefix && memcmp(bytes, xen_prefix, sizeof xen_prefix) == 0;
}

/* The int3 at `at`: where the stream goes on (in padding at most at `limit`), and whether it is
 * padding. */
static uint64_t int3_run(const struct code_section *section, uint64_t at, uint64_t limit,
                         bool *padding)
{
    uint64_t back = 0;
    while (back < CODE_PADDING && back < at && section->bytes[at - back - 1] == 0xcc)
        back++;
    uint64_t nearby = section->size - at < CODE_PADDING ? section->size : at + CODE_PADDING;
    uint64_t run = code_int3_run(section->bytes, at, limit > nearby ? limit : nearby);
    *padding = run + back >= CODE_PADDING;
    return !*padding ? at + 1 : at + run < limit ? at + run : limit;
}

/* A stream of instructions through a section. */
struct stream {
    const struct code *code;
    const struct length_table *table;
    const struct code_section *section;
    struct code_part *part;
    uint64_t at;    /* offset of the next instruction */
    uint64_t count; /* instructions other than int3 */
};

/* Goes over one instruction before `limit`, whatever it is; notes it if `note`. */
static void step(struct stream *stream, uint64_t limit, bool note)
{
    const struct code_section *section = stream->section;
    const uint8_t *bytes = section->bytes + stream->at;
    struct length_info info;
    if (bytes[0] == 0xcc) {
        bool padding;
        uint64_t next = int3_run(section, stream->at, limit, &padding);
        if (note && !padding)
            bit_set(section->starts, stream->at);
        stream->at = next;
        return;
    }
    unsigned length = length_decode(bytes, section->size - stream->at, &info);
    if (length == 0) {
        stream->at++;
    } else if (info.flags & LENGTH_NO_FALL && is_xen_prefix(bytes, section->size - stream->at)) {
        stream->at += sizeof xen_prefix;
    } else {
        if (note) {
            bit_set(section->starts, stream->at);
            stream->count++;
            code_note(stream->code, section, stream->at, &info, stream->part);
        }
        stream->at += length;
    }
}

/* Writes a reference to an address that may be in another section or in none; true if it is in one.
 * Rare enough to be looked up. */
static bool __attribute__((noinline))
note_elsewhere(const struct stream *stream, uint64_t from, enum code_ref_kind kind, uint64_t to,
               struct code_ref *ref)
{
    const struct code_section *section = stream->section;
    uint32_t flat;
    if (!code_flat(stream->code, section, section->address + to, &flat))
        return false;
    *ref = code_make_ref(section->flat + (uint32_t)from, kind, flat);
    return true;
}

/* Goes over the instructions up to `end` for which the table has an entry, and notes them; stops at
 * the first other one. This is what the time of a sweep goes into, so it avoids branches that
 * depend on the instruction: a reference is always written and only counted if it is one. */
static void stride(struct stream *stream, uint64_t end)
{
    enum { SLACK = 24, BURST = 4096, BRANCH = LENGTH_REL8 | LENGTH_REL32 };
    const struct code_section *section = stream->section;
    struct code_part *part = stream->part;
    if (section->size < SLACK || !code_reserve_refs(part, BURST))
        return;
    const uint16_t *one = stream->table->entry[0], *two = stream->table->entry[1];
    const uint8_t *bytes = section->bytes;
    const uint32_t flat = section->flat;
    const uint64_t size = section->size, last = end < size - SLACK ? end : size - SLACK;
    uint64_t *starts = section->starts;
    struct code_ref *ref = part->refs + part->ref_count, *full = ref + BURST - 1;
    uint64_t at = stream->at, count = 0;
    while (at < last && ref < full) {
        const uint8_t *code = bytes + at;
        code += (code[0] & 0xf0) == 0x40; /* REX */
        unsigned entry = one[code[0] << 8 | code[1]];
        if (entry & (LENGTH_ASK | LENGTH_TWO)) {
            if (entry & LENGTH_ASK)
                break;
            entry = two[code[1] << 8 | code[2]];
            if (entry & LENGTH_ASK)
                break;
        }
        bit_set(starts, at);
        count++;
        const uint8_t *next = code + (entry & LENGTH_BYTES);
        uint64_t from = at;
        at = (uint64_t)(next - bytes);
        unsigned kind = entry >> LENGTH_KIND;
        int32_t wide;
        memcpy(&wide, next - 4, sizeof wide);
        uint64_t to = at + (uint64_t)(int64_t)(kind & LENGTH_REL8 ? (int8_t)next[-1] : wide);
        if (kind & BRANCH && to < size) {
            *ref++ = code_make_ref(flat + (uint32_t)from, kind & BRANCH, flat + (uint32_t)to);
        } else if (kind & BRANCH) {
            ref += note_elsewhere(stream, from, kind & BRANCH, to, ref);
        } else if (kind & LENGTH_RIP) {
            memcpy(&wide, code + (code[0] == 0x0f ? 3 : 2), sizeof wide);
            ref += note_elsewhere(stream, from, REF_ADDRESS, at + (uint64_t)(int64_t)wide, ref);
        }
    }
    part->ref_count = (size_t)(ref - part->refs);
    stream->count += count;
    stream->at = at;
}

/* Goes over a chunk from stream->at, its first instruction. */
static void sweep_chunk(struct stream *stream, struct chunk *chunk)
{
    chunk->first = stream->at;
    while (stream->at < chunk->end) {
        stride(stream, chunk->end);
        if (stream->at < chunk->end)
            step(stream, chunk->end, true);
    }
    chunk->next = stream->at;
    chunk->count = stream->count;
}

static void work_chunk(void *context, size_t job)
{
    struct sweep *sweep = context;
    struct chunk *chunk = &sweep->chunks[job];
    struct stream stream = {
        .code = sweep->code,
        .table = sweep->table,
        .section = chunk->section,
        .part = &sweep->code->index->parts[job],
        .at = chunk->begin < WARM_UP ? 0 : chunk->begin - WARM_UP,
    };
    while (stream.at < chunk->begin)
        step(&stream, chunk->begin, false);
    sweep_chunk(&stream, chunk);
}

/* Decodes a chunk again whose stream did not join the one before, from where that one ended. */
static void redo_chunk(const struct sweep *sweep, struct chunk *chunk, uint64_t from,
                       struct code_part *part)
{
    uint64_t words = (chunk->end - chunk->begin + 63) / 64;
    memset(chunk->section->starts + chunk->begin / 64, 0, words * sizeof(uint64_t));
    part->ref_count = part->mark_count = 0;
    struct stream stream = {.code = sweep->code,
                            .table = sweep->table,
                            .section = chunk->section,
                            .part = part,
                            .at = from};
    sweep_chunk(&stream, chunk);
}

static size_t make_chunks(const struct code *code, struct chunk *chunks)
{
    size_t count = 0;
    for (size_t i = 0; i < code->section_count; i++) {
        const struct code_section *section = &code->sections[i];
        for (uint64_t begin = 0; begin < section->size; begin += CHUNK) {
            uint64_t left = section->size - begin;
            struct chunk chunk = {
                .section = section, .begin = begin, .end = begin + (left < CHUNK ? left : CHUNK)};
            if (chunks)
                chunks[count] = chunk;
            count++;
        }
    }
    return count;
}

/* The table, with the instructions that step() has to see taken out. */
static struct length_table *make_table(void)
{
    struct length_table *table = malloc(sizeof *table);
    if (!table)
        return NULL;
    length_table_fill(table);
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        bool one = opcode == 0xcc || code_sensitive[0][opcode >> 6] >> (opcode & 63) & 1;
        bool two = opcode == 0x0b || code_sensitive[1][opcode >> 6] >> (opcode & 63) & 1;
        for (unsigned next = 0; next < 256; next++) {
            if (one)
                table->entry[0][opcode << 8 | next] = LENGTH_ASK;
            if (two)
                table->entry[1][opcode << 8 | next] = LENGTH_ASK;
        }
        if (two)
            table->entry[0][0x0f << 8 | opcode] = LENGTH_ASK;
    }
    return table;
}

static void sweep_all(struct sweep *sweep, struct code *code)
{
    code_parallel(sweep->chunk_count, work_chunk, sweep);
    for (size_t i = 0; i < sweep->chunk_count; i++) {
        struct chunk *chunk = &sweep->chunks[i];
        if (i > 0 && chunk[-1].section == chunk->section && chunk[-1].next != chunk->first)
            redo_chunk(sweep, chunk, chunk[-1].next, &code->index->parts[i]);
        code->instruction_count += chunk->count;
    }
}

int code_linear(const struct image *image, struct code *code, struct error *err)
{
    struct sweep sweep = {.code = code, .chunk_count = make_chunks(code, NULL)};
    sweep.chunks = calloc(sweep.chunk_count + 1, sizeof *sweep.chunks);
    sweep.table = make_table();
    code->index->parts = calloc(sweep.chunk_count + 1, sizeof *code->index->parts);
    bool ready = sweep.chunks && sweep.table && code->index->parts;
    if (ready) {
        code->index->part_count = sweep.chunk_count;
        make_chunks(code, sweep.chunks);
        sweep_all(&sweep, code);
    }
    free(sweep.chunks);
    free(sweep.table);
    return ready ? 0 : fail(err, EXIT_IO, "%s: out of memory", image->name);
}
