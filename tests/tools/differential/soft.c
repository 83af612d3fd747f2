/* SPDX-License-Identifier: MIT */
/* The software processor's side: a small VM whose vCPU runs the case at CPL 3 in 64-bit mode, set up as Linux sets up
 * its user processes. Whatever ends the case is delivered through the IDT to a HLT of its own. */
#include "tests/tools/differential/case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpuid.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"
#include "runtime/vm.h"

/* Where the first 64 KiB of guest-physical memory are mapped for the supervisor: with the kernel's addresses, so that
 * a case finds nothing at low ones, as on the host. */
#define KERNEL 0xffffffff80000000ull
/* Guest-physical layout. */
enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    HANDLERS = 0x4000, /* one HLT a vector */
    STACK_TOP = 0x9000,
    PML4 = 0x10000,
    PDPT = 0x11000,
    PD = 0x12000,
    PT_KERNEL = 0x13000,
    PT_CODE = 0x14000,
    PT_DATA = 0x15000,
    PDPT_KERNEL = 0x16000,
    PD_KERNEL = 0x17000,
    CODE = 0x20000,
    DATA = 0x30000,
    RAM = 0x200000,
};
/* Selectors as Linux has them. */
enum { KERNEL_CS = 0x10, KERNEL_SS = 0x18, USER_DS = 0x2b, USER_CS = 0x33, TASK = 0x40 };

enum { P = 1, RW = 2, US = 4, A = 0x20, D = 0x40 };
#define NX (1ull << 63)

struct soft_side {
    struct vm vm;
    struct vcpu *cpu;
};

static void put(struct soft_side *soft, uint64_t physical, uint64_t value)
{
    memcpy(memory_at(&soft->vm.memory, physical, 8), &value, 8);
}

static void build_pages(struct soft_side *soft)
{
    put(soft, PML4, PDPT | P | RW | US | A);
    put(soft, PDPT, PD | P | RW | US | A);
    put(soft, PML4 + 8 * 511, PDPT_KERNEL | P | RW | A);
    put(soft, PDPT_KERNEL + 8 * 510, PD_KERNEL | P | RW | A);
    put(soft, PD_KERNEL, PT_KERNEL | P | RW | A);
    put(soft, PD + 8 * (CODE_BASE >> 21), PT_CODE | P | RW | US | A);
    put(soft, PD + 8 * (DATA_BASE >> 21), PT_DATA | P | RW | US | A);
    for (uint64_t page = 0; page < 16; page++)
        put(soft, PT_KERNEL + 8 * page, page << 12 | P | RW | A | D);
    put(soft, PT_CODE, (uint64_t)CODE | P | US | A);
    for (uint64_t page = 0; page < DATA_PAGES; page++)
        put(soft, PT_DATA + 8 * (page + 1),
            (DATA + (page << 12)) | NX | P | US | A | D | (page < DATA_WRITABLE ? RW : 0));
}

static void build_tables(struct soft_side *soft)
{
    put(soft, GDT + KERNEL_CS, 0x00af9b000000ffff);
    put(soft, GDT + KERNEL_SS, 0x00cf93000000ffff);
    put(soft, GDT + (USER_DS & ~7), 0x00cff3000000ffff);
    put(soft, GDT + (USER_CS & ~7), 0x00affb000000ffff);
    put(soft, TSS + 4, KERNEL + STACK_TOP);      /* RSP0 */
    put(soft, TSS + 0x60, (uint64_t)0x68 << 48); /* no I/O permission bitmap */
    for (uint64_t vector = 0; vector < 32; vector++) {
        uint64_t at = HANDLERS + vector, linear = KERNEL + at;
        uint64_t dpl = vector == VECTOR_END || vector == 4 ? 3 : 0;
        put(soft, IDT + 16 * vector,
            (linear & 0xffff) | (uint64_t)KERNEL_CS << 16 | 0x8e00ull << 32 | dpl << 45 |
                (linear & 0xffff0000) << 32);
        put(soft, IDT + 16 * vector + 8, linear >> 32);
        *memory_at(&soft->vm.memory, at, 1) = 0xf4;
    }
}

static void set_segment(struct vcpu *cpu, int segment, uint16_t selector, uint32_t rights)
{
    cpu->segment[segment] =
        (struct segment){.selector = selector, .rights = rights, .limit = UINT32_MAX};
}

/* User mode, as if just entered. */
static void enter_user(struct vcpu *cpu)
{
    set_segment(cpu, SEG_CS, USER_CS, 0xa0fb);
    set_segment(cpu, SEG_SS, USER_DS, 0xc0f3);
    for (int segment = SEG_ES; segment <= SEG_GS; segment++)
        if (segment != SEG_CS && segment != SEG_SS)
            cpu->segment[segment] = (struct segment){.rights = RIGHTS_UNUSABLE};
    cpu->cpl = 3;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->shadow = 0;
    cpu->pending_db = 0;
    cpu->events = 0;
    cpu->dr[6] = 0xffff0ff0;
    cpu->vm->shutdown = SHUTDOWN_NONE;
    vcpu_mode_changed(cpu);
}

