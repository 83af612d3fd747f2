/* SPDX-License-Identifier: MIT */
/* Loads a small guest image, patched or not, into this process at its linked address, and plays the
 * runtime: links routines, fills tables, answers breaks and doorbells. The guest's functions are
 * then called with all registers given. */
#ifndef TESTS_UNIT_GUEST_RUNNER_H
#define TESTS_UNIT_GUEST_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hvstub/hvstub.h"
#include "tests/unit/code_runner.h"

struct guest {
    uint8_t *memory; /* mapped where the guest is linked; can be written and executed */
    size_t size;     /* bytes */
    struct {
        char name[32];
        uint64_t address, size;
    } symbols[64];
    unsigned symbol_count;
    /* of a patched image: */
    uint32_t note_flags;
    struct pv_header *header; /* NULL: the image is not patched */
    uint64_t *routine_table;
    struct pv_routine *routines;
    struct pv_patch *patches;
    struct pv_cpuid_table *cpuid; /* NULL: none */
    char error[256];
    /* what happened during guest_call */
    unsigned breaks, doorbells;
    uint64_t fault; /* address of an instruction that trapped and is no doorbell; 0: none */
};

/* Answers a doorbell: registers are the guest's at the doorbell, rax its RAX (in its frame). */
typedef void guest_doorbell(void *context, uint32_t index, struct code_registers *registers,
                            uint64_t *rax);

/* Loads the ELF64 image. False: guest->error says why. */
bool guest_load(struct guest *guest, const char *path);
void guest_unload(struct guest *guest);

/* Size and address of a function; 0 if there is none of that name. */
uint64_t guest_symbol(const struct guest *guest, const char *name, uint64_t *size);

/* The index of the routine whose site lies in [address, address + size), or -1. */
int guest_routine(const struct guest *guest, uint64_t address, uint64_t size);

/* The guest-linear address that an offset of the ABI means. */
uint64_t guest_address(const struct guest *guest, int64_t offset);

/* Links the routine to its emulation path, or back to the native one. False: it has none. */
bool guest_activate(struct guest *guest, int index, bool active);

/* Calls the function at `address` with these registers (RSP is set to a stack of its own) and
 * returns with them as the function left them. A trap that is neither break nor doorbell ends the
 * call: guest->fault. */
void guest_call(struct guest *guest, uint64_t address, struct code_registers *registers,
                guest_doorbell *doorbell, void *context);

/* The index of the break or bare doorbell at `code`; -1: it is none. *length: its bytes. */
int64_t guest_break_index(const uint8_t *code, unsigned *length);

#endif
