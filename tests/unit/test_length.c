/* SPDX-License-Identifier: MIT */
/* The length decoder against Zydis: every opcode and ModRM under many prefixes, random bytes, and
 * the executable sections of a real kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before cmocka.h, which makes `fail` a macro. */
#include "image/image.h"
#include "image/length.h"

#include <cmocka.h>
#include <elf.h>
#include <Zydis/Zydis.h>

static ZydisDecoder decoder;

static int setup(void **state)
{
    (void)state;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return 0;
}

/* What length.c accepts and Zydis does not: encodings whose validity hangs on more than the opcode,
 * ModRM.reg and one mandatory prefix. Zydis accepts nothing that length.c rejects. */
static const struct {
    uint8_t map, first, last;
    const char *unchecked;
} lenient_opcodes[] = {
    {0, 0xd9, 0xdf, "x87 register forms: reserved ModRM.rm values"},
    {1, 0x01, 0x01, "reserved ModRM.rm values, mandatory prefixes"},
    {1, 0x12, 0x12, "register form of MOVLPD"},
    {1, 0x16, 0x16, "register form of MOVHPD"},
    {1, 0x1a, 0x1b, "MPX: bound register numbers, RIP-relative operands"},
    {1, 0x20, 0x23, "control and debug register numbers beyond the known ones"},
    {1, 0x73, 0x73, "PSRLDQ, PSLLDQ of an MMX register"},
    {1, 0x79, 0x79, "memory form of EXTRQ, INSERTQ"},
    {1, 0xa6, 0xa7, "PadLock: ModRM.rm"},
    {1, 0xae, 0xae, "combinations of ModRM.reg and mandatory prefix"},
    {1, 0xc7, 0xc7, "combinations of ModRM.reg and mandatory prefix"},
    {1, 0xd6, 0xd6, "memory form of MOVQ2DQ, MOVDQ2Q"},
    {2, 0xdd, 0xdf, "register form of the Key Locker instructions"},
    {2, 0xf0, 0xf1, "register form of MOVBE"},
    {2, 0xf6, 0xf6, "register form of WRSS"},
    {3, 0xf0, 0xf0, "HRESET: ModRM.rm"},
};

static bool known_difference(const struct length_info *info)
{
    if (info->flags & LENGTH_VEX)
        return true; /* opcode, vvvv, L, W, mask, broadcast fields: only the map is checked */
    for (size_t i = 0; i < sizeof lenient_opcodes / sizeof *lenient_opcodes; i++)
        if (info->map == lenient_opcodes[i].map && info->opcode >= lenient_opcodes[i].first &&
            info->opcode <= lenient_opcodes[i].last)
            return true;
    return false;
}

static unsigned long accepted_by_both, rejected_by_both, lenient, shown_differences;

static void report(const uint8_t *code, size_t size, unsigned ours, unsigned theirs)
{
    char text[80];
    int at = 0;
    for (size_t i = 0; i < size && i < 16; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%02x ", code[i]);
    print_message("# %s: length_decode %u, Zydis %u\n", text, ours, theirs);
}

/* Compares on one byte string; returns false on a difference that is not a known one. */
static bool agrees(const uint8_t *code, size_t size)
{
    ZydisDecodedInstruction instruction;
    struct length_info info;
    unsigned ours = length_decode(code, size, &info);
    unsigned theirs = 0;
    if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code, size, &instruction)))
        theirs = instruction.length;
    if (ours == theirs) {
        *(ours ? &accepted_by_both : &rejected_by_both) += 1;
        return true;
    }
    if (theirs == 0 && known_difference(&info)) {
        lenient++;
        return true;
    }
    if (shown_differences++ < 20)
        report(code, size, ours, theirs);
    return false;
}

static const char *const prefix_sets[] = {
    "",         "\x66",     "\x67",     "\xf2",     "\xf3",         "\xf0",     "\x2e",
    "\x65",     "\x40",     "\x41",     "\x44",     "\x48",         "\x4f",     "\x66\x48",
    "\x66\x67", "\xf2\x48", "\xf3\x48", "\xf0\x48", "\x66\xf3",     "\xf3\x66", "\xf2\x66",
    "\xf3\xf2", "\xf2\xf3", "\x66\xf0", "\x48\x66", "\x48\xf3\x41", "\xf0\xf2", "\x67\x48",
};
static const char *const map_bytes[] = {"", "\x0f", "\x0f\x38", "\x0f\x3a"};

