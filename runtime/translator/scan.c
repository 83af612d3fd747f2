/* SPDX-License-Identifier: MIT */
/* The first pass: a block's bytes are decoded again, for the interpreter keeps what its functions need and no more, and
 * each instruction is looked at: may it be translated? */
#include "runtime/cpuid.h"
#include "runtime/translator/translation.h"

static bool is_general(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return true;
    default:
        return false;
    }
}

/* One that has the same number in the copy. */
static bool is_vector(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_X87:
        return true;
    default:
        return false;
    }
}

/* A register that the encoding does not name must be where it is on the host: RAX and RDX are, and CL can be. */
static bool take_implicit(struct item *item, ZydisRegister reg)
{
    unsigned guest = guest_number(reg);
    if (guest == RCX && reg == ZYDIS_REGISTER_CL) {
        item->count_in_cl = true;
        return true;
    }
    /* of vector instructions RCX is the result (vectors.c) */
    return guest == RAX || guest == RDX || (guest == RCX && class_rows[item->class].vectors);
}

static bool take_register(struct item *item, unsigned n)
{
    const ZydisDecodedOperand *o = &item->operand[n];
    ZydisRegister reg = o->reg.value;
    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_FLAGS)
        return true;
    if (is_vector(reg))
        return class_rows[item->class].vectors;
    if (!is_general(reg))
        return false;
    if (is_legacy_high(reg)) {
        item->legacy_high = true;
        if (guest_number(reg) == RCX)
            return false;
    }
    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        item->reg = (uint8_t)n;
        return true;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        item->rm = (uint8_t)n;
        return true;
    case ZYDIS_OPERAND_ENCODING_NONE:
        return take_implicit(item, reg);
    default:
        return false;
    }
}

static bool take_memory(struct item *item, unsigned n)
{
    const ZydisDecodedOperand *o = &item->operand[n];
    if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || item->memory != NO_OPERAND ||
        o->mem.disp.value != (int32_t)o->mem.disp.value)
        return false;
    item->memory = (uint8_t)n;
    return true;
}

/* Prefixes that change what an instruction does or are not worth looking at. */
static bool plain_prefixes(const ZydisDecodedInstruction *z)
{
    for (unsigned n = 0; n < z->raw.prefix_count; n++) {
        uint8_t value = z->raw.prefixes[n].value;
        if ((value == 0xf2 || value == 0xf3) &&
            z->raw.prefixes[n].type != ZYDIS_PREFIX_TYPE_MANDATORY)
            return false;
        if (value == 0x67)
            return false;
    }
    return true;
}

/* Operands that are there besides what the class itself deals with (the stack, RIP). */
static bool take_operands(struct item *item)
{
    unsigned count = class_rows[item->class].hidden_operands ? item->z.operand_count
                                                             : item->z.operand_count_visible;
    for (unsigned n = 0; n < count; n++) {
        bool taken = true;
        if (item->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER)
            taken = take_register(item, n);
        else if (item->operand[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            taken = take_memory(item, n);
        else if (item->operand[n].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            taken = false;
        if (!taken)
            return false;
    }
    return true;
}

static enum item_class classify(struct item *item)
{
    const ZydisDecodedInstruction *z = &item->z;
    item->class = class_of(z);
    const struct class_row *row = &class_rows[item->class];
    bool vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && row->vectors;
    if (item->class == CLASS_INTERPRET ||
        (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && !vex) ||
        !cpuid_offers_isa(z->meta.isa_set))
        return CLASS_INTERPRET;
    if (item->class == CLASS_NOTHING)
        return CLASS_NOTHING;
    if ((!row->ends && !plain_prefixes(z)) || z->address_width != 64 ||
        (!row->own_operands && !take_operands(item)) || (row->usual && !row->usual(item)))
        return CLASS_INTERPRET; /* BND and its like mean nothing before branches */
    return item->class;
}

void scan_block(const struct block *block, const uint8_t *bytes, uint64_t rip, struct item *items)
{
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned n = 0; n < block->count; n++) {
        const struct insn *insn = &block->insns[n];
        struct item *item = &items[n];
        item->rip = rip + insn->offset;
        item->next = item->rip + insn->length;
        item->memory = item->reg = item->rm = NO_OPERAND;
        item->count_in_cl = item->legacy_high = item->member = item->grouped = item->inner = false;
        item->second = false;
        item->class = CLASS_INTERPRET;
        /* if it is undefined the interpreter raises #UD */
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes + insn->offset,
                                                block->bytes - insn->offset, &item->z,
                                                item->operand)) &&
            item->z.length == insn->length)
            item->class = classify(item);
        if (class_rows[item->class].inside && n + 1 == block->count)
            item->class = CLASS_INTERPRET;
        if (item->class == CLASS_INTERPRET && n + 1 < block->count)
            item->class = CLASS_CALL_OUT;
    }
}
