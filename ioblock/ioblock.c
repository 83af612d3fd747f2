/* SPDX-License-Identifier: MIT */
/* Blocks as data: which instructions may stand in one, its bytes, its hashes, its bounds. */
#include "ioblock/ioblock.h"

#include <string.h>
#include <xxhash.h>

#include "hvstub/hvstub.h"

/* ---- instructions ---- */
#define PLAIN(name) [ZYDIS_MNEMONIC_##name] = IO_CLASS_PLAIN
#define IO(name)    [ZYDIS_MNEMONIC_##name] = IO_CLASS_IO
#define BRANCH(cc)  [ZYDIS_MNEMONIC_##cc] = IO_CLASS_BRANCH

/* What the mnemonic alone says; classify() looks closer where it names more than one thing. */
static const uint8_t class_of[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    /* data movement */
    PLAIN(MOV),
    PLAIN(MOVZX),
    PLAIN(MOVSX),
    PLAIN(MOVSXD),
    PLAIN(MOVBE),
    PLAIN(LEA),
    PLAIN(XCHG),
    PLAIN(PUSH),
    PLAIN(POP),
    PLAIN(LEAVE),
    PLAIN(BSWAP),
    PLAIN(XLAT),
    PLAIN(LAHF),
    PLAIN(SAHF),
    PLAIN(CMOVB),
    PLAIN(CMOVBE),
    PLAIN(CMOVL),
    PLAIN(CMOVLE),
    PLAIN(CMOVNB),
    PLAIN(CMOVNBE),
    PLAIN(CMOVNL),
    PLAIN(CMOVNLE),
    PLAIN(CMOVNO),
    PLAIN(CMOVNP),
    PLAIN(CMOVNS),
    PLAIN(CMOVNZ),
    PLAIN(CMOVO),
    PLAIN(CMOVP),
    PLAIN(CMOVS),
    PLAIN(CMOVZ),
    PLAIN(SETB),
    PLAIN(SETBE),
    PLAIN(SETL),
    PLAIN(SETLE),
    PLAIN(SETNB),
    PLAIN(SETNBE),
    PLAIN(SETNL),
    PLAIN(SETNLE),
    PLAIN(SETNO),
    PLAIN(SETNP),
    PLAIN(SETNS),
    PLAIN(SETNZ),
    PLAIN(SETO),
    PLAIN(SETP),
    PLAIN(SETS),
    PLAIN(SETZ),
    /* arithmetic and logic */
    PLAIN(ADD),
    PLAIN(ADC),
    PLAIN(SUB),
    PLAIN(SBB),
    PLAIN(CMP),
    PLAIN(INC),
    PLAIN(DEC),
    PLAIN(NEG),
    PLAIN(AND),
    PLAIN(OR),
    PLAIN(XOR),
    PLAIN(NOT),
    PLAIN(TEST),
    PLAIN(MUL),
    PLAIN(IMUL),
    PLAIN(DIV),
    PLAIN(IDIV),
    PLAIN(SHL),
    PLAIN(SHR),
    PLAIN(SAR),
    PLAIN(ROL),
    PLAIN(ROR),
    PLAIN(RCL),
    PLAIN(RCR),
    PLAIN(SHLD),
    PLAIN(SHRD),
    PLAIN(BT),
    PLAIN(BTS),
    PLAIN(BTR),
    PLAIN(BTC),
    PLAIN(BSF),
    PLAIN(BSR),
    PLAIN(TZCNT),
    PLAIN(LZCNT),
    PLAIN(POPCNT),
    PLAIN(XADD),
    PLAIN(CMPXCHG),
    PLAIN(CMPXCHG8B),
    PLAIN(CMPXCHG16B),
    PLAIN(CBW),
    PLAIN(CWDE),
    PLAIN(CDQE),
    PLAIN(CWD),
    PLAIN(CDQ),
    PLAIN(CQO),
    PLAIN(CLC),
    PLAIN(STC),
    PLAIN(CMC),
    PLAIN(CLD),
    PLAIN(STD),
    PLAIN(AAA),
    PLAIN(AAS),
    PLAIN(AAM),
    PLAIN(AAD),
    PLAIN(DAA),
    PLAIN(DAS),
    /* strings */
    PLAIN(MOVSB),
    PLAIN(MOVSW),
    PLAIN(MOVSD),
    PLAIN(MOVSQ),
    PLAIN(STOSB),
    PLAIN(STOSW),
    PLAIN(STOSD),
    PLAIN(STOSQ),
    PLAIN(LODSB),
    PLAIN(LODSW),
    PLAIN(LODSD),
    PLAIN(LODSQ),
    PLAIN(SCASB),
    PLAIN(SCASW),
    PLAIN(SCASD),
    PLAIN(SCASQ),
    PLAIN(CMPSB),
    PLAIN(CMPSW),
    PLAIN(CMPSD),
    PLAIN(CMPSQ),
    /* hints, order, time */
    PLAIN(NOP),
    PLAIN(PAUSE),
    PLAIN(ENDBR64),
    PLAIN(ENDBR32),
    PLAIN(LFENCE),
    PLAIN(MFENCE),
    PLAIN(SFENCE),
    PLAIN(PREFETCHNTA),
    PLAIN(PREFETCHT0),
    PLAIN(PREFETCHT1),
    PLAIN(PREFETCHT2),
    PLAIN(PREFETCHW),
    PLAIN(PREFETCH),
    PLAIN(RDTSC),
    /* input and output */
    IO(IN),
    IO(OUT),
    IO(INSB),
    IO(INSW),
    IO(INSD),
    IO(OUTSB),
    IO(OUTSW),
    IO(OUTSD),
    /* control flow */
    BRANCH(JB),
    BRANCH(JBE),
    BRANCH(JL),
    BRANCH(JLE),
    BRANCH(JNB),
    BRANCH(JNBE),
    BRANCH(JNL),
    BRANCH(JNLE),
    BRANCH(JNO),
    BRANCH(JNP),
    BRANCH(JNS),
    BRANCH(JNZ),
    BRANCH(JO),
    BRANCH(JP),
    BRANCH(JS),
    BRANCH(JZ),
    BRANCH(JCXZ),
    BRANCH(JECXZ),
    BRANCH(JRCXZ),
    BRANCH(LOOP),
    BRANCH(LOOPE),
    BRANCH(LOOPNE),
    [ZYDIS_MNEMONIC_JMP] = IO_CLASS_JUMP,
    [ZYDIS_MNEMONIC_CALL] = IO_CLASS_CALL,
    [ZYDIS_MNEMONIC_RET] = IO_CLASS_RETURN,
};

