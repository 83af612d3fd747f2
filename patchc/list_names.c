/* SPDX-License-Identifier: MIT */
/* Names in instruction lists: mnemonics, families of mnemonics, operand forms. */
#include "patchc/list_rules.h"

#include <string.h>
#include <strings.h>

#define NAME_MAX_LENGTH 32u /* longer than any mnemonic or register name */

/* Intel names the operand sizes of these apart, most assemblers do not. A list that says "pushf"
 * means PUSHFQ as well: naming only the 16-bit form would silently list nothing. */
static const struct {
    const char *name;
    ZydisMnemonic members[4];
} families[] = {
    {"ins", {ZYDIS_MNEMONIC_INSB, ZYDIS_MNEMONIC_INSW, ZYDIS_MNEMONIC_INSD}},
    {"outs", {ZYDIS_MNEMONIC_OUTSB, ZYDIS_MNEMONIC_OUTSW, ZYDIS_MNEMONIC_OUTSD}},
    {"pushf", {ZYDIS_MNEMONIC_PUSHF, ZYDIS_MNEMONIC_PUSHFD, ZYDIS_MNEMONIC_PUSHFQ}},
    {"popf", {ZYDIS_MNEMONIC_POPF, ZYDIS_MNEMONIC_POPFD, ZYDIS_MNEMONIC_POPFQ}},
    {"iret", {ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ}},
};

static bool same(const char *name, const char *text, size_t length)
{
    return strlen(name) == length && !strncasecmp(name, text, length);
}

const ZydisMnemonic *list_family_named(const char *text, size_t length)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (same(families[i].name, text, length))
            return families[i].members;
    return NULL;
}

ZydisMnemonic list_mnemonic_named(const char *text, size_t length)
{
    char name[NAME_MAX_LENGTH];
    if (!length || length >= sizeof name)
        return ZYDIS_MNEMONIC_INVALID;
    memcpy(name, text, length);
    name[length] = 0;
    /* Zydis numbers its mnemonics in alphabetical order (tests/unit/test_list.c checks it). */
    int low = 1, high = ZYDIS_MNEMONIC_MAX_VALUE;
    while (low <= high) {
        int middle = (low + high) / 2;
        int order = strcasecmp(name, ZydisMnemonicGetString((ZydisMnemonic)middle));
        if (!order)
            return (ZydisMnemonic)middle;
        if (order < 0)
            high = middle - 1;
        else
            low = middle + 1;
    }
    return ZYDIS_MNEMONIC_INVALID;
}

/* Edits between two short names: insertions, deletions, replacements, neighbours swapped. */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned cost[NAME_MAX_LENGTH + 1][NAME_MAX_LENGTH + 1];
    for (size_t i = 0; i <= a_length; i++)
        cost[i][0] = (unsigned)i;
    for (size_t j = 0; j <= b_length; j++)
        cost[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++)
        for (size_t j = 1; j <= b_length; j++) {
            unsigned best = cost[i - 1][j - 1] + ((a[i - 1] | 0x20) != (b[j - 1] | 0x20));
            if (cost[i - 1][j] + 1 < best)
                best = cost[i - 1][j] + 1;
            if (cost[i][j - 1] + 1 < best)
                best = cost[i][j - 1] + 1;
            if (i > 1 && j > 1 && (a[i - 1] | 0x20) == (b[j - 2] | 0x20) &&
                (a[i - 2] | 0x20) == (b[j - 1] | 0x20) && cost[i - 2][j - 2] + 1 < best)
                best = cost[i - 2][j - 2] + 1;
            cost[i][j] = best;
        }
    return cost[a_length][b_length];
}

const char *list_mnemonic_close_to(const char *text, size_t length)
{
    if (length < 2 || length >= NAME_MAX_LENGTH)
        return NULL;
    const char *closest = NULL;
    unsigned least = length < 5 ? 2 : 3; /* one edit in a short name, two in a long one */
    for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const char *name = ZydisMnemonicGetString((ZydisMnemonic)m);
        size_t name_length = strlen(name);
        size_t apart = name_length > length ? name_length - length : length - name_length;
        if (name_length >= NAME_MAX_LENGTH || apart >= least)
            continue;
        unsigned d = distance(text, length, name, name_length);
        if (d < least) {
            least = d;
            closest = name;
        }
    }
    return closest;
}

/* Forms with a size in bits behind the name: "gpr", "mem64". */
static const struct {
    const char *name;
    enum operand_form_kind kind;
    uint16_t sizes[8]; /* that may follow, ended by 0 */
} sized_forms[] = {
    {"gpr", OPERAND_GPR, {8, 16, 32, 64}},
    {"mem", OPERAND_MEMORY, {8, 16, 32, 64, 128, 256, 512}},
    {"imm", OPERAND_IMMEDIATE, {8, 16, 32, 64}},
};

static bool sized_form_named(const char *text, size_t length, struct operand_form *form)
{
    for (size_t i = 0; i < sizeof sized_forms / sizeof *sized_forms; i++) {
        if (length < 3 || strncasecmp(text, sized_forms[i].name, 3))
            continue;
        form->kind = sized_forms[i].kind;
        if (length == 3)
            return true;
        unsigned size = 0;
        for (size_t k = 3; k < length && k < 7; k++)
            size = text[k] >= '0' && text[k] <= '9' ? size * 10 + (unsigned)(text[k] - '0') : 10000;
        for (const uint16_t *s = sized_forms[i].sizes; *s; s++)
            if (*s == size && length == 3 + (size > 9 ? size > 99 ? 3u : 2u : 1u)) {
                form->size = *s;
                return true;
            }
        return false;
    }
    return false;
}

/* A register name, or the name of numbered registers with * for the number ("cr*"). */
static bool registers_named(const char *text, size_t length, struct operand_form *form)
{
    bool found = false;
    bool numbered = length > 1 && text[length - 1] == '*';
    for (int r = ZYDIS_REGISTER_NONE + 1; r <= ZYDIS_REGISTER_MAX_VALUE; r++) {
        const char *name = ZydisRegisterGetString((ZydisRegister)r);
        if (!name)
            continue;
        size_t stem = numbered ? length - 1 : length;
        if (strncasecmp(name, text, stem))
            continue;
        size_t digits = strspn(name + stem, "0123456789");
        if (strlen(name) != stem + digits || numbered != (digits > 0))
            continue;
        if (!found)
            form->low = (uint64_t)r;
        form->high = (uint64_t)r; /* Zydis numbers them in a row */
        found = true;
    }
    form->kind = OPERAND_REGISTERS;
    return found;
}

bool list_operand_named(const char *text, size_t length, struct operand_form *form)
{
    *form = (struct operand_form){.kind = OPERAND_ANY};
    if (same("*", text, length))
        return true;
    if (same("sreg", text, length)) {
        form->kind = OPERAND_SEGMENT;
        return true;
    }
    if (same("rel", text, length)) {
        form->kind = OPERAND_RELATIVE;
        return true;
    }
    return sized_form_named(text, length, form) || registers_named(text, length, form);
}
