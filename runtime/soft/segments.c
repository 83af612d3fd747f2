/* SPDX-License-Identifier: MIT */
/* Descriptors and segment registers: reading, checking, loading (SDM 3A 3.4, 5.2 to 5.7). */
#include "runtime/soft/segments.h"

/* ---- descriptor tables ---- */
uint64_t table_load(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size)
{
    cpu->current = i;
    return system_load(cpu, linear, size);
}

void table_store(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                 uint64_t value)
{
    cpu->current = i;
    system_store(cpu, linear, size, value);
}

bool descriptor_find(const struct vcpu *cpu, uint16_t selector, uint64_t *linear)
{
    const struct segment *ldt = &cpu->segment[SEG_LDTR];
    bool local = selector & 4;
    if (local && (ldt->rights & RIGHTS_UNUSABLE || !(ldt->rights & RIGHTS_P)))
        return false;
    if ((selector | 7u) > (local ? ldt->limit : cpu->gdt_limit))
        return false;
    *linear = (local ? ldt->base : cpu->gdt_base) + (selector & ~7u);
    return true;
}

uint64_t descriptor_read(struct vcpu *cpu, const struct insn *i, uint16_t selector, int vector,
                         uint64_t *linear)
{
    uint64_t address;
    if (!descriptor_find(cpu, selector, &address))
        cpu_raise_error(cpu, i, vector, SELECTOR_ERROR(selector));
    if (linear)
        *linear = address;
    return table_load(cpu, i, address, 8);
}

uint64_t descriptor_read_high(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                              uint64_t linear)
{
    uint32_t limit = selector & 4 ? cpu->segment[SEG_LDTR].limit : cpu->gdt_limit;
    if ((selector | 7u) + 8 > limit)
        cpu_raise_error(cpu, i, EXC_GP, SELECTOR_ERROR(selector));
    uint64_t high = table_load(cpu, i, linear + 8, 8);
    if (high >> 40 & 0x1f)
        cpu_raise_error(cpu, i, EXC_GP, SELECTOR_ERROR(selector));
    return high;
}

void descriptor_unpack(uint64_t descriptor, struct segment *segment)
{
    segment->rights = descriptor_rights(descriptor);
    segment->limit = (uint32_t)((descriptor & 0xffff) | (descriptor >> 32 & 0xf0000));
    if (segment->rights & RIGHTS_G)
        segment->limit = segment->limit << 12 | 0xfff;
    segment->base = (descriptor >> 16 & 0xffffff) | (descriptor >> 32 & 0xff000000);
}

uint64_t descriptor_accessed(struct vcpu *cpu, const struct insn *i, uint64_t linear,
                             uint64_t descriptor)
{
    uint64_t bit = (uint64_t)RIGHTS_ACCESSED << 40;
    if (!(descriptor & bit))
        table_store(cpu, i, linear + 5, 1, (descriptor | bit) >> 40 & 0xff);
    return descriptor | bit;
}

/* ---- segment registers ---- */
void segment_set(struct vcpu *cpu, int segment, uint16_t selector, uint64_t descriptor)
{
    cpu->segment[segment].selector = selector;
    descriptor_unpack(descriptor, &cpu->segment[segment]);
}

void segment_set_flat(struct vcpu *cpu, int segment, uint16_t selector, uint32_t rights)
{
    cpu->segment[segment] =
        (struct segment){.selector = selector, .rights = rights, .limit = 0xffffffff};
}

void segment_set_null(struct vcpu *cpu, int segment, uint16_t selector)
{
    /* SS keeps its DPL, which is CPL (SDM 3C 26.3.1.2). */
    uint32_t dpl = segment == SEG_SS ? (uint32_t)cpu->cpl << 5 : 0;
    cpu->segment[segment] = (struct segment){.selector = selector, .rights = RIGHTS_UNUSABLE | dpl};
}

void segment_set_real(struct vcpu *cpu, int segment, uint16_t selector)
{
    struct segment *s = &cpu->segment[segment];
    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (vcpu_v86(cpu)) {
        s->limit = 0xffff;
        s->rights = 0xf3; /* present, DPL 3, writable, accessed */
    } else {
        /* Limit and size stay as protected mode has left them: "unreal mode" (SDM 3A 9.9.2). */
        s->rights = (s->rights & (RIGHTS_G | RIGHTS_DB)) | 0x93;
    }
}

static void raise_selector(struct vcpu *cpu, const struct insn *i, int vector, uint16_t selector)
{
    cpu_raise_error(cpu, i, vector, SELECTOR_ERROR(selector));
}

