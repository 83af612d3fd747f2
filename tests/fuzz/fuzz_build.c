/* SPDX-License-Identifier: MIT */
/* Fuzzes the whole of `patchc build` with a small Linux image, and with the same code as another
 * kind of guest. Input: a byte of options, then records of a kind (1 byte), a size (2 bytes) and
 * that many bytes: code (several pieces make one text), kernel tables in sections of their own, the
 * appended relocation table, symbols that give code a context, and bytes that are changed in the
 * finished file.
 */
#include "tests/linux_image.h"

#include <stdio.h>
#include <unistd.h>

#include "patchc/build.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const sections[] = {"__ex_table",        "__bug_table",      ".altinstructions",
                                       ".parainstructions", ".retpoline_sites", ".return_sites",
                                       ".smp_locks",        ".data_nosave",     ".call_sites"};
static const char *const symbols[] = {"__start___jump_table",
                                      "__stop___jump_table",
                                      "__start_static_call_sites",
                                      "__stop_static_call_sites",
                                      "__start_mcount_loc",
                                      "__stop_mcount_loc",
                                      "__entry_text_start",
                                      "__entry_text_end",
                                      "relocate_kernel",
                                      "repeat_nmi",
                                      "end_repeat_nmi",
                                      "__x86_return_thunk",
                                      "startup_64",
                                      "verify_cpu",
                                      "__noinstr_text_start",
                                      "sme_encrypt_execute"};
static const char banner[] = "Linux version 6.1.0-fuzz (fuzz@fuzz)";
static const char list[] =
    "include cpuid\ninclude rdmsr\ninclude wrmsr\ninclude in\ninclude out\ninclude hlt\n"
    "include cli\ninclude sti\ninclude pushf\ninclude popf\ninclude mov cr3, *\ninclude wbinvd\n";

enum {
    SECTIONS = sizeof sections / sizeof *sections,
    SYMBOLS = sizeof symbols / sizeof *symbols,
    KIND_CODE = SECTIONS,
    KIND_REPLACEMENT,
    KIND_SYMBOL,
    KIND_RELOCS,
    KIND_CHANGE,
    KINDS,
    CODE_MAX = 2048,
    PADDING = 0x7000,
    CHANGES = 16
};

struct input {
    struct linux_image li;
    uint8_t text[CODE_MAX + PADDING];
    size_t code;
    struct {
        uint32_t at;
        uint8_t value;
    } changes[CHANGES];
    size_t change_count;
};

static void record(struct input *in, unsigned kind, const uint8_t *bytes, size_t size)
{
    struct linux_image *li = &in->li;
    if (kind == KIND_CODE) {
        if (size <= CODE_MAX - in->code)
            memcpy(in->text + in->code, bytes, size), in->code += size;
    } else if (kind == KIND_CHANGE) {
        if (size >= 5 && in->change_count < CHANGES) {
            memcpy(&in->changes[in->change_count].at, bytes, 4);
            in->changes[in->change_count++].value = bytes[4];
        }
    } else if (kind == KIND_RELOCS) {
        li->trailer = bytes;
        li->trailer_size = size;
    } else if (kind == KIND_SYMBOL) {
        uint32_t offset;
        if (size < 5 || li->symbol_count == LINUX_IMAGE_SYMBOLS)
            return;
        memcpy(&offset, bytes + 1, 4);
        linux_image_symbol(li, symbols[bytes[0] % SYMBOLS],
                           LINUX_IMAGE_TEXT + offset % (16 * LINUX_IMAGE_STEP));
    } else if (li->section_count < LINUX_IMAGE_SECTIONS) {
        bool code = kind == KIND_REPLACEMENT;
        linux_image_add(li, code ? ".altinstr_replacement" : sections[kind],
                        code        ? SHF_EXECINSTR
                        : kind == 7 ? SHF_WRITE
                                    : 0,
                        bytes, size);
    }
}

static void read_records(struct input *in, const uint8_t *data, size_t size)
{
    for (size_t at = 1; at + 3 <= size;) {
        size_t length = (size_t)(data[at + 1] | data[at + 2] << 8);
        unsigned kind = data[at] % KINDS;
        at += 3;
        if (length > size - at)
            length = size - at;
        record(in, kind, data + at, length);
        at += length;
    }
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file))
        abort();
}

static char folder[32];
static char image_path[64], list_path[64], output_path[64], report_path[64];

static void clean_up(void)
{
    unlink(image_path);
    unlink(list_path);
    unlink(output_path);
    unlink(report_path);
    rmdir(folder);
}

static void prepare(void)
{
    if (list_path[0])
        return;
    /* In memory, if possible: each output is synchronized. */
    snprintf(folder, sizeof folder, "%s/fuzz_build.XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder) || atexit(clean_up))
        abort();
    snprintf(image_path, sizeof image_path, "%s/image", folder);
    snprintf(list_path, sizeof list_path, "%s/list", folder);
    snprintf(output_path, sizeof output_path, "%s/output", folder);
    snprintf(report_path, sizeof report_path, "%s/report", folder);
    write_file(list_path, list, sizeof list - 1);
}

static void build(uint8_t options_byte)
{
    struct build_options options = {.image_path = image_path,
                                    .list_path = list_path,
                                    .output_path = output_path,
                                    .report_path = report_path,
                                    .form = (enum pv_form)(options_byte % PV_FORMS),
                                    .min_coverage = -1,
                                    .assume_reserved = options_byte & 0x40};
    struct build_result result;
    struct error err = {0};
    if (build_run(&options, &result, &err)) {
        if (!err.code || !err.text[0] || strchr(err.text, '\n') || !access(output_path, F_OK))
            abort();
    } else if (access(output_path, F_OK)) {
        abort();
    }
    build_result_free(&result);
    unlink(output_path);
    unlink(report_path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct input in;
    if (!size || size > 8192)
        return 0;
    prepare();
    memset(&in, 0, sizeof in);
    memset(in.text, 0xcc, sizeof in.text);
    in.li.headerless = data[0] >> 5 & 1;
    linux_image_add(&in.li, ".text", SHF_EXECINSTR, in.text, sizeof in.text);
    linux_image_add(&in.li, ".rodata", 0, banner, data[0] & 0x80 ? 4 : sizeof banner);
    linux_image_symbol(&in.li, "__start_rodata", LINUX_IMAGE_TEXT + LINUX_IMAGE_STEP);
    linux_image_symbol(&in.li, "code", LINUX_IMAGE_TEXT);
    read_records(&in, data, size);
    size_t image_size;
    uint8_t *bytes = linux_image_build(&in.li, &image_size);
    for (size_t i = 0; i < in.change_count; i++)
        bytes[in.changes[i].at % image_size] = in.changes[i].value;
    write_file(image_path, bytes, image_size);
    free(bytes);
    build(data[0]);
    return 0;
}
