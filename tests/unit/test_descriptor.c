/* SPDX-License-Identifier: MIT */
/* LGDT to STR, LAR, LSL, VERR, VERW. */
#include "tests/unit/one_insn.h"

#include "runtime/soft/segments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define FREE 0x60

static int setup(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    *state = cpu;
    cpu->r[RBX] = ONE_INSN_DATA;
    return 0;
}

static int teardown(void **state)
{
    one_insn_free(*state);
    return 0;
}

static bool zero(const struct vcpu *cpu)
{
    return vcpu_rflags(cpu) & RFLAGS_ZF;
}

static void check(struct one_insn_result r, int vector, uint32_t error)
{
    assert_true(r.fault);
    assert_int_equal(r.vector, vector);
    assert_int_equal(r.error, error);
}

static void descriptor(struct vcpu *cpu, uint64_t value)
{
    one_insn_put(cpu, ONE_INSN_GDT + FREE, 8, value);
}

/* ---- tables ---- */
static void lgdt_and_sgdt_have_ten_bytes_in_64_bit_mode(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_DATA, 2, 0x7f);
    one_insn_put(cpu, ONE_INSN_DATA + 2, 8, 0xffff888000001000);
    assert_false(ONE_INSN(cpu, 0x0f, 0x01, 0x13).fault);
    assert_int_equal(cpu->gdt_base, 0xffff888000001000);
    assert_int_equal(cpu->gdt_limit, 0x7f);
    cpu->r[RBX] += 0x100;
    assert_false(ONE_INSN(cpu, 0x0f, 0x01, 0x03).fault);
    assert_memory_equal(one_insn_at(cpu, ONE_INSN_DATA), one_insn_at(cpu, ONE_INSN_DATA + 0x100),
                        10);
    one_insn_put(cpu, ONE_INSN_DATA + 0x102, 8, 0x0000800000000000);
    check(ONE_INSN(cpu, 0x0f, 0x01, 0x13), EXC_GP, 0);
    assert_int_equal(cpu->gdt_base, 0xffff888000001000);
}

static void lidt_has_24_or_32_bits_of_base_elsewhere(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    one_insn_put(cpu, ONE_INSN_DATA, 8, 0xffffffff567803ff);
    one_insn_put(cpu, ONE_INSN_DATA + 2, 4, 0x12345678);
    assert_false(ONE_INSN(cpu, 0x66, 0x0f, 0x01, 0x1b).fault);
    assert_int_equal(cpu->idt_base, 0x345678);
    assert_false(ONE_INSN(cpu, 0x0f, 0x01, 0x1b).fault);
    assert_int_equal(cpu->idt_base, 0x12345678);
    assert_int_equal(cpu->idt_limit, 0x3ff);
    one_insn_put(cpu, ONE_INSN_DATA + 0x100, 8, ~0ull);
    cpu->r[RBX] += 0x100;
    assert_false(ONE_INSN(cpu, 0x0f, 0x01, 0x0b).fault); /* sidt: 6 bytes */
    assert_int_equal(one_insn_get(cpu, ONE_INSN_DATA + 0x100, 8), 0xffff1234567803ff);
}

static void user_mode_may_store_unless_umip(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    check(ONE_INSN(cpu, 0x0f, 0x01, 0x13), EXC_GP, 0); /* lgdt */
    assert_false(ONE_INSN(cpu, 0x0f, 0x01, 0x03).fault);
    assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xc8).fault); /* str eax */
    assert_int_equal(cpu->r[RAX], ONE_INSN_TR);
    cpu->cr4 |= CR4_UMIP;
    cpu->rip = ONE_INSN_CODE;
    check(ONE_INSN(cpu, 0x0f, 0x01, 0x03), EXC_GP, 0); /* sgdt */
    check(ONE_INSN(cpu, 0x0f, 0x01, 0x0b), EXC_GP, 0); /* sidt */
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xc8), EXC_GP, 0); /* str */
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xc0), EXC_GP, 0); /* sldt */
}

/* ---- LDTR and TR ---- */
static void ltr_takes_an_available_tss_and_makes_it_busy(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = FREE;
    descriptor(cpu, 0x1200893456780067);
    one_insn_put(cpu, ONE_INSN_GDT + FREE + 8, 8, 0xffff8880);
    assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xd8).fault);
    assert_int_equal(cpu->segment[SEG_TR].selector, FREE);
    assert_int_equal(cpu->segment[SEG_TR].base, 0xffff888012345678);
    assert_int_equal(cpu->segment[SEG_TR].limit, 0x67);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_GDT + FREE + 5, 1), 0x8b);
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_GP, FREE); /* now it is busy */
    descriptor(cpu, 0x1200093456780067);
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_NP, FREE);
    cpu->r[RAX] = 0;
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_GP, 0);
    cpu->r[RAX] = FREE | 4;
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_GP, FREE | 4);
}

static void ltr_in_long_mode_wants_a_sane_second_half(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = FREE;
    descriptor(cpu, 0x0000890000000067);
    one_insn_put(cpu, ONE_INSN_GDT + FREE + 8, 8, 0x0000010000000000);
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_GP, FREE);
    one_insn_put(cpu, ONE_INSN_GDT + FREE + 8, 8, 0x00008000); /* not canonical */
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_GP, FREE);
    one_insn_put(cpu, ONE_INSN_GDT + FREE + 8, 8, 0);
    cpu->gdt_limit = FREE + 14; /* the second half is beyond the table */
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd8), EXC_GP, FREE);
}

