/* SPDX-License-Identifier: MIT */
/* Device fast paths (hvstub.h, struct pv_port): the part of the devices' work that a patched guest
 * does by itself.
 *
 * What the state page offers is worked out anew whenever a device may have changed: after a port
 * access and before each slice. It offers only what is exact until then. Of what stands in the page
 * only the ring's bytes, what was kept for the host, and one bit of a counter are read; the guest
 * may have written anything there, and harms but itself.
 *
 * Where guest and host take turns on one thread there is no other moment to think of. Where vCPUs
 * run meanwhile (`shared`), the page is changed entry by entry, each with one store, and what a
 * guest may have left in an entry is taken by exchange. Only this is offered then:
 *   - what changes by accesses of the guest's own alone, which have to wait for the host's lock;
 *   - the line status and the clock, where a guest may as well have looked a moment before;
 *   - the ACPI timer, as long as nobody sets a time-stamp counter: its formula stays the same;
 *   - one vCPU's deadline;
 *   - the ring, unless the guest waits for an interrupt when the bytes are sent. The host looks at
 *     least every millisecond (stub_devices_look). */
#include "runtime/stub_devices.h"

#include <string.h>

#include "runtime/devices/acpi_pm.h"
#include "runtime/devices/i8254.h"
#include "runtime/devices/mc146818.h"
#include "runtime/devices/uart16550.h"
#include "runtime/interrupts.h"
#include "runtime/stub.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

#define SECOND       1000000000ull
#define PIC_MASK(n)  ((n) ? 0xa1u : 0x21u)
#define SPEAKER_PORT 0x61u    /* gates the 8254's channel 2 */
#define NO_PORT      0x10000u /* no port access */
/* A counter's base is moved on after this time, in ns. Its scale is rounded up in the 64th bit,
 * which is exact for 18 seconds: up to there the sum stays below the next 10^-9 of a tick. */
#define BASE_AGE (8 * SECOND)
/* A slice may run on for so long, in ns: to the end of a block. */
#define OVERRUN 1000
/* Where vCPUs run meanwhile, the host looks again within so many ns. If it is late, a guest that reads the clock is as
 * one that was itself stopped between two reads. */
#define SHARED_SPAN 2000000

/* ---- the tables ---- */
/* An entry that no port's look-up takes: of a port whose low byte is another. */
static struct pv_port no_port(unsigned place)
{
    return (struct pv_port){.negated = (uint16_t) - (place + 1)};
}

static struct pv_port an_entry(unsigned port, unsigned value, unsigned kind)
{
    return (struct pv_port){(uint16_t)-port, (uint8_t)value, (uint8_t)kind};
}

/* One load or store, as the guest's are. */
static uint32_t entry_bits(struct pv_port entry)
{
    uint32_t bits;
    memcpy(&bits, &entry, sizeof bits);
    return bits;
}

static struct pv_port load_entry(const struct pv_port *shown)
{
    struct pv_port entry;
    uint32_t bits = __atomic_load_n((const uint32_t *)shown, __ATOMIC_ACQUIRE);
    memcpy(&entry, &bits, sizeof entry);
    return entry;
}

static void store_entry(struct pv_port *shown, struct pv_port entry)
{
    __atomic_store_n((uint32_t *)shown, entry_bits(entry), __ATOMIC_RELEASE);
}

