/* SPDX-License-Identifier: MIT */
/* Kernel tables and relocations that follow moved code. */
#ifndef PATCHC_FOLLOW_H
#define PATCHC_FOLLOW_H

#include "patchc/emit.h"

/* Rewrites every table entry that names moved code; sorts the exception table again. Counts what
 * changed in result->tables_updated. */
int follow_tables(const struct plan *plan, struct output_bytes *out, struct build_result *result,
                  struct error *err);

/* Moves the relocation words of displaced operands, and makes the words that the routine table
 * needs: *added is malloc'd, *added_count words for the 64-bit list. */
int follow_relocs(const struct plan *plan, struct output_bytes *out, struct build_result *result,
                  uint32_t **added, size_t *added_count, struct error *err);

/* Direct branches and other references need nothing: a window is entered only at its start. */

#endif