static void lldt_takes_an_ldt_or_nothing(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RAX] = FREE;
    descriptor(cpu, 0x0000820100000fff);
    assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xd0).fault);
    assert_int_equal(cpu->segment[SEG_LDTR].base, 0x10000);
    assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xc1).fault); /* sldt ecx */
    assert_int_equal(cpu->r[RCX], FREE);
    descriptor(cpu, 0x0000890100000fff);
    check(ONE_INSN(cpu, 0x0f, 0x00, 0xd0), EXC_GP, FREE);
    cpu->r[RAX] = 0;
    assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xd0).fault);
    assert_true(cpu->segment[SEG_LDTR].rights & RIGHTS_UNUSABLE);
}

static void real_and_virtual_8086_mode_have_none_of_it(void **state)
{
    struct vcpu *cpu = *state;
    for (int mode = ONE_INSN_REAL; mode <= ONE_INSN_V86; mode++) {
        one_insn_mode(cpu, (enum one_insn_mode)mode, false);
        assert_int_equal(ONE_INSN(cpu, 0x0f, 0x00, 0xd0).vector, EXC_UD); /* lldt */
        assert_int_equal(ONE_INSN(cpu, 0x0f, 0x00, 0xc8).vector, EXC_UD); /* str */
        assert_int_equal(ONE_INSN(cpu, 0x0f, 0x02, 0xc8).vector, EXC_UD); /* lar */
        assert_int_equal(ONE_INSN(cpu, 0x0f, 0x00, 0xe0).vector, EXC_UD); /* verr */
    }
}

/* ---- LAR, LSL, VERR, VERW ---- */
static void lar_gives_rights_and_lsl_the_limit(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = ONE_INSN_CS64;
    assert_false(ONE_INSN(cpu, 0x0f, 0x02, 0xc8).fault); /* lar ecx, eax */
    assert_true(zero(cpu));
    assert_int_equal(cpu->r[RCX], 0x00a09b00);
    assert_false(ONE_INSN(cpu, 0x0f, 0x03, 0xc8).fault); /* lsl ecx, eax */
    assert_true(zero(cpu));
    assert_int_equal(cpu->r[RCX], 0xffffffff);
    one_insn_put(cpu, ONE_INSN_DATA, 2, ONE_INSN_TR);
    assert_false(ONE_INSN(cpu, 0x66, 0x0f, 0x03, 0x0b).fault); /* lsl cx, [rbx] */
    assert_int_equal(cpu->r[RCX], 0xffff0fff);
}

static void what_is_not_visible_clears_zf_only(void **state)
{
    struct vcpu *cpu = *state;
    static const uint16_t selectors[] = {0, 0xfff8, 0x0c, FREE};
    one_insn_mode(cpu, ONE_INSN_64, true);
    descriptor(cpu, 0x00008e0000000000); /* an interrupt gate */
    for (unsigned n = 0; n < sizeof selectors / sizeof *selectors; n++) {
        cpu->r[RAX] = selectors[n];
        cpu->r[RCX] = 0x1234;
        vcpu_set_rflags(cpu, RFLAGS_ZF | RFLAGS_CF);
        assert_false(ONE_INSN(cpu, 0x0f, 0x02, 0xc8).fault);
        assert_int_equal(vcpu_rflags(cpu), RFLAGS_CF | RFLAGS_ONE);
        assert_int_equal(cpu->r[RCX], 0x1234);
    }
    cpu->r[RAX] = ONE_INSN_DS; /* more privileged */
    assert_false(ONE_INSN(cpu, 0x0f, 0x02, 0xc8).fault);
    assert_false(zero(cpu));
    cpu->r[RAX] = ONE_INSN_USER_DS;
    assert_false(ONE_INSN(cpu, 0x0f, 0x02, 0xc8).fault);
    assert_true(zero(cpu));
}

static void verr_and_verw_tell_what_can_be_done(void **state)
{
    struct vcpu *cpu = *state;
    static const struct {
        unsigned access;
        bool readable, writable;
    } rows[] = {{0x91, true, false}, {0x93, true, true}, {0x99, false, false}, {0x9b, true, false}};
    cpu->r[RAX] = FREE;
    for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++) {
        descriptor(cpu, (uint64_t)rows[n].access << 40);
        assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xe0).fault);
        assert_int_equal(zero(cpu), rows[n].readable);
        assert_false(ONE_INSN(cpu, 0x0f, 0x00, 0xe8).fault);
        assert_int_equal(zero(cpu), rows[n].writable);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lgdt_and_sgdt_have_ten_bytes_in_64_bit_mode),
        TEST(lidt_has_24_or_32_bits_of_base_elsewhere),
        TEST(user_mode_may_store_unless_umip),
        TEST(ltr_takes_an_available_tss_and_makes_it_busy),
        TEST(ltr_in_long_mode_wants_a_sane_second_half),
        TEST(lldt_takes_an_ldt_or_nothing),
        TEST(real_and_virtual_8086_mode_have_none_of_it),
        TEST(lar_gives_rights_and_lsl_the_limit),
        TEST(what_is_not_visible_clears_zf_only),
        TEST(verr_and_verw_tell_what_can_be_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
