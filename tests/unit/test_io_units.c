/* SPDX-License-Identifier: MIT */
/* The units that the dispatcher of IO blocks joins, each alone: instruction interpreter (B1),
 * hashing (B3), instruction pointer (B5), scanning on the live guest (B6), and the growth of
 * blocks. */
#include "tests/unit/io_lab.h"

#include <stdlib.h>

#include "hvstub/hvstub.h"
#include "runtime/io_growth.h"
#include "runtime/io_interpreter.h"
#include "runtime/io_pointer.h"
#include "runtime/soft/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* ---- instruction interpreter ---- */
static struct io_instruction instruction;
#define INTERPRET(bits, ...)                                                                       \
    io_interpret((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), bits,     \
                 &instruction)

static void test_B1_io_instructions_are_recognised(void **state)
{
    (void)state;
    assert_true(INTERPRET(64, 0xe4, 0x60));
    assert_true(!instruction.out && instruction.width == 1 && instruction.port == 0x60 &&
                instruction.length == 2 && !instruction.port_in_dx);
    assert_true(INTERPRET(64, 0x66, 0xef));
    assert_true(instruction.out && instruction.width == 2 && instruction.port_in_dx &&
                instruction.length == 2);
    assert_true(INTERPRET(32, 0xed));
    assert_int_equal(instruction.width, 4);
    assert_true(INTERPRET(16, 0xed));
    assert_int_equal(instruction.width, 2);
    assert_true(INTERPRET(16, 0x66, 0xed));
    assert_int_equal(instruction.width, 4);
    assert_true(INTERPRET(64, 0xf3, 0x65, 0x6f));
    assert_true(instruction.out && instruction.string && instruction.repeated &&
                instruction.width == 4 && instruction.length == 3);
    assert_true(INTERPRET(64, 0x48, 0x6c));
    assert_true(instruction.string && !instruction.repeated && !instruction.out);
}

static void test_B1_others_are_not(void **state)
{
    (void)state;
    assert_false(INTERPRET(64, 0x90));
    assert_false(INTERPRET(64, 0xe8, 0, 0, 0, 0));
    assert_false(INTERPRET(64, 0xf0, 0xec)); /* LOCK: #UD */
    assert_false(INTERPRET(32, 0x48, 0xec)); /* dec eax */
    assert_false(INTERPRET(64, 0xe4));       /* the port is missing */
    assert_false(INTERPRET(64, 0x66, 0xf3));
    assert_false(INTERPRET(64, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                           0x66, 0x66, 0x66, 0x66, 0xec)); /* 16 bytes: #GP */
    assert_false(io_interpret(NULL, 0, 64, &instruction));
}

