/* SPDX-License-Identifier: MIT */
/* A patched image's stub: found, checked, linked, or refused with one clear line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/unit/stub_guest.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct stub_guest *g;

static int set_up(void **state)
{
    (void)state;
    g = stub_guest_open(true);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stub_guest_close(g);
    return 0;
}

static int32_t link_distance(int index)
{
    int32_t distance;
    memcpy(&distance, stub_guest_at(g, index, SLOT_LINK + 1), 4);
    return distance;
}

static bool linked(int index)
{
    bool yes = link_distance(index) == SLOT_EMULATION - SLOT_LINK - 5;
    assert_true(yes || link_distance(index) == 0);
    assert_int_equal(g->vm.stub->routines[index].linked, yes);
    return yes;
}

static void assert_refused(const char *why)
{
    assert_int_equal(stub_guest_attach(g), -1);
    assert_int_equal(g->err.code, HVRUN_IMAGE);
    if (!strstr(g->err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", g->err.text, why);
    assert_null(strchr(g->err.text, '\n'));
}

/* ---- finding ---- */
static void test_an_image_without_the_note_has_no_stub(void **state)
{
    (void)state;
    assert_int_equal(stub_attach(&g->vm, &g->image, &g->err), 0);
    assert_null(g->vm.stub);
}

static void test_an_image_in_which_nothing_was_patched_has_no_stub(void **state)
{
    (void)state;
    g->note.header_address = 0;
    assert_int_equal(stub_guest_attach(g), 0);
    assert_null(g->vm.stub);
}

static void test_an_image_without_routines_is_attached(void **state)
{
    (void)state;
    assert_int_equal(stub_guest_attach(g), 0);
    assert_non_null(g->vm.stub);
    assert_int_equal(g->vm.stub->routine_count, 0);
}

static void test_no_patch_leaves_everything_as_it_was(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    g->vm.config.no_patch = true;
    assert_int_equal(stub_guest_attach(g), 0);
    assert_null(g->vm.stub);
    assert_int_equal(link_distance(index), 0);
    assert_null(g->vm.bus.before);
}

static void test_no_patch_is_refused_where_the_stub_is_needed(void **state)
{
    (void)state;
    stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_BREAK);
    g->note.flags = PV_IMAGE_NEEDS_RUNTIME;
    g->vm.config.no_patch = true;
    assert_refused("break patches");
}

static void test_the_image_may_be_loaded_anywhere(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    assert_int_equal(g->vm.stub->header_linear, STUB_GUEST_LINEAR);
    assert_int_equal(g->vm.stub->header_physical, STUB_GUEST_PHYSICAL);
    /* early code runs where it was loaded: its routines are there too */
    assert_int_equal(stub_header_for(g->vm.stub, STUB_GUEST_PHYSICAL + 0x123, 0x123),
                     STUB_GUEST_PHYSICAL);
    assert_int_equal(stub_header_for(g->vm.stub, STUB_GUEST_LINEAR + 0x123, 0x123),
                     STUB_GUEST_LINEAR);
    g->cpu->r[RAX] = 0x80000000;
    assert_true(stub_guest_run(g, index));
    assert_int_equal(stub_guest_exits(g), 0);
}

/* ---- checking ---- */
static void test_another_abi_is_refused(void **state)
{
    (void)state;
    g->note.abi_version++;
    assert_refused("patch it again");
}

static void test_a_header_elsewhere_is_refused(void **state)
{
    (void)state;
    static const uint64_t addresses[] = {1, STUB_GUEST_LINEAR - 1,
                                         STUB_GUEST_LINEAR + STUB_GUEST_SIZE - 1, UINT64_MAX,
                                         STUB_GUEST_PHYSICAL};
    for (size_t k = 0; k < sizeof addresses / sizeof addresses[0]; k++) {
        g->note.header_address = addresses[k];
        assert_refused("outside the loaded image");
        stub_detach(&g->vm);
    }
    g->note.header_address = STUB_GUEST_LINEAR + 64;
    assert_refused("no valid header");
}

static void test_a_segment_that_is_not_in_memory_is_refused(void **state)
{
    (void)state;
    g->segments[0].paddr = g->vm.memory.size - 64;
    assert_refused("outside the loaded image");
}

/* One field of the header, made impossible. */
#define REFUSED_WITH(field, value, why)                                                            \
    do {                                                                                           \
        struct pv_header good = *g->header;                                                        \
        g->header->field = value;                                                                  \
        assert_refused(why);                                                                       \
        stub_detach(&g->vm);                                                                       \
        *g->header = good;                                                                         \
        memcpy(stub_guest_at(g, 0, SLOT_LINK), (uint8_t[]){0xe9, 0, 0, 0, 0}, 5);                  \
    } while (0)

