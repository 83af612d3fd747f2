/* SPDX-License-Identifier: MIT */
/* The system calls that are left to hvrun while a guest runs. */
#ifndef RUNTIME_SYSCALL_FILTER_H
#define RUNTIME_SYSCALL_FILTER_H

#include "image/error.h"

/* For all threads, present and coming. What is not listed fails with EPERM. 0, or -1 with *err (HVRUN_HOST). */
int syscall_filter_load(struct error *err);

#endif
