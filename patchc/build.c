/* SPDX-License-Identifier: MIT */
/* The pipeline (D1): read, find, prove, plan, generate, write. Each stage takes what the one before
 * gives. */
#include "patchc/build.h"

#include <stdlib.h>
#include <string.h>

#include "patchc/emit.h"
#include "patchc/find.h"
#include "patchc/follow.h"
#include "patchc/io_blocks.h"
#include "patchc/plan.h"
#include "patchc/report.h"
#include "patchc/restore.h"
#include "patchc/write.h"

/* Everything that is read from the image. */
struct reading {
    struct relocs relocs;
    struct code code;
    struct linux_tables tables;
    struct context context;
};

static void add_target(void *context, uint64_t address)
{
    code_add_target(context, address);
}

static void resolve_lists(const struct build_options *options, struct build_result *result)
{
    list_resolve(result->list, &result->image);
    for (size_t i = 0; i < options->only_count; i++)
        list_resolve(options->only[i], &result->image);
    for (size_t i = 0; i < options->skip_count; i++)
        list_resolve(options->skip[i], &result->image);
}

static void reading_close(struct reading *reading)
{
    code_close(&reading->code);
    linux_tables_close(&reading->tables);
    context_close(&reading->context);
}

/* Read, find, prove. */
static int read_and_find(const struct build_options *options, struct build_result *result,
                         struct reading *reading, struct error *err)
{
    const struct image *image = &result->image;
    struct pv_note note;
    result->list = list_open(options->list_path, err);
    if (!result->list || image_open(options->image_path, &result->image, err))
        return -1;
    if (patched_note_find(image, &note, NULL, NULL))
        return fail(err, EXIT_INPUT,
                    "%s: is a patched image; `patchc restore` gives its original back",
                    image->name);
    resolve_lists(options, result);
    if (relocs_read(image, &reading->relocs, err) ||
        code_open(image, &reading->relocs, &reading->code, err) ||
        linux_tables_read(image, &reading->tables, err) ||
        linux_tables_targets(&reading->tables, image, &reading->relocs, add_target,
                             &reading->code) ||
        context_open(image, &reading->context, err))
        return err->code ? -1 : fail(err, EXIT_IO, "%s: out of memory", image->name);
    return find_sites(options, &reading->code, &reading->context, result, err);
}

int build_scan(const struct build_options *options, struct build_result *result, struct error *err)
{
    struct reading reading = {0};
    *result = (struct build_result){0};
    int status = read_and_find(options, result, &reading, err);
    reading_close(&reading);
    return status;
}

/* The stub's writable page: one of Linux' own that nothing uses beyond its first bytes, or one of the
 * appended segment. */
static void find_state(struct plan *plan)
{
    const struct image_section *nosave = image_section_named(plan->image, ".data_nosave");
    enum { PAGE = 4096, unused = 64 }; /* hvstub.h; Linux' in_suspend stands at the start */
    if (plan->code->linux_image) {
        if (nosave && nosave->size >= unused + sizeof(struct pv_state)) {
            plan->state = nosave->address + unused;
            plan->state_size = (uint32_t)(nosave->size - unused);
        }
    } else {
        uint64_t page = space_take_appended(&plan->space, PAGE, PAGE, 0, UINT64_MAX);
        if (page) {
            plan->state = page + unused;
            plan->state_size = PAGE - unused;
        }
    }
}

