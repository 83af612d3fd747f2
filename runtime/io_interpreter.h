/* SPDX-License-Identifier: MIT */
/* The instruction interpreter unit (B1): is the instruction that caused an exit an IO
 * instruction, and which? */
#ifndef RUNTIME_IO_INTERPRETER_H
#define RUNTIME_IO_INTERPRETER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_instruction {
    uint8_t length;  /* bytes, prefixes included */
    uint8_t width;   /* of the access: 1, 2, 4 bytes */
    bool out;        /* OUT or OUTS */
    bool string;     /* INS or OUTS */
    bool repeated;   /* with REP or REPNE, which here mean the same */
    bool port_in_dx; /* else `port` is it */
    uint8_t port;
};

/* Reads the instruction at the first of `available` bytes of code of the given mode (16, 32 or
 * 64 bits). False: it is no IO instruction, goes on behind the bytes, is longer than 15 bytes,
 * or has a LOCK prefix (#UD). */
bool io_interpret(const uint8_t *bytes, size_t available, unsigned code_bits,
                  struct io_instruction *instruction);

#endif
