/* SPDX-License-Identifier: MIT */
/* Control and debug registers: checks and effects. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/cpuid.h"
#include "tests/unit/system_machine.h"

/* ---- control registers ---- */
static void control_registers_read_what_they_hold(void **state)
{
    struct vcpu *cpu = *state;
    cpu->cr2 = 0x123456789abcdef0;
    RUNS(0x0f, 0x20, 0xc3); /* mov %cr0, %rbx */
    assert_int_equal(cpu->r[RBX], cpu->cr0);
    RUNS(0x41, 0x0f, 0x20, 0xd7); /* mov %cr2, %r15 */
    assert_int_equal(cpu->r[R15], 0x123456789abcdef0);
    RUNS(0x0f, 0x20, 0xd8);
    assert_int_equal(cpu->r[RAX], ONE_INSN_PAGES);
    RUNS(0x0f, 0x20, 0xe0);
    assert_int_equal(cpu->r[RAX], cpu->cr4);
    WRITES(8, 5);
    cpu->r[RAX] = 0;
    RUNS(0x44, 0x0f, 0x20, 0xc0);
    assert_int_equal(cpu->r[RAX], 5);
    REFUSES(8, 16);
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RAX] = ~0ull;
    RUNS(0x0f, 0x20, 0xd0);
    assert_int_equal(cpu->r[RAX], 0x9abcdef0);
}

static void control_registers_that_do_not_exist_are_undefined(void **state)
{
    struct vcpu *cpu = *state;
    FAULTS(EXC_UD, 0x0f, 0x20, 0xc8);       /* CR1 */
    FAULTS(EXC_UD, 0x0f, 0x22, 0xe8);       /* CR5 */
    FAULTS(EXC_UD, 0x44, 0x0f, 0x22, 0xc8); /* CR9 */
}

static void control_registers_belong_to_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0x0f, 0x20, 0xc0);
    FAULTS(EXC_GP, 0x0f, 0x22, 0xd8);
    FAULTS(EXC_GP, 0x0f, 0x06);       /* CLTS */
    FAULTS(EXC_GP, 0x0f, 0x01, 0xf0); /* LMSW */
}

static void cr0_refuses_what_makes_no_sense(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t cr0 = cpu->cr0;
    REFUSES(0, cr0 | 1ull << 32);
    REFUSES(0, cr0 & ~(uint64_t)CR0_PE);
    REFUSES(0, cr0 | CR0_NW);
    REFUSES(0, cr0 & ~(uint64_t)CR0_PG); /* in 64-bit mode */
    assert_int_equal(cpu->cr0, cr0);
    WRITES(0, cr0 | CR0_NW | CR0_CD);
    WRITES(0, (cr0 | 0x100) & ~(uint64_t)CR0_ET); /* ignored */
    assert_int_equal(cpu->cr0, cr0);
}

static void paging_turns_long_mode_on_and_off(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->efer |= EFER_LME;
    cpu->cr4 &= ~(uint64_t)CR4_PAE;
    REFUSES(0, cpu->cr0 | CR0_PG); /* without PAE */
    cpu->cr4 |= CR4_PAE;
    cpu->segment[SEG_CS].rights |= RIGHTS_L;
    REFUSES(0, cpu->cr0 | CR0_PG); /* CS.L would make it 64-bit mode at once */
    cpu->segment[SEG_CS].rights &= ~RIGHTS_L;
    assert_false(cpu->efer & EFER_LMA);
    WRITES(0, cpu->cr0 | CR0_PG);
    assert_true(vcpu_long_mode(cpu));
    assert_false(vcpu_code64(cpu));
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    REFUSES(0, cpu->cr0 & ~(uint64_t)CR0_PG);
    WRITES(4, cpu->cr4 & ~(uint64_t)CR4_PCIDE);
    REFUSES(4, cpu->cr4 & ~(uint64_t)CR4_PAE);
    WRITES(0, cpu->cr0 & ~(uint64_t)CR0_PG);
    assert_false(vcpu_long_mode(cpu));
}

