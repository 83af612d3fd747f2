/* SPDX-License-Identifier: MIT */
/* Instructions as text: Zydis' formatter, set up once. */
#include "patchc/disassembly.h"

#include <stdio.h>

void disassembler_init(struct disassembler *disassembler)
{
    ZydisDecoderInit(&disassembler->decoder64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&disassembler->decoder32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisFormatterInit(&disassembler->formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(&disassembler->formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, false);
    ZydisFormatterSetProperty(&disassembler->formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&disassembler->formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&disassembler->formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING,
                              ZYDIS_PADDING_DISABLED);
}

unsigned disassemble(const struct disassembler *disassembler, bool wide, uint64_t address,
                     const uint8_t *code, size_t available, char text[INSTRUCTION_TEXT])
{
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    const ZydisDecoder *decoder = wide ? &disassembler->decoder64 : &disassembler->decoder32;

    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, code, available, &instruction, operands)) ||
        !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&disassembler->formatter, &instruction,
                                                      operands, instruction.operand_count_visible,
                                                      text, INSTRUCTION_TEXT, address, NULL))) {
        snprintf(text, INSTRUCTION_TEXT, "(bad)");
        return 0;
    }
    return instruction.length;
}