static void test_an_impossible_header_is_refused(void **state)
{
    (void)state;
    stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    REFUSED_WITH(magic[3], 'x', "no valid header");
    REFUSED_WITH(abi_version, 1, "no valid header");
    REFUSED_WITH(header_size, 8, "no valid header");
    REFUSED_WITH(routine_count, UINT32_MAX, "impossible header");
    REFUSED_WITH(patch_count, UINT32_MAX, "impossible header");
    REFUSED_WITH(doorbell_port, 0x80, "impossible header");
    REFUSED_WITH(routine_count, 1 << 19, "routine table");
    REFUSED_WITH(routine_table_offset, INT64_MIN, "routine table");
    REFUSED_WITH(routine_table_offset, INT64_MAX, "routine table");
    REFUSED_WITH(routine_info_offset, INT64_MAX, "description");
    REFUSED_WITH(routine_info_offset, -8, "description");
    REFUSED_WITH(patch_info_offset, INT64_MAX, "description");
    REFUSED_WITH(patch_count, 0, "description");
    REFUSED_WITH(cpuid_table_offset, STUB_GUEST_SIZE - 64, "CPUID table");
    REFUSED_WITH(msr_table_offset, STUB_GUEST_SIZE - 64, "MSR table");
    REFUSED_WITH(state_size, 64, "state page");
    REFUSED_WITH(state_size, UINT32_MAX, "state page");
    REFUSED_WITH(state_offset, STUB_GUEST_SIZE - 64, "state page");
    REFUSED_WITH(state_offset, 0x9044, "state page");
    assert_int_equal(stub_guest_attach(g), 0);
}

static void test_an_impossible_routine_is_refused(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    struct pv_routine good = g->routines[index];
    g->routines[index].kind = PV_KINDS;
    assert_refused("impossible description");
    stub_detach(&g->vm);
    g->routines[index] = good;
    g->routines[index].form = PV_FORMS;
    assert_refused("impossible description");
    stub_detach(&g->vm);
    g->routines[index] = good;
    g->routines[index].patch = 1;
    assert_refused("impossible description");
    stub_detach(&g->vm);
    static const int64_t offsets[] = {0, INT64_MIN, INT64_MAX, STUB_GUEST_SIZE - 4, INT64_MAX - 4};
    for (size_t k = 0; k < sizeof offsets / sizeof offsets[0]; k++) {
        g->routines[index] = good;
        g->routines[index].link_offset = offsets[k];
        assert_refused("link is not where");
        stub_detach(&g->vm);
    }
    for (size_t k = 1; k < sizeof offsets / sizeof offsets[0]; k++) {
        g->routines[index] = good;
        g->routines[index].emulation_offset = offsets[k];
        assert_refused("emulation is outside");
        stub_detach(&g->vm);
    }
    g->routines[index] = good;
    g->routines[index].emulation_size = UINT32_MAX;
    assert_refused("emulation is outside");
}

static void test_a_link_that_is_active_already_is_refused(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    *stub_guest_at(g, index, SLOT_LINK + 1) = 1;
    assert_refused("link is not where");
}

