/* SPDX-License-Identifier: MIT */
/* Fuzzes the machine's devices: register accesses of every width, through the bus and through MSRs, while
 * guest time passes, lines change, keys are typed, and interrupts are taken. Input: steps of 8 bytes (kind,
 * selector, address, value). */
#include <stdlib.h>
#include <string.h>

#include "runtime/console.h"
#include "runtime/devices/uart16550.h"
#include "runtime/interrupts.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS_MAX 2000

enum kind {
    KIND_OUT,
    KIND_IN,
    KIND_WRITE,
    KIND_READ,
    KIND_WRITE_MSR,
    KIND_READ_MSR,
    KIND_PASS,
    KIND_LINE,
    KIND_TYPE,
    KIND_TAKE,
    KIND_INIT,
    KIND_RESET,
    KINDS
};

struct step {
    uint8_t kind, selector;
    uint16_t address;
    uint32_t value;
};

static struct vm vm;
static uint64_t now;
static uint8_t out[16];
static unsigned typed; /* bytes of input that wait */

/* ---- the console: takes everything, gives what was typed ---- */
int console_open(struct vm *machine, const char *target, struct error *err)
{
    (void)machine, (void)target, (void)err;
    return 0;
}

void console_close(struct vm *machine)
{
    (void)machine;
}

void console_write(struct vm *machine, const uint8_t *bytes, size_t count)
{
    (void)machine;
    memcpy(out, bytes, count < sizeof out ? count : sizeof out); /* they must be there to be read */
}

void console_flush(struct vm *machine)
{
    (void)machine;
}

void console_attend(struct vm *machine)
{
    (void)machine;
}

bool console_readable(struct vm *machine)
{
    (void)machine;
    return typed;
}

int console_read(struct vm *machine)
{
    (void)machine;
    return typed ? (int)(typed-- & 0xff) : -1;
}

static uint64_t time_now(void *context)
{
    (void)context;
    return now;
}

/* ---- steps ---- */

/* Half of the accesses go to a port that a device has. */
static uint16_t port_of(const struct step *s)
{
    if (s->selector & 0x80)
        return s->address;
    const struct bus_window *w = &vm.bus.ports[s->address % vm.bus.port_windows];
    return (uint16_t)(w->first + (s->address >> 8) % w->count);
}

static uint64_t physical_of(const struct step *s)
{
    const struct bus_window *w = &vm.bus.mmio[s->selector >> 3 & 7];
    if ((s->selector >> 3 & 7) >= vm.bus.mmio_windows)
        return (uint64_t)s->address << 16;
    return w->first + s->address % w->count;
}

static void pass(const struct step *s)
{
    uint64_t span = (uint64_t)s->value << (s->selector & 31);
    now += span < UINT64_MAX - now ? span : 0;
    clock_run(&vm.clock);
}

/* As a processor with interrupts on does. */
static void take(struct vcpu *cpu)
{
    for (unsigned i = 0; i < 4 && cpu->events & VCPU_EVENT_INTERRUPT; i++) {
        int vector = lapic_acknowledge(cpu);
        if (vector > 255)
            abort();
    }
    cpu->events &= VCPU_EVENT_INTERRUPT;
}

static void step(const struct step *s)
{
    static const unsigned widths[] = {1, 2, 4, 8};
    struct vcpu *cpu = vm.vcpus[s->selector >> 6 & 1];
    unsigned width = widths[s->selector & 3];
    uint64_t wide = s->value | (uint64_t)~s->value << 32;
    vm.running = cpu; /* whose local APIC answers */
    switch (s->kind % KINDS) {
    case KIND_OUT:
        bus_out(&vm.bus, port_of(s), width > 4 ? 1 : width, s->value);
        break;
    case KIND_IN:
        bus_in(&vm.bus, port_of(s), width > 4 ? 1 : width);
        break;
    case KIND_WRITE:
        bus_write(&vm.bus, physical_of(s), width, wide);
        break;
    case KIND_READ:
        bus_read(&vm.bus, physical_of(s), width);
        break;
    case KIND_WRITE_MSR:
        msr_write(cpu,
                  s->selector & 1  ? 0x800 + (s->address & 0xff)
                  : s->address & 1 ? 0x1b
                                   : 0x6e0,
                  s->selector & 2 ? s->value : wide);
        break;
    case KIND_READ_MSR:
        msr_read(cpu, s->selector & 1 ? 0x800 + (s->address & 0xff) : s->address, &wide);
        break;
    case KIND_PASS:
        pass(s);
        break;
    case KIND_LINE:
        irq_set(&vm, s->selector % IOAPIC_PINS, s->value & 1);
        break;
    case KIND_TYPE:
        typed = s->value & 0xff;
        uart16550_attend(vm.uart);
        break;
    case KIND_TAKE:
        take(cpu);
        break;
    case KIND_INIT:
        lapic_init(cpu);
        break;
    case KIND_RESET: {
        unsigned i = s->selector % vm.device_count;
        if (vm.device_type[i]->reset)
            vm.device_type[i]->reset(vm.device[i]);
        break;
    }
    }
}

/* The clock's list stays sorted, finite, and of armed timers. */
static void check_timers(void)
{
    unsigned count = 0;
    for (const struct timer *t = vm.clock.first; t; t = t->next)
        if (++count > 100 || !t->armed || (t->next && t->next->deadline < t->deadline))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    memset(&vm, 0, sizeof vm);
    vm.config.memory = 1 << 20;
    vm.config.smp = 2;
    vm.config.deterministic = true;
    now = typed = 0;
    if (vm_create(&vm, &err))
        abort();
    vm.clock.source = time_now;
    size_t steps = size / sizeof(struct step);
    for (size_t i = 0; i < steps && i < STEPS_MAX; i++) {
        struct step s;
        memcpy(&s, data + i * sizeof s, sizeof s);
        step(&s);
        check_timers();
        vm.shutdown = SHUTDOWN_NONE;
    }
    vm_destroy(&vm);
    return 0;
}
