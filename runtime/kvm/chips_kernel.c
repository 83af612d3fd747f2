/* SPDX-License-Identifier: MIT */
/* Interrupt chips and 8254 of the kernel: accesses to them do not come here, nor do halted vCPUs, interrupts and
 * start-up messages. The devices of this process raise lines. (Linux Documentation/virt/kvm/api.rst) */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "runtime/interrupts.h"
#include "runtime/kvm/kvm.h"

#define MSR_TSC_DEADLINE 0x6e0u

#define ISA_LINES   16u
#define ISA_CASCADE 2u
#define PIC_PINS    8u

/* Whether they have halted for ever: see below. */
#define PATIENCE_MIN 20000000ull  /* ns from one look to the next, */
#define PATIENCE_MAX 640000000ull /* and at most, while they are alive but wait */
#define IDLE_TIME    20000ull     /* ns of processor time: what a look itself costs */

/* ---- lines ---- */
/* Where each line leads: as in irq.c. */
static int route_lines(struct kvm *kvm, struct error *err)
{
    struct kvm_irq_routing *table =
        calloc(1, sizeof *table + (ISA_LINES + IOAPIC_PINS) * sizeof(struct kvm_irq_routing_entry));
    if (!table)
        return fail(err, HVRUN_HOST, "KVM engine: out of memory");
    for (unsigned line = 0; line < IOAPIC_PINS; line++) {
        if (line == ISA_CASCADE)
            continue;
        struct kvm_irq_routing_entry entry = {.gsi = line, .type = KVM_IRQ_ROUTING_IRQCHIP};
        entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
        entry.u.irqchip.pin = line == IRQ_TIMER ? IOAPIC_TIMER_PIN : line;
        table->entries[table->nr++] = entry;
        if (line >= ISA_LINES)
            continue;
        entry.u.irqchip.irqchip = line < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
        entry.u.irqchip.pin = line % PIC_PINS;
        table->entries[table->nr++] = entry;
    }
    int result = ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, table);
    free(table);
    return result < 0 ? kvm_system_failed(err, "KVM_SET_GSI_ROUTING") : 0;
}

static void set_line(struct vm *vm, unsigned line, bool level)
{
    struct kvm *kvm = vm->kvm;
    if (!kvm || line >= IOAPIC_PINS || line == ISA_CASCADE || (kvm->lines >> line & 1) == level)
        return; /* lines are low when the machine is made */
    struct kvm_irq_level asked = {.irq = line, .level = level};
    kvm->lines ^= 1u << line;
    if (level &&
        vm->running) /* the soft processor may be under way with an IO block: KVM delivers it */
        vcpu_kick(vm->running);
    kvm->line_ioctls++;
    if (ioctl(kvm->vm_fd, KVM_IRQ_LINE, &asked) < 0) {
        kvm_system_failed(&kvm->failure, "KVM_IRQ_LINE");
        vm_stop(vm, SHUTDOWN_HOST_ERROR, HVRUN_HOST);
    }
}

/* ---- the local APIC, for who asks here: instructions that the soft processor executes ---- */
union one_msr {
    struct kvm_msrs head;
    char space[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static int read_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    union one_msr list = {.head.nmsrs = 1};
    struct kvm *kvm = vcpu->vm->kvm;
    if (!kvm || !kvm->cpus[vcpu->index].vcpu)
        return 1;
    list.head.entries[0].index = msr;
    if (ioctl(kvm->cpus[vcpu->index].fd, KVM_GET_MSRS, &list) != 1)
        return -1;
    *value = list.head.entries[0].data;
    return 0;
}

static int write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    union one_msr list = {.head.nmsrs = 1};
    struct kvm *kvm = vcpu->vm->kvm;
    if (!kvm || !kvm->cpus[vcpu->index].vcpu)
        return 1;
    list.head.entries[0] = (struct kvm_msr_entry){.index = msr, .data = value};
    return ioctl(kvm->cpus[vcpu->index].fd, KVM_SET_MSRS, &list) == 1 ? 0 : -1;
}

/* CR8 moves with the state that is pushed. */
static uint8_t get_tpr(struct vcpu *vcpu)
{
    struct kvm *kvm = vcpu->vm->kvm;
    return kvm && kvm->cpus[vcpu->index].run ? (uint8_t)kvm->cpus[vcpu->index].run->cr8 : 0;
}

static void set_tpr(struct vcpu *vcpu, uint8_t cr8)
{
    vcpu->vm->kvm->cpus[vcpu->index].run->cr8 = cr8 & 15u;
}

