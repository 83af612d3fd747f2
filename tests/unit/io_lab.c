/* SPDX-License-Identifier: MIT */
/* A machine for tests of IO blocks. */
#include "tests/unit/io_lab.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/interrupts.h"
#include "runtime/io_dispatcher.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

extern const struct device_type lapic_device;

enum { LAPIC_PAGE = 0x3ff000, APIC_EOI = 0xb0, APIC_SPURIOUS = 0xf0, APIC_ENABLED = 0x1ff };
enum { NMI_HANDLER = LAB_HANDLERS + 0x100, INTERRUPT_HANDLER = LAB_HANDLERS + 0x200 };

/* ---- the device ---- */
static void happen(struct io_lab *lab)
{
    if (lab->accesses == lab->interrupt_at)
        apic_message(lab->vm, 0, false, APIC_FIXED, LAB_VECTOR, false);
    if (lab->accesses == lab->nmi_at)
        vcpu_event(lab->cpu, VCPU_EVENT_NMI);
    if (lab->accesses == lab->stop_at)
        vm_stop(lab->vm, SHUTDOWN_DEBUG_EXIT, 1);
}

static void note(struct io_lab *lab, uint64_t offset, unsigned width, uint64_t value, bool out)
{
    if (lab->accesses < LAB_ACCESSES)
        lab->log[lab->accesses] = (struct io_access){.value = value,
                                                     .time = clock_now(&lab->vm->clock),
                                                     .port = (uint16_t)(LAB_PORT + offset),
                                                     .width = (uint8_t)width,
                                                     .out = out};
    lab->accesses++;
    happen(lab);
}

static uint64_t device_read(void *context, uint64_t offset, unsigned width)
{
    struct io_lab *lab = context;
    lab->seed = lab->seed * 6364136223846793005ull + 1442695040888963407ull;
    uint64_t value = lab->answer ? lab->answer : lab->seed >> 29;
    value &= UINT64_MAX >> (64 - 8 * width);
    note(lab, offset, width, value, false);
    return value;
}

static void device_write(void *context, uint64_t offset, unsigned width, uint64_t value)
{
    note(context, offset, width, value, true);
}

/* ---- handlers ---- */
static void gate(struct io_lab *lab, unsigned vector, uint64_t handler)
{
    uint64_t entry[2] = {(handler & 0xffff) | (uint64_t)ONE_INSN_CS64 << 16 | 0x8eull << 40 |
                             (handler >> 16 & 0xffff) << 48,
                         handler >> 32};
    io_lab_write(lab, ONE_INSN_IDT + 16 * vector, entry, sizeof entry);
}

/* Saves where it came from, ends the interrupt, returns. */
static void write_handlers(struct io_lab *lab)
{
    static const uint8_t record[] = {
        0x50,                                                 /* push rax */
        0x53,                                                 /* push rbx */
        0x48, 0x8b, 0x1c, 0x25, 0x00, 0xa0, 0x00, 0x00,       /* mov rbx, [LAB_RECORD] */
        0x48, 0x8b, 0x44, 0x24, 0x10,                         /* mov rax, [rsp + 16] */
        0x48, 0x89, 0x03,                                     /* mov [rbx], rax */
        0x48, 0x83, 0x04, 0x25, 0x00, 0xa0, 0x00, 0x00, 0x08, /* add qword [LAB_RECORD], 8 */
        0x5b,                                                 /* pop rbx */
        0x58,                                                 /* pop rax */
    };
    static const uint8_t end_of_interrupt[] = {
        0xc7, 0x04, 0x25, 0xb0, 0xf0, 0x3f, 0x00, 0, 0, 0, 0, /* mov dword [LAPIC_PAGE + EOI], 0 */
        0x48, 0xcf,                                           /* iretq */
    };
    LAB_CODE_AT(lab, LAB_FAULT, 0xf4, 0xeb, 0xfd); /* hlt; jmp back */
    for (unsigned vector = 0; vector < 32; vector++)
        gate(lab, vector, vector == EXC_NMI ? NMI_HANDLER : LAB_FAULT);
    gate(lab, LAB_VECTOR, INTERRUPT_HANDLER);
    io_lab_write(lab, NMI_HANDLER, record, sizeof record);
    LAB_CODE_AT(lab, NMI_HANDLER + sizeof record, 0x48, 0xcf);
    io_lab_write(lab, INTERRUPT_HANDLER, record, sizeof record);
    io_lab_write(lab, INTERRUPT_HANDLER + sizeof record, end_of_interrupt, sizeof end_of_interrupt);
}

