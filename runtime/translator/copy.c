/* SPDX-License-Identifier: MIT */
/* Instructions that are copied: the host's instruction does it, with the operands where the guest's are. */
#include "runtime/translator/translation.h"

#include <string.h>

/* ---- which ---- */
static bool takes_bit_number(const struct item *item)
{
    ZydisMnemonic mnemonic = item->z.mnemonic;
    return mnemonic == ZYDIS_MNEMONIC_BT || mnemonic == ZYDIS_MNEMONIC_BTS ||
           mnemonic == ZYDIS_MNEMONIC_BTR || mnemonic == ZYDIS_MNEMONIC_BTC;
}

/* With a bit number in a register, a bit string in memory extends beyond the operand. */
static bool is_bit_string(const struct item *item)
{
    return takes_bit_number(item) && item->memory != NO_OPERAND && item->reg != NO_OPERAND;
}

/* AH and its kind are not named together with a register that needs a REX prefix: memory operands do, and so do
 * registers that stand elsewhere than in the guest. */
static bool high_bytes_named(const struct item *item)
{
    if (item->memory != NO_OPERAND || item->z.attributes & ZYDIS_ATTRIB_HAS_REX)
        return false;
    for (unsigned n = 0; n < item->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &item->operand[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_legacy_high(o->reg.value) &&
            host_register(guest_number(o->reg.value)) >= R8)
            return false;
    }
    return true;
}

bool usual_copy(const struct item *item)
{
    return !is_bit_string(item) && (!item->legacy_high || high_bytes_named(item)) &&
           !(item->count_in_cl && item->memory != NO_OPERAND && item->reg != NO_OPERAND) &&
           item->z.opcode_map <= ZYDIS_OPCODE_MAP_0F38;
}

bool usual_divide(const struct item *item)
{
    return item->z.operand_width >= 32 && item->operand[0].size >= 32;
}

bool usual_lea(const struct item *item)
{
    return item->memory != NO_OPERAND &&
           (item->operand[item->memory].mem.base != ZYDIS_REGISTER_RIP ||
            item->z.operand_width == 64);
}

static bool is_plain(const ZydisDecodedOperand *o)
{
    return o->mem.base != ZYDIS_REGISTER_NONE && o->mem.base != ZYDIS_REGISTER_RIP &&
           o->mem.index == ZYDIS_REGISTER_NONE && o->mem.segment != ZYDIS_REGISTER_FS &&
           o->mem.segment != ZYDIS_REGISTER_GS &&
           host_register(guest_number(o->mem.base)) != IN_MEMORY;
}

bool access_copy(const struct item *item, struct access_range *access)
{
    if (item->memory == NO_OPERAND || !is_plain(&item->operand[item->memory]))
        return false;
    const ZydisDecodedOperand *o = &item->operand[item->memory];
    *access = (struct access_range){(uint8_t)guest_number(o->mem.base), is_written(o),
                                    (int32_t)o->mem.disp.value, o->size / 8};
    return o->mem.disp.value + 4 * RANGE_MAX == (int32_t)(o->mem.disp.value + 4 * RANGE_MAX) &&
           o->mem.disp.value - 4 * RANGE_MAX == (int32_t)(o->mem.disp.value - 4 * RANGE_MAX);
}

/* ---- its registers ---- */
static const ZydisDecodedOperand *register_operand(const struct item *item, unsigned n)
{
    return n == NO_OPERAND ? NULL : &item->operand[n];
}

static bool reads(const struct item *item, const ZydisDecodedOperand *o)
{
    /* what is written in part keeps the rest; and processors keep all of it where BSF and BSR find no bit */
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_READ || o->size < 32 ||
           o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE || item->z.mnemonic == ZYDIS_MNEMONIC_BSF ||
           item->z.mnemonic == ZYDIS_MNEMONIC_BSR;
}

/* The number by which the copy names a register. */
static uint8_t number_of(const ZydisDecodedOperand *o, unsigned host)
{
    ZydisRegister reg = o->reg.value;
    if (is_legacy_high(reg))
        return (uint8_t)(4 + (reg - ZYDIS_REGISTER_AH));
    return (uint8_t)host;
}

