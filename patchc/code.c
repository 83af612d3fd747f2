/* SPDX-License-Identifier: MIT */
/* The code map: sections, bit maps, and what can be asked of them at one address. */
#include "patchc/code.h"

#include <elf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/code_index.h"

static int by_address(const void *a, const void *b)
{
    const struct code_section *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->section < y->section ? -1 : x->section > y->section;
}

static void add_section(struct code *code, const struct image *image, uint32_t index,
                        const char *name, bool executable, uint64_t address, uint64_t offset,
                        uint64_t size)
{
    if (size == 0 || address + size < address)
        return;
    code->sections[code->section_count++] = (struct code_section){
        .section = index,
        .name = name,
        .executable = executable,
        .address = address,
        .size = size,
        .bytes = image->bytes + offset,
    };
}

/* Collects the executable sections; without section headers the executable segments. Where control
 * flow is followed, those with data too: boot code runs before page tables forbid it, and some of
 * it stands in .data. */
static int collect_sections(const struct image *image, struct code *code, struct error *err)
{
    size_t executable = 0;
    size_t room =
        image->section_count > image->segment_count ? image->section_count : image->segment_count;
    code->sections = calloc(room ? room : 1, sizeof *code->sections);
    if (!code->sections)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *s = &image->sections[i];
        bool runs = s->flags & SHF_EXECINSTR;
        if (s->type == SHT_PROGBITS && (s->flags & SHF_ALLOC) && (runs || !code->index->linear))
            add_section(code, image, (uint32_t)i, s->name, runs, s->address, s->offset, s->size);
    }
    for (size_t i = 0; i < image->segment_count && image->section_count == 0; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type == PT_LOAD)
            add_section(code, image, UINT32_MAX, "", s->flags & PF_X, s->vaddr, s->offset,
                        s->file_size);
    }
    for (size_t i = 0; i < code->section_count; i++)
        executable += code->sections[i].executable;
    if (executable == 0)
        return fail(err, EXIT_INPUT, "%s: no executable section or segment with bytes in the file",
                    image->name);
    qsort(code->sections, code->section_count, sizeof *code->sections, by_address);
    return 0;
}

/* Lays the sections out in the flat index. Of two that claim the same addresses the first counts.
 */
static int lay_out(const struct image *image, struct code *code, struct error *err)
{
    size_t kept = 0;
    uint64_t flat = 0, end = 0;
    for (size_t i = 0; i < code->section_count; i++) {
        struct code_section *s = &code->sections[i];
        if (kept && s->address < end)
            continue;
        end = s->address + s->size;
        s->flat = (uint32_t)flat;
        flat += (s->size + 63) / 64 * 64;
        if (flat > CODE_BITS_MAX || flat > image->size + 64 * code->section_count)
            return fail(err, EXIT_INPUT,
                        "%s: executable sections claim more bytes than the file has (or %u MB)",
                        image->name, (unsigned)CODE_BITS_MAX >> 20);
        code->sections[kept++] = *s;
    }
    code->section_count = kept;
    code->index->bits = (uint32_t)flat;
    return 0;
}

static int allocate_bits(const struct image *image, struct code *code, struct error *err)
{
    struct code_index *index = code->index;
    size_t words = index->bits / 64 ? index->bits / 64 : 1;
    index->block = calloc(words, 5 * sizeof *index->block);
    if (!index->block)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    index->starts = index->block;
    index->targets = index->block + words;
    index->other_mode = index->block + 2 * words;
    index->branched = index->block + 3 * words;
    index->overlap = index->block + 4 * words;
    for (size_t i = 0; i < code->section_count; i++) {
        struct code_section *s = &code->sections[i];
        s->starts = index->starts + s->flat / 64;
        s->targets = index->targets + s->flat / 64;
        s->other_mode = index->other_mode + s->flat / 64;
        s->branched = index->branched + s->flat / 64;
        s->overlap = index->overlap + s->flat / 64;
    }
    return 0;
}

/* Data in which no code was found is not code after all. */
static void drop_data(struct code *code)
{
    size_t kept = 0;
    for (size_t i = 0; i < code->section_count; i++) {
        const struct code_section *s = &code->sections[i];
        bool reached = s->executable;
        for (uint64_t word = 0; word < (s->size + 63) / 64 && !reached; word++)
            reached = s->starts[word] | s->other_mode[word];
        if (reached)
            code->sections[kept++] = *s;
    }
    code->section_count = kept;
}

