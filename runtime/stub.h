/* The stub of a patched image: found and checked, linked, and served while the guest runs. */
#ifndef RUNTIME_STUB_H
#define RUNTIME_STUB_H

#include <stdbool.h>
#include <stdint.h>

#include "image/error.h"

struct image;
struct insn;
struct vcpu;
struct vm;

/* Finds, checks and links the stub of a patched image that is loaded already: routines lead to their emulation, tables are
 * filled. An image that is not patched, or --no-patch: nothing to do. 0, or -1 with *err (HVRUN_IMAGE). */
int stub_attach(struct vm *vm, const struct image *image, struct error *err);

/* The doorbell, `OUT PV_DOORBELL_PORT, EAX`, rang; port permission is checked. *next_rip comes in as the RIP behind the
 * instruction; the handler may change it (and everything else of the vCPU), or raise. False: nothing was
 * done, the instruction is an ordinary OUT. Called only if vm->stub is not NULL. */
bool stub_doorbell(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip);

/* The same for UD1 in one of the encodings that hvstub.h gives to break and to the bare doorbell: `aux` is
 * STUB_UD1_*, `imm` the index. False: it is #UD. */
bool stub_ud1(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip);

enum { STUB_UD1_PLAIN, STUB_UD1_BREAK, STUB_UD1_BARE };

#endif
