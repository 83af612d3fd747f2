/* SPDX-License-Identifier: MIT */
/* Random code translated and interpreted: two machines with the same memory and registers must come to the same state,
 * the one by translating everything the first time it is reached. Code may change itself, and reach data and page
 * tables through other addresses; faults lead to handlers that go on a byte further.
 *
 * The input is a header that says what the guest is like, and code, behind which a jump leads to its beginning again. The
 * machines have no devices, and are used over and over: making one takes longer than most runs. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/lockstep.h"
#include "runtime/soft/engine.h"
#include "runtime/state_hash.h"
#include "runtime/translator/translator.h"
#include "runtime/vcpu.h"
#include "tests/fuzz/guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define CODE_MAX 0x1000u
#define DATA     0x1800u

struct header {
    uint8_t shape;  /* bit 0: at CPL 3; 1: direction flag; 2: alignment is checked; 3: SMAP */
    uint8_t start;  /* of the code, in units of 16 bytes */
    uint8_t slice;  /* instructions from one look at the registers to the next, at most */
    uint8_t length; /* of the run */
    uint32_t seed;  /* of registers and data */
};
#define SHAPE_USER 1u
#define SHAPE_DOWN 2u
#define SHAPE_AC   4u
#define SHAPE_SMAP 8u

static struct vm *pair[2];        /* translated, interpreted */
static uint8_t before[GUEST_RAM]; /* memory at the start of a run */
static uint8_t jumps[0x3000];     /* as many pages as code may reach into */

/* ---- the machines ---- */
static void open_machines(void)
{
    for (unsigned n = 0; n < 2; n++) {
        pair[n] = guest_vm(1, n == 0);
        pair[n]->config.lockstep = true; /* both keep the same TLB entries */
        memset(pair[n]->bus.port_owner, 0, sizeof pair[n]->bus.port_owner);
        pair[n]->bus.mmio_windows = 0;
    }
}

static void close_machines(void)
{
    for (unsigned n = 0; n < 2; n++) {
        vm_destroy(pair[n]);
        free(pair[n]);
        pair[n] = NULL;
    }
}

/* What outlasts a run: the local APIC's registers, and MSRs. */
static bool is_used_up(const struct vm *vm)
{
    return vm->stats.exits[EXIT_KIND_MSR] || vm->stats.exits[EXIT_KIND_CR];
}

/* ---- the guest ---- */
/* Jumps to GUEST_CODE wherever code does not stand, so that one that gets lost comes back. */
static void fill_code(uint8_t *ram)
{
    memset(ram + GUEST_CODE, 0x90, GUEST_DATA - GUEST_CODE);
    for (uint32_t at = GUEST_CODE + 16; at < GUEST_DATA; at += 16) {
        int32_t back = (int32_t)(GUEST_CODE - (at + 5));
        ram[at] = 0xe9;
        memcpy(ram + at + 1, &back, 4);
    }
}

static void put_jump(uint8_t *ram, uint32_t at, uint32_t to)
{
    int32_t distance = (int32_t)(to - (at + 5));
    ram[at] = 0xe9;
    memcpy(ram + at + 1, &distance, 4);
}

/* What is the same in all runs: tables, handlers, jumps. */
static void fill_rest(void)
{
    uint64_t state = 1;
    uint8_t *ram = pair[1]->memory.host; /* which is new */
    guest_fill_tables(pair[1], GUEST_KERNEL64, 0, &state);
    memcpy(before, ram, GUEST_RAM);
    fill_code(before);
    memcpy(jumps, before + GUEST_CODE, sizeof jumps);
}

static void fill(const struct header *h, uint64_t *state, const uint8_t *code, size_t size)
{
    uint32_t start = GUEST_CODE + 16u * (h->start ? h->start : 1);
    memcpy(before + GUEST_CODE, jumps, sizeof jumps);
    memcpy(before + start, code, size);
    put_jump(before, GUEST_CODE, start);
    put_jump(before, start + (uint32_t)size, start);
    for (uint32_t at = GUEST_DATA; at < GUEST_DATA + DATA; at += 8) {
        uint64_t word = guest_draw(state);
        memcpy(before + at, &word, 8);
    }
}

/* What the last run has changed, and what is another now. */
static void restore(struct vm *vm)
{
    for (uint32_t at = 0; at < GUEST_RAM; at += PAGE_SIZE)
        if (memcmp(vm->memory.host + at, before + at, PAGE_SIZE) != 0)
            must(memory_write(&vm->memory, at, before + at, PAGE_SIZE));
}

