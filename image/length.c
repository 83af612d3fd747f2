/* SPDX-License-Identifier: MIT */
/* Instruction length decoder: one table lookup per opcode map (length_opcodes.h), one for ModRM. */
#include "image/length.h"

#include "image/length_opcodes.h"

#include <string.h>

/* What follows a ModRM byte (SDM 2A table 2-2): low bits the displacement's size, LENGTH_RIP for
 * disp32 relative to RIP, SIB if a SIB byte comes first, NO_BASE if base 101 means disp32 in it. */
enum { SIZE = 7, SIB = 16, NO_BASE = 32 };
#define NO_DISP     0, 0, 0, 0, SIB | NO_BASE, LENGTH_RIP | 4, 0, 0
#define DISP8       1, 1, 1, 1, SIB | 1, 1, 1, 1
#define DISP32      4, 4, 4, 4, SIB | 4, 4, 4, 4
#define TIMES8(row) row, row, row, row, row, row, row, row
static const uint8_t after_modrm[256] = {TIMES8(NO_DISP), TIMES8(DISP8), TIMES8(DISP32)};

/* The suffixes that 3DNow defines (APM 3 appendix A.1.2, "3DNow! Opcodes"), one bit each. */
static const uint32_t now3d[8] = {0x30003000, 0, 0, 0, 0x44d14400, 0x88d144d1, 0, 0};

/* What the prefixes of an instruction add up to. */
struct prefixes {
    unsigned count;   /* bytes */
    unsigned size16;  /* 66 */
    unsigned address; /* 67 */
    unsigned lock;    /* f0 */
    unsigned rep;     /* the last f2 or f3, else 0 */
    unsigned rex;     /* the REX byte right before the opcode, else 0 */
};

/* Reads prefixes. A REX byte that a legacy prefix follows has no effect (SDM 2A 2.2.1). */
static void read_prefixes(const uint8_t *code, struct prefixes *prefixes)
{
    unsigned n = prefixes->count;
    for (; n < 15; n++) {
        unsigned byte = code[n];
        if (!(one_byte[byte] & PREFIX))
            break;
        if ((byte & 0xf0) == 0x40) {
            prefixes->rex = byte;
            continue;
        }
        prefixes->rex = 0;
        prefixes->size16 |= byte == 0x66;
        prefixes->address |= byte == 0x67;
        prefixes->lock |= byte == 0xf0;
        if ((byte & 0xfe) == 0xf2)
            prefixes->rep = byte;
    }
    prefixes->count = n;
}

/* Reads ModRM, SIB and displacement at code[at], if `word` says that they are there; returns the
 * offset of what follows. Without branches: what an instruction has is not predictable. */
static inline unsigned read_modrm(const uint8_t *code, unsigned at, uint32_t word,
                                  struct length_info *info)
{
    unsigned present = word / MODRM & 1;
    unsigned modrm = code[at] & -present;
    unsigned follows = after_modrm[modrm] & -present;
    unsigned sib = follows / SIB & 1;
    unsigned displacement = at + present + sib;
    unsigned no_base = follows / NO_BASE & ((code[at + 1] & 7) == 5);
    unsigned size = (follows & SIZE) + 4 * no_base;
    info->modrm = (uint8_t)modrm;
    info->has_modrm = (uint8_t)present;
    info->flags = (uint8_t)(word | (follows & LENGTH_RIP));
    info->displacement = (uint8_t)(size ? displacement : 0);
    return displacement + size;
}

/* Ends the decoding. An instruction longer than 15 bytes is invalid (SDM 2A 2.3.11). */
static inline unsigned finish(unsigned at, unsigned immediate, struct length_info *info)
{
    info->immediate = (uint8_t)(immediate ? at : 0);
    info->length = (uint8_t)(at + immediate);
    return at + immediate > 15 ? 0 : at + immediate;
}

