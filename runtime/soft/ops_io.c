/* SPDX-License-Identifier: MIT */
/* Port input and output, and the doorbell of patched guests. */
#include "runtime/soft/system.h"

#include "hvstub/hvstub.h"
#include "runtime/io_dispatcher.h"
#include "runtime/soft/enter.h"
#include "runtime/stub.h"

/* insn.aux: bytes of the access; insn.imm: the port, or IO_PORT_DX. */
#define IO_PORT_DX 0x10000u

/* SDM 1 19.5.2: above IOPL and in virtual-8086 mode the TSS's bitmap decides; a bit for each byte of the access must be
 * clear, and the byte behind the last one must be in the TSS too. */
static void check_bitmap(struct vcpu *cpu, const struct insn *i, uint16_t port, unsigned size)
{
    const struct segment *tss = &cpu->segment[SEG_TR];
    const unsigned map_field = 102;
    unsigned type = tss->rights & (RIGHTS_S | RIGHTS_TYPE);
    if (!(tss->rights & RIGHTS_P) || tss->rights & RIGHTS_UNUSABLE ||
        (type != TYPE_TSS && type != TYPE_TSS_BUSY) || tss->limit < map_field + 1)
        RAISE_GP();
    uint32_t at = (uint32_t)table_load(cpu, i, tss->base + map_field, 2) + port / 8;
    if (at + 1 > tss->limit)
        RAISE_GP();
    unsigned bits = (unsigned)table_load(cpu, i, tss->base + at, 2) >> (port & 7);
    if (bits & ((1u << size) - 1))
        RAISE_GP();
}

static inline void check_permission(struct vcpu *cpu, const struct insn *i, uint16_t port)
{
    if (unlikely(cpu->cpl > (cpu->rflags & RFLAGS_IOPL) >> 12 || vcpu_v86(cpu)))
        check_bitmap(cpu, i, port, i->aux);
}

static inline uint16_t port_of(const struct vcpu *cpu, const struct insn *i)
{
    return i->imm & IO_PORT_DX ? (uint16_t)cpu->r[RDX] : (uint16_t)(i->imm & 0xff);
}

/* ---- INS and OUTS are executed one iteration at a time; with REP the instruction is then executed again ---- */
/* insn.index is the register that steps, insn.scale the bytes of an address. */
static uint64_t address_mask(const struct insn *i)
{
    return i->scale == 8 ? ~0ull : i->scale == 4 ? 0xffffffffull : 0xffffull;
}

static bool repeats(const struct insn *i)
{
    return i->flags & (INSN_REP | INSN_REPNE);
}

/* More iterations follow this one. */
static bool goes_on(const struct vcpu *cpu, const struct insn *i)
{
    return repeats(i) && (cpu->r[RCX] & address_mask(i)) > 1;
}

/* An access: an event of its own, unless a block is under way, whose event was counted when it began. */
static void count(struct vcpu *cpu, const struct insn *i, uint16_t port, bool in)
{
    if (unlikely(exits_by(cpu, EXIT_KIND_IO)))
        exit_by_io(cpu, i, port, in, i->index != offsetof(struct vcpu, r[REG_ZERO]));
    struct stats *stats = &cpu->vm->stats;
    if (!goes_on(cpu, i))
        stats->io_instructions++;
    if (cpu->block && cpu->block->in_event)
        return;
    stats->io_events++;
    count_exit(cpu, i, EXIT_KIND_IO);
}

/* ---- events ---- */
/* Whether this instruction begins an event that may take others with it. Not in a block already under way, nor where
 * instructions are looked at one by one: single steps, traps, breakpoints, the guest's own or a debugger's. */
static inline bool may_batch(const struct vcpu *cpu)
{
    return cpu->vm->io_blocks && cpu->block && !cpu->block->in_event && !cpu->block->doorbell &&
           !cpu->unbatched && !cpu->one_iteration && !(cpu->rflags & RFLAGS_TF) &&
           !(cpu->dr[7] & 0xff) && !cpu->pending_db;
}