uint64_t stack_descriptor(struct vcpu *cpu, const struct insn *i, uint16_t selector, unsigned dpl,
                          int vector, uint64_t *linear)
{
    if (SELECTOR_NULL(selector))
        cpu_raise_error(cpu, i, vector, 0);
    uint64_t descriptor = descriptor_read(cpu, i, selector, vector, linear);
    uint32_t rights = descriptor_rights(descriptor);
    if (RPL(selector) != dpl || !rights_writable_data(rights) || RIGHTS_DPL(rights) != dpl)
        raise_selector(cpu, i, vector, selector);
    if (!(rights & RIGHTS_P))
        raise_selector(cpu, i, EXC_SS, selector);
    return descriptor;
}

static uint64_t data_descriptor(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                                uint64_t *linear)
{
    uint64_t descriptor = descriptor_read(cpu, i, selector, EXC_GP, linear);
    uint32_t rights = descriptor_rights(descriptor), dpl = RIGHTS_DPL(rights);
    bool code = rights & RIGHTS_CODE;
    if (!(rights & RIGHTS_S) || (code && !(rights & RIGHTS_WRITABLE)))
        raise_selector(cpu, i, EXC_GP, selector);
    if (!(code && rights_conforming(rights)) && (RPL(selector) > dpl || cpu->cpl > dpl))
        raise_selector(cpu, i, EXC_GP, selector);
    if (!(rights & RIGHTS_P))
        raise_selector(cpu, i, EXC_NP, selector);
    return descriptor;
}

void segment_load(struct vcpu *cpu, const struct insn *i, int segment, uint16_t selector)
{
    if (!vcpu_protected(cpu) || vcpu_v86(cpu)) {
        segment_set_real(cpu, segment, selector);
    } else if (SELECTOR_NULL(selector)) {
        /* 64-bit mode works without a stack segment, but at CPL 3. */
        if (segment == SEG_SS && (!vcpu_code64(cpu) || cpu->cpl == 3 || RPL(selector) != cpu->cpl))
            cpu_raise_error(cpu, i, EXC_GP, 0);
        segment_set_null(cpu, segment, selector);
    } else {
        uint64_t linear;
        uint64_t descriptor = segment == SEG_SS
                                  ? stack_descriptor(cpu, i, selector, cpu->cpl, EXC_GP, &linear)
                                  : data_descriptor(cpu, i, selector, &linear);
        segment_set(cpu, segment, selector, descriptor_accessed(cpu, i, linear, descriptor));
    }
    vcpu_mode_changed(cpu);
}

void segments_drop_privileged(struct vcpu *cpu)
{
    static const uint8_t data[] = {SEG_ES, SEG_FS, SEG_GS, SEG_DS};
    for (unsigned n = 0; n < sizeof data; n++) {
        struct segment *s = &cpu->segment[data[n]];
        bool conforming = rights_code(s->rights) && rights_conforming(s->rights);
        if (!(s->rights & RIGHTS_UNUSABLE) && !conforming && RIGHTS_DPL(s->rights) < cpu->cpl) {
            /* Unlike a load, this keeps the base, which FS and GS go on using in 64-bit mode. */
            s->selector = 0;
            s->rights = RIGHTS_UNUSABLE;
        }
    }
}

bool segment_covers(const struct segment *segment, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;
    if (segment->rights & RIGHTS_UNUSABLE)
        return false;
    if (!rights_code(segment->rights) && segment->rights & RIGHTS_DOWN)
        return offset > segment->limit &&
               last <= (segment->rights & RIGHTS_DB ? 0xffffffffu : 0xffffu);
    return last <= segment->limit || segment->limit == 0xffffffff;
}

/* ---- code segments ---- */
void code_check_rip(struct vcpu *cpu, const struct insn *i, const struct code_target *target)
{
    struct segment s = {.rights = 0};
    descriptor_unpack(target->descriptor, &s);
    bool good = vcpu_long_mode(cpu) && s.rights & RIGHTS_L ? canonical(target->rip)
                                                           : target->rip <= s.limit;
    if (!good)
        cpu_raise_error(cpu, i, EXC_GP, 0);
}

void code_enter(struct vcpu *cpu, const struct code_target *target, unsigned cpl)
{
    segment_set(cpu, SEG_CS, (uint16_t)((target->selector & ~3u) | cpl), target->descriptor);
    cpu->cpl = (uint8_t)cpl;
    cpu->rip = target->rip;
}
