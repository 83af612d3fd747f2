/* SPDX-License-Identifier: MIT */
/* Planning (D3, D4, D11): which bytes of a guest become a patch, and what its trampoline holds.
 * Each test patches a small kernel; what comes out is verified and restored as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/unit/core_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

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

#define LINUX(name) lab_linux(&lab, name##_code, name##_end)
#define CPUID       "include cpuid\n"

static void check_window(uint64_t site, uint64_t start, uint32_t size, enum tactic tactic)
{
    const struct site *s = lab_site(&lab, site);
    const struct pv_patch *patch = lab_patch(&lab, site);
    assert_int_equal(s->status, STATUS_PATCHED);
    assert_string_equal(tactic_name(s->tactic), tactic_name(tactic));
    assert_non_null(patch);
    assert_int_equal(lab_window(&lab, patch), start);
    assert_int_equal(patch->window_size, size);
}

static void check_left(uint64_t site, enum reason reason)
{
    const struct site *s = lab_site(&lab, site);
    assert_int_equal(s->status, STATUS_LEFT);
    assert_string_equal(reason_name(s->reason), reason_name(reason));
    assert_null(lab_routine(&lab, site));
}

/* The trampoline of the patch around `offset` begins with these bytes. */
static void check_trampoline(uint64_t offset, const void *bytes, size_t size)
{
    const struct pv_patch *patch = lab_patch(&lab, offset);
    assert_non_null(patch);
    assert_memory_equal(lab_at(&lab, lab_trampoline(&lab, patch), size), bytes, size);
}
#define CHECK_TRAMPOLINE(offset, bytes) check_trampoline(offset, bytes, sizeof bytes - 1)

#define LINK "\xe9\0\0\0\0" /* of a routine that no runtime has linked */

/* ---- windows ---- */

LAB_CODE(forward, "cpuid\n mov %eax, %ecx\n inc %edx\n ret");

static void test_window_grows_forward(void **state)
{
    (void)state;
    LINUX(forward);
    lab_must_build(&lab, CPUID);
    check_window(0, 0, 6, TACTIC_FORWARD);
    CHECK_TRAMPOLINE(0, LINK "\x0f\xa2\x89\xc1\xff\xc2\xe9");
    const struct pv_patch *patch = lab_patch(&lab, 0);
    assert_int_equal(lab_branch_target(&lab, LINUX_IMAGE_TEXT, 5), lab_trampoline(&lab, patch));
    assert_memory_equal(lab_at(&lab, LINUX_IMAGE_TEXT + 5, 2), "\xcc\xc3", 2);
    assert_int_equal(lab_branch_target(&lab, lab_trampoline(&lab, patch) + 11, 5),
                     LINUX_IMAGE_TEXT + 6);
}

LAB_CODE(backward, "mov %eax, %ecx\n inc %edx\n cpuid\n 1: dec %esi\n jnz 1b\n ret");

static void test_window_grows_backward_when_a_target_follows(void **state)
{
    (void)state;
    LINUX(backward);
    lab_must_build(&lab, CPUID);
    check_window(4, 0, 6, TACTIC_BACKWARD);
    assert_int_equal(lab_site(&lab, 4)->slot, 2);
    CHECK_TRAMPOLINE(4, "\x89\xc1\xff\xc2" LINK "\x0f\xa2\xe9");
}

LAB_CODE(enclosed, "jmp 1f\n 2: inc %eax\n 1: cpuid\n 3: inc %ecx\n jnz 3b\n jnz 2b\n jmp 1b\n"
                   ".rept 60\n 4: jnz 4b\n .endr\n ret");

static void test_a_window_is_entered_at_its_first_byte_only(void **state)
{
    (void)state;
    LINUX(enclosed); /* targets at 2, 4 and 6, and no padding within a short branch */
    lab_must_build(&lab, CPUID);
    check_left(4, REASON_NO_ROOM);
    assert_null(lab_patch(&lab, 4));
    assert_int_equal(lab.result.patch_count, 0);
}

LAB_CODE(terminator, "cpuid\n ret\n int3\n int3\n int3\n int3\n nop\n 1: inc %eax\n jmp 1b");

