/* SPDX-License-Identifier: MIT */
/* Guests that would hang, crash or starve a careless host. The command line names one; none of them
 * ends by itself but those that say so. Each prints its name first. */
#include "samples/kernel/kernel.h"

#define APIC_BASE   0xfee00000u
#define IOAPIC_BASE 0xfec00000u
#define AP_START    0x8000u /* where the other processors begin, in real mode */
#define HOLE        0xd0000000u
#define FAR_AWAY    0x40000000u /* linear: far from everything else */

enum { APIC_EOI = 0xb0, APIC_SPURIOUS = 0xf0, APIC_ICR_LOW = 0x300, APIC_ICR_HIGH = 0x310 };
enum { APIC_TIMER = 0x320, APIC_INITIAL = 0x380, APIC_DIVIDE = 0x3e0 };
enum {
    PERIODIC = 1 << 17,
    TSC_DEADLINE = 2 << 17,
    TO_SELF = 1 << 18,
    TO_ALL = 2 << 18,
    TO_OTHERS = 3 << 18
};
enum { INIT = 0x4500, START = 0x4600, NMI = 0x4400, ASSERT = 0x4000 };
enum { VECTOR = 0x40 };

static uint8_t code[4 * PAGE] __attribute__((aligned(PAGE)));
static uint8_t big[64 * PAGE] __attribute__((aligned(PAGE)));

static void apic_write(uint32_t at, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)(APIC_BASE + at) = value;
}

static void eoi(struct frame *frame)
{
    (void)frame;
    apic_write(APIC_EOI, 0);
}

static void nothing(struct frame *frame)
{
    (void)frame;
}

static void call(const void *at)
{
    __asm__ volatile("call *%0" : : "r"(at) : "memory", "rax", "rcx", "rdx", "cc");
}

/* Copies instructions to where the others start, and starts them. */
static void start_others(const char *bytes, unsigned count)
{
    __builtin_memcpy((void *)(uintptr_t)AP_START, bytes, count);
    apic_write(APIC_SPURIOUS, 0x1ff);
    apic_write(APIC_ICR_LOW, TO_OTHERS | INIT);
    apic_write(APIC_ICR_LOW, TO_OTHERS | START | AP_START >> 12);
}

static void enable_interrupts(void)
{
    on_interrupt(VECTOR, eoi);
    apic_write(APIC_SPURIOUS, 0x1ff);
    __asm__ volatile("sti");
}

/* ---- faults ---- */

/* Ends by a triple fault, in a function that has a name. */
void triple(void)
{
    limit_idt(0);
    __asm__ volatile("mov $0x7e57, %%eax; ud2" : : : "rax");
}

/* The handler returns to what faulted. */
static void fault_loop(void)
{
    on_interrupt(UD, nothing);
    __asm__ volatile("ud2");
}

/* A page fault whose handler is in the page that is not there: not one instruction is executed. */
static void unreachable_handler(void)
{
    static struct {
        uint16_t offset_low, selector, rights, offset_middle;
        uint32_t offset_high, reserved;
    } idt[32];
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {sizeof idt - 1, (uintptr_t)idt};
    use_fault_stack(PF);
    map(FAR_AWAY, 0, 0);
    for (unsigned n = 0; n < 32; n++) {
        idt[n].selector = KERNEL_CODE;
        idt[n].rights = 0x8e01; /* IST 1: always the same stack */
        idt[n].offset_middle = FAR_AWAY >> 16;
    }
    __asm__ volatile("lidt %0; ud2" : : "m"(pointer));
}

static void step_loop(void)
{
    on_interrupt(DB, nothing);
    __asm__ volatile("pushf; orq $0x100, (%rsp); popf; 1: jmp 1b");
}

static void breakpoint_loop(void)
{
    on_interrupt(DB, nothing);
    __asm__ volatile(
        "lea 1f(%%rip), %%rax; mov %%rax, %%dr0; mov $0x402, %%eax; mov %%rax, %%dr7\n1: jmp 1b"
        :
        :
        : "rax");
}

