/* SPDX-License-Identifier: MIT */
/* Writing the patched image. What the guest loads was edited in place; beside it the file carries a
 * note that leads a runtime to the stub, and the original bytes that `patchc restore` needs. */
#include "patchc/write.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "image/compose.h"
#include "image/output.h"

#define PAGE_SIZE 4096u

struct runs {
    struct pv_original_run *run;
    size_t count, capacity;
};

static int add_run(struct runs *runs, uint64_t offset, uint64_t size, struct error *err)
{
    if (runs->count &&
        runs->run[runs->count - 1].offset + runs->run[runs->count - 1].size == offset) {
        runs->run[runs->count - 1].size += size;
        return 0;
    }
    if (runs->count == runs->capacity) {
        size_t capacity = runs->capacity ? 2 * runs->capacity : 4096;
        struct pv_original_run *grown = realloc(runs->run, capacity * sizeof *grown);
        if (!grown)
            return fail(err, EXIT_IO, "out of memory");
        runs->run = grown;
        runs->capacity = capacity;
    }
    runs->run[runs->count++] = (struct pv_original_run){offset, size};
    return 0;
}

static bool edited_by_compose(const struct compose *compose, uint64_t offset)
{
    for (size_t i = 0; i < compose->run_count; i++)
        if (offset - compose->runs[i].offset < compose->runs[i].size)
            return true;
    return false;
}

/* Every byte that differs from the original, in order: those of pages that were written, and those
 * that compose edits itself. */
static int find_runs(const struct output_bytes *out, const struct compose *compose,
                     struct runs *runs, struct error *err)
{
    const uint8_t *original = out->image->bytes;
    for (uint64_t page = 0; page * PAGE_SIZE < out->image->size; page++) {
        uint64_t start = page * PAGE_SIZE, end = start + PAGE_SIZE;
        if (end > out->image->size)
            end = out->image->size;
        bool composed = false;
        for (size_t i = 0; i < compose->run_count; i++)
            composed |= compose->runs[i].offset < end &&
                        compose->runs[i].offset + compose->runs[i].size > start;
        if (!out->dirty[page] && !composed)
            continue;
        for (uint64_t i = start; i < end; i++)
            if ((out->edited[i] != original[i] || (composed && edited_by_compose(compose, i))) &&
                add_run(runs, i, 1, err))
                return -1;
    }
    return 0;
}

/* struct pv_original, its runs and their bytes. */
static uint8_t *pack_original(const struct output_bytes *out, const struct runs *runs,
                              const struct compose *compose, size_t *size)
{
    const struct image *image = out->image;
    size_t bytes = 0;
    for (size_t i = 0; i < runs->count; i++)
        bytes += runs->run[i].size;
    *size = sizeof(struct pv_original) + runs->count * sizeof *runs->run + bytes;
    uint8_t *packed = malloc(*size), *p = packed;
    if (!packed)
        return NULL;
    struct pv_original record = {
        .size = image->size,
        .xxh3 = XXH3_64bits(image->bytes, image->size),
        .tail_offset = image->elf_end,
        .tail_insert_at = compose->tail_insert_size ? compose->tail_insert_at : image->elf_end,
        .tail_insert_size = compose->tail_insert_size,
        .run_count = runs->count,
    };
    memcpy(p, &record, sizeof record);
    p += sizeof record;
    memcpy(p, runs->run, runs->count * sizeof *runs->run);
    p += runs->count * sizeof *runs->run;
    for (size_t i = 0; i < runs->count; i++) {
        memcpy(p, image->bytes + runs->run[i].offset, runs->run[i].size);
        p += runs->run[i].size;
    }
    return packed;
}

struct note {
    Elf64_Nhdr header; /* the same layout in ELF32 */
    char name[12];
    struct pv_note descriptor;
};

enum { SECTION_NOTE, SECTION_ORIGINAL, SECTION_IO_BLOCKS, SECTIONS };

struct file { /* the output while it is put together */
    struct compose compose;
    struct compose_section sections[SECTIONS];
    struct note note;
    struct runs runs;
    uint8_t *original;
};