static void test_dead_padding_behind_a_terminator_makes_room(void **state)
{
    (void)state;
    LINUX(terminator);
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    assert_non_null(patch);
    assert_int_equal(lab_window(&lab, patch), 0);
    assert_true(patch->window_size >= 5 && patch->window_size <= 8);
    /* RET ends the trampoline: no jump back */
    CHECK_TRAMPOLINE(0, LINK "\x0f\xa2\xc3");
    assert_int_equal(patch->trampoline_size, 8);
    assert_memory_equal(lab_at(&lab, LINUX_IMAGE_TEXT + 8, 2), "\xff\xc0", 2);
}

/* Routine space begins with a header that is aligned to 64 bytes: let it be near. */
LAB_CODE(at_the_run, ".fill 57, 1, 0x90\n cpuid\n ret");

static void test_a_window_in_a_long_run_of_padding_is_not_handed_out_again(void **state)
{
    (void)state;
    LINUX(at_the_run); /* what follows RET is where routines go */
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 57);
    assert_non_null(patch);
    assert_int_equal(lab_branch_target(&lab, lab_address(&lab, patch->window_offset), 5),
                     lab_trampoline(&lab, patch));
}

LAB_CODE(conditional_end, "cpuid\n jz 1f\n inc %eax\n 1: ret");

static void test_a_branch_out_of_the_window_is_widened(void **state)
{
    (void)state;
    LINUX(conditional_end);
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    uint64_t at = lab_trampoline(&lab, patch);
    CHECK_TRAMPOLINE(0, LINK "\x0f\xa2\x0f\x84");
    assert_int_equal(lab_branch_target(&lab, at + 7, 6), LINUX_IMAGE_TEXT + 6);
}

/* ---- islands and evicted neighbours ---- */

LAB_CODE(island, "jmp 1f\n 2: inc %eax\n 1: cpuid\n 3: inc %ecx\n jnz 3b\n jnz 2b\n ret\n"
                 ".fill 12, 1, 0xcc\n 4: inc %edx\n jmp 4b");

static void test_D4_a_short_branch_reaches_an_island_in_padding(void **state)
{
    (void)state;
    LINUX(island);
    lab_must_build(&lab, CPUID);
    check_window(4, 4, 2, TACTIC_ISLAND);
    const struct site *site = lab_site(&lab, 4);
    assert_int_equal(site->form, PV_FORM_BRANCH);
    assert_int_equal(site->form_reason, FORM_REASON_SHORT);
    uint64_t at = lab_branch_target(&lab, LINUX_IMAGE_TEXT + 4, 2);
    assert_in_range(at, LINUX_IMAGE_TEXT + 13, LINUX_IMAGE_TEXT + 20);
    assert_int_equal(lab_branch_target(&lab, at, 5), lab_trampoline(&lab, lab_patch(&lab, 4)));
}

LAB_CODE(evict, "jmp 1f\n 2: inc %eax\n 1: cpuid\n 3: inc %ecx\n jnz 3b\n jnz 2b\n"
                "mov $1, %eax\n mov $2, %ecx\n mov $3, %edx\n ret");

static void test_a_neighbour_makes_room_for_an_island(void **state)
{
    (void)state;
    LINUX(evict);
    memset(lab.text + lab.code_size, 0x90, 200); /* no dead padding near: NOPs that RET precedes */
    lab.text[lab.code_size] = 0x48; /* ... are no padding if something else comes first */
    lab.text[lab.code_size + 1] = 0x98;
    lab_must_build(&lab, CPUID);
    const struct site *site = lab_site(&lab, 4);
    assert_int_equal(site->status, STATUS_PATCHED);
    assert_string_equal(tactic_name(site->tactic), "evict");
    uint64_t at = lab_branch_target(&lab, LINUX_IMAGE_TEXT + 4, 2) - LINUX_IMAGE_TEXT;
    const struct pv_patch *evicted = lab_patch(&lab, at);
    assert_non_null(evicted);
    assert_true(evicted->flags & PV_PATCH_EVICTED);
    assert_int_equal(evicted->routine_count, 0);
    assert_true(at >= lab_window(&lab, evicted) + 5);
    assert_int_equal(lab_branch_target(&lab, LINUX_IMAGE_TEXT + at, 5),
                     lab_trampoline(&lab, lab_patch(&lab, 4)));
}

