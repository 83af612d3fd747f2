/* SPDX-License-Identifier: MIT */
/* Port IO as kernels do it, a phase for each habit: straight lines, polling loops, string instructions, a driver's leaf
 * functions. How many virtualization events they take is for the hypervisor to count:
 *
 *     hvrun --stats FILE --append "bare pci"      that phase only, and no report of it
 *
 * Each phase is gone through VISITS times, with an instruction between them that ends any event. Its number of IO
 * instructions is the same in every run; a string instruction counts as one. */
#include "samples/kernel/kernel.h"

enum { VISITS = 4 };
enum { PIC = 0x20, PIC2 = 0xa0, PIT = 0x40, CMOS = 0x70, DELAY = 0x80 };
enum { PCI_ADDRESS = 0xcf8, PCI_DATA = 0xcfc, PCI_SLOTS = 32 };
enum {
    COM1 = 0x3f8,
    INTERRUPT_ENABLE = 1,
    FIFO_CONTROL = 2,
    LINE_CONTROL = 3,
    MODEM_CONTROL = 4,
    LINE_STATUS = 5,
    SCRATCH = 7
};
enum { TRANSMITTER_EMPTY = 0x20, BOTH_EMPTY = 0x60 };

static inline void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* Symbols of global functions stay in the file: by them patchc finds code that only pointers lead to. */

/* ---- straight lines ---- */

/* Both chips initialized and masked: 10 instructions. */
bool pic(void)
{
    out8(PIC, 0x11);
    out8(PIC2, 0x11);
    out8(PIC + 1, 0x20);
    out8(PIC2 + 1, 0x28);
    out8(PIC + 1, 4);
    out8(PIC2 + 1, 2);
    out8(PIC + 1, 1);
    out8(PIC2 + 1, 1);
    out8(PIC + 1, 0xff);
    out8(PIC2 + 1, 0xff);
    return true;
}

/* Counter 0 set up, its status read back, its count latched: 8 instructions. */
bool pit(void)
{
    out8(PIT + 3, 0x34);
    out8(PIT, 0xff);
    out8(PIT, 0xff);
    out8(PIT + 3, 0xe2);
    uint8_t status = in8(PIT);
    out8(PIT + 3, 0);
    uint16_t count = in8(PIT);
    count = (uint16_t)(count | in8(PIT) << 8);
    return (status & 0x3f) == 0x34 && count;
}

/* The port as a driver leaves it, and the scratch register that shows a 16450 or better: 10 instructions. */
bool uart(void)
{
    out8(COM1 + INTERRUPT_ENABLE, 0);
    out8(COM1 + LINE_CONTROL, 0x83);
    out8(COM1, 1);
    out8(COM1 + INTERRUPT_ENABLE, 0);
    out8(COM1 + LINE_CONTROL, 3);
    out8(COM1 + FIFO_CONTROL, 1);
    out8(COM1 + MODEM_CONTROL, 3);
    out8(COM1 + SCRATCH, 0xa5);
    uint8_t scratch = in8(COM1 + SCRATCH);
    return scratch == 0xa5 && !(in8(COM1 + LINE_STATUS) & 1);
}

/* ---- loops ---- */

/* The ids of all devices of bus 0: 2 instructions a slot. A host bridge, or nothing at all. */
bool pci(void)
{
    static uint32_t ids[PCI_SLOTS];
    for (uint32_t slot = 0; slot < PCI_SLOTS; slot++) {
        out32(PCI_ADDRESS, 0x80000000 | slot << 11);
        ids[slot] = in32(PCI_DATA);
    }
    return ids[0] != 0 && ids[PCI_SLOTS - 1] == 0xffffffff;
}

/* All of its memory: 2 instructions a byte. */
bool cmos(void)
{
    static uint8_t bytes[128];
    unsigned seconds, again;
    for (unsigned i = 0; i < sizeof bytes; i++) {
        out8(CMOS, (uint8_t)i);
        bytes[i] = in8(CMOS + 1);
    }
    seconds = (bytes[0] >> 4) * 10u + (bytes[0] & 15);
    again = bytes[0x0d] & 0x80; /* the battery is good */
    return seconds < 60 && again;
}

