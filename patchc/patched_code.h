/* SPDX-License-Identifier: MIT */
/* The guest's code as the IO-block scanner sees it: the patched bytes, and what of them will not
 * stay as it is (B9, B11). */
#ifndef PATCHC_PATCHED_CODE_H
#define PATCHC_PATCHED_CODE_H

#include "ioblock/scan.h"
#include "patchc/emit.h"

struct trampoline_span {
    uint64_t start, end; /* guest-linear, without emulation paths */
    const struct patch *patch;
};

struct known_place {  /* a place that was looked up: scans overlap */
    uint64_t address; /* guest-linear; 0 = nothing */
    bool found;
    struct io_site site;
};

#define PATCHED_CODE_KNOWN 2048u

struct patched_code {
    const struct plan *plan;
    const struct output_bytes *out;      /* NULL: the original, nothing planned yet */
    struct trampoline_span *trampolines; /* sorted */
    size_t trampoline_count;
    /* Per section of plan->code, one bit per byte of the original: */
    uint64_t **rewritten;      /* the kernel rewrites it at boot or later: a table names it */
    uint64_t **masked;         /* relocation changes it, or its LOCK prefix may go */
    struct known_place *known; /* PATCHED_CODE_KNOWN of them, by address */
};

/* Everything is borrowed from `plan` and `out`. 0, or -1 with *err set when memory runs out; in
 * both cases patched_code_close() is due. */
int patched_code_open(const struct plan *plan, const struct output_bytes *out,
                      struct patched_code *guest, struct error *err);
void patched_code_close(struct patched_code *guest);

/* What io_scan() needs; valid as long as the guest is open and stays where it is. */
struct io_code patched_code_view(struct patched_code *guest);

#endif
