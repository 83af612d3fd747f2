/* SPDX-License-Identifier: MIT */
/* Stack instructions and flag bits, one at a time. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define NONCANONICAL 0x0000900000000000ull
#define UNMAPPED     0x7fff0000ull

static int make_vcpu(void **state)
{
    *state = one_insn_vcpu();
    return 0;
}

static int free_vcpu(void **state)
{
    one_insn_free(*state);
    return 0;
}

static uint64_t at(struct vcpu *cpu, uint64_t address, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, one_insn_at(cpu, address), size);
    return value;
}

static void put(struct vcpu *cpu, uint64_t address, uint64_t value, unsigned size)
{
    memcpy(one_insn_at(cpu, address), &value, size);
}

#define RUNS(...) assert_false(ONE_INSN(cpu, __VA_ARGS__).fault)
#define FAULTS(vector_, error_, ...)                                                               \
    do {                                                                                           \
        struct one_insn_result r = ONE_INSN(cpu, __VA_ARGS__);                                     \
        assert_true(r.fault);                                                                      \
        assert_int_equal(r.vector, vector_);                                                       \
        assert_int_equal(r.error, error_);                                                         \
    } while (0)

/* ---- PUSH ---- */
static void push_stores_below_the_stack_pointer(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0x1122334455667788;
    cpu->r[R15] = 0xfedcba9876543210;
    RUNS(0x50);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 8);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), 0x1122334455667788);
    RUNS(0x41, 0x57);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 16, 8), 0xfedcba9876543210);
    RUNS(0x66, 0x50);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 18);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 18, 2), 0x7788);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 16, 8), 0xfedcba9876543210);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 5);
}

static void push_of_the_stack_pointer_stores_what_it_was(void **state)
{
    struct vcpu *cpu = *state;
    RUNS(0x54);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), ONE_INSN_STACK);
    RUNS(0xff, 0x74, 0x24, 0x00); /* push (%rsp) */
    assert_int_equal(at(cpu, ONE_INSN_STACK - 16, 8), ONE_INSN_STACK);
}

static void push_sign_extends_immediates(void **state)
{
    struct vcpu *cpu = *state;
    RUNS(0x6a, 0x80);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), (uint64_t)-128);
    RUNS(0x68, 0x78, 0x56, 0x34, 0x92);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 16, 8), 0xffffffff92345678);
    RUNS(0x66, 0x68, 0x34, 0x12);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 18, 2), 0x1234);
}

static void push_reads_memory(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_DATA + 8, 0x0102030405060708, 8);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0xff, 0x73, 0x08);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), 0x0102030405060708);
    RUNS(0x66, 0xff, 0x73, 0x08);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 10);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 10, 2), 0x0708);
}

static void push_zero_extends_segment_registers(void **state)
{
    struct vcpu *cpu = *state;
    cpu->segment[SEG_FS].selector = 0xabcd;
    put(cpu, ONE_INSN_STACK - 8, ~0ull, 8);
    RUNS(0x0f, 0xa0);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), 0xabcd);
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x1e); /* push %ds */
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 4);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 4, 4), ONE_INSN_DS);
}

static void a_push_that_faults_changes_nothing(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RSP] = UNMAPPED;
    FAULTS(EXC_PF, PF_WRITE, 0x50);
    assert_int_equal(cpu->r[RSP], UNMAPPED);
    assert_int_equal(cpu->fault.cr2, UNMAPPED - 8);
    cpu->r[RSP] = NONCANONICAL;
    FAULTS(EXC_SS, 0, 0x50);
    FAULTS(EXC_SS, 0, 0x6a, 1);
    FAULTS(EXC_SS, 0, 0x9c);
    assert_int_equal(cpu->r[RSP], NONCANONICAL);
    /* the operand is not on the stack: #GP */
    cpu->r[RBX] = NONCANONICAL;
    cpu->r[RSP] = ONE_INSN_STACK;
    FAULTS(EXC_GP, 0, 0xff, 0x33);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

