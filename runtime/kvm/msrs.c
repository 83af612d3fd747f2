/* SPDX-License-Identifier: MIT */
/* Model-specific registers: those that KVM keeps for this machine, and the others, which are msr.c's. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "runtime/kvm/kvm.h"
#include "runtime/kvmclock.h"

#define MSR_EFER         0xc0000080u
#define MSR_TSC_DEADLINE 0x6e0u

/* Kept by KVM (state.c moves them). All others are exits to msr.c: so a guest sees the same machine on both engines. */
static const uint32_t kept[] = {0x174,      0x175,      0x176,      0x277,      0xc0000080,
                                0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
                                0xc0000101, 0xc0000102, 0xc0000103};
#define KEPT (sizeof kept / sizeof kept[0])
/* Those of what the kernel has if it has the chips: local APIC (the x2APIC's no filter stops) and clock. */
static const uint32_t kept_by_chips[] = {0x1b, MSR_TSC_DEADLINE, MSR_KVM_WALL_CLOCK,
                                         MSR_KVM_SYSTEM_TIME};
#define KEPT_BY_CHIPS (sizeof kept_by_chips / sizeof kept_by_chips[0])

static bool is_kept(uint32_t msr)
{
    for (size_t n = 0; n < KEPT; n++)
        if (kept[n] == msr)
            return true;
    return false;
}

enum { RANGES = 3, RANGE = 0x800 };

static void allow(uint8_t *bitmap, uint32_t base, uint32_t msr)
{
    if (msr - base < RANGE)
        bitmap[(msr - base) / 8] |= (uint8_t)(1u << ((msr - base) & 7));
}

int kvm_filter_msrs(struct kvm *kvm, struct error *err)
{
    static const uint32_t bases[RANGES] = {0, 0xc0000000, 0x4b564d00};
    uint8_t bitmap[RANGES][RANGE / 8] = {{0}};
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    for (unsigned r = 0; r < RANGES; r++) {
        for (size_t n = 0; n < KEPT && !kvm->counts_msrs; n++)
            allow(bitmap[r], bases[r], kept[n]);
        for (size_t n = 0; n < KEPT_BY_CHIPS && kvm->chips == &kvm_kernel_chips; n++)
            allow(bitmap[r], bases[r], kept_by_chips[n]);
        filter.ranges[r] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                          .base = bases[r],
                                          .nmsrs = RANGE,
                                          .bitmap = bitmap[r]};
    }
    struct kvm_enable_cap exits = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                   .args = {KVM_MSR_EXIT_REASON_INVAL |
                                            KVM_MSR_EXIT_REASON_UNKNOWN |
                                            KVM_MSR_EXIT_REASON_FILTER}};
    if (ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &exits) < 0 ||
        ioctl(kvm->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
        return fail(err, HVRUN_HOST, "KVM: MSR exits: %s", strerror(errno));
    return 0;
}

/* One that KVM keeps, and asked user space for so that it is counted. False: #GP. */
static bool move_kept(struct kvm_cpu *cpu, unsigned long request, uint64_t *value)
{
    union {
        struct kvm_msrs head;
        char space[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } list = {.head.nmsrs = 1};
    list.head.entries[0] = (struct kvm_msr_entry){.index = cpu->run->msr.index, .data = *value};
    cpu->kvm->ioctls++;
    if (ioctl(cpu->fd, request, &list) != 1)
        return false;
    *value = list.head.entries[0].data;
    return true;
}

/* The x2APIC's no list has: no filter stops them. */
static bool is_kept_by_chips(uint32_t msr)
{
    for (size_t n = 0; n < KEPT_BY_CHIPS; n++)
        if (kept_by_chips[n] == msr)
            return true;
    return msr >= 0x800 && msr <= 0x8ff;
}

/* KVM keeps it, was not asked to let it be counted, and refuses this access: it asks for that, too. */
static bool refused(const struct kvm_cpu *cpu)
{
    uint32_t msr = cpu->run->msr.index;
    bool chips = cpu->kvm->chips == &kvm_kernel_chips && is_kept_by_chips(msr);
    return cpu->run->msr.reason != KVM_MSR_EXIT_REASON_FILTER &&
           (chips || (is_kept(msr) && !cpu->kvm->counts_msrs));
}

/* KVM also asks for what it does not know: that goes the way of all. */
bool kvm_asks_to_count(const struct kvm_cpu *cpu)
{
    return cpu->run->msr.reason == KVM_MSR_EXIT_REASON_FILTER && is_kept(cpu->run->msr.index);
}

int kvm_exit_rdmsr(struct kvm_cpu *cpu, struct error *err)
{
    (void)err;
    uint64_t value = 0;
    stats_exit(&cpu->kvm->vm->stats, EXIT_KIND_MSR, KVM_NO_ADDRESS);
    if (refused(cpu)) {
        cpu->run->msr.error = 1;
        return 0;
    }
    cpu->run->msr.error = kvm_asks_to_count(cpu)
                              ? !move_kept(cpu, KVM_GET_MSRS, &value)
                              : !msr_read(cpu->vcpu, cpu->run->msr.index, &value);
    cpu->run->msr.data = value;
    return 0;
}

/* What WRMSR refuses (SDM 4, IA32_EFER): a bit that is not there; LME changed while paging is on. */
static bool efer_valid(struct kvm_cpu *cpu, uint64_t value)
{
    struct kvm_sregs s;
    cpu->kvm->ioctls++;
    return ioctl(cpu->fd, KVM_GET_SREGS, &s) == 0 &&
           !(value & ~(uint64_t)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)) &&
           !((value ^ s.efer) & EFER_LME && s.cr0 & CR0_PG);
}

/* Setting it begins a new mode: the instruction is completed in the old one (some implementations of KVM forget it else). */
static int write_efer(struct kvm_cpu *cpu, uint64_t value, struct error *err)
{
    cpu->run->msr.error = !efer_valid(cpu, value);
    if (cpu->run->msr.error)
        return 0;
    if (kvm_complete(cpu, err) < 0)
        return -1;
    if (!move_kept(cpu, KVM_SET_MSRS, &value))
        return fail(err, HVRUN_HOST, "KVM: vCPU %u: EFER cannot be set", cpu->vcpu->index);
    return 0;
}

int kvm_exit_wrmsr(struct kvm_cpu *cpu, struct error *err)
{
    uint64_t offset = cpu->vcpu->tsc_offset, value = cpu->run->msr.data;
    uint32_t msr = cpu->run->msr.index;
    stats_exit(&cpu->kvm->vm->stats, EXIT_KIND_MSR, KVM_NO_ADDRESS);
    if (refused(cpu))
        cpu->run->msr.error = 1;
    else if (!kvm_asks_to_count(cpu))
        cpu->run->msr.error = !msr_write(cpu->vcpu, msr, value);
    else if (msr == MSR_EFER)
        return write_efer(cpu, value, err);
    else
        cpu->run->msr.error = !move_kept(cpu, KVM_SET_MSRS, &value);
    if (offset == cpu->vcpu->tsc_offset)
        return 0;
    if (kvm_set_tsc(cpu, err) < 0)
        return -1;
    if (cpu->kvm->chips->tsc_moved)
        cpu->kvm->chips->tsc_moved(cpu);
    return 0;
}