/* ---- displaced instructions ---- */

LAB_CODE(relative, "cpuid\n lea 1f(%rip), %rax\n cpuid\n mov 1f(%rip), %eax\n ret\n .balign 8\n"
                   "1: .quad 0x9090909090909090");

static void test_rip_relative_operands_keep_their_target(void **state)
{
    (void)state;
    LINUX(relative);
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    uint64_t at = lab_trampoline(&lab, patch);
    CHECK_TRAMPOLINE(0, LINK "\x0f\xa2\x48\x8d\x05");
    assert_int_equal(lab_branch_target(&lab, at + 7, 7), LINUX_IMAGE_TEXT + 24);
}

LAB_CODE(loops, "1: inc %eax\n cpuid\n jrcxz 2f\n loop 2f\n 2: ret");

static void test_loop_and_jrcxz_are_widened_over_a_jump(void **state)
{
    (void)state;
    LINUX(loops);
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 2);
    assert_non_null(patch);
    assert_int_equal(patch->window_size, 6);
    uint64_t at = lab_trampoline(&lab, patch);
    if (lab_window(&lab, patch) == 2) {
        CHECK_TRAMPOLINE(2, LINK "\x0f\xa2\xe3\x02\xeb\x05\xe9");
        assert_int_equal(lab_branch_target(&lab, at + 11, 5), LINUX_IMAGE_TEXT + 8);
        assert_memory_equal(lab_at(&lab, at + 16, 5), "\xe2\x02\xeb\x05\xe9", 5);
        assert_int_equal(lab_branch_target(&lab, at + 20, 5), LINUX_IMAGE_TEXT + 8);
    } else {
        CHECK_TRAMPOLINE(2, "\xff\xc0" LINK "\x0f\xa2\xe3\x02\xeb\x05\xe9");
        assert_int_equal(lab_branch_target(&lab, at + 13, 5), LINUX_IMAGE_TEXT + 8);
    }
}

LAB_CODE(calls, "1: cpuid\n call 2f\n ret\n 2: inc %eax\n ret");

static void test_a_call_that_ends_the_window_pushes_the_original_return_address(void **state)
{
    (void)state;
    LINUX(calls);
    lab_must_build(&lab, CPUID);
    check_window(0, 0, 7, TACTIC_FORWARD);
    CHECK_TRAMPOLINE(0, LINK "\x0f\xa2\x48\x8d\x64\x24\xf8\x50\x48\x8d\x05");
    const struct pv_patch *patch = lab_patch(&lab, 0);
    uint64_t at = lab_trampoline(&lab, patch);
    assert_int_equal(lab_branch_target(&lab, at + 13, 7), LINUX_IMAGE_TEXT + 7); /* lea */
    assert_memory_equal(lab_at(&lab, at + 20, 7), "\x48\x89\x44\x24\x08\x58\xe9", 7);
    assert_int_equal(lab_branch_target(&lab, at + 26, 5), LINUX_IMAGE_TEXT + 8);
    assert_int_equal(patch->trampoline_size, 31); /* no jump back */
}

/* ---- sites that share a window ---- */

LAB_CODE(shared, "cpuid\n rdmsr\n cpuid\n ret");