static void test_all_opcodes_and_modrm_have_the_length_that_zydis_finds(void **state)
{
    (void)state;
    size_t wrong = 0;
    for (size_t p = 0; p < sizeof prefix_sets / sizeof *prefix_sets; p++) {
        for (size_t map = 0; map < 4; map++) {
            for (unsigned bytes = 0; bytes < 0x10000; bytes++) {
                /* Two SIB bytes matter: base 101 without and with a displacement-only meaning. */
                for (unsigned sib = 0x20; sib <= 0x25; sib += 5) {
                    uint8_t code[24] = {0};
                    size_t at = (size_t)snprintf((char *)code, sizeof code, "%s%s", prefix_sets[p],
                                                 map_bytes[map]);
                    code[at++] = (uint8_t)(bytes >> 8);
                    code[at++] = (uint8_t)bytes;
                    code[at] = (uint8_t)sib;
                    wrong += !agrees(code, sizeof code);
                }
            }
        }
    }
    assert_int_equal(wrong, 0);
}

/* xorshift64: the same byte strings in every run. */
static uint64_t next_random(void)
{
    static uint64_t x = 88172645463325252ull;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

static void fill_random(uint8_t *code, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t r = next_random();
        memcpy(code + i, &r, size - i < 8 ? size - i : 8);
    }
}

static void test_random_bytes_have_the_length_that_zydis_finds(void **state)
{
    (void)state;
    size_t wrong = 0;
    uint8_t code[16];
    for (unsigned i = 0; i < 6000000; i++) {
        fill_random(code, sizeof code);
        wrong += !agrees(code, sizeof code);
    }
    assert_int_equal(wrong, 0);
}

/* VEX, EVEX, XOP and 3DNow are too rare in random bytes: start with their first bytes. */
static void test_random_vector_encodings_have_the_length_that_zydis_finds(void **state)
{
    (void)state;
    static const char *const starts[] = {"\xc5",     "\xc4",     "\x62",     "\x8f",
                                         "\x0f\x0f", "\xc4\xe3", "\x62\xf1", "\x62\xf3",
                                         "\x62\xf5", "\x8f\xea"};
    size_t wrong = 0;
    unsigned long before = accepted_by_both;
    uint8_t code[16];
    for (unsigned i = 0; i < 3000000; i++) {
        const char *start = starts[i % (sizeof starts / sizeof *starts)];
        fill_random(code, sizeof code);
        memcpy(code, start, strlen(start));
        wrong += !agrees(code, sizeof code);
    }
    assert_int_equal(wrong, 0);
    assert_true(accepted_by_both - before > 100000);
}

static void test_truncated_instructions_are_rejected_and_not_read_beyond(void **state)
{
    (void)state;
    uint8_t code[32];
    for (unsigned i = 0; i < 200000; i++) {
        struct length_info whole, part;
        fill_random(code, sizeof code);
        unsigned length = length_decode(code, sizeof code, &whole);
        for (size_t size = 0; length && size <= 15; size++) {
            uint8_t *exact = malloc(size ? size : 1); /* the sanitizer sees a read beyond */
            assert_non_null(exact);
            memcpy(exact, code, size);
            unsigned got = length_decode(exact, size, &part);
            assert_int_equal(got, size >= length ? length : 0);
            if (got)
                assert_memory_equal(&whole, &part, sizeof whole);
            free(exact);
        }
    }
}

/* One instruction and what is expected of it. */
struct sample {
    const char *name;
    uint8_t size;
    uint8_t code[15];
    struct length_info expected; /* length = size */
};

