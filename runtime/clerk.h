/* SPDX-License-Identifier: MIT */
/* The clerk: a process beside the one that runs the guest, which keeps what containment takes away (contain.h): it gives
 * output files their names and removes gdb's socket. It does each of a few fixed things when asked to by a single byte,
 * on paths that it knew before the guest's image was loaded; nothing else can be asked of it. It ends with its master. */
#ifndef RUNTIME_CLERK_H
#define RUNTIME_CLERK_H

#include <sys/types.h>

#include "image/error.h"

struct output;
struct vm_config;

enum clerk_file { CLERK_STATS, CLERK_TRACE, CLERK_FILES };

struct clerk {
    struct output *files[CLERK_FILES]; /* open for writing; NULL: not wanted */
    const char *socket;                /* gdb's, or NULL */
    int channel; /* to the other process, or -1: there is nothing for it to do */
    pid_t process;
};

/* Opens the output files that are wanted and starts the process, before there are threads. 0, or -1 with *err and nothing
 * left to end. */
int clerk_start(struct clerk *clerk, const struct vm_config *config, struct error *err);
/* The file that was written appears under its name. 0, or -1 with *err (HVRUN_HOST) and nothing is left of it. */
int clerk_commit(struct clerk *clerk, enum clerk_file file, struct error *err);
/* Removes gdb's socket, if there is one. */
void clerk_remove_socket(struct clerk *clerk);
/* Discards the files that were not committed. */
void clerk_end(struct clerk *clerk);

#endif
