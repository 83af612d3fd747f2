/* SPDX-License-Identifier: MIT */
/* Matching candidates against an instruction list (D6). Only the rules of the candidate's mnemonic
 * and those for every mnemonic are looked at, last rule first: the first that matches decides. */
#include "patchc/list_rules.h"

#include "image/image.h"

bool list_glob(const char *glob, const char *text)
{
    /* On a mismatch, the last * takes one more character; earlier ones need not be tried again,
     * since what they matched was the leftmost possible. */
    const char *star = NULL, *retry = NULL;
    while (*text) {
        if (*glob == '*') {
            star = ++glob;
            retry = text;
        } else if (*glob == '?' || *glob == *text) {
            glob++;
            text++;
        } else if (star) {
            glob = star;
            text = ++retry;
        } else {
            return false;
        }
    }
    while (*glob == '*')
        glob++;
    return !*glob;
}

/* The immediate that an operand stands for: the first immediate operand is raw.imm[0]. */
static unsigned immediate_size(const struct list_candidate *c, unsigned operand)
{
    unsigned index = 0;
    for (unsigned i = 0; i < operand; i++)
        index += c->operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    return index < 2 ? c->instruction->raw.imm[index].size : 0;
}

static uint64_t low_bits(uint64_t value, unsigned bits)
{
    return bits >= 64 ? value : value & ((1ull << bits) - 1);
}

/* A number means the immediate as it stands in the code or, sign-extended, as the instruction uses
 * it: ADD EAX, -1 may be written with 0xff and with 0xffffffff. */
static bool value_matches(const struct list_candidate *c, unsigned index, uint64_t value)
{
    const ZydisDecodedOperand *operand = &c->operands[index];
    if (operand->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || operand->imm.is_relative)
        return false;
    uint64_t immediate = operand->imm.value.u;
    return value == low_bits(immediate, immediate_size(c, index)) ||
           (operand->imm.is_signed && value == low_bits(immediate, c->instruction->operand_width));
}

static bool form_matches(const struct operand_form *form, const struct list_candidate *c,
                         unsigned index)
{
    const ZydisDecodedOperand *operand = &c->operands[index];
    bool is_register = operand->type == ZYDIS_OPERAND_TYPE_REGISTER;
    bool is_memory = operand->type == ZYDIS_OPERAND_TYPE_MEMORY;
    bool is_immediate = operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    switch (form->kind) {
    case OPERAND_ANY:
        return true;
    case OPERAND_REGISTERS:
        return is_register && operand->reg.value >= (ZydisRegister)form->low &&
               operand->reg.value <= (ZydisRegister)form->high;
    case OPERAND_GPR:
        return is_register && operand->reg.value >= ZYDIS_REGISTER_AL &&
               operand->reg.value <= ZYDIS_REGISTER_R15 &&
               (!form->size || operand->size == form->size);
    case OPERAND_SEGMENT:
        return is_register && operand->reg.value >= ZYDIS_REGISTER_ES &&
               operand->reg.value <= ZYDIS_REGISTER_GS;
    case OPERAND_MEMORY:
        return is_memory && (!form->size || operand->size == form->size);
    case OPERAND_IMMEDIATE:
        return is_immediate && !operand->imm.is_relative &&
               (!form->size || immediate_size(c, index) == form->size);
    case OPERAND_RELATIVE:
        return is_immediate && operand->imm.is_relative;
    case OPERAND_VALUE:
        return value_matches(c, index, form->low);
    }
    return false;
}

static bool operands_match(const struct list *list, const struct list_rule *rule,
                           const struct list_candidate *c)
{
    if (!rule->operand_count)
        return true;
    if (rule->operand_count != c->instruction->operand_count_visible)
        return false;
    for (unsigned i = 0; i < rule->operand_count; i++) {
        const struct operand_form *form = &list->forms[rule->operands[i].first];
        uint32_t left = rule->operands[i].count;
        while (left && !form_matches(form, c, i)) {
            form++;
            left--;
        }
        if (!left)
            return false;
    }
    return true;
}

/* The port of an IO instruction is its immediate operand or DX; INS and OUTS have only DX. */
static bool port_matches(const struct list_rule *rule, const struct list_candidate *c)
{
    for (unsigned i = 0; i < c->instruction->operand_count_visible; i++)
        if (c->operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            uint64_t port = c->operands[i].imm.value.u & 0xff;
            return !rule->port_dx && port >= rule->port_low && port <= rule->port_high;
        }
    return rule->port_dx;
}

