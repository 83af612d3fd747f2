/* SPDX-License-Identifier: MIT */
/* The pipeline as a whole: what is read, refused, chosen, written and left untouched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/core_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define TEXT        LINUX_IMAGE_TEXT
#define CPUID       "include cpuid\n"
#define LINUX(name) lab_linux(&lab, name##_code, name##_end)

static struct lab lab;

static int set_up(void **state)
{
    (void)state;
    lab_open(&lab);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    lab_close(&lab);
    return 0;
}

LAB_CODE(sites, "cpuid\n mov %eax, %ecx\n inc %edx\n ret\n .balign 16, 0xcc\n"
                "rdmsr\n mov %eax, %ecx\n inc %edx\n ret\n .balign 16, 0xcc\n"
                "hlt\n mov %eax, %ecx\n inc %edx\n ret\n .balign 16, 0xcc\n"
                ".rept 70\n 4: jnz 4b\n .endr\n"
                "jmp 1f\n 2: inc %eax\n 1: cpuid\n 3: inc %ecx\n jnz 3b\n jnz 2b\n jmp 1b\n"
                ".rept 60\n 4: jnz 4b\n .endr\n ret\n .balign 16, 0xcc");

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void check_file(const char *path, const uint8_t *bytes, size_t size)
{
    size_t now;
    uint8_t *read = read_file(path, &now);
    assert_int_equal(now, size);
    assert_memory_equal(read, bytes, size);
    free(read);
}

static void test_the_same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    size_t image_size, report_size;
    LINUX(sites);
    lab_must_build(&lab, CPUID);
    uint8_t *image = read_file(lab.output_path, &image_size);
    uint8_t *report = read_file(lab.report_path, &report_size);
    lab_must_build(&lab, CPUID);
    check_file(lab.output_path, image, image_size);
    check_file(lab.report_path, report, report_size);
    free(image);
    free(report);
}

static void test_the_input_is_not_changed(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, CPUID);
    check_file(lab.image_path, lab.bytes, lab.size);
}

static void test_bytes_outside_the_patches_are_not_changed(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, CPUID);
    assert_memory_equal(lab_at(&lab, TEXT + 16, 300), lab.text + 16, 300);
}

static void test_a_patched_image_is_refused_as_input(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, CPUID);
    size_t size;
    uint8_t *patched = read_file(lab.output_path, &size);
    free(lab.bytes);
    lab.bytes = patched;
    lab.size = size;
    assert_int_equal(lab_build(&lab, CPUID), -1);
    assert_int_equal(lab.err.code, EXIT_INPUT);
    assert_non_null(strstr(lab.err.text, "patched image"));
    assert_int_not_equal(access(lab.output_path, F_OK), 0);
    assert_int_not_equal(access(lab.report_path, F_OK), 0);
}

static void test_min_coverage_writes_the_report_and_no_image(void **state)
{
    (void)state;
    LINUX(sites); /* one of two is patched */
    lab.options.min_coverage = 50.1;
    assert_int_equal(lab_build(&lab, CPUID), -1);
    assert_int_equal(lab.err.code, EXIT_CHECK);
    assert_int_not_equal(access(lab.output_path, F_OK), 0);
    assert_int_equal(access(lab.report_path, F_OK), 0);
    lab.options.min_coverage = 50;
    lab_must_build(&lab, CPUID);
}

static void test_nothing_to_patch_is_no_error(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, "include wbinvd\n");
    assert_int_equal(lab.result.site_count, 0);
    assert_null(lab.header);
    lab.options.min_coverage = 100;
    lab_must_build(&lab, "include wbinvd\n");
}

static void check_sites(size_t count, const uint64_t *offsets)
{
    assert_int_equal(lab.result.site_count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(lab.result.sites[i].address, TEXT + offsets[i]);
}

static void test_D6_the_list_decides_what_is_a_site(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, "include cpuid\ninclude hlt\n");
    check_sites(3, (const uint64_t[]){0, 32, 192});
    lab_must_build(&lab, "include cpuid\ninclude rdmsr\nexclude cpuid "
                         "address=0xffffffff81000000-0xffffffff8100000f\n");
    check_sites(2, (const uint64_t[]){16, 192});
}

static void test_only_and_skip_narrow_the_list(void **state)
{
    (void)state;
    struct error err = {0};
    struct list *only = list_parse_rule("--only", "hlt", &err);
    struct list *skip = list_parse_rule("--skip", "cpuid", &err);
    assert_non_null(only);
    assert_non_null(skip);
    LINUX(sites);
    lab.options.only = &only;
    lab.options.only_count = 1;
    lab_must_build(&lab, CPUID "include hlt\ninclude rdmsr\n");
    check_sites(1, (const uint64_t[]){32});
    lab.options.only_count = 0;
    lab.options.skip = &skip;
    lab.options.skip_count = 1;
    lab_must_build(&lab, CPUID "include hlt\ninclude rdmsr\n");
    check_sites(2, (const uint64_t[]){16, 32});
    lab.options.only_count = 1; /* both: what --skip names is skipped */
    lab.options.only = &skip;
    lab_must_build(&lab, CPUID "include hlt\n");
    check_sites(0, NULL);
    list_free(only);
    list_free(skip);
}

static void test_a_form_that_a_rule_prefers_is_taken_where_it_fits(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, "include cpuid form=call\ninclude hlt\n");
    assert_int_equal(lab_site(&lab, 0)->form, PV_FORM_CALL);
    assert_int_equal(lab_site(&lab, 0)->form_reason, FORM_REASON_LIST);
    assert_int_equal(lab_site(&lab, 32)->form, PV_FORM_JUMP);
}

