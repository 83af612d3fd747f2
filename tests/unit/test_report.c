/* SPDX-License-Identifier: MIT */
/* The report of a build made by hand: its keys and words are a contract with scripts. */
#include "patchc/report.h" /* before cmocka.h, which makes a macro of fail() */
#include "tests/unit/schema.h"
#include "tests/unit/tiny_elf.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

/* push rbx; cpuid; mov [rdi], eax; nop; in al, 0x64; hlt; nops up to `second`; rdmsr */
static const uint8_t code[] = {0x53, 0x0f, 0xa2, 0x89, 0x07, 0x90, 0xe4, 0x64, 0xf4,
                               0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x0f, 0x32};

struct fixture {
    struct tiny tiny;
    uint64_t text; /* guest-linear address of the code */
    struct site sites[4];
    struct build_result result;
};

static struct site site_at(const struct fixture *f, unsigned offset, unsigned length)
{
    const struct image *image = &f->result.image;
    struct site site = {.address = f->text + offset,
                        .section =
                            (uint32_t)(image_section_named(image, ".text") - image->sections),
                        .length = (uint8_t)length,
                        .index = -1};

    memcpy(site.bytes, code + offset, length);
    return site;
}

static void fill_sites(struct fixture *f)
{
    f->sites[0] = site_at(f, 1, 2); /* cpuid, patched from the push on */
    f->sites[0].status = STATUS_PATCHED;
    f->sites[0].form = PV_FORM_JUMP;
    f->sites[0].form_reason = FORM_REASON_CHEAPEST;
    f->sites[0].tactic = TACTIC_BACKWARD;
    f->sites[0].slot = 1;
    f->sites[0].window = f->text;
    f->sites[0].window_size = 5;
    f->sites[0].index = 0;
    f->sites[0].routine = UINT64_C(0xffffffff81001000);
    f->sites[0].context = CONTEXT_STACK | CONTEXT_NMI_SAFE;
    f->sites[1] = site_at(f, 6, 2);
    f->sites[1].status = STATUS_LEFT;
    f->sites[1].reason = REASON_NO_ROOM;
    f->sites[2] = site_at(f, 8, 1);
    f->sites[2].status = STATUS_LEFT;
    f->sites[2].reason = REASON_TABLE;
    f->sites[3] = site_at(f, 16, 2);
    f->sites[3].status = STATUS_EXCLUDED;
    f->sites[3].reason = REASON_OTHER_MODE;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct tiny_options options = {.elf_class = 64, .text = code, .text_size = sizeof code};
    struct error err = {0};

    if (!f)
        return -1;
    tiny_build(&options, &f->tiny);
    if (image_from_memory("vmlinux", f->tiny.bytes, f->tiny.size, &f->result.image, &err) < 0)
        return -1;
    f->text = f->tiny.base + f->tiny.text;
    f->result.list = list_parse("kvm.list", "include cpuid\n", 14, &err);
    fill_sites(f);
    f->result.sites = f->sites;
    f->result.site_count = 4;
    f->result.output_name = "vmlinux.patched";
    f->result.output_size = 8192;
    f->result.output_xxh3 = 0x1234;
    f->result.header_address = f->text + 0x2000;
    f->result.padding_bytes = 1000;
    f->result.padding_used = 64;
    *state = f;
    return f->result.list ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    list_free(f->result.list);
    image_close(&f->result.image);
    tiny_free(&f->tiny);
    free(f);
    return 0;
}

static json_t *report_of(const struct build_result *result)
{
    struct error err = {0};
    char *text;
    size_t size;
    json_t *report;

    assert_int_equal(report_format(result, &text, &size, &err), 0);
    report = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(report);
    free(text);
    return report;
}

static void assert_text(const json_t *object, const char *key, const char *expected)
{
    const json_t *value = json_object_get(object, key);

    assert_true(json_is_string(value));
    assert_string_equal(json_string_value(value), expected);
}

static void assert_hex(const json_t *object, const char *key, uint64_t expected)
{
    char text[32];

    snprintf(text, sizeof text, "0x%" PRIx64, expected);
    assert_text(object, key, text);
}

static void assert_count(const json_t *object, const char *key, long long expected)
{
    const json_t *value = json_object_get(object, key);

    assert_true(json_is_integer(value));
    assert_int_equal(json_integer_value(value), expected);
}

static json_t *site(const json_t *report, size_t index)
{
    return json_array_get(json_object_get(report, "sites"), index);
}

static void check_schema(const json_t *report, bool expected)
{
    json_t *schema = json_load_file("docs/report.schema.json", 0, NULL);
    char why[256] = "";

    assert_non_null(schema);
    if (schema_check(schema, schema, report, why, sizeof why) != expected)
        fail_msg("the schema %s the report: %s", expected ? "refuses" : "takes", why);
    json_decref(schema);
}