int code_open(const struct image *image, const struct relocs *relocs, struct code *code,
              struct error *err)
{
    (void)relocs;
    memset(code, 0, sizeof *code);
    code->linux_image = image_is_linux(image);
    code->index = calloc(1, sizeof *code->index);
    if (!code->index)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    /* Without section headers text cannot be told from data: a linear sweep would prove nothing. */
    bool linear = code->linux_image && image->section_count && image->elf_class == 64;
    code->index->linear = linear;
    int result = collect_sections(image, code, err);
    if (result == 0)
        result = lay_out(image, code, err);
    if (result == 0)
        result = allocate_bits(image, code, err);
    if (result == 0 && linear)
        result = code_linear(image, code, err);
    if (result == 0)
        result = code_follow(image, code, linear, err);
    if (result == 0)
        result = code_settle(image, code, err);
    if (result == 0)
        drop_data(code);
    if (result == 0 && !linear)
        code_unproved_targets(code);
    if (result != 0)
        code_close(code);
    return result;
}

void code_close(struct code *code)
{
    struct code_index *index = code->index;
    if (index) {
        for (size_t i = 0; i < index->part_count; i++) {
            free(index->parts[i].refs);
            free(index->parts[i].marks);
        }
        free(index->parts);
        free(index->marks);
        free(index->block);
        free(index);
    }
    free(code->sections);
    memset(code, 0, sizeof *code);
}

const struct code_section *code_section_at(const struct code *code, uint64_t address)
{
    size_t low = 0, high = code->section_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct code_section *s = &code->sections[middle];
        if (address < s->address)
            high = middle;
        else if (address - s->address >= s->size)
            low = middle + 1;
        else
            return s;
    }
    return NULL;
}

const struct code_section *code_flat_section(const struct code *code, uint32_t flat)
{
    size_t low = 0, high = code->section_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        *(code->sections[middle].flat <= flat ? &low : &high) = middle;
    }
    return &code->sections[low];
}

bool code_is_start(const struct code *code, uint64_t address)
{
    const struct code_section *s = code_section_at(code, address);
    return s && bit_get(s->starts, address - s->address);
}

bool code_is_target(const struct code *code, uint64_t address)
{
    const struct code_section *s = code_section_at(code, address);
    return s && bit_get(s->targets, address - s->address);
}

bool code_is_other_mode(const struct code *code, uint64_t address)
{
    const struct code_section *s = code_section_at(code, address);
    return s && bit_get(s->other_mode, address - s->address);
}

void code_add_target(struct code *code, uint64_t address)
{
    const struct code_section *s = code_section_at(code, address);
    if (s)
        bit_set(s->targets, address - s->address);
}

bool code_is_overlap(const struct code *code, uint64_t address)
{
    const struct code_section *s = code_section_at(code, address);
    return s && bit_get(s->overlap, address - s->address);
}

uint64_t code_previous(const struct code *code, uint64_t address)
{
    const struct code_section *s = code_section_at(code, address);
    if (!s && address)
        s = code_section_at(code, address - 1); /* the end of a section */
    if (!s)
        return 0;
    uint64_t end = address - s->address;
    for (uint64_t back = 1; back <= 15 && back <= end; back++) {
        struct length_info info;
        if (!bit_get(s->starts, end - back))
            continue;
        unsigned length = length_decode(s->bytes + end - back, s->size - (end - back), &info);
        return length == back ? address - back : 0;
    }
    return 0;
}

void code_set_start(struct code *code, const struct code_section *section, uint64_t offset)
{
    if (bit_get(section->starts, offset))
        return;
    bit_set(section->starts, offset);
    code->instruction_count += section->bytes[offset] != 0xcc;
}

void code_clear_start(struct code *code, const struct code_section *section, uint64_t offset)
{
    if (!bit_get(section->starts, offset))
        return;
    bit_clear(section->starts, offset);
    code->instruction_count -= section->bytes[offset] != 0xcc;
}

uint64_t code_int3_run(const uint8_t *bytes, uint64_t at, uint64_t size)
{
    uint64_t end = at, word;
    while (size - end >= 8) {
        memcpy(&word, bytes + end, 8);
        if (word != 0xccccccccccccccccull)
            break;
        end += 8;
    }
    while (end < size && bytes[end] == 0xcc)
        end++;
    return end - at;
}

struct crew {
    void (*work)(void *context, size_t job);
    void *context;
    size_t jobs;
    atomic_size_t next;
};

static void *crew_member(void *argument)
{
    struct crew *crew = argument;
    for (size_t job; (job = atomic_fetch_add(&crew->next, 1)) < crew->jobs;)
        crew->work(crew->context, job);
    return NULL;
}

void code_parallel(size_t jobs, void (*work)(void *context, size_t job), void *context)
{
    struct crew crew = {.work = work, .context = context, .jobs = jobs};
    pthread_t second;
    bool two = jobs > 1 && pthread_create(&second, NULL, crew_member, &crew) == 0;
    crew_member(&crew);
    if (two)
        pthread_join(second, NULL);
}