static bool exchange_entry(struct pv_port *shown, struct pv_port from, struct pv_port to)
{
    uint32_t expected = entry_bits(from);
    return __atomic_compare_exchange_n((uint32_t *)shown, &expected, entry_bits(to), false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void put(struct stub_devices *d, struct pv_port *kept, struct pv_port *shown, unsigned place,
                struct pv_port entry)
{
    if (memcmp(&kept[place], &entry, sizeof entry) == 0)
        return;
    kept[place] = entry;
    store_entry(&shown[place], entry);
    d->changed = true;
}

static void put_in(struct stub_devices *d, bool offered, unsigned port, unsigned value,
                   unsigned kind)
{
    put(d, d->in, d->state->port_in, port & 0xff,
        offered ? an_entry(port, value, kind) : no_port(port & 0xff));
}

static void put_out(struct stub_devices *d, bool offered, unsigned port, unsigned value,
                    unsigned kind)
{
    put(d, d->out, d->state->port_out, port & 0xff,
        offered ? an_entry(port, value, kind) : no_port(port & 0xff));
}

/* ---- devices ---- */
#define COM1(register) (UART16550_PORT + (register))
#define PLACE(port)    ((port)&0xff)

static void show_uart(struct vm *vm, struct stub_devices *d)
{
    struct uart16550_fast fast;
    uart16550_fast(vm->uart, &fast);
    if (fast.input_waits && d->quiet) /* perhaps it listens: the device must see that */
        fast.read &= (uint8_t) ~(1u << UART16550_LSR);
    if (d->shared && fast.send_interrupts)
        fast.later = fast.send = false;
    for (unsigned n = 0; n < UART16550_PORTS; n++) {
        bool later = fast.later && n == UART16550_IER;
        if (n != UART16550_IIR)
            put_in(d, fast.read >> n & 1, COM1(n), later ? 0 : fast.value[n],
                   later ? PV_PORT_IN_KEPT : PV_PORT_IN_VALUE);
        if (n)
            put_out(d, later || fast.same >> n & 1, COM1(n),
                    later ? fast.value[n] : -(unsigned)fast.value[n],
                    later ? PV_PORT_OUT_KEPT : PV_PORT_OUT_SAME);
    }
    put_in(d, fast.later && !d->shared, COM1(UART16550_IIR), fast.value[UART16550_IIR],
           PV_PORT_IN_ONCE);
    put_out(d, fast.send, COM1(0), 0, PV_PORT_OUT_POSTED);
    uint32_t after = (uint32_t)fast.identified << 16;
    if (after != d->once_after) {
        d->once_after = d->state->once_after = after;
        d->changed = true;
    }
}

static void take_identification(struct vm *vm, struct stub_devices *d)
{
    struct pv_port *read = &d->in[PLACE(COM1(UART16550_IIR))];
    uint8_t now = load_entry(&d->state->port_in[PLACE(COM1(UART16550_IIR))]).value;
    if (read->kind != PV_PORT_IN_ONCE || now == read->value || now != d->once_after >> 16)
        return;
    read->value = now;
    d->taken = true;
    uart16550_acknowledge(vm->uart);
}

/* The guest may have found the entry just before it was withdrawn, and have left something since.
 * If it leaves more right now, that is for the next time. */
static void take_enables(struct vm *vm, struct stub_devices *d)
{
    struct pv_port *kept = &d->out[PLACE(COM1(UART16550_IER))];
    struct pv_port *shown = &d->state->port_out[PLACE(COM1(UART16550_IER))];
    struct pv_port left = load_entry(shown), after = *kept;
    if (left.kind != PV_PORT_OUT_WRITTEN)
        return;
    if (kept->kind == PV_PORT_OUT_KEPT)
        after.value = left.value;
    if (!exchange_entry(shown, left, after))
        return;
    *kept = after;
    d->changed = d->taken = true;
    uart16550_enable(vm->uart, left.value);
}

/* An identification that was read comes first, then what was enabled: so an interrupt of bytes
 * behind both is not lost, and one that the guest has turned off does not come. */
static void take_uart(struct vm *vm, struct stub_devices *d)
{
    take_identification(vm, d);
    take_enables(vm, d);
}

static void show_pic(struct vm *vm, struct stub_devices *d)
{
    for (unsigned chip = 0; chip < 2; chip++) {
        uint8_t mask;
        bool fast = i8259_mask(vm, chip, &mask);
        put_in(d, fast, PIC_MASK(chip), mask, PV_PORT_IN_VALUE);
        put_out(d, fast, PIC_MASK(chip), -(unsigned)mask, PV_PORT_OUT_SAME);
    }
}

/* The guest leaves the index in the entry: in `port_out`, which is the guest's own. */
static void show_rtc(struct vm *vm, struct stub_devices *d)
{
    uint64_t until = d->shared ? clock_now(&vm->clock) + SHARED_SPAN : d->until + OVERRUN;
    uint64_t version = mc146818_version(vm->mc146818, until);
    put_out(d, true, MC146818_INDEX_PORT, mc146818_index(vm->mc146818), PV_PORT_OUT_KEPT);
    put_in(d, true, MC146818_INDEX_PORT + 1, 0, PV_PORT_IN_CMOS);
    if (version == d->cmos_version)
        return;
    d->cmos_version = version;
    mc146818_fast(vm->mc146818, until, d->state->cmos);
    d->changed = true;
}

static void take_rtc(struct vm *vm, struct stub_devices *d)
{
    uint8_t index = load_entry(&d->state->port_out[MC146818_INDEX_PORT]).value;
    if (index == d->out[MC146818_INDEX_PORT].value)
        return;
    d->out[MC146818_INDEX_PORT].value = index;
    mc146818_set_index(vm->mc146818, index);
}

/* ---- counters ---- */
/* True if every vCPU's TSC is guest time plus *offset. Where vCPUs run meanwhile, one that was changed is not followed. */
static bool common_tsc(const struct vm *vm, struct stub_devices *d, uint64_t *offset)
{
    *offset = vm->vcpus[0]->tsc_offset;
    for (unsigned k = 1; k < vm->vcpu_count; k++)
        if (vm->vcpus[k]->tsc_offset != *offset)
            return false;
    if (d->shared && *offset)
        d->tsc_moved = true;
    return !d->tsc_moved;
}

/* 2^64 * hz / the TSC's frequency, rounded up. */
static uint64_t scale_of(const struct vm *vm, uint32_t hz)
{
    return (uint64_t)(((unsigned __int128)hz << 64) / (clock_tsc_khz(&vm->clock) * 1000ull)) + 1;
}

/* Whole seconds after `since`, at which the counter has counted a whole number of ticks: the base
 * in use, or a later one if that is too old or none of these. Where vCPUs run meanwhile it stays: its rounding
 * moves the count by a millionth of a tick in an hour. */
static uint64_t base_for(const struct vm *vm, uint64_t since, uint64_t in_use)
{
    uint64_t now = clock_now(&vm->clock);
    bool fits = in_use >= since && (in_use - since) % SECOND == 0 && in_use <= now;
    if (vm->stub->devices.shared)
        return since;
    return fits && now - in_use < BASE_AGE ? in_use : now - (now - since) % SECOND;
}

static void show_counter(struct stub_devices *d, struct pv_counter *kept, struct pv_counter *shown,
                         const struct pv_counter *wanted)
{
    if (memcmp(kept, wanted, sizeof *wanted) == 0)
        return;
    *kept = *shown = *wanted;
    d->changed = true;
}

/* A reader may be under way: what it computes with stays. */
static void withdraw_pm_timer(struct stub_devices *d)
{
    if (d->pm.negated_port == 1)
        return;
    d->pm.negated_port = 1;
    d->pm.version++;
    __atomic_store_n(&d->state->pm.version, d->pm.version, __ATOMIC_RELEASE);
    __atomic_store_n(&d->state->pm.negated_port, 1, __ATOMIC_RELEASE);
    d->changed = true;
}

static void show_pm_timer(struct vm *vm, struct stub_devices *d)
{
    struct pv_counter wanted = {.negated_port = 1, .version = d->pm.version}; /* no port */
    uint64_t offset;
    bool offered = common_tsc(vm, d, &offset);
    if (!offered && d->shared) {
        withdraw_pm_timer(d);
        return;
    }
    if (offered) {
        d->pm_base = base_for(vm, 0, d->pm_base);
        wanted.negated_base = -(clock_ticks(&vm->clock, d->pm_base) + offset);
        wanted.scale = scale_of(vm, ACPI_PM_TIMER_HZ);
        wanted.start = (uint32_t)(d->pm_base / SECOND * ACPI_PM_TIMER_HZ);
        wanted.negated_port = -(uint32_t)ACPI_PM_TIMER;
    }
    if (memcmp(&wanted, &d->pm, sizeof wanted) != 0)
        wanted.version++;
    show_counter(d, &d->pm, &d->state->pm, &wanted);
}

static void show_pit(struct vm *vm, struct stub_devices *d)
{
    struct i8254_counter counter;
    uint64_t offset;
    bool offered = i8254_counter(vm->i8254, &counter) && common_tsc(vm, d, &offset);
    for (unsigned channel = 0; channel < 3; channel++)
        put_in(d, offered && channel == counter.channel, I8254_PORT + channel, 0, PV_PORT_IN_PIT);
    d->pit_alternates = offered && counter.alternate;
    d->pit_channel = counter.channel;
    if (!offered)
        return;
    d->pit_base = base_for(vm, counter.since, d->pit_base);
    struct pv_counter wanted = {
        .negated_base = -(clock_ticks(&vm->clock, d->pit_base) + offset),
        .scale = counter.stands ? 0 : scale_of(vm, I8254_HZ),
        .start = counter.start - (uint32_t)((d->pit_base - counter.since) / SECOND * I8254_HZ),
        .version = d->pit.version,
        .step = counter.alternate ? 1 : 2,
    };
    if (counter.stands)
        wanted.start = counter.start;
    if (memcmp(&wanted, &d->pit, sizeof wanted) != 0 || (d->pit.version & 1) != counter.high)
        wanted.version = ((d->pit.version + 2) & ~1u) | counter.high;
    show_counter(d, &d->pit, &d->state->pit, &wanted);
}

/* Reads that the guest did by itself have moved it on. */
static void take_pit(struct vm *vm, struct stub_devices *d)
{
    uint32_t version = __atomic_load_n(&d->state->pit.version, __ATOMIC_ACQUIRE);
    if (version == d->pit.version)
        return;
    d->pit.version = version;
    if (d->pit_alternates)
        i8254_set_high(vm->i8254, d->pit_channel, version & 1);
}

/* ---- the APIC timer's deadline ---- */
/* The limit is the end of the slice: then the host looks. Where the vCPU runs meanwhile (one alone: the place is its own)
 * it is twice as far as the host's looks are apart. So a deadline behind it that one look just misses, because the guest's
 * store was still on its way, is found by the next. */
static void show_deadline(struct vm *vm, struct stub_devices *d)
{
    uint64_t limit = UINT64_MAX, until = d->until;
    if (d->shared)
        until = clock_now(&vm->clock) + SHARED_SPAN;
    if (d->owner && lapic_takes_deadlines(d->owner))
        limit = clock_ticks(&vm->clock, until) + d->owner->tsc_offset;
    if (limit == d->limit)
        return;
    d->limit = limit;
    __atomic_store_n(&d->state->deadline.limit, limit, __ATOMIC_RELEASE);
    d->changed = true;
}

static void take_deadline(struct stub_devices *d)
{
    if (!__atomic_load_n(&d->state->deadline.posted, __ATOMIC_ACQUIRE) || d->limit == UINT64_MAX)
        return;
    uint64_t deadline = __atomic_exchange_n(&d->state->deadline.posted, 0, __ATOMIC_ACQ_REL);
    d->changed = true;
    if (deadline) /* the guest may have taken it back */
        lapic_write_msr(d->owner, PV_MSR_TSC_DEADLINE, deadline);
}

/* ---- the ring ---- */
static void drain(struct vm *vm, struct stub_devices *d)
{
    uint8_t *ring = d->state->ring;
    uint8_t bytes[PV_RING_SLOTS];
    unsigned count = 0;
    while (count < PV_RING_SLOTS) {
        uint8_t byte = __atomic_load_n(&ring[d->ring_head], __ATOMIC_ACQUIRE);
        if (!byte)
            break;
        bytes[count++] = byte;
        __atomic_store_n(&ring[d->ring_head], 0, __ATOMIC_RELEASE);
        d->ring_head = (d->ring_head + 1) % PV_RING_SLOTS;
    }
    if (!count)
        return;
    d->changed = d->sent = d->taken = true;
    d->quiet = false;
    vm->stats.posted += count;
    uart16550_send(vm->uart, bytes, count);
}

/* ---- when ---- */
/* The page may hold decoded code, if the guest is strange. */
static void tell_memory(struct vm *vm, struct stub_devices *d)
{
    if (d->changed)
        memory_written(&vm->memory, vm->stub->state_physical, sizeof *d->state);
    d->changed = false;
}

static void take(struct vm *vm, struct stub_devices *d)
{
    take_uart(vm, d);
    drain(vm, d);
    take_pit(vm, d);
    take_rtc(vm, d);
    take_deadline(d);
}

/* The 8254's counter is several words, which change together: where vCPUs run meanwhile, only in an access of the guest's
 * to the 8254, which it does not mix with others. */
static bool pit_may_change(const struct stub_devices *d, unsigned port)
{
    return !d->shared || port == SPEAKER_PORT || port - I8254_PORT < 4;
}

static void show(struct vm *vm, struct stub_devices *d, unsigned port)
{
    show_uart(vm, d);
    show_pic(vm, d);
    show_rtc(vm, d);
    if (pit_may_change(d, port))
        show_pit(vm, d);
    show_pm_timer(vm, d);
    show_deadline(vm, d);
    d->taken = false;
    tell_memory(vm, d);
}

/* A port that nobody listens or speaks on has a place if no other wants it. */
static void learn(struct vm *vm, struct stub_devices *d, uint16_t port)
{
    unsigned place = port & 0xff;
    struct pv_port none = no_port(place);
    if (bus_reads_ones(&vm->bus, port) && memcmp(&d->in[place], &none, sizeof none) == 0)
        put_in(d, true, port, 0xff, PV_PORT_IN_VALUE);
    if (bus_drops(&vm->bus, port) && memcmp(&d->out[place], &none, sizeof none) == 0)
        put_out(d, true, port, 0, PV_PORT_OUT_NOTHING);
}

static void before_access(void *context)
{
    struct vm *vm = context;
    take(vm, &vm->stub->devices);
}

static void after_access(void *context, uint16_t port)
{
    struct vm *vm = context;
    learn(vm, &vm->stub->devices, port);
    show(vm, &vm->stub->devices, port);
}

/* Of what is mapped to memory, the APIC alone is shown; but what was taken before may interrupt the
 * guest now, and then it must find the device so. */
static void after_mmio(void *context)
{
    struct vm *vm = context;
    struct stub_devices *d = &vm->stub->devices;
    if (d->taken)
        show(vm, d, NO_PORT);
    else
        show_deadline(vm, d);
}

void stub_devices_start(struct vm *vm)
{
    struct stub *stub = vm->stub;
    struct stub_devices *d = &stub->devices;
    if (!stub->state_physical)
        return;
    d->state = (void *)memory_at(&vm->memory, stub->state_physical, sizeof *d->state);
    if (!d->state) /* stub_attach has looked: it is there */
        return;
    memset(d->state->ring, 0, sizeof d->state->ring);
    d->state->ring_tail = d->state->ring_lock = 0;
    d->limit = d->state->deadline.limit = UINT64_MAX;
    d->state->deadline.posted = 0;
    d->cmos_version = UINT64_MAX; /* none */
    d->state->once_after = 0;
    for (unsigned place = 0; place < 256; place++) {
        d->in[place] = d->state->port_in[place] = no_port(place);
        d->out[place] = d->state->port_out[place] = no_port(place);
    }
    d->changed = true;
    d->shared = !vm->engine->takes_turns;
    if (d->shared && vm->vcpu_count == 1)
        d->owner = vm->vcpus[0];
    mc146818_attend(vm->mc146818);
    vm->bus.before = before_access;
    vm->bus.after = after_access;
    vm->bus.after_mmio = after_mmio;
    vm->bus.context = vm;
    show(vm, d, I8254_PORT); /* everything */
}

static void begin(struct vm *vm, struct stub_devices *d)
{
    take(vm, d);
    d->quiet = !d->sent;
    d->sent = false;
}

void stub_devices_begin(struct vcpu *cpu, uint64_t length)
{
    struct vm *vm = cpu->vm;
    struct stub_devices *d = &vm->stub->devices;
    if (!d->state)
        return;
    if (d->shared) {
        take(vm, d);
    } else {
        begin(vm, d);
        d->owner = cpu;
        d->until = clock_now(&vm->clock) + length;
    }
    show(vm, d, NO_PORT);
}

bool stub_devices_look(struct vm *vm)
{
    struct stub_devices *d = vm->stub ? &vm->stub->devices : NULL;
    if (!d || !d->state)
        return false;
    begin(vm, d);
    show(vm, d, NO_PORT);
    return true;
}

void stub_devices_take(struct vm *vm)
{
    if (vm->stub->devices.state)
        take(vm, &vm->stub->devices);
}

void stub_devices_changed(struct vm *vm)
{
    if (vm->stub->devices.state)
        show(vm, &vm->stub->devices, NO_PORT);
}
