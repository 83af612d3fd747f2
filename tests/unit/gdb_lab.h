/* SPDX-License-Identifier: MIT */
/* A machine under the gdb server, and a client to it: what the tests of the server stand on. The
 * machine runs on a thread of its own; as long as it stands (every test begins so) its state may
 * be looked at.
 *
 * Include it before <cmocka.h>, which has a macro of the name fail. */
#ifndef TESTS_UNIT_GDB_LAB_H
#define TESTS_UNIT_GDB_LAB_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/gdb.h"
#include "runtime/gdb_server.h"
#include "tests/gdb_machine.h"

/* The code that the vCPUs begin at (gdb_lab.c): labels as guest-linear addresses. */
#define LAB_LABEL(name)                                                                            \
    ({                                                                                             \
        extern const uint8_t gdb_lab_code[], gdb_lab_##name[];                                     \
        GDB_CODE + (uint64_t)(gdb_lab_##name - gdb_lab_code);                                      \
    })

struct gdb_lab {
    struct vm vm;
    struct vcpu *cpu; /* vCPU 0 */
    char folder[64], target[96];
    pthread_t thread;
    int fd;           /* the client's; -1 */
    bool acknowledge; /* packets are, as at the beginning */
    uint8_t bytes[65536];
    size_t begin, end; /* what came and was not taken */
    char reply[65536]; /* the last one, unescaped and expanded */
    size_t length;
};

/* The server is there, and the guest waits. `nowait`: it runs. */
struct gdb_lab *gdb_lab_create(unsigned vcpus, bool nowait);
/* Ends the machine, if it has not ended, and the thread. */
void gdb_lab_free(struct gdb_lab *lab);
/* Waits for the machine to end by itself. */
void gdb_lab_join(struct gdb_lab *lab);

void gdb_lab_connect(struct gdb_lab *lab);
void gdb_lab_disconnect(struct gdb_lab *lab);
/* Sends bytes as they are. */
void gdb_lab_send(struct gdb_lab *lab, const char *bytes, size_t count);
/* Sends a packet. */
void gdb_lab_tell(struct gdb_lab *lab, const char *packet);
void gdb_lab_tell_bytes(struct gdb_lab *lab, const char *packet, size_t length);
/* Waits for the next packet: lab->reply. NULL: the server has closed the connection, or ten
 * seconds are over. */
const char *gdb_lab_hear(struct gdb_lab *lab);
/* The two together. */
const char *gdb_lab_ask(struct gdb_lab *lab, const char *packet);

#endif
