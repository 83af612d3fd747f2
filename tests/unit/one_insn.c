/* SPDX-License-Identifier: MIT */
/* One instruction at a time: a vCPU with flat memory, a decoder for single instructions. */
#include "tests/unit/one_insn.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

void *one_insn_at(struct vcpu *cpu, uint64_t physical)
{
    return cpu->vm->memory.host + physical;
}

void one_insn_put(struct vcpu *cpu, uint64_t physical, unsigned size, uint64_t value)
{
    memcpy(one_insn_at(cpu, physical), &value, size);
}

uint64_t one_insn_get(struct vcpu *cpu, uint64_t physical, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, one_insn_at(cpu, physical), size);
    return value;
}

static void put64(struct vcpu *cpu, uint64_t physical, uint64_t value)
{
    one_insn_put(cpu, physical, 8, value);
}

/* ---- the vCPU ---- */
static void build_pages(struct vcpu *cpu)
{
    enum { FLAGS = 0x67 }; /* present, writable, user, accessed, dirty */
    put64(cpu, ONE_INSN_PAGES, (ONE_INSN_PAGES + 0x1000) | FLAGS);
    put64(cpu, ONE_INSN_PAGES + 0x1000, (ONE_INSN_PAGES + 0x2000) | FLAGS);
    put64(cpu, ONE_INSN_PAGES + 0x2000, (ONE_INSN_PAGES + 0x3000) | FLAGS);
    put64(cpu, ONE_INSN_PAGES + 0x2008, (ONE_INSN_PAGES + 0x4000) | FLAGS);
    for (uint64_t page = 0; page < ONE_INSN_RAM / PAGE_SIZE; page++)
        put64(cpu, ONE_INSN_PAGES + 0x3000 + page * 8, page << PAGE_SHIFT | FLAGS);
}

static void build_descriptors(struct vcpu *cpu)
{
    static const uint64_t gdt[] = {
        0,
        0x00af9b000000ffff,                                /* CS64 */
        0x00cf93000000ffff,                                /* DS */
        0x00cf9b000000ffff,                                /* CS32 */
        0x00009b000000ffff,                                /* CS16 */
        0x000093000000ffff,                                /* DS16 */
        0x00cffb000000ffff,                                /* USER_CS32 */
        0x00cff3000000ffff,                                /* USER_DS */
        0x00affb000000ffff,                                /* USER_CS64 */
        0x00008b0000000fff | (uint64_t)ONE_INSN_TSS << 16, /* TR, busy */
    };
    memcpy(one_insn_at(cpu, ONE_INSN_GDT), gdt, sizeof gdt);
    put64(cpu, ONE_INSN_TSS + 4, ONE_INSN_RING0);
    put64(cpu, ONE_INSN_TSS + 36, ONE_INSN_IST);
}

uint64_t *one_insn_pte(struct vcpu *cpu, uint64_t linear)
{
    return (uint64_t *)one_insn_at(cpu, ONE_INSN_PAGES + 0x3000) + (linear >> PAGE_SHIFT);
}

void one_insn_flush(struct vcpu *cpu)
{
    tlb_flush(cpu);
}

void one_insn_set_up(struct vcpu *cpu)
{
    build_pages(cpu);
    build_descriptors(cpu);
    cpu->xcr0 = 1;
    cpu->pat = 0x0007040600070406;
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    cpu->fpu.legacy[0] = 0x7f; /* FCW 0x37f */
    cpu->fpu.legacy[1] = 0x03;
    FPU_MXCSR(&cpu->fpu) = 0x1f80;
    cpu->r[RSP] = ONE_INSN_STACK;
    cpu->rip = ONE_INSN_CODE;
    cpu->gdt_base = ONE_INSN_GDT;
    cpu->gdt_limit = 0xfff;
    cpu->idt_base = ONE_INSN_IDT;
    cpu->idt_limit = 0xfff;
    one_insn_mode(cpu, ONE_INSN_64, false);
}

struct vcpu *one_insn_vcpu(void)
{
    struct vm *vm = calloc(1, sizeof *vm);
    struct soft *soft = calloc(1, sizeof *soft);
    struct vcpu *cpu = aligned_alloc(64, (sizeof *cpu + 63) & ~(size_t)63);
    assert(vm && soft && cpu);
    memset(cpu, 0, sizeof *cpu);
    struct memory *memory = &vm->memory;
    memory->size = memory->low_size = ONE_INSN_RAM;
    memory->host =
        mmap(NULL, ONE_INSN_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(memory->host != MAP_FAILED);
    memory->code_lines = calloc(ONE_INSN_RAM / PAGE_SIZE, 8);
    vm->soft = soft;
    vm->vcpus[0] = vm->running = cpu;
    vm->vcpu_count = 1;
    cpu->vm = vm;
    cpu->fault.vector = -1;
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        for (unsigned n = 0; n < TLB_ENTRIES; n++)
            cpu->tlb_table[mode][n] = (struct tlb_entry){TLB_INVALID, TLB_INVALID, TLB_INVALID, 0};
    one_insn_set_up(cpu);
    return cpu;
}

void one_insn_free(struct vcpu *cpu)
{
    munmap(cpu->vm->memory.host, ONE_INSN_RAM);
    free(cpu->vm->memory.code_lines);
    free(cpu->vm->soft);
    free(cpu->vm);
    free(cpu);
}

/* ---- modes ---- */
static void set_segment(struct vcpu *cpu, int segment, uint16_t selector)
{
    uint64_t d;
    memcpy(&d, one_insn_at(cpu, ONE_INSN_GDT + (selector & ~7u)), 8);
    struct segment *s = &cpu->segment[segment];
    s->selector = selector;
    s->rights = d >> 40 & 0xf0ff;
    s->limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));
    if (s->rights & RIGHTS_G)
        s->limit = s->limit << 12 | 0xfff;
    s->base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
}