const struct interrupt_chips kvm_kernel_interrupt_chips = {.set_line = set_line,
                                                           .read_msr = read_msr,
                                                           .write_msr = write_msr,
                                                           .get_tpr = get_tpr,
                                                           .set_tpr = set_tpr};

/* ---- what the soft processor leaves to the kernel ---- */
static bool elsewhere(uint64_t address, bool port)
{
    static const struct {
        uint64_t first, count;
        bool port;
    } theirs[] = {{0x20, 2, true},
                  {0xa0, 2, true},
                  {0x4d0, 2, true},
                  {0x40, 4, true},
                  {0x61, 1, true},
                  {IOAPIC_BASE, 0x1000, false},
                  {LAPIC_BASE, 0x1000, false}};
    for (size_t n = 0; n < sizeof theirs / sizeof theirs[0]; n++)
        if (theirs[n].port == port && address - theirs[n].first < theirs[n].count)
            return true;
    return false;
}

/* ---- made ---- */
/* Interrupts of the 8254 that the guest has not taken when the next comes are lost, as those of our own are. */
static int create(struct kvm *kvm, struct error *err)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY}; /* with port 0x61 */
    struct kvm_reinject_control lost = {.pit_reinject = 0};
    kvm->vm->bus.elsewhere = elsewhere;
    kvm->patience = PATIENCE_MIN;
    kvm->look = 0;
    if (ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return kvm_system_failed(err, "KVM_CREATE_IRQCHIP");
    if (ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return kvm_system_failed(err, "KVM_CREATE_PIT2");
    if (ioctl(kvm->vm_fd, KVM_REINJECT_CONTROL, &lost) < 0)
        return kvm_system_failed(err, "KVM_REINJECT_CONTROL");
    return route_lines(kvm, err);
}

/* LINT1 as firmware leaves it; LINT0 is the 8259's already. (SDM 3A 11.5.1) */
static int set_up_cpu(struct kvm_cpu *cpu, struct error *err)
{
    enum { LVT_LINT1_OFFSET = 0x360, LVT_DELIVER_NMI = APIC_NMI << 8 };
    struct kvm_lapic_state apic;
    if (cpu->vcpu->index != 0)
        return 0;
    if (kvm_cpu_ioctl(cpu, KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC", err) < 0)
        return -1;
    const uint32_t lint1 = LVT_DELIVER_NMI;
    memcpy(apic.regs + LVT_LINT1_OFFSET, &lint1, 4);
    return kvm_cpu_ioctl(cpu, KVM_SET_LAPIC, &apic, "KVM_SET_LAPIC", err);
}

/* The kernel turns a deadline into a time when it is set: with another TSC it is another time. */
static void tsc_moved(struct kvm_cpu *cpu)
{
    uint64_t deadline;
    if (read_msr(cpu->vcpu, MSR_TSC_DEADLINE, &deadline) == 0 && deadline)
        write_msr(cpu->vcpu, MSR_TSC_DEADLINE, deadline);
}

/* ---- a vCPU's course ---- */
/* A HLT that was executed here: by a doorbell's handler, or by the soft processor. */
static int halt_in_kernel(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_mp_state halted = {.mp_state = KVM_MP_STATE_HALTED};
    if (kvm_complete(cpu, err) < 0 || kvm_push(cpu, err) < 0)
        return -1;
    return kvm_cpu_ioctl(cpu, KVM_SET_MP_STATE, &halted, "KVM_SET_MP_STATE", err);
}

/* As far as this process is concerned a vCPU is always active: the kernel lets it wait. */
static int offer(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *vcpu = cpu->vcpu;
    if (vcpu->activity == ACTIVITY_HLT && halt_in_kernel(cpu, err) < 0)
        return -1;
    vcpu->activity = ACTIVITY_ACTIVE;
    if (vcpu->events & VCPU_EVENT_NMI) {
        vcpu->events &= ~VCPU_EVENT_NMI;
        if (kvm_cpu_ioctl(cpu, KVM_NMI, NULL, "KVM_NMI", err) < 0)
            return -1;
    }
    return kvm_push(cpu, err);
}

static bool sleeps(const struct kvm_cpu *cpu)
{
    return cpu->parked;
}

static int ask_state(struct kvm_cpu *cpu, uint32_t *state, struct error *err)
{
    struct kvm_mp_state mp;
    if (kvm_cpu_ioctl(cpu, KVM_GET_MP_STATE, &mp, "KVM_GET_MP_STATE", err) < 0)
        return -1;
    *state = mp.mp_state;
    return 0;
}

/* Only another vCPU can wake it. 1, 0, or -1 with *err. */
static int is_dead(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_vcpu_events events;
    uint32_t state;
    if (ask_state(cpu, &state, err) < 0)
        return -1;
    if (state == KVM_MP_STATE_UNINITIALIZED || state == KVM_MP_STATE_INIT_RECEIVED)
        return 1;
    if (state != KVM_MP_STATE_HALTED || cpu->run->if_flag)
        return 0;
    if (kvm_cpu_ioctl(cpu, KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS", err) < 0)
        return -1;
    return !events.nmi.pending && !events.nmi.injected;
}

static void entering(struct kvm_cpu *cpu)
{
    if (cpu->kvm->roll_call && !cpu->answered)
        cpu->run->immediate_exit = 1;
}

static int left(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm *kvm = cpu->kvm;
    if (!kvm->roll_call || cpu->answered)
        return 0;
    int dead = is_dead(cpu, err);
    cpu->answered = true;
    cpu->parked = dead > 0;
    kvm->alive |= dead == 0;
    if (dead == 0)
        vm_wake(kvm->vm);
    return dead < 0 ? -1 : 0;
}

/* For who looks at the machine when it has ended. */
static void ended(struct kvm_cpu *cpu)
{
    struct error ignored = {0};
    uint32_t state;
    if (ask_state(cpu, &state, &ignored) == 0)
        cpu->vcpu->activity = state == KVM_MP_STATE_HALTED          ? ACTIVITY_HLT
                              : state == KVM_MP_STATE_UNINITIALIZED ? ACTIVITY_WAIT_FOR_SIPI
                              : state == KVM_MP_STATE_INIT_RECEIVED ? ACTIVITY_WAIT_FOR_SIPI
                                                                    : ACTIVITY_ACTIVE;
}

/* ---- halted for ever? ----
 * The kernel does not tell that a vCPU has halted. When no vCPU's thread has used any time for a while, all of them are
 * asked to come out: a roll call. One that is halted with interrupts off stays out, parked; when all are parked none
 * can wake another, and nothing else can. One that is not ends the roll call. */
static void end_roll_call(struct kvm *kvm)
{
    kvm->roll_call = kvm->alive = false;
    kvm->look_afresh = true;
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++) {
        kvm->cpus[k].parked = kvm->cpus[k].answered = false;
        pthread_cond_signal(&kvm->cpus[k].wake);
    }
}

/* Since it was asked last. */
static bool all_idle(struct kvm *kvm)
{
    bool idle = true;
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++) {
        struct kvm_cpu *cpu = &kvm->cpus[k];
        struct timespec used;
        clockid_t its;
        if (!cpu->started || pthread_getcpuclockid(cpu->thread, &its) ||
            clock_gettime(its, &used) < 0)
            return false;
        uint64_t ns = (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
        idle &= ns - cpu->used < IDLE_TIME;
        cpu->used = ns;
    }
    return idle;
}

/* What happened to the others while they came out, one after the other. */
static bool all_dead(struct kvm *kvm)
{
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++)
        if (is_dead(&kvm->cpus[k], &kvm->failure) <= 0)
            return false;
    return true;
}

static bool halted_for_ever(struct kvm *kvm)
{
    uint64_t now = clock_now(&kvm->vm->clock);
    if (kvm->roll_call && !kvm->alive && kvm->halted < kvm_threads(kvm))
        return false; /* they are still coming */
    if (kvm->roll_call) {
        if (!kvm->alive && all_dead(kvm))
            return true;
        end_roll_call(kvm);
        kvm->patience = kvm->patience < PATIENCE_MAX ? 2 * kvm->patience : PATIENCE_MAX;
        kvm->look = now + kvm->patience;
        return false;
    }
    if (now < kvm->look)
        return false;
    bool idle = all_idle(kvm);
    if (kvm->look_afresh) {
        kvm->look_afresh = false;
    } else if (idle) {
        kvm->roll_call = true;
        for (unsigned k = 0; k < kvm->vm->vcpu_count; k++)
            kvm_kick(&kvm->cpus[k]);
    } else {
        kvm->patience = PATIENCE_MIN;
    }
    kvm->look = now + kvm->patience;
    return false;
}

const struct kvm_chips kvm_kernel_chips = {.collects = true,
                                           .create = create,
                                           .set_up_cpu = set_up_cpu,
                                           .offer = offer,
                                           .sleeps = sleeps,
                                           .entering = entering,
                                           .left = left,
                                           .ended = ended,
                                           .tsc_moved = tsc_moved,
                                           .halted_for_ever = halted_for_ever};
