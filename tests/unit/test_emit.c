/* SPDX-License-Identifier: MIT */
/* Generation (D8, D9): displaced code does what the original did. Random functions with CPUID in
 * them are patched with each form, and called in this process before and after: registers, flags and
 * memory must end the same, with routines as they are shipped and with routines linked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cpuid.h>
#include <sched.h>

#include "hvstub/cpuid_table.h"
#include "tests/unit/core_lab.h"
#include "tests/unit/guest_runner.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

enum {
    ROUNDS = 5,
    COUNT = 240,         /* functions of a round */
    ITEMS_MAX = 22,      /* instructions of a function */
    POOL = 128,          /* bytes of data among the code */
    TEXT_SIZE = 0xa0000, /* most of it is padding for routines */
    CODE_MAX = 0x18000,
    TEXT_AT = 0x100000, /* GUEST_TEXT */
    LEAVES = 4,
};

static uint8_t text[TEXT_SIZE];
static uint32_t at; /* bytes written */
static uint32_t functions[COUNT], leaf[LEAVES], pool;

/* ---- generating ---- */

static unsigned any(unsigned limit)
{
    return (unsigned)(code_random() >> 33) % limit;
}

/* A register other than RSP. */
static unsigned any_register(unsigned limit)
{
    unsigned r = any(limit);
    return r == RSP ? RBP : r;
}

static void put(unsigned byte)
{
    text[at++] = (uint8_t)byte;
}

static void put32(uint32_t value)
{
    memcpy(text + at, &value, 4);
    at += 4;
}

/* RIP-relative displacement to somewhere in the pool; `behind`: bytes of the instruction after it. */
static void put_pool(unsigned behind)
{
    put32(pool + any(POOL - 8) - (at + 4 + behind));
}

/* Branches lead forward, to the boundary of a later instruction. */
static struct {
    uint32_t from; /* of its displacement */
    unsigned skip; /* instructions */
    bool wide;
} branches[ITEMS_MAX];
static unsigned branch_count;
static uint32_t boundary[ITEMS_MAX + 1];

static void put_branch_distance(bool wide)
{
    branches[branch_count].from = at;
    branches[branch_count].wide = wide;
    branches[branch_count++].skip = any(4);
    if (wide)
        put32(0);
    else
        put(0);
}

static void put_arithmetic(void)
{
    static const uint8_t opcodes[] = {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85, 0x89};
    unsigned from = any(16), to = any_register(16);
    unsigned rex = 0x40 | any(2) << 3 | (from >> 3) << 2 | to >> 3;
    if (rex != 0x40 || any(4) == 0)
        put(rex);
    put(opcodes[any(sizeof opcodes)]);
    put(0xc0 | (from & 7) << 3 | (to & 7));
}

static void put_pool_access(void)
{
    unsigned r = any_register(8);
    switch (any(6)) {
    case 0: /* mov (pool), %r64 */
        put(0x48), put(0x8b), put(r << 3 | 5), put_pool(0);
        break;
    case 1: /* add %r32, (pool) */
        put(0x01), put(r << 3 | 5), put_pool(0);
        break;
    case 2: /* lea */
        put(0x48), put(0x8d), put(r << 3 | 5), put_pool(0);
        break;
    case 3: /* cmpb $imm8, (pool) */
        put(0x80), put(0x3d), put_pool(1), put(any(256));
        break;
    case 4: /* movl $imm32, (pool) */
        put(0xc7), put(0x05), put_pool(4), put32((uint32_t)code_random());
        break;
    default: /* lock xadd %r32, (pool) */
        put(0xf0), put(0x0f), put(0xc1), put(r << 3 | 5), put_pool(0);
    }
}