static void test_D9_sites_that_share_a_window_have_routines_and_slots_of_their_own(void **state)
{
    (void)state;
    LINUX(shared);
    lab_must_build(&lab, CPUID "include rdmsr\n");
    const struct pv_patch *patch = lab_patch(&lab, 0);
    assert_non_null(patch);
    assert_int_equal(patch->window_size, 6);
    assert_int_equal(patch->routine_count, 3);
    CHECK_TRAMPOLINE(0, LINK "\x0f\xa2" LINK "\x0f\x32" LINK "\x0f\xa2\xe9");
    for (unsigned i = 0; i < 3; i++) {
        const struct site *site = lab_site(&lab, 2 * i);
        const struct pv_routine *routine = lab_routine(&lab, 2 * i);
        assert_int_equal(site->status, STATUS_PATCHED);
        assert_int_equal(site->slot, i);
        assert_int_equal(site->index, (int)i);
        assert_int_equal(lab_address(&lab, routine->link_offset),
                         lab_trampoline(&lab, patch) + 7 * i);
        assert_int_equal(routine->native_offset, routine->link_offset + 5);
        assert_int_equal(routine->tail_offset, routine->native_offset + 2);
    }
    /* The same instruction in another slot: other code. */
    const struct pv_routine *first = lab_routine(&lab, 0), *last = lab_routine(&lab, 4);
    assert_true(first->emulation_size == last->emulation_size);
    assert_memory_not_equal(
        lab_at(&lab, lab_address(&lab, first->emulation_offset), first->emulation_size),
        lab_at(&lab, lab_address(&lab, last->emulation_offset), last->emulation_size),
        first->emulation_size);
}

/* ---- STI ---- */

LAB_CODE(sti_hlt, "inc %eax\n sti\n hlt\n inc %ecx\n inc %edx\n ret");

static void check_sti_pair(const char *list)
{
    lab_must_build(&lab, list);
    const struct pv_routine *routine = lab_routine(&lab, 3);
    assert_non_null(routine);
    assert_true(routine->flags & PV_ROUTINE_STI);
    assert_int_equal(routine->native_offset, routine->link_offset + 5);
    assert_memory_equal(lab_at(&lab, lab_address(&lab, routine->native_offset), 2), "\xfb\xf4", 2);
    assert_int_equal(routine->tail_offset, routine->native_offset + 2);
}

static void test_sti_and_hlt_move_as_one_with_nothing_between(void **state)
{
    (void)state;
    LINUX(sti_hlt);
    check_sti_pair("include hlt\n");
}

static void test_sti_and_hlt_are_one_routine_when_both_are_listed(void **state)
{
    (void)state;
    LINUX(sti_hlt);
    check_sti_pair("include hlt\ninclude sti\n");
    assert_int_equal(lab_site(&lab, 2)->status, STATUS_PATCHED);
    assert_int_equal(lab_site(&lab, 2)->index, lab_site(&lab, 3)->index);
}

/* The list leaves HLT alone: STI has a routine, HLT is its tail, and nothing is between them. */
static void test_sti_alone_keeps_its_hlt_behind_it(void **state)
{
    (void)state;
    LINUX(sti_hlt);
    lab_must_build(&lab, "include sti\ninclude cli\n");
    const struct pv_routine *routine = lab_routine(&lab, 2);
    assert_non_null(routine);
    assert_false(routine->flags & PV_ROUTINE_STI);
    assert_memory_equal(lab_at(&lab, lab_address(&lab, routine->native_offset), 2), "\xfb\xf4", 2);
    assert_int_equal(routine->tail_offset, routine->native_offset + 1);
}

LAB_CODE(sti_end, "1: cpuid\n inc %ecx\n sti\n hlt\n 2: inc %edx\n jnz 2b\n jmp 1b");

/* HLT is no site here: the pair must stay together all the same. */
static void test_a_window_does_not_end_between_sti_and_hlt(void **state)
{
    (void)state;
    LINUX(sti_end);
    lab_must_build(&lab, CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    assert_non_null(patch);
    if (lab_patch(&lab, 4) == patch) /* STI moved: so did HLT */
        assert_ptr_equal(lab_patch(&lab, 5), patch);
}

/* ---- forced forms (D11) ---- */

static void test_D11_each_form_can_be_forced(void **state)
{
    (void)state;
    static const struct {
        enum pv_form form;
        uint32_t window;
    } forms[] = {{PV_FORM_JUMP, 6}, {PV_FORM_CALL, 6}, {PV_FORM_BREAK, 4}, {PV_FORM_BRANCH, 2}};
    LINUX(forward);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        lab.options.form = forms[i].form;
        lab_must_build(&lab, CPUID);
        const struct site *site = lab_site(&lab, 0);
        const struct pv_patch *patch = lab_patch(&lab, 0);
        assert_int_equal(site->status, STATUS_PATCHED);
        assert_int_equal(site->form, forms[i].form);
        assert_int_equal(site->form_reason, FORM_REASON_FORCED);
        assert_int_equal(patch->form, forms[i].form);
        assert_int_equal(patch->window_size, forms[i].window);
        assert_int_equal(lab.record.note.flags & PV_IMAGE_NEEDS_RUNTIME,
                         forms[i].form == PV_FORM_BREAK ? PV_IMAGE_NEEDS_RUNTIME : 0);
    }
}

