/* SPDX-License-Identifier: MIT */
/* Building small kernel images, and checking what a reader made of any image. */
#include "tests/unit/tiny_elf.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_AT = 0x200, DATA_SHIFT = 0x1000, BSS_SIZE = 0x40 };

void tiny_put(uint8_t *bytes, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        bytes[offset + i] = value >> 8 * i;
}

static void put_segment(const struct tiny_options *o, struct tiny *t, int index, uint32_t flags,
                        uint64_t offset, uint64_t shift, uint64_t file_size, uint64_t mem_size)
{
    uint64_t vaddr = t->base + offset + shift;
    uint64_t paddr = o->elf_class == 64 ? TINY_PHYSICAL + offset + shift : vaddr;
    if (o->elf_class == 64) {
        Elf64_Phdr h = {.p_type = PT_LOAD,
                        .p_flags = flags,
                        .p_offset = offset,
                        .p_vaddr = vaddr,
                        .p_paddr = paddr,
                        .p_filesz = file_size,
                        .p_memsz = mem_size,
                        .p_align = 0x200};
        memcpy(t->bytes + t->program_headers + index * sizeof h, &h, sizeof h);
    } else {
        Elf32_Phdr h = {.p_type = PT_LOAD,
                        .p_flags = flags,
                        .p_offset = offset,
                        .p_vaddr = vaddr,
                        .p_paddr = paddr,
                        .p_filesz = file_size,
                        .p_memsz = mem_size,
                        .p_align = 0x200};
        memcpy(t->bytes + t->program_headers + index * sizeof h, &h, sizeof h);
    }
}

static void put_section(const struct tiny_options *o, struct tiny *t, int index, Elf64_Shdr h)
{
    if (o->elf_class == 64) {
        memcpy(t->bytes + t->section_headers + index * sizeof h, &h, sizeof h);
        return;
    }
    Elf32_Shdr n = {.sh_name = h.sh_name,
                    .sh_type = h.sh_type,
                    .sh_flags = h.sh_flags,
                    .sh_addr = h.sh_addr,
                    .sh_offset = h.sh_offset,
                    .sh_size = h.sh_size,
                    .sh_link = h.sh_link,
                    .sh_info = h.sh_info,
                    .sh_addralign = h.sh_addralign,
                    .sh_entsize = h.sh_entsize};
    memcpy(t->bytes + t->section_headers + index * sizeof n, &n, sizeof n);
}

/* Indices in section_names; the name's offset there. */
enum { S_NULL, S_TEXT, S_RODATA, S_DATA, S_BSS, S_SHSTRTAB, S_SYMTAB, S_STRTAB, S_COUNT };
static const char section_names[] = "\0.text\0.rodata\0.data\0.bss\0.shstrtab\0.symtab\0.strtab";
static const uint8_t name_at[] = {0, 1, 7, 15, 21, 26, 36, 44};

static const char symbol_names[] =
    "\0_start\0start_alias\0second\0text_end\0word\0twice\0room\0constant\0tiny.c\0missing";

static uint32_t symbol_name(const char *name)
{
    size_t at = 1;
    while (strcmp(symbol_names + at, name))
        at += strlen(symbol_names + at) + 1;
    return at;
}

enum { FIRST_GLOBAL = 5 }; /* local symbols come first */

