/* SPDX-License-Identifier: MIT */
/* The ELF reader: headers, segments, sections and symbol table of an x86 executable.
 *
 * libelf decodes the fields; every check is made here, against the file's size, before anything
 * relies on it. What passes has disjoint loadable segments, disjoint allocated sections, and
 * sections that agree with the segments about where their bytes are. */
#include "image/reader.h"

#include <gelf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct image *image;
    struct image_private *private;
    Elf *elf;
    GElf_Ehdr header;
    struct error *err;
};

bool elf_detect(const uint8_t *bytes, size_t size)
{
    return size >= SELFMAG && !memcmp(bytes, ELFMAG, SELFMAG);
}

/* [offset, offset + size) lies in the file */
static bool in_file(const struct reader *r, uint64_t offset, uint64_t size)
{
    return offset <= r->image->size && size <= r->image->size - offset;
}

static void extend_end(struct reader *r, uint64_t end)
{
    if (end > r->image->elf_end)
        r->image->elf_end = end;
}

static int bad(struct reader *r, uint64_t offset, const char *what, const char *advice)
{
    return fail(r->err, EXIT_INPUT, "%s: offset 0x%" PRIx64 ": %s; %s", r->private->label, offset,
                what, advice);
}

/* Where a field of the ELF header stands in this file's class. */
#define FIELD(r, name)                                                                             \
    ((r)->image->elf_class == 64 ? offsetof(Elf64_Ehdr, name) : offsetof(Elf32_Ehdr, name))

static const char damaged[] = "the file is damaged or was cut short: get it again";

static int check_ident(struct reader *r)
{
    const uint8_t *ident = r->image->bytes;
    if (r->image->size < EI_NIDENT)
        return bad(r, r->image->size, "the file ends within the ELF identification", damaged);
    if (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)
        return bad(r, EI_CLASS, "the ELF class is neither 32 nor 64 bits", damaged);
    if (ident[EI_DATA] == ELFDATA2MSB)
        return bad(r, EI_DATA, "this is a big-endian ELF file", "give an x86 kernel");
    if (ident[EI_DATA] != ELFDATA2LSB)
        return bad(r, EI_DATA, "the ELF byte order is unknown", damaged);
    if (ident[EI_VERSION] != EV_CURRENT)
        return bad(r, EI_VERSION, "the ELF version is unknown", damaged);
    r->image->elf_class = ident[EI_CLASS] == ELFCLASS64 ? 64 : 32;
    size_t header = r->image->elf_class == 64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
    if (r->image->size < header)
        return bad(r, r->image->size, "the file ends within the ELF header", damaged);
    extend_end(r, header);
    return 0;
}

static int check_type(struct reader *r)
{
    size_t type_at = offsetof(Elf64_Ehdr, e_type), machine_at = offsetof(Elf64_Ehdr, e_machine);
    uint16_t machine = r->header.e_machine;
    if (machine != EM_X86_64 && (machine != EM_386 || r->image->elf_class == 64))
        return fail(r->err, EXIT_INPUT,
                    "%s: offset 0x%zx: this is code for another machine (e_machine %u, %d-bit); "
                    "give an x86 kernel",
                    r->private->label, machine_at, machine, r->image->elf_class);
    switch (r->header.e_type) {
    case ET_EXEC:
        break;
    case ET_REL:
        return bad(r, type_at, "this is a relocatable object, not a kernel",
                   "link it first (of a Linux build, give vmlinux or bzImage)");
    case ET_DYN:
        return bad(r, type_at, "this is a position-independent executable or shared object",
                   "link the kernel at a fixed address (-no-pie)");
    case ET_CORE:
        return bad(r, type_at, "this is a core dump", "give the kernel it came from");
    default:
        return bad(r, type_at, "this is no executable", "give a linked kernel");
    }
    r->image->machine = machine;
    r->image->entry = r->header.e_entry;
    return 0;
}