static int compare_words(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The relocation words ascending, as the build leaves them or sorted here. */
static int sort_relocs(struct plan *plan, struct error *err)
{
    for (int kind = 0; kind < RELOC_KINDS; kind++) {
        size_t count = plan->relocs->count[kind];
        uint32_t *words = malloc(4 * count + 4);
        if (!words)
            return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
        plan->relocs_owned[kind] = words;
        plan->relocs_sorted[kind] = words;
        bool ordered = true;
        for (size_t i = 0; i < count; i++) {
            words[i] = relocs_word(plan->relocs, kind, i);
            ordered &= i == 0 || words[i - 1] <= words[i];
        }
        if (!ordered)
            qsort(words, count, 4, compare_words);
    }
    return 0;
}

static int make_plan(struct plan *plan, const struct build_options *options,
                     struct build_result *result, struct reading *reading,
                     struct template_set *templates, struct error *err)
{
    const struct image_symbol *thunk = image_symbol_named(&result->image, "__x86_return_thunk");
    *plan = (struct plan){
        .image = &result->image,
        .code = &reading->code,
        .context = &reading->context,
        .tables = &reading->tables,
        .relocs = &reading->relocs,
        .templates = templates,
        .options = options,
        .sites = result->sites,
        .site_count = result->site_count,
        .return_thunk = thunk ? thunk->address : 0,
        /* A list that names CLI is for a guest whose interrupt flag is virtual. */
        .facilities = {.deprivileged = list_names_mnemonic(result->list, ZYDIS_MNEMONIC_CLI)},
    };
    if (sort_relocs(plan, err) ||
        space_open(&result->image, &reading->code, options->assume_reserved, &plan->space, err))
        return -1;
    /* Small guests do without the big tables: their CPUID and RDMSR go to the host. */
    plan->facilities.cpuid = plan->facilities.msr =
        plan->space.total >= 4 * sizeof(struct pv_cpuid_table);
    find_state(plan);
    plan->facilities.state = plan->state != 0;
    return io_blocks_leave(plan, result, err) || plan_open(plan, err) ? -1 : 0;
}

static int open_output(struct output_bytes *out, const struct plan *plan, struct error *err)
{
    const struct image *image = plan->image;
    *out = (struct output_bytes){.image = image};
    out->edited = image_copy(image, err);
    if (!out->edited)
        return -1;
    out->dirty = calloc(image->size / 4096 + 2, 1);
    if (plan->space.appended && plan->space.appended_used) {
        out->appended_address = plan->space.appended_address;
        out->appended_size = plan->space.appended_used;
        out->appended = calloc(1, out->appended_size);
    }
    if (!out->dirty || (plan->space.appended_used && !out->appended))
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    return 0;
}

static void close_output(struct output_bytes *out)
{
    image_copy_free(out->image, out->edited);
    free(out->dirty);
    free(out->appended);
}

static int summarise(const struct plan *plan, struct build_result *result, struct error *err)
{
    result->patches = calloc(plan->patch_count + 1, sizeof *result->patches);
    if (!result->patches)
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    result->patch_count = plan->patch_count;
    for (size_t i = 0; i < plan->patch_count; i++) {
        const struct patch *patch = &plan->patches[i];
        uint32_t displaced = 0;
        for (uint32_t k = 0; k < patch->atom_count; k++)
            displaced += patch->atoms[k].kind != ATOM_PADDING;
        result->patches[i] =
            (struct patch_summary){patch->window, patch->window_size, patch->trampoline, displaced};
        result->orc_uncovered += plan->tables->orc_ip && patch->trampoline && patch->shares < 0;
    }
    result->header_address = plan->header;
    result->state_address = plan->header ? plan->state : 0;
    result->padding_bytes = plan->space.total;
    result->padding_used = plan->space.used;
    return 0;
}

static int generate_and_write(const struct plan *plan, const struct build_options *options,
                              struct build_result *result, struct error *err)
{
    struct output_bytes out = {0};
    uint32_t *added = NULL;
    size_t added_count = 0;
    int status = -1;
    if (!open_output(&out, plan, err) && !emit_patches(plan, &out, err) &&
        (!plan->header || !emit_stub(plan, &out, err)) && !follow_tables(plan, &out, result, err) &&
        !follow_relocs(plan, &out, result, &added, &added_count, err) &&
        !io_blocks_find(plan, &out, result, err))
        status = write_image(plan, &out, added, added_count, options->output_path, result, err);
    free(added);
    close_output(&out);
    return status;
}

/* Plan, generate, write, report. */
static int patch_image(const struct build_options *options, struct build_result *result,
                       struct reading *reading, struct error *err)
{
    struct template_set *templates = template_set_open(err);
    struct plan plan = {.code = &reading->code};
    int status = -1;
    if (templates && !make_plan(&plan, options, result, reading, templates, err) &&
        !summarise(&plan, result, err)) {
        struct build_counts counts = build_count(result);
        bool enough = build_coverage(&counts) >= options->min_coverage;
        status = enough ? generate_and_write(&plan, options, result, err) : 0;
        if (!status)
            status = report_write(result, options->report_path, err);
        if (!status && !enough)
            status = fail(err, EXIT_CHECK,
                          "%s: coverage %.2f %% is below the minimum of %.2f %%; see %s",
                          result->image.name, build_coverage(&counts), options->min_coverage,
                          options->report_path);
    }
    for (int kind = 0; kind < RELOC_KINDS; kind++)
        free(plan.relocs_owned[kind]);
    plan_close(&plan);
    /* The report names templates: result->sites point into the set. */
    result->templates = templates;
    return status;
}

int build_run(const struct build_options *options, struct build_result *result, struct error *err)
{
    struct reading reading = {0};
    *result = (struct build_result){0};
    const char *slash = strrchr(options->output_path, '/');
    result->output_name = slash ? slash + 1 : options->output_path;
    int status = read_and_find(options, result, &reading, err);
    if (!status)
        status = patch_image(options, result, &reading, err);
    reading_close(&reading);
    return status;
}

struct build_counts build_count(const struct build_result *result)
{
    struct build_counts counts = {.listed = result->site_count};
    for (size_t i = 0; i < result->site_count; i++) {
        enum site_status status = result->sites[i].status;
        counts.excluded += status == STATUS_EXCLUDED;
        counts.patched += status == STATUS_PATCHED;
        counts.left += status == STATUS_LEFT;
        counts.block += status == STATUS_BLOCK;
    }
    counts.eligible = counts.listed - counts.excluded;
    return counts;
}

double build_coverage(const struct build_counts *counts)
{
    if (!counts->eligible)
        return 100;
    return 100.0 * (double)(counts->patched + counts->block) / (double)counts->eligible;
}

void build_result_free(struct build_result *result)
{
    if (result->templates)
        template_set_close(result->templates);
    list_free(result->list);
    free(result->sites);
    free(result->patches);
    free(result->io_addresses);
    free(result->io_blocks);
    free(result->io_block_sites);
    free(result->io_table);
    image_close(&result->image);
    *result = (struct build_result){0};
}
