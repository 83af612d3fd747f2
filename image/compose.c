/* SPDX-License-Identifier: MIT */
/* Composing the patched ELF (image/compose.h). Headers are handled as ELF64 and narrowed on
 * writing for ELF32. */
#include "image/compose.h"
#include "image/reader.h"

#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state that is no allocation, which could fail */
#include <xxhash.h>

#define ADDED_ALIGN   16u
#define SEGMENT_ALIGN 4096u /* p_offset and p_vaddr agree modulo this */
#define PIECES        64    /* beside two for each section */

static const uint8_t zeros[SEGMENT_ALIGN];

struct compose_state {
    uint64_t elf_header, program_header, section_header; /* sizes of the class's headers, bytes */
    uint64_t phoff, shoff;                               /* of the original */
    uint64_t phnum, shnum, shstrndx;
    size_t new_segments, new_sections;
    uint8_t header[sizeof(Elf64_Ehdr)];          /* the new ELF header */
    uint8_t grown[2 * sizeof(Elf64_Phdr)];       /* the new program headers */
    uint8_t *names, *section_table;              /* the new tables, malloc'd */
    uint64_t names_offset, names_size;           /* file offset, bytes */
    uint64_t names_used;                         /* bytes filled so far */
    uint64_t section_table_offset, phdrs_offset; /* file offsets */
    struct iovec *pieces;
    size_t piece_count;
    uint64_t position; /* file offset behind the last piece */
};

static int cannot(struct compose *c, struct error *err, const char *what)
{
    return fail(err, EXIT_INPUT, "%s: offset 0x%" PRIx64 ": %s", image_private(c->image)->label,
                c->state->phoff, what);
}

static void read_header(struct compose *c)
{
    struct compose_state *s = c->state;
    if (c->image->elf_class == 64) {
        Elf64_Ehdr h;
        memcpy(&h, c->image->bytes, sizeof h);
        *s = (struct compose_state){.elf_header = sizeof h,
                                    .program_header = sizeof(Elf64_Phdr),
                                    .section_header = sizeof(Elf64_Shdr),
                                    .phoff = h.e_phoff,
                                    .shoff = h.e_shoff,
                                    .phnum = h.e_phnum,
                                    .shnum = h.e_shnum,
                                    .shstrndx = h.e_shstrndx};
    } else {
        Elf32_Ehdr h;
        memcpy(&h, c->image->bytes, sizeof h);
        *s = (struct compose_state){.elf_header = sizeof h,
                                    .program_header = sizeof(Elf32_Phdr),
                                    .section_header = sizeof(Elf32_Shdr),
                                    .phoff = h.e_phoff,
                                    .shoff = h.e_shoff,
                                    .phnum = h.e_phnum,
                                    .shnum = h.e_shnum,
                                    .shstrndx = h.e_shstrndx};
    }
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a_size && b_size && a < b + b_size && b < a + a_size;
}

/* True if the program header table may grow by `size` bytes where it is: zeros that belong to
 * nothing. */
static bool may_grow(const struct compose *c, uint64_t at, uint64_t size)
{
    const struct image *image = c->image;
    const struct compose_state *s = c->state;
    if (at < s->elf_header || at > image->elf_end || size > image->elf_end - at)
        return false;
    if (memcmp(image->bytes + at, zeros, size))
        return false;
    if (s->shoff && overlap(at, size, s->shoff, s->shnum * s->section_header))
        return false;
    for (size_t i = 0; i < image->segment_count; i++)
        if (overlap(at, size, image->segments[i].offset, image->segments[i].file_size))
            return false;
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *section = &image->sections[i];
        if (section->type != SHT_NOBITS && overlap(at, size, section->offset, section->size))
            return false;
    }
    return true;
}

int compose_begin(struct compose *c, struct error *err)
{
    c->state = calloc(1, sizeof *c->state);
    if (!c->state)
        return fail(err, EXIT_IO, "%s: out of memory", c->image->name);
    read_header(c);
    struct compose_state *s = c->state;
    bool wide = c->image->elf_class == 64;
    if (s->phnum == PN_XNUM || (s->shoff && !s->shnum) || s->shstrndx == SHN_XINDEX)
        return cannot(c, err, "its headers are too many to add one; link it with fewer sections");
    s->new_segments = (c->note_section >= 0) + c->has_segment;
    if (s->shoff)
        s->new_sections = c->section_count + (c->has_segment && c->segment_name) +
                          (s->shstrndx == SHN_UNDEF); /* the names need a section of their own */
    if (s->phnum + s->new_segments >= PN_XNUM || s->shnum + s->new_sections >= SHN_LORESERVE)
        return cannot(c, err, "its headers are too many to add one; link it with fewer sections");

    uint64_t table_end = s->phoff + s->phnum * s->program_header;
    uint64_t growth = s->new_segments * s->program_header;
    c->moves_program_headers = growth && !may_grow(c, table_end, growth);
    c->run_count = 0;
    /* e_phoff and e_shoff; e_phnum to e_shstrndx */
    c->runs[c->run_count++] = wide ? (struct compose_run){offsetof(Elf64_Ehdr, e_phoff), 16}
                                   : (struct compose_run){offsetof(Elf32_Ehdr, e_phoff), 8};
    c->runs[c->run_count++] = (struct compose_run){
        wide ? offsetof(Elf64_Ehdr, e_phnum) : offsetof(Elf32_Ehdr, e_phnum), 8};
    if (growth && !c->moves_program_headers)
        c->runs[c->run_count++] = (struct compose_run){table_end, growth};
    return 0;
}

