/* SPDX-License-Identifier: MIT */
/* What the instructions of lists/deprivileged.list do to a guest that sees struct pv_state in place
 * of the processor's own registers: written from the manuals, not from the templates. */
#ifndef TESTS_UNIT_DEPRIVILEGED_MODEL_H
#define TESTS_UNIT_DEPRIVILEGED_MODEL_H

#include "hvstub/cpuid_table.h"
#include "tests/unit/code_runner.h"
#include "tests/unit/decoded.h"

#define FLAG_INTERRUPT 0x200u
#define FLAGS_IOPL     0x3000u
#define FLAG_NESTED    0x4000u
#define FLAG_ALIGNMENT 0x40000u
#define FLAG_ID        0x200000u
#define FLAGS_COMPARED                                                                             \
    (FLAGS_ARITHMETIC | FLAG_TRAP | FLAG_INTERRUPT | FLAG_DIRECTION | FLAGS_IOPL | FLAG_NESTED |   \
     FLAG_ALIGNMENT | FLAG_ID)

/* All memory that a guest in these tests has. */
struct guest_memory {
    uint8_t data[256];
    struct pv_state state;
    uint64_t stack[512];
};

struct guest {
    struct code_registers registers;
    struct guest_memory memory;
};

struct trial {
    const struct decoded *d;
    uint64_t memory_base; /* where struct guest_memory is */
    uint64_t operand;     /* linear address of the memory operand */
    struct guest want;    /* before the instruction; a model changes it to what is to be after it */
    bool rings;           /* set by a model: the host is to be called when want is reached */
    bool native;          /* set by a model: the instruction itself is to be executed then */
    struct guest seen;    /* when the host was called */
    struct guest got;     /* after the template */
    uint64_t tsc[2];      /* the real counter before and after */
};

typedef void model(struct trial *t);

model model_host; /* unchanged, and the host is called */
model model_nothing;
model model_cli, model_sti, model_clac, model_stac, model_pushf, model_popf;
model model_mov_from_cr, model_mov_to_cr2, model_mov_from_dr;
model model_sgdt, model_sidt, model_sldt, model_str, model_smsw;
model model_mov_from_segment, model_push_segment;
model model_cpuid; /* leaves 0, 1, 4 and 0x80000000 are known; of 4 the subleaves 0 to 2 */
model model_rdtsc, model_rdtscp, model_rdpid, model_xgetbv;
model model_in, model_in_timer, model_out, model_wrmsr; /* the device fast paths */

/* Random, but possible; after registers are set: what is known of the ports in DX and `port` and of
 * the MSR. */
void random_memory(struct guest_memory *memory);
void random_device_state(struct guest *guest, uint16_t port);

struct pv_cpuid_answer known_cpuid(uint32_t leaf, uint32_t subleaf);

#endif
