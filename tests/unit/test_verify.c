/* SPDX-License-Identifier: MIT */
/* patchc verify on a hand-made patched image: it accepts every form and every displaced
 * instruction, and each kind of damage is found, by what it means, with the checksum set right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "patched_image.h"
#include "patchc/verify.h"

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

/* Returns verify's exit code; *first gets its first line of error or the summary. */
static int verify(char *first, size_t size)
{
    char *text = NULL;
    size_t text_size;
    FILE *out = open_memstream(&text, &text_size);
    struct error err = {0};
    int result = verify_run(image.original_path, image.patched_path, out, &err);
    fclose(out);
    assert_int_equal(result, err.code ? -1 : 0);
    snprintf(first, size, "%s", result ? err.text : text);
    free(text);
    return err.code;
}

static void accept_image(void)
{
    char text[512];
    patched_image_write(&image, 1);
    if (verify(text, sizeof text))
        fail_msg("%s", text);
}

/* The image as it is now must be refused, for a reason that contains `why`. */
static void refuse(const char *why)
{
    char text[512];
    patched_image_write(&image, 1);
    int code = verify(text, sizeof text);
    if (code != EXIT_CHECK || !strstr(text, why))
        fail_msg("exit code %d: %s (expected: %s)", code, text, why);
}

static uint8_t *at(const char *label)
{
    return image.text + patched_image_label(label);
}

/* Flips a bit, expects the refusal, flips it back. */
static void refuse_flip(uint8_t *byte, const char *why)
{
    *byte ^= 1;
    refuse(why);
    *byte ^= 1;
}

static void test_a_good_image_is_accepted(void **state)
{
    (void)state;
    char text[512];
    assert_int_equal(verify(text, sizeof text), 0);
    assert_string_equal(text, "patched: verified: 10 patches, 9 routines, 0 tables\n");
}

static void test_D2_each_form_must_lead_to_its_trampoline(void **state)
{
    (void)state;
    refuse_flip(image.text + 1, "patch 0");       /* jump: opcode */
    refuse_flip(image.text + 2, "patch 0");       /* jump: displacement */
    refuse_flip(image.text + 0x22, "patch 1");    /* call */
    refuse_flip(at("entry_call") + 3, "patch 1"); /* D4: drops the return address */
    refuse_flip(at("entry_call") + 8, "patch 1"); /* D5: another table slot */
    refuse_flip(image.text + 0x41, "patch 2");    /* branch */
    refuse_flip(at("island_branch") + 1, "patch 2");
    refuse_flip(at("island_near") + 1, "patch 4");
    refuse_flip(image.text + 0xa3, "patch 5"); /* D3: another index */
}

static void test_the_rest_of_a_window_is_int3(void **state)
{
    (void)state;
    refuse_flip(image.text + 6, "not filled with INT3");
    refuse_flip(image.text + 0x27, "not filled with INT3");
}

static void test_link_slots_are_inactive(void **state)
{
    (void)state;
    refuse_flip(at("link_jump"), "link slot");
    refuse_flip(at("link_tail") + 1, "link slot");
}

static void test_D9_displaced_instructions_are_equivalent(void **state)
{
    (void)state;
    refuse_flip(at("native_jump") + 1, "no copy of the instruction");
    refuse_flip(at("copy_jump") + 1, "copy of the instruction");
    refuse_flip(at("copy_jump") + 2, "another address");
    refuse_flip(at("copy_jrcxz"), "no copy of the branch");
    refuse_flip(at("copy_jrcxz") + 1, "no copy of the branch");
    refuse_flip(at("copy_jrcxz") + 5, "a displaced branch goes to");
    refuse_flip(at("copy_je") + 1, "no copy of the branch");
    refuse_flip(at("copy_je") + 2, "a displaced branch goes to");
    refuse_flip(at("tail_tail") + 4,
                "no copy of the branch"); /* frame of a pushed return address */
    refuse_flip(at("tail_tail") + 9, "no copy of the branch");       /* the return address */
    refuse_flip(at("tail_tail") + 20, "a displaced branch goes to"); /* the call's target */
    refuse_flip(at("trampoline_call") + 3, "ENDBR64");
}