/* Places `size` bytes behind *position so that the offset equals `congruent` modulo `align`. */
static bool place(uint64_t *position, uint64_t size, uint64_t align, uint64_t congruent,
                  uint64_t *offset)
{
    if (align > 1)
        *position += (congruent - *position) & (align - 1);
    *offset = *position;
    if (size > FILE_LIMIT || *position > FILE_LIMIT - size)
        return false;
    *position += size;
    return true;
}

static void put_program_header(struct compose *c, uint8_t *at, const Elf64_Phdr *h)
{
    if (c->image->elf_class == 64) {
        memcpy(at, h, sizeof *h);
        return;
    }
    Elf32_Phdr narrow = {
        .p_type = h->p_type,
        .p_offset = h->p_offset,
        .p_vaddr = h->p_vaddr,
        .p_paddr = h->p_paddr,
        .p_filesz = h->p_filesz,
        .p_memsz = h->p_memsz,
        .p_flags = h->p_flags,
        .p_align = h->p_align,
    };
    memcpy(at, &narrow, sizeof narrow);
}

static void put_section_header(struct compose *c, uint8_t *at, const Elf64_Shdr *h)
{
    if (c->image->elf_class == 64) {
        memcpy(at, h, sizeof *h);
        return;
    }
    Elf32_Shdr narrow = {
        .sh_name = h->sh_name,
        .sh_type = h->sh_type,
        .sh_flags = h->sh_flags,
        .sh_addr = h->sh_addr,
        .sh_offset = h->sh_offset,
        .sh_size = h->sh_size,
        .sh_addralign = h->sh_addralign,
    };
    memcpy(at, &narrow, sizeof narrow);
}

static const struct image_section *old_names(const struct compose *c)
{
    return c->state->shstrndx ? &c->image->sections[c->state->shstrndx] : NULL;
}

/* Bytes of the new name table: the old one, so that old headers' names stay right, and what is
 * added. */
static uint64_t names_size(const struct compose *c)
{
    uint64_t size = old_names(c) ? old_names(c)->size : 1 + sizeof ".shstrtab";
    for (size_t i = 0; i < c->section_count; i++)
        size += strlen(c->sections[i].name) + 1;
    return size + (c->has_segment && c->segment_name ? strlen(c->segment_name) + 1 : 0);
}

/* The new name table, with the old names so far. */
static int start_names(struct compose *c, struct error *err)
{
    struct compose_state *s = c->state;
    free(s->names);
    s->names = calloc(1, s->names_size);
    if (!s->names)
        return fail(err, EXIT_IO, "%s: out of memory", c->image->name);
    s->names_used = 1;
    if (old_names(c)) {
        s->names_used = old_names(c)->size;
        memcpy(s->names, c->edited + old_names(c)->offset, s->names_used);
    }
    return 0;
}

static uint32_t add_name(struct compose_state *s, const char *name)
{
    uint32_t at = s->names_used;
    memcpy(s->names + at, name, strlen(name) + 1);
    s->names_used += strlen(name) + 1;
    return at;
}

/* The old name table's header: its offset and size change, whatever else it says stays. */
static void move_names_header(struct compose *c, uint8_t *at)
{
    struct compose_state *s = c->state;
    if (c->image->elf_class == 64) {
        Elf64_Shdr h;
        memcpy(&h, at, sizeof h);
        h.sh_offset = s->names_offset;
        h.sh_size = s->names_size;
        memcpy(at, &h, sizeof h);
    } else {
        Elf32_Shdr h;
        memcpy(&h, at, sizeof h);
        h.sh_offset = s->names_offset;
        h.sh_size = s->names_size;
        memcpy(at, &h, sizeof h);
    }
}

