/* SPDX-License-Identifier: MIT */
/* Instruction forms: the patterns by which a template is retrieved for an instruction (D7). Their
 * syntax is described in templates/template.inc. */
#ifndef PATCHC_FORM_H
#define PATCHC_FORM_H

#include <stdbool.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#include "image/error.h"

#define FORM_OPERANDS 4

enum form_operand_kind {
    FORM_REGISTER, /* this register */
    FORM_GPR,
    FORM_CR,
    FORM_DR,
    FORM_SREG,
    FORM_XMM,
    FORM_IMMEDIATE,
    FORM_MEMORY,
    FORM_MEMORY_REGISTER, /* its address is one register */
    FORM_MEMORY_LEA,      /* anything else */
};

struct form_operand {
    uint8_t kind;            /* enum form_operand_kind */
    uint16_t size;           /* bits; 0: any */
    uint16_t excluded;       /* bit n: not general-purpose register n */
    ZydisRegister register_; /* FORM_REGISTER */
};

struct form {
    ZydisMnemonic mnemonic;
    bool far;       /* a far branch; else no far branch */
    unsigned width; /* operand width in bits; 0: any */
    unsigned operand_count;
    struct form_operand operands[FORM_OPERANDS];
};

/* Parses a pattern. 0, or -1 with *err set. */
int form_parse(const char *text, struct form *form, struct error *err);

bool form_matches(const struct form *form, const ZydisDecodedInstruction *instruction,
                  const ZydisDecodedOperand *operands);

/* The number of a general-purpose register of 16, 32 or 64 bits, or of a low byte register;
 * -1 for any other register. */
int gpr_number(ZydisRegister register_);

/* The first visible memory operand, or NULL. */
const ZydisDecodedOperand *memory_operand(const ZydisDecodedInstruction *instruction,
                                          const ZydisDecodedOperand *operands);

/* True if the operand's address is the value of one 64-bit general-purpose register. */
bool memory_is_register(const ZydisDecodedInstruction *instruction,
                        const ZydisDecodedOperand *operand);

/* True if the operand has an FS or GS base. */
bool memory_has_segment(const ZydisDecodedOperand *operand);

#endif
