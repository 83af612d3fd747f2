/* SPDX-License-Identifier: MIT */
/* Guest memory out of line: page crossings, faults that leave nothing behind, devices, code, watchpoints. */
#include "tests/unit/mmu_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define RW     (PTE_P | PTE_W)
#define UPPER  (PTE_P | PTE_W | PTE_U)
#define LINEAR 0x40200000ull /* two pages, not next to each other in memory: see two_pages */
#define FIRST  0x200000u
#define SECOND 0x300000u

/* LINEAR and the page behind it with these leaf flags; 0 = not mapped. */
static struct mmu_lab *two_pages(uint64_t first, uint64_t second)
{
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, LINEAR, first ? FIRST : 0, 12, first, UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, second ? SECOND : 0, 12, second, UPPER);
    return lab;
}

static const struct insn *second_insn(struct mmu_lab *lab)
{
    return &lab->block->insns[1];
}

/* ---- page crossings ---- */

static void every_size_crosses_at_every_offset(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned before = 0; before <= size; before++) {
            uint64_t at = LINEAR + PAGE_SIZE - before, value = 0x8877665544332211;
            memset(mmu_lab_at(lab, FIRST), 0xcc, PAGE_SIZE);
            memset(mmu_lab_at(lab, SECOND), 0xcc, PAGE_SIZE);
            store(cpu, i, at, size, value);
            assert_memory_equal(mmu_lab_at(lab, FIRST + PAGE_SIZE - before), &value, before);
            assert_memory_equal(mmu_lab_at(lab, SECOND), (char *)&value + before, size - before);
            assert_int_equal(*(uint8_t *)mmu_lab_at(lab, SECOND + size - before), 0xcc);
            assert_int_equal(*(uint8_t *)mmu_lab_at(lab, FIRST + PAGE_SIZE - before - 1), 0xcc);
            uint64_t mask = size == 8 ? UINT64_MAX : (1ull << 8 * size) - 1;
            assert_int_equal(load(cpu, i, at, size), value & mask);
        }
    mmu_lab_free(lab);
}

static void a_store_that_faults_in_the_second_page_stores_nothing(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, PTE_P);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    uint64_t zero = 0;
    assert_int_equal(MMU_LAB_CATCH(lab, store_slow(cpu, i, LINEAR + 0xffd, 8, ~0ull)), EXC_PF);
    assert_int_equal(cpu->fault.error, PF_PRESENT | PF_WRITE);
    assert_int_equal(cpu->fault.cr2, LINEAR + PAGE_SIZE);
    assert_ptr_equal(cpu->current, i);
    assert_memory_equal(mmu_lab_at(lab, FIRST + 0xff8), &zero, 8);

    /* the first page's fault comes first */
    mmu_lab_map(lab, LINEAR, FIRST, 12, 0, UPPER);
    tlb_flush(cpu);
    assert_int_equal(MMU_LAB_CATCH(lab, store_slow(cpu, i, LINEAR + 0xffd, 8, ~0ull)), EXC_PF);
    assert_int_equal(cpu->fault.error, PF_WRITE);
    assert_int_equal(cpu->fault.cr2, LINEAR + 0xffd);
    mmu_lab_free(lab);
}

static void long_operands_are_all_or_nothing(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, 0);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    uint8_t bytes[PAGE_SIZE], back[PAGE_SIZE] = {0};
    for (unsigned n = 0; n < PAGE_SIZE; n++)
        bytes[n] = (uint8_t)(n * 7 + 1);
    assert_int_equal(MMU_LAB_CATCH(lab, store_bytes(cpu, i, LINEAR + 1, bytes, PAGE_SIZE)), EXC_PF);
    assert_int_equal(*(uint8_t *)mmu_lab_at(lab, FIRST + 1), 0);
    assert_int_equal(MMU_LAB_CATCH(lab, load_bytes(cpu, i, LINEAR + 1, back, PAGE_SIZE)), EXC_PF);
    assert_int_equal(back[0], 0);
    assert_int_equal(MMU_LAB_CATCH(lab, probe_write(cpu, i, LINEAR + 1, PAGE_SIZE)), EXC_PF);

    mmu_lab_map(lab, LINEAR + PAGE_SIZE, SECOND, 12, RW, UPPER);
    probe_write(cpu, i, LINEAR + 1, PAGE_SIZE);
    assert_int_equal(*(uint8_t *)mmu_lab_at(lab, FIRST + 1), 0);
    store_bytes(cpu, i, LINEAR + 1, bytes, PAGE_SIZE);
    load_bytes(cpu, i, LINEAR + 1, back, PAGE_SIZE);
    assert_memory_equal(bytes, back, PAGE_SIZE);
    mmu_lab_free(lab);
}