/* One header table: its place, its entry size and its count. */
static int check_table(struct reader *r, const char *what, uint64_t offset, uint64_t count,
                       uint64_t entry, uint64_t expected, uint64_t limit)
{
    if (entry != expected)
        return fail(r->err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64 ": the %s table's entries are %" PRIu64
                    " bytes instead of %" PRIu64 "; %s",
                    r->private->label, offset, what, entry, expected, damaged);
    if (count > limit)
        return fail(r->err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64 ": %" PRIu64 " entries in the %s table; %s",
                    r->private->label, offset, count, what, damaged);
    if (!in_file(r, offset, count * entry))
        return fail(r->err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64 ": the %s table (%" PRIu64
                    " entries) runs past the end of the file (%zu bytes); %s",
                    r->private->label, offset, what, count, r->image->size, damaged);
    extend_end(r, offset + count * entry);
    return 0;
}

static int check_segment(struct reader *r, size_t index, const struct image_segment *segment)
{
    const char *what = NULL;
    uint64_t top = r->image->elf_class == 64 ? UINT64_MAX : UINT32_MAX;
    if (!in_file(r, segment->offset, segment->file_size))
        what = "its bytes run past the end of the file";
    else if (segment->type == PT_LOAD && segment->file_size > segment->mem_size)
        what = "it has more bytes in the file than in memory";
    else if (segment->mem_size && segment->mem_size - 1 > top - segment->vaddr)
        what = "it wraps around the end of the address space";
    else if (segment->mem_size && segment->mem_size - 1 > top - segment->paddr)
        what = "it wraps around the end of the physical address space";
    if (!what)
        return 0;
    return fail(r->err, EXIT_INPUT, "%s: offset 0x%" PRIx64 ": segment %zu: %s; %s",
                r->private->label, segment->offset, index, what, damaged);
}

static int read_segments(struct reader *r)
{
    struct image *image = r->image;
    size_t count = r->header.e_phoff ? r->header.e_phnum : 0;
    size_t entry = image->elf_class == 64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (count == PN_XNUM && elf_getphdrnum(r->elf, &count))
        return bad(r, r->header.e_phoff, "the program header table cannot be read", damaged);
    if (!count)
        return bad(r, FIELD(r, e_phoff), "there are no program headers", "give a linked kernel");
    if (check_table(r, "program header", r->header.e_phoff, count, r->header.e_phentsize, entry,
                    SEGMENT_LIMIT))
        return -1;
    image->segments = calloc(count, sizeof *image->segments);
    if (!image->segments)
        return fail(r->err, EXIT_IO, "%s: out of memory", r->private->label);
    image->segment_count = count;
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr header;
        if (!gelf_getphdr(r->elf, i, &header))
            return bad(r, r->header.e_phoff + i * entry, "a program header cannot be read",
                       damaged);
        struct image_segment *segment = &image->segments[i];
        *segment = (struct image_segment){
            .type = header.p_type,
            .flags = header.p_flags,
            .offset = header.p_filesz ? header.p_offset : 0,
            .vaddr = header.p_vaddr,
            .paddr = header.p_paddr,
            .file_size = header.p_filesz,
            .mem_size = header.p_memsz,
            .align = header.p_align,
        };
        if (segment->type == PT_NULL) /* an unused entry: its other fields say nothing */
            *segment = (struct image_segment){.type = PT_NULL};
        if (check_segment(r, i, segment))
            return -1;
        extend_end(r, segment->offset + segment->file_size);
    }
    return 0;
}

static int by_vaddr(const void *a, const void *b, void *context)
{
    const struct image_segment *s = context;
    uint64_t x = s[*(const uint32_t *)a].vaddr, y = s[*(const uint32_t *)b].vaddr;
    return (x > y) - (x < y);
}

static int by_paddr(const void *a, const void *b, void *context)
{
    const struct image_segment *s = context;
    uint64_t x = s[*(const uint32_t *)a].paddr, y = s[*(const uint32_t *)b].paddr;
    return (x > y) - (x < y);
}

static int by_offset(const void *a, const void *b, void *context)
{
    const struct image_segment *s = context;
    uint64_t x = s[*(const uint32_t *)a].offset, y = s[*(const uint32_t *)b].offset;
    return (x > y) - (x < y);
}

static int by_address(const void *a, const void *b, void *context)
{
    const struct image_section *s = context;
    uint64_t x = s[*(const uint32_t *)a].address, y = s[*(const uint32_t *)b].address;
    return (x > y) - (x < y);
}

/* An address has one place in the file and a place in the file one address, or an edit at one
 * address would change another. */