/* The new section header table, and the names that it uses. */
static int build_section_table(struct compose *c, struct error *err)
{
    struct compose_state *s = c->state;
    if (start_names(c, err))
        return -1;
    free(s->section_table);
    s->section_table = calloc(s->shnum + s->new_sections, s->section_header);
    if (!s->section_table)
        return fail(err, EXIT_IO, "%s: out of memory", c->image->name);
    memcpy(s->section_table, c->edited + s->shoff, s->shnum * s->section_header);
    uint8_t *at = s->section_table + s->shnum * s->section_header;
    for (size_t i = 0; i < c->section_count; i++, at += s->section_header) {
        const struct compose_section *section = &c->sections[i];
        Elf64_Shdr header = {.sh_name = add_name(s, section->name),
                             .sh_type = section->type,
                             .sh_offset = section->file_offset,
                             .sh_size = section->size,
                             .sh_addralign = section->align ? section->align : 1};
        put_section_header(c, at, &header);
    }
    if (c->has_segment && c->segment_name) {
        Elf64_Shdr header = {.sh_name = add_name(s, c->segment_name),
                             .sh_type = SHT_PROGBITS,
                             .sh_flags = SHF_ALLOC,
                             .sh_addr = c->segment_vaddr,
                             .sh_offset = c->segment_offset,
                             .sh_size = c->segment_size,
                             .sh_addralign = 1};
        header.sh_flags |= c->segment_flags & PF_W ? SHF_WRITE : 0;
        header.sh_flags |= c->segment_flags & PF_X ? SHF_EXECINSTR : 0;
        put_section_header(c, at, &header);
        at += s->section_header;
    }
    if (s->shstrndx) {
        move_names_header(c, s->section_table + s->shstrndx * s->section_header);
    } else {
        Elf64_Shdr header = {.sh_name = add_name(s, ".shstrtab"),
                             .sh_type = SHT_STRTAB,
                             .sh_offset = s->names_offset,
                             .sh_size = s->names_size,
                             .sh_addralign = 1};
        put_section_header(c, at, &header);
    }
    return 0;
}

static void build_program_headers(struct compose *c)
{
    struct compose_state *s = c->state;
    uint8_t *at = s->grown;
    if (c->has_segment) {
        Elf64_Phdr header = {.p_type = PT_LOAD,
                             .p_flags = c->segment_flags,
                             .p_offset = c->segment_offset,
                             .p_vaddr = c->segment_vaddr,
                             .p_paddr = c->segment_paddr,
                             .p_filesz = c->segment_size,
                             .p_memsz = c->segment_size,
                             .p_align = SEGMENT_ALIGN};
        put_program_header(c, at, &header);
        at += s->program_header;
    }
    if (c->note_section >= 0) {
        const struct compose_section *note = &c->sections[c->note_section];
        Elf64_Phdr header = {.p_type = PT_NOTE,
                             .p_flags = PF_R,
                             .p_offset = note->file_offset,
                             .p_filesz = note->size,
                             .p_align = 4};
        put_program_header(c, at, &header);
    }
}

static void build_header(struct compose *c)
{
    struct compose_state *s = c->state;
    uint64_t phoff = c->moves_program_headers ? s->phdrs_offset : s->phoff;
    uint64_t shoff = s->shoff ? s->section_table_offset : 0;
    uint64_t shstrndx = s->shoff && !s->shstrndx ? s->shnum + s->new_sections - 1 : s->shstrndx;
    if (c->image->elf_class == 64) {
        Elf64_Ehdr h;
        memcpy(&h, c->edited, sizeof h);
        h.e_phoff = phoff;
        h.e_shoff = shoff;
        h.e_phnum = s->phnum + s->new_segments;
        h.e_shnum = s->shnum + s->new_sections;
        h.e_shstrndx = shstrndx;
        memcpy(s->header, &h, sizeof h);
    } else {
        Elf32_Ehdr h;
        memcpy(&h, c->edited, sizeof h);
        h.e_phoff = phoff;
        h.e_shoff = shoff;
        h.e_phnum = s->phnum + s->new_segments;
        h.e_shnum = s->shnum + s->new_sections;
        h.e_shstrndx = shstrndx;
        memcpy(s->header, &h, sizeof h);
    }
}

static int place_all(struct compose *c, uint64_t *end)
{
    struct compose_state *s = c->state;
    uint64_t at = c->image->elf_end;
    for (size_t i = 0; i < c->section_count; i++)
        if (!place(&at, c->sections[i].size, c->sections[i].align, 0, &c->sections[i].file_offset))
            return -1;
    uint64_t table = s->shoff ? (s->shnum + s->new_sections) * s->section_header : 0;
    uint64_t phdrs =
        c->moves_program_headers ? (s->phnum + s->new_segments) * s->program_header : 0;
    uint64_t segment = c->has_segment ? c->segment_size : 0;
    if (!place(&at, s->names_size, 1, 0, &s->names_offset) ||
        !place(&at, table, table ? 8 : 1, 0, &s->section_table_offset) ||
        !place(&at, phdrs, phdrs ? 8 : 1, 0, &s->phdrs_offset) ||
        !place(&at, segment, segment ? SEGMENT_ALIGN : 1, c->segment_vaddr, &c->segment_offset))
        return -1;
    *end = at;
    return 0;
}

