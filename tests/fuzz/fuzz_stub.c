/* SPDX-License-Identifier: MIT */
/* Fuzzes the host's side of the stub: a guest with a few routines, of whose memory (header,
 * descriptions, tables, state page, ring, code, stack) the input writes anything, before the stub
 * is attached and while the guest runs its routines, rings doorbells from anywhere and uses its
 * devices. */
#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/soft/engine.h"
#include "tests/unit/console_double.h"
#include "tests/unit/stub_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS_MAX 400

static const struct {
    const char *hex, *template_name;
    enum pv_form form;
} routines[] = {
    {"0f a2", "cpuid_table", PV_FORM_JUMP},
    {"0f a2", "cpuid_table_or_host", PV_FORM_BREAK},
    {"0f 32", "rdmsr_table", PV_FORM_JUMP},
    {"0f 30", "wrmsr_posted", PV_FORM_JUMP},
    {"ee", "out_posted", PV_FORM_JUMP},
    {"ec", "in_table", PV_FORM_BREAK},
    {"ed", "in_timer", PV_FORM_JUMP},
    {"0f 20 d8", "mov_from_cr_doorbell", PV_FORM_JUMP},
    {"0f 01 7f 08", "invlpg_memory_doorbell", PV_FORM_JUMP},
    {"f3 6f", "outs_doorbell", PV_FORM_JUMP},
    {"ef", "out_bare", PV_FORM_JUMP},
    {"0f 01 1f", "lidt_doorbell", PV_FORM_JUMP},
};
#define ROUTINES (sizeof routines / sizeof routines[0])

struct input {
    const uint8_t *next, *end;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned n = 0; n < bytes && in->next < in->end; n++)
        value |= (uint64_t)*in->next++ << 8 * n;
    return value;
}

/* ---- memory ---- */
/* Where the input writes: a part of the image, the stack, or anything. */
static uint8_t *place(struct stub_guest *g, struct input *in)
{
    unsigned choice = (unsigned)take(in, 1);
    unsigned offset = (unsigned)take(in, 2);
    switch (choice % 8) {
    case 0:
        return (uint8_t *)g->header + offset % sizeof *g->header;
    case 1:
        return (uint8_t *)g->routines + offset % (ROUTINES * sizeof *g->routines);
    case 2:
        return (uint8_t *)g->patches + offset % (ROUTINES * sizeof *g->patches);
    case 3:
        return (uint8_t *)g->table + offset % (8 * ROUTINES);
    case 4:
        return (uint8_t *)g->state + offset % sizeof *g->state;
    case 5:
        return stub_guest_at(g, (int)(choice / 8 % ROUTINES), offset % 0x400);
    case 6:
        return g->vm.memory.host + STUB_GUEST_STACK - 256 + offset % 512;
    default:
        return g->vm.memory.host + ((uint64_t)offset * 64 + choice) % (g->vm.memory.size - 8);
    }
}

static void poke(struct stub_guest *g, struct input *in)
{
    uint8_t *at = place(g, in);
    unsigned width = 1u << (take(in, 1) & 3);
    uint64_t value = take(in, width), physical = (uint64_t)(at - g->vm.memory.host);
    memory_write(&g->vm.memory, physical, &value, width);
}

/* ---- running ---- */
static void set_registers(struct stub_guest *g, struct input *in)
{
    static const uint16_t ports[] = {0x3f8, 0x3f9, 0x3fb, 0x3fd, 0x70, 0x71,
                                     0x40,  0x43,  0x608, 0x21,  0x80, 0x3fa};
    struct vcpu *cpu = g->cpu;
    unsigned choice = (unsigned)take(in, 1);
    cpu->r[RAX] = take(in, 4);
    cpu->r[RCX] = choice & 1 ? PV_MSR_TSC_DEADLINE : take(in, 4);
    cpu->r[RDX] = choice & 2 ? ports[choice / 16 % (sizeof ports / 2)] : take(in, 4);
    cpu->r[RDI] = cpu->r[RSI] = choice & 4 ? STUB_GUEST_STACK : take(in, 8);
    cpu->r[RSP] = choice & 8 ? take(in, 8) : STUB_GUEST_STACK - 64;
}

static void run(struct stub_guest *g, struct input *in)
{
    unsigned choice = (unsigned)take(in, 1), offset = 0;
    static const unsigned offsets[] = {SLOT_WINDOW, SLOT_LINK, SLOT_LINK + 5, SLOT_EMULATION};
    offset = offsets[choice / 16 % 4] + (choice & 0x80 ? (unsigned)take(in, 1) : 0);
    struct vcpu *cpu = g->cpu;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->rip = stub_guest_linear((int)(choice % 16 % ROUTINES), offset);
    if (choice & 0x40)
        cpu->rip -= STUB_GUEST_LINEAR - STUB_GUEST_PHYSICAL;
    soft_run(cpu, 1 + (int64_t)take(in, 1) * 4);
}

static void pass(struct stub_guest *g, struct input *in)
{
    g->vm.soft->idle_ns += take(in, 4) << (take(in, 1) & 15);
    clock_run(&g->vm.clock);
}

static void step(struct stub_guest *g, struct input *in)
{
    g->vm.running = g->cpu;
    switch (take(in, 1) % 8) {
    case 0:
    case 1:
        poke(g, in);
        break;
    case 2:
        set_registers(g, in);
        break;
    case 3:
    case 4:
        run(g, in);
        break;
    case 5:
        pass(g, in);
        break;
    case 6:
        bus_out(&g->vm.bus, (uint16_t)(0x3f8 + take(in, 1) % 8), 1, (uint32_t)take(in, 1));
        break;
    default:
        soft_step(g->cpu);
    }
    g->vm.shutdown = SHUTDOWN_NONE;
    console_clear();
}

/* The APIC's timer waits for deadlines. */
static void use_deadlines(struct stub_guest *g)
{
    g->vm.running = g->cpu;
    bus_write(&g->vm.bus, LAPIC_BASE + 0xf0, 4, 0x1ff);
    bus_write(&g->vm.bus, LAPIC_BASE + 0x320, 4, 2u << 17 | 0x40);
}

static void drive(struct stub_guest *g, struct input *in)
{
    unsigned before = (unsigned)take(in, 1) % 8;
    for (unsigned n = 0; n < before; n++)
        poke(g, in);
    stub_guest_attach(g);
    if (g->err.code && (!g->err.text[0] || strchr(g->err.text, '\n')))
        abort();
    if (g->err.code) /* the run does not begin */
        return;
    use_deadlines(g);
    for (unsigned n = 0; n < STEPS_MAX && in->next < in->end; n++)
        step(g, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    console_clear();
    struct stub_guest *g = stub_guest_open(true);
    for (size_t k = 0; k < ROUTINES; k++)
        stub_guest_add(g, routines[k].hex, routines[k].template_name, routines[k].form);
    g->vm.config.link_all = take(&in, 1) & 1;
    drive(g, &in);
    stub_guest_close(g);
    return 0;
}
