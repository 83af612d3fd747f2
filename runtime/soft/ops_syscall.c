/* SPDX-License-Identifier: MIT */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT.
 *
 * SYSCALL and SYSRET are AMD's (APM 3), as the processor model is: they work in compatibility and legacy mode too, and
 * a SYSRET to an address that is not canonical faults at the target, at CPL 3. SS gets the fixed contents that Intel's
 * SYSRET loads (SDM 2B), where AMD's keeps what it finds. SYSENTER and SYSEXIT are Intel's, in every mode. */
#include "runtime/soft/ops_segment.h"

#define FLAT(dpl)   (RIGHTS_G | RIGHTS_P | RIGHTS_S | (uint32_t)(dpl) << 5 | RIGHTS_ACCESSED)
#define CODE32(dpl) (FLAT(dpl) | RIGHTS_CODE | RIGHTS_WRITABLE | RIGHTS_DB)
#define CODE64(dpl) (FLAT(dpl) | RIGHTS_CODE | RIGHTS_WRITABLE | RIGHTS_L)
#define STACK(dpl)  (FLAT(dpl) | RIGHTS_WRITABLE | RIGHTS_DB)

/* Loads CS and SS with fixed contents, CPL `dpl`. */
static const struct insn *enter(struct vcpu *cpu, const struct insn *i, uint16_t cs, uint16_t ss,
                                unsigned dpl, bool wide, uint64_t rip)
{
    segment_set_flat(cpu, SEG_CS, (uint16_t)((cs & ~3u) | dpl), wide ? CODE64(dpl) : CODE32(dpl));
    segment_set_flat(cpu, SEG_SS, (uint16_t)((ss & ~3u) | dpl), STACK(dpl));
    cpu->cpl = (uint8_t)dpl;
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, rip);
}

/* ---- SYSCALL, SYSRET ---- */
OP(syscall)
{
    uint64_t next = insn_next_rip(cpu, i), rip;
    uint16_t cs = cpu->star >> 32 & 0xfffc;
    bool wide = vcpu_long_mode(cpu);
    if (!(cpu->efer & EFER_SCE))
        RAISE_UD();
    if (wide) {
        cpu->r[RCX] = next;
        cpu->r[R11] = vcpu_rflags(cpu) & ~(uint64_t)RFLAGS_RF;
        rip = vcpu_code64(cpu) ? cpu->lstar : cpu->cstar;
        vcpu_set_rflags(cpu, vcpu_rflags(cpu) & ~cpu->fmask & ~(uint64_t)RFLAGS_RF);
    } else {
        cpu->r[RCX] = (uint32_t)next;
        rip = (uint32_t)cpu->star;
        cpu->rflags &= ~(RFLAGS_IF | RFLAGS_RF | RFLAGS_VM);
    }
    cpu->untrapped = !(cpu->rflags & RFLAGS_TF);
    return enter(cpu, i, cs, (uint16_t)(cs + 8), 0, wide, rip);
}

insn_fn *select_syscall(struct decoded *d, struct insn *out)
{
    (void)out;
    d->ends_block = true;
    return protected_proper(d->cpu) ? syscall : NULL;
}

/* aux: operand size in bytes. */
OP(sysret)
{
    uint16_t base = cpu->star >> 48 & 0xfffc, ss = (uint16_t)(base + 8);
    if (!(cpu->efer & EFER_SCE))
        RAISE_UD();
    if (cpu->cpl != 0)
        RAISE_GP();
    if (vcpu_long_mode(cpu))
        vcpu_set_rflags(cpu, cpu->r[R11] & ~(uint64_t)(RFLAGS_RF | RFLAGS_VM));
    else
        cpu->rflags |= RFLAGS_IF;
    /* SYSCALL and SYSRET are trapped if TF is set at their end */
    cpu->untrapped = true;
    if (cpu->rflags & RFLAGS_TF)
        cpu->pending_db |= DR6_BS;
    if (i->aux == 8)
        return enter(cpu, i, (uint16_t)(base + 16), ss, 3, true, cpu->r[RCX]);
    return enter(cpu, i, base, ss, 3, false, (uint32_t)cpu->r[RCX]);
}

insn_fn *select_sysret(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return protected_proper(d->cpu) ? sysret : NULL;
}

/* ---- SYSENTER, SYSEXIT ---- */
OP(sysenter)
{
    bool wide = vcpu_long_mode(cpu);
    uint16_t cs = cpu->sysenter_cs & 0xfffc;
    if (!vcpu_protected(cpu) || cs == 0)
        RAISE_GP();
    cpu->rflags &= ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
    cpu->r[RSP] = wide ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    return enter(cpu, i, cs, (uint16_t)(cs + 8), 0, wide,
                 wide ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip);
}

insn_fn *select_sysenter(struct decoded *d, struct insn *out)
{
    (void)out;
    d->ends_block = true;
    return sysenter;
}

/* aux: operand size in bytes. */
OP(sysexit)
{
    uint16_t cs = cpu->sysenter_cs & 0xfffc;
    bool wide = i->aux == 8;
    uint64_t rip = cpu->r[RDX], rsp = cpu->r[RCX];
    if (!protected_proper(cpu) || cpu->cpl != 0 || cs == 0)
        RAISE_GP();
    if (wide && (!canonical(rip) || !canonical(rsp)))
        RAISE_GP();
    cpu->r[RSP] = wide ? rsp : (uint32_t)rsp;
    cs = (uint16_t)(cs + (wide ? 32 : 16));
    return enter(cpu, i, cs, (uint16_t)(cs + 8), 3, wide, wide ? rip : (uint32_t)rip);
}

insn_fn *select_sysexit(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return sysexit;
}
