/* SPDX-License-Identifier: MIT */
/* The instruction interpreter unit: prefixes, then one of twelve opcodes (SDM 2A IN, 2B OUT).
 * There is no ModRM byte, and only two opcodes have an operand, the port: so a few comparisons
 * are all of it. */
#include "runtime/io_interpreter.h"

enum { LENGTH_MAX = 15, OPERAND_SIZE = 0x66, ADDRESS_SIZE = 0x67, REP = 0xf3, REPNE = 0xf2 };

static bool is_segment_prefix(uint8_t byte)
{
    return byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x64 ||
           byte == 0x65;
}

static bool is_rex(uint8_t byte) /* W does not widen IO, the rest has nothing to extend */
{
    return (byte & 0xf0) == 0x40;
}

/* Opcodes E4 to E7 (port in the next byte), EC to EF (port in DX), 6C to 6F (strings). Bit 0:
 * not a byte; bit 1: out. */
static bool is_io_opcode(uint8_t opcode)
{
    return (opcode & 0xfc) == 0xe4 || (opcode & 0xfc) == 0xec || (opcode & 0xfc) == 0x6c;
}

bool io_interpret(const uint8_t *bytes, size_t available, unsigned code_bits,
                  struct io_instruction *instruction)
{
    bool other_size = false, repeated = false;
    size_t at = 0, end = available < LENGTH_MAX ? available : LENGTH_MAX;
    for (; at < end; at++) {
        if (bytes[at] == OPERAND_SIZE)
            other_size = true;
        else if (bytes[at] == REP || bytes[at] == REPNE)
            repeated = true;
        else if (bytes[at] != ADDRESS_SIZE && !is_segment_prefix(bytes[at]) &&
                 !(code_bits == 64 && is_rex(bytes[at])))
            break;
    }
    if (at == end || !is_io_opcode(bytes[at]))
        return false;
    uint8_t opcode = bytes[at++];
    bool immediate = opcode < 0xe8 && opcode >= 0xe4;
    if (immediate && at == end)
        return false;
    bool wide = (code_bits == 16) == other_size;
    *instruction = (struct io_instruction){
        .width = !(opcode & 1) ? 1
                 : wide        ? 4
                               : 2,
        .out = opcode & 2,
        .string = opcode < 0x70,
        .repeated = repeated && opcode < 0x70,
        .port_in_dx = !immediate,
        .port = immediate ? bytes[at++] : 0,
    };
    instruction->length = (uint8_t)at;
    return true;
}
