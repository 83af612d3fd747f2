/* SPDX-License-Identifier: MIT */
/* `patchc build`: the pipeline read, find, prove, plan, generate, write. */
#ifndef PATCHC_BUILD_H
#define PATCHC_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/error.h"
#include "image/image.h"
#include "ioblock/ioblock.h"
#include "patchc/linux_tables.h"
#include "patchc/list.h"
#include "patchc/site.h"

struct build_options {
    const char *image_path;
    const char *list_path; /* never NULL: the caller has found the default */
    const char *output_path;
    const char *report_path;
    enum pv_form form;  /* PV_FORM_NONE: auto */
    struct list **only; /* rules of --only: a site must match one of them, if there are any */
    size_t only_count;
    struct list **skip; /* rules of --skip */
    size_t skip_count;
    double min_coverage; /* percent; negative: no such check */
    bool assume_reserved;
};

/* One patch as the report needs it (its code is in the output image). */
struct patch_summary {
    uint64_t window;          /* guest-linear */
    uint32_t window_size;     /* bytes */
    uint64_t trampoline;      /* guest-linear */
    uint32_t displaced_count; /* instructions in the window, sites included */
};

struct build_result {
    struct image image; /* the input */
    struct list *list;
    struct template_set *templates; /* sites point into it */
    struct site *sites;             /* all that the list names, sorted by address */
    size_t site_count;
    struct patch_summary *patches; /* site->patch is an index here */
    size_t patch_count;
    const char *output_name; /* base name */
    uint64_t output_size;    /* bytes */
    uint64_t output_xxh3;
    uint64_t header_address;               /* of struct pv_header; 0 = nothing was patched */
    uint64_t state_address;                /* 0 = none */
    uint64_t tables_updated[LINUX_TABLES]; /* entries changed, by table */
    uint64_t relocs_updated;
    uint64_t orc_uncovered; /* trampolines without ORC entries: backtraces stop there */
    uint64_t *io_addresses; /* every IO instruction of proved 64-bit code, listed or not */
    size_t io_count, io_room;
    struct io_block *io_blocks; /* sorted by key; keys as linked */
    uint64_t *io_block_sites;   /* of each: where its first IO instruction was in the original */
    size_t io_block_count;
    uint8_t *io_table; /* the same as the output carries it (ioblock/table.h); NULL = none */
    size_t io_table_size;
    uint64_t padding_bytes; /* routine space found */
    uint64_t padding_used;
};

/* Counts by status, as in the report's summary. */
struct build_counts {
    size_t listed, excluded, eligible, patched, left, block;
};
struct build_counts build_count(const struct build_result *result);

/* patched (and block) of eligible in percent; 100 if nothing is eligible. */
double build_coverage(const struct build_counts *counts);

/* Runs the pipeline up to the sites' contexts: what `patchc scan` prints. Nothing is written. */
int build_scan(const struct build_options *options, struct build_result *result, struct error *err);

/* Runs the whole pipeline: writes the image, then the report. -1 with *err set; EXIT_CHECK when
 * coverage is below options->min_coverage (then the report is written and the image is not). */
int build_run(const struct build_options *options, struct build_result *result, struct error *err);

void build_result_free(struct build_result *result);

#endif
