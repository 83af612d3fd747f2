/* SPDX-License-Identifier: MIT */
/* patchc restore: the original comes back bit for bit, and no damaged record is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "patched_image.h"
#include "patchc/restore.h"

#include <cmocka.h> /* after image/error.h: it has a macro named fail */

static struct patched_image image;

static int setup(void **state)
{
    (void)state;
    patched_image_make(&image);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    patched_image_free(&image);
    return 0;
}

/* Restores into the scratch folder; returns the exit code. The output is read back. */
static int restore(struct error *err, uint8_t **bytes, size_t *size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/restored", image.folder);
    *err = (struct error){0};
    *bytes = NULL;
    int result = restore_run(image.patched_path, path, err);
    assert_int_equal(result, err->code ? -1 : 0);
    FILE *file = fopen(path, "rb");
    assert_int_equal(file != NULL, result == 0);
    if (file) {
        *bytes = malloc(image.original_size + 1);
        *size = fread(*bytes, 1, image.original_size + 1, file);
        fclose(file);
        unlink(path);
    }
    return err->code;
}

static void test_restore_gives_the_original_back(void **state)
{
    (void)state;
    struct error err;
    uint8_t *bytes = NULL;
    size_t size = 0;
    assert_int_equal(restore(&err, &bytes, &size), 0);
    assert_int_equal(size, image.original_size);
    assert_memory_equal(bytes, image.original, size);
    free(bytes);
}

static void refuse(const char *what)
{
    struct error err;
    uint8_t *bytes = NULL;
    size_t size = 0;
    patched_image_write(&image, 1);
    int code = restore(&err, &bytes, &size);
    free(bytes);
    if (code != EXIT_INPUT || !strstr(err.text, what))
        fail_msg("exit code %d: %s (expected: %s)", code, err.text, what);
}

static void test_an_original_is_no_patched_image(void **state)
{
    (void)state;
    memcpy(image.patched, image.original, image.original_size);
    image.patched_size = image.original_size;
    patched_image_write(&image, 0);
    struct error err = {0};
    assert_int_equal(restore_run(image.patched_path, "/nonexistent", &err), -1);
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "not a patched image"));
}

static void test_another_abi_version_is_refused(void **state)
{
    (void)state;
    image.note->abi_version++;
    refuse("ABI version");
}

static void test_a_note_that_points_nowhere_is_refused(void **state)
{
    (void)state;
    image.note->original_file = UINT64_MAX - 4;
    refuse("damaged note");
    image.note->original_file = image.patched_size - 8;
    refuse("damaged note");
    image.note->original_file = 0;
    image.note->original_size = 8;
    refuse("damaged note");
}

static void test_sizes_that_do_not_add_up_are_refused(void **state)
{
    (void)state;
    struct pv_original good = *image.record;
    image.record->size += 8;
    refuse("do not add up");
    *image.record = good;
    image.record->added_size = UINT64_MAX;
    refuse("do not add up");
    *image.record = good;
    image.record->tail_offset = UINT64_MAX;
    refuse("tail at");
    *image.record = good;
    image.record->tail_insert_at = image.original_size + 1;
    refuse("tail at");
}

static void test_runs_outside_the_original_are_refused(void **state)
{
    (void)state;
    struct pv_original good = *image.record;
    struct pv_original_run *runs = (void *)(image.record + 1), first = runs[0];
    image.record->run_count = UINT64_MAX / sizeof *runs;
    refuse("runs in");
    *image.record = good;
    image.record->run_count--;
    refuse("bytes stored");
    *image.record = good;
    runs[0].offset = image.original_size;
    refuse("run 0");
    runs[0].offset = UINT64_MAX;
    refuse("run 0");
    runs[0] = (struct pv_original_run){first.offset, UINT64_MAX};
    refuse("run 0");
    runs[0] = (struct pv_original_run){first.offset, 0};
    refuse("run 0");
    runs[0] = first;
    runs[1].offset = first.offset;
    refuse("run 1");
}

static void test_bytes_that_are_not_the_originals_are_refused(void **state)
{
    (void)state;
    uint8_t *last = (uint8_t *)image.record + image.note->original_size - 1;
    *last ^= 1;
    refuse("hash");
    *last ^= 1;
    image.patched[image.patched_size - 1] ^= 1; /* outside all runs */
    refuse("hash");
}

/* Whatever one byte of the note or the record becomes: the original, or an error line. */
static void test_no_flipped_byte_gives_a_wrong_original(void **state)
{
    (void)state;
    uint8_t *from[] = {(uint8_t *)image.note, (uint8_t *)image.record};
    size_t size[] = {sizeof *image.note, sizeof *image.record + 4 * sizeof(struct pv_original_run)};
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < size[k]; i++) {
            from[k][i] ^= 0x81;
            patched_image_write(&image, 0);
            struct error err;
            uint8_t *bytes = NULL;
            size_t restored = 0;
            if (restore(&err, &bytes, &restored) == 0) {
                assert_int_equal(restored, image.original_size);
                assert_memory_equal(bytes, image.original, restored);
            } else {
                assert_int_equal(err.code, EXIT_INPUT);
            }
            free(bytes);
            from[k][i] ^= 0x81;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_restore_gives_the_original_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_original_is_no_patched_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_abi_version_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_note_that_points_nowhere_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_sizes_that_do_not_add_up_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_runs_outside_the_original_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bytes_that_are_not_the_originals_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_no_flipped_byte_gives_a_wrong_original, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
