/* SPDX-License-Identifier: MIT */
/* The guest of --calibrate: one instruction, or a few, in a loop. */
#ifndef RUNTIME_CALIBRATE_GUEST_H
#define RUNTIME_CALIBRATE_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include "image/error.h"
#include "runtime/vm.h"

/* A row of the table. Code is for 64-bit mode; it may use all registers but R12 and RSP. */
struct calibrate_row {
    const char *name;
    const char *counter; /* of --stats, by which it is multiplied; NULL = none, it is no exit */
    const char *what;
    uint8_t before[24]; /* once; filled up with NOP */
    uint8_t body[24];   /* each time; the same */
    uint8_t before_size, body_size;
};

/* The first row is the empty loop. */
extern const struct calibrate_row calibrate_rows[];
extern const size_t calibrate_row_count;

/* Puts the loop into a VM that was just made: it ends by a debug exit after so many rounds. 0, or -1 with *err. */
int calibrate_load(struct vm *vm, const struct calibrate_row *row, uint32_t rounds,
                   struct error *err);

#endif
