/* SPDX-License-Identifier: MIT */
/* Control and debug registers: MOV to and from them, CLTS, LMSW, SMSW. */
#include "runtime/cpuid.h"
#include "runtime/interrupts.h"
#include "runtime/soft/system.h"

/* ---- control registers (SDM 2B MOV, 3A 2.5) ---- */

#define CR0_DEFINED                                                                                \
    ((uint64_t)(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW |   \
                CR0_CD | CR0_PG))
#define CR3_NO_FLUSH (1ull << 63)

static uint64_t beyond_physical(void)
{
    return ~((1ull << PHYSICAL_BITS) - 1);
}

/* Then the four page-directory-pointer entries are checked and loaded when paging is set up (SDM 3A 4.4.1). */
static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA);
}

static bool write_cr0(struct vcpu *cpu, uint64_t value)
{
    if (value >> 32)
        return false;
    value = (value & CR0_DEFINED) | CR0_ET;
    uint64_t changed = value ^ cpu->cr0, efer = cpu->efer;
    if ((value & CR0_PG && !(value & CR0_PE)) || (value & CR0_NW && !(value & CR0_CD)))
        return false;
    if (changed & CR0_PG) {
        bool cs64 = cpu->segment[SEG_CS].rights & RIGHTS_L;
        if (value & CR0_PG && efer & EFER_LME) {
            if (!(cpu->cr4 & CR4_PAE) || cs64)
                return false;
            unsigned type = cpu->segment[SEG_TR].rights & (RIGHTS_S | RIGHTS_TYPE);
            if (!SELECTOR_NULL(cpu->segment[SEG_TR].selector) &&
                (type == TYPE_TSS16 || type == TYPE_TSS16_BUSY))
                return false;
            efer |= EFER_LMA;
        } else if (!(value & CR0_PG)) {
            if (cpu->cr4 & CR4_PCIDE || vcpu_code64(cpu))
                return false;
            efer &= ~(uint64_t)EFER_LMA;
        }
    }
    if (changed & (CR0_PG | CR0_CD | CR0_NW) && pae_paging(value, cpu->cr4, efer) &&
        !tlb_load_pdptes(cpu, cpu->cr3))
        return false;
    cpu->cr0 = value;
    cpu->efer = efer;
    if (changed & (CR0_PG | CR0_PE))
        tlb_flush(cpu);
    else if (changed & CR0_WP)
        tlb_forget_writes(cpu);
    vcpu_mode_changed(cpu);
    return true;
}

static bool write_cr3(struct vcpu *cpu, uint64_t value)
{
    if (vcpu_long_mode(cpu)) {
        if (cpu->cr4 & CR4_PCIDE)
            value &= ~CR3_NO_FLUSH; /* PCIDs are not told apart: it is flushed all the same */
        if (value & beyond_physical())
            return false;
    } else if (pae_paging(cpu->cr0, cpu->cr4, cpu->efer) && !tlb_load_pdptes(cpu, value)) {
        return false;
    }
    cpu->cr3 = value;
    tlb_flush_nonglobal(cpu);
    return true;
}

static bool write_cr4(struct vcpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;
    if (value & ~cpuid_cr4_mask())
        return false;
    if (vcpu_long_mode(cpu) && !(value & CR4_PAE))
        return false;
    if (changed & value & CR4_PCIDE && (!vcpu_long_mode(cpu) || cpu->cr3 & PAGE_OFFSET))
        return false;
    if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP) &&
        pae_paging(cpu->cr0, value, cpu->efer) && !tlb_load_pdptes(cpu, cpu->cr3))
        return false;
    cpu->cr4 = value;
    if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE))
        tlb_flush(cpu);
    vcpu_mode_changed(cpu);
    return true;
}

bool control_write(struct vcpu *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0:
        return write_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return true;
    case 3:
        return write_cr3(cpu, value);
    case 4:
        return write_cr4(cpu, value);
    default:
        if (value & ~0xfull)
            return false;
        lapic_set_tpr(cpu, (uint8_t)value);
        return true;
    }
}

uint64_t control_read(struct vcpu *cpu, unsigned number)
{
    switch (number) {
    case 0:
        return cpu->cr0;
    case 2:
        return cpu->cr2;
    case 3:
        return cpu->cr3;
    case 4:
        return cpu->cr4;
    default:
        return lapic_get_tpr(cpu);
    }
}

/* insn.aux: number of the control or debug register. Moves have the width of the mode: 64 or 32 bits. */
static uint64_t source(const struct vcpu *cpu, const struct insn *i)
{
    return i->flags & INSN_LEGACY ? REG32(i->src) : REG64(i->src);
}

static void put(struct vcpu *cpu, const struct insn *i, uint64_t value)
{
    REG64(i->dst) = i->flags & INSN_LEGACY ? (uint32_t)value : value;
}

OP(mov_to_cr)
{
    REQUIRE_CPL0();
    cpu->current = i;
    uint64_t next = insn_next_rip(cpu, i);
    if (i->aux != 2)
        count_exit(cpu, i, i->aux == 3 ? EXIT_KIND_CR3 : EXIT_KIND_CR);
    if (!control_write(cpu, i->aux, source(cpu, i)))
        RAISE_GP();
    return insn_leave(cpu, i, next);
}

