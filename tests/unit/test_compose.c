/* SPDX-License-Identifier: MIT */
/* image/compose.c: the patched ELF is the original, an added part, and the trailing data. */
#include "image/compose.h"
#include "image/relocs.h"
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <elf.h>
#include <xxhash.h>

static const uint8_t note[] = {11,  0,   0,   0,   4,   0,   0,   0,   0x56, 0x50, 0, 0, 'P', 'a',
                               't', 'c', 'h', 'v', 'i', 's', 'o', 'r', 0,    0,    1, 2, 3,   4};
static const uint8_t record[] = "original bytes";

/* One composition of a tiny image, and the image that it gives. */
struct subject {
    struct tiny tiny;
    struct image image, output;
    uint8_t *edited, *bytes;
    size_t size;
    struct compose_section sections[2];
    struct compose compose;
    struct error err;
};

static void setup(struct subject *s, const struct tiny_options *options)
{
    *s = (struct subject){0};
    tiny_build(options, &s->tiny);
    if (image_from_memory("tiny", s->tiny.bytes, s->tiny.size, &s->image, &s->err))
        fail_msg("%s", s->err.text);
    s->edited = malloc(s->image.size);
    memcpy(s->edited, s->image.bytes, s->image.size);
    s->sections[0] =
        (struct compose_section){".note.patchvisor", SHT_NOTE, note, sizeof note, 4, 0};
    s->sections[1] = (struct compose_section){".patchvisor.original", SHT_PROGBITS, record,
                                              sizeof record,          64,           0};
    s->compose = (struct compose){.image = &s->image,
                                  .edited = s->edited,
                                  .sections = s->sections,
                                  .section_count = 2,
                                  .note_section = 0};
}

static void run(struct subject *s)
{
    const struct iovec *pieces;
    size_t count = 0, at = 0;
    if (compose_begin(&s->compose, &s->err) || compose_layout(&s->compose, &s->err) ||
        compose_pieces(&s->compose, &pieces, &count, &s->err))
        fail_msg("%s", s->err.text);
    s->size = s->compose.output_size;
    s->bytes = malloc(s->size);
    for (size_t i = 0; i < count; i++) {
        assert_true(pieces[i].iov_len > 0 && pieces[i].iov_len <= s->size - at);
        memcpy(s->bytes + at, pieces[i].iov_base, pieces[i].iov_len);
        at += pieces[i].iov_len;
    }
    assert_int_equal(at, s->size);
    assert_true(compose_xxh3(pieces, count) == XXH3_64bits(s->bytes, s->size));
    if (image_from_memory("output", s->bytes, s->size, &s->output, &s->err))
        fail_msg("%s", s->err.text);
    check_image(&s->output);
}

static void teardown(struct subject *s)
{
    if (s->bytes)
        image_close(&s->output);
    compose_free(&s->compose);
    image_close(&s->image);
    tiny_free(&s->tiny);
    free(s->edited);
    free(s->bytes);
}

/* The layout that struct pv_original promises: undoing it gives the original. */
static void undoes(const struct subject *s)
{
    const struct compose *c = &s->compose;
    size_t end = s->image.elf_end, size = s->image.size;
    assert_int_equal(c->added_size % 16, 0);
    assert_int_equal(s->size, size + c->added_size + c->tail_insert_size);
    uint8_t *back = malloc(size);
    memcpy(back, s->bytes, end);
    for (size_t i = 0; i < c->run_count; i++) {
        assert_true(!i || c->runs[i].offset >= c->runs[i - 1].offset + c->runs[i - 1].size);
        memcpy(back + c->runs[i].offset, s->edited + c->runs[i].offset, c->runs[i].size);
    }
    size_t head = c->tail_insert_size ? c->tail_insert_at - end : size - end;
    memcpy(back + end, s->bytes + end + c->added_size, head);
    memcpy(back + end + head, s->bytes + end + c->added_size + head + c->tail_insert_size,
           size - end - head);
    assert_memory_equal(back, s->edited, size);
    free(back);
}

