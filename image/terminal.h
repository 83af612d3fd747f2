/* SPDX-License-Identifier: MIT */
/* What goes to a person's terminal: colours where they are wanted, and no control characters from
 * files that are not to be trusted. */
#ifndef IMAGE_TERMINAL_H
#define IMAGE_TERMINAL_H

#include <stdio.h>

struct palette { /* escape sequences, all "" where colours are not wanted */
    const char *heading, *good, *warning, *faint, *plain;
};

/* Colours only on a terminal that has them, and not if NO_COLOR is set (no-color.org). */
struct palette terminal_palette(FILE *out);

/* Replaces control characters by '?', in place. */
void terminal_clean(char *text);

/* Copies at most size - 1 bytes of `text` to `copy`, cleaned. Returns copy. */
char *terminal_copy(char *copy, size_t size, const char *text);

#endif
