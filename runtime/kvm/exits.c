/* SPDX-License-Identifier: MIT */
/* What a return from KVM_RUN asks for: one handler for each exit reason. */
#include <string.h>

#include "hvstub/hvstub.h"
#include "runtime/interrupts.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/enter.h"

/* ---- ports ---- */
/* The index of a doorbell; false: it is an ordinary access. */
static bool doorbell(const struct kvm_cpu *cpu, const uint8_t *data, uint32_t *index)
{
    const struct kvm_run *run = cpu->run;
    if (run->io.port != PV_DOORBELL_PORT || run->io.size != 4 ||
        run->io.direction != KVM_EXIT_IO_OUT || run->io.count != 1)
        return false;
    memcpy(index, data, sizeof *index);
    return kvm_rings(cpu, *index);
}

/* Of a string instruction KVM may hand several iterations over at once: each is counted as the exit that it is elsewhere. */
static int port_io(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_run *run = cpu->run;
    struct vm *vm = cpu->kvm->vm;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    uint32_t index;
    if (doorbell(cpu, data, &index))
        return kvm_ring(cpu, index, err);
    if (kvm_io_due(cpu))
        return kvm_io_event(cpu, err);
    for (uint32_t n = 0; n < run->io.count; n++, data += run->io.size) {
        uint32_t value = 0;
        stats_exit(&vm->stats, EXIT_KIND_IO, KVM_NO_ADDRESS);
        vm->stats.io_events++;
        vm->stats.io_instructions++;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, run->io.size);
            bus_out(&vm->bus, run->io.port, run->io.size, value);
        } else {
            value = bus_in(&vm->bus, run->io.port, run->io.size);
            memcpy(data, &value, run->io.size);
        }
    }
    return 0;
}

/* ---- memory-mapped registers ---- */
/* KVM passes on what an instruction does in pieces of up to 8 bytes; the bus takes powers of two. */
static int mmio(struct kvm_cpu *cpu, struct error *err)
{
    (void)err;
    struct kvm_run *run = cpu->run;
    struct vm *vm = cpu->kvm->vm;
    uint64_t value = 0;
    uint32_t length = run->mmio.len <= 8 ? run->mmio.len : 8;
    bool whole = (length & (length - 1)) == 0;
    stats_exit(&vm->stats, EXIT_KIND_MMIO, KVM_NO_ADDRESS);
    for (uint32_t n = 0, width = whole ? length : 1; n < length; n += width) {
        if (run->mmio.is_write) {
            memcpy(&value, run->mmio.data + n, width);
            bus_write(&vm->bus, run->mmio.phys_addr + n, width, value);
        } else {
            value = bus_read(&vm->bus, run->mmio.phys_addr + n, width);
            memcpy(run->mmio.data + n, &value, width);
        }
    }
    return 0;
}

/* ---- others ---- */
void kvm_halt(struct kvm_cpu *cpu)
{
    stats_exit(&cpu->kvm->vm->stats, EXIT_KIND_HLT, KVM_NO_ADDRESS);
    cpu->vcpu->activity = ACTIVITY_HLT;
    if (!cpu->pulled) /* who asks whether the guest can go on looks there */
        cpu->vcpu->rflags = (cpu->vcpu->rflags & ~RFLAGS_IF) | (cpu->run->if_flag ? RFLAGS_IF : 0);
}

static int halt(struct kvm_cpu *cpu, struct error *err)
{
    (void)err;
    kvm_halt(cpu);
    return 0;
}

static int nothing(struct kvm_cpu *cpu, struct error *err)
{
    (void)cpu;
    (void)err;
    return 0;
}

static int shutdown(struct kvm_cpu *cpu, struct error *err)
{
    struct vmcs *vmcs = entered(cpu->vcpu);
    if (kvm_pull(cpu, err) < 0)
        return -1;
    if (!vmcs) {
        cpu_triple_fault(cpu->vcpu);
        return 0;
    }
    cpu->vcpu->activity = ACTIVITY_SHUTDOWN;
    vmcs->exit_reason = VMCS_EXIT_TRIPLE_FAULT; /* by what, KVM does not tell */
    kvm_leave(cpu->kvm, vmcs);
    return 0;
}

/* An instruction that this KVM cannot execute. */
static int internal_error(struct kvm_cpu *cpu, struct error *err)
{
    if (cpu->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION &&
        cpu->run->internal.suberror != KVM_INTERNAL_ERROR_DELIVERY_EV)
        return fail(err, HVRUN_HOST, "KVM: vCPU %u: internal error %u; use --engine soft",
                    cpu->vcpu->index, cpu->run->internal.suberror);
    if (kvm_pull(cpu, err) < 0)
        return -1;
    return kvm_soft_step(cpu, err);
}

static int (*const handlers[])(struct kvm_cpu *cpu, struct error *err) = {
    [KVM_EXIT_IO] = port_io,
    [KVM_EXIT_MMIO] = mmio,
    [KVM_EXIT_X86_RDMSR] = kvm_exit_rdmsr,
    [KVM_EXIT_X86_WRMSR] = kvm_exit_wrmsr,
    [KVM_EXIT_HLT] = halt,
    [KVM_EXIT_INTR] = nothing,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = nothing,
    [KVM_EXIT_SET_TPR] = nothing,
    [KVM_EXIT_SHUTDOWN] = shutdown,
    [KVM_EXIT_DEBUG] = kvm_debug_exit,
    [KVM_EXIT_INTERNAL_ERROR] = internal_error,
};
#define HANDLERS (sizeof handlers / sizeof handlers[0])

/* Completed by the kernel on the way back in: until then registers are those of before. */
static bool completes_later(uint32_t reason)
{
    return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_X86_RDMSR ||
           reason == KVM_EXIT_X86_WRMSR;
}

int kvm_handle_exit(struct kvm_cpu *cpu, struct error *err)
{
    uint32_t reason = cpu->run->exit_reason;
    cpu->unfinished = completes_later(reason);
    if (reason == KVM_EXIT_FAIL_ENTRY)
        return fail(err, HVRUN_HOST, "KVM: vCPU %u: the processor refuses its state (0x%llx)",
                    cpu->vcpu->index, cpu->run->fail_entry.hardware_entry_failure_reason);
    if (reason >= HANDLERS || !handlers[reason])
        return fail(err, HVRUN_HOST, "KVM: vCPU %u: exit reason %u is not known", cpu->vcpu->index,
                    reason);
    return handlers[reason](cpu, err);
}
