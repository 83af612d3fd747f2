/* SPDX-License-Identifier: MIT */
/* Reads what a patched image tells about itself: note, header, tables, original bytes.
 *
 * The image is hostile input. Both tables are bounded against the file when it is opened; their
 * offsets are only ever turned into addresses, which the image's own accessors check. */
#include "patchc/inspect_image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/table.h"
#include "patchc/json.h"
#include "patchc/report_blocks.h"
#include "patchc/vocabulary.h"

#define SITES_MAX                                                                                  \
    200000u /* a forged table must not make us eat memory; a kernel has some thousand */
#define WINDOW_MAX                                                                                 \
    4096u /* bytes; the longest real one is an alternatives' region, 255 and a bit                 \
           */

uint64_t patched_image_address(const struct patched_image *patched, int64_t offset)
{
    return patched->header_address + (uint64_t)offset;
}

static const uint8_t *table_at(const struct patched_image *patched, int64_t offset, uint64_t count,
                               size_t entry)
{
    return image_at(&patched->image, patched_image_address(patched, offset), count * entry);
}

static int header_read(struct patched_image *patched, struct error *err)
{
    const char *name = patched->image.name;
    struct pv_header *header = &patched->header;
    uint64_t address = patched->record.note.header_address;
    const uint8_t *bytes = image_at(&patched->image, address, sizeof *header);

    if (!bytes)
        return fail(err, EXIT_INPUT, "%s: damaged note: no stub header at 0x%" PRIx64, name,
                    address);
    memcpy(header, bytes, sizeof *header);
    if (memcmp(header->magic, PV_HEADER_MAGIC, sizeof header->magic) != 0 ||
        header->abi_version != PV_ABI_VERSION)
        return fail(err, EXIT_INPUT, "%s: damaged stub header at 0x%" PRIx64, name, address);
    patched->header_address = address;
    patched->routines = table_at(patched, header->routine_info_offset, header->routine_count,
                                 sizeof(struct pv_routine));
    patched->patches =
        table_at(patched, header->patch_info_offset, header->patch_count, sizeof(struct pv_patch));
    if ((!patched->routines && header->routine_count) || (!patched->patches && header->patch_count))
        return fail(err, EXIT_INPUT,
                    "%s: damaged stub header at 0x%" PRIx64 ": its tables are not in the image",
                    name, address);
    return 0;
}

struct patched_image *patched_image_open(const char *path, struct error *err)
{
    struct patched_image *patched = calloc(1, sizeof *patched);

    if (!patched) {
        fail(err, EXIT_IO, "%s: out of memory", path);
        return NULL;
    }
    if (image_open(path, &patched->image, err) < 0) {
        free(patched);
        return NULL;
    }
    disassembler_init(&patched->disassembler);
    if (patched_record_read(&patched->image, &patched->record, err) < 0)
        goto failed;
    patched->original = malloc(patched->record.original.size + 1);
    if (!patched->original) {
        fail(err, EXIT_IO, "%s: out of memory", path);
        goto failed;
    }
    patched_record_undo(&patched->image, &patched->record, patched->original);
    if (patched->record.note.header_address && header_read(patched, err) < 0)
        goto failed;
    return patched;
failed:
    patched_image_close(patched);
    return NULL;
}

void patched_image_close(struct patched_image *patched)
{
    if (!patched)
        return;
    image_close(&patched->image);
    free(patched->original);
    free(patched);
}

bool patched_image_routine(const struct patched_image *patched, uint64_t index,
                           struct pv_routine *routine)
{
    if (index >= patched->header.routine_count)
        return false;
    memcpy(routine, patched->routines + index * sizeof *routine, sizeof *routine);
    return true;
}

bool patched_image_patch(const struct patched_image *patched, uint64_t index,
                         struct pv_patch *patch)
{
    if (index >= patched->header.patch_count)
        return false;
    memcpy(patch, patched->patches + index * sizeof *patch, sizeof *patch);
    return true;
}

