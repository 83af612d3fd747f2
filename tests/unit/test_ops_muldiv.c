/* SPDX-License-Identifier: MIT */
/* Multiplication, division, exchanges that compare: against the host's own instructions. */
#include "tests/unit/against_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/code_runner.h"

#define ROUNDS 400
#define PLACE  (AGAINST_HOST_DATA + 0x1800)

static struct vcpu *cpu;

/* With registers as they come, and with [rdi] at every alignment and across a page. */
static void run_both(uint8_t *bytes, size_t length, size_t modrm, uint8_t registers, uint8_t memory)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        against_host_random(cpu);
        bytes[modrm] = registers;
        same_as_host(cpu, bytes, length);
        bytes[modrm] = memory;
        cpu->r[RDI] = PLACE + (round & 15);
        if (round % 16 == 15)
            cpu->r[RDI] = AGAINST_HOST_DATA + 0x1ffd;
        same_as_host(cpu, bytes, length);
    }
}

static void wide_products_are_the_hosts(void **state)
{
    (void)state;
    for (unsigned reg = 4; reg <= 5; reg++) /* MUL, IMUL */
        for (unsigned size = 1; size <= 8; size *= 2) {
            uint8_t bytes[4];
            size_t n = put_size(bytes, size);
            bytes[n] = size == 1 ? 0xf6 : 0xf7;
            run_both(bytes, n + 2, n + 1, (uint8_t)(0xc3 | reg << 3), (uint8_t)(0x07 | reg << 3));
            run_both(bytes, n + 2, n + 1, (uint8_t)(0xc7 | reg << 3), (uint8_t)(0x07 | reg << 3));
            run_both(bytes, n + 2, n + 1, (uint8_t)(0xc2 | reg << 3), (uint8_t)(0x07 | reg << 3));
        }
}

static void products_of_two_and_three_operands_are_the_hosts(void **state)
{
    (void)state;
    for (unsigned size = 2; size <= 8; size *= 2) {
        uint8_t bytes[12];
        size_t n = put_size(bytes, size);
        bytes[n] = 0x0f;
        bytes[n + 1] = 0xaf;
        run_both(bytes, n + 3, n + 2, 0xd3, 0x17);
        run_both(bytes, n + 3, n + 2, 0xdb, 0x3f);
        for (unsigned k = 0; k < 8; k++) {
            uint64_t value = against_host_value();
            bytes[n] = k & 1 ? 0x6b : 0x69;
            memcpy(bytes + n + 2, &value, 4);
            run_both(bytes, n + 2 + (k & 1 ? 1 : size == 2 ? 2 : 4), n + 1, 0xd3, 0x17);
        }
    }
}

/* The host must not be asked for a quotient that does not fit: what the vCPU says first decides. Whether it is right
 * is seen by 128-bit arithmetic. */
static bool quotient_fits(bool is_signed, unsigned size, uint64_t by)
{
    unsigned bits = 8 * size;
    uint64_t mask = ~0ull >> (64 - bits);
    uint64_t low = size == 1 ? cpu->r[RAX] & 0xff : cpu->r[RAX] & mask;
    uint64_t high = size == 1 ? cpu->r[RAX] >> 8 & 0xff : cpu->r[RDX] & mask;
    unsigned __int128 dividend = (unsigned __int128)high << bits | low;
    by &= mask;
    if (by == 0)
        return false;
    if (!is_signed)
        return dividend / by <= mask;
    unsigned down = 64 - bits;
    __int128 signed_dividend = (__int128)(dividend << (2 * down)) >> (2 * down);
    __int128 signed_by = (int64_t)(by << down) >> down;
    if (signed_by == -1) /* the most negative dividend has no quotient at all, not even here */
        return signed_dividend >= -(__int128)(mask >> 1) &&
               signed_dividend <= (__int128)(mask >> 1) + 1;
    __int128 quotient = signed_dividend / signed_by;
    return quotient <= (__int128)(mask >> 1) && quotient >= -(__int128)(mask >> 1) - 1;
}

static unsigned divided, refused;

static void divide(const uint8_t *bytes, size_t length, bool is_signed, unsigned size, uint64_t by)
{
    if (quotient_fits(is_signed, size, by)) {
        same_as_host(cpu, bytes, length);
        divided++;
        return;
    }
    struct vcpu before = *cpu;
    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result r = one_insn_run(cpu, bytes, length);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_DE);
    assert_false(r.has_error);
    assert_memory_equal(cpu->r, before.r, sizeof before.r);
    assert_int_equal(cpu->status, before.status);
    refused++;
}

