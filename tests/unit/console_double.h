/* SPDX-License-Identifier: MIT */
/* A console that keeps what is sent and gives what a test has put there. Included by one test
 * program each: it takes the place of runtime/console.c. */
#ifndef TESTS_UNIT_CONSOLE_DOUBLE_H
#define TESTS_UNIT_CONSOLE_DOUBLE_H

#include <stdlib.h>
#include <string.h>

#include "runtime/console.h"

static struct {
    char sent[16384];
    size_t count;
    const char *input; /* what waits to be read; may be NULL */
} console;

static inline void console_clear(void)
{
    memset(&console, 0, sizeof console);
}

int console_open(struct vm *vm, const char *target, struct error *err)
{
    (void)vm, (void)target, (void)err;
    return 0;
}

void console_close(struct vm *vm)
{
    (void)vm;
}

void console_flush(struct vm *vm)
{
    (void)vm;
}

void console_attend(struct vm *vm)
{
    (void)vm;
}

void console_write(struct vm *vm, const uint8_t *bytes, size_t count)
{
    (void)vm;
    if (count >= sizeof console.sent - console.count)
        abort();
    memcpy(console.sent + console.count, bytes, count);
    console.count += count;
}

bool console_readable(struct vm *vm)
{
    (void)vm;
    return console.input && *console.input;
}

int console_read(struct vm *vm)
{
    return console_readable(vm) ? (unsigned char)*console.input++ : -1;
}

#endif
