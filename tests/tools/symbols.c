/* SPDX-License-Identifier: MIT */
/* Writes the symbols that a kernel image carries (kallsyms, if it is stripped) as an ELF with
 * nothing but a symbol table, which debuggers read.
 *
 *     symbols KERNEL OUTPUT */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

#define SEGMENTS_MAX 16
static const char section_names[] = "\0.text\0.data\0.symtab\0.strtab\0.shstrtab";
enum { NAME_TEXT = 1, NAME_DATA = 7, NAME_SYMTAB = 13, NAME_STRTAB = 21, NAME_NAMES = 29 };

static bool is_text(const struct image_symbol *symbol)
{
    return symbol->function || symbol->type == 't' || symbol->type == 'T' || symbol->type == 'w' ||
           symbol->type == 'W';
}

/* A section for each segment of memory that has names; section numbers begin at 1. */
struct output {
    const struct image *image;
    const struct image_segment *segments[SEGMENTS_MAX];
    unsigned count;
};

static void find_segments(struct output *output)
{
    const struct image *image = output->image;
    for (size_t n = 0; n < image->segment_count && output->count < SEGMENTS_MAX; n++) {
        const struct image_segment *s = &image->segments[n];
        if (s->type == PT_LOAD && s->vaddr >= 0x10000) /* per-CPU offsets are no addresses */
            output->segments[output->count++] = s;
    }
}

/* The number of its section; 0: it has none. */
static unsigned section_of(const struct output *output, const struct image_symbol *symbol)
{
    for (unsigned n = 0; n < output->count; n++)
        if (symbol->address - output->segments[n]->vaddr < output->segments[n]->mem_size)
            return n + 1;
    return 0;
}

static size_t fill_table(const struct output *output, Elf64_Sym *table, size_t *names)
{
    size_t count = 1;
    *names = 1;
    for (size_t n = 0; n < output->image->symbol_count; n++) {
        const struct image_symbol *symbol = &output->image->symbols[n];
        unsigned section = section_of(output, symbol);
        if (!section)
            continue;
        table[count++] = (Elf64_Sym){
            .st_name = (Elf64_Word)*names,
            .st_info = ELF64_ST_INFO(STB_GLOBAL, is_text(symbol) ? STT_FUNC : STT_OBJECT),
            .st_shndx = (Elf64_Section)section,
            .st_value = symbol->address,
            .st_size = symbol->size};
        *names += strlen(symbol->name) + 1;
    }
    return count;
}

static void fill_sections(const struct output *output, size_t count, size_t names, Elf64_Shdr *at)
{
    uint64_t offset = sizeof(Elf64_Ehdr) + (output->count + 4) * sizeof(Elf64_Shdr);
    for (unsigned n = 0; n < output->count; n++) {
        const struct image_segment *s = output->segments[n];
        bool code = s->flags & PF_X;
        at[1 + n] = (Elf64_Shdr){.sh_name = code ? NAME_TEXT : NAME_DATA,
                                 .sh_type = SHT_NOBITS,
                                 .sh_flags = SHF_ALLOC | (code ? SHF_EXECINSTR : SHF_WRITE),
                                 .sh_addr = s->vaddr,
                                 .sh_offset = offset,
                                 .sh_size = s->mem_size,
                                 .sh_addralign = 1};
    }
    at += 1 + output->count;
    at[0] = (Elf64_Shdr){.sh_name = NAME_SYMTAB,
                         .sh_type = SHT_SYMTAB,
                         .sh_offset = offset,
                         .sh_size = count * sizeof(Elf64_Sym),
                         .sh_link = output->count + 2,
                         .sh_info = 1,
                         .sh_addralign = 8,
                         .sh_entsize = sizeof(Elf64_Sym)};
    at[1] = (Elf64_Shdr){.sh_name = NAME_STRTAB,
                         .sh_type = SHT_STRTAB,
                         .sh_offset = offset + at[0].sh_size,
                         .sh_size = names,
                         .sh_addralign = 1};
    at[2] = (Elf64_Shdr){.sh_name = NAME_NAMES,
                         .sh_type = SHT_STRTAB,
                         .sh_offset = at[1].sh_offset + names,
                         .sh_size = sizeof section_names,
                         .sh_addralign = 1};
}

static int write_symbols(const struct image *image, FILE *out)
{
    struct output output = {.image = image};
    Elf64_Shdr sections[SEGMENTS_MAX + 4] = {0};
    Elf64_Sym *table = calloc(image->symbol_count + 1, sizeof *table);
    size_t names;
    if (!table)
        return -1;
    find_segments(&output);
    size_t count = fill_table(&output, table, &names);
    fill_sections(&output, count, names, sections);
    const Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = image->entry,
        .e_shoff = sizeof header,
        .e_ehsize = sizeof header,
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = (Elf64_Half)(output.count + 4),
        .e_shstrndx = (Elf64_Half)(output.count + 3)};
    fwrite(&header, sizeof header, 1, out);
    fwrite(sections, sizeof *sections, output.count + 4, out);
    fwrite(table, sizeof *table, count, out);
    fputc('\0', out);
    for (size_t n = 0; n < image->symbol_count; n++)
        if (section_of(&output, &image->symbols[n]))
            fwrite(image->symbols[n].name, strlen(image->symbols[n].name) + 1, 1, out);
    fwrite(section_names, sizeof section_names, 1, out);
    free(table);
    return count > 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    struct image image;
    if (argc != 3) {
        fprintf(stderr, "usage: symbols KERNEL OUTPUT\n");
        return 2;
    }
    if (image_open(argv[1], &image, &err) < 0) {
        fprintf(stderr, "symbols: %s\n", err.text);
        return 1;
    }
    FILE *out = fopen(argv[2], "wb");
    int result = out ? write_symbols(&image, out) : -1;
    if (out && fclose(out) != 0)
        result = -1;
    if (result < 0)
        fprintf(stderr, "symbols: %s: no symbols, or they cannot be written\n", argv[2]);
    image_close(&image);
    return result < 0;
}
