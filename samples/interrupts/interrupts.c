/* SPDX-License-Identifier: MIT */
/* Timer interrupts by every way they can come: the PIT through the 8259 and through the IO-APIC, and the local
 * APIC's own timer in its three modes. */
#include "samples/kernel/kernel.h"

enum { PIC_BASE = 0x20, PIT_VECTOR = 0x40, APIC_VECTOR = 0x50, SPURIOUS_VECTOR = 0xff };
enum {
    PIC_COMMAND = 0x20,
    PIC_DATA = 0x21,
    PIC2_COMMAND = 0xa0,
    PIC2_DATA = 0xa1,
    END_OF_INTERRUPT = 0x20
};
enum { PIT_DATA = 0x40, PIT_COMMAND = 0x43, PIT_RATE = 1193182, TICKS = 5 };

#define LAPIC  ((volatile uint32_t *)0xfee00000)
#define IOAPIC ((volatile uint32_t *)0xfec00000)
enum { /* registers, in 32-bit words */
       LAPIC_EOI = 0xb0 / 4,
       LAPIC_SPURIOUS = 0xf0 / 4,
       LAPIC_TIMER = 0x320 / 4,
       LAPIC_LINT0 = 0x350 / 4,
       LAPIC_INITIAL = 0x380 / 4,
       LAPIC_CURRENT = 0x390 / 4,
       LAPIC_DIVIDE = 0x3e0 / 4,
       IOAPIC_SELECT = 0,
       IOAPIC_DATA = 0x10 / 4,
};
enum {
    MASKED = 1 << 16,
    PERIODIC = 1 << 17,
    DEADLINE = 1 << 18,
    EXTINT = 7 << 8,
    APIC_ENABLED = 1 << 8
};

static volatile unsigned ticks;

static void pic_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
    out8(PIC_COMMAND, END_OF_INTERRUPT);
}

static void apic_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
    LAPIC[LAPIC_EOI] = 0;
}

static void spurious(struct frame *frame)
{
    (void)frame;
}

static void set_pics(uint8_t mask)
{
    out8(PIC_COMMAND, 0x11); /* ICW1: edge, cascade, ICW4 follows */
    out8(PIC2_COMMAND, 0x11);
    out8(PIC_DATA, PIC_BASE);
    out8(PIC2_DATA, PIC_BASE + 8);
    out8(PIC_DATA, 4);
    out8(PIC2_DATA, 2);
    out8(PIC_DATA, 1);
    out8(PIC2_DATA, 1);
    out8(PIC_DATA, mask);
    out8(PIC2_DATA, 0xff);
}

static void set_pit(unsigned hertz)
{
    unsigned count = PIT_RATE / hertz;
    out8(PIT_COMMAND, 0x34); /* counter 0, both bytes, rate generator */
    out8(PIT_DATA, (uint8_t)count);
    out8(PIT_DATA, (uint8_t)(count >> 8));
}

/* Halts until `wanted` more interrupts came. */
void wait_for_ticks(unsigned wanted)
{
    ticks = 0;
    while (ticks < wanted)
        __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}

/* True if none comes within about 100,000 instructions with interrupts on. */
bool quiet(void)
{
    ticks = 0;
    __asm__ volatile("sti" : : : "memory");
    for (volatile unsigned n = 0; n < 20000; n++)
        ;
    __asm__ volatile("cli" : : : "memory");
    return !ticks;
}

static uint8_t pit_status(void)
{
    out8(PIT_COMMAND, 0xe2); /* read back the status of counter 0 */
    return in8(PIT_DATA);
}

void through_8259(void)
{
    on_interrupt(PIC_BASE, pic_tick);
    LAPIC[LAPIC_SPURIOUS] = APIC_ENABLED | SPURIOUS_VECTOR;
    LAPIC[LAPIC_LINT0] = EXTINT;
    set_pics(0xfe);
    set_pit(1000);
    check((pit_status() & 0x3f) == 0x34, "the PIT reads back its mode");
    wait_for_ticks(TICKS);
    check(true, "the PIT interrupts through the 8259");
    out8(PIC_DATA, 0xff);
    quiet(); /* one may have been on its way */
    check(quiet(), "a masked 8259 lets nothing through");
}

static void route(unsigned pin, uint32_t low, uint32_t high)
{
    IOAPIC[IOAPIC_SELECT] = 0x10 + pin * 2 + 1;
    IOAPIC[IOAPIC_DATA] = high;
    IOAPIC[IOAPIC_SELECT] = 0x10 + pin * 2;
    IOAPIC[IOAPIC_DATA] = low;
}

void through_io_apic(void)
{
    enum { TIMER_PIN = 2 };
    on_interrupt(PIT_VECTOR, apic_tick);
    LAPIC[LAPIC_LINT0] = MASKED;
    route(TIMER_PIN, PIT_VECTOR, 0);
    wait_for_ticks(TICKS);
    check(true, "the PIT interrupts through the IO-APIC, on pin 2");
    route(TIMER_PIN, MASKED | PIT_VECTOR, 0);
    quiet();
    check(quiet(), "a masked IO-APIC pin lets nothing through");
}

/* How much the APIC timer counts in one PIT period. */
static uint32_t apic_counts(void)
{
    LAPIC[LAPIC_TIMER] = MASKED;
    LAPIC[LAPIC_DIVIDE] = 0xb; /* by 1 */
    route(2, PIT_VECTOR, 0);
    wait_for_ticks(1);
    LAPIC[LAPIC_INITIAL] = UINT32_MAX;
    wait_for_ticks(1);
    uint32_t counted = UINT32_MAX - LAPIC[LAPIC_CURRENT];
    route(2, MASKED | PIT_VECTOR, 0);
    return counted;
}

void apic_timer(void)
{
    on_interrupt(APIC_VECTOR, apic_tick);
    uint32_t period = apic_counts();
    check(period > 1000, "the APIC timer counts down while the PIT ticks once");
    LAPIC[LAPIC_TIMER] = APIC_VECTOR;
    LAPIC[LAPIC_INITIAL] = period;
    wait_for_ticks(1);
    check(quiet() && !LAPIC[LAPIC_CURRENT], "the APIC timer interrupts once in one-shot mode");
    LAPIC[LAPIC_TIMER] = PERIODIC | APIC_VECTOR;
    LAPIC[LAPIC_INITIAL] = period;
    wait_for_ticks(TICKS);
    check(true, "and again and again in periodic mode");
    LAPIC[LAPIC_INITIAL] = 0;
    quiet();
    check(quiet(), "until its count is set to 0");
}

void deadline_timer(void)
{
    enum { TSC_DEADLINE = 0x6e0, OFFERED = 1 << 24 };
    bool offered = cpuid(1, 0).c & OFFERED, in_time = true;
    if (offered) {
        LAPIC[LAPIC_TIMER] = DEADLINE | APIC_VECTOR;
        for (unsigned i = 0; i < TICKS; i++) {
            uint64_t deadline = read_tsc() + 100000;
            write_msr(TSC_DEADLINE, deadline);
            wait_for_ticks(1);
            in_time = in_time && read_tsc() >= deadline && !read_msr(TSC_DEADLINE);
        }
        write_msr(TSC_DEADLINE, read_tsc() + 1000000000000);
        write_msr(TSC_DEADLINE, 0);
    }
    check_optional(offered, in_time && quiet(),
                   "a TSC deadline interrupts once, not before its time");
}

void main(void)
{
    on_interrupt(SPURIOUS_VECTOR, spurious);
    through_8259();
    through_io_apic();
    apic_timer();
    deadline_timer();
    finish("interrupts");
}
