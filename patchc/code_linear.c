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

/* The int3 at `at`: where the stream goes on, and whether each byte of its run is a start. */
static uint64_t int3_run(const struct code_section *section, uint64_t at, bool *padding)
{
    uint64_t back = 0;
    while (back < CODE_PADDING && back < at && section->bytes[at - back - 1] == 0xcc)
        back++;
    uint64_t run = code_int3_run(section->bytes, at, section->size);
    *padding = run + back >= CODE_PADDING;
    return at + (*padding ? run : 1);
}

/* Decodes from `at`, which is not after chunk->begin, until the first start at or after chunk->end.
 */
static void sweep_chunk(const struct code *code, struct chunk *chunk, uint64_t at,
                        struct code_part *part)
{
    const struct code_section *section = chunk->section;
    const uint8_t *bytes = section->bytes;
    bool entered = false;
    while (at < section->size) {
        if (at >= chunk->begin) {
            if (!entered)
                chunk->first = at;
            entered = true;
            if (at >= chunk->end)
                break;
        }
        if (bytes[at] == 0xcc) {
            bool padding;
            uint64_t next = int3_run(section, at, &padding);
            if (entered && !padding)
                bit_set(section->starts, at);
            at = next;
            continue;
        }
        struct length_info info;
        unsigned length = length_decode(bytes + at, section->size - at, &info);
        if (length == 0) {
            at++;
            continue;
        }
        if (info.flags & LENGTH_NO_FALL && is_xen_prefix(bytes + at, section->size - at)) {
            at += sizeof xen_prefix;
            continue;
        }
        if (entered) {
            bit_set(section->starts, at);
            chunk->count++;
            code_note(code, section, at, &info, part);
        }
        at += length;
    }
    if (!entered)
        chunk->first = at;
    chunk->next = at;
}

static void work_chunk(void *context, size_t job)
{
    struct sweep *sweep = context;
    struct chunk *chunk = &sweep->chunks[job];
    uint64_t from = chunk->begin < WARM_UP ? 0 : chunk->begin - WARM_UP;
    sweep_chunk(sweep->code, chunk, from, &sweep->code->index->parts[job]);
}

/* Decodes a chunk again whose stream did not join the one before, from where that one ended. */
static void redo_chunk(const struct code *code, struct chunk *chunk, uint64_t from,
                       struct code_part *part)
{
    uint64_t words = (chunk->end - chunk->begin + 63) / 64;
    memset(chunk->section->starts + chunk->begin / 64, 0, words * sizeof(uint64_t));
    part->ref_count = part->mark_count = 0;
    chunk->count = 0;
    if (from < chunk->end) {
        sweep_chunk(code, chunk, from, part);
    } else {
        chunk->first = chunk->next = from;
    }
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

int code_linear(const struct image *image, struct code *code, struct error *err)
{
    struct sweep sweep = {.code = code, .chunk_count = make_chunks(code, NULL)};
    sweep.chunks = calloc(sweep.chunk_count, sizeof *sweep.chunks);
    code->index->parts = calloc(sweep.chunk_count, sizeof *code->index->parts);
    if (!sweep.chunks || !code->index->parts) {
        free(sweep.chunks);
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    }
    code->index->part_count = sweep.chunk_count;
    make_chunks(code, sweep.chunks);
    code_parallel(sweep.chunk_count, work_chunk, &sweep);
    for (size_t i = 0; i < sweep.chunk_count; i++) {
        struct chunk *chunk = &sweep.chunks[i];
        if (i > 0 && chunk[-1].section == chunk->section && chunk[-1].next != chunk->first)
            redo_chunk(code, chunk, chunk[-1].next, &code->index->parts[i]);
        code->instruction_count += chunk->count;
    }
    free(sweep.chunks);
    return 0;
}