/* ---- linking ---- */
static void test_what_the_guest_can_answer_is_linked(void **state)
{
    (void)state;
    int cpuid = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    int rdmsr = stub_guest_add(g, "0f 32", "rdmsr_table", PV_FORM_JUMP);
    int out = stub_guest_add(g, "ee", "out_posted", PV_FORM_JUMP);
    int doorbell = stub_guest_add(g, "ef", "out_doorbell", PV_FORM_JUMP);
    int deprivileged = stub_guest_add(g, "fa", "cli_state", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    assert_true(linked(cpuid));
    assert_true(linked(rdmsr));
    assert_true(linked(out));
    assert_false(linked(doorbell)); /* costs what the instruction costs */
    assert_false(linked(deprivileged));
    assert_int_equal(g->vm.stub->linked_count, 3);
}

static void test_link_all_links_whatever_works(void **state)
{
    (void)state;
    int doorbell = stub_guest_add(g, "ef", "out_doorbell", PV_FORM_JUMP);
    int bare = stub_guest_add(g, "ef", "out_bare", PV_FORM_JUMP);
    int pair = stub_guest_add(g, "0f 01 7f 08", "invlpg_memory_bare", PV_FORM_JUMP);
    int deprivileged = stub_guest_add(g, "fa", "cli_state", PV_FORM_JUMP);
    int native_only = stub_guest_add(g, "0f a2", "cpuid_doorbell", PV_FORM_JUMP);
    g->routines[native_only].emulation_offset = 0;
    g->vm.config.link_all = true;
    assert_int_equal(stub_guest_attach(g), 0);
    assert_true(linked(doorbell));
    assert_true(linked(bare));
    assert_false(linked(pair)); /* two doorbells, between which an interrupt might come */
    assert_false(linked(deprivileged));
    assert_false(linked(native_only));
}

static void test_a_table_look_up_that_may_ring_is_linked(void **state)
{
    (void)state;
    int cpuid = stub_guest_add(g, "0f a2", "cpuid_table_or_host", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    assert_true(linked(cpuid)); /* its misses cost what the instruction costs, its hits nothing */
    g->cpu->r[RAX] = 0x80000000;
    assert_true(stub_guest_run(g, cpuid));
    assert_int_equal(stub_guest_exits(g), 0);
    g->cpu->r[RAX] = 1;
    assert_true(stub_guest_run(g, cpuid));
    assert_int_equal(stub_guest_exits(g), 1);
    struct cpuid_answer answer = cpuid_answer(g->cpu, 1, 0);
    assert_int_equal(g->cpu->r[RAX], answer.eax);
    assert_int_equal(g->cpu->r[RBX], answer.ebx);
}

static void test_without_tables_or_state_nothing_that_needs_them_is_linked(void **state)
{
    (void)state;
    int cpuid = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    int rdmsr = stub_guest_add(g, "0f 32", "rdmsr_table", PV_FORM_JUMP);
    int out = stub_guest_add(g, "ee", "out_posted", PV_FORM_JUMP);
    g->header->cpuid_table_offset = g->header->msr_table_offset = g->header->state_offset = 0;
    g->vm.config.link_all = true;
    assert_int_equal(stub_guest_attach(g), 0);
    assert_false(linked(cpuid));
    assert_false(linked(rdmsr));
    assert_false(linked(out));
    assert_null(g->vm.bus.before);
}

/* ---- tables ---- */
static void test_cpuid_of_the_table_is_the_processors(void **state)
{
    (void)state;
    int index = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    unsigned hits = 0;
    for (uint32_t range = 0; range < 3; range++)
        for (uint32_t leaf = range << 30; leaf < (range << 30) + 0x40; leaf++)
            for (uint32_t subleaf = 0; subleaf < 3; subleaf++) {
                struct cpuid_answer want = cpuid_answer(g->cpu, leaf, subleaf);
                uint64_t before = stub_guest_exits(g);
                g->cpu->r[RAX] = leaf;
                g->cpu->r[RCX] = subleaf;
                assert_true(stub_guest_run(g, index));
                assert_int_equal(g->cpu->r[RAX], want.eax);
                assert_int_equal(g->cpu->r[RBX], want.ebx);
                assert_int_equal(g->cpu->r[RCX], want.ecx);
                assert_int_equal(g->cpu->r[RDX], want.edx);
                bool subleaves, there = cpuid_has_leaf(leaf, &subleaves);
                if (there && cpuid_constant(leaf, subleaf)) {
                    assert_int_equal(stub_guest_exits(g), before);
                    hits++;
                }
            }
    assert_true(hits > 30);
}

static void test_an_address_in_a_routine_is_told_as_its_sites(void **state)
{
    (void)state;
    int first = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    int second = stub_guest_add(g, "0f 32", "rdmsr_table", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    assert_int_equal(stub_site(g->vm.stub, stub_guest_linear(second, SLOT_LINK + 5)),
                     stub_guest_linear(second, SLOT_WINDOW));
    assert_int_equal(stub_site(g->vm.stub, stub_guest_linear(first, SLOT_EMULATION + 3)),
                     stub_guest_linear(first, SLOT_WINDOW));
    assert_int_equal(stub_site(g->vm.stub, 0x1234), 0x1234);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_image_without_the_note_has_no_stub),
        TEST(test_an_image_in_which_nothing_was_patched_has_no_stub),
        TEST(test_an_image_without_routines_is_attached),
        TEST(test_no_patch_leaves_everything_as_it_was),
        TEST(test_no_patch_is_refused_where_the_stub_is_needed),
        TEST(test_the_image_may_be_loaded_anywhere),
        TEST(test_another_abi_is_refused),
        TEST(test_a_header_elsewhere_is_refused),
        TEST(test_a_segment_that_is_not_in_memory_is_refused),
        TEST(test_an_impossible_header_is_refused),
        TEST(test_an_impossible_routine_is_refused),
        TEST(test_a_link_that_is_active_already_is_refused),
        TEST(test_what_the_guest_can_answer_is_linked),
        TEST(test_link_all_links_whatever_works),
        TEST(test_a_table_look_up_that_may_ring_is_linked),
        TEST(test_without_tables_or_state_nothing_that_needs_them_is_linked),
        TEST(test_cpuid_of_the_table_is_the_processors),
        TEST(test_an_address_in_a_routine_is_told_as_its_sites),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
