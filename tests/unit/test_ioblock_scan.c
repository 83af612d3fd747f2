/* The IO-block scanner on hand-written code, one shape a test (B6, B7, B8, B10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/instruction.h"
#include "ioblock/scan.h"

#include <cmocka.h>

#define BASE 0x400000u

struct guest { /* code at BASE, and what the scanner may ask about it */
    uint8_t bytes[8192];
    size_t size;
    uint64_t base;
    struct io_site sites[4];
    unsigned site_count;
    uint64_t relocated_at; /* four bytes; 0 = none */
    uint64_t branch[4], target[4];
    unsigned target_count;
};

static struct guest guest;
static struct io_scanner *scanner;
static struct io_block block;

static size_t read_code(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    const struct guest *g = context;
    if (address < g->base || address - g->base >= g->size)
        return 0;
    size_t room = g->size - (address - g->base);
    size = size < room ? size : room;
    memcpy(bytes, g->bytes + (address - g->base), size);
    return size;
}

static bool find_site(void *context, uint64_t address, struct io_site *site)
{
    const struct guest *g = context;
    for (unsigned k = 0; k < g->site_count; k++)
        if (address - g->sites[k].start < g->sites[k].length) {
            *site = g->sites[k];
            return true;
        }
    return false;
}

static uint32_t relocated(void *context, uint64_t address, unsigned length)
{
    const struct guest *g = context;
    uint32_t bits = 0;
    for (unsigned k = 0; k < length; k++)
        if (g->relocated_at && address + k - g->relocated_at < 4)
            bits |= 1u << k;
    return bits;
}

static unsigned known_targets(void *context, const struct io_branch *branch, uint64_t *targets,
                              unsigned room)
{
    const struct guest *g = context;
    unsigned count = 0;
    for (unsigned k = 0; k < g->target_count && count < room; k++)
        if (g->branch[k] == branch->address)
            targets[count++] = g->target[k];
    return count;
}

static struct io_code code(unsigned bits)
{
    return (struct io_code){.bits = bits,
                            .context = &guest,
                            .read = read_code,
                            .site = find_site,
                            .relocated = relocated,
                            .targets = known_targets,
                            .want_ports = true};
}

static int put(const char *bytes, size_t size)
{
    memset(&guest, 0, sizeof guest);
    guest.base = BASE;
    guest.size = size;
    memcpy(guest.bytes, bytes, size);
    return 0;
}
/* Sets the guest's code to a string of bytes. */
#define CODE(text) put(text, sizeof(text) - 1)

static enum io_scan_result scan_at(unsigned offset, const char *policy)
{
    struct io_extent extent = io_extent_default();
    struct io_code c = code(64);
    if (policy)
        assert_true(io_extent_parse(policy, &extent));
    enum io_scan_result result = io_scan(scanner, &c, &extent, guest.base + offset, &block);
    if (result != IO_SCAN_NOT_IO)
        assert_true(io_block_valid(&block));
    return result;
}

static void assert_range(unsigned k, int64_t offset, uint32_t size)
{
    assert_true(k < block.range_count);
    assert_int_equal(block.ranges[k].offset, offset);
    assert_int_equal(block.ranges[k].size, size);
}

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

/* ---- extents (B6) ---- */
static void fill_outs(unsigned count)
{
    memset(&guest, 0, sizeof guest);
    guest.base = BASE;
    guest.size = 2 * count;
    for (unsigned k = 0; k < count; k++)
        memcpy(guest.bytes + 2 * k, "\xe6\x80", 2);
}

static void B6_an_extent_in_bytes_bounds_the_block(void **state)
{
    (void)state;
    fill_outs(100);
    assert_int_equal(scan_at(0, "bytes:16"), IO_SCAN_BLOCK);
    assert_int_equal(block.size, 16);
    assert_true(block.flags & IO_BLOCK_CUT);
    assert_int_equal(scan_at(0, "3"), IO_SCAN_SINGLE);
}

