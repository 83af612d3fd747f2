/* SPDX-License-Identifier: MIT */
/* What a guest may ask of the hypervisor by VMMCALL: KVM's numbers (Linux Documentation/virt/kvm/x86/hypercalls.rst). */
#ifndef RUNTIME_HYPERCALL_H
#define RUNTIME_HYPERCALL_H

#include <stdint.h>

struct vcpu;

/* CPUID does not offer it (KVM_FEATURE_PV_SEND_IPI): kernels would send every interrupt so, which costs more than the
 * local APIC's registers, for a call exits where a register need not. */
#define KVM_HC_SEND_IPI 10u

/* The errors of the interface */
#define KVM_EINVAL 22
#define KVM_ENOSYS 1000 /* no such call */

/* RAX's number with the arguments in RBX, RCX, RDX and RSI; outside of 64-bit code their lower halves.
 * The caller has checked the privilege. The result, or a negative error. */
int64_t hypercall(struct vcpu *cpu);

#endif
