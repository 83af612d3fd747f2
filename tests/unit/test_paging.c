/* SPDX-License-Identifier: MIT */
/* The walk of the page tables in every mode: reserved bits, large pages, accessed and dirty bits, PDPTE registers
 * (SDM 3A 4.3 to 4.8). */
#include "tests/unit/mmu_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define USED   (PTE_A | PTE_D)
#define LINEAR 0x40200000ull /* begins a page of every size but 1 GiB */

static uint64_t value_of(const void *entry)
{
    uint64_t value;
    memcpy(&value, entry, 8);
    return value;
}

static void set(void *entry, uint64_t value)
{
    memcpy(entry, &value, 8);
}

static void check_not_present_and_reserved(enum mmu_lab_paging paging, unsigned level,
                                           uint64_t reserved)
{
    struct mmu_lab *lab = mmu_lab_create(paging);
    mmu_lab_user(lab, true);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | PTE_U, MMU_LAB_UPPER);
    uint8_t *entry = mmu_lab_entry(lab, LINEAR, level);
    uint64_t good = value_of(entry);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(reserved >> bit & 1))
            continue;
        set(entry, good | 1ull << bit);
        struct translation t = mmu_lab_walk(lab, LINEAR, ACCESS_WRITE);
        assert_true(t.fault);
        assert_int_equal(t.error, PF_PRESENT | PF_WRITE | PF_USER | PF_RESERVED);
        set(entry, (good | 1ull << bit) & ~PTE_P); /* not present: nothing else counts */
        t = mmu_lab_walk(lab, LINEAR, ACCESS_READ);
        assert_true(t.fault);
        assert_int_equal(t.error, PF_USER);
        assert_int_equal(value_of(entry), (good | 1ull << bit) & ~PTE_P);
    }
    mmu_lab_free(lab);
}

static void reserved_bits_and_absence_are_found_at_every_level(void **state)
{
    (void)state;
    const uint64_t high = 0x000fff0000000000; /* 51:40 */
    for (unsigned level = 1; level <= 3; level++)
        check_not_present_and_reserved(MMU_LAB_LONG, level, high);
    check_not_present_and_reserved(MMU_LAB_LONG, 4, high | PTE_PS);
    check_not_present_and_reserved(MMU_LAB_PAE, 1, 0x7fffff0000000000);
    check_not_present_and_reserved(MMU_LAB_PAE, 2, 0x7fffff0000000000);
}

static void no_execute_is_reserved_without_nxe(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_NX, MMU_LAB_UPPER);
    assert_false(mmu_lab_walk(lab, LINEAR, ACCESS_READ).fault);
    lab->cpu->efer &= ~(uint64_t)EFER_NXE;
    struct translation t = mmu_lab_walk(lab, LINEAR, ACCESS_READ);
    assert_true(t.fault);
    assert_int_equal(t.error, PF_PRESENT | PF_RESERVED);
    mmu_lab_free(lab);
}

static void large_pages_have_reserved_address_bits(void **state)
{
    (void)state;
    static const struct {
        enum mmu_lab_paging paging;
        unsigned shift, low, high;
    } row[] = {{MMU_LAB_LONG, 21, 13, 20},
               {MMU_LAB_LONG, 30, 13, 29},
               {MMU_LAB_PAE, 21, 13, 20},
               {MMU_LAB_32, 22, 21, 21}};
    for (unsigned n = 0; n < 4; n++)
        for (unsigned bit = row[n].low; bit <= row[n].high; bit++) {
            struct mmu_lab *lab = mmu_lab_create(row[n].paging);
            mmu_lab_map(lab, 0x40000000, 1ull << bit, row[n].shift, PTE_P, MMU_LAB_UPPER);
            struct translation t = mmu_lab_walk(lab, 0x40000000, ACCESS_READ);
            assert_true(t.fault);
            assert_int_equal(t.error, PF_PRESENT | PF_RESERVED);
            mmu_lab_free(lab);
        }
}

