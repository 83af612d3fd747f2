/* SPDX-License-Identifier: MIT */
/* Hypercalls: one, which sends an interrupt to several processors. */
#include "runtime/hypercall.h"

#include "runtime/interrupts.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* Bit n of `bitmap` (which has `bits`, the lower half first) stands for the APIC id first + n. The result
 * is how many took it. */
static int64_t send_ipi(struct vm *vm, const uint64_t bitmap[2], unsigned bits, uint32_t first,
                        uint32_t icr)
{
    enum apic_delivery delivery = icr >> 8 & 7;
    int64_t taken = 0;

    if (icr & ~0x7ffu || (delivery != APIC_FIXED && delivery != APIC_NMI))
        return -KVM_EINVAL;
    for (unsigned v = 0; v < vm->vcpu_count; v++) {
        uint32_t id = lapic_id(vm->vcpus[v]);
        uint32_t n = id - first;
        if (id >= first && n < bits && bitmap[n / (bits / 2)] >> n % (bits / 2) & 1)
            taken += apic_message(vm, id, false, delivery, (uint8_t)icr, false);
    }
    return taken;
}

int64_t hypercall(struct vcpu *cpu)
{
    bool wide = vcpu_code64(cpu);
    uint64_t mask = wide ? UINT64_MAX : UINT32_MAX;
    const uint64_t bitmap[2] = {cpu->r[RBX] & mask, cpu->r[RCX] & mask};

    if ((cpu->r[RAX] & mask) == KVM_HC_SEND_IPI)
        return send_ipi(cpu->vm, bitmap, wide ? 128 : 64, (uint32_t)cpu->r[RDX],
                        (uint32_t)cpu->r[RSI]);
    return -KVM_ENOSYS;
}
