/* Models of sensitive instructions; SDM 2A to 2D, each under its name. */
#include "tests/unit/deprivileged_model.h"

#include <stdlib.h>
#include <string.h>

/* ---- registers and memory ---- */

static struct pv_state *state_of(struct trial *t)
{
    return &t->want.memory.state;
}

static uint8_t *memory_at(struct trial *t, uint64_t address, size_t size)
{
    uint64_t offset = address - t->memory_base;
    if (offset >= sizeof t->want.memory || sizeof t->want.memory - offset < size)
        abort();
    return (uint8_t *)&t->want.memory + offset;
}

static void push(struct trial *t, uint64_t value, size_t size)
{
    t->want.registers.r[RSP] -= size;
    memcpy(memory_at(t, t->want.registers.r[RSP], size), &value, size);
}

static uint64_t pop(struct trial *t, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, memory_at(t, t->want.registers.r[RSP], size), size);
    t->want.registers.r[RSP] += size;
    return value;
}

/* Writes a register as an instruction of this operand size does. */
static void set_register(struct trial *t, ZydisRegister name, uint64_t value)
{
    uint64_t *r = &t->want.registers.r[ZydisRegisterGetId(name)];
    if (ZydisRegisterGetClass(name) == ZYDIS_REGCLASS_GPR16)
        *r = (*r & ~0xffffull) | (value & 0xffff);
    else if (ZydisRegisterGetClass(name) == ZYDIS_REGCLASS_GPR32)
        *r = (uint32_t)value;
    else
        *r = value;
}

