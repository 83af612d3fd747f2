/* SPDX-License-Identifier: MIT */
/* Translated code where accesses that could share a look-up are in two pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>

#include "runtime/soft/engine.h"
#include "runtime/translator/translator.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct translator_lab lab;

/* 1: push %rax; push %rcx; mov %rdx, -24(%rsp); mov -16(%rsp), %rdx; pop %rcx; pop %rax; inc %rax; call 2f;
 * dec %r15; jnz 1b; hlt; 2: ret */
static const uint8_t frame[] = {0x50, 0x51, 0x48, 0x89, 0x54, 0x24, 0xe8, 0x48, 0x8b, 0x54,
                                0x24, 0xf0, 0x59, 0x58, 0x48, 0xff, 0xc0, 0xe8, 0x06, 0,
                                0,    0,    0x49, 0xff, 0xcf, 0x75, 0xe5, 0xf4, 0xc3};

static void a_frame_across_a_page_end_is_not_left_to_the_interpreter(void **state)
{
    (void)state;
    translator_lab_put(&lab, LAB_CODE, frame, sizeof frame);
    translator_lab_start(&lab, LAB_CODE, false);
    translator_lab_register(&lab, R15, 5000);
    translator_lab_register(&lab, RSP, LAB_DATA + 0x2008);
    while (!translator_lab_halted(&lab))
        assert_true(translator_lab_run(&lab, 1000));
    assert_int_equal(lab.translates->vcpus[0]->r[RAX], 5000);
    assert_in_range(translator_stats(lab.translates->soft->translator)->exits[TRANSLATOR_ACCESS], 1,
                    200);
}

/* The same with all frames, so that their ends meet the page's end anywhere. */
static void frames_anywhere_agree(void **state)
{
    (void)state;
    translator_lab_put(&lab, LAB_CODE, frame, sizeof frame);
    for (unsigned at = 0; at < 64; at += 4) {
        translator_lab_start(&lab, LAB_CODE, at & 4);
        translator_lab_register(&lab, R15, 300);
        translator_lab_register(&lab, RSP, LAB_DATA + 0x3000 + at);
        while (!translator_lab_halted(&lab))
            assert_true(translator_lab_run(&lab, 777));
    }
}

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0) ? 0 : -1;
}

static int close_lab(void **state)
{
    (void)state;
    translator_lab_close(&lab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_frame_across_a_page_end_is_not_left_to_the_interpreter,
                                        open_lab, close_lab),
        cmocka_unit_test_setup_teardown(frames_anywhere_agree, open_lab, close_lab),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