/* The event, permission being checked. True: it is over, with this instruction and maybe others (leave the block). False:
 * the instruction is still to be executed. */
static bool event(struct vcpu *cpu, const struct insn *i)
{
    struct block *block = cpu->block;
    uint64_t rip = cpu->rip;
    int64_t rest = block->count - i->position;
    int64_t *granted = cpu->kicked ? &cpu->withheld : &cpu->budget;
    *granted += rest;
    cpu->rip = insn_rip(cpu, i);
    cpu->block = NULL;
    cpu->link = NULL;
    cpu->current = NULL;
    if (io_dispatch(cpu))
        return true;
    cpu->block = block;
    cpu->rip = rip;
    cpu->budget -= rest;
    return false;
}

#define EVENT()                                                                                    \
    do {                                                                                           \
        if (may_batch(cpu) && event(cpu, i))                                                       \
            return NULL;                                                                           \
    } while (0)

static inline void check_owner(struct vcpu *cpu, const struct insn *i, uint16_t port)
{
    const struct bus *bus = &cpu->vm->bus;
    if (unlikely(bus->elsewhere != NULL) && bus->elsewhere(port, true))
        leave_instruction(cpu, i);
}

static uint32_t input(struct vcpu *cpu, const struct insn *i, uint16_t port)
{
    cpu->current = i;
    check_owner(cpu, i, port);
    count(cpu, i, port, true);
    return bus_in(&cpu->vm->bus, port, i->aux);
}

static void output(struct vcpu *cpu, const struct insn *i, uint16_t port, uint32_t value)
{
    cpu->current = i;
    check_owner(cpu, i, port);
    count(cpu, i, port, false);
    bus_out(&cpu->vm->bus, port, i->aux, value);
}

static uint32_t accumulator(const struct vcpu *cpu, unsigned size)
{
    return (uint32_t)(cpu->r[RAX] & (0xffffffffu >> (32 - 8 * size)));
}

/* ---- IN and OUT ---- */
OP(in)
{
    uint16_t port = port_of(cpu, i);
    check_permission(cpu, i, port);
    EVENT();
    uint32_t value = input(cpu, i, port);
    if (i->aux == 1)
        REG8(offsetof(struct vcpu, r[RAX])) = (uint8_t)value;
    else if (i->aux == 2)
        REG16(offsetof(struct vcpu, r[RAX])) = (uint16_t)value;
    else
        SET32(offsetof(struct vcpu, r[RAX]), value);
    NEXT_SLOW;
}

/* The block ends: what the device does (interrupts, reset, power off) shows at the next instruction. */
OP(out)
{
    uint16_t port = port_of(cpu, i);
    check_permission(cpu, i, port);
    EVENT();
    output(cpu, i, port, accumulator(cpu, i->aux));
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

OP(out_doorbell)
{
    if (!cpu->vm->stub)
        return out(cpu, i);
    check_permission(cpu, i, PV_DOORBELL_PORT);
    uint64_t next = insn_next_rip(cpu, i);
    cpu->current = i;
    if (!stub_doorbell(cpu, i, &next))
        output(cpu, i, PV_DOORBELL_PORT, accumulator(cpu, i->aux));
    return insn_leave(cpu, i, next);
}

static void fill_port(const ZydisDecodedOperand *operand, struct insn *out)
{
    out->imm =
        operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? operand->imm.value.u & 0xff : IO_PORT_DX;
}

static insn_fn *select_in(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->operands[0].size / 8);
    fill_port(&d->operands[1], out);
    return in;
}

static insn_fn *select_out(struct decoded *d, struct insn *insn)
{
    insn->aux = (uint8_t)(d->operands[1].size / 8);
    fill_port(&d->operands[0], insn);
    d->ends_block = true;
    return insn->imm == PV_DOORBELL_PORT && insn->aux == 4 ? out_doorbell : out;
}

