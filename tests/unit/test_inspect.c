/* SPDX-License-Identifier: MIT */
/* patchc inspect: what it tells of reports and of patched images, and what it does with damaged
 * ones. */
#include "patchc/inspect.h" /* before cmocka.h, which makes a macro of fail() */
#include "patched_image.h"

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

static struct patched_image image;
static char report_path[128], other_path[128];

/* Runs inspect; returns its exit code. What it printed is *text, malloc'd. */
static int inspect(struct inspect_options options, char **text, struct error *err)
{
    size_t size;
    FILE *out = open_memstream(text, &size);
    int status;

    assert_non_null(out);
    *err = (struct error){0};
    status = inspect_run(&options, out, err);
    fclose(out);
    assert_int_equal(status, err->code ? -1 : 0);
    return err->code;
}

/* Runs inspect, which must succeed; returns what it printed. */
static char *printed(struct inspect_options options)
{
    struct error err;
    char *text, *copy;

    if (inspect(options, &text, &err) != 0)
        fail_msg("%s", err.text);
    copy =
        strdup(text); /* gcc 12 takes `text` itself, which open_memstream() knows, for dangling */
    free(text);
    return copy;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

#define SITE(address, rest)                                                                        \
    "{\"address\":\"" address "\",\"section\":\".text\",\"bytes\":\"0fa2\"," rest "}"
#define REPORT(sites)                                                                              \
    "{\"schema\":1,\"input\":{\"name\":\"vmlinux\",\"format\":\"elf64\",\"xxh3\":\"0x1\"},"        \
    "\"output\":{\"name\":\"vmlinux.patched\"},\"list\":\"kvm.list\","                             \
    "\"tables_updated\":{\"__ex_table\":3},\"sites\":[" sites "]}"

static const char three_sites[] = REPORT(SITE(
    "0x1000",
    "\"symbol\":\"early+0x10\",\"instruction\":\"cpuid\",\"status\":\"patched\","
    "\"form\":\"jump\",\"form_reason\":\"cheapest\",\"tactic\":\"forward\","
    "\"slot\":0,\"index\":4,\"routine\":\"0x9000\","
    "\"window\":{\"address\":\"0x1000\",\"size\":5},"
    "\"displaced\":[\"cpuid\",\"mov eax, ebx\",\"nop\"]") "," SITE("0x2000",
                                                                   "\"symbol\":\"early+0x20\","
                                                                   "\"instruction\":\"mov cr4, "
                                                                   "rax\","
                                                                   "\"status\":\"left\",\"reason\":"
                                                                   "\"no-room\"") "," SITE("0x3000",
                                                                                           "\"symbo"
                                                                                           "l\":"
                                                                                           "\"late"
                                                                                           "\","
                                                                                           "\"instr"
                                                                                           "uction"
                                                                                           "\":"
                                                                                           "\"rep "
                                                                                           "outsb\""
                                                                                           ",\"stat"
                                                                                           "us\":"
                                                                                           "\"exclu"
                                                                                           "ded\","
                                                                                           "\"reaso"
                                                                                           "n\":"
                                                                                           "\"copie"
                                                                                           "d-"
                                                                                           "code"
                                                                                           "\""));

static int set_up(void **state)
{
    (void)state;
    patched_image_make(&image);
    snprintf(report_path, sizeof report_path, "%s/report.json", image.folder);
    snprintf(other_path, sizeof other_path, "%s/other.json", image.folder);
    write_file(report_path, three_sites);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(report_path);
    unlink(other_path);
    patched_image_free(&image);
    return 0;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void a_summary_counts_sites_and_explains_reasons(void **state)
{
    char *text = printed((struct inspect_options){.path = report_path});

    (void)state;
    assert_has(text, "3 sites listed, 1 excluded, 2 eligible; 1 patched (50.0 %), 1 left");
    assert_has(text, "mov to cr4");
    assert_has(text, "rep outsb");
    assert_has(text, "no-room          branch targets stand too close");
    assert_has(text, "0x2000  mov cr4, rax");
    assert_has(text, "__ex_table");
    assert_null(strchr(text, '\033')); /* not a terminal: no colours */
    free(text);
}

static void a_summary_as_json_has_the_same_counts(void **state)
{
    char *text = printed((struct inspect_options){.path = report_path, .json = true});
    json_t *summary = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

    (void)state;
    assert_int_equal(json_integer_value(json_object_get(summary, "sites")), 3);
    assert_int_equal(json_integer_value(json_object_get(summary, "left")), 1);
    assert_int_equal(json_array_size(json_object_get(summary, "instructions")), 3);
    json_decref(summary);
    free(text);
}

static void a_site_is_found_by_address_window_place_and_symbol(void **state)
{
    static const char *const names[] = {"0x1000", "0x1003", "00001000", "early+0x10", "early+16"};
    char *text;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        text = printed((struct inspect_options){.path = report_path, .site = names[i]});
        assert_has(text, "0x1000  cpuid  early+0x10");
        assert_has(text, "* cpuid");
        assert_has(text, "jump (cheapest)");
        assert_null(strstr(text, "0x2000"));
        free(text);
    }
    text = printed((struct inspect_options){.path = report_path, .site = "early"});
    assert_has(text, "0x1000");
    assert_has(text, "0x2000");
    assert_has(text, "no-room: branch targets");
    free(text);
}

static void a_site_that_is_not_there_is_said_so(void **state)
{
    static const char *const names[] = {"0x1005", "0x0", "earl", "early+0x11", "early+", "", "0x"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct error err;
        char *text;

        assert_int_equal(
            inspect((struct inspect_options){.path = report_path, .site = names[i]}, &text, &err),
            EXIT_CHECK);
        assert_string_equal(text, "");
        free(text);
    }
}

static void a_diff_shows_what_changed(void **state)
{
    char *text;

    (void)state;
    write_file(
        other_path,
        REPORT(SITE(
            "0x1000",
            "\"symbol\":\"early+0x10\",\"instruction\":\"cpuid\","
            "\"status\":\"left\",\"reason\":\"table\"") "," SITE("0x2000",
                                                                 "\"symbol\":\"early+0x20\","
                                                                 "\"instruction\":\"mov cr4, rax\","
                                                                 "\"status\":\"left\",\"reason\":"
                                                                 "\"no-room\"") "," SITE("0x4000",
                                                                                         "\"symbol"
                                                                                         "\":"
                                                                                         "\"new\","
                                                                                         "\"instruc"
                                                                                         "tion\":"
                                                                                         "\"hlt\","
                                                                                         "\"status"
                                                                                         "\":"
                                                                                         "\"patched"
                                                                                         "\","
                                                                                         "\"form\":"
                                                                                         "\"call"
                                                                                         "\"")));
    text = printed((struct inspect_options){.path = report_path, .diff = other_path});
    assert_has(text, "patched (jump, forward) -> left (table)  early+0x10");
    assert_has(text, "excluded (copied-code) -> -  late");
    assert_has(text, "- -> patched (call)  new");
    assert_has(text, "1 same, 1 changed status, 0 changed patch, 1 gone, 1 new");
    assert_null(strstr(text, "0x2000"));
    free(text);
}

static void reports_of_different_kernels_are_compared_by_symbol(void **state)
{
    char moved[sizeof three_sites], *text;

    (void)state;
    memcpy(moved, three_sites, sizeof moved);
    memcpy(strstr(moved, "\"xxh3\":\"0x1\""), "\"xxh3\":\"0x2\"", 12);
    memcpy(strstr(moved, "0x1000"), "0x9000", 6);
    write_file(other_path, moved);
    text = printed((struct inspect_options){.path = report_path, .diff = other_path});
    assert_has(text, "compared by symbol");
    assert_has(text, "3 same, 0 changed status, 0 changed patch, 0 gone, 0 new");
    free(text);
}

static void control_characters_of_a_report_do_not_reach_the_terminal(void **state)
{
    char *text;

    (void)state;
    write_file(
        other_path,
        REPORT(SITE("0x1000", "\"symbol\":\"\\u001b[2Jname\",\"instruction\":\"cpuid\\u0007\","
                              "\"status\":\"patched\",\"displaced\":[\"\\u001b[2J\"]")));
    text = printed((struct inspect_options){.path = other_path});
    assert_null(strchr(text, '\033'));
    assert_null(strchr(text, '\a'));
    free(text);
    text = printed((struct inspect_options){.path = other_path, .site = "0x1000"});
    assert_null(strchr(text, '\033'));
    free(text);
}

static void what_is_no_report_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "7",
        "null",
        "{\"schema\":1}",
        "{\"schema\":1,\"sites\":{}}",
        "{\"schema\":2,\"sites\":[]}",
        "{\"schema\":\"1\",\"sites\":[]}",
        REPORT("3"),
        REPORT("{}"),
        REPORT(SITE("1000", "\"status\":\"left\"")),
        REPORT(SITE("0x", "\"status\":\"left\"")),
        REPORT(SITE("0x11112222333344445", "\"status\":\"left\"")),
        REPORT(SITE("0x1000", "\"status\":\"gone\"")),
        REPORT(SITE("0x1000", "\"status\":null")),
        REPORT(SITE("0x1000", "\"status\":\"left\",\"reason\":7")),
        REPORT(SITE("0x1000", "\"status\":\"patched\",\"slot\":-1")),
        REPORT(SITE("0x1000", "\"status\":\"patched\",\"index\":\"1\"")),
        REPORT(SITE("0x1000", "\"status\":\"patched\",\"window\":[]")),
        REPORT(SITE("0x1000", "\"status\":\"patched\",\"displaced\":[1]")),
        REPORT(SITE("0x1000",
                    "\"status\":\"patched\",\"window\":{\"address\":\"0xffffffffffffffff\","
                    "\"size\":5}")),
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error err;
        char *text;

        write_file(other_path, bad[i]);
        if (inspect((struct inspect_options){.path = other_path}, &text, &err) != EXIT_INPUT)
            fail_msg("not refused: %s", bad[i]);
        assert_has(err.text, "other.json");
        free(text);
    }
}

