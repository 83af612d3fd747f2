/* SPDX-License-Identifier: MIT */
/* A small Linux ELF64 image, assembled in memory: for unit tests and fuzz targets. Each section has
 * a loadable segment of its own. Header only: fuzz targets are linked with the libraries alone. */
#ifndef TESTS_LINUX_IMAGE_H
#define TESTS_LINUX_IMAGE_H

#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LINUX_IMAGE_TEXT UINT64_C(0xffffffff81000000) /* where the first section stands */
#define LINUX_IMAGE_STEP UINT64_C(0x10000)            /* to the next; also a section's most bytes */

enum { LINUX_IMAGE_SECTIONS = 24, LINUX_IMAGE_SYMBOLS = 512 };

struct linux_image {
    struct {
        const char *name;
        uint64_t flags;
        const void *bytes; /* borrowed until linux_image_build */
        size_t size;
    } sections[LINUX_IMAGE_SECTIONS];
    size_t section_count;
    struct {
        const char *name;
        uint64_t address;
        size_t section;
    } symbols[LINUX_IMAGE_SYMBOLS];
    size_t symbol_count;
    const void *trailer; /* relocation table, or NULL */
    size_t trailer_size;
    int headerless; /* without section headers */
};

static inline uint64_t linux_image_address(size_t section)
{
    return LINUX_IMAGE_TEXT + section * LINUX_IMAGE_STEP;
}

/* Adds a section; returns its guest-linear address. */
static inline uint64_t linux_image_add(struct linux_image *li, const char *name, uint64_t flags,
                                       const void *bytes, size_t size)
{
    size_t i = li->section_count;
    if (i == LINUX_IMAGE_SECTIONS || size > LINUX_IMAGE_STEP)
        abort();
    li->sections[i].name = name;
    li->sections[i].flags = SHF_ALLOC | flags;
    li->sections[i].bytes = bytes;
    li->sections[i].size = size;
    li->section_count++;
    return linux_image_address(i);
}

static inline void linux_image_symbol(struct linux_image *li, const char *name, uint64_t address)
{
    if (li->symbol_count == LINUX_IMAGE_SYMBOLS)
        abort();
    li->symbols[li->symbol_count].name = name;
    li->symbols[li->symbol_count].address = address;
    li->symbols[li->symbol_count].section = (address - LINUX_IMAGE_TEXT) / LINUX_IMAGE_STEP;
    li->symbol_count++;
}

/* A byte buffer that grows. */
struct linux_image_out {
    uint8_t *bytes;
    size_t size;
};

static inline size_t linux_image_put(struct linux_image_out *out, const void *bytes, size_t size)
{
    size_t at = out->size;
    out->bytes = realloc(out->bytes, at + size + 1);
    if (!out->bytes)
        abort();
    if (bytes)
        memcpy(out->bytes + at, bytes, size);
    else
        memset(out->bytes + at, 0, size);
    out->size += size;
    return at;
}

static inline void linux_image_align(struct linux_image_out *out)
{
    linux_image_put(out, NULL, -out->size & 15);
}

/* Puts .symtab and .strtab; fills their headers. */
static inline void linux_image_put_symbols(const struct linux_image *li,
                                           struct linux_image_out *out, Elf64_Shdr *symtab,
                                           Elf64_Shdr *strtab)
{
    struct linux_image_out names = {0};
    linux_image_put(&names, "", 1);
    *symtab = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
                           .sh_offset = linux_image_put(out, NULL, sizeof(Elf64_Sym)),
                           .sh_entsize = sizeof(Elf64_Sym),
                           .sh_info = 1,
                           .sh_addralign = 8};
    for (size_t i = 0; i < li->symbol_count; i++) {
        size_t section = li->symbols[i].section;
        Elf64_Sym symbol = {.st_name = (Elf64_Word)names.size,
                            .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE),
                            .st_shndx = section < li->section_count ? (Elf64_Section)(section + 1)
                                                                    : (Elf64_Section)SHN_ABS,
                            .st_value = li->symbols[i].address};
        linux_image_put(&names, li->symbols[i].name, strlen(li->symbols[i].name) + 1);
        linux_image_put(out, &symbol, sizeof symbol);
    }
    symtab->sh_size = out->size - symtab->sh_offset;
    *strtab = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_size = names.size, .sh_addralign = 1};
    strtab->sh_offset = linux_image_put(out, names.bytes, names.size);
    free(names.bytes);
    linux_image_align(out);
}

/* The image: malloc'd, the caller's. */
static inline uint8_t *linux_image_build(const struct linux_image *li, size_t *size)
{
    struct linux_image_out out = {0}, names = {0};
    size_t n = li->section_count, total = n + 4; /* null, .symtab, .strtab, .shstrtab */
    Elf64_Phdr segments[LINUX_IMAGE_SECTIONS] = {0};
    Elf64_Shdr sections[LINUX_IMAGE_SECTIONS + 4] = {0};
    linux_image_put(&out, NULL, sizeof(Elf64_Ehdr) + n * sizeof *segments);
    linux_image_align(&out);
    linux_image_put(&names, "", 1);
    for (size_t i = 0; i < n; i++) {
        uint64_t address = linux_image_address(i);
        size_t at = linux_image_put(&out, li->sections[i].bytes, li->sections[i].size);
        segments[i] = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_flags = li->sections[i].flags & SHF_EXECINSTR ? PF_R | PF_X
                                                                                    : PF_R | PF_W,
                                   .p_offset = at,
                                   .p_vaddr = address,
                                   .p_paddr = address - UINT64_C(0xffffffff80000000),
                                   .p_filesz = li->sections[i].size,
                                   .p_memsz = li->sections[i].size};
        sections[i + 1] = (Elf64_Shdr){.sh_name = (Elf64_Word)names.size,
                                       .sh_type = SHT_PROGBITS,
                                       .sh_flags = li->sections[i].flags,
                                       .sh_addr = address,
                                       .sh_offset = at,
                                       .sh_size = li->sections[i].size,
                                       .sh_addralign = 1};
        linux_image_put(&names, li->sections[i].name, strlen(li->sections[i].name) + 1);
        linux_image_align(&out);
    }
    linux_image_put_symbols(li, &out, &sections[n + 1], &sections[n + 2]);
    sections[n + 1].sh_link = (Elf64_Word)n + 2;
    sections[n + 3] = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_size = names.size, .sh_addralign = 1};
    sections[n + 3].sh_offset = linux_image_put(&out, names.bytes, names.size);
    free(names.bytes);
    if (!li->symbol_count)
        sections[n + 1].sh_type = sections[n + 2].sh_type = SHT_NULL;
    linux_image_align(&out);
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_entry = 0x1000000,
                         .e_phoff = sizeof header,
                         .e_ehsize = sizeof header,
                         .e_phentsize = sizeof *segments,
                         .e_phnum = (Elf64_Half)n};
    if (!li->headerless) {
        header.e_shoff = linux_image_put(&out, sections, total * sizeof *sections);
        header.e_shentsize = sizeof *sections;
        header.e_shnum = (Elf64_Half)total;
        header.e_shstrndx = (Elf64_Half)(n + 3);
    }
    if (li->trailer)
        linux_image_put(&out, li->trailer, li->trailer_size);
    memcpy(out.bytes, &header, sizeof header);
    memcpy(out.bytes + sizeof header, segments, n * sizeof *segments);
    *size = out.size;
    return out.bytes;
}

#endif
