/* SPDX-License-Identifier: MIT */
/* String instructions: against the host's own in 64-bit mode; segments, limits and wrapping in the others. */
#include "tests/unit/against_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/code_runner.h"

#define DATA AGAINST_HOST_DATA

static struct vcpu *cpu;

enum { MOVS = 0xa4, CMPS = 0xa6, STOS = 0xaa, LODS = 0xac, SCAS = 0xae };
static const uint8_t all[] = {MOVS, CMPS, STOS, LODS, SCAS};

/* The instruction with its prefixes; returns its length. */
static size_t put_string(uint8_t *p, unsigned opcode, unsigned size, unsigned repeat,
                         bool address32)
{
    size_t n = 0;
    if (address32)
        p[n++] = 0x67;
    if (size == 2)
        p[n++] = 0x66;
    if (repeat)
        p[n++] = (uint8_t)repeat;
    if (size == 8)
        p[n++] = 0x48;
    p[n++] = (uint8_t)(opcode | (size > 1));
    return n;
}

static uint8_t *at(uint64_t address)
{
    return one_insn_at(cpu, address);
}

/* Registers for a string operation on the data, somewhere in its middle; long runs of equal bytes so that
 * comparisons go on. */
static void prepare(bool down)
{
    against_host_random(cpu);
    uint8_t fill = (uint8_t)code_random();
    for (unsigned n = 0; n < AGAINST_HOST_BYTES; n++)
        at(DATA)[n] = code_random() % 5000 ? fill : (uint8_t)code_random();
    cpu->r[RAX] = fill * 0x0101010101010101u;
    if (code_random() % 4 == 0)
        cpu->r[RAX] = code_random();
    cpu->r[RSI] = DATA + 0x6000 + code_random() % 0x3000;
    cpu->r[RDI] = code_random() % 3 ? cpu->r[RSI] + code_random() % 64 - 32
                                    : DATA + 0x6000 + code_random() % 0x3000;
    cpu->r[RCX] = code_random() % 4 ? code_random() % 40 : code_random() % (0x5000 / 8);
    if (down)
        vcpu_set_rflags(cpu, vcpu_rflags(cpu) | RFLAGS_DF);
}

