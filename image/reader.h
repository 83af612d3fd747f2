/* SPDX-License-Identifier: MIT */
/* Inside the image reader: what its files share, and nobody else includes. */
#ifndef IMAGE_READER_H
#define IMAGE_READER_H

#include <stdatomic.h>

#include "image/image.h"

/* No kernel comes near these; a file that claims more costs no more than saying so. */
#define FILE_LIMIT    ((uint64_t)4 << 30) /* bytes of an input file */
#define UNPACK_LIMIT  ((size_t)1 << 30)   /* bytes of an unpacked payload */
#define SECTION_LIMIT 65536u
#define SEGMENT_LIMIT 65534u

struct image_private {
    char *label; /* what messages call the bytes: the file's name, or the name of its payload */
    void *map;   /* the file, if image_open mapped one */
    size_t map_size;
    int fd;            /* the mapped file; -1 = none */
    uint8_t *unpacked; /* malloc'd payload of a bzImage */
    void *kallsyms;    /* holds the names that kallsyms_read found */

    uint32_t *loads_by_address; /* PT_LOAD segments with memory, sorted by vaddr */
    size_t load_count;
    uint32_t *loads_by_offset; /* PT_LOAD segments with file bytes, sorted by file offset */
    uint32_t *loads_by_paddr;  /* the same, sorted by physical address: these may overlap */
    size_t file_load_count;
    uint32_t *sections_by_address; /* allocated sections, sorted by address */
    size_t allocated_count;

    uint32_t *symbol_slots; /* hash table by name: symbol index + 1, 0 = empty */
    size_t symbol_mask;
    atomic_int is_linux; /* 0: not looked for yet; 1: no; 2: yes */
};

static inline struct image_private *image_private(const struct image *image)
{
    return image->private_data;
}

/* True if the bytes start as an ELF file does. */
bool elf_detect(const uint8_t *bytes, size_t size);

/* Reads image->bytes: segments, sections, symbol table, the orders above. */
int elf_read(struct image *image, struct error *err);

/* True if the bytes start as a Linux bzImage does. */
bool bzimage_detect(const uint8_t *bytes, size_t size);

/* Finds and unpacks the payload: *out (malloc'd, the caller's) of *out_size bytes. */
int bzimage_unpack(const char *name, const uint8_t *bytes, size_t size, uint8_t **out,
                   size_t *out_size, struct error *err);

/* Unpacks a kernel payload, whatever its format. offset: where it stands in the file, for messages.
 */
int unpack(const char *name, uint64_t offset, const uint8_t *bytes, size_t size, uint8_t **out,
           size_t *out_size, struct error *err);

/* Memory for tens of megabytes that are written once: with small pages the faults would cost more
 * than the writing. NULL if there is none; free() releases it. */
uint8_t *allocate_large(size_t size);

/* Sorts image->symbols and builds the index of names. */
int symbols_index(struct image *image, struct error *err);

#endif
