/* SPDX-License-Identifier: MIT */
/* Random guests: any mode, any registers, one to four vCPUs, all devices, and code that mostly
 * survives its own faults because its handlers skip the instruction. Whatever a guest does, the
 * host process must neither crash nor hang nor leave guest memory, and what the processor derives
 * from its state must be what follows from it.
 *
 * The input is a header that says what the guest is like, and code, which stands where each vCPU
 * begins. All else follows from the header's seed, so that a mutation of the code changes nothing
 * but the code. */
#include <stdlib.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "runtime/vcpu.h"
#include "tests/fuzz/guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define GUEST_NS 1000u /* of guest time: instructions, and events */
#define TURNS    256u

struct header {
    uint8_t mode; /* enum guest_mode */
    uint8_t
        shape; /* bits 0-1: vCPUs - 1; 2: the engine's own loop; 3: the others wait for a SIPI; 4: translated */
    uint8_t control, flags;
    uint8_t spoiled; /* words of the tables that are random */
    uint8_t gates;   /* of 256 gates, how many lead anywhere */
    uint16_t slices;
    uint32_t seed;
};
#define SHAPE_LOOP       4u
#define SHAPE_SIPI       8u
#define SHAPE_TRANSLATED 16u

/* ---- the guest ---- */

static void set_controls(struct vcpu *cpu, enum guest_mode mode, const struct header *h)
{
    uint64_t c = h->control;
    cpu->cr0 |= CR0_NE | (c & 1 ? CR0_WP : 0) | (c & 2 ? CR0_AM : 0) | (c & 4 ? CR0_MP : 0);
    cpu->cr4 |= CR4_PSE | CR4_OSFXSR | CR4_OSXSAVE | CR4_OSXMMEXCPT | (c & 8 ? CR4_SMEP : 0) |
                (c & 16 ? CR4_SMAP : 0) | (c & 32 ? CR4_DE | CR4_VME : 0) |
                (c & 64 ? CR4_PGE | CR4_PCE : 0) | (c & 128 ? CR4_UMIP | CR4_TSD : 0);
    if (guest_long(mode))
        cpu->cr4 |= CR4_PKE | CR4_FSGSBASE;
    cpu->xcr0 = 7;
}

/* A value that instructions can do something with. */
static uint64_t a_register(uint64_t *state)
{
    uint64_t choice = guest_draw(state), value = guest_draw(state);
    switch (choice & 15) {
    case 0:
        return 0xfee00000 + (value & 0x3f0);
    case 1:
        return 0xfec00000 + (value & 0x10);
    case 2:
        return value & 0x3ff; /* a port, an MSR, a count */
    case 3:
        return value & 0xfff8 & (GUEST_CODE - 1); /* a table */
    case 4:
        return value & 0xff;
    case 5:
        return value;
    case 6:
        return (uint64_t)((int64_t)(value << 44) >> 44) & ~(choice >> 8 & 7);
    case 7:
        return 0xc0000080 + (value & 7);
    default:
        return value % GUEST_RAM;
    }
}

static void set_up(struct vcpu *cpu, const struct header *h, uint64_t *state)
{
    enum guest_mode mode = h->mode % GUEST_MODES;
    guest_enter(cpu, mode);
    set_controls(cpu, mode, h);
    for (unsigned n = 0; n < 16; n++)
        cpu->r[n] = a_register(state);
    cpu->r[RSP] = GUEST_STACK - 0x400 * cpu->index;
    cpu->rip += GUEST_SPACING * cpu->index;
    uint64_t flags = vcpu_rflags(cpu) | (h->flags & 1 ? RFLAGS_IF : 0) |
                     (h->flags & 2 ? RFLAGS_DF : 0) | (h->flags & 4 ? RFLAGS_AC : 0) |
                     (h->flags & 8 ? RFLAGS_TF : 0) | (h->flags & 16 ? RFLAGS_IOPL : 0);
    if (h->flags & 32) { /* breakpoints on its own code and stack */
        cpu->dr[0] = GUEST_CODE + (guest_draw(state) & 63);
        cpu->dr[1] = GUEST_STACK - 16;
        cpu->dr[7] = 0x400 | 0x00d0000f;
    }
    vcpu_set_rflags(cpu, flags);
    vcpu_mode_changed(cpu);
    cpu->activity = cpu->index && h->shape & SHAPE_SIPI ? ACTIVITY_WAIT_FOR_SIPI : ACTIVITY_ACTIVE;
}

