/* SPDX-License-Identifier: MIT */
/* A bench for the core of `patchc build`. */
#include "tests/unit/core_lab.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "patchc/verify.h"
#include "tests/unit/guest_elf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* last: it defines fail() as a macro */

static const char banner[] = "Linux version 6.1.0-lab (builder@host)";

static _Noreturn void die(const struct lab *lab, const char *what)
{
    fail_msg("%s: %s", what, lab->err.text);
    abort(); /* fail_msg leaves by a long jump, which its declaration does not say */
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file))
        abort();
}

void lab_open(struct lab *lab)
{
    memset(lab, 0, sizeof *lab);
    const char *parent = getenv("TMPDIR");
    if (!parent || strlen(parent) > 32)
        parent = "/tmp";
    snprintf(lab->folder, sizeof lab->folder, "%s/core.XXXXXX", parent);
    if (!mkdtemp(lab->folder))
        abort();
    snprintf(lab->image_path, sizeof lab->image_path, "%s/guest", lab->folder);
    snprintf(lab->list_path, sizeof lab->list_path, "%s/lab.list", lab->folder);
    snprintf(lab->output_path, sizeof lab->output_path, "%s/patched", lab->folder);
    snprintf(lab->report_path, sizeof lab->report_path, "%s/report", lab->folder);
    snprintf(lab->restored_path, sizeof lab->restored_path, "%s/restored", lab->folder);
    lab->options = (struct build_options){.image_path = lab->image_path,
                                          .list_path = lab->list_path,
                                          .output_path = lab->output_path,
                                          .report_path = lab->report_path,
                                          .min_coverage = -1};
}

static void close_build(struct lab *lab)
{
    image_close(&lab->patched);
    build_result_free(&lab->result);
    lab->patched = (struct image){0};
    lab->header = NULL;
    lab->err = (struct error){0};
    unlink(lab->output_path);
    unlink(lab->report_path);
}

void lab_close(struct lab *lab)
{
    close_build(lab);
    free(lab->bytes);
    unlink(lab->restored_path);
    unlink(lab->image_path);
    unlink(lab->list_path);
    if (rmdir(lab->folder))
        abort(); /* something else was left there */
}

void lab_linux(struct lab *lab, const uint8_t *code, const uint8_t *end)
{
    lab->code_size = (size_t)(end - code);
    size_t padding = lab->padding ? lab->padding : LAB_PADDING;
    if (lab->code_size + padding > sizeof lab->text)
        abort();
    memcpy(lab->text, code, lab->code_size);
    memset(lab->text + lab->code_size, 0xcc, padding);
    linux_image_add(&lab->li, ".text", SHF_EXECINSTR, lab->text, lab->code_size + padding);
    uint64_t data = linux_image_add(&lab->li, ".rodata", 0, banner, sizeof banner);
    if (!lab->no_data_symbols) /* where there are some, tables that are not named are not there */
        linux_image_symbol(&lab->li, "__start_rodata", data);
    linux_image_symbol(&lab->li, "lab_start", LINUX_IMAGE_TEXT);
}

void lab_plain(struct lab *lab, const uint8_t *text, size_t size, const uint32_t *functions,
               size_t count)
{
    static char names[LAB_FUNCTIONS][16];
    struct guest guest = {.elf_class = 64, .text = text, .text_size = size};
    if (count > LAB_FUNCTIONS)
        abort();
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "function%zu", i);
        guest.symbols[i] = (struct guest_symbol){names[i], functions[i], 1};
    }
    free(lab->bytes);
    lab->bytes = guest_build(&guest, &lab->size);
}

