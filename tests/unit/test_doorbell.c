/* SPDX-License-Identifier: MIT */
/* Doorbells and breaks: an index finds what is to be done (D5), with what patchc recorded (D10),
 * and nothing of the guest is saved or copied but the doorbell's own frame (D2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "tests/unit/stub_guest.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct stub_guest *g;

static int set_up(void **state)
{
    (void)state;
    g = stub_guest_open(true);
    g->vm.config.link_all = true;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stub_guest_close(g);
    return 0;
}

static void attach(void)
{
    if (stub_guest_attach(g))
        fail_msg("%s", g->err.text);
}

/* ---- registers and memory, before and after ---- */
#define STACK_BOTTOM (STUB_GUEST_STACK - 0x1000)

static struct {
    uint64_t r[16], rflags;
    uint8_t memory[4 << 20];
} before;

static void remember(void)
{
    for (unsigned n = 0; n < 16; n++)
        if (n != RSP)
            g->cpu->r[n] = 0x1111111111111111u * n + 0x0123456789abcdefu;
    g->cpu->r[RSP] = STUB_GUEST_STACK - 0x100;
    memset(g->vm.memory.host + STACK_BOTTOM, 0x5a, 0x1000);
    vcpu_set_rflags(g->cpu, 0x8d7);
    memcpy(before.r, g->cpu->r, sizeof before.r);
    before.rflags = vcpu_rflags(g->cpu);
    memcpy(before.memory, g->vm.memory.host, sizeof before.memory);
}

/* All is as before but the registers in `may`, and `frame` bytes below RSP. */
static void assert_kept(unsigned may, unsigned frame)
{
    for (unsigned n = 0; n < 16; n++)
        if (!(may >> n & 1) && g->cpu->r[n] != before.r[n])
            fail_msg("register %u changed", n);
    assert_int_equal(vcpu_rflags(g->cpu), before.rflags);
    uint64_t rsp = before.r[RSP];
    for (uint64_t at = 0; at < sizeof before.memory; at++)
        if (before.memory[at] != g->vm.memory.host[at] && !(at < rsp && at >= rsp - frame) &&
            !(at >= 0x1000 && at < 0x5000)) /* accessed bits of page tables and descriptors */
            fail_msg("memory at %#llx changed", (unsigned long long)at);
}

static uint64_t doorbells(void)
{
    return g->vm.stats.exits[EXIT_KIND_DOORBELL];
}

/* ---- D2 ---- */
static void test_D2_a_doorbell_touches_its_frame_and_the_results_only(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_doorbell", PV_FORM_JUMP);
    attach();
    remember();
    g->cpu->r[RAX] = before.r[RAX] = 0;
    assert_true(stub_guest_run(g, index));
    assert_kept(1u << RAX | 1u << RBX | 1u << RCX | 1u << RDX, 8);
    uint64_t pushed;
    memcpy(&pushed, g->vm.memory.host + before.r[RSP] - 8, 8);
    assert_true(pushed == before.r[RAX]);
    struct cpuid_answer want = cpuid_answer(g->cpu, 0, 0);
    assert_int_equal(g->cpu->r[RAX], want.eax);
    assert_int_equal(g->cpu->r[RBX], want.ebx);
    assert_int_equal(doorbells(), 1);
    assert_int_equal(stub_guest_exits(g), 1); /* the instruction itself is not counted again */
    assert_int_equal(g->vm.stats.routine_calls, 1);
    assert_int_equal(g->vm.stats.host_calls, 1);
    assert_int_equal(g->vm.stats.by_form[PV_FORM_JUMP], 1);
}

static void test_D2_a_memory_operand_adds_its_address_to_the_frame(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f 01 7f 08", "invlpg_memory_doorbell", PV_FORM_JUMP);
    attach();
    remember();
    assert_true(stub_guest_run(g, index));
    assert_kept(0, 16);
    uint64_t address;
    memcpy(&address, g->vm.memory.host + before.r[RSP] - 8, 8);
    assert_true(address == before.r[RDI] + 8);
}

static void test_D2_a_bare_doorbell_touches_nothing(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "e5 60", "in_bare", PV_FORM_JUMP);
    attach();
    remember();
    assert_true(stub_guest_run(g, index));
    assert_kept(1u << RAX, 0);
    assert_int_equal(doorbells(), 1);
}

