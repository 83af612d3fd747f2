/* SPDX-License-Identifier: MIT */
/* Instruction lists (D6): which instructions of a guest are to be patched. Format: patchc-list(5).
 *
 * Read a list, resolve it against the image, then match: list_open, list_resolve, list_match. */
#ifndef PATCHC_LIST_H
#define PATCHC_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#include "hvstub/hvstub.h"
#include "image/error.h"

struct image;
struct list;      /* parsed rules, in file order */
struct list_rule; /* one of them */

/* What a rule is matched against. */
struct list_candidate {
    uint64_t address;    /* guest-linear */
    const char *section; /* name; "" if none */
    const char *symbol;  /* name; "" if none */
    const ZydisDecodedInstruction *instruction;
    const ZydisDecodedOperand *operands; /* instruction->operand_count_visible of them */
};

/* Reads a list file. Errors carry file:line:column. The caller owns the result: list_free(). */
struct list *list_open(const char *path, struct error *err);

/* The same from text in memory; `name` is used in errors. Such a list includes no other files. */
struct list *list_parse(const char *name, const char *text, size_t length, struct error *err);

/* Parses one rule as given to --only or --skip: an include rule without its first word and without
 * form=, template= and action=. list_match() gives it for what the rule matches. */
struct list *list_parse_rule(const char *option, const char *text, struct error *err);

void list_free(struct list *list);

/* The list's base name ("kvm.list"). */
const char *list_name(const struct list *list);

/* Looks up the symbols that range= conditions name. Before this, and where a symbol is not in the
 * image, a rule with range= matches nothing. */
void list_resolve(struct list *list, const struct image *image);

/* The index-th symbol that a range= condition names and the image does not have, in list order;
 * NULL past the last. Before list_resolve(), that is every such symbol. */
const char *list_unresolved(const struct list *list, size_t index);

/* The rule that lists the candidate, or NULL. The last rule that matches decides: an include rule
 * lists it, an exclude rule does not. */
const struct list_rule *list_match(const struct list *list, const struct list_candidate *candidate);

/* True if some include rule names this mnemonic (cheap pre-filter). */
bool list_names_mnemonic(const struct list *list, ZydisMnemonic mnemonic);

/* True if some include rule may match a form of the mnemonic that names no control, debug or
 * segment register and is no far branch: then all its opcodes are worth a look. */
bool list_names_plain(const struct list *list, ZydisMnemonic mnemonic);

/* What a rule asks for. */
enum pv_form list_rule_form(const struct list_rule *rule);    /* PV_FORM_NONE: auto */
const char *list_rule_template(const struct list_rule *rule); /* NULL: by instruction form */
bool list_rule_prefers_block(
    const struct list_rule *rule); /* action=block: leave it to an IO block */

#endif
