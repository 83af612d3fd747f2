/* SPDX-License-Identifier: MIT */
/* A virtual processor's life: power-on and INIT state, RFLAGS, and what follows from the mode. */
#include "runtime/vcpu.h"

#include <string.h>

#include "runtime/soft/tlb.h"
#include "runtime/translator/fast.h"

/* Bits of RFLAGS that can be set; bit 1 always is. */
#define RFLAGS_DEFINED                                                                             \
    (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF |     \
     RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)
/* The status flags that LAHF puts into AH. */
#define RFLAGS_IN_AH 0xd5u

#define RIGHTS_LDT 0x2u
#define RIGHTS_TSS 0xbu /* 32-bit, busy */

struct vcpu *vcpu_create(struct vm *vm, unsigned index)
{
    struct vcpu *cpu = fast_allocate();
    if (!cpu)
        return NULL;
    cpu->vm = vm;
    cpu->index = index;
    /* the bitmaps of used entries say "none", so a flush would not touch them */
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        for (unsigned n = 0; n < TLB_ENTRIES; n++)
            cpu->tlb_table[mode][n] =
                (struct tlb_entry){.read = TLB_INVALID, .write = TLB_INVALID, .fetch = TLB_INVALID};
    vcpu_reset(cpu, false);
    return cpu;
}

void vcpu_destroy(struct vcpu *cpu)
{
    fast_release(cpu);
}

/* What only power-on sets: INIT leaves it alone (SDM 3A table 9-1). */
static void power_on(struct vcpu *cpu)
{
    unsigned index = cpu->index;
    memset(cpu, 0, offsetof(struct vcpu, vm));
    cpu->index = index;
    cpu->cr0 = CR0_CD | CR0_NW;
    /* mtrr_def_type stays 0, off (SDM 3A 11.11.2.1): kernels take blank MTRRs for a virtual machine's and leave them
     * alone. On, they would only cost exits, for memory types have no effect here. */
    cpu->pat = 0x0007040600070406;
    cpu->misc_enable = 0x1801; /* fast strings; neither branch trace store nor PEBS */
    cpu->xcr0 = 1;
    cpu->fpu.legacy[0] = 0x40; /* FCW; unlike FNINIT, all exceptions unmasked */
    cpu->fpu.legacy[4] = 0xff; /* all registers valid: +0.0 */
    FPU_MXCSR(&cpu->fpu) = 0x1f80;
    cpu->fpu.header[0] = 1; /* the x87 state is not its initial one */
}

static void reset_segments(struct vcpu *cpu)
{
    for (unsigned n = 0; n < SEGS; n++)
        cpu->segment[n] = (struct segment){
            .limit = 0xffff, .rights = RIGHTS_P | RIGHTS_S | RIGHTS_WRITABLE | RIGHTS_ACCESSED};
    cpu->segment[SEG_CS].selector = 0xf000;
    cpu->segment[SEG_CS].base = 0xffff0000;
    cpu->segment[SEG_LDTR].rights = RIGHTS_P | RIGHTS_LDT;
    cpu->segment[SEG_TR].rights = RIGHTS_P | RIGHTS_TSS;
    cpu->gdt_base = cpu->idt_base = 0;
    cpu->gdt_limit = cpu->idt_limit = 0xffff;
}

void vcpu_reset(struct vcpu *cpu, bool init)
{
    if (!init)
        power_on(cpu);
    memset(cpu->r, 0, sizeof cpu->r);
    cpu->r[RDX] = VCPU_SIGNATURE;
    cpu->rip = 0xfff0;
    cpu->status = RFLAGS_ONE << 8;
    cpu->rflags = RFLAGS_ONE;
    reset_segments(cpu);
    cpu->cr0 = (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    cpu->efer = 0;
    memset(cpu->pdpte, 0, sizeof cpu->pdpte);
    cpu->pdpte_from = 0;
    memset(cpu->dr, 0, sizeof cpu->dr);
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    cpu->debugctl = 0;
    cpu->shadow = 0;
    cpu->nmi_blocked = false;
    cpu->pending_db = 0;
    cpu->fault.vector = -1;
    /* a SIPI that came on the INIT's heels is for the state that INIT leads to */
    cpu->events &= init ? VCPU_EVENT_SIPI : 0;
    cpu->activity = cpu->index == 0 ? ACTIVITY_ACTIVE : ACTIVITY_WAIT_FOR_SIPI;
    vcpu_mode_changed(cpu);
    tlb_flush(cpu);
}

uint64_t vcpu_rflags(const struct vcpu *cpu)
{
    return cpu->rflags | (cpu->status >> 8 & RFLAGS_IN_AH) | (cpu->status & 1 ? RFLAGS_OF : 0);
}

void vcpu_set_rflags(struct vcpu *cpu, uint64_t rflags)
{
    uint32_t before = cpu->rflags;
    cpu->status =
        (uint16_t)(((rflags & RFLAGS_IN_AH) | RFLAGS_ONE) << 8 | (rflags & RFLAGS_OF ? 1 : 0));
    cpu->rflags = (uint32_t)(rflags & RFLAGS_DEFINED & ~RFLAGS_STATUS) | RFLAGS_ONE;
    if ((before ^ cpu->rflags) & (RFLAGS_AC | RFLAGS_VM))
        vcpu_mode_changed(cpu);
}

/* CPL is the DPL of a nonconforming code segment, else the selector's RPL. The selector alone does not
 * tell: between setting CR0.PE and the far jump it is still a real-mode segment number. */
static uint8_t present_cpl(const struct vcpu *cpu)
{
    const struct segment *cs = &cpu->segment[SEG_CS];
    if (!vcpu_protected(cpu))
        return 0;
    if (vcpu_v86(cpu))
        return 3;
    if ((cs->rights & (RIGHTS_CODE | RIGHTS_DOWN)) == (RIGHTS_CODE | RIGHTS_DOWN))
        return cs->selector & 3;
    return RIGHTS_DPL(cs->rights);
}

static uint64_t present_key(const struct vcpu *cpu)
{
    uint64_t key = 0;
    if (vcpu_code64(cpu))
        key |= JUMP_KEY_CODE64;
    else if (cpu->segment[SEG_CS].rights & RIGHTS_DB)
        key |= JUMP_KEY_CODE32;
    else
        key |= JUMP_KEY_CODE16;
    if (!vcpu_code64(cpu) && cpu->segment[SEG_SS].rights & RIGHTS_DB)
        key |= JUMP_KEY_STACK32;
    if (vcpu_long_mode(cpu))
        key |= JUMP_KEY_LONG;
    if (cpu->cpl == 3)
        key |= JUMP_KEY_USER;
    if (vcpu_protected(cpu) && !vcpu_v86(cpu))
        key |= JUMP_KEY_PROTECTED;
    return key;
}

void vcpu_mode_changed(struct vcpu *cpu)
{
    bool flat = vcpu_code64(cpu);
    cpu->cpl = present_cpl(cpu);
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        cpu->base[n] = flat && n < SEG_FS ? 0 : cpu->segment[n].base;

    bool ac = cpu->rflags & RFLAGS_AC;
    if (cpu->cpl == 3)
        cpu->mode = TLB_USER;
    else
        cpu->mode = ac && cpu->cr4 & CR4_SMAP ? TLB_KERNEL_AC : TLB_KERNEL;
    /* alignment is checked out of line: then nothing may be found in line */
    bool aligned = cpu->cpl == 3 && ac && cpu->cr0 & CR0_AM;
    cpu->tlb = aligned ? tlb_none : cpu->tlb_table[cpu->mode];
    cpu->jump_key = present_key(cpu);
}
