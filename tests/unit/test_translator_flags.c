/* SPDX-License-Identifier: MIT */
/* The guest's flags are exact wherever anybody sees them: at faults in translated code, behind blocks, and behind
 * instructions that change only some of them; with look-ups that keep the flags, and as on a host without BMI2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "runtime/translator/translator.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct translator_lab lab;

/* What goes over memory at RBX, page after page, up to one that is missing (or read-only, or a divisor that is zero):
 * a flag that is wrong is found in the frame of the exception. RCX and RDX are others each time. */
#define ZERO (LAB_DATA + 0x5300) /* of all memory there only this is zero */

static const struct body {
    const char *what;
    uint8_t size;
    uint8_t code[16];
} bodies[] = {
    /* cmp %rdx, %rcx; mov (%rbx), %rax */
    {"a load", 6, {0x48, 0x39, 0xd1, 0x48, 0x8b, 0x03}},
    /* cmp %rdx, %rcx; mov (%rbx), %rax; xor %rax, %rax */
    {"a load between", 9, {0x48, 0x39, 0xd1, 0x48, 0x8b, 0x03, 0x48, 0x31, 0xc0}},
    /* add %rdx, %rcx; adc $0, %rdx; adc (%rbx), %rdx */
    {"a carry", 10, {0x48, 0x01, 0xd1, 0x48, 0x83, 0xd2, 0x00, 0x48, 0x13, 0x13}},
    /* cmp %rdx, %rcx; mov %rdx, (%rbx); inc %rax */
    {"a carry that is kept", 9, {0x48, 0x39, 0xd1, 0x48, 0x89, 0x13, 0x48, 0xff, 0xc0}},
    /* sub %rdx, %rcx; add %rcx, (%rbx) */
    {"a sum in memory", 6, {0x48, 0x29, 0xd1, 0x48, 0x01, 0x0b}},
    /* cmp %rdx, %rcx; mov %rdx, (%rbx); mov $0, %cl; shl %cl, %rax */
    {"a shift by nothing", 11, {0x48, 0x39, 0xd1, 0x48, 0x89, 0x13, 0xb1, 0x00, 0x48, 0xd3, 0xe0}},
    /* add %rdx, %rcx; mov (%rbx), %rax; mul %rdx */
    {"undefined flags", 9, {0x48, 0x01, 0xd1, 0x48, 0x8b, 0x03, 0x48, 0xf7, 0xe2}},
    /* cmp %rdx, %rcx; add $8, %rbx; mov %rcx, -8(%rbx); cmc; lea -8(%rbx), %rbx */
    {"a base that moves",
     16,
     {0x48, 0x39, 0xd1, 0x48, 0x83, 0xc3, 0x08, 0x48, 0x89, 0x4b, 0xf8, 0xf5, 0x48, 0x8d, 0x5b,
      0xf8}},
    /* mov $0, %edx; cmp %rcx, %rax; divq (%rbx); test %rax, %rax */
    {"a quotient",
     14,
     {0xba, 0x00, 0x00, 0x00, 0x00, 0x48, 0x39, 0xc8, 0x48, 0xf7, 0x33, 0x48, 0x85, 0xc0}},
    /* cmp %rdx, %rcx; push (%rbx); setc %al; pop %rsi */
    {"a push", 9, {0x48, 0x39, 0xd1, 0xff, 0x33, 0x0f, 0x92, 0xc0, 0x5e}},
};
static const uint8_t head[] = {0x48, 0x01, 0xca, /* add %rcx, %rdx */
                               0x48, 0x69, 0xc9, 0x35, 0x01, 0x00, 0x00 /* imul $0x135, %rcx */};
static const uint8_t tail[] = {0x48, 0x8d, 0x9b, 0x00, 0x01, 0x00, 0x00, /* lea 0x100(%rbx), %rbx */
                               0x49, 0xff, 0xcf,                         /* dec %r15 */
                               0x75, 0x00, 0xf4};                        /* jnz; hlt */

static void go_over_memory(const struct body *body, uint64_t at)
{
    uint8_t code[64], ones[0x1000];
    size_t size = 0;
    memset(ones, 1, sizeof ones);
    for (uint64_t page = LAB_DATA; page < LAB_READONLY; page += sizeof ones)
        translator_lab_put(&lab, page, ones, sizeof ones);
    translator_lab_put(&lab, ZERO, "\0\0\0\0\0\0\0", 8);
    memcpy(code, head, sizeof head);
    size += sizeof head;
    memcpy(code + size, body->code, body->size);
    size += body->size;
    memcpy(code + size, tail, sizeof tail);
    size += sizeof tail;
    code[size - 2] = (uint8_t) - (int)(size - 1);
    translator_lab_put(&lab, at, code, size);
    translator_lab_start(&lab, at, false);
    translator_lab_register(&lab, RBX, LAB_DATA);
    translator_lab_register(&lab, RCX, 0x123456789abcdef1);
    translator_lab_register(&lab, R15, 100000);
    for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 100; slices++)
        if (!translator_lab_run(&lab, 211)) {
            printf("# %s, at %zx\n", body->what, (size_t)at);
            fail();
        }
    assert_true(translator_lab_halted(&lab));
}

/* Also where a page ends, and with it a block, at any of its bytes. */
static void flags_are_exact_at_faults_and_behind_blocks(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof bodies / sizeof bodies[0]; n++)
        for (unsigned before = 0; before < sizeof head + bodies[n].size + sizeof tail; before++)
            go_over_memory(&bodies[n], LAB_CODE + 0x1000 - before);
}

static void flags_are_exact_without_bmi2(void **state)
{
    flags_are_exact_at_faults_and_behind_blocks(state);
}

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0) ? 0 : -1;
}

static int open_old_lab(void **state)
{
    translator_lab_old_host(true);
    int result = open_lab(state);
    translator_lab_old_host(false);
    return result;
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
        cmocka_unit_test_setup_teardown(flags_are_exact_at_faults_and_behind_blocks, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(flags_are_exact_without_bmi2, open_old_lab, close_lab),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
