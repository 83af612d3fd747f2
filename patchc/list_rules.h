/* SPDX-License-Identifier: MIT */
/* A parsed instruction list, as the files of the list part share it. Everybody else: list.h. */
#ifndef PATCHC_LIST_RULES_H
#define PATCHC_LIST_RULES_H

#include "patchc/list.h"

/* Bounds on what a list may be: it is input, and may be hostile. */
#define LIST_LINE_MAX     1000u         /* bytes of a line */
#define LIST_TEXT_MAX     (256u * 1024) /* bytes of all files of a list together */
#define LIST_RULES_MAX    4096u
#define LIST_RANGES_MAX   256u /* rules with range=: each costs two symbol look-ups */
#define LIST_FILES_MAX    64u
#define LIST_DEPTH_MAX    8u /* of @include */
#define LIST_OPERANDS_MAX 5u /* no instruction has more visible operands */

enum operand_form_kind {
    OPERAND_ANY,       /* * */
    OPERAND_REGISTERS, /* low..high are ZydisRegister */
    OPERAND_GPR,       /* gpr, gpr8, … */
    OPERAND_SEGMENT,   /* sreg */
    OPERAND_MEMORY,    /* mem, mem8, … */
    OPERAND_IMMEDIATE, /* imm, imm8, … */
    OPERAND_RELATIVE,  /* rel: branch displacement */
    OPERAND_VALUE,     /* immediate of the value `low` */
};

struct operand_form {
    enum operand_form_kind kind;
    uint16_t size; /* bits; 0: any */
    uint64_t low, high;
};

enum condition {
    CONDITION_PORT = 1,
    CONDITION_SECTION = 2,
    CONDITION_SYMBOL = 4,
    CONDITION_ADDRESS = 8,
    CONDITION_RANGE = 16,
    CONDITION_BRANCH = 32,
};

struct list_rule {
    bool include;
    unsigned conditions;    /* enum condition bits; all of them must hold */
    unsigned operand_count; /* 0: any operands */
    struct {
        uint32_t first, count; /* alternatives: indices into list->forms */
    } operands[LIST_OPERANDS_MAX];
    bool port_dx; /* port=dx; else the port is an immediate in [port_low, port_high] */
    uint16_t port_low, port_high;
    char *section, *symbol;             /* globs */
    uint64_t address_low, address_high; /* guest-linear, inclusive */
    char *range_start, *range_end; /* symbols; the second is the first address after the range */
    const char *range_missing[2];  /* those of them that the image lacks */
    bool range_resolved;
    uint64_t range_low, range_high; /* guest-linear, [low, high) */
    bool branch_far;
    enum pv_form form;
    char *template;
    bool block;
};

struct list_name { /* a rule's mnemonic, until the index is built */
    uint32_t rule;
    uint16_t mnemonic; /* ZYDIS_MNEMONIC_INVALID stands for "*" */
};

struct list {
    char *name;
    struct list_rule *rules;
    size_t rule_count, rule_room;
    struct operand_form *forms;
    size_t form_count, form_room;
    struct list_name *names;
    size_t name_count, name_room;
    size_t text_bytes, file_count, range_count; /* used so far, against the bounds above */
    /* The index: rules of mnemonic m are by_mnemonic[first[m] .. first[m + 1]), ascending; those
     * for every mnemonic stand under ZYDIS_MNEMONIC_INVALID. */
    uint32_t *by_mnemonic;
    uint32_t first[ZYDIS_MNEMONIC_MAX_VALUE + 2];
    uint8_t included[(ZYDIS_MNEMONIC_MAX_VALUE + 8) / 8]; /* bit m: some include rule names m */
    bool includes_all;
};

/* Reads `length` bytes of rules into *list. `directory`: where @include looks for files (NULL: it
 * is refused); `depth`: how many files include this one. */
int list_parse_text(struct list *list, const char *name, const char *directory, unsigned depth,
                    const char *text, size_t length, struct error *err);

/* Reads one rule without its first word; `option` is used in errors. */
int list_parse_option(struct list *list, const char *option, const char *text, struct error *err);

/* Reads a whole file into *list (list.c). */
int list_read_file(struct list *list, const char *path, unsigned depth, struct error *err);

/* Makes room for one more element of `size` bytes in a growing array. Returns the new element,
 * zeroed, or NULL with *err set. */
void *list_grow(void *array_pointer, size_t *count, size_t *room, size_t size, struct error *err);

/* Names (list_names.c). Each compares without regard to case. */
ZydisMnemonic list_mnemonic_named(const char *text, size_t length);  /* INVALID: there is none */
const char *list_mnemonic_close_to(const char *text, size_t length); /* NULL: none is close */
/* The mnemonics that a family name stands for ("pushf"), ended by ZYDIS_MNEMONIC_INVALID; or NULL.
 */
const ZydisMnemonic *list_family_named(const char *text, size_t length);
bool list_operand_named(const char *text, size_t length, struct operand_form *form);

/* True if `text` matches `glob`: * any run, ? any one character. O(both lengths multiplied). */
bool list_glob(const char *glob, const char *text);

#endif