static void large_pages_give_their_address(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, 0xffffff8040000000, 0x40000000, 30, PTE_P | PTE_G, MMU_LAB_UPPER);
    mmu_lab_map(lab, 0x80600000, 0x400000 | 1 << 12 /* PAT */, 21, PTE_P, MMU_LAB_UPPER);
    struct translation t = mmu_lab_walk(lab, 0xffffff807abcdef1, ACCESS_READ);
    assert_int_equal(t.physical, 0x7abcdef1);
    assert_int_equal(t.shift, 30);
    assert_true(t.device);
    assert_false(t.global); /* CR4.PGE is clear */
    lab->cpu->cr4 |= CR4_PGE;
    assert_true(mmu_lab_walk(lab, 0xffffff807abcdef1, ACCESS_READ).global);
    t = mmu_lab_walk(lab, 0x807ffff8, ACCESS_READ);
    assert_int_equal(t.physical, 0x5ffff8);
    assert_int_equal(t.shift, 21);
    assert_false(t.device);
    mmu_lab_free(lab);

    lab = mmu_lab_create(MMU_LAB_32);
    mmu_lab_map(lab, 0x80400000, 0xc0400000 | 0x5a << 13 /* PSE-36 */, 22, PTE_P, 0);
    assert_int_equal(mmu_lab_walk(lab, 0x80423456, ACCESS_READ).physical, 0x5ac0423456);
    lab->cpu->cr4 &=
        ~(uint64_t)CR4_PSE; /* then PS is ignored: the entry leads to a table that is not RAM */
    assert_int_equal(mmu_lab_walk(lab, 0x80423456, ACCESS_READ).physical, 0xfffff456);
    mmu_lab_free(lab);
}

static void accessed_and_dirty_bits_are_set_by_what_succeeds(void **state)
{
    (void)state;
    for (enum mmu_lab_paging paging = MMU_LAB_32; paging <= MMU_LAB_LONG; paging++) {
        struct mmu_lab *lab = mmu_lab_create(paging);
        uint8_t *leaf = mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P, MMU_LAB_UPPER);
        uint8_t *above = mmu_lab_entry(lab, LINEAR, 2);
        assert_true(mmu_lab_walk(lab, LINEAR, ACCESS_WRITE).fault);
        assert_int_equal(*leaf & USED, 0);
        assert_int_equal(*above & PTE_A, 0);
        assert_false(mmu_lab_walk(lab, LINEAR, ACCESS_READ).fault);
        assert_int_equal(*leaf & USED, PTE_A);
        assert_int_equal(*above & USED, PTE_A);
        *leaf |= PTE_W;
        assert_false(mmu_lab_walk(lab, LINEAR, ACCESS_READ).writable); /* not dirty yet */
        assert_true(mmu_lab_walk(lab, LINEAR, ACCESS_WRITE).writable);
        assert_int_equal(*leaf & USED, USED);
        assert_true(mmu_lab_walk(lab, LINEAR, ACCESS_FETCH).writable);
        mmu_lab_free(lab);
    }
}

static void peeking_leaves_no_trace_and_never_faults(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    uint64_t physical;
    uint8_t *leaf = mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_NX, MMU_LAB_UPPER);
    lab->cpu->cr4 |= CR4_SMAP;
    assert_true(tlb_peek(lab->cpu, LINEAR + 5, &physical));
    assert_int_equal(physical, 0x200005);
    assert_int_equal(*leaf & USED, 0);
    assert_false(tlb_peek(lab->cpu, LINEAR + PAGE_SIZE, &physical));
    assert_false(tlb_peek(lab->cpu, 1ull << 47, &physical));
    lab->cpu->cr0 &= ~(uint64_t)CR0_PG;
    assert_true(tlb_peek(lab->cpu, 0x1234, &physical));
    assert_int_equal(physical, 0x1234);
    mmu_lab_free(lab);
}

static void dirtying_a_page_table_that_holds_code_is_a_write(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    uint8_t *leaf =
        mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | PTE_A, MMU_LAB_UPPER | PTE_A);
    uint64_t table = memory_physical(&lab->vm.memory, leaf);
    lab->vm.memory.code_lines[table >> PAGE_SHIFT] = ~0ull;
    mmu_lab_walk(lab, LINEAR, ACCESS_READ);
    assert_int_equal(lab->changes, 0);
    mmu_lab_walk(lab, LINEAR, ACCESS_WRITE);
    assert_int_equal(lab->changes, 1);
    assert_int_equal(lab->changed_at, table);
    mmu_lab_free(lab);
}

static void entries_outside_ram_are_all_ones_and_no_device_is_asked(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    lab->cpu->cr3 = MMU_LAB_DEVICE;
    struct translation t = mmu_lab_walk(lab, LINEAR, ACCESS_WRITE);
    assert_true(t.fault);
    assert_int_equal(t.error, PF_PRESENT | PF_WRITE | PF_RESERVED);
    mmu_lab_free(lab);

    lab = mmu_lab_create(MMU_LAB_32);
    lab->cpu->cr3 = MMU_LAB_DEVICE;
    lab->cpu->cr4 &= ~(uint64_t)CR4_PSE;
    t = mmu_lab_walk(lab, 0x12345678, ACCESS_WRITE);
    assert_false(t.fault);
    assert_int_equal(t.physical, 0xfffff678);
    assert_true(t.device);
    assert_int_equal(lab->seen_count, 0);
    mmu_lab_free(lab);
}