static void set_system_state(struct vcpu *cpu)
{
    cpu->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    cpu->cr3 = PML4;
    cpu->cr4 = (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_UMIP) & cpuid_cr4_mask();
    cpu->xcr0 = 7 & cpuid_xcr0_mask();
    cpu->gdt_base = KERNEL + GDT;
    cpu->gdt_limit = 0x7f;
    cpu->idt_base = KERNEL + IDT;
    cpu->idt_limit = 32 * 16 - 1;
    cpu->segment[SEG_TR] =
        (struct segment){.selector = TASK, .rights = 0x8b, .limit = 0x67, .base = KERNEL + TSS};
    cpu->segment[SEG_LDTR] = (struct segment){.rights = RIGHTS_UNUSABLE};
    tlb_flush(cpu);
}

struct soft_side *soft_side_create(bool translated)
{
    struct soft_side *soft = calloc(1, sizeof *soft);
    struct error err = {0};
    if (!soft)
        return NULL;
    soft->vm.config = (struct vm_config){.memory = RAM,
                                         .smp = 1,
                                         .deterministic = true,
                                         .translator = translated,
                                         .translator_warm = 1};
    soft->vm.engine = &soft_engine;
    if (vm_create(&soft->vm, &err)) {
        fprintf(stderr, "differential: %s\n", err.text);
        free(soft);
        return NULL;
    }
    soft->cpu = soft->vm.vcpus[0];
    build_pages(soft);
    build_tables(soft);
    memset(memory_at(&soft->vm.memory, CODE, CODE_BYTES), 0xcc, CODE_BYTES);
    set_system_state(soft->cpu);
    return soft;
}

void soft_side_destroy(struct soft_side *soft)
{
    vm_destroy(&soft->vm);
    free(soft);
}

/* What the handler's stack says. */
static void read_frame(struct soft_side *soft, struct machine *after)
{
    struct vcpu *cpu = soft->cpu;
    uint64_t frame[6], vector = cpu->rip - 1 - KERNEL - HANDLERS;
    after->vector = VECTOR_NONE;
    after->error = 0;
    after->cr2 = cpu->cr2;
    if (cpu->activity != ACTIVITY_HLT || vector >= 32)
        return;
    uint64_t rsp = cpu->r[RSP];
    bool has_error = KERNEL + STACK_TOP - rsp == sizeof frame;
    memcpy(frame, memory_at(&soft->vm.memory, STACK_TOP - sizeof frame, sizeof frame),
           sizeof frame);
    after->vector = (int)vector;
    after->error = has_error ? (uint32_t)frame[0] : 0;
    after->rip = frame[1];
    after->rflags = frame[3];
    after->r[RSP] = frame[4];
}

struct vcpu *soft_side_begin(struct soft_side *soft, const struct test_case *c)
{
    struct vcpu *cpu = soft->cpu;
    struct memory *memory = &soft->vm.memory;
    const struct machine *before = &c->before;
    uint8_t code[CODE_FILLED];
    case_code(c, code);
    memory_write(memory, CODE, code, sizeof code);
    memcpy(memory_at(memory, DATA, DATA_BYTES), before->data, DATA_BYTES);
    memcpy(cpu->r, before->r, sizeof before->r);
    memcpy(cpu->fpu.legacy, before->fx, sizeof before->fx);
    memcpy(cpu->fpu.ymm_high, before->ymm_high, sizeof before->ymm_high);
    cpu->fpu.header[0] = 7;
    cpu->rip = before->rip;
    enter_user(cpu);
    vcpu_set_rflags(cpu, before->rflags | RFLAGS_IF);
    return cpu;
}

void soft_side_show(struct soft_side *soft, struct machine *now)
{
    const struct vcpu *cpu = soft->cpu;
    memcpy(now->r, cpu->r, sizeof now->r);
    now->rip = cpu->rip;
    now->rflags = vcpu_rflags(cpu);
    memcpy(now->fx, cpu->fpu.legacy, sizeof now->fx);
    memcpy(now->ymm_high, cpu->fpu.ymm_high, sizeof now->ymm_high);
    memcpy(now->data, memory_at(&soft->vm.memory, DATA, DATA_BYTES), DATA_BYTES);
}

void soft_side_run(struct soft_side *soft, const struct test_case *c, struct machine *after)
{
    struct vcpu *cpu = soft_side_begin(soft, c);
    /* a slice ends early at times; a case is short */
    for (unsigned slices = 0; slices < 100 && cpu->activity == ACTIVITY_ACTIVE; slices++)
        soft_run(cpu, 1000);

    soft_side_show(soft, after);
    read_frame(soft, after);
}
