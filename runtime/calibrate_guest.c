/* SPDX-License-Identifier: MIT */
/* The guest of --calibrate. */
#include "runtime/calibrate_guest.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/boot.h"
#include "runtime/vcpu.h"

/* Guest-physical, which is linear: behind what boot_long_mode places. */
#define CODE    0x200000u
#define IDT     0x210000u
#define STACK   0x220000u
#define ANSWERS 0x220000u /* of CPUID, and an MSR's: zeros do */

#define VECTOR     0x40u
#define GATE       16u
#define INTERRUPT  0x8eu /* present, level 0, interrupt gate */
#define APIC_EOI   0xfee000b0u
#define APIC_SVR   0xfee000f0u
#define APIC_ICR   0xfee00300u
#define NO_DEVICE  0xfed00000u /* memory where nobody is: an exit and no device's work */
#define DEBUG_EXIT 0xf4

#define IMM32(v) (uint8_t)((v)&0xff), (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define EBX(v)   0xbb, IMM32(v) /* mov $v, %ebx */
#define ECX(v)   0xb9, IMM32(v)
#define RDMSR    0x0f, 0x32
#define EFER     0xc0000080u
#define MISC     0x1a0u /* IA32_MISC_ENABLE: hvrun keeps it on all engines */

/* movl $value, address: disp32 is sign-extended, so it goes by RBX */
#define STORE(value) 0xc7, 0x03, IMM32(value)

#define CODE_OF(...) {__VA_ARGS__}, .body_size = sizeof((uint8_t[]){__VA_ARGS__})
#define ONCE(...)    .before = {__VA_ARGS__}, .before_size = sizeof((uint8_t[]){__VA_ARGS__})
#define EACH(...)    .body = CODE_OF(__VA_ARGS__)

const struct calibrate_row calibrate_rows[] = {
    {.name = "loop"},
    {"out", "exits.io", "OUT of a byte", EACH(0xe6, 0xe0)},
    {"in", "exits.io", "IN of a byte", EACH(0xe4, 0xe0)},
    {"out_delay", "exits.io", "OUT to port 0x80", EACH(0xe6, 0x80)},
    {"doorbell", "exits.doorbell", "a doorbell: OUT of 32 bits", EACH(0xe7, 0xe4)},
    {"mmio", "exits.mmio", "a read of a device's memory", ONCE(EBX(NO_DEVICE)), EACH(0x8b, 0x03)},
    {"apic_eoi", "exits.mmio", "the end of an interrupt, at the local APIC", ONCE(EBX(APIC_EOI)),
     EACH(0x89, 0x03)},
    /* cli; ICR = self, VECTOR; sti; hlt: there the interrupt comes in, and the handler ends it */
    {"hlt", "exits.hlt", "HLT, and all of the interrupt that wakes",
     ONCE(EBX(APIC_SVR), STORE(0x1ff), EBX(APIC_ICR)),
     EACH(0xfa, STORE(0x40000 | VECTOR), 0xfb, 0xf4)},
    {"cpuid", "exits.cpuid", "CPUID", EACH(0x31, 0xc0, 0x0f, 0xa2)},
    /* compared with the entry's leaf; then the four registers */
    {"cpuid_table", NULL, "CPUID that the guest answers from a table",
     EACH(0x31, 0xc0, EBX(ANSWERS), 0x39, 0x03, 0x75, 0x00, 0x8b, 0x43, 0x04, 0x8b, 0x4b, 0x0c,
          0x8b, 0x53, 0x10, 0x8b, 0x5b, 0x08)},
    {"rdmsr", "exits.msr", "RDMSR of a register that hvrun keeps", EACH(ECX(MISC), RDMSR)},
    {"rdmsr_cpu", "exits.msr", "RDMSR of one that the processor keeps (EFER)",
     EACH(ECX(EFER), RDMSR)},
    {"rdmsr_table", NULL, "RDMSR that the guest answers from a table",
     EACH(ECX(0), EBX(ANSWERS), 0x39, 0x0b, 0x75, 0x00, 0x8b, 0x43, 0x04, 0x8b, 0x53, 0x08)},
    {"wrmsr", "exits.msr", "WRMSR of a register that hvrun keeps", ONCE(ECX(MISC), RDMSR),
     EACH(ECX(MISC), 0x0f, 0x30)},
    {"wbinvd", "exits.other_listed", "WBINVD", EACH(0x0f, 0x09)},
    {"cr3", "exits.cr3", "a write of CR3", ONCE(0x0f, 0x20, 0xd8), EACH(0x0f, 0x22, 0xd8)},
};
const size_t calibrate_row_count = sizeof calibrate_rows / sizeof calibrate_rows[0];

/* ---- into memory ---- */
struct writer {
    uint8_t bytes[128];
    uint32_t size;
};

static void put(struct writer *w, const void *bytes, size_t size)
{
    memcpy(w->bytes + w->size, bytes, size);
    w->size += (uint32_t)size;
}
#define PUT(...) put(&w, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static struct writer loop_of(const struct calibrate_row *row, uint32_t rounds)
{
    struct writer w = {.size = 0};
    put(&w, row->before, row->before_size);
    PUT(0x41, 0xbc, IMM32(rounds)); /* mov $rounds, %r12d */
    uint32_t top = w.size;
    put(&w, row->body, row->body_size);
    PUT(0x41, 0xff, 0xcc); /* dec %r12d */
    uint32_t back = top - (w.size + 6);
    PUT(0x0f, 0x85, IMM32(back)); /* jnz top */
    PUT(0x31, 0xc0, 0xe6, DEBUG_EXIT);
    return w;
}

/* push %rbx; EOI; pop %rbx; iretq */
static const uint8_t handler[] = {0x53, EBX(APIC_EOI), STORE(0), 0x5b, 0x48, 0xcf};

int calibrate_load(struct vm *vm, const struct calibrate_row *row, uint32_t rounds,
                   struct error *err)
{
    struct boot boot = {.vm = vm, .err = err};
    struct vcpu *cpu = vm->vcpus[0];
    struct writer code = loop_of(row, rounds);
    const uint64_t at = CODE + sizeof code.bytes;
    const uint8_t gate[GATE] = {at & 0xff, at >> 8 & 0xff,  BOOT_CS,         0, 0,
                                INTERRUPT, at >> 16 & 0xff, at >> 24 & 0xff, 0};
    int result = boot_begin(&boot) || boot_long_mode(&boot, CODE) ? -1 : 0;
    free(boot.used);
    if (result < 0)
        return -1;
    cpu->r[RSP] = STACK;
    cpu->idt_base = IDT;
    cpu->idt_limit = (VECTOR + 1) * GATE - 1;
    if (memory_write(&vm->memory, CODE, code.bytes, code.size) &&
        memory_write(&vm->memory, at, handler, sizeof handler) &&
        memory_write(&vm->memory, IDT + VECTOR * GATE, gate, sizeof gate))
        return 0;
    return fail(err, HVRUN_HOST, "--calibrate: too little memory");
}
