/* SPDX-License-Identifier: MIT */
/* Composing the patched ELF: the original with edits, what was added, and the trailing data.
 *
 *   [0, elf_end)      the original's bytes with in-place edits
 *   added             new sections' data, new section names, new section header table, new program
 *                     header table if it cannot grow in place, a new segment's data
 *   [elf_end, size)   the original's trailing data with edits and one insertion: on Linux the
 *                     relocation table, which stays the last thing in the file
 *
 * This is the layout that struct pv_original describes. The added part's size is a multiple of 16,
 * so the trailing data keep their alignment. The old section names and section header table stay
 * where they are, unused.
 *
 * Use: fill the inputs; compose_begin() says which bytes it will edit itself; with all sizes known,
 * compose_layout() places everything; then the sections' data may be filled in; compose_pieces()
 * gives the file. */
#ifndef IMAGE_COMPOSE_H
#define IMAGE_COMPOSE_H

#include <sys/uio.h>

#include "image/image.h"

struct compose_section { /* not loaded by the guest */
    const char *name;
    uint32_t type;        /* SHT_PROGBITS, SHT_NOTE */
    const void *data;     /* needed when the pieces are read, not before */
    size_t size;          /* bytes; needed by compose_layout */
    uint64_t align;       /* a power of two */
    uint64_t file_offset; /* out */
};

struct compose_run { /* bytes of the original that compose edits in place */
    uint64_t offset, size;
};

#define COMPOSE_RUNS 3

struct compose {
    /* inputs */
    const struct image *image;
    const uint8_t *edited; /* image->size bytes: the original with the caller's edits */
    struct compose_section *sections;
    size_t section_count;
    int note_section;         /* index of the section that a new PT_NOTE describes; -1 = none */
    bool has_segment;         /* a new PT_LOAD: */
    const char *segment_name; /* section that covers it; NULL = none */
    uint64_t segment_vaddr;   /* guest-linear */
    uint64_t segment_paddr;   /* guest-physical */
    uint32_t segment_flags;   /* PF_* */
    const void *segment_data; /* needed when the pieces are read, not before */
    size_t segment_size;      /* bytes */
    uint64_t tail_insert_at;  /* original file offset in [elf_end, size]; unused if size is 0 */
    const void *tail_insert;
    size_t tail_insert_size; /* bytes; a multiple of 4 */

    /* set by compose_begin: sorted by offset; they depend on nothing that is not known then */
    struct compose_run runs[COMPOSE_RUNS];
    size_t run_count;
    bool moves_program_headers; /* the table could not grow in place */

    /* set by compose_layout */
    uint64_t segment_offset; /* file offset of the new segment's data */
    uint64_t added_size;     /* bytes */
    uint64_t output_size;    /* bytes */

    struct compose_state *state;
};

/* Each returns 0, or -1 with *err set. After any of them compose_free() is due. compose_begin needs
 * image, section_count, note_section, has_segment and segment_name only. */
int compose_begin(struct compose *compose, struct error *err);
int compose_layout(struct compose *compose, struct error *err);

/* The output file as pieces, nothing of it copied: *pieces is valid until compose_free(), and
 * points into image, edited, the sections' data and compose's own memory. */
int compose_pieces(struct compose *compose, const struct iovec **pieces, size_t *count,
                   struct error *err);
void compose_free(struct compose *compose);

/* XXH3_64bits of a file given as pieces. */
uint64_t compose_xxh3(const struct iovec *pieces, size_t count);

#endif