static uint64_t header_file_offset(const struct plan *plan, const struct output_bytes *out,
                                   const struct compose *compose)
{
    uint64_t offset = plan->header - out->appended_address;
    if (out->appended && offset < out->appended_size)
        return compose->segment_offset + offset;
    return image_offset(plan->image, plan->header, sizeof(struct pv_header), &offset) ? offset : 0;
}

static void fill_note(struct file *file, const struct plan *plan, const struct output_bytes *out)
{
    bool needs_runtime = false;
    for (size_t i = 0; i < plan->patch_count; i++)
        needs_runtime |= plan->patches[i].form == PV_FORM_BREAK && plan->patches[i].trampoline;
    file->note = (struct note){
        .header = {sizeof PV_NOTE_NAME, sizeof(struct pv_note), PV_NOTE_TYPE},
        .name = PV_NOTE_NAME,
        .descriptor = {.abi_version = PV_ABI_VERSION,
                       .flags = needs_runtime ? PV_IMAGE_NEEDS_RUNTIME : 0,
                       .header_address = plan->header,
                       .original_file = file->sections[SECTION_ORIGINAL].file_offset,
                       .original_size = file->sections[SECTION_ORIGINAL].size},
    };
    if (file->compose.section_count > SECTION_IO_BLOCKS) {
        file->note.descriptor.io_table_file = file->sections[SECTION_IO_BLOCKS].file_offset;
        file->note.descriptor.io_table_size = file->sections[SECTION_IO_BLOCKS].size;
    }
    if (plan->header)
        file->note.descriptor.header_file = header_file_offset(plan, out, &file->compose);
}

static int compose_file(struct file *file, const struct plan *plan, struct output_bytes *out,
                        const uint32_t *added, size_t added_count,
                        const struct build_result *result, struct error *err)
{
    struct compose *c = &file->compose;
    *c = (struct compose){
        .image = plan->image,
        .edited = out->edited,
        .sections = file->sections,
        .section_count = result->io_table ? SECTIONS : SECTION_IO_BLOCKS,
        .note_section = SECTION_NOTE,
        .has_segment = out->appended != NULL,
        .segment_name = out->appended ? ".patchvisor.stub" : NULL,
        .segment_vaddr = out->appended_address,
        .segment_paddr = plan->space.appended_physical,
        .segment_flags = PF_R | PF_W | PF_X,
        .segment_data = out->appended,
        .segment_size = out->appended_size,
        .tail_insert_at = plan->relocs->present ? plan->relocs->offset[RELOC_64] : 0,
        .tail_insert = added,
        .tail_insert_size = 4 * added_count,
    };
    file->sections[SECTION_NOTE] = (struct compose_section){
        ".note.patchvisor", SHT_NOTE, &file->note, sizeof file->note, 4, 0};
    file->sections[SECTION_ORIGINAL] =
        (struct compose_section){".patchvisor.original", SHT_PROGBITS, NULL, 0, 8, 0};
    file->sections[SECTION_IO_BLOCKS] = (struct compose_section){
        ".patchvisor.io", SHT_PROGBITS, result->io_table, result->io_table_size, 8, 0};
    if (compose_begin(c, err) || find_runs(out, c, &file->runs, err))
        return -1;
    file->original = pack_original(out, &file->runs, c, &file->sections[SECTION_ORIGINAL].size);
    if (!file->original)
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    file->sections[SECTION_ORIGINAL].data = file->original;
    if (compose_layout(c, err))
        return -1;
    memcpy(file->original + offsetof(struct pv_original, added_size), &c->added_size, 8);
    fill_note(file, plan, out);
    return 0;
}

int write_image(const struct plan *plan, struct output_bytes *out, const uint32_t *added,
                size_t added_count, const char *path, struct build_result *result,
                struct error *err)
{
    struct file file = {0};
    const struct iovec *pieces;
    size_t count;
    int status = -1;
    if (!compose_file(&file, plan, out, added, added_count, result, err) &&
        !compose_pieces(&file.compose, &pieces, &count, err)) {
        file.note.descriptor.output_xxh3 = compose_xxh3(pieces, count);
        result->output_size = file.compose.output_size;
        result->output_xxh3 = compose_xxh3(pieces, count);
        status = output_write(path, pieces, count, plan->image->mode, err);
    }
    compose_free(&file.compose);
    free(file.runs.run);
    free(file.original);
    return status;
}