static void look_at_output(struct lab *lab)
{
    struct error err = {0};
    FILE *null = fopen("/dev/null", "w");
    if (!null || verify_run(lab->image_path, lab->output_path, null, &lab->err))
        die(lab, "verify refuses the patched image");
    fclose(null);
    if (restore_run(lab->output_path, lab->restored_path, &lab->err))
        die(lab, "restore fails");
    FILE *file = fopen(lab->restored_path, "rb");
    uint8_t *bytes = malloc(lab->size + 1);
    if (!file || !bytes || fread(bytes, 1, lab->size + 1, file) != lab->size ||
        memcmp(bytes, lab->bytes, lab->size))
        die(lab, "restore gives another file back");
    fclose(file);
    free(bytes);
    unlink(lab->restored_path);
    if (image_open(lab->output_path, &lab->patched, &err) ||
        patched_record_read(&lab->patched, &lab->record, &err))
        die(lab, "the patched image cannot be read");
    if (lab->record.note.header_address)
        lab->header =
            (const void *)lab_at(lab, lab->record.note.header_address, sizeof(struct pv_header));
}

int lab_build(struct lab *lab, const char *list)
{
    close_build(lab);
    if (!lab->bytes)
        lab->bytes = linux_image_build(&lab->li, &lab->size);
    write_file(lab->image_path, lab->bytes, lab->size);
    write_file(lab->list_path, list, strlen(list));
    lab->status = build_run(&lab->options, &lab->result, &lab->err);
    if (!lab->status)
        look_at_output(lab);
    return lab->status;
}

void lab_must_build(struct lab *lab, const char *list)
{
    if (lab_build(lab, list))
        die(lab, "build fails");
}

static uint64_t text_of(const struct lab *lab)
{
    return lab->li.section_count ? LINUX_IMAGE_TEXT : GUEST_TEXT;
}

const struct site *lab_site(const struct lab *lab, uint64_t offset)
{
    for (size_t i = 0; i < lab->result.site_count; i++)
        if (lab->result.sites[i].address == text_of(lab) + offset)
            return &lab->result.sites[i];
    fail_msg("there is no site at offset %#llx", (unsigned long long)offset);
    return NULL;
}

const uint8_t *lab_at(const struct lab *lab, uint64_t address, size_t size)
{
    const uint8_t *bytes = image_at(&lab->patched, address, size);
    if (!bytes)
        abort();
    return bytes;
}

uint64_t lab_address(const struct lab *lab, int64_t offset)
{
    return lab->record.note.header_address + (uint64_t)offset;
}

const struct pv_patch *lab_patch(const struct lab *lab, uint64_t offset)
{
    if (!lab->header)
        return NULL;
    const struct pv_patch *patches =
        (const void *)lab_at(lab, lab_address(lab, lab->header->patch_info_offset),
                             lab->header->patch_count * sizeof *patches);
    for (uint32_t i = 0; i < lab->header->patch_count; i++)
        if (text_of(lab) + offset - lab_address(lab, patches[i].window_offset) <
            patches[i].window_size)
            return &patches[i];
    return NULL;
}

uint64_t lab_window(const struct lab *lab, const struct pv_patch *patch)
{
    return lab_address(lab, patch->window_offset) - text_of(lab);
}

uint64_t lab_trampoline(const struct lab *lab, const struct pv_patch *patch)
{
    return lab_address(lab, patch->trampoline_offset);
}

const struct pv_routine *lab_routine(const struct lab *lab, uint64_t offset)
{
    if (!lab->header)
        return NULL;
    const struct pv_routine *routines =
        (const void *)lab_at(lab, lab_address(lab, lab->header->routine_info_offset),
                             lab->header->routine_count * sizeof *routines);
    for (uint32_t i = 0; i < lab->header->routine_count; i++)
        if (lab_address(lab, routines[i].site_offset) == text_of(lab) + offset)
            return &routines[i];
    return NULL;
}

uint64_t lab_branch_target(const struct lab *lab, uint64_t address, unsigned length)
{
    const uint8_t *code = lab_at(lab, address, length);
    int32_t distance;
    if (length < 5)
        distance = (int8_t)code[length - 1];
    else
        memcpy(&distance, code + length - 4, 4);
    return address + length + (uint64_t)(int64_t)distance;
}

void lab_name(uint8_t *table, uint64_t base, size_t at, uint64_t address)
{
    int32_t relative = (int32_t)(address - (base + at));
    memcpy(table + at, &relative, 4);
}