/* ---- INS and OUTS ---- */
static void set_address(struct vcpu *cpu, const struct insn *i, unsigned offset, uint64_t value)
{
    if (i->scale == 2)
        REG16(offset) = (uint16_t)value;
    else
        REG64(offset) = value & address_mask(i);
}

static uint64_t string_address(struct vcpu *cpu, const struct insn *i, bool write)
{
    uint64_t offset = REG64(i->index) & address_mask(i);
    if (i->flags & INSN_LEGACY)
        return linear_slow(cpu, i, offset, i->aux, write);
    return offset + cpu->base[i->segment];
}

static bool repeated_out(const struct vcpu *cpu, const struct insn *i)
{
    return repeats(i) && (cpu->r[RCX] & address_mask(i)) == 0;
}

/* Steps the registers; the RIP to go on at. */
static uint64_t advance(struct vcpu *cpu, const struct insn *i)
{
    uint64_t step = cpu->rflags & RFLAGS_DF ? -(uint64_t)i->aux : i->aux;
    set_address(cpu, i, i->index, REG64(i->index) + step);
    if (!repeats(i))
        return insn_next_rip(cpu, i);
    set_address(cpu, i, offsetof(struct vcpu, r[RCX]), cpu->r[RCX] - 1);
    cpu->repeating = !repeated_out(cpu, i);
    return cpu->repeating ? insn_rip(cpu, i) : insn_next_rip(cpu, i);
}

OP(ins)
{
    uint16_t port = (uint16_t)cpu->r[RDX];
    check_permission(cpu, i, port); /* even if there is nothing left to do */
    if (repeated_out(cpu, i))
        return insn_leave(cpu, i, insn_next_rip(cpu, i));
    EVENT();
    uint64_t address = string_address(cpu, i, true);
    probe_write(cpu, i, address, i->aux); /* a fault must not lose what the device gave */
    store(cpu, i, address, i->aux, input(cpu, i, port));
    return insn_leave(cpu, i, advance(cpu, i));
}

OP(outs)
{
    uint16_t port = (uint16_t)cpu->r[RDX];
    check_permission(cpu, i, port); /* even if there is nothing left to do */
    if (repeated_out(cpu, i))
        return insn_leave(cpu, i, insn_next_rip(cpu, i));
    EVENT();
    uint32_t value = (uint32_t)load(cpu, i, string_address(cpu, i, false), i->aux);
    output(cpu, i, port, value);
    return insn_leave(cpu, i, advance(cpu, i));
}

static insn_fn *select_string(struct decoded *d, struct insn *out, unsigned memory, unsigned reg)
{
    const ZydisDecodedOperand *operand = &d->operands[memory];
    out->aux = (uint8_t)(operand->size / 8);
    out->scale = (uint8_t)(d->zydis->address_width / 8);
    out->index = (uint8_t)(offsetof(struct vcpu, r) + 8 * reg);
    out->segment = (uint8_t)ZydisRegisterGetId(operand->mem.segment);
    d->ends_block = true;
    return reg == RDI ? ins : outs;
}

static insn_fn *select_ins(struct decoded *d, struct insn *out)
{
    return select_string(d, out, 0, RDI);
}

static insn_fn *select_outs(struct decoded *d, struct insn *out)
{
    return select_string(d, out, 1, RSI);
}

const struct op_row ops_io[] = {
    {ZYDIS_MNEMONIC_IN, select_in},
    {ZYDIS_MNEMONIC_OUT, select_out},
    {ZYDIS_MNEMONIC_INSB, select_ins},
    {ZYDIS_MNEMONIC_INSW, select_ins},
    {ZYDIS_MNEMONIC_INSD, select_ins},
    {ZYDIS_MNEMONIC_OUTSB, select_outs},
    {ZYDIS_MNEMONIC_OUTSW, select_outs},
    {ZYDIS_MNEMONIC_OUTSD, select_outs},
    {0, NULL},
};
