/* SPDX-License-Identifier: MIT */
/* image/relocs.c: the relocation table behind a Linux image. */
#include "image/relocs.h"
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char banner[] = "Linux version 6.1.0 (builder@host) (gcc) #1 SMP";

/* A tiny image with trailing words. `before`: bytes of zeros between the ELF and the words. */
struct subject {
    struct tiny tiny;
    struct image image;
    struct relocs relocs;
    struct error err;
    int result;
};

static void setup(struct subject *s, int elf_class, const char *rodata, size_t before,
                  const uint32_t *words, size_t count)
{
    *s = (struct subject){0};
    uint8_t *tail = calloc(1, before + count * 4 + 1);
    if (count)
        memcpy(tail + before, words, count * 4);
    tiny_build(&(struct tiny_options){.elf_class = elf_class,
                                      .rodata = rodata,
                                      .rodata_size = strlen(rodata),
                                      .tail = tail,
                                      .tail_size = before + count * 4},
               &s->tiny);
    free(tail);
    if (image_from_memory("vmlinux", s->tiny.bytes, s->tiny.size, &s->image, &s->err))
        fail_msg("%s", s->err.text);
    s->result = relocs_read(&s->image, &s->relocs, &s->err);
}

static void teardown(struct subject *s)
{
    image_close(&s->image);
    tiny_free(&s->tiny);
}

#define SETUP(s, elf_class, rodata, before, ...)                                                   \
    setup(s, elf_class, rodata, before, (const uint32_t[]){__VA_ARGS__},                           \
          sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

/* Words that name places in the tiny 64-bit image: by physical address. */
#define TEXT 0x81000200u
#define NEXT 0x81000204u

static void test_lists_are_read_from_the_end(void **state)
{
    (void)state;
    struct subject s;
    for (size_t padding = 0; padding < 24; padding++) { /* alignment is the end of the file's */
        SETUP(&s, 64, banner, padding, 0, TEXT, NEXT, 0, TEXT + 8, 0, TEXT + 1, NEXT, TEXT + 16);
        if (s.result)
            fail_msg("%s", s.err.text);
        assert_true(s.relocs.present);
        assert_int_equal(s.relocs.table_offset, s.tiny.end + padding);
        assert_int_equal(s.relocs.count[RELOC_64], 2);
        assert_int_equal(s.relocs.count[RELOC_INVERSE_32], 1);
        assert_int_equal(s.relocs.count[RELOC_32], 3);
        assert_int_equal(s.relocs.offset[RELOC_64], s.relocs.table_offset + 4);
        assert_int_equal(s.relocs.offset[RELOC_INVERSE_32], s.relocs.table_offset + 16);
        assert_int_equal(s.relocs.offset[RELOC_32], s.relocs.table_offset + 24);
        assert_int_equal(relocs_word(&s.relocs, RELOC_64, 1), NEXT);
        assert_int_equal(relocs_word(&s.relocs, RELOC_INVERSE_32, 0), TEXT + 8);
        assert_int_equal(relocs_word(&s.relocs, RELOC_32, 2), TEXT + 16);
        teardown(&s);
    }
}

static void test_empty_lists_are_read(void **state)
{
    (void)state;
    struct subject s;
    SETUP(&s, 64, banner, 0, 0, TEXT, 0, 0);
    assert_int_equal(s.result, 0);
    assert_int_equal(s.relocs.count[RELOC_64], 1);
    assert_int_equal(s.relocs.count[RELOC_INVERSE_32], 0);
    assert_int_equal(s.relocs.count[RELOC_32], 0);
    assert_int_equal(s.relocs.offset[RELOC_32], s.image.size);
    teardown(&s);
}

static void test_table_without_inverse_list_is_read(void **state)
{
    (void)state;
    struct subject s;
    for (size_t padding = 0; padding <= 8; padding += 4) {
        SETUP(&s, 64, banner, padding, 0, TEXT, NEXT, 0, TEXT + 1);
        assert_int_equal(s.result, 0);
        assert_int_equal(s.relocs.table_offset, s.tiny.end + padding);
        assert_int_equal(s.relocs.count[RELOC_64], 2);
        assert_int_equal(s.relocs.count[RELOC_INVERSE_32], 0);
        assert_int_equal(s.relocs.count[RELOC_32], 1);
        assert_int_equal(relocs_word(&s.relocs, RELOC_64, 0), TEXT);
        teardown(&s);
    }
}

static void test_table_of_a_32_bit_image_is_one_list(void **state)
{
    (void)state;
    struct subject s;
    SETUP(&s, 32, banner, 0, 0, TINY_BASE_32 + 0x200, TINY_BASE_32 + 0x210);
    assert_int_equal(s.result, 0);
    assert_true(s.relocs.present);
    assert_int_equal(s.relocs.count[RELOC_32], 2);
    assert_int_equal(s.relocs.count[RELOC_64] + s.relocs.count[RELOC_INVERSE_32], 0);
    teardown(&s);
}

static void test_image_without_table_has_none(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64, banner, 0, NULL, 0);
    assert_int_equal(s.result, 0);
    assert_false(s.relocs.present);
    teardown(&s);
    setup(&s, 64, banner, 100, NULL, 0); /* padding only */
    assert_int_equal(s.result, 0);
    assert_false(s.relocs.present);
    teardown(&s);
    SETUP(&s, 64, "another kernel", 0, 1, 2, 3); /* not Linux: its tail is its own business */
    assert_int_equal(s.result, 0);
    assert_false(s.relocs.present);
    teardown(&s);
}

