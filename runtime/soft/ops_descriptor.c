/* SPDX-License-Identifier: MIT */
/* Descriptor-table registers (LGDT … STR) and the instructions that look at descriptors (LAR, LSL, VERR, VERW). */
#include "runtime/soft/ops_segment.h"

/* aux: operand size in bytes; imm: 1 for a memory operand of 16 bits, else a register. */
static void fill_operand(const struct decoded *d, struct insn *out, unsigned n)
{
    const ZydisDecodedOperand *operand = &d->operands[n];
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    out->imm = operand->type == ZYDIS_OPERAND_TYPE_MEMORY;
    if (!out->imm)
        out->src = insn_register(operand->reg.value);
}

static uint16_t read_selector(struct vcpu *cpu, const struct insn *i)
{
    return i->imm ? (uint16_t)load(cpu, i, linear(cpu, i, 2, false), 2) : REG16(i->src);
}

/* ---- GDTR and IDTR ---- */
/* aux: operand size in bytes (16-bit: the base has 24 bits). */
static bool load_table(struct vcpu *cpu, const struct insn *i, uint64_t *base, uint16_t *limit)
{
    bool wide = vcpu_code64(cpu);
    uint8_t bytes[10] = {0};
    load_bytes(cpu, i, linear(cpu, i, wide ? 10 : 6, false), bytes, wide ? 10 : 6);
    uint64_t address;
    memcpy(&address, bytes + 2, 8);
    if (!wide && i->aux == 2)
        address &= 0xffffff;
    if (!canonical(address))
        return false;
    memcpy(limit, bytes, 2);
    *base = address;
    return true;
}

OP(lgdt)
{
    if (cpu->cpl != 0 || !load_table(cpu, i, &cpu->gdt_base, &cpu->gdt_limit))
        RAISE_GP();
    NEXT_SLOW;
}

OP(lidt)
{
    if (cpu->cpl != 0 || !load_table(cpu, i, &cpu->idt_base, &cpu->idt_limit))
        RAISE_GP();
    NEXT_SLOW;
}

static const struct insn *store_table(struct vcpu *cpu, const struct insn *i, uint64_t base,
                                      uint16_t limit)
{
    bool wide = vcpu_code64(cpu);
    uint8_t bytes[10];
    if (cpu->cr4 & CR4_UMIP && cpu->cpl != 0)
        RAISE_GP();
    memcpy(bytes, &limit, 2);
    memcpy(bytes + 2, &base, 8);
    store_bytes(cpu, i, linear(cpu, i, wide ? 10 : 6, true), bytes, wide ? 10 : 6);
    NEXT_SLOW;
}

OP(sgdt)
{
    return store_table(cpu, i, cpu->gdt_base, cpu->gdt_limit);
}

OP(sidt)
{
    return store_table(cpu, i, cpu->idt_base, cpu->idt_limit);
}

static insn_fn *select_table(struct decoded *d, struct insn *out, insn_fn *run)
{
    out->aux = (uint8_t)(d->zydis->operand_width / 8);
    return run;
}

insn_fn *select_lgdt(struct decoded *d, struct insn *out)
{
    return select_table(d, out, lgdt);
}

insn_fn *select_lidt(struct decoded *d, struct insn *out)
{
    return select_table(d, out, lidt);
}

insn_fn *select_sgdt(struct decoded *d, struct insn *out)
{
    return select_table(d, out, sgdt);
}

insn_fn *select_sidt(struct decoded *d, struct insn *out)
{
    return select_table(d, out, sidt);
}

/* ---- LDTR and TR ---- */
/* A system descriptor of the GDT, of 16 bytes in long mode. */
static void load_system(struct vcpu *cpu, const struct insn *i, uint16_t selector, unsigned type,
                        unsigned type16, struct segment *segment, uint64_t *linear)
{
    uint32_t error = SELECTOR_ERROR(selector);
    if (selector & 4)
        cpu_raise_error(cpu, i, EXC_GP, error);
    uint64_t descriptor = descriptor_read(cpu, i, selector, EXC_GP, linear);
    segment->selector = selector;
    descriptor_unpack(descriptor, segment);
    unsigned found = segment->rights & RIGHTS_STYPE;
    if (found != type && (found != type16 || vcpu_long_mode(cpu)))
        cpu_raise_error(cpu, i, EXC_GP, error);
    if (!(segment->rights & RIGHTS_P))
        cpu_raise_error(cpu, i, EXC_NP, error);
    if (vcpu_long_mode(cpu)) {
        uint64_t high = descriptor_read_high(cpu, i, selector, *linear);
        segment->base |= high << 32;
        if (!canonical(segment->base))
            cpu_raise_error(cpu, i, EXC_GP, error);
    }
}

OP(lldt)
{
    struct segment ldt = {.rights = RIGHTS_UNUSABLE};
    uint64_t where;
    if (cpu->cpl != 0)
        RAISE_GP();
    uint16_t selector = read_selector(cpu, i);
    ldt.selector = selector;
    if (!SELECTOR_NULL(selector))
        load_system(cpu, i, selector, TYPE_LDT, TYPE_LDT, &ldt, &where);
    cpu->segment[SEG_LDTR] = ldt;
    NEXT_SLOW;
}

OP(ltr)
{
    struct segment tr;
    uint64_t where;
    if (cpu->cpl != 0)
        RAISE_GP();
    uint16_t selector = read_selector(cpu, i);
    if (SELECTOR_NULL(selector))
        RAISE_GP();
    load_system(cpu, i, selector, TYPE_TSS, TYPE_TSS16, &tr, &where);
    tr.rights |= TYPE_BUSY;
    table_store(cpu, i, where + 5, 1, tr.rights & 0xff);
    cpu->segment[SEG_TR] = tr;
    NEXT_SLOW;
}