static void a_push_across_pages_stores_all_or_nothing(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0x1122334455667788;
    cpu->r[RSP] = ONE_INSN_STACK + 4;
    RUNS(0x50);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 4, 8), 0x1122334455667788);
    *one_insn_pte(cpu, ONE_INSN_STACK - 1) &= ~1ull;
    one_insn_flush(cpu);
    put(cpu, ONE_INSN_STACK - 4, 0, 8);
    cpu->r[RSP] = ONE_INSN_STACK + 4;
    FAULTS(EXC_PF, PF_WRITE, 0x50);
    assert_int_equal(at(cpu, ONE_INSN_STACK, 4), 0);
}

/* ---- POP ---- */
static void pop_loads_and_moves_on(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_STACK, 0x1122334455667788, 8);
    RUNS(0x58);
    assert_int_equal(cpu->r[RAX], 0x1122334455667788);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 8);
    cpu->r[RSP] = ONE_INSN_STACK;
    cpu->r[RAX] = ~0ull;
    RUNS(0x66, 0x58);
    assert_int_equal(cpu->r[RAX], 0xffffffffffff7788);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 2);
}

static void pop_of_the_stack_pointer_gives_the_value(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_STACK, 0x12345, 8);
    RUNS(0x5c);
    assert_int_equal(cpu->r[RSP], 0x12345);
}

static void pop_to_memory_addresses_after_the_increment(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_STACK, 0x1122334455667788, 8);
    RUNS(0x8f, 0x44, 0x24, 0x10); /* pop 16(%rsp) */
    assert_int_equal(at(cpu, ONE_INSN_STACK + 8 + 16, 8), 0x1122334455667788);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 8);
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x66, 0x8f, 0x44, 0x24, 0x40);
    assert_int_equal(at(cpu, ONE_INSN_STACK + 2 + 64, 2), 0x7788);
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x8f, 0x44, 0x24, 0x20);
    assert_int_equal(at(cpu, ONE_INSN_STACK + 4 + 32, 4), 0x55667788);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 4);
}

static void a_pop_that_faults_changes_nothing(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_STACK, 0x1122334455667788, 8);
    cpu->r[RBX] = UNMAPPED;
    FAULTS(EXC_PF, PF_WRITE, 0x8f, 0x03);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
    cpu->r[RBX] = NONCANONICAL;
    FAULTS(EXC_GP, 0, 0x8f, 0x03);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
    cpu->r[RSP] = UNMAPPED;
    cpu->r[RAX] = 7;
    FAULTS(EXC_PF, 0, 0x58);
    assert_int_equal(cpu->r[RAX], 7);
    cpu->r[RSP] = NONCANONICAL;
    FAULTS(EXC_SS, 0, 0x58);
    FAULTS(EXC_SS, 0, 0x9d);
}

static void pop_loads_segment_registers(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_STACK, 0xabcdef1234560000 | ONE_INSN_DS, 8);
    RUNS(0x0f, 0xa1); /* pop %fs */
    assert_int_equal(cpu->segment[SEG_FS].selector, ONE_INSN_DS);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 8);
    assert_int_equal(cpu->shadow, 0);
    cpu->r[RSP] = ONE_INSN_STACK;
    put(cpu, ONE_INSN_STACK, 0x2000, 8);
    FAULTS(EXC_GP, 0x2000, 0x0f, 0xa1);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
    assert_int_equal(cpu->segment[SEG_FS].selector, ONE_INSN_DS);
}

static void pop_of_SS_holds_interrupts_off_for_one_instruction(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RSP] = ONE_INSN_STACK;
    put(cpu, ONE_INSN_STACK, ONE_INSN_DS16, 4);
    RUNS(0x17);
    assert_int_equal(cpu->segment[SEG_SS].selector, ONE_INSN_DS16);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 4); /* as wide as before */
    assert_true(cpu->shadow & SHADOW_MOVSS);
}

static void real_mode_pops_segments_without_descriptors(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->r[RSP] = 0xffff0000 | 0x1000;
    put(cpu, 0x1000, 0x1234, 2);
    RUNS(0x1f);
    assert_int_equal(cpu->segment[SEG_DS].base, 0x12340);
    assert_int_equal(cpu->r[RSP], 0xffff1002);
}

