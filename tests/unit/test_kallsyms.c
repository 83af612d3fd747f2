/* SPDX-License-Identifier: MIT */
/* image/kallsyms.c: names from a stripped Linux image. */
#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image/image.h"
#include "image/kallsyms.h"
#include "kallsyms_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* after image/error.h: it defines fail() as a macro */

#define BASE UINT64_C(0xffffffff81000000)

enum { NAMES = 700, ROOM = 1 << 17, LEAD = 4096 };

/* Synthetic names: some with tokens of several characters, one too long for a one-byte length. */
static struct kallsyms_name names[NAMES];
static char text[NAMES][300];

static int make_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(text[i], sizeof text[i], "%c%s%s_%u", "tTdDA"[i % 5],
                 i % 3 ? "symbol_" : "x86_sys___",
                 i % 7 ? "" : "_a_token_that_is_longer_than_sixteen_characters_", i);
        names[i] = (struct kallsyms_name){text[i], i < 3 ? i * 8u : BASE + i * 64u};
    }
    text[9][0] = 't';
    for (unsigned i = 1; i < 250; i++)
        text[9][i] = (char)('a' + i % 26);
    snprintf(text[12], sizeof text[12], "Ta"); /* the type and the name in one token */
    return 0;
}

/* An image of one data section and one segment, which are also its file. */
struct bare {
    struct image image;
    struct image_section section;
    struct image_segment segment;
    uint8_t *bytes;
    struct kallsyms_parts parts; /* offsets into bytes */
};

static const struct kallsyms_layout layouts[] = {
    {.absolute_percpu = true, .word = 8, .base = BASE},                    /* 5.0 to 6.1 */
    {.absolute_percpu = true, .sequences = true, .word = 8, .base = BASE}, /* 6.2, 6.3 */
    {.offsets_last = true, .absolute_percpu = true, .sequences = true, .word = 8, .base = BASE},
    {.offsets_last = true, .sequences = true, .word = 8, .base = BASE},       /* no SMP; 6.15 */
    {.wide_markers = true, .absolute_percpu = true, .word = 8, .base = BASE}, /* before 5.0 */
    {.word = 4, .base = 0xc1000000},
};

static void bare_open(struct bare *bare, const struct kallsyms_layout *layout, size_t count)
{
    static const struct kallsyms_name none;
    struct kallsyms_name *shifted = calloc(count + 1, sizeof none);
    assert_non_null(shifted);
    memset(bare, 0, sizeof *bare);
    bare->bytes = calloc(1, ROOM);
    assert_non_null(bare->bytes);
    for (size_t i = 0; i < count; i++) {
        shifted[i] = names[i];
        if (!layout->absolute_percpu && i < 3) /* no absolute addresses there */
            shifted[i].address += BASE;
        shifted[i].address += layout->word == 4 ? layout->base - BASE : 0;
    }
    size_t size =
        kallsyms_table(shifted, count, layout, bare->bytes + LEAD, ROOM - LEAD - 64, &bare->parts);
    assert_int_not_equal(size, 0);
    free(shifted);
    memset(bare->bytes, 'x', LEAD);
    memset(bare->bytes + LEAD + size, 0x5a, 64); /* what follows is not zero */
    size += LEAD + 64;
    size_t *const parts[] = {&bare->parts.count,  &bare->parts.names, &bare->parts.markers,
                             &bare->parts.tokens, &bare->parts.index, &bare->parts.offsets,
                             &bare->parts.base,   &bare->parts.end};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        *parts[i] += LEAD;
    /* Exactly `size` bytes, so that a sanitizer sees any read behind them. */
    bare->bytes = realloc(bare->bytes, size);
    bare->section = (struct image_section){
        .name = ".rodata", .type = SHT_PROGBITS, .flags = SHF_ALLOC, .size = size};
    bare->segment = (struct image_segment){
        .type = PT_LOAD, .vaddr = layout->base, .file_size = size, .mem_size = 1 << 20};
    bare->image = (struct image){.name = "bare",
                                 .bytes = bare->bytes,
                                 .size = size,
                                 .elf_class = layout->word == 8 ? 64 : 32,
                                 .segments = &bare->segment,
                                 .segment_count = 1,
                                 .sections = &bare->section,
                                 .section_count = 1};
}

