/* SPDX-License-Identifier: MIT */
/* The code map of Linux images: the linear sweep, targets, overlaps, queries; and a real kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Before cmocka.h, which makes `fail` a macro. */
#include "image/image.h"
#include "image/length.h"
#include "patchc/code.h"
#include "tests/unit/guest_elf.h"

#include <cmocka.h>

/* A guest whose map is under test. */
struct mapped {
    uint8_t *bytes;
    struct image image;
    struct code code;
};

static void map_guest(const struct guest *guest, struct mapped *mapped)
{
    size_t size;
    struct error err = {0};
    mapped->bytes = guest_build(guest, &size);
    if (image_from_memory("guest", mapped->bytes, size, &mapped->image, &err) != 0 ||
        code_open(&mapped->image, NULL, &mapped->code, &err) != 0)
        fail_msg("%s", err.text);
}

static void unmap_guest(struct mapped *mapped)
{
    code_close(&mapped->code);
    image_close(&mapped->image);
    free(mapped->bytes);
}

static void map_linux(const void *text, size_t size, struct mapped *mapped)
{
    struct guest guest = {.elf_class = 64, .linux_banner = true, .text = text, .text_size = size};
    map_guest(&guest, mapped);
}

/* The address of offset `at` in the text of a Linux guest. */
static uint64_t in_text(uint64_t at)
{
    return GUEST_TEXT_LINUX + at;
}

/* Checks the starts in the first `count` bytes of text: 's' a start, '.' none. */
static void check_starts(const struct mapped *mapped, const char *expected)
{
    char got[128];
    size_t count = strlen(expected);
    for (size_t i = 0; i < count; i++)
        got[i] = code_is_start(&mapped->code, in_text(i)) ? 's' : '.';
    got[count] = '\0';
    assert_string_equal(got, expected);
}

static void test_instructions_are_starts_and_short_padding_is_not_counted(void **state)
{
    (void)state;
    static const uint8_t text[] = {0x55,                   /* push %rbp */
                                   0x48, 0x89, 0xe5,       /* mov %rsp, %rbp */
                                   0x0f, 0xa2,             /* cpuid */
                                   0xc3, 0xcc, 0xcc, 0xcc, /* ret, padding */
                                   0xb8, 1,    2,    3,    4};
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    check_starts(&mapped, "ss..s.sssss....");
    assert_int_equal(mapped.code.instruction_count, 5);
    assert_true(mapped.code.linux_image);
    assert_false(code_is_start(&mapped.code, in_text(sizeof text)));
    assert_false(code_is_start(&mapped.code, 0));
    unmap_guest(&mapped);
}

static void test_long_padding_has_no_starts(void **state)
{
    (void)state;
    uint8_t text[2 + CODE_PADDING + 1];
    memset(text, 0xcc, sizeof text);
    text[0] = 0x90, text[1] = 0xc3, text[sizeof text - 1] = 0x90;
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    check_starts(&mapped, "ss................s");
    assert_int_equal(mapped.code.instruction_count, 3);
    unmap_guest(&mapped);
}

static void test_xen_prefix_and_its_cpuid_are_no_instructions(void **state)
{
    (void)state;
    static const uint8_t text[] = {0x90, 0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2, 0x0f, 0xa2, 0xc3};
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    check_starts(&mapped, "s.......s.s");
    unmap_guest(&mapped);
}

static void test_branches_and_taken_addresses_are_targets(void **state)
{
    (void)state;
    static const uint8_t text[] = {
        0xeb, 0x05,                   /*  0: jmp 7 */
        0xe8, 0x04, 0,    0, 0,       /*  2: call 11 */
        0x48, 0x8d, 0x05, 3, 0, 0, 0, /*  7: lea 17(%rip): 14 + 3 */
        0x90, 0x90, 0x90,             /* 14 */
        0x80, 0x3d, 0,    0, 0, 0, 1, /* 17: cmpb $1, 24(%rip) */
        0xc3,                         /* 24 */
    };
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    static const uint8_t targets[] = {7, 11, 17, 24};
    for (uint64_t i = 0, k = 0; i < sizeof text; i++) {
        bool expected = k < sizeof targets && targets[k] == i;
        k += expected;
        assert_int_equal(code_is_target(&mapped.code, in_text(i)), expected);
    }
    code_add_target(&mapped.code, in_text(15));
    code_add_target(&mapped.code, 42);
    assert_true(code_is_target(&mapped.code, in_text(15)));
    assert_false(code_is_target(&mapped.code, 42));
    unmap_guest(&mapped);
}

