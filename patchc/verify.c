/* SPDX-License-Identifier: MIT */
/* `patchc verify`: opens the two images, runs the checks, reports. verify_internal.h has the
 * argument of the whole. */
#include "patchc/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state that is no allocation */
#include <xxhash.h>

#include "patchc/verify_internal.h"

enum { MISMATCHES_PRINTED = 20 };

void verify_mismatch(struct verify *v, const char *format, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    v->mismatches++;
    if (v->mismatches == 1)
        fail(v->err, EXIT_CHECK, "%s: %s", v->after.name, text);
    else if (v->mismatches <= MISMATCHES_PRINTED)
        fprintf(v->out, "%s: %s\n", v->after.name, text);
}

void *vector_add(struct verify *v, struct vector *vector, const void *element, size_t size)
{
    if (vector->count == vector->room) {
        size_t room = vector->room ? vector->room * 2 : 256;
        void *data = reallocarray(vector->data, room, size);
        if (!data) {
            v->out_of_memory = true;
            return NULL;
        }
        vector->data = data;
        vector->room = room;
    }
    void *place = (char *)vector->data + vector->count++ * size;
    memcpy(place, element, size);
    return place;
}

/* XXH3_64bits of the patched file with the note's hash field zero. */
static uint64_t output_hash(const struct verify *v)
{
    const struct image *image = &v->after;
    uint64_t field = v->record.descriptor_file + offsetof(struct pv_note, output_xxh3);
    uint64_t rest = field + sizeof v->record.note.output_xxh3;
    static const uint8_t zero[sizeof v->record.note.output_xxh3];
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, image->bytes, field);
    XXH3_64bits_update(&state, zero, sizeof zero);
    XXH3_64bits_update(&state, image->bytes + rest, image->size - rest);
    return XXH3_64bits_digest(&state);
}

/* Undoing the runs must give the original exactly, and nothing more than is needed may be in them:
 * the record is what `patchc restore` relies on. */
static void check_record(struct verify *v)
{
    const struct pv_original *o = &v->record.original;
    if (output_hash(v) != v->record.note.output_xxh3)
        verify_mismatch(v,
                        "offset 0x%" PRIx64 ": the file does not have the hash that its note says",
                        v->record.descriptor_file + offsetof(struct pv_note, output_xxh3));
    if (o->size != v->before.size || o->xxh3 != XXH3_64bits(v->before.bytes, v->before.size))
        verify_mismatch(v, "offset 0x%" PRIx64 ": made from another original than %s",
                        v->record.note.original_file, v->before.name);
    if (o->tail_insert_size == 0 && o->tail_insert_at != o->tail_offset)
        verify_mismatch(v, "offset 0x%" PRIx64 ": a place for an insertion, but nothing inserted",
                        v->record.note.original_file);
    if (o->size != v->before.size)
        return;
    uint8_t *undone = malloc(v->before.size + 1);
    if (!undone) {
        v->out_of_memory = true;
        return;
    }
    patched_record_undo(&v->after, &v->record, undone);
    if (memcmp(undone, v->before.bytes, v->before.size) != 0) {
        uint64_t at = 0;
        while (undone[at] == v->before.bytes[at])
            at++;
        verify_mismatch(v, "restoring it does not give %s back: offset 0x%" PRIx64 " differs",
                        v->before.name, at);
    }
    free(undone);
    const uint8_t *name_end = v->after.bytes + v->record.note_file + 12 + sizeof PV_NOTE_NAME;
    for (; name_end < v->after.bytes + v->record.descriptor_file; name_end++)
        if (*name_end)
            verify_mismatch(v, "offset 0x%" PRIx64 ": the note's name is not padded with zeros",
                            (uint64_t)(name_end - v->after.bytes));
    verify_claim_file(v, v->record.note_file,
                      v->record.descriptor_file + sizeof v->record.note - v->record.note_file,
                      CLAIM_ADDED, "note");
    verify_claim_file(v, v->record.note.original_file, v->record.note.original_size, CLAIM_ADDED,
                      "record of the original");
}