static size_t put_symbols(const struct tiny_options *o, const struct tiny *t, uint8_t *at)
{
    uint64_t text = t->base + t->text, bss = t->data_address + t->data_size;
    const struct {
        const char *name;
        uint64_t value, size;
        unsigned bind, type, section;
    } symbols[] = {
        {"tiny.c", 0, 0, STB_LOCAL, STT_FILE, SHN_ABS},
        {"second", text + 16, 8, STB_LOCAL, STT_FUNC, S_TEXT},
        {"twice", bss + 8, 8, STB_LOCAL, STT_OBJECT, S_BSS},
        {"twice", t->data_address + 8, 8, STB_LOCAL, STT_OBJECT, S_DATA},
        {"_start", text, 16, STB_GLOBAL, STT_FUNC, S_TEXT},
        {"start_alias", text, 16, STB_WEAK, STT_NOTYPE, S_TEXT},
        {"text_end", text + t->text_size, 0, STB_GLOBAL, STT_NOTYPE, S_TEXT},
        {"word", t->data_address, 8, STB_GLOBAL, STT_OBJECT, S_DATA},
        {"room", bss, 8, STB_GLOBAL, STT_OBJECT, S_BSS},
        {"constant", 42, 0, STB_GLOBAL, STT_NOTYPE, SHN_ABS},
        {"missing", 0, 0, STB_GLOBAL, STT_NOTYPE, SHN_UNDEF},
    };
    size_t count = sizeof symbols / sizeof *symbols;
    size_t entry = o->elf_class == 64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    for (size_t i = 0; at && i < count; i++) {
        uint8_t info = ELF64_ST_INFO(symbols[i].bind, symbols[i].type);
        uint32_t name = symbol_name(symbols[i].name);
        if (o->elf_class == 64) {
            Elf64_Sym s = {.st_name = name,
                           .st_info = info,
                           .st_shndx = symbols[i].section,
                           .st_value = symbols[i].value,
                           .st_size = symbols[i].size};
            memcpy(at + (i + 1) * entry, &s, sizeof s);
        } else {
            Elf32_Sym s = {.st_name = name,
                           .st_info = info,
                           .st_shndx = symbols[i].section,
                           .st_value = symbols[i].value,
                           .st_size = symbols[i].size};
            memcpy(at + (i + 1) * entry, &s, sizeof s);
        }
    }
    return (count + 1) * entry;
}

static void put_sections(const struct tiny_options *o, struct tiny *t, uint64_t names,
                         uint64_t symbols, size_t symbols_size, uint64_t strings)
{
    bool wide = o->elf_class == 64;
    uint64_t code = SHF_ALLOC | SHF_EXECINSTR, data = SHF_ALLOC | SHF_WRITE;
#define SECTION(index, type, flags, address, offset, size, ...)                                    \
    put_section(o, t, index,                                                                       \
                (Elf64_Shdr){name_at[index], type, flags, address, offset, size, __VA_ARGS__})
    SECTION(S_TEXT, SHT_PROGBITS, code, t->base + t->text, t->text, t->text_size, 0, 0, 16, 0);
    SECTION(S_RODATA, SHT_PROGBITS, SHF_ALLOC, t->base + t->rodata, t->rodata, t->rodata_size, 0, 0,
            16, 0);
    SECTION(S_DATA, SHT_PROGBITS, data, t->data_address, t->data, t->data_size, 0, 0, 16, 0);
    SECTION(S_BSS, SHT_NOBITS, data, t->data_address + t->data_size, t->data + t->data_size,
            t->bss_size, 0, 0, 16, 0);
    SECTION(S_SHSTRTAB, SHT_STRTAB, 0, 0, names, sizeof section_names, 0, 0, 1, 0);
    if (t->section_count < S_COUNT)
        return;
    SECTION(S_SYMTAB, SHT_SYMTAB, 0, 0, symbols, symbols_size, S_STRTAB, FIRST_GLOBAL, 8,
            wide ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym));
    SECTION(S_STRTAB, SHT_STRTAB, 0, 0, strings, sizeof symbol_names, 0, 0, 1, 0);
#undef SECTION
}