/* ---- interrupts ---- */

static void timer_storm(void)
{
    apic_write(APIC_DIVIDE, 0xb);
    enable_interrupts();
    apic_write(APIC_TIMER, PERIODIC | VECTOR);
    apic_write(APIC_INITIAL, 1);
    for (;;)
        ;
}

static void deadline_storm(void)
{
    enable_interrupts();
    apic_write(APIC_TIMER, TSC_DEADLINE | VECTOR);
    for (;;) {
        __asm__ volatile("cli");
        write_msr(0x6e0, 1);
        __asm__ volatile("sti; hlt");
    }
}

static void self_storm(void)
{
    enable_interrupts();
    for (;;)
        apic_write(APIC_ICR_LOW, TO_SELF | ASSERT | VECTOR);
}

/* A level-triggered line that nobody serves: each end of interrupt brings the next one. */
static void level_storm(void)
{
    volatile uint32_t *ioapic = (void *)(uintptr_t)IOAPIC_BASE;
    enable_interrupts();
    out8(0x3f9, 2); /* the serial port wants to send */
    out8(0x3fc, 8); /* and may say so */
    ioapic[0] = 0x10 + 2 * 4;
    ioapic[4] = 1 << 15 | VECTOR;
    for (;;)
        ;
}

static void pit_storm(void)
{
    on_interrupt(0x20, nothing);
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 4), out8(0x21, 3); /* automatic EOI */
    out8(0x43, 0x34), out8(0x40, 1), out8(0x40, 0);
    out8(0x21, 0xfe);
    __asm__ volatile("sti");
    for (;;)
        __asm__ volatile("hlt");
}

static void rtc_storm(void)
{
    on_interrupt(0x28, nothing);
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 4), out8(0x21, 3);
    out8(0xa0, 0x11), out8(0xa1, 0x28), out8(0xa1, 2), out8(0xa1, 3);
    out8(0x70, 0xa), out8(0x71, 0x23), out8(0x70, 0xb), out8(0x71, 0x72);
    out8(0x21, 0xfb), out8(0xa1, 0xfe);
    __asm__ volatile("sti");
    for (;;) {
        out8(0x70, 0xc);
        in8(0x71);
    }
}

/* ---- instructions that take long ---- */

static void repeat(void)
{
    for (;;)
        __asm__ volatile("std; rep movsb; cld; mov $-1, %%ecx; rep lodsb %%ds:(%%esi), %%al"
                         :
                         : "S"(big + sizeof big - 1), "D"(big + sizeof big - 2), "c"(sizeof big / 2)
                         : "rax", "memory");
}

/* Over and over the same byte of a device. */
static void repeat_ports(void)
{
    for (;;)
        __asm__ volatile("rep insb; mov $0x80, %%dx; mov $-1, %%rcx; rep outsb"
                         :
                         : "D"(FAR_AWAY), "d"(0x3fd), "c"(~0ull)
                         : "memory");
}

static void repeat_device(void)
{
    for (;;)
        __asm__ volatile(
            "1: mov $0xfee00000, %%edi; mov $0xfec00000, %%esi; mov $1024, %%ecx; rep movsl; "
            "mov $0xd0000000, %%esi; mov $-1, %%rcx; rep lodsb; jmp 1b"
            :
            :
            : "memory");
}

static void save_state(void)
{
    static uint8_t area[4096] __attribute__((aligned(64)));
    WRITE_CR(4, READ_CR(4) | 1 << 18);
    for (;;)
        __asm__ volatile("xsave %0; xrstor %0; cpuid; fxsave %0"
                         : "+m"(area)
                         : "a"(7), "d"(0)
                         : "ebx", "ecx");
}

/* ---- code ---- */