static void a_report_fits_its_schema(void **state)
{
    struct fixture *f = *state;
    json_t *report = report_of(&f->result);

    check_schema(report, true);
    json_object_set_new(site(report, 0), "tactic", json_string("magic"));
    check_schema(report, false);
    json_decref(report);
}

static void D6_a_patched_site_tells_all_about_its_patch(void **state)
{
    struct fixture *f = *state;
    json_t *report = report_of(&f->result), *patched = site(report, 0);

    assert_hex(patched, "address", f->text + 1);
    assert_text(patched, "symbol", "_start+0x1");
    assert_text(patched, "section", ".text");
    assert_text(patched, "bytes", "0fa2");
    assert_text(patched, "instruction", "cpuid");
    assert_text(patched, "status", "patched");
    assert_text(patched, "form", "jump");
    assert_text(patched, "form_reason", "cheapest");
    assert_text(patched, "tactic", "backward");
    assert_text(patched, "routine", "0xffffffff81001000");
    assert_count(patched, "index", 0);
    assert_hex(json_object_get(patched, "window"), "address", f->text);
    assert_count(json_object_get(patched, "window"), "size", 5);
    assert_true(json_is_null(json_object_get(patched, "reason")));
    json_decref(report);
}

static void D9_the_slot_is_the_sites_place_among_the_displaced(void **state)
{
    static const char *const expected[] = {"push rbx", "cpuid", "mov [rdi], eax"};
    struct fixture *f = *state;
    json_t *report = report_of(&f->result);
    const json_t *displaced = json_object_get(site(report, 0), "displaced");

    assert_count(site(report, 0), "slot", 1);
    assert_int_equal(json_array_size(displaced), 3);
    for (size_t i = 0; i < 3; i++) {
        const char *text = json_string_value(json_array_get(displaced, i));

        assert_non_null(text);
        /* Zydis tells the size of a memory operand, or not */
        assert_memory_equal(text, expected[i], 4);
    }
    json_decref(report);
}

static void a_site_that_is_not_patched_has_a_reason_and_no_patch(void **state)
{
    struct fixture *f = *state;
    json_t *report = report_of(&f->result);

    assert_text(site(report, 1), "status", "left");
    assert_text(site(report, 1), "reason", "no-room");
    assert_text(site(report, 1), "instruction", "in al, 0x64");
    assert_text(site(report, 3), "status", "excluded");
    assert_text(site(report, 3), "reason", "other-mode");
    assert_text(site(report, 3), "symbol", "second");
    for (size_t i = 1; i < 4; i++) {
        assert_true(json_is_null(json_object_get(site(report, i), "form")));
        assert_true(json_is_null(json_object_get(site(report, i), "window")));
        assert_true(json_is_null(json_object_get(site(report, i), "index")));
    }
    json_decref(report);
}

static void the_summary_adds_up(void **state)
{
    struct fixture *f = *state;
    json_t *report = report_of(&f->result), *summary = json_object_get(report, "summary");

    assert_count(summary, "listed", 4);
    assert_count(summary, "excluded", 1);
    assert_count(summary, "eligible", 3);
    assert_count(summary, "patched", 1);
    assert_count(summary, "left", 2);
    assert_count(json_object_get(summary, "forms"), "jump", 1);
    assert_count(json_object_get(summary, "forms"), "break", 0);
    assert_count(json_object_get(summary, "tactics"), "backward", 1);
    assert_count(json_object_get(summary, "left_reasons"), "no-room", 1);
    assert_count(json_object_get(summary, "left_reasons"), "table", 1);
    assert_count(json_object_get(summary, "left_reasons"), "form", 0);
    assert_count(json_object_get(summary, "excluded_reasons"), "other-mode", 1);
    json_decref(report);
}

static void files_are_told_by_base_name_size_and_hash(void **state)
{
    struct fixture *f = *state;
    json_t *report = report_of(&f->result);

    assert_text(json_object_get(report, "input"), "name", "vmlinux");
    assert_text(json_object_get(report, "input"), "format", "elf64");
    assert_count(json_object_get(report, "input"), "size", (long long)f->tiny.size);
    assert_hex(json_object_get(report, "input"), "xxh3", f->result.image.input_xxh3);
    assert_text(json_object_get(report, "output"), "name", "vmlinux.patched");
    assert_text(json_object_get(report, "output"), "xxh3", "0x1234");
    assert_text(report, "list", "kvm.list");
    json_decref(report);
}

static void without_an_image_the_output_is_null(void **state)
{
    struct fixture *f = *state;
    json_t *report;

    f->result.output_size = 0;
    f->result.header_address = 0;
    report = report_of(&f->result);
    assert_true(json_is_null(json_object_get(report, "output")));
    assert_true(json_is_null(json_object_get(report, "stub")));
    check_schema(report, true);
    json_decref(report);
}