/* The flags and the IO-block table of the note. */
static void check_note(struct verify *v)
{
    const struct pv_note *note = &v->record.note;
    bool has_break = false;
    for (uint32_t i = 0; i < v->header.patch_count; i++)
        has_break |= v->patches[i].form == PV_FORM_BREAK;
    if (note->flags != (has_break ? PV_IMAGE_NEEDS_RUNTIME : 0))
        verify_mismatch(v, "note: flags 0x%x, but there are %s break patches", note->flags,
                        has_break ? "some" : "no");
    if (note->io_table_file == 0 && note->io_table_size == 0)
        return;
    if (!note->io_table_file || !note->io_table_size || note->io_table_file > v->after.size ||
        note->io_table_size > v->after.size - note->io_table_file)
        verify_mismatch(v, "note: IO-block table at offset 0x%" PRIx64 ", %" PRIu64 " bytes",
                        note->io_table_file, note->io_table_size);
    else {
        verify_claim_file(v, note->io_table_file, note->io_table_size, CLAIM_ADDED,
                          "IO-block table");
        verify_blocks(v);
    }
}

static void check_code(struct verify *v)
{
    if (!verify_header(v))
        return;
    check_note(v);
    verify_patches(v);
    verify_emulation(v);
    verify_tables(v);
    verify_alternatives(v);
    verify_relocs(v);
    verify_branches(v);
    verify_entry_text(v);
}

/* Opens what both images have. Whatever makes the patched image unreadable is a failed check. */
static int open_all(struct verify *v, const char *original, const char *patched)
{
    if (image_open(original, &v->before, v->err))
        return -1;
    if (linux_tables_read(&v->before, &v->tables_before, v->err) ||
        relocs_read(&v->before, &v->relocs_before, v->err))
        return -1;
    if (image_open(patched, &v->after, v->err) ||
        patched_record_read(&v->after, &v->record, v->err) ||
        linux_tables_read(&v->after, &v->tables_after, v->err) ||
        relocs_read(&v->after, &v->relocs_after, v->err)) {
        if (v->err->code == EXIT_INPUT)
            v->err->code = EXIT_CHECK;
        return -1;
    }
    ZydisDecoderInit(&v->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return 0;
}

static void close_all(struct verify *v)
{
    free(v->patches);
    free(v->routines);
    free(v->routine_table);
    free(v->windows);
    free(v->claims.data);
    free(v->moves.data);
    free(v->branches.data);
    free(v->dead.data);
    linux_tables_close(&v->tables_before);
    linux_tables_close(&v->tables_after);
    image_close(&v->before);
    image_close(&v->after);
}

int verify_run(const char *original, const char *patched, FILE *out, struct error *err)
{
    struct error local = {0};
    struct verify *v = calloc(1, sizeof *v);
    if (!v)
        return fail(err, EXIT_IO, "%s: out of memory", patched);
    v->out = out;
    v->err = err ? err : &local;
    int result = open_all(v, original, patched);
    if (result == 0) {
        check_record(v);
        if (v->before.size == v->record.original.size) {
            verify_elf(v);
            check_code(v);
            verify_claims_judge(v);
        }
        if (v->out_of_memory)
            result = fail(v->err, EXIT_IO, "%s: out of memory", patched);
        else if (v->mismatches)
            result = -1;
        if (v->mismatches > MISMATCHES_PRINTED)
            fprintf(out, "%zu mismatches, %d shown\n", v->mismatches, MISMATCHES_PRINTED);
        if (result == 0)
            fprintf(out, "%s: verified: %u patches, %u routines, %zu tables\n", v->after.name,
                    v->header.patch_count, v->header.routine_count, v->tables_checked);
    }
    close_all(v);
    free(v);
    return result;
}
