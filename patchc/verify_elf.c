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
        } else if (!in_added(v, now->offset, now->file_size) ||
                   (now->type != PT_LOAD && now->type != PT_NOTE) ||
                   (now->type == PT_NOTE && now->offset != v->record.note_file)) {
            verify_mismatch(v, "segment %zu: added, but holds nothing that was added", i);
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

static void check_sections(struct verify *v, const struct tables *was, const struct tables *now)
{
    for (size_t i = 0; i < v->after.section_count; i++) {
        Elf64_Shdr n = section_header(&v->after, now, i);
        uint64_t bytes = n.sh_type == SHT_NOBITS ? 0 : n.sh_size;
        if (i >= v->before.section_count) {
            if (!in_added(v, n.sh_offset, bytes))
                verify_mismatch(v, "section %zu: added, but holds nothing that was added", i);
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

/* Section names that were moved to the added part: the original's, then those of the added
 * sections and nothing else. */
static void check_names(struct verify *v, uint64_t names)
{
    if (names >= v->before.section_count || names >= v->after.section_count)
        return;
    const struct image_section *was = &v->before.sections[names];
    const struct image_section *now = &v->after.sections[names];
    if (!in_added(v, now->offset, now->size))
        return;
    verify_claim_file(v, now->offset, now->size, CLAIM_ADDED, "section names");
    const uint8_t *bytes = v->after.bytes + now->offset;
    uint64_t at = was->size;
    bool good =
        now->size >= was->size && memcmp(bytes, v->before.bytes + was->offset, was->size) == 0;
    for (size_t i = v->before.section_count; good && i < v->after.section_count; i++) {
        size_t length = strlen(v->after.sections[i].name) + 1;
        good = length <= now->size - at && (const uint8_t *)v->after.sections[i].name == bytes + at;
        at += length;
    }
    if (!good || at != now->size)
        verify_mismatch(v, "offset 0x%" PRIx64 ": section names changed", now->offset);
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
    if (now.names != was.names)
        verify_mismatch(v, "e_shstrndx changed");
    claim_table(v, "program header", now.segments, v->after.segment_count * now.segment_size,
                was.segments, v->before.segment_count * was.segment_size);
    claim_table(v, "section header", now.sections, v->after.section_count * now.section_size,
                was.sections, v->before.section_count * was.section_size);
    check_segments(v);
    check_sections(v, &was, &now);
    check_names(v, was.names);
}
