/* SPDX-License-Identifier: MIT */
/* Routine space: where routines may go, and that an image stays right when it runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "patchc/space.h"
#include "tests/unit/core_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define TEXT        LINUX_IMAGE_TEXT
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

static void test_what_is_taken_is_aligned_in_range_and_disjoint(void **state)
{
    (void)state;
    struct space_run runs[] = {{0x10003, 0x200, 0}, {0x20000, 0x100, 0}};
    struct space space = {.runs = runs, .count = 2};
    assert_int_equal(space_take(&space, 16, 16, 0, UINT64_MAX), 0x10010);
    assert_int_equal(space_take(&space, 5, 1, 0, UINT64_MAX), 0x10020);
    assert_int_equal(space_take(&space, 1, 64, 0, UINT64_MAX), 0x10040);
    /* within a range only */
    assert_int_equal(space_take(&space, 16, 16, 0x20000, 0x30000), 0x20000);
    assert_int_equal(space_take(&space, 16, 16, 0x30000, 0x40000), 0);
    assert_int_equal(space_take(&space, 0x100, 1, 0x20000, 0x30000), 0);
    /* to the last byte, and no further */
    assert_int_equal(space_take(&space, 0xf0, 1, 0x20000, 0x30000), 0x20010);
    assert_int_equal(space_take(&space, 1, 1, 0x20000, 0x30000), 0);
    assert_int_equal(space_take(&space, UINT64_MAX, 1, 0, UINT64_MAX), 0);
}

LAB_CODE(quiet, "cpuid\n ret\n .balign 64, 0xcc");

static void test_runs_of_padding_are_found_in_text_that_stays(void **state)
{
    (void)state;
    static uint8_t init[4096];
    memset(init, 0xcc, sizeof init);
    LINUX(quiet);
    linux_image_add(&lab.li, ".init.text", SHF_EXECINSTR, init, sizeof init);
    lab_must_build(&lab, "include cpuid\n");
    assert_in_range(lab.result.padding_bytes, LAB_PADDING - 64, LAB_PADDING + 64);
    assert_in_range(lab.result.header_address, TEXT, TEXT + LAB_TEXT_MAX);
    assert_true(lab.result.padding_used <= lab.result.padding_bytes);
}

static void test_a_target_in_padding_splits_the_run(void **state)
{
    (void)state;
    LINUX(quiet);
    linux_image_symbol(&lab.li, "landing", TEXT + 0x1000);
    lab_must_build(&lab, "include cpuid\n");
    assert_int_equal(*lab_at(&lab, TEXT + 0x1000, 1), 0xcc);
}

/* Of each: an island, an evicted neighbour, a shared window, replacements, a place that grows. */
LAB_CODE(everything, "jmp 1f\n 2: inc %eax\n 1: cpuid\n 3: inc %ecx\n jnz 3b\n jnz 2b\n"
                     "mov $1, %eax\n mov $2, %ecx\n mov $3, %edx\n ret\n inc %eax\n ret\n cltq\n"
                     ".org everything_code + 256, 0x90\n"
                     "cpuid\n cpuid\n cpuid\n ret\n .balign 64, 0xcc\n"
                     ".byte 0x66, 0x90\n inc %esi\n inc %edi\n ret\n .balign 64, 0xcc\n"
                     "inc %eax\n cpuid\n inc %ebx\n ret\n .balign 64, 0xcc\n"
                     "ret\n .balign 64, 0xcc");
static const uint8_t cli[] = {0xfa};

static void make_everything(size_t padding)
{
    static uint8_t table[12];
    lab.padding = padding;
    LINUX(everything);
    uint64_t at = linux_image_add(&lab.li, ".altinstr_replacement", SHF_EXECINSTR, cli, 1);
    linux_image_symbol(&lab.li, "__x86_return_thunk", TEXT + 256 + 192);
    uint64_t base = linux_image_address(lab.li.section_count);
    lab_name(table, base, 0, TEXT + 256 + 64);
    lab_name(table, base, 4, at);
    table[8] = 1;
    table[10] = 2;
    table[11] = 1;
    linux_image_add(&lab.li, ".altinstructions", 0, table, sizeof table);
}