/* Code that rewrites itself across a page boundary, each time at another place. */
static void rewriting(void)
{
    for (unsigned n = 0;; n = (n + 1) % (2 * PAGE)) {
        static const uint8_t bytes[] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xc3};
        __builtin_memcpy(code + n, bytes, sizeof bytes);
        call(code + n);
        code[n + 3]++;
        call(code + n);
    }
}

/* Each byte of a large region is an instruction that leads on, and the region is written over and
 * over: what was decoded is dropped, and decoded again. */
static void decode_all(void)
{
    for (;;) {
        __asm__ volatile("rep stosb" : : "D"(big), "c"(sizeof big), "a"(0xc3) : "memory");
        for (unsigned at = 0; at < sizeof big - 8; at += 3) {
            big[at] = 0xeb; /* jmp to the next one */
            big[at + 1] = 1;
        }
        for (unsigned from = 0; from < 300; from += 3)
            call(big + from);
    }
}

/* A page with a block for nearly every byte, and stores into what is left: each looks at all of
 * them. */
static void crowded(void)
{
    __asm__ volatile("rep stosb" : : "D"(code), "c"(PAGE), "a"(0xc3) : "memory");
    for (unsigned at = 0; at < PAGE; at++)
        if (at % 64 != 63)
            call(code + at);
    for (unsigned at = 63;; at = (at + 64) % PAGE)
        *(volatile uint8_t *)(code + at) = 0xc3;
}

/* The page that is executed is the one that is written, by a string instruction that does not end.
 * */
static void overrun(void)
{
    code[0] = 0xf3, code[1] = 0x48, code[2] = 0xab, code[3] = 0xeb,
    code[4] = 0xfb; /* rep stosq; jmp */
    for (;;)
        __asm__ volatile("call *%%rdx"
                         :
                         : "d"(code), "D"(code), "c"(~0ull), "a"(0xfbebab48f3ull)
                         : "memory");
}

static void execute_device(void)
{
    on_interrupt(UD, nothing);
    on_interrupt(PF, nothing);
    call((void *)(uintptr_t)APIC_BASE);
}

static void execute_hole(void)
{
    on_interrupt(UD, nothing);
    call((void *)(uintptr_t)HOLE);
}

/* ---- page tables ---- */

/* Every level is the same page, which holds itself, and, as it is the last level too, the kernel.
 * */
static void recursive_tables(void)
{
    volatile uint64_t *table = (void *)big;
    for (unsigned n = 0; n < 512; n++)
        table[n] = (uintptr_t)big | 7;
    for (unsigned n = 256; n < 512; n++) /* 1 MB to 2 MB */
        table[n] = n << 12 | 7;
    WRITE_CR(3, big);
    for (uint64_t random = 1;; random = random * 6364136223846793005u + 1442695040888963407u) {
        uint64_t address =
            (random >> 40 & 0xff) << 39 | (random >> 32 & 0xff) << 30 | (random >> 20 & 0xfffff);
        *(volatile uint64_t *)(address & ~7ull) |= random >> 60; /* its own entries, most often */
        flush_page(address);
        flush_page((uintptr_t)big);
    }
}

/* Nothing is left to fault to: ends by a triple fault. */

static void tables_outside(void)
{
    for (unsigned n = 0;; n++)
        __asm__ volatile("mov %0, %%cr3; 1: jmp 1b" : : "r"(0xfffffff000 - ((uint64_t)n << 12)));
}

static void flushing(void)
{
    uint64_t top = READ_CR(3);
    for (unsigned n = 0;; n++) {
        map(FAR_AWAY + (n & 255) * PAGE, (uintptr_t)big, PAGE_PRESENT | PAGE_WRITABLE);
        *(volatile uint8_t *)(uintptr_t)(FAR_AWAY + (n & 255) * PAGE) = 1;
        flush_page(FAR_AWAY + (n & 255) * PAGE);
        flush_page((uintptr_t)big);
        WRITE_CR(4, READ_CR(4) ^ 1 << 7);
        WRITE_CR(3, top);
    }
}

