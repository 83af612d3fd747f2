/* SPDX-License-Identifier: MIT */
/* Code that changes under execution: by itself, ahead of itself, through another linear address, across a page
 * boundary, by string instructions, and by a page table that names another page. Every call must see what
 * was written last. */
#include "samples/kernel/kernel.h"

enum { ALIAS = 0x50000000, SWITCHED = 0x50010000, LOOPS = 1000 };

static uint8_t code[2 * PAGE] __attribute__((aligned(PAGE)));
static uint8_t other[PAGE] __attribute__((aligned(PAGE)));

/* B8 imm32: mov $value, %eax; then C3: ret */
static void put_return(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    __builtin_memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static uint32_t call(const void *at)
{
    uint32_t value;
    __asm__ volatile("call *%1" : "=a"(value) : "r"(at) : "memory");
    return value;
}

/* What SDM 3A 8.1.3 asks for after code was written through another linear address. */
static void serialize(void)
{
    cpuid(0, 0);
}

void rewritten(void)
{
    uint64_t sum = 0;
    put_return(code, 1);
    check(call(code) == 1, "code that was just written runs");
    for (uint32_t i = 0; i < LOOPS; i++) {
        *(volatile uint32_t *)(code + 1) = i;
        sum += call(code);
    }
    check(sum == LOOPS * (LOOPS - 1) / 2,
          "1000 times an operand is rewritten, and 1000 times it is seen");
    for (uint32_t i = 0; i < LOOPS; i++) {
        code[0] = i & 1 ? 0xb8 : 0xba; /* mov to EAX, to EDX */
        uint32_t a = 0, d = 0;
        __asm__ volatile("call *%2" : "+a"(a), "+d"(d) : "r"(code) : "memory");
        sum += (i & 1 ? a : d) == LOOPS - 1;
    }
    check(sum == LOOPS * (LOOPS - 1) / 2 + LOOPS, "and 1000 times an opcode");
}

void single_byte(void)
{
    /* inc %eax five times, of which some become nop */
    static const uint8_t start[] = {0x31, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xff,
                                    0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xc3};
    __builtin_memcpy(code, start, sizeof start);
    uint32_t before = call(code);
    code[6] = 0x66; /* ff c0 -> 66 90 */
    code[7] = 0x90;
    uint32_t between = call(code);
    code[6] = 0xff;
    code[7] = 0xc8; /* dec %eax */
    check(before == 5 && between == 4 && call(code) == 3, "one instruction within a row changes");
}

void ahead_of_itself(void)
{
    /* lea 8f+1(%rip), %rdx; movl $7, (%rdx); nop...; 8: mov $1, %eax; ret: the store changes the operand of
     * an instruction a few bytes further on, in the same row */
    static const uint8_t program[] = {
        0x48, 0x8d, 0x15, 9, 0, 0, 0, /* lea 9(%rip), %rdx: the operand below */
        0xc7, 0x02, 7,    0, 0, 0,    /* movl $7, (%rdx) */
        0x90, 0x90,                   /* nop */
        0xb8, 1,    0,    0, 0,       /* mov $1, %eax */
        0xc3,
    };
    for (unsigned i = 0; i < sizeof program; i++)
        code[i] = program[i];
    check(call(code) == 7, "an instruction changes the one that follows it");
    /* a loop whose body counts its own operand up: mov $n, %eax; incl operand; loop */
    static const uint8_t counting[] = {
        0xb9, 10,   0,    0,    0,          /* mov $10, %ecx */
        0xb8, 0,    0,    0,    0,          /* 1: mov $0, %eax */
        0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, /* incl -10(%rip): that operand */
        0xe2, 0xf3,                         /* loop 1b */
        0xc3,
    };
    for (unsigned i = 0; i < sizeof counting; i++)
        code[i] = counting[i];
    check(call(code) == 9, "a loop counts up one of its own operands");
}

void through_an_alias(void)
{
    uint64_t sum = 0;
    map(ALIAS, (uint64_t)code, PAGE_PRESENT | PAGE_WRITABLE);
    put_return(code, 0);
    call(code);
    for (uint32_t i = 0; i < LOOPS; i++) {
        *(volatile uint32_t *)(ALIAS + 1) = i;
        serialize();
        sum += call(code);
    }
    check(sum == LOOPS * (LOOPS - 1) / 2, "code written through another linear address is seen");
    put_return((uint8_t *)ALIAS + 64, 11);
    serialize();
    check(call(code + 64) == 11 && call((void *)(ALIAS + 64)) == 11, "and runs at both");
}

void across_pages(void)
{
    uint8_t *at = code + PAGE - 3; /* the operand's last two bytes are in the second page */
    uint64_t sum = 0;
    put_return(at, 0);
    for (uint32_t i = 0; i < 256; i++) {
        at[4] = (uint8_t)i; /* bits 31-24 */
        sum += call(at) >> 24;
    }
    check(sum == 255 * 256 / 2, "an instruction across two pages changes in the second");
    sum = 0;
    at[4] = 0;
    for (uint32_t i = 0; i < 256; i++) {
        at[1] = (uint8_t)i; /* bits 7-0 */
        sum += call(at);
    }
    check(sum == 255 * 256 / 2, "and in the first");
    /* two bytes of a call's path: the second page is replaced below an instruction that begins in the first */
    map(SWITCHED, (uint64_t)code, PAGE_PRESENT | PAGE_WRITABLE);
    map(SWITCHED + PAGE, (uint64_t)code + PAGE, PAGE_PRESENT | PAGE_WRITABLE);
    const uint8_t *high = (const uint8_t *)SWITCHED + PAGE - 3;
    put_return(at, 0x01020304);
    uint32_t before = call(high);
    for (unsigned i = 0; i < PAGE; i++)
        other[i] = code[PAGE + i];
    other[0] = 0xaa; /* bits 23-16: the byte at the start of the second page */
    map(SWITCHED + PAGE, (uint64_t)other, PAGE_PRESENT | PAGE_WRITABLE);
    check(before == 0x01020304 && call(high) == 0x01aa0304,
          "and when its second page is another one");
}

void by_string_instructions(void)
{
    uint8_t source[16];
    put_return(source, 0x12345678);
    put_return(code, 0);
    call(code);
    const void *from = source;
    void *to = code;
    uint64_t count = 6;
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    check(call(code) == 0x12345678, "REP MOVSB writes code");
    to = code + 1;
    count = 4;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x11) : "memory");
    check(call(code) == 0x11111111, "REP STOSB writes code");
    uint32_t new = 0x22222222;
    __asm__ volatile("lock xchg %0, %1" : "+r"(new), "+m"(*(uint32_t *)(code + 1)));
    check(call(code) == 0x22222222, "XCHG writes code");
}

void another_page(void)
{
    put_return(code, 100);
    put_return(other, 200);
    map(SWITCHED, (uint64_t)code, PAGE_PRESENT);
    bool first = call((void *)SWITCHED) == 100;
    map(SWITCHED, (uint64_t)other, PAGE_PRESENT);
    check(first && call((void *)SWITCHED) == 200, "after INVLPG the new page's code runs");
    put_return(other, 201);
    check(call((void *)SWITCHED) == 201, "and follows what is written to that page");
}

void main(void)
{
    rewritten();
    single_byte();
    ahead_of_itself();
    through_an_alias();
    across_pages();
    by_string_instructions();
    another_page();
    finish("self_modifying");
}