static void put_small(void)
{
    static const uint8_t one[] = {0x90, 0x99, 0x98, 0xf5, 0xf8, 0xf9, 0xfc};
    unsigned r = any_register(8);
    switch (any(7)) {
    case 0:
        put(one[any(sizeof one)]);
        break;
    case 1: /* inc, dec */
        put(0xff), put(0xc0 | any(2) << 3 | r);
        break;
    case 2: /* mov $imm8, %r8 */
        put(0xb0 | any(4)), put(any(256));
        break;
    case 3: /* mov $imm32, %r32; small ones are CPUID leaves */
        put(0xb8 | r), put32(any(2) ? any(32) : (uint32_t)code_random());
        break;
    case 4: /* push, pop */
        put(0x50 | any(8)), put(0x58 | r);
        break;
    case 5: /* setcc */
        put(0x0f), put(0x90 | any(16)), put(0xc0 | any(4));
        break;
    default: /* cmovcc */
        put(0x0f), put(0x40 | any(16)), put(0xc0 | any(8) | r << 3);
    }
}

static void put_transfer(void)
{
    switch (any(6)) {
    case 0: /* jcc rel32 */
        put(0x0f), put(0x80 | any(16)), put_branch_distance(true);
        break;
    case 1: /* jmp */
        if (any(2))
            put(0xe9), put_branch_distance(true);
        else
            put(0xeb), put_branch_distance(false);
        break;
    case 2: /* loopne, loope, loop, jrcxz, jecxz */
        if (any(4) == 0)
            put(0x67);
        put(0xe0 | any(4)), put_branch_distance(false);
        break;
    case 3:
        put(0xe8), put32(leaf[any(LEAVES)] - (at + 4));
        break;
    default: /* jcc rel8 */
        put(0x70 | any(16)), put_branch_distance(false);
    }
}

static void put_item(void)
{
    switch (any(10)) {
    case 0:
    case 1:
        put_arithmetic();
        break;
    case 2:
        put_pool_access();
        break;
    case 3:
    case 4:
        put_transfer();
        break;
    case 5:
    case 6:
        put(0x0f), put(0xa2);
        break;
    default:
        put_small();
    }
}

static void put_function(void)
{
    unsigned items = 4 + any(ITEMS_MAX - 4), site = any(items);
    branch_count = 0;
    unsigned owner[ITEMS_MAX] = {0};
    for (unsigned i = 0; i < items; i++) {
        unsigned before = branch_count;
        boundary[i] = at;
        if (i == site)
            put(0x0f), put(0xa2);
        else
            put_item();
        if (branch_count > before)
            owner[before] = i;
    }
    boundary[items] = at;
    put(0xc3);
    for (unsigned i = 0; i < branch_count; i++) {
        unsigned to = owner[i] + 1 + branches[i].skip;
        uint32_t target = boundary[to > items ? items : to], from = branches[i].from;
        uint32_t distance = target - (from + (branches[i].wide ? 4 : 1));
        memcpy(text + from, &distance, branches[i].wide ? 4 : 1);
    }
    for (unsigned n = any(3) ? any(20) : 0, byte = any(4) ? 0xcc : 0x90; n--;)
        put(byte);
}

/* A guest: calls of all functions, from the entry; they are found by following control flow. */
static void generate(void)
{
    memset(text, 0xcc, sizeof text);
    pool = 16;
    at = pool + POOL;
    text[0] = 0xe9;
    memcpy(text + 1, &(uint32_t){at - 5}, 4);
    uint32_t calls = at;
    at += 5 * COUNT + 3;
    for (unsigned i = 0; i < LEAVES; i++) {
        leaf[i] = at;
        put_arithmetic();
        put_small();
        put(0xc3);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        functions[i] = at;
        put_function();
    }
    assert_true(at < CODE_MAX);
    for (unsigned i = 0; i < COUNT; i++, calls += 5) {
        text[calls] = 0xe8;
        memcpy(text + calls + 1, &(uint32_t){functions[i] - (calls + 5)}, 4);
    }
    memcpy(text + calls, "\xf4\xeb\xfd", 3);
}

/* ---- running ---- */

struct outcome {
    struct code_registers registers;
    uint8_t pool[POOL];
};

static struct outcome start[COUNT], want[COUNT];
static struct lab lab;
static struct guest guest;

