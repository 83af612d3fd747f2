/* SPDX-License-Identifier: MIT */
/* The relocation table behind a Linux image, read as the decompressor reads it: backwards from the
 * end of the file (arch/x86/boot/compressed/misc.c, handle_relocations). */
#include "image/relocs.h"
#include "image/reader.h"

#include <inttypes.h>
#include <string.h>

#define KERNEL_MAP  UINT64_C(0xffffffff80000000) /* where Linux x86-64 maps physical address 0 */
#define PADDING_MAX 4096u                        /* bytes of zeros between the ELF and the table */

uint64_t relocs_address(uint32_t word)
{
    return (uint64_t)(int64_t)(int32_t)word;
}

uint32_t relocs_word(const struct relocs *relocs, enum reloc_kind kind, size_t index)
{
    uint32_t word;
    memcpy(&word, (const uint8_t *)relocs->words[kind] + index * sizeof word, sizeof word);
    return word;
}

/* The file offset of `size` bytes that a word names. */
static bool find_place(const struct image *image, uint32_t word, uint64_t size, uint64_t *offset)
{
    const struct image_private *p = image_private(image);
    if (image->elf_class == 32)
        return image_offset(image, word, size, offset);
    uint64_t address = relocs_address(word), physical = address - KERNEL_MAP;
    if (address < KERNEL_MAP)
        return false;
    size_t low = 0, high = p->file_load_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image->segments[p->loads_by_paddr[middle]].paddr <= physical)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return false;
    const struct image_segment *segment = &image->segments[p->loads_by_paddr[low - 1]];
    uint64_t into = physical - segment->paddr;
    if (into >= segment->file_size || size > segment->file_size - into)
        return false;
    *offset = segment->offset + into;
    return true;
}

bool relocs_offset(const struct image *image, uint32_t word, uint64_t *offset)
{
    return find_place(image, word, 4, offset);
}

static uint32_t word_at(const struct image *image, uint64_t offset)
{
    uint32_t word;
    memcpy(&word, image->bytes + offset, sizeof word);
    return word;
}

/* Walks one list down from *end: it begins after the nearest zero. *end becomes that zero's offset.
 * False if there is no zero before the ELF's own bytes. */
static bool walk_list(const struct image *image, uint64_t *end, uint64_t *first, size_t *count)
{
    for (uint64_t at = *end; at - image->elf_end >= 4;) {
        at -= 4;
        if (word_at(image, at))
            continue;
        *first = at + 4;
        *count = (*end - *first) / 4;
        *end = at;
        return true;
    }
    return false;
}

static bool all_zero(const struct image *image, uint64_t end)
{
    for (uint64_t at = image->elf_end; at < end; at++)
        if (image->bytes[at])
            return false;
    return end - image->elf_end < PADDING_MAX;
}

/* Finds the lists. found[0] is the last in the file. */
static bool find_lists(const struct image *image, struct relocs *relocs)
{
    uint64_t first[RELOC_KINDS], end = image->size;
    size_t count[RELOC_KINDS], lists = 0, most = image->elf_class == 32 ? 1 : RELOC_KINDS;
    uint64_t zero[RELOC_KINDS];
    while (lists < most && walk_list(image, &end, &first[lists], &count[lists]))
        zero[lists++] = end;
    /* zeros that only pad the ELF look like an empty list: no kernel lacks 64-bit relocations */
    if (lists == 3 && !count[2] && count[1])
        lists = 2;
    if (!lists || (lists == 1 && most > 1) || !all_zero(image, zero[lists - 1]))
        return false;
    static const enum reloc_kind order[][RELOC_KINDS] = {
        {RELOC_32}, {RELOC_32, RELOC_64}, {RELOC_32, RELOC_INVERSE_32, RELOC_64}};
    relocs->table_offset = zero[lists - 1];
    for (size_t kind = 0; kind < RELOC_KINDS; kind++)
        relocs->offset[kind] = lists == 1 || kind == RELOC_64 ? zero[lists - 1] : zero[0];
    for (size_t i = 0; i < lists; i++) {
        relocs->offset[order[lists - 1][i]] = first[i];
        relocs->count[order[lists - 1][i]] = count[i];
    }
    for (size_t kind = 0; kind < RELOC_KINDS; kind++)
        relocs->words[kind] = (const uint32_t *)(const void *)(image->bytes + relocs->offset[kind]);
    return true;
}

int relocs_read(const struct image *image, struct relocs *relocs, struct error *err)
{
    *relocs = (struct relocs){0};
    if (all_zero(image, image->size) || !image_is_linux(image))
        return 0;
    if (!find_lists(image, relocs))
        return fail(
            err, EXIT_INPUT,
            "%s: offset 0x%zx: what follows the ELF is not Linux' relocation table; give the "
            "image as the kernel build or the distribution made it",
            image_private(image)->label, image->elf_end);
    for (size_t kind = 0; kind < RELOC_KINDS; kind++) {
        uint64_t size = kind == RELOC_64 ? 8 : 4, offset;
        for (size_t i = 0; i < relocs->count[kind]; i++)
            if (!find_place(image, relocs_word(relocs, kind, i), size, &offset))
                return fail(err, EXIT_INPUT,
                            "%s: offset 0x%" PRIx64 ": a relocation names 0x%" PRIx64
                            ", which no loadable segment holds; the file is damaged: get it again",
                            image_private(image)->label, relocs->offset[kind] + i * 4,
                            relocs_address(relocs_word(relocs, kind, i)));
    }
    relocs->present = true;
    return 0;
}
