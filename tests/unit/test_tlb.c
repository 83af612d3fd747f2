/* The walk in every mode against SDM 3A 4.6, and what the TLB may remember. */
#include "tests/unit/mmu_lab.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define UPPER  (PTE_P | PTE_W | PTE_U)
#define USED   (PTE_A | PTE_D)
#define LINEAR 0x40200000ull /* begins a page of every size but 1 GiB */

static struct translation walk(struct mmu_lab *lab, uint64_t linear, enum access access)
{
    return tlb_walk(lab->cpu, linear, access, lab->cpu->mode);
}

static uint64_t filled(struct mmu_lab *lab, uint64_t linear, enum access access)
{
    bool device;
    return tlb_fill(lab->cpu, NULL, linear, access, lab->cpu->mode, &device);
}

static struct tlb_entry *slot(struct mmu_lab *lab, uint64_t linear)
{
    return &lab->cpu->tlb_table[lab->cpu->mode][tlb_slot(linear)];
}

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

/* ---- permissions ---- */

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
        mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | USED, UPPER);
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
                    UPPER);
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

/* ---- structures ---- */

static void check_not_present_and_reserved(enum mmu_lab_paging paging, unsigned level,
                                           uint64_t reserved)
{
    struct mmu_lab *lab = mmu_lab_create(paging);
    mmu_lab_user(lab, true);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | PTE_U, UPPER);
    uint8_t *entry = mmu_lab_entry(lab, LINEAR, level);
    uint64_t good = value_of(entry);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(reserved >> bit & 1))
            continue;
        set(entry, good | 1ull << bit);
        struct translation t = walk(lab, LINEAR, ACCESS_WRITE);
        assert_true(t.fault);
        assert_int_equal(t.error, PF_PRESENT | PF_WRITE | PF_USER | PF_RESERVED);
        set(entry, (good | 1ull << bit) & ~PTE_P); /* not present: nothing else counts */
        t = walk(lab, LINEAR, ACCESS_READ);
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
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_NX, UPPER);
    assert_false(walk(lab, LINEAR, ACCESS_READ).fault);
    lab->cpu->efer &= ~(uint64_t)EFER_NXE;
    struct translation t = walk(lab, LINEAR, ACCESS_READ);
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
            mmu_lab_map(lab, 0x40000000, 1ull << bit, row[n].shift, PTE_P, UPPER);
            struct translation t = walk(lab, 0x40000000, ACCESS_READ);
            assert_true(t.fault);
            assert_int_equal(t.error, PF_PRESENT | PF_RESERVED);
            mmu_lab_free(lab);
        }
}

static void large_pages_give_their_address(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, 0xffffff8040000000, 0x40000000, 30, PTE_P | PTE_G, UPPER);
    mmu_lab_map(lab, 0x80600000, 0x400000 | 1 << 12 /* PAT */, 21, PTE_P, UPPER);
    struct translation t = walk(lab, 0xffffff807abcdef1, ACCESS_READ);
    assert_int_equal(t.physical, 0x7abcdef1);
    assert_int_equal(t.shift, 30);
    assert_true(t.device);
    assert_false(t.global); /* CR4.PGE is clear */
    lab->cpu->cr4 |= CR4_PGE;
    assert_true(walk(lab, 0xffffff807abcdef1, ACCESS_READ).global);
    t = walk(lab, 0x807ffff8, ACCESS_READ);
    assert_int_equal(t.physical, 0x5ffff8);
    assert_int_equal(t.shift, 21);
    assert_false(t.device);
    mmu_lab_free(lab);

    lab = mmu_lab_create(MMU_LAB_32);
    mmu_lab_map(lab, 0x80400000, 0xc0400000 | 0x5a << 13 /* PSE-36 */, 22, PTE_P, 0);
    assert_int_equal(walk(lab, 0x80423456, ACCESS_READ).physical, 0x5ac0423456);
    lab->cpu->cr4 &=
        ~(uint64_t)CR4_PSE; /* then PS is ignored: the entry leads to a table that is not RAM */
    assert_int_equal(walk(lab, 0x80423456, ACCESS_READ).physical, 0xfffff456);
    mmu_lab_free(lab);
}