static void quotients_are_the_hosts_and_what_does_not_fit_is_refused(void **state)
{
    (void)state;
    divided = refused = 0;
    for (unsigned reg = 6; reg <= 7; reg++) /* DIV, IDIV */
        for (unsigned size = 1; size <= 8; size *= 2)
            for (unsigned round = 0; round < 4000; round++) {
                uint8_t bytes[4];
                size_t n = put_size(bytes, size);
                bytes[n] = size == 1 ? 0xf6 : 0xf7;
                bytes[n + 1] = (uint8_t)(0xc3 | reg << 3);
                against_host_random(cpu);
                if (round % 2) /* a quotient that may fit */
                    cpu->r[RDX] = reg == 7 ? 0 - (cpu->r[RAX] >> 63) : 0;
                if (round % 4 == 3)
                    cpu->r[RDX] = cpu->r[RBX] >> 1;
                if (size == 1 && round % 2)
                    cpu->r[RAX] = (uint64_t)(int64_t)(int8_t)cpu->r[RAX];
                if (round % 64 == 9)
                    cpu->r[RBX] = ~0ull;
                uint64_t by = cpu->r[RBX];
                if (round % 3 == 0) {
                    bytes[n + 1] = (uint8_t)(0x07 | reg << 3);
                    cpu->r[RDI] = PLACE + (round & 3);
                    memcpy(one_insn_at(cpu, cpu->r[RDI]), &by, 8);
                }
                divide(bytes, n + 2, reg == 7, size, by);
            }
    assert_true(divided > 5000);
    assert_true(refused > 5000);
}

/* -2^(n-1) as quotient is right, 2^(n-1) is not; -2^(2n-1) / -1 is not. */
static void the_edges_of_signed_quotients_are_exact(void **state)
{
    (void)state;
    static const struct {
        uint64_t high, low, by;
        bool fits;
    } edges[] = {
        {~0ull, 1ull << 63, 1, true},
        {~0ull, 1ull << 63, ~0ull, false},
        {0, 1ull << 63, ~0ull, true},
        {0, 1ull << 63, 1, false},
        {0, (1ull << 63) + 1, ~0ull, false},
        {0, (1ull << 63) - 1, 1, true},
        {1ull << 63, 0, ~0ull, false},
        {1ull << 63, 0, 1ull << 63, false},
        {0x3fffffffffffffff, ~0ull, 1ull << 63, true},
        {0x4000000000000000, 0, 1ull << 63, true},
        {0x4000000000000000, 0x7fffffffffffffff, 1ull << 63, true},
        {0x4000000000000000, 1ull << 63, 1ull << 63, false},
    };
    for (unsigned e = 0; e < sizeof edges / sizeof *edges; e++) {
        static const uint8_t idiv[] = {0x48, 0xf7, 0xfb};
        against_host_random(cpu);
        cpu->r[RDX] = edges[e].high;
        cpu->r[RAX] = edges[e].low;
        cpu->r[RBX] = edges[e].by;
        unsigned before = divided;
        assert_int_equal(quotient_fits(true, 8, edges[e].by), edges[e].fits);
        divide(idiv, 3, true, 8, edges[e].by);
        assert_int_equal(divided - before, edges[e].fits);
    }
}

static void adx_adds_with_its_own_carry(void **state)
{
    (void)state;
    static const uint8_t forms[][6] = {{5, 0x66, 0x0f, 0x38, 0xf6, 0},
                                       {5, 0xf3, 0x0f, 0x38, 0xf6, 0}};
    if (!host_has_adx())
        skip();
    for (unsigned f = 0; f < 2; f++) {
        uint8_t bytes[8];
        memcpy(bytes, forms[f] + 1, 5);
        run_both(bytes, 5, 4, 0xd3, 0x17);
        memmove(bytes + 2, bytes + 1, 4);
        bytes[1] = 0x48;
        run_both(bytes, 6, 5, 0xd3, 0x17);
    }
}

static void exchange_and_add_is_the_hosts(void **state)
{
    (void)state;
    for (unsigned size = 1; size <= 8; size *= 2) {
        uint8_t bytes[5];
        size_t n = put_size(bytes, size);
        bytes[n] = 0x0f;
        bytes[n + 1] = size == 1 ? 0xc0 : 0xc1;
        run_both(bytes, n + 3, n + 2, 0xd3, 0x17);
        run_both(bytes, n + 3, n + 2, 0xdb, 0x1f); /* one register twice */
        run_both(bytes, n + 3, n + 2, 0xe3, 0x27); /* AH, or RSP: 8 bits only */
    }
}

