/* SPDX-License-Identifier: MIT */
/* The four legacy opcode maps (SDM 2D appendix A) as tables of 32-bit words, for length.c only. A
 * word says which parts follow the opcode, which mandatory prefixes are not allowed, and which row
 * of `groups` limits the ModRM byte. A word without KNOWN, PREFIX or ESCAPE is an invalid opcode.
 */
#ifndef IMAGE_LENGTH_OPCODES_H
#define IMAGE_LENGTH_OPCODES_H

#include "image/length.h"

enum {
    /* bits 0..7: LENGTH_* flags of every instruction with this opcode */
    REL8 = LENGTH_REL8,
    REL32 = LENGTH_REL32,
    CALL = LENGTH_CALL,
    STOP = LENGTH_NO_FALL,
    KNOWN = 1u << 8,    /* a valid opcode */
    MODRM = 1u << 9,    /* ModRM (with SIB and displacement) follows */
    LOCK = 1u << 10,    /* may carry a LOCK prefix when its operand is memory */
    RARE = 1u << 11,    /* not for decode_common() */
    PREFIX = 1u << 13,  /* legacy or REX prefix */
    ESCAPE = 1u << 14,  /* starts another encoding: 0f, VEX, EVEX, XOP */
    LOOK = 1u << 15,    /* needs a look at the bytes: special(), or a ModRM that is not one */
    IMM_SHIFT = 16,     /* four bits: enum immediate */
    NO_NONE = 1u << 20, /* not valid without mandatory prefix */
    NO_66 = 1u << 21,   /* not valid with mandatory prefix 66, ... */
    NO_F3 = 1u << 22,
    NO_F2 = 1u << 23,
    GROUP_SHIFT = 24, /* index in groups */
};

/* What stands behind ModRM. */
enum immediate { NO_IMM, BYTE, WORD, THREE, Z, V, ADDRESS, FOUR, IMMEDIATES };

/* Bytes of an immediate by REX.W (4), prefix 66 (2) and prefix 67 (1). */
static const uint8_t immediate_size[IMMEDIATES][8] = {
    [BYTE] = {1, 1, 1, 1, 1, 1, 1, 1},  [WORD] = {2, 2, 2, 2, 2, 2, 2, 2},
    [THREE] = {3, 3, 3, 3, 3, 3, 3, 3}, [Z] = {4, 4, 2, 2, 4, 4, 4, 4},
    [V] = {4, 4, 2, 2, 8, 8, 8, 8},     [ADDRESS] = {8, 4, 8, 4, 8, 4, 8, 4},
    [FOUR] = {4, 4, 4, 4, 4, 4, 4, 4},
};

enum {
    IMM8 = BYTE << IMM_SHIFT,
    IMM16 = WORD << IMM_SHIFT,
    ENTER = THREE << IMM_SHIFT,
    IMMZ = Z << IMM_SHIFT,               /* four bytes, two with operand size 16 */
    IMMV = V << IMM_SHIFT,               /* as IMMZ, eight with REX.W */
    MOFFS = ADDRESS << IMM_SHIFT | RARE, /* eight bytes, four with prefix 67 */
    JUMP8 = REL8 | IMM8,
    JUMP32 = REL32 | FOUR << IMM_SHIFT,

    BARE = KNOWN,
    RM = KNOWN | MODRM,
    RM8 = RM | IMM8,
    RM_LOCK = RM | LOCK,
    NO_REP = NO_F3 | NO_F2,
    ONLY_NONE = NO_66 | NO_REP,
    ONLY_66 = NO_NONE | NO_REP,
    ONLY_F3 = NO_NONE | NO_66 | NO_F2,
    ONLY_F2 = NO_NONE | NO_66 | NO_F3,
};

/* ModRM.reg values that an opcode accepts, one bit each: with a register operand, with a memory
 * operand, with a memory operand and a LOCK prefix. */
struct group {
    uint8_t accepts[2], lock;
};

enum group_index {
    G_ALL,
    G_MEMORY, /* no register operand */
    G_REGS,   /* no memory operand */
    G_ALU,
    G_8C,
    G_8E,
    G_8F,
    G_C6,
    G_F6,
    G_FE,
    G_FF,
    G_D9,
    G_DA,
    G_DB,
    G_DD,
    G_DE,
    G_DF,
    G_0F00,
    G_0F01,
    G_CR,
    G_0F71,
    G_0F73,
    G_PADLOCK,
    G_BT,
    G_CMPXCHG8,
    G_KEYLOCKER,
    GROUPS
};