static void has_section(const struct subject *s, const char *name, uint32_t type, const void *data,
                        size_t size, uint64_t align)
{
    const struct image_section *section = image_section_named(&s->output, name);
    assert_non_null(section);
    assert_int_equal(section->type, type);
    assert_int_equal(section->flags, 0);
    assert_int_equal(section->size, size);
    assert_int_equal(section->offset % align, 0);
    assert_true(section->offset >= s->image.elf_end &&
                section->offset + size <= s->image.elf_end + s->compose.added_size);
    assert_memory_equal(s->output.bytes + section->offset, data, size);
}

static void keeps_old_headers(const struct subject *s)
{
    for (size_t i = 0; i < s->image.segment_count; i++)
        assert_memory_equal(&s->output.segments[i], &s->image.segments[i],
                            sizeof s->image.segments[i]);
    for (size_t i = 0; i < s->image.section_count; i++) {
        const struct image_section *old = &s->image.sections[i], *new = &s->output.sections[i];
        assert_string_equal(new->name, old->name);
        assert_int_equal(new->type, old->type);
        assert_int_equal(new->flags, old->flags);
        assert_true(new->address == old->address);
        if (strcmp(old->name, ".shstrtab")) {
            assert_int_equal(new->offset, old->offset);
            assert_int_equal(new->size, old->size);
        }
    }
    assert_int_equal(s->output.symbol_count, s->image.symbol_count);
    assert_true(s->output.entry == s->image.entry);
}

static void has_note_segment(const struct subject *s)
{
    const struct image_segment *last = &s->output.segments[s->output.segment_count - 1];
    assert_int_equal(last->type, PT_NOTE);
    assert_int_equal(last->offset, s->sections[0].file_offset);
    assert_int_equal(last->file_size, sizeof note);
    assert_int_equal(last->align, 4);
}

static void composes(const struct tiny_options *options, bool moves)
{
    struct subject s;
    setup(&s, options);
    s.edited[s.tiny.text + 3] = 0xcc;
    run(&s);
    assert_int_equal(s.compose.moves_program_headers, moves);
    assert_int_equal(s.compose.run_count, moves ? 2 : 3);
    undoes(&s);
    keeps_old_headers(&s);
    has_note_segment(&s);
    assert_int_equal(s.output.segment_count, 3);
    assert_int_equal(s.bytes[s.tiny.text + 3], 0xcc);
    if (options->no_sections) {
        assert_int_equal(s.output.section_count, 0);
    } else {
        assert_int_equal(s.output.section_count, s.image.section_count + 2);
        has_section(&s, ".note.patchvisor", SHT_NOTE, note, sizeof note, 4);
        has_section(&s, ".patchvisor.original", SHT_PROGBITS, record, sizeof record, 64);
    }
    assert_true(s.output.elf_end <= s.image.elf_end + s.compose.added_size);
    assert_memory_equal(s.bytes + s.size - options->tail_size, options->tail, options->tail_size);
    teardown(&s);
}

static void test_elf64_composes(void **state)
{
    (void)state;
    composes(&(struct tiny_options){.elf_class = 64, .tail = "12345", .tail_size = 5}, false);
}

static void test_elf32_composes(void **state)
{
    (void)state;
    composes(&(struct tiny_options){.elf_class = 32, .tail = "12345", .tail_size = 5}, false);
}

static void test_image_without_sections_composes(void **state)
{
    (void)state;
    composes(
        &(struct tiny_options){.elf_class = 64, .no_sections = true, .tail = "", .tail_size = 0},
        false);
    composes(
        &(struct tiny_options){.elf_class = 32, .no_sections = true, .tail = "", .tail_size = 0},
        false);
}