static int order_segments(struct reader *r)
{
    struct image *image = r->image;
    struct image_private *p = r->private;
    p->loads_by_address = calloc(image->segment_count, sizeof *p->loads_by_address);
    p->loads_by_offset = calloc(image->segment_count, sizeof *p->loads_by_offset);
    p->loads_by_paddr = calloc(image->segment_count, sizeof *p->loads_by_paddr);
    if (!p->loads_by_address || !p->loads_by_offset || !p->loads_by_paddr)
        return fail(r->err, EXIT_IO, "%s: out of memory", r->private->label);
    const struct image_segment *s = image->segments;
    for (uint32_t i = 0; i < image->segment_count; i++) {
        if (s[i].type == PT_LOAD && s[i].mem_size)
            p->loads_by_address[p->load_count++] = i;
        if (s[i].type == PT_LOAD && s[i].file_size) {
            p->loads_by_paddr[p->file_load_count] = i;
            p->loads_by_offset[p->file_load_count++] = i;
        }
    }
    if (!p->file_load_count)
        return bad(r, r->header.e_phoff, "no loadable segment has any bytes",
                   "give a linked kernel");
    qsort_r(p->loads_by_address, p->load_count, sizeof(uint32_t), by_vaddr, image->segments);
    qsort_r(p->loads_by_paddr, p->file_load_count, sizeof(uint32_t), by_paddr, image->segments);
    qsort_r(p->loads_by_offset, p->file_load_count, sizeof(uint32_t), by_offset, image->segments);
    for (size_t i = 1; i < p->load_count; i++) {
        uint32_t a = p->loads_by_address[i - 1], b = p->loads_by_address[i];
        if (s[b].vaddr - s[a].vaddr < s[a].mem_size)
            return fail(r->err, EXIT_INPUT,
                        "%s: offset 0x%" PRIx64
                        ": segments %u and %u overlap in memory at 0x%" PRIx64 "; %s",
                        r->private->label, s[b].offset, a, b, s[b].vaddr, damaged);
    }
    for (size_t i = 1; i < p->file_load_count; i++) {
        uint32_t a = p->loads_by_offset[i - 1], b = p->loads_by_offset[i];
        if (s[b].offset - s[a].offset < s[a].file_size)
            return fail(r->err, EXIT_INPUT,
                        "%s: offset 0x%" PRIx64 ": segments %u and %u overlap in the file; %s",
                        r->private->label, s[b].offset, a, b, damaged);
    }
    return 0;
}

static int check_section(struct reader *r, size_t index, const struct image_section *section)
{
    uint64_t top = r->image->elf_class == 64 ? UINT64_MAX : UINT32_MAX, offset;
    const char *what = NULL;
    bool bits = section->type != SHT_NOBITS;
    if (bits && !in_file(r, section->offset, section->size))
        what = "its bytes run past the end of the file";
    else if (section->flags & SHF_ALLOC && section->size &&
             section->size - 1 > top - section->address)
        what = "it wraps around the end of the address space";
    else if (section->flags & SHF_ALLOC && section->size && bits &&
             !image_offset(r->image, section->address, section->size, &offset))
        what = "it is not wholly in one loadable segment";
    else if (section->flags & SHF_ALLOC && section->size && bits && offset != section->offset)
        what = "it and its segment disagree about where its bytes are";
    if (!what)
        return 0;
    return fail(r->err, EXIT_INPUT, "%s: offset 0x%" PRIx64 ": section %zu (%.64s): %s; %s",
                r->private->label, section->offset, index, section->name, what, damaged);
}

/* Places the name table: [*names, *names + *names_size) ends with a NUL, or has no bytes. */
static int section_names(struct reader *r, size_t count, const char **names, size_t *names_size)
{
    size_t index = SHN_UNDEF;
    GElf_Shdr header;
    *names_size = 0;
    if (elf_getshdrstrndx(r->elf, &index) || index >= count)
        return bad(r, FIELD(r, e_shstrndx), "the section that holds section names does not exist",
                   damaged);
    if (index == SHN_UNDEF)
        return 0;
    if (!gelf_getshdr(elf_getscn(r->elf, index), &header) || header.sh_type != SHT_STRTAB ||
        !in_file(r, header.sh_offset, header.sh_size) || !header.sh_size ||
        r->image->bytes[header.sh_offset + header.sh_size - 1])
        return bad(r, r->header.e_shoff, "the section that holds section names is no string table",
                   damaged);
    *names = (const char *)r->image->bytes + header.sh_offset;
    *names_size = header.sh_size;
    return 0;
}

