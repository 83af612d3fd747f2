/* SPDX-License-Identifier: MIT */
/* System instructions: checks, effects, what counts as an exit. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/interrupts.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/stub.h"
#include "tests/unit/system_machine.h"

/* ---- MSRs, CPUID, the counter ---- */
static void msrs_move_through_EDX_and_EAX(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 0xffffffffc0000082;
    cpu->r[RAX] = 0xffffffff12345678;
    cpu->r[RDX] = 0xffffffff00001234;
    RUNS(0x0f, 0x30);
    assert_int_equal(cpu->lstar, 0x123412345678);
    cpu->r[RAX] = cpu->r[RDX] = ~0ull;
    RUNS(0x0f, 0x32);
    assert_int_equal(cpu->r[RAX], 0x12345678);
    assert_int_equal(cpu->r[RDX], 0x1234);
    cpu->r[RCX] = 0x48;
    FAULTS(EXC_GP, 0x0f, 0x32);
    FAULTS(EXC_GP, 0x0f, 0x30);
    assert_int_equal(cpu->r[RAX], 0x12345678);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RCX] = 0xc0000082;
    FAULTS(EXC_GP, 0x0f, 0x32);
    FAULTS(EXC_GP, 0x0f, 0x30);
}

static void cpuid_answers_in_four_registers(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0xffffffff00000000;
    cpu->r[RCX] = cpu->r[RBX] = cpu->r[RDX] = ~0ull;
    RUNS(0x0f, 0xa2);
    struct cpuid_answer a = cpuid_answer(cpu, 0, 0);
    assert_int_equal(cpu->r[RAX], a.eax);
    assert_int_equal(cpu->r[RBX], a.ebx);
    assert_int_equal(cpu->r[RCX], a.ecx);
    assert_int_equal(cpu->r[RDX], a.edx);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RAX] = 0xd;
    cpu->r[RCX] = 1;
    RUNS(0x0f, 0xa2);
    assert_int_equal(cpu->r[RCX], 0);
}

static void the_counter_is_guest_time_with_its_offset(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = cpu->r[RDX] = cpu->r[RCX] = ~0ull;
    RUNS(0x0f, 0x31);
    assert_int_equal(cpu->r[RAX], 2);
    assert_int_equal(cpu->r[RDX], 1);
    cpu->tsc_offset = 0x10;
    cpu->tsc_aux = 0x42;
    RUNS(0x0f, 0x01, 0xf9);
    assert_int_equal(cpu->r[RAX], 0x12);
    assert_int_equal(cpu->r[RCX], 0x42);
    RUNS(0xf3, 0x0f, 0xc7, 0xf8);
    assert_int_equal(cpu->r[RAX], 0x42);
    one_insn_mode(cpu, ONE_INSN_64, true);
    RUNS(0x0f, 0x31);
    cpu->cr4 |= CR4_TSD;
    FAULTS(EXC_GP, 0x0f, 0x31);
    FAULTS(EXC_GP, 0x0f, 0x01, 0xf9);
    RUNS(0xf3, 0x0f, 0xc7, 0xf8);
}

static void four_performance_counters_stand_still(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 3;
    RUNS(0x0f, 0x33);
    assert_int_equal(cpu->r[RAX] | cpu->r[RDX], 0);
    cpu->r[RCX] = 4;
    FAULTS(EXC_GP, 0x0f, 0x33);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RCX] = 0;
    FAULTS(EXC_GP, 0x0f, 0x33);
    cpu->cr4 |= CR4_PCE;
    RUNS(0x0f, 0x33);
}

/* ---- caches and the TLB ---- */
static void invlpg_forgets_a_page(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x50);
    *one_insn_pte(cpu, ONE_INSN_STACK - 8) &= ~1ull;
    cpu->r[RBX] = ONE_INSN_STACK - 100;
    RUNS(0x0f, 0x01, 0x3b);
    cpu->r[RSP] = ONE_INSN_STACK;
    assert_true(RUN(0x50).fault);
    cpu->r[RBX] = NONCANONICAL; /* nothing to forget, and no fault */
    RUNS(0x0f, 0x01, 0x3b);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xfb); /* a register */
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0x0f, 0x01, 0x3b);
}

static void invpcid_checks_type_and_descriptor(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_DATA, 0, 8);
    put(cpu, ONE_INSN_DATA + 8, ONE_INSN_STACK, 8);
    cpu->r[RBX] = ONE_INSN_DATA;