/* A line, each byte behind its status poll: 2 instructions a byte where nothing waits. */
bool serial(void)
{
    for (const char *s = "The quick brown fox jumps over the lazy dog.\n"; *s; s++) {
        while (!(in8(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY))
            __asm__ volatile("pause");
        out8(COM1, (uint8_t)*s);
    }
    return true;
}

/* What old drivers waste time with: 64 instructions. */
bool delay(void)
{
    for (unsigned i = 0; i < 64; i++)
        out8(DELAY, 0);
    return true;
}

/* ---- string instructions ---- */

bool strings(void)
{
    static const uint8_t from[64];
    uint8_t to[64] = {0};
    const uint8_t *source = from;
    uint8_t *target = to;
    uint64_t count = sizeof from;
    out8(CMOS, 0x0d);
    __asm__ volatile("rep outsb"
                     : "+S"(source), "+c"(count)
                     : "d"((uint16_t)DELAY), "m"(from)
                     : "memory");
    count = sizeof to;
    __asm__ volatile("rep insb"
                     : "+D"(target), "+c"(count)
                     : "d"((uint16_t)(COM1 + SCRATCH))
                     : "memory");
    return to[0] == to[63] && target == to + sizeof to && source == from + sizeof from;
}

/* ---- a driver: one IO instruction in each leaf function, reached by pointer ---- */

struct port {
    uint8_t (*read)(const struct port *port, unsigned offset);
    void (*write)(const struct port *port, unsigned offset, uint8_t value);
    uint16_t base;
};

__attribute__((noinline)) uint8_t port_read(const struct port *port, unsigned offset)
{
    return in8((uint16_t)(port->base + offset));
}

__attribute__((noinline)) void port_write(const struct port *port, unsigned offset, uint8_t value)
{
    out8((uint16_t)(port->base + offset), value);
}

static const struct port com1 = {port_read, port_write, COM1};
static const struct port *volatile console = &com1;

__attribute__((noinline)) void wait_for_transmitter(const struct port *port)
{
    while ((port->read(port, LINE_STATUS) & BOTH_EMPTY) != BOTH_EMPTY)
        __asm__ volatile("pause");
}

/* As `serial`, with calls of calls of pointers between the instructions. */
bool driver(void)
{
    const struct port *port = console;
    for (const char *s = "Waltz, bad nymph, for quick jigs vex.\n"; *s; s++) {
        wait_for_transmitter(port);
        port->write(port, 0, (uint8_t)*s);
    }
    return true;
}

#ifdef __clang__ /* knows retpolines for whole files only */
#define RETPOLINE
#else
#define RETPOLINE __attribute__((indirect_branch("thunk")))
#endif

/* The same through a retpoline, which returns to where it wants to go. */
__attribute__((noinline)) RETPOLINE bool retpoline(void)
{
    const struct port *port = console;
    for (const char *s = "Sphinx of black quartz, judge my vow.\n"; *s; s++) {
        while ((port->read(port, LINE_STATUS) & BOTH_EMPTY) != BOTH_EMPTY)
            __asm__ volatile("pause");
        port->write(port, 0, (uint8_t)*s);
    }
    return true;
}

static const struct phase {
    const char *name;
    bool (*visit)(void);
} phases[] = {
    {"pic", pic},       {"pit", pit},
    {"uart", uart},     {"pci", pci},
    {"cmos", cmos},     {"serial", serial},
    {"delay", delay},   {"strings", strings},
    {"driver", driver}, {"retpoline", retpoline},
};

void main(void)
{
    bool bare = command_line_has("bare");
    for (unsigned p = 0; p < sizeof phases / sizeof phases[0]; p++) {
        bool good = true;
        if (bare && !command_line_has(phases[p].name))
            continue;
        for (unsigned n = 0; n < VISITS; n++) {
            cpuid(0, 0);
            good &= phases[p].visit();
        }
        cpuid(0, 0);
        if (!bare)
            check(good, phases[p].name);
        else if (!good)
            debug_exit(1);
    }
    if (bare)
        debug_exit(0);
    finish("io-burst");
}
