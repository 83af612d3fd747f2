/* The guest's code as the IO-block scanner sees it: the patched bytes, and what of them will not
 * stay as it is (B9, B11). */
#ifndef PATCHC_IO_GUEST_H
#define PATCHC_IO_GUEST_H

#include "ioblock/scan.h"
#include "patchc/emit.h"

struct io_trampoline {
    uint64_t start, end; /* guest-linear, without emulation paths */
    const struct patch *patch;
};

struct io_known {     /* a place that was looked up: scans overlap */
    uint64_t address; /* guest-linear; 0 = nothing */
    bool found;
    struct io_site site;
};

#define IO_GUEST_KNOWN 2048u

struct io_guest {
    const struct plan *plan;
    const struct output_bytes *out;    /* NULL: the original, nothing planned yet */
    struct io_trampoline *trampolines; /* sorted */
    size_t trampoline_count;
    /* Per section of plan->code, one bit per byte of the original: */
    uint64_t **rewritten;   /* the kernel rewrites it at boot or later: a table names it */
    uint64_t **masked;      /* relocation changes it, or its LOCK prefix may go */
    struct io_known *known; /* IO_GUEST_KNOWN of them, by address */
};

/* Everything is borrowed from `plan` and `out`. 0, or -1 with *err set when memory runs out; in
 * both cases io_guest_close() is due. */
int io_guest_open(const struct plan *plan, const struct output_bytes *out, struct io_guest *guest,
                  struct error *err);
void io_guest_close(struct io_guest *guest);

/* What io_scan() needs; valid as long as the guest is open and stays where it is. */
struct io_code io_guest_code(struct io_guest *guest);

#endif
