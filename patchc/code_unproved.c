/* SPDX-License-Identifier: MIT */
/* Code that is not proved may run all the same: a function that only a pointer leads to, a label of
 * a jump table that was not recognised. Where control flow was followed, what such code may refer to
 * must not end up inside a window. So each byte that belongs to no proved instruction is tried as
 * the opcode of a direct branch or of a RIP-relative LEA: that finds all true ones, and chance hits,
 * which cost nothing but the choice of a window. */
#include <string.h>

#include "image/length.h"
#include "patchc/code_index.h"

/* Bytes of opcode (and ModRM) before the displacement; 0 if this is none. *wide: it has four
 * bytes. */
static unsigned reference_at(const uint8_t *code, uint64_t available, bool *wide)
{
    *wide = true;
    if ((code[0] & 0xfe) == 0xe8) /* CALL, JMP */
        return 1;
    if (available < 2)
        return 0;
    if ((code[0] == 0x0f && (code[1] & 0xf0) == 0x80) || /* Jcc */
        (code[0] == 0x8d && (code[1] & 0xc7) == 0x05))   /* LEA disp32(%rip) */
        return 2;
    *wide = false; /* Jcc, LOOP, JRCXZ, JMP */
    return (code[0] & 0xf0) == 0x70 || (code[0] & 0xfc) == 0xe0 || code[0] == 0xeb;
}

static void try_reference(struct code *code, const struct code_section *section, uint64_t offset)
{
    const uint8_t *bytes = section->bytes + offset;
    uint64_t available = section->size - offset;
    bool wide;
    unsigned opcode = reference_at(bytes, available, &wide), length = opcode + (wide ? 4 : 1);
    if (!opcode || length > available)
        return;
    int32_t distance = (int8_t)bytes[opcode];
    if (wide)
        memcpy(&distance, bytes + opcode, 4);
    code_add_target(code, section->address + offset + length + (uint64_t)(int64_t)distance);
}

void code_unproved_targets(struct code *code)
{
    for (size_t i = 0; i < code->section_count; i++) {
        const struct code_section *section = &code->sections[i];
        for (uint64_t offset = 0; offset < section->size;) {
            struct length_info info;
            unsigned length = 0;
            if (bit_get(section->starts, offset))
                length = length_decode(section->bytes + offset, section->size - offset, &info);
            if (!length)
                try_reference(code, section, offset);
            offset += length ? length : 1;
        }
    }
}
