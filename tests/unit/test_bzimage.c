/* SPDX-License-Identifier: MIT */
/* image/bzimage.c and image/unpack.c: the kernel in a Linux bzImage. */
#include "tests/unit/tiny_bzimage.h"
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>
#include <xxhash.h>

static void unpacks(enum packing packing, const uint8_t *elf, size_t elf_size)
{
    size_t packed_size, size;
    uint8_t *packed = pack(packing, elf, elf_size, &packed_size);
    uint8_t *bytes = bzimage_build(packed, packed_size, &size);
    struct image image;
    struct error err = {0};
    if (image_from_memory("bzImage", bytes, size, &image, &err))
        fail_msg("%s: %s", packing_names[packing], err.text);
    check_image(&image);
    assert_string_equal(image_format_name(image.format), "bzimage");
    assert_int_equal(image.input_size, size);
    assert_true(image.input_xxh3 == XXH3_64bits(bytes, size));
    assert_int_equal(image.size, elf_size);
    assert_memory_equal(image.bytes, elf, elf_size);
    assert_true(image.unpack_seconds > 0);
    uint8_t *copy = image_copy(&image, &err);
    assert_memory_equal(copy, elf, elf_size);
    image_copy_free(&image, copy);
    image_release_segments(&image);
    assert_non_null(image_section_named(&image, ".text"));
    assert_true(image.symbol_count > 0 && image.symbols[0].name[0]);
    image_close(&image);
    free(bytes);
    free(packed);
}

static void test_every_packing_unpacks(void **state)
{
    (void)state;
    struct tiny t;
    tiny_build(&(struct tiny_options){.elf_class = 64, .tail = "relocs", .tail_size = 6}, &t);
    for (int packing = 0; packing < PACKINGS; packing++)
        unpacks(packing, t.bytes, t.size);
    tiny_free(&t);
}

/* Code-like bytes: some compress, some do not. */
static void unpacks_large(enum packing packing, size_t size)
{
    uint8_t *text = malloc(size);
    uint64_t random = 1;
    for (size_t i = 0; i < size; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        text[i] = i >> 16 & 1 ? random >> 56 : random >> 62;
    }
    struct tiny t;
    tiny_build(&(struct tiny_options){.elf_class = 64, .text = text, .text_size = size}, &t);
    unpacks(packing, t.bytes, t.size);
    tiny_free(&t);
    free(text);
}

/* More than one block of each format that has blocks: LZ4's have 8 MiB, bzip2's 900 kB, lzop's 256
 * KiB. */
static void test_large_payloads_unpack(void **state)
{
    (void)state;
    for (int packing = 0; packing < PACKINGS; packing++)
        unpacks_large(packing, 1000 * 1000);
    unpacks_large(PACK_LZ4, (9 << 20) + 12345);
}

static bool opens(const uint8_t *bytes, size_t size, struct error *err)
{
    struct image image;
    *err = (struct error){0};
    if (!image_from_memory("bzImage", bytes, size, &image, err)) {
        check_image(&image);
        image_close(&image);
        return true;
    }
    if (err->code != EXIT_INPUT || !is_one_line(err))
        fail_msg("code %d: %s", err->code, err->text);
    return false;
}

static void refused(const uint8_t *bytes, size_t size, const char *what)
{
    struct error err;
    assert_false(opens(bytes, size, &err));
    if (!strstr(err.text, what))
        fail_msg("%s: does not say: %s", err.text, what);
}

static void test_damaged_setup_header_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        unsigned offset, size;
        uint32_t value;
    } changes[] = {
        {"neither an ELF file nor", 0x1fe, 2, 0},
        {"neither an ELF file nor", 0x202, 4, 0},
        {"boot protocol 2.07", 0x206, 2, 0x0207},
        {"past the end", 0x248, 4, 0x7fffffff},
        {"past the end", 0x248, 4, 0xffffffff},
        {"past the end", 0x24c, 4, 0xffffffff},
        {"past the end", 0x1f1, 1, 255},
        {"compression is unknown", 0x1f1, 1, 1},
        {"compression is unknown", 0x24c, 4, 0},
        {"compression is unknown", 0x24c, 4, 5},
        {"compression is unknown", BZIMAGE_PAYLOAD_FILE, 4, 0},
    };
    struct tiny t;
    size_t packed_size, size;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    uint8_t *packed = pack(PACK_GZIP, t.bytes, t.size, &packed_size);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        uint8_t *bytes = bzimage_build(packed, packed_size, &size);
        tiny_put(bytes, changes[i].offset, changes[i].size, changes[i].value);
        refused(bytes, size, changes[i].what);
        free(bytes);
    }
    free(packed);
    tiny_free(&t);
}

/* boot.rst: setup_sects == 0 means 4. */
static void test_zero_setup_sectors_mean_four(void **state)
{
    (void)state;
    struct tiny t;
    size_t size;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    uint8_t *bytes = bzimage_build(t.bytes, t.size, &size);
    size_t shift = (4 - BZIMAGE_SECTORS) * 512;
    uint8_t *moved = calloc(1, size + shift);
    memcpy(moved, bytes, BZIMAGE_PAYLOAD_FILE);
    memcpy(moved + BZIMAGE_PAYLOAD_FILE + shift, t.bytes, t.size);
    moved[0x1f1] = 0;
    struct error err;
    assert_true(opens(moved, size + shift, &err));
    free(moved);
    free(bytes);
    tiny_free(&t);
}