static struct host_insn shape_of(const struct item *item)
{
    const ZydisDecodedInstruction *z = &item->z;
    struct host_insn insn = {.opcode = z->opcode,
                             .wide = z->raw.rex.W,
                             .map = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? 0
                                    : z->opcode_map == ZYDIS_OPCODE_MAP_0F    ? 1
                                                                              : 2,
                             .reg = z->raw.modrm.reg};
    for (unsigned n = 0; n < z->raw.prefix_count; n++) {
        uint8_t value = z->raw.prefixes[n].value;
        if (value == 0x66)
            insn.operand16 = true;
        if ((value == 0xf2 || value == 0xf3) &&
            z->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            insn.repeat = value;
    }
    insn.no_modrm = !(z->attributes & ZYDIS_ATTRIB_HAS_MODRM);
    if (insn.no_modrm) { /* the low bits may be a register */
        insn.reg = z->opcode & 7;
        insn.opcode &= 0xf8;
    }
    /* SPL to DIL, and what replaces them, need a REX prefix; any register of 8 bits may have one but AH to BH */
    for (unsigned n = 0; n < z->operand_count_visible; n++)
        if (item->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(item->operand[n].reg.value) == ZYDIS_REGCLASS_GPR8 &&
            !item->legacy_high)
            insn.rex = true;
    return insn;
}

/* Immediates as they stand in the original: its last bytes. */
static void take_immediate(const struct generator *g, struct host_insn *insn)
{
    const ZydisDecodedInstruction *z = &g->item->z;
    for (unsigned n = 0; n < 2; n++) {
        if (!z->raw.imm[n].size)
            continue;
        unsigned size = z->raw.imm[n].size / 8u;
        uint64_t value = z->raw.imm[n].value.u;
        memcpy(insn->immediate + insn->immediate_size, &value, size);
        insn->immediate_size = (uint8_t)(insn->immediate_size + size);
    }
}

/* A register operand of the copy: where it is, and how it gets there and back. */
struct place {
    unsigned guest,
        host;   /* host == IN_MEMORY: the operand is the guest's register in memory itself */
    bool store; /* into memory, behind the instruction */
};

static struct place bring(struct generator *g, const ZydisDecodedOperand *o, unsigned temp)
{
    struct place place = {.guest = guest_number(o->reg.value)};
    place.host = host_register(place.guest);
    if (place.host != IN_MEMORY)
        return place;
    place.host = temp;
    place.store = is_written(o);
    if (reads(g->item, o))
        emit_load(&g->emit, temp, RM_MEMORY(RSP, OF_REGISTER(place.guest)));
    return place;
}

static void send_back(struct generator *g, const struct place *place)
{
    if (place->store)
        emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(place->guest)), place->host);
}

/* A register in ModRM.rm may be replaced by its place in memory, but where 32 bits are written: that clears the
 * rest. */
static bool stays_in_memory(const struct item *item, const ZydisDecodedOperand *o)
{
    return host_register(guest_number(o->reg.value)) == IN_MEMORY && !takes_bit_number(item) &&
           !(is_written(o) && o->size == 32);
}

/* A group's addend survives instructions between its members (group.c asks the same). */
static unsigned second_temp(const struct item *item)
{
    return item->count_in_cl ? TEMP_ADDEND : TEMP_COUNT;
}

/* ---- the copy ---- */
static void copy_registers(struct generator *g)
{
    const struct item *item = g->item;
    struct host_insn insn = shape_of(item);
    const ZydisDecodedOperand *reg = register_operand(item, item->reg);
    const ZydisDecodedOperand *rm = register_operand(item, item->rm);
    struct place first = {0}, second = {0};
    bool same = reg && rm && guest_number(reg->reg.value) == guest_number(rm->reg.value);
    if (item->count_in_cl)
        emit_mov(&g->emit, TEMP_COUNT, HOST_OF_RCX);
    if (reg) {
        first = bring(g, reg, TEMP_ADDRESS);
        insn.reg = number_of(reg, first.host);
    }
    if (rm && same && host_register(first.guest) == IN_MEMORY) {
        if (!reads(item, reg) && reads(item, rm))
            emit_load(&g->emit, TEMP_ADDRESS, RM_MEMORY(RSP, OF_REGISTER(first.guest)));
        first.store |= is_written(rm);
        insn.rm = RM_REGISTER(first.host);
    } else if (rm && stays_in_memory(item, rm)) {
        insn.rm = RM_MEMORY(RSP, OF_REGISTER(guest_number(rm->reg.value)));
    } else if (rm) {
        second = bring(g, rm, second_temp(item));
        insn.rm = RM_REGISTER(number_of(rm, second.host));
    }
    take_immediate(g, &insn);
    if (!emit_insn(&g->emit, &insn, item->legacy_high))
        g->emit.failed = true;
    send_back(g, &first);
    send_back(g, &second);
}

