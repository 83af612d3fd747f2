/* SPDX-License-Identifier: MIT */
/* Device fast paths: what of the devices a patched guest may do by itself, kept up to date in its
 * state page. */
#ifndef RUNTIME_STUB_DEVICES_H
#define RUNTIME_STUB_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "hvstub/hvstub.h"

struct vcpu;
struct vm;

struct stub_devices {
    struct pv_state *state; /* in guest memory; NULL = there is none */
    bool shared;            /* vCPUs run while the host is at work here */
    /* what the state page was last given */
    struct pv_port in[256], out[256];
    struct pv_counter pit, pm;
    uint64_t cmos_version;
    uint32_t once_after;
    uint64_t limit;             /* of deadlines */
    struct vcpu *owner;         /* whose deadline it is: the vCPU that runs, or ran last */
    uint64_t until;             /* guest time in ns when its slice ends */
    uint64_t pit_base, pm_base; /* guest time in ns */
    unsigned pit_channel;
    bool tsc_moved;      /* shared: no counter is offered any more */
    bool pit_alternates; /* the guest's reads of it take low and high byte in turn */
    unsigned ring_head;  /* the slot to empty next */
    bool sent;           /* bytes came since the last slice began */
    bool quiet;          /* none came in the whole of the one before */
    bool taken;          /* something was, and what devices have become of it is not shown yet */
    bool changed;        /* the page, and the memory has not been told */
};

/* Begins to serve the state page of vm->stub, if it has one: from then on every access to a device
 * by the bus first takes what the guest has left there. */
void stub_devices_start(struct vm *vm);

/* Before a vCPU runs for so many ns of guest time at most: shows it what devices have become. */
void stub_devices_begin(struct vcpu *cpu, uint64_t length);

/* Where vCPUs run at the same time: at least every millisecond while one does. False: there is no
 * state page, and no need to. */
bool stub_devices_look(struct vm *vm);

/* Takes what the guest has left: when a vCPU has run, and before anything looks at a device or its
 * APIC but by the bus. */
void stub_devices_take(struct vm *vm);

/* Something that the bus does not know of has changed: a time-stamp counter, an APIC. */
void stub_devices_changed(struct vm *vm);

#endif