static void B6_an_extent_of_a_cache_line_or_page_ends_there(void **state)
{
    (void)state;
    fill_outs(4096);
    assert_int_equal(scan_at(16, "line"), IO_SCAN_BLOCK);
    assert_int_equal(block.size, 48);
    assert_int_equal(scan_at(4096 - 20, "page"), IO_SCAN_BLOCK);
    assert_int_equal(block.size, 20);
    assert_int_equal(scan_at(62, "line"), IO_SCAN_SINGLE);
}

static void B6_the_engines_extent_is_what_a_block_may_hold(void **state)
{
    (void)state;
    fill_outs(4096);
    assert_int_equal(scan_at(0, "engine"), IO_SCAN_BLOCK);
    assert_int_equal(block.insn_count, IO_BLOCK_INSNS_MAX);
    assert_true(block.flags & IO_BLOCK_CUT);
}

static void B6_extents_are_read_and_written_as_text(void **state)
{
    (void)state;
    static const char *const good[] = {"line", "page", "engine", "bytes:1", "bytes:4096"};
    static const char *const bad[] = {"",  "lines", "bytes:",   "bytes:0",  "bytes:4097",
                                      "0", "-1",    "bytes:1x", "99999999", "bytes: 5"};
    struct io_extent extent;
    char text[16];
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
        assert_true(io_extent_parse(good[k], &extent));
        assert_string_equal(io_extent_text(&extent, text), good[k]);
    }
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++)
        assert_false(io_extent_parse(bad[k], &extent));
}

/* ---- hashes and masks (B3, B11) ---- */
static void B3_the_same_code_elsewhere_has_the_same_hash(void **state)
{
    (void)state;
    CODE("\xe6\x20\xe9\x03\x00\x00\x00\xcc\xcc\xcc\xe6\xa0\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    uint64_t hash = block.hash;
    guest.base = 0xffffffff81000000ull;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_true(block.hash == hash);
    guest.bytes[11] ^= 1; /* another port */
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_true(block.hash != hash);
}

static void B3_bytes_outside_the_ranges_do_not_matter(void **state)
{
    (void)state;
    CODE("\xe6\x20\xe9\x03\x00\x00\x00\xcc\xcc\xcc\xe6\xa0\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    uint64_t hash = block.hash;
    guest.bytes[8] = 0x90;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_true(block.hash == hash);
}

static void B11_bytes_that_relocation_changes_are_masked(void **state)
{
    (void)state;
    CODE("\xe6\x20\x48\xc7\xc1\x11\x22\x33\x81\xe6\x21\xc3"); /* out; mov $symbol,%rcx; out */
    guest.relocated_at = BASE + 5;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.flags, IO_BLOCK_MASKED);
    assert_int_equal(block.mask_count, 1);
    assert_int_equal(block.masks[0].position, 5);
    assert_int_equal(block.masks[0].size, 4);
    uint64_t hash = block.hash;
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    guest.bytes[7] ^= 0x40; /* relocated */
    assert_true(io_block_read(&block, BASE, read_code, &guest, bytes));
    assert_true(io_block_hash_all(&block, bytes) != hash);
    assert_true(io_block_hash(&block, bytes) == hash);
    guest.bytes[2] ^= 1; /* the opcode's own prefix is not masked */
    assert_true(io_block_read(&block, BASE, read_code, &guest, bytes));
    assert_true(io_block_hash(&block, bytes) != hash);
}

static void B11_a_place_that_the_guest_rewrites_is_masked_whole(void **state)
{
    (void)state;
    /* out; five bytes that may become anything; out */
    CODE("\xe6\x20\x06\x06\x06\x06\x06\xe6\x21\xc3");
    assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
    guest.sites[0] = (struct io_site){.start = BASE + 2, .length = 5, .falls = true};
    guest.site_count = 1;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.masks[0].position, 2);
    assert_int_equal(block.masks[0].size, 5);
    uint64_t hash = block.hash;
    memcpy(guest.bytes + 2, "\x0f\x1f\x44\x00\x00", 5);
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    assert_true(io_block_read(&block, BASE, read_code, &guest, bytes));
    assert_true(io_block_hash(&block, bytes) == hash);
}