static const struct group groups[GROUPS] = {
    [G_ALL] = {{0xff, 0xff}, 0xff},   [G_MEMORY] = {{0x00, 0xff}, 0},
    [G_REGS] = {{0xff, 0x00}, 0},     [G_ALU] = {{0xff, 0xff}, 0x7f},
    [G_8C] = {{0x3f, 0x3f}, 0},       [G_8E] = {{0x3d, 0x3d}, 0},
    [G_8F] = {{0x01, 0x01}, 0},       [G_C6] = {{0x81, 0x01}, 0},
    [G_F6] = {{0xff, 0xff}, 0x0c},    [G_FE] = {{0x03, 0x03}, 0x03},
    [G_FF] = {{0x57, 0x7f}, 0x03},    [G_D9] = {{0xff, 0xfd}, 0},
    [G_DA] = {{0x2f, 0xff}, 0},       [G_DB] = {{0x7f, 0xaf}, 0},
    [G_DD] = {{0x3f, 0xdf}, 0},       [G_DE] = {{0xff, 0xff}, 0},
    [G_DF] = {{0x7f, 0xff}, 0},       [G_0F00] = {{0x3f, 0x3f}, 0},
    [G_0F01] = {{0xff, 0xff}, 0},     [G_CR] = {{0x1d, 0x1d}, 0},
    [G_0F71] = {{0x54, 0x00}, 0},     [G_0F73] = {{0xcc, 0x00}, 0},
    [G_PADLOCK] = {{0x3f, 0x00}, 0},  [G_BT] = {{0xf0, 0xf0}, 0xe0},
    [G_CMPXCHG8] = {{0xc0, 0xfa}, 2}, [G_KEYLOCKER] = {{0x00, 0x0f}, 0},
};

#define MEMORY   GROUP(G_MEMORY)
#define REGS     GROUP(G_REGS)
#define GROUP(g) ((uint32_t)(g) << GROUP_SHIFT)

/* Rows of the ALU block 00..3f: /r forms, then AL,imm8 and rAX,immz. CMP cannot be locked. */
#define ALU(base, store)                                                                           \
    [(base) + 0] = (store), [(base) + 1] = (store), [(base) + 2] = RM, [(base) + 3] = RM,          \
              [(base) + 4] = BARE | IMM8, [(base) + 5] = BARE | IMMZ

static const uint32_t one_byte[256] = {
    ALU(0x00, RM_LOCK),
    ALU(0x08, RM_LOCK),
    [0x0f] = ESCAPE,
    ALU(0x10, RM_LOCK),
    ALU(0x18, RM_LOCK),
    ALU(0x20, RM_LOCK),
    [0x26] = PREFIX,
    ALU(0x28, RM_LOCK),
    [0x2e] = PREFIX,
    ALU(0x30, RM_LOCK),
    [0x36] = PREFIX,
    ALU(0x38, RM),
    [0x3e] = PREFIX,
    [0x40 ... 0x4f] = PREFIX,
    [0x50 ... 0x5f] = BARE,
    [0x62] = ESCAPE,
    [0x63] = RM,
    [0x64 ... 0x67] = PREFIX,
    [0x68] = BARE | IMMZ,
    [0x69] = RM | IMMZ,
    [0x6a] = BARE | IMM8,
    [0x6b] = RM8,
    [0x6c ... 0x6f] = BARE,
    [0x70 ... 0x7f] = BARE | JUMP8,
    [0x80] = RM8 | LOCK | GROUP(G_ALU),
    [0x81] = RM | IMMZ | LOCK | GROUP(G_ALU),
    [0x83] = RM8 | LOCK | GROUP(G_ALU),
    [0x84 ... 0x85] = RM,
    [0x86 ... 0x87] = RM_LOCK,
    [0x88 ... 0x8b] = RM,
    [0x8c] = RM | GROUP(G_8C),
    [0x8d] = RM | MEMORY,
    [0x8e] = RM | GROUP(G_8E),
    [0x8f] = ESCAPE,
    [0x90 ... 0x99] = BARE,
    [0x9b ... 0x9f] = BARE,
    [0xa0 ... 0xa3] = BARE | MOFFS,
    [0xa4 ... 0xa7] = BARE,
    [0xa8] = BARE | IMM8,
    [0xa9] = BARE | IMMZ,
    [0xaa ... 0xaf] = BARE,
    [0xb0 ... 0xb7] = BARE | IMM8,
    [0xb8 ... 0xbf] = BARE | IMMV,
    [0xc0 ... 0xc1] = RM8,
    [0xc2] = BARE | IMM16 | STOP,
    [0xc3] = BARE | STOP,
    [0xc4 ... 0xc5] = ESCAPE,
    [0xc6] = RM8 | LOOK | GROUP(G_C6),
    [0xc7] = RM | IMMZ | LOOK | GROUP(G_C6),
    [0xc8] = BARE | ENTER,
    [0xc9] = BARE,
    [0xca] = BARE | IMM16 | STOP,
    [0xcb ... 0xcc] = BARE | STOP,
    [0xcd] = BARE | IMM8,
    [0xcf] = BARE | STOP,
    [0xd0 ... 0xd3] = RM,
    [0xd7] = BARE,
    [0xd8] = RM,
    [0xd9] = RM | GROUP(G_D9),
    [0xda] = RM | GROUP(G_DA),
    [0xdb] = RM | GROUP(G_DB),
    [0xdc] = RM,
    [0xdd] = RM | GROUP(G_DD),
    [0xde] = RM | GROUP(G_DE),
    [0xdf] = RM | GROUP(G_DF),
    [0xe0 ... 0xe3] = BARE | JUMP8,
    [0xe4 ... 0xe7] = BARE | IMM8,
    [0xe8] = BARE | JUMP32 | CALL,
    [0xe9] = BARE | JUMP32 | STOP,
    [0xeb] = BARE | JUMP8 | STOP,
    [0xec ... 0xef] = BARE,
    [0xf0] = PREFIX,
    [0xf1] = BARE,
    [0xf2 ... 0xf3] = PREFIX,
    [0xf4 ... 0xf5] = BARE,
    [0xf6] = RM | LOCK | LOOK | GROUP(G_F6),
    [0xf7] = RM | LOCK | LOOK | GROUP(G_F6),
    [0xf8 ... 0xfd] = BARE,
    [0xfe] = RM | LOCK | GROUP(G_FE),
    [0xff] = RM | LOCK | LOOK | GROUP(G_FF),
};

