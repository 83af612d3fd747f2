/* SPDX-License-Identifier: MIT */
/* The block cache: what it must notice, and that nobody notices when it is full. */
#include "runtime/soft/engine.h"
#include "runtime/vcpu.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define RAM    0x400000u
#define TABLES 0x1000u   /* PML4, PDPT, PD, PT; the PT's pages are mapped to themselves */
#define TWICE  0x1fe000u /* linear: two pages, both of which are the one at CODE */
#define CODE   0x10000u  /* guest-linear and guest-physical, as all else */
#define STACK  0x1f0000u

static void put(struct vm *vm, uint64_t at, uint64_t value, unsigned size)
{
    assert_true(memory_write(&vm->memory, at, &value, size));
}

static void map_pages(struct vm *vm)
{
    put(vm, TABLES, (TABLES + 0x1000) | 7, 8);
    put(vm, TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
    put(vm, TABLES + 0x2000, (TABLES + 0x3000) | 7, 8);
    put(vm, TABLES + 0x2008, 0x200000 | 0x87, 8);
    for (uint64_t n = 0; n < 512; n++)
        put(vm, TABLES + 0x3000 + 8 * n, n << 12 | 7, 8);
    put(vm, TABLES + 0x3000 + 8 * (TWICE >> 12), CODE | 7, 8);
    put(vm, TABLES + 0x3000 + 8 * (TWICE >> 12) + 8, CODE | 7, 8);
}

/* A machine in 64-bit mode at CODE, where HLT ends a run. */
static struct vm *machine(uint64_t code_cache)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    assert_non_null(vm);
    vm->config = (struct vm_config){
        .memory = RAM, .smp = 1, .deterministic = true, .code_cache = code_cache};
    vm->engine = &soft_engine;
    assert_int_equal(vm_create(vm, &err), 0);
    map_pages(vm);
    struct vcpu *cpu = vm->vcpus[0];
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    cpu->cr3 = TABLES;
    cpu->cr4 = CR4_PAE;
    cpu->efer = EFER_LME | EFER_LMA;
    for (int s = SEG_ES; s <= SEG_GS; s++)
        cpu->segment[s] = (struct segment){0x10, 0xc093, 0xffffffff, 0};
    cpu->segment[SEG_CS] = (struct segment){8, 0xa09b, 0xffffffff, 0};
    cpu->r[RSP] = STACK;
    vcpu_mode_changed(cpu);
    return vm;
}

static void discard(struct vm *vm)
{
    vm_destroy(vm);
    free(vm);
}

/* Runs from `rip` to HLT; returns RAX. */
static uint64_t run(struct vm *vm, uint64_t rip)
{
    struct vcpu *cpu = vm->vcpus[0];
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->rip = rip;
    for (unsigned slices = 0; cpu->activity == ACTIVITY_ACTIVE && slices < 1000; slices++)
        soft_run(cpu, 10000);
    assert_int_equal(cpu->activity, ACTIVITY_HLT);
    assert_false(vm->shutdown);
    return cpu->r[RAX];
}

/* ---- what changes ---- */

static void code_that_was_written_is_decoded_again(void **state)
{
    (void)state;
    struct vm *vm = machine(0);
    put(vm, CODE, 0xf400000001b8, 6); /* mov eax, 1; hlt */
    assert_int_equal(run(vm, CODE), 1);
    put(vm, CODE + 1, 2, 1);
    assert_int_equal(run(vm, CODE), 2);
    discard(vm);
}

/* JMP rel32 begins with the last two bytes of the page and goes on with its first three. */
static void code_may_go_on_at_the_start_of_its_own_page(void **state)
{
    (void)state;
    struct vm *vm = machine(0);
    put(vm, CODE + 0x100, 0xf400000001b8, 6); /* mov eax, 1; hlt */
    put(vm, CODE + 0x200, 0xf400000002b8, 6);
    put(vm, CODE + 0xffe, 0x00e9 | 0xfd << 8, 2); /* to 0x1003 + 0xfd in the second page */
    put(vm, CODE, 0, 3);
    assert_int_equal(run(vm, TWICE + 0xffe), 1);
    put(vm, CODE, 1, 1);
    assert_int_equal(run(vm, TWICE + 0xffe), 2);
    discard(vm);
}

