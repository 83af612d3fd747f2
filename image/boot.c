/* SPDX-License-Identifier: MIT */
/* The marks that boot loaders look for in a kernel image. */
#include "image/boot.h"

#include <elf.h>
#include <string.h>

enum {
    NOTE_PVH_ENTRY = 18,       /* XEN_ELFNOTE_PHYS32_ENTRY (Xen, public/elfnote.h) */
    MULTIBOOT1_SEARCH = 8192,  /* Multiboot 0.6.96, 3.1: header within the first 8192 bytes */
    MULTIBOOT2_SEARCH = 32768, /* Multiboot2 2.0, 3.1.1 */
};
#define MULTIBOOT1_MAGIC 0x1badb002u
#define MULTIBOOT2_MAGIC 0xe85250d6u

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

bool image_multiboot(const struct image *image, struct multiboot_header *header)
{
    for (uint64_t at = 0; at + 12 <= image->size && at < MULTIBOOT1_SEARCH; at += 4) {
        const uint8_t *bytes = image->bytes + at;
        uint32_t flags = read_u32(bytes + 4);
        if (read_u32(bytes) != MULTIBOOT1_MAGIC ||
            MULTIBOOT1_MAGIC + flags + read_u32(bytes + 8) != 0)
            continue;
        *header = (struct multiboot_header){.offset = at, .flags = flags};
        header->has_addresses = flags & MULTIBOOT_ADDRESSES && at + 32 <= image->size;
        if (header->has_addresses) {
            header->header_address = read_u32(bytes + 12);
            header->load_address = read_u32(bytes + 16);
            header->load_end = read_u32(bytes + 20);
            header->bss_end = read_u32(bytes + 24);
            header->entry = read_u32(bytes + 28);
        }
        return true;
    }
    return false;
}

bool image_multiboot2(const struct image *image)
{
    for (uint64_t at = 0; at + 16 <= image->size && at < MULTIBOOT2_SEARCH; at += 8) {
        const uint8_t *header = image->bytes + at;
        if (read_u32(header) == MULTIBOOT2_MAGIC && read_u32(header + 4) == 0 &&
            MULTIBOOT2_MAGIC + read_u32(header + 8) + read_u32(header + 12) == 0)
            return true;
    }
    return false;
}

/* Finds the PVH entry in one segment of notes. */
static bool pvh_in_notes(const struct image *image, const struct image_segment *notes,
                         uint64_t *entry)
{
    const uint8_t *bytes = image->bytes + notes->offset;
    uint64_t at = 0;
    while (at + 12 <= notes->file_size) {
        uint64_t name_size = read_u32(bytes + at), size = read_u32(bytes + at + 4);
        uint32_t type = read_u32(bytes + at + 8);
        uint64_t name = at + 12, value = name + (name_size + 3) / 4 * 4;
        uint64_t next = value + (size + 3) / 4 * 4;
        if (value + size > notes->file_size || name + name_size > notes->file_size)
            return false;
        if (type == NOTE_PVH_ENTRY && name_size == 4 && memcmp(bytes + name, "Xen", 4) == 0 &&
            size >= 4) {
            *entry = read_u32(bytes + value);
            return true;
        }
        at = next;
    }
    return false;
}

bool image_pvh_entry(const struct image *image, uint64_t *entry)
{
    for (size_t i = 0; i < image->segment_count; i++)
        if (image->segments[i].type == PT_NOTE && pvh_in_notes(image, &image->segments[i], entry))
            return true;
    return false;
}