static void accessed_and_dirty_bits_are_set_by_what_succeeds(void **state)
{
    (void)state;
    for (enum mmu_lab_paging paging = MMU_LAB_32; paging <= MMU_LAB_LONG; paging++) {
        struct mmu_lab *lab = mmu_lab_create(paging);
        uint8_t *leaf = mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P, UPPER);
        uint8_t *above = mmu_lab_entry(lab, LINEAR, 2);
        assert_true(walk(lab, LINEAR, ACCESS_WRITE).fault);
        assert_int_equal(*leaf & USED, 0);
        assert_int_equal(*above & PTE_A, 0);
        assert_false(walk(lab, LINEAR, ACCESS_READ).fault);
        assert_int_equal(*leaf & USED, PTE_A);
        assert_int_equal(*above & USED, PTE_A);
        *leaf |= PTE_W;
        assert_false(walk(lab, LINEAR, ACCESS_READ).writable); /* not dirty yet */
        assert_true(walk(lab, LINEAR, ACCESS_WRITE).writable);
        assert_int_equal(*leaf & USED, USED);
        assert_true(walk(lab, LINEAR, ACCESS_FETCH).writable);
        mmu_lab_free(lab);
    }
}

static void peeking_leaves_no_trace_and_never_faults(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    uint64_t physical;
    uint8_t *leaf = mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_NX, UPPER);
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
    uint8_t *leaf = mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | PTE_A, UPPER | PTE_A);
    uint64_t table = memory_physical(&lab->vm.memory, leaf);
    lab->vm.memory.code_lines[table >> PAGE_SHIFT] = ~0ull;
    walk(lab, LINEAR, ACCESS_READ);
    assert_int_equal(lab->changes, 0);
    walk(lab, LINEAR, ACCESS_WRITE);
    assert_int_equal(lab->changes, 1);
    assert_int_equal(lab->changed_at, table);
    mmu_lab_free(lab);
}

static void entries_outside_ram_are_all_ones_and_no_device_is_asked(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    lab->cpu->cr3 = MMU_LAB_DEVICE;
    struct translation t = walk(lab, LINEAR, ACCESS_WRITE);
    assert_true(t.fault);
    assert_int_equal(t.error, PF_PRESENT | PF_WRITE | PF_RESERVED);
    mmu_lab_free(lab);

    lab = mmu_lab_create(MMU_LAB_32);
    lab->cpu->cr3 = MMU_LAB_DEVICE;
    lab->cpu->cr4 &= ~(uint64_t)CR4_PSE;
    t = walk(lab, 0x12345678, ACCESS_WRITE);
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
        assert_true(walk(lab, bad[n], ACCESS_READ).not_canonical);
        assert_int_equal(MMU_LAB_CATCH(lab, filled(lab, bad[n], ACCESS_READ)), EXC_GP);
        assert_true(lab->cpu->fault.has_error);
        assert_int_equal(lab->cpu->fault.error, 0);
    }
    assert_false(walk(lab, 0xffff800000000000, ACCESS_READ).not_canonical);
    assert_false(walk(lab, 0x00007fffffffffff, ACCESS_READ).not_canonical);
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
    struct translation t = walk(lab, 0x300000123, ACCESS_WRITE);
    assert_false(t.fault);
    assert_int_equal(t.physical, 0x123);
    assert_true(t.readable && t.writable && t.executable && !t.device);
    assert_true(walk(lab, 0xfee00000, ACCESS_READ).device);
    mmu_lab_free(lab);
}

static void pdpte_registers_are_loaded_and_checked(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_PAE);
    struct vcpu *cpu = lab->cpu;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P, UPPER);
    uint8_t *pdpte = mmu_lab_entry(lab, LINEAR, 3);
    uint64_t good = value_of(pdpte);
    assert_true(tlb_load_pdptes(cpu, cpu->cr3));
    set(pdpte, 0); /* the registers still hold it */
    assert_false(walk(lab, LINEAR, ACCESS_READ).fault);
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
    assert_false(walk(lab, LINEAR, ACCESS_READ).fault);
    set(pdpte + 0x20, good | 2);
    assert_int_equal(walk(lab, LINEAR, ACCESS_READ).error, PF_PRESENT | PF_RESERVED);
    mmu_lab_free(lab);
}

