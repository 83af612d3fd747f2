/* SPDX-License-Identifier: MIT */
/* Where serial and debug-console bytes go, and where input comes from.
 *
 * Output is a file descriptor with a small buffer. Input arrives on a reader thread into a ring that the
 * vCPU thread empties; the thread wakes a halted VM through vm_wake. It is started when the run first attends: a
 * process that is to be confined has one thread until then. With `--serial stdio` on a terminal
 * the terminal is raw while the guest runs; Ctrl-A x quits, Ctrl-A Ctrl-A sends one Ctrl-A. */
#ifndef RUNTIME_CONSOLE_H
#define RUNTIME_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/error.h"

struct vm;
struct console; /* owned by the VM */

/* `target` is "stdio" or a file to write (created, truncated; no input then). */
int console_open(struct vm *vm, const char *target, struct error *err);
void console_close(struct vm *vm); /* flushes; restores the terminal; ends the thread */

void console_write(struct vm *vm, const uint8_t *bytes, size_t count);
void console_flush(struct vm *vm);
/* From vm_attend: what the console has to do now and then. */
void console_attend(struct vm *vm);
/* The next input byte, or -1. */
int console_read(struct vm *vm);
/* True if console_read would give a byte. */
bool console_readable(struct vm *vm);

#endif
