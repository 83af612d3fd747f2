/* SPDX-License-Identifier: MIT */
/* The IO-block stage of patchc: which blocks a patched image's table has, over which bytes (B9,
 * B11). Whatever is built here has also been verified and restored (core_lab.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/relocs.h"
#include "ioblock/table.h"
#include "patchc/vocabulary.h"
#include "tests/unit/core_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define TEXT        LINUX_IMAGE_TEXT
#define CPUID       "include cpuid\n"
#define OUT         "include out\n"
#define LINUX(name) lab_linux(&lab, name##_code, name##_end)

static struct lab lab;
static struct io_table table;

static int set_up(void **state)
{
    (void)state;
    lab_open(&lab);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    io_table_free(&table);
    lab_close(&lab);
    return 0;
}

/* Builds, and reads the table as a runtime would. */
static void build(const char *list)
{
    struct error err = {0};
    io_table_free(&table);
    lab_must_build(&lab, list);
    const struct pv_note *note = &lab.record.note;
    if (!note->io_table_file) {
        assert_int_equal(note->io_table_size, 0);
        return;
    }
    assert_int_equal(io_table_read("image", lab.patched.bytes + note->io_table_file,
                                   note->io_table_size, &table, &err),
                     0);
    assert_int_equal(table.ignored, 0);
}

/* The block that begins at this guest-linear address; the test fails if there is none. */
static struct io_block block_at(uint64_t address)
{
    struct io_block block;
    int64_t index = io_table_find(&table, address, 0);
    if (index < 0)
        fail_msg("no block at 0x%llx", (unsigned long long)address);
    io_table_block(&table, (uint32_t)index, &block);
    return block;
}

/* Where the native path of the site at this offset of the text is. */
static uint64_t native(uint64_t offset)
{
    const struct pv_routine *routine = lab_routine(&lab, offset);
    assert_non_null(routine);
    return lab_address(&lab, routine->native_offset);
}

static uint64_t hash_now(const struct io_block *block)
{
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    uint32_t done = 0;
    for (unsigned k = 0; k < block->range_count; k++) {
        memcpy(bytes + done,
               lab_at(&lab, block->key + (uint64_t)block->ranges[k].offset, block->ranges[k].size),
               block->ranges[k].size);
        done += block->ranges[k].size;
    }
    return io_block_hash(block, bytes);
}

LAB_CODE(plain, "cpuid\n inc %eax\n inc %edx\n ret\n .balign 16, 0xcc\n"
                "mov $0x3d4, %edx\n out %al, (%dx)\n inc %edx\n in (%dx), %al\n ret\n"
                ".balign 16, 0xcc\n in $0x60, %al\n ret\n .balign 16, 0xcc\n"
                "1: in $0x64, %al\n test $2, %al\n jnz 1b\n ret");

static void test_B9_the_image_carries_the_blocks_of_unlisted_io(void **state)
{
    (void)state;
    LINUX(plain);
    build(CPUID);
    assert_int_equal(table.entry_count, 2);
    struct io_block pair = block_at(TEXT + 16 + 5), loop = block_at(TEXT + 48);
    assert_int_equal(pair.io_count, 2);
    assert_int_equal(pair.size, 4);
    assert_true(hash_now(&pair) == pair.hash);
    assert_int_equal(pair.exit, 4);
    assert_int_equal(loop.io_count, 1);
    assert_int_equal(loop.flags, IO_BLOCK_LOOP);
    assert_int_equal(io_table_find(&table, TEXT + 32, 0), -1); /* B8: alone */
    assert_int_equal(lab.result.io_block_count, 2);
    assert_int_equal(lab.result.io_block_sites[0], TEXT + 16 + 5);
}

static void test_B9_a_guest_without_io_has_no_table(void **state)
{
    (void)state;
    static const uint8_t text[64] = {0x0f, 0xa2, 0xff, 0xc0, 0xff, 0xc2, 0xc3};
    lab_plain(&lab, text, sizeof text, NULL, 0);
    build(CPUID);
    assert_int_equal(table.entry_count, 0);
    assert_int_equal(lab.record.note.io_table_file, 0);
}

LAB_CODE(patched, "out %al, $0x20\n mov $1, %eax\n inc %ecx\n out %al, $0xa0\n mov $2, %eax\n"
                  "inc %ecx\n ret\n .balign 16, 0xcc");

static void test_B9_a_patched_site_begins_a_block_at_its_native_path(void **state)
{
    (void)state;
    LINUX(patched);
    build(OUT);
    assert_int_equal(lab_site(&lab, 0)->status, STATUS_PATCHED);
    assert_int_equal(lab_site(&lab, 9)->status, STATUS_PATCHED);
    struct io_block block = block_at(native(0));
    assert_int_equal(block.io_count, 2);
    assert_true(hash_now(&block) == block.hash);
    assert_int_equal(io_table_find(&table, TEXT, 0), -1); /* the window's jump */
    assert_int_equal(lab.result.io_block_sites[0], TEXT);
}

/* B11: the runtime links routines, which must not change the hash. */
static void test_B11_the_links_of_routines_are_masked(void **state)
{
    (void)state;
    LINUX(patched);
    build(OUT);
    struct io_block block = block_at(native(0));
    uint64_t link = lab_address(&lab, lab_routine(&lab, 9)->link_offset);
    uint32_t position = 0;
    bool masked = false;
    for (unsigned k = 0; k < block.range_count; k++) {
        uint64_t start = block.key + (uint64_t)block.ranges[k].offset;
        if (link >= start && link < start + block.ranges[k].size)
            for (unsigned m = 0; m < block.mask_count; m++)
                masked |=
                    block.masks[m].position <= position + (link - start) &&
                    position + (link - start) + 5 <= block.masks[m].position + block.masks[m].size;
        position += block.ranges[k].size;
    }
    assert_true(masked);
}

