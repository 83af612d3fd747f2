/* Doubles of the memory path and the engine, for tests of instructions as long as the real ones are not there. They are
 * weak, but they do keep the archive's objects from being linked: remove each when the real function exists. */
#include <stdlib.h>

#include "tests/unit/one_insn.h"

#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

#define DOUBLE __attribute__((weak))

DOUBLE struct block block_none;

/* ---- vcpu.c ---- */
DOUBLE uint64_t vcpu_rflags(const struct vcpu *cpu)
{
    unsigned s = cpu->status;
    return cpu->rflags | (s >> 8 & 0xd5) | (s & 1 ? RFLAGS_OF : 0);
}

DOUBLE void vcpu_set_rflags(struct vcpu *cpu, uint64_t rflags)
{
    cpu->status = (uint16_t)((rflags & 0xd5) << 8 | 0x200 | (rflags & RFLAGS_OF ? 1 : 0));
    cpu->rflags = (uint32_t)((rflags & 0x3f7700) | RFLAGS_ONE);
    vcpu_mode_changed(cpu);
}

DOUBLE void vcpu_mode_changed(struct vcpu *cpu)
{
    cpu->mode = cpu->cpl == 3 ? TLB_USER : cpu->rflags & RFLAGS_AC ? TLB_KERNEL_AC : TLB_KERNEL;
    cpu->tlb = cpu->tlb_table[cpu->mode];
    for (int s = 0; s < 6; s++)
        cpu->base[s] = vcpu_code64(cpu) && s < SEG_FS ? 0 : cpu->segment[s].base;
}

/* ---- engine.c, decode.c ---- */
DOUBLE const struct insn *insn_leave(struct vcpu *cpu, const struct insn *i, uint64_t rip)
{
    (void)i;
    cpu->rip = rip;
    return NULL;
}

DOUBLE const struct insn *insn_after_slow(struct vcpu *cpu, const struct insn *i)
{
    (void)cpu;
    return i + 1;
}

DOUBLE uint8_t insn_register(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (uint8_t)(8 * (reg - ZYDIS_REGISTER_AH) + 1);
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return (uint8_t)(8 * (reg - ZYDIS_REGISTER_SPL + 4));
    return (uint8_t)(8 * ZydisRegisterGetId(reg));
}

DOUBLE enum insn_form insn_form(const struct decoded *d)
{
    static const enum insn_form forms[5][5] = {
        [ZYDIS_OPERAND_TYPE_REGISTER] = {FORM_R, FORM_RR, FORM_RM, FORM_NONE, FORM_RI},
        [ZYDIS_OPERAND_TYPE_MEMORY] = {FORM_M, FORM_MR, FORM_NONE, FORM_NONE, FORM_MI},
        [ZYDIS_OPERAND_TYPE_IMMEDIATE] = {FORM_I}};
    unsigned n = d->zydis->operand_count_visible;
    return n == 0 ? FORM_NONE : forms[d->operands[0].type][n > 1 ? d->operands[1].type : 0];
}

DOUBLE unsigned insn_size(const struct decoded *d)
{
    return (unsigned)__builtin_ctz(d->operands[0].size / 8 | 8);
}

_Noreturn static void unwind(struct vcpu *cpu, const struct insn *i, int vector, bool has_error,
                             uint32_t error)
{
    cpu->fault.vector = vector;
    cpu->fault.has_error = has_error;
    cpu->fault.error = error;
    if (i)
        cpu->rip = insn_rip(cpu, i);
    longjmp(cpu->unwind, 1);
}

DOUBLE void cpu_raise(struct vcpu *cpu, const struct insn *i, int vector)
{
    unwind(cpu, i, vector, false, 0);
}

DOUBLE void cpu_raise_error(struct vcpu *cpu, const struct insn *i, int vector, uint32_t error)
{
    unwind(cpu, i, vector, true, error);
}

/* ---- access.c ---- */
DOUBLE uint64_t ea_slow(struct vcpu *cpu, const struct insn *i)
{
    uint64_t offset = REG64(i->base) + (REG64(i->index) << i->scale) + (int64_t)i->disp;
    return i->flags & INSN_ADDRESS16   ? (uint16_t)offset
           : i->flags & INSN_ADDRESS32 ? (uint32_t)offset
                                       : offset;
}

