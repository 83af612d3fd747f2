/* SPDX-License-Identifier: MIT */
/* Instructions for tests, decoded. */
#ifndef TESTS_UNIT_DECODED_H
#define TESTS_UNIT_DECODED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

struct decoded {
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/* False if the bytes are no instruction in 64-bit mode. */
bool decode_bytes(const uint8_t *bytes, size_t size, struct decoded *d);

/* Decodes text like "0f 22 c0". */
bool decode_hex(const char *hex, struct decoded *d);

#endif
