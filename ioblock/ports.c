/* SPDX-License-Identifier: MIT */
/* Which ports a block's IO instructions name: immediates, and DX where a MOV before it says what
 * it holds.
 *
 * Information for people and reports: a port that is not constant is simply not among them. DX is
 * followed along the straight line only, and forgotten wherever control may come in from elsewhere
 * or another instruction writes it. */
#include "ioblock/graph.h"

#define DX_UNKNOWN 0x10000u

struct ports {
    const struct io_code *code;
    struct io_block *block;
    ZydisDecoder decoder;
    uint64_t targets[IO_BLOCK_INSNS_MAX]; /* of the block's direct branches */
    unsigned target_count;
    uint32_t dx;
};

struct decoded_io {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

static void add_port(struct io_block *block, uint32_t port)
{
    unsigned at = 0;
    while (at < block->port_count && block->ports[at] < port)
        at++;
    if (port >= DX_UNKNOWN || block->port_count == IO_BLOCK_PORTS_MAX ||
        (at < block->port_count && block->ports[at] == port))
        return;
    for (unsigned k = block->port_count++; k > at; k--)
        block->ports[k] = block->ports[k - 1];
    block->ports[at] = (uint16_t)port;
}

static bool is_dx(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand->reg.value) ==
               ZYDIS_REGISTER_RDX;
}

/* What DX holds behind the instruction. */
static uint32_t dx_behind(const struct decoded_io *i, uint32_t dx)
{
    const ZydisDecodedOperand *o = i->operands;
    enum io_class class = io_classify(&i->z);
    if (class == IO_CLASS_CALL || class == IO_CLASS_INDIRECT_CALL || class == IO_CLASS_UNKNOWN)
        return DX_UNKNOWN;
    for (unsigned k = 0; k < i->z.operand_count; k++) {
        if (!is_dx(&o[k]) || !(o[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        bool constant = i->z.mnemonic == ZYDIS_MNEMONIC_MOV && o[0].size >= 16 &&
                        o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
        bool step = constant ||
                    (dx < DX_UNKNOWN && o[0].size >= 16 &&
                     (i->z.mnemonic == ZYDIS_MNEMONIC_INC || i->z.mnemonic == ZYDIS_MNEMONIC_DEC));
        if (!step)
            return DX_UNKNOWN;
        dx = constant ? o[1].imm.value.u & 0xffff
                      : (dx + (i->z.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : 0xffff)) & 0xffff;
    }
    return dx;
}

static void look_at_io(struct ports *p, const struct decoded_io *i)
{
    const ZydisDecodedOperand *o = i->operands;
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_IN:
        add_port(p->block,
                 o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o[1].imm.value.u & 0xff : p->dx);
        break;
    case ZYDIS_MNEMONIC_OUT:
        add_port(p->block,
                 o[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o[0].imm.value.u & 0xff : p->dx);
        break;
    default:
        if (io_classify(&i->z) == IO_CLASS_IO)
            add_port(p->block, p->dx);
        break;
    }
}

static void note_target(struct ports *p, uint64_t target)
{
    if (p->target_count < IO_BLOCK_INSNS_MAX)
        p->targets[p->target_count++] = target;
}

static bool is_target(const struct ports *p, uint64_t address)
{
    for (unsigned k = 0; k < p->target_count; k++)
        if (p->targets[k] == address)
            return true;
    return address == p->block->key && p->block->flags & IO_BLOCK_LOOP;
}

/* What the second pass does at an instruction. As long as DX is unknown, only MOV to DX and IO
 * matter: the rest is passed over by its length, without Zydis. */
static void look_at(struct ports *p, const uint8_t *bytes, size_t available, uint64_t address,
                    const struct instruction *quick)
{
    struct decoded_io i;
    bool mov = bytes[0] == 0xba || (bytes[0] == 0x66 && bytes[1] == 0xba);
    if (p->dx != DX_UNKNOWN && is_target(p, address))
        p->dx = DX_UNKNOWN;
    if (p->dx == DX_UNKNOWN && !mov && quick->class != IO_CLASS_IO)
        return;
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&p->decoder, bytes, available, &i.z, i.operands))) {
        p->dx = DX_UNKNOWN;
        return;
    }
    look_at_io(p, &i);
    p->dx = dx_behind(&i, p->dx);
}

static void walk_range(struct ports *p, const struct io_range *range, bool targets)
{
    uint64_t address = p->block->key + (uint64_t)range->offset, end = address + range->size;
    p->dx = DX_UNKNOWN;
    while (address < end) {
        uint8_t bytes[INSTRUCTION_ROOM];
        struct instruction i;
        size_t available = p->code->read(p->code->context, address, bytes, sizeof bytes);
        if (available < 2 ||
            (!(p->code->bits == 64 && instruction_quick(bytes, (unsigned)available, &i)) &&
             !instruction_full(&p->decoder, bytes, (unsigned)available, &i)))
            return;
        if (!targets)
            look_at(p, bytes, available, address, &i);
        else if (i.class == IO_CLASS_BRANCH || i.class == IO_CLASS_JUMP || i.class == IO_CLASS_CALL)
            note_target(p, address + i.length + (uint64_t)i.displacement);
        address += i.length;
    }
}

void scan_ports(const struct io_code *code, struct io_block *block)
{
    struct ports p = {.code = code, .block = block};
    if (code->bits == 64)
        ZydisDecoderInit(&p.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (code->bits == 32)
        ZydisDecoderInit(&p.decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&p.decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned k = 0; k < block->range_count; k++)
            walk_range(&p, &block->ranges[k], pass == 0);
}