DOUBLE uint64_t linear_slow(struct vcpu *cpu, const struct insn *i, uint64_t offset, unsigned size,
                            bool write)
{
    const struct segment *s = &cpu->segment[i->segment];
    int vector = i->segment == SEG_SS ? EXC_SS : EXC_GP;
    if (i->flags & INSN_LEGACY) {
        if (offset + size - 1 > s->limit || s->rights & RIGHTS_UNUSABLE ||
            (write && (s->rights & RIGHTS_CODE || !(s->rights & RIGHTS_WRITABLE))))
            cpu_raise_error(cpu, i, vector, 0);
        return (uint32_t)(offset + cpu->base[i->segment]);
    }
    return offset + cpu->base[i->segment];
}

static uint8_t *touch(struct vcpu *cpu, const struct insn *i, uint64_t linear, bool write,
                      bool user)
{
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    else if ((uint64_t)((int64_t)linear << 16 >> 16) != linear)
        cpu_raise_error(cpu, i, i && i->segment == SEG_SS ? EXC_SS : EXC_GP, 0);
    uint64_t entry = linear < ONE_INSN_RAM ? *one_insn_pte(cpu, linear) : 0;
    if (cpu->cr0 & CR0_PG &&
        ((entry & 1) == 0 || (write && !(entry & 2)) || (user && !(entry & 4)))) {
        cpu->fault.cr2 = linear;
        cpu_raise_error(cpu, i, EXC_PF,
                        (entry & 1) | (write ? PF_WRITE : 0) | (user ? PF_USER : 0));
    }
    static uint8_t nowhere[8];
    if (!(cpu->cr0 & CR0_PG))
        return linear < ONE_INSN_RAM ? one_insn_at(cpu, linear) : nowhere;
    return one_insn_at(cpu, (entry & 0xffffffffff000) | (linear & PAGE_OFFSET));
}

static void copy(struct vcpu *cpu, const struct insn *i, uint64_t linear, void *to,
                 const void *from, unsigned size, bool user)
{
    for (unsigned n = 0; n < size; n++)
        touch(cpu, i, linear + n, !to, user);
    for (unsigned n = 0; n < size; n++) {
        uint8_t *byte = touch(cpu, i, linear + n, !to, user);
        if (to)
            ((uint8_t *)to)[n] = *byte;
        else
            *byte = ((const uint8_t *)from)[n];
    }
}

DOUBLE uint64_t load_slow(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size)
{
    uint64_t value = 0;
    copy(cpu, i, linear, &value, NULL, size, cpu->cpl == 3);
    return value;
}

DOUBLE void store_slow(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                       uint64_t value)
{
    copy(cpu, i, linear, NULL, &value, size, cpu->cpl == 3);
}

DOUBLE void load_bytes(struct vcpu *cpu, const struct insn *i, uint64_t linear, void *to,
                       unsigned size)
{
    copy(cpu, i, linear, to, NULL, size, cpu->cpl == 3);
}

DOUBLE void store_bytes(struct vcpu *cpu, const struct insn *i, uint64_t linear, const void *from,
                        unsigned size)
{
    copy(cpu, i, linear, NULL, from, size, cpu->cpl == 3);
}

DOUBLE void probe_write(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size)
{
    for (unsigned n = 0; n < size; n++)
        touch(cpu, i, linear + n, true, cpu->cpl == 3);
}

DOUBLE uint64_t system_load(struct vcpu *cpu, uint64_t linear, unsigned size)
{
    uint64_t value = 0;
    copy(cpu, NULL, linear, &value, NULL, size, false);
    return value;
}

DOUBLE void system_store(struct vcpu *cpu, uint64_t linear, unsigned size, uint64_t value)
{
    copy(cpu, NULL, linear, NULL, &value, size, false);
}

DOUBLE void *rmw_begin(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                       struct rmw *rmw)
{
    probe_write(cpu, i, linear, size);
    *rmw = (struct rmw){.linear = linear, .size = size, .copied = true};
    rmw->copy = load_slow(cpu, i, linear, size);
    return &rmw->copy;
}

DOUBLE void rmw_end(struct vcpu *cpu, const struct insn *i, struct rmw *rmw)
{
    store_slow(cpu, i, rmw->linear, rmw->size, rmw->copy);
}

/* ---- tlb.c ---- */
DOUBLE void tlb_flush(struct vcpu *cpu)
{
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        for (unsigned n = 0; n < TLB_ENTRIES; n++)
            cpu->tlb_table[mode][n] = (struct tlb_entry){TLB_INVALID, TLB_INVALID, TLB_INVALID, 0};
}
