/* The host side of a patched image's stub. */
#include "runtime/stub.h"

int stub_attach(struct vm *vm, const struct image *image, struct error *err)
{
    (void)vm;
    (void)image;
    (void)err;
    return 0;
}

bool stub_doorbell(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip)
{
    (void)cpu;
    (void)i;
    (void)next_rip;
    return false;
}

bool stub_ud1(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip)
{
    (void)cpu;
    (void)i;
    (void)next_rip;
    return false;
}
