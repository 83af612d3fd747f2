/* SPDX-License-Identifier: MIT */
/* Operand words, kinds, and the patterns of instruction forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "patchc/form.h"
#include "patchc/template.h"
#include "tests/unit/decoded.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

/* ---- operand words ---- */

static void test_operand_words_tell_the_host_what_it_must_know(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        enum pv_kind kind;
        uint32_t operand;
    } cases[] = {
        {"e4 60", PV_KIND_IN, 0x01000060},
        {"ed", PV_KIND_IN, 0x04000000 | PV_OPERAND_DX},
        {"66 e7 f0", PV_KIND_OUT, 0x020000f0},
        {"ee", PV_KIND_OUT, 0x01000000 | PV_OPERAND_DX},
        {"6c", PV_KIND_INS, 0x01000000},
        {"f3 66 6d", PV_KIND_INS, 0x02000000 | PV_OPERAND_REP},
        {"f3 65 67 6f", PV_KIND_OUTS, 0x54000000 | PV_OPERAND_REP | PV_OPERAND_ADDRESS32},
        {"44 0f 22 c3", PV_KIND_MOV_TO_CR, 0x08000308},
        {"41 0f 20 d9", PV_KIND_MOV_FROM_CR, 0x08000903},
        {"0f 23 fe", PV_KIND_MOV_TO_DR, 0x08000607},
        {"0f 21 f0", PV_KIND_MOV_FROM_DR, 0x08000006},
        {"0f 01 3f", PV_KIND_INVLPG, 0x01000700 | PV_OPERAND_BASE},
        {"0f 01 3c 24", PV_KIND_INVLPG, 0x01000400 | PV_OPERAND_BASE},
        {"0f 01 7f 08", PV_KIND_INVLPG, 0x01000000 | PV_OPERAND_MEMORY},
        {"0f 01 f1", PV_KIND_LMSW, 0x04000100},
        {"0f 01 c1", PV_KIND_VMCALL, 0},
        {"0f 01 d9", PV_KIND_VMCALL, 1},
        {"8e da", PV_KIND_MOV_SEGMENT, 0x04000203},
        {"8c d8", PV_KIND_MOV_SEGMENT, 0x04000003 | PV_OPERAND_STORE},
        {"0f 02 c1", PV_KIND_LAR, 0x04000100},
        {"66 0f 38 82 07", PV_KIND_INVPCID, 0x08000700 | PV_OPERAND_BASE},
        {"9c", PV_KIND_PUSHF, 0x08000000},
        {"48 0f 07", PV_KIND_SYSRET, 0x08000000},
        {"48 cf", PV_KIND_IRET, 0x08000000},
        {"0f 01 c8", PV_KIND_MONITOR, 0},
        {"67 0f 01 c8", PV_KIND_MONITOR, PV_OPERAND_ADDRESS32},
        {"65 0f 01 3f", PV_KIND_INVLPG, 0x51000000 | PV_OPERAND_MEMORY},
        {"64 0f 00 2c 25 00 00 00 00", PV_KIND_VERW, 0x44000000 | PV_OPERAND_MEMORY},
        {"0f 02 01", PV_KIND_LAR, 0x04000100 | PV_OPERAND_BASE},
        {"66 44 0f 38 82 0c 24", PV_KIND_INVPCID, 0x08000409 | PV_OPERAND_BASE},
        {"cd 80", PV_KIND_INT, 0x80},
        {"ff 2f", PV_KIND_JMP_FAR, 0x04000700 | PV_OPERAND_BASE},
        {"48 ff 58 24", PV_KIND_CALL_FAR, 0x08000000 | PV_OPERAND_MEMORY},
        {"48 cb", PV_KIND_RET_FAR, 0x08000000},
        {"ca 08 01", PV_KIND_RET_FAR, 0x04000108},
        {"0f a0", PV_KIND_PUSH_SEGMENT, 0x08000004},
        {"66 0f a9", PV_KIND_POP_SEGMENT, 0x02000005},
        {"48 0f b4 0f", PV_KIND_LOAD_FAR, 0x08000741 | PV_OPERAND_BASE},
        {"0f b2 46 08", PV_KIND_LOAD_FAR, 0x04000020 | PV_OPERAND_MEMORY},
        {"f3 0f c7 f9", PV_KIND_RDPID, 0x04000100},
        {"0f 01 d0", PV_KIND_XGETBV, 0x04000000},
        {"0f 05", PV_KIND_SYSCALL, 0x08000000},
        {"0f 34", PV_KIND_SYSENTER, 0x04000000},
        {"c3", PV_KIND_OTHER, 0},
        {"ff 27", PV_KIND_OTHER, 0},
        {"50", PV_KIND_OTHER, 0},
        {"48 89 c8", PV_KIND_OTHER, 0x08000100},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct decoded d;
        assert_true(decode_hex(cases[i].hex, &d));
        assert_int_equal(kind_of_instruction(&d.instruction, d.operands), cases[i].kind);
        if (cases[i].kind != PV_KIND_OTHER)
            assert_int_equal(template_operand(&d.instruction, d.operands), cases[i].operand);
    }
    for (unsigned kind = 0; kind < PV_KINDS; kind++)
        assert_non_null(kind_name(kind));
    assert_string_equal(kind_name(PV_KINDS), "unknown");
}

static void test_form_patterns_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"nosuch",
                                      "mov quux, rax",
                                      "mov rax!quux, cr",
                                      "mov r8x, cr",
                                      "mov a, b, c, d, e",
                                      "mov r7, cr",
                                      "push sreg w7",
                                      ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct form form;
        struct error err = {0};
        assert_int_equal(form_parse(bad[i], &form, &err), -1);
    }
    struct form form;
    struct decoded d;
    assert_int_equal(form_parse("mov r64!rax!rsp, cr", &form, NULL), 0);
    assert_true(decode_hex("0f 20 c1", &d));
    assert_true(form_matches(&form, &d.instruction, d.operands));
    assert_true(decode_hex("0f 20 c0", &d));
    assert_false(form_matches(&form, &d.instruction, d.operands));
    assert_int_equal(form_parse("ret far", &form, NULL), 0);
    assert_true(decode_hex("cb", &d));
    assert_true(form_matches(&form, &d.instruction, d.operands));
    assert_true(decode_hex("c3", &d));
    assert_false(form_matches(&form, &d.instruction, d.operands));
    assert_int_equal(form_parse("jmp mreg", &form, NULL), 0);
    assert_true(decode_hex("ff 27", &d));
    assert_true(form_matches(&form, &d.instruction, d.operands));
    assert_true(decode_hex("ff 2f", &d)); /* far */
    assert_false(form_matches(&form, &d.instruction, d.operands));
    assert_int_equal(form_parse("push sreg w16", &form, NULL), 0);
    assert_true(decode_hex("66 0f a0", &d));
    assert_true(form_matches(&form, &d.instruction, d.operands));
    assert_true(decode_hex("0f a0", &d));
    assert_false(form_matches(&form, &d.instruction, d.operands));
    assert_int_equal(form_parse("invlpg m!rdi", &form, NULL), 0);
    assert_true(decode_hex("0f 01 3e", &d));
    assert_true(form_matches(&form, &d.instruction, d.operands));
    assert_true(decode_hex("0f 01 3c 3e", &d));
    assert_false(form_matches(&form, &d.instruction, d.operands));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operand_words_tell_the_host_what_it_must_know),
        cmocka_unit_test(test_form_patterns_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
