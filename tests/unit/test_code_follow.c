/* SPDX-License-Identifier: MIT */
/* The code map of images that are not Linux: control flow followed with its mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Before cmocka.h, which makes `fail` a macro. */
#include "image/image.h"
#include "patchc/code.h"
#include "tests/unit/guest_elf.h"

#include <cmocka.h>

/* The guests, assembled for GUEST_TEXT (0x100000). AT(guest, label) is a label's address there. */
#define GUEST(name)      ".pushsection .rodata\n .balign 16\n" #name ":\n"
#define GUEST_END(name)  #name "_end:\n .popsection\n"
#define AT(guest, label) "(" #label " - " #guest " + 0x100000)"
#define TABLE(guest, name)                                                                         \
    ".balign 8\n" #name                                                                            \
    ":\n .quad 0\n .quad 0x00cf9b000000ffff\n .quad 0x00af9b000000ffff\n" #name                    \
    "_register: .word 23\n .quad " AT(guest, name) "\n"

/* 32-bit entry; LGDT in a routine, through a register; far jump to 64-bit code; data in text. */
asm(GUEST(
    boot) ".code32\n"
          "boot_start: call boot_prepare\n"
          "  ljmp $0x10, $" AT(
              boot,
              boot_64) "\n"
                       "boot_data: .byte 0x0f, 0xa2, 0xfa, 0x0f, 0x30\n"
                       "boot_prepare: mov $" AT(
                           boot,
                           boot_gdt_register) ", %edx\n"
                                              "  lgdtl (%edx)\n"
                                              "  mov %cr0, %eax\n"
                                              "  ret\n" TABLE(
                                                  boot,
                                                  boot_gdt) ".code64\n"
                                                            "boot_64: lea boot_taken(%rip), %rax\n"
                                                            "  mov $" AT(
                                                                boot,
                                                                boot_moved) ", %ecx\n"
                                                                            "  lea "
                                                                            "boot_label(%rip), "
                                                                            "%rdx\n"
                                                                            "  call boot_called\n"
                                                                            "boot_after: cpuid\n"
                                                                            "  hlt\n"
                                                                            "  jmp boot_64\n"
                                                                            "boot_called: ret\n"
                                                                            "boot_taken: wrmsr\n"
                                                                            "  ret\n"
                                                                            "boot_moved: rdmsr\n"
                                                                            "  ret\n"
                                                                            "boot_label: cli\n"
                                                                            "  ret\n"
                                                                            "boot_stored: sti\n"
                                                                            "  ret\n"
                                                                            "boot_unused: hlt\n"
                                                                            "  ret\n" GUEST_END(
                                                                                boot));

/* 32-bit entry behind a multiboot header; far return to 64-bit code; LGDT with a fixed operand. */
asm(GUEST(
    multi) ".code32\n"
           "  .long 0x1badb002, 0, -0x1badb002\n"
           "multi_start: lgdtl " AT(
               multi,
               multi_gdt_register) "\n"
                                   "  pushl $0x10\n"
                                   "  pushl $" AT(
                                       multi,
                                       multi_64) "\n"
                                                 "  lret\n" TABLE(
                                                     multi,
                                                     multi_gdt) ".code64\n"
                                                                "multi_64: cpuid\n"
                                                                "multi_loop: jmp multi_loop\n"
                                                                "multi_other: ret\n" GUEST_END(
                                                                    multi));

/* The selector is in no table that was found. */
asm(GUEST(lost) ".code32\n"
                "lost_start: ljmp $0x10, $" AT(lost, lost_64) "\n"
                                                              ".code64\n"
                                                              "lost_64: cpuid\n"
                                                              "  ret\n" GUEST_END(lost));

/* 64-bit entry; a jump table; a function that nothing refers to; the same bytes in two ways. */
asm(GUEST(long_mode) ".code64\n"
                     "long_start: and $1, %eax\n"
                     "  jmp *" AT(
                         long_mode,
                         long_table) "(,%rax,8)\n"
                                     "long_first: cpuid\n"
                                     "  ret\n"
                                     "long_second: wrmsr\n"
                                     "  ret\n"
                                     "long_start_end:\n"
                                     ".balign 8\n"
                                     "long_table: .quad " AT(long_mode, long_first) ", " AT(
                                         long_mode,
                                         long_second) ", 0\n"
                                                      "long_apart: cli\n"
                                                      "  jmp long_inside + 1\n"
                                                      "long_inside: .byte 0xf6, 0xc3, 0xcc\n"
                                                      "  ret\n"
                                                      "long_overlapped: jmp long_inside\n"
                                                      "long_label: hlt\n"
                                                      "  ret\n" GUEST_END(long_mode));

