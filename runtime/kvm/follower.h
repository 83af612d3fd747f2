/* SPDX-License-Identifier: MIT */
/* KVM as the follower in lockstep. */
#ifndef RUNTIME_KVM_FOLLOWER_H
#define RUNTIME_KVM_FOLLOWER_H

#include "runtime/lockstep.h"
#include "runtime/vm.h"

/* A VM on the KVM engine that begins as the leader is. NULL with *err set. */
struct lockstep_follower *kvm_follower_open(struct vm *leader, struct error *err);

#endif