static void test_branches_into_instructions_show_overlaps(void **state)
{
    (void)state;
    static const uint8_t text[] = {
        0x90,             /* 0 */
        0xf6, 0xc3, 0xcc, /* 1: test $0xcc, %bl; at 2: ret; int3 */
        0x0f, 0xae, 0xe8, /* 4: lfence */
        0xeb, 0xf9,       /* 7: jmp 2 */
        0x90,             /* 9 */
    };
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    check_starts(&mapped, "s...s..s.s");
    for (uint64_t i = 0; i < sizeof text; i++)
        assert_int_equal(code_is_overlap(&mapped.code, in_text(i)), i >= 1 && i <= 3);
    assert_int_equal(mapped.code.instruction_count, 4);
    unmap_guest(&mapped);
}

static void test_jump_over_a_lock_prefix_is_no_overlap(void **state)
{
    (void)state;
    static const uint8_t text[] = {0x74, 0x01, 0xf0, 0x48, 0x0f, 0xb1, 0x0e, 0xc3};
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    check_starts(&mapped, "s.s....s");
    assert_true(code_is_target(&mapped.code, in_text(3)));
    assert_false(code_is_overlap(&mapped.code, in_text(3)));
    unmap_guest(&mapped);
}

static void test_a_text_symbol_inside_an_instruction_shows_an_overlap(void **state)
{
    (void)state;
    static const uint8_t text[] = {0x48, 0xb8, 0x48, 0x8d, 0x64, 0x24, 0x08,
                                   0xc3, 0xcc, 0xcc, 0x0f, 0x0b, 0x90};
    struct guest guest = {.elf_class = 64,
                          .linux_banner = true,
                          .text = text,
                          .text_size = sizeof text,
                          .symbols = {{"untrain_ret", 0, 2}, {"safe_ret", 2, 6}}};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    check_starts(&mapped, "..........s.s");
    assert_true(code_is_overlap(&mapped.code, in_text(0)));
    assert_true(code_is_overlap(&mapped.code, in_text(9)));
    assert_false(code_is_overlap(&mapped.code, in_text(10)));
    unmap_guest(&mapped);
}

static void test_previous_instruction_ends_where_asked(void **state)
{
    (void)state;
    static const uint8_t text[] = {0x48, 0x89, 0xe5, 0x0f, 0xa2, 0xc3};
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    assert_int_equal(code_previous(&mapped.code, in_text(3)), in_text(0));
    assert_int_equal(code_previous(&mapped.code, in_text(5)), in_text(3));
    assert_int_equal(code_previous(&mapped.code, in_text(6)), in_text(5));
    assert_int_equal(code_previous(&mapped.code, in_text(4)), 0);
    assert_int_equal(code_previous(&mapped.code, in_text(0)), 0);
    assert_int_equal(code_previous(&mapped.code, 0), 0);
    unmap_guest(&mapped);
}

struct visits {
    uint64_t at[16];
    unsigned length[16];
    size_t count;
};

static void visit(void *context, const struct code_section *section, uint64_t address,
                  unsigned length)
{
    struct visits *visits = context;
    assert_true(address - section->address < section->size);
    assert_true(visits->count < 16);
    visits->at[visits->count] = address;
    visits->length[visits->count++] = length;
}

static void want(uint64_t wanted[8][4], unsigned map, unsigned opcode)
{
    wanted[map][opcode / 64] |= 1ull << opcode % 64;
}

