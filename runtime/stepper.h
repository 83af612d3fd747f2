/* SPDX-License-Identifier: MIT */
/* A run in single steps: hvrun --step and --trace. */
#ifndef RUNTIME_STEPPER_H
#define RUNTIME_STEPPER_H

#include <stdbool.h>

#include "image/error.h"

struct vm;

/* Does the command line ask for it? */
bool stepper_wanted(const struct vm *vm);
/* A place of --trace-start and --trace-stop: an address (0x…), a count of instructions (decimal), or SYMBOL[+OFFSET]. 0,
 * or -1 with *err (HVRUN_USAGE). To be asked before a run, too. */
int stepper_check(const struct vm *vm, struct error *err);
/* Runs the VM, stepping as far as is asked for; returns when it has ended, or the steps are done (SHUTDOWN_STEPS). 0, or
 * -1 with *err for a host failure: the trace is not to be kept then. The trace goes to vm->trace_file. */
int stepper_run(struct vm *vm, struct error *err);

#endif