/* ---- the machine ---- */
struct io_lab *io_lab_open(enum io_blocks_mode mode, const char *extent)
{
    struct io_lab *lab = calloc(1, sizeof *lab);
    struct error err = {0};
    assert(lab);
    lab->cpu = one_insn_vcpu();
    lab->vm = lab->cpu->vm;
    struct vm *vm = lab->vm;
    free(vm->soft);
    vm->soft = NULL;
    vm->running = NULL;
    vm->engine = &soft_engine;
    vm->config.io_blocks = mode;
    vm->config.io_extent = extent;
    const struct bus_window window = {.name = "lab",
                                      .first = LAB_PORT,
                                      .count = LAB_PORTS,
                                      .read = device_read,
                                      .write = device_write,
                                      .device = lab};
    vm->device[0] = lapic_device.create(vm, &err);
    if (soft_engine.create(vm, &err) || !vm->device[0] || bus_add_ports(&vm->bus, &window, &err) ||
        io_blocks_attach(vm, NULL, &err)) {
        fprintf(stderr, "io_lab: %s\n", err.text);
        abort();
    }
    *one_insn_pte(lab->cpu, LAPIC_PAGE) = LAPIC_BASE | 0x67;
    *one_insn_pte(lab->cpu, LAB_ABSENT) = 0;
    write_handlers(lab);
    io_lab_reset(lab);
    return lab;
}

void io_lab_close(struct io_lab *lab)
{
    struct vm *vm = lab->vm;
    io_blocks_detach(vm);
    lapic_device.destroy(vm->device[0]);
    soft_engine.destroy(vm);
    one_insn_free(lab->cpu);
    free(lab);
}

void io_lab_reset(struct io_lab *lab)
{
    struct vcpu *cpu = lab->cpu;
    struct vm *vm = lab->vm;
    uint64_t record = LAB_RECORD + 8;
    memset(cpu->r, 0, sizeof cpu->r);
    cpu->r[RSP] = ONE_INSN_STACK;
    cpu->rip = ONE_INSN_CODE;
    vcpu_set_rflags(cpu, RFLAGS_ONE);
    cpu->cr2 = 0;
    cpu->dr[7] = 0x400;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->shadow = 0;
    cpu->nmi_blocked = false;
    cpu->events = 0;
    cpu->pending_db = 0;
    lapic_init(cpu);
    vm->running = cpu; /* whose APIC it is */
    bus_write(&vm->bus, LAPIC_BASE + APIC_SPURIOUS, 4, APIC_ENABLED);
    vm->running = NULL;
    vm->soft->executed = vm->soft->idle_ns = vm->soft->last_now = 0;
    vm->shutdown = SHUTDOWN_NONE;
    memset(&vm->stats, 0, offsetof(struct stats, hot));
    io_lab_write(lab, LAB_RECORD, &record, sizeof record);
    lab->accesses = 0;
}

void io_lab_write(struct io_lab *lab, uint64_t physical, const void *bytes, size_t size)
{
    bool written = memory_write(&lab->vm->memory, physical, bytes, size);
    assert(written);
    (void)written;
}

bool io_lab_run(struct io_lab *lab, int64_t slice, unsigned slices)
{
    for (unsigned n = 0; n < slices && !lab->vm->shutdown; n++) {
        soft_run(lab->cpu, slice);
        if (lab->cpu->activity == ACTIVITY_HLT && !io_event_waits(lab->cpu))
            return true;
    }
    return false;
}

void io_lab_go(struct io_lab *lab)
{
    io_lab_reset(lab);
    if (!io_lab_run(lab, 100000, 10)) {
        fprintf(stderr, "io_lab: still running, RIP 0x%llx\n", (unsigned long long)lab->cpu->rip);
        abort();
    }
}

void io_lab_table(struct io_lab *lab, const struct io_block *blocks, size_t count)
{
    struct io_blocks *io = lab->vm->io_blocks;
    struct error err = {0};
    size_t size = 0;
    if (io->has_table)
        io_table_free(&io->table);
    io->has_table = false;
    io->delta = 0;
    io_entries_forget(io);
    if (!count)
        return;
    uint8_t *bytes = io_table_pack(blocks, count, &size, &err);
    if (!bytes || io_table_read("lab", bytes, size, &io->table, &err)) {
        fprintf(stderr, "io_lab: %s\n", err.text);
        abort();
    }
    free(bytes);
    io->has_table = true;
}
