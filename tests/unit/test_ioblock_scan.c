/* SPDX-License-Identifier: MIT */
/* The IO-block scanner on hand-written code, one shape a test (B6, B7, B8, B10). */
#include "tests/unit/ioblock_lab.h"

/* ---- shapes ---- */
static void B7_a_straight_line_of_outs_is_one_block(void **state)
{
    (void)state;
    /* out %al,$0x20; out %al,$0xa0; mov $1,%al; out %al,$0x21; ret */
    CODE("\xe6\x20\xe6\xa0\xb0\x01\xe6\x21\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
    assert_int_equal(block.insn_count, 4);
    assert_int_equal(block.range_count, 1);
    assert_range(0, 0, 8);
    assert_int_equal(block.exit, 8);
    assert_int_equal(block.flags, 0);
    assert_int_equal(block.port_count, 3);
    assert_int_equal(block.ports[0], 0x20);
    assert_int_equal(block.ports[1], 0x21);
    assert_int_equal(block.ports[2], 0xa0);
}

static void B6_code_behind_the_last_io_is_cut(void **state)
{
    (void)state;
    /* in; inc %eax; out; inc %eax; inc %eax; jmp back to the incs */
    CODE("\xe4\x20\xff\xc0\xe6\x20\xff\xc0\xff\xc0\xeb\xfa");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_range(0, 0, 6);
    assert_int_equal(block.insn_count, 3);
}

static void B8_an_io_instruction_alone_is_single(void **state)
{
    (void)state;
    CODE("\xec\xc3"); /* in (%dx),%al; ret */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
    assert_int_equal(block.io_count, 1);
    assert_range(0, 0, 1);
    assert_false(io_block_saves(&block));
    CODE("\xec\x90\x90\x90\xf4"); /* … and code that leads to no other */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
    assert_int_equal(block.size, 1);
}

static void B1_what_is_no_io_instruction_has_no_block(void **state)
{
    (void)state;
    CODE("\x90\xec\xec");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_NOT_IO);
    assert_int_equal(scan_at(100, NULL), IO_SCAN_NOT_IO);
}