/* ---- the TLB ---- */

static void a_read_enters_no_write_until_the_page_is_dirty(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W, UPPER);
    assert_int_equal(filled(lab, LINEAR + 8, ACCESS_READ), 0x200008);
    struct tlb_entry *e = slot(lab, LINEAR);
    assert_int_equal(e->read, LINEAR);
    assert_int_equal(e->fetch, LINEAR);
    assert_int_equal(e->write, TLB_INVALID);
    assert_ptr_equal(host_read(lab->cpu, LINEAR + 8, 8), mmu_lab_at(lab, 0x200008));
    assert_null(host_write(lab->cpu, LINEAR + 8, 8));
    assert_null(host_read(lab->cpu, LINEAR + 0xffd, 4)); /* crosses */
    filled(lab, LINEAR, ACCESS_WRITE);
    assert_ptr_equal(host_write(lab->cpu, LINEAR + 8, 8), mmu_lab_at(lab, 0x200008));
    mmu_lab_free(lab);
}

static void faults_carry_address_and_code(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    mmu_lab_user(lab, true);
    assert_int_equal(MMU_LAB_CATCH(lab, filled(lab, LINEAR + 0x77, ACCESS_WRITE)), EXC_PF);
    assert_true(cpu->fault.has_error);
    assert_int_equal(cpu->fault.error, PF_WRITE | PF_USER);
    assert_int_equal(cpu->fault.cr2, LINEAR + 0x77);
    assert_int_equal(slot(lab, LINEAR)->read, TLB_INVALID);
    mmu_lab_free(lab);
}

static void devices_code_and_watched_pages_are_not_entered(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    bool device;
    mmu_lab_map(lab, LINEAR, MMU_LAB_DEVICE, 12, PTE_P | PTE_W, UPPER);
    tlb_fill(cpu, NULL, LINEAR, ACCESS_WRITE, cpu->mode, &device);
    assert_true(device);
    assert_int_equal(slot(lab, LINEAR)->read, TLB_INVALID);

    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W, UPPER);
    lab->vm.memory.code_lines[0x200] = 1;
    filled(lab, LINEAR, ACCESS_WRITE);
    assert_int_equal(slot(lab, LINEAR)->read, LINEAR);
    assert_null(host_write(cpu, LINEAR, 1));
    lab->vm.memory.code_lines[0x200] = 0;

    cpu->dr[1] = LINEAR + 0xff8;
    cpu->dr[7] = 0x400 | 4 | 1u << 20 | 2u << 22; /* writes of 8 bytes */
    filled(lab, LINEAR, ACCESS_WRITE);
    assert_int_equal(slot(lab, LINEAR)->read, TLB_INVALID);
    assert_int_equal(slot(lab, LINEAR)->write, TLB_INVALID);
    assert_int_equal(slot(lab, LINEAR)->fetch, LINEAR);
    cpu->dr[7] &= ~0xffull;
    filled(lab, LINEAR, ACCESS_WRITE);
    assert_non_null(host_write(cpu, LINEAR, 1));
    mmu_lab_free(lab);
}

static void first_code_in_a_page_protects_it_in_all_tlbs(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *other = vcpu_create(&lab->vm, 1);
    lab->vm.vcpus[lab->vm.vcpu_count++] = other;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | PTE_U, UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x200000, 12, PTE_P | PTE_W | PTE_U, UPPER);
    mmu_lab_map(lab, LINEAR + 2 * PAGE_SIZE, 0x201000, 12, PTE_P | PTE_W | PTE_U, UPPER);
    for (unsigned page = 0; page < 3; page++)
        filled(lab, LINEAR + page * PAGE_SIZE, ACCESS_WRITE);
    other->cr0 = CR0_PE;
    bool device;
    tlb_fill(other, NULL, 0x200000, ACCESS_WRITE, other->mode, &device);
    assert_non_null(host_write(other, 0x200000, 1));
    tlb_protect_page(&lab->vm, mmu_lab_at(lab, 0x200000));
    assert_null(host_write(lab->cpu, LINEAR, 1));
    assert_null(host_write(lab->cpu, LINEAR + PAGE_SIZE, 1));
    assert_non_null(host_read(lab->cpu, LINEAR, 1));
    assert_non_null(host_write(lab->cpu, LINEAR + 2 * PAGE_SIZE, 1));
    assert_null(host_write(other, 0x200000, 1));
    vcpu_destroy(other);
    mmu_lab_free(lab);
}