/* Where the guest sees the headers they do not change but in the ELF header: the table moves. */
static void test_program_headers_in_a_segment_move(void **state)
{
    (void)state;
    composes(
        &(struct tiny_options){
            .elf_class = 64, .headers_loaded = true, .tail = "t", .tail_size = 1},
        true);
    composes(
        &(struct tiny_options){
            .elf_class = 32, .headers_loaded = true, .tail = "t", .tail_size = 1},
        true);
}

static void test_program_headers_without_zeros_behind_move(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, &(struct tiny_options){.elf_class = 64});
    s.tiny.bytes[s.tiny.program_headers + 2 * sizeof(Elf64_Phdr) + 55] = 1; /* last byte needed */
    run(&s);
    assert_true(s.compose.moves_program_headers);
    assert_int_equal(s.compose.run_count, 2);
    has_note_segment(&s);
    teardown(&s);
    setup(&s, &(struct tiny_options){.elf_class = 64});
    s.tiny.bytes[s.tiny.program_headers + 2 * sizeof(Elf64_Phdr) + 56] = 1; /* the byte behind */
    run(&s);
    assert_false(s.compose.moves_program_headers);
    teardown(&s);
}

static void with_segment(int elf_class, uint64_t vaddr, const char *name, bool loaded)
{
    static const uint8_t code[] = {0x90, 0x90, 0xc3};
    struct subject s;
    setup(&s, &(struct tiny_options){.elf_class = elf_class, .headers_loaded = loaded});
    s.compose.has_segment = true;
    s.compose.segment_name = name;
    s.compose.segment_vaddr = vaddr;
    s.compose.segment_paddr = 0x2000123;
    s.compose.segment_flags = PF_R | PF_X;
    s.compose.segment_data = code;
    s.compose.segment_size = sizeof code;
    run(&s);
    undoes(&s);
    keeps_old_headers(&s);
    has_note_segment(&s);
    assert_int_equal(s.output.segment_count, 4);
    const struct image_segment *segment = &s.output.segments[2];
    assert_int_equal(segment->type, PT_LOAD);
    assert_true(segment->vaddr == vaddr);
    assert_int_equal(segment->paddr, 0x2000123);
    assert_int_equal(segment->flags, PF_R | PF_X);
    assert_int_equal(segment->offset, s.compose.segment_offset);
    assert_int_equal(segment->offset % 4096, vaddr % 4096);
    assert_memory_equal(image_at(&s.output, vaddr, sizeof code), code, sizeof code);
    const struct image_section *section = image_section_at(&s.output, vaddr);
    assert_int_equal(section != NULL, name != NULL);
    if (name) {
        assert_string_equal(section->name, name);
        assert_int_equal(section->flags, SHF_ALLOC | SHF_EXECINSTR);
    }
    teardown(&s);
}

static void test_new_segment_is_loaded_where_asked(void **state)
{
    (void)state;
    with_segment(64, TINY_BASE_64 + 0x400123, ".patchvisor.text", false);
    with_segment(64, TINY_BASE_64 + 0x400123, NULL, true);
    with_segment(32, TINY_BASE_32 + 0x400123, ".patchvisor.text", true);
    with_segment(32, TINY_BASE_32 + 0x400123, NULL, false);
}

static void test_section_data_may_be_filled_in_after_layout(void **state)
{
    (void)state;
    struct subject s;
    uint8_t late[40] = {0};
    const struct iovec *pieces;
    size_t count;
    setup(&s, &(struct tiny_options){.elf_class = 64});
    s.sections[1].data = NULL;
    s.sections[1].size = 0;
    assert_int_equal(compose_begin(&s.compose, &s.err), 0);
    s.sections[1].size = sizeof late;
    assert_int_equal(compose_layout(&s.compose, &s.err), 0);
    s.sections[1].data = late;
    assert_int_equal(compose_pieces(&s.compose, &pieces, &count, &s.err), 0);
    uint64_t before = compose_xxh3(pieces, count);
    late[7] = 1;
    assert_true(compose_xxh3(pieces, count) != before);
    teardown(&s);
}

