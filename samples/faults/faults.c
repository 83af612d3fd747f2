/* SPDX-License-Identifier: MIT */
/* Exceptions: each is raised on purpose and checked for vector, error code, saved RIP and CR2. With `triple` on
 * the command line the last one is a triple fault, which no kernel survives. */
#include "samples/kernel/kernel.h"

enum { PF_PRESENT = 1, PF_WRITE = 2, PF_RESERVED = 8, PF_FETCH = 16 };
enum { NO_PAGE = 0x40000000, TEST_PAGE = 0x40001000 }; /* linear: far from everything else */
#define NON_CANONICAL 0x8000000000000000ull

static uint8_t page[PAGE] __attribute__((aligned(PAGE)));

static bool raised(int vector, uint64_t error)
{
    return fault.vector == vector && fault.error == error;
}

/* A check that shows what was raised instead. */
static void expect(bool good, const char *what)
{
    check(good, what);
    if (!good)
        print("    vector %u, error 0x%x, RIP 0x%x, CR2 0x%x\n", (uint64_t)fault.vector,
              fault.error, fault.rip, fault.cr2);
}

/* The same where QEMU is known to raise something else. */
static void expect_unless(int vector, uint64_t error, bool good, const char *what)
{
    if (raised(vector, error))
        check_optional(false, false, what);
    else
        expect(good, what);
}

void page_faults(void)
{
    map(NO_PAGE, 0, 0);
    TRY("movb (%0), %%al", : : "r"(NO_PAGE + 0x123ull));
    expect(raised(PF, 0) && fault.cr2 == NO_PAGE + 0x123,
           "reading where no page is: page fault, error 0");
    TRY("movb %%al, (%0)", : : "r"(NO_PAGE + 0x456ull));
    expect(raised(PF, PF_WRITE) && fault.cr2 == NO_PAGE + 0x456, "writing there: error 2");
    map(TEST_PAGE, (uint64_t)page, PAGE_PRESENT);
    TRY("movb (%0), %%al", : : "r"(TEST_PAGE));
    expect(fault.vector < 0, "reading a read-only page: no fault");
    TRY("movb %%al, (%0)", : : "r"(TEST_PAGE + 8ull));
    expect(raised(PF, PF_PRESENT | PF_WRITE) && fault.cr2 == TEST_PAGE + 8,
           "writing to it: error 3");
    WRITE_CR(0, READ_CR(0) & ~0x10000ull);
    TRY("movb $7, (%0)", : : "r"(TEST_PAGE + 8ull));
    WRITE_CR(0, READ_CR(0) | 0x10000);
    expect(fault.vector < 0 && page[8] == 7, "writing to it with CR0.WP clear: no fault");
    TRY("movw $0, (%0)", : : "r"(TEST_PAGE - 1ull));
    expect(raised(PF, PF_WRITE) && fault.cr2 == TEST_PAGE - 1,
           "writing across into it: the first page's fault");
    map(TEST_PAGE, (uint64_t)page, PAGE_PRESENT | PAGE_WRITABLE | PAGE_NO_EXECUTE);
    TRY("call *%0", : : "r"((uint64_t)TEST_PAGE + 16));
    expect(raised(PF, PF_PRESENT | PF_FETCH) && fault.cr2 == TEST_PAGE + 16 &&
               fault.rip == TEST_PAGE + 16,
           "executing a no-execute page: error 0x11");
    *page_entry(TEST_PAGE) |= 1ull << 51; /* beyond any processor's physical addresses */
    flush_page(TEST_PAGE);
    TRY("movb (%0), %%al", : : "r"(TEST_PAGE));
    expect_unless(PF, PF_RESERVED, raised(PF, PF_PRESENT | PF_RESERVED),
                  "a reserved bit in the page table: error 9");
}