/* From no room at all to room enough: sites are left, and what is written is right (lab_build
 * verifies it). */
static void test_running_out_of_room_leaves_sites_and_a_right_image(void **state)
{
    (void)state;
    size_t patched = 0, images = 0, partial = 0;
    tear_down(state);
    for (size_t padding = 512; padding < 1024; padding += 8) {
        lab_open(&lab);
        make_everything(padding);
        if (lab_build(&lab, "include cpuid\ninclude cli\n")) {
            assert_int_equal(lab.err.code, EXIT_INPUT);
        } else {
            struct build_counts counts = build_count(&lab.result);
            assert_int_equal(counts.listed, 6);
            for (size_t i = 0; i < lab.result.site_count; i++)
                if (lab.result.sites[i].status == STATUS_LEFT)
                    assert_string_equal(reason_name(lab.result.sites[i].reason), "no-space");
            images++;
            partial += counts.patched > 0 && counts.patched < 6;
            patched = counts.patched;
        }
        lab_close(&lab);
    }
    lab_open(&lab);
    assert_int_equal(patched, 6);
    assert_true(images > 10);
    assert_true(partial > 0);
}

static void test_an_appended_segment_is_room_when_the_guest_is_said_to_leave_it_alone(void **state)
{
    (void)state;
    static const uint8_t text[] = {0x0f, 0xa2, 0x89, 0xc1, 0xff, 0xc2, 0xc3};
    lab_plain(&lab, text, sizeof text, NULL, 0);
    lab.options.assume_reserved = true;
    lab_must_build(&lab, "include cpuid\n");
    assert_int_equal(lab_site(&lab, 0)->status, STATUS_PATCHED);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    assert_int_equal(lab_branch_target(&lab, lab_address(&lab, patch->window_offset), 5),
                     lab_trampoline(&lab, patch));
    /* its memory is no other segment's, physical addresses included, and the state is writable */
    const struct image_segment *added = NULL;
    for (size_t i = 0; i < lab.patched.segment_count; i++) {
        const struct image_segment *s = &lab.patched.segments[i];
        if (s->type == PT_LOAD && lab.result.header_address - s->vaddr < s->mem_size)
            added = s;
    }
    assert_non_null(added);
    for (size_t i = 0; i < lab.result.image.segment_count; i++) {
        const struct image_segment *s = &lab.result.image.segments[i];
        if (s->type == PT_LOAD && s->mem_size)
            assert_true(added->paddr >= s->paddr + s->mem_size ||
                        added->paddr + added->mem_size <= s->paddr);
    }
}

static void test_the_state_page_is_writable(void **state)
{
    (void)state;
    static uint8_t text[0x8000];
    memset(text, 0xcc, sizeof text);
    memcpy(text, "\x0f\xa2\x89\xc1\xff\xc2\xc3", 7);
    lab_plain(&lab, text, sizeof text, NULL, 0);
    lab.options.assume_reserved = true;
    lab_must_build(&lab, "include cpuid\n");
    assert_true(lab.result.state_address != 0);
    for (size_t i = 0; i < lab.patched.segment_count; i++) {
        const struct image_segment *s = &lab.patched.segments[i];
        if (s->type == PT_LOAD && lab.result.state_address - s->vaddr < s->mem_size)
            assert_true(s->flags & PF_W);
    }
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_taken_is_aligned_in_range_and_disjoint),
        TEST(test_runs_of_padding_are_found_in_text_that_stays),
        TEST(test_a_target_in_padding_splits_the_run),
        TEST(test_running_out_of_room_leaves_sites_and_a_right_image),
        TEST(test_an_appended_segment_is_room_when_the_guest_is_said_to_leave_it_alone),
        TEST(test_the_state_page_is_writable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