/* A block for each byte but the last of a line; a store to that one has all of them to look at. */
static void guest_time_does_not_depend_on_what_is_decoded(void **state)
{
    (void)state;
    struct vm *vm = machine(0);
    struct vcpu *cpu = vm->vcpus[0];
    for (unsigned n = 0; n < PAGE_SIZE; n++)
        put(vm, CODE + n, 0xf4, 1);
    for (unsigned n = 0; n < PAGE_SIZE; n++)
        if (n % 64 != 63)
            run(vm, CODE + n);
    cpu->r[RDI] = CODE + 63;
    put(vm, CODE + PAGE_SIZE, 0xf4aa, 2); /* stosb; hlt */
    uint64_t before = soft_instructions(vm);
    run(vm, CODE + PAGE_SIZE);
    assert_int_equal(soft_instructions(vm) - before, 2);
    discard(vm);
}

/* ---- when it is full ---- */

#define STEPS 4000u

/* A loop of many blocks, each of which adds another number and jumps to the next one. */
static void put_chain(struct vm *vm)
{
    uint64_t at = CODE;
    for (uint32_t n = 0; n < STEPS; n++) {
        put(vm, at, 0x0548, 2); /* add rax, n */
        put(vm, at + 2, n, 4);
        put(vm, at + 6, 0x02eb, 2); /* jmp over what would be an exception */
        put(vm, at + 8, 0x0b0f, 2);
        at += 10;
    }
    put(vm, at, 0xc9ff48, 3);   /* dec rcx */
    put(vm, at + 3, 0x850f, 2); /* jnz */
    put(vm, at + 5, (uint32_t)(CODE - (at + 9)), 4);
    put(vm, at + 9, 0xf4, 1);
}

static void a_loop_larger_than_the_arena_runs_right(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {4096, 20000, 100000, 400000, 0};
    for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        struct vm *vm = machine(sizes[n]);
        put_chain(vm);
        vm->vcpus[0]->r[RAX] = 0;
        vm->vcpus[0]->r[RCX] = 5;
        assert_int_equal(run(vm, CODE), 5ull * STEPS * (STEPS - 1) / 2);
        assert_int_equal(soft_instructions(vm), 5 * (2 * STEPS + 2) + 1);
        discard(vm);
    }
}

/* The same while every block changes: each round leaves its dead blocks behind. */
static void code_that_changes_may_fill_the_arena_too(void **state)
{
    (void)state;
    struct vm *vm = machine(20000);
    for (uint32_t n = 0; n < 2000; n++) {
        put(vm, CODE, 0xb8, 1);
        put(vm, CODE + 1, n, 4);
        put(vm, CODE + 5, 0xf4, 1);
        assert_int_equal(run(vm, CODE), n);
    }
    discard(vm);
}

/* ---- the end ---- */

static void who_asks_for_the_end_does_not_wait_for_the_slice(void **state)
{
    (void)state;
    struct vm *vm = machine(0);
    put(vm, CODE, 0xfeeb, 2); /* jmp to itself */
    vm->vcpus[0]->rip = CODE;
    soft_run(vm->vcpus[0], 1000);
    assert_int_equal(soft_instructions(vm), 1000);
    vm_request_stop(vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
    soft_run(vm->vcpus[0], 1000);
    assert_int_equal(soft_instructions(vm), 1000);
    discard(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_that_was_written_is_decoded_again),
        cmocka_unit_test(code_may_go_on_at_the_start_of_its_own_page),
        cmocka_unit_test(guest_time_does_not_depend_on_what_is_decoded),
        cmocka_unit_test(a_loop_larger_than_the_arena_runs_right),
        cmocka_unit_test(code_that_changes_may_fill_the_arena_too),
        cmocka_unit_test(who_asks_for_the_end_does_not_wait_for_the_slice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