/* ---- stacks with limits ---- */
static void a_16_bit_stack_wraps_and_keeps_the_upper_half(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_16, false);
    cpu->r[RAX] = 0xaabb;
    cpu->r[RSP] = 0x12340000;
    RUNS(0x50);
    assert_int_equal(cpu->r[RSP], 0x1234fffe);
    assert_int_equal(at(cpu, 0xfffe, 2), 0xaabb);
    RUNS(0x59);
    assert_int_equal(cpu->r[RSP], 0x12340000);
    assert_int_equal(cpu->r[RCX] & 0xffff, 0xaabb);
    cpu->r[RSP] = 0x12340001; /* the word would straddle the limit */
    FAULTS(EXC_SS, 0, 0x50);
    assert_int_equal(cpu->r[RSP], 0x12340001);
}

static void a_32_bit_stack_has_a_limit(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->segment[SEG_SS].limit = 0x2ffff;
    cpu->r[RSP] = ONE_INSN_STACK + 4;
    FAULTS(EXC_SS, 0, 0x50);
    FAULTS(EXC_SS, 0, 0x6a, 1);
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x50);
    FAULTS(EXC_SS, 0, 0x8f, 0x44, 0x24, 0x00); /* to the stack segment, above the limit */
    cpu->r[RSP] = ONE_INSN_STACK;
    FAULTS(EXC_SS, 0, 0x58);
}

/* ---- ENTER and LEAVE ---- */
/* The host has no such thing as alignment there, but the compiler may be told so. */
static void a_stack_needs_no_alignment(void **state)
{
    struct vcpu *cpu = *state;
    for (unsigned odd = 1; odd < 8; odd += 2) {
        cpu->r[RSP] = ONE_INSN_STACK - odd;
        cpu->r[RAX] = 0x0123456789abcdef;
        cpu->r[RDI] = ONE_INSN_DATA + odd;
        put(cpu, ONE_INSN_DATA + odd, 0x5555666677778888, 8);
        RUNS(0x50);             /* push rax */
        RUNS(0xff, 0x37);       /* push [rdi] */
        RUNS(0x6a, 0x7f);       /* push 0x7f */
        RUNS(0x9c);             /* pushf */
        RUNS(0x48, 0x89, 0xe5); /* mov rbp, rsp */
        assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - odd - 32);
        RUNS(0x5b); /* pop rbx */
        assert_int_equal(cpu->r[RBX], vcpu_rflags(cpu));
        cpu->r[RBP] += 8;
        RUNS(0xc9); /* leave */
        assert_int_equal(cpu->r[RBP], 0x7f);
        RUNS(0x59); /* pop rcx */
        assert_int_equal(cpu->r[RCX], 0x5555666677778888);
        RUNS(0x5a); /* pop rdx */
        assert_int_equal(cpu->r[RDX], 0x0123456789abcdef);
        assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - odd);
    }
}

static void enter_and_leave_make_and_drop_a_frame(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RBP] = 0x77;
    RUNS(0xc8, 0x20, 0x00, 0x00);
    assert_int_equal(cpu->r[RBP], ONE_INSN_STACK - 8);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 8 - 0x20);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), 0x77);
    RUNS(0xc9);
    assert_int_equal(cpu->r[RBP], 0x77);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

static void enter_copies_the_display(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RBP] = ONE_INSN_DATA + 0x100;
    put(cpu, ONE_INSN_DATA + 0x100 - 8, 0x1111, 8);
    put(cpu, ONE_INSN_DATA + 0x100 - 16, 0x2222, 8);
    RUNS(0xc8, 0x10, 0x00, 0x23); /* level 35 mod 32 = 3 */
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), ONE_INSN_DATA + 0x100);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 16, 8), 0x1111);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 24, 8), 0x2222);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 32, 8), ONE_INSN_STACK - 8);
    assert_int_equal(cpu->r[RBP], ONE_INSN_STACK - 8);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 32 - 16);
}

