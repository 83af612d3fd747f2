/* SPDX-License-Identifier: MIT */
/* Single steps through the engine: TF, and TF with DEBUGCTL.BTF. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/soft/cache.h"
#include "runtime/soft/engine.h"

static int begin(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    struct error err;
    cpu->vm->soft->cache = cache_create(cpu->vm, &err);
    assert_non_null(cpu->vm->soft->cache);
    *state = cpu;
    return 0;
}

static int end(void **state)
{
    struct vcpu *cpu = *state;
    cache_destroy(cpu->vm->soft->cache);
    one_insn_free(cpu);
    return 0;
}

/* Executes the one instruction with TF set; true if that trapped. */
static bool traps(struct vcpu *cpu, const uint8_t *bytes, size_t length)
{
    memcpy(one_insn_at(cpu, ONE_INSN_CODE), bytes, length);
    cache_flush(cpu->vm->soft->cache);
    cpu->rip = ONE_INSN_CODE;
    cpu->rflags |= RFLAGS_TF;
    cpu->pending_db = 0;
    soft_step(cpu);
    assert_int_equal(cpu->pending_db & ~DR6_BS, 0);
    return cpu->pending_db;
}
#define TRAPS(...)                                                                                 \
    traps(cpu, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void a_step_traps_behind_every_instruction(void **state)
{
    struct vcpu *cpu = *state;
    assert_true(TRAPS(0x90));
    assert_true(TRAPS(0xeb, 0x10));
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 0x12);
    assert_false(TRAPS(0x8e, 0xd0)); /* mov %eax, %ss: not here */
}

static void with_btf_a_step_traps_behind_branches_that_are_taken(void **state)
{
    struct vcpu *cpu = *state;
    cpu->debugctl = DEBUGCTL_BTF;
    cpu->r[RAX] = ONE_INSN_CODE + 0x100;
    assert_false(TRAPS(0x90));
    assert_false(TRAPS(0x0f, 0xa2));      /* cpuid */
    assert_true(TRAPS(0xeb, 0x10));       /* jmp */
    assert_true(TRAPS(0xeb, 0xfe));       /* jmp to itself */
    assert_true(TRAPS(0xe8, 0, 1, 0, 0)); /* call */
    assert_true(TRAPS(0xc3));             /* ret */
    cpu->status = RFLAGS_ONE << 8;        /* ZF clear */
    assert_false(TRAPS(0x74, 0x10));      /* jz */
    assert_true(TRAPS(0x75, 0x10));       /* jnz */
    cpu->r[RCX] = 2;
    cpu->r[RSI] = cpu->r[RDI] = ONE_INSN_DATA;
    assert_false(TRAPS(0xf3, 0xa4)); /* rep movsb: once, and to go on */
    assert_int_equal(cpu->r[RCX], 1);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    assert_false(TRAPS(0xf3, 0xa4));
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_step_traps_behind_every_instruction),
        TEST(with_btf_a_step_traps_behind_branches_that_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