#define INVPCID 0x66, 0x0f, 0x38, 0x82, 0x03
    for (cpu->r[RAX] = 0; cpu->r[RAX] < 4; cpu->r[RAX]++)
        RUNS(INVPCID);
    FAULTS(EXC_GP, INVPCID);
    put(cpu, ONE_INSN_DATA, 1, 8); /* a PCID, though there are none */
    for (cpu->r[RAX] = 0; cpu->r[RAX] < 2; cpu->r[RAX]++)
        FAULTS(EXC_GP, INVPCID);
    RUNS(INVPCID);
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    for (cpu->r[RAX] = 0; cpu->r[RAX] < 4; cpu->r[RAX]++)
        RUNS(INVPCID);
    cpu->r[RAX] = 2;
    put(cpu, ONE_INSN_DATA, 0x1000, 8); /* reserved */
    FAULTS(EXC_GP, INVPCID);
    put(cpu, ONE_INSN_DATA, 1, 8);
    put(cpu, ONE_INSN_DATA + 8, NONCANONICAL, 8);
    RUNS(INVPCID);
    cpu->r[RAX] = 0;
    FAULTS(EXC_GP, INVPCID);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, INVPCID);
}

static void cache_instructions_only_check(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0xae, 0x3b);       /* clflush */
    RUNS(0x66, 0x0f, 0xae, 0x3b); /* clflushopt */
    RUNS(0x66, 0x0f, 0xae, 0x33); /* clwb */
    RUNS(0x0f, 0x09);             /* wbinvd */
    RUNS(0x0f, 0x08);             /* invd */
    RUNS(0x0f, 0x18, 0x0b);       /* prefetcht0 */
    cpu->r[RBX] = UNMAPPED;
    assert_int_equal(RUN(0x0f, 0xae, 0x3b).vector, EXC_PF);
    assert_int_equal(cpu->fault.cr2, UNMAPPED);
    RUNS(0x0f, 0x18, 0x0b);
    RUNS(0x0f, 0x0d, 0x0b); /* prefetchw */
    cpu->r[RBX] = NONCANONICAL;
    FAULTS(EXC_GP, 0x0f, 0xae, 0x3b);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0xae, 0x3b);
    FAULTS(EXC_GP, 0x0f, 0x09);
    FAULTS(EXC_GP, 0x0f, 0x08);
}

/* ---- the rest ---- */
static void hlt_waits_and_only_in_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    RUNS(0xf4);
    assert_int_equal(cpu->activity, ACTIVITY_HLT);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 1);
    cpu->activity = ACTIVITY_ACTIVE;
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0xf4);
    assert_int_equal(cpu->activity, ACTIVITY_ACTIVE);
}

static void stac_and_clac_change_AC_in_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    cpu->cr4 |= CR4_SMAP;
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    RUNS(0x0f, 0x01, 0xcb);
    assert_true(cpu->rflags & RFLAGS_AC);
    assert_int_equal(cpu->mode, TLB_KERNEL_AC);
    RUNS(0x0f, 0x01, 0xca);
    assert_false(cpu->rflags & RFLAGS_AC);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xcb);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xca);
}

static void random_numbers_are_the_same_in_deterministic_runs(void **state)
{
    struct vcpu *cpu = *state;
    cpu->vm->config.deterministic = true;
    vcpu_set_rflags(cpu, RFLAGS_STATUS & ~RFLAGS_CF);
    RUNS(0x48, 0x0f, 0xc7, 0xf0);
    uint64_t first = cpu->r[RAX];
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_CF | 2);
    RUNS(0x48, 0x0f, 0xc7, 0xf8);
    assert_int_not_equal(cpu->r[RAX], first);
    cpu->random = 0;
    RUNS(0x0f, 0xc7, 0xf0);
    assert_int_equal(cpu->r[RAX], (uint32_t)first);
    cpu->random = 0;
    cpu->r[RAX] = 0;
    RUNS(0x66, 0x0f, 0xc7, 0xf8);
    assert_int_equal(cpu->r[RAX], (uint16_t)first);
    cpu->vm->config.deterministic = false;
    RUNS(0x48, 0x0f, 0xc7, 0xf0);
    first = cpu->r[RAX];
    RUNS(0x48, 0x0f, 0xc7, 0xf0);
    assert_int_not_equal(cpu->r[RAX], first);
}

static void hypercalls_are_the_kernels_and_most_there_are_not(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 1;
    RUNS(0x0f, 0x01, 0xd9);
    assert_int_equal(cpu->r[RAX], (uint64_t)-1000);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc1);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xd9);
}

/* KVM_HC_SEND_IPI: RAX = how many took it. */
static uint64_t send_ipi(struct vcpu *cpu, uint64_t low, uint64_t high, uint64_t first,
                         uint64_t icr)
{
    cpu->r[RAX] = 10;
    cpu->r[RBX] = low;
    cpu->r[RCX] = high;
    cpu->r[RDX] = first;
    cpu->r[RSI] = icr;
    cpu->events = 0;
    RUNS(0x0f, 0x01, 0xd9);
    return cpu->r[RAX];
}