static void bare_close(struct bare *bare)
{
    free(bare->image.symbols);
    free(bare->bytes);
}

/* What is found, with the rest of the structure released. */
static long found(struct bare *bare)
{
    void *storage = NULL;
    struct error err = {0};
    long result = kallsyms_read(&bare->image, &storage, &err);
    assert_int_equal(err.code, 0);
    assert_int_equal(bare->image.symbol_count, result);
    free(storage);
    return result;
}

static void check_names(struct bare *bare, const struct kallsyms_layout *layout, size_t count)
{
    void *storage = NULL;
    struct error err = {0};
    assert_int_equal(kallsyms_read(&bare->image, &storage, &err), count);
    assert_int_equal(bare->image.symbol_count, count);
    for (size_t i = 0; i < count; i++) {
        const struct image_symbol *symbol = &bare->image.symbols[i];
        uint64_t address = names[i].address;
        if (!layout->absolute_percpu && i < 3)
            address += BASE;
        if (layout->word == 4)
            address += layout->base - BASE;
        assert_string_equal(symbol->name, names[i].name + 1);
        assert_int_equal(symbol->type, names[i].name[0]);
        assert_int_equal(symbol->address, address);
        assert_int_equal(symbol->size, 0);
    }
    free(storage);
}

static void test_every_layout_gives_all_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        /* Numbers of names around a marker's 256, and odd ones: all paddings occur. */
        static const size_t counts[] = {8, 255, 256, 257, 511, 513, 699, NAMES};
        for (size_t j = 0; j < sizeof counts / sizeof *counts; j++) {
            struct bare bare;
            bare_open(&bare, &layouts[i], counts[j]);
            check_names(&bare, &layouts[i], counts[j]);
            bare_close(&bare);
        }
    }
}

static void test_without_sections_the_segments_are_searched(void **state)
{
    (void)state;
    struct bare bare;
    bare_open(&bare, &layouts[0], NAMES);
    bare.image.section_count = 0;
    check_names(&bare, &layouts[0], NAMES);
    bare_close(&bare);
}

static void test_symbols_are_appended_to_those_there(void **state)
{
    (void)state;
    struct bare bare;
    bare_open(&bare, &layouts[0], NAMES);
    bare.image.symbols = calloc(1, sizeof *bare.image.symbols);
    bare.image.symbols[0] = (struct image_symbol){.address = 1, .name = "first"};
    bare.image.symbol_count = 1;
    void *storage;
    assert_int_equal(kallsyms_read(&bare.image, &storage, NULL), NAMES);
    assert_int_equal(bare.image.symbol_count, NAMES + 1);
    assert_string_equal(bare.image.symbols[0].name, "first");
    assert_string_equal(bare.image.symbols[1].name, names[0].name + 1);
    free(storage);
    bare_close(&bare);
}

/* A decoy of digits and a decoy number before the names lead nowhere. */
static void test_decoys_do_not_stop_the_search(void **state)
{
    (void)state;
    struct bare bare;
    bare_open(&bare, &layouts[0], NAMES);
    for (unsigned i = 0; i < 100; i++)
        bare.bytes[i * 2] = (uint8_t)('0' + i % 10), bare.bytes[i * 2 + 1] = 0;
    uint64_t decoy = 300;
    memcpy(bare.bytes + 2048, &decoy, sizeof decoy);
    memset(bare.bytes + 2056, 1, 1024);
    check_names(&bare, &layouts[0], NAMES);
    bare_close(&bare);
}