static void refused(struct subject *s, const char *what)
{
    assert_int_equal(s->result, -1);
    assert_int_equal(s->err.code, EXIT_INPUT);
    assert_true(is_one_line(&s->err));
    if (!strstr(s->err.text, what))
        fail_msg("%s: does not say: %s", s->err.text, what);
    teardown(s);
}

static void test_damaged_table_is_refused(void **state)
{
    (void)state;
    struct subject s;
    SETUP(&s, 64, banner, 0, TEXT, NEXT); /* no zero at all */
    refused(&s, "not Linux' relocation table");
    SETUP(&s, 64, banner, 0, 0, TEXT); /* one list: a 64-bit kernel has two or three */
    refused(&s, "not Linux' relocation table");
    SETUP(&s, 64, banner, 0, 77, 0, TEXT, 0, TEXT, 0, TEXT); /* something before the table */
    refused(&s, "not Linux' relocation table");
    setup(&s, 64, banner, 5000, NULL, 0);
    refused(&s, "not Linux' relocation table");
    SETUP(&s, 64, banner, 0, 0, TEXT, 0, TEXT, 0, 0x81000000); /* the headers: not loaded */
    refused(&s, "names 0xffffffff81000000, which no loadable segment holds");
    SETUP(&s, 64, banner, 0, 0, TEXT, 0, TEXT, 0, 0x1000);
    refused(&s, "names 0x1000");
    SETUP(&s, 64, banner, 0, 0, 0xfffffff0, 0, TEXT, 0, TEXT);
    refused(&s, "names 0xfffffffffffffff0");
}

/* The place has eight bytes for the 64-bit list, else four: the last place of a segment tells. */
static void test_places_at_the_end_of_a_segment(void **state)
{
    (void)state;
    struct subject s;
    SETUP(&s, 64, banner, 0, 0, TEXT, 0, TEXT, 0, TEXT);
    uint32_t end = TINY_PHYSICAL + s.tiny.rodata + s.tiny.rodata_size + 0x80000000u;
    teardown(&s);
    SETUP(&s, 64, banner, 0, 0, end - 8, 0, end - 4, 0, end - 4);
    assert_int_equal(s.result, 0);
    teardown(&s);
    SETUP(&s, 64, banner, 0, 0, end - 7, 0, TEXT, 0, TEXT);
    refused(&s, "no loadable segment");
    SETUP(&s, 64, banner, 0, 0, TEXT, 0, end - 3, 0, TEXT);
    refused(&s, "no loadable segment");
    SETUP(&s, 64, banner, 0, 0, TEXT, 0, TEXT, 0, end - 3);
    refused(&s, "no loadable segment");
}

