/* SPDX-License-Identifier: MIT */
/* A Unix socket to a server. */
#ifndef TESTS_UNIT_GDB_CLIENT_H
#define TESTS_UNIT_GDB_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

int gdb_client_connect(const char *path); /* -1: errno says why */
/* All of it, or false. */
bool gdb_client_send(int fd, const void *bytes, size_t count);
bool gdb_client_receive(int fd, void *bytes, size_t count);

#endif