/* To the first operand: a register, or 16 bits of memory. */
static void store(struct trial *t, uint64_t value)
{
    if (t->d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        memcpy(memory_at(t, t->operand, 2), &value, 2);
    else
        set_register(t, t->d->operands[0].reg.value, value);
}

static unsigned source_number(const struct trial *t)
{
    return (unsigned)ZydisRegisterGetId(t->d->operands[1].reg.value);
}

/* ---- nothing, or the host's ---- */

void model_nothing(struct trial *t)
{
    (void)t;
}

void model_host(struct trial *t)
{
    t->rings = true;
}

/* ---- flags ---- */

void model_cli(struct trial *t)
{
    state_of(t)->virtual_if = 0;
}

void model_sti(struct trial *t)
{
    state_of(t)->virtual_if = 1;
    t->rings = state_of(t)->interrupt_pending;
}

void model_clac(struct trial *t)
{
    state_of(t)->virtual_ac = 0;
}

void model_stac(struct trial *t)
{
    state_of(t)->virtual_ac = 1;
}

void model_pushf(struct trial *t)
{
    const struct pv_state *s = state_of(t);
    uint64_t flags = t->want.registers.flags & (FLAGS_COMPARED | 2u);
    flags &= ~(uint64_t)(FLAG_INTERRUPT | FLAGS_IOPL | FLAG_ALIGNMENT);
    flags |= s->virtual_if ? FLAG_INTERRUPT : 0;
    flags |= (uint64_t)s->virtual_iopl * 0x1000u;
    flags |= s->virtual_ac ? FLAG_ALIGNMENT : 0;
    push(t, flags, t->d->instruction.operand_width / 8);
}

void model_popf(struct trial *t)
{
    struct pv_state *s = state_of(t);
    bool whole = t->d->instruction.operand_width == 64;
    uint64_t flags = pop(t, t->d->instruction.operand_width / 8);
    uint64_t taken = FLAGS_ARITHMETIC | FLAG_TRAP | FLAG_DIRECTION | FLAG_NESTED;
    if (whole)
        taken |= FLAG_ID;
    t->want.registers.flags = (t->want.registers.flags & ~taken) | (flags & taken);
    s->virtual_if = (flags & FLAG_INTERRUPT) != 0;
    s->virtual_iopl = (uint8_t)((flags & FLAGS_IOPL) / 0x1000u);
    if (whole)
        s->virtual_ac = (flags & FLAG_ALIGNMENT) != 0;
    t->rings = s->virtual_if && s->interrupt_pending;
}

/* ---- control, debug and descriptor-table registers ---- */

void model_mov_from_cr(struct trial *t)
{
    set_register(t, t->d->operands[0].reg.value, state_of(t)->cr[source_number(t)]);
}

void model_mov_to_cr2(struct trial *t)
{
    state_of(t)->cr[2] = t->want.registers.r[source_number(t)];
}

void model_mov_from_dr(struct trial *t)
{
    if (state_of(t)->dr[7] & 0x2000) /* GD: #DB */
        t->rings = true;
    else
        set_register(t, t->d->operands[0].reg.value, state_of(t)->dr[source_number(t)]);
}

void model_sgdt(struct trial *t)
{
    memcpy(memory_at(t, t->operand, 10), state_of(t)->gdtr, 10);
}

void model_sidt(struct trial *t)
{
    memcpy(memory_at(t, t->operand, 10), state_of(t)->idtr, 10);
}

void model_sldt(struct trial *t)
{
    store(t, state_of(t)->ldtr);
}

void model_str(struct trial *t)
{
    store(t, state_of(t)->tr);
}

void model_smsw(struct trial *t)
{
    store(t, state_of(t)->cr[0]);
}

/* ---- segment registers ---- */

void model_mov_from_segment(struct trial *t)
{
    store(t, state_of(t)->selector[source_number(t)]);
}

void model_push_segment(struct trial *t)
{
    unsigned number = (unsigned)ZydisRegisterGetId(t->d->operands[0].reg.value);
    push(t, state_of(t)->selector[number], t->d->instruction.operand_width / 8);
}

/* ---- CPUID ---- */

struct pv_cpuid_answer known_cpuid(uint32_t leaf, uint32_t subleaf)
{
    uint32_t seed = leaf * 7 + subleaf * 1000003 + 12345;
    return (struct pv_cpuid_answer){seed, ~seed, seed * 3, seed * 5};
}

void model_cpuid(struct trial *t)
{
    uint64_t *r = t->want.registers.r;
    uint32_t leaf = (uint32_t)r[RAX], subleaf = (uint32_t)r[RCX];
    bool known = leaf == 0 || leaf == 1 || leaf == 0x80000000 || (leaf == 4 && subleaf < 3);
    if (!known) { /* RBX and RDX are lost, as they are results */
        t->rings = true;
        r[RBX] = t->seen.registers.r[RBX];
        r[RDX] = t->seen.registers.r[RDX];
        return;
    }
    struct pv_cpuid_answer answer = known_cpuid(leaf, leaf == 4 ? subleaf : 0);
    r[RAX] = answer.eax;
    r[RBX] = answer.ebx;
    r[RCX] = answer.ecx;
    r[RDX] = answer.edx;
}

/* ---- time, extended state ---- */

/* The counter moves on: what was got must lie between two looks at it, and is then taken. */
void model_rdtsc(struct trial *t)
{
    const uint64_t *r = t->got.registers.r;
    uint64_t guest = r[RDX] << 32 | r[RAX];
    uint64_t real = guest - t->got.memory.state.tsc_offset;
    bool fits = !(r[RAX] >> 32) && !(r[RDX] >> 32) && real >= t->tsc[0] && real <= t->tsc[1];
    t->want.registers.r[RAX] = fits ? r[RAX] : ~r[RAX];
    t->want.registers.r[RDX] = fits ? r[RDX] : ~r[RDX];
}

void model_rdtscp(struct trial *t)
{
    model_rdtsc(t);
    t->want.registers.r[RCX] = state_of(t)->tsc_aux;
}

void model_rdpid(struct trial *t)
{
    set_register(t, t->d->operands[0].reg.value, state_of(t)->tsc_aux);
}

void model_xgetbv(struct trial *t)
{
    if ((uint32_t)t->want.registers.r[RCX] != 0) {
        t->rings = true;
        return;
    }
    t->want.registers.r[RAX] = (uint32_t)state_of(t)->xcr0;
    t->want.registers.r[RDX] = state_of(t)->xcr0 >> 32;
}