static const uint32_t map_0f[256] = {
    [0x00] = RM | GROUP(G_0F00),
    [0x01] = RM | GROUP(G_0F01),
    [0x02 ... 0x03] = RM,
    [0x05 ... 0x06] = BARE,
    [0x07] = BARE | STOP,
    [0x08 ... 0x09] = BARE,
    [0x0b] = BARE | STOP,
    [0x0d] = RM,
    [0x0e] = BARE,
    [0x0f] = RM8 | LOOK,
    [0x10 ... 0x12] = RM,
    [0x13] = RM | MEMORY | NO_REP,
    [0x14 ... 0x15] = RM | NO_REP,
    [0x16] = RM | NO_F2,
    [0x17] = RM | MEMORY | NO_REP,
    [0x18 ... 0x1f] = RM,
    [0x20] = RM | LOOK | GROUP(G_CR),
    [0x21] = RM | LOOK,
    [0x22] = RM | LOOK | GROUP(G_CR),
    [0x23] = RM | LOOK,
    [0x28 ... 0x29] = RM | NO_REP,
    [0x2a] = RM,
    [0x2b] = RM | MEMORY,
    [0x2c ... 0x2d] = RM,
    [0x2e ... 0x2f] = RM | NO_REP,
    [0x30 ... 0x34] = BARE,
    [0x35] = BARE | STOP,
    [0x37] = BARE | ONLY_NONE,
    [0x40 ... 0x4f] = RM,
    [0x50] = RM | REGS | NO_REP,
    [0x51] = RM,
    [0x52 ... 0x53] = RM | NO_66 | NO_F2,
    [0x54 ... 0x57] = RM | NO_REP,
    [0x58 ... 0x5a] = RM,
    [0x5b] = RM | NO_F2,
    [0x5c ... 0x5f] = RM,
    [0x60 ... 0x6b] = RM | NO_REP,
    [0x6c ... 0x6d] = RM | ONLY_66,
    [0x6e] = RM | NO_REP,
    [0x6f] = RM | NO_F2,
    [0x70] = RM8,
    [0x71 ... 0x72] = RM8 | NO_REP | GROUP(G_0F71),
    [0x73] = RM8 | NO_REP | GROUP(G_0F73),
    [0x74 ... 0x76] = RM | NO_REP,
    [0x77] = BARE | ONLY_NONE,
    [0x78] = RM | NO_F3 | LOOK,
    [0x79] = RM | NO_F3,
    [0x7c ... 0x7d] = RM | NO_NONE | NO_F3,
    [0x7e ... 0x7f] = RM | NO_F2,
    [0x80 ... 0x8f] = BARE | JUMP32,
    [0x90 ... 0x9f] = RM,
    [0xa0 ... 0xa2] = BARE,
    [0xa3] = RM,
    [0xa4] = RM8,
    [0xa5] = RM,
    [0xa6] = RM | ONLY_F3 | GROUP(G_PADLOCK),
    [0xa7] = RM | NO_F2 | GROUP(G_PADLOCK),
    [0xa8 ... 0xa9] = BARE,
    [0xaa] = BARE | STOP,
    [0xab] = RM_LOCK,
    [0xac] = RM8,
    [0xad ... 0xaf] = RM,
    [0xb0 ... 0xb1] = RM_LOCK,
    [0xb2] = RM | MEMORY,
    [0xb3] = RM_LOCK,
    [0xb4 ... 0xb5] = RM | MEMORY,
    [0xb6 ... 0xb7] = RM,
    [0xb8] = RM | ONLY_F3,
    [0xb9] = RM | STOP,
    [0xba] = RM8 | LOCK | GROUP(G_BT),
    [0xbb] = RM_LOCK,
    [0xbc ... 0xbf] = RM,
    [0xc0 ... 0xc1] = RM_LOCK,
    [0xc2] = RM8,
    [0xc3] = RM | MEMORY | ONLY_NONE,
    [0xc4] = RM8 | NO_REP,
    [0xc5] = RM8 | REGS | NO_REP,
    [0xc6] = RM8 | NO_REP,
    [0xc7] = RM | LOCK | GROUP(G_CMPXCHG8),
    [0xc8 ... 0xcf] = BARE,
    [0xd0] = RM | NO_NONE | NO_F3,
    [0xd1 ... 0xd5] = RM | NO_REP,
    [0xd6] = RM | NO_NONE,
    [0xd7] = RM | REGS | NO_REP,
    [0xd8 ... 0xe5] = RM | NO_REP,
    [0xe6] = RM | NO_NONE,
    [0xe7] = RM | MEMORY | NO_REP,
    [0xe8 ... 0xef] = RM | NO_REP,
    [0xf0] = RM | MEMORY | ONLY_F2,
    [0xf1 ... 0xf6] = RM | NO_REP,
    [0xf7] = RM | REGS | NO_REP,
    [0xf8 ... 0xfe] = RM | NO_REP,
    [0xff] = RM | STOP,
};