/* The parts that everything else follows from: a change of any of them must not go unnoticed. */
static void test_a_damaged_part_means_no_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        struct bare bare;
        bare_open(&bare, &layouts[i], NAMES);
        const struct kallsyms_parts *p = &bare.parts;
        const size_t places[] = {p->count,   p->count + 1,   p->names,
                                 p->markers, p->markers + 4, p->tokens + 1 + 4,
                                 p->index,   p->index + 511, p->base + layouts[i].word - 1};
        for (size_t j = 0; j < sizeof places / sizeof *places; j++) {
            uint8_t saved = bare.bytes[places[j]];
            bare.bytes[places[j]] = saved == 0 ? 1 : 0;
            assert_int_equal(found(&bare), 0);
            bare.bytes[places[j]] = saved;
        }
        assert_int_equal(found(&bare), NAMES);
        bare_close(&bare);
    }
}

static void test_a_truncated_table_means_no_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        struct bare whole;
        bare_open(&whole, &layouts[i], NAMES);
        size_t needed =
            layouts[i].offsets_last ? whole.parts.base + layouts[i].word : whole.parts.index + 512;
        for (size_t size = LEAD; size < needed; size += size + 300 < needed ? 97 : 1) {
            struct bare cut = whole;
            cut.bytes = malloc(size);
            memcpy(cut.bytes, whole.bytes, size);
            cut.image.bytes = cut.bytes;
            cut.image.size = cut.section.size = cut.segment.file_size = size;
            cut.image.sections = &cut.section;
            cut.image.segments = &cut.segment;
            assert_int_equal(found(&cut), 0);
            free(cut.bytes);
        }
        bare_close(&whole);
    }
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Every word before a true token table claims to be a number of names, is itself a name of 7 bytes,
 * and the markers agree with that: walking each claim to its end takes minutes. */
static void test_hostile_claims_cost_bounded_time(void **state)
{
    (void)state;
    enum { BIG = 8 << 20, CLAIM = 0x10007, MARKERS = (CLAIM + 255) / 256 };
    struct bare bare;
    bare_open(&bare, &layouts[0], 8);
    size_t tail = bare.image.size - bare.parts.tokens;
    size_t markers = (BIG - 4 * MARKERS) & ~(size_t)7;
    uint8_t *big = calloc(1, BIG + tail);
    assert_non_null(big);
    for (size_t i = 0; i < markers; i += 8)
        memcpy(big + i, &(uint64_t){CLAIM}, 8);
    for (uint32_t i = 0; i < MARKERS; i++)
        memcpy(big + markers + 4 * i, &(uint32_t){i * 256 * 8}, 4);
    memcpy(big + BIG, bare.bytes + bare.parts.tokens, tail);
    bare.image.bytes = big;
    bare.image.size = bare.section.size = bare.segment.file_size = BIG + tail;
    double begin = seconds();
    assert_int_equal(found(&bare), 0);
    assert_true(seconds() - begin < 10); /* generous: sanitizers, a busy machine */
    free(big);
    bare_close(&bare);
}

static void test_random_bytes_around_the_digits_do_no_harm(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    for (unsigned round = 0; round < 300; round++) {
        struct bare bare;
        bare_open(&bare, &layouts[round % (sizeof layouts / sizeof *layouts)], 300);
        for (unsigned i = 0; i < 1 + round % 20; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            size_t at = LEAD + random % (bare.image.size - LEAD);
            bare.bytes[at] = (uint8_t)(random >> 40);
        }
        long count = found(&bare);
        assert_true(count >= 0 && count <= 4096);
        bare_close(&bare);
    }
}

/* Debian 6.1.192-2. Most of these can be told from the image itself: the entry point, the bounds of
 * sections, hlt after sti in native_safe_halt, ret and int3 in __x86_return_thunk. */