/* Mostly addresses: of data, of code, of the same by other page-table entries, of anything. */
static uint64_t a_register(uint64_t *state)
{
    uint64_t choice = guest_draw(state), value = guest_draw(state);
    switch (choice & 15) {
    case 0:
        return GUEST_CODE + value % 0x1100;
    case 1:
        return GUEST_RAM + value % GUEST_RAM;
    case 2:
        return value;
    case 3:
        return value & 63;
    case 4:
        return (uint64_t)((int64_t)(value << 44) >> 44);
    case 5:
        return GUEST_DATA + 0xff0 + (value & 31);
    default:
        return GUEST_DATA + value % DATA;
    }
}

static void set_up(struct vcpu *cpu, const struct header *h, uint64_t seed)
{
    uint64_t state = seed;
    struct soft *soft = cpu->vm->soft;
    soft->executed = soft->idle_ns = soft->last_now = 0;
    cpu->vm->shutdown = SHUTDOWN_NONE;
    vcpu_reset(cpu, false);
    guest_enter(cpu, h->shape & SHAPE_USER ? GUEST_USER64 : GUEST_KERNEL64);
    cpu->cr0 |= CR0_NE | CR0_MP | CR0_WP | CR0_AM;
    cpu->cr4 |= CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE | CR4_OSXMMEXCPT |
                (h->shape & SHAPE_SMAP ? CR4_SMAP : 0);
    cpu->xcr0 = 7;
    for (unsigned n = 0; n < 16; n++)
        cpu->r[n] = a_register(&state);
    cpu->r[RSP] = GUEST_STACK - 0x800;
    for (unsigned n = 160; n < 416; n += 8) {
        uint64_t word = guest_draw(&state);
        memcpy(cpu->fpu.legacy + n, &word, 8);
    }
    cpu->fpu.header[0] = 7;
    vcpu_set_rflags(cpu, RFLAGS_ONE | (h->shape & SHAPE_DOWN ? RFLAGS_DF : 0) |
                             (h->shape & SHAPE_AC ? RFLAGS_AC : 0) | (state & RFLAGS_STATUS));
    vcpu_mode_changed(cpu);
    cpu->activity = ACTIVITY_ACTIVE;
}

/* ---- what must hold ---- */
static void show(const char *what)
{
    FILE *stream = fdopen(2, "w");
    must(stream != NULL);
    fprintf(stream, "%s; instructions %llu translated, %llu interpreted\n", what,
            (unsigned long long)soft_instructions(pair[0]),
            (unsigned long long)soft_instructions(pair[1]));
    lockstep_compare(pair[0]->vcpus[0], pair[1]->vcpus[0], true, 0, stream);
    lockstep_compare_memory(pair[0], pair[1], NULL, stream);
    fflush(stream);
    abort();
}

static void compare(void)
{
    const struct soft *a = pair[0]->soft, *b = pair[1]->soft;
    if (soft_instructions(pair[0]) != soft_instructions(pair[1]) || a->idle_ns != b->idle_ns)
        show("one of them has executed more");
    if (pair[0]->shutdown != pair[1]->shutdown)
        show("one of them has ended");
    if (vcpu_state_hash(pair[0]->vcpus[0]) != vcpu_state_hash(pair[1]->vcpus[0]))
        show("the states are not the same");
}

static void run(const struct header *h, uint64_t *state)
{
    int64_t left = 16 + 2 * h->length;
    while (left > 0 && !pair[0]->shutdown && pair[0]->vcpus[0]->activity == ACTIVITY_ACTIVE) {
        int64_t now = 1 + (int64_t)(guest_draw(state) % (h->slice + 1u));
        if (now > left)
            now = left;
        left -= now;
        soft_run(pair[0]->vcpus[0], now);
        soft_run(pair[1]->vcpus[0], now);
        compare();
    }
    if (memcmp(pair[0]->memory.host, pair[1]->memory.host, GUEST_RAM) != 0)
        show("memory is not the same");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct header h = {0};
    size_t head = size < sizeof h ? size : sizeof h;
    if (translator_missing())
        return 0;
    if (!pair[0])
        open_machines();
    if (!jumps[16])
        fill_rest();
    memcpy(&h, bytes, head);
    uint64_t state = (uint64_t)h.seed << 1 | 1;
    fill(&h, &state, bytes + head, size - head < CODE_MAX ? size - head : CODE_MAX);
    for (unsigned n = 0; n < 2; n++) {
        restore(pair[n]);
        set_up(pair[n]->vcpus[0], &h, state);
    }
    run(&h, &state);
    if (is_used_up(pair[0]))
        close_machines();
    return 0;
}
