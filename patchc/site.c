/* SPDX-License-Identifier: MIT */
/* A site's instruction, decoded with its operands. */
#include "patchc/site.h"

bool site_decode(const struct site *site, ZydisDecodedInstruction *instruction,
                 ZydisDecodedOperand *operands)
{
    ZydisDecoder decoder;
    return ZYAN_SUCCESS(
               ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) &&
           ZYAN_SUCCESS(
               ZydisDecoderDecodeFull(&decoder, site->bytes, site->length, instruction, operands));
}
