/* SPDX-License-Identifier: MIT */
/* Decoding: Zydis says what an instruction is, the modules' rows say which function executes it. */
#include "runtime/soft/decode.h"

#include <pthread.h>

#include "runtime/cpuid.h"
#include "runtime/soft/access.h"

static const struct op_row *const modules[] = {
    ops_alu,    ops_move,    ops_branch, ops_bits, ops_muldiv, ops_string, ops_stack,
    ops_system, ops_segment, ops_io,     ops_fpu,  ops_xstate, ops_legacy,
};

/* Two rows may name one mnemonic (MOVSD is a string instruction and an SSE one): who does not know the
 * instruction returns NULL, and the other is asked. */
static select_fn *select_of[ZYDIS_MNEMONIC_MAX_VALUE + 1][2];
static ZydisDecoder decoders[3]; /* 16, 32, 64 bits */
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void prepare(void)
{
    for (size_t m = 0; m < sizeof modules / sizeof modules[0]; m++)
        for (const struct op_row *row = modules[m]; row->select; row++)
            select_of[row->mnemonic][select_of[row->mnemonic][0] != NULL] = row->select;
    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

#define R(n) ((uint8_t)(offsetof(struct vcpu, r) + 8 * (n)))

uint8_t insn_register(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return R(reg - ZYDIS_REGISTER_AH) + 1;
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        return R(reg < ZYDIS_REGISTER_AH ? reg - ZYDIS_REGISTER_AL
                                         : reg - ZYDIS_REGISTER_SPL + RSP);
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return R(ZydisRegisterGetId(reg));
    case ZYDIS_REGCLASS_IP:
        return offsetof(struct vcpu, rip);
    default:
        return R(REG_ZERO);
    }
}

static uint8_t segment_number(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS ? (uint8_t)(reg - ZYDIS_REGISTER_ES)
                                                                : SEG_DS;
}

enum insn_form insn_form(const struct decoded *d)
{
    static const enum insn_form two[3][3] = {/* [first][second]: register, memory, immediate */
                                             {FORM_RR, FORM_RM, FORM_RI},
                                             {FORM_MR, FORM_NONE, FORM_MI},
                                             {FORM_NONE, FORM_NONE, FORM_NONE}};
    static const enum insn_form one[3] = {FORM_R, FORM_M, FORM_I};
    unsigned count = d->zydis->operand_count_visible, kind[2];
    for (unsigned k = 0; k < 2 && k < count; k++)
        switch (d->operands[k].type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            kind[k] = 0;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            kind[k] = 1;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            kind[k] = 2;
            break;
        default:
            return FORM_NONE;
        }
    return count == 0 ? FORM_NONE : count == 1 ? one[kind[0]] : two[kind[0]][kind[1]];
}

unsigned insn_size(const struct decoded *d)
{
    switch (d->operands[0].size) {
    case 8:
        return 0;
    case 16:
        return 1;
    case 32:
        return 2;
    default:
        return 3;
    }
}

/* [index * scale + disp32] with 32-bit addresses in 64-bit mode: Zydis 4.0 takes REX.B for a base R13D, and loses the
 * displacement. */
static bool has_no_base(const struct decoded *d)
{
    const ZydisDecodedInstruction *z = d->zydis;
    return z->attributes & ZYDIS_ATTRIB_HAS_SIB && z->raw.modrm.mod == 0 && z->raw.sib.base == 5;
}

static void fill_memory(const struct decoded *d, const ZydisDecodedOperand *operand,
                        struct insn *out)
{
    int64_t disp = operand->mem.disp.value;
    out->segment = segment_number(operand->mem.segment);
    out->base = insn_register(operand->mem.base);
    out->index = insn_register(operand->mem.index);
    if (has_no_base(d)) {
        out->base = R(REG_ZERO);
        disp = d->zydis->raw.disp.value;
    }
    out->scale = operand->mem.scale > 1 ? (uint8_t)__builtin_ctz(operand->mem.scale) : 0;
    if (out->base == offsetof(struct vcpu, rip)) {
        int64_t from_block = disp + out->offset + out->length;
        if (from_block == (int32_t)from_block)
            disp = from_block;
        else
            out->flags |= INSN_RIPREL;
    }
    out->disp = (int32_t)disp;
    if (disp != (int32_t)disp && d->code_bits == 64)
        out->imm = (uint64_t)disp; /* MOV's 64-bit offset: no immediate beside it */
}

static void fill(const struct decoded *d, struct insn *out)
{
    const ZydisDecodedInstruction *z = d->zydis;
    out->base = out->index = out->dst = out->src = R(REG_ZERO);
    out->segment = SEG_DS;
    out->flags = d->code_bits == 64 ? 0 : INSN_LEGACY;
    if (z->address_width == 32)
        out->flags |= INSN_ADDRESS32;
    else if (z->address_width == 16)
        out->flags |= INSN_ADDRESS16;
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        out->flags |= INSN_REP;
    if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        out->flags |= INSN_REPNE;
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        out->flags |= INSN_LOCK;
    unsigned registers = 0;
    bool memory = false, immediate = false;
    for (unsigned k = 0; k < z->operand_count_visible; k++) {
        const ZydisDecodedOperand *operand = &d->operands[k];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (registers == 0)
                out->dst = insn_register(operand->reg.value);
            else if (registers == 1)
                out->src = insn_register(operand->reg.value);
            registers++;
        } else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && !memory) {
            fill_memory(d, operand, out);
            memory = true;
        } else if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !immediate) {
            if (operand->imm.is_relative)
                out->disp = (int32_t)operand->imm.value.s;
            else
                out->imm = operand->imm.value.u;
            immediate = true;
        }
    }
}

OP(op_undefined)
{
    RAISE_UD();
}

/* TZCNT and LZCNT are older instructions with a prefix where the processor does not have them. */
static bool exists(const ZydisDecodedInstruction *insn)
{
    return cpuid_offers_isa(insn->meta.isa_set) || insn->mnemonic == ZYDIS_MNEMONIC_TZCNT ||
           insn->mnemonic == ZYDIS_MNEMONIC_LZCNT;
}

enum decode_result decode_insn(struct vcpu *cpu, const uint8_t *bytes, size_t available,
                               uint64_t rip, struct insn *out, struct decoded *d)
{
    static _Thread_local ZydisDecodedInstruction zydis;
    static _Thread_local ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    pthread_once(&prepared, prepare);

    unsigned bits = vcpu_code_bits(cpu);
    const ZydisDecoder *decoder = &decoders[bits == 64 ? 2 : bits == 32 ? 1 : 0];
    size_t length =
        available < ZYDIS_MAX_INSTRUCTION_LENGTH ? available : ZYDIS_MAX_INSTRUCTION_LENGTH;
    ZyanStatus status = ZydisDecoderDecodeFull(decoder, bytes, length, &zydis, operands);
    *d = (struct decoded){.zydis = &zydis,
                          .operands = operands,
                          .bytes = bytes,
                          .cpu = cpu,
                          .rip = rip,
                          .code_bits = (uint8_t)bits};
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return length < ZYDIS_MAX_INSTRUCTION_LENGTH ? DECODE_MORE : DECODE_TOO_LONG;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;
    insn_fn *run = NULL;
    if (ZYAN_SUCCESS(status) && exists(&zydis)) {
        out->length = zydis.length;
        fill(d, out);
        for (unsigned k = 0; k < 2 && !run && select_of[zydis.mnemonic][k]; k++)
            run = select_of[zydis.mnemonic][k](d, out);
    }
    if (!run) {
        run = op_undefined;
        d->ends_block = true;
    }
    out->run = run;
    return DECODE_OK;
}
