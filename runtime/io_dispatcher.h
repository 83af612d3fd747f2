/* SPDX-License-Identifier: MIT */
/* The dispatcher of IO blocks (B1 to B8): what a virtualization event of an IO instruction does.
 *
 *   event -> interpreter (B1) -> known address? -yes-> hasher (B3) -equal-> executed as a whole
 *            io_interpreter.c    learned, or in the    io_hasher.c          (B4), RIP moves on (B5)
 *                                table (B2)               |                 io_compiled.c,
 *                                    | no                 | different       io_pointer.c
 *                                    v                    v
 *                                scanner (B6) -found-> learned (B7), executed as a whole
 *                                io_scanner.c -none--> the single instruction (B8)
 *
 * A block ends where the scanner could not see further: behind a return or an indirect branch, or
 * where its extent or its knowledge ended. There the guest itself is the oracle (B10): the
 * dispatcher goes on, one instruction at a time, for as many instructions as the extent's gap. If
 * that leads to another IO instruction, the path and what the scanner finds from there are joined
 * to the block, and the event goes on in it. Each address on the path is a guard: where the guest
 * turns off another time, the block ends, or grows again. How often that is tried doubles its
 * distance with each failure.
 *
 * Engines call io_dispatch() with the vCPU's state loaded and find it changed; nothing else is
 * theirs. */
#ifndef RUNTIME_IO_DISPATCHER_H
#define RUNTIME_IO_DISPATCHER_H

#include <stdbool.h>

#include "image/error.h"

struct image;
struct vcpu;
struct vm;

/* Prepares what vm->config.io_blocks and .io_extent ask for; the table is read from the image,
 * if it has one. Off: nothing. 0, or -1 with *err (HVRUN_USAGE: the extent; HVRUN_HOST: memory).
 * A table that cannot be read is no error: a warning says so, and there is none. */
int io_blocks_attach(struct vm *vm, const struct image *image, struct error *err);
void io_blocks_detach(struct vm *vm);

/* The vCPU stands at an IO instruction that causes an event, between two instructions: all
 * checks that come before the exit are done (privilege), vcpu.block is NULL, vcpu.budget and
 * .withheld hold what is left of its slice. True: the event is over, state is as after the
 * instructions executed. False: nothing has happened, the single instruction is to be executed.
 * An instruction that faults unwinds through vcpu.unwind. */
bool io_dispatch(struct vcpu *cpu);

#endif
