/* SPDX-License-Identifier: MIT */
/* Two pages that share a slot of the TLB: the one that must give way comes back without a walk. */
#include "runtime/translator/fast.h"
#include "tests/unit/mmu_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define LINEAR 0x0000004000000000ull
#define OTHER  (LINEAR + TLB_ENTRIES * PAGE_SIZE)

static struct mmu_lab *lab;
static uint64_t *entry, *other_entry;

/* Both pages in the TLB, the first one as a victim; the walk would find neither any more. */
static int begin(void **state)
{
    (void)state;
    bool device;
    lab = mmu_lab_create(MMU_LAB_LONG);
    lab->cpu->cr4 |= CR4_PGE;
    entry = mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W, MMU_LAB_UPPER);
    other_entry = mmu_lab_map(lab, OTHER, 0x201000, 12, PTE_P | PTE_G, MMU_LAB_UPPER);
    tlb_fill(lab->cpu, NULL, LINEAR, ACCESS_WRITE, lab->cpu->mode, &device);
    tlb_fill(lab->cpu, NULL, OTHER, ACCESS_READ, lab->cpu->mode, &device);
    assert_null(host_read(lab->cpu, LINEAR, 1));
    assert_non_null(host_read(lab->cpu, OTHER, 1));
    *entry = *other_entry = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    mmu_lab_free(lab);
    return 0;
}

static uint64_t fill(uint64_t linear, enum access access)
{
    bool device = true;
    uint64_t physical = tlb_fill(lab->cpu, NULL, linear, access, lab->cpu->mode, &device);
    assert_false(device);
    return physical;
}

#define IS_GONE(linear, access) assert_int_equal(MMU_LAB_CATCH(lab, fill(linear, access)), EXC_PF)

static void a_displaced_page_comes_back_without_a_walk(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3 * TLB_VICTIMS; n++) {
        assert_int_equal(fill(LINEAR + 0xabc, ACCESS_WRITE), 0x200abc);
        assert_non_null(host_write(lab->cpu, LINEAR, 8));
        assert_null(host_read(lab->cpu, OTHER, 8));
        assert_int_equal(fill(OTHER + 8, ACCESS_READ), 0x201008);
        assert_non_null(host_read(lab->cpu, OTHER, 8));
        assert_null(host_write(lab->cpu, OTHER, 8)); /* with no more rights than it had */
    }
    fill(LINEAR, ACCESS_READ);
    IS_GONE(OTHER, ACCESS_WRITE);
}

static void it_comes_back_for_the_same_way_of_looking_only(void **state)
{
    (void)state;
    lab->cpu->mode = TLB_USER;
    IS_GONE(LINEAR, ACCESS_READ);
}

static void flushes_forget_displaced_pages(void **state)
{
    (void)state;
    tlb_flush_page(lab->cpu, LINEAR);
    IS_GONE(LINEAR, ACCESS_READ);
    assert_non_null(host_read(lab->cpu, OTHER, 1));
}

static void a_cr3_write_forgets_displaced_pages(void **state)
{
    (void)state;
    tlb_flush_nonglobal(lab->cpu);
    IS_GONE(LINEAR, ACCESS_READ);
    assert_non_null(host_read(lab->cpu, OTHER, 1));
}

static void a_global_page_is_global_when_it_comes_back(void **state)
{
    (void)state;
    fill(LINEAR, ACCESS_READ);
    fill(OTHER, ACCESS_READ);
    tlb_flush_nonglobal(lab->cpu);
    assert_non_null(host_read(lab->cpu, OTHER, 1));
    tlb_flush(lab->cpu);
    IS_GONE(OTHER, ACCESS_READ);
}

static void a_local_page_is_local_when_it_comes_back(void **state)
{
    (void)state;
    fill(LINEAR, ACCESS_READ);
    tlb_flush_nonglobal(lab->cpu);
    assert_null(host_read(lab->cpu, LINEAR, 1));
    IS_GONE(OTHER, ACCESS_READ); /* the victim now */
}

static void first_code_in_a_displaced_page_makes_it_walk(void **state)
{
    (void)state;
    tlb_protect_page(&lab->vm, mmu_lab_at(lab, 0x200000));
    IS_GONE(LINEAR, ACCESS_WRITE);
}