static void check_wrap(struct mmu_lab *lab)
{
    mmu_lab_map(lab, 0xfffff000, FIRST, 12, RW, UPPER);
    mmu_lab_map(lab, 0, SECOND, 12, RW, UPPER);
    store(lab->cpu, second_insn(lab), 0xfffffffe, 4, 0x44332211);
    assert_int_equal(*(memory16 *)mmu_lab_at(lab, FIRST + 0xffe), 0x2211);
    assert_int_equal(*(memory16 *)mmu_lab_at(lab, SECOND), 0x4433);
    mmu_lab_free(lab);
}

static void addresses_wrap_at_4g_outside_64_bit_mode(void **state)
{
    (void)state;
    check_wrap(mmu_lab_create(MMU_LAB_PAE));
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    lab->cpu->segment[SEG_CS].rights = 0xc09b; /* compatibility mode */
    vcpu_mode_changed(lab->cpu);
    check_wrap(lab);
}

static void crossing_into_what_is_not_canonical_is_a_protection_fault(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, 0x7ffffffff000, FIRST, 12, RW, UPPER);
    struct insn i = *second_insn(lab);
    assert_int_equal(MMU_LAB_CATCH(lab, load_slow(lab->cpu, &i, 0x7ffffffffffd, 4)), EXC_GP);
    i.segment = SEG_SS;
    assert_int_equal(MMU_LAB_CATCH(lab, store_slow(lab->cpu, &i, 0x7ffffffffffd, 4, 0)), EXC_SS);
    assert_int_equal(lab->cpu->fault.error, 0);
    mmu_lab_free(lab);
}

/* ---- devices ---- */

static void a_device_sees_one_access_of_the_operand_s_width(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    mmu_lab_map(lab, LINEAR, MMU_LAB_DEVICE, 12, RW, UPPER);
    for (unsigned size = 1; size <= 8; size *= 2) {
        lab->seen_count = 0;
        store(cpu, i, LINEAR + 0x20, size, 0x1122334455667788);
        assert_int_equal(lab->seen_count, 1);
        assert_int_equal(lab->seen[0].width, size);
        assert_int_equal(lab->seen[0].offset, 0x20);
        assert_true(lab->seen[0].write);
        uint64_t stored = lab->seen[0].value;
        assert_int_equal(load(cpu, i, LINEAR + 0x20, size), stored);
        assert_int_equal(lab->seen_count, 2);
    }
    assert_int_equal(lab->vm.stats.exits[EXIT_KIND_MMIO], 8);
    assert_null(host_read(cpu, LINEAR, 1));
    mmu_lab_free(lab);
}

static void between_ram_and_device_an_access_is_split_by_bytes(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, MMU_LAB_DEVICE, 12, RW, UPPER);
    store(cpu, i, LINEAR + 0xffd, 8, 0x8877665544332211);
    assert_int_equal(lab->seen_count, 5);
    for (unsigned n = 0; n < 5; n++) {
        assert_int_equal(lab->seen[n].width, 1);
        assert_int_equal(lab->seen[n].offset, n);
        assert_int_equal(lab->seen[n].value, 0x44 + 0x11 * n);
    }
    assert_int_equal(*(memory16 *)mmu_lab_at(lab, FIRST + 0xffd), 0x2211);
    assert_int_equal(load(cpu, i, LINEAR + 0xffd, 8), 0x8877665544332211);
    assert_int_equal(lab->vm.stats.exits[EXIT_KIND_MMIO], 2);
    mmu_lab_free(lab);
}