static int read_section(struct reader *r, size_t index, const char *names, size_t names_size)
{
    GElf_Shdr header;
    Elf_Scn *scn = elf_getscn(r->elf, index);
    if (!scn || !gelf_getshdr(scn, &header))
        return bad(r, r->header.e_shoff, "a section header cannot be read", damaged);
    struct image_section *section = &r->image->sections[index];
    section->name = "";
    if (header.sh_type == SHT_NULL) /* unused; the first holds counts that do not fit the header */
        return 0;
    bool allocated = header.sh_flags & SHF_ALLOC, bits = header.sh_type != SHT_NOBITS;
    *section = (struct image_section){
        .name = "",
        .type = header.sh_type,
        .link = header.sh_link,
        .info = header.sh_info,
        .flags = header.sh_flags,
        .address = allocated ? header.sh_addr : 0,
        .offset = bits && !header.sh_size ? 0 : header.sh_offset,
        .size = header.sh_size,
        .entry_size = header.sh_entsize,
        .align = header.sh_addralign,
    };
    if (header.sh_name && header.sh_name >= names_size)
        return fail(r->err, EXIT_INPUT,
                    "%s: offset 0x%" PRIx64
                    ": the name of section %zu is outside the string table; "
                    "%s",
                    r->private->label, r->header.e_shoff, index, damaged);
    if (header.sh_name)
        section->name = names + header.sh_name;
    if (check_section(r, index, section))
        return -1;
    if (bits)
        extend_end(r, section->offset + section->size);
    return 0;
}

static int order_sections(struct reader *r)
{
    struct image *image = r->image;
    struct image_private *p = r->private;
    const struct image_section *s = image->sections;
    p->sections_by_address = calloc(image->section_count, sizeof *p->sections_by_address);
    if (!p->sections_by_address)
        return fail(r->err, EXIT_IO, "%s: out of memory", r->private->label);
    for (uint32_t i = 0; i < image->section_count; i++) {
        /* .tbss takes no addresses: what follows it begins where it does (gABI, SHF_TLS) */
        bool tbss = s[i].flags & SHF_TLS && s[i].type == SHT_NOBITS;
        if (s[i].flags & SHF_ALLOC && s[i].size && !tbss)
            p->sections_by_address[p->allocated_count++] = i;
    }
    qsort_r(p->sections_by_address, p->allocated_count, sizeof(uint32_t), by_address,
            image->sections);
    for (size_t i = 1; i < p->allocated_count; i++) {
        uint32_t a = p->sections_by_address[i - 1], b = p->sections_by_address[i];
        if (s[b].address - s[a].address < s[a].size)
            return fail(r->err, EXIT_INPUT,
                        "%s: offset 0x%" PRIx64 ": sections %u and %u overlap at address 0x%" PRIx64
                        "; %s",
                        r->private->label, s[b].offset, a, b, s[b].address, damaged);
    }
    return 0;
}

static int read_sections(struct reader *r)
{
    struct image *image = r->image;
    size_t count = 0, names_size = 0;
    const char *names = "";
    if (!r->header.e_shoff)
        return 0;
    size_t entry = image->elf_class == 64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
    /* one entry first: e_shnum == 0 means that it holds the count */
    if (check_table(r, "section header", r->header.e_shoff,
                    r->header.e_shnum ? r->header.e_shnum : 1, r->header.e_shentsize, entry,
                    SECTION_LIMIT))
        return -1;
    if (elf_getshdrnum(r->elf, &count))
        return bad(r, r->header.e_shoff, "the section header table cannot be read", damaged);
    if (!count)
        return 0;
    if (check_table(r, "section header", r->header.e_shoff, count, r->header.e_shentsize, entry,
                    SECTION_LIMIT) ||
        section_names(r, count, &names, &names_size))
        return -1;
    image->sections = calloc(count, sizeof *image->sections);
    if (!image->sections)
        return fail(r->err, EXIT_IO, "%s: out of memory", r->private->label);
    image->section_count = count;
    for (size_t i = 0; i < count; i++)
        if (read_section(r, i, names, names_size))
            return -1;
    return order_sections(r);
}