static void put_header(const struct tiny_options *o, struct tiny *t)
{
    static const uint8_t ident[EI_NIDENT] = {ELFMAG0,    ELFMAG1,     ELFMAG2,   ELFMAG3,
                                             ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
    uint16_t names = t->section_count ? S_SHSTRTAB : 0;
    if (o->elf_class == 64) {
        Elf64_Ehdr h = {.e_type = ET_EXEC,
                        .e_machine = EM_X86_64,
                        .e_version = EV_CURRENT,
                        .e_entry = t->base + t->text,
                        .e_phoff = t->program_headers,
                        .e_shoff = t->section_headers,
                        .e_ehsize = sizeof h,
                        .e_phentsize = sizeof(Elf64_Phdr),
                        .e_phnum = 2,
                        .e_shentsize = sizeof(Elf64_Shdr),
                        .e_shnum = t->section_count,
                        .e_shstrndx = names};
        memcpy(h.e_ident, ident, sizeof ident);
        memcpy(t->bytes, &h, sizeof h);
    } else {
        Elf32_Ehdr h = {.e_type = ET_EXEC,
                        .e_machine = EM_386,
                        .e_version = EV_CURRENT,
                        .e_entry = t->base + t->text,
                        .e_phoff = t->program_headers,
                        .e_shoff = t->section_headers,
                        .e_ehsize = sizeof h,
                        .e_phentsize = sizeof(Elf32_Phdr),
                        .e_phnum = 2,
                        .e_shentsize = sizeof(Elf32_Shdr),
                        .e_shnum = t->section_count,
                        .e_shstrndx = names};
        memcpy(h.e_ident, ident, sizeof ident);
        h.e_ident[EI_CLASS] = ELFCLASS32;
        memcpy(t->bytes, &h, sizeof h);
    }
}

static uint64_t align(uint64_t value, uint64_t to)
{
    return (value + to - 1) & ~(to - 1);
}

void tiny_build(const struct tiny_options *o, struct tiny *t)
{
    static const uint8_t nops[32] = {
        [0 ... 14] = 0x90, [15] = 0xc3, [16 ... 30] = 0x90, [31] = 0xc3};
    static const uint64_t words[4] = {1, 2, 3, 4};
    const void *text = o->text ? o->text : nops, *rodata = o->rodata ? o->rodata : words;
    bool wide = o->elf_class == 64;
    *t = (struct tiny){.base = wide ? TINY_BASE_64 : TINY_BASE_32,
                       .program_headers = wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr),
                       .text = TEXT_AT,
                       .text_size = o->text ? o->text_size : sizeof nops,
                       .rodata_size = o->rodata ? o->rodata_size : sizeof words,
                       .data_size = 32,
                       .bss_size = BSS_SIZE,
                       .section_count = o->no_sections  ? 0
                                        : o->no_symbols ? S_SYMTAB
                                                        : S_COUNT};
    t->rodata = align(t->text + t->text_size, 16);
    t->data = align(t->rodata + t->rodata_size, 16);
    t->data_address = t->base + t->data + DATA_SHIFT;
    uint64_t names = t->data + t->data_size, symbols = align(names + sizeof section_names, 8);
    size_t symbols_size = t->section_count == S_COUNT ? put_symbols(o, t, NULL) : 0;
    uint64_t strings = symbols + symbols_size;
    uint64_t table = align(strings + (symbols_size ? sizeof symbol_names : 0), 8);
    t->section_headers = t->section_count ? table : 0;
    t->end = o->no_sections
                 ? names
                 : table + t->section_count * (wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr));
    t->size = t->end + o->tail_size;
    t->bytes = calloc(1, t->size);
    if (!t->bytes)
        abort();
    memcpy(t->bytes + t->text, text, t->text_size);
    memcpy(t->bytes + t->rodata, rodata, t->rodata_size);
    for (size_t i = 0; i < t->data_size; i++)
        t->bytes[t->data + i] = i;
    uint64_t first = o->headers_loaded ? 0 : t->text;
    put_segment(o, t, 0, PF_R | PF_X, first, 0, t->rodata + t->rodata_size - first,
                t->rodata + t->rodata_size - first);
    put_segment(o, t, 1, PF_R | PF_W, t->data, DATA_SHIFT, t->data_size,
                t->data_size + t->bss_size);
    put_header(o, t);
    if (!o->no_sections) {
        memcpy(t->bytes + names, section_names, sizeof section_names);
        if (symbols_size) {
            put_symbols(o, t, t->bytes + symbols);
            memcpy(t->bytes + strings, symbol_names, sizeof symbol_names);
        }
        put_sections(o, t, names, symbols, symbols_size, strings);
    }
    if (o->tail_size)
        memcpy(t->bytes + t->end, o->tail, o->tail_size);
}