/* VEX, EVEX and XOP: the payload at code[at .. at + payload), then opcode and ModRM (always, but
 * for VZEROUPPER). Map 3, and XOP map 8, have an immediate byte, XOP map 10 has four. */
static unsigned decode_vex(const uint8_t *code, unsigned at, const struct prefixes *prefixes,
                           struct length_info *info)
{
    if (prefixes->size16 | prefixes->lock | prefixes->rep | prefixes->rex)
        return 0; /* #UD: SDM 2A 2.3.2 to 2.3.4 */
    unsigned kind = code[at], map, payload;
    if (kind == 0xc5) {
        map = 1, payload = 1;
    } else if (kind == 0xc4) {
        map = code[at + 1] & 0x1f, payload = 2;
        if (map > 3 || (map == 0 && (code[at + 3] & 0xfe) != 0x74))
            return 0;
    } else if (kind == 0x8f) {
        map = code[at + 1] & 0x1f, payload = 2;
        if (map > 10)
            return 0;
    } else {
        map = code[at + 1] & 0x0f, payload = 3;
        /* With bit 2 of the second payload byte clear it is MVEX, which has maps 1 to 3 only. */
        if (map == 0 || map == 4 || map > 6 || (map > 3 && !(code[at + 2] & 4)))
            return 0;
    }
    unsigned opcode = code[at + 1 + payload];
    at += payload + 2;
    info->map = (uint8_t)map;
    info->opcode = (uint8_t)opcode;
    bool near_jump = map == 1 && (opcode & 0xfe) == 0x84 && kind != 0x62;
    if (near_jump || map == 0) { /* jkzd, jknzd of Xeon Phi: 74, 75 of map 0, 84, 85 of map 1 */
        info->flags = LENGTH_VEX | (near_jump ? LENGTH_REL32 : LENGTH_REL8);
        return finish(at, near_jump ? 4 : 1, info);
    }
    bool zero_upper = map == 1 && opcode == 0x77 && kind != 0x62;
    at = read_modrm(code, at, zero_upper ? LENGTH_VEX : LENGTH_VEX | MODRM, info);
    unsigned immediate = map == 3 || map == 8 ? 1 : map == 10 ? 4 : 0;
    if (map == 1 &&
        ((opcode & 0xfc) == 0x70 || opcode == 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6)))
        immediate = 1;
    return finish(at, zero_upper ? 0 : immediate, info);
}

/* Opcodes whose immediate or meaning depends on ModRM. Adds to *word what holds for these bytes;
 * false if they are invalid. *after is where an immediate would stand. */
static bool special(const uint8_t *code, unsigned modrm_at, unsigned *after, unsigned mandatory,
                    unsigned size16, struct length_info *info, uint32_t *word)
{
    unsigned reg = info->modrm >> 3 & 7;
    if (info->map == 0) {
        switch (info->opcode) {
        case 0xc6: /* /7: xabort */
            return reg == 0 || info->modrm == 0xf8;
        case 0xc7: /* /7: xbegin, whose displacement is 16 bits wide with prefix 66 */
            if (reg == 7 && !size16)
                info->flags |= LENGTH_REL32;
            return reg == 0 || info->modrm == 0xf8;
        case 0xf6: /* test */
            *word |= reg < 2 ? IMM8 : 0;
            return true;
        case 0xf7:
            *word |= reg < 2 ? IMMZ : 0;
            return true;
        default: /* ff: jmp */
            info->flags |= reg == 4 || reg == 5 ? LENGTH_NO_FALL : 0;
            return true;
        }
    }
    if (info->opcode == 0x0f)
        return now3d[code[*after] >> 5] >> (code[*after] & 31) & 1;
    if (info->opcode == 0x78) {
        /* vmread, or with 66 or f2 extrq, insertq of two immediate bytes (APM 4) */
        *word |= mandatory ? IMM16 : 0;
        return mandatory == 0 || (info->modrm >= 0xc0 && (mandatory != 1 || reg == 0));
    }
    /* Moves to and from control and debug registers: registers whatever the mod field says. */
    *after = modrm_at + 1;
    info->displacement = 0;
    info->flags &= (uint8_t)~LENGTH_RIP;
    return true;
}