/* MOV to a segment, control or debug register; PUSH and POP of a segment register. */
static bool touches_system_register(const ZydisDecodedInstruction *z)
{
    if (z->mnemonic == ZYDIS_MNEMONIC_MOV)
        return z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? z->opcode == 0x8e : true;
    uint8_t opcode = z->opcode & 0xf8;
    bool general = opcode == 0x50 || opcode == 0x58 || z->opcode == 0x68 || z->opcode == 0x6a ||
                   z->opcode == 0x8f || z->opcode == 0xff;
    return z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || !general;
}

/* Only near forms; with an operand-size prefix Intel and AMD differ in what they read. */
static enum io_class classify_branch(const ZydisDecodedInstruction *z, enum io_class class)
{
    for (unsigned k = 0; k < z->raw.prefix_count; k++)
        if (z->raw.prefixes[k].value == 0x66)
            return IO_CLASS_UNKNOWN;
    if (class == IO_CLASS_BRANCH)
        return class;
    if (class == IO_CLASS_RETURN)
        return z->opcode == 0xc3 || z->opcode == 0xc2 ? class : IO_CLASS_UNKNOWN;
    if (z->opcode == 0xe8 || z->opcode == 0xe9 || z->opcode == 0xeb)
        return class;
    if (z->opcode != 0xff)
        return IO_CLASS_UNKNOWN;
    return z->raw.modrm.reg == 2   ? IO_CLASS_INDIRECT_CALL
           : z->raw.modrm.reg == 4 ? IO_CLASS_INDIRECT_JUMP
                                   : IO_CLASS_UNKNOWN;
}

