/* SPDX-License-Identifier: MIT */
/* The paravirtual clock that KVM defined and guests know (Linux Documentation/virt/kvm/x86/msr.rst, cpuid.rst).
 *
 * What it is for: on a processor that does not say its frequency, it is how a kernel learns the TSC's without polling the
 * timer, and the date without the RTC. Guest time is the TSC here, so the structure is written once. */
#ifndef RUNTIME_KVMCLOCK_H
#define RUNTIME_KVMCLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct vcpu;

/* The first two are the old numbers of the others, from before the range for such registers. */
#define MSR_KVM_OLD_WALL_CLOCK  0x11u
#define MSR_KVM_OLD_SYSTEM_TIME 0x12u
#define MSR_KVM_WALL_CLOCK      0x4b564d00u
#define MSR_KVM_SYSTEM_TIME     0x4b564d01u

/* CPUID 0x40000001 EAX: what is offered */
#define KVM_FEATURE_CLOCKSOURCE  (1u << 0) /* the old numbers */
#define KVM_FEATURE_NOP_IO_DELAY (1u << 1) /* no port 0x80 writes between port accesses */
#define KVM_FEATURE_CLOCKSOURCE2 (1u << 3)
#define KVM_FEATURE_CLOCK_STABLE (1u << 24)
#define KVM_FEATURES                                                                               \
    (KVM_FEATURE_CLOCKSOURCE | KVM_FEATURE_NOP_IO_DELAY | KVM_FEATURE_CLOCKSOURCE2 |               \
     KVM_FEATURE_CLOCK_STABLE)

/* WRMSR of one of the two. False: #GP (a structure outside RAM). */
bool kvmclock_write_msr(struct vcpu *cpu, uint32_t msr, uint64_t value);
/* The vCPU's TSC offset changed: its structure says so. */
void kvmclock_tsc_changed(struct vcpu *cpu);

#endif
