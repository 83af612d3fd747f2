/* SPDX-License-Identifier: MIT */
/* Where gdb's client comes in: a TCP port or a Unix socket, one client at a time. */
#ifndef RUNTIME_GDB_CONNECTION_H
#define RUNTIME_GDB_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "image/error.h"

struct gdb_connection {
    int listener, client; /* -1: none */
    char path[108];       /* of a Unix socket, to be removed; "" = none */
    char name[160];       /* what a client has to be told: "127.0.0.1:1234", a path */
};

/* Listens at [HOST:]PORT or unix:PATH. 0, or -1 with *err: HVRUN_USAGE, HVRUN_HOST. */
int gdb_listen(struct gdb_connection *connection, const char *target, struct error *err);
void gdb_unlisten(struct gdb_connection *connection);

/* Takes a client that waits, if there is none yet; further ones are turned away. True if there
 * is a new one. */
bool gdb_accept(struct gdb_connection *connection);
void gdb_drop(struct gdb_connection *connection);

/* What the client has sent, without waiting: bytes, 0 = nothing, -1 = it has gone. */
ssize_t gdb_receive(struct gdb_connection *connection, void *bytes, size_t room);
/* Sends all of it. A client that takes nothing for some seconds is dropped. */
bool gdb_send(struct gdb_connection *connection, const char *bytes, size_t count);

#endif