/* The letter that nm prints. */
static char symbol_type(const struct image *image, const GElf_Sym *symbol)
{
    bool global = GELF_ST_BIND(symbol->st_info) != STB_LOCAL;
    char type = '?';
    if (GELF_ST_BIND(symbol->st_info) == STB_WEAK)
        return GELF_ST_TYPE(symbol->st_info) == STT_OBJECT ? 'V' : 'W';
    if (symbol->st_shndx == SHN_ABS)
        type = 'a';
    else if (symbol->st_shndx < image->section_count) {
        const struct image_section *section = &image->sections[symbol->st_shndx];
        if (!(section->flags & SHF_ALLOC))
            return 'n';
        if (section->flags & SHF_EXECINSTR)
            type = 't';
        else if (section->type == SHT_NOBITS)
            type = 'b';
        else
            type = section->flags & SHF_WRITE ? 'd' : 'r';
    }
    return global && type != '?' ? type - 'a' + 'A' : type;
}

static bool symbol_wanted(const GElf_Sym *symbol)
{
    unsigned type = GELF_ST_TYPE(symbol->st_info);
    return symbol->st_name && symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_COMMON &&
           type != STT_SECTION && type != STT_FILE && type != STT_TLS;
}

static int read_symbols(struct reader *r, size_t index)
{
    struct image *image = r->image;
    const struct image_section *table = &image->sections[index], *strings = NULL;
    size_t entry = image->elf_class == 64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    if (table->link < image->section_count)
        strings = &image->sections[table->link];
    if (table->entry_size != entry || table->size % entry)
        return bad(r, table->offset, "the symbol table's entries have a wrong size", damaged);
    if (!strings || strings->type != SHT_STRTAB ||
        (strings->size && image->bytes[strings->offset + strings->size - 1]))
        return bad(r, table->offset, "the symbol table has no string table", damaged);
    size_t count = table->size / entry;
    Elf_Data *data = elf_getdata(elf_getscn(r->elf, index), NULL);
    if (count > INT32_MAX || (count && !data))
        return bad(r, table->offset, "the symbol table cannot be read", damaged);
    image->symbols = calloc(count ? count : 1, sizeof *image->symbols);
    if (!image->symbols)
        return fail(r->err, EXIT_IO, "%s: out of memory", r->private->label);
    for (size_t i = 0; i < count; i++) {
        GElf_Sym symbol;
        if (!gelf_getsym(data, i, &symbol))
            return bad(r, table->offset + i * entry, "a symbol cannot be read", damaged);
        if (symbol.st_name && symbol.st_name >= strings->size)
            return bad(r, table->offset + i * entry, "a symbol's name is outside the string table",
                       damaged);
        const char *name = (const char *)image->bytes + strings->offset + symbol.st_name;
        if (!symbol_wanted(&symbol) || !*name)
            continue;
        bool wraps = symbol.st_size > UINT64_MAX - symbol.st_value;
        image->symbols[image->symbol_count++] = (struct image_symbol){
            .address = symbol.st_value,
            .size = wraps ? 0 : symbol.st_size,
            .name = name,
            .type = symbol_type(image, &symbol),
            .function = GELF_ST_TYPE(symbol.st_info) == STT_FUNC,
        };
    }
    return 0;
}

static int read_all(struct reader *r)
{
    if (elf_kind(r->elf) != ELF_K_ELF || !gelf_getehdr(r->elf, &r->header))
        return bad(r, 0, "the ELF header cannot be read", damaged);
    if (check_type(r) || read_segments(r) || order_segments(r) || read_sections(r))
        return -1;
    for (size_t i = 0; i < r->image->section_count; i++)
        if (r->image->sections[i].type == SHT_SYMTAB)
            return read_symbols(r, i);
    return 0;
}

int elf_read(struct image *image, struct error *err)
{
    struct reader r = {.image = image, .private = image_private(image), .err = err};
    if (check_ident(&r))
        return -1;
    elf_version(EV_CURRENT);
    /* libelf never writes to memory opened this way */
    r.elf = elf_memory((char *)(uintptr_t)image->bytes, image->size);
    if (!r.elf)
        return fail(err, EXIT_INPUT, "%s: %s", r.private->label, elf_errmsg(-1));
    int result = read_all(&r);
    elf_end(r.elf);
    return result;
}
