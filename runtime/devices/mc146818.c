/* SPDX-License-Identifier: MIT */
/* MC146818 real-time clock and CMOS memory (Motorola MC146818A data sheet; ports 0x70 and 0x71 as
 * on a PC/AT). The date is UTC: the host's when the machine is made, or a fixed one in
 * deterministic mode, and runs with guest time from there.
 *
 * The date is kept as a number of seconds and the guest time at which its last second began. The
 * clock registers are made from it when read. Only while the guest holds the clock (SET, or the
 * divider in reset) the registers themselves count. */
#include "runtime/devices/mc146818.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define PORT  MC146818_INDEX_PORT
#define PORTS 2
#define INDEX 0 /* offset */

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY, /* 1 = Sunday */
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    SHUTDOWN_STATUS = 0x0f,
    EQUIPMENT = 0x14,
    BASE_MEMORY = 0x15,     /* 2 bytes, KiB */
    EXTENDED_MEMORY = 0x17, /* 2 bytes, KiB from 1 MiB on; again at 0x30 */
    CHECKSUM = 0x2e,        /* 2 bytes, high first: sum of 0x10 to 0x2d */
    EXTENDED_MEMORY2 = 0x30,
    CENTURY = 0x32,
    MEMORY_16M = 0x34, /* 2 bytes, 64 KiB from 16 MiB on */
    MEMORY_4G = 0x5b,  /* 3 bytes, 64 KiB from 4 GiB on */
    LAST_CPU = 0x5f,   /* number of processors - 1 */
    REGISTERS = MC146818_REGISTERS
};

#define A_UIP     0x80
#define A_DIVIDER 0x70
#define A_RUNNING 0x20 /* divider: 32768 Hz */
#define A_RESET   0x60 /* divider: 0x60 and 0x70 hold it in reset */
#define A_RATE    0x0f
#define B_SET     0x80
#define B_BINARY  0x04
#define B_24HOURS 0x02
#define C_IRQ     0x80
#define C_PERIOD  0x40 /* these three stand at the same place in B, as enables */
#define C_ALARM   0x20
#define C_UPDATE  0x10
#define C_EVENTS  (C_PERIOD | C_ALARM | C_UPDATE)
#define D_VALID   0x80
#define ANY       0xc0 /* an alarm register with both bits set matches everything */
#define PM        0x80 /* of the hours, in 12-hour mode */

#define SECOND     1000000000ull
#define UIP_TIME   244000ull /* ns before an update in which UIP is set */
#define DAY_LENGTH 86400

struct mc146818 {
    struct vm *vm;
    uint8_t registers[REGISTERS]; /* clock registers: valid while held */
    uint8_t index;
    int64_t seconds; /* since 1970-01-01, at guest time `second_began` */
    uint64_t second_began;
    uint64_t shown;     /* 1 + second_began when registers were last made of it; 0: they must be */
    uint64_t changes;   /* of the date or a register */
    uint64_t periods;   /* of the periodic interrupt, up to which C_PERIOD is accounted for */
    bool level;         /* of the interrupt line */
    struct timer timer; /* next event that may interrupt */
};

static uint64_t guest_now(const struct mc146818 *rtc)
{
    return clock_now(&rtc->vm->clock);
}

static bool divider_reset(const struct mc146818 *rtc)
{
    return (rtc->registers[REG_A] & A_RESET) == A_RESET;
}

static bool held(const struct mc146818 *rtc)
{
    return rtc->registers[REG_B] & B_SET || divider_reset(rtc);
}

/* ---- the clock registers ---- */

static uint8_t encode(const struct mc146818 *rtc, unsigned value)
{
    return (uint8_t)(rtc->registers[REG_B] & B_BINARY ? value : value / 10 * 16 + value % 10);
}

static unsigned decode(const struct mc146818 *rtc, uint8_t value)
{
    return rtc->registers[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15u);
}

static uint8_t encode_hours(const struct mc146818 *rtc, unsigned hours)
{
    if (rtc->registers[REG_B] & B_24HOURS)
        return encode(rtc, hours);
    return encode(rtc, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? PM : 0);
}

static unsigned decode_hours(const struct mc146818 *rtc, uint8_t value)
{
    if (rtc->registers[REG_B] & B_24HOURS)
        return decode(rtc, value);
    return decode(rtc, value & ~PM & 0xff) % 12 + (value & PM ? 12 : 0);
}