static void a_hypercall_sends_an_interrupt_to_processors_by_bitmap(void **state)
{
    struct vcpu *cpu = *state;
    assert_true(msr_write(cpu, 0x1b, 0xfee00d00)); /* x2APIC mode, id 0 */
    assert_true(msr_write(cpu, 0x80f, 0x1ff));
    assert_int_equal(send_ipi(cpu, 1, 0, 0, 0x41), 1);
    assert_int_equal(cpu->events, VCPU_EVENT_INTERRUPT);
    assert_int_equal(lapic_acknowledge(cpu), 0x41);
    assert_true(msr_write(cpu, 0x80b, 0));
    assert_int_equal(send_ipi(cpu, 1, 0, 0, 0x400), 1);
    assert_int_equal(cpu->events, VCPU_EVENT_NMI);
    assert_int_equal(send_ipi(cpu, ~1ull, ~0ull, 0, 0x41), 0);          /* not this one */
    assert_int_equal(send_ipi(cpu, ~0ull, ~0ull, 1, 0x41), 0);          /* the ids behind it */
    assert_int_equal(send_ipi(cpu, ~0ull, ~0ull, 0xffffffff, 0x41), 0); /* nor does that wrap */
    assert_int_equal(cpu->events, 0);
    assert_int_equal(send_ipi(cpu, 1, 0, 0, 0x40041), (uint64_t)-22); /* a shorthand */
    assert_int_equal(send_ipi(cpu, 1, 0, 0, 0x501), (uint64_t)-22);   /* INIT */
    one_insn_mode(cpu, ONE_INSN_32, false);
    assert_int_equal(send_ipi(cpu, 1ull << 32, 0xf00000000, 0, 0x41), 0);
    assert_int_equal(send_ipi(cpu, 1, 0, 0xf00000000, 0x40041), (uint32_t)-22);
    assert_int_equal(send_ipi(cpu, 1, 0, 0, 0x42), 1);
    assert_int_equal(lapic_acknowledge(cpu), 0x42);
}

static void what_is_not_offered_is_undefined(void **state)
{
    struct vcpu *cpu = *state;
    FAULTS(EXC_UD, 0x0f, 0x0b);             /* ud2 */
    FAULTS(EXC_UD, 0x0f, 0xb9, 0x40, 0x02); /* ud1, a break without a stub */
    FAULTS(EXC_UD, 0x0f, 0xff, 0x00);       /* ud0 */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc8);       /* monitor */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc9);       /* mwait */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xd8);       /* vmrun */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc2);       /* vmlaunch */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xcf);       /* encls */
    FAULTS(EXC_UD, 0x0f, 0x37);             /* getsec */
    FAULTS(EXC_UD, 0x0f, 0xaa);             /* rsm */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xe8);       /* serialize */
}

static void hints_and_fences_do_nothing(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t before[16];
    memcpy(before, cpu->r, sizeof before);
    RUNS(0x90);
    RUNS(0xf3, 0x90);
    RUNS(0x0f, 0x1f, 0x80, 0, 0, 0, 0);
    RUNS(0xf3, 0x0f, 0x1e, 0xfa);       /* endbr64 */
    RUNS(0xf3, 0x0f, 0x1e, 0xc8);       /* rdsspd %eax */
    RUNS(0xf3, 0x48, 0x0f, 0x1e, 0xc8); /* rdsspq %rax */
    RUNS(0x0f, 0x1c, 0x00);             /* cldemote */
    RUNS(0x66, 0x0f, 0x1b, 0x00);       /* bndmov */
    RUNS(0x0f, 0xae, 0xe8);
    RUNS(0x0f, 0xae, 0xf0);
    RUNS(0x0f, 0xae, 0xf8);
    assert_memory_equal(before, cpu->r, sizeof before);
}

static void pause_gives_way_only_to_other_processors(void **state)
{
    struct vcpu *cpu = *state;
    cpu->vm->soft->slice = 1000000;
    RUNS(0xf3, 0x90);
    assert_true(cpu->budget > 0);
    cpu->vm->vcpu_count = 2;
    RUNS(0xf3, 0x90);
    assert_int_equal(cpu->budget, 0);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 2);
    assert_true(cpu->vm->soft->slice < 1000000); /* what is not used is not counted */
    cpu->vm->vcpu_count = 1;
}

