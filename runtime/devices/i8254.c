/* SPDX-License-Identifier: MIT */
/* The 8254 programmable interval timer (Intel 8254 data sheet, 231164), and port 0x61 with the gate of
 * channel 2, the speaker bit and the refresh toggle.
 *
 * Nothing is counted: a channel remembers when it began and at which phase, and its count and output are
 * worked out from guest time when somebody looks. Only channel 0 keeps a timer, for the rising edges of
 * its output, which is IRQ 0. */
#include "runtime/devices/i8254.h"

#include <stdlib.h>

#include "runtime/device.h"

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define HZ             I8254_HZ
#define NS_PER_SECOND  1000000000u
#define PERIOD_MIN     1000  /* ns: the timer of channel 0 fires no more often */
#define REFRESH_TOGGLE 15085 /* ns: half a period of channel 1's memory refresh */

#define CHANNELS 3
#define SPEAKER  2 /* the channel whose gate port 0x61 controls */

/* The control word */
#define CONTROL_CHANNEL(v)  ((v) >> 6 & 3u)
#define CONTROL_ACCESS(v)   ((v) >> 4 & 3u)
#define CONTROL_MODE(v)     ((v) >> 1 & 7u)
#define CONTROL_BCD         1u
#define READ_BACK           3u /* in place of a channel */
#define READ_BACK_NO_COUNT  0x20u
#define READ_BACK_NO_STATUS 0x10u
enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

#define STATUS_OUT  0x80u
#define STATUS_NULL 0x40u

/* Port 0x61 */
#define PORT61_GATE    0x01u
#define PORT61_STORED  0x0fu
#define PORT61_REFRESH 0x10u
#define PORT61_OUT     0x20u

/* Modes, by their numbers */
enum {
    MODE_TERMINAL_COUNT,
    MODE_ONE_SHOT,
    MODE_RATE,
    MODE_SQUARE,
    MODE_STROBE,
    MODE_HARDWARE_STROBE
};

struct channel {
    uint8_t mode, access;
    bool bcd, gate;
    uint32_t count; /* in force, in ticks: 1 .. 65536 */
    bool loaded;    /* a count was written since the control word */

    /* Position of the counting element: ticks since the count was loaded. */
    bool counting;
    uint64_t start; /* guest time at which it was `phase` */
    uint64_t phase;

    /* Modes 2 and 3: a count that is taken when the present (half) period ends. */
    bool pending;
    uint32_t pending_count;
    uint64_t pending_at; /* position */

    uint8_t written_low;
    bool write_high, read_high; /* the next byte of ACCESS_BOTH is the high one */
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
};

struct i8254 {
    struct vm *vm;
    struct channel channel[CHANNELS];
    struct timer timer; /* the next rising edge of channel 0's output */
    bool timer_falls;   /* no: the falling one, where a new count is taken */
    uint8_t port61;
    uint8_t last_read; /* channel */
};

/* ---- time ---- */

static uint64_t ticks_in(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * HZ / NS_PER_SECOND);
}

/* The first nanosecond at which that many ticks have passed. */
static uint64_t ns_of(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SECOND + HZ - 1) / HZ);
}

static uint64_t position(const struct channel *c, uint64_t now)
{
    return c->phase + (c->counting ? ticks_in(now - c->start) : 0);
}

static bool periodic(const struct channel *c)
{
    return c->mode == MODE_RATE || c->mode == MODE_SQUARE;
}

/* Ticks of a square wave's period for which it is high: the longer half of an odd one. */
static uint32_t high_half(uint32_t count)
{
    return (count + 1) / 2;
}

static void start_at(struct channel *c, uint64_t now, uint64_t phase)
{
    c->start = now;
    c->phase = phase;
    c->counting = true;
}

/* True if the count that waits is taken where a square wave falls. */
static bool pending_at_fall(const struct channel *c)
{
    return c->mode == MODE_SQUARE && c->pending_at % c->count != 0;
}

/* Takes a new count whose time has come. */
static void settle(struct channel *c, uint64_t now)
{
    if (!c->pending || position(c, now) < c->pending_at)
        return;
    bool falls = pending_at_fall(c);
    uint64_t at = c->start + ns_of(c->pending_at - c->phase);

    c->count = c->pending_count;
    c->pending = false;
    start_at(c, at, falls ? high_half(c->count) : 0);
}