static void test_D2_a_break_saves_nothing(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_BREAK);
    attach();
    remember();
    g->cpu->r[RAX] = 0x80000000;
    assert_true(stub_guest_run(g, index));
    assert_kept(1u << RAX | 1u << RBX | 1u << RCX | 1u << RDX, 0);
    assert_int_equal(g->vm.stats.by_form[PV_FORM_BREAK], 1);
    assert_int_equal(g->vm.stats.host_calls, 0);
}

static void test_a_result_in_rsp_or_rax_is_the_guests(void **state)
{
    (void)state;
    int sp = stub_guest_add(g, "0f 20 dc", "mov_from_cr_rsp_bare", PV_FORM_JUMP); /* cr3 to rsp */
    int ax = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP);
    attach();
    remember();
    assert_true(stub_guest_run(g, ax));
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr3);
    assert_kept(1u << RAX, 8);
    assert_true(stub_guest_run(g, sp));
    assert_int_equal(g->cpu->r[RSP], g->cpu->cr3);
}

/* ---- D5 ---- */
static void test_D5_swapped_table_entries_swap_breaks(void **state)
{
    (void)state;
    int first = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_BREAK);
    int second = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_BREAK);
    attach();
    uint64_t entry = g->table[first];
    g->table[first] = g->table[second];
    g->table[second] = entry;
    g->cpu->r[RAX] = 0x80000000;
    g->cpu->rip = stub_guest_linear(first, SLOT_WINDOW);
    soft_run(g->cpu, 1000);
    assert_int_equal(g->cpu->rip, stub_guest_linear(second, SLOT_WINDOW + 17)); /* it went there */
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr3);
    g->cpu->activity = ACTIVITY_ACTIVE;
    g->cpu->r[RAX] = 0x80000000;
    g->cpu->rip = stub_guest_linear(second, SLOT_WINDOW);
    soft_run(g->cpu, 1000);
    assert_int_equal(g->cpu->rip, stub_guest_linear(first, SLOT_WINDOW + 17));
    assert_int_equal(g->cpu->r[RAX], cpuid_answer(g->cpu, 0x80000000, 0).eax);
}

static void test_D5_swapped_host_entries_swap_what_doorbells_do(void **state)
{
    (void)state;
    int first = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP);  /* cr3 */
    int second = stub_guest_add(g, "0f 20 c0", "mov_from_cr_doorbell", PV_FORM_JUMP); /* cr0 */
    attach();
    assert_true(stub_guest_run(g, first));
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr3);
    struct stub_routine *r = g->vm.stub->routines, kept = r[first];
    r[first].kind = r[second].kind;
    r[first].operand = r[second].operand;
    r[first].block = r[second].block;
    r[second].kind = kept.kind;
    r[second].operand = kept.operand;
    r[second].block = kept.block;
    assert_true(stub_guest_run(g, first));
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr0);
    assert_true(stub_guest_run(g, second));
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr3);
}

static void test_D5_the_index_alone_says_what_to_do(void **state)
{
    (void)state;
    int first = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP);
    int second = stub_guest_add(g, "0f 20 c0", "mov_from_cr_doorbell", PV_FORM_JUMP);
    struct pv_routine kept = g->routines[first]; /* swapped in the image */
    g->routines[first].operand = g->routines[second].operand;
    g->routines[second].operand = kept.operand;
    attach();
    assert_true(stub_guest_run(g, first));
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr0);
    assert_true(stub_guest_run(g, second));
    assert_int_equal(g->cpu->r[RAX], g->cpu->cr3);
}

/* ---- D10 ---- */
static void test_D10_a_doorbell_does_what_was_recorded_whatever_the_bytes_are(void **state)
{
    (void)state;
    int index =
        stub_guest_add(g, "0f 20 d9", "mov_from_cr_doorbell", PV_FORM_JUMP); /* cr3 to rcx */
    attach();
    memset(stub_guest_at(g, index, SLOT_LINK + 5), 0x0b, 3); /* the native instruction */
    memset(&g->routines[index], 0xff, sizeof g->routines[index]);
    memset(&g->patches[index], 0xff, sizeof g->patches[index]);
    memset(g->header, 0xff, sizeof *g->header);
    assert_true(stub_guest_run(g, index));
    assert_int_equal(g->cpu->r[RCX], g->cpu->cr3);
    assert_int_equal(doorbells(), 1);
}

