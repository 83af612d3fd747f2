/* SPDX-License-Identifier: MIT */
/* Counters of a run, and their forms: JSON (--stats) and the summary (--summary). The keys are a contract. */
#ifndef RUNTIME_STATS_H
#define RUNTIME_STATS_H

#include <stdint.h>
#include <stdio.h>

#include "hvstub/hvstub.h"
#include "image/error.h"

struct vm;
struct image;
struct output;

/* Why control came to the host part: the keys of "exits", in print order. The first five make up "total". */
enum exit_kind {
    EXIT_KIND_IO,
    EXIT_KIND_CPUID,
    EXIT_KIND_MSR,
    EXIT_KIND_DOORBELL,
    EXIT_KIND_OTHER_LISTED, /* WBINVD, INVD, XSETBV, RDPMC, MONITOR, MWAIT, VMCALL … executed natively */
    EXIT_KIND_HLT,
    EXIT_KIND_INTERRUPT,
    EXIT_KIND_MMIO,
    EXIT_KIND_CR3,
    EXIT_KIND_CR, /* CR0, CR4 and CR8 writes */
    EXIT_KIND_DR,
    EXIT_KIND_EXCEPTION,
    EXIT_KINDS
};
#define EXIT_KINDS_IN_TOTAL 5

/* Counts per guest address: where the exits of "total" came from. Open addressing; when full, the rest is
 * counted under address 0. */
#define HOT_ADDRESSES 4096
struct hot_address {
    uint64_t address, count;
};

/* A counter that only one engine has, by its key. */
#define ENGINE_COUNTS 24
struct engine_count {
    const char *name;
    uint64_t value;
};

struct stats {
    uint64_t guest_instructions;
    uint64_t exits[EXIT_KINDS];
    uint64_t routine_calls;     /* entries into the host part for a routine: doorbells and breaks */
    uint64_t host_calls;        /* host handlers run for them */
    uint64_t by_form[PV_FORMS]; /* the same, by the form of the routine's patch */
    /* IN, OUT, INS, OUTS (with REP: when finished) emulated by the host */
    uint64_t io_instructions;
    uint64_t io_events; /* virtualization events they took */
    uint64_t coalesced; /* OUTs that the host's kernel collected: no exit */
    uint64_t posted;    /* bytes that a patched guest's OUT left in the stub's ring: no exit */
    uint64_t block_hits, block_misses, hash_mismatches;
    uint64_t table_ignored; /* entries of the IO-block table that are damaged */
    uint64_t steps;
    uint64_t lockstep_points;                  /* where --lockstep has compared */
    struct engine_count engine[ENGINE_COUNTS]; /* the KVM engine's */
    unsigned engine_counts;
    struct hot_address hot[HOT_ADDRESSES];
};

/* Counts an exit; `rip` is the guest-linear address it came from. */
void stats_exit(struct stats *stats, enum exit_kind kind, uint64_t rip);

/* Writes the JSON. 0, or -1 with *err. */
int stats_write(const struct vm *vm, struct output *file, struct error *err);
/* Exits by reason, and the ten guest symbols that most came from (image may be NULL); `before` stands before each line. */
void stats_exits(const struct vm *vm, const struct image *image, const char *before, FILE *stream);
/* The human summary: times, exits by reason, the ten hottest guest symbols (image may be NULL). */
void stats_summary(const struct vm *vm, const struct image *image, FILE *stream);

#endif