/* ---- contexts: where the kernel's own names say that code is special ---- */

LAB_CODE(contexts, "cpuid\n mov %eax, %ecx\n inc %edx\n ret\n .balign 64, 0xcc\n"
                   "cpuid\n mov %eax, %ecx\n inc %edx\n ret\n .balign 64, 0xcc\n"
                   "cpuid\n mov %eax, %ecx\n inc %edx\n ret\n .balign 64, 0xcc\n"
                   "cpuid\n mov %eax, %ecx\n inc %edx\n ret\n .balign 64, 0xcc");

static void check_context(uint64_t offset, unsigned has, unsigned lacks)
{
    const struct site *site = lab_site(&lab, offset);
    assert_int_equal(site->context & has, has);
    assert_int_equal(site->context & lacks, 0);
}

static void test_contexts_follow_from_the_kernels_symbols(void **state)
{
    (void)state;
    LINUX(contexts);
    linux_image_symbol(&lab.li, "__entry_text_start", TEXT);
    linux_image_symbol(&lab.li, "__entry_text_end", TEXT + 64);
    linux_image_symbol(&lab.li, "relocate_kernel", TEXT + 64);
    linux_image_symbol(&lab.li, "repeat_nmi", TEXT + 0x900);
    linux_image_symbol(&lab.li, "end_repeat_nmi", TEXT + 0x940);
    linux_image_symbol(&lab.li, "ftrace_caller", TEXT + 128);
    linux_image_symbol(&lab.li, "ftrace_caller_end", TEXT + 192);
    lab_must_build(&lab, CPUID);
    check_context(0, CONTEXT_HIGH | CONTEXT_FREE_LABELS,
                  CONTEXT_STACK | CONTEXT_KERNEL_TABLES | CONTEXT_NMI_SAFE);
    assert_int_equal(lab_site(&lab, 64)->status, STATUS_EXCLUDED);
    assert_string_equal(reason_name(lab_site(&lab, 64)->reason), "copied-code");
    assert_int_equal(lab_site(&lab, 128)->status, STATUS_EXCLUDED);
    assert_null(lab_patch(&lab, 64));
    assert_null(lab_patch(&lab, 128));
}

static void test_compared_labels_do_not_move(void **state)
{
    (void)state;
    LINUX(contexts);
    linux_image_symbol(&lab.li, "repeat_nmi", TEXT + 2);
    linux_image_symbol(&lab.li, "end_repeat_nmi", TEXT + 6);
    linux_image_symbol(&lab.li, "repeated", TEXT + 64);
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    if (patch)
        assert_true(patch->window_size == 2);
    assert_int_equal(lab_site(&lab, 64)->status, STATUS_PATCHED);
    check_context(64, CONTEXT_STACK | CONTEXT_KERNEL_TABLES | CONTEXT_HIGH, CONTEXT_NMI_SAFE);
}

/* Under the user page tables of PTI only the large page of the entry text is mapped. */
static void test_routines_of_entry_text_stay_in_its_large_page(void **state)
{
    (void)state;
    LINUX(contexts);
    linux_image_symbol(&lab.li, "__entry_text_start", TEXT);
    linux_image_symbol(&lab.li, "__entry_text_end", TEXT + 256);
    lab_must_build(&lab, CPUID);
    for (unsigned offset = 0; offset < 256; offset += 64) {
        const struct pv_routine *routine = lab_routine(&lab, offset);
        if (routine)
            assert_int_equal(lab_address(&lab, routine->link_offset) >> 21, TEXT >> 21);
    }
}

static void test_without_names_nothing_is_proved(void **state)
{
    (void)state;
    lab_linux(&lab, sites_code, sites_end);
    lab.li.symbol_count = 0;
    lab_must_build(&lab, CPUID);
    assert_int_equal(lab_site(&lab, 0)->status, STATUS_LEFT);
    assert_string_equal(reason_name(lab_site(&lab, 0)->reason), "unproved");
    assert_int_equal(lab.result.patch_count, 0);
}

/* ---- hostile input ---- */

static void test_an_image_cut_off_anywhere_gives_one_error_line(void **state)
{
    (void)state;
    LINUX(sites);
    lab_must_build(&lab, CPUID);
    size_t whole = lab.size;
    for (size_t size = 0; size < whole; size += size < 600 ? 7 : 971) {
        lab.size = size;
        if (!lab_build(&lab, CPUID))
            continue; /* what was cut off was not needed */
        assert_true(lab.err.code == EXIT_INPUT);
        assert_null(strchr(lab.err.text, '\n'));
        assert_int_not_equal(access(lab.output_path, F_OK), 0);
    }
    lab.size = whole;
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_same_input_gives_the_same_bytes),
        TEST(test_the_input_is_not_changed),
        TEST(test_bytes_outside_the_patches_are_not_changed),
        TEST(test_a_patched_image_is_refused_as_input),
        TEST(test_min_coverage_writes_the_report_and_no_image),
        TEST(test_nothing_to_patch_is_no_error),
        TEST(test_D6_the_list_decides_what_is_a_site),
        TEST(test_only_and_skip_narrow_the_list),
        TEST(test_a_form_that_a_rule_prefers_is_taken_where_it_fits),
        TEST(test_contexts_follow_from_the_kernels_symbols),
        TEST(test_compared_labels_do_not_move),
        TEST(test_routines_of_entry_text_stay_in_its_large_page),
        TEST(test_without_names_nothing_is_proved),
        TEST(test_an_image_cut_off_anywhere_gives_one_error_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