static void test_words_become_addresses_and_offsets(void **state)
{
    (void)state;
    struct subject s;
    uint64_t offset;
    assert_true(relocs_address(0x81000000) == 0xffffffff81000000);
    assert_true(relocs_address(0x7fffffff) == 0x7fffffff);
    setup(&s, 64, banner, 0, NULL, 0);
    assert_true(relocs_offset(&s.image, TEXT, &offset));
    assert_int_equal(offset, s.tiny.text);
    /* by physical address, wherever the segment is linked (the per-CPU one at 0) */
    s.image.segments[1].vaddr = 0;
    uint32_t word = 0x80000000u + TINY_PHYSICAL + s.tiny.data + 0x1000;
    assert_true(relocs_offset(&s.image, word + 4, &offset));
    assert_int_equal(offset, s.tiny.data + 4);
    assert_false(relocs_offset(&s.image, word + s.tiny.data_size, &offset));
    assert_false(relocs_offset(&s.image, 0, &offset));
    teardown(&s);
}

static void test_every_cut_of_a_table_gives_a_table_or_one_error_line(void **state)
{
    (void)state;
    static const uint32_t words[] = {0, TEXT, NEXT, 0, TEXT, 0, TEXT, NEXT, TEXT + 9};
    struct subject s;
    for (size_t cut = 1; cut <= sizeof words; cut++) {
        setup(&s, 64, banner, 0, words, sizeof words / 4);
        image_close(&s.image);
        s.err = (struct error){0};
        assert_int_equal(
            image_from_memory("cut", s.tiny.bytes, s.tiny.size - cut, &s.image, &s.err), 0);
        if (relocs_read(&s.image, &s.relocs, &s.err))
            assert_true(is_one_line(&s.err));
        teardown(&s);
    }
}

static void counts_are(const char *variable, size_t c64, size_t inverse, size_t c32)
{
    const char *path = getenv(variable);
    struct image image;
    struct relocs relocs;
    struct error err = {0};
    if (!path) {
        print_message("# SKIP %s names no kernel\n", variable);
        skip();
    }
    if (image_open(path, &image, &err) || relocs_read(&image, &relocs, &err))
        fail_msg("%s", err.text);
    assert_true(relocs.present);
    assert_int_equal(relocs.table_offset, image.elf_end);
    assert_true(relocs.count[RELOC_64] > 100000 && relocs.count[RELOC_INVERSE_32] > 5000 &&
                relocs.count[RELOC_32] > 50000);
    if (strstr(path, "6.1.0-56")) { /* this release's counts were measured independently */
        assert_int_equal(relocs.count[RELOC_64], c64);
        assert_int_equal(relocs.count[RELOC_INVERSE_32], inverse);
        assert_int_equal(relocs.count[RELOC_32], c32);
    }
    image_close(&image);
}

static void test_real_kernel_has_its_lists(void **state)
{
    (void)state;
    counts_are("PV_KERNEL_CLOUD", 123692, 8457, 70777);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_are_read_from_the_end),
        cmocka_unit_test(test_empty_lists_are_read),
        cmocka_unit_test(test_table_without_inverse_list_is_read),
        cmocka_unit_test(test_table_of_a_32_bit_image_is_one_list),
        cmocka_unit_test(test_image_without_table_has_none),
        cmocka_unit_test(test_damaged_table_is_refused),
        cmocka_unit_test(test_places_at_the_end_of_a_segment),
        cmocka_unit_test(test_words_become_addresses_and_offsets),
        cmocka_unit_test(test_every_cut_of_a_table_gives_a_table_or_one_error_line),
        cmocka_unit_test(test_real_kernel_has_its_lists),
    };
    return cmocka_run_group_tests_name("relocs", tests, NULL, NULL);
}