static void registers_from_date(struct mc146818 *rtc)
{
    uint8_t *r = rtc->registers;
    time_t seconds = rtc->seconds;
    struct tm date;
    gmtime_r(&seconds, &date);
    unsigned century = (unsigned)(date.tm_year + 1900) / 100 % 100;
    r[SECONDS] = encode(rtc, (unsigned)date.tm_sec);
    r[MINUTES] = encode(rtc, (unsigned)date.tm_min);
    r[HOURS] = encode_hours(rtc, (unsigned)date.tm_hour);
    r[WEEKDAY] = encode(rtc, (unsigned)date.tm_wday + 1);
    r[DAY] = encode(rtc, (unsigned)date.tm_mday);
    r[MONTH] = encode(rtc, (unsigned)date.tm_mon + 1);
    r[YEAR] = encode(rtc, (unsigned)(date.tm_year + 1900) % 100);
    r[CENTURY] = (uint8_t)(century / 10 << 4 | century % 10); /* BCD in either format */
}

/* Fields out of range carry over into the next one. */
static void date_from_registers(struct mc146818 *rtc)
{
    const uint8_t *r = rtc->registers;
    unsigned century = (r[CENTURY] >> 4) * 10u + (r[CENTURY] & 15u);
    struct tm date = {
        .tm_year = (int)(century * 100 + decode(rtc, r[YEAR])) - 1900,
        .tm_mon = (int)decode(rtc, r[MONTH]) - 1,
        .tm_mday = (int)decode(rtc, r[DAY]),
        .tm_hour = (int)decode_hours(rtc, r[HOURS]),
        .tm_min = (int)decode(rtc, r[MINUTES]),
        .tm_sec = (int)decode(rtc, r[SECONDS]),
    };
    rtc->seconds = timegm(&date);
}

/* ---- time passing ---- */

/* Length of the periodic interrupt's period in ns; 0 = off (data sheet, table 5). */
static uint64_t period(const struct mc146818 *rtc)
{
    unsigned rate = rtc->registers[REG_A] & A_RATE;
    if (!rate || divider_reset(rtc))
        return 0;
    return (1ull << ((rate < 3 ? rate + 7 : rate) - 1)) * SECOND / 32768;
}

/* Periods that have ended by then; stands still at 0 while they are off. */
static uint64_t periods_until(const struct mc146818 *rtc, uint64_t now)
{
    uint64_t length = period(rtc);
    return length ? now / length : 0;
}

static bool alarm_field(uint8_t alarm, uint8_t now)
{
    return (alarm & ANY) == ANY || alarm == now;
}

/* True if the alarm goes off in one of `count` seconds that end with the present one. */
static bool alarm_matches(const struct mc146818 *rtc, uint64_t count)
{
    const uint8_t *r = rtc->registers;
    for (uint64_t i = 0; i < count && i < DAY_LENGTH; i++) {
        unsigned second =
            (unsigned)(((rtc->seconds - (int64_t)i) % DAY_LENGTH + DAY_LENGTH) % DAY_LENGTH);
        if (alarm_field(r[SECONDS_ALARM], encode(rtc, second % 60)) &&
            alarm_field(r[MINUTES_ALARM], encode(rtc, second / 60 % 60)) &&
            alarm_field(r[HOURS_ALARM], encode_hours(rtc, second / 3600)))
            return true;
    }
    return false;
}

static void arm(struct mc146818 *rtc, uint64_t now)
{
    struct clock *clock = &rtc->vm->clock;
    uint8_t wanted = rtc->registers[REG_B] & C_EVENTS;
    uint64_t next = CLOCK_NEVER;
    if (!rtc->level && wanted & (C_ALARM | C_UPDATE) && !held(rtc))
        next = rtc->second_began + SECOND;
    if (!rtc->level && wanted & C_PERIOD && period(rtc)) {
        uint64_t end = (periods_until(rtc, now) + 1) * period(rtc);
        next = end < next ? end : next;
    }
    if (next != CLOCK_NEVER)
        clock_arm(clock, &rtc->timer, next);
    else if (rtc->timer.armed)
        clock_cancel(clock, &rtc->timer);
}

