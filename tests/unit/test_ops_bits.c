/* SPDX-License-Identifier: MIT */
/* Shifts, rotates, bit tests, counts, BMI, CRC32, MOVBE: against the host's own instructions. */
#include "tests/unit/against_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/soft/operands.h"
#include "tests/unit/code_runner.h"

#define ROUNDS 300
#define PLACE  (AGAINST_HOST_DATA + 0x1800)

static struct vcpu *cpu;

static void run(const uint8_t *bytes, size_t length)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        against_host_random(cpu);
        if ((bytes[length - 1] & 1) == 0 && round % 4 == 0)
            cpu->r[RCX] &= 63;
        cpu->r[RBX] = round & 1 ? cpu->r[RBX] : PLACE;
        same_as_host(cpu, bytes, length);
    }
}

/* The memory forms use [rdi], which points into the data; unaligned every other time, across a page at times. */
static void run_memory(const uint8_t *bytes, size_t length)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        against_host_random(cpu);
        cpu->r[RDI] = PLACE + (round & 1 ? code_random() & 0x3f : 0);
        if (round % 8 == 7)
            cpu->r[RDI] = AGAINST_HOST_DATA + 0x1ffd;
        same_as_host(cpu, bytes, length);
    }
}

static void shifts_by_an_immediate_leave_what_the_host_leaves(void **state)
{
    (void)state;
    static const uint8_t counts[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 0xff};
    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (unsigned c = 0; c < sizeof counts; c++) {
                uint8_t bytes[8];
                size_t n = put_size(bytes, size);
                bytes[n++] = size == 1 ? 0xc0 : 0xc1;
                bytes[n++] = (uint8_t)(0xc3 | reg << 3); /* RBX, BL */
                bytes[n++] = counts[c];
                for (unsigned round = 0; round < 30; round++) {
                    against_host_random(cpu);
                    same_as_host(cpu, bytes, n);
                    cpu->r[RDI] = PLACE + round;
                    bytes[n - 2] = (uint8_t)(0x07 | reg << 3); /* [rdi] */
                    same_as_host(cpu, bytes, n);
                    bytes[n - 2] = (uint8_t)(0xc3 | reg << 3);
                }
            }
}

static void shifts_by_one_and_by_cl_leave_what_the_host_leaves(void **state)
{
    (void)state;
    for (unsigned opcode = 0xd0; opcode <= 0xd2; opcode += 2)
        for (unsigned reg = 0; reg < 8; reg++)
            for (unsigned size = 1; size <= 8; size *= 2) {
                uint8_t bytes[8];
                size_t n = put_size(bytes, size);
                bytes[n++] = (uint8_t)(opcode | (size > 1));
                bytes[n++] = (uint8_t)(0xc3 | reg << 3);
                run(bytes, n);
                bytes[n - 1] = (uint8_t)(0xc7 | reg << 3); /* BH, or RDI */
                run(bytes, n);
                bytes[n - 1] = (uint8_t)(0xc1 | reg << 3); /* the count itself */
                run(bytes, n);
                bytes[n - 1] = (uint8_t)(0x07 | reg << 3);
                run_memory(bytes, n);
            }
}

static void double_shifts_leave_what_the_host_leaves(void **state)
{
    (void)state;
    for (unsigned op = 0xa4; op <= 0xad; op++) {
        if (op != 0xa4 && op != 0xa5 && op != 0xac && op != 0xad)
            continue;
        for (unsigned size = 2; size <= 8; size *= 2)
            for (unsigned count = 0; count < (op & 1 ? 1 : 70); count++) {
                uint8_t bytes[8];
                size_t n = put_size(bytes, size);
                bytes[n++] = 0x0f;
                bytes[n++] = (uint8_t)op;
                size_t modrm = n;
                bytes[n++] = 0xd3; /* RBX, RDX */
                if (!(op & 1))
                    bytes[n++] = (uint8_t)count;
                for (unsigned round = 0; round < (op & 1 ? ROUNDS : 20); round++) {
                    against_host_random(cpu);
                    bytes[modrm] = 0xd3;
                    same_as_host(cpu, bytes, n);
                    bytes[modrm] = 0x17; /* [rdi], RDX */
                    cpu->r[RDI] = PLACE + (code_random() & 15);
                    same_as_host(cpu, bytes, n);
                }
            }
    }
}

