/* SPDX-License-Identifier: MIT */
/* Power-on and INIT state, RFLAGS, and what follows from the mode. */
#include "tests/unit/mmu_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define KEY_BITS (0x7full << 48)

static void power_on_is_real_mode_at_the_reset_vector(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    cpu->r[RAX] = cpu->lstar = cpu->pkru = 5;
    vcpu_reset(cpu, false);
    assert_int_equal(cpu->rip, 0xfff0);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0xf000);
    assert_int_equal(cpu->base[SEG_CS], 0xffff0000);
    assert_int_equal(cpu->segment[SEG_DS].limit, 0xffff);
    assert_int_equal(cpu->cr0, 0x60000010);
    assert_int_equal(vcpu_rflags(cpu), 2);
    assert_int_equal(cpu->r[RAX] | cpu->lstar | cpu->pkru | cpu->efer | cpu->cr3 | cpu->cr4, 0);
    assert_int_equal(cpu->r[RDX], VCPU_SIGNATURE);
    assert_int_equal(cpu->dr[6], 0xffff0ff0);
    assert_int_equal(cpu->dr[7], 0x400);
    assert_int_equal(cpu->idt_limit, 0xffff);
    assert_int_equal(FPU_MXCSR(&cpu->fpu), 0x1f80);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->activity, ACTIVITY_ACTIVE);
    assert_ptr_equal(cpu->vm, &lab->vm);
    mmu_lab_free(lab);
}

static void other_processors_wait_for_sipi(void **state)
{
    (void)state;
    struct vm vm = {0};
    struct vcpu *cpu = vcpu_create(&vm, 1);
    assert_int_equal(cpu->index, 1);
    assert_int_equal(cpu->activity, ACTIVITY_WAIT_FOR_SIPI);
    cpu->activity = ACTIVITY_HLT;
    cpu->events = VCPU_EVENT_NMI | VCPU_EVENT_SIPI | VCPU_EVENT_INTERRUPT;
    vcpu_reset(cpu, true);
    assert_int_equal(cpu->activity, ACTIVITY_WAIT_FOR_SIPI);
    assert_int_equal(cpu->events, VCPU_EVENT_SIPI);
    vcpu_destroy(cpu);
}

static void init_keeps_the_fpu_and_msrs_but_not_the_mode(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    cpu->lstar = 0x1234;
    cpu->sysenter_eip = 0x5678;
    cpu->pat = 7;
    cpu->tsc_offset = 9;
    cpu->fpu.legacy[200] = 0xaa;
    cpu->cr0 |= CR0_CD;
    cpu->budget = 77;
    vcpu_reset(cpu, true);
    assert_int_equal(cpu->lstar, 0x1234);
    assert_int_equal(cpu->sysenter_eip, 0x5678);
    assert_int_equal(cpu->pat, 7);
    assert_int_equal(cpu->tsc_offset, 9);
    assert_int_equal(cpu->fpu.legacy[200], 0xaa);
    assert_int_equal(cpu->cr0, CR0_CD | CR0_ET);
    assert_int_equal(cpu->efer, 0);
    assert_int_equal(cpu->budget, 77);
    assert_int_equal(cpu->activity, ACTIVITY_ACTIVE);
    assert_false(vcpu_protected(cpu));
    mmu_lab_free(lab);
}

static void flags_are_split_and_put_together_again(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    for (uint32_t flags = 0; flags < 0x400000; flags += 1) {
        vcpu_set_rflags(cpu, flags);
        if (vcpu_rflags(cpu) != ((flags & 0x3f7fd5) | 2))
            assert_int_equal(vcpu_rflags(cpu), (flags & 0x3f7fd5) | 2);
        if (cpu->rflags & RFLAGS_STATUS || cpu->status & 0x28fe)
            assert_false(flags);
    }
    vcpu_set_rflags(cpu, UINT64_MAX);
    assert_int_equal(vcpu_rflags(cpu), 0x3f7fd7);
    vcpu_set_rflags(cpu, RFLAGS_CF | RFLAGS_ZF | RFLAGS_OF);
    assert_int_equal(cpu->status, STATUS_CF | STATUS_ZF | STATUS_OF | 0x200);
    mmu_lab_free(lab);
}

static void status_is_what_the_host_s_lahf_and_seto_give(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    for (unsigned n = 0; n < 0x1000; n++) {
        uint64_t flags = (n & RFLAGS_STATUS) | 2;
        uint16_t status;
        asm("pushq %1; popfq; " FLAGS_OUT : "=a"(status) : "r"(flags) : "cc", "memory");
        vcpu_set_rflags(lab->cpu, flags);
        assert_int_equal(lab->cpu->status, status);
    }
    mmu_lab_free(lab);
}