static const struct sample samples[] = {
    {"je rel8", 2, {0x74, 0x10}, {.opcode = 0x74, .immediate = 1, .flags = LENGTH_REL8}},
    {"jmp rel8",
     2,
     {0xeb, 0},
     {.opcode = 0xeb, .immediate = 1, .flags = LENGTH_REL8 | LENGTH_NO_FALL}},
    {"call rel32",
     5,
     {0xe8, 1, 2, 3, 4},
     {.opcode = 0xe8, .immediate = 1, .flags = LENGTH_REL32 | LENGTH_CALL}},
    {"jmp rel32",
     5,
     {0xe9, 1, 2, 3, 4},
     {.opcode = 0xe9, .immediate = 1, .flags = LENGTH_REL32 | LENGTH_NO_FALL}},
    {"jmp rel32 with 66",
     6,
     {0x66, 0xe9, 1, 2, 3, 4},
     {.opcode = 0xe9, .immediate = 2, .flags = LENGTH_REL32 | LENGTH_NO_FALL | LENGTH_AMD16}},
    {"je rel32",
     6,
     {0x0f, 0x84, 1, 2, 3, 4},
     {.map = 1, .opcode = 0x84, .immediate = 2, .flags = LENGTH_REL32}},
    {"xbegin",
     6,
     {0xc7, 0xf8, 1, 2, 3, 4},
     {.opcode = 0xc7, .modrm = 0xf8, .has_modrm = 1, .immediate = 2, .flags = LENGTH_REL32}},
    {"jmp *rip",
     6,
     {0xff, 0x25, 1, 2, 3, 4},
     {.opcode = 0xff,
      .modrm = 0x25,
      .has_modrm = 1,
      .displacement = 2,
      .flags = LENGTH_RIP | LENGTH_NO_FALL}},
    {"call *rax", 2, {0xff, 0xd0}, {.opcode = 0xff, .modrm = 0xd0, .has_modrm = 1}},
    {"lea rip",
     7,
     {0x48, 0x8d, 0x3d, 1, 2, 3, 4},
     {.opcode = 0x8d, .modrm = 0x3d, .has_modrm = 1, .displacement = 3, .flags = LENGTH_RIP}},
    {"cmpb rip, imm8",
     7,
     {0x80, 0x3d, 1, 2, 3, 4, 5},
     {.opcode = 0x80,
      .modrm = 0x3d,
      .has_modrm = 1,
      .displacement = 2,
      .immediate = 6,
      .flags = LENGTH_RIP}},
    {"movabs", 10, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, {.opcode = 0xb8, .immediate = 2}},
    {"movabs moffs", 10, {0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8}, {.opcode = 0xa1, .displacement = 2}},
    {"testb imm",
     3,
     {0xf6, 0xc0, 1},
     {.opcode = 0xf6, .modrm = 0xc0, .has_modrm = 1, .immediate = 2}},
    {"notb", 2, {0xf6, 0xd0}, {.opcode = 0xf6, .modrm = 0xd0, .has_modrm = 1}},
    {"mov cr3, rax with mod 0",
     3,
     {0x0f, 0x22, 0x1d},
     {.map = 1, .opcode = 0x22, .modrm = 0x1d, .has_modrm = 1}},
    {"enter", 4, {0xc8, 1, 2, 3}, {.opcode = 0xc8, .immediate = 1}},
    {"cpuid", 2, {0x0f, 0xa2}, {.map = 1, .opcode = 0xa2}},
    {"hlt falls through", 1, {0xf4}, {.opcode = 0xf4}},
    {"ret", 1, {0xc3}, {.opcode = 0xc3, .flags = LENGTH_NO_FALL}},
    {"ud2", 2, {0x0f, 0x0b}, {.map = 1, .opcode = 0x0b, .flags = LENGTH_NO_FALL}},
    {"vzeroupper", 3, {0xc5, 0xf8, 0x77}, {.map = 1, .opcode = 0x77, .flags = LENGTH_VEX}},
    {"rorx",
     6,
     {0xc4, 0xe3, 0xfb, 0xf0, 0xc0, 5},
     {.map = 3,
      .opcode = 0xf0,
      .modrm = 0xc0,
      .has_modrm = 1,
      .immediate = 5,
      .flags = LENGTH_VEX}},
};