static bool known(struct mmu_lab *lab, uint64_t linear)
{
    return host_read(lab->cpu, linear, 1);
}

static void a_cr3_write_keeps_global_pages_only(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    cpu->cr4 |= CR4_PGE;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_G, UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x201000, 12, PTE_P, UPPER);
    filled(lab, LINEAR, ACCESS_READ);
    filled(lab, LINEAR + PAGE_SIZE, ACCESS_READ);
    assert_true(known(lab, LINEAR) && known(lab, LINEAR + PAGE_SIZE));
    tlb_flush_nonglobal(cpu);
    assert_true(known(lab, LINEAR));
    assert_false(known(lab, LINEAR + PAGE_SIZE));
    /* the slot of a global page that another one takes is local from then on */
    mmu_lab_map(lab, LINEAR + 0x400000, 0x202000, 12, PTE_P, UPPER);
    filled(lab, LINEAR + 0x400000, ACCESS_READ);
    tlb_flush_nonglobal(cpu);
    assert_false(known(lab, LINEAR + 0x400000));
    filled(lab, LINEAR + 0x400000, ACCESS_READ); /* and the other way round */
    filled(lab, LINEAR, ACCESS_READ);
    tlb_flush_nonglobal(cpu);
    assert_true(known(lab, LINEAR));
    tlb_flush(cpu);
    assert_false(known(lab, LINEAR));
    mmu_lab_free(lab);
}

static void invlpg_drops_a_page_in_every_view(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    bool device;
    cpu->cr4 |= CR4_PGE;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_U | PTE_G, UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x201000, 12, PTE_P, UPPER);
    filled(lab, LINEAR + PAGE_SIZE, ACCESS_READ);
    for (enum tlb_mode mode = 0; mode < TLB_MODES; mode++)
        tlb_fill(cpu, NULL, LINEAR, ACCESS_READ, mode, &device);
    tlb_flush_page(cpu, LINEAR + 0xabc);
    for (enum tlb_mode mode = 0; mode < TLB_MODES; mode++) {
        cpu->tlb = cpu->tlb_table[mode];
        assert_false(known(lab, LINEAR));
    }
    cpu->tlb = cpu->tlb_table[cpu->mode];
    assert_true(known(lab, LINEAR + PAGE_SIZE));
    mmu_lab_free(lab);
}

static void invlpg_drops_all_of_a_large_page(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, 0x80600000, 0x400000, 21, PTE_P, UPPER);
    mmu_lab_map(lab, 0xffffff8000000000, 0, 30, PTE_P, UPPER);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P, UPPER);
    filled(lab, 0x80600000, ACCESS_READ);
    filled(lab, 0x807ff000, ACCESS_READ);
    filled(lab, 0xffffff8000001000, ACCESS_READ);
    filled(lab, 0xffffff8000702000, ACCESS_READ);
    tlb_flush_page(lab->cpu, 0x80700000);
    assert_false(known(lab, 0x80600000) || known(lab, 0x807ff000));
    assert_true(known(lab, 0xffffff8000001000) && known(lab, 0xffffff8000702000));
    tlb_flush_page(lab->cpu, 0xffffff803f000000);
    assert_false(known(lab, 0xffffff8000001000) || known(lab, 0xffffff8000702000));
    mmu_lab_free(lab);

    lab = mmu_lab_create(MMU_LAB_32);
    mmu_lab_map(lab, 0x80400000, 0x400000, 22, PTE_P, 0);
    filled(lab, 0x80400000, ACCESS_READ);
    filled(lab, 0x807ff000, ACCESS_READ);
    tlb_flush_page(lab->cpu, 0x80600000);
    assert_false(known(lab, 0x80400000) || known(lab, 0x807ff000));
    mmu_lab_free(lab);
}

/* ---- the jump cache ---- */

