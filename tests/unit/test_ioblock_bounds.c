/* SPDX-License-Identifier: MIT */
/* What bounds a scan: its extent, what the guest will change (B3, B6, B11), other modes, hostile
 * code. */
#include "ioblock/instruction.h"
#include "tests/unit/ioblock_lab.h"

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

static void B6_extents_are_read(void **state)
{
    (void)state;
    static const char *const good[] = {"line", "page", "engine", "bytes:1", "bytes:4096"};
    static const enum io_extent_kind kinds[] = {IO_EXTENT_LINE, IO_EXTENT_PAGE, IO_EXTENT_ENGINE,
                                                IO_EXTENT_BYTES, IO_EXTENT_BYTES};
    static const char *const bad[] = {"",  "lines", "bytes:",   "bytes:0",  "bytes:4097",
                                      "0", "-1",    "bytes:1x", "99999999", "bytes: 5"};
    struct io_extent extent;
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
        assert_true(io_extent_parse(good[k], &extent));
        assert_int_equal(extent.kind, kinds[k]);
    }
    assert_int_equal(extent.bytes, 4096);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(B6_an_extent_in_bytes_bounds_the_block),
        cmocka_unit_test(B6_an_extent_of_a_cache_line_or_page_ends_there),
        cmocka_unit_test(B6_the_engines_extent_is_what_a_block_may_hold),
        cmocka_unit_test(B6_extents_are_read),
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
    return cmocka_run_group_tests_name("ioblock_bounds", tests, open_scanner, close_scanner);
}