static void test_fields_of_known_instructions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        struct length_info got, expected = samples[i].expected;
        expected.length = samples[i].size;
        if (length_decode(samples[i].code, samples[i].size, &got) != samples[i].size ||
            memcmp(&got, &expected, sizeof got) != 0)
            fail_msg("%s: length %u flags %x displacement %u immediate %u", samples[i].name,
                     got.length, got.flags, got.displacement, got.immediate);
    }
}

/* The entry that a sweep finds at `code`, and the length that it gives, prefixes included; 0: none.
 */
static unsigned table_length(const struct length_table *table, const uint8_t *code, unsigned *flags)
{
    unsigned rex = (code[0] & 0xf0) == 0x40;
    unsigned entry = table->entry[0][code[rex] << 8 | code[rex + 1]];
    if (entry & LENGTH_TWO)
        entry = table->entry[1][code[rex + 1] << 8 | code[rex + 2]];
    *flags = entry >> LENGTH_KIND & 15;
    return entry & LENGTH_ASK ? 0 : rex + (entry & LENGTH_BYTES);
}

static void test_sweep_table_gives_the_same_lengths_and_flags(void **state)
{
    (void)state;
    struct length_table *table = malloc(sizeof *table);
    assert_non_null(table);
    length_table_fill(table);
    uint8_t code[24];
    unsigned long answered = 0, all = 0;
    for (unsigned i = 0; i < 8 * 0x10000; i++) {
        unsigned flags, at = 0;
        struct length_info info;
        fill_random(code, sizeof code);
        if (i & 0x10000)
            code[at++] = 0x48 | (code[23] & 7);
        if (i & 0x20000)
            code[at++] = 0x0f;
        code[at] = (uint8_t)(i >> 8), code[at + 1] = (uint8_t)i;
        unsigned expected = length_decode(code, sizeof code, &info);
        unsigned got = table_length(table, code, &flags);
        all += expected != 0;
        answered += got != 0;
        if (got && (got != expected || flags != (info.flags & 15u)))
            fail_msg("%02x %02x %02x: %u, %u", code[0], code[1], code[2], got, expected);
    }
    assert_true(answered > all / 2);
    free(table);
}

/* Decodes a section linearly with both decoders; returns the number of differences, lenient or not.
 */
static size_t compare_section(const uint8_t *code, size_t size, size_t *instructions)
{
    size_t wrong = 0;
    for (size_t at = 0; at < size;) {
        struct length_info info;
        ZydisDecodedInstruction instruction;
        unsigned ours = length_decode(code + at, size - at, &info), theirs = 0;
        if (ZYAN_SUCCESS(
                ZydisDecoderDecodeInstruction(&decoder, NULL, code + at, size - at, &instruction)))
            theirs = instruction.length;
        if (ours != theirs && wrong++ < 20)
            report(code + at, size - at, ours, theirs);
        at += theirs ? theirs : 1;
        *instructions += 1;
    }
    return wrong;
}

static void test_kernel_text_has_the_lengths_that_zydis_finds(void **state)
{
    (void)state;
    const char *path = getenv("PV_KERNEL_CLOUD");
    if (!path) {
        print_message("# PV_KERNEL_CLOUD names no kernel: not compared on one\n");
        skip();
    }
    struct image image;
    struct error err = {0};
    if (image_open(path, &image, &err) != 0)
        fail_msg("%s", err.text);
    size_t wrong = 0, instructions = 0;
    for (size_t i = 0; i < image.section_count; i++) {
        const struct image_section *section = &image.sections[i];
        if (section->type == SHT_PROGBITS && (section->flags & SHF_EXECINSTR))
            wrong += compare_section(image.bytes + section->offset, section->size, &instructions);
    }
    image_close(&image);
    assert_true(instructions > 1000000);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_opcodes_and_modrm_have_the_length_that_zydis_finds),
        cmocka_unit_test(test_random_bytes_have_the_length_that_zydis_finds),
        cmocka_unit_test(test_random_vector_encodings_have_the_length_that_zydis_finds),
        cmocka_unit_test(test_truncated_instructions_are_rejected_and_not_read_beyond),
        cmocka_unit_test(test_fields_of_known_instructions),
        cmocka_unit_test(test_sweep_table_gives_the_same_lengths_and_flags),
        cmocka_unit_test(test_kernel_text_has_the_lengths_that_zydis_finds),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
