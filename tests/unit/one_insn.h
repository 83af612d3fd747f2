/* SPDX-License-Identifier: MIT */
/* One instruction at a time on a vCPU with flat memory: what the tests of the software processor's instructions
 * stand on.
 *
 *     struct vcpu *cpu = one_insn_vcpu();                        64-bit mode, CPL 0, RAM mapped at its own address
 *     cpu->r[RAX] = 5;
 *     struct one_insn_result result = ONE_INSN(cpu, 0x48, 0xff, 0xc0);      inc rax
 *     assert_false(result.fault);
 *     one_insn_free(cpu);
 *
 * Include it before <cmocka.h>, which has a macro of the name fail.
 */
#ifndef TESTS_ONE_INSN_H
#define TESTS_ONE_INSN_H

#include "runtime/soft/access.h"

/* Guest memory: 4 MiB of RAM from guest-physical 0, mapped at the same linear addresses, user and writable. */
#define ONE_INSN_RAM 0x400000u
#define ONE_INSN_GDT 0x1000u /* ONE_INSN_* selectors below; limit 0xfff: room for more */
#define ONE_INSN_IDT 0x2000u /* 256 entries of 16 bytes, zero */
#define ONE_INSN_TSS 0x3000u /* what TR points to; limit 0xfff, zero but for RSP0 and IST */
#define ONE_INSN_RING0                                                                             \
    0x6000u /* top of the stack that the TSS names for privilege level 0 (64-bit TSS) */
#define ONE_INSN_IST   0x7000u   /* top of the stack of IST 1 */
#define ONE_INSN_CODE  0x8000u   /* where RIP begins */
#define ONE_INSN_DATA  0x10000u  /* 64 KiB nobody uses */
#define ONE_INSN_STACK 0x30000u  /* where RSP begins */
#define ONE_INSN_PAGES 0x300000u /* page tables: PML4, PDPT, PD, then two tables of 4 KiB pages */

/* Selectors of the GDT. */
#define ONE_INSN_CS64      0x08
#define ONE_INSN_DS        0x10 /* writable data, flat */
#define ONE_INSN_CS32      0x18
#define ONE_INSN_CS16      0x20 /* base 0, limit 64 KiB */
#define ONE_INSN_DS16      0x28 /* base 0, limit 64 KiB */
#define ONE_INSN_USER_CS32 0x33
#define ONE_INSN_USER_DS   0x3b
#define ONE_INSN_USER_CS64 0x43
#define ONE_INSN_TR        0x48 /* 16 bytes: TSS */

/* The modes one_insn_mode can set up. Paging is on in 64-bit and compatibility mode. */
enum one_insn_mode {
    ONE_INSN_64,
    ONE_INSN_COMPAT32, /* 32-bit code in long mode */
    ONE_INSN_32,       /* protected mode, paging off */
    ONE_INSN_16,       /* protected mode, 16-bit code and data */
    ONE_INSN_REAL,
    ONE_INSN_V86, /* CPL 3, IOPL 3, CS = code's, others 0 */
};

struct one_insn_result {
    bool fault;
    int vector; /* -1 without a fault */
    bool has_error;
    uint32_t error;
    uint64_t cr2; /* of a page fault */
    bool
        undefined; /* no row takes these bytes, or they do not decode (fault and vector are set too) */
};

/* A vCPU in 64-bit mode at CPL 0 with interrupts off, with its own VM and RAM. Released by one_insn_free. */
struct vcpu *one_insn_vcpu(void);
void one_insn_free(struct vcpu *cpu);

/* Sets up memory, tables and state so on a vCPU of any VM that has that much RAM. */
void one_insn_set_up(struct vcpu *cpu);

/* Puts the vCPU into a mode; general registers are kept. `user`: at CPL 3 (64-bit, compatibility and 32-bit mode). */
void one_insn_mode(struct vcpu *cpu, enum one_insn_mode mode, bool user);

/* Puts the bytes at CS:RIP, decodes and executes one instruction (all iterations of a REP). Without a fault RIP is
 * the next instruction's; with a fault nothing is delivered: RIP is still the instruction's. */
struct one_insn_result one_insn_run(struct vcpu *cpu, const uint8_t *bytes, size_t length);
#define ONE_INSN(cpu, ...)                                                                         \
    one_insn_run(cpu, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* The page-table entry of a page of RAM: change it, then call one_insn_flush. */
uint64_t *one_insn_pte(struct vcpu *cpu, uint64_t linear);
void one_insn_flush(struct vcpu *cpu);

/* Host address of guest-physical memory. */
void *one_insn_at(struct vcpu *cpu, uint64_t physical);
/* Little-endian values of 1 to 8 bytes in guest-physical memory. */
void one_insn_put(struct vcpu *cpu, uint64_t physical, unsigned size, uint64_t value);
uint64_t one_insn_get(struct vcpu *cpu, uint64_t physical, unsigned size);

/* Runs `call(context)` with faults caught: for functions that raise. */
struct one_insn_result one_insn_catch(struct vcpu *cpu,
                                      void (*call)(struct vcpu *cpu, void *context), void *context);

#endif