static void a_report_that_is_not_there_is_a_read_error(void **state)
{
    struct error err;
    char *text;

    (void)state;
    assert_int_equal(inspect((struct inspect_options){.path = "/nonexistent/report"}, &text, &err),
                     EXIT_IO);
    free(text);
}

static void views_that_exclude_each_other_are_a_usage_error(void **state)
{
    struct error err;
    char *text;

    (void)state;
    assert_int_equal(
        inspect((struct inspect_options){.path = report_path, .site = "early", .diff = other_path},
                &text, &err),
        EXIT_USAGE);
    free(text);
}

/* The number of sites that the image's tables have. */
static size_t site_count(void)
{
    size_t count = 0;

    for (size_t i = 0; i < image.header->patch_count; i++)
        count += image.patches[i].routine_count;
    return count;
}

static void an_image_tells_its_patched_sites(void **state)
{
    char *text = printed((struct inspect_options){.path = image.patched_path, .json = true});
    json_t *summary = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_t *forms = json_object_get(summary, "forms");

    (void)state;
    assert_int_equal(json_integer_value(json_object_get(summary, "patched")), site_count());
    assert_int_equal(json_array_size(forms), 4);
    json_decref(summary);
    free(text);
    text = printed((struct inspect_options){.path = image.patched_path});
    assert_has(text, "a patched image");
    assert_has(text, "cpuid");
    free(text);
}

