/* SPDX-License-Identifier: MIT */
/* image_release_segments: what memory is given back, and what stays. */
#include "tests/unit/tiny_bzimage.h"
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { TEXT = 1 << 20 };

static void build(struct tiny *t)
{
    static uint8_t text[TEXT];
    memset(text, 0xcc, TEXT);
    tiny_build(&(struct tiny_options){.elf_class = 64, .text = text, .text_size = TEXT}, t);
}

static void a_files_bytes_come_back_when_they_are_read_again(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    struct error err = {0};
    char path[32];
    build(&t);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    assert_int_equal(write(fd, t.bytes, t.size), t.size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    assert_int_equal(image_open(path, &image, &err), 0);
    image_release_segments(&image);
    assert_int_equal(image.size, t.size);
    assert_memory_equal(image.bytes, t.bytes, t.size);
    image_close(&image);
    close(fd);
    tiny_free(&t);
}

static void borrowed_bytes_are_not_ours_to_forget(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    struct error err = {0};
    build(&t);
    assert_int_equal(image_from_memory("kernel", t.bytes, t.size, &image, &err), 0);
    image_release_segments(&image);
    assert_int_equal(image.bytes[image.segments[0].offset + TEXT / 2], 0xcc);
    image_close(&image);
    tiny_free(&t);
}

static void an_unpacked_kernel_goes_but_for_its_names(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    struct error err = {0};
    size_t packed_size, size;
    build(&t);
    uint8_t *packed = pack(PACK_GZIP, t.bytes, t.size, &packed_size);
    uint8_t *bytes = bzimage_build(packed, packed_size, &size);
    assert_int_equal(image_from_memory("bzImage", bytes, size, &image, &err), 0);
    const uint8_t *middle = image.bytes + image.segments[0].offset + TEXT / 2;
    assert_true(image.symbol_count > 0);
    char *name = strdup(image.symbols[image.symbol_count - 1].name);
    assert_int_equal(*middle, 0xcc);
    image_release_segments(&image);
    assert_int_equal(*middle, 0);
    assert_non_null(image_section_named(&image, ".text"));
    assert_string_equal(image.symbols[image.symbol_count - 1].name, name);
    free(name);
    image_close(&image);
    free(bytes);
    free(packed);
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_files_bytes_come_back_when_they_are_read_again),
        cmocka_unit_test(borrowed_bytes_are_not_ours_to_forget),
        cmocka_unit_test(an_unpacked_kernel_goes_but_for_its_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
