/* SPDX-License-Identifier: MIT */
/* One way to report an error: a single line for the user and the exit code it leads to. */
#ifndef IMAGE_ERROR_H
#define IMAGE_ERROR_H

#include <stdarg.h>

/* patchc's exit codes (patchc(1), EXIT STATUS). */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_CHECK = 1, /* verify or --min-coverage failed */
    EXIT_USAGE = 2,
    EXIT_INPUT = 3, /* unusable input file */
    EXIT_IO = 4,    /* read or write error */
};

struct error {
    int code;       /* enum exit_code; 0 as long as nothing failed */
    char text[512]; /* one line, no newline: file, offset or address, what is wrong, what to do */
};

/* Fills *err (the first failure wins: a set error is not overwritten) and returns -1, so that
 * callers write `return fail(err, EXIT_INPUT, "...")`. err may be NULL. */
int fail(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