static void pae_paging_checks_its_four_entries(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    for (unsigned n = 0; n < 4; n++)
        put(cpu, ONE_INSN_DATA + 8 * n, (ONE_INSN_PAGES + 0x2000) | 1, 8);
    WRITES(3, ONE_INSN_DATA);
    put(cpu, ONE_INSN_DATA + 24, 0x1 | 0x2, 8); /* reserved */
    REFUSES(0, cpu->cr0 | CR0_PG);
    put(cpu, ONE_INSN_DATA + 24, 0x2, 8); /* not present: not looked at */
    WRITES(0, cpu->cr0 | CR0_PG);
    put(cpu, ONE_INSN_DATA + 24, 1ull << 50 | 1, 8);
    REFUSES(3, ONE_INSN_DATA);
    REFUSES(4, cpu->cr4 ^ CR4_PGE);
    put(cpu, ONE_INSN_DATA + 24, 0, 8);
    WRITES(3, ONE_INSN_DATA);
    WRITES(4, cpu->cr4 ^ CR4_PGE);
}

static void cr3_has_as_many_bits_as_addresses(void **state)
{
    struct vcpu *cpu = *state;
    REFUSES(3, ONE_INSN_PAGES | 1ull << 40);
    REFUSES(3, ONE_INSN_PAGES | 1ull << 63); /* without PCIDs */
    assert_int_equal(cpu->cr3, ONE_INSN_PAGES);
    WRITES(3, ONE_INSN_PAGES | 0x18);
    WRITES(3, ONE_INSN_PAGES);
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    WRITES(3, ONE_INSN_PAGES | 1ull << 63 | 0x123);
    assert_int_equal(cpu->cr3, ONE_INSN_PAGES | 0x123);
    REFUSES(3, ONE_INSN_PAGES | 1ull << 62);
}

static void pcids_are_turned_on_with_an_empty_one(void **state)
{
    struct vcpu *cpu = *state;
    WRITES(3, ONE_INSN_PAGES | 1);
    REFUSES(4, cpu->cr4 | CR4_PCIDE);
    WRITES(3, ONE_INSN_PAGES);
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    WRITES(3, ONE_INSN_PAGES | 1);
    WRITES(4, cpu->cr4 | CR4_PGE); /* it is on already */
    one_insn_mode(cpu, ONE_INSN_32, false);
    REFUSES(4, cpu->cr4 | CR4_PCIDE);
}

static void cr4_refuses_what_is_not_offered(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t cr4 = cpu->cr4;
    for (unsigned bit = 0; bit < 64; bit++)
        if (!(cpuid_cr4_mask() >> bit & 1))
            REFUSES(4, cr4 | 1ull << bit);
    assert_int_equal(cpu->cr4, cr4);
    WRITES(4, cpuid_cr4_mask());
    assert_int_equal(cpu->cr4, cpuid_cr4_mask());
}

/* A page that was writable and is not any more: only a flushed TLB notices. */
static void changes_of_paging_are_seen_at_once(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x50);
    *one_insn_pte(cpu, ONE_INSN_STACK - 8) &= ~2ull;
    WRITES(3, ONE_INSN_PAGES);
    cpu->r[RSP] = ONE_INSN_STACK;
    assert_true(RUN(0x50).fault);
    WRITES(0, cpu->cr0 & ~(uint64_t)CR0_WP);
    RUNS(0x50);
    WRITES(0, cpu->cr0 | CR0_WP);
    cpu->r[RSP] = ONE_INSN_STACK;
    assert_true(RUN(0x50).fault);
}

static void the_machine_status_word_is_part_of_cr0(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t cr0 = cpu->cr0;
    cpu->r[RBX] = ~0ull;
    RUNS(0x0f, 0x01, 0xe3); /* smsw %ebx */
    assert_int_equal(cpu->r[RBX], (uint32_t)cr0);
    cpu->r[RBX] = ~0ull;
    RUNS(0x66, 0x0f, 0x01, 0xe3);
    assert_int_equal(cpu->r[RBX], 0xffffffffffff0000 | (uint16_t)cr0);
    RUNS(0x48, 0x0f, 0x01, 0xe3);
    assert_int_equal(cpu->r[RBX], cr0);
    put(cpu, ONE_INSN_DATA, ~0ull, 8);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0x01, 0x23); /* smsw (%rbx) */
    assert_int_equal(at(cpu, ONE_INSN_DATA, 8), 0xffffffffffff0000 | (uint16_t)cr0);
    cpu->r[RBX] = CR0_TS | CR0_EM | 0xfff0; /* PE stays */
    RUNS(0x0f, 0x01, 0xf3);
    assert_int_equal(cpu->cr0, (cr0 | CR0_TS | CR0_EM) & ~(uint64_t)CR0_MP);
    RUNS(0x0f, 0x06); /* clts */
    assert_int_equal(cpu->cr0, (cr0 | CR0_EM) & ~(uint64_t)CR0_MP);
    put(cpu, ONE_INSN_DATA, CR0_MP, 2);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0x01, 0x33);
    assert_int_equal(cpu->cr0, cr0 | CR0_MP);
}