LAB_CODE(stackless, "cpuid\n mov %eax, %ecx\n inc %edx\n ret");

static void test_D11_a_forced_call_needs_a_stack(void **state)
{
    (void)state;
    LINUX(stackless);
    linux_image_symbol(&lab.li, "__entry_text_start", LINUX_IMAGE_TEXT);
    linux_image_symbol(&lab.li, "__entry_text_end", LINUX_IMAGE_TEXT + 64);
    lab.options.form = PV_FORM_CALL;
    lab_must_build(&lab, CPUID);
    check_left(0, REASON_FORM);
    lab.options.form = PV_FORM_JUMP;
    lab_must_build(&lab, CPUID);
    assert_int_equal(lab_site(&lab, 0)->status, STATUS_PATCHED);
}

static void test_D11_what_a_forced_form_cannot_do_is_left_for_that_reason(void **state)
{
    (void)state;
    LINUX(island); /* two bytes: auto takes a branch */
    lab.options.form = PV_FORM_JUMP;
    lab_must_build(&lab, CPUID);
    check_left(4, REASON_FORM);
    lab.options.form = PV_FORM_CALL;
    lab_must_build(&lab, CPUID);
    check_left(4, REASON_FORM);
    lab.options.form = PV_FORM_BREAK;
    lab_must_build(&lab, CPUID);
    check_left(4, REASON_FORM);
}

/* ---- break encodings ---- */

enum { PAIRS = 2100 };
static uint8_t pairs[PAIRS * 4 + 1];

/* CPUID; CPUID: two routines for each four-byte window, so that indices pass 2048 long before
 * patches do. */
static void test_D3_a_break_has_room_for_its_index(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PAIRS; i++)
        memcpy(pairs + 4 * i, "\x0f\xa2\x0f\xa2", 4);
    pairs[PAIRS * 4] = 0xc3;
    static uint8_t text[0x180000];
    memset(text, 0xcc, sizeof text);
    memcpy(text, pairs, sizeof pairs);
    lab_plain(&lab, text, sizeof text, NULL, 0);
    lab.options.form = PV_FORM_BREAK;
    lab_must_build(&lab, CPUID);
    assert_true(lab.header->routine_count > PV_BREAK_SHORT_LIMIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_window_grows_forward),
        TEST(test_window_grows_backward_when_a_target_follows),
        TEST(test_a_window_is_entered_at_its_first_byte_only),
        TEST(test_dead_padding_behind_a_terminator_makes_room),
        TEST(test_a_window_in_a_long_run_of_padding_is_not_handed_out_again),
        TEST(test_a_branch_out_of_the_window_is_widened),
        TEST(test_D4_a_short_branch_reaches_an_island_in_padding),
        TEST(test_a_neighbour_makes_room_for_an_island),
        TEST(test_rip_relative_operands_keep_their_target),
        TEST(test_loop_and_jrcxz_are_widened_over_a_jump),
        TEST(test_a_call_that_ends_the_window_pushes_the_original_return_address),
        TEST(test_D9_sites_that_share_a_window_have_routines_and_slots_of_their_own),
        TEST(test_sti_and_hlt_move_as_one_with_nothing_between),
        TEST(test_sti_and_hlt_are_one_routine_when_both_are_listed),
        TEST(test_sti_alone_keeps_its_hlt_behind_it),
        TEST(test_a_window_does_not_end_between_sti_and_hlt),
        TEST(test_D11_each_form_can_be_forced),
        TEST(test_D11_a_forced_call_needs_a_stack),
        TEST(test_D11_what_a_forced_form_cannot_do_is_left_for_that_reason),
        TEST(test_D3_a_break_has_room_for_its_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