static void D10_each_site_of_an_image_is_shown_with_its_routine(void **state)
{
    (void)state;
    for (size_t i = 0; i < image.header->routine_count; i++) {
        uint64_t address = image.note->header_address + (uint64_t)image.routines[i].site_offset;
        char name[32], link[32], *text;

        snprintf(name, sizeof name, "0x%llx", (unsigned long long)address);
        snprintf(link, sizeof link, "link of routine %zu", i);
        text = printed((struct inspect_options){.path = image.patched_path, .site = name});
        assert_has(text, name);
        assert_has(text, "ORIGINAL");
        assert_has(text, "Trampoline at 0x");
        assert_has(text, link);
        free(text);
    }
}

static void a_site_of_an_image_shows_old_and_new_code_side_by_side(void **state)
{
    const struct pv_patch *patch = &image.patches[PATCH_JUMP];
    uint64_t site =
        image.note->header_address + (uint64_t)image.routines[patch->first_routine].site_offset;
    char name[32], *text, *line;

    (void)state;
    snprintf(name, sizeof name, "0x%llx", (unsigned long long)site);
    text = printed((struct inspect_options){.path = image.patched_path, .site = name});
    snprintf(name, sizeof name, "\n%016llx  ", (unsigned long long)site);
    line = strstr(text, name);
    assert_non_null(line);
    *strchr(line + 1, '\n') = '\0';
    assert_has(line, "0fa2             cpuid");
    assert_has(line, "jmp 0x");
    free(text);
}