static void bit_tests_of_registers_leave_what_the_host_leaves(void **state)
{
    (void)state;
    static const uint8_t by_register[] = {0xa3, 0xab, 0xb3, 0xbb};
    for (unsigned size = 2; size <= 8; size *= 2) {
        for (unsigned op = 0; op < 4; op++) {
            uint8_t bytes[8];
            size_t n = put_size(bytes, size);
            bytes[n++] = 0x0f;
            bytes[n++] = by_register[op];
            bytes[n++] = 0xd3; /* RBX, RDX */
            run(bytes, n);
        }
        for (unsigned op = 4; op < 8; op++)
            for (unsigned bit = 0; bit < 256; bit += 5) {
                uint8_t bytes[8];
                size_t n = put_size(bytes, size);
                bytes[n++] = 0x0f;
                bytes[n++] = 0xba;
                size_t modrm = n;
                bytes[n++] = (uint8_t)(0xc3 | op << 3);
                bytes[n++] = (uint8_t)bit;
                against_host_random(cpu);
                same_as_host(cpu, bytes, n);
                bytes[modrm] = (uint8_t)(0x07 | op << 3);
                cpu->r[RDI] = PLACE + 1;
                same_as_host(cpu, bytes, n);
            }
    }
}

static void a_bit_offset_in_a_register_reaches_beyond_the_operand(void **state)
{
    (void)state;
    static const uint8_t by_register[] = {0xa3, 0xab, 0xb3, 0xbb};
    for (unsigned op = 0; op < 4; op++)
        for (unsigned size = 2; size <= 8; size *= 2)
            for (unsigned round = 0; round < ROUNDS; round++) {
                uint8_t bytes[8];
                size_t n = put_size(bytes, size);
                bytes[n++] = 0x0f;
                bytes[n++] = by_register[op];
                bytes[n++] = 0x17; /* [rdi], RDX */
                against_host_random(cpu);
                cpu->r[RDI] = AGAINST_HOST_DATA + 0x8000;
                /* the bits above the operand size do not count */
                uint64_t offset = code_random() % 0x20000 - 0x10000,
                         mask = ~0ull >> (64 - 8 * size);
                if (size == 2)
                    offset = (uint64_t)(int64_t)(int16_t)offset;
                cpu->r[RDX] = (offset & mask) | (cpu->r[RDX] & ~mask);
                same_as_host(cpu, bytes, n);
            }
}

static void with_32_bit_addresses_the_bit_address_wraps(void **state)
{
    (void)state;
    against_host_random(cpu);
    cpu->r[RDI] = 0xffffffff00000000 + 8;
    cpu->r[RDX] = (AGAINST_HOST_DATA + 0x1000) * 8ull;
    SAME_AS_HOST(cpu, 0x67, 0x48, 0x0f, 0xab, 0x17); /* bts [edi], rdx */
}

static void scans_and_counts_leave_what_the_host_leaves(void **state)
{
    (void)state;
    static const uint8_t opcodes[][2] = {
        {0, 0xbc}, {0, 0xbd}, {0xf3, 0xbc}, {0xf3, 0xbd}, {0xf3, 0xb8}};
    for (unsigned op = 0; op < 5; op++)
        for (unsigned size = 2; size <= 8; size *= 2) {
            uint8_t bytes[8];
            size_t n = 0;
            if (size == 2)
                bytes[n++] = 0x66;
            if (opcodes[op][0])
                bytes[n++] = opcodes[op][0];
            if (size == 8)
                bytes[n++] = 0x48;
            bytes[n++] = 0x0f;
            bytes[n++] = opcodes[op][1];
            bytes[n++] = 0xd3; /* RDX, RBX */
            run(bytes, n);
            against_host_random(cpu);
            cpu->r[RBX] = 0;
            same_as_host(cpu, bytes, n);
            cpu->r[RBX] = 0xffffffff00000000;
            same_as_host(cpu, bytes, n);
            bytes[n - 1] = 0x17;
            run_memory(bytes, n);
        }
}

