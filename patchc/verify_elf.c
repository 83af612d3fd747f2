/* SPDX-License-Identifier: MIT */
/* The ELF headers: all segments and sections of the original are there, unchanged but for file
 * offsets behind the part that was added, and what is new lies in that part. */
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "patchc/verify_internal.h"

/* The fields of an ELF header that may follow, and where its tables are. */
struct tables {
    uint64_t segments, segment_size; /* file offset, bytes of an entry */
    uint64_t sections, section_size;
    uint64_t names; /* index of the section that holds section names */
};

static struct tables tables_of(const struct image *image)
{
    struct tables t = {0};
    if (image->elf_class == 64) {
        Elf64_Ehdr h;
        memcpy(&h, image->bytes, sizeof h);
        t = (struct tables){h.e_phoff, sizeof(Elf64_Phdr), h.e_shoff, sizeof(Elf64_Shdr),
                            h.e_shstrndx};
    } else {
        Elf32_Ehdr h;
        memcpy(&h, image->bytes, sizeof h);
        t = (struct tables){h.e_phoff, sizeof(Elf32_Phdr), h.e_shoff, sizeof(Elf32_Shdr),
                            h.e_shstrndx};
    }
    return t;
}

/* Claims the ELF header's fields that may differ. */
static void claim_header_fields(struct verify *v)
{
#define CLAIM_FIELD(type, field)                                                                   \
    verify_claim_file(v, offsetof(type, field), sizeof(((type *)0)->field), CLAIM_WORD, #field)
    if (v->after.elf_class == 64) {
        CLAIM_FIELD(Elf64_Ehdr, e_phoff);
        CLAIM_FIELD(Elf64_Ehdr, e_shoff);
        CLAIM_FIELD(Elf64_Ehdr, e_phnum);
        CLAIM_FIELD(Elf64_Ehdr, e_shnum);
        CLAIM_FIELD(Elf64_Ehdr, e_shstrndx);
    } else {
        CLAIM_FIELD(Elf32_Ehdr, e_phoff);
        CLAIM_FIELD(Elf32_Ehdr, e_shoff);
        CLAIM_FIELD(Elf32_Ehdr, e_phnum);
        CLAIM_FIELD(Elf32_Ehdr, e_shnum);
        CLAIM_FIELD(Elf32_Ehdr, e_shstrndx);
    }
#undef CLAIM_FIELD
}

/* Where the original's file offset is now. Contents that end at the tail stay in front of it. */
static uint64_t offset_now(const struct verify *v, uint64_t offset)
{
    const struct pv_original *o = &v->record.original;
    if (offset < o->tail_offset)
        return offset;
    return offset + o->added_size + (offset >= o->tail_insert_at ? o->tail_insert_size : 0);
}

static bool in_added(const struct verify *v, uint64_t offset, uint64_t size)
{
    const struct pv_original *o = &v->record.original;
    return offset >= o->tail_offset && size <= o->added_size &&
           offset - o->tail_offset <= o->added_size - size;
}

static bool same_place(const struct verify *v, uint64_t before, uint64_t after, uint64_t size)
{
    return after == offset_now(v, before) || (size == 0 && after == before);
}

/* Does something that was added begin at this file offset, and is it this large? */
static bool is_added_thing(const struct verify *v, uint64_t offset, uint64_t size)
{
    const struct pv_note *n = &v->record.note;
    if (offset == v->record.note_file)
        return offset + size == v->record.descriptor_file + sizeof *n;
    return (offset == n->original_file && size == n->original_size) ||
           (offset == n->io_table_file && size == n->io_table_size);
}

/* The stub's own memory: behind what the original loads, linear and physical addresses in step. */
static bool stub_segment_good(const struct verify *v, const struct image_segment *s)
{
    bool in_step = false;
    if (s->file_size != s->mem_size || s->align != 4096 || s->flags != (PF_R | PF_W | PF_X))
        return false;
    for (size_t i = 0; i < v->before.segment_count; i++) {
        const struct image_segment *w = &v->before.segments[i];
        if (w->type != PT_LOAD || w->mem_size == 0)
            continue;
        in_step |= s->vaddr - w->vaddr == s->paddr - w->paddr;
        if (s->paddr < w->paddr + w->mem_size && w->paddr < s->paddr + s->mem_size)
            return false;
    }
    return in_step;
}

/* A segment that the original does not have: one for the note, or one with the stub's memory. */
static bool added_segment_good(const struct verify *v, const struct image_segment *s)
{
    if (!in_added(v, s->offset, s->file_size))
        return false;
    if (s->type == PT_NOTE)
        return s->flags == PF_R && s->offset == v->record.note_file &&
               is_added_thing(v, s->offset, s->file_size) && s->vaddr == 0 && s->paddr == 0 &&
               s->mem_size == 0 && s->align == 4;
    return s->type == PT_LOAD && stub_segment_good(v, s);
}

static void check_segments(struct verify *v)
{
    for (size_t i = 0; i < v->after.segment_count; i++) {
        const struct image_segment *now = &v->after.segments[i];
        if (i < v->before.segment_count) {
            const struct image_segment *was = &v->before.segments[i];
            if (now->type != was->type || now->flags != was->flags || now->vaddr != was->vaddr ||
                now->paddr != was->paddr || now->file_size != was->file_size ||
                now->mem_size != was->mem_size || now->align != was->align ||
                !same_place(v, was->offset, now->offset, was->file_size))
                verify_mismatch(v, "segment %zu: changed", i);
        } else if (!added_segment_good(v, now)) {
            verify_mismatch(v, "segment %zu: added, but is not what was added", i);
        }
    }
    if (v->after.segment_count < v->before.segment_count)
        verify_mismatch(v, "%zu segments, the original has %zu", v->after.segment_count,
                        v->before.segment_count);
}

/* Section header number `index`, widened to 64 bits. The reader has bounded the table. */
static Elf64_Shdr section_header(const struct image *image, const struct tables *t, size_t index)
{
    const uint8_t *at = image->bytes + t->sections + index * t->section_size;
    Elf64_Shdr h;
    if (image->elf_class == 64) {
        memcpy(&h, at, sizeof h);
        return h;
    }
    Elf32_Shdr n;
    memcpy(&n, at, sizeof n);
    return (Elf64_Shdr){n.sh_name, n.sh_type, n.sh_flags, n.sh_addr,      n.sh_offset,
                        n.sh_size, n.sh_link, n.sh_info,  n.sh_addralign, n.sh_entsize};
}

/* The names of sections that patchc adds. */
static bool is_our_name(const char *name)
{
    static const char *const names[] = {".note.patchvisor", ".patchvisor.original",
                                        ".patchvisor.io", ".patchvisor.stub", ".shstrtab"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* A section that the original does not have: it describes something that was added. */
static bool added_section_good(const struct verify *v, const Elf64_Shdr *h, bool names)
{
    if (!in_added(v, h->sh_offset, h->sh_size) || h->sh_link || h->sh_info || h->sh_entsize)
        return false;
    uint64_t align = h->sh_addralign;
    if (align == 0 || align > 4096 || align & (align - 1) || h->sh_offset % align)
        return false;
    if (names)
        return h->sh_type == SHT_STRTAB && !h->sh_flags && !h->sh_addr;
    bool note = h->sh_offset == v->record.note_file;
    if (h->sh_type != (note ? SHT_NOTE : SHT_PROGBITS))
        return false;
    for (size_t i = v->before.segment_count; i < v->after.segment_count; i++) {
        const struct image_segment *s = &v->after.segments[i];
        uint64_t flags =
            SHF_ALLOC | (s->flags & PF_W ? SHF_WRITE : 0) | (s->flags & PF_X ? SHF_EXECINSTR : 0);
        if (s->type == PT_LOAD && h->sh_offset == s->offset)
            return h->sh_size == s->file_size && h->sh_addr == s->vaddr && h->sh_flags == flags;
    }
    return !h->sh_flags && !h->sh_addr && is_added_thing(v, h->sh_offset, h->sh_size);
}

static void check_sections(struct verify *v, const struct tables *was, const struct tables *now)
{
    for (size_t i = 0; i < v->after.section_count; i++) {
        Elf64_Shdr n = section_header(&v->after, now, i);
        uint64_t bytes = n.sh_type == SHT_NOBITS ? 0 : n.sh_size;
        if (i >= v->before.section_count) {
            if (!added_section_good(v, &n, i == now->names) ||
                !is_our_name(v->after.sections[i].name))
                verify_mismatch(v, "section %zu: added, but is not what was added", i);
            continue;
        }
        Elf64_Shdr w = section_header(&v->before, was, i);
        bool moved_names = i == was->names && in_added(v, n.sh_offset, bytes);
        if (same_place(v, w.sh_offset, n.sh_offset, bytes) || moved_names)
            n.sh_offset = w.sh_offset;
        if (moved_names)
            n.sh_size = w.sh_size;
        if (memcmp(&n, &w, sizeof n) != 0)
            verify_mismatch(v, "section %zu (%.40s): its header changed", i,
                            v->before.sections[i].name);
    }
    if (v->after.section_count < v->before.section_count)
        verify_mismatch(v, "%zu sections, the original has %zu", v->after.section_count,
                        v->before.section_count);
}

/* Section names in the added part: the original's, then those of the added sections and nothing
 * else. An original whose sections have no names gets a name table. */
static void check_names(struct verify *v, const struct tables *was, const struct tables *now)
{
    bool had_names = was->names != SHN_UNDEF;
    if (now->names != was->names && (had_names || now->names + 1 != v->after.section_count))
        verify_mismatch(v, "e_shstrndx changed");
    if (now->names == SHN_UNDEF || now->names >= v->after.section_count)
        return;
    const struct image_section *table = &v->after.sections[now->names];
    if (!in_added(v, table->offset, table->size))
        return;
    verify_claim_file(v, table->offset, table->size, CLAIM_ADDED, "section names");
    const uint8_t *bytes = v->after.bytes + table->offset;
    const uint8_t *old = (const uint8_t *)"";
    uint64_t at = 1;
    if (had_names && was->names < v->before.section_count) {
        old = v->before.bytes + v->before.sections[was->names].offset;
        at = v->before.sections[was->names].size;
    }
    bool good = table->size >= at && memcmp(bytes, old, at) == 0;
    for (size_t i = v->before.section_count; good && i < v->after.section_count; i++) {
        size_t length = strlen(v->after.sections[i].name) + 1;
        good =
            length <= table->size - at && (const uint8_t *)v->after.sections[i].name == bytes + at;
        at += length;
    }
    if (!good || at != table->size)
        verify_mismatch(v, "offset 0x%" PRIx64 ": section names changed", table->offset);
}

/* A header table either stands in the added part or where it was, grown into bytes that are zero in
 * the original and belong to no segment or section. */
static void claim_table(struct verify *v, const char *what, uint64_t offset, uint64_t size,
                        uint64_t before, uint64_t before_size)
{
    if (size == 0)
        return;
    if (in_added(v, offset, size)) {
        verify_claim_file(v, offset, size, CLAIM_ADDED, what);
        return;
    }
    verify_claim_file(v, offset, size, CLAIM_WORD, what);
    bool good = offset == offset_now(v, before) && before <= v->before.size &&
                size <= v->before.size - before;
    for (uint64_t at = before + before_size; good && at < before + size; at++)
        good = v->before.bytes[at] == 0;
    for (size_t i = 0; good && i < v->before.section_count; i++) {
        const struct image_section *s = &v->before.sections[i];
        good = s->type == SHT_NOBITS || s->size == 0 || s->offset >= before + size ||
               s->offset + s->size <= before + before_size;
    }
    if (!good)
        verify_mismatch(v, "offset 0x%" PRIx64 ": the %s table is in a place of something else",
                        offset, what);
}

void verify_elf(struct verify *v)
{
    if (v->before.elf_class != v->after.elf_class) {
        verify_mismatch(v, "offset 0x4: ELF class changed");
        return;
    }
    struct tables was = tables_of(&v->before), now = tables_of(&v->after);
    claim_header_fields(v);
    claim_table(v, "program header", now.segments, v->after.segment_count * now.segment_size,
                was.segments, v->before.segment_count * was.segment_size);
    claim_table(v, "section header", now.sections, v->after.section_count * now.section_size,
                was.sections, v->before.section_count * was.section_size);
    check_segments(v);
    check_sections(v, &was, &now);
    check_names(v, &was, &now);
}