/* Brings date, flags, interrupt line and timer up to date. */
static void update(struct mc146818 *rtc)
{
    uint64_t now = guest_now(rtc);
    uint8_t *r = rtc->registers;
    if (held(rtc)) {
        if (!divider_reset(rtc)) /* only the registers stand still */
            rtc->second_began += (now - rtc->second_began) / SECOND * SECOND;
    } else if (now - rtc->second_began >= SECOND) {
        uint64_t count = (now - rtc->second_began) / SECOND;
        rtc->seconds += (int64_t)count;
        rtc->changes++;
        rtc->second_began += count * SECOND;
        r[REG_C] |= C_UPDATE;
        if (alarm_matches(rtc, count))
            r[REG_C] |= C_ALARM;
    }
    uint64_t periods = periods_until(rtc, now);
    if (periods != rtc->periods)
        r[REG_C] |= C_PERIOD;
    rtc->periods = periods;
    bool level = r[REG_C] & r[REG_B] & C_EVENTS;
    r[REG_C] = (r[REG_C] & C_EVENTS) | (level ? C_IRQ : 0);
    if (level != rtc->level) {
        rtc->level = level;
        irq_set(rtc->vm, IRQ_RTC, level);
    }
    arm(rtc, now);
}

static void fire(void *device, uint64_t now)
{
    (void)now;
    update(device);
}

void mc146818_attend(void *device)
{
    update(device);
}

/* ---- registers ---- */

static bool is_clock(uint8_t index)
{
    return index == SECONDS || index == MINUTES || index == HOURS ||
           (index >= WEEKDAY && index <= YEAR) || index == CENTURY;
}

static uint8_t read_register(struct mc146818 *rtc, uint8_t index)
{
    uint8_t *r = rtc->registers;
    uint8_t value;
    update(rtc);
    if (is_clock(index) && !held(rtc))
        registers_from_date(rtc);
    value = r[index];
    if (index == REG_A && !held(rtc) && rtc->second_began + SECOND - guest_now(rtc) <= UIP_TIME)
        value |= A_UIP;
    if (index == REG_C) {
        r[REG_C] = 0;
        update(rtc);
    }
    return value;
}

/* A or B: either may hold the clock or let it go. */
static void write_control(struct mc146818 *rtc, uint8_t index, uint8_t value)
{
    bool was_held = held(rtc), was_reset = divider_reset(rtc);
    if (index == REG_A)
        rtc->registers[REG_A] = value & ~A_UIP & 0xff;
    else /* SET clears the update interrupt's enable */
        rtc->registers[REG_B] = value & B_SET ? value & ~C_UPDATE & 0xff : value;
    if (was_reset && !divider_reset(rtc)) /* the first update comes half a second later */
        rtc->second_began = guest_now(rtc) - SECOND / 2;
    if (!was_held && held(rtc))
        registers_from_date(rtc);
    if (was_held && !held(rtc))
        date_from_registers(rtc);
    rtc->periods = periods_until(rtc, guest_now(rtc));
}

static void write_register(struct mc146818 *rtc, uint8_t index, uint8_t value)
{
    rtc->shown = 0;
    rtc->changes++;
    update(rtc);
    if (index == REG_A || index == REG_B) {
        write_control(rtc, index, value);
    } else if (is_clock(index)) {
        if (!held(rtc))
            registers_from_date(rtc);
        rtc->registers[index] = value;
        if (!held(rtc))
            date_from_registers(rtc);
    } else if (index != REG_C && index != REG_D) {
        rtc->registers[index] = value;
    }
    update(rtc);
}

uint8_t mc146818_index(const void *device)
{
    const struct mc146818 *rtc = device;
    return rtc->index;
}

void mc146818_set_index(void *device, uint8_t index)
{
    struct mc146818 *rtc = device;
    rtc->index = index & (REGISTERS - 1); /* bit 7 masks NMIs on a PC */
}

/* The clock's registers and UIP stand still between an update and what announces the next one. */
static bool stands_still(const struct mc146818 *rtc, uint64_t until)
{
    return held(rtc) || (guest_now(rtc) - rtc->second_began < SECOND &&
                         until < rtc->second_began + SECOND - UIP_TIME);
}