static void test_D10_every_kind_does_what_its_instruction_does(void **state)
{
    (void)state;
    static const struct {
        const char *hex, *template_name;
    } cases[] = {{"0f 20 c1", "mov_from_cr_doorbell"},
                 {"0f 01 e1", "smsw_doorbell"},
                 {"0f 00 c9", "str_doorbell"},
                 {"8c d9", "mov_segment_doorbell"},
                 {"0f 21 f9", "mov_from_dr_doorbell"},
                 {"0f 00 c1", "sldt_doorbell"},
                 {"66 8c d9", "mov_segment_doorbell"},
                 {"48 0f 00 c9", "str_doorbell"},
                 {"0f 06", "clts_doorbell"},
                 {"0f 09", "wbinvd_doorbell"},
                 {"fa", "cli_doorbell"},
                 {"9c", "pushf_doorbell"},
                 {"66 ed", "in_doorbell"},
                 {"ef", "out_doorbell"}};
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++)
        stub_guest_add(g, cases[k].hex, cases[k].template_name, PV_FORM_JUMP);
    attach();
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        remember();
        g->cpu->r[RDX] = before.r[RDX] = 0x3fb;
        assert_true(stub_guest_run(g, (int)k));
        uint64_t got[16];
        memcpy(got, g->cpu->r, sizeof got);
        assert_int_equal(doorbells(), k + 1);
        memcpy(g->cpu->r, before.r, sizeof before.r); /* now the native instruction */
        g->cpu->rip = stub_guest_linear((int)k, SLOT_LINK + 5);
        g->cpu->activity = ACTIVITY_ACTIVE;
        soft_run(g->cpu, 100);
        assert_memory_equal(got, g->cpu->r, sizeof got);
        assert_int_equal(doorbells(), k + 1);
    }
}

/* ---- what rings and what does not ---- */
static void ring_from(uint64_t linear, uint64_t index)
{
    static const uint8_t code[] = {0xe7, PV_DOORBELL_PORT, 0xf4}; /* out; hlt */
    memcpy(g->vm.memory.host + (linear & 0x3fffff), code, sizeof code);
    g->cpu->r[RAX] = index;
    g->cpu->rip = linear;
    g->cpu->activity = ACTIVITY_ACTIVE;
    soft_run(g->cpu, 100);
}

static void test_elsewhere_the_doorbell_is_an_ordinary_out(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP);
    attach();
    ring_from(0x30000, (uint64_t)index); /* not in the routine */
    assert_int_equal(g->cpu->r[RAX], index);
    assert_int_equal(doorbells(), 0);
    ring_from(stub_guest_linear(index, SLOT_EMULATION), 1); /* no such index */
    ring_from(stub_guest_linear(index, SLOT_EMULATION), UINT32_MAX);
    assert_int_equal(doorbells(), 0);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_IO], 3);
    ring_from(stub_guest_linear(index, SLOT_EMULATION), (uint64_t)index);
    assert_int_equal(doorbells(), 1);
}

static void test_a_routine_that_is_not_linked_does_not_ring(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP);
    g->vm.config.link_all = false;
    attach();
    ring_from(stub_guest_linear(index, SLOT_EMULATION), (uint64_t)index);
    assert_int_equal(doorbells(), 0);
}