static struct jump_entry *jump_to(struct mmu_lab *lab, uint64_t rip, struct block *block)
{
    struct jump_entry *entry = &lab->cpu->jump_cache[(rip ^ rip >> 11) & (JUMP_CACHE_ENTRIES - 1)];
    filled(lab, rip, ACCESS_FETCH);
    lab->cpu->rip = rip;
    block->key = lab->cpu->jump_key;
    tlb_enter_jump(lab->cpu, entry, block);
    assert_int_equal(entry->tag, rip ^ lab->cpu->jump_key);
    return entry;
}

static void jumps_go_with_their_page(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    struct block *plain = calloc(1, sizeof *plain), *crossing = calloc(1, sizeof *crossing);
    crossing->crosses = true;
    cpu->cr4 |= CR4_PGE;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_G, UPPER);
    mmu_lab_map(lab, LINEAR + 0x3000, 0x203000, 12, PTE_P, UPPER);
    struct jump_entry *global = jump_to(lab, LINEAR + 0x10, plain);
    struct jump_entry *local = jump_to(lab, LINEAR + 0x3100, plain);
    struct jump_entry *cross = jump_to(lab, LINEAR + 0xfff, crossing);
    tlb_flush_nonglobal(cpu);
    assert_int_equal(local->tag, 0);
    assert_int_equal(cross->tag, 0); /* its second page may be local */
    assert_int_equal(global->tag, (LINEAR + 0x10) ^ cpu->jump_key);

    local = jump_to(lab, LINEAR + 0x3100, plain);
    cross = jump_to(lab, LINEAR + 0xfff, crossing);
    tlb_flush_page(cpu, LINEAR + 0x2000);
    assert_true(local->tag && global->tag && cross->tag);
    tlb_flush_page(cpu, LINEAR + 0x1000); /* where the crossing block ends */
    assert_int_equal(cross->tag, 0);
    tlb_flush_page(cpu, LINEAR + 0x3000);
    assert_int_equal(local->tag, 0);

    global = jump_to(lab, LINEAR + 0x10, plain);
    tlb_flush(cpu);
    assert_int_equal(global->tag, 0);
    free(plain);
    free(crossing);
    mmu_lab_free(lab);
}

static void watchpoints_match_by_length_and_kind(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    static const unsigned bytes[4] = {1, 2, 8, 4};
    for (unsigned length = 0; length < 4; length++)
        for (unsigned kind = 0; kind < 4; kind++)
            for (unsigned n = 0; n < 4; n++) {
                uint64_t first = 0x1000, size = bytes[length];
                cpu->dr[n] = first + size - 1; /* low bits are ignored */
                cpu->dr[7] = 1ull << (2 * n + 1) | (uint64_t)(length << 2 | kind) << (16 + 4 * n);
                uint64_t on_write = kind & 1 ? 1ull << n : 0, on_read = kind == 3 ? on_write : 0;
                assert_int_equal(tlb_watchpoints(cpu, first, 1, true), on_write);
                assert_int_equal(tlb_watchpoints(cpu, first, 1, false), on_read);
                assert_int_equal(tlb_watchpoints(cpu, first + size - 1, 8, true), on_write);
                assert_int_equal(tlb_watchpoints(cpu, first - 4, 5, true), on_write);
                assert_int_equal(tlb_watchpoints(cpu, first - 4, 4, true), 0);
                assert_int_equal(tlb_watchpoints(cpu, first + size, 8, true), 0);
                cpu->dr[7] &= ~0xffull; /* not enabled */
                assert_int_equal(tlb_watchpoints(cpu, first, 8, true), 0);
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
        cmocka_unit_test(a_read_enters_no_write_until_the_page_is_dirty),
        cmocka_unit_test(faults_carry_address_and_code),
        cmocka_unit_test(devices_code_and_watched_pages_are_not_entered),
        cmocka_unit_test(first_code_in_a_page_protects_it_in_all_tlbs),
        cmocka_unit_test(a_cr3_write_keeps_global_pages_only),
        cmocka_unit_test(invlpg_drops_a_page_in_every_view),
        cmocka_unit_test(invlpg_drops_all_of_a_large_page),
        cmocka_unit_test(jumps_go_with_their_page),
        cmocka_unit_test(watchpoints_match_by_length_and_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