/* ---- output and count ---- */

static bool output(const struct channel *c, uint64_t now)
{
    uint64_t at = position(c, now);

    switch (c->mode) {
    case MODE_TERMINAL_COUNT:
        return c->loaded && at >= c->count;
    case MODE_ONE_SHOT:
        return !c->counting || at >= c->count;
    case MODE_RATE:
        return !c->counting || at % c->count != c->count - 1;
    case MODE_SQUARE:
        return !c->counting || at % c->count < high_half(c->count);
    default: /* the strobes: low for one tick at the end */
        return !c->counting || at != c->count;
    }
}

static uint16_t present_count(const struct channel *c, uint64_t now)
{
    uint64_t at = position(c, now);
    uint32_t modulus = c->bcd ? 10000 : 65536, value;

    switch (c->mode) {
    case MODE_RATE:
        value = (uint32_t)(c->count - at % c->count);
        break;
    case MODE_SQUARE: /* goes down by two, twice a period, and is even */
        value = (uint32_t)(c->count - 2 * at % c->count) & ~1u;
        break;
    default: /* runs on below zero */
        value = (uint32_t)((c->count % modulus + modulus - at % modulus) % modulus);
        break;
    }
    value %= modulus;
    if (!c->bcd)
        return (uint16_t)value;
    return (uint16_t)(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
                      value % 10);
}

/* ---- IRQ 0 ---- */

/* Position of the next rising edge of the output, or UINT64_MAX. */
static uint64_t next_edge(const struct channel *c, uint64_t now)
{
    uint64_t at = position(c, now);

    if (!c->counting)
        return UINT64_MAX;
    switch (c->mode) {
    case MODE_TERMINAL_COUNT:
        return at < c->count ? c->count : UINT64_MAX;
    case MODE_RATE:
    case MODE_SQUARE:
        return (at / c->count + 1) * c->count;
    case MODE_STROBE:
        return at <= c->count ? c->count + 1ull : UINT64_MAX;
    default: /* need a rising gate, which channel 0 has not */
        return UINT64_MAX;
    }
}

/* The line is kept at its level between edges; the low tick or half before an edge is made with it, so that
 * a period costs one event. */
static void schedule(struct i8254 *pit, uint64_t now)
{
    struct channel *c = &pit->channel[0];
    uint64_t edge = next_edge(c, now);

    /* A new count moves the edges only from the present (half) period's end on. */
    pit->timer_falls = c->pending && edge > c->pending_at && pending_at_fall(c);
    if (c->pending && edge > c->pending_at)
        edge = c->pending_at;
    irq_set(pit->vm, IRQ_TIMER, c->mode == MODE_TERMINAL_COUNT ? output(c, now) : true);
    if (edge == UINT64_MAX) {
        clock_cancel(&pit->vm->clock, &pit->timer);
        return;
    }
    uint64_t deadline = c->start + ns_of(edge - c->phase);
    if (deadline < now + PERIOD_MIN && periodic(c) && c->count <= ticks_in(PERIOD_MIN) + 1)
        deadline = now + PERIOD_MIN;
    clock_arm(&pit->vm->clock, &pit->timer, deadline);
}

static void timer_fired(void *context, uint64_t now)
{
    struct i8254 *pit = context;
    struct channel *c = &pit->channel[0];

    settle(c, now);
    if (!pit->timer_falls)
        irq_set(pit->vm, IRQ_TIMER, false);
    schedule(pit, now);
}

/* ---- channels ---- */

static uint32_t from_written(const struct channel *c, uint16_t value)
{
    if (!c->bcd)
        return value ? value : 65536;
    return value ? (value >> 12) * 1000u + (value >> 8 & 15u) * 100u + (value >> 4 & 15u) * 10u +
                       (value & 15u)
                 : 10000;
}