static bool is_doorbell(const ZydisDecodedInstruction *z)
{
    return z->opcode == 0xe7 && z->operand_width == 32 &&
           (z->raw.imm[0].value.u & 0xff) == PV_DOORBELL_PORT;
}

enum io_class io_classify(const ZydisDecodedInstruction *z)
{
    if (z->mnemonic > ZYDIS_MNEMONIC_MAX_VALUE || z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return IO_CLASS_UNKNOWN;
    enum io_class class = class_of[z->mnemonic];
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        return touches_system_register(z) ? IO_CLASS_UNKNOWN : class;
    case ZYDIS_MNEMONIC_MOVSD: /* SSE instructions share these two names */
    case ZYDIS_MNEMONIC_CMPSD:
        return z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? class : IO_CLASS_UNKNOWN;
    case ZYDIS_MNEMONIC_OUT:
        return is_doorbell(z) ? IO_CLASS_UNKNOWN : class;
    default:
        return class >= IO_CLASS_BRANCH ? classify_branch(z, class) : class;
    }
}

/* ---- bytes and hashes ---- */
bool io_block_read(const struct io_block *block, uint64_t key, io_read_fn *read, void *context,
                   uint8_t *bytes)
{
    uint32_t done = 0;
    for (unsigned k = 0; k < block->range_count; k++) {
        const struct io_range *range = &block->ranges[k];
        if (range->size > IO_BLOCK_BYTES_MAX - done)
            return false;
        if (read(context, key + (uint64_t)range->offset, bytes + done, range->size) != range->size)
            return false;
        done += range->size;
    }
    return done == block->size;
}

uint64_t io_block_hash(const struct io_block *block, uint8_t *bytes)
{
    for (unsigned k = 0; k < block->mask_count; k++)
        memset(bytes + block->masks[k].position, 0, block->masks[k].size);
    return XXH3_64bits(bytes, block->size);
}

uint64_t io_block_hash_all(const struct io_block *block, const uint8_t *bytes)
{
    return XXH3_64bits(bytes, block->size);
}

/* ---- bounds ---- */
static bool ranges_valid(const struct io_block *block)
{
    int64_t end = -IO_BLOCK_REACH - 1;
    uint32_t size = 0;
    bool has_key = false;
    for (unsigned k = 0; k < block->range_count; k++) {
        const struct io_range *range = &block->ranges[k];
        if (range->size == 0 || range->size > IO_BLOCK_BYTES_MAX - size || range->offset <= end ||
            range->offset > IO_BLOCK_REACH)
            return false;
        end = range->offset + range->size;
        size += range->size;
        has_key |= range->offset <= 0 && end > 0;
    }
    return has_key && size == block->size;
}

static bool masks_valid(const struct io_block *block)
{
    uint32_t end = 0;
    for (unsigned k = 0; k < block->mask_count; k++) {
        const struct io_mask *mask = &block->masks[k];
        if (mask->size == 0 || mask->position < end || mask->position > block->size ||
            mask->size > block->size - mask->position)
            return false;
        end = mask->position + mask->size;
    }
    return true;
}

bool io_block_valid(const struct io_block *block)
{
    return block->range_count > 0 && block->range_count <= IO_BLOCK_RANGES_MAX &&
           block->mask_count <= IO_BLOCK_MASKS_MAX && block->guard_count <= IO_BLOCK_GUARDS_MAX &&
           block->port_count <= IO_BLOCK_PORTS_MAX && !(block->flags & ~IO_BLOCK_FLAGS) &&
           block->insn_count > 0 && block->insn_count <= IO_BLOCK_INSNS_MAX &&
           block->io_count > 0 && block->io_count <= block->insn_count &&
           block->insn_count <= block->size && block->exit <= IO_BLOCK_REACH &&
           block->exit >= -IO_BLOCK_REACH && ranges_valid(block) && masks_valid(block);
}