static bool conditions_hold(const struct list_rule *rule, const struct list_candidate *c)
{
    unsigned conditions = rule->conditions;
    if (conditions & CONDITION_ADDRESS &&
        (c->address < rule->address_low || c->address > rule->address_high))
        return false;
    if (conditions & CONDITION_RANGE &&
        (!rule->range_resolved || c->address < rule->range_low || c->address >= rule->range_high))
        return false;
    if (conditions & CONDITION_BRANCH) {
        bool far = c->instruction->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
        if (c->instruction->meta.branch_type == ZYDIS_BRANCH_TYPE_NONE || far != rule->branch_far)
            return false;
    }
    if (conditions & CONDITION_PORT && !port_matches(rule, c))
        return false;
    if (conditions & CONDITION_SECTION && !list_glob(rule->section, c->section))
        return false;
    return !(conditions & CONDITION_SYMBOL) || list_glob(rule->symbol, c->symbol);
}

const struct list_rule *list_match(const struct list *list, const struct list_candidate *candidate)
{
    unsigned m = candidate->instruction->mnemonic;
    if (m == ZYDIS_MNEMONIC_INVALID || m > ZYDIS_MNEMONIC_MAX_VALUE)
        return NULL;
    /* Both lists of rule numbers ascend: walk them from their ends, the greater number first. */
    uint32_t begin = list->first[m], end = list->first[m + 1];
    uint32_t all_begin = list->first[0], all_end = list->first[1];
    while (begin < end || all_begin < all_end) {
        bool own = begin < end && (all_begin == all_end ||
                                   list->by_mnemonic[end - 1] > list->by_mnemonic[all_end - 1]);
        const struct list_rule *rule = &list->rules[list->by_mnemonic[own ? --end : --all_end]];
        if (operands_match(list, rule, candidate) && conditions_hold(rule, candidate))
            return rule->include ? rule : NULL;
    }
    return NULL;
}

bool list_names_mnemonic(const struct list *list, ZydisMnemonic mnemonic)
{
    unsigned m = mnemonic;
    if (m == ZYDIS_MNEMONIC_INVALID || m > ZYDIS_MNEMONIC_MAX_VALUE)
        return false;
    return list->includes_all || (list->included[m / 8] >> m % 8 & 1);
}

void list_resolve(struct list *list, const struct image *image)
{
    for (size_t i = 0; i < list->rule_count; i++) {
        struct list_rule *rule = &list->rules[i];
        if (!(rule->conditions & CONDITION_RANGE))
            continue;
        const struct image_symbol *start = image_symbol_named(image, rule->range_start);
        const struct image_symbol *end = image_symbol_named(image, rule->range_end);
        rule->range_missing[0] = start ? NULL : rule->range_start;
        rule->range_missing[1] = end ? NULL : rule->range_end;
        rule->range_resolved = start && end;
        rule->range_low = start ? start->address : 0;
        rule->range_high = end ? end->address : 0;
    }
}

const char *list_unresolved(const struct list *list, size_t index)
{
    for (size_t i = 0; i < list->rule_count; i++)
        for (int k = 0; k < 2; k++)
            if (list->rules[i].range_missing[k] && index-- == 0)
                return list->rules[i].range_missing[k];
    return NULL;
}

/* True if every register that the operand's alternatives allow is a system or segment register. */
static bool operand_is_special(const struct list *list, const struct list_rule *rule, unsigned i)
{
    for (uint32_t k = 0; k < rule->operands[i].count; k++) {
        const struct operand_form *form = &list->forms[rule->operands[i].first + k];
        bool control = form->kind == OPERAND_REGISTERS && form->low >= ZYDIS_REGISTER_CR0 &&
                       form->high <= ZYDIS_REGISTER_CR15;
        bool debug = form->kind == OPERAND_REGISTERS && form->low >= ZYDIS_REGISTER_DR0 &&
                     form->high <= ZYDIS_REGISTER_DR15;
        bool segment = form->kind == OPERAND_SEGMENT ||
                       (form->kind == OPERAND_REGISTERS && form->low >= ZYDIS_REGISTER_ES &&
                        form->high <= ZYDIS_REGISTER_GS);
        if (!control && !debug && !segment)
            return false;
    }
    return true;
}

bool list_names_plain(const struct list *list, ZydisMnemonic mnemonic)
{
    if (list->includes_all)
        return true;
    for (uint32_t i = list->first[mnemonic]; i < list->first[mnemonic + 1]; i++) {
        const struct list_rule *rule = &list->rules[list->by_mnemonic[i]];
        bool special = (rule->conditions & CONDITION_BRANCH) && rule->branch_far;
        for (unsigned o = 0; o < rule->operand_count; o++)
            special |= operand_is_special(list, rule, o);
        if (rule->include && !special)
            return true;
    }
    return false;
}
