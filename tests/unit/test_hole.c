/* SPDX-License-Identifier: MIT */
/* Holes: what each symbol is filled with (D8), and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <elf.h>

#include "patchc/form.h"
#include "patchc/hole.h"
#include "tests/unit/decoded.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define SITE    0xffffffff81234567u
#define ROUTINE 0xffffffff81d00123u
#define NATIVE  0xffffffff81d00100u
#define TAIL    0xffffffff81d00110u
#define STATE   0xffffffff82400040u
#define CPUID   0xffffffff81e00040u
#define MSRS    0xffffffff81e10040u
#define INDEX   0x01020304u

static struct template_values values_for(const struct decoded *d)
{
    return (struct template_values){.instruction = &d->instruction,
                                    .operands = d->operands,
                                    .address = SITE,
                                    .index = INDEX,
                                    .native = NATIVE,
                                    .tail = TAIL,
                                    .next = SITE + d->instruction.length,
                                    .state = STATE,
                                    .cpuid_table = CPUID,
                                    .msr_table = MSRS};
}

/* ---- holes ---- */

static int fill_one(const char *symbol, uint32_t type, int64_t addend, const struct decoded *d,
                    uint64_t address, uint8_t *out)
{
    struct error err = {0};
    struct template_values values = values_for(d);
    struct hole hole = {.kind = hole_kind_named(symbol), .type = type, .addend = addend};
    assert_non_null(hole.kind);
    return hole_fill(&hole, &values, out, address, &err);
}

static unsigned byte_hole(const char *symbol, const struct decoded *d)
{
    uint8_t out[16] = {0};
    assert_int_equal(fill_one(symbol, R_X86_64_8, 0, d, ROUTINE, out), 0);
    return out[0];
}

static void test_D8_register_holes_are_parts_of_the_register_number(void **state)
{
    (void)state;
    struct decoded d;
    decode_hex("45 0f 22 c5", &d); /* mov %r13, %cr8 */
    assert_int_equal(byte_hole("PV_GPR_LOW", &d), 5);
    assert_int_equal(byte_hole("PV_GPR_REG", &d), 5 << 3);
    assert_int_equal(byte_hole("PV_GPR_B", &d), 1);
    assert_int_equal(byte_hole("PV_GPR_X", &d), 2);
    assert_int_equal(byte_hole("PV_GPR_R", &d), 4);
    assert_int_equal(byte_hole("PV_OP1_LOW", &d), 5);
    assert_int_equal(byte_hole("PV_CR", &d), 8);
    decode_hex("0f 21 fe", &d); /* mov %dr7, %rsi */
    assert_int_equal(byte_hole("PV_GPR_LOW", &d), 6);
    assert_int_equal(byte_hole("PV_GPR_R", &d), 0);
    assert_int_equal(byte_hole("PV_OP0_REG", &d), 6 << 3);
    assert_int_equal(byte_hole("PV_DR", &d), 7);
    decode_hex("0f 02 ca", &d); /* lar %edx, %ecx */
    assert_int_equal(byte_hole("PV_OP0_LOW", &d), 1);
    assert_int_equal(byte_hole("PV_OP1_LOW", &d), 2);
    decode_hex("41 8e dc", &d); /* mov %r12d, %ds */
    assert_int_equal(byte_hole("PV_SREG", &d), 3);
    assert_int_equal(byte_hole("PV_GPR_LOW", &d), 4);
    decode_hex("41 0f 01 3f", &d); /* invlpg (%r15) */
    assert_int_equal(byte_hole("PV_BASE_LOW", &d), 7);
    assert_int_equal(byte_hole("PV_BASE_B", &d), 1);
}

static void test_D8_value_holes_hold_immediates_widths_and_the_index(void **state)
{
    (void)state;
    struct decoded d;
    uint8_t out[16];
    uint32_t word;
    decode_hex("66 e5 f8", &d); /* in $0xf8, %ax */
    assert_int_equal(byte_hole("PV_PORT", &d), 0xf8);
    assert_int_equal(byte_hole("PV_WIDTH", &d), 2);
    assert_int_equal(byte_hole("PV_LENGTH", &d), 3);
    assert_int_equal(byte_hole("PV_SEGMENT", &d), 0x3e);
    assert_int_equal(fill_one("PV_INDEX32", R_X86_64_32, 0, &d, ROUTINE, out), 0);
    memcpy(&word, out, 4);
    assert_int_equal(word, INDEX);
    assert_int_equal(fill_one("PV_OPERAND", R_X86_64_32, 0, &d, ROUTINE, out), 0);
    memcpy(&word, out, 4);
    assert_int_equal(word, 0x020000f8);
    assert_true(decode_hex("65 0f 01 3f", &d));
    assert_int_equal(byte_hole("PV_SEGMENT", &d), 0x65);
}

