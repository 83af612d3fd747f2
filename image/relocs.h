/* SPDX-License-Identifier: MIT */
/* The relocation table that a Linux build appends to vmlinux (arch/x86/tools/relocs): three lists
 * of 32-bit words, each preceded by a zero: 64-bit, inverse 32-bit, 32-bit relocations. The
 * decompressor walks it backwards from the end of the file, so it must stay the last thing there.
 * Kernels whose per-CPU data is not linked at 0 have no inverse list, 32-bit kernels only the
 * last: a list that is not there has count 0, and its offset and words are those of the next one's
 * zero. */
#ifndef IMAGE_RELOCS_H
#define IMAGE_RELOCS_H

#include "image/image.h"

enum reloc_kind { RELOC_64, RELOC_INVERSE_32, RELOC_32, RELOC_KINDS };

struct relocs {
    uint64_t table_offset;              /* file offset of the first zero */
    uint64_t offset[RELOC_KINDS];       /* file offset of each list's first word */
    size_t count[RELOC_KINDS];          /* words in each list */
    const uint32_t *words[RELOC_KINDS]; /* into image->bytes, unaligned: relocs_word */
    bool present;
};

/* Reads the table at the end of the image. An image without one gives present == false and 0.
 * -1 with *err set if the trailing data of a Linux image is not such a table. Every place (8 bytes
 * for the 64-bit list, else 4) has been checked to lie in the file bytes of a loadable segment. */
int relocs_read(const struct image *image, struct relocs *relocs, struct error *err);

/* Word `index` of a list: the words need not be aligned. */
uint32_t relocs_word(const struct relocs *relocs, enum reloc_kind kind, size_t index);

/* The kernel address that a word names: sign-extended to 64 bits. */
uint64_t relocs_address(uint32_t word);

/* The file offset of the place that a word names. The kernel's per-CPU segment is linked at virtual
 * address 0 but named by its load address, so the place is found as the decompressor finds it: by
 * physical address (word - 0xffffffff80000000). In a 32-bit image a word is a linked address. False
 * if no segment holds it. */
bool relocs_offset(const struct image *image, uint32_t word, uint64_t *offset);

#endif