static void an_image_that_is_not_patched_is_refused(void **state)
{
    struct error err;
    char *text;

    (void)state;
    assert_int_equal(inspect((struct inspect_options){.path = image.original_path}, &text, &err),
                     EXIT_INPUT);
    assert_has(err.text, "not a patched image");
    free(text);
}

/* Any byte of the tables may be forged: inspect says so or shows something, and does not fall over.
 */
static void damaged_tables_do_no_harm(void **state)
{
    static const uint8_t values[] = {0x00, 0x7f, 0x80, 0xff};
    struct range {
        uint8_t *bytes;
        size_t size;
    } ranges[] = {
        {(uint8_t *)image.note, sizeof *image.note},
        {(uint8_t *)image.record, sizeof *image.record},
        {(uint8_t *)image.header, sizeof *image.header},
        {(uint8_t *)image.patches, image.header->patch_count * sizeof *image.patches},
        {(uint8_t *)image.routines, image.header->routine_count * sizeof *image.routines},
    };
    const struct pv_patch *patch = &image.patches[PATCH_STI];
    uint64_t address = image.note->header_address + (uint64_t)patch->window_offset;
    char site[32];

    (void)state;
    snprintf(site, sizeof site, "0x%llx", (unsigned long long)address);
    for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
        for (size_t i = 0; i < ranges[r].size; i++) {
            uint8_t kept = ranges[r].bytes[i];

            for (size_t v = 0; v < sizeof values; v++) {
                struct error err;
                char *text;
                int code;

                ranges[r].bytes[i] = values[v];
                patched_image_write(&image, 0);
                code = inspect((struct inspect_options){.path = image.patched_path,
                                                        .site = v & 1 ? site : NULL},
                               &text, &err);
                assert_true(code == 0 || code == EXIT_CHECK || code == EXIT_INPUT);
                free(text);
            }
            ranges[r].bytes[i] = kept;
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_summary_counts_sites_and_explains_reasons),
        TEST(a_summary_as_json_has_the_same_counts),
        TEST(a_site_is_found_by_address_window_place_and_symbol),
        TEST(a_site_that_is_not_there_is_said_so),
        TEST(a_diff_shows_what_changed),
        TEST(reports_of_different_kernels_are_compared_by_symbol),
        TEST(control_characters_of_a_report_do_not_reach_the_terminal),
        TEST(what_is_no_report_is_refused),
        TEST(a_report_that_is_not_there_is_a_read_error),
        TEST(views_that_exclude_each_other_are_a_usage_error),
        TEST(an_image_tells_its_patched_sites),
        TEST(D10_each_site_of_an_image_is_shown_with_its_routine),
        TEST(a_site_of_an_image_shows_old_and_new_code_side_by_side),
        TEST(an_image_that_is_not_patched_is_refused),
        TEST(damaged_tables_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