/* True if the opcode's group has this ModRM byte. */
static inline bool in_group(uint32_t word, unsigned modrm)
{
    return groups[word >> GROUP_SHIFT].accepts[modrm < 0xc0] >> (modrm >> 3 & 7) & 1;
}

/* True if the instruction may carry a LOCK prefix (SDM 2A, LOCK). */
static bool lockable(uint32_t word, unsigned modrm)
{
    return (word & MODRM) && (word & LOCK) && modrm < 0xc0 &&
           (groups[word >> GROUP_SHIFT].lock >> (modrm >> 3 & 7) & 1);
}

/* Decodes any instruction. */
static unsigned __attribute__((noinline)) decode(const uint8_t *code, struct length_info *info)
{
    struct prefixes prefixes = {0};
    memset(info, 0, sizeof *info);
    unsigned rex = (code[0] & 0xf0) == 0x40;
    prefixes.rex = code[0] & -rex;
    unsigned at = rex;
    unsigned opcode = code[at++];
    unsigned map = 0, mandatory = 0;
    uint32_t word = one_byte[opcode];
    if (word & (PREFIX | ESCAPE)) {
        if (word & PREFIX) {
            read_prefixes(code, &prefixes);
            at = prefixes.count;
            opcode = code[at++];
            word = one_byte[opcode];
        }
        if (opcode == 0x0f) {
            map = 1;
            opcode = code[at++];
            word = map_0f[opcode];
            if (opcode == 0x38 || opcode == 0x3a) {
                map = opcode == 0x38 ? 2 : 3;
                opcode = code[at++];
                word = map == 2 ? map_0f38[opcode] : map_0f3a[opcode];
            }
            mandatory = prefixes.rep ? (prefixes.rep == 0xf3 ? 2 : 3) : prefixes.size16;
        } else if (word & ESCAPE) {
            if (opcode != 0x8f || (code[at] & 0x1f) >= 8)
                return decode_vex(code, at - 1, &prefixes, info);
            word = RM | GROUP(G_8F);
        }
    }
    if (!(word & KNOWN) || (word >> 20 & 1u << mandatory))
        return 0;
    info->map = (uint8_t)map;
    info->opcode = (uint8_t)opcode;
    unsigned modrm_at = at;
    at = read_modrm(code, at, word, info);
    if (!in_group(word, info->modrm) || (prefixes.lock && !lockable(word, info->modrm)))
        return 0;
    if (word & LOOK && !special(code, modrm_at, &at, mandatory, prefixes.size16, info, &word))
        return 0;
    if (prefixes.size16 && (info->flags & LENGTH_REL32))
        info->flags |= LENGTH_AMD16;
    unsigned sizes = (prefixes.rex & 8) >> 1 | prefixes.size16 << 1 | prefixes.address;
    unsigned immediate = immediate_size[word >> IMM_SHIFT & 15][sizes];
    if ((word >> IMM_SHIFT & 15) == ADDRESS) {
        info->displacement = (uint8_t)at;
        return finish(at + immediate, 0, info);
    }
    return finish(at, immediate, info);
}

/* Decodes the nine instructions of ten that have no prefix but REX, stand in the first two maps and
 * need no check of their ModRM byte; 0 for the others. Nearly without branches: which parts an
 * instruction has is not predictable, and a misprediction costs more than all of this. */