static void test_opcodes_are_visited_in_order(void **state)
{
    (void)state;
    static const uint8_t text[] = {
        0xfa,                      /* 0: cli */
        0x0f, 0xa2,                /* 1: cpuid */
        0x48, 0x89, 0xe5,          /* 3: mov */
        0x66, 0xed,                /* 6: in %dx, %ax */
        0xb8, 0xfa, 0,    0,    0, /* 8: mov $0xfa, %eax */
        0xc5, 0xf8, 0x77,          /* 13: vzeroupper */
        0x0f, 0x77,                /* 16: emms */
        0x41, 0x0f, 0x22, 0xc0,    /* 18: mov %r8, %cr0 */
        0xc3,
    };
    struct mapped mapped;
    map_linux(text, sizeof text, &mapped);
    uint64_t wanted[8][4] = {{0}};
    want(wanted, 0, 0xfa), want(wanted, 1, 0xa2), want(wanted, 0, 0xed), want(wanted, 1, 0x22);
    struct visits few = {.count = 0};
    assert_int_equal(code_each_opcode(&mapped.code, wanted, visit, &few), 0);
    static const uint8_t sensitive_at[] = {0, 1, 6, 18}, sensitive_length[] = {1, 2, 2, 4};
    assert_int_equal(few.count, 4);
    for (size_t i = 0; i < few.count; i++) {
        assert_int_equal(few.at[i], in_text(sensitive_at[i]));
        assert_int_equal(few.length[i], sensitive_length[i]);
    }
    /* With an opcode that is not privileged, and one under VEX. */
    want(wanted, 0, 0x89), want(wanted, 5, 0x77);
    struct visits all = {.count = 0};
    assert_int_equal(code_each_opcode(&mapped.code, wanted, visit, &all), 0);
    static const uint8_t all_at[] = {0, 1, 3, 6, 13, 18};
    assert_int_equal(all.count, 6);
    for (size_t i = 0; i < all.count; i++)
        assert_int_equal(all.at[i], in_text(all_at[i]));
    unmap_guest(&mapped);
}

/* The starts of one pass without threads or tables. */
static void check_against_one_pass(const struct mapped *mapped, const uint8_t *text, size_t size)
{
    uint8_t *starts = calloc(1, size);
    assert_non_null(starts);
    for (size_t at = 0; at < size;) {
        struct length_info info;
        unsigned length = length_decode(text + at, size - at, &info);
        if (length) {
            size_t back = at, run = at;
            while (text[at] == 0xcc && back > 0 && text[back - 1] == 0xcc)
                back--;
            while (run < size && text[run] == 0xcc)
                run++;
            starts[at] = text[at] != 0xcc || run - back < CODE_PADDING;
        }
        at += length ? length : 1;
    }
    const struct code_section *section = code_section_at(&mapped->code, in_text(0));
    for (size_t at = 0; at < size; at++) {
        bool got = section->starts[at / 64] >> at % 64 & 1;
        /* Random bytes branch anywhere: what overlaps is no start. */
        if (got != starts[at] && !code_is_overlap(&mapped->code, in_text(at)))
            fail_msg("offset %zu: %s a start", at, got ? "is" : "is not");
    }
    free(starts);
}

