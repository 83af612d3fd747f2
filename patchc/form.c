/* SPDX-License-Identifier: MIT */
/* Instruction forms: parsing and matching of operand patterns. */
#include "patchc/form.h"

#include <stdlib.h>
#include <string.h>

int gpr_number(ZydisRegister register_)
{
    switch (ZydisRegisterGetClass(register_)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return ZydisRegisterGetId(register_);
    case ZYDIS_REGCLASS_GPR8:
        if (register_ <= ZYDIS_REGISTER_BL)
            return register_ - ZYDIS_REGISTER_AL;
        if (register_ >= ZYDIS_REGISTER_SPL)
            return register_ - ZYDIS_REGISTER_SPL + 4;
        return -1;
    default:
        return -1;
    }
}

const ZydisDecodedOperand *memory_operand(const ZydisDecodedInstruction *instruction,
                                          const ZydisDecodedOperand *operands)
{
    for (unsigned i = 0; i < instruction->operand_count_visible; i++)
        if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &operands[i];
    return NULL;
}

bool memory_has_segment(const ZydisDecodedOperand *operand)
{
    return operand->mem.segment == ZYDIS_REGISTER_FS || operand->mem.segment == ZYDIS_REGISTER_GS;
}

bool memory_is_register(const ZydisDecodedInstruction *instruction,
                        const ZydisDecodedOperand *operand)
{
    return instruction->address_width == 64 && operand->mem.index == ZYDIS_REGISTER_NONE &&
           operand->mem.disp.value == 0 && !memory_has_segment(operand) &&
           ZydisRegisterGetClass(operand->mem.base) == ZYDIS_REGCLASS_GPR64;
}

/* ---- parsing ---- */

static ZydisMnemonic mnemonic_named(const char *name, size_t length)
{
    for (int m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const char *text = ZydisMnemonicGetString((ZydisMnemonic)m);
        if (text[0] == name[0] && strncmp(text, name, length) == 0 && text[length] == '\0')
            return (ZydisMnemonic)m;
    }
    return ZYDIS_MNEMONIC_INVALID;
}

static ZydisRegister register_named(const char *name, size_t length)
{
    for (int r = 1; r <= ZYDIS_REGISTER_MAX_VALUE; r++) {
        const char *text = ZydisRegisterGetString((ZydisRegister)r);
        if (text && strncmp(text, name, length) == 0 && text[length] == '\0')
            return (ZydisRegister)r;
    }
    return ZYDIS_REGISTER_NONE;
}

static bool parse_class(const char *name, size_t length, struct form_operand *operand)
{
    static const struct {
        const char *name;
        uint8_t kind;
        bool sized;
    } classes[] = {
        {"r", FORM_GPR, true},
        {"cr", FORM_CR, false},
        {"dr", FORM_DR, false},
        {"sreg", FORM_SREG, false},
        {"xmm", FORM_XMM, false},
        {"imm", FORM_IMMEDIATE, true},
        {"m", FORM_MEMORY, true},
        {"mreg", FORM_MEMORY_REGISTER, false},
        {"mlea", FORM_MEMORY_LEA, false},
    };
    size_t letters = 0;
    while (letters < length && (name[letters] < '0' || name[letters] > '9'))
        letters++;
    unsigned size = 0;
    for (size_t i = letters; i < length; i++) {
        if (name[i] < '0' || name[i] > '9' || size > 999)
            return false;
        size = size * 10 + (unsigned)(name[i] - '0');
    }
    /* r8 to r15 are registers, but r8 as a class has no use, and r16 to r64 are classes */
    bool number_is_size = letters < length;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (strlen(classes[i].name) != letters || memcmp(classes[i].name, name, letters) != 0)
            continue;
        if (number_is_size && (!classes[i].sized || (classes[i].kind == FORM_GPR && size < 16)))
            return false;
        operand->kind = classes[i].kind;
        operand->size = (uint16_t)size;
        return true;
    }
    return false;
}