static void set_real(struct vcpu *cpu, int segment, uint16_t selector, unsigned dpl)
{
    cpu->segment[segment] = (struct segment){.selector = selector,
                                             .rights = 0x93 | dpl << 5,
                                             .limit = 0xffff,
                                             .base = (uint64_t)selector << 4};
}

void one_insn_mode(struct vcpu *cpu, enum one_insn_mode mode, bool user)
{
    bool paging = mode == ONE_INSN_64 || mode == ONE_INSN_COMPAT32;
    cpu->efer = EFER_SCE | EFER_NXE | (paging ? EFER_LME | EFER_LMA : 0);
    cpu->cr0 = CR0_NE | CR0_ET | CR0_MP | (mode == ONE_INSN_REAL ? 0 : CR0_PE) |
               (paging ? CR0_PG | CR0_WP : 0);
    cpu->cr3 = ONE_INSN_PAGES;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    cpu->rflags = RFLAGS_ONE | (mode == ONE_INSN_V86 ? RFLAGS_VM | RFLAGS_IOPL : 0);
    cpu->cpl =
        mode == ONE_INSN_V86 || (user && mode != ONE_INSN_REAL && mode != ONE_INSN_16) ? 3 : 0;
    if (mode == ONE_INSN_REAL || mode == ONE_INSN_V86) {
        for (int s = SEG_ES; s <= SEG_GS; s++)
            set_real(cpu, s, 0, cpu->cpl);
    } else {
        static const uint16_t code[][2] = {
            [ONE_INSN_64] = {ONE_INSN_CS64, ONE_INSN_USER_CS64},
            [ONE_INSN_COMPAT32] = {ONE_INSN_CS32, ONE_INSN_USER_CS32},
            [ONE_INSN_32] = {ONE_INSN_CS32, ONE_INSN_USER_CS32},
            [ONE_INSN_16] = {ONE_INSN_CS16, ONE_INSN_CS16},
        };
        for (int s = SEG_ES; s <= SEG_GS; s++)
            set_segment(cpu, s,
                        mode == ONE_INSN_16 ? ONE_INSN_DS16
                        : cpu->cpl          ? ONE_INSN_USER_DS
                                            : ONE_INSN_DS);
        set_segment(cpu, SEG_CS, code[mode][cpu->cpl != 0]);
    }
    set_segment(cpu, SEG_TR, ONE_INSN_TR);
    cpu->segment[SEG_LDTR] = (struct segment){.rights = RIGHTS_UNUSABLE};
    tlb_flush(cpu);
    vcpu_mode_changed(cpu);
}

/* ---- running ---- */
static const struct insn *leave(struct vcpu *cpu, const struct insn *i)
{
    cpu->rip += i->offset;
    return NULL;
}

static struct one_insn_result fault_result(const struct vcpu *cpu)
{
    return (struct one_insn_result){.fault = true,
                                    .vector = cpu->fault.vector,
                                    .has_error = cpu->fault.has_error,
                                    .error = cpu->fault.error,
                                    .cr2 = cpu->fault.cr2};
}

struct one_insn_result one_insn_catch(struct vcpu *cpu,
                                      void (*call)(struct vcpu *cpu, void *context), void *context)
{
    cpu->fault.vector = -1;
    if (setjmp(cpu->unwind)) {
        /* as the engine's loop: back to the instruction, which may not be the vCPU's block's first */
        const struct insn *i = cpu->current;
        if (cpu->block && i)
            cpu->rip += i->offset;
        return fault_result(cpu);
    }
    call(cpu, context);
    return (struct one_insn_result){.vector = -1};
}

static void run_block(struct vcpu *cpu, void *context)
{
    const struct insn *i = ((struct block *)context)->insns;
    while (i)
        i = i->run(cpu, i);
}

struct one_insn_result one_insn_run(struct vcpu *cpu, const uint8_t *bytes, size_t length)
{
    uint64_t at = cpu->rip + (vcpu_code64(cpu) ? 0 : cpu->segment[SEG_CS].base);
    struct decoded d;
    struct block *block = calloc(1, sizeof *block + 2 * sizeof block->insns[0]);
    assert(block);
    if (at < ONE_INSN_RAM - length)
        memcpy(one_insn_at(cpu, at), bytes, length);
    enum decode_result decoded = decode_insn(cpu, bytes, length, cpu->rip, block->insns, &d);
    assert(decoded == DECODE_OK);
    block->key = cpu->jump_key;
    block->physical = at;
    block->count = 1;
    block->valid = true;
    block->bytes = block->insns[0].length;
    block->insns[1] = (struct insn){.run = leave, .offset = block->insns[0].length, .position = 1};
    cpu->block = block;
    cpu->budget = 1000000;
    cpu->code_changed = false;
    struct one_insn_result result = one_insn_catch(cpu, run_block, block);
    cpu->block = NULL;
    cpu->current = NULL;
    cpu->link = NULL;
    free(block);
    return result;
}
