/* SPDX-License-Identifier: MIT */
/* A machine for tests of IO blocks: a vCPU with flat memory (one_insn.h) on the soft engine, with a
 * local APIC and a device that logs every port access and can answer with interrupts.
 *
 * Code goes to ONE_INSN_CODE and ends with HLT; a fault ends in a handler that halts too, with
 * the frame on the stack. Include it before <cmocka.h>. */
#ifndef TESTS_IO_LAB_H
#define TESTS_IO_LAB_H

#include "runtime/io_entries.h"
#include "runtime/soft/engine.h"
#include "tests/unit/one_insn.h"

#define LAB_HANDLERS 0x9000u /* code of the handlers */
#define LAB_FAULT    0x9000u /* where all exceptions go: HLT */
#define LAB_RECORD                                                                                 \
    0xa000u /* interrupts write the RIP they came from here; first word: where the next one goes */
#define LAB_VECTOR   0x40u /* of the device's interrupt */
#define LAB_PORT     0x60u /* of the device: LAB_PORTS of them */
#define LAB_PORTS    0x60u
#define LAB_ABSENT   0x11000u /* a page that is not mapped */
#define LAB_ACCESSES 1024u

struct io_access {
    uint64_t value, time; /* guest time, ns */
    uint16_t port;
    uint8_t width;
    bool out;
};

struct io_lab {
    struct vcpu *cpu;
    struct vm *vm;
    struct io_access log[LAB_ACCESSES];
    unsigned accesses; /* so many, logged or not */
    uint64_t seed;     /* of what reads give */
    /* what happens at the access of that number, counted from 1; 0 = nothing */
    unsigned interrupt_at, nmi_at, stop_at;
    uint64_t answer; /* if not 0: what every read gives */
};

/* A machine with IO blocks in this mode and this extent (NULL: the default). */
struct io_lab *io_lab_open(enum io_blocks_mode mode, const char *extent);
void io_lab_close(struct io_lab *lab);

/* Registers, time, counters and interrupts as in the beginning, RIP at ONE_INSN_CODE; memory and
 * what was learned stay. */
void io_lab_reset(struct io_lab *lab);
/* Writes code or data where the processor must notice. */
void io_lab_write(struct io_lab *lab, uint64_t physical, const void *bytes, size_t size);
#define LAB_CODE_AT(lab, address, ...)                                                             \
    io_lab_write(lab, address, (const uint8_t[]){__VA_ARGS__},                                     \
                 sizeof((const uint8_t[]){__VA_ARGS__}))

/* Runs until the guest halts, in slices of so many instructions, at most `slices` of them. True:
 * it halted. */
bool io_lab_run(struct io_lab *lab, int64_t slice, unsigned slices);
/* io_lab_reset, then runs until the guest halts, which the test demands. */
void io_lab_go(struct io_lab *lab);

/* Makes these blocks the image's table (none: no table). */
void io_lab_table(struct io_lab *lab, const struct io_block *blocks, size_t count);

#endif
