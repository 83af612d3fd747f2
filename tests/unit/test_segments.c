/* SPDX-License-Identifier: MIT */
/* Segment registers, their bases, and descriptors (SDM 3A 3.4, 5). */
#include "tests/unit/one_insn.h"

#include "runtime/soft/segments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define FREE 0x60 /* a selector whose descriptor the tests make */

static int setup(void **state)
{
    *state = one_insn_vcpu();
    return 0;
}

static int teardown(void **state)
{
    one_insn_free(*state);
    return 0;
}

/* A 4 GiB descriptor with these access rights (bits 40-47). */
static void descriptor(struct vcpu *cpu, uint16_t selector, unsigned access)
{
    one_insn_put(cpu, ONE_INSN_GDT + (selector & ~7u), 8,
                 0x00cf00000000ffff | (uint64_t)access << 40);
}

/* mov ds, ax */
static struct one_insn_result load_ds(struct vcpu *cpu, uint16_t selector)
{
    cpu->r[RAX] = selector;
    return ONE_INSN(cpu, 0x8e, 0xd8);
}

/* mov ss, ax */
static struct one_insn_result load_ss(struct vcpu *cpu, uint16_t selector)
{
    cpu->r[RAX] = selector;
    return ONE_INSN(cpu, 0x8e, 0xd0);
}

static void check(struct one_insn_result r, int vector, uint32_t error)
{
    assert_true(r.fault);
    assert_int_equal(r.vector, vector);
    assert_int_equal(r.error, error);
}

static void descriptors_are_unpacked(void **state)
{
    struct segment s = {.selector = 5};
    (void)state;
    descriptor_unpack(0x12cf9b345678ffff, &s);
    assert_int_equal(s.base, 0x12345678);
    assert_int_equal(s.limit, 0xffffffff);
    assert_int_equal(s.rights, 0xc09b);
    descriptor_unpack(0x0041920000001234, &s);
    assert_int_equal(s.limit, 0x11234);
    assert_int_equal(s.rights, 0x4092);
}

static void a_data_segment_is_loaded_and_marked_accessed(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    descriptor(cpu, FREE, 0x92);
    one_insn_put(cpu, ONE_INSN_GDT + FREE + 2, 2, 0x1000);
    assert_false(load_ds(cpu, FREE).fault);
    assert_int_equal(cpu->segment[SEG_DS].selector, FREE);
    assert_int_equal(cpu->base[SEG_DS], 0x1000);
    assert_int_equal(cpu->segment[SEG_DS].rights & 0xff, 0x93);
    assert_int_equal(one_insn_get(cpu, ONE_INSN_GDT + FREE + 5, 1), 0x93);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 2);
}

static void the_selector_can_come_from_memory(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_put(cpu, ONE_INSN_DATA, 2, ONE_INSN_DS16);
    cpu->r[RBX] = ONE_INSN_DATA;
    assert_false(ONE_INSN(cpu, 0x8e, 0x03).fault); /* mov es, [rbx] */
    assert_int_equal(cpu->segment[SEG_ES].selector, ONE_INSN_DS16);
}

static void bases_of_data_segments_do_not_count_in_64_bit_mode(void **state)
{
    struct vcpu *cpu = *state;
    descriptor(cpu, FREE, 0x93);
    one_insn_put(cpu, ONE_INSN_GDT + FREE + 2, 2, 0x1000);
    assert_false(load_ds(cpu, FREE).fault);
    assert_int_equal(cpu->base[SEG_DS], 0);
    cpu->r[RAX] = FREE;
    assert_false(ONE_INSN(cpu, 0x8e, 0xe0).fault); /* mov fs, ax */
    assert_int_equal(cpu->base[SEG_FS], 0x1000);
}

static void a_null_selector_makes_a_data_segment_unusable(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    assert_false(load_ds(cpu, 3).fault);
    assert_int_equal(cpu->segment[SEG_DS].selector, 3);
    assert_true(cpu->segment[SEG_DS].rights & RIGHTS_UNUSABLE);
}

static void selectors_beyond_a_table_are_gp(void **state)
{
    struct vcpu *cpu = *state;
    check(load_ds(cpu, 0x1000), EXC_GP, 0x1000);
    check(load_ds(cpu, 0x000f), EXC_GP, 0x000c); /* no LDT */
    cpu->gdt_limit = FREE + 6;
    check(load_ds(cpu, FREE), EXC_GP, FREE);
    assert_int_equal(cpu->segment[SEG_DS].selector, ONE_INSN_DS);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
}

static void the_ldt_has_descriptors_too(void **state)
{
    struct vcpu *cpu = *state;
    cpu->segment[SEG_LDTR] =
        (struct segment){.rights = 0x82, .base = ONE_INSN_DATA, .limit = 15, .selector = 0x50};
    one_insn_put(cpu, ONE_INSN_DATA + 8, 8, 0x00cf93000000ffff);
    assert_false(load_ds(cpu, 0x000c).fault);
    assert_int_equal(cpu->segment[SEG_DS].rights, 0xc093);
}