static void single_elements_are_handled_as_the_host_does(void **state)
{
    (void)state;
    for (unsigned k = 0; k < sizeof all; k++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (unsigned round = 0; round < 200; round++) {
                uint8_t bytes[8];
                size_t length = put_string(bytes, all[k], size, 0, round & 2);
                prepare(round & 1);
                if (round % 8 == 7)
                    cpu->r[RSI] = DATA + 0x5ffd; /* crosses a page */
                if (round % 16 > 13)
                    cpu->r[RDI] = DATA + 0x8fff;
                same_as_host(cpu, bytes, length);
            }
}

static void repeated(unsigned repeat, bool address32)
{
    for (unsigned k = 0; k < sizeof all; k++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (unsigned round = 0; round < 80; round++) {
                uint8_t bytes[8];
                size_t length = put_string(bytes, all[k], size, repeat, address32);
                prepare(round & 1);
                same_as_host(cpu, bytes, length);
            }
}

static void repetition_is_the_hosts(void **state)
{
    (void)state;
    repeated(0xf3, false);
}

static void repetition_while_not_equal_is_the_hosts(void **state)
{
    (void)state;
    repeated(0xf2, false);
}

static void repetition_with_32_bit_addresses_is_the_hosts(void **state)
{
    (void)state;
    repeated(0xf3, true);
}

static void a_count_of_zero_changes_nothing(void **state)
{
    (void)state;
    for (unsigned k = 0; k < sizeof all; k++)
        for (unsigned address32 = 0; address32 < 2; address32++) {
            uint8_t bytes[8];
            size_t length = put_string(bytes, all[k], 4, 0xf3, address32);
            prepare(false);
            cpu->r[RSI] = cpu->r[RDI] = ~0ull << 32;
            cpu->r[RCX] = address32 ? ~0ull << 32 : 0;
            same_as_host(cpu, bytes, length);
        }
}

/* Each byte is read after the one before it was written, at every distance and in both directions. */
static void overlapping_moves_go_element_by_element(void **state)
{
    (void)state;
    for (int distance = -20; distance <= 20; distance++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (unsigned down = 0; down < 2; down++) {
                uint8_t bytes[8];
                size_t length = put_string(bytes, MOVS, size, 0xf3, false);
                against_host_random(cpu);
                vcpu_set_rflags(cpu, down ? RFLAGS_DF : 0);
                cpu->r[RSI] = DATA + 0x1400;
                cpu->r[RDI] = cpu->r[RSI] + (uint64_t)distance;
                cpu->r[RCX] = 64;
                same_as_host(cpu, bytes, length);
            }
}

/* The same where two linear pages are one physical page: only the host addresses tell. */
static void moves_overlap_through_aliases_too(void **state)
{
    (void)state;
    uint64_t alias = DATA + 0x4000;
    uint8_t expected[64];
    *one_insn_pte(cpu, alias) = *one_insn_pte(cpu, DATA);
    one_insn_flush(cpu);
    for (unsigned n = 0; n < 64; n++)
        at(DATA)[n] = (uint8_t)n;
    memcpy(expected, at(DATA), 64);
    for (unsigned n = 0; n < 32; n++)
        expected[n + 3] = expected[n];
    cpu->r[RSI] = DATA;
    cpu->r[RDI] = alias + 3;
    cpu->r[RCX] = 32;
    static const uint8_t bytes[] = {0xf3, 0xa4};
    assert_false(run_whole(cpu, bytes, 2).fault);
    assert_memory_equal(at(DATA), expected, 64);
}

/* A page that faults in the middle: all before is done, the registers say so, RIP stays. */
static void a_fault_in_the_middle_leaves_what_was_done(void **state)
{
    (void)state;
    static const uint8_t move[] = {0xf3, 0x48, 0xa5}, compare[] = {0xf3, 0xa6};
    uint64_t missing = DATA + 0x3000;
    *one_insn_pte(cpu, missing) &= ~1ull;
    one_insn_flush(cpu);
    memset(at(DATA), 0x11, AGAINST_HOST_BYTES);

    cpu->r[RSI] = DATA;
    cpu->r[RDI] = missing - 3 * 8;
    cpu->r[RCX] = 100;
    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result r = run_whole(cpu, move, sizeof move);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_PF);
    assert_int_equal(r.error, PF_WRITE | PF_USER);
    assert_int_equal(r.cr2, missing);
    assert_int_equal(cpu->r[RCX], 97);
    assert_int_equal(cpu->r[RSI], DATA + 24);
    assert_int_equal(cpu->r[RDI], missing);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);

    /* an element that straddles the boundary is not stored in part */
    cpu->r[RSI] = DATA + 0x1000;
    memset(at(DATA + 0x1000), 0x22, 16);
    cpu->r[RDI] = missing - 4;
    cpu->r[RCX] = 1;
    r = run_whole(cpu, move, sizeof move);
    assert_true(r.fault);
    assert_int_equal(r.cr2, missing);
    assert_int_equal(cpu->r[RCX], 1);
    assert_int_equal(at(missing - 4)[0], 0x11);

    vcpu_set_rflags(cpu, RFLAGS_CF | RFLAGS_SF);
    cpu->r[RSI] = missing - 16;
    cpu->r[RDI] = DATA + 0x5000;
    cpu->r[RCX] = 100;
    r = run_whole(cpu, compare, sizeof compare);
    assert_true(r.fault);
    assert_int_equal(r.error, PF_USER);
    assert_int_equal(cpu->r[RCX], 84);
    assert_int_equal(vcpu_rflags(cpu) & RFLAGS_STATUS, RFLAGS_ZF | RFLAGS_PF);
}

/* A long repetition comes back to the loop, so that interrupts get in: RIP at the instruction, registers exact, time
 * has passed. */
static void a_long_repetition_is_done_in_pieces(void **state)
{
    (void)state;
    cpu->r[RDI] = DATA;
    cpu->r[RCX] = 10000;
    cpu->r[RAX] = 7;
    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result r = ONE_INSN(cpu, 0xf3, 0xaa);
    assert_false(r.fault);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    assert_in_range(10000 - cpu->r[RCX], 1, 4096);
    assert_int_equal(cpu->r[RDI], DATA + 10000 - cpu->r[RCX]);
    assert_true(cpu->budget < 1000000 - 100);
    r = run_whole(cpu, (const uint8_t[]){0xf3, 0xaa}, 2);
    assert_false(r.fault);
    assert_int_equal(cpu->r[RCX], 0);
    assert_int_equal(at(DATA)[9999], 7);
}

static void one_iteration_at_a_time_when_stepping(void **state)
{
    (void)state;
    for (unsigned tf = 0; tf < 2; tf++) {
        cpu->one_iteration = !tf;
        vcpu_set_rflags(cpu, tf ? RFLAGS_TF : 0);
        cpu->r[RDI] = DATA;
        cpu->r[RCX] = 3;
        cpu->rip = ONE_INSN_CODE;
        for (unsigned left = 2; left > 0; left--) {
            ONE_INSN(cpu, 0xf3, 0x48, 0xab);
            assert_int_equal(cpu->r[RCX], left);
            assert_int_equal(cpu->rip, ONE_INSN_CODE);
        }
        ONE_INSN(cpu, 0xf3, 0x48, 0xab);
        assert_int_equal(cpu->r[RCX], 0);
        assert_int_equal(cpu->rip, ONE_INSN_CODE + 3);
    }
}

static void the_source_segment_can_be_overridden_the_destination_not(void **state)
{
    (void)state;
    cpu->segment[SEG_GS].base = cpu->base[SEG_GS] = 0x1000;
    cpu->r[RSI] = DATA;
    cpu->r[RDI] = DATA + 0x8000;
    cpu->r[RCX] = 16;
    memset(at(DATA), 1, 16);
    memset(at(DATA + 0x1000), 2, 16);
    memset(at(DATA + 0x9000), 3, 16);
    cpu->rip = ONE_INSN_CODE;
    assert_false(run_whole(cpu, (const uint8_t[]){0x65, 0xf3, 0xa4}, 3).fault);
    assert_int_equal(at(DATA + 0x8000)[15], 2);
    assert_int_equal(at(DATA + 0x9000)[15], 3);
    cpu->r[RSI] = DATA;
    assert_false(run_whole(cpu, (const uint8_t[]){0x65, 0x48, 0xad}, 3).fault);
    assert_int_equal(cpu->r[RAX], 0x0202020202020202);
}

/* ---- other modes ---- */
static void real_mode_wraps_at_64_kilobytes(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->segment[SEG_DS].base = cpu->base[SEG_DS] = DATA;
    cpu->segment[SEG_ES].base = cpu->base[SEG_ES] = DATA + 0x10000;
    for (unsigned n = 0; n < 0x10000; n++)
        at(DATA)[n] = (uint8_t)(n * 7 + (n >> 8));
    memset(at(DATA + 0x10000), 0, 0x10000);
    cpu->r[RSI] = 0x5555fff0;
    cpu->r[RDI] = 0x66660010;
    cpu->r[RCX] = 0x77770020;
    cpu->rip = ONE_INSN_CODE;
    assert_false(run_whole(cpu, (const uint8_t[]){0xf3, 0xa4}, 2).fault);
    assert_int_equal(cpu->r[RSI], 0x55550010);
    assert_int_equal(cpu->r[RDI], 0x66660030);
    assert_int_equal(cpu->r[RCX], 0x77770000);
    for (unsigned n = 0; n < 0x20; n++)
        assert_int_equal(at(DATA + 0x10010)[n], at(DATA)[(0xfff0 + n) & 0xffff]);

    /* a word at the last byte is beyond the limit */
    cpu->r[RSI] = 0xfffd;
    cpu->r[RCX] = 5;
    cpu->r[RDI] = 0;
    struct one_insn_result r = run_whole(cpu, (const uint8_t[]){0xf3, 0xa5}, 2);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(cpu->r[RSI], 0xffff);
    assert_int_equal(cpu->r[RCX], 4);
}

static void limits_are_checked_for_each_element(void **state)
{
    (void)state;
    for (unsigned down = 0; down < 2; down++) {
        one_insn_mode(cpu, ONE_INSN_32, false);
        vcpu_set_rflags(cpu, down ? RFLAGS_DF : 0);
        cpu->segment[SEG_ES].base = cpu->base[SEG_ES] = DATA;
        cpu->segment[SEG_ES].limit = 0x104;
        if (down) { /* expand-down: what is beyond the limit */
            cpu->segment[SEG_ES].rights |= RIGHTS_DOWN;
            cpu->segment[SEG_ES].limit = 0x7f;
        }
        memset(at(DATA), 0, 0x200);
        cpu->r[RAX] = 0x01010101;
        cpu->r[RDI] = 0xf0;
        cpu->r[RCX] = 1000;
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result r = run_whole(cpu, (const uint8_t[]){0xf3, 0xab}, 2);
        assert_true(r.fault);
        assert_int_equal(r.vector, EXC_GP);
        assert_int_equal(r.error, 0);
        unsigned done = down ? (0xf0 - 0x80) / 4 + 1 : 5;
        assert_int_equal(cpu->r[RCX], 1000 - done);
        assert_int_equal(cpu->r[RDI], down ? 0xf0 - 4 * done : 0xf0 + 4 * done);
    }
}

static void a_read_only_segment_is_not_written(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->segment[SEG_ES].rights &= ~RIGHTS_WRITABLE;
    cpu->r[RDI] = DATA;
    cpu->r[RCX] = 4;
    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result r = run_whole(cpu, (const uint8_t[]){0xf3, 0xaa}, 2);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(cpu->r[RCX], 4);
    r = run_whole(cpu, (const uint8_t[]){0xf2, 0xae}, 2);
    assert_false(r.fault);
}

int main(void)
{
#define T(name) AGAINST_HOST_TEST(name, cpu)
    const struct CMUnitTest tests[] = {
        T(single_elements_are_handled_as_the_host_does),
        T(repetition_is_the_hosts),
        T(repetition_while_not_equal_is_the_hosts),
        T(repetition_with_32_bit_addresses_is_the_hosts),
        T(a_count_of_zero_changes_nothing),
        T(overlapping_moves_go_element_by_element),
        T(moves_overlap_through_aliases_too),
        T(a_fault_in_the_middle_leaves_what_was_done),
        T(a_long_repetition_is_done_in_pieces),
        T(one_iteration_at_a_time_when_stepping),
        T(the_source_segment_can_be_overridden_the_destination_not),
        T(real_mode_wraps_at_64_kilobytes),
        T(limits_are_checked_for_each_element),
        T(a_read_only_segment_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