static const struct pinned {
    uint64_t xxh3; /* of the bzImage */
    size_t count;
    struct {
        const char *name;
        uint64_t address;
        char type;
    } symbols[8];
} pinned[] = {
    {0x04be5ff34bdb4f8c,
     87347,
     {
         {"fixed_percpu_data", 0, 'A'},
         {"startup_64", 0xffffffff81000000, 'T'},
         {"native_safe_halt", 0xffffffff81a17a00, 't'},
         {"swapgs_restore_regs_and_return_to_usermode", 0xffffffff81c010d0, 'T'},
         {"__x86_return_thunk", 0xffffffff81e01ef0, 'T'},
         {"__start___jump_table", 0xffffffff823bb1f0, 'D'},
         {"start_kernel", 0xffffffff8304ee41, 'T'},
         {"_end", 0xffffffff83830000, 'B'},
     }},
    {0x14baa524f06699f6,
     94266,
     {
         {"fixed_percpu_data", 0, 'A'},
         {"startup_64", 0xffffffff81000000, 'T'},
         {"native_safe_halt", 0xffffffff81a592e0, 't'},
         {"swapgs_restore_regs_and_return_to_usermode", 0xffffffff81c01150, 'T'},
         {"__x86_return_thunk", 0xffffffff81e01d30, 'T'},
         {"__start___jump_table", 0xffffffff82439090, 'D'},
         {"start_kernel", 0xffffffff83079e46, 'T'},
         {"_end", 0xffffffff84430000, 'B'},
     }},
};

static void check_pinned(const struct image *image, const struct pinned *pin)
{
    assert_int_equal(image->symbol_count, pin->count);
    for (size_t i = 0; i < sizeof pin->symbols / sizeof *pin->symbols; i++) {
        bool there = false;
        for (size_t j = 0; j < image->symbol_count && !there; j++)
            there = image->symbols[j].address == pin->symbols[i].address &&
                    image->symbols[j].type == pin->symbols[i].type &&
                    !strcmp(image->symbols[j].name, pin->symbols[i].name);
        if (!there)
            print_message("# %s is missing\n", pin->symbols[i].name);
        assert_true(there);
    }
}

static void check_kernel(const char *variable)
{
    const char *path = getenv(variable);
    if (!path) {
        print_message("# %s is not set: no kernel\n", variable);
        skip();
    }
    struct image image;
    struct error err = {0};
    if (image_open(path, &image, &err))
        fail_msg("%s", err.text);
    assert_true(image.symbols_from_kallsyms);
    assert_true(image.symbol_count > 50000);
    for (size_t i = 0; i < image.symbol_count; i++) {
        assert_true(image.symbols[i].name[0] > ' ' && image.symbols[i].name[0] < 0x7f);
        assert_non_null(strchr("aAbBcCdDgGiInNpPrRsStTuUvVwW", image.symbols[i].type));
    }
    const struct image_symbol *text_start = image_symbol_named(&image, "_text");
    const struct image_symbol *start = image_symbol_named(&image, "startup_64");
    assert_non_null(text_start);
    assert_non_null(start);
    assert_int_equal(text_start->address, BASE);
    assert_int_equal(start->address, BASE);
    assert_non_null(image_symbol_named(&image, "start_kernel"));
    bool known = false;
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++)
        if (image.input_xxh3 == pinned[i].xxh3) {
            check_pinned(&image, &pinned[i]);
            known = true;
        }
    if (!known)
        print_message("# %s is another version (xxh3 0x%016" PRIx64 "): plausibility only\n",
                      variable, image.input_xxh3);
    image_close(&image);
}

static void test_cloud_kernel_gives_its_names(void **state)
{
    (void)state;
    check_kernel("PV_KERNEL_CLOUD");
}

static void test_generic_kernel_gives_its_names(void **state)
{
    (void)state;
    check_kernel("PV_KERNEL_GENERIC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layout_gives_all_names),
        cmocka_unit_test(test_without_sections_the_segments_are_searched),
        cmocka_unit_test(test_symbols_are_appended_to_those_there),
        cmocka_unit_test(test_decoys_do_not_stop_the_search),
        cmocka_unit_test(test_a_damaged_part_means_no_table),
        cmocka_unit_test(test_a_truncated_table_means_no_table),
        cmocka_unit_test(test_hostile_claims_cost_bounded_time),
        cmocka_unit_test(test_random_bytes_around_the_digits_do_no_harm),
        cmocka_unit_test(test_cloud_kernel_gives_its_names),
        cmocka_unit_test(test_generic_kernel_gives_its_names),
    };
    return cmocka_run_group_tests(tests, make_names, NULL);
}
