/* SPDX-License-Identifier: MIT */
/* The paravirtual clock: two MSRs that name structures in guest memory. */
#include "runtime/kvmclock.h"

#include "runtime/vcpu.h"
#include "runtime/vm.h"

#define ENABLED 1u

/* struct pvclock_vcpu_time_info: ns = system_time + (((tsc - tsc_timestamp) << shift) * mul >> 32) */
struct time_info {
    uint32_t version; /* odd while it is being written */
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time; /* ns */
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad[2];
} __attribute__((packed));
#define TSC_STABLE 1u

struct wall_clock { /* the date at guest time 0 */
    uint32_t version, seconds, nanoseconds;
};

/* The ns of a TSC tick as mul / 2^32 * 2^shift, the multiplier as exact as it gets. */
static void set_scale(struct time_info *info, uint32_t khz)
{
    unsigned __int128 mul =
        ((unsigned __int128)1000000 << 64) / khz; /* in 64 bits behind the point */
    info->tsc_shift = 32;
    while (mul >= 1ull << 32) {
        mul >>= 1;
        info->tsc_shift++;
    }
    info->tsc_shift -= 64;
    info->tsc_to_system_mul = (uint32_t)mul;
}

static bool write_time(struct vcpu *cpu, uint64_t physical)
{
    const struct clock *clock = &cpu->vm->clock;
    uint64_t now = clock_now(clock);
    struct time_info info = {.version = 2,
                             .tsc_timestamp = clock_ticks(clock, now) + cpu->tsc_offset,
                             .system_time = now,
                             .flags = TSC_STABLE};
    set_scale(&info, clock_tsc_khz(clock));
    return memory_write(&cpu->vm->memory, physical, &info, sizeof info);
}

static bool write_wall_clock(struct vcpu *cpu, uint64_t physical)
{
    struct wall_clock wall = {.version = 2, .seconds = (uint32_t)cpu->vm->start_date};
    return memory_write(&cpu->vm->memory, physical, &wall, sizeof wall);
}

bool kvmclock_write_msr(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    if (msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_OLD_WALL_CLOCK) {
        cpu->kvm_wall_clock = value;
        return write_wall_clock(cpu, value & ~3ull);
    }
    cpu->kvm_system_time = value;
    return !(value & ENABLED) || write_time(cpu, value & ~3ull);
}

void kvmclock_tsc_changed(struct vcpu *cpu)
{
    if (cpu->kvm_system_time & ENABLED)
        write_time(cpu, cpu->kvm_system_time & ~3ull);
}