static void long_operands_reach_a_device_in_aligned_pieces(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    uint8_t bytes[16];
    mmu_lab_map(lab, LINEAR, MMU_LAB_DEVICE, 12, RW, UPPER);
    load_bytes(lab->cpu, second_insn(lab), LINEAR + 0x10, bytes, 16);
    assert_int_equal(lab->seen_count, 2);
    assert_int_equal(lab->seen[0].width, 8);
    lab->seen_count = 0;
    load_bytes(lab->cpu, second_insn(lab), LINEAR + 0x16, bytes, 10);
    assert_int_equal(lab->seen_count, 2); /* 2 and 8 */
    assert_int_equal(lab->seen[0].width, 2);
    assert_int_equal(lab->seen[1].width, 8);
    mmu_lab_free(lab);
}

static void where_nobody_is_reads_are_all_ones(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    mmu_lab_map(lab, LINEAR, 0xe0000000, 12, RW, UPPER);
    mmu_lab_map(lab, LINEAR + PAGE_SIZE, 0xfffffff000, 12, RW, UPPER);
    store(lab->cpu, second_insn(lab), LINEAR, 8, 5);
    assert_int_equal(load(lab->cpu, second_insn(lab), LINEAR, 8), UINT64_MAX);
    assert_int_equal(load(lab->cpu, second_insn(lab), LINEAR + PAGE_SIZE, 4), UINT32_MAX);
    mmu_lab_free(lab);
}

/* ---- code ---- */

static void a_store_into_marked_lines_is_told(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    lab->vm.memory.code_lines[FIRST >> 12] = 1ull << 2; /* bytes 128 to 191 */
    store(cpu, i, LINEAR + 120, 8, 1);
    assert_int_equal(lab->changes, 0);
    store(cpu, i, LINEAR + 124, 8, 0x5544332211);
    assert_int_equal(lab->changes, 1);
    assert_int_equal(lab->changed_at, FIRST + 124);
    assert_int_equal(lab->changed_length, 8);
    assert_int_equal(*(memory64 *)mmu_lab_at(lab, FIRST + 124), 0x5544332211);
    assert_null(host_write(cpu, LINEAR, 1));

    struct rmw rmw;
    memory32 *word = rmw_begin(cpu, i, LINEAR + 128, 4, &rmw);
    assert_int_equal(*word, 0x55);
    *word += 1;
    rmw_end(cpu, i, &rmw);
    assert_int_equal(*(memory32 *)mmu_lab_at(lab, FIRST + 128), 0x56);
    assert_int_equal(lab->changes, 2);

    lab->vm.memory.code_lines[FIRST >> 12] = 0; /* no code left: fast again */
    store(cpu, i, LINEAR + 124, 8, 7);
    assert_non_null(host_write(cpu, LINEAR, 1));
    assert_int_equal(lab->changes, 2);
    mmu_lab_free(lab);
}

static void after_code_changed_the_block_is_left(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW);
    struct vcpu *cpu = lab->cpu;
    cpu->rip = 0x1000;
    cpu->budget = 10;
    assert_ptr_equal(insn_after_slow(cpu, second_insn(lab)), second_insn(lab) + 1);
    cpu->code_changed = true;
    cpu->link = &lab->block->insns[0];
    assert_null(insn_after_slow(cpu, second_insn(lab)));
    assert_int_equal(cpu->rip, 0x1008);
    assert_false(cpu->code_changed);
    assert_null(cpu->link);
    assert_int_equal(cpu->budget, 11); /* one of the three was not executed */
    cpu->block = NULL;
    assert_null(insn_leave(cpu, NULL, 0x2000));
    assert_int_equal(cpu->rip, 0x2000);
    assert_int_equal(cpu->budget, 11);
    mmu_lab_free(lab);
}

/* ---- read-modify-write ---- */