/* The relocation table grows by a word and stays the last thing in the file. */
static void test_insertion_into_the_relocation_table(void **state)
{
    (void)state;
    static const uint32_t words[] = {0, 0x81000200, 0, 0x81000204, 0, 0x81000206, 0x8100020a};
    static const uint32_t more[] = {0x81000208};
    static const char banner[] = "Linux version 6.1.0 (a@b)";
    struct subject s;
    struct relocs relocs;
    setup(&s, &(struct tiny_options){.elf_class = 64,
                                     .rodata = banner,
                                     .rodata_size = sizeof banner,
                                     .tail = words,
                                     .tail_size = sizeof words});
    assert_int_equal(relocs_read(&s.image, &relocs, &s.err), 0);
    s.compose.tail_insert_at = relocs.offset[RELOC_32] + 4;
    s.compose.tail_insert = more;
    s.compose.tail_insert_size = sizeof more;
    s.edited[relocs.offset[RELOC_64]] = 0x10; /* an edit in the trailing data */
    run(&s);
    undoes(&s);
    assert_int_equal(relocs_read(&s.output, &relocs, &s.err), 0);
    assert_true(relocs.present);
    assert_int_equal(relocs.table_offset, s.image.elf_end + s.compose.added_size);
    assert_int_equal(relocs.table_offset % 4, s.image.elf_end % 4);
    assert_int_equal(relocs.count[RELOC_64], 1);
    assert_int_equal(relocs.count[RELOC_32], 3);
    assert_int_equal(relocs_word(&relocs, RELOC_64, 0), 0x81000210);
    assert_int_equal(relocs_word(&relocs, RELOC_32, 0), 0x81000206);
    assert_int_equal(relocs_word(&relocs, RELOC_32, 1), 0x81000208);
    assert_int_equal(relocs_word(&relocs, RELOC_32, 2), 0x8100020a);
    teardown(&s);
}

static void test_unnamed_sections_get_a_name_table(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, &(struct tiny_options){.elf_class = 64, .no_symbols = true});
    image_close(&s.image);
    tiny_put(s.tiny.bytes, offsetof(Elf64_Ehdr, e_shstrndx), 2, SHN_UNDEF);
    for (size_t i = 0; i < s.tiny.section_count; i++)
        tiny_put(s.tiny.bytes, s.tiny.section_headers + i * sizeof(Elf64_Shdr), 4, 0);
    assert_int_equal(image_from_memory("tiny", s.tiny.bytes, s.tiny.size, &s.image, &s.err), 0);
    memcpy(s.edited, s.tiny.bytes, s.tiny.size);
    run(&s);
    undoes(&s);
    has_section(&s, ".note.patchvisor", SHT_NOTE, note, sizeof note, 4);
    assert_non_null(image_section_named(&s.output, ".shstrtab"));
    assert_int_equal(s.output.section_count, s.image.section_count + 3);
    teardown(&s);
}

static void test_a_second_composition_stacks(void **state)
{
    (void)state;
    struct subject s, again;
    setup(&s, &(struct tiny_options){.elf_class = 64});
    run(&s);
    again = (struct subject){.image = s.output};
    again.edited = malloc(s.size);
    memcpy(again.edited, s.bytes, s.size);
    memcpy(again.sections, s.sections, sizeof s.sections);
    again.compose = (struct compose){.image = &again.image,
                                     .edited = again.edited,
                                     .sections = again.sections,
                                     .section_count = 2,
                                     .note_section = -1};
    run(&again);
    assert_int_equal(again.compose.run_count, 2); /* no new program header: none grows */
    undoes(&again);
    keeps_old_headers(&again);
    s.output = (struct image){0};
    teardown(&again);
    teardown(&s);
}