static uint64_t next_random(void)
{
    static uint64_t x = 88172645463325252ull;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

static void test_chunks_join_to_one_stream(void **state)
{
    (void)state;
    enum { SIZE = 1000003 };
    uint8_t *text = malloc(SIZE);
    assert_non_null(text);
    struct mapped mapped;
    /* Two bytes each, add and so on: streams of other phase join soon. Padding across the first
     * chunk's end. */
    for (size_t i = 0; i < SIZE; i++)
        text[i] = next_random() % 4 ? 0x90 : 0xb8;
    memset(text + 262000, 0xcc, 900);
    map_linux(text, SIZE, &mapped);
    check_against_one_pass(&mapped, text, SIZE);
    unmap_guest(&mapped);
    /* Five bytes each, whatever the phase: streams never join. test $imm32, %eax. */
    memset(text, 0xa9, SIZE);
    map_linux(text, SIZE, &mapped);
    check_against_one_pass(&mapped, text, SIZE);
    assert_int_equal(mapped.code.instruction_count, SIZE / 5);
    unmap_guest(&mapped);
    free(text);
}

static void test_random_text_is_mapped_and_bounded(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    uint8_t *text = malloc(SIZE);
    assert_non_null(text);
    for (unsigned round = 0; round < 8; round++) {
        struct mapped mapped;
        for (size_t i = 0; i < SIZE; i++)
            text[i] = (uint8_t)(next_random() >> 32) & (round & 1 ? 0x7f : 0xff);
        map_linux(text, SIZE, &mapped);
        /* No start inside another instruction, none in an overlap. */
        for (uint64_t at = 0; at < SIZE; at++) {
            struct length_info info;
            if (!code_is_start(&mapped.code, in_text(at)))
                continue;
            unsigned length = length_decode(text + at, SIZE - at, &info);
            assert_true(length > 0);
            for (unsigned k = 1; k < length; k++)
                assert_false(code_is_start(&mapped.code, in_text(at + k)));
            assert_false(code_is_overlap(&mapped.code, in_text(at)));
        }
        unmap_guest(&mapped);
    }
    free(text);
}

static void test_images_without_code_are_refused(void **state)
{
    (void)state;
    static const uint8_t data[] = {1, 2, 3};
    struct guest guest = {.elf_class = 64, .text = "", .data = data, .data_size = sizeof data};
    size_t size;
    struct image image;
    struct code code;
    struct error err = {0};
    uint8_t *bytes = guest_build(&guest, &size);
    assert_int_equal(image_from_memory("guest", bytes, size, &image, &err), 0);
    assert_int_equal(code_open(&image, NULL, &code, &err), -1);
    assert_int_equal(err.code, EXIT_INPUT);
    image_close(&image);
    free(bytes);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Text symbols that are no code: they end a section of text, or begin one, and padding is there. */
static bool is_boundary(const struct image_symbol *symbol)
{
    size_t length = strlen(symbol->name);
    return (length > 4 && strcmp(symbol->name + length - 4, "_end") == 0) ||
           (length > 6 && strcmp(symbol->name + length - 6, "_start") == 0);
}

static void check_kernel(const char *variable)
{
    const char *path = getenv(variable);
    if (!path) {
        print_message("# %s names no kernel: no kernel mapped\n", variable);
        skip();
    }
    struct image image;
    struct code code;
    struct error err = {0};
    if (image_open(path, &image, &err) != 0)
        fail_msg("%s", err.text);
    double began = seconds();
    if (code_open(&image, NULL, &code, &err) != 0)
        fail_msg("%s", err.text);
    print_message("# %s: %lu instructions mapped in %.0f ms\n", variable,
                  (unsigned long)code.instruction_count, (seconds() - began) * 1e3);
    assert_true(code.linux_image);
    assert_true(code.instruction_count > 2400000 && code.instruction_count < 3200000);
    size_t functions = 0, wrong = 0;
    for (size_t i = 0; i < image.symbol_count; i++) {
        const struct image_symbol *s = &image.symbols[i];
        if ((s->type != 't' && s->type != 'T') || !code_section_at(&code, s->address))
            continue;
        functions++;
        if (code_is_start(&code, s->address) || code_is_overlap(&code, s->address) ||
            code_is_other_mode(&code, s->address) || is_boundary(s))
            continue;
        wrong++;
        print_message("# %s is no start\n", s->name);
    }
    assert_true(functions > 40000);
    assert_int_equal(wrong, 0);
    const struct image_symbol *pvh = image_symbol_named(&image, "pvh_start_xen");
    const struct image_symbol *thunk = image_symbol_named(&image, "retbleed_return_thunk");
    assert_true(pvh && code_is_other_mode(&code, pvh->address));
    assert_true(thunk && code_is_overlap(&code, thunk->address));
    code_close(&code);
    image_close(&image);
}

static void test_cloud_kernel_functions_are_starts(void **state)
{
    (void)state;
    check_kernel("PV_KERNEL_CLOUD");
}

static void test_generic_kernel_functions_are_starts(void **state)
{
    (void)state;
    check_kernel("PV_KERNEL_GENERIC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instructions_are_starts_and_short_padding_is_not_counted),
        cmocka_unit_test(test_long_padding_has_no_starts),
        cmocka_unit_test(test_xen_prefix_and_its_cpuid_are_no_instructions),
        cmocka_unit_test(test_branches_and_taken_addresses_are_targets),
        cmocka_unit_test(test_branches_into_instructions_show_overlaps),
        cmocka_unit_test(test_jump_over_a_lock_prefix_is_no_overlap),
        cmocka_unit_test(test_a_text_symbol_inside_an_instruction_shows_an_overlap),
        cmocka_unit_test(test_previous_instruction_ends_where_asked),
        cmocka_unit_test(test_opcodes_are_visited_in_order),
        cmocka_unit_test(test_chunks_join_to_one_stream),
        cmocka_unit_test(test_random_text_is_mapped_and_bounded),
        cmocka_unit_test(test_images_without_code_are_refused),
        cmocka_unit_test(test_cloud_kernel_functions_are_starts),
        cmocka_unit_test(test_generic_kernel_functions_are_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