static void read_modify_write_needs_the_right_to_write_before_it_reads(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(PTE_P, RW);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    struct rmw rmw;
    assert_int_equal(MMU_LAB_CATCH(lab, rmw_begin(cpu, i, LINEAR, 4, &rmw)), EXC_PF);
    assert_int_equal(cpu->fault.error, PF_PRESENT | PF_WRITE);
    assert_int_equal(MMU_LAB_CATCH(lab, rmw_begin(cpu, i, LINEAR + 0xffe, 4, &rmw)), EXC_PF);

    memory32 *word = rmw_begin(cpu, i, LINEAR + PAGE_SIZE + 4, 4, &rmw);
    assert_ptr_equal(word, mmu_lab_at(lab, SECOND + 4)); /* memory itself */
    *word = 9;
    rmw_end(cpu, i, &rmw);
    assert_int_equal(*(memory32 *)mmu_lab_at(lab, SECOND + 4), 9);
    mmu_lab_free(lab);
}

static void read_modify_write_crosses_pages_and_reaches_devices(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    struct rmw rmw;
    store(cpu, i, LINEAR + 0xffe, 4, 0x0001ffff);
    memory32 *word = rmw_begin(cpu, i, LINEAR + 0xffe, 4, &rmw);
    assert_int_equal(*word, 0x0001ffff);
    *word += 1;
    rmw_end(cpu, i, &rmw);
    assert_int_equal(*(memory16 *)mmu_lab_at(lab, FIRST + 0xffe), 0);
    assert_int_equal(*(memory16 *)mmu_lab_at(lab, SECOND), 2);

    mmu_lab_map(lab, LINEAR, MMU_LAB_DEVICE, 12, RW, UPPER);
    tlb_flush(cpu);
    memory64 *wide = rmw_begin(cpu, i, LINEAR + 8, 8, &rmw);
    *wide |= 0x10;
    rmw_end(cpu, i, &rmw);
    assert_int_equal(lab->seen_count, 2);
    assert_false(lab->seen[0].write);
    assert_true(lab->seen[1].write);
    assert_int_equal(lab->seen[1].value, 0x10);
    mmu_lab_free(lab);
}

/* ---- data breakpoints and alignment ---- */

static void data_breakpoints_wait_for_the_end_of_the_instruction(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    cpu->dr[0] = LINEAR + 16;
    cpu->dr[2] = LINEAR + 20;
    /* 0: writes of 4 bytes; 2: reads and writes of 1 byte */
    cpu->dr[7] = 0x400 | 1 | 1u << 4 | 0xdu << 16 | 3u << 24;
    cpu->budget = 100;
    load(cpu, i, LINEAR + 16, 4);
    assert_int_equal(cpu->pending_db, 0);
    store(cpu, i, LINEAR + 15, 1, 0);
    assert_int_equal(cpu->pending_db, 0);
    assert_int_equal(cpu->budget, 100);
    store(cpu, i, LINEAR + 15, 2, 0x1234);
    assert_int_equal(cpu->pending_db, 1);
    assert_int_equal(cpu->budget, 0);
    assert_int_equal(cpu->withheld, 100);
    assert_int_equal(*(memory16 *)mmu_lab_at(lab, FIRST + 15), 0x1234);
    assert_null(insn_after_slow(cpu, i)); /* the block is left at once, the kick still felt */
    assert_int_equal(cpu->budget, 0);
    assert_int_equal(cpu->withheld, 101);
    load(cpu, i, LINEAR + 18, 4);
    assert_int_equal(cpu->pending_db, 5);

    cpu->pending_db = 0;
    struct rmw rmw;
    memory32 *word = rmw_begin(cpu, i, LINEAR + 16, 4, &rmw);
    *word = 1;
    rmw_end(cpu, i, &rmw);
    assert_int_equal(cpu->pending_db, 1);
    /* an instruction that faults will meet them again */
    assert_int_equal(MMU_LAB_CATCH(lab, cpu_raise(cpu, i, EXC_UD)), EXC_UD);
    assert_false(cpu->fault.has_error);
    assert_int_equal(cpu->pending_db, 0);
    mmu_lab_free(lab);
}

