/* SPDX-License-Identifier: MIT */
/* Ports where a write changes nothing that a guest could see: the kernel collects them in a ring, without an exit
 * (KVM_CAP_COALESCED_PIO), and the order in which devices see them stays. The ring is emptied behind each exit, before
 * what that asks for; and, once the guest has written to the debug console, every millisecond. (Linux
 * Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO) */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/kvm/kvm.h"

#define POST          0x80u /* nobody looks at the display: Linux writes there to lose time */
#define DELAY         0xedu
#define DEBUG_CONSOLE 0xe9u

static bool collect(struct kvm *kvm, uint16_t port)
{
    struct kvm_coalesced_mmio_zone zone = {.addr = port, .size = 1, .pio = 1};
    return ioctl(kvm->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) == 0;
}

void kvm_collect_writes(struct kvm *kvm)
{
    int page = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
    size_t size = (size_t)sysconf(_SC_PAGESIZE), place = page > 0 ? (size_t)page * size : 0;
    if (!place || place + size > kvm->run_size ||
        ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) <= 0)
        return;
    kvm->ring = (void *)((char *)kvm->cpus[0].run + place); /* all vCPUs share it */
    kvm->ring_slots = (uint32_t)((size - sizeof *kvm->ring) / sizeof kvm->ring->coalesced_mmio[0]);
    collect(kvm, POST);
    collect(kvm, DELAY);
}

/* Its bytes are for somebody who reads: only a guest that writes some makes the timekeeper look for them. */
static void console_found(struct kvm *kvm)
{
    kvm->prompt = collect(kvm, DEBUG_CONSOLE);
    vm_wake(kvm->vm);
}

void kvm_take_writes(struct kvm *kvm, const struct kvm_run *exit)
{
    struct kvm_coalesced_mmio_ring *ring = kvm->ring;
    if (!ring)
        return;
    uint32_t last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE), first = ring->first;
    while (first != last && first < kvm->ring_slots) {
        const struct kvm_coalesced_mmio write = ring->coalesced_mmio[first];
        first = (first + 1) % kvm->ring_slots;
        __atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
        uint32_t value = 0;
        memcpy(&value, write.data, write.len <= 4 ? write.len : 4);
        kvm->vm->stats.io_instructions++;
        kvm->vm->stats.coalesced++;
        bus_out(&kvm->vm->bus, (uint16_t)write.phys_addr, write.len <= 4 ? write.len : 4, value);
    }
    if (exit && !kvm->prompt && exit->exit_reason == KVM_EXIT_IO &&
        exit->io.port == DEBUG_CONSOLE && exit->io.direction == KVM_EXIT_IO_OUT)
        console_found(kvm);
}