LAB_CODE(relocated, "out %al, $0x20\n mov $symbol_address, %rcx\n out %al, $0xa0\n ret\n"
                    ".set symbol_address, 0x1000\n .balign 16, 0xcc\n cpuid\n inc %eax\n"
                    "inc %edx\n ret");

static void test_B11_a_relocated_image_has_the_same_hash(void **state)
{
    (void)state;
    LINUX(relocated);
    static uint32_t words[4] = {0, 0, 0, (uint32_t)TEXT + 2 + 3};
    lab.li.trailer = words;
    lab.li.trailer_size = sizeof words;
    build(CPUID);
    struct io_block block = block_at(TEXT);
    assert_int_equal(block.io_count, 2);
    assert_int_equal(block.mask_count, 1);
    assert_int_equal(block.masks[0].position, 5);
    assert_int_equal(block.masks[0].size, 4);
    uint8_t bytes[IO_BLOCK_BYTES_MAX];
    memcpy(bytes, lab_at(&lab, TEXT, block.size), block.size);
    bytes[7] += 0x40; /* moved by 4 MiB */
    assert_true(io_block_hash(&block, bytes) == block.hash);
    assert_int_equal(io_table_find(&table, TEXT + 2 * IO_TABLE_ALIGN, 2 * IO_TABLE_ALIGN), 0);
}

LAB_CODE(returns, "out %al, $0x20\n call 1f\n out %al, $0xa0\n ret\n .balign 16, 0xcc\n"
                  "1: in $0x21, %al\n 2: jmp 3f\n .balign 16, 0xcc\n"
                  "3: ret\n int3\n .balign 16, 0xcc\n cpuid\n inc %eax\n inc %edx\n ret");

static void test_B11_a_return_site_is_masked_and_returns(void **state)
{
    (void)state;
    /* 16: in, 18: the return site. An assembler makes the jump short: written by hand. */
    static uint8_t table_bytes[4], text[128];
    size_t size = (size_t)(returns_end - returns_code);
    memcpy(text, returns_code, size);
    memcpy(text + 18, "\xe9\x09\x00\x00\x00\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc", 14);
    lab_linux(&lab, text, text + size);
    linux_image_symbol(&lab.li, "__x86_return_thunk", TEXT + 32);
    lab_name(table_bytes, linux_image_address(lab.li.section_count), 0, TEXT + 18);
    linux_image_add(&lab.li, ".return_sites", 0, table_bytes, 4);
    build(CPUID);
    struct io_block block = block_at(TEXT);
    assert_int_equal(block.io_count, 3);
    assert_true(block.flags & IO_BLOCK_MASKED);
    assert_int_equal(block.mask_count, 1);
    assert_int_equal(block.masks[0].size, 5);
}

static void test_action_block_leaves_a_site_to_its_block(void **state)
{
    (void)state;
    LINUX(patched);
    build("include out action=block\n");
    assert_int_equal(lab_site(&lab, 0)->status, STATUS_BLOCK);
    assert_int_equal(lab_site(&lab, 9)->status, STATUS_BLOCK);
    assert_int_equal(block_at(TEXT).io_count, 2);
    struct build_counts counts = build_count(&lab.result);
    assert_int_equal(counts.block, 2);
    assert_true(build_coverage(&counts) == 100);
}

static void test_action_block_patches_what_no_block_covers(void **state)
{
    (void)state;
    LINUX(plain);
    build("include in action=block\n");
    assert_int_equal(lab_site(&lab, 32)->status, STATUS_PATCHED); /* alone */
    assert_int_equal(lab_site(&lab, 16 + 8)->status, STATUS_BLOCK);
    assert_int_equal(lab_site(&lab, 48)->status, STATUS_BLOCK);
}

LAB_CODE(run,
         "in $0x60, %al\n out %al, $0x80\n out %al, $0x81\n 1: out %al, $0x82\n"
         "out %al, $0x83\n jnz 1b\n ret\n .balign 16, 0xcc\n cpuid\n inc %eax\n inc %edx\n ret");

static void test_B9_what_can_only_be_resumed_has_no_entry(void **state)
{
    (void)state;
    LINUX(run);
    build(CPUID);
    assert_int_equal(table.entry_count, 2); /* the first, and the branch's target */
    assert_int_equal(block_at(TEXT).io_count, 5);
    assert_int_equal(block_at(TEXT + 6).io_count, 2);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_B9_the_image_carries_the_blocks_of_unlisted_io),
        TEST(test_B9_a_guest_without_io_has_no_table),
        TEST(test_B9_a_patched_site_begins_a_block_at_its_native_path),
        TEST(test_B9_what_can_only_be_resumed_has_no_entry),
        TEST(test_B11_the_links_of_routines_are_masked),
        TEST(test_B11_a_relocated_image_has_the_same_hash),
        TEST(test_B11_a_return_site_is_masked_and_returns),
        TEST(test_action_block_leaves_a_site_to_its_block),
        TEST(test_action_block_patches_what_no_block_covers),
    };
    return cmocka_run_group_tests_name("io_blocks", tests, NULL, NULL);
}