static void alignment_is_checked_at_cpl_3_with_am_and_ac(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW | PTE_U, RW | PTE_U);
    struct vcpu *cpu = lab->cpu;
    const struct insn *i = second_insn(lab);
    struct rmw rmw;
    uint8_t bytes[16];
    load(cpu, i, LINEAR, 8);
    cpu->cr0 |= CR0_AM;
    vcpu_set_rflags(cpu, RFLAGS_AC);
    load(cpu, i, LINEAR + 1, 8); /* not at CPL 0 */
    mmu_lab_user(lab, true);
    load(cpu, i, LINEAR + 8, 8);
    load(cpu, i, LINEAR + 7, 1);
    load_bytes(cpu, i, LINEAR + 1, bytes, 12); /* no operand has that size */
    assert_int_equal(MMU_LAB_CATCH(lab, load_bytes(cpu, i, LINEAR + 8, bytes, 16)), EXC_AC);
    assert_int_equal(MMU_LAB_CATCH(lab, load(cpu, i, LINEAR + 4, 8)), EXC_AC);
    assert_true(cpu->fault.has_error);
    assert_int_equal(cpu->fault.error, 0);
    assert_int_equal(MMU_LAB_CATCH(lab, store(cpu, i, LINEAR + 2, 4, 0)), EXC_AC);
    assert_int_equal(MMU_LAB_CATCH(lab, rmw_begin(cpu, i, LINEAR + 1, 2, &rmw)), EXC_AC);
    system_load(cpu, LINEAR + 1, 8); /* the processor's own accesses are not checked */
    cpu->cr0 &= ~(uint64_t)CR0_AM;
    vcpu_mode_changed(cpu);
    load(cpu, i, LINEAR + 4, 8);
    mmu_lab_free(lab);
}

/* ---- the processor's own accesses ---- */

static void system_accesses_are_the_supervisor_s_at_any_privilege(void **state)
{
    (void)state;
    struct mmu_lab *lab = two_pages(RW, RW | PTE_U);
    struct vcpu *cpu = lab->cpu;
    mmu_lab_user(lab, true);
    system_store(cpu, LINEAR + 0xffd, 4, 0x11223344); /* crosses */
    assert_int_equal(system_load(cpu, LINEAR + 0xffd, 4), 0x11223344);
    assert_int_equal(MMU_LAB_CATCH(lab, load(cpu, second_insn(lab), LINEAR, 1)), EXC_PF);

    cpu->cr4 |= CR4_SMAP; /* holds for them whatever AC is */
    vcpu_set_rflags(cpu, RFLAGS_AC);
    tlb_flush(cpu);
    cpu->current = second_insn(lab);
    assert_int_equal(MMU_LAB_CATCH(lab, system_load(cpu, LINEAR + PAGE_SIZE, 2)), EXC_PF);
    assert_int_equal(cpu->fault.error, PF_PRESENT);
    assert_ptr_equal(cpu->current, second_insn(lab));
    cpu->current = NULL;
    assert_int_equal(MMU_LAB_CATCH(lab, system_store(cpu, 1ull << 50, 8, 0)), EXC_GP);
    assert_null(cpu->current);
    mmu_lab_free(lab);
}

/* ---- segments and effective addresses ---- */

static uint64_t address(struct mmu_lab *lab, struct insn *i, uint64_t offset, unsigned size,
                        bool write)
{
    i->flags = INSN_LEGACY;
    return linear_slow(lab->cpu, i, offset, size, write);
}

static void legacy_segments_are_checked_for_limit_and_kind(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_PAE);
    struct vcpu *cpu = lab->cpu;
    struct insn i = *second_insn(lab);
    struct segment *ds = &cpu->segment[SEG_DS];
    *ds = (struct segment){.selector = 0x18, .base = 0xfffff000, .limit = 0x1fff, .rights = 0x4093};
    vcpu_mode_changed(cpu);
    assert_int_equal(address(lab, &i, 0x1ffc, 4, true), 0xffc); /* base + offset wraps */
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0x1ffd, 4, false)), EXC_GP);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0xffffffff, 4, false)), EXC_GP);
    assert_int_equal(cpu->fault.error, 0);
    ds->rights = 0x4091; /* read-only data */
    assert_int_equal(address(lab, &i, 0, 4, false), 0xfffff000);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0, 4, true)), EXC_GP);
    ds->rights = 0x409b; /* readable code */
    address(lab, &i, 0, 4, false);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0, 4, true)), EXC_GP);
    ds->rights = 0x4099; /* execute-only */
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0, 4, false)), EXC_GP);
    ds->rights = RIGHTS_UNUSABLE; /* null selector */
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0, 1, false)), EXC_GP);
    ds->rights = 0x4097; /* expand down: above the limit */
    assert_int_equal(address(lab, &i, 0x2000, 4, true), 0x1000);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0x1fff, 1, false)), EXC_GP);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0xfffffffd, 4, false)), EXC_GP);
    ds->rights = 0x97; /* 16-bit: to 0xffff */
    address(lab, &i, 0xfffc, 4, true);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0xfffd, 4, true)), EXC_GP);
    ds->rights = 0x93;
    ds->limit = UINT32_MAX; /* all of it: wraps */
    address(lab, &i, 0xfffffffe, 4, true);

    i.segment = SEG_SS;
    cpu->segment[SEG_SS].limit = 0xfff;
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0xffd, 4, true)), EXC_SS);
    mmu_lab_free(lab);
}

