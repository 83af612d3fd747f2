/* SPDX-License-Identifier: MIT */
/* Containment: what hvrun gives up before the guest runs, so that a guest which takes over this process has gained little.
 * docs/security.md tells what is trusted and what is left. */
#ifndef RUNTIME_CONTAIN_H
#define RUNTIME_CONTAIN_H

#include <stdbool.h>

#include "image/error.h"

struct vm_config;

/* Notes the descriptors that whoever started us left open; contain() closes them. Before anything is opened. */
void contain_note_inherited(void);

/* Closes inherited descriptors, enters the jail (config->jail), forbids new privileges, and filters system calls on all
 * threads, for ever: files and sockets can no longer be opened, programs not run, memory not made executable, other
 * processes not touched. 0, or -1 with *err (HVRUN_HOST): nothing may run then. */
int contain(const struct vm_config *config, struct error *err);

/* False where sanitizers need system calls of their own: contain() filters nothing then. */
bool contain_filters(void);

#endif
