/* SPDX-License-Identifier: MIT */
/* Routine space: long runs of padding in mapped text, or an appended segment. */
#include "patchc/space.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "image/length.h"

#define RUN_MIN      256u        /* shorter padding is left for islands */
#define RUN_MARGIN   16u         /* the start of a run is left to windows and islands before it */
#define APPENDED_MAX (64u << 20) /* bytes of an appended segment */
#define PAGE         4096u

/* Linux frees its init sections after boot: no code may stay there. */
static bool stays_mapped(const struct code *code, const struct code_section *section)
{
    return section->executable && (!code->linux_image || !strcmp(section->name, ".text"));
}

static int add_run(struct space *space, uint64_t address, uint64_t size, struct error *err)
{
    if (space->count % 16 == 0) {
        struct space_run *grown = realloc(space->runs, (space->count + 16) * sizeof *space->runs);
        if (!grown)
            return fail(err, EXIT_IO, "out of memory");
        space->runs = grown;
    }
    space->runs[space->count++] = (struct space_run){address, size, 0};
    space->total += size;
    return 0;
}

/* INT3 runs that nothing refers to. The first bytes stay: a call that never returns may end there,
 * or a window reach into them. */
static int find_runs(const struct code *code, const struct code_section *section,
                     struct space *space, struct error *err)
{
    const uint8_t *bytes = section->bytes, *end = bytes + section->size;
    for (const uint8_t *p = bytes; p < end && (p = memchr(p, 0xcc, (size_t)(end - p)));) {
        const uint8_t *q = p;
        while (q < end && *q == 0xcc)
            q++;
        uint64_t from = (uint64_t)(p - bytes) + RUN_MARGIN, to = (uint64_t)(q - bytes);
        p = q;
        for (uint64_t i = from; i < to; i++) {
            /* A target splits the run. */
            if (section->targets[i / 64] == 0) {
                i |= 63;
                continue;
            }
            if (!(section->targets[i / 64] >> (i % 64) & 1))
                continue;
            if (i - from >= RUN_MIN && add_run(space, section->address + from, i - from, err))
                return -1;
            from = i + 1;
        }
        if (to > from && to - from >= RUN_MIN &&
            add_run(space, section->address + from, to - from, err))
            return -1;
    }
    (void)code;
    return 0;
}

static int compare_size(const void *a, const void *b)
{
    const struct space_run *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return x->address < y->address ? -1 : x->address > y->address;
}

/* Behind everything that the image loads: guest-linear and physical, in step. */
static void appended_segment(const struct image *image, struct space *space)
{
    uint64_t end = 0, physical = 0;
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type != PT_LOAD || s->vaddr + s->mem_size < end)
            continue;
        end = s->vaddr + s->mem_size;
        physical = s->paddr + s->mem_size;
    }
    uint64_t pad = (PAGE - end % PAGE) % PAGE, limit = APPENDED_MAX;
    end += pad;
    physical += pad;
    /* Another segment may stand behind it physically, or where it would begin. */
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type != PT_LOAD || s->paddr + s->mem_size <= physical)
            continue;
        uint64_t room = s->paddr > physical ? s->paddr - physical : 0;
        limit = room < limit ? room : limit;
    }
    if (!limit)
        return; /* nothing can be appended */
    space->appended = true;
    space->appended_address = end;
    space->appended_physical = physical;
    space->appended_limit = limit;
    space->total += limit;
}

int space_open(const struct image *image, const struct code *code, bool assume_reserved,
               struct space *space, struct error *err)
{
    *space = (struct space){0};
    for (size_t i = 0; i < code->section_count; i++)
        if (stays_mapped(code, &code->sections[i]) &&
            find_runs(code, &code->sections[i], space, err))
            return -1;
    if (space->count)
        qsort(space->runs, space->count, sizeof *space->runs, compare_size);
    if (assume_reserved)
        appended_segment(image, space);
    return 0;
}

void space_close(struct space *space)
{
    free(space->runs);
    *space = (struct space){0};
}

uint64_t space_take_appended(struct space *space, uint64_t size, uint64_t align, uint64_t low,
                             uint64_t high)
{
    if (!space->appended)
        return 0;
    uint64_t at = (space->appended_address + space->appended_used + align - 1) & ~(align - 1);
    uint64_t used = at + size - space->appended_address;
    if (used > space->appended_limit || at < low || at + size > high)
        return 0;
    space->used += used - space->appended_used;
    space->appended_used = used;
    return at;
}

uint64_t space_take(struct space *space, uint64_t size, uint64_t align, uint64_t low, uint64_t high)
{
    for (size_t i = 0; i < space->count; i++) {
        struct space_run *run = &space->runs[i];
        uint64_t at = (run->address + run->used + align - 1) & ~(align - 1);
        if (at < low)
            at = (low + align - 1) & ~(align - 1);
        uint64_t end = run->address + run->size;
        if (at < run->address + run->used || at >= end || end - at < size || at + size > high ||
            at + size < at)
            continue;
        space->used += at + size - (run->address + run->used);
        run->used = at + size - run->address;
        return at;
    }
    return space_take_appended(space, size, align, low, high);
}