/* Against the decoder of the rest of the program: prefixes and opcodes at random. */
static void test_B1_it_agrees_with_the_decoder(void **state)
{
    static const uint8_t parts[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x65, 0x40, 0x4f, 0x48,
                                    0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0x6c,
                                    0x6d, 0x6e, 0x6f, 0x90, 0x01, 0xc3, 0xe8, 0xeb};
    static const unsigned modes[] = {16, 32, 64};
    ZydisDecoder decoder[3];
    uint64_t seed = 1;
    (void)state;
    ZydisDecoderInit(&decoder[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoder[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoder[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned n = 0; n < 300000; n++) {
        uint8_t bytes[8];
        ZydisDecodedInstruction z;
        for (unsigned k = 0; k < sizeof bytes; k++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            bytes[k] = parts[(seed >> 33) % sizeof parts];
        }
        bool decoded = ZYAN_SUCCESS(
            ZydisDecoderDecodeInstruction(&decoder[n % 3], NULL, bytes, sizeof bytes, &z));
        bool io = decoded && io_classify(&z) == IO_CLASS_IO;
        bool found = io_interpret(bytes, sizeof bytes, modes[n % 3], &instruction);
        if (found && instruction.out && instruction.width == 4 && !instruction.port_in_dx &&
            !instruction.string && instruction.port == PV_DOORBELL_PORT)
            continue; /* no block may hold the doorbell */
        assert_int_equal(found, io);
        if (io)
            assert_int_equal(instruction.length, z.length);
    }
}

/* ---- the machine for the others ---- */
static int open_lab(void **state)
{
    *state = io_lab_open(IO_BLOCKS_SCAN, NULL);
    return 0;
}

static int close_lab(void **state)
{
    io_lab_close(*state);
    return 0;
}

static struct io_block block;

static void write_and_scan(struct io_lab *lab)
{
    struct io_extent extent = io_extent_default();
    LAB_CODE_AT(lab, ONE_INSN_CODE, 0xe6, 0x61, 0xb0, 0x12, 0xe6, 0x62, 0xf4);
    assert_int_equal(
        io_scan_guest(lab->vm->io_blocks->scanner, lab->cpu, &extent, ONE_INSN_CODE, &block),
        IO_SCAN_BLOCK);
}

/* ---- hashing ---- */
static void test_B3_the_bytes_that_were_scanned_match(void **state)
{
    struct io_lab *lab = *state;
    static struct io_bytes read;
    write_and_scan(lab);
    assert_int_equal(io_hash(lab->cpu, &block, ONE_INSN_CODE, &read), IO_MATCH);
    assert_int_equal(read.bytes[3], 0x12);
    uint64_t all = read.all;
    LAB_CODE_AT(lab, ONE_INSN_CODE + 3, 0x13);
    assert_int_equal(io_hash(lab->cpu, &block, ONE_INSN_CODE, &read), IO_DIFFERENT);
    assert_true(read.all != all);
}

static void test_B3_masked_bytes_match_and_are_told_apart(void **state)
{
    struct io_lab *lab = *state;
    static struct io_bytes read;
    write_and_scan(lab);
    uint64_t before = block.hash;
    block.mask_count = 1;
    block.masks[0] = (struct io_mask){3, 1};
    assert_int_equal(io_hash(lab->cpu, &block, ONE_INSN_CODE, &read), IO_DIFFERENT);
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    memcpy(bytes, read.bytes, block.size);
    block.hash = io_block_hash(&block, bytes);
    assert_true(block.hash != before);
    assert_int_equal(io_hash(lab->cpu, &block, ONE_INSN_CODE, &read), IO_MATCH);
    uint64_t all = read.all;
    LAB_CODE_AT(lab, ONE_INSN_CODE + 3, 0x55);
    assert_int_equal(io_hash(lab->cpu, &block, ONE_INSN_CODE, &read), IO_MATCH);
    assert_true(read.all != all);
    assert_int_equal(read.bytes[3], 0x55);
}

static void test_B3_code_that_is_not_mapped_is_not_read(void **state)
{
    struct io_lab *lab = *state;
    static struct io_bytes read;
    uint8_t bytes[32];
    write_and_scan(lab);
    assert_int_equal(io_hash(lab->cpu, &block, LAB_ABSENT - 2, &read), IO_UNREADABLE);
    assert_int_equal(io_guest_read(lab->cpu, LAB_ABSENT - 10, bytes, sizeof bytes), 10);
    assert_int_equal(io_guest_read(lab->cpu, 0x3ff000, bytes, sizeof bytes), 0); /* a device */
    assert_int_equal(io_guest_read(lab->cpu, 0x800000000000, bytes, sizeof bytes), 0);
}

/* ---- instruction pointer ---- */
static void test_B5_addresses_are_instruction_pointers_where_code_is_flat(void **state)
{
    struct io_lab *lab = *state;
    struct vcpu *cpu = lab->cpu;
    assert_true(io_pointer_flat(cpu));
    io_pointer_set(cpu, 0xffffffff81000000);
    assert_int_equal(cpu->rip, 0xffffffff81000000);
    assert_int_equal(io_pointer_linear(cpu), 0xffffffff81000000);
    one_insn_mode(cpu, ONE_INSN_32, false);
    assert_true(io_pointer_flat(cpu));
    io_pointer_set(cpu, 0x100001234);
    assert_int_equal(cpu->rip, 0x1234);
    cpu->segment[SEG_CS].base = 0x1000;
    assert_false(io_pointer_flat(cpu));
    assert_int_equal(io_pointer_linear(cpu), 0x2234);
    one_insn_mode(cpu, ONE_INSN_16, false);
    assert_false(io_pointer_flat(cpu));
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    assert_false(io_pointer_flat(cpu));
    one_insn_mode(cpu, ONE_INSN_V86, true);
    assert_false(io_pointer_flat(cpu));
}

/* ---- scanning ---- */
static void test_B6_the_live_guest_is_scanned(void **state)
{
    struct io_lab *lab = *state;
    struct io_extent extent = io_extent_default();
    struct io_scanner *scanner = lab->vm->io_blocks->scanner;
    write_and_scan(lab);
    assert_int_equal(block.io_count, 2);
    assert_int_equal(block.exit, 6);
    LAB_CODE_AT(lab, ONE_INSN_CODE + 2, 0xf4, 0xf4);
    assert_int_equal(io_scan_guest(scanner, lab->cpu, &extent, ONE_INSN_CODE, &block),
                     IO_SCAN_SINGLE);
    assert_int_equal(io_scan_guest(scanner, lab->cpu, &extent, ONE_INSN_CODE + 2, &block),
                     IO_SCAN_NOT_IO);
    assert_int_equal(io_scan_guest(scanner, lab->cpu, &extent, LAB_ABSENT, &block), IO_SCAN_NOT_IO);
}

/* ---- growth ---- */
static void expect_ranges(const int64_t (*ranges)[2], unsigned count)
{
    uint32_t size = 0;
    assert_int_equal(block.range_count, count);
    for (unsigned k = 0; k < count; k++) {
        assert_int_equal(block.ranges[k].offset, ranges[k][0]);
        assert_int_equal(block.ranges[k].size, ranges[k][1]);
        size += block.ranges[k].size;
    }
    assert_int_equal(block.size, size);
}
#define RANGES(...)                                                                                \
    expect_ranges((const int64_t[][2]){__VA_ARGS__},                                               \
                  sizeof((const int64_t[][2]){__VA_ARGS__}) / sizeof(int64_t[2]))

static void test_B10_ranges_join(void **state)
{
    (void)state;
    memset(&block, 0, sizeof block);
    block.key = 0x1000;
    assert_true(io_block_join(&block, 0x1000, 2));
    RANGES({0, 2});
    assert_true(io_block_join(&block, 0x1002, 3)); /* touches */
    RANGES({0, 5});
    assert_true(io_block_join(&block, 0x0f00, 4));
    assert_true(io_block_join(&block, 0x1010, 4));
    RANGES({-0x100, 4}, {0, 5}, {0x10, 4});
    assert_true(io_block_join(&block, 0x1004, 0xd)); /* bridges two */
    RANGES({-0x100, 4}, {0, 0x14});
    assert_true(io_block_join(&block, 0x1001, 1)); /* within */
    RANGES({-0x100, 4}, {0, 0x14});
    assert_true(io_block_join(&block, 0x0e00, 0x300)); /* around all */
    RANGES({-0x200, 0x300});
}

static void test_B10_a_block_has_room_for_so_much(void **state)
{
    (void)state;
    memset(&block, 0, sizeof block);
    block.key = 0x100000;
    assert_false(io_block_join(&block, 0x100000, IO_BLOCK_BYTES_MAX + 1));
    assert_false(io_block_join(&block, 0x100000 + IO_BLOCK_REACH, 1));
    assert_false(io_block_join(&block, 0x100000 - IO_BLOCK_REACH, 1));
    for (unsigned k = 0; k < IO_BLOCK_RANGES_MAX; k++)
        assert_true(io_block_join(&block, 0x100000 + 16 * k, 2));
    struct io_block before = block;
    assert_false(io_block_join(&block, 0x200000, 1));
    assert_memory_equal(&before, &block, sizeof block);
    assert_true(io_block_join(&block, 0x100002, 14)); /* one less */
    assert_int_equal(block.range_count, IO_BLOCK_RANGES_MAX - 1);
    assert_true(io_block_valid(&block) || !block.insn_count);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_lab, close_lab)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B1_io_instructions_are_recognised),
        cmocka_unit_test(test_B1_others_are_not),
        cmocka_unit_test(test_B1_it_agrees_with_the_decoder),
        TEST(test_B3_the_bytes_that_were_scanned_match),
        TEST(test_B3_masked_bytes_match_and_are_told_apart),
        TEST(test_B3_code_that_is_not_mapped_is_not_read),
        TEST(test_B5_addresses_are_instruction_pointers_where_code_is_flat),
        TEST(test_B6_the_live_guest_is_scanned),
        cmocka_unit_test(test_B10_ranges_join),
        cmocka_unit_test(test_B10_a_block_has_room_for_so_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