static void refused(struct subject *s, const char *what)
{
    bool bad = compose_begin(&s->compose, &s->err) || compose_layout(&s->compose, &s->err);
    assert_true(bad);
    assert_true(is_one_line(&s->err));
    if (!strstr(s->err.text, what))
        fail_msg("%s: does not say: %s", s->err.text, what);
    teardown(s);
}

static void test_impossible_wishes_are_refused(void **state)
{
    (void)state;
    struct tiny_options wide = {.elf_class = 64}, narrow = {.elf_class = 32};
    struct subject s;
    setup(&s, &narrow);
    s.compose.has_segment = true;
    s.compose.segment_size = 8;
    s.compose.segment_vaddr = 0xfffffffd;
    refused(&s, "address space");
    setup(&s, &wide);
    s.compose.has_segment = true;
    refused(&s, "address space");
    setup(&s, &wide);
    s.sections[0].align = 3;
    refused(&s, "power of two");
    setup(&s, &wide);
    s.sections[1].size = (size_t)5 << 30;
    refused(&s, "too large");
    setup(&s, &wide);
    s.sections[1].size = SIZE_MAX;
    refused(&s, "too large");
    setup(&s, &wide);
    s.compose.tail_insert_size = 4;
    s.compose.tail_insert_at = s.image.elf_end - 1;
    refused(&s, "not in the trailing data");
    setup(&s, &wide);
    s.compose.tail_insert_size = 4;
    s.compose.tail_insert_at = s.image.size + 1;
    refused(&s, "not in the trailing data");
}

static void test_real_kernel_composes(void **state)
{
    (void)state;
    const char *path = getenv("PV_KERNEL_CLOUD");
    struct subject s = {0};
    if (!path) {
        print_message("# SKIP PV_KERNEL_CLOUD names no kernel\n");
        skip();
    }
    if (image_open(path, &s.image, &s.err))
        fail_msg("%s", s.err.text);
    struct relocs before, after;
    assert_int_equal(relocs_read(&s.image, &before, &s.err), 0);
    static const uint32_t more[] = {0x81000208, 0x8100020c};
    s.edited = image_copy(&s.image, &s.err);
    s.sections[0] = (struct compose_section){".note.patchvisor", SHT_NOTE, note, sizeof note, 4, 0};
    s.compose = (struct compose){.image = &s.image,
                                 .edited = s.edited,
                                 .sections = s.sections,
                                 .section_count = 1,
                                 .note_section = 0,
                                 .tail_insert_at = before.offset[RELOC_32],
                                 .tail_insert = more,
                                 .tail_insert_size = sizeof more};
    run(&s);
    undoes(&s);
    keeps_old_headers(&s);
    has_note_segment(&s);
    assert_false(s.compose.moves_program_headers);
    assert_int_equal(relocs_read(&s.output, &after, &s.err), 0);
    assert_int_equal(after.count[RELOC_32], before.count[RELOC_32] + 2);
    assert_int_equal(after.count[RELOC_64], before.count[RELOC_64]);
    uint8_t *edited = s.edited;
    s.edited = NULL;
    image_copy_free(&s.image, edited);
    teardown(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf64_composes),
        cmocka_unit_test(test_elf32_composes),
        cmocka_unit_test(test_image_without_sections_composes),
        cmocka_unit_test(test_program_headers_in_a_segment_move),
        cmocka_unit_test(test_program_headers_without_zeros_behind_move),
        cmocka_unit_test(test_new_segment_is_loaded_where_asked),
        cmocka_unit_test(test_section_data_may_be_filled_in_after_layout),
        cmocka_unit_test(test_insertion_into_the_relocation_table),
        cmocka_unit_test(test_unnamed_sections_get_a_name_table),
        cmocka_unit_test(test_a_second_composition_stacks),
        cmocka_unit_test(test_impossible_wishes_are_refused),
        cmocka_unit_test(test_real_kernel_composes),
    };
    return cmocka_run_group_tests_name("compose", tests, NULL, NULL);
}
