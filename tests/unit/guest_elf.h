/* SPDX-License-Identifier: MIT */
/* Small guest kernels around given code: ELF files in memory, for tests of the code map. */
#ifndef TESTS_UNIT_GUEST_ELF_H
#define TESTS_UNIT_GUEST_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_TEXT       0x100000 /* guest-linear address of .text, and physical */
#define GUEST_DATA       0x4000000
#define GUEST_TEXT_LINUX UINT64_C(0xffffffff81000000) /* its physical address is GUEST_TEXT */

enum { GUEST_SYMBOLS = 16 };

struct guest_symbol {
    const char *name;
    uint64_t offset; /* in .text */
    uint64_t size;   /* 0: a label; else a function */
};

struct guest {
    int elf_class;     /* 32: EM_386, 64: EM_X86_64 */
    bool linux_banner; /* a Linux kernel, linked high */
    bool no_sections;
    const void *text;
    size_t text_size;
    const void *init; /* a second executable section, .init.text, right behind .text at 1 MB; NULL:
                       * none */
    size_t init_size;
    const void *data;
    size_t data_size;
    uint64_t entry;                             /* offset in .text */
    uint64_t pvh_entry;                         /* offset in .text; 0: no PVH note */
    struct guest_symbol symbols[GUEST_SYMBOLS]; /* up to the first without a name */
};

#define GUEST_INIT 0x100000 /* distance of .init.text from .text */

/* The ELF file: malloc'd, *size bytes. */
uint8_t *guest_build(const struct guest *guest, size_t *size);

#endif