static void a_build_without_sites_is_a_report_too(void **state)
{
    struct fixture *f = *state;
    json_t *report;

    f->result.site_count = 0;
    report = report_of(&f->result);
    check_schema(report, true);
    assert_int_equal(json_array_size(json_object_get(report, "sites")), 0);
    json_decref(report);
}

static void break_patches_and_lost_backtraces_are_warned_of(void **state)
{
    struct fixture *f = *state;
    json_t *report, *warnings;

    f->result.orc_uncovered = 7;
    f->sites[0].form = PV_FORM_BREAK;
    report = report_of(&f->result);
    warnings = json_object_get(report, "warnings");
    assert_int_equal(json_array_size(warnings), 2);
    assert_text(json_array_get(warnings, 0), "code", "orc-uncovered");
    assert_count(json_array_get(warnings, 0), "count", 7);
    assert_text(json_array_get(warnings, 1), "code", "needs-runtime");
    check_schema(report, true);
    json_decref(report);
}

static void names_that_are_no_text_do_not_spoil_the_report(void **state)
{
    struct fixture *f = *state;
    json_t *report;

    for (size_t i = 0; i < f->result.image.symbol_count; i++)
        f->result.image.symbols[i].name = i % 2 ? "no\xff\xfeUTF-8" : "quote\"back\\slash\nline";
    f->result.image.sections[f->sites[0].section].name = "\x80";
    report = report_of(&f->result);
    for (size_t i = 0; i < 4; i++) {
        const char *symbol = json_string_value(json_object_get(site(report, i), "symbol"));

        assert_true(strncmp(symbol, "no??UTF-8", 9) == 0 ||
                    strncmp(symbol, "quote\"back\\slash\nline", 20) == 0);
        assert_text(site(report, i), "section", "?");
    }
    json_decref(report);
}

static void a_window_outside_the_image_does_not_crash(void **state)
{
    struct fixture *f = *state;
    json_t *report;

    f->sites[0].window = 0x1000;
    f->sites[0].section = 77;
    report = report_of(&f->result);
    assert_int_equal(json_array_size(json_object_get(site(report, 0), "displaced")), 0);
    assert_text(site(report, 0), "section", "");
    json_decref(report);
}

static void the_same_build_gives_the_same_bytes(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    char *one, *other;
    size_t one_size, other_size;

    assert_int_equal(report_format(&f->result, &one, &one_size, &err), 0);
    assert_int_equal(report_format(&f->result, &other, &other_size, &err), 0);
    assert_int_equal(one_size, other_size);
    assert_memory_equal(one, other, one_size);
    free(one);
    free(other);
}

static void each_site_is_one_line(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    char *text;
    size_t size, lines = 0;

    assert_int_equal(report_format(&f->result, &text, &size, &err), 0);
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n' && strncmp(text + i + 1, "{\"address\"", 10) == 0;
    assert_int_equal(lines, f->result.site_count);
    assert_int_equal(text[size - 1], '\n');
    free(text);
}

static void a_scan_knows_eligible_and_excluded(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    char *text;
    size_t size;
    json_t *scan;

    assert_int_equal(report_format_scan(&f->result, &text, &size, &err), 0);
    scan = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    assert_text(site(scan, 0), "status", "eligible");
    assert_true(json_is_null(json_object_get(site(scan, 1), "reason")));
    assert_text(site(scan, 3), "status", "excluded");
    assert_text(site(scan, 3), "reason", "other-mode");
    assert_null(json_object_get(site(scan, 0), "tactic"));
    json_decref(scan);
    free(text);
}

static void a_report_that_cannot_be_written_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    assert_int_equal(report_write(&f->result, "/nonexistent/folder/report.json", &err), -1);
    assert_int_equal(err.code, EXIT_IO);
    assert_non_null(strstr(err.text, "/nonexistent/folder/report.json"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_report_fits_its_schema),
        TEST(D6_a_patched_site_tells_all_about_its_patch),
        TEST(D9_the_slot_is_the_sites_place_among_the_displaced),
        TEST(a_site_that_is_not_patched_has_a_reason_and_no_patch),
        TEST(the_summary_adds_up),
        TEST(files_are_told_by_base_name_size_and_hash),
        TEST(without_an_image_the_output_is_null),
        TEST(a_build_without_sites_is_a_report_too),
        TEST(break_patches_and_lost_backtraces_are_warned_of),
        TEST(names_that_are_no_text_do_not_spoil_the_report),
        TEST(a_window_outside_the_image_does_not_crash),
        TEST(the_same_build_gives_the_same_bytes),
        TEST(each_site_is_one_line),
        TEST(a_scan_knows_eligible_and_excluded),
        TEST(a_report_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
