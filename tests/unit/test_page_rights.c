/* SPDX-License-Identifier: MIT */
/* Who may access what: the rights of pages in every mode of paging, and the error codes (SDM 3A 4.6, 4.7). */
#include "tests/unit/mmu_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define USED   (PTE_A | PTE_D)
#define LINEAR 0x40200000ull /* begins a page of every size but 1 GiB */

struct rule {                                  /* a case, as SDM 3A 4.6.1 speaks of it */
    bool user_page, writable, execute_disable; /* of the translation as a whole */
    bool user_access, ac;
    enum access access;
    bool wp, smep, smap;
};

/* The sentences of SDM 3A 4.6.1, in their order. */
static bool allowed(const struct rule *r)
{
    if (!r->user_access) {
        switch (r->access) {
        case ACCESS_READ: /* "Data may be read from any supervisor-mode address"; user: SMAP, AC */
            return !r->user_page || !r->smap || r->ac;
        case ACCESS_WRITE:
            if (!r->user_page)
                return !r->wp || r->writable;
            if (r->smap && !r->ac)
                return false;
            return !r->wp || r->writable;
        default:
            if (r->user_page && r->smep)
                return false;
            return !r->execute_disable;
        }
    }
    if (!r->user_page)
        return false;
    return r->access == ACCESS_READ    ? true
           : r->access == ACCESS_WRITE ? r->writable
                                       : !r->execute_disable;
}

static uint32_t expected_error(const struct rule *r, bool nxe, bool pae)
{
    return PF_PRESENT | (r->access == ACCESS_WRITE ? PF_WRITE : 0) |
           (r->user_access ? PF_USER : 0) |
           (r->access == ACCESS_FETCH && ((nxe && pae) || r->smep) ? PF_FETCH : 0);
}

static void check_rule(struct mmu_lab *lab, const struct rule *r, bool nxe, bool pae)
{
    struct vcpu *cpu = lab->cpu;
    cpu->cr0 = (cpu->cr0 & ~(uint64_t)CR0_WP) | (r->wp ? CR0_WP : 0);
    cpu->cr4 = (cpu->cr4 & ~(uint64_t)(CR4_SMEP | CR4_SMAP)) | (r->smep ? CR4_SMEP : 0) |
               (r->smap ? CR4_SMAP : 0);
    enum tlb_mode mode = r->user_access ? TLB_USER : r->ac ? TLB_KERNEL_AC : TLB_KERNEL;
    struct translation t = tlb_walk(cpu, LINEAR + 0x123, r->access, mode);
    assert_int_equal(t.fault, !allowed(r));
    if (t.fault) {
        assert_int_equal(t.error, expected_error(r, nxe, pae));
        return;
    }
    assert_int_equal(t.physical, 0x200123);
    struct rule other = *r;
    other.access = ACCESS_READ;
    assert_int_equal(t.readable, allowed(&other));
    other.access = ACCESS_FETCH;
    assert_int_equal(t.executable, allowed(&other));
    other.access = ACCESS_WRITE; /* the dirty bit is set in these tests */
    assert_int_equal(t.writable, allowed(&other));
}

/* All that can be said of one translation, `bits` being the case's number. */
static void check_rules(struct mmu_lab *lab, bool user_page, bool writable, bool execute_disable,
                        bool nxe)
{
    bool pae = lab->paging >= MMU_LAB_PAE;
    for (unsigned bits = 0; bits < 32; bits++)
        for (enum access access = ACCESS_READ; access <= ACCESS_FETCH; access++) {
            struct rule r = {.user_page = user_page,
                             .writable = writable,
                             .execute_disable = execute_disable,
                             .access = access,
                             .user_access = bits & 1,
                             .ac = bits & 2,
                             .wp = bits & 4,
                             .smep = bits & 8,
                             .smap = bits & 16};
            check_rule(lab, &r, nxe, pae);
        }
}

