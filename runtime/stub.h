/* SPDX-License-Identifier: MIT */
/* The stub of a patched image: found and checked, linked, and served while the guest runs.
 *
 * All that the host needs to know of a routine is copied when the image is loaded, before the guest
 * runs its first instruction: what the guest writes there later changes nothing here. Only the
 * routine table is read at run time, because it is the guest's dispatch table (D5): an entry is an
 * address in the guest, and no more harmful than a jump of the guest's own. */
#ifndef RUNTIME_STUB_H
#define RUNTIME_STUB_H

#include <stdbool.h>
#include <stdint.h>

#include "hvstub/hvstub.h"
#include "image/error.h"
#include "runtime/stub_devices.h"

struct block;
struct image;
struct insn;
struct vcpu;
struct vm;

struct stub_routine {    /* what the host keeps of struct pv_routine */
    int64_t site_offset; /* its original place */
    int64_t native_offset;
    int64_t window_offset; /* of its patch: where a break traps */
    int64_t emulation_offset;
    int64_t tail_offset;
    uint32_t emulation_size;
    uint32_t operand;
    uint16_t kind;
    uint8_t form;
    uint8_t flags;
    bool linked;
    struct block *block; /* what it stands for, once it has rung; owned */
};

struct stub {
    uint64_t header_linear; /* as linked */
    uint64_t header_physical;
    uint64_t table_physical; /* of the routine table */
    uint64_t state_physical; /* of struct pv_state; 0 = none */
    uint32_t state_size;
    uint32_t routine_count;
    uint32_t linked_count;
    struct stub_routine *routines;
    struct stub_devices devices;
};

/* Finds, checks and links the stub of a patched image that is loaded already: routines lead to
 * their emulation, tables are filled. An image that is not patched, or --no-patch: nothing to do.
 * 0, or -1 with *err (HVRUN_IMAGE). */
int stub_attach(struct vm *vm, const struct image *image, struct error *err);
void stub_detach(struct vm *vm);

/* Where the header is for the code at `rip`, which is meant to be at `offset` from it. */
uint64_t stub_header_for(const struct stub *stub, uint64_t rip, int64_t offset);

/* Where in the original image the instruction stands that a routine at `rip` stands for; `rip`
 * itself if there is none. */
uint64_t stub_site(const struct stub *stub, uint64_t rip);

/* The doorbell, `OUT PV_DOORBELL_PORT, EAX`, rang; port permission is checked. *next_rip comes in
 * as the RIP behind the instruction; the handler may change it (and everything else of the vCPU),
 * or raise. False: nothing was done, the instruction is an ordinary OUT. Called only if vm->stub is
 * not NULL. */
bool stub_doorbell(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip);

/* The same for UD1 in one of the encodings that hvstub.h gives to break and to the bare doorbell:
 * `aux` is STUB_UD1_*, `imm` the index. False: it is #UD. */
bool stub_ud1(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip);

enum { STUB_UD1_PLAIN, STUB_UD1_BREAK, STUB_UD1_BARE };

/* ---- stub_tables.c: what is constant, in the form that the templates look up ---- */
void stub_fill_cpuid(const struct vm *vm, struct pv_cpuid_table *table);
void stub_fill_msrs(struct pv_msr_table *table);

/* ---- doorbell_insn.c: the instruction that a routine stands for ---- */
/* True if the host can execute it when it rings; such routines may be linked. */
bool doorbell_has_handler(unsigned kind, uint32_t operand);
/* A block of that instruction, which then falls through; the caller frees it. The vCPU is in 64-bit
 * mode. NULL: there is none, or no memory. */
struct block *doorbell_block(struct vcpu *cpu, unsigned kind, uint32_t operand);

#endif