/* 32- and 64-bit code that goes through the same bytes. */
asm(GUEST(both) ".code32\n"
                "both_start: lgdtl " AT(
                    both,
                    both_gdt_register) "\n"
                                       "  jz both_shared\n"
                                       "  ljmp $0x10, $" AT(both, both_64) "\n" TABLE(
                                           both,
                                           both_gdt) ".code64\n"
                                                     "both_64: cpuid\n"
                                                     "both_shared: nop\n"
                                                     "  nop\n"
                                                     "both_loop: jmp both_loop\n" GUEST_END(both));

/* A Linux kernel's PVH entry: 32-bit code amidst linear text, physical addresses. */
asm(GUEST(pvh) ".code64\n"
               "pvh_linux: ret\n"
               ".code32\n"
               "pvh_start: lgdtl " AT(
                   pvh,
                   pvh_gdt_register) "\n"
                                     "  mov $0xfa, %eax\n"
                                     "  ljmp $0x10, $" AT(
                                         pvh,
                                         pvh_64) "\n"
                                                 "pvh_bytes: .byte 0x48, 0xb8\n" /* a linear decoder
                                                                           takes what follows for an
                                                                           immediate */
                                                 ".code64\n"
                                                 "pvh_64: cpuid\n"
                                                 "  wrmsr\n"
                                                 "  nop\n"
                                                 "  nop\n"
                                                 "  nop\n"
                                                 "  nop\n"
                                                 "pvh_loop: jmp pvh_loop\n" TABLE(pvh, pvh_gdt)
                                                     GUEST_END(pvh));

#define LABEL(name) extern const uint8_t name[]
LABEL(boot), boot_end[], boot_data[], boot_prepare[], boot_64[], boot_called[], boot_after[];
LABEL(boot_taken), boot_moved[], boot_label[], boot_stored[], boot_unused[];
LABEL(multi), multi_end[], multi_start[], multi_64[], multi_loop[], multi_other[];
LABEL(lost), lost_end[], lost_64[];
LABEL(long_mode), long_mode_end[], long_start[], long_start_end[], long_first[], long_second[];
LABEL(long_apart), long_inside[], long_overlapped[], long_label[];
LABEL(both), both_end[], both_64[], both_shared[], both_loop[];
LABEL(pvh), pvh_end[], pvh_start[], pvh_bytes[], pvh_64[], pvh_loop[];

/* The bytes between two labels of a guest. */
static uint64_t span(const uint8_t *from, const uint8_t *to)
{
    return (uintptr_t)to - (uintptr_t)from;
}

struct mapped {
    uint8_t *bytes;
    const uint8_t *guest; /* its first byte here */
    uint64_t text;        /* its address there */
    struct image image;
    struct code code;
};