void tiny_free(struct tiny *tiny)
{
    free(tiny->bytes);
    *tiny = (struct tiny){0};
}

bool is_one_line(const struct error *err)
{
    return err->code && strlen(err->text) > 10 && strlen(err->text) < sizeof err->text &&
           !strpbrk(err->text, "\r\n\t\033");
}

static void promise(bool kept, const char *what)
{
    if (kept)
        return;
    fprintf(stderr, "check_image: %s\n", what);
    abort();
}

/* Touches every cache line of the bytes. */
static uint8_t sum(const uint8_t *bytes, uint64_t size)
{
    uint8_t all = 0;
    for (uint64_t i = 0; i < size; i += 64)
        all += bytes[i];
    return size ? all + bytes[size - 1] : all;
}

static volatile uint8_t touched;

static void check_sections(const struct image *image)
{
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *section = &image->sections[i];
        promise(section->name != NULL, "a section has no name");
        promise(strlen(section->name) < image->size, "a section name does not end");
        promise(image_section_named(image, section->name) <= section,
                "a section cannot be found by name");
        if (section->type == SHT_NOBITS)
            continue;
        promise(section->offset <= image->elf_end &&
                    section->size <= image->elf_end - section->offset,
                "a section leaves the file");
        touched += sum(image->bytes + section->offset, section->size);
        if (section->flags & SHF_ALLOC && section->size) {
            promise(image_section_at(image, section->address) == section,
                    "a section cannot be found by address");
            promise(image_at(image, section->address, section->size) ==
                        image->bytes + section->offset,
                    "a section's bytes cannot be found by address");
        }
    }
}

void check_image(const struct image *image)
{
    promise(image->elf_end <= image->size, "the ELF ends behind the file");
    promise(image->elf_class == 32 || image->elf_class == 64, "there is no such class");
    promise(image->segment_count > 0, "there are no segments");
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *segment = &image->segments[i];
        promise(segment->offset <= image->elf_end &&
                    segment->file_size <= image->elf_end - segment->offset,
                "a segment leaves the file");
        if (segment->type != PT_LOAD || !segment->file_size)
            continue;
        uint64_t offset, address, last = segment->file_size - 1;
        promise(image_offset(image, segment->vaddr, segment->file_size, &offset) &&
                    offset == segment->offset,
                "a segment's bytes cannot be found by address");
        promise(!image_offset(image, segment->vaddr, segment->mem_size + 1, &offset),
                "a range beyond a segment has bytes");
        promise(image_address(image, segment->offset + last, &address) &&
                    address == segment->vaddr + last,
                "a segment's address cannot be found by offset");
    }
    check_sections(image);
    for (size_t i = 0; i < image->symbol_count; i++) {
        const struct image_symbol *symbol = &image->symbols[i];
        promise(symbol->name && *symbol->name, "a symbol has no name");
        promise(!i || image->symbols[i - 1].address <= symbol->address,
                "the symbols are not sorted");
        const struct image_symbol *named = image_symbol_named(image, symbol->name);
        promise(named && named->address <= symbol->address && !strcmp(named->name, symbol->name),
                "a symbol cannot be found by name");
        uint64_t offset = 0;
        const struct image_symbol *at = image_symbol_at(image, symbol->address, &offset);
        promise(!at || (at->address == symbol->address && !offset),
                "a symbol cannot be found by address");
    }
}