static void run_bmi(void)
{
    if (!__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
        skip();
    /* VEX map and pp (no prefix, 66, F3, F2 = 0 .. 3), opcode, ModRM.reg or -1, immediate */
    static const struct {
        uint8_t map, pp, opcode;
        int8_t reg;
        bool immediate;
    } forms[] = {
        {2, 0, 0xf2, -1, false}, /* ANDN */
        {2, 0, 0xf3, 1, false},  /* BLSR */
        {2, 0, 0xf3, 2, false},  /* BLSMSK */
        {2, 0, 0xf3, 3, false},  /* BLSI */
        {2, 0, 0xf5, -1, false}, /* BZHI */
        {2, 2, 0xf5, -1, false}, /* PEXT */
        {2, 3, 0xf5, -1, false}, /* PDEP */
        {2, 3, 0xf6, -1, false}, /* MULX */
        {2, 0, 0xf7, -1, false}, /* BEXTR */
        {2, 1, 0xf7, -1, false}, /* SHLX */
        {2, 2, 0xf7, -1, false}, /* SARX */
        {2, 3, 0xf7, -1, false}, /* SHRX */
        {3, 3, 0xf0, -1, true},  /* RORX */
    };
    for (unsigned f = 0; f < sizeof forms / sizeof *forms; f++)
        for (unsigned wide = 0; wide < 2; wide++) {
            unsigned vvvv = forms[f].immediate ? 0 : RSI;
            uint8_t bytes[] = {0xc4,
                               (uint8_t)(0xe0 | forms[f].map),
                               (uint8_t)(wide << 7 | (~vvvv & 15) << 3 | forms[f].pp),
                               forms[f].opcode,
                               0xd3,
                               0};
            size_t length = forms[f].immediate ? 6 : 5;
            for (unsigned round = 0; round < 2 * ROUNDS; round++) {
                unsigned reg = forms[f].reg >= 0 ? (unsigned)forms[f].reg : RDX;
                against_host_random(cpu);
                if (round % 3 == 0)
                    cpu->r[RSI] &= 0xffff;
                bytes[5] = (uint8_t)round;
                bytes[4] = (uint8_t)(0xc3 | reg << 3);
                same_as_host(cpu, bytes, length);
                bytes[4] = (uint8_t)(0x07 | reg << 3);
                cpu->r[RDI] = PLACE + (round & 7);
                same_as_host(cpu, bytes, length);
            }
        }
}

static void bmi_leaves_what_the_host_leaves(void **state)
{
    (void)state;
    run_bmi();
}

/* Undefined flags are the host's own only where the host's instruction does the work. */
static void counts_are_right_on_a_host_that_has_no_instruction_for_them(void **state)
{
    (void)state;
    unsigned had = bmi_pretend_host(0);
    against_host_flags(RFLAGS_CF | RFLAGS_ZF);
    if ((had & HOST_BMI1) && (had & HOST_LZCNT))
        scans_and_counts_leave_what_the_host_leaves(state);
    bmi_pretend_host(had);
}

struct bmi_case {
    const char *name;
    uint8_t bytes[6];
    uint64_t value, other, result;
};

static void bmi_is_right_on_a_host_that_has_it_not(void **state)
{
    (void)state;
    static const struct bmi_case cases[] = {
        {"andn", {0xc4, 0xe2, 0xc8, 0xf2, 0xd3}, 0xff00ff, 0xf0f, 0xff00f0},
        {"bextr", {0xc4, 0xe2, 0xc8, 0xf7, 0xd3}, 0x123456789abcdef0, 0x0c08, 0xcde},
        {"bextr past the end", {0xc4, 0xe2, 0xc8, 0xf7, 0xd3}, ~0ull, 0xff40, 0},
        {"bzhi", {0xc4, 0xe2, 0xc8, 0xf5, 0xd3}, ~0ull, 12, 0xfff},
        {"bzhi of all", {0xc4, 0xe2, 0xc8, 0xf5, 0xd3}, 0x123, 64, 0x123},
        {"pext", {0xc4, 0xe2, 0xca, 0xf5, 0xd3}, 0xff00ff00, 0x12345678, 0x1256},
        {"pdep", {0xc4, 0xe2, 0xcb, 0xf5, 0xd3}, 0xff00ff00, 0x1234, 0x12003400},
    };
    unsigned had = bmi_pretend_host(0);
    for (unsigned c = 0; c < sizeof cases / sizeof *cases; c++) {
        cpu->r[RBX] = cases[c].value;
        cpu->r[RSI] = cases[c].other;
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result r = one_insn_run(cpu, cases[c].bytes, 5);
        if (r.fault && r.vector == EXC_UD)
            break; /* the guest has no BMI here */
        assert_int_equal(cpu->r[RDX], cases[c].result);
    }
    bmi_pretend_host(had);
}

static void crc32_gives_what_the_host_gives(void **state)
{
    (void)state;
    static const uint8_t forms[][7] = {
        {5, 0xf2, 0x0f, 0x38, 0xf0, 0xd3},       {5, 0xf2, 0x0f, 0x38, 0xf0, 0xd7},
        {6, 0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xd3}, {5, 0xf2, 0x0f, 0x38, 0xf1, 0xd3},
        {6, 0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xd3}, {6, 0xf2, 0x48, 0x0f, 0x38, 0xf0, 0xd3},
    };
    for (unsigned f = 0; f < sizeof forms / sizeof *forms; f++) {
        uint8_t bytes[8];
        memcpy(bytes, forms[f] + 1, forms[f][0]);
        run(bytes, forms[f][0]);
        bytes[forms[f][0] - 1] = 0x17;
        run_memory(bytes, forms[f][0]);
    }
}

static void movbe_moves_what_the_host_moves(void **state)
{
    (void)state;
    if (!host_has_movbe())
        skip();
    for (unsigned opcode = 0xf0; opcode <= 0xf1; opcode++)
        for (unsigned size = 2; size <= 8; size *= 2) {
            uint8_t bytes[8];
            size_t n = put_size(bytes, size);
            bytes[n++] = 0x0f;
            bytes[n++] = 0x38;
            bytes[n++] = (uint8_t)opcode;
            bytes[n++] = 0x17;
            run_memory(bytes, n);
        }
}

static void a_write_that_faults_changes_nothing(void **state)
{
    (void)state;
    against_host_random(cpu);
    *one_insn_pte(cpu, PLACE) &= ~2ull; /* read-only */
    one_insn_flush(cpu);
    cpu->r[RDI] = PLACE;
    cpu->rip = ONE_INSN_CODE;
    struct vcpu before = *cpu;
    struct one_insn_result r = ONE_INSN(cpu, 0x48, 0xd1, 0x2f); /* shr qword [rdi], 1 */
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_PF);
    assert_int_equal(r.error, PF_PRESENT | PF_WRITE | PF_USER);
    assert_int_equal(r.cr2, PLACE);
    assert_memory_equal(cpu->r, before.r, sizeof before.r);
    assert_int_equal(cpu->status, before.status);
    r = ONE_INSN(cpu, 0x0f, 0xba, 0x27, 0x05); /* bt dword [rdi], 5 reads only */
    assert_false(r.fault);
    *one_insn_pte(cpu, PLACE) |= 2;
    one_insn_flush(cpu);
}

int main(void)
{
#define T(name) AGAINST_HOST_TEST(name, cpu)
    const struct CMUnitTest tests[] = {
        T(shifts_by_an_immediate_leave_what_the_host_leaves),
        T(shifts_by_one_and_by_cl_leave_what_the_host_leaves),
        T(double_shifts_leave_what_the_host_leaves),
        T(bit_tests_of_registers_leave_what_the_host_leaves),
        T(a_bit_offset_in_a_register_reaches_beyond_the_operand),
        T(with_32_bit_addresses_the_bit_address_wraps),
        T(scans_and_counts_leave_what_the_host_leaves),
        T(bmi_leaves_what_the_host_leaves),
        T(counts_are_right_on_a_host_that_has_no_instruction_for_them),
        T(bmi_is_right_on_a_host_that_has_it_not),
        T(crc32_gives_what_the_host_gives),
        T(movbe_moves_what_the_host_moves),
        T(a_write_that_faults_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