static int parse_operand(const char *text, const char *start, size_t length,
                         struct form_operand *operand, struct error *err)
{
    memset(operand, 0, sizeof *operand);
    size_t name = 0;
    while (name < length && start[name] != '!')
        name++;
    if (!parse_class(start, name, operand)) {
        operand->kind = FORM_REGISTER;
        operand->register_ = register_named(start, name);
        if (operand->register_ == ZYDIS_REGISTER_NONE)
            return fail(err, EXIT_INPUT, "template form \"%s\": unknown operand \"%.*s\"", text,
                        (int)name, start);
    }
    while (name < length) {
        size_t from = ++name;
        while (name < length && start[name] != '!')
            name++;
        int number = gpr_number(register_named(start + from, name - from));
        if (number < 0)
            return fail(err, EXIT_INPUT, "template form \"%s\": unknown excluded register", text);
        operand->excluded |= (uint16_t)(1u << number);
    }
    return 0;
}

/* Words that describe the instruction, not an operand. */
static bool parse_word(const char *word, size_t length, struct form *form)
{
    if (length == 3 && memcmp(word, "far", 3) == 0)
        form->far = true;
    else if (length == 3 && memcmp(word, "w16", 3) == 0)
        form->width = 16;
    else if (length == 3 && memcmp(word, "w64", 3) == 0)
        form->width = 64;
    else
        return false;
    return true;
}

int form_parse(const char *text, struct form *form, struct error *err)
{
    memset(form, 0, sizeof *form);
    size_t length = strcspn(text, " ");
    form->mnemonic = mnemonic_named(text, length);
    if (form->mnemonic == ZYDIS_MNEMONIC_INVALID)
        return fail(err, EXIT_INPUT, "template form \"%s\": unknown mnemonic", text);
    const char *p = text + length;
    while (*(p += strspn(p, " ,"))) {
        size_t word = strcspn(p, " ,");
        if (parse_word(p, word, form)) {
            p += word;
            continue;
        }
        if (form->operand_count == FORM_OPERANDS)
            return fail(err, EXIT_INPUT, "template form \"%s\": too many operands", text);
        if (parse_operand(text, p, word, &form->operands[form->operand_count++], err))
            return -1;
        p += word;
    }
    return 0;
}

/* ---- matching ---- */

static bool excluded(const struct form_operand *pattern, ZydisRegister register_)
{
    int number = gpr_number(register_);
    return number >= 0 && (pattern->excluded >> number & 1);
}

static bool register_matches(const struct form_operand *pattern, ZydisRegister register_)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(register_);
    switch (pattern->kind) {
    case FORM_REGISTER:
        return register_ == pattern->register_;
    case FORM_GPR:
        return gpr_number(register_) >= 0 && !excluded(pattern, register_);
    case FORM_CR:
        return class == ZYDIS_REGCLASS_CONTROL;
    case FORM_DR:
        return class == ZYDIS_REGCLASS_DEBUG;
    case FORM_SREG:
        return class == ZYDIS_REGCLASS_SEGMENT;
    case FORM_XMM:
        return class == ZYDIS_REGCLASS_XMM;
    default:
        return false;
    }
}

static bool memory_matches(const struct form_operand *pattern,
                           const ZydisDecodedInstruction *instruction,
                           const ZydisDecodedOperand *operand)
{
    if (excluded(pattern, operand->mem.base) || excluded(pattern, operand->mem.index))
        return false;
    switch (pattern->kind) {
    case FORM_MEMORY:
        return true;
    case FORM_MEMORY_REGISTER:
        return memory_is_register(instruction, operand);
    case FORM_MEMORY_LEA:
        return !memory_is_register(instruction, operand);
    default:
        return false;
    }
}

bool form_matches(const struct form *form, const ZydisDecodedInstruction *instruction,
                  const ZydisDecodedOperand *operands)
{
    if (form->mnemonic != instruction->mnemonic ||
        form->operand_count != instruction->operand_count_visible ||
        form->far != (instruction->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) ||
        (form->width && form->width != instruction->operand_width))
        return false;
    for (unsigned i = 0; i < form->operand_count; i++) {
        const struct form_operand *pattern = &form->operands[i];
        if (pattern->size && pattern->size != operands[i].size)
            return false;
        bool fits = false;
        if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            fits = register_matches(pattern, operands[i].reg.value);
        else if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            fits = memory_matches(pattern, instruction, &operands[i]);
        else if (operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            fits = pattern->kind == FORM_IMMEDIATE;
        if (!fits)
            return false;
    }
    return true;
}
