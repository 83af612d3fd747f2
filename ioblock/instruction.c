/* SPDX-License-Identifier: MIT */
/* Instructions as far as a scan needs them: length, class, where a branch goes.
 *
 * A scan meets some hundred instructions, nearly all of them of a few opcodes. Those are
 * classified by opcode with the length decoder of the image library; the rest asks Zydis, at some
 * hundred ns each. */
#include "ioblock/instruction.h"

#include <string.h>

#include "image/length.h"

enum quick_class {           /* besides enum io_class */
                   ASK = 32, /* Zydis knows */
                   GROUP,    /* the ModRM byte decides */
};

#define U IO_CLASS_UNKNOWN
#define P IO_CLASS_PLAIN
#define I IO_CLASS_IO
#define B IO_CLASS_BRANCH
#define J IO_CLASS_JUMP
#define C IO_CLASS_CALL
#define R IO_CLASS_RETURN
#define A ASK
#define G GROUP
/* SDM 2D A.3, tables A-2: one-byte opcodes in 64-bit mode. Prefixes and what is invalid there
 * never get here. */
static const uint8_t one_byte[256] = {
    P, P, P, P, P, P, U, U, P, P, P, P, P, P, U, A, /* 00 ADD, OR */
    P, P, P, P, P, P, U, U, P, P, P, P, P, P, U, U, /* 10 ADC, SBB */
    P, P, P, P, P, P, A, U, P, P, P, P, P, P, A, U, /* 20 AND, SUB */
    P, P, P, P, P, P, A, U, P, P, P, P, P, P, A, U, /* 30 XOR, CMP */
    A, A, A, A, A, A, A, A, A, A, A, A, A, A, A, A, /* 40 REX */
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* 50 PUSH, POP */
    U, U, A, P, A, A, A, A, P, P, P, P, I, I, I, I, /* 60 MOVSXD, PUSH, IMUL, INS, OUTS */
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, /* 70 Jcc */
    P, P, U, P, P, P, P, P, P, P, P, P, P, P, U, A, /* 80 group 1, TEST, XCHG, MOV, LEA */
    P, P, P, P, P, P, P, P, P, P, U, U, U, U, P, P, /* 90 NOP, XCHG, CBW, CWD, SAHF, LAHF */
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* a0 MOV, strings, TEST */
    P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* b0 MOV */
    P, P, R, R, A, A, G, G, U, P, U, U, U, U, U, U, /* c0 shifts, RET, MOV, LEAVE */
    P, P, P, P, U, U, U, P, U, U, U, U, U, U, U, U, /* d0 shifts, XLAT */
    B, B, B, B, I, I, I, A, C, J, U, J, I, I, I, I, /* e0 LOOP, JRCXZ, IN, OUT, CALL, JMP */
    A, U, A, A, U, P, P, P, P, P, U, U, P, P, P, G, /* f0 CMC, groups 3 and 4, CLC to STD */
};
#undef U
#undef P
#undef I
#undef B
#undef J
#undef C
#undef R
#undef A
#undef G

/* Table A-3, those that are common and mean the same with an operand-size prefix. */
static bool plain_0f(uint8_t opcode)
{
    switch (opcode) {
    case 0x1f: /* NOP */
    case 0xa3: /* BT */
    case 0xab: /* BTS */
    case 0xaf: /* IMUL */
    case 0xb1: /* CMPXCHG */
    case 0xb3: /* BTR */
    case 0xb6: /* MOVZX */
    case 0xb7:
    case 0xba: /* group 8 */
    case 0xbe: /* MOVSX */
    case 0xbf:
    case 0xc1: /* XADD */
        return true;
    default: /* CMOVcc, SETcc */
        return (opcode & 0xf0) == 0x40 || (opcode & 0xf0) == 0x90;
    }
}

static unsigned classify_quick(const struct length_info *info)
{
    static const uint8_t group_ff[8] = {
        IO_CLASS_PLAIN,         IO_CLASS_PLAIN,   IO_CLASS_INDIRECT_CALL, IO_CLASS_UNKNOWN,
        IO_CLASS_INDIRECT_JUMP, IO_CLASS_UNKNOWN, IO_CLASS_PLAIN,         IO_CLASS_UNKNOWN};
    unsigned reg = info->modrm >> 3 & 7;
    if (info->flags & LENGTH_VEX || info->map > 1)
        return IO_CLASS_UNKNOWN + ASK * (info->map > 1);
    if (info->map == 1)
        return (info->opcode & 0xf0) == 0x80 ? (unsigned)IO_CLASS_BRANCH
               : plain_0f(info->opcode)      ? (unsigned)IO_CLASS_PLAIN
                                             : (unsigned)ASK;
    unsigned class = one_byte[info->opcode];
    if (class != GROUP)
        return class;
    if (info->opcode == 0xff)
        return group_ff[reg];
    return reg == 0 ? (unsigned)IO_CLASS_PLAIN : (unsigned)ASK; /* MOV; else XABORT, XBEGIN */
}

/* Prefixes that change what was said above. False if Zydis has to look. */
static bool look_at_prefixes(const uint8_t *bytes, const struct length_info *info,
                             struct instruction *out)
{
    for (unsigned k = 0; k < out->length; k++)
        switch (bytes[k]) {
        case 0x66:
            if (out->class >= IO_CLASS_BRANCH)
                return false;
            break;
        case 0xf2:
        case 0xf3:
            if (info->map == 1)
                return false;
            out->repeats = true;
            break;
        case 0xf0: /* LOCK */
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
        case 0x67:
        case 0x40 ... 0x4f: /* REX; one that is not the last prefix is ignored */
            break;
        default: /* the opcode */
            return true;
        }
    return false;
}

bool instruction_quick(const uint8_t *bytes, unsigned available, struct instruction *out)
{
    struct length_info info;
    unsigned length = length_decode(bytes, available, &info);
    if (!length)
        return false;
    unsigned class = classify_quick(&info);
    if (class >= ASK)
        return false;
    *out = (struct instruction){.length = (uint8_t)length, .class = (uint8_t) class};
    if (!look_at_prefixes(bytes, &info, out))
        return false;
    if (info.flags & LENGTH_REL8) {
        out->displacement = (int8_t)bytes[length - 1];
    } else if (info.flags & LENGTH_REL32) {
        int32_t displacement;
        memcpy(&displacement, bytes + length - 4, sizeof displacement);
        out->displacement = displacement;
    }
    return true;
}

static bool has_repeat_prefix(const ZydisDecodedInstruction *z)
{
    for (unsigned k = 0; k < z->raw.prefix_count; k++)
        if (z->raw.prefixes[k].value == 0xf2 || z->raw.prefixes[k].value == 0xf3)
            return true;
    return false;
}

bool instruction_full(const ZydisDecoder *decoder, const uint8_t *bytes, unsigned available,
                      struct instruction *out)
{
    ZydisDecodedInstruction z;
    if (ZYAN_FAILED(ZydisDecoderDecodeInstruction(decoder, NULL, bytes, available, &z)))
        return false;
    *out = (struct instruction){.length = z.length,
                                .class = (uint8_t)io_classify(&z),
                                .repeats = has_repeat_prefix(&z),
                                .displacement = z.raw.imm[0].value.s};
    return true;
}
