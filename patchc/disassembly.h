/* SPDX-License-Identifier: MIT */
/* Instructions as text for people: the report, scan and inspect. */
#ifndef PATCHC_DISASSEMBLY_H
#define PATCHC_DISASSEMBLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#define INSTRUCTION_TEXT 128 /* bytes that hold the text of any instruction, NUL included */

struct disassembler {
    ZydisDecoder decoder64, decoder32;
    ZydisFormatter formatter;
};

void disassembler_init(struct disassembler *disassembler);

/* Writes the text (Intel syntax, lower-case, branch targets and RIP-relative operands as
 * addresses) of the instruction at code[0 .. available), which stands at guest-linear `address`.
 * Returns its length in bytes; 0 with the text "(bad)" if it is none. `wide` is false for 32-bit
 * code. */
unsigned disassemble(const struct disassembler *disassembler, bool wide, uint64_t address,
                     const uint8_t *code, size_t available, char text[INSTRUCTION_TEXT]);

#endif
