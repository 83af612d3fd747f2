/* SPDX-License-Identifier: MIT */
/* Fuzzes image/kallsyms.c. Input: a byte of choices (bit 0: a 32-bit image; bit 1: without
 * sections), then the bytes of .rodata. */
#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/kallsyms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    unsigned choice = data[0];
    struct image_section section = {.name = ".rodata",
                                    .type = SHT_PROGBITS,
                                    .flags = SHF_ALLOC,
                                    .address = UINT64_C(0xffffffff81000000),
                                    .size = size - 1};
    struct image_segment segment = {.type = PT_LOAD,
                                    .vaddr = choice & 1 ? 0xc1000000 : UINT64_C(0xffffffff81000000),
                                    .file_size = size - 1,
                                    .mem_size = 1 << 20};
    struct image image = {.name = "fuzz",
                          .bytes = data + 1,
                          .size = size - 1,
                          .elf_class = choice & 1 ? 32 : 64,
                          .segments = &segment,
                          .segment_count = 1,
                          .sections = &section,
                          .section_count = choice & 2 ? 0 : 1};
    void *storage = NULL;
    struct error err = {0};
    long count = kallsyms_read(&image, &storage, &err);
    if (count < 0 || (size_t)count != image.symbol_count || (count > 0) != (storage != NULL))
        abort();
    size_t length = 0;
    for (long i = 0; i < count; i++)
        length += strlen(image.symbols[i].name);
    volatile size_t use = length; /* a sanitizer sees names that do not end */
    (void)use;
    free(image.symbols);
    free(storage);
    return 0;
}
