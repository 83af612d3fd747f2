/* SPDX-License-Identifier: MIT */
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

/* ---- ports: hvstub.h, struct pv_port and struct pv_counter ---- */

static uint16_t port_of(const struct trial *t)
{
    for (unsigned i = 0; i < 2; i++)
        if (t->d->operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return (uint8_t)t->d->operands[i].imm.value.u;
    return (uint16_t)t->want.registers.r[RDX];
}

/* Ticks that the counter has made at this time. */
static uint32_t ticks(const struct pv_counter *counter, uint64_t tsc)
{
    unsigned __int128 product = (unsigned __int128)(tsc + counter->negated_base) * counter->scale;
    return (uint32_t)(product >> 64);
}

static void set_al(struct trial *t, uint8_t value)
{
    t->want.registers.r[RAX] = (t->want.registers.r[RAX] & ~0xffull) | value;
}

/* One byte of the count, low or high as bit 0 of the version says. The counter moves on: what was
 * got must be a value of the time between two looks at it, and is then taken. */
static void model_pit(struct trial *t)
{
    struct pv_counter *pit = &state_of(t)->pit;
    unsigned shift = pit->version & 1 ? 8 : 0;
    uint8_t got = (uint8_t)t->got.registers.r[RAX];
    uint32_t first = ticks(pit, t->tsc[0]), last = ticks(pit, t->tsc[1]);
    set_al(t, (uint8_t)~got);
    for (uint32_t n = 0; n <= last - first && n <= 0x10000; n++)
        if ((uint8_t)((pit->start - (first + n)) >> shift) == got)
            set_al(t, got);
    pit->version += pit->step;
}

static void model_cmos(struct trial *t)
{
    const struct pv_state *s = state_of(t);
    uint16_t known = s->cmos[s->port_out[PV_CMOS_INDEX_PORT].value & 0x7f];
    if (known >> 8)
        set_al(t, (uint8_t)known);
    else
        t->native = true;
}

static void model_once(struct trial *t, unsigned place)
{
    struct pv_state *s = state_of(t);
    t->native = s->port_out[place - 1].kind == PV_PORT_OUT_WRITTEN;
    if (t->native)
        return;
    set_al(t, s->port_in[place].value);
    s->port_in[place].value = (uint8_t)(s->once_after >> 16);
}

void model_in(struct trial *t)
{
    uint16_t port = port_of(t);
    struct pv_port entry = state_of(t)->port_in[port & 0xff];
    if ((uint16_t)(entry.negated + port) != 0)
        t->native = true;
    else if (entry.kind == PV_PORT_IN_VALUE)
        set_al(t, entry.value);
    else if (entry.kind == PV_PORT_IN_CMOS)
        model_cmos(t);
    else if (entry.kind == PV_PORT_IN_KEPT)
        set_al(t, state_of(t)->port_out[port & 0xff].value);
    else if (entry.kind == PV_PORT_IN_ONCE)
        model_once(t, port & 0xff);
    else
        model_pit(t);
}

void model_in_timer(struct trial *t)
{
    const struct pv_counter *pm = &state_of(t)->pm;
    if (pm->negated_port + (uint16_t)t->want.registers.r[RDX] != 0) {
        t->native = true;
        return;
    }
    uint64_t got = t->got.registers.r[RAX];
    uint32_t first = pm->start + ticks(pm, t->tsc[0]), last = pm->start + ticks(pm, t->tsc[1]);
    bool fits = got <= 0xffffff && (((uint32_t)got - first) & 0xffffff) <= last - first;
    t->want.registers.r[RAX] = fits ? got : ~got;
}

static void post(struct trial *t, uint8_t byte)
{
    struct pv_state *s = state_of(t);
    bool taken = s->ring_lock;
    if (!byte) { /* an empty slot has this value */
        t->native = true;
        return;
    }
    s->ring_lock = taken;
    if (taken || s->ring[s->ring_tail]) {
        t->native = true;
        return;
    }
    s->ring[s->ring_tail] = byte;
    s->ring_tail = (uint16_t)((s->ring_tail + 1) % PV_RING_SLOTS);
}

void model_out(struct trial *t)
{
    uint16_t port = port_of(t);
    uint8_t byte = (uint8_t)t->want.registers.r[RAX];
    struct pv_port *entry = &state_of(t)->port_out[port & 0xff];
    if ((uint16_t)(entry->negated + port) != 0)
        t->native = true;
    else if (entry->kind == PV_PORT_OUT_POSTED)
        post(t, byte);
    else if (entry->kind == PV_PORT_OUT_SAME)
        t->native = (uint8_t)(entry->value + byte) != 0;
    else if (entry->kind >= PV_PORT_OUT_KEPT) {
        entry->value = byte;
        entry->kind = PV_PORT_OUT_WRITTEN;
    }
}

void model_wrmsr(struct trial *t)
{
    struct pv_deadline *deadline = &state_of(t)->deadline;
    const uint64_t *r = t->want.registers.r;
    uint64_t value = r[RDX] << 32 | (uint32_t)r[RAX];
    t->native = (uint32_t)r[RCX] != PV_MSR_TSC_DEADLINE || !value || value <= deadline->limit;
    if ((uint32_t)r[RCX] != PV_MSR_TSC_DEADLINE || !value)
        return;
    deadline->posted = t->native ? 0 : value; /* taken back */
}

/* ---- random guests ---- */

void random_memory(struct guest_memory *memory)
{
    for (size_t i = 0; i < sizeof *memory; i += 8) {
        uint64_t value = code_random();
        memcpy((uint8_t *)memory + i, &value, 8);
    }
    struct pv_state *s = &memory->state;
    s->virtual_if &= 1;
    s->interrupt_pending &= 1;
    s->virtual_iopl &= 3;
    s->virtual_ac &= 1;
    s->dr[7] &= ~0xc000ull; /* always clear in the processor */
    if (code_random() & 1)
        s->dr[7] &= ~0x2000ull;
}

/* Entries that know the port, and such that do not; of either one every kind. */
static void know_port(struct pv_state *s, uint16_t port, uint8_t al)
{
    struct pv_port *in = &s->port_in[port & 0xff], *out = &s->port_out[port & 0xff];
    if (code_random() & 7)
        in->negated = out->negated = (uint16_t)-port;
    in->kind %= PV_PORT_IN_ONCE + 1;
    if (!(port & 0xff) && in->kind == PV_PORT_IN_ONCE) /* there is none before it */
        in->kind = PV_PORT_IN_VALUE;
    out->kind %= PV_PORT_OUT_WRITTEN + 1;
    if (code_random() & 1)
        s->port_out[(port - 1) & 0xff].kind = (uint8_t)(code_random() % (PV_PORT_OUT_WRITTEN + 1));
    if (out->kind == PV_PORT_OUT_SAME && code_random() & 1)
        out->value = (uint8_t)-al;
}

void random_device_state(struct guest *guest, uint16_t port)
{
    struct pv_state *s = &guest->memory.state;
    uint64_t *r = guest->registers.r;
    if (code_random() & 7)
        r[RCX] = (r[RCX] & ~0xffffffffull) | PV_MSR_TSC_DEADLINE;
    if (!(code_random() & 7))
        r[RAX] &= ~0xffffffffull;
    if (!(code_random() & 3))
        r[RDX] &= ~0xffffffffull;
    if (!(code_random() & 15))
        r[RAX] &= ~0xffull;
    know_port(s, (uint16_t)r[RDX], (uint8_t)r[RAX]);
    know_port(s, port, (uint8_t)r[RAX]);
    if (code_random() & 3)
        s->pm.negated_port = -(uint32_t)(uint16_t)r[RDX];
    s->pit.scale >>= 8 + (code_random() & 15); /* at most some thousands of ticks in a run */
    s->pm.scale >>= 8 + (code_random() & 15);
    for (unsigned n = 0; n < 128; n++)
        s->cmos[n] &= code_random() & 1 ? 0xff : 0x1ff;
    if (!(code_random() & 3))
        s->deadline.limit >>= code_random() & 63;
    if (!(code_random() & 7))
        s->deadline.limit = (r[RDX] << 32 | (uint32_t)r[RAX]) - (code_random() & 1);
    s->once_after &= 0xff0000;
    s->ring_lock = !(code_random() & 7);
    s->ring_tail %= PV_RING_SLOTS;
    if (!(code_random() & 3))
        s->ring_tail = PV_RING_SLOTS - 1;
    if (code_random() & 3)
        s->ring[s->ring_tail] = 0;
}