int compose_layout(struct compose *c, struct error *err)
{
    struct compose_state *s = c->state;
    const struct image *image = c->image;
    uint64_t end, top = image->elf_class == 64 ? UINT64_MAX : UINT32_MAX;
    if (c->has_segment && (!c->segment_size || c->segment_size - 1 > top ||
                           c->segment_vaddr > top - (c->segment_size - 1) ||
                           c->segment_paddr > top - (c->segment_size - 1)))
        return cannot(c, err, "the new segment does not fit into the address space");
    if (c->tail_insert_size &&
        (c->tail_insert_at < image->elf_end || c->tail_insert_at > image->size))
        return cannot(c, err, "the insertion is not in the trailing data");
    for (size_t i = 0; i < c->section_count; i++)
        if (c->sections[i].align > SEGMENT_ALIGN ||
            c->sections[i].align & (c->sections[i].align - 1))
            return cannot(c, err, "a new section's alignment is no power of two up to 4096");
    s->names_size = s->shoff ? names_size(c) : 0;
    if (place_all(c, &end))
        return cannot(c, err, "the patched file would be too large");
    c->added_size = (end - image->elf_end + ADDED_ALIGN - 1) / ADDED_ALIGN * ADDED_ALIGN;
    c->output_size = image->size + c->added_size + c->tail_insert_size;
    if (c->output_size > top || c->output_size > FILE_LIMIT)
        return cannot(c, err, "the patched file would be too large");
    if (s->shoff && build_section_table(c, err))
        return -1;
    build_program_headers(c);
    build_header(c);
    return 0;
}

/* Appends a piece, after zeros up to its file offset. */
static void add_piece(struct compose_state *s, uint64_t offset, const void *data, size_t size)
{
    if (offset > s->position) {
        s->pieces[s->piece_count++] =
            (struct iovec){(void *)(uintptr_t)zeros, offset - s->position};
        s->position = offset;
    }
    if (!size)
        return;
    s->pieces[s->piece_count++] = (struct iovec){(void *)(uintptr_t)data, size};
    s->position += size;
}

static void add_original(struct compose *c)
{
    struct compose_state *s = c->state;
    uint64_t from = s->elf_header;
    add_piece(s, 0, s->header, s->elf_header);
    if (s->new_segments && !c->moves_program_headers) {
        uint64_t table_end = s->phoff + s->phnum * s->program_header;
        add_piece(s, from, c->edited + from, table_end - from);
        add_piece(s, table_end, s->grown, s->new_segments * s->program_header);
        from = s->position;
    }
    add_piece(s, from, c->edited + from, c->image->elf_end - from);
}

static void add_added(struct compose *c)
{
    struct compose_state *s = c->state;
    for (size_t i = 0; i < c->section_count; i++)
        add_piece(s, c->sections[i].file_offset, c->sections[i].data, c->sections[i].size);
    if (s->shoff) {
        add_piece(s, s->names_offset, s->names, s->names_size);
        add_piece(s, s->section_table_offset, s->section_table,
                  (s->shnum + s->new_sections) * s->section_header);
    }
    if (c->moves_program_headers) {
        add_piece(s, s->phdrs_offset, c->edited + s->phoff, s->phnum * s->program_header);
        add_piece(s, s->position, s->grown, s->new_segments * s->program_header);
    }
    if (c->has_segment)
        add_piece(s, c->segment_offset, c->segment_data, c->segment_size);
}

int compose_pieces(struct compose *c, const struct iovec **pieces, size_t *count, struct error *err)
{
    struct compose_state *s = c->state;
    const struct image *image = c->image;
    free(s->pieces);
    s->pieces = calloc(PIECES + 2 * c->section_count, sizeof *s->pieces);
    if (!s->pieces)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    s->piece_count = 0;
    s->position = 0;
    add_original(c);
    add_added(c);
    uint64_t insert_at = c->tail_insert_size ? c->tail_insert_at : image->size;
    add_piece(s, image->elf_end + c->added_size, c->edited + image->elf_end,
              insert_at - image->elf_end);
    add_piece(s, s->position, c->tail_insert, c->tail_insert_size);
    add_piece(s, s->position, c->edited + insert_at, image->size - insert_at);
    *pieces = s->pieces;
    *count = s->piece_count;
    return 0;
}

void compose_free(struct compose *c)
{
    if (!c->state)
        return;
    free(c->state->names);
    free(c->state->section_table);
    free(c->state->pieces);
    free(c->state);
    c->state = NULL;
}

uint64_t compose_xxh3(const struct iovec *pieces, size_t count)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t i = 0; i < count; i++)
        XXH3_64bits_update(&state, pieces[i].iov_base, pieces[i].iov_len);
    return XXH3_64bits_digest(&state);
}