static void load(struct channel *c, uint16_t written, uint64_t now)
{
    uint32_t count = from_written(c, written);

    if (periodic(c) && c->loaded && c->counting) {
        uint64_t at = position(c, now), period = at - at % c->count;
        c->pending = true;
        c->pending_count = count;
        c->pending_at = period + (c->mode == MODE_SQUARE && at - period < high_half(c->count)
                                      ? high_half(c->count)
                                      : c->count);
        return;
    }
    c->loaded = true;
    c->pending = false;
    if (c->mode == MODE_ONE_SHOT || c->mode == MODE_HARDWARE_STROBE) {
        /* The count waits for the gate; one that runs is not disturbed. */
        c->pending_count = count;
        if (!c->counting)
            c->count = count;
        return;
    }
    c->count = count;
    c->counting = false;
    c->phase = 0;
    if (c->gate)
        start_at(c, now, 0);
}

static void write_count(struct channel *c, uint8_t value, uint64_t now)
{
    switch (c->access) {
    case ACCESS_LOW:
        load(c, value, now);
        break;
    case ACCESS_HIGH:
        load(c, (uint16_t)(value << 8), now);
        break;
    default:
        if (c->write_high) {
            load(c, (uint16_t)(value << 8 | c->written_low), now);
        } else {
            c->written_low = value;
            if (c->mode ==
                MODE_TERMINAL_COUNT) { /* the first byte stops it and takes the output down */
                c->loaded = false;
                c->phase = position(c, now);
                c->counting = false;
            }
        }
        c->write_high = !c->write_high;
        break;
    }
}

static uint8_t read_count(struct channel *c, uint64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->count_latched ? c->latch : present_count(c, now);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);

    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (c->access != ACCESS_BOTH || !c->read_high)
        c->count_latched = false;
    return (uint8_t)(high ? value >> 8 : value);
}

static void latch_count(struct channel *c, uint64_t now)
{
    if (c->count_latched)
        return;
    c->latch = present_count(c, now);
    c->count_latched = true;
}

static void latch_status(struct channel *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status =
        (uint8_t)((output(c, now) ? STATUS_OUT : 0) | (!c->loaded || c->pending ? STATUS_NULL : 0) |
                  c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void set_mode(struct channel *c, uint8_t control)
{
    uint8_t mode = CONTROL_MODE(control);

    c->mode = mode > MODE_HARDWARE_STROBE ? mode - 4 : mode; /* modes 2 and 3 have two numbers */
    c->access = CONTROL_ACCESS(control);
    c->bcd = control & CONTROL_BCD;
    c->loaded = c->counting = c->pending = false;
    c->phase = 0;
    c->write_high = c->read_high = c->count_latched = c->status_latched = false;
}

static void set_gate(struct channel *c, bool gate, uint64_t now)
{
    bool rises = gate && !c->gate;

    if (gate == c->gate)
        return;
    c->gate = gate;
    if (!c->loaded)
        return;
    switch (c->mode) {
    case MODE_ONE_SHOT:
    case MODE_HARDWARE_STROBE:
        if (rises) {
            c->count = c->pending_count;
            start_at(c, now, 0);
        }
        break;
    case MODE_RATE:
    case MODE_SQUARE:
        c->phase = 0;
        c->counting = false;
        if (c->pending)
            c->count = c->pending_count;
        c->pending = false;
        if (rises)
            start_at(c, now, 0);
        break;
    default: /* pauses */
        if (rises) {
            start_at(c, now, c->phase);
        } else {
            c->phase = position(c, now);
            c->counting = false;
        }
        break;
    }
}

/* ---- ports ---- */

static void write_control(struct i8254 *pit, uint8_t value, uint64_t now)
{
    if (CONTROL_CHANNEL(value) == READ_BACK) {
        for (unsigned i = 0; i < CHANNELS; i++) {
            if (!(value & 2u << i))
                continue;
            if (!(value & READ_BACK_NO_COUNT))
                latch_count(&pit->channel[i], now);
            if (!(value & READ_BACK_NO_STATUS))
                latch_status(&pit->channel[i], now);
        }
        return;
    }
    struct channel *c = &pit->channel[CONTROL_CHANNEL(value)];
    if (CONTROL_ACCESS(value) == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    }
    set_mode(c, value);
    if (c == &pit->channel[0])
        schedule(pit, now);
}

static void pit_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8254 *pit = device;
    uint64_t now = clock_now(&pit->vm->clock);

    (void)width;
    for (unsigned i = 0; i < CHANNELS; i++)
        settle(&pit->channel[i], now);
    if (offset >= CHANNELS) {
        write_control(pit, (uint8_t)value, now);
        return;
    }
    write_count(&pit->channel[offset], (uint8_t)value, now);
    if (offset == 0)
        schedule(pit, now);
}

static uint64_t pit_read(void *device, uint64_t offset, unsigned width)
{
    struct i8254 *pit = device;
    uint64_t now = clock_now(&pit->vm->clock);

    (void)width;
    if (offset >= CHANNELS)
        return 0xff; /* the control word cannot be read */
    pit->last_read = (uint8_t)offset;
    settle(&pit->channel[offset], now);
    return read_count(&pit->channel[offset], now);
}

/* Modes 2 and 3 begin again at the count, which is the same only for mode 2 with all 65536. */
bool i8254_counter(void *device, struct i8254_counter *counter)
{
    struct i8254 *pit = device;
    if (!pit)
        return false;
    struct channel *c = &pit->channel[pit->last_read];

    settle(c, clock_now(&pit->vm->clock));
    if (c->bcd || c->count_latched || c->status_latched || c->mode == MODE_SQUARE ||
        (c->mode == MODE_RATE && (c->pending || c->count != 65536)))
        return false;
    *counter = (struct i8254_counter){.channel = pit->last_read,
                                      .since = c->start,
                                      .start = (uint16_t)(c->count - c->phase),
                                      .stands = !c->counting,
                                      .alternate = c->access == ACCESS_BOTH,
                                      .high = c->access == ACCESS_HIGH ||
                                              (c->access == ACCESS_BOTH && c->read_high)};
    return true;
}

void i8254_set_high(void *device, unsigned channel, bool high)
{
    struct i8254 *pit = device;
    pit->channel[channel].read_high = high;
}

static uint64_t port61_read(void *device, uint64_t offset, unsigned width)
{
    struct i8254 *pit = device;
    uint64_t now = clock_now(&pit->vm->clock);

    (void)offset;
    (void)width;
    settle(&pit->channel[SPEAKER], now);
    return pit->port61 | (now / REFRESH_TOGGLE % 2 ? PORT61_REFRESH : 0) |
           (output(&pit->channel[SPEAKER], now) ? PORT61_OUT : 0);
}

static void port61_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8254 *pit = device;
    uint64_t now = clock_now(&pit->vm->clock);

    (void)offset;
    (void)width;
    pit->port61 = value & PORT61_STORED;
    settle(&pit->channel[SPEAKER], now);
    set_gate(&pit->channel[SPEAKER], value & PORT61_GATE, now);
}