static inline unsigned decode_common(const uint8_t *code, struct length_info *info)
{
    enum { UNCOMMON = PREFIX | ESCAPE | LOOK | RARE | NO_NONE };
    unsigned rex = (code[0] & 0xf0) == 0x40;
    unsigned at = rex, map = 0;
    unsigned opcode = code[at++];
    uint32_t word = one_byte[opcode];
    if (opcode == 0x0f) {
        map = 1;
        opcode = code[at++];
        word = map_0f[opcode];
    }
    if ((word & (KNOWN | UNCOMMON)) != KNOWN)
        return 0;
    unsigned present = word / MODRM & 1;
    unsigned modrm = code[at] & -present;
    if (!in_group(word, modrm))
        return 0;
    unsigned follows = after_modrm[modrm] & -present;
    unsigned sib = follows / SIB & 1;
    unsigned no_base = follows / NO_BASE & ((code[at + 1] & 7) == 5);
    unsigned size = (follows & SIZE) + 4 * no_base;
    unsigned displacement = at + present + sib;
    unsigned end = displacement + size;
    unsigned immediate = immediate_size[word >> IMM_SHIFT & 15][code[0] >> 1 & (rex << 2)];
    uint64_t packed = end + immediate;
    packed |= map << 8 | opcode << 16 | modrm << 24;
    packed |= (uint64_t)present << 32 | (uint64_t)(size ? displacement : 0) << 40;
    packed |= (uint64_t)(immediate ? end : 0) << 48;
    packed |= (uint64_t)((word & 0xff) | (follows & LENGTH_RIP)) << 56;
    memcpy(info, &packed, sizeof *info); /* x86 only: first field in the lowest byte */
    return end + immediate;
}
_Static_assert(sizeof(struct length_info) == sizeof(uint64_t),
               "decode_common() fills it as one word");

unsigned length_decode(const uint8_t *code, size_t available, struct length_info *info)
{
    /* decode() looks at up to 14 prefixes, then at most 8 bytes without asking for the end. */
    enum { SLACK = 24 };
    if (available >= SLACK) {
        unsigned length = decode_common(code, info);
        return length ? length : decode(code, info);
    }
    uint8_t padded[SLACK] = {0};
    memcpy(padded, code, available);
    unsigned length = decode(padded, info);
    return length <= available ? length : 0;
}

/* The entry of an opcode with this ModRM byte (or whatever stands there). `before` counts the bytes
 * up to ModRM. What depends on prefixes, on a SIB byte or on more bytes is left to length_decode().
 */
static uint16_t table_entry(uint32_t word, unsigned opcode, unsigned before, unsigned modrm)
{
    struct length_info info = {.opcode = (uint8_t)opcode, .modrm = (uint8_t)modrm};
    unsigned has_modrm = word / MODRM & 1, after = 0;
    if ((word & (KNOWN | PREFIX | ESCAPE | RARE | NO_NONE)) != KNOWN || !in_group(word, modrm))
        return LENGTH_ASK;
    if (word & LOOK && (before > 1 || !special(NULL, 0, &after, 0, 0, &info, &word)))
        return LENGTH_ASK;
    unsigned follows = has_modrm ? after_modrm[modrm] : 0;
    unsigned immediate = word >> IMM_SHIFT & 15;
    if (follows & NO_BASE || immediate == V)
        return LENGTH_ASK;
    unsigned length =
        before + has_modrm + (follows / SIB & 1) + (follows & SIZE) + immediate_size[immediate][0];
    unsigned flags = word | info.flags | (follows & LENGTH_RIP);
    return (uint16_t)(length | (flags & LENGTH_BYTES) << LENGTH_KIND);
}

void length_table_fill(struct length_table *table)
{
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        for (unsigned next = 0; next < 256; next++) {
            uint16_t entry = table_entry(one_byte[opcode], opcode, 1, next);
            if (opcode == 0x0f)
                entry = map_0f[next] & MODRM ? LENGTH_TWO : table_entry(map_0f[next], next, 2, 0);
            table->entry[0][opcode << 8 | next] = entry;
            table->entry[1][opcode << 8 | next] = table_entry(map_0f[opcode], opcode, 2, next);
        }
    }
}
