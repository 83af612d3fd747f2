/* SPDX-License-Identifier: MIT */
/* Host code, one instruction at a time: the only way by which the translator writes any. What an instruction may
 * be is a closed list: the fields of struct host_insn for those of the guest's that are copied (classes.c says
 * which), and the functions below for what is put around them. */
#ifndef RUNTIME_TRANSLATOR_EMIT_H
#define RUNTIME_TRANSLATOR_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMIT_MAX 32768u

/* Code on its way: written here, executed from `base` on once it is put there. */
struct emit {
    const uint8_t *base; /* where the first byte will be executed */
    uint32_t used;
    bool failed; /* no room, or a displacement that does not fit */
    uint8_t bytes[EMIT_MAX];
};

#define NO_REGISTER 0xff

/* The operand in ModRM.rm: a register, or memory. */
struct host_rm {
    bool memory;
    uint8_t base, index; /* the register itself is `base`; NO_REGISTER */
    uint8_t scale;       /* log2 */
    int32_t disp;
};
#define RM_REGISTER(n)                                                                             \
    ((struct host_rm){.memory = false, .base = (uint8_t)(n), .index = NO_REGISTER})
#define RM_MEMORY(b, d)                                                                            \
    ((struct host_rm){.memory = true, .base = (uint8_t)(b), .index = NO_REGISTER, .disp = (d)})
#define RM_INDEXED(b, i, s, d)                                                                     \
    ((struct host_rm){.memory = true,                                                              \
                      .base = (uint8_t)(b),                                                        \
                      .index = (uint8_t)(i),                                                       \
                      .scale = (uint8_t)(s),                                                       \
                      .disp = (d)})

/* An instruction. */
struct host_insn {
    bool operand16; /* 66 */
    uint8_t repeat; /* F2 or F3 as part of the opcode, or 0 */
    bool wide;      /* REX.W */
    bool rex;       /* a REX prefix even where none is needed: SPL and its kind */
    uint8_t map;    /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t opcode;
    bool no_modrm; /* the register, if any, is in the opcode's low bits: reg */
    uint8_t reg;   /* register or opcode extension */
    struct host_rm rm;
    uint8_t immediate_size;
    uint8_t immediate[8];
    /* VEX instead of the prefixes above (SDM 2A 2.3.5); `wide` is VEX.W */
    bool vex, vex_long;   /* VEX.L */
    uint8_t vex_prefix;   /* VEX.pp */
    uint8_t vex_register; /* VEX.vvvv */
};

/* `legacy_high`: an operand is AH to BH, which no instruction with a REX prefix can name. False: it would need one. */
bool emit_insn(struct emit *e, const struct host_insn *insn, bool legacy_high);

/* ---- what is put around guest instructions; these change no flag ---- */
void emit_mov(struct emit *e, unsigned to, unsigned from);                        /* 64 bits */
void emit_mov_sized(struct emit *e, bool wide, unsigned to, struct host_rm from); /* or 32 bits */
void emit_load(struct emit *e, unsigned to, struct host_rm from);
void emit_store(struct emit *e, struct host_rm to, unsigned from);
void emit_store_immediate(struct emit *e, struct host_rm to, int32_t value); /* 64 bits */
void emit_store_byte(struct emit *e, struct host_rm to, uint8_t value);
void emit_load_sign(struct emit *e, unsigned to, struct host_rm from); /* a byte to 32 bits */
void emit_lea(struct emit *e, unsigned to, struct host_rm from);
void emit_lea32(struct emit *e, unsigned to, struct host_rm from);
void emit_constant(struct emit *e, unsigned to, uint64_t value);
void emit_shift_by_12(struct emit *e, unsigned to, unsigned from); /* SHRX by RSP */
void emit_zero_extend16(struct emit *e, unsigned to, unsigned from);
void emit_flags_to_rax(struct emit *e);   /* LAHF, SETO: AH has all but OF, AL that */
void emit_flags_from_rax(struct emit *e); /* changes AL */
void emit_zero_extend8(struct emit *e, unsigned to, struct host_rm from);
void emit_endbr(struct emit *e);
void emit_jump_register(struct emit *e, unsigned reg);
void emit_jump_memory(struct emit *e, struct host_rm from);
/* At absolute host addresses within 2 GiB. */
void emit_jump_to(struct emit *e, const void *target);
void emit_call_to(struct emit *e, const void *target);
void emit_jump_slot(struct emit *e, const void *slot); /* through a pointer in memory */
void emit_lea_of(struct emit *e, unsigned to, const void *address);
/* Forward jumps: the place of the displacement, for emit_here. */
uint32_t emit_jump_if(struct emit *e, unsigned condition);    /* Jcc, 32 bits */
uint32_t emit_jump_if_zero(struct emit *e);                   /* JRCXZ, 8 bits */
uint32_t emit_jump(struct emit *e);                           /* 32 bits */
void emit_here(struct emit *e, uint32_t jump);                /* it leads here; 32 bits */
void emit_here_short(struct emit *e, uint32_t jump);          /* 8 bits */
void emit_jump_if_zero_back(struct emit *e, uint32_t target); /* JRCXZ to an offset before */
void emit_jump_back(struct emit *e, uint32_t target);         /* to an offset before */
/* ---- these do: 64 bits ---- */
void emit_shift_right(struct emit *e, unsigned reg, uint8_t count);
void emit_compare(struct emit *e, unsigned reg, int32_t value);

void emit_raw(struct emit *e, const uint8_t *bytes, size_t count); /* of the fixed stubs */
#define EMIT_RAW(e, ...)                                                                           \
    emit_raw(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#endif