static void test_D8_address_holes_are_relative_to_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *symbol;
        uint64_t address;
    } holes[] = {{"PV_NATIVE", NATIVE},
                 {"PV_TAIL", TAIL},
                 {"PV_NEXT", SITE + 3},
                 {"PV_CPUID_TABLE", CPUID},
                 {"PV_MSR_TABLE", MSRS},
                 {"PV_STATE", STATE},
                 {"PV_STATE_VIRTUAL_IF", STATE},
                 {"PV_STATE_CR3", STATE + offsetof(struct pv_state, cr[3])},
                 {"PV_STATE_CR", STATE + offsetof(struct pv_state, cr[4])},
                 {"PV_STATE_GDTR", STATE + offsetof(struct pv_state, gdtr)}};
    struct decoded d;
    assert_true(decode_hex("0f 22 e0", &d));
    for (size_t i = 0; i < sizeof holes / sizeof *holes; i++) {
        int32_t distance;
        uint8_t out[16];
        assert_int_equal(fill_one(holes[i].symbol, R_X86_64_PC32, -4, &d, ROUTINE, out), 0);
        memcpy(&distance, out, 4);
        assert_true(ROUTINE + 4 + (uint64_t)(int64_t)distance == holes[i].address);
    }
}

static void test_D8_the_selector_hole_is_that_of_the_segment_register(void **state)
{
    (void)state;
    struct decoded d;
    int32_t distance;
    uint8_t out[16];
    assert_true(decode_hex("8c e8", &d)); /* mov %gs, %eax */
    assert_int_equal(fill_one("PV_STATE_SELECTOR", R_X86_64_PC32, -4, &d, ROUTINE, out), 0);
    memcpy(&distance, out, 4);
    assert_true(ROUTINE + 4 + (uint64_t)(int64_t)distance ==
                STATE + offsetof(struct pv_state, selector[5]));
    assert_true(decode_hex("0f 22 e0", &d));
    assert_int_equal(fill_one("PV_STATE_SELECTOR", R_X86_64_PC32, -4, &d, ROUTINE, out), -1);
}

static void test_holes_without_a_value_or_too_small_for_it_are_errors(void **state)
{
    (void)state;
    struct decoded d;
    uint8_t out[16];
    assert_true(decode_hex("0f a2", &d));
    assert_int_equal(fill_one("PV_GPR_LOW", R_X86_64_8, 0, &d, ROUTINE, out), -1);
    assert_int_equal(fill_one("PV_CR", R_X86_64_8, 0, &d, ROUTINE, out), -1);
    assert_int_equal(fill_one("PV_IMM", R_X86_64_8, 0, &d, ROUTINE, out), -1);
    assert_int_equal(fill_one("PV_INDEX32", R_X86_64_8, 0, &d, ROUTINE, out), -1);
    assert_int_equal(fill_one("PV_LEA", R_X86_64_8, 0, &d, ROUTINE, out), -1);
    assert_int_equal(fill_one("PV_NATIVE", R_X86_64_PC32, -4, &d, 1, out), 0);
    assert_int_equal(fill_one("PV_NATIVE", R_X86_64_PC32, -4, &d, 1u << 31, out), -1); /* too far */
}

static void test_holes_of_the_wrong_relocation_type_or_place_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct hole hole = {.kind = hole_kind_named("PV_STATE"), .type = R_X86_64_64};
    assert_int_equal(hole_check(&hole, 16, "t", &err), -1); /* an absolute address */
    hole.type = R_X86_64_PC32;
    assert_int_equal(hole_check(&hole, 16, "t", &err), 0);
    hole.offset = 13;
    assert_int_equal(hole_check(&hole, 16, "t", &err), -1);
    hole = (struct hole){.kind = hole_kind_named("PV_LEA"), .type = R_X86_64_8, .offset = 8};
    assert_int_equal(hole_check(&hole, 16, "t", &err), -1);
    hole.offset = 7;
    assert_int_equal(hole_check(&hole, 16, "t", &err), 0);
    assert_null(hole_kind_named("PV_NO_SUCH_HOLE"));
}

