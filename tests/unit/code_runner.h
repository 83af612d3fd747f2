/* SPDX-License-Identifier: MIT */
/* Runs pieces of generated code inside the test process: all registers and flags in, all out, and
 * a handler that plays the host for instructions that trap in user mode. */
#ifndef TESTS_UNIT_CODE_RUNNER_H
#define TESTS_UNIT_CODE_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/vcpu.h" /* RAX to R15 */

enum { REGISTERS = 16 };

#define FLAG_TRAP        0x100u
#define FLAGS_ARITHMETIC 0x8d5u /* CF PF AF ZF SF OF */
#define FLAG_DIRECTION   0x400u

struct code_registers {
    uint64_t r[REGISTERS]; /* in the processor's order */
    uint64_t flags;
};

/* Where code must jump to end: registers are saved, code_run returns. */
void code_exit(void);

/* A jump to code_exit as bytes: writes 14 bytes to p, which returns p + 14. */
uint8_t *code_put_exit(uint8_t *p);

/* Writes jmp rel32 from p (mapped where it will run) to target; returns p + 5. */
uint8_t *code_put_jump(uint8_t *p, const void *target);

/* Called for SIGSEGV, SIGILL, SIGTRAP and SIGFPE in code that runs under code_run, with the registers at
 * the trap; rip may be changed. False: not expected, the process dies of it. */
typedef bool code_trap(void *context, int signal, struct code_registers *registers, uint64_t *rip);

/* Loads all registers (RSP too) and flags, jumps to entry, and returns when the code jumps to
 * code_exit, with all registers and flags as they then are. */
void code_run(struct code_registers *registers, const void *entry, code_trap *trap, void *context);

/* Maps size bytes that can be read, written and executed, within 2 GB of nothing in particular; at
 * `wanted` if that is not NULL (then NULL is returned if something else is there). */
void *code_map(void *wanted, size_t size);

/* A generator of test values: the same sequence in every run. */
uint64_t code_random(void);

/* Fills all registers but RSP with random values, and the arithmetic and direction flags. */
void code_randomize(struct code_registers *registers, uint64_t rsp);

#endif
