/* SPDX-License-Identifier: MIT */
/* What the sample kernels share: a serial console, interrupts, faults that are expected, checks.
 *
 * A sample has main(); it prints one line for each thing it shows and ends with finish(). Its exit code, by the
 * debug exit device at port 0xF4, is 1 if all checks passed and 3 if not. */
#ifndef SAMPLES_KERNEL_H
#define SAMPLES_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KERNEL_CODE = 0x08,
    KERNEL_DATA = 0x10,
    USER_DATA = 0x23,
    USER_CODE = 0x2b,
    ABSENT_DATA = 0x40
};
enum { PAGE = 4096 };

/* Exceptions (SDM 3A table 6-1). */
enum {
    DE = 0,
    DB = 1,
    BP = 3,
    UD = 6,
    NM = 7,
    DF = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PF = 14,
    MF = 16,
    XM = 19
};

/* What an interrupt saves: start.S pushes all but the last five. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* Every sample defines this. */
void main(void);

/* ---- console and checks ---- */

/* Prints to COM1. %s, %c, %u (unsigned), %x (uint64_t; %u takes uint64_t too) and %%. */
void print(const char *format, ...);
/* Prints "ok  WHAT" or "BAD WHAT". */
void check(bool good, const char *what);
/* The same for what a processor may lack: prints "--  WHAT" if it does. */
void check_optional(bool offered, bool good, const char *what);
/* Ends the sample: its verdict, then the debug exit. */
void finish(const char *name) __attribute__((noreturn));
void debug_exit(uint8_t value) __attribute__((noreturn));
/* True if the command line has that word. */
bool command_line_has(const char *word);
/* The number behind "WORD=" there. */
uint64_t command_line_number(const char *word, uint64_t otherwise);

/* ---- interrupts ---- */

/* Calls `handler` for a vector from now on; NULL: an interrupt there is a failure. */
void on_interrupt(unsigned vector, void (*handler)(struct frame *frame));
/* Handlers of this vector run on a stack of their own (IST 1). */
void use_fault_stack(unsigned vector);
/* Lets CPL 3 reach the vector with INT. */
void allow_from_user(unsigned vector);
/* The stack that interrupts from CPL 3 arrive on. */
void set_kernel_stack(uint64_t top);
/* Loads an IDT register that holds only the first `vectors` gates; 256 = all. */
void limit_idt(unsigned vectors);

/* ---- faults that are expected ---- */

struct fault {
    int vector; /* -1: none */
    uint64_t error, rip, cr2;
};
extern volatile struct fault fault;
/* where to go on after a fault, with which RSP; 0 = none is expected */
extern uint64_t recovery, recovery_stack;

/* Executes an instruction that may fault, and notes in `fault` whether it did. Operands as for asm; RAX is used. */
#define TRY(instruction, ...)                                                                      \
    do {                                                                                           \
        fault.vector = -1;                                                                         \
        __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, recovery(%%rip)\n\t"                  \
                         "mov %%rsp, recovery_stack(%%rip)\n\t" instruction                        \
                         "\n1:\tmovq $0, recovery(%%rip)" __VA_ARGS__                              \
                         : "rax", "memory", "cc");                                                 \
    } while (0)

/* ---- memory ---- */

/* Maps the 4 KB page at `linear` (below 4 GB) to `physical` with PAGE_* flags; 0 = not at all. */
enum { PAGE_PRESENT = 1, PAGE_WRITABLE = 2, PAGE_USER = 4 };
#define PAGE_NO_EXECUTE (1ull << 63)
void map(uint64_t linear, uint64_t physical, uint64_t flags);
/* The page's entry, for changes that map() does not make; then call flush_page(). */
uint64_t *page_entry(uint64_t linear);

static inline void flush_page(uint64_t linear)
{
    __asm__ volatile("invlpg (%0)" : : "r"(linear) : "memory");
}

/* ---- instructions ---- */

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint64_t read_msr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (uint64_t)high << 32;
}

static inline void write_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

struct cpuid {
    uint32_t a, b, c, d;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static inline uint64_t read_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (uint64_t)high << 32;
}

#define READ_CR(n)                                                                                 \
    ({                                                                                             \
        uint64_t value_;                                                                           \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value_));                                     \
        value_;                                                                                    \
    })
#define WRITE_CR(n, value) __asm__ volatile("mov %0, %%cr" #n : : "r"((uint64_t)(value)) : "memory")

#endif
