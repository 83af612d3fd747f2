/* SPDX-License-Identifier: MIT */
/* What the TLB and the jump cache behind it may remember, and what makes them forget (SDM 3A 4.10). */
#include "runtime/translator/fast.h"
#include "tests/unit/mmu_lab.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define LINEAR 0x40200000ull /* begins a page of every size but 1 GiB */

static struct tlb_entry *slot(struct mmu_lab *lab, uint64_t linear)
{
    return &lab->cpu->tlb_table[lab->cpu->mode][tlb_slot(linear)];
}

static void a_read_enters_no_write_until_the_page_is_dirty(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W, MMU_LAB_UPPER);
    assert_int_equal(mmu_lab_fill(lab, LINEAR + 8, ACCESS_READ), 0x200008);
    struct tlb_entry *e = slot(lab, LINEAR);
    assert_int_equal(e->read, LINEAR);
    assert_int_equal(e->fetch, LINEAR);
    assert_int_equal(e->write, TLB_INVALID);
    assert_ptr_equal(host_read(lab->cpu, LINEAR + 8, 8), mmu_lab_at(lab, 0x200008));
    assert_null(host_write(lab->cpu, LINEAR + 8, 8));
    assert_null(host_read(lab->cpu, LINEAR + 0xffd, 4)); /* crosses */
    mmu_lab_fill(lab, LINEAR, ACCESS_WRITE);
    assert_ptr_equal(host_write(lab->cpu, LINEAR + 8, 8), mmu_lab_at(lab, 0x200008));
    mmu_lab_free(lab);
}

static void faults_carry_address_and_code(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    mmu_lab_user(lab, true);
    assert_int_equal(MMU_LAB_CATCH(lab, mmu_lab_fill(lab, LINEAR + 0x77, ACCESS_WRITE)), EXC_PF);
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
    mmu_lab_map(lab, LINEAR, MMU_LAB_DEVICE, 12, PTE_P | PTE_W, MMU_LAB_UPPER);
    tlb_fill(cpu, NULL, LINEAR, ACCESS_WRITE, cpu->mode, &device);
    assert_true(device);
    assert_int_equal(slot(lab, LINEAR)->read, TLB_INVALID);

    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W, MMU_LAB_UPPER);
    lab->vm.memory.code_lines[0x200] = 1;
    mmu_lab_fill(lab, LINEAR, ACCESS_WRITE);
    assert_int_equal(slot(lab, LINEAR)->read, LINEAR);
    assert_null(host_write(cpu, LINEAR, 1));
    lab->vm.memory.code_lines[0x200] = 0;

    cpu->dr[1] = LINEAR + 0xff8;
    cpu->dr[7] = 0x400 | 4 | 1u << 20 | 2u << 22; /* writes of 8 bytes */
    mmu_lab_fill(lab, LINEAR, ACCESS_WRITE);
    assert_int_equal(slot(lab, LINEAR)->read, TLB_INVALID);
    assert_int_equal(slot(lab, LINEAR)->write, TLB_INVALID);
    assert_int_equal(slot(lab, LINEAR)->fetch, LINEAR);
    cpu->dr[7] &= ~0xffull;
    mmu_lab_fill(lab, LINEAR, ACCESS_WRITE);
    assert_non_null(host_write(cpu, LINEAR, 1));
    mmu_lab_free(lab);
}

static void first_code_in_a_page_protects_it_in_all_tlbs(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *other = vcpu_create(&lab->vm, 1);
    lab->vm.vcpus[lab->vm.vcpu_count++] = other;
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_W | PTE_U, MMU_LAB_UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x200000, 12, PTE_P | PTE_W | PTE_U, MMU_LAB_UPPER);
    mmu_lab_map(lab, LINEAR + 2 * PAGE_SIZE, 0x201000, 12, PTE_P | PTE_W | PTE_U, MMU_LAB_UPPER);
    for (unsigned page = 0; page < 3; page++)
        mmu_lab_fill(lab, LINEAR + page * PAGE_SIZE, ACCESS_WRITE);
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
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_G, MMU_LAB_UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x201000, 12, PTE_P, MMU_LAB_UPPER);
    mmu_lab_fill(lab, LINEAR, ACCESS_READ);
    mmu_lab_fill(lab, LINEAR + PAGE_SIZE, ACCESS_READ);
    assert_true(known(lab, LINEAR) && known(lab, LINEAR + PAGE_SIZE));
    tlb_flush_nonglobal(cpu);
    assert_true(known(lab, LINEAR));
    assert_false(known(lab, LINEAR + PAGE_SIZE));
    /* the slot of a global page that another one takes is local from then on */
    mmu_lab_map(lab, LINEAR + 0x400000, 0x202000, 12, PTE_P, MMU_LAB_UPPER);
    mmu_lab_fill(lab, LINEAR + 0x400000, ACCESS_READ);
    tlb_flush_nonglobal(cpu);
    assert_false(known(lab, LINEAR + 0x400000));
    mmu_lab_fill(lab, LINEAR + 0x400000, ACCESS_READ); /* and the other way round */
    mmu_lab_fill(lab, LINEAR, ACCESS_READ);
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
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_U | PTE_G, MMU_LAB_UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0x201000, 12, PTE_P, MMU_LAB_UPPER);
    mmu_lab_fill(lab, LINEAR + PAGE_SIZE, ACCESS_READ);
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
    mmu_lab_map(lab, 0x80600000, 0x400000, 21, PTE_P, MMU_LAB_UPPER);
    mmu_lab_map(lab, 0xffffff8000000000, 0, 30, PTE_P, MMU_LAB_UPPER);
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P, MMU_LAB_UPPER);
    mmu_lab_fill(lab, 0x80600000, ACCESS_READ);
    mmu_lab_fill(lab, 0x807ff000, ACCESS_READ);
    mmu_lab_fill(lab, 0xffffff8000001000, ACCESS_READ);
    mmu_lab_fill(lab, 0xffffff8000702000, ACCESS_READ);
    tlb_flush_page(lab->cpu, 0x80700000);
    assert_false(known(lab, 0x80600000) || known(lab, 0x807ff000));
    assert_true(known(lab, 0xffffff8000001000) && known(lab, 0xffffff8000702000));
    tlb_flush_page(lab->cpu, 0xffffff803f000000);
    assert_false(known(lab, 0xffffff8000001000) || known(lab, 0xffffff8000702000));
    mmu_lab_free(lab);

    lab = mmu_lab_create(MMU_LAB_32);
    mmu_lab_map(lab, 0x80400000, 0x400000, 22, PTE_P, 0);
    mmu_lab_fill(lab, 0x80400000, ACCESS_READ);
    mmu_lab_fill(lab, 0x807ff000, ACCESS_READ);
    tlb_flush_page(lab->cpu, 0x80600000);
    assert_false(known(lab, 0x80400000) || known(lab, 0x807ff000));
    mmu_lab_free(lab);
}

