/* SPDX-License-Identifier: MIT */
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
#include "patchc/report_blocks.h"
#include "patchc/report_site.h"

#define REPORT_SCHEMA 1
#define REPORT_MODE   0644

struct writer {
    const struct build_result *result;
    struct json_text text;
    bool failed; /* out of memory somewhere: looked at once, at the end */
};

static void write_member(struct writer *w, const char *key, json_t *value)
{
    json_text_add(&w->text, w->text.size ? ",\n\"" : "{\n\"");
    json_text_add(&w->text, key);
    json_text_add(&w->text, "\": ");
    json_text_value(&w->text, value);
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

static void write_sites(struct writer *w, bool planned)
{
    const struct build_result *result = w->result;
    struct disassembler disassembler;

    disassembler_init(&disassembler);
    json_text_add(&w->text, ",\n\"sites\": [");
    for (size_t i = 0; i < result->site_count; i++) {
        json_text_add(&w->text, i ? ",\n" : "\n");
        report_site(&w->text, &disassembler, &result->image, &result->sites[i], planned);
    }
    json_text_add(&w->text, result->site_count ? "\n]" : "]");
}

static void write_blocks(struct writer *w)
{
    const struct build_result *result = w->result;

    json_text_add(&w->text, ",\n\"io_blocks\": [");
    for (size_t i = 0; i < result->io_block_count; i++) {
        json_text_add(&w->text, i ? ",\n" : "\n");
        report_block(&w->text, &result->image, &result->io_blocks[i], result->io_block_sites[i]);
    }
    json_text_add(&w->text, result->io_block_count ? "\n]" : "]");
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

    if (!image_is_linux(&result->image))
        return object;
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
        if (kind != LINUX_PINNED || result->tables_updated[kind])
            put_count(w, object, linux_table_name((enum linux_table_kind)kind),
                      result->tables_updated[kind]);
    put_count(w, object, "vmlinux.relocs", result->relocs_updated);
    return object;
}

/* True if the build left a break patch: such an image does not boot without a runtime. */
static bool report_needs_runtime(const struct build_result *result)
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
    struct writer w = {.result = result};

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
        write_blocks(&w);
    }
    write_sites(&w, planned);
    json_text_add(&w.text, "\n}\n");
    if (w.failed || w.text.failed) {
        free(w.text.bytes);
        return fail(err, EXIT_IO, "%s: out of memory for the report", result->image.name);
    }
    *text = w.text.bytes;
    *size = w.text.size;
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
    struct iovec piece = {0};
    char *text = NULL;
    int status;

    if (report_format(result, &text, &piece.iov_len, err) < 0)
        return -1;
    piece.iov_base = text;
    status = output_write(path, &piece, 1, REPORT_MODE, err);
    free(text);
    return status;
}