static void a_change_of_wp_forgets_what_the_supervisor_may_write(void **state)
{
    (void)state;
    struct vcpu *cpu = lab->cpu;
    fill(LINEAR, ACCESS_WRITE);
    assert_non_null(host_write(cpu, LINEAR, 1));
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x202000, 12, PTE_P | PTE_W | PTE_U, MMU_LAB_UPPER);
    cpu->mode = TLB_USER;
    fill(LINEAR + PAGE_SIZE, ACCESS_WRITE);
    cpu->mode = TLB_KERNEL;
    tlb_forget_writes(cpu);
    assert_null(host_write(cpu, LINEAR, 1));
    assert_non_null(host_read(cpu, LINEAR, 1));
    assert_int_equal(cpu->tlb_table[TLB_USER][tlb_slot(LINEAR + PAGE_SIZE)].write,
                     LINEAR + PAGE_SIZE);
    IS_GONE(LINEAR, ACCESS_WRITE);
    IS_GONE(OTHER, ACCESS_READ); /* no victims are left */
    assert_non_null(host_read(cpu, LINEAR, 1));
}

/* ---- translated code ---- */
static void find(uint64_t linear, enum fast_access access)
{
    lab->cpu->fast->page[FAST_KERNEL][access][fast_page_slot(linear)] = -linear;
}

static bool is_found(uint64_t linear, enum fast_access access)
{
    return lab->cpu->fast->page[FAST_KERNEL][access][fast_page_slot(linear)] == -linear;
}

static void translated_code_finds_a_displaced_page_until_it_is_forgotten(void **state)
{
    (void)state;
    find(OTHER, FAST_READ);
    fill(LINEAR, ACCESS_WRITE); /* displaces the other */
    find(LINEAR, FAST_WRITE);
    assert_true(is_found(OTHER, FAST_READ));
    tlb_protect_page(&lab->vm, mmu_lab_at(lab, 0x200000));
    assert_false(is_found(LINEAR, FAST_WRITE));
    assert_false(is_found(OTHER, FAST_READ)); /* no victims are left */
}

static void it_does_not_after_a_flush(void **state)
{
    (void)state;
    find(LINEAR, FAST_READ);
    find(LINEAR, FAST_WRITE);
    find(OTHER, FAST_READ);
    tlb_flush_nonglobal(lab->cpu);
    assert_false(is_found(LINEAR, FAST_READ));
    assert_false(is_found(LINEAR, FAST_WRITE));
    assert_true(is_found(OTHER, FAST_READ)); /* global, and in its slot */
    tlb_flush(lab->cpu);
    assert_false(is_found(OTHER, FAST_READ));
}

static void it_does_not_when_others_are_displaced(void **state)
{
    (void)state;
    find(LINEAR, FAST_READ);
    find(LINEAR, FAST_WRITE);
    find(OTHER, FAST_READ);
    for (uint64_t n = 2; n < 4 + TLB_VICTIMS; n++) {
        uint64_t linear = LINEAR + n * TLB_ENTRIES * PAGE_SIZE;
        mmu_lab_map(lab, linear, 0x202000, 12, PTE_P, MMU_LAB_UPPER);
        fill(linear, ACCESS_READ);
    }
    assert_false(is_found(LINEAR, FAST_READ));
    assert_false(is_found(LINEAR, FAST_WRITE));
    assert_false(is_found(OTHER, FAST_READ));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_displaced_page_comes_back_without_a_walk),
        TEST(it_comes_back_for_the_same_way_of_looking_only),
        TEST(flushes_forget_displaced_pages),
        TEST(a_cr3_write_forgets_displaced_pages),
        TEST(a_global_page_is_global_when_it_comes_back),
        TEST(a_local_page_is_local_when_it_comes_back),
        TEST(a_change_of_wp_forgets_what_the_supervisor_may_write),
        TEST(first_code_in_a_displaced_page_makes_it_walk),
        TEST(translated_code_finds_a_displaced_page_until_it_is_forgotten),
        TEST(it_does_not_after_a_flush),
        TEST(it_does_not_when_others_are_displaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