static const uint32_t map_0f38[256] = {
    [0x00 ... 0x0b] = RM | NO_REP,
    [0x10] = RM | ONLY_66,
    [0x14 ... 0x15] = RM | ONLY_66,
    [0x17] = RM | ONLY_66,
    [0x1c ... 0x1e] = RM | NO_REP,
    [0x20 ... 0x25] = RM | ONLY_66,
    [0x28 ... 0x29] = RM | ONLY_66,
    [0x2a] = RM | MEMORY | ONLY_66,
    [0x2b] = RM | ONLY_66,
    [0x30 ... 0x35] = RM | ONLY_66,
    [0x37 ... 0x41] = RM | ONLY_66,
    [0x80 ... 0x82] = RM | MEMORY | ONLY_66,
    [0xc8 ... 0xcd] = RM | ONLY_NONE,
    [0xcf] = RM | ONLY_66,
    [0xd8] = RM | ONLY_F3 | GROUP(G_KEYLOCKER),
    [0xdb] = RM | ONLY_66,
    [0xdc ... 0xdf] = RM | NO_NONE | NO_F2,
    [0xf0 ... 0xf1] = RM | NO_F3,
    [0xf5] = RM | MEMORY | ONLY_66,
    [0xf6] = RM | NO_F2,
    [0xf8] = RM | MEMORY | NO_NONE,
    [0xf9] = RM | MEMORY | ONLY_NONE,
    [0xfa ... 0xfb] = RM | REGS | ONLY_F3,
};

static const uint32_t map_0f3a[256] = {
    [0x08 ... 0x0e] = RM8 | ONLY_66, [0x0f] = RM8 | NO_REP,
    [0x14 ... 0x17] = RM8 | ONLY_66, [0x20 ... 0x22] = RM8 | ONLY_66,
    [0x40 ... 0x42] = RM8 | ONLY_66, [0x44] = RM8 | ONLY_66,
    [0x60 ... 0x63] = RM8 | ONLY_66, [0xcc] = RM8 | ONLY_NONE,
    [0xce ... 0xcf] = RM8 | ONLY_66, [0xdf] = RM8 | ONLY_66,
    [0xf0] = RM8 | REGS | ONLY_F3,
};

#endif