static void test_break_encodings_elsewhere_are_undefined(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_BREAK);
    int other = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    attach();
    static const uint8_t codes[][5] = {
        {0x0f, 0xb9, 0x40, 0}, {0x0f, 0xb9, 0x40, 1}, {0x0f, 0xb9, 0x47, 200}, {0x0f, 0xb9, 0xc0}};
    for (size_t k = 0; k < sizeof codes / sizeof codes[0]; k++) {
        /* at the window only break 0 is one; in its emulation none */
        unsigned offset = k == 0 ? SLOT_EMULATION : SLOT_WINDOW;
        uint8_t *code = stub_guest_at(g, k == 1 ? other : index, offset);
        memcpy(code, codes[k], 4);
        memory_written(&g->vm.memory, (uint64_t)(code - g->vm.memory.host), 4);
        g->cpu->rip = stub_guest_linear(k == 1 ? other : index, offset);
        g->cpu->activity = ACTIVITY_ACTIVE;
        g->cpu->r[RSP] = STUB_GUEST_STACK;
        soft_run(g->cpu, 100);
        assert_int_equal(g->cpu->rip, STUB_GUEST_HANDLER + 16 * EXC_UD + 1);
    }
    assert_int_equal(g->vm.stats.by_form[PV_FORM_BREAK], 0);
}

static void test_a_hostile_table_entry_is_only_a_jump(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_BREAK);
    attach();
    static const uint64_t targets[] = {0x7000000000000000, 0x500000000, UINT64_MAX};
    for (size_t k = 0; k < sizeof targets / sizeof targets[0]; k++) {
        g->table[index] = targets[k];
        g->cpu->r[RSP] = STUB_GUEST_STACK;
        assert_false(stub_guest_run(g, index));
        assert_int_equal(g->vm.shutdown, SHUTDOWN_NONE);
    }
}

/* ---- faults ---- */
static void test_a_fault_is_the_native_instructions(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f 32", "rdmsr_doorbell", PV_FORM_JUMP);
    attach();
    remember();
    g->cpu->r[RCX] = before.r[RCX] = 0x12345678; /* no such MSR */
    assert_false(stub_guest_run(g, index));
    assert_int_equal(g->cpu->rip, STUB_GUEST_HANDLER + 16 * EXC_GP + 1);
    uint64_t frame[6]; /* error code, RIP, CS, RFLAGS, RSP, SS */
    memcpy(frame, g->vm.memory.host + g->cpu->r[RSP], sizeof frame);
    assert_int_equal(frame[1], stub_guest_linear(index, SLOT_LINK + 5));
    assert_int_equal(frame[4], before.r[RSP]);
    assert_int_equal(g->cpu->r[RAX], before.r[RAX]);
    assert_int_equal(g->cpu->r[RDX], before.r[RDX]);
}

static void test_a_fault_of_the_frame_is_the_doorbells_own(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP);
    attach();
    uint8_t *code = stub_guest_at(g, index, SLOT_EMULATION);
    memcpy(code, (uint8_t[]){0xe7, PV_DOORBELL_PORT}, 2); /* without the push */
    g->cpu->r[RAX] = (uint64_t)index;
    g->cpu->r[RSP] = 0x500000; /* not mapped, nor what is below it */
    g->cpu->rip = stub_guest_linear(index, SLOT_EMULATION);
    soft_run(g->cpu, 100);
    assert_int_equal(g->cpu->cr2 & ~0xfffull,
                     0x500000 - 0x1000); /* the fault's own frame: #DF, then the end */
    assert_int_equal(g->vm.shutdown, SHUTDOWN_TRIPLE_FAULT);
    assert_int_equal(doorbells(), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_D2_a_doorbell_touches_its_frame_and_the_results_only),
        TEST(test_D2_a_memory_operand_adds_its_address_to_the_frame),
        TEST(test_D2_a_bare_doorbell_touches_nothing),
        TEST(test_D2_a_break_saves_nothing),
        TEST(test_a_result_in_rsp_or_rax_is_the_guests),
        TEST(test_D5_swapped_table_entries_swap_breaks),
        TEST(test_D5_swapped_host_entries_swap_what_doorbells_do),
        TEST(test_D5_the_index_alone_says_what_to_do),
        TEST(test_D10_a_doorbell_does_what_was_recorded_whatever_the_bytes_are),
        TEST(test_D10_every_kind_does_what_its_instruction_does),
        TEST(test_elsewhere_the_doorbell_is_an_ordinary_out),
        TEST(test_a_routine_that_is_not_linked_does_not_ring),
        TEST(test_break_encodings_elsewhere_are_undefined),
        TEST(test_a_hostile_table_entry_is_only_a_jump),
        TEST(test_a_fault_is_the_native_instructions),
        TEST(test_a_fault_of_the_frame_is_the_doorbells_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