static void flushing_large(void)
{
    for (uint32_t at = 0;; at += 0x1000) {
        *(volatile uint8_t *)(uintptr_t)(0x2000000 + (at & 0xffffff));
        if (at % 0x8000 == 0)
            flush_page(0x2000000);
    }
}

/* ---- processors ---- */

static void spinning(void)
{
    start_others("\xeb\xfe", 2);
    for (;;)
        ;
}

static void pausing(void)
{
    start_others("\xf3\x90\xeb\xfc", 4);
    for (;;)
        __asm__ volatile("pause");
}

/* All wait for an interrupt that never comes. */
static void halted(void)
{
    start_others("\xfb\xf4\xeb\xfc", 4);
    for (;;)
        __asm__ volatile("sti; hlt");
}

/* The others have no descriptor tables: every fault leads to address 0, full of zeros. */
static void starting(void)
{
    start_others("\x0f\x0b\xeb\xfc", 4);
    for (;;) {
        apic_write(APIC_ICR_LOW, TO_OTHERS | NMI);
        apic_write(APIC_ICR_LOW, TO_OTHERS | INIT);
        apic_write(APIC_ICR_LOW, TO_OTHERS | START | AP_START >> 12);
    }
}

static void nmi_storm(void)
{
    on_interrupt(2, nothing);
    for (;;)
        apic_write(APIC_ICR_LOW, TO_ALL | NMI);
}

/* ---- devices ---- */

static void hammering(void)
{
    for (uint32_t random = 1;; random = random * 1664525 + 1013904223) {
        static const uint16_t ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,
                                         0x43,  0x61,  0x70,  0x71,  0x3f8, 0x3f9, 0x3fa,
                                         0x3fb, 0x3fc, 0x510, 0x511, 0x80,  0x600, 0x608};
        uint16_t port = ports[(random >> 16) % (sizeof ports / 2)];
        if (random >> 31)
            out8(port, random >> 24 & 0x7f);
        else
            in8(port);
        apic_write(random >> 18 & 0x3f0, random >> 9 & 0xff);
        *(volatile uint32_t *)(uintptr_t)(IOAPIC_BASE + (random >> 12 & 0x10)) = random >> 8;
    }
}

/* More output than anybody wants to read. */
static void flooding(void)
{
    for (;;)
        out8(0x3f8, 'x');
}

static const struct {
    const char *name;
    void (*run)(void);
} guests[] = {
    {"triple", triple},
    {"fault-loop", fault_loop},
    {"unreachable-handler", unreachable_handler},
    {"step-loop", step_loop},
    {"breakpoint-loop", breakpoint_loop},
    {"timer-storm", timer_storm},
    {"deadline-storm", deadline_storm},
    {"self-storm", self_storm},
    {"level-storm", level_storm},
    {"pit-storm", pit_storm},
    {"rtc-storm", rtc_storm},
    {"nmi-storm", nmi_storm},
    {"repeat", repeat},
    {"repeat-ports", repeat_ports},
    {"repeat-device", repeat_device},
    {"save-state", save_state},
    {"rewriting", rewriting},
    {"decode-all", decode_all},
    {"crowded", crowded},
    {"overrun", overrun},
    {"execute-device", execute_device},
    {"execute-hole", execute_hole},
    {"recursive-tables", recursive_tables},
    {"tables-outside", tables_outside},
    {"flushing", flushing},
    {"flushing-large", flushing_large},
    {"spinning", spinning},
    {"pausing", pausing},
    {"halted", halted},
    {"starting", starting},
    {"hammering", hammering},
    {"flooding", flooding},
};

void main(void)
{
    for (unsigned n = 0; n < sizeof guests / sizeof *guests; n++)
        if (command_line_has(guests[n].name)) {
            print("%s\n", guests[n].name);
            guests[n].run();
        }
    finish("hostile: no such guest");
}