static void types_that_hold_no_data_are_gp(void **state)
{
    struct vcpu *cpu = *state;
    descriptor(cpu, FREE, 0x99); /* execute-only code */
    check(load_ds(cpu, FREE), EXC_GP, FREE);
    descriptor(cpu, FREE, 0x82); /* a system segment */
    check(load_ds(cpu, FREE), EXC_GP, FREE);
}

static void privilege_is_the_weaker_of_cpl_and_rpl(void **state)
{
    struct vcpu *cpu = *state;
    check(load_ds(cpu, ONE_INSN_DS | 3), EXC_GP, ONE_INSN_DS);
    one_insn_mode(cpu, ONE_INSN_64, true);
    check(load_ds(cpu, ONE_INSN_DS), EXC_GP, ONE_INSN_DS);
    descriptor(cpu, FREE, 0x9f); /* conforming, readable code */
    assert_false(load_ds(cpu, FREE | 3).fault);
}

static void an_absent_data_segment_is_np_an_absent_stack_is_ss(void **state)
{
    struct vcpu *cpu = *state;
    descriptor(cpu, FREE, 0x13);
    check(load_ds(cpu, FREE), EXC_NP, FREE);
    check(load_ss(cpu, FREE), EXC_SS, FREE);
}

static void a_stack_segment_is_writable_and_of_the_same_level(void **state)
{
    struct vcpu *cpu = *state;
    descriptor(cpu, FREE, 0x91);
    check(load_ss(cpu, FREE), EXC_GP, FREE);
    check(load_ss(cpu, ONE_INSN_USER_DS), EXC_GP, ONE_INSN_USER_DS & ~3);
    check(load_ss(cpu, ONE_INSN_DS | 1), EXC_GP, ONE_INSN_DS);
    one_insn_mode(cpu, ONE_INSN_32, false);
    check(load_ss(cpu, 0), EXC_GP, 0);
}

static void sixty_four_bit_mode_has_null_stacks_but_at_cpl_3(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(load_ss(cpu, 0).fault);
    assert_true(cpu->segment[SEG_SS].rights & RIGHTS_UNUSABLE);
    check(load_ss(cpu, 1), EXC_GP, 0);
    one_insn_mode(cpu, ONE_INSN_64, true);
    check(load_ss(cpu, 3), EXC_GP, 0);
}

static void mov_ss_shadows_the_next_instruction(void **state)
{
    struct vcpu *cpu = *state;
    assert_false(load_ds(cpu, ONE_INSN_DS).fault);
    assert_int_equal(cpu->shadow, 0);
    assert_false(load_ss(cpu, ONE_INSN_DS).fault);
    assert_int_equal(cpu->shadow, SHADOW_MOVSS);
}

static void cs_cannot_be_loaded_by_mov(void **state)
{
    struct vcpu *cpu = *state;
    assert_int_equal(ONE_INSN(cpu, 0x8e, 0xc8).vector, EXC_UD);
}

static void a_gdt_that_is_not_mapped_is_a_page_fault_of_a_supervisor(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    *one_insn_pte(cpu, ONE_INSN_GDT) &= ~1ull;
    one_insn_flush(cpu);
    struct one_insn_result r = load_ds(cpu, ONE_INSN_USER_DS);
    check(r, EXC_PF, 0);
    assert_int_equal(r.cr2, ONE_INSN_GDT + (ONE_INSN_USER_DS & ~7));
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
}

static void selectors_are_stored_as_wide_as_the_register(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = ~0ull;
    assert_false(ONE_INSN(cpu, 0x66, 0x8c, 0xd8).fault); /* mov ax, ds */
    assert_int_equal(cpu->r[RAX], 0xffffffffffff0010);
    assert_false(ONE_INSN(cpu, 0x8c, 0xd8).fault); /* mov eax, ds */
    assert_int_equal(cpu->r[RAX], ONE_INSN_DS);
    one_insn_put(cpu, ONE_INSN_DATA, 8, ~0ull);
    cpu->r[RBX] = ONE_INSN_DATA;
    assert_false(ONE_INSN(cpu, 0x48, 0x8c, 0x1b).fault); /* mov [rbx], ds: always 2 bytes */
    assert_int_equal(one_insn_get(cpu, ONE_INSN_DATA, 8), 0xffffffffffff0010);
}

static void real_mode_loads_shift_and_keep_the_limit(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->segment[SEG_DS].limit = 0xffffffff;
    assert_false(load_ds(cpu, 0x1234).fault);
    assert_int_equal(cpu->base[SEG_DS], 0x12340);
    assert_int_equal(cpu->segment[SEG_DS].limit, 0xffffffff);
}