uint64_t mc146818_version(const void *device, uint64_t until)
{
    const struct mc146818 *rtc = device;
    return rtc->changes << 1 | stands_still(rtc, until);
}

/* The flags of REG_C never stand still. */
void mc146818_fast(void *device, uint64_t until, uint16_t known[MC146818_REGISTERS])
{
    struct mc146818 *rtc = device;
    bool still = stands_still(rtc, until);
    if (still && !held(rtc) && rtc->shown != rtc->second_began + 1) {
        registers_from_date(rtc);
        rtc->shown = rtc->second_began + 1;
    }
    for (unsigned n = 0; n < REGISTERS; n++)
        known[n] = n == REG_C || (!still && (is_clock((uint8_t)n) || n == REG_A))
                       ? 0
                       : (uint16_t)(MC146818_KNOWN | rtc->registers[n]);
}

static uint64_t mc146818_read(void *device, uint64_t offset, unsigned width)
{
    struct mc146818 *rtc = device;
    (void)width;
    return offset == INDEX ? 0xff : read_register(rtc, rtc->index);
}

static void mc146818_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct mc146818 *rtc = device;
    (void)width;
    if (offset == INDEX)
        mc146818_set_index(rtc, (uint8_t)value);
    else
        write_register(rtc, rtc->index, (uint8_t)value);
}

/* ---- what firmware leaves in the CMOS memory ---- */

static void put(uint8_t *at, uint64_t value, uint64_t most, unsigned bytes)
{
    value = value < most ? value : most;
    memcpy(at, &value, bytes);
}

static void fill_memory_sizes(uint8_t *r, const struct memory *memory)
{
    const uint64_t mib = 1 << 20;
    uint64_t low = memory->low_size, high = memory->size - memory->low_size;
    put(r + BASE_MEMORY, low >> 10, 640, 2);
    put(r + EXTENDED_MEMORY, low > mib ? (low - mib) >> 10 : 0, 0xffff, 2);
    memcpy(r + EXTENDED_MEMORY2, r + EXTENDED_MEMORY, 2);
    put(r + MEMORY_16M, low > 16 * mib ? (low - 16 * mib) >> 16 : 0, 0xffff, 2);
    put(r + MEMORY_4G, high >> 16, 0xffffff, 3);
    unsigned sum = 0;
    for (unsigned i = 0x10; i < CHECKSUM; i++)
        sum += r[i];
    r[CHECKSUM] = (uint8_t)(sum >> 8);
    r[CHECKSUM + 1] = (uint8_t)sum;
}

static void mc146818_reset(void *device)
{
    struct mc146818 *rtc = device;
    struct vm *vm = rtc->vm;
    if (rtc->timer.armed)
        clock_cancel(&vm->clock, &rtc->timer);
    if (rtc->level)
        irq_set(vm, IRQ_RTC, false);
    *rtc = (struct mc146818){.vm = vm,
                             .changes = rtc->changes + 1,
                             .registers = {[REG_A] = A_RUNNING | 6, /* 1024 Hz */
                                           [REG_B] = B_24HOURS,
                                           [REG_D] = D_VALID,
                                           [EQUIPMENT] = 0x02, /* a coprocessor */
                                           [LAST_CPU] = (uint8_t)(vm->config.smp - 1)},
                             .seconds = vm->start_date,
                             .second_began = clock_now(&vm->clock),
                             .timer = {.fire = fire, .context = rtc}};
    fill_memory_sizes(rtc->registers, &vm->memory);
    rtc->periods = periods_until(rtc, guest_now(rtc));
}

static void *mc146818_create(struct vm *vm, struct error *err)
{
    struct mc146818 *rtc = calloc(1, sizeof *rtc);
    if (!rtc)
        return NULL;
    rtc->vm = vm;
    mc146818_reset(rtc);
    const struct bus_window window = {.name = "mc146818",
                                      .first = PORT,
                                      .count = PORTS,
                                      .read = mc146818_read,
                                      .write = mc146818_write,
                                      .device = rtc,
                                      .widest = 1};
    if (bus_add_ports(&vm->bus, &window, err)) {
        free(rtc);
        return NULL;
    }
    vm->mc146818 = rtc;
    return rtc;
}

const struct device_type mc146818_device = {
    .name = "mc146818", .create = mc146818_create, .reset = mc146818_reset};