OP(mov_from_cr)
{
    REQUIRE_CPL0();
    put(cpu, i, control_read(cpu, i->aux));
    NEXT;
}

/* ---- the machine status word: CR0's low bits ---- */
OP(clts)
{
    REQUIRE_CPL0();
    count_exit(cpu, i, EXIT_KIND_CR);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    vcpu_mode_changed(cpu);
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

/* Bits 0 to 3, and PE is never cleared (SDM 2A LMSW). */
static const struct insn *load_status(struct vcpu *cpu, const struct insn *i, uint64_t word)
{
    const uint64_t bits = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint64_t next = insn_next_rip(cpu, i);
    count_exit(cpu, i, EXIT_KIND_CR);
    write_cr0(cpu, (cpu->cr0 & ~(bits & ~(uint64_t)CR0_PE)) | (word & bits));
    return insn_leave(cpu, i, next);
}

OP(lmsw_register)
{
    REQUIRE_CPL0();
    return load_status(cpu, i, REG16(i->dst));
}

OP(lmsw_memory)
{
    REQUIRE_CPL0();
    return load_status(cpu, i, load(cpu, i, linear(cpu, i, 2, false), 2));
}

static void check_umip(struct vcpu *cpu, const struct insn *i)
{
    if (unlikely(cpu->cpl != 0 && cpu->cr4 & CR4_UMIP))
        RAISE_GP();
}

OP(smsw_register)
{
    check_umip(cpu, i);
    if (i->aux == 2)
        REG16(i->dst) = (uint16_t)cpu->cr0;
    else if (i->aux == 4)
        SET32(i->dst, cpu->cr0);
    else
        REG64(i->dst) = cpu->cr0;
    NEXT;
}

OP(smsw_memory)
{
    check_umip(cpu, i);
    store(cpu, i, linear(cpu, i, 2, true), 2, cpu->cr0);
    NEXT_SLOW;
}

/* ---- debug registers (SDM 3B 17.2) ---- */

#define DR6_FIXED   0xffff0ff0ull
#define DR6_DEFINED 0xe00full /* B0-B3, BD, BS, BT */
#define DR7_FIXED   0x400ull
#define DR7_DEFINED 0xffff23ffull

/* 4 and 5 stand for 6 and 7 unless CR4.DE is set; general detection is a fault before the access. */
static unsigned debug_number(struct vcpu *cpu, const struct insn *i)
{
    unsigned number = i->aux;
    if (number == 4 || number == 5) {
        if (cpu->cr4 & CR4_DE)
            RAISE_UD();
        number += 2;
    }
    REQUIRE_CPL0();
    if (cpu->dr[7] & DR7_GD) {
        cpu->fault.dr6 = DR6_BD;
        cpu_raise(cpu, i, EXC_DB);
    }
    return number;
}

OP(mov_to_dr)
{
    unsigned number = debug_number(cpu, i);
    uint64_t value = source(cpu, i), next = insn_next_rip(cpu, i);
    if (number >= 6 && value >> 32)
        RAISE_GP();
    count_exit(cpu, i, EXIT_KIND_DR);
    if (number == 6) {
        cpu->dr[6] = (value & DR6_DEFINED) | DR6_FIXED;
    } else {
        cpu->dr[number] = number == 7 ? (value & DR7_DEFINED) | DR7_FIXED : value;
        tlb_flush(cpu); /* pages with watchpoints are kept out of it */
        vcpu_mode_changed(cpu);
    }
    return insn_leave(cpu, i, next);
}

OP(mov_from_dr)
{
    unsigned number = debug_number(cpu, i);
    count_exit(cpu, i, EXIT_KIND_DR);
    put(cpu, i, cpu->dr[number]);
    NEXT;
}

/* ---- rows ---- */
insn_fn *select_mov_control(struct decoded *d, struct insn *out)
{
    bool to = ZydisRegisterGetClass(d->operands[0].reg.value) != ZYDIS_REGCLASS_GPR64 &&
              ZydisRegisterGetClass(d->operands[0].reg.value) != ZYDIS_REGCLASS_GPR32;
    ZydisRegister special = d->operands[to ? 0 : 1].reg.value;
    ZydisRegister general = d->operands[to ? 1 : 0].reg.value;
    int number = ZydisRegisterGetId(special);
    out->dst = out->src = insn_register(general);
    out->aux = (uint8_t)number;
    if (ZydisRegisterGetClass(special) == ZYDIS_REGCLASS_DEBUG) {
        d->ends_block = to;
        return number > 7 ? NULL : to ? mov_to_dr : mov_from_dr;
    }
    if (number != 0 && number != 2 && number != 3 && number != 4 && number != 8)
        return NULL;
    d->ends_block = to;
    return to ? mov_to_cr : mov_from_cr;
}

insn_fn *select_clts(struct decoded *d, struct insn *out)
{
    (void)out;
    d->ends_block = true;
    return clts;
}

insn_fn *select_lmsw(struct decoded *d, struct insn *out)
{
    (void)out;
    d->ends_block = true;
    return d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? lmsw_memory : lmsw_register;
}

insn_fn *select_smsw(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->operands[0].size / 8);
    return d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? smsw_memory : smsw_register;
}
