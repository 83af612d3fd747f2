/* SPDX-License-Identifier: MIT */
/* A site: one instruction that the list names, and everything that is decided about it.
 * The pipeline fills it from top to bottom; the report prints it. */
#ifndef PATCHC_SITE_H
#define PATCHC_SITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#include "hvstub/hvstub.h"
#include "patchc/vocabulary.h"

struct list_rule;
struct template;

/* What a routine at a site may rely on (prove.c). */
enum context_flag {
    CONTEXT_STACK = 1,         /* RSP is a usable kernel stack */
    CONTEXT_KERNEL_TABLES = 2, /* kernel page tables: data pages are mapped */
    CONTEXT_HIGH = 4,          /* runs only at its linked address (not at a low identity address) */
    CONTEXT_NMI_SAFE =
        8, /* not reachable from NMI, #MC or #DB entry: a shared spill slot is safe */
    CONTEXT_FREE_LABELS = 16, /* no code compares saved RIPs with this region */
};

struct site {
    /* found */
    uint64_t address; /* guest-linear */
    uint32_t section; /* index in image->sections */
    uint8_t length;   /* bytes of the instruction */
    uint8_t bytes[15];
    ZydisMnemonic mnemonic;
    const struct list_rule *rule; /* the rule that listed it */
    bool in_replacement;          /* stands in .altinstr_replacement */
    /* proved */
    unsigned context; /* enum context_flag bits */
    /* planned */
    enum site_status status;
    enum reason reason; /* for left and excluded */
    enum pv_form form;
    enum form_reason form_reason;
    enum tactic tactic;
    unsigned slot;                   /* position among the displaced instructions, 0 = first (D9) */
    const struct template *template; /* NULL: native only */
    uint64_t window;                 /* first byte that is replaced */
    uint32_t window_size;            /* bytes */
    uint32_t patch;                  /* index into plan->patches */
    /* generated */
    int32_t index;    /* routine index (D5); -1 = none */
    uint64_t routine; /* guest-linear address of the routine's link */
};

/* Decodes a site of 64-bit code; `operands` has room for ZYDIS_MAX_OPERAND_COUNT. */
bool site_decode(const struct site *site, ZydisDecodedInstruction *instruction,
                 ZydisDecodedOperand *operands);

#endif
