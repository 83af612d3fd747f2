/* SPDX-License-Identifier: MIT */
/* Reads the record of the original bytes that a patched image carries, and undoes the patching. */
#include "patchc/restore.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "image/output.h"

/* Checks that the layout that the record claims is the file's, so that undoing stays inside it. */
static int layout_check(const struct image *image, const struct pv_original *o, struct error *err)
{
    uint64_t size;
    if (__builtin_add_overflow(o->size, o->added_size, &size) ||
        __builtin_add_overflow(size, o->tail_insert_size, &size) || size != image->size)
        return fail(
            err, EXIT_INPUT,
            "%s: damaged record of the original: sizes do not add up to the file's %zu bytes",
            image->name, image->size);
    if (o->tail_offset > o->tail_insert_at || o->tail_insert_at > o->size)
        return fail(err, EXIT_INPUT,
                    "%s: damaged record of the original: tail at 0x%llx, insertion at 0x%llx",
                    image->name, (unsigned long long)o->tail_offset,
                    (unsigned long long)o->tail_insert_at);
    return 0;
}

/* Run number `index` of the record. */
static struct pv_original_run run_at(const struct patched_record *record, uint64_t index)
{
    struct pv_original_run run;
    memcpy(&run, record->runs + index * sizeof run, sizeof run);
    return run;
}

/* Checks that the runs are sorted, disjoint, inside the original, and that their bytes are there.
 */
static int runs_check(const struct image *image, const struct patched_record *record,
                      struct error *err)
{
    uint64_t end = 0, bytes = 0;
    for (uint64_t i = 0; i < record->original.run_count; i++) {
        struct pv_original_run run = run_at(record, i);
        if (run.size == 0 || run.offset < end || run.offset > record->original.size ||
            run.size > record->original.size - run.offset)
            return fail(err, EXIT_INPUT,
                        "%s: damaged record of the original: run %llu at 0x%llx, %llu bytes",
                        image->name, (unsigned long long)i, (unsigned long long)run.offset,
                        (unsigned long long)run.size);
        end = run.offset + run.size;
        bytes += run.size; /* disjoint runs inside one file: no overflow */
    }
    if (bytes != record->run_bytes_size)
        return fail(err, EXIT_INPUT,
                    "%s: damaged record of the original: %llu bytes of runs, %llu bytes stored",
                    image->name, (unsigned long long)bytes,
                    (unsigned long long)record->run_bytes_size);
    return 0;
}

int patched_record_read(const struct image *image, struct patched_record *record, struct error *err)
{
    memset(record, 0, sizeof *record);
    if (!patched_note_find(image, &record->note, &record->note_file, &record->descriptor_file))
        return fail(err, EXIT_INPUT, "%s: not a patched image: it has no %s note", image->name,
                    PV_NOTE_NAME);
    const struct pv_note *note = &record->note;
    if (note->abi_version != PV_ABI_VERSION)
        return fail(err, EXIT_INPUT, "%s: patched with ABI version %u, this program knows %u",
                    image->name, note->abi_version, PV_ABI_VERSION);
    uint64_t at = note->original_file, size = note->original_size;
    if (at > image->size || size > image->size - at || size < sizeof record->original)
        return fail(err, EXIT_INPUT,
                    "%s: damaged note: record of the original at file offset 0x%llx, %llu bytes",
                    image->name, (unsigned long long)at, (unsigned long long)size);
    memcpy(&record->original, image->bytes + at, sizeof record->original);
    if (layout_check(image, &record->original, err))
        return -1;
    uint64_t room = size - sizeof record->original;
    if (record->original.run_count > room / sizeof(struct pv_original_run))
        return fail(err, EXIT_INPUT, "%s: damaged record of the original: %llu runs in %llu bytes",
                    image->name, (unsigned long long)record->original.run_count,
                    (unsigned long long)room);
    uint64_t list = record->original.run_count * sizeof(struct pv_original_run);
    record->runs = image->bytes + at + sizeof record->original;
    record->run_bytes = record->runs + list;
    record->run_bytes_size = room - list;
    return runs_check(image, record, err);
}

bool patched_record_origin(const struct patched_record *record, uint64_t patched_offset,
                           uint64_t *original_offset)
{
    const struct pv_original *o = &record->original;
    uint64_t at = patched_offset;
    if (at >= o->tail_offset) {
        if (at - o->tail_offset < o->added_size)
            return false;
        at -= o->added_size;
        if (at >= o->tail_insert_at) {
            if (at - o->tail_insert_at < o->tail_insert_size)
                return false;
            at -= o->tail_insert_size;
        }
    }
    *original_offset = at;
    return at < o->size;
}

void patched_record_undo(const struct image *image, const struct patched_record *record,
                         uint8_t *out)
{
    const struct pv_original *o = &record->original;
    const uint8_t *in = image->bytes;
    memcpy(out, in, o->tail_offset);
    in += o->tail_offset + o->added_size;
    memcpy(out + o->tail_offset, in, o->tail_insert_at - o->tail_offset);
    in += o->tail_insert_at - o->tail_offset + o->tail_insert_size;
    memcpy(out + o->tail_insert_at, in, o->size - o->tail_insert_at);
    const uint8_t *bytes = record->run_bytes;
    for (uint64_t i = 0; i < o->run_count; i++) {
        struct pv_original_run run = run_at(record, i);
        memcpy(out + run.offset, bytes, run.size);
        bytes += run.size;
    }
}

static int restore_image(const struct image *image, const char *output, struct error *err)
{
    struct patched_record record;
    if (patched_record_read(image, &record, err))
        return -1;
    uint8_t *out = malloc(record.original.size + 1);
    if (!out)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    patched_record_undo(image, &record, out);
    int result;
    if (XXH3_64bits(out, record.original.size) != record.original.xxh3) {
        result =
            fail(err, EXIT_INPUT, "%s: damaged: the restored bytes do not have the original's hash",
                 image->name);
    } else {
        struct iovec piece = {out, record.original.size};
        result = output_write(output, &piece, 1, image->mode, err);
    }
    free(out);
    return result;
}

int restore_run(const char *patched, const char *output, struct error *err)
{
    struct image image;
    if (image_open(patched, &image, err))
        return -1;
    int result = restore_image(&image, output, err);
    image_close(&image);
    return result;
}