static void B11_a_jump_label_is_followed_both_ways(void **state)
{
    (void)state;
    CODE("\xe6\x20\x0f\x1f\x44\x00\x00\xe6\x21\xc3\xe6\x22\xc3");
    guest.sites[0] = (struct io_site){
        .start = BASE + 2, .length = 5, .falls = true, .branches = true, .target = BASE + 10};
    guest.site_count = 1;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
}

static void B11_a_return_site_returns(void **state)
{
    (void)state;
    /* out; call f; out; ret; f: in; jmp thunk (a return site) */
    CODE("\xe6\x20\xe8\x03\x00\x00\x00\xe6\x21\xc3\xec\xe9\x00\x00\x00\x00");
    guest.sites[0] = (struct io_site){.start = BASE + 11, .length = 5, .returns = true};
    guest.site_count = 1;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_BLOCK);
    assert_int_equal(block.io_count, 3);
    assert_true(block.flags & IO_BLOCK_MASKED);
}

static void B11_the_middle_of_a_rewritten_place_is_not_entered(void **state)
{
    (void)state;
    CODE("\xe6\x20\xeb\x02\x90\x90\x90\xe6\x21\xc3");
    guest.sites[0] = (struct io_site){.start = BASE + 4, .length = 3, .falls = true};
    guest.site_count = 1;
    assert_int_equal(scan_at(0, NULL), IO_SCAN_SINGLE);
}

/* ---- modes ---- */
static void B6_code_of_32_and_16_bits_is_scanned_in_its_mode(void **state)
{
    (void)state;
    struct io_extent extent = io_extent_default();
    struct io_code c = code(32);
    CODE("\xe6\x20\x40\x66\xb8\x01\x00\xe6\x21\xc3"); /* out; inc %eax; mov $1,%ax; out */
    assert_int_equal(io_scan(scanner, &c, &extent, BASE, &block), IO_SCAN_BLOCK);
    assert_int_equal(block.insn_count, 4);
    CODE("\xe6\x20\xb8\x01\x00\xe6\x21\xc3"); /* 16 bits: mov $1,%ax is three bytes */
    c = code(16);
    guest.base = 0x7c00;
    assert_int_equal(io_scan(scanner, &c, &extent, 0x7c00, &block), IO_SCAN_BLOCK);
    assert_int_equal(block.size, 7);
}

/* ---- the scanner against itself ---- */
static uint64_t random_state = 88172645463325252ull;

static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void the_quick_decoder_says_what_zydis_says(void **state)
{
    (void)state;
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x41, 0x2e, 0x67, 0x0f, 0x0f};
    ZydisDecoder decoder;
    unsigned quick_count = 0;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
    for (unsigned k = 0; k < 400000; k++) {
        uint8_t bytes[INSTRUCTION_ROOM];
        struct instruction quick, full;
        for (unsigned i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(random64() >> 32);
        for (unsigned i = 0; i < (k & 3); i++)
            bytes[i] = prefixes[random64() % sizeof prefixes];
        if (!instruction_quick(bytes, sizeof bytes, &quick))
            continue;
        quick_count++;
        if (!instruction_full(&decoder, bytes, sizeof bytes, &full)) {
            assert_int_equal(quick.class, IO_CLASS_UNKNOWN);
            continue;
        }
        if (quick.class != full.class || (quick.class && quick.length != full.length))
            fail_msg("%02x %02x %02x %02x %02x %02x: class %u length %u, Zydis %u, %u", bytes[0],
                     bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], quick.class, quick.length,
                     full.class, full.length);
        if (quick.class == IO_CLASS_BRANCH || quick.class == IO_CLASS_JUMP ||
            quick.class == IO_CLASS_CALL)
            assert_true(quick.displacement == full.displacement);
        if (quick.class == IO_CLASS_IO)
            assert_int_equal(quick.repeats, full.repeats);
    }
    assert_true(quick_count > 200000);
}

