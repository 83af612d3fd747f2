/* SPDX-License-Identifier: MIT */
/* What ends a run from outside: --timeout, SIGINT, SIGTERM, SIGHUP. */
#ifndef RUNTIME_WATCHDOG_H
#define RUNTIME_WATCHDOG_H

#include "image/error.h"

struct vm;

/* Catches the signals, which from here on end the run, now or once it has begun; one VM a process. 0, or -1 with *err. */
int watchdog_start(struct vm *vm, struct error *err);
/* --timeout counts from here. */
int watchdog_set_timer(const struct vm *vm, struct error *err);
/* From here on signals do what they did before: nothing is left to end but the process. */
void watchdog_stop(void);

#endif
