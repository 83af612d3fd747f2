/* SPDX-License-Identifier: MIT */
/* Guests made from random numbers: tables for every mode, handlers that skip the instruction that
 * faulted, and code that reaches what random bytes seldom reach. */
#ifndef TESTS_FUZZ_GUEST_H
#define TESTS_FUZZ_GUEST_H

#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* Guest-physical addresses. */
#define GUEST_RAM      0x40000u
#define GUEST_HANDLERS 0xe000u  /* below: descriptor tables, page tables, TSSs */
#define GUEST_CODE     0x10000u /* the first vCPU's, then one a spacing */
#define GUEST_SPACING  0x800u
#define GUEST_DATA     0x30000u
#define GUEST_STACK    0x3f000u

enum guest_mode {
    GUEST_REAL,
    GUEST_V86,
    GUEST_FLAT16, /* protected, 16-bit code */
    GUEST_FLAT32, /* no paging */
    GUEST_PAGING32,
    GUEST_PAE,
    GUEST_USER32, /* with PAE */
    GUEST_COMPATIBILITY,
    GUEST_KERNEL64,
    GUEST_USER64,
    GUEST_MODES
};
static inline bool guest_long(enum guest_mode mode)
{
    return mode >= GUEST_COMPATIBILITY;
}

/* Aborts, naming the line, if the condition does not hold. */
#define must(condition) guest_must(condition, __FILE__, __LINE__)
void guest_must(bool good, const char *file, int line);

/* A deterministic machine on the soft engine. Released by vm_destroy and free. */
struct vm *guest_vm(unsigned vcpus, bool translated);

uint64_t guest_draw(uint64_t *state); /* a random number; *state is not 0 */

/* All of RAM from GUEST_CODE on. */
void guest_fill_code(struct vm *vm, uint64_t *state);
/* All below it; of 256 gates about `anywhere` lead into random code, the others to handlers. */
void guest_fill_tables(struct vm *vm, enum guest_mode mode, unsigned anywhere, uint64_t *state);
/* Puts a vCPU in power-on state into the mode, at GUEST_CODE. Call vcpu_mode_changed afterwards. */
void guest_enter(struct vcpu *cpu, enum guest_mode mode);

#endif