static void test_trampolines_lead_back(void **state)
{
    (void)state;
    refuse_flip(at("back_jump"), "does not end with a jump back");
    refuse_flip(at("back_jump") + 1, "back to another address");
    image.patches[PATCH_RET].trampoline_size--; /* the RET that ends it */
    refuse("no copy of the instruction");
}

static void test_a_branch_into_a_window_goes_to_the_copy(void **state)
{
    (void)state;
    refuse_flip(at("retargeted") + 1, "a branch leads to");
    memcpy(image.text + 0x100, image.original + 0x1100, 5); /* not retargeted */
    refuse("a branch leads to");
}

static void test_D8_emulation_is_a_filled_template(void **state)
{
    (void)state;
    refuse_flip(at("emulation_jump"), "of no template");
    refuse_flip(at("emulation_jump") + 2, "of no template"); /* the index */
    refuse_flip(at("emulation_end_jump"), "jump to the routine's tail");
    refuse_flip(at("emulation_end_jump") + 1, "jump to the routine's tail");
    struct pv_routine *routine = &image.routines[1];
    routine->kind = PV_KIND_CPUID; /* an HLT */
    refuse("of no template");
    routine->kind = PV_KIND_HLT;
    routine->flags ^= PV_ROUTINE_STACK;
    refuse("of no template");
}

static void test_D5_the_routine_table_leads_to_the_routines(void **state)
{
    (void)state;
    uint64_t entry = image.routine_table[0];
    image.routine_table[0] = image.routine_table[1];
    refuse("routine table: entry 0");
    image.routine_table[0] = entry + 1;
    refuse("routine table: entry 0");
}

/* Every byte of the header and the tables means something. */
static void refuse_each_byte(void *from, size_t size)
{
    uint8_t *bytes = from;
    for (size_t i = 0; i < size; i++) {
        char text[512];
        if (bytes + i >= (uint8_t *)&image.note->output_xxh3 &&
            bytes + i < (uint8_t *)(&image.note->output_xxh3 + 1))
            continue; /* patched_image_write() sets it */
        bytes[i] ^= 4;
        patched_image_write(&image, 1);
        int code = verify(text, sizeof text);
        if (code != EXIT_CHECK)
            fail_msg("byte %zu: exit code %d: %s", i, code, text);
        bytes[i] ^= 4;
    }
}

static void test_each_byte_of_the_header_matters(void **state)
{
    (void)state;
    refuse_each_byte(image.header, sizeof *image.header);
}

static void test_each_byte_of_the_tables_matters(void **state)
{
    (void)state;
    refuse_each_byte(image.patches, PATCH_COUNT * sizeof *image.patches);
    refuse_each_byte(image.routines, (PATCH_COUNT - 1) * sizeof *image.routines);
    refuse_each_byte(image.routine_table, (PATCH_COUNT - 1) * sizeof *image.routine_table);
}

static void test_each_byte_of_the_note_and_the_added_part_matters(void **state)
{
    (void)state;
    refuse_each_byte(image.note, offsetof(struct pv_note, output_xxh3));
    /* of the original bytes in the record, which all mean the same, one in 61 */
    uint8_t *added = image.patched + image.record->tail_offset;
    uint8_t *bytes = (uint8_t *)image.record + sizeof *image.record;
    uint8_t *behind = (uint8_t *)image.record + image.note->original_size;
    refuse_each_byte(added, bytes + 128 - added);
    for (uint8_t *byte = bytes + 128; byte < behind; byte += 61)
        refuse_each_byte(byte, 1);
    refuse_each_byte(behind, added + image.record->added_size - behind);
}

static void test_each_byte_of_the_elf_headers_matters(void **state)
{
    (void)state;
    refuse_each_byte(image.patched, 0x200);
}

static void test_each_byte_of_the_code_matters(void **state)
{
    (void)state;
    refuse_each_byte(image.text, 0x600);
    accept_image();
}

