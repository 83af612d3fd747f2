/* SPDX-License-Identifier: MIT */
/* The server for gdb: `hvrun --gdb`, a machine that is run by a debugger's commands over its
 * remote protocol.
 *
 * One client at a time. While the guest is stopped the server waits for packets; while it runs
 * it looks at the connection every millisecond, for a Ctrl-C or a client. A client that goes
 * away without a word leaves a guest that runs running, without its breakpoints, and one that is
 * stopped stopped, for the next client. What else can be known of it stands in hvrun(1),
 * Debugging. */
#ifndef RUNTIME_GDB_H
#define RUNTIME_GDB_H

#include "image/error.h"

struct vm;

/* Listens where config.gdb says: [HOST:]PORT (TCP; HOST is the loopback interface unless it is
 * given, port 0 any that is free) or unix:PATH. Says where on stderr. 0, or -1 with *err:
 * HVRUN_USAGE if it cannot be understood. */
int gdb_open(struct vm *vm, struct error *err);
void gdb_close(struct vm *vm); /* a Unix socket's name goes away */

/* Runs the machine, in place of vm->engine->run: until vm->shutdown is set, and the client has
 * seen it. */
int gdb_run(struct vm *vm, struct error *err);

#endif
