/* SPDX-License-Identifier: MIT */
/* Candidates for the tests of instruction lists. */
#include "tests/unit/list_support.h"

#include <stdio.h>
#include <stdlib.h>

const struct list_rule *list_match_at(const struct list *list, struct instruction_bytes code,
                                      struct place place)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_FAILED(
            ZydisDecoderDecodeFull(&decoder, code.bytes, code.length, &instruction, operands)) ||
        instruction.length != code.length) {
        fprintf(stderr, "%s: not one instruction\n", code.text);
        abort();
    }
    struct list_candidate candidate = {.address = place.address,
                                       .section = place.section,
                                       .symbol = place.symbol,
                                       .instruction = &instruction,
                                       .operands = operands};
    const struct list_rule *rule = list_match(list, &candidate);
    if (rule && !list_names_mnemonic(list, instruction.mnemonic)) {
        fprintf(stderr, "%s: listed, but the pre-filter drops it\n", code.text);
        abort();
    }
    return rule;
}

const struct list_rule *list_match_bytes(const struct list *list, struct instruction_bytes code)
{
    return list_match_at(list, code, (struct place){0xffffffff81000000, ".text", "some_function"});
}