static void enter_faults_where_the_new_top_is_not_writable(void **state)
{
    struct vcpu *cpu = *state;
    *one_insn_pte(cpu, ONE_INSN_STACK - 0x1008) &= ~2ull;
    one_insn_flush(cpu);
    cpu->r[RBP] = 0x77;
    FAULTS(EXC_PF, PF_WRITE | PF_PRESENT, 0xc8, 0x00, 0x10, 0x00);
    assert_int_equal(cpu->r[RBP], 0x77);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

static void leave_with_16_bits_loads_BP(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RBP] = ONE_INSN_DATA;
    put(cpu, ONE_INSN_DATA, 0xbeef, 2);
    RUNS(0x66, 0xc9);
    assert_int_equal(cpu->r[RBP], (ONE_INSN_DATA & ~0xffffull) | 0xbeef);
    assert_int_equal(cpu->r[RSP], ONE_INSN_DATA + 2);
    cpu->r[RBP] = UNMAPPED;
    cpu->r[RSP] = ONE_INSN_STACK;
    FAULTS(EXC_PF, 0, 0xc9);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
}

/* ---- PUSHF and POPF ---- */
static void pushf_shows_all_but_VM_and_RF(void **state)
{
    struct vcpu *cpu = *state;
    vcpu_set_rflags(cpu, 0x2 | RFLAGS_CF | RFLAGS_ZF | RFLAGS_OF | RFLAGS_IF | RFLAGS_DF |
                             RFLAGS_AC | RFLAGS_ID);
    cpu->rflags |= RFLAGS_RF;
    RUNS(0x9c);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 8, 8), 0x2 | RFLAGS_CF | RFLAGS_ZF | RFLAGS_OF |
                                                         RFLAGS_IF | RFLAGS_DF | RFLAGS_AC |
                                                         RFLAGS_ID);
    RUNS(0x66, 0x9c);
    assert_int_equal(at(cpu, ONE_INSN_STACK - 10, 2),
                     0x2 | RFLAGS_CF | RFLAGS_ZF | RFLAGS_OF | RFLAGS_IF | RFLAGS_DF);
}

static uint64_t pop_flags(struct vcpu *cpu, uint64_t value, bool word)
{
    put(cpu, ONE_INSN_STACK, value, 8);
    cpu->r[RSP] = ONE_INSN_STACK;
    if (word)
        RUNS(0x66, 0x9d);
    else
        RUNS(0x9d);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + (word ? 2 : 8));
    return vcpu_rflags(cpu);
}

#define POPF_KERNEL                                                                                \
    (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_AC |     \
     RFLAGS_ID)

static void popf_in_the_kernel_changes_everything_but_VM_VIF_VIP_RF(void **state)
{
    struct vcpu *cpu = *state;
    assert_int_equal(pop_flags(cpu, ~0ull, false), POPF_KERNEL | 2);
    assert_int_equal(pop_flags(cpu, 0, false), 2);
    assert_int_equal(pop_flags(cpu, ~0ull, true), (POPF_KERNEL & 0xffff) | 2);
}

static void popf_outside_the_kernel_keeps_IOPL_and_maybe_IF(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    vcpu_set_rflags(cpu, RFLAGS_IF);
    assert_int_equal(pop_flags(cpu, 0, false), RFLAGS_IF | 2);
    assert_int_equal(pop_flags(cpu, ~0ull, false), ((POPF_KERNEL & ~RFLAGS_IOPL) | 2));
    vcpu_set_rflags(cpu, RFLAGS_IF | RFLAGS_IOPL);
    assert_int_equal(pop_flags(cpu, 0, false), RFLAGS_IOPL | 2);
}

static void popf_that_lets_interrupts_in_leaves_the_block(void **state)
{
    struct vcpu *cpu = *state;
    cpu->rip = ONE_INSN_CODE;
    pop_flags(cpu, RFLAGS_IF | 2, false);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 1);
    assert_int_equal(cpu->shadow, 0);
}

static void virtual_8086_mode_needs_IOPL_3_for_the_flags(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_V86, false);
    cpu->r[RSP] = 0x4000;
    RUNS(0x9c);
    assert_int_equal(at(cpu, 0x3ffe, 2), RFLAGS_IOPL | 2);
    RUNS(0xfb);
    cpu->rflags &= ~RFLAGS_IOPL;
    FAULTS(EXC_GP, 0, 0x9c);
    FAULTS(EXC_GP, 0, 0x9d);
    FAULTS(EXC_GP, 0, 0xfa);
    FAULTS(EXC_GP, 0, 0xfb);
}