void accessed_and_dirty(void)
{
    enum { ACCESSED = 0x20, DIRTY = 0x40 };
    map(TEST_PAGE, (uint64_t)page, PAGE_PRESENT | PAGE_WRITABLE);
    volatile uint8_t *byte = (volatile uint8_t *)TEST_PAGE;
    bool none = !(*page_entry(TEST_PAGE) & (ACCESSED | DIRTY));
    (void)*byte;
    bool accessed = (*page_entry(TEST_PAGE) & (ACCESSED | DIRTY)) == ACCESSED;
    *byte = 1;
    check(none && accessed && *page_entry(TEST_PAGE) & DIRTY,
          "reading sets the accessed bit, writing the dirty bit");
}

void protection_faults(void)
{
    TRY("movb (%0), %%al", : : "r"(NON_CANONICAL));
    expect(raised(GP, 0), "a non-canonical address: general protection, error 0");
    TRY("mov %0, %%ds", : : "r"(0xfff8));
    expect(raised(GP, 0xfff8), "a selector beyond the GDT: its selector is the error");
    TRY("mov %0, %%ds", : : "r"(ABSENT_DATA));
    expect(raised(NP, ABSENT_DATA), "a segment that is not present: segment not present");
}

void stack_faults(void)
{
    use_fault_stack(SS);
    use_fault_stack(GP);
    TRY("mov %0, %%rsp\n\tpushq $0", : : "r"(NON_CANONICAL));
    expect_unless(GP, 0, raised(SS, 0), "a non-canonical stack: stack fault, error 0");
    TRY("mov %0, %%ss", : : "r"(ABSENT_DATA));
    expect(raised(SS, ABSENT_DATA), "a stack segment that is not present: its selector");
}

void instruction_faults(void)
{
    uint64_t at;
    uint32_t high, divisor;
    TRY("lea 2f(%%rip), %0\n2:\tud2", : "=&r"(at) :);
    expect(raised(UD, 0) && fault.rip == at, "UD2: invalid opcode, RIP at the instruction");
    TRY("xor %%edx, %%edx\n\txor %%ecx, %%ecx\n\tdiv %%ecx", : "=&d"(high), "=&c"(divisor) :);
    expect(raised(DE, 0), "dividing by 0: divide error");
    TRY("mov $1, %%edx\n\tmov $1, %%ecx\n\tdiv %%ecx", : "=&d"(high), "=&c"(divisor) :);
    expect(raised(DE, 0), "a quotient of 33 bits: divide error");
    TRY("int3\n\tnop", : :);
    expect(raised(BP, 0), "INT3: breakpoint");
    TRY("lea 2f(%%rip), %0\n\tint $3\n2:\tnop", : "=&r"(at) :);
    expect(raised(BP, 0) && fault.rip == at, "INT 3: RIP behind the instruction");
    TRY("pushf\n\torl $0x100, (%%rsp)\n\tpopf\n\tnop\n\tnop", : :);
    expect(raised(DB, 0), "the trap flag: debug exception after the next instruction");
    WRITE_CR(0, READ_CR(0) | 8);
    TRY("fnop", : :);
    __asm__ volatile("clts");
    expect(raised(NM, 0), "an x87 instruction with CR0.TS set: device not available");
}

void idt_faults(void)
{
    limit_idt(0x30);
    TRY("int $0x31", : :);
    limit_idt(256);
    expect_unless(GP, 0x31 * 16 + 2, raised(GP, 0x31 * 8 + 2),
                  "an interrupt beyond the IDT: its number, as an IDT index");
}

void double_fault(void)
{
    use_fault_stack(DF);
    limit_idt(
        PF); /* has vectors 0 to 13: a page fault cannot be delivered, which is a page fault's second */
    TRY("movb (%0), %%al", : : "r"(NO_PAGE));
    limit_idt(256);
    expect(raised(DF, 0), "a page fault whose delivery faults: double fault, error 0");
}

void triple_fault(void)
{
    print("a double fault whose delivery faults: shutdown\n");
    limit_idt(0);
    __asm__ volatile("ud2");
}

void main(void)
{
    page_faults();
    accessed_and_dirty();
    protection_faults();
    stack_faults();
    instruction_faults();
    idt_faults();
    double_fault();
    if (command_line_has("triple"))
        triple_fault();
    finish("faults");
}
