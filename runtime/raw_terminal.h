/* SPDX-License-Identifier: MIT */
/* A terminal in raw mode, set back whichever way the process ends short of SIGKILL, and lent to others while the process
 * is stopped or in the background. */
#ifndef RUNTIME_RAW_TERMINAL_H
#define RUNTIME_RAW_TERMINAL_H

#include <stdbool.h>

/* Makes the terminal at `fd` raw: every key is a byte of input, nothing is echoed or translated. In the background that
 * waits for raw_terminal_attend. `wake` is an eventfd that is written when the process goes on after a stop. At most one
 * terminal at a time. False (and nothing done) if `fd` is not the terminal that controls this process. */
bool raw_terminal_enter(int fd, int wake);
/* Sets it back, for good; does nothing if none is raw. Async-signal-safe. */
void raw_terminal_leave(void);
/* False while this process is in the background: keys are for others then. True otherwise: the terminal is raw, if
 * it is to be. For one thread beside the one that enters. */
bool raw_terminal_attend(void);

#endif
