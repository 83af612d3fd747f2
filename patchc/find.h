/* SPDX-License-Identifier: MIT */
/* Finding the sites: every instruction that the list names (D6). */
#ifndef PATCHC_FIND_H
#define PATCHC_FIND_H

#include "patchc/build.h"
#include "patchc/code.h"
#include "patchc/context.h"

/* Fills result->sites, sorted by address, with context, and status EXCLUDED or LEFT decided as far
 * as the context decides it. 0, or -1 with *err set. */
int find_sites(const struct build_options *options, const struct code *code,
               const struct context *context, struct build_result *result, struct error *err);

#endif
