/* SPDX-License-Identifier: MIT */
/* Displaced instructions: does the code in a trampoline do what one instruction of the original
 * did? hvstub.h ("Displaced code in a trampoline") has the forms that a copy may take. */
#include <string.h>

#include "patchc/verify_internal.h"

bool verify_decode(const struct verify *v, const uint8_t *bytes, uint64_t size,
                   ZydisDecodedInstruction *instruction)
{
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&v->decoder, NULL, bytes, size, instruction));
}

bool verify_relative(const ZydisDecodedInstruction *instruction, const uint8_t *bytes,
                     uint64_t address, uint64_t *target, unsigned *field, unsigned *bits)
{
    if (!(instruction->attributes & ZYDIS_ATTRIB_IS_RELATIVE))
        return false;
    uint64_t next = address + instruction->length;
    for (unsigned i = 0; i < 2; i++)
        if (instruction->raw.imm[i].size && instruction->raw.imm[i].is_relative) {
            *field = instruction->raw.imm[i].offset;
            *bits = instruction->raw.imm[i].size;
            int64_t by = *bits == 8 ? (int8_t)bytes[*field] : read_s32(bytes + *field);
            *target = next + (uint64_t)by;
            return true;
        }
    *field = instruction->raw.disp.offset;
    *bits = 32;
    *target = next + (uint64_t)read_s32(bytes + *field);
    return true;
}

static bool is_branch(const ZydisDecodedInstruction *instruction)
{
    return (instruction->raw.imm[0].size && instruction->raw.imm[0].is_relative) ||
           (instruction->raw.imm[1].size && instruction->raw.imm[1].is_relative);
}

/* Remembers that the branch at `at` (whose rel32 ends at `end`) must go where the original went. */
static void expect_target(struct verify *v, uint64_t at, uint64_t before, uint64_t after)
{
    struct branch_check check = {at, before, after};
    vector_add(v, &v->branches, &check, sizeof check);
}

static bool begins(const struct displaced *d, uint64_t at, const void *bytes, size_t size)
{
    return d->room >= at + size && memcmp(d->now + at, bytes, size) == 0;
}

/* `opcode rel32` at now + at: notes its target; returns the bytes taken, 0 if it is not there. */
static unsigned rel32(struct verify *v, const struct displaced *d, uint64_t at, const void *opcode,
                      size_t opcode_size, uint64_t target)
{
    if (!begins(d, at, opcode, opcode_size) || d->room < at + opcode_size + 4)
        return 0;
    uint64_t end = d->now_address + at + opcode_size + 4;
    uint64_t after = end + (uint64_t)read_s32(d->now + at + opcode_size);
    expect_target(v, d->now_address + at, target, after);
    return opcode_size + 4;
}

/* loop, loope, loopne, jrcxz exist only with rel8: `e3 02 eb 05 e9 rel32`. The prefixes (67: ECX)
 * stay. */
static unsigned copy_of_loop(struct verify *v, const struct displaced *d, uint64_t target)
{
    unsigned prefix = d->instruction->length - 1; /* all but the displacement */
    static const uint8_t hops[] = {0x02, 0xeb, 0x05};
    if (!begins(d, 0, d->bytes, prefix) || !begins(d, prefix, hops, sizeof hops))
        return 0;
    unsigned size = prefix + sizeof hops;
    unsigned jump = rel32(v, d, size, "\xe9", 1, target);
    return jump ? size + jump : 0;
}

/* A call: as a call, or, at the end of the window, as a jump behind a pushed return address. */
static unsigned copy_of_call(struct verify *v, const struct displaced *d, uint64_t target)
{
    static const uint8_t push[] = {0x48, 0x8d, 0x64, 0x24, 0xf8, 0x50, 0x48, 0x8d, 0x05};
    static const uint8_t store[] = {0x48, 0x89, 0x44, 0x24, 0x08, 0x58};
    unsigned size = rel32(v, d, 0, "\xe8", 1, target);
    if (size)
        return size;
    uint64_t at = sizeof push + 4;
    if (!begins(d, 0, push, sizeof push) || !begins(d, at, store, sizeof store))
        return 0;
    uint64_t pushed = d->now_address + at + (uint64_t)read_s32(d->now + sizeof push);
    if (pushed != d->address + d->instruction->length || pushed != d->window_end)
        return 0;
    size = rel32(v, d, at + sizeof store, "\xe9", 1, target);
    return size ? at + sizeof store + size : 0;
}

/* A direct branch of the original. Prefixes (branch hints, BND, operand size) do not survive the
 * widening, so none but those of plain branches are accepted. */
static unsigned copy_of_branch(struct verify *v, const struct displaced *d, uint64_t target,
                               const char **why)
{
    const ZydisDecodedInstruction *i = d->instruction;
    *why = "is no copy of the branch that it stands for";
    uint8_t opcode = i->opcode;
    bool prefixed = i->raw.prefix_count != 0;
    if (i->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode >= 0xe0 && opcode <= 0xe3)
        return copy_of_loop(v, d, target);
    if (i->meta.category == ZYDIS_CATEGORY_CALL && opcode == 0xe8) {
        unsigned size = prefixed ? 0 : copy_of_call(v, d, target);
        if (size)
            return size;
    }
    if (i->meta.category == ZYDIS_CATEGORY_UNCOND_BR && !prefixed)
        return rel32(v, d, 0, "\xe9", 1, target);
    if (i->meta.category == ZYDIS_CATEGORY_COND_BR && !prefixed) {
        uint8_t wide[] = {0x0f, 0x80 | (opcode & 15)};
        return rel32(v, d, 0, wide, sizeof wide, target);
    }
    /* whatever is 32 bits wide already (XBEGIN, a branch with prefixes) keeps its bytes */
    return i->raw.imm[0].size == 32 ? rel32(v, d, 0, d->bytes, i->raw.imm[0].offset, target) : 0;
}

unsigned verify_copy(struct verify *v, const struct displaced *d, bool *verbatim, const char **why)
{
    static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    const ZydisDecodedInstruction *i = d->instruction;
    uint64_t target = 0;
    unsigned field = 0, bits = 0;
    bool relative = verify_relative(i, d->bytes, d->address, &target, &field, &bits);
    *verbatim = false;
    if (relative && is_branch(i))
        return copy_of_branch(v, d, target, why);
    *why = "is no copy of the instruction that it stands for";
    if (d->jump_label && i->length != 5)
        return i->mnemonic == ZYDIS_MNEMONIC_NOP && begins(d, 0, nop5, sizeof nop5) ? sizeof nop5
                                                                                    : 0;
    *verbatim = true;
    if (!relative)
        return begins(d, 0, d->bytes, i->length) ? i->length : 0;
    if (i->address_width != 64 || d->room < i->length || !begins(d, 0, d->bytes, field) ||
        memcmp(d->now + field + 4, d->bytes + field + 4, i->length - field - 4) != 0)
        return 0;
    *why = "refers to another address than the instruction that it stands for";
    uint64_t now = d->now_address + i->length + (uint64_t)read_s32(d->now + field);
    return now == target ? i->length : 0;
}
