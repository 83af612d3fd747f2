/* SPDX-License-Identifier: MIT */
/* One number for the guest's state: equal runs give equal numbers. */
#ifndef RUNTIME_STATE_HASH_H
#define RUNTIME_STATE_HASH_H

#include <stdint.h>

struct vcpu;
struct vm;

/* Registers, segments, control and debug registers, MSRs, x87 and SSE state, activity, shadows and events of the vCPU. */
uint64_t vcpu_state_hash(const struct vcpu *cpu);
/* All vCPUs, RAM and guest time. Devices show in it as far as the guest has seen them. */
uint64_t vm_state_hash(const struct vm *vm);

#endif