static void fill(struct vm *vm, const struct header *h, uint64_t *state, const uint8_t *code,
                 size_t size)
{
    uint8_t *ram = vm->memory.host;
    enum guest_mode mode = h->mode % GUEST_MODES;
    guest_fill_code(vm, state);
    guest_fill_tables(vm, mode, h->gates, state);
    for (unsigned n = h->spoiled; n; n--) {
        uint64_t word = guest_draw(state), at = guest_draw(state) % (GUEST_HANDLERS - 8);
        memcpy(ram + at, &word, 1 + (at >> 3 & 7));
    }
    if (size > GUEST_SPACING)
        size = GUEST_SPACING;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        memcpy(ram + GUEST_CODE + GUEST_SPACING * k, code, size);
}

/* ---- the run ---- */

static void time_is_up(void *context, uint64_t now)
{
    (void)now;
    vm_stop(context, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
}

static void run(struct vm *vm, const struct header *h, uint64_t *state)
{
    struct timer end = {.fire = time_is_up, .context = vm};
    struct error err = {0};
    clock_arm(&vm->clock, &end, GUEST_NS);
    if (h->shape & SHAPE_LOOP)
        must(!vm->engine->run(vm, &err));
    for (unsigned turn = 0; turn < TURNS && !vm->shutdown; turn++)
        for (unsigned k = 0; k < vm->vcpu_count && !vm->shutdown; k++) {
            clock_run(&vm->clock);
            if (h->slices & 1 && guest_draw(state) & 1)
                soft_step(vm->vcpus[k]);
            else
                soft_run(vm->vcpus[k], 1 + (guest_draw(state) & h->slices >> 8));
        }
    clock_cancel(&vm->clock, &end);
}

/* ---- what must hold afterwards ---- */

static void check_tlb(const struct vm *vm, const struct tlb_entry *e)
{
    if (e->read == TLB_INVALID && e->fetch == TLB_INVALID && e->write == TLB_INVALID)
        return;
    const uint64_t tags[3] = {e->read, e->write & ~(uint64_t)TLB_CODED, e->fetch};
    for (unsigned k = 0; k < 3; k++) {
        uint64_t offset = tags[k] + e->addend - (uintptr_t)vm->memory.host;
        if (tags[k] & TLB_INVALID)
            continue;
        must(offset < vm->memory.size && !(offset & PAGE_OFFSET));
        /* decoded code is never written without notice */
        must(k != 1 || e->write & TLB_CODED || !vm->memory.code_lines[offset >> PAGE_SHIFT]);
    }
}

/* (A long loop with nothing to explore: not traced.) */
__attribute__((no_sanitize("coverage"))) static void check_vcpu(struct vcpu *cpu)
{
    uint8_t mode = cpu->mode, cpl = cpu->cpl;
    uint64_t key = cpu->jump_key, base[6];
    const struct tlb_entry *tlb = cpu->tlb;
    memcpy(base, cpu->base, sizeof base);
    vcpu_mode_changed(cpu);
    must(mode == cpu->mode);
    must(cpl == cpu->cpl);
    must(key == cpu->jump_key);
    must(tlb == cpu->tlb);
    must(!memcmp(base, cpu->base, sizeof base) && !cpu->r[REG_ZERO]);
    must((cpu->status & 0x2a00) == RFLAGS_ONE << 8 && (cpu->status & 0xff) <= 1);
    must(!cpu->block);
    must(cpu->fault.vector == -1);
    for (unsigned m = 0; m < TLB_MODES; m++)
        for (unsigned n = 0; n < TLB_ENTRIES; n++)
            check_tlb(cpu->vm, &cpu->tlb_table[m][n]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct header h = {0};
    size_t head = size < sizeof h ? size : sizeof h;
    memcpy(&h, bytes, head);
    uint64_t state = (uint64_t)h.seed << 1 | 1;
    struct vm *vm = guest_vm(1 + (h.shape & 3), h.shape & SHAPE_TRANSLATED);
    fill(vm, &h, &state, bytes + head, size - head);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        set_up(vm->vcpus[k], &h, &state);
    run(vm, &h, &state);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        check_vcpu(vm->vcpus[k]);
    vm_destroy(vm);
    free(vm);
    return 0;
}
