/* SPDX-License-Identifier: MIT */
/* A small machine in 64-bit mode for the tests of the gdb server: 2 MiB of RAM at its own linear
 * addresses, and once more at GDB_ALIAS; an IDT of gates to one handler; the code given, in
 * which all vCPUs begin. */
#ifndef TESTS_GDB_MACHINE_H
#define TESTS_GDB_MACHINE_H

#include <stdint.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "runtime/vcpu.h"

#define GDB_RAM     0x200000u
#define GDB_PML4    0x1000u
#define GDB_PDPT    0x2000u
#define GDB_PD      0x3000u
#define GDB_PT      0x7000u
#define GDB_IDT     0x4000u
#define GDB_GDT     0x5000u
#define GDB_HANDLER 0x6000u /* an IRETQ */
#define GDB_CODE    0x10000u
#define GDB_DATA    0x20000u
#define GDB_STACK   0x30000u    /* of vCPU n: 4 KiB below GDB_STACK + n * 4 KiB */
#define GDB_HOLE    0x40000u    /* a page that is not mapped */
#define GDB_ALIAS   0x40000000u /* linear: the RAM again */

static inline void gdb_machine_put(struct vm *vm, uint64_t at, uint64_t value)
{
    memcpy(vm->memory.host + at, &value, 8);
}

static inline void gdb_machine_tables(struct vm *vm)
{
    static const uint64_t gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    gdb_machine_put(vm, GDB_PML4, GDB_PDPT | 7);
    gdb_machine_put(vm, GDB_PDPT, GDB_PD | 7);
    gdb_machine_put(vm, GDB_PDPT + 8, GDB_PD | 7);
    gdb_machine_put(vm, GDB_PD, GDB_PT | 7);
    for (uint64_t n = 0; n < 512; n++)
        gdb_machine_put(vm, GDB_PT + 8 * n, n == GDB_HOLE >> 12 ? 0 : n << 12 | 7);
    for (unsigned n = 0; n < 256; n++) {
        gdb_machine_put(vm, GDB_IDT + 16 * n, GDB_HANDLER | 0x08ull << 16 | 0x8eull << 40);
        gdb_machine_put(vm, GDB_IDT + 16 * n + 8, 0);
    }
    gdb_machine_put(vm, GDB_HANDLER, 0xcf48); /* iretq */
    memcpy(vm->memory.host + GDB_GDT, gdt, sizeof gdt);
}

static inline void gdb_machine_vcpu(struct vcpu *cpu)
{
    const uint32_t code = 0x9b | RIGHTS_G | RIGHTS_L, data = 0x93 | RIGHTS_G | RIGHTS_DB;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->gdt_base = GDB_GDT;
    cpu->gdt_limit = 0x17;
    cpu->idt_base = GDB_IDT;
    cpu->idt_limit = 0xfff;
    cpu->cr3 = GDB_PML4;
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR;
    cpu->efer = EFER_LME | EFER_LMA;
    for (int s = SEG_ES; s <= SEG_GS; s++)
        cpu->segment[s] = (struct segment){0x10, data, 0xffffffff, 0};
    cpu->segment[SEG_CS] = (struct segment){8, code, 0xffffffff, 0};
    cpu->rip = GDB_CODE;
    cpu->r[RDI] = GDB_DATA;
    cpu->r[RSP] = GDB_STACK + 0x1000 * cpu->index;
    vcpu_mode_changed(cpu);
}

/* vm->config is set but for what stands here. */
static inline int gdb_machine_create(struct vm *vm, unsigned vcpus, const void *code, size_t size,
                                     struct error *err)
{
    vm->config.memory = GDB_RAM;
    vm->config.smp = vcpus;
    vm->config.deterministic = true;
    vm->config.engine = "soft";
    vm->engine = &soft_engine;
    if (vm_create(vm, err) < 0)
        return -1;
    gdb_machine_tables(vm);
    memcpy(vm->memory.host + GDB_CODE, code, size);
    for (unsigned n = 0; n < vm->vcpu_count; n++)
        gdb_machine_vcpu(vm->vcpus[n]);
    return 0;
}

#endif