static const struct insn *store_selector(struct vcpu *cpu, const struct insn *i, uint16_t selector)
{
    if (cpu->cr4 & CR4_UMIP && cpu->cpl != 0)
        RAISE_GP();
    if (i->imm)
        store(cpu, i, linear(cpu, i, 2, true), 2, selector);
    else if (i->aux == 2)
        REG16(i->src) = selector;
    else
        REG64(i->src) = selector;
    NEXT_SLOW;
}

OP(sldt)
{
    return store_selector(cpu, i, cpu->segment[SEG_LDTR].selector);
}

OP(str)
{
    return store_selector(cpu, i, cpu->segment[SEG_TR].selector);
}

static insn_fn *select_selector(struct decoded *d, struct insn *out, unsigned n, insn_fn *run)
{
    fill_operand(d, out, n);
    return protected_proper(d->cpu) ? run : NULL;
}

insn_fn *select_lldt(struct decoded *d, struct insn *out)
{
    return select_selector(d, out, 0, lldt);
}

insn_fn *select_ltr(struct decoded *d, struct insn *out)
{
    return select_selector(d, out, 0, ltr);
}

insn_fn *select_sldt(struct decoded *d, struct insn *out)
{
    return select_selector(d, out, 0, sldt);
}

insn_fn *select_str(struct decoded *d, struct insn *out)
{
    return select_selector(d, out, 0, str);
}

/* ---- LAR, LSL, VERR, VERW ---- */
static void set_zero(struct vcpu *cpu, bool zero)
{
    cpu->status = (uint16_t)((cpu->status & ~STATUS_ZF) | (zero ? STATUS_ZF : 0));
}

/* The descriptor, if it is visible at CPL and RPL; `types`: the system types that count, a bit each. */
static bool visible(struct vcpu *cpu, const struct insn *i, uint16_t selector, unsigned types,
                    uint64_t *descriptor)
{
    uint64_t where;
    if (SELECTOR_NULL(selector) || !descriptor_find(cpu, selector, &where))
        return false;
    *descriptor = table_load(cpu, i, where, 8);
    uint32_t rights = descriptor_rights(*descriptor), dpl = RIGHTS_DPL(rights);
    if (!(rights & RIGHTS_S) && !(types >> (rights & RIGHTS_TYPE) & 1))
        return false;
    if (rights_code(rights) && rights_conforming(rights))
        return true;
    return cpu->cpl <= dpl && RPL(selector) <= dpl;
}

#define BIT(type) (1u << (type))
#define LSL_LONG  (BIT(TYPE_LDT) | BIT(TYPE_TSS) | BIT(TYPE_TSS_BUSY))
#define LSL_TYPES (LSL_LONG | BIT(TYPE_TSS16) | BIT(TYPE_TSS16_BUSY))
#define LAR_LONG  (LSL_LONG | BIT(TYPE_CALL))
#define LAR_TYPES (LAR_LONG | LSL_TYPES | BIT(TYPE_CALL16) | BIT(TYPE_TASK_GATE))

static void set_result(struct vcpu *cpu, const struct insn *i, uint32_t value)
{
    if (i->aux == 2)
        REG16(i->dst) = (uint16_t)value;
    else
        REG64(i->dst) = value;
}

OP(lar)
{
    uint64_t descriptor;
    unsigned types = vcpu_long_mode(cpu) ? LAR_LONG : LAR_TYPES;
    bool found = visible(cpu, i, read_selector(cpu, i), types, &descriptor);
    if (found)
        set_result(cpu, i, descriptor >> 32 & 0xf0ff00);
    set_zero(cpu, found);
    NEXT_SLOW;
}

OP(lsl)
{
    uint64_t descriptor;
    unsigned types = vcpu_long_mode(cpu) ? LSL_LONG : LSL_TYPES;
    bool found = visible(cpu, i, read_selector(cpu, i), types, &descriptor);
    if (found) {
        struct segment segment;
        descriptor_unpack(descriptor, &segment);
        set_result(cpu, i, segment.limit);
    }
    set_zero(cpu, found);
    NEXT_SLOW;
}

OP(verr)
{
    uint64_t descriptor;
    bool found = visible(cpu, i, read_selector(cpu, i), 0, &descriptor);
    uint32_t rights = found ? descriptor_rights(descriptor) : 0;
    set_zero(cpu, found && (!(rights & RIGHTS_CODE) || rights & RIGHTS_WRITABLE));
    NEXT_SLOW;
}

OP(verw)
{
    uint64_t descriptor;
    bool found = visible(cpu, i, read_selector(cpu, i), 0, &descriptor);
    set_zero(cpu, found && rights_writable_data(descriptor_rights(descriptor)));
    NEXT_SLOW;
}

insn_fn *select_lar(struct decoded *d, struct insn *out)
{
    out->dst = insn_register(d->operands[0].reg.value);
    return select_selector(d, out, 1, lar);
}

insn_fn *select_lsl(struct decoded *d, struct insn *out)
{
    out->dst = insn_register(d->operands[0].reg.value);
    return select_selector(d, out, 1, lsl);
}

insn_fn *select_verr(struct decoded *d, struct insn *out)
{
    return select_selector(d, out, 0, verr);
}

insn_fn *select_verw(struct decoded *d, struct insn *out)
{
    return select_selector(d, out, 0, verw);
}
