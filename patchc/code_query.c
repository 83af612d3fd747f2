/* SPDX-License-Identifier: MIT */
/* Questions about all instructions at once: branches to given targets, instructions by opcode. */
#include <stdlib.h>
#include <string.h>

#include "patchc/code_index.h"

/* The opcodes of privileged and sensitive instructions (and of the few harmless ones that share
 * them): the first decoding remembers where they are. Bit n of word n / 64. */
#define BIT(opcode)       (1ull << ((opcode)&63))
#define BITS(first, last) (((2ull << ((last)&63)) - 1) & ~((1ull << ((first)&63)) - 1))
const uint64_t code_sensitive[4][4] = {
    {
        0,
        BITS(0x6c, 0x6f), /* ins, outs */
        /* mov from and to segment registers; pushf, popf */
        BIT(0x8c) | BIT(0x8e) | BITS(0x9c, 0x9d),
        /* retf, int n, iret, in, out, int1, hlt, cli, sti */
        BITS(0xca, 0xcb) | BIT(0xcd) | BIT(0xcf) | BITS(0xe4, 0xe7) | BITS(0xec, 0xef) | BIT(0xf1) |
            BIT(0xf4) | BITS(0xfa, 0xfb),
    },
    {
        /* descriptor tables, lar, lsl, syscall, clts, sysret, invd, wbinvd, moves to and from CRn
         * and DRn, wrmsr, rdtsc, rdmsr, rdpmc, sysenter, sysexit, getsec */
        BITS(0x00, 0x03) | BITS(0x05, 0x09) | BITS(0x20, 0x23) | BITS(0x30, 0x35) | BIT(0x37),
        BITS(0x78, 0x79), /* vmread, vmwrite */
        /* push and pop of FS and GS, cpuid, rsm, fxsave group, lss, lfs, lgs */
        BITS(0xa0, 0xa2) | BITS(0xa8, 0xaa) | BIT(0xae) | BIT(0xb2) | BITS(0xb4, 0xb5),
        BIT(0xc7), /* cmpxchg8b group: rdrand, xsaves, vmptrld */
    },
    {0, 0, BITS(0x80, 0x82), 0}, /* invept, invvpid, invpcid */
    {0},
};

struct gathering {
    const struct code *code;
    const uint64_t (*wanted)[4];
    bool look[2][256]; /* first byte after REX, second byte after 0f: may be a wanted instruction */
    struct code_part *parts; /* one a job */
};

enum { GATHER_WORDS = 4096 }; /* words of the bit map in a job */

static bool is_wanted(const uint64_t wanted[8][4], const struct length_info *info)
{
    unsigned map = info->map + (info->flags & LENGTH_VEX ? 4u : 0u);
    return map < 8 && (wanted[map][info->opcode >> 6] >> (info->opcode & 63) & 1);
}

/* Fills look[]: wanted opcodes and all bytes that lead elsewhere (prefixes, escapes, VEX). */
static void fill_look(struct gathering *gathering)
{
    static const uint8_t leading[] = {0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x62, 0x64, 0x65,
                                      0x66, 0x67, 0x8f, 0xc4, 0xc5, 0xf0, 0xf2, 0xf3};
    for (unsigned map = 0; map < 2; map++)
        for (unsigned i = 0; i < 256; i++)
            gathering->look[map][i] = gathering->wanted[map][i >> 6] >> (i & 63) & 1;
    for (size_t i = 0; i < sizeof leading; i++)
        gathering->look[0][leading[i]] = true;
    for (unsigned rex = 0x40; rex < 0x50; rex++) /* a second REX */
        gathering->look[0][rex] = true;
    gathering->look[1][0x38] = gathering->look[1][0x3a] = true;
}

static inline bool worth_a_look(const struct gathering *gathering, const uint8_t *bytes,
                                uint64_t available)
{
    if (available < 3)
        return true;
    bytes += (bytes[0] & 0xf0) == 0x40;
    return gathering->look[0][bytes[0]] && (bytes[0] != 0x0f || gathering->look[1][bytes[1]]);
}

/* Decodes the starts of one stretch and marks the wanted ones. */
static void gather(void *context, size_t job)
{
    struct gathering *gathering = context;
    const struct code_index *index = gathering->code->index;
    uint32_t words = index->bits / 64, word = (uint32_t)job * GATHER_WORDS;
    uint32_t end = words - word < GATHER_WORDS ? words : word + GATHER_WORDS;
    const struct code_section *section = code_flat_section(gathering->code, word * 64);
    for (; word < end; word++) {
        for (uint64_t starts = index->starts[word]; starts; starts &= starts - 1) {
            uint32_t flat = word * 64 + (uint32_t)__builtin_ctzll(starts);
            struct length_info info;
            if (flat - section->flat >= section->size)
                section = code_flat_section(gathering->code, flat);
            uint64_t offset = flat - section->flat;
            if (worth_a_look(gathering, section->bytes + offset, section->size - offset) &&
                length_decode(section->bytes + offset, section->size - offset, &info) &&
                is_wanted(gathering->wanted, &info))
                code_add_mark(&gathering->parts[job], flat, &info);
        }
    }
}

static void visit_mark(const struct code *code, const struct code_mark *mark,
                       void (*visit)(void *context, const struct code_section *section,
                                     uint64_t address, unsigned length),
                       void *context)
{
    const struct code_section *section = code_flat_section(code, mark->at);
    visit(context, section, section->address + (mark->at - section->flat), mark->length);
}

/* True if every wanted opcode is among those that the first decoding marked. */
static bool marks_suffice(const uint64_t wanted[8][4])
{
    for (unsigned map = 0; map < 8; map++)
        for (unsigned i = 0; i < 4; i++)
            if (wanted[map][i] & ~(map < 4 ? code_sensitive[map][i] : 0))
                return false;
    return true;
}

int code_each_opcode(const struct code *code, const uint64_t wanted[8][4],
                     void (*visit)(void *context, const struct code_section *section,
                                   uint64_t address, unsigned length),
                     void *context)
{
    const struct code_index *index = code->index;
    if (marks_suffice(wanted)) {
        for (size_t i = 0; i < index->mark_count; i++)
            if (wanted[index->marks[i].map][index->marks[i].opcode >> 6] >>
                    (index->marks[i].opcode & 63) &
                1)
                visit_mark(code, &index->marks[i], visit, context);
        return 0;
    }
    size_t jobs = (index->bits / 64 + GATHER_WORDS - 1) / GATHER_WORDS;
    struct gathering gathering = {.code = code, .wanted = wanted};
    gathering.parts = calloc(jobs, sizeof *gathering.parts);
    if (!gathering.parts)
        return -1;
    fill_look(&gathering);
    code_parallel(jobs, gather, &gathering);
    int result = 0;
    for (size_t job = 0; job < jobs; job++)
        result |= gathering.parts[job].failed ? -1 : 0;
    for (size_t job = 0; job < jobs; job++) {
        for (size_t i = 0; i < gathering.parts[job].mark_count && result == 0; i++)
            visit_mark(code, &gathering.parts[job].marks[i], visit, context);
        free(gathering.parts[job].marks);
    }
    free(gathering.parts);
    return result;
}