static void lmsw_enters_protected_mode(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->r[RAX] = CR0_PE;
    RUNS(0x0f, 0x01, 0xf0);
    assert_true(vcpu_protected(cpu));
}

static void umip_hides_the_machine_status_word_from_users(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    RUNS(0x0f, 0x01, 0xe0);
    cpu->cr4 |= CR4_UMIP;
    FAULTS(EXC_GP, 0x0f, 0x01, 0xe0);
    one_insn_mode(cpu, ONE_INSN_64, false);
    cpu->cr4 |= CR4_UMIP;
    RUNS(0x0f, 0x01, 0xe0);
}

/* ---- debug registers ---- */
static void debug_registers_keep_what_is_defined(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0x123456789abc;
    RUNS(0x0f, 0x23, 0xd8); /* mov %rax, %dr3 */
    assert_int_equal(cpu->dr[3], 0x123456789abc);
    cpu->r[RAX] = 0xffffffff;
    RUNS(0x0f, 0x23, 0xf0);
    assert_int_equal(cpu->dr[6], 0xffffefff);
    cpu->r[RAX] = 0;
    RUNS(0x0f, 0x23, 0xf0);
    assert_int_equal(cpu->dr[6], 0xffff0ff0);
    RUNS(0x0f, 0x23, 0xf8);
    assert_int_equal(cpu->dr[7], 0x400);
    RUNS(0x0f, 0x21, 0xfb);
    assert_int_equal(cpu->r[RBX], 0x400);
    cpu->r[RAX] = 1ull << 32;
    FAULTS(EXC_GP, 0x0f, 0x23, 0xf0);
    FAULTS(EXC_GP, 0x0f, 0x23, 0xf8);
    RUNS(0x0f, 0x23, 0xc0);
    FAULTS(EXC_UD, 0x44, 0x0f, 0x23, 0xc0); /* DR8 */
}

static void dr4_and_dr5_are_aliases_unless_DE(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0xffff0ff1;
    RUNS(0x0f, 0x23, 0xe0);
    assert_int_equal(cpu->dr[6], 0xffff0ff1);
    RUNS(0x0f, 0x21, 0xe9); /* mov %dr5, %rcx */
    assert_int_equal(cpu->r[RCX], 0x400);
    cpu->cr4 |= CR4_DE;
    FAULTS(EXC_UD, 0x0f, 0x23, 0xe0);
    FAULTS(EXC_UD, 0x0f, 0x21, 0xe8);
}

static void general_detection_comes_before_the_access(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = DR7_GD;
    RUNS(0x0f, 0x23, 0xf8);
    cpu->r[RAX] = 7;
    FAULTS(EXC_DB, 0x0f, 0x23, 0xc0);
    assert_int_equal(cpu->fault.dr6, DR6_BD);
    assert_int_equal(cpu->dr[0], 0);
    FAULTS(EXC_DB, 0x0f, 0x21, 0xf0);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0x0f, 0x21, 0xf0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
    const struct CMUnitTest tests[] = {
        TEST(control_registers_read_what_they_hold),
        TEST(control_registers_that_do_not_exist_are_undefined),
        TEST(control_registers_belong_to_the_kernel),
        TEST(cr0_refuses_what_makes_no_sense),
        TEST(paging_turns_long_mode_on_and_off),
        TEST(pae_paging_checks_its_four_entries),
        TEST(cr3_has_as_many_bits_as_addresses),
        TEST(pcids_are_turned_on_with_an_empty_one),
        TEST(cr4_refuses_what_is_not_offered),
        TEST(changes_of_paging_are_seen_at_once),
        TEST(the_machine_status_word_is_part_of_cr0),
        TEST(lmsw_enters_protected_mode),
        TEST(umip_hides_the_machine_status_word_from_users),
        TEST(debug_registers_keep_what_is_defined),
        TEST(dr4_and_dr5_are_aliases_unless_DE),
        TEST(general_detection_comes_before_the_access),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
