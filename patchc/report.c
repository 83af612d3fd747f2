/* The JSON report: what was found in an image and what became of it (patchc-report(5)).
 *
 * Each member of the top level is one line and so is each site, so that a report of thousands of
 * sites is quick to write and can be searched and compared by line. Sites are written one by one:
 * no tree of the whole report is ever held. */
#include "patchc/report.h"

#include <stdlib.h>
#include <string.h>

#include "image/output.h"
#include "patchc/disassembly.h"
#include "patchc/json.h"
#include "patchc/template.h"

#define REPORT_SCHEMA 1
#define REPORT_MODE   0644

struct writer {
    const struct build_result *result;
    struct disassembler disassembler;
    bool linux_image;
    char *text;
    size_t size, room;
    bool failed; /* out of memory somewhere: looked at once, at the end */
};

/* Appends a value. Its memory is released. */
static void write_json(struct writer *w, json_t *value)
{
    size_t needed;

    if (!value) {
        w->failed = true;
        return;
    }
    for (;;) {
        needed = json_dumpb(value, w->text ? w->text + w->size : NULL, w->room - w->size,
                            JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        if (needed == 0 || needed <= w->room - w->size)
            break;
        size_t room = (w->room + needed) * 2;
        char *grown = realloc(w->text, room);

        if (!grown) {
            needed = 0;
            break;
        }
        w->text = grown;
        w->room = room;
    }
    w->failed |= needed == 0;
    w->size += needed;
    json_decref(value);
}

static void write_text(struct writer *w, const char *text)
{
    size_t length = strlen(text);

    if (length > w->room - w->size) {
        size_t room = (w->room + length) * 2;
        char *grown = realloc(w->text, room);

        if (!grown) {
            w->failed = true;
            return;
        }
        w->text = grown;
        w->room = room;
    }
    memcpy(w->text + w->size, text, length);
    w->size += length;
}

static void write_member(struct writer *w, const char *key, json_t *value)
{
    write_text(w, w->size ? ",\n\"" : "{\n\"");
    write_text(w, key);
    write_text(w, "\": ");
    write_json(w, value);
}

static void put(struct writer *w, json_t *object, const char *key, json_t *value)
{
    json_put(&w->failed, object, key, value);
}

static void put_count(struct writer *w, json_t *object, const char *key, uint64_t value)
{
    put(w, object, key, json_integer((json_int_t)value));
}

static void put_hex(struct writer *w, json_t *object, const char *key, uint64_t value)
{
    put(w, object, key, json_hex(value));
}

static void put_text(struct writer *w, json_t *object, const char *key, const char *text)
{
    put(w, object, key, json_name(text));
}

static const char *section_name(const struct image *image, uint32_t section)
{
    return section < image->section_count ? image->sections[section].name : "";
}

static json_t *instruction_value(const struct writer *w, const struct site *site)
{
    char text[INSTRUCTION_TEXT];
    bool wide = site->status != STATUS_EXCLUDED || site->reason != REASON_OTHER_MODE;

    disassemble(&w->disassembler, wide, site->address, site->bytes, site->length, text);
    return json_string_nocheck(text);
}

/* The window's instructions as they were, the site among them at `slot`. */
static json_t *displaced_value(struct writer *w, const struct site *site)
{
    json_t *list = json_array();
    const uint8_t *code = image_at(&w->result->image, site->window, site->window_size);
    char text[INSTRUCTION_TEXT];

    for (uint32_t at = 0; code && at < site->window_size;) {
        unsigned length = disassemble(&w->disassembler, true, site->window + at, code + at,
                                      site->window_size - at, text);

        json_append(&w->failed, list, json_string_nocheck(text));
        if (length == 0)
            break;
        at += length;
    }
    return list;
}

static json_t *context_value(struct writer *w, unsigned context)
{
    static const struct {
        enum context_flag flag;
        const char *name;
    } names[] = {
        {CONTEXT_STACK, "stack"},
        {CONTEXT_KERNEL_TABLES, "kernel-tables"},
        {CONTEXT_HIGH, "high"},
        {CONTEXT_NMI_SAFE, "nmi-safe"},
        {CONTEXT_FREE_LABELS, "free-labels"},
    };
    json_t *list = json_array();

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (context & names[i].flag)
            json_append(&w->failed, list, json_string_nocheck(names[i].name));
    return list;
}

/* What was found: the part of a site that a scan knows too. */
static json_t *site_found(struct writer *w, const struct site *site, const char *status)
{
    const struct image *image = &w->result->image;
    json_t *object = json_object();
    uint64_t offset = 0;
    const struct image_symbol *symbol = image_symbol_at(image, site->address, &offset);

    put_hex(w, object, "address", site->address);
    put(w, object, "symbol", symbol ? json_place(symbol->name, offset) : json_null());
    put_text(w, object, "section", section_name(image, site->section));
    put(w, object, "bytes", json_bytes(site->bytes, site->length));
    put(w, object, "instruction", instruction_value(w, site));
    put(w, object, "status", json_string_nocheck(status));
    return object;
}

/* What was decided. Every key is always there: null where it says nothing. */
static json_t *site_value(struct writer *w, const struct site *site)
{
    json_t *object = site_found(w, site, status_name(site->status));
    bool patched = site->status == STATUS_PATCHED;
    json_t *window = patched ? json_object() : json_null();

    if (patched) {
        put_hex(w, window, "address", site->window);
        put_count(w, window, "size", site->window_size);
    }
    put_text(w, object, "form", patched ? form_name(site->form) : NULL);
    put_text(w, object, "form_reason", patched ? form_reason_name(site->form_reason) : NULL);
    put_text(w, object, "tactic", patched ? tactic_name(site->tactic) : NULL);
    put(w, object, "slot", patched ? json_integer(site->slot) : json_null());
    put_text(w, object, "template",
             patched && site->template ? template_name(site->template) : NULL);
    put(w, object, "index", patched && site->index >= 0 ? json_integer(site->index) : json_null());
    if (patched && site->routine)
        put_hex(w, object, "routine", site->routine);
    else
        put(w, object, "routine", json_null());
    put(w, object, "window", window);
    put(w, object, "displaced", patched ? displaced_value(w, site) : json_null());
    put_text(w, object, "reason", site->reason == REASON_NONE ? NULL : reason_name(site->reason));
    put(w, object, "context", context_value(w, site->context));
    return object;
}

static void write_sites(struct writer *w, bool planned)
{
    const struct build_result *result = w->result;

    write_text(w, ",\n\"sites\": [");
    for (size_t i = 0; i < result->site_count && !w->failed; i++) {
        const struct site *site = &result->sites[i];
        bool excluded = site->status == STATUS_EXCLUDED;

        write_text(w, i ? ",\n" : "\n");
        if (planned) {
            write_json(w, site_value(w, site));
            continue;
        }
        json_t *object = site_found(w, site, excluded ? "excluded" : "eligible");

        put_text(w, object, "reason", excluded ? reason_name(site->reason) : NULL);
        put(w, object, "context", context_value(w, site->context));
        write_json(w, object);
    }
    write_text(w, result->site_count ? "\n]" : "]");
}

static json_t *input_value(struct writer *w)
{
    const struct image *image = &w->result->image;
    json_t *object = json_object();

    put_text(w, object, "name", image->name);
    put_text(w, object, "format", image_format_name(image->format));
    put_count(w, object, "size", image->input_size);
    put_hex(w, object, "xxh3", image->input_xxh3);
    return object;
}

static json_t *output_value(struct writer *w)
{
    const struct build_result *result = w->result;
    json_t *object;

    if (result->output_size == 0) /* --min-coverage: no image was written */
        return json_null();
    object = json_object();
    put_text(w, object, "name", result->output_name);
    put_count(w, object, "size", result->output_size);
    put_hex(w, object, "xxh3", result->output_xxh3);
    return object;
}

static json_t *stub_value(struct writer *w)
{
    const struct build_result *result = w->result;
    json_t *object;

    if (result->header_address == 0)
        return json_null();
    object = json_object();
    put_hex(w, object, "header", result->header_address);
    if (result->state_address)
        put_hex(w, object, "state", result->state_address);
    else
        put(w, object, "state", json_null());
    put_count(w, object, "space_found", result->padding_bytes);
    put_count(w, object, "space_used", result->padding_used);
    return object;
}

/* How often each reason of `from` .. `to` occurs among the sites with `status`. */
static json_t *reasons_value(struct writer *w, enum site_status status, enum reason from,
                             enum reason to)
{
    const struct build_result *result = w->result;
    size_t counts[REASONS] = {0};
    json_t *object = json_object();

    for (size_t i = 0; i < result->site_count; i++)
        if (result->sites[i].status == status && result->sites[i].reason < REASONS)
            counts[result->sites[i].reason]++;
    for (unsigned reason = REASON_NONE + 1; reason < REASONS; reason++)
        if ((reason >= from && reason <= to) || counts[reason])
            put_count(w, object, reason_name((enum reason)reason), counts[reason]);
    return object;
}

static void put_forms_and_tactics(struct writer *w, json_t *summary)
{
    const struct build_result *result = w->result;
    size_t forms[PV_FORMS] = {0}, tactics[TACTICS] = {0};
    json_t *by_form = json_object(), *by_tactic = json_object();

    for (size_t i = 0; i < result->site_count; i++) {
        const struct site *site = &result->sites[i];

        if (site->status != STATUS_PATCHED || site->form >= PV_FORMS || site->tactic >= TACTICS)
            continue;
        forms[site->form]++;
        tactics[site->tactic]++;
    }
    for (unsigned i = PV_FORM_NONE + 1; i < PV_FORMS; i++)
        put_count(w, by_form, form_name(i), forms[i]);
    for (unsigned i = TACTIC_NONE + 1; i < TACTICS; i++)
        put_count(w, by_tactic, tactic_name((enum tactic)i), tactics[i]);
    put(w, summary, "forms", by_form);
    put(w, summary, "tactics", by_tactic);
}

static json_t *summary_value(struct writer *w, bool planned)
{
    struct build_counts counts = build_count(w->result);
    json_t *object = json_object();

    put_count(w, object, "listed", counts.listed);
    put_count(w, object, "excluded", counts.excluded);
    put_count(w, object, "eligible", counts.eligible);
    if (planned) {
        put_count(w, object, "patched", counts.patched);
        put_count(w, object, "left", counts.left);
        put_count(w, object, "block", counts.block);
        put(w, object, "coverage", json_real(build_coverage(&counts)));
        put_forms_and_tactics(w, object);
    }
    put(w, object, "excluded_reasons",
        reasons_value(w, STATUS_EXCLUDED, REASON_OTHER_MODE, REASON_OVERLAP));
    if (planned)
        put(w, object, "left_reasons", reasons_value(w, STATUS_LEFT, REASON_NO_ROOM, REASONS - 1));
    return object;
}

static json_t *tables_value(struct writer *w)
{
    const struct build_result *result = w->result;
    json_t *object = json_object();

    if (!w->linux_image)
        return object;
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
        if (kind != LINUX_PINNED || result->tables_updated[kind])
            put_count(w, object, linux_table_name((enum linux_table_kind)kind),
                      result->tables_updated[kind]);
    put_count(w, object, "vmlinux.relocs", result->relocs_updated);
    return object;
}

bool report_needs_runtime(const struct build_result *result)
{
    for (size_t i = 0; i < result->site_count; i++)
        if (result->sites[i].status == STATUS_PATCHED && result->sites[i].form == PV_FORM_BREAK)
            return true;
    return false;
}

static void add_warning(struct writer *w, json_t *list, const char *code, uint64_t count,
                        const char *text)
{
    json_t *object = json_object();

    put(w, object, "code", json_string_nocheck(code));
    put_count(w, object, "count", count);
    put(w, object, "text", json_string_nocheck(text));
    json_append(&w->failed, list, object);
}

static json_t *warnings_value(struct writer *w)
{
    json_t *list = json_array();
    size_t unresolved = 0;

    if (w->result->orc_uncovered)
        add_warning(w, list, "orc-uncovered", w->result->orc_uncovered,
                    "trampolines without ORC entries: a backtrace through one stops there");
    while (list_unresolved(w->result->list, unresolved))
        unresolved++;
    if (unresolved)
        add_warning(w, list, "list-unresolved", unresolved,
                    "symbols in range= rules of the list that the image does not have");
    if (report_needs_runtime(w->result))
        add_warning(w, list, "needs-runtime", 1,
                    "break patches: the image boots only under a runtime that knows them");
    return list;
}

static int format(const struct build_result *result, bool planned, char **text, size_t *size,
                  struct error *err)
{
    struct writer w = {.result = result, .linux_image = image_is_linux(&result->image)};

    disassembler_init(&w.disassembler);
    write_member(&w, "schema", json_integer(REPORT_SCHEMA));
    write_member(&w, "tool", json_string("patchc " PATCHVISOR_VERSION));
    write_member(&w, "input", input_value(&w));
    if (planned) {
        write_member(&w, "output", output_value(&w));
        write_member(&w, "stub", stub_value(&w));
    }
    write_member(&w, "list", json_name(list_name(result->list)));
    write_member(&w, "summary", summary_value(&w, planned));
    if (planned) {
        write_member(&w, "warnings", warnings_value(&w));
        write_member(&w, "tables_updated", tables_value(&w));
        write_member(&w, "io_blocks", json_array());
    }
    write_sites(&w, planned);
    write_text(&w, "\n}\n");
    if (w.failed) {
        free(w.text);
        return fail(err, EXIT_IO, "%s: out of memory for the report", result->image.name);
    }
    *text = w.text;
    *size = w.size;
    return 0;
}

int report_format(const struct build_result *result, char **text, size_t *size, struct error *err)
{
    return format(result, true, text, size, err);
}

int report_format_scan(const struct build_result *result, char **text, size_t *size,
                       struct error *err)
{
    return format(result, false, text, size, err);
}

int report_write(const struct build_result *result, const char *path, struct error *err)
{
    struct iovec piece;
    char *text;
    int status;

    if (report_format(result, &text, &piece.iov_len, err) < 0)
        return -1;
    piece.iov_base = text;
    status = output_write(path, &piece, 1, REPORT_MODE, err);
    free(text);
    return status;
}
