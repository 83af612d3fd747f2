/* Instruction lists (D6): which instructions of a guest are to be patched. Format: patchc-list(5). */
#ifndef PATCHC_LIST_H
#define PATCHC_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#include "hvstub/hvstub.h"
#include "image/error.h"

struct list;      /* parsed rules, in file order */
struct list_rule; /* one of them */

/* What a rule is matched against. */
struct list_candidate {
    uint64_t address;                          /* guest-linear */
    const char *section;                       /* name; "" if none */
    const char *symbol;                        /* name; "" if none */
    const ZydisDecodedInstruction *instruction;
    const ZydisDecodedOperand *operands;       /* instruction->operand_count_visible of them */
};

/* Reads a list file. Errors carry file:line:column. The caller owns the result: list_free(). */
struct list *list_open(const char *path, struct error *err);

/* The same from text in memory; `name` is used in errors. */
struct list *list_parse(const char *name, const char *text, size_t length, struct error *err);

/* Parses one rule as given to --only or --skip. */
struct list *list_parse_rule(const char *option, const char *text, struct error *err);

void list_free(struct list *list);

/* The list's base name ("kvm.list"). */
const char *list_name(const struct list *list);

/* The rule that lists the candidate, or NULL. The last rule that matches decides: an include rule
 * lists it, an exclude rule does not. */
const struct list_rule *list_match(const struct list *list, const struct list_candidate *candidate);

/* True if some include rule names this mnemonic (cheap pre-filter). */
bool list_names_mnemonic(const struct list *list, ZydisMnemonic mnemonic);

/* What a rule asks for. */
enum pv_form list_rule_form(const struct list_rule *rule);          /* PV_FORM_NONE: auto */
const char *list_rule_template(const struct list_rule *rule);       /* NULL: by instruction form */
bool list_rule_prefers_block(const struct list_rule *rule);         /* action=block (issue: IO blocks) */

#endif
