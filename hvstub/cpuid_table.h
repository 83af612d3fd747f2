/* SPDX-License-Identifier: MIT */
/* Filling the tables that the CPUID and RDMSR templates read. A runtime works on its own copy and
 * writes it to guest memory before the guest starts. */
#ifndef HVSTUB_CPUID_TABLE_H
#define HVSTUB_CPUID_TABLE_H

#include <stdbool.h>
#include <string.h>

#include "hvstub/hvstub.h"

struct pv_cpuid_answer {
    uint32_t eax, ebx, ecx, edx;
};

/* Empties the table. An entry of zeros answers leaf 0, whose place is entry 0: that one gets a key
 * whose place is elsewhere. */
static inline void pv_cpuid_clear(struct pv_cpuid_table *table)
{
    memset(table, 0, sizeof *table);
    table->entry[0].negated_leaf = -1u;
}

/* Where the answer to a leaf stands. */
static inline uint32_t pv_cpuid_place(uint32_t leaf)
{
    return ((leaf + (leaf >> 8)) & 0xff) + (leaf >> 24);
}

static inline void pv_cpuid_set(struct pv_cpuid_entry *entry, uint32_t leaf, uint32_t subleaf,
                                const struct pv_cpuid_answer *answer)
{
    *entry = (struct pv_cpuid_entry){.negated_leaf = -leaf,
                                     .negated_subleaf = -subleaf,
                                     .used = 1,
                                     .eax = answer->eax,
                                     .ebx = answer->ebx,
                                     .ecx = answer->ecx,
                                     .edx = answer->edx};
}

/* Answers a leaf, whatever ECX is. False if its place is taken: it stays with the native path. Put
 * these before leaves with subleaves, which move where there is room. */
static inline bool pv_cpuid_put(struct pv_cpuid_table *table, uint32_t leaf,
                                const struct pv_cpuid_answer *answer)
{
    struct pv_cpuid_entry *entry = &table->entry[pv_cpuid_place(leaf)];
    if (entry->used)
        return false;
    pv_cpuid_set(entry, leaf, 0, answer);
    return true;
}

/* Answers subleaves 0 .. count - 1 of a leaf; higher ones stay with the native path. A subleaf i
 * with constant[i] false does too (`constant` may be NULL: all are). False if there is no room. */
static inline bool pv_cpuid_put_subleaves(struct pv_cpuid_table *table, uint32_t leaf,
                                          const struct pv_cpuid_answer *answers,
                                          const bool *constant, uint32_t count)
{
    struct pv_cpuid_entry *first = &table->entry[pv_cpuid_place(leaf)];
    if (leaf == 0 || first->used || count == 0 || count > 256)
        return false;
    first->used = 1; /* its own subleaves must not take the place */
    for (uint32_t base = 1; base <= 256; base++) {
        uint32_t fits = 0;
        while (fits < count && base + fits < PV_CPUID_ENTRIES && !table->entry[base + fits].used)
            fits++;
        if (fits < count) {
            base += fits;
            continue;
        }
        const struct pv_cpuid_answer none = {0};
        pv_cpuid_set(first, leaf, 0, &none);
        first->subleaves = base * (uint32_t)sizeof table->entry[0];
        for (uint32_t i = 0; i < count; i++)
            if (!constant || constant[i])
                pv_cpuid_set(&table->entry[base + i], leaf, i, &answers[i]);
        return true;
    }
    first->used = 0;
    return false;
}

/* The same for MSRs: 0 is a real MSR whose place is entry 0, so an empty table is not all zeros. */
static inline void pv_msr_clear(struct pv_msr_table *table)
{
    memset(table, 0, sizeof *table);
    table->entry[0].negated = -1u;
}

/* Answers RDMSR of a constant MSR. False if its place is taken. */
static inline bool pv_msr_put(struct pv_msr_table *table, uint32_t msr, uint64_t value)
{
    struct pv_msr_entry *entry = &table->entry[msr & 0xff];
    if (entry->used)
        return false;
    *entry = (struct pv_msr_entry){
        .negated = -msr, .used = 1, .eax = (uint32_t)value, .edx = (uint32_t)(value >> 32)};
    return true;
}

#endif