static void test_bytes_outside_patches_are_the_originals(void **state)
{
    (void)state;
    refuse_flip(image.text, "belongs to no patch");
    refuse_flip(image.text + 0x1fff, "belongs to no patch");
    refuse_flip(image.patched + image.patched_size - 1, "does not give original back");
}

static void test_the_checksum_is_checked(void **state)
{
    (void)state;
    char text[512];
    image.note->output_xxh3 ^= 1;
    patched_image_write(&image, 0);
    assert_int_equal(verify(text, sizeof text), EXIT_CHECK);
    assert_non_null(strstr(text, "hash"));
}

static void test_another_original_is_refused(void **state)
{
    (void)state;
    char text[512];
    image.original[0x1010] ^= 1;
    FILE *file = fopen(image.original_path, "wb");
    fwrite(image.original, 1, image.original_size, file);
    fclose(file);
    assert_int_equal(verify(text, sizeof text), EXIT_CHECK);
    assert_non_null(strstr(text, "another original"));
}

static void test_an_unpatched_image_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(verify_run(image.original_path, image.original_path, stderr, &err), -1);
    assert_int_equal(err.code, EXIT_CHECK);
    assert_non_null(strstr(err.text, "not a patched image"));
}

/* The byte of the original's text at this offset. */
static uint8_t *was(size_t offset)
{
    return image.original + 0x1000 + offset;
}

static void test_only_padding_is_overwritten(void **state)
{
    (void)state;
    memset(was(patched_image_label("trampoline_near")), 0x90, 16);
    patched_image_remake(&image);
    accept_image(); /* dead no-ops are padding too */
    *was(patched_image_label("trampoline_near") + 3) = 0xc3;
    patched_image_remake(&image);
    refuse("has no padding");
}

static void test_padding_must_be_dead(void **state)
{
    (void)state;
    memset(was(0x47), 0x90, 0x19 + 5); /* from the RET of the code before to the island's end */
    patched_image_remake(&image);
    memset(image.text + 0x47, 0x90, 0x19);
    accept_image();
    *was(0x46) = 0x90; /* that RET */
    patched_image_remake(&image);
    memset(image.text + 0x46, 0x90, 0x1a);
    refuse("code runs into");
}

static void test_nothing_leads_to_used_padding(void **state)
{
    (void)state;
    memset(was(0x60), 0x90, 5);
    int32_t displacement = 0x60 - 0x105;
    memcpy(was(0x101), &displacement, sizeof displacement);
    patched_image_remake(&image);
    refuse("used as padding");
}

static void test_the_sti_shadow_is_kept(void **state)
{
    (void)state;
    /* sti; link; hlt: something comes between the two */
    uint8_t *code = at("link_sti");
    static const uint8_t wrong[] = {0xfb, 0xe9, 0, 0, 0, 0, 0xf4};
    memcpy(code, wrong, sizeof wrong);
    struct pv_routine *routine = &image.routines[7];
    routine->link_offset++;
    refuse("STI");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_good_image_is_accepted),
        TEST(test_D2_each_form_must_lead_to_its_trampoline),
        TEST(test_the_rest_of_a_window_is_int3),
        TEST(test_link_slots_are_inactive),
        TEST(test_D9_displaced_instructions_are_equivalent),
        TEST(test_trampolines_lead_back),
        TEST(test_a_branch_into_a_window_goes_to_the_copy),
        TEST(test_D8_emulation_is_a_filled_template),
        TEST(test_D5_the_routine_table_leads_to_the_routines),
        TEST(test_each_byte_of_the_header_matters),
        TEST(test_each_byte_of_the_tables_matters),
        TEST(test_each_byte_of_the_note_and_the_added_part_matters),
        TEST(test_each_byte_of_the_elf_headers_matters),
        TEST(test_each_byte_of_the_code_matters),
        TEST(test_bytes_outside_patches_are_the_originals),
        TEST(test_the_checksum_is_checked),
        TEST(test_another_original_is_refused),
        TEST(test_an_unpatched_image_is_refused),
        TEST(test_only_padding_is_overwritten),
        TEST(test_padding_must_be_dead),
        TEST(test_nothing_leads_to_used_padding),
        TEST(test_the_sti_shadow_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