static void privilege_follows_the_code_segment(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_32);
    struct vcpu *cpu = lab->cpu;
    mmu_lab_user(lab, true);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->mode, TLB_USER);
    /* conforming: the DPL says 0, the selector tells */
    cpu->segment[SEG_CS].rights = 0xc09f;
    cpu->segment[SEG_CS].selector = 0xb;
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->cpl, 3);
    /* real mode, whatever the selector; and still until the far jump after setting PE */
    cpu->segment[SEG_CS] =
        (struct segment){.selector = 0x1003, .base = 0x10030, .limit = 0xffff, .rights = 0x93};
    cpu->cr0 = CR0_ET;
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->cpl, 0);
    cpu->cr0 |= CR0_PE;
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->cpl, 0);
    vcpu_set_rflags(cpu, RFLAGS_VM);
    assert_int_equal(cpu->cpl, 3);
    mmu_lab_free(lab);
}

static void smap_is_lifted_by_ac_for_the_kernel_only(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    vcpu_set_rflags(cpu, RFLAGS_AC);
    assert_int_equal(cpu->mode, TLB_KERNEL); /* no SMAP: nothing to lift */
    cpu->cr4 |= CR4_SMAP;
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->mode, TLB_KERNEL_AC);
    assert_ptr_equal(cpu->tlb, cpu->tlb_table[TLB_KERNEL_AC]);
    vcpu_set_rflags(cpu, 0);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    mmu_lab_user(lab, true);
    vcpu_set_rflags(cpu, RFLAGS_AC);
    assert_int_equal(cpu->mode, TLB_USER);
    assert_ptr_equal(cpu->tlb, cpu->tlb_table[TLB_USER]);
    cpu->cr0 |= CR0_AM; /* alignment checks: nothing is found in line */
    vcpu_mode_changed(cpu);
    assert_ptr_equal(cpu->tlb, tlb_none);
    mmu_lab_free(lab);
}

static void bases_of_the_old_segments_are_zero_in_64_bit_mode(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        cpu->segment[n].base = 0x1000 * (n + 1);
    vcpu_mode_changed(cpu);
    for (unsigned n = SEG_ES; n <= SEG_DS; n++)
        assert_int_equal(cpu->base[n], 0);
    assert_int_equal(cpu->base[SEG_FS], 0x5000);
    assert_int_equal(cpu->base[SEG_GS], 0x6000);
    cpu->segment[SEG_CS].rights = 0xc09b; /* compatibility mode */
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->base[SEG_DS], 0x4000);
    mmu_lab_free(lab);
}

static void the_jump_key_tells_modes_apart(void **state)
{
    (void)state;
    struct mmu_lab *lab = mmu_lab_create(MMU_LAB_LONG);
    struct vcpu *cpu = lab->cpu;
    uint64_t keys[6];
    keys[0] = cpu->jump_key;
    mmu_lab_user(lab, true);
    keys[1] = cpu->jump_key;
    cpu->segment[SEG_CS].rights = 0xc0fb;
    vcpu_mode_changed(cpu);
    keys[2] = cpu->jump_key; /* compatibility mode */
    cpu->efer = 0;
    vcpu_mode_changed(cpu);
    keys[3] = cpu->jump_key;
    cpu->segment[SEG_SS].rights &= ~RIGHTS_DB;
    vcpu_mode_changed(cpu);
    keys[4] = cpu->jump_key;
    vcpu_reset(cpu, false);
    keys[5] = cpu->jump_key;
    for (unsigned a = 0; a < 6; a++) {
        assert_int_equal(keys[a] & ~KEY_BITS, 0);
        assert_true(keys[a] & (JUMP_KEY_CODE16 | JUMP_KEY_CODE32 | JUMP_KEY_CODE64));
        for (unsigned b = 0; b < a; b++)
            assert_true(keys[a] != keys[b]);
    }
    assert_int_equal(keys[0], JUMP_KEY_CODE64 | JUMP_KEY_LONG | JUMP_KEY_PROTECTED);
    assert_int_equal(keys[5], JUMP_KEY_CODE16);
    mmu_lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_on_is_real_mode_at_the_reset_vector),
        cmocka_unit_test(other_processors_wait_for_sipi),
        cmocka_unit_test(init_keeps_the_fpu_and_msrs_but_not_the_mode),
        cmocka_unit_test(flags_are_split_and_put_together_again),
        cmocka_unit_test(status_is_what_the_host_s_lahf_and_seto_give),
        cmocka_unit_test(privilege_follows_the_code_segment),
        cmocka_unit_test(smap_is_lifted_by_ac_for_the_kernel_only),
        cmocka_unit_test(bases_of_the_old_segments_are_zero_in_64_bit_mode),
        cmocka_unit_test(the_jump_key_tells_modes_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