static void far_pointers_load_both_or_nothing(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    one_insn_put(cpu, ONE_INSN_DATA, 8, ONE_INSN_DS16 * 0x100000000ull | 0x12345678);
    cpu->r[RBX] = ONE_INSN_DATA;
    assert_false(ONE_INSN(cpu, 0xc4, 0x03).fault); /* les eax, [ebx] */
    assert_int_equal(cpu->r[RAX], 0x12345678);
    assert_int_equal(cpu->segment[SEG_ES].selector, ONE_INSN_DS16);
    one_insn_put(cpu, ONE_INSN_DATA + 4, 2, 0xfff8);
    check(ONE_INSN(cpu, 0x0f, 0xb4, 0x0b), EXC_GP, 0xfff8); /* lfs ecx, [ebx] */
    assert_int_equal(cpu->r[RCX], 0);
    one_insn_put(cpu, ONE_INSN_DATA + 2, 2, ONE_INSN_DS);
    assert_false(ONE_INSN(cpu, 0x66, 0x0f, 0xb2, 0x23).fault); /* lss sp, [ebx] */
    assert_int_equal(cpu->r[RSP], (ONE_INSN_STACK & 0xffff0000) | 0x5678);
    assert_int_equal(cpu->shadow, 0);
}

/* ---- bases ---- */
static void swapgs_exchanges_the_bases_at_cpl_0(void **state)
{
    struct vcpu *cpu = *state;
    cpu->segment[SEG_GS].base = cpu->base[SEG_GS] = 0x1000;
    cpu->kernel_gs_base = 0xffff800000000000;
    assert_false(ONE_INSN(cpu, 0x0f, 0x01, 0xf8).fault);
    assert_int_equal(cpu->base[SEG_GS], 0xffff800000000000);
    assert_int_equal(cpu->segment[SEG_GS].base, 0xffff800000000000);
    assert_int_equal(cpu->kernel_gs_base, 0x1000);
    one_insn_mode(cpu, ONE_INSN_64, true);
    check(ONE_INSN(cpu, 0x0f, 0x01, 0xf8), EXC_GP, 0);
    one_insn_mode(cpu, ONE_INSN_COMPAT32, false);
    assert_int_equal(ONE_INSN(cpu, 0x0f, 0x01, 0xf8).vector, EXC_UD);
}

static void fsgsbase_instructions_need_their_cr4_bit(void **state)
{
    struct vcpu *cpu = *state;
    assert_int_equal(ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xae, 0xd3).vector, EXC_UD);
    cpu->cr4 |= CR4_FSGSBASE;
    cpu->r[RBX] = 0xffff888812345678;
    assert_false(ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xae, 0xd3).fault); /* wrfsbase rbx */
    assert_int_equal(cpu->base[SEG_FS], 0xffff888812345678);
    assert_false(ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xae, 0xc1).fault); /* rdfsbase rcx */
    assert_int_equal(cpu->r[RCX], 0xffff888812345678);
    assert_false(ONE_INSN(cpu, 0xf3, 0x0f, 0xae, 0xc1).fault); /* rdfsbase ecx */
    assert_int_equal(cpu->r[RCX], 0x12345678);
    assert_false(ONE_INSN(cpu, 0xf3, 0x0f, 0xae, 0xdb).fault); /* wrgsbase ebx */
    assert_int_equal(cpu->base[SEG_GS], 0x12345678);
    cpu->r[RBX] = 0x0000800000000000;
    check(ONE_INSN(cpu, 0xf3, 0x48, 0x0f, 0xae, 0xd3), EXC_GP, 0);
}

static void expand_down_segments_begin_above_their_limit(void **state)
{
    (void)state;
    struct segment down = {.rights = 0x97, .limit = 0xfff};
    assert_false(segment_covers(&down, 0xfff, 1));
    assert_true(segment_covers(&down, 0x1000, 4));
    assert_true(segment_covers(&down, 0xfffe, 2));
    assert_false(segment_covers(&down, 0xffff, 2));
    struct segment up = {.rights = 0x93, .limit = 0xfff};
    assert_true(segment_covers(&up, 0xffc, 4));
    assert_false(segment_covers(&up, 0xffd, 4));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(descriptors_are_unpacked),
        TEST(a_data_segment_is_loaded_and_marked_accessed),
        TEST(the_selector_can_come_from_memory),
        TEST(bases_of_data_segments_do_not_count_in_64_bit_mode),
        TEST(a_null_selector_makes_a_data_segment_unusable),
        TEST(selectors_beyond_a_table_are_gp),
        TEST(the_ldt_has_descriptors_too),
        TEST(types_that_hold_no_data_are_gp),
        TEST(privilege_is_the_weaker_of_cpl_and_rpl),
        TEST(an_absent_data_segment_is_np_an_absent_stack_is_ss),
        TEST(a_stack_segment_is_writable_and_of_the_same_level),
        TEST(sixty_four_bit_mode_has_null_stacks_but_at_cpl_3),
        TEST(mov_ss_shadows_the_next_instruction),
        TEST(cs_cannot_be_loaded_by_mov),
        TEST(a_gdt_that_is_not_mapped_is_a_page_fault_of_a_supervisor),
        TEST(selectors_are_stored_as_wide_as_the_register),
        TEST(real_mode_loads_shift_and_keep_the_limit),
        TEST(far_pointers_load_both_or_nothing),
        TEST(swapgs_exchanges_the_bases_at_cpl_0),
        TEST(fsgsbase_instructions_need_their_cr4_bit),
        TEST(expand_down_segments_begin_above_their_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