static void map_guest(const struct guest *guest, struct mapped *mapped)
{
    size_t size;
    struct error err = {0};
    mapped->bytes = guest_build(guest, &size);
    mapped->guest = guest->text;
    mapped->text = guest->linux_banner ? GUEST_TEXT_LINUX : GUEST_TEXT;
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

static uint64_t address(const struct mapped *mapped, const uint8_t *label)
{
    return mapped->text + (uint64_t)(label - mapped->guest);
}

#define assert_start(mapped, label)                                                                \
    assert_true(code_is_start(&(mapped)->code, address(mapped, label)))
#define assert_no_start(mapped, label)                                                             \
    assert_false(code_is_start(&(mapped)->code, address(mapped, label)))
#define assert_other(mapped, label)                                                                \
    assert_true(code_is_other_mode(&(mapped)->code, address(mapped, label)))

static uint64_t boot_offset(const uint8_t *label)
{
    return span(boot, label);
}

static void test_elf32_guest_is_followed_into_64_bit_code(void **state)
{
    (void)state;
    const uint64_t stored[] = {1, GUEST_TEXT + boot_offset(boot_stored), 0,
                               GUEST_TEXT + boot_offset(boot_unused) + 1};
    struct guest guest = {.elf_class = 32,
                          .text = boot,
                          .text_size = span(boot, boot_end),
                          .data = stored,
                          .data_size = sizeof stored,
                          .symbols = {{"boot_taken", boot_offset(boot_taken), 3},
                                      {"boot_moved", boot_offset(boot_moved), 3},
                                      {"boot_label", boot_offset(boot_label), 0},
                                      {"boot_stored", boot_offset(boot_stored), 2},
                                      {"boot_unused", boot_offset(boot_unused), 2}}};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_other(&mapped, boot);
    assert_other(&mapped, boot_prepare);
    assert_no_start(&mapped, boot);
    assert_no_start(&mapped,
                    boot_data); /* data in text looks like cpuid, but nothing leads there */
    assert_start(&mapped, boot_64);
    assert_start(&mapped, boot_called);
    assert_start(&mapped, boot_after);
    assert_start(&mapped, boot_taken);     /* a function whose address is taken by lea */
    assert_start(&mapped, boot_moved);     /* by mov */
    assert_start(&mapped, boot_stored);    /* stored in data */
    assert_no_start(&mapped, boot_label);  /* no function */
    assert_no_start(&mapped, boot_unused); /* a function that nothing names exactly */
    assert_true(code_is_target(&mapped.code, address(&mapped, boot_called)));
    assert_true(code_is_target(&mapped.code, address(&mapped, boot_label)));
    assert_false(mapped.code.linux_image);
    assert_int_equal(mapped.code.section_count, 1); /* .data holds no code */
    unmap_guest(&mapped);
}

static void test_multiboot_elf64_begins_in_32_bit_mode(void **state)
{
    (void)state;
    struct guest guest = {.elf_class = 64,
                          .text = multi,
                          .text_size = span(multi, multi_end),
                          .entry = span(multi, multi_start),
                          .symbols = {{"multi_other", span(multi, multi_other), 1}}};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_other(&mapped, multi_start);
    assert_start(&mapped, multi_64); /* by far return */
    assert_start(&mapped, multi_loop);
    assert_no_start(&mapped, multi_other); /* with a 32-bit entry a symbol alone proves no mode */
    unmap_guest(&mapped);
}

static void test_unresolved_selector_proves_nothing(void **state)
{
    (void)state;
    struct guest guest = {.elf_class = 32, .text = lost, .text_size = span(lost, lost_end)};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_other(&mapped, lost);
    assert_no_start(&mapped, lost_64);
    assert_int_equal(mapped.code.instruction_count, 0);
    unmap_guest(&mapped);
}

static void test_elf64_functions_and_jump_tables_are_followed(void **state)
{
    (void)state;
    struct guest guest = {.elf_class = 64,
                          .text = long_mode,
                          .text_size = span(long_mode, long_mode_end),
                          .symbols = {{"long_start", 0, span(long_start, long_start_end)},
                                      {"long_apart", span(long_mode, long_apart), 8},
                                      {"long_overlapped", span(long_mode, long_overlapped), 2},
                                      {"long_label", span(long_mode, long_label), 0}}};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_start(&mapped, long_start);
    assert_start(&mapped, long_first); /* through the table */
    assert_start(&mapped, long_second);
    assert_no_start(&mapped, long_start_end); /* the table itself */
    assert_start(&mapped, long_apart);        /* a function symbol */
    assert_no_start(&mapped, long_inside);    /* overlapping instructions */
    assert_true(code_is_overlap(&mapped.code, address(&mapped, long_inside)));
    assert_false(code_is_overlap(&mapped.code, address(&mapped, long_apart)));
    assert_no_start(&mapped, long_label); /* a label that nothing leads to */
    unmap_guest(&mapped);
}

static void test_bytes_reached_in_two_modes_are_not_proved(void **state)
{
    (void)state;
    struct guest guest = {.elf_class = 32, .text = both, .text_size = span(both, both_end)};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_start(&mapped, both_64);
    assert_no_start(&mapped, both_shared);
    assert_no_start(&mapped, both_loop);
    assert_other(&mapped, both_shared);
    unmap_guest(&mapped);
}

static void test_linux_pvh_entry_is_other_mode_until_the_far_jump(void **state)
{
    (void)state;
    struct guest guest = {.elf_class = 64,
                          .linux_banner = true,
                          .text = pvh,
                          .text_size = span(pvh, pvh_end),
                          .pvh_entry = span(pvh, pvh_start)};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_start(&mapped, pvh);
    for (uint64_t at = 0; at < span(pvh_start, pvh_bytes); at++) {
        assert_other(&mapped, pvh_start + at);
        assert_no_start(&mapped, pvh_start + at);
    }
    assert_start(&mapped, pvh_64); /* although linear decoding steps over it */
    assert_start(&mapped, pvh_64 + 2);
    assert_start(&mapped, pvh_loop);
    assert_false(code_is_other_mode(&mapped.code, address(&mapped, pvh_64)));
    unmap_guest(&mapped);
}

static void test_without_section_headers_segments_are_followed(void **state)
{
    (void)state;
    struct guest guest = {
        .elf_class = 32, .no_sections = true, .text = boot, .text_size = span(boot, boot_end)};
    struct mapped mapped;
    map_guest(&guest, &mapped);
    assert_int_equal(mapped.code.sections[0].section, UINT32_MAX);
    assert_start(&mapped, boot_64);
    assert_no_start(&mapped, boot_taken); /* there are no symbols */
    unmap_guest(&mapped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf32_guest_is_followed_into_64_bit_code),
        cmocka_unit_test(test_multiboot_elf64_begins_in_32_bit_mode),
        cmocka_unit_test(test_unresolved_selector_proves_nothing),
        cmocka_unit_test(test_elf64_functions_and_jump_tables_are_followed),
        cmocka_unit_test(test_bytes_reached_in_two_modes_are_not_proved),
        cmocka_unit_test(test_linux_pvh_entry_is_other_mode_until_the_far_jump),
        cmocka_unit_test(test_without_section_headers_segments_are_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