static void addresses_must_be_canonical(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    static const uint64_t bad[] = {1ull << 47, 0xffff7fffffffffff, 1ull << 63, 1ull << 48};
    for (unsigned n = 0; n < 4; n++) {
        assert_true(mmu_lab_walk(lab, bad[n], ACCESS_READ).not_canonical);
        assert_int_equal(MMU_LAB_CATCH(lab, mmu_lab_fill(lab, bad[n], ACCESS_READ)), EXC_GP);
        assert_true(lab->cpu->fault.has_error);
        assert_int_equal(lab->cpu->fault.error, 0);
    }
    assert_false(mmu_lab_walk(lab, 0xffff800000000000, ACCESS_READ).not_canonical);
    assert_false(mmu_lab_walk(lab, 0x00007fffffffffff, ACCESS_READ).not_canonical);
    struct insn stack = {.segment = SEG_SS};
    bool device;
    assert_int_equal(
        MMU_LAB_CATCH(lab, tlb_fill(lab->cpu, &stack, bad[0], ACCESS_READ, TLB_KERNEL, &device)),
        EXC_SS);
    mmu_lab_free(lab);
}

static void without_paging_linear_is_physical(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_OFF);
    struct translation t = mmu_lab_walk(lab, 0x300000123, ACCESS_WRITE);
    assert_false(t.fault);
    assert_int_equal(t.physical, 0x123);
    assert_true(t.readable && t.writable && t.executable && !t.device);
    assert_true(mmu_lab_walk(lab, 0xfee00000, ACCESS_READ).device);
    mmu_lab_free(lab);
}

static void pdpte_registers_are_loaded_and_checked(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_PAE);
    struct vcpu *cpu = lab->cpu;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P, MMU_LAB_UPPER);
    uint8_t *pdpte = mmu_lab_entry(lab, LINEAR, 3);
    uint64_t good = value_of(pdpte);
    assert_true(tlb_load_pdptes(cpu, cpu->cr3));
    set(pdpte, 0); /* the registers still hold it */
    assert_false(mmu_lab_walk(lab, LINEAR, ACCESS_READ).fault);
    for (unsigned bit = 1; bit < 64; bit++) {
        bool reserved = bit <= 2 || (bit >= 5 && bit <= 8) || bit >= PHYSICAL_BITS;
        set(pdpte, good | 1ull << bit);
        uint64_t before = cpu->pdpte[1];
        assert_int_equal(tlb_load_pdptes(cpu, cpu->cr3), !reserved);
        assert_int_equal(cpu->pdpte[1], reserved ? before : (good | 1ull << bit));
        set(pdpte, (good | 1ull << bit) & ~PTE_P);
        assert_true(tlb_load_pdptes(cpu, cpu->cr3));
        set(pdpte, good);
        assert_true(tlb_load_pdptes(cpu, cpu->cr3));
    }
    /* never loaded for this CR3: the walk looks by itself, also 32 bytes on */
    cpu->cr3 += 0x20;
    set(pdpte + 0x20, good);
    assert_false(mmu_lab_walk(lab, LINEAR, ACCESS_READ).fault);
    set(pdpte + 0x20, good | 2);
    assert_int_equal(mmu_lab_walk(lab, LINEAR, ACCESS_READ).error, PF_PRESENT | PF_RESERVED);
    mmu_lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reserved_bits_and_absence_are_found_at_every_level),
        cmocka_unit_test(no_execute_is_reserved_without_nxe),
        cmocka_unit_test(large_pages_have_reserved_address_bits),
        cmocka_unit_test(large_pages_give_their_address),
        cmocka_unit_test(accessed_and_dirty_bits_are_set_by_what_succeeds),
        cmocka_unit_test(peeking_leaves_no_trace_and_never_faults),
        cmocka_unit_test(dirtying_a_page_table_that_holds_code_is_a_write),
        cmocka_unit_test(entries_outside_ram_are_all_ones_and_no_device_is_asked),
        cmocka_unit_test(addresses_must_be_canonical),
        cmocka_unit_test(without_paging_linear_is_physical),
        cmocka_unit_test(pdpte_registers_are_loaded_and_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
