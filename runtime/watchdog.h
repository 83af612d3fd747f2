/* What ends a run from outside: --timeout, SIGINT, SIGTERM. */
#ifndef RUNTIME_WATCHDOG_H
#define RUNTIME_WATCHDOG_H

#include "image/error.h"

struct vm;

/* Starts the timer and catches the signals; one VM a process. 0, or -1 with *err. */
int watchdog_start(struct vm *vm, struct error *err);
void watchdog_stop(struct vm *vm);

#endif