static void check_lea(const char *hex, unsigned reg, unsigned pushed)
{
    struct decoded d, lea, rest;
    uint8_t out[16];
    memset(out, 0xcc, sizeof out);
    assert_true(decode_hex(hex, &d));
    assert_int_equal(fill_one("PV_LEA", R_X86_64_8, reg << 8 | pushed, &d, ROUTINE, out), 0);
    assert_true(decode_bytes(out, 9, &lea));
    assert_int_equal(lea.instruction.mnemonic, ZYDIS_MNEMONIC_LEA);
    assert_int_equal(lea.operands[0].reg.value, ZYDIS_REGISTER_RAX + reg);
    const ZydisDecodedOperand *from = memory_operand(&d.instruction, d.operands);
    const ZydisDecodedOperand *to = &lea.operands[1];
    assert_int_equal(to->mem.base, from->mem.base);
    assert_int_equal(to->mem.index, from->mem.index);
    if (from->mem.index != ZYDIS_REGISTER_NONE)
        assert_int_equal(to->mem.scale, from->mem.scale);
    int64_t more = from->mem.base == ZYDIS_REGISTER_RSP ? pushed : 0;
    if (from->mem.base == ZYDIS_REGISTER_RIP) {
        uint64_t wanted, got;
        ZydisCalcAbsoluteAddress(&d.instruction, from, SITE, &wanted);
        ZydisCalcAbsoluteAddress(&lea.instruction, to, ROUTINE, &got);
        assert_true(wanted == got);
    } else {
        assert_true(to->mem.disp.value == from->mem.disp.value + more);
    }
    assert_int_equal(lea.instruction.address_width, d.instruction.address_width);
    if (lea.instruction.length < 9) { /* one no-op fills the rest */
        assert_true(decode_bytes(out + lea.instruction.length, 9u - lea.instruction.length, &rest));
        assert_int_equal(rest.instruction.mnemonic, ZYDIS_MNEMONIC_NOP);
        assert_int_equal(lea.instruction.length + rest.instruction.length, 9);
    }
    assert_int_equal(out[9], 0xcc);
}

static void test_D8_memory_operands_are_recomputed_by_lea(void **state)
{
    (void)state;
    static const char *const operands[] = {
        "0f 01 38",       /* (%rax) */
        "0f 01 7d 00",    /* (%rbp) */
        "41 0f 01 7d 00", /* (%r13) */
        "0f 01 3c 24",    /* (%rsp) */
        "41 0f 01 3c 24", /* (%r12) */
        "0f 01 7c 24 7f", /* 127(%rsp): with pushes no longer a byte */
        "0f 01 bc 24 00 ff ff ff",
        "0f 01 3c 88",                /* (%rax,%rcx,4) */
        "42 0f 01 3c e5 78 56 34 12", /* disp(,%r12,8) */
        "43 0f 01 7c fd 80",          /* -128(%r13,%r15,8) */
        "0f 01 3c 25 00 10 00 00",    /* absolute */
        "0f 01 3d 44 33 22 11",       /* (%rip) */
        "67 0f 01 38",                /* (%eax) */
        "67 43 0f 01 7c fd 80"};
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
        for (unsigned reg = 0; reg < 16; reg++) {
            check_lea(operands[i], reg, 0);
            check_lea(operands[i], reg, 16);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_D8_register_holes_are_parts_of_the_register_number),
        cmocka_unit_test(test_D8_value_holes_hold_immediates_widths_and_the_index),
        cmocka_unit_test(test_D8_address_holes_are_relative_to_their_place),
        cmocka_unit_test(test_D8_the_selector_hole_is_that_of_the_segment_register),
        cmocka_unit_test(test_holes_without_a_value_or_too_small_for_it_are_errors),
        cmocka_unit_test(test_holes_of_the_wrong_relocation_type_or_place_are_refused),
        cmocka_unit_test(test_D8_memory_operands_are_recomputed_by_lea),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
