/* SPDX-License-Identifier: MIT */
/* The part that is the same in every sample kernel. */
#include "samples/kernel/kernel.h"

#include <stdarg.h>

enum {
    COM1 = 0x3f8,
    LINE_STATUS = 5,
    TRANSMITTER_EMPTY = 0x20,
    DEBUG_EXIT = 0xf4,
    VECTORS = 256,
    TRAP_FLAG = 0x100,
    PIC_MASK = 0x21,
    PIC2_MASK = 0xa1,
};

volatile struct fault fault;
uint64_t recovery, recovery_stack;
extern uint32_t multiboot_info;
static unsigned failures;

/* What the compiler may call by itself, even where there is no library. */
void *memset(void *to, int value, size_t count);
void *memset(void *to, int value, size_t count)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t count);
void *memcpy(void *to, const void *from, size_t count)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
    return to;
}

/* ---- console ---- */

static void put(char c)
{
    while (!(in8(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY))
        ;
    out8(COM1, (uint8_t)c);
}

static void put_number(uint64_t value, unsigned base)
{
    char digits[24];
    unsigned count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
    } while (value /= base);
    while (count)
        put(digits[--count]);
}

void print(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *s = va_arg(list, const char *); *s; s++)
                put(*s);
            break;
        case 'c':
            put((char)va_arg(list, int));
            break;
        case 'u':
            put_number(va_arg(list, uint64_t), 10);
            break;
        case 'x':
            put_number(va_arg(list, uint64_t), 16);
            break;
        default:
            put(*format);
        }
    }
    va_end(list);
}

void check(bool good, const char *what)
{
    print("%s %s\n", good ? "ok " : "BAD", what);
    failures += !good;
}

void check_optional(bool offered, bool good, const char *what)
{
    if (offered)
        check(good, what);
    else
        print("--  %s\n", what);
}

void debug_exit(uint8_t value)
{
    out8(DEBUG_EXIT, value);
    for (;;) /* there is no such device */
        __asm__ volatile("cli; hlt");
}

void finish(const char *name)
{
    print("%s: %s\n", name, failures ? "failed" : "passed");
    debug_exit(failures ? 1 : 0);
}

/* What follows the word on the command line (a space, the end, '=' and a number); NULL: it is not there. */
static const char *command_line_word(const char *word)
{
    enum { COMMAND_LINE = 4, FLAG_COMMAND_LINE = 4 };
    const uint32_t *info = (const uint32_t *)(uintptr_t)multiboot_info;
    const char *line =
        info[0] & FLAG_COMMAND_LINE ? (const char *)(uintptr_t)info[COMMAND_LINE] : "";
    while (*line) {
        const char *w = word;
        while (*w && *line == *w) {
            line++;
            w++;
        }
        if (!*w && (!*line || *line == ' ' || *line == '='))
            return line;
        while (*line && *line != ' ')
            line++;
        while (*line == ' ')
            line++;
    }
    return NULL;
}

bool command_line_has(const char *word)
{
    return command_line_word(word);
}

uint64_t command_line_number(const char *word, uint64_t otherwise)
{
    const char *at = command_line_word(word);
    uint64_t value = 0;
    if (!at || *at != '=')
        return otherwise;
    while (*++at >= '0' && *at <= '9')
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

/* ---- interrupts ---- */

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7], reserved2;
    uint16_t reserved3, io_map;
} __attribute__((packed));

extern char vectors[], stack_top[], fault_stack_top[];
extern uint64_t gdt_tss[2];
enum { VECTOR_SIZE = 16, GATE_INTERRUPT = 0x8e, GATE_DPL3 = 0x60, TSS_SELECTOR = 0x30 };

static struct gate idt[VECTORS] __attribute__((aligned(16)));
static struct tss tss;
static void (*handlers[VECTORS])(struct frame *frame);

void limit_idt(unsigned count)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed))
    pointer = {(uint16_t)(count * sizeof(struct gate) - 1), (uint64_t)idt};
    if (!count)
        pointer.limit = 0;
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void on_interrupt(unsigned vector, void (*handler)(struct frame *frame))
{
    handlers[vector] = handler;
}

void use_fault_stack(unsigned vector)
{
    idt[vector].ist = 1;
}

void allow_from_user(unsigned vector)
{
    idt[vector].type |= GATE_DPL3;
}

void set_kernel_stack(uint64_t top)
{
    tss.rsp[0] = top;
}

/* Called by start.S with the saved registers. */
void interrupt(struct frame *frame)
{
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    if (frame->vector < 32 && recovery) {
        fault = (struct fault){(int)frame->vector, frame->error, frame->rip, READ_CR(2)};
        frame->rip = recovery;
        frame->rsp = recovery_stack;
        frame->rflags &= ~(uint64_t)TRAP_FLAG;
        recovery = 0;
        return;
    }
    print("unexpected interrupt %u, error 0x%x, at 0x%x, CR2 0x%x\n", frame->vector, frame->error,
          frame->rip, READ_CR(2));
    failures++;
    finish("sample");
}

static void load_tss(void)
{
    uint64_t base = (uint64_t)&tss;
    tss.rsp[0] = (uint64_t)stack_top;
    tss.ist[0] = (uint64_t)fault_stack_top;
    tss.io_map = sizeof tss;
    gdt_tss[0] =
        (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt_tss[1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

void kernel_start(void);
void kernel_start(void)
{
    for (unsigned i = 0; i < VECTORS; i++) {
        uint64_t at = (uint64_t)vectors + i * VECTOR_SIZE;
        idt[i] = (struct gate){.offset_low = (uint16_t)at,
                               .selector = KERNEL_CODE,
                               .type = GATE_INTERRUPT,
                               .offset_middle = (uint16_t)(at >> 16),
                               .offset_high = (uint32_t)(at >> 32)};
    }
    limit_idt(VECTORS);
    load_tss();
    out8(PIC_MASK, 0xff); /* the firmware's timer may be ticking */
    out8(PIC2_MASK, 0xff);
    main();
    debug_exit(1); /* a sample ends with finish() */
}

/* ---- memory ---- */

extern uint64_t page_map[], page_directory_pointers[], page_directories[];
enum { TABLES = 16, ENTRIES = 512, LARGE = 0x80 };
static uint64_t tables[TABLES][ENTRIES] __attribute__((aligned(PAGE)));
static unsigned tables_used;

/* A large page is split when a part of it is first asked for. */
uint64_t *page_entry(uint64_t linear)
{
    uint64_t *directory = &page_directories[linear >> 21];
    if (*directory & LARGE) {
        uint64_t *table = tables[tables_used++];
        for (unsigned i = 0; i < ENTRIES; i++)
            table[i] = (*directory & ~(uint64_t)LARGE) + (uint64_t)i * PAGE;
        *directory = (uint64_t)table | PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER;
        WRITE_CR(3, READ_CR(3));
    }
    return (uint64_t *)(*directory & ~(uint64_t)(PAGE - 1)) + (linear >> 12 & (ENTRIES - 1));
}

void map(uint64_t linear, uint64_t physical, uint64_t flags)
{
    uint64_t *entry = page_entry(linear);
    *entry = flags ? physical | flags : 0;
    flush_page(linear);
}