static void copy_memory(struct generator *g)
{
    const struct item *item = g->item;
    const ZydisDecodedOperand *memory = &item->operand[item->memory];
    const ZydisDecodedOperand *reg = register_operand(item, item->reg);
    struct host_insn insn = shape_of(item);
    struct place place = {0};
    insn.rm = emit_operand(g, memory->size / 8u, is_written(memory));
    if (item->count_in_cl)
        emit_mov(&g->emit, TEMP_COUNT, HOST_OF_RCX);
    if (reg) {
        place = bring(g, reg, TEMP_COUNT);
        insn.reg = number_of(reg, place.host);
    }
    take_immediate(g, &insn);
    if (!emit_insn(&g->emit, &insn, item->legacy_high))
        g->emit.failed = true;
    send_back(g, &place);
}

void generate_copy(struct generator *g)
{
    if (g->item->memory != NO_OPERAND)
        copy_memory(g);
    else
        copy_registers(g);
}

void generate_lea(struct generator *g)
{
    const struct item *item = g->item;
    const ZydisDecodedOperand *reg = &item->operand[item->reg];
    unsigned guest = guest_number(reg->reg.value), host = host_register(guest);
    bool direct = host != IN_MEMORY && reg->size == 64;
    emit_effective_address(g, direct ? host : TEMP_ADDRESS);
    if (direct)
        return;
    if (reg->size == 64)
        emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_ADDRESS);
    else if (reg->size == 32) {
        emit_lea32(&g->emit, host == IN_MEMORY ? TEMP_ADDRESS : host, RM_MEMORY(TEMP_ADDRESS, 0));
        if (host == IN_MEMORY)
            emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_ADDRESS);
    } else { /* 16 bits: mov */
        struct host_insn insn = {.operand16 = true, .opcode = 0x89, .reg = TEMP_ADDRESS};
        insn.rm = host == IN_MEMORY ? RM_MEMORY(RSP, OF_REGISTER(guest)) : RM_REGISTER(host);
        emit_insn(&g->emit, &insn, false);
    }
}

/* With the upper half zero the quotient fits, whatever the divisor is but zero: both can be seen without a flag. */
void generate_divide(struct generator *g)
{
    struct emit *e = &g->emit;
    const ZydisDecodedOperand *divisor = &g->item->operand[0];
    bool wide = divisor->size == 64;
    if (g->item->memory != NO_OPERAND)
        prepare_lookup(g); /* two jumps lead to one exit */
    emit_mov_sized(e, wide, TEMP_COUNT, RM_REGISTER(RDX));
    uint32_t small = emit_jump_if_zero(e);
    uint32_t odd = e->used;
    exit_jump(g, exit_make(g, TRANSLATOR_INTERPRET));
    emit_here_short(e, small);
    struct host_rm from = RM_FOUND;
    if (g->item->memory != NO_OPERAND) {
        uint32_t again = e->used;
        emit_address(g);
        emit_lookup(g, again, divisor->size / 8u, false);
    } else {
        unsigned guest = guest_number(divisor->reg.value), host = host_register(guest);
        from = host == IN_MEMORY ? RM_MEMORY(RSP, OF_REGISTER(guest)) : RM_REGISTER(host);
    }
    emit_mov_sized(e, wide, TEMP_COUNT, from);
    emit_jump_if_zero_back(e, odd);
    struct host_insn insn = {.wide = wide, .opcode = 0xf7, .reg = 6, .rm = RM_REGISTER(TEMP_COUNT)};
    emit_insn(e, &insn, false);
}