static void compare_and_exchange_is_the_hosts(void **state)
{
    (void)state;
    for (unsigned size = 1; size <= 8; size *= 2) {
        uint8_t bytes[5];
        size_t n = put_size(bytes, size);
        bytes[n] = 0x0f;
        bytes[n + 1] = size == 1 ? 0xb0 : 0xb1;
        run_both(bytes, n + 3, n + 2, 0xd3, 0x17); /* differs, nearly always */
        run_both(bytes, n + 3, n + 2, 0xd0, 0x07); /* the accumulator: equal */
        run_both(bytes, n + 3, n + 2, 0xc3, 0x07);
        for (unsigned round = 0; round < ROUNDS; round++) { /* equal */
            against_host_random(cpu);
            cpu->r[RBX] = (cpu->r[RBX] & ~0xffffffffull) | (uint32_t)cpu->r[RAX];
            if (size == 8)
                cpu->r[RBX] = cpu->r[RAX];
            bytes[n + 2] = 0xd3;
            same_as_host(cpu, bytes, n + 3);
            cpu->r[RDI] = PLACE + (round & 15);
            memcpy(one_insn_at(cpu, cpu->r[RDI]), &cpu->r[RAX], 8);
            bytes[n + 2] = 0x17;
            same_as_host(cpu, bytes, n + 3);
        }
    }
}

static void double_width_compare_and_exchange_is_the_hosts(void **state)
{
    (void)state;
    for (unsigned wide = 0; wide < 2; wide++) {
        uint8_t bytes[] = {0xf0, 0x48, 0x0f, 0xc7, 0x0f}; /* lock cmpxchg16b [rdi] */
        size_t length = 5;
        if (!wide) {
            memmove(bytes + 1, bytes + 2, 3);
            length = 4;
        }
        for (unsigned round = 0; round < ROUNDS; round++) {
            against_host_random(cpu);
            cpu->r[RDI] = PLACE;
            if (round & 1) {
                uint64_t low = wide ? cpu->r[RAX] : cpu->r[RDX] << 32 | (uint32_t)cpu->r[RAX];
                memcpy(one_insn_at(cpu, PLACE), &low, 8);
                memcpy(one_insn_at(cpu, PLACE + 8), &cpu->r[RDX], 8);
            }
            same_as_host(cpu, bytes, length);
        }
    }
}

static void cmpxchg16b_wants_an_aligned_operand(void **state)
{
    (void)state;
    cpu->r[RDI] = PLACE + 8;
    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result r = ONE_INSN(cpu, 0x48, 0x0f, 0xc7, 0x0f);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_GP);
    assert_int_equal(r.error, 0);
    cpu->r[RDI] = PLACE;
    r = ONE_INSN(cpu, 0x48, 0x0f, 0xc7, 0x0f);
    assert_false(r.fault);
}

/* SDM 2A CMPXCHG: the destination is written back even if it was not equal. */
static void compare_and_exchange_needs_write_permission_in_any_case(void **state)
{
    (void)state;
    static const uint8_t forms[][6] = {{4, 0x48, 0x0f, 0xb1, 0x17}, {4, 0x48, 0x0f, 0xc7, 0x0f}};
    *one_insn_pte(cpu, PLACE) &= ~2ull;
    one_insn_flush(cpu);
    for (unsigned f = 0; f < 2; f++) {
        cpu->r[RDI] = PLACE;
        cpu->r[RAX] = 77; /* not what is there */
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result r = one_insn_run(cpu, forms[f] + 1, forms[f][0]);
        assert_true(r.fault);
        assert_int_equal(r.vector, EXC_PF);
        assert_int_equal(r.error, PF_PRESENT | PF_WRITE | PF_USER);
        assert_int_equal(cpu->r[RAX], 77);
    }
}

int main(void)
{
#define T(name) AGAINST_HOST_TEST(name, cpu)
    const struct CMUnitTest tests[] = {
        T(wide_products_are_the_hosts),
        T(products_of_two_and_three_operands_are_the_hosts),
        T(quotients_are_the_hosts_and_what_does_not_fit_is_refused),
        T(the_edges_of_signed_quotients_are_exact),
        T(adx_adds_with_its_own_carry),
        T(exchange_and_add_is_the_hosts),
        T(compare_and_exchange_is_the_hosts),
        T(double_width_compare_and_exchange_is_the_hosts),
        T(cmpxchg16b_wants_an_aligned_operand),
        T(compare_and_exchange_needs_write_permission_in_any_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