/* ---- the device ---- */

/* As firmware leaves it: channel 0 ticks 18.2 times a second. */
static void i8254_reset(void *device)
{
    struct i8254 *pit = device;
    uint64_t now = clock_now(&pit->vm->clock);

    for (unsigned i = 0; i < CHANNELS; i++) {
        struct channel *c = &pit->channel[i];
        *c = (struct channel){
            .mode = MODE_SQUARE, .access = ACCESS_BOTH, .gate = i != SPEAKER, .count = 65536};
        load(c, 0, now);
    }
    pit->port61 = 0;
    schedule(pit, now);
}

static void i8254_destroy(void *device)
{
    struct i8254 *pit = device;

    clock_cancel(&pit->vm->clock, &pit->timer);
    free(pit);
}

static void *i8254_create(struct vm *vm, struct error *err)
{
    struct i8254 *pit = calloc(1, sizeof(*pit));

    if (!pit) {
        fail(err, HVRUN_HOST, "i8254: out of memory");
        return NULL;
    }
    pit->vm = vm;
    pit->timer = (struct timer){.fire = timer_fired, .context = pit};
    const struct bus_window counters = {"i8254", 0x40, 4, pit_read, pit_write, pit, .widest = 1};
    const struct bus_window port61 = {"i8254 gate", 0x61, 1,          port61_read,
                                      port61_write, pit,  .widest = 1};
    if (bus_add_ports(&vm->bus, &counters, err) || bus_add_ports(&vm->bus, &port61, err)) {
        free(pit);
        return NULL;
    }
    vm->i8254 = pit;
    i8254_reset(pit);
    return pit;
}

const struct device_type i8254_device = {
    .name = "i8254",
    .create = i8254_create,
    .reset = i8254_reset,
    .destroy = i8254_destroy,
    .interrupt_chip = true,
};
