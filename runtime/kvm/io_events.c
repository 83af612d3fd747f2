/* SPDX-License-Identifier: MIT */
/* IO blocks on this engine: several port accesses in one exit (io_dispatcher.h).
 *
 * An exit of KVM's carries one access in the run page, and costs one ioctl. Which block it begins says its address, which
 * is in the registers: to fetch and to bring back these, and the rest of the state that the soft processor needs to
 * execute the block, takes some twenty ioctls. So a block must take along IO_WORTH accesses to pay, and whether it does
 * is learned by port: of its exits every fourth is tried, at each failure at twice the distance; where it paid, the
 * next exit too. The exit of an access that leads nowhere stays one ioctl.
 *
 * KVM completes the instruction, with zeros for what it reads, and then RIP is moved back to where it began: executed
 * once more, it overwrites all that it wrote. Only its own last bytes and the port say where that is. String
 * instructions change more, and are left alone. */
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/io_hasher.h"
#include "runtime/io_interpreter.h"
#include "runtime/io_pointer.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"

#define IO_WORTH     8u
#define DISTANCE_MIN 4u
#define DISTANCE_MAX 4096u
#define INSTRUCTIONS 20000 /* of an event: others wait for the lock */

static struct kvm_port *port_of(struct kvm_cpu *cpu)
{
    uint16_t port = cpu->run->io.port;
    struct kvm_port *p = &cpu->ports[(port ^ port >> 6) % KVM_PORTS];
    if (p->port != port || !p->distance)
        *p = (struct kvm_port){.port = port, .distance = DISTANCE_MIN, .due = DISTANCE_MIN};
    return p;
}

bool kvm_io_due(struct kvm_cpu *cpu)
{
    if (!cpu->kvm->vm->io_blocks || cpu->run->io.count != 1 || cpu->vcpu->unbatched)
        return false;
    struct kvm_port *p = port_of(cpu);
    return p->due <= 1 || --p->due == 0;
}

static void learn(struct kvm_cpu *cpu, uint64_t accesses)
{
    struct kvm_port *p = port_of(cpu);
    if (accesses >= IO_WORTH)
        p->distance = DISTANCE_MIN / 2;
    else if (p->distance < DISTANCE_MAX)
        p->distance *= 2;
    p->due = accesses >= IO_WORTH ? 1 : p->distance;
}

/* ---- back to the instruction ---- */
struct access {
    uint16_t port;
    uint8_t size;
    bool out;
};

/* Bytes of an instruction that ends at RIP and makes this access; 0: none. Prefixes without effect may stand before. */
static unsigned length_of(struct vcpu *vcpu, const struct access *access)
{
    enum { LONGEST = 3 };
    for (unsigned length = LONGEST; length > 0; length--) {
        uint8_t bytes[LONGEST];
        struct io_instruction i;
        if (io_guest_read(vcpu, io_pointer_linear(vcpu) - length, bytes, length) == length &&
            io_interpret(bytes, length, vcpu_code_bits(vcpu), &i) && i.length == length &&
            i.width == access->size && i.out == access->out && !i.string &&
            (i.port_in_dx ? (uint16_t)vcpu->r[RDX] : i.port) == access->port)
            return length;
    }
    return 0;
}

/* The access alone, of an instruction that KVM has completed. */
static void make_access(struct kvm_cpu *cpu, const struct access *access, uint32_t value)
{
    struct vm *vm = cpu->kvm->vm;
    stats_exit(&vm->stats, EXIT_KIND_IO, KVM_NO_ADDRESS);
    vm->stats.io_events++;
    vm->stats.io_instructions++;
    if (access->out) {
        bus_out(&vm->bus, access->port, access->size, value);
        return;
    }
    value = bus_in(&vm->bus, access->port, access->size);
    if (access->size == 4)
        cpu->vcpu->r[RAX] = value;
    else
        memcpy(&cpu->vcpu->r[RAX], &value, access->size);
}

/* Traps of the guest's own come between two instructions, and so does what KVM was about to deliver. */
static bool alone(const struct kvm_cpu *cpu)
{
    const struct vcpu *vcpu = cpu->vcpu;
    return kvm_event_queued(cpu) || vcpu->rflags & RFLAGS_TF || vcpu->dr[7] & 0xff ||
           vcpu->pending_db || !io_pointer_flat(vcpu);
}

int kvm_io_event(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_run *run = cpu->run;
    struct vcpu *vcpu = cpu->vcpu;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    const struct access access = {
        .port = run->io.port, .size = run->io.size, .out = run->io.direction == KVM_EXIT_IO_OUT};
    uint32_t value = 0;
    uint64_t before = cpu->kvm->vm->stats.io_instructions;
    if (access.out)
        memcpy(&value, data, access.size);
    else
        memset(data, 0, access.size);
    if (kvm_complete(cpu, err) < 0 || kvm_pull(cpu, err) < 0)
        return -1;
    cpu->kvm->io_pulls++;
    kvm_soft_fresh(cpu->kvm);
    unsigned length = alone(cpu) ? 0 : length_of(vcpu, &access);
    if (length) {
        struct vcpu *running = cpu->kvm->vm->running;
        io_pointer_set(vcpu, io_pointer_linear(vcpu) - length);
        cpu->translations_stale = true;
        soft_io_event(vcpu, INSTRUCTIONS);
        cpu->kvm->vm->running = running;
    } else {
        make_access(cpu, &access, value);
    }
    learn(cpu, cpu->kvm->vm->stats.io_instructions - before);
    return 0;
}
