/* SPDX-License-Identifier: MIT */
/* Finds the ELF note by which a patched image is recognised. */
#include "image/patched_note.h"

#include <elf.h>
#include <string.h>

/* Looks for the note in bytes [offset, offset + size) of the file, which the reader has bounded.
 * Notes are aligned to 4 bytes, in ELF64 files too, unless the segment says 8 (gABI, "Note
 * Section"). */
static bool note_in_range(const struct image *image, uint64_t offset, uint64_t size, uint64_t align,
                          struct pv_note *note, uint64_t *note_file, uint64_t *descriptor_file)
{
    uint64_t mask = align == 8 ? 7 : 3;
    uint64_t at = 0;
    while (at <= size && size - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr header; /* the same layout in both ELF classes */
        memcpy(&header, image->bytes + offset + at, sizeof header);
        uint64_t name = at + sizeof header;
        uint64_t descriptor = name + ((header.n_namesz + mask) & ~mask);
        uint64_t next = descriptor + ((header.n_descsz + mask) & ~mask);
        if (descriptor > size || header.n_descsz > size - descriptor)
            return false;
        if (header.n_type == PV_NOTE_TYPE && header.n_namesz == sizeof PV_NOTE_NAME &&
            header.n_descsz >= sizeof *note &&
            memcmp(image->bytes + offset + name, PV_NOTE_NAME, sizeof PV_NOTE_NAME) == 0) {
            memcpy(note, image->bytes + offset + descriptor, sizeof *note);
            *note_file = offset + at;
            *descriptor_file = offset + descriptor;
            return true;
        }
        at = next; /* at least 12 more: the loop ends */
    }
    return false;
}

bool patched_note_find(const struct image *image, struct pv_note *note, uint64_t *note_file,
                       uint64_t *descriptor_file)
{
    uint64_t ignored[2];
    if (!note_file)
        note_file = &ignored[0];
    if (!descriptor_file)
        descriptor_file = &ignored[1];
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type == PT_NOTE && note_in_range(image, s->offset, s->file_size, s->align, note,
                                                note_file, descriptor_file))
            return true;
    }
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *s = &image->sections[i];
        if (s->type == SHT_NOTE &&
            note_in_range(image, s->offset, s->size, s->align, note, note_file, descriptor_file))
            return true;
    }
    return false;
}