/* U, W and (with NXE) XD in the leaf and in all other levels, for pages of 2^shift bytes. */
static void check_pages(enum mmu_lab_paging paging, unsigned shift)
{
    struct mmu_lab *lab = mmu_lab_create(paging);
    for (unsigned bits = 0; bits < 64; bits++) {
        bool wide = paging != MMU_LAB_32, pae_root = paging == MMU_LAB_PAE && shift == 21;
        uint64_t leaf = PTE_P | USED | (bits & 1 ? PTE_W : 0) | (bits & 2 ? PTE_U : 0);
        uint64_t upper = PTE_P | PTE_A | (bits & 4 ? PTE_W : 0) | (bits & 8 ? PTE_U : 0);
        bool upper_counts = !pae_root && !(paging == MMU_LAB_32 && shift == 22);
        if (wide && bits & 16)
            leaf |= PTE_NX;
        if (wide && bits & 32)
            upper |= PTE_NX;
        bool nx = wide && (bits & 16 || (upper_counts && bits & 32));
        uint64_t both = upper_counts ? leaf & upper : leaf;
        mmu_lab_map(lab, LINEAR, 0x200000 & ~((1ull << shift) - 1), shift, leaf, upper);
        if (shift == 22) /* 4 MiB pages begin at 0: LINEAR is their second half */
            assert_int_equal(LINEAR & 0x3fffff, 0x200000);
        check_rules(lab, both & PTE_U, both & PTE_W, nx, true);
    }
    mmu_lab_free(lab);
}

static void rights_of_4k_pages_in_long_mode(void **state)
{
    (void)state;
    check_pages(MMU_LAB_LONG, 12);
}
static void rights_of_2m_pages_in_long_mode(void **state)
{
    (void)state;
    check_pages(MMU_LAB_LONG, 21);
}
static void rights_of_pae_pages(void **state)
{
    (void)state;
    check_pages(MMU_LAB_PAE, 12);
    check_pages(MMU_LAB_PAE, 21);
}
static void rights_of_32_bit_pages(void **state)
{
    (void)state;
    check_pages(MMU_LAB_32, 12);
    check_pages(MMU_LAB_32, 22);
}

static void without_nxe_the_fetch_bit_is_reported_by_smep_only(void **state)
{
    (void)state;
    for (enum mmu_lab_paging paging = MMU_LAB_32; paging <= MMU_LAB_LONG; paging++) {
        struct mmu_lab *lab = mmu_lab_create(paging);
        lab->cpu->efer &= ~(uint64_t)EFER_NXE;
        mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | USED, MMU_LAB_UPPER);
        check_rules(lab, false, true, false, false);
        mmu_lab_free(lab);
    }
}

/* SDM 3A 4.6.2 and 4.7: bit 5 tells that the key forbade it, whatever else did. */
static void protection_keys_forbid_data_in_user_pages(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    cpu->cr4 |= CR4_PKE;
    for (unsigned bits = 0; bits < 256; bits++) {
        bool ad = bits & 1, wd = bits & 2, wp = bits & 4, user = bits & 8, user_page = bits & 16,
             writable = bits & 32, on = bits & 64, other_key = bits & 128;
        cpu->cr4 = on ? cpu->cr4 | CR4_PKE : cpu->cr4 & ~(uint64_t)CR4_PKE;
        cpu->cr0 = (cpu->cr0 & ~(uint64_t)CR0_WP) | (wp ? CR0_WP : 0);
        cpu->pkru = (ad ? 1u << 10 : 0) | (wd ? 1u << 11 : 0);
        mmu_lab_map(lab, LINEAR, 0x200000, 12,
                    PTE_P | USED | (writable ? PTE_W : 0) | (user_page ? PTE_U : 0) |
                        (other_key ? 6ull : 5ull) << 59,
                    MMU_LAB_UPPER);
        for (enum access access = ACCESS_READ; access <= ACCESS_FETCH; access++) {
            bool keyed = on && user_page && !other_key && access != ACCESS_FETCH &&
                         (ad || (wd && access == ACCESS_WRITE && (wp || user)));
            struct rule r = {.user_page = user_page,
                             .writable = writable,
                             .user_access = user,
                             .access = access,
                             .wp = wp};
            struct translation t = tlb_walk(cpu, LINEAR, access, user ? TLB_USER : TLB_KERNEL);
            assert_int_equal(t.fault, keyed || !allowed(&r));
            if (t.fault)
                assert_int_equal(t.error, expected_error(&r, true, true) | (keyed ? PF_KEY : 0));
        }
    }
    mmu_lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_of_4k_pages_in_long_mode),
        cmocka_unit_test(rights_of_2m_pages_in_long_mode),
        cmocka_unit_test(rights_of_pae_pages),
        cmocka_unit_test(rights_of_32_bit_pages),
        cmocka_unit_test(without_nxe_the_fetch_bit_is_reported_by_smep_only),
        cmocka_unit_test(protection_keys_forbid_data_in_user_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