/* ---- the jump cache ---- */

static struct jump_entry *jump_to(struct mmu_lab *lab, uint64_t rip, struct block *block)
{
    struct jump_entry *entry = &lab->cpu->jump_cache[(rip ^ rip >> 11) & (JUMP_CACHE_ENTRIES - 1)];
    mmu_lab_fill(lab, rip, ACCESS_FETCH);
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
    mmu_lab_map(lab, LINEAR, 0x200000, 12, PTE_P | PTE_G, MMU_LAB_UPPER);
    mmu_lab_map(lab, LINEAR + 0x3000, 0x203000, 12, PTE_P, MMU_LAB_UPPER);
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

/* What translated code knows of a RIP. */
static bool translation_known(struct mmu_lab *lab, uint64_t rip)
{
    return lab->cpu->fast->rip[FAST_KERNEL][(uint16_t)rip] == -rip;
}

/* Jumps to everywhere in 4 global and 4 local pages, so that they stand all over the cache. */
static void jumps_everywhere_go_and_translated_code_forgets_them(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct block *block = calloc(1, sizeof *block);
    const uint64_t local = LINEAR + 0x4000, end = LINEAR + 0x8000;
    unsigned parts = 0;
    lab->cpu->cr4 |= CR4_PGE;
    for (uint64_t rip = LINEAR; rip < end; rip += PAGE_SIZE)
        mmu_lab_map(lab, rip, 0x200000 + (rip - LINEAR), 12, PTE_P | (rip < local ? PTE_G : 0),
                    MMU_LAB_UPPER);
    for (uint64_t rip = LINEAR; rip < end; rip += 40) {
        struct jump_entry *entry = jump_to(lab, rip, block);
        lab->cpu->fast->rip[FAST_KERNEL][(uint16_t)rip] = -rip;
        parts |= 1u << (entry - lab->cpu->jump_cache) / 4096;
    }
    assert_int_equal(parts, (1u << JUMP_CACHE_ENTRIES / 4096) - 1);
    tlb_flush_nonglobal(lab->cpu);
    unsigned kept = 0;
    for (uint64_t rip = LINEAR; rip < end; rip += 40) {
        assert_false(rip >= local && translation_known(lab, rip));
        kept += rip < local && translation_known(lab, rip);
    }
    assert_in_range(kept, 200, 500); /* but for those whose entries others took */
    tlb_flush(lab->cpu);
    for (uint64_t rip = LINEAR; rip < end; rip += 40)
        assert_false(translation_known(lab, rip));
    for (unsigned n = 0; n < JUMP_CACHE_ENTRIES; n++)
        assert_int_equal(lab->cpu->jump_cache[n].tag, 0);
    free(block);
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
        cmocka_unit_test(a_read_enters_no_write_until_the_page_is_dirty),
        cmocka_unit_test(faults_carry_address_and_code),
        cmocka_unit_test(devices_code_and_watched_pages_are_not_entered),
        cmocka_unit_test(first_code_in_a_page_protects_it_in_all_tlbs),
        cmocka_unit_test(a_cr3_write_keeps_global_pages_only),
        cmocka_unit_test(invlpg_drops_a_page_in_every_view),
        cmocka_unit_test(invlpg_drops_all_of_a_large_page),
        cmocka_unit_test(jumps_go_with_their_page),
        cmocka_unit_test(jumps_everywhere_go_and_translated_code_forgets_them),
        cmocka_unit_test(watchpoints_match_by_length_and_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