static void run(unsigned function, struct outcome *outcome)
{
    memcpy(guest.memory + pool, start[function].pool, POOL);
    outcome->registers = start[function].registers;
    guest_call(&guest, TEXT_AT + functions[function], &outcome->registers, NULL, NULL);
    if (guest.fault)
        fail_msg("function %u traps at %#llx", function, (unsigned long long)guest.fault);
    memcpy(outcome->pool, guest.memory + pool, POOL);
}

static void compare(unsigned round, const char *how)
{
    for (unsigned f = 0; f < COUNT; f++) {
        struct outcome got;
        run(f, &got);
        for (int r = 0; r < REGISTERS; r++)
            if (got.registers.r[r] != want[f].registers.r[r])
                fail_msg("round %u, %s, function at %#x: register %d is %#llx, not %#llx", round,
                         how, TEXT_AT + functions[f], r, (unsigned long long)got.registers.r[r],
                         (unsigned long long)want[f].registers.r[r]);
        if ((got.registers.flags ^ want[f].registers.flags) & (FLAGS_ARITHMETIC | FLAG_DIRECTION))
            fail_msg("round %u, %s, function at %#x: flags %#llx, not %#llx", round, how,
                     TEXT_AT + functions[f], (unsigned long long)got.registers.flags,
                     (unsigned long long)want[f].registers.flags);
        if (memcmp(got.pool, want[f].pool, POOL))
            fail_msg("round %u, %s, function at %#x: its stores differ", round, how,
                     TEXT_AT + functions[f]);
    }
}

static void load(const char *path)
{
    if (!guest_load(&guest, path))
        fail_msg("%s: %s", path, guest.error);
    assert_true((uintptr_t)guest.memory == TEXT_AT);
}

/* Links all routines; the table has the true answers to two leaves. */
static void activate(void)
{
    static const uint32_t leaves[] = {0, 0x80000000};
    pv_cpuid_clear(guest.cpuid);
    for (unsigned i = 0; i < 2; i++) {
        struct pv_cpuid_answer a;
        __cpuid(leaves[i], a.eax, a.ebx, a.ecx, a.edx);
        assert_true(pv_cpuid_put(guest.cpuid, leaves[i], &a));
    }
    for (uint32_t i = 0; i < guest.header->routine_count; i++)
        if (guest.routines[i].emulation_offset)
            assert_true(guest_activate(&guest, (int)i, true));
}

static void check_form(unsigned round, enum pv_form form, const char *name)
{
    char how[32];
    lab.options.form = form;
    lab_must_build(&lab, "include cpuid\n");
    struct build_counts counts = build_count(&lab.result);
    /* Windows are found for nearly all; a two-byte branch needs padding or a neighbour. */
    assert_true(build_coverage(&counts) > (form == PV_FORM_NONE ? 90 : 50));
    load(lab.output_path);
    compare(round, name);
    activate();
    snprintf(how, sizeof how, "%s, linked", name);
    compare(round, how);
    guest_unload(&guest);
}

static void test_D8_displaced_code_does_what_the_original_did(void **state)
{
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        generate();
        lab_plain(&lab, text, sizeof text, NULL, 0);
        lab.options.form = PV_FORM_NONE;
        lab_must_build(&lab, "include cpuid\n");
        load(lab.image_path);
        for (unsigned f = 0; f < COUNT; f++) {
            code_randomize(&start[f].registers, 0);
            for (unsigned i = 0; i < POOL; i++)
                start[f].pool[i] = (uint8_t)code_random();
            run(f, &want[f]);
        }
        guest_unload(&guest);
        check_form(round, PV_FORM_NONE, "auto");
        check_form(round, PV_FORM_JUMP, "jump");
        check_form(round, PV_FORM_CALL, "call");
        check_form(round, PV_FORM_BRANCH, "branch");
        check_form(round, PV_FORM_BREAK, "break");
    }
}

static int set_up(void **state)
{
    (void)state;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one); /* APIC ids in CPUID must not change between two looks */
    sched_setaffinity(0, sizeof one, &one);
    lab_open(&lab);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guest_unload(&guest);
    lab_close(&lab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_D8_displaced_code_does_what_the_original_did, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