static void B10_both_ways_of_a_forward_branch_are_followed(void **state)
{
    (void)state;
    /* in $0x64,%al; test $1,%al; jz 1f; in $0x60,%al; jmp 2f; 1: out %al,$0x80; 2: out %al,$0x61 */
    CODE("\xe4\x64\xa8\x01\x74\x04\xe4\x60\xeb\x02\xe6\x80\xe6\x61\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 4);
    assert_range(0, 0, 14);
    assert_int_equal(block.flags & IO_BLOCK_LOOP, 0);
}

static void B10_the_way_without_io_is_left_out(void **state)
{
    (void)state;
    /* in; test; jz far: hlt…; out; ret */
    CODE("\xe4\x64\xa8\x01\x74\x03\xe6\x60\xc3\x90\x90\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_range(0, 0, 8);
}

static void B10_a_status_polling_loop_is_a_block(void **state)
{
    (void)state;
    CODE("\xec\xa8\x20\x74\xfb\xc3"); /* 1: in (%dx),%al; test $0x20,%al; jz 1b; ret */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 1);
    assert_int_equal(block.flags, IO_BLOCK_LOOP);
    assert_range(0, 0, 5);
}

static void B10_a_byte_output_loop_with_its_status_loop_is_one_block(void **state)
{
    (void)state;
    /* 1: mov $0x3fd,%edx; 2: in (%dx),%al; test $0x20,%al; jz 2b; lodsb; mov $0x3f8,%edx;
     * out %al,(%dx); dec %ecx; jnz 1b; ret */
    CODE(
        "\xba\xfd\x03\x00\x00\xec\xa8\x20\x74\xfb\xac\xba\xf8\x03\x00\x00\xee\xff\xc9\x75\xeb\xc3");
    assert_int_equal(scan_at(5, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 2);
    assert_int_equal(block.flags, IO_BLOCK_LOOP);
    assert_range(0, -5, 21);
    assert_int_equal(block.exit, 12);
    assert_int_equal(block.port_count, 1); /* what 2: reads may come from two places */
    assert_int_equal(block.ports[0], 0x3f8);
}

static void B10_a_repeated_string_instruction_is_a_block(void **state)
{
    (void)state;
    CODE("\xf3\x6e\xc3"); /* rep outsb */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.flags, IO_BLOCK_STRING);
    assert_range(0, 0, 2);
    CODE("\x6e\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
}

static void B10_a_delay_loop_on_port_80_is_a_block(void **state)
{
    (void)state;
    CODE("\xe6\x80\xe2\xfc\xe6\x80\xe6\x80\xc3"); /* 1: out %al,$0x80; loop 1b; out; out */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
    assert_int_equal(block.flags, IO_BLOCK_LOOP);
    assert_int_equal(block.port_count, 1);
}

static void B10_a_direct_jump_gives_a_second_range(void **state)
{
    (void)state;
    CODE("\xe6\x20\xe9\x03\x00\x00\x00\xcc\xcc\xcc\xe6\xa0\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.range_count, 2);
    assert_range(0, 0, 7);
    assert_range(1, 10, 2);
    assert_int_equal(block.exit, 12);
}

static void B10_a_call_is_followed_and_its_return_comes_back(void **state)
{
    (void)state;
    /* out; call f; out; call f; out; ret … f: in (%dx),%al; ret */
    CODE("\xe6\x20\xe8\x0b\x00\x00\x00\xe6\x21\xe8\x04\x00\x00\x00\xe6\x22\xc3\xcc\xec\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 4);
    assert_true(block.flags & IO_BLOCK_CALL);
    assert_false(block.flags & IO_BLOCK_GUARD);
    assert_range(0, 0, 16);
    assert_range(1, 18, 2);
}

static void B10_from_inside_a_function_its_return_is_not_guessed(void **state)
{
    (void)state;
    CODE("\xe8\x03\x00\x00\x00\xe6\x20\xc3\xec\xc3"); /* call f; out; ret; f: in; ret */
    assert_int_equal(scan_at(8, NULL), IO_SCAN_SINGLE);
}

static void B10_a_return_is_followed_under_a_guard(void **state)
{
    (void)state;
    CODE("\xe8\x03\x00\x00\x00\xe6\x20\xc3\xec\xc3");
    guest.branch[0] = BASE + 9;
    guest.target[0] = BASE + 5;
    guest.target_count = 1;
    assert_int_equal(scan_at(8, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.flags, IO_BLOCK_GUARD);
    assert_int_equal(block.guard_count, 1);
    assert_int_equal(block.guards[0].branch, 1);
    assert_int_equal(block.guards[0].target, -3);
    assert_range(0, -3, 2);
    assert_range(1, 0, 2);
}

static void B10_an_indirect_call_is_followed_under_a_guard_and_comes_back(void **state)
{
    (void)state;
    CODE("\xe6\x20\xff\xd0\xe6\x21\xc3\xec\xc3"); /* out; call *%rax; out; ret; f: in; ret */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
    guest.branch[0] = BASE + 2;
    guest.target[0] = BASE + 7;
    guest.target_count = 1;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
    assert_true(block.flags & IO_BLOCK_GUARD);
    assert_true(block.flags & IO_BLOCK_CALL);
}

static void B10_a_retpoline_is_followed_under_a_guard(void **state)
{
    (void)state;
    /* out; call thunk; out; ret; thunk: call 1f; 2: pause; lfence; jmp 2b; 1: mov %rax,(%rsp);
     * ret; f: in (%dx),%al; ret */
    CODE("\xe6\x20\xe8\x03\x00\x00\x00\xe6\x21\xc3"
         "\xe8\x07\x00\x00\x00\xf3\x90\x0f\xae\xe8\xeb\xf9\x48\x89\x04\x24\xc3"
         "\xec\xc3");
    guest.branch[0] = BASE + 26;
    guest.target[0] = BASE + 27;
    guest.branch[1] = BASE + 28;
    guest.target[1] = BASE + 7;
    guest.target_count = 2;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
    assert_range(0, 0, 9);
    assert_range(1, 10, 5); /* without the loop that only speculation sees */
    assert_range(2, 22, 7);
    assert_int_equal(block.guard_count, 2);
}

static void B10_a_tail_jump_returns_to_the_caller(void **state)
{
    (void)state;
    /* out; call f; out; ret; f: jmp g; g: in; ret */
    CODE("\xe6\x20\xe8\x03\x00\x00\x00\xe6\x21\xc3\xeb\x01\xcc\xec\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
}

static void B10_recursion_ends(void **state)
{
    (void)state;
    /* f: out; test $1,%al; jz 1f; call f; out; 1: ret */
    CODE("\xe6\x20\xa8\x01\x74\x07\xe8\xf5\xff\xff\xff\xe6\x21\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 2);
}

static void B6_instructions_the_engine_does_not_know_end_a_path(void **state)
{
    (void)state;
    static const char *const unknown[] = {
        "\xf4",
        "\xfa",
        "\xfb",
        "\x9c",
        "\x9d",
        "\xcc", /* hlt cli sti pushf popf int3 */
        "\xcd\x80",
        "\x0f\xa2",
        "\x0f\x30",
        "\x0f\x32",
        "\x9b", /* int cpuid wrmsr rdmsr fwait */
        "\x8e\xd8",
        "\x0f\x22\xc0",
        "\x0f\x20\xc0",
        "\x0f\xa1", /* mov sreg, cr; pop %fs */
        "\xd9\xc0",
        "\x0f\x28\xc1",
        "\xf2\x0f\x10\xc1",
        "\x0f\x05",
        "\x0f\x0b",
        "\xcf",
        "\xcb",
        "\xf3\x0f\x1e\xc8",
        "\xe7\xe4",
        "\xc5\xf8\x77",
        "\x0f\x01\xd0",
    };
    for (size_t k = 0; k < sizeof unknown / sizeof unknown[0]; k++) {
        CODE("\xe6\x20");
        size_t length = strlen(unknown[k]);
        memcpy(guest.bytes + 2, unknown[k], length);
        memcpy(guest.bytes + 2 + length, "\xe6\x21\xc3", 3);
        guest.size = 2 + length + 3;
        assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
    }
}

static void B6_loads_stores_and_arithmetic_are_known(void **state)
{
    (void)state;
    static const char *const known[] = {
        "\x8b\x07",
        "\x89\x07",
        "\x0f\xb6\x07",
        "\x66\x0f\xb6\x07",
        "\x48\x8d\x04\x0f",
        "\xf0\x0f\xc1\x07",
        "\x0f\x44\xc1",
        "\x0f\x94\xc0",
        "\xc1\xe0\x03",
        "\x50",
        "\x5f",
        "\xf3\x90",
        "\x0f\x31",
        "\xf3\xa4",
        "\x0f\x1f\x40\x11",
        "\xf3\x0f\x1e\xfa",
        "\x0f\xae\xe8",
        "\xf7\xf1",
        "\x0f\xaf\xc1",
        "\xf3\x0f\xb8\xc1",
        "\x65\xff\x0f",
        "\x0f\xc8",
        "\x0f\xba\xe0\x05",
        "\x8c\xd8",
    };
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        CODE("\xe6\x20");
        size_t length = strlen(known[k]);
        memcpy(guest.bytes + 2, known[k], length);
        memcpy(guest.bytes + 2 + length, "\xe6\x21\xc3", 3);
        guest.size = 2 + length + 3;
        assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
        assert_int_equal(block.size, 4 + length);
    }
}

static void B6_instructions_that_overlap_are_not_both_in_a_block(void **state)
{
    (void)state;
    /* out; jmp into the immediate of mov, where another out stands; then the mov */
    CODE("\xe6\x20\x74\x01\xb8\xe6\x21\x90\x90\xe6\x22\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    for (unsigned k = 1; k < block.range_count; k++)
        assert_true(block.ranges[k].offset > block.ranges[k - 1].offset + block.ranges[k - 1].size);
}

static void B6_code_that_ends_ends_the_scan(void **state)
{
    (void)state;
    CODE("\xe6\x20\xe6\x21\xe6"); /* the third instruction is cut off */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.size, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(B1_what_is_no_io_instruction_has_no_block),
        cmocka_unit_test(B7_a_straight_line_of_outs_is_one_block),
        cmocka_unit_test(B8_an_io_instruction_alone_is_single),
        cmocka_unit_test(B6_code_behind_the_last_io_is_cut),
        cmocka_unit_test(B10_both_ways_of_a_forward_branch_are_followed),
        cmocka_unit_test(B10_the_way_without_io_is_left_out),
        cmocka_unit_test(B10_a_status_polling_loop_is_a_block),
        cmocka_unit_test(B10_a_byte_output_loop_with_its_status_loop_is_one_block),
        cmocka_unit_test(B10_a_repeated_string_instruction_is_a_block),
        cmocka_unit_test(B10_a_delay_loop_on_port_80_is_a_block),
        cmocka_unit_test(B10_a_direct_jump_gives_a_second_range),
        cmocka_unit_test(B10_a_call_is_followed_and_its_return_comes_back),
        cmocka_unit_test(B10_from_inside_a_function_its_return_is_not_guessed),
        cmocka_unit_test(B10_a_return_is_followed_under_a_guard),
        cmocka_unit_test(B10_an_indirect_call_is_followed_under_a_guard_and_comes_back),
        cmocka_unit_test(B10_a_retpoline_is_followed_under_a_guard),
        cmocka_unit_test(B10_a_tail_jump_returns_to_the_caller),
        cmocka_unit_test(B10_recursion_ends),
        cmocka_unit_test(B6_instructions_the_engine_does_not_know_end_a_path),
        cmocka_unit_test(B6_loads_stores_and_arithmetic_are_known),
        cmocka_unit_test(B6_instructions_that_overlap_are_not_both_in_a_block),
        cmocka_unit_test(B6_code_that_ends_ends_the_scan),
    };
    return cmocka_run_group_tests_name("ioblock_scan", tests, open_scanner, close_scanner);
}
