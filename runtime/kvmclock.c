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

static bool write_time(struct vcpu *cpu, uint64_t physical)
{
    uint64_t now = clock_now(&cpu->vm->clock);
    struct time_info info = {.version = 2,
                             .tsc_timestamp = now + cpu->tsc_offset,
                             .system_time = now,
                             .tsc_to_system_mul = 1u << 31, /* with the shift: 1 TSC tick = 1 ns */
                             .tsc_shift = 1,
                             .flags = TSC_STABLE};
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