static void test_wrong_length_is_refused(void **state)
{
    (void)state;
    struct tiny t;
    size_t packed_size, size;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    for (int packing = 0; packing < PACK_NONE; packing++) {
        uint8_t *packed = pack(packing, t.bytes, t.size, &packed_size);
        uint8_t *bytes = bzimage_build(packed, packed_size, &size);
        size_t word = BZIMAGE_PAYLOAD_FILE + packed_size - 4;
        tiny_put(bytes, word, 4, t.size - 1);
        refused(bytes, size, "is damaged");
        tiny_put(bytes, word, 4, t.size + 1);
        refused(bytes, size, "is damaged");
        tiny_put(bytes, word, 4, 0);
        refused(bytes, size, "is damaged");
        tiny_put(bytes, word, 4, 0x40000001);
        refused(bytes, size, "claims to unpack to 1073741825 (");
        free(bytes);
        free(packed);
    }
    tiny_free(&t);
}

static void test_payload_that_is_no_elf_is_refused(void **state)
{
    (void)state;
    uint8_t text[1000] = "this is no kernel";
    size_t packed_size, size;
    for (int packing = 0; packing < PACK_NONE; packing++) {
        uint8_t *packed = pack(packing, text, sizeof text, &packed_size);
        uint8_t *bytes = bzimage_build(packed, packed_size, &size);
        refused(bytes, size, "bzImage (unpacked): offset 0x0: neither an ELF file");
        free(bytes);
        free(packed);
    }
}

static void test_every_cut_is_refused(void **state)
{
    (void)state;
    struct tiny t;
    size_t packed_size, size;
    struct error err;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    for (int packing = 0; packing < PACKINGS; packing++) {
        uint8_t *packed = pack(packing, t.bytes, t.size, &packed_size);
        for (size_t cut = 0; cut < packed_size; cut++) { /* the payload itself ends early */
            uint8_t *bytes = bzimage_build(packed, cut, &size);
            assert_false(opens(bytes, size, &err));
            free(bytes);
        }
        uint8_t *whole = bzimage_build(packed, packed_size, &size);
        for (size_t cut = 0; cut < size - 64; cut++) { /* the file ends early */
            uint8_t *bytes = malloc(cut ? cut : 1);
            memcpy(bytes, whole, cut);
            assert_false(opens(bytes, cut, &err));
            free(bytes);
        }
        free(whole);
        free(packed);
    }
    tiny_free(&t);
}

static void test_every_damaged_byte_gives_an_image_or_one_error_line(void **state)
{
    (void)state;
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    struct tiny t;
    size_t packed_size, size;
    struct error err;
    tiny_build(&(struct tiny_options){.elf_class = 32, .no_symbols = true}, &t);
    for (int packing = 0; packing < PACK_NONE; packing++) {
        uint8_t *packed = pack(packing, t.bytes, t.size, &packed_size);
        uint8_t *bytes = bzimage_build(packed, packed_size, &size);
        for (size_t i = 0; i < packed_size; i++)
            for (size_t j = 0; j < sizeof changes; j++) {
                bytes[BZIMAGE_PAYLOAD_FILE + i] ^= changes[j];
                opens(bytes, size, &err);
                bytes[BZIMAGE_PAYLOAD_FILE + i] ^= changes[j];
            }
        free(bytes);
        free(packed);
    }
    tiny_free(&t);
}

static void test_real_kernel_unpacks_and_its_cuts_are_refused(void **state)
{
    (void)state;
    const char *path = getenv("PV_KERNEL_CLOUD");
    struct image image;
    struct error err = {0};
    if (!path) {
        print_message("# SKIP PV_KERNEL_CLOUD names no kernel\n");
        skip();
    }
    if (image_open(path, &image, &err))
        fail_msg("%s", err.text);
    check_image(&image);
    assert_int_equal(image.format, IMAGE_BZIMAGE);
    size_t input_size = image.input_size;
    image_close(&image);
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(input_size);
    assert_int_equal(fread(bytes, 1, input_size, file), input_size);
    fclose(file);
    uint64_t payload = 0, random = 7;
    memcpy(&payload, bytes + 0x248, 4);
    payload += (bytes[0x1f1] + 1) * 512;
    for (size_t cut = 0; cut < 1024; cut++)
        assert_false(opens(bytes, cut, &err));
    for (int i = 0; i < 2000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        assert_false(opens(bytes, (random >> 16) % (payload + 1000), &err));
        assert_false(opens(bytes, (random >> 16) % (input_size * 9 / 10), &err));
    }
    for (int i = 0; i < 20; i++) { /* damage somewhere in the payload: whole file, wrong bytes */
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t at = payload + (random >> 16) % (input_size * 8 / 10);
        bytes[at] ^= 0x55;
        opens(bytes, input_size, &err);
        bytes[at] ^= 0x55;
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_packing_unpacks),
        cmocka_unit_test(test_large_payloads_unpack),
        cmocka_unit_test(test_damaged_setup_header_is_refused),
        cmocka_unit_test(test_zero_setup_sectors_mean_four),
        cmocka_unit_test(test_wrong_length_is_refused),
        cmocka_unit_test(test_payload_that_is_no_elf_is_refused),
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_every_damaged_byte_gives_an_image_or_one_error_line),
        cmocka_unit_test(test_real_kernel_unpacks_and_its_cuts_are_refused),
    };
    return cmocka_run_group_tests_name("bzimage", tests, NULL, NULL);
}
