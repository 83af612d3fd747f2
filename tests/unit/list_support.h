/* SPDX-License-Identifier: MIT */
/* What the tests of instruction lists share: candidates from instruction bytes. */
#ifndef TESTS_LIST_SUPPORT_H
#define TESTS_LIST_SUPPORT_H

#include "patchc/list.h"

struct instruction_bytes {
    const char *text; /* for people */
    const char *bytes;
    size_t length;
};

#define INSTRUCTION(text, bytes)                                                                   \
    {                                                                                              \
        text, bytes, sizeof bytes - 1                                                              \
    }

struct place {
    uint64_t address;
    const char *section, *symbol;
};

/* Decodes 64-bit code and matches it. Aborts if it is not one valid instruction of this length. */
const struct list_rule *list_match_at(const struct list *list, struct instruction_bytes code,
                                      struct place place);

/* The same at no particular place. */
const struct list_rule *list_match_bytes(const struct list *list, struct instruction_bytes code);

#endif
