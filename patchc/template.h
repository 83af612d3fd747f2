/* SPDX-License-Identifier: MIT */
/* Templates (D7, D8): precompiled pieces of code with holes, one per instruction form.
 *
 * A template is an assembly source in templates/. The build assembles them, links them into one
 * relocatable object and embeds it in patchc; template_set_open() reads it with libelf. Each
 * template stands in a section of its own; a hole is a relocation against an undefined symbol whose
 * name is in the table of template.c. */
#ifndef PATCHC_TEMPLATE_H
#define PATCHC_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#include "hvstub/hvstub.h"
#include "image/error.h"

struct template_set;
struct template;

/* What fills the holes. Addresses are guest-linear; a value of 0 for an address hole that a
 * template uses is an error (the image has no such thing). */
struct template_values {
    const ZydisDecodedInstruction
        *instruction; /* concrete operands: registers, immediates, memory */
    const ZydisDecodedOperand *operands;
    uint64_t address;     /* of the instruction in the original image */
    uint32_t index;       /* routine index, for the doorbell */
    uint64_t native;      /* the routine's native path */
    uint64_t tail;        /* the return point: where the routine continues */
    uint64_t next;        /* address of the instruction after the site in the guest */
    uint64_t state;       /* struct pv_state; 0 = none */
    uint64_t cpuid_table; /* struct pv_cpuid_table; 0 = none */
    uint64_t msr_table;   /* 0 = none */
};

/* Reads the embedded templates. The caller owns the result: template_set_close(). */
struct template_set *template_set_open(struct error *err);
void template_set_close(struct template_set *set);

/* What a site offers to a template. */
struct template_available {
    unsigned context;  /* enum context_flag bits (patchc/site.h) */
    bool state;        /* the image has a writable struct pv_state */
    bool cpuid, msr;   /* it has the tables */
    bool deprivileged; /* it will run deprivileged: such templates may be chosen */
};

/* Retrieves the template for an instruction by its form (mnemonic, operand kinds and sizes); with
 * `name`, that one, if it fits the form. Several templates may fit a form: the first in order of
 * preference (the source's `rank`) whose needs the site meets. NULL if there is none; then
 * *form_known (may be NULL) tells whether some template fits the form and only its needs are not
 * met. */
const struct template *template_find(const struct template_set *set, const char *name,
                                     const ZydisDecodedInstruction *instruction,
                                     const ZydisDecodedOperand *operands,
                                     const struct template_available *available, bool *form_known);

const char *template_name(const struct template *t);
enum pv_kind template_kind(const struct template *t);
unsigned template_flags(const struct template *t); /* PV_ROUTINE_* */
size_t template_size(const struct template *t);    /* bytes */
bool template_needs_cpuid(const struct template *t);
bool template_needs_msr(const struct template *t);

/* Writes the filled template to out[0 .. template_size), as code that will run at guest-linear
 * `address`. Execution falls out of its end to reach the tail. 0, or -1 with *err set if a value
 * does not fit its hole. */
int template_fill(const struct template *t, const struct template_values *values, uint64_t address,
                  uint8_t *out, struct error *err);

/* Calls `visit` for each template in name order. */
void template_each(const struct template_set *set,
                   void (*visit)(const struct template *t, void *context), void *context);

/* True if the filled template holds a copy of the instruction's displacement (a PV_LEA hole): if a
 * relocation of the guest's applies to that displacement, the template cannot be used. */
bool template_copies_displacement(const struct template *t);

/* The kind of an instruction, with or without a template: PV_KIND_OTHER if it has none of its own.
 */
enum pv_kind kind_of_instruction(const ZydisDecodedInstruction *instruction,
                                 const ZydisDecodedOperand *operands);
const char *kind_name(unsigned kind); /* "cpuid", "mov_to_cr", ... */

/* struct pv_routine.operand: what a host handler must know of the operands (hvstub.h,
 * PV_OPERAND_*). */
uint32_t template_operand(const ZydisDecodedInstruction *instruction,
                          const ZydisDecodedOperand *operands);

#endif