static void real_mode_checks_limits_but_no_kinds(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_OFF);
    struct vcpu *cpu = lab->cpu;
    struct insn i = *second_insn(lab);
    vcpu_reset(cpu, false);
    cpu->segment[SEG_DS].base = 0x12340;
    cpu->segment[SEG_DS].rights = 0x9b; /* left over from protected mode */
    vcpu_mode_changed(cpu);
    assert_int_equal(address(lab, &i, 0xfffe, 2, true), 0x2233e);
    assert_int_equal(MMU_LAB_CATCH(lab, address(lab, &i, 0xffff, 2, true)), EXC_GP);
    mmu_lab_free(lab);
}

static void effective_addresses_have_the_width_of_the_address_size(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    struct insn i = *second_insn(lab);
    cpu->r[RBX] = 0x1fffffff8;
    cpu->r[RSI] = 0x10008;
    cpu->base[SEG_FS] = 0x500000000;
    i.base = RBX * 8;
    i.index = RSI * 8;
    i.disp = -4;
    assert_int_equal(ea(cpu, &i), 0x20000fffc);
    i.flags = INSN_ADDRESS32;
    assert_int_equal(ea(cpu, &i), 0xfffc);
    i.segment = SEG_FS; /* the base is added after the truncation */
    assert_int_equal(linear(cpu, &i, 4, false), 0x50000fffc);
    i.flags = INSN_ADDRESS16;
    i.disp = 0x10;
    assert_int_equal(ea(cpu, &i), 0x10);
    cpu->rip = 0x400000;
    i.flags = INSN_RIPREL; /* from the next instruction: offset 4 + length 4 */
    i.disp = -0x10;
    i.segment = SEG_DS;
    assert_int_equal(linear(cpu, &i, 4, false), 0x400008 - 0x10);
    mmu_lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_crosses_at_every_offset),
        cmocka_unit_test(a_store_that_faults_in_the_second_page_stores_nothing),
        cmocka_unit_test(long_operands_are_all_or_nothing),
        cmocka_unit_test(addresses_wrap_at_4g_outside_64_bit_mode),
        cmocka_unit_test(crossing_into_what_is_not_canonical_is_a_protection_fault),
        cmocka_unit_test(a_device_sees_one_access_of_the_operand_s_width),
        cmocka_unit_test(between_ram_and_device_an_access_is_split_by_bytes),
        cmocka_unit_test(long_operands_reach_a_device_in_aligned_pieces),
        cmocka_unit_test(where_nobody_is_reads_are_all_ones),
        cmocka_unit_test(a_store_into_marked_lines_is_told),
        cmocka_unit_test(after_code_changed_the_block_is_left),
        cmocka_unit_test(read_modify_write_needs_the_right_to_write_before_it_reads),
        cmocka_unit_test(read_modify_write_crosses_pages_and_reaches_devices),
        cmocka_unit_test(data_breakpoints_wait_for_the_end_of_the_instruction),
        cmocka_unit_test(alignment_is_checked_at_cpl_3_with_am_and_ac),
        cmocka_unit_test(system_accesses_are_the_supervisor_s_at_any_privilege),
        cmocka_unit_test(legacy_segments_are_checked_for_limit_and_kind),
        cmocka_unit_test(real_mode_checks_limits_but_no_kinds),
        cmocka_unit_test(effective_addresses_have_the_width_of_the_address_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