/* hvstub.h, PV_BREAK_*. */
static void ud1_carries_the_index_of_a_break(void **state)
{
    static const struct {
        uint8_t bytes[15], aux;
        uint64_t index;
    } rows[] = {
        {{0x0f, 0xb9, 0x40, 0x02}, STUB_UD1_BREAK, 2},
        {{0x0f, 0xb9, 0x78, 0xff}, STUB_UD1_BREAK, 0x7ff},
        {{0x0f, 0xb9, 0x80, 0x78, 0x56, 0x34, 0xf2}, STUB_UD1_BREAK, 0xf2345678},
        {{0x0f, 0xb9, 0x81, 0x78, 0x56, 0x34, 0xf2}, STUB_UD1_BARE, 0xf2345678},
        {{0x0f, 0xb9, 0xcc}, STUB_UD1_PLAIN, 0},       /* two registers */
        {{0x0f, 0xb9, 0x41, 0x02}, STUB_UD1_PLAIN, 0}, /* another base */
        {{0x66, 0x0f, 0xb9, 0x40, 0x02}, STUB_UD1_PLAIN, 0},
        {{0x0f, 0xb9, 0x88, 1, 0, 0, 0}, STUB_UD1_PLAIN, 0},
        {{0x0f, 0xb9, 0x44, 0x24, 0x02}, STUB_UD1_PLAIN, 0},
    };
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        struct insn i = {0};
        struct decoded d;
        assert_int_equal(decode_insn(*state, rows[n].bytes, 15, 0, &i, &d), DECODE_OK);
        assert_int_equal(i.aux, rows[n].aux);
        if (i.aux != STUB_UD1_PLAIN)
            assert_int_equal(i.imm, rows[n].index);
        assert_true(d.ends_block);
    }
}

static void exits_are_counted_by_kind(void **state)
{
    struct vcpu *cpu = *state;
    const uint64_t *exits = cpu->vm->stats.exits;
    RUNS(0x0f, 0xa2);
    assert_int_equal(exits[EXIT_KIND_CPUID], 1);
    cpu->r[RCX] = 0xc0000082;
    RUNS(0x0f, 0x32);
    cpu->r[RCX] = 0x48;
    assert_true(RUN(0x0f, 0x32).fault);
    assert_int_equal(exits[EXIT_KIND_MSR], 2);
    RUNS(0x0f, 0x09);
    RUN(0x0f, 0x33);
    assert_int_equal(exits[EXIT_KIND_OTHER_LISTED], 2);
    WRITES(3, ONE_INSN_PAGES);
    assert_int_equal(exits[EXIT_KIND_CR3], 1);
    WRITES(0, cpu->cr0);
    WRITES(2, 0);
    WRITES(8, 0);
    RUNS(0x0f, 0x20, 0xc0);
    assert_int_equal(exits[EXIT_KIND_CR], 2);
    RUNS(0x0f, 0x21, 0xf0);
    assert_int_equal(exits[EXIT_KIND_DR], 1);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0x01, 0x3b);
    RUNS(0x0f, 0x31);
    RUNS(0xf4);
    assert_int_equal(exits[EXIT_KIND_HLT], 1);
    uint64_t counted = 0;
    for (unsigned n = 0; n < HOT_ADDRESSES; n++)
        counted += cpu->vm->stats.hot[n].count;
    assert_int_equal(counted, 5); /* those of "total" */
}

/* However many addresses exits come from, none is lost. */
static void addresses_that_find_no_place_count_as_0(void **state)
{
    struct stats *stats = &((struct vcpu *)*state)->vm->stats;
    for (uint64_t rip = 1; rip <= 3 * HOT_ADDRESSES; rip++)
        stats_exit(stats, EXIT_KIND_IO, rip * 4096);
    uint64_t counted = 0;
    for (unsigned n = 0; n < HOT_ADDRESSES; n++)
        counted += stats->hot[n].count;
    assert_int_equal(counted, 3 * HOT_ADDRESSES);
    assert_int_equal(stats->hot[0].address, 0);
    assert_true(stats->hot[0].count >= 2 * HOT_ADDRESSES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
    const struct CMUnitTest tests[] = {
        TEST(msrs_move_through_EDX_and_EAX),
        TEST(cpuid_answers_in_four_registers),
        TEST(the_counter_is_guest_time_with_its_offset),
        TEST(four_performance_counters_stand_still),
        TEST(invlpg_forgets_a_page),
        TEST(invpcid_checks_type_and_descriptor),
        TEST(cache_instructions_only_check),
        TEST(hlt_waits_and_only_in_the_kernel),
        TEST(stac_and_clac_change_AC_in_the_kernel),
        TEST(random_numbers_are_the_same_in_deterministic_runs),
        TEST(hypercalls_are_the_kernels_and_most_there_are_not),
        TEST(a_hypercall_sends_an_interrupt_to_processors_by_bitmap),
        TEST(what_is_not_offered_is_undefined),
        TEST(hints_and_fences_do_nothing),
        TEST(pause_gives_way_only_to_other_processors),
        TEST(ud1_carries_the_index_of_a_break),
        TEST(exits_are_counted_by_kind),
        TEST(addresses_that_find_no_place_count_as_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