/* ---- single flags ---- */
static void lahf_and_sahf_move_five_flags(void **state)
{
    struct vcpu *cpu = *state;
    for (unsigned flags = 0; flags < 256; flags++) {
        cpu->r[RAX] = 0x1111 | flags << 8;
        cpu->r[RAX] = (cpu->r[RAX] & 0xff) | flags << 8;
        uint64_t overflow = vcpu_rflags(cpu) & RFLAGS_OF;
        RUNS(0x9e);
        assert_int_equal(vcpu_rflags(cpu) & 0xff, (flags & 0xd5) | 2);
        assert_int_equal(vcpu_rflags(cpu) & RFLAGS_OF, overflow);
        cpu->r[RAX] = 0;
        RUNS(0x9f);
        assert_int_equal(cpu->r[RAX], ((flags & 0xd5) | 2) << 8);
        vcpu_set_rflags(cpu, vcpu_rflags(cpu) ^ RFLAGS_OF);
    }
}

static void flag_instructions_change_one_flag(void **state)
{
    struct vcpu *cpu = *state;
    vcpu_set_rflags(cpu, RFLAGS_STATUS);
    RUNS(0xf8);
    assert_int_equal(vcpu_rflags(cpu), (RFLAGS_STATUS & ~RFLAGS_CF) | 2);
    RUNS(0xf5);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_STATUS | 2);
    RUNS(0xf5);
    RUNS(0xf9);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_STATUS | 2);
    RUNS(0xfd);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_STATUS | RFLAGS_DF | 2);
    RUNS(0xfc);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_STATUS | 2);
}

static void sti_casts_a_shadow_only_where_interrupts_were_off(void **state)
{
    struct vcpu *cpu = *state;
    RUNS(0xfb);
    assert_true(cpu->rflags & RFLAGS_IF);
    assert_int_equal(cpu->shadow, SHADOW_STI);
    cpu->shadow = 0;
    RUNS(0xfb);
    assert_int_equal(cpu->shadow, 0);
    RUNS(0xfa);
    assert_false(cpu->rflags & RFLAGS_IF);
}

static void cli_and_sti_obey_IOPL(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0, 0xfa);
    FAULTS(EXC_GP, 0, 0xfb);
    cpu->rflags |= RFLAGS_IOPL;
    RUNS(0xfb);
    assert_true(cpu->rflags & RFLAGS_IF);
    RUNS(0xfa);
    assert_false(cpu->rflags & RFLAGS_IF);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_vcpu, free_vcpu)
    const struct CMUnitTest tests[] = {
        TEST(push_stores_below_the_stack_pointer),
        TEST(push_of_the_stack_pointer_stores_what_it_was),
        TEST(push_sign_extends_immediates),
        TEST(push_reads_memory),
        TEST(push_zero_extends_segment_registers),
        TEST(a_push_that_faults_changes_nothing),
        TEST(a_push_across_pages_stores_all_or_nothing),
        TEST(pop_loads_and_moves_on),
        TEST(pop_of_the_stack_pointer_gives_the_value),
        TEST(pop_to_memory_addresses_after_the_increment),
        TEST(a_pop_that_faults_changes_nothing),
        TEST(pop_loads_segment_registers),
        TEST(pop_of_SS_holds_interrupts_off_for_one_instruction),
        TEST(real_mode_pops_segments_without_descriptors),
        TEST(a_16_bit_stack_wraps_and_keeps_the_upper_half),
        TEST(a_32_bit_stack_has_a_limit),
        TEST(a_stack_needs_no_alignment),
        TEST(enter_and_leave_make_and_drop_a_frame),
        TEST(enter_copies_the_display),
        TEST(enter_faults_where_the_new_top_is_not_writable),
        TEST(leave_with_16_bits_loads_BP),
        TEST(pushf_shows_all_but_VM_and_RF),
        TEST(popf_in_the_kernel_changes_everything_but_VM_VIF_VIP_RF),
        TEST(popf_outside_the_kernel_keeps_IOPL_and_maybe_IF),
        TEST(popf_that_lets_interrupts_in_leaves_the_block),
        TEST(virtual_8086_mode_needs_IOPL_3_for_the_flags),
        TEST(lahf_and_sahf_move_five_flags),
        TEST(flag_instructions_change_one_flag),
        TEST(sti_casts_a_shadow_only_where_interrupts_were_off),
        TEST(cli_and_sti_obey_IOPL),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
