/* SPDX-License-Identifier: MIT */
/* A terminal in raw mode, set back whichever way the process ends short of SIGKILL. */
#ifndef RUNTIME_RAW_TERMINAL_H
#define RUNTIME_RAW_TERMINAL_H

#include <stdbool.h>

/* Makes the terminal at `fd` raw: every key is a byte of input, nothing is echoed or translated. At
 * most one terminal at a time. False (and nothing done) if `fd` is no terminal or one that belongs to
 * another process group in the foreground. */
bool raw_terminal_enter(int fd);
/* Sets it back; does nothing if none is raw. Async-signal-safe. */
void raw_terminal_leave(void);

#endif
