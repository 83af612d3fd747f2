/* SPDX-License-Identifier: MIT */
/* A small but complete kernel image, built in memory: what reader and writer tests start from. */
#ifndef TESTS_UNIT_TINY_ELF_H
#define TESTS_UNIT_TINY_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

#define TINY_BASE_64  UINT64_C(0xffffffff81000000) /* vaddr of file offset 0 in a 64-bit image */
#define TINY_BASE_32  UINT64_C(0x00100000)
#define TINY_PHYSICAL UINT64_C(0x01000000) /* paddr of file offset 0 in a 64-bit image */

struct tiny_options {
    int elf_class;    /* 32 or 64 */
    bool no_sections; /* no section headers (and no symbols) */
    bool no_symbols;
    bool headers_loaded; /* the first segment covers the headers */
    const void *text;    /* code; NULL: some NOPs and a RET */
    size_t text_size;    /* bytes */
    const void *rodata;  /* NULL: a few words */
    size_t rodata_size;
    const void *tail; /* trailing data behind all headers */
    size_t tail_size;
};

/* Sections are .text .rodata (segment 0, R E), .data .bss (segment 1, RW), .symtab .strtab
 * .shstrtab. Symbols: `_start` and `start_alias` at the first byte of .text, `second` 16 bytes
 * later (all functions, `second` local), `text_end` behind .text, `word` in .data, `twice` in .data
 * and .bss, `room` in .bss, `constant` (absolute). */
struct tiny {
    uint8_t *bytes;              /* malloc'd */
    size_t size;                 /* bytes */
    uint64_t base;               /* guest-linear address of file offset 0 for segment 0 */
    uint64_t data_address;       /* of .data */
    uint64_t text, rodata, data; /* file offsets */
    uint64_t text_size, rodata_size, data_size, bss_size;
    uint64_t program_headers, section_headers; /* file offsets */
    size_t section_count;
    uint64_t end; /* file offset where the trailing data begin */
};

void tiny_build(const struct tiny_options *options, struct tiny *tiny);
void tiny_free(struct tiny *tiny);

/* Stores `size` (1 to 8) bytes of `value`, little-endian. */
void tiny_put(uint8_t *bytes, uint64_t offset, unsigned size, uint64_t value);

/* Aborts with a message if the image breaks a promise of image/image.h. Reads every byte that it
 * offers. */
void check_image(const struct image *image);

/* True if the text is one line that names something and ends without a newline. */
bool is_one_line(const struct error *err);

#endif
