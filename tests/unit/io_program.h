/* SPDX-License-Identifier: MIT */
/* Random guest programs around IO instructions: straight lines, branches, loops, calls by
 * pointer and retpoline, string instructions, memory, faults, code that modifies itself. They
 * end with HLT, or in a fault handler that halts. */
#ifndef TESTS_IO_PROGRAM_H
#define TESTS_IO_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROGRAM_BYTES = 2048, PROGRAM_IO = 96 };

struct io_program {
    uint8_t code[PROGRAM_BYTES];
    size_t size;
    uint64_t base; /* guest-linear address of code[0] */
    /* where its IO instructions stand, ascending */
    uint64_t io[PROGRAM_IO];
    unsigned io_count;
    /* It modifies its own code. The time that takes depends on what is decoded: such a program
     * does not ask for it. */
    bool modifies;
    uint64_t seed;
};

/* 64-bit code for `base`; memory operands are in the 4 KiB around `data`, whose next page is
 * absent. */
void io_program_make(struct io_program *program, uint64_t seed, uint64_t base, uint64_t data);

/* The next of a sequence of random numbers; below `bound`. */
uint64_t io_program_random(struct io_program *program);
unsigned io_program_below(struct io_program *program, unsigned bound);

#endif