/* Whatever the bytes are, what comes out is a valid block that holds its key, and its hash is its
 * bytes'. */
static void any_bytes_give_a_valid_block_or_none(void **state)
{
    (void)state;
    static const uint8_t likely[] = {0xe6, 0xec, 0xee, 0x74, 0x75, 0xeb, 0xe8, 0xe9, 0xc3, 0x90};
    unsigned blocks = 0;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t bytes[IO_BLOCK_BYTES_MAX];
        memset(&guest, 0, sizeof guest);
        guest.base = BASE;
        guest.size = 256;
        for (unsigned i = 0; i < guest.size; i++)
            guest.bytes[i] = random64() % 3 ? likely[random64() % sizeof likely]
                                            : (uint8_t)(random64() >> 40) & 0x1f;
        guest.bytes[100] = 0xec;
        guest.target_count = 2;
        for (unsigned i = 0; i < 2; i++) {
            guest.branch[i] = BASE + random64() % 256;
            guest.target[i] = BASE + random64() % 256;
        }
        if (scan_at(100, NULL) != IO_SCAN_BLOCK)
            continue;
        blocks++;
        assert_true(io_block_read(&block, BASE + 100, read_code, &guest, bytes));
        assert_true(io_block_hash(&block, bytes) == block.hash);
    }
    assert_true(blocks > 5000);
}

/* Nothing but branches: every instruction leads to two others, and the work stays bounded. */
static void B6_hostile_code_costs_a_bounded_scan(void **state)
{
    (void)state;
    memset(&guest, 0, sizeof guest);
    guest.base = BASE;
    guest.size = sizeof guest.bytes;
    for (unsigned k = 0; k + 2 <= sizeof guest.bytes; k += 2) {
        guest.bytes[k] = 0x75;
        guest.bytes[k + 1] = (uint8_t)(random64() >> 20);
    }
    memcpy(guest.bytes + 4000, "\xee\x75", 2);
    for (unsigned k = 0; k < 100; k++)
        memcpy(guest.bytes + 80 * k + 2, "\xe6\x80", 2);
    uint64_t before = io_scanner_decoded(scanner);
    enum io_scan_result result = scan_at(4000, NULL);
    assert_int_not_equal(result, IO_SCAN_NOT_IO);
    assert_true(io_scanner_decoded(scanner) - before < 20 * IO_BLOCK_INSNS_MAX);
}

static int open_scanner(void **state)
{
    (void)state;
    scanner = io_scanner_new();
    return scanner ? 0 : -1;
}

static int close_scanner(void **state)
{
    (void)state;
    io_scanner_free(scanner);
    return 0;
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
        cmocka_unit_test(B6_an_extent_in_bytes_bounds_the_block),
        cmocka_unit_test(B6_an_extent_of_a_cache_line_or_page_ends_there),
        cmocka_unit_test(B6_the_engines_extent_is_what_a_block_may_hold),
        cmocka_unit_test(B6_extents_are_read_and_written_as_text),
        cmocka_unit_test(B3_the_same_code_elsewhere_has_the_same_hash),
        cmocka_unit_test(B3_bytes_outside_the_ranges_do_not_matter),
        cmocka_unit_test(B11_bytes_that_relocation_changes_are_masked),
        cmocka_unit_test(B11_a_place_that_the_guest_rewrites_is_masked_whole),
        cmocka_unit_test(B11_a_jump_label_is_followed_both_ways),
        cmocka_unit_test(B11_a_return_site_returns),
        cmocka_unit_test(B11_the_middle_of_a_rewritten_place_is_not_entered),
        cmocka_unit_test(B6_code_of_32_and_16_bits_is_scanned_in_its_mode),
        cmocka_unit_test(the_quick_decoder_says_what_zydis_says),
        cmocka_unit_test(any_bytes_give_a_valid_block_or_none),
        cmocka_unit_test(B6_hostile_code_costs_a_bounded_scan),
    };
    return cmocka_run_group_tests_name("ioblock_scan", tests, open_scanner, close_scanner);
}