const uint8_t *patched_image_original(const struct patched_image *patched, uint64_t address,
                                      uint64_t count)
{
    uint64_t offset, first, last;

    if (count == 0 || !image_offset(&patched->image, address, count, &offset) ||
        !patched_record_origin(&patched->record, offset, &first) ||
        !patched_record_origin(&patched->record, offset + count - 1, &last) || last < first ||
        last - first != count - 1)
        return NULL;
    return patched->original + first;
}

struct reporter {
    const struct patched_image *patched;
    json_t *sites;
    bool failed;
};

/* The window's instructions as they were; *slot is where the one at `address` stands, or -1, and
 * *length its length. */
static json_t *displaced_value(struct reporter *r, uint64_t window, uint32_t size, uint64_t address,
                               int *slot, unsigned *length)
{
    const uint8_t *code = patched_image_original(r->patched, window, size);
    json_t *list = json_array();
    char text[INSTRUCTION_TEXT];

    *slot = -1;
    *length = 0;
    for (uint32_t at = 0; code && at < size;) {
        unsigned step =
            disassemble(&r->patched->disassembler, true, window + at, code + at, size - at, text);

        if (window + at == address) {
            *slot = (int)json_array_size(list);
            *length = step;
        }
        json_append(&r->failed, list, json_string_nocheck(text));
        if (step == 0)
            break;
        at += step;
    }
    return list;
}

static const char *section_name(const struct patched_image *patched, uint64_t address)
{
    const struct image_section *section = image_section_at(&patched->image, address);

    return section ? section->name : NULL;
}

static void add_site(struct reporter *r, uint64_t window_address, uint32_t window_size,
                     uint64_t address, uint64_t index, const struct pv_routine *routine)
{
    const struct patched_image *patched = r->patched;
    json_t *object = json_object(), *window = json_object(), *displaced;
    uint64_t offset = 0;
    const struct image_symbol *symbol = image_symbol_at(&patched->image, address, &offset);
    const uint8_t *bytes;
    unsigned length;
    int slot;

    displaced = displaced_value(r, window_address, window_size, address, &slot, &length);
    bytes = patched_image_original(patched, address, length);
    json_put(&r->failed, window, "address", json_hex(window_address));
    json_put(&r->failed, window, "size", json_integer(window_size));
    json_put(&r->failed, object, "address", json_hex(address));
    json_put(&r->failed, object, "symbol", symbol ? json_place(symbol->name, offset) : json_null());
    json_put(&r->failed, object, "section", json_name(section_name(patched, address)));
    json_put(&r->failed, object, "bytes", json_bytes(bytes, bytes ? length : 0));
    json_put(&r->failed, object, "instruction",
             slot < 0 ? json_string("(bad)")
                      : json_incref(json_array_get(displaced, (size_t)slot)));
    json_put(&r->failed, object, "status", json_string(status_name(STATUS_PATCHED)));
    json_put(&r->failed, object, "form", json_string(form_name(routine->form)));
    json_put(&r->failed, object, "slot", slot < 0 ? json_null() : json_integer(slot));
    json_put(&r->failed, object, "index", json_integer((json_int_t)index));
    json_put(&r->failed, object, "routine",
             json_hex(patched_image_address(patched, routine->link_offset)));
    json_put(&r->failed, object, "window", window);
    json_put(&r->failed, object, "displaced", displaced);
    json_append(&r->failed, r->sites, object);
}

/* The sites of a patch. Several windows may share one trampoline (PV_PATCH_REPLACEMENT): the
 * routine names the site of one of them, and the others' stand as far into their own windows. */
