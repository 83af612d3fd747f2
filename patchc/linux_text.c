/* SPDX-License-Identifier: MIT */
/* Executable bytes of a Linux image and the few instructions that its tables name. */
#include "patchc/linux_text.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

static int by_size(const void *left, const void *right)
{
    const struct linux_text_range *a = left, *b = right;
    if (a->size != b->size)
        return a->size > b->size ? -1 : 1;
    return (a->start > b->start) - (a->start < b->start);
}

int linux_text_open(const struct image *image, struct linux_text *text, struct error *err)
{
    size_t limit = image->section_count + image->segment_count;
    text->count = 0;
    text->ranges = calloc(limit ? limit : 1, sizeof *text->ranges);
    if (!text->ranges)
        return fail(err, EXIT_IO, "%s: no memory for %zu sections", image->name, limit);
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *section = &image->sections[i];
        const uint8_t *bytes;
        if (section->type != SHT_PROGBITS || !(section->flags & SHF_ALLOC) ||
            !(section->flags & SHF_EXECINSTR) || !section->size ||
            !(bytes = image_at(image, section->address, section->size)))
            continue;
        text->ranges[text->count++] =
            (struct linux_text_range){section->address, section->size, bytes};
    }
    for (size_t i = 0; i < image->segment_count && !image->section_count; i++) {
        const struct image_segment *segment = &image->segments[i];
        const uint8_t *bytes;
        if (segment->type != PT_LOAD || !(segment->flags & PF_X) || !segment->file_size ||
            !(bytes = image_at(image, segment->vaddr, segment->file_size)))
            continue;
        text->ranges[text->count++] =
            (struct linux_text_range){segment->vaddr, segment->file_size, bytes};
    }
    qsort(text->ranges, text->count, sizeof *text->ranges, by_size);
    return 0;
}

void linux_text_close(struct linux_text *text)
{
    free(text->ranges);
    *text = (struct linux_text){0};
}

unsigned linux_jump_label(const uint8_t *code, uint64_t available, bool *jump,
                          int32_t *displacement)
{
    static const uint8_t nop2[] = {0x66, 0x90}, nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    *jump = false;
    *displacement = 0;
    if (available < 2)
        return 0;
    if (code[0] == 0xeb) {
        *jump = true;
        *displacement = (int8_t)code[1];
        return 2;
    }
    if (!memcmp(code, nop2, sizeof nop2))
        return 2;
    if (available < 5)
        return 0;
    if (code[0] == 0xe9) {
        *jump = true;
        memcpy(displacement, code + 1, sizeof *displacement);
        return 5;
    }
    return memcmp(code, nop5, sizeof nop5) ? 0 : 5;
}

unsigned linux_branch(const uint8_t *code, uint64_t available)
{
    unsigned prefix = available && code[0] == 0x2e;
    if (available < prefix + 5u)
        return 0;
    code += prefix;
    if (code[0] == 0xe8 || code[0] == 0xe9)
        return prefix + 5;
    return code[0] == 0x0f && (code[1] & 0xf0) == 0x80 && available >= prefix + 6u ? prefix + 6 : 0;
}
