/* SPDX-License-Identifier: MIT */
/* Instructions for tests, decoded. */
#include "tests/unit/decoded.h"

#include <stdio.h>

bool decode_bytes(const uint8_t *bytes, size_t size, struct decoded *d)
{
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return ZYAN_SUCCESS(
        ZydisDecoderDecodeFull(&decoder, bytes, size, &d->instruction, d->operands));
}

bool decode_hex(const char *hex, struct decoded *d)
{
    uint8_t bytes[16] = {0};
    unsigned count = 0, byte;
    for (int used; count < sizeof bytes && sscanf(hex, "%2x%n", &byte, &used) == 1; hex += used)
        bytes[count++] = (uint8_t)byte;
    return decode_bytes(bytes, count, d);
}