static int add_patch(struct reporter *r, const struct pv_patch *patch, struct error *err)
{
    const struct patched_image *patched = r->patched;
    uint64_t window = patched_image_address(patched, patch->window_offset);
    struct pv_routine routine;
    struct pv_patch owner;

    if (patch->window_size > WINDOW_MAX)
        return fail(err, EXIT_INPUT, "%s: damaged tables: a patch of %u bytes at 0x%" PRIx64,
                    patched->image.name, patch->window_size, window);
    for (uint64_t i = 0; i < patch->routine_count; i++) {
        uint64_t index = patch->first_routine + i, offset;

        if (!patched_image_routine(patched, index, &routine) ||
            !patched_image_patch(patched, routine.patch, &owner))
            return fail(err, EXIT_INPUT,
                        "%s: damaged tables: the patch at 0x%" PRIx64 " names no routine",
                        patched->image.name, window);
        offset = (uint64_t)routine.site_offset - (uint64_t)owner.window_offset;
        if (offset >= patch->window_size || json_array_size(r->sites) >= SITES_MAX)
            return fail(err, EXIT_INPUT,
                        "%s: damaged tables: a site lies outside its patch at 0x%" PRIx64,
                        patched->image.name, window);
        add_site(r, window, patch->window_size, window + offset, index, &routine);
    }
    return 0;
}

static json_t *output_value(struct reporter *r)
{
    const struct image *image = &r->patched->image;
    json_t *object = json_object();

    json_put(&r->failed, object, "name", json_name(image->name));
    json_put(&r->failed, object, "size", json_integer((json_int_t)image->input_size));
    json_put(&r->failed, object, "xxh3", json_hex(image->input_xxh3));
    return object;
}

static json_t *stub_value(struct reporter *r)
{
    const struct patched_image *patched = r->patched;
    json_t *object;

    if (!patched->header_address)
        return json_null();
    object = json_object();
    json_put(&r->failed, object, "header", json_hex(patched->header_address));
    json_put(&r->failed, object, "state",
             patched->header.state_offset
                 ? json_hex(patched_image_address(patched, patched->header.state_offset))
                 : json_null());
    return object;
}

/* The IO-block table. One that is damaged is as good as none to a runtime, and shows as none here. */
static json_t *blocks_value(struct reporter *r)
{
    const struct pv_note *note = &r->patched->record.note;
    const struct image *image = &r->patched->image;
    struct json_text text = {0};
    struct io_table table;
    struct io_block block;

    if (note->io_table_file > image->size ||
        note->io_table_size > image->size - note->io_table_file ||
        io_table_read(image->name, image->bytes + note->io_table_file, note->io_table_size, &table,
                      NULL))
        return json_array();
    size_t ranges = 0;
    json_text_add(&text, "[");
    for (uint32_t i = 0; i < table.entry_count && ranges < SITES_MAX; i++) {
        io_table_block(&table, i, &block);
        ranges += block.range_count;
        json_text_add(&text, i ? "," : "");
        report_block(&text, image, &block, 0);
    }
    json_text_add(&text, "]");
    json_t *list = text.failed ? NULL : json_loadb(text.bytes, text.size, 0, NULL);
    free(text.bytes);
    io_table_free(&table);
    return list;
}

json_t *patched_image_report(const struct patched_image *patched, struct error *err)
{
    struct reporter r = {.patched = patched, .sites = json_array()};
    json_t *root = json_object();
    struct pv_patch patch;
    int status = 0;

    json_put(&r.failed, root, "schema", json_integer(1));
    json_put(&r.failed, root, "output", output_value(&r));
    json_put(&r.failed, root, "stub", stub_value(&r));
    json_put(&r.failed, root, "io_blocks", blocks_value(&r));
    json_put(&r.failed, root, "sites", json_incref(r.sites));
    for (uint64_t i = 0; patched_image_patch(patched, i, &patch); i++)
        if ((status = add_patch(&r, &patch, err)) < 0)
            break;
    json_decref(r.sites);
    if (r.failed)
        status = fail(err, EXIT_IO, "%s: out of memory", patched->image.name);
    if (status == 0)
        return root;
    json_decref(root);
    return NULL;
}
