/* SPDX-License-Identifier: MIT */
/* runtime/loader_multiboot.c and loader_pvh.c: kernels that begin in 32-bit protected mode, and the
 * choice between the protocols. */
#include "runtime/boot.h"
#include "runtime/loader.h"
#include "tests/unit/guest_elf.h"
#include "tests/unit/loader_lab.h"
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MAGIC 0x1badb002u

enum { ENTRY = 64, ADDRESSES = 0x10000 }; /* offset of the entry in the kernel's text */

/* A kernel whose text begins with a multiboot header, and the guest it goes to. */
struct subject {
    struct loader_lab lab;
    struct tiny tiny;
    uint32_t text[32];
    struct vm *vm;
    struct vcpu *cpu;
    uint64_t info; /* guest-physical */
};

static void setup(struct subject *s, int elf_class, uint32_t flags)
{
    *s = (struct subject){.text = {MAGIC, flags, -(MAGIC + flags)}};
    lab_begin(&s->lab, 32);
    s->vm = &s->lab.vm;
    s->cpu = s->vm->vcpus[0];
    tiny_build(&(struct tiny_options){.elf_class = elf_class,
                                      .text = s->text,
                                      .text_size = sizeof s->text},
               &s->tiny);
}

/* Gives the header its address fields. */
static void addresses(struct subject *s, uint32_t header, uint32_t load, uint32_t load_end,
                      uint32_t bss_end, uint32_t entry)
{
    uint32_t fields[5] = {header, load, load_end, bss_end, entry};
    memcpy(s->tiny.bytes + s->tiny.text + 12, fields, sizeof fields);
}

static int load_bytes(struct subject *s, const uint8_t *bytes, size_t size)
{
    if (image_from_memory("kernel", bytes, size, &s->lab.image, &s->lab.err))
        fail_msg("%s", s->lab.err.text);
    int result = loader_load(s->vm, &s->lab.image, &s->lab.err);
    s->info = s->cpu->r[RBX];
    return result;
}

static void load(struct subject *s)
{
    if (load_bytes(s, s->tiny.bytes, s->tiny.size))
        fail_msg("%s", s->lab.err.text);
}

static void is_refused(struct subject *s, int result, const char *because)
{
    assert_int_equal(result, -1);
    assert_int_equal(s->lab.err.code, HVRUN_IMAGE);
    assert_true(is_one_line(&s->lab.err));
    if (!strstr(s->lab.err.text, because))
        fail_msg("\"%s\" does not say \"%s\"", s->lab.err.text, because);
}

static void refused(struct subject *s, const char *because)
{
    is_refused(s, load_bytes(s, s->tiny.bytes, s->tiny.size), because);
}

static void teardown(struct subject *s)
{
    tiny_free(&s->tiny);
    lab_end(&s->lab);
}

static uint64_t field(struct subject *s, unsigned offset)
{
    return lab_number(&s->lab, s->info + offset, 4);
}

static void is_protected_mode(const struct vcpu *cpu)
{
    assert_int_equal(cpu->cr0 & (CR0_PE | CR0_PG), CR0_PE);
    assert_int_equal(cpu->efer | cpu->cr4, 0);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_ONE);
    assert_int_equal(cpu->cpl, 0);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(cpu->segment[i].limit, UINT32_MAX);
        assert_int_equal(cpu->segment[i].base, 0);
        assert_true(cpu->segment[i].rights & RIGHTS_DB);
    }
    assert_true(cpu->segment[SEG_CS].rights & RIGHTS_CODE);
    assert_false(cpu->segment[SEG_SS].rights & RIGHTS_CODE);
}

static void starts(int elf_class)
{
    struct subject s;
    setup(&s, elf_class, 3);
    uint64_t physical = elf_class == 64 ? TINY_PHYSICAL : TINY_BASE_32;
    load(&s);
    is_protected_mode(s.cpu);
    assert_int_equal(s.cpu->r[RAX], 0x2badb002);
    assert_int_equal(s.cpu->rip, physical + s.tiny.text);
    assert_memory_equal(s.vm->memory.host + physical + s.tiny.text, s.text, sizeof s.text);
    teardown(&s);
}

static void test_elf32_kernel_starts_in_protected_mode(void **state)
{
    (void)state;
    starts(32);
}

static void test_elf64_kernel_starts_in_protected_mode(void **state)
{
    (void)state;
    starts(64);
}

static void test_information_tells_memory_whether_or_not_the_header_asks(void **state)
{
    (void)state;
    for (uint32_t flags = 0; flags < 4; flags++) {
        struct subject s;
        setup(&s, 32, flags);
        load(&s);
        assert_int_equal(field(&s, 0) & 0x41, 0x41);
        assert_int_equal(field(&s, 4), 639);
        assert_int_equal(field(&s, 8), 31 * 1024);
        uint64_t at = field(&s, 48), end = at + field(&s, 44), usable = 0;
        for (; at < end; at += lab_number(&s.lab, at, 4) + 4)
            if (lab_number(&s.lab, at + 20, 4) == 1)
                usable += lab_number(&s.lab, at + 12, 8);
        assert_int_equal(at, end);
        assert_int_equal(usable, (31 << 20) + 639 * 1024);
        teardown(&s);
    }
}

static void test_command_line_begins_with_the_kernel_as_given(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 32, 0);
    load(&s);
    assert_true(field(&s, 0) & 4);
    assert_string_equal(lab_string(&s.lab, field(&s, 16)), "dir/kernel");
    image_close(&s.lab.image);
    s.vm->config.append = "one two=3";
    load(&s);
    assert_string_equal(lab_string(&s.lab, field(&s, 16)), "dir/kernel one two=3");
    teardown(&s);
}

static void test_command_line_without_room_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 32, 0);
    char *append = calloc(1, 700000);
    memset(append, 'x', 699999);
    s.vm->config.append = append;
    refused(&s, "command line");
    free(append);
    teardown(&s);
}

static void test_modules_follow_the_kernel_with_their_words(void **state)
{
    (void)state;
    struct subject s;
    char list[256], words[128];
    setup(&s, 32, 1);
    const char *first = lab_file(&s.lab, "first module", 12);
    const char *second = lab_file(&s.lab, "", 0);
    const char *third = lab_file(&s.lab, "3", 1);
    snprintf(list, sizeof list, "%s a=1 b,,c,%s,%s", first, second, third);
    s.vm->config.initrd = list;
    load(&s);
    assert_true(field(&s, 0) & 8);
    assert_int_equal(field(&s, 20), 3);
    uint64_t kernel_end = s.tiny.data_address + s.tiny.data_size + s.tiny.bss_size;
    uint64_t modules = field(&s, 24), before = kernel_end;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t start = lab_number(&s.lab, modules + i * 16, 4);
        uint64_t end = lab_number(&s.lab, modules + i * 16 + 4, 4);
        assert_true(start >= before && start % 4096 == 0);
        assert_int_equal(end - start, i == 0 ? 12 : i == 1 ? 0 : 1);
        before = end;
    }
    assert_memory_equal(lab_string(&s.lab, lab_number(&s.lab, modules, 4)), "first module", 12);
    snprintf(words, sizeof words, "%s a=1 b,c", first);
    assert_string_equal(lab_string(&s.lab, lab_number(&s.lab, modules + 8, 4)), words);
    assert_string_equal(lab_string(&s.lab, lab_number(&s.lab, modules + 24, 4)), second);
    teardown(&s);
}

static void test_bad_modules_are_refused(void **state)
{
    (void)state;
    static const char *const lists[] = {"", ",", "/nonexistent/file", " x", "/tmp"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct subject s;
        setup(&s, 32, 0);
        s.vm->config.initrd = lists[i];
        refused(&s, "--initrd");
        teardown(&s);
    }
    struct subject s;
    setup(&s, 32, 0);
    const char *file = lab_file(&s.lab, "", 0);
    char *list = calloc(65, strlen(file) + 1);
    for (unsigned n = 0; n < 65; n++)
        strcat(strcat(list, n ? "," : ""), file);
    s.vm->config.initrd = list;
    refused(&s, "more than 64 modules");
    free(list);
    teardown(&s);
}

static void test_module_without_room_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 32, 0);
    size_t size = 31 << 20;
    void *bytes = calloc(1, size);
    s.vm->config.initrd = lab_file(&s.lab, bytes, size);
    refused(&s, "--memory");
    free(bytes);
    teardown(&s);
}

static void test_kernel_in_low_memory_keeps_clear_of_what_it_is_told(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 32, ADDRESSES);
    uint32_t load_at = 0x8000, size = 0x80000; /* most of the conventional memory, by its bss */
    addresses(&s, load_at + s.tiny.text, load_at, 0, load_at + size, load_at + s.tiny.text + ENTRY);
    load(&s);
    assert_int_equal(s.cpu->rip, load_at + s.tiny.text + ENTRY);
    assert_true(s.info >= load_at + size || s.info + 88 <= load_at);
    assert_true(field(&s, 16) >= load_at + size || field(&s, 16) < load_at);
    assert_true(s.cpu->gdt_base >= load_at + size || s.cpu->gdt_base + 40 <= load_at);
    teardown(&s);
}

static void test_header_addresses_win_over_the_elf_headers(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64, ADDRESSES);
    uint32_t at = 0x200000, end = at + 0x40, bss_end = at + 0x1000;
    addresses(&s, at + 8, at, end, bss_end, at + 12);
    memset(s.vm->memory.host + at, 0xaa, 0x1001);
    load(&s);
    assert_int_equal(s.cpu->rip, at + 12);
    assert_memory_equal(s.vm->memory.host + at, s.tiny.bytes + s.tiny.text - 8, 0x40);
    for (uint32_t i = end; i < bss_end; i++)
        assert_int_equal(s.vm->memory.host[i], 0);
    assert_int_equal(s.vm->memory.host[bss_end], 0xaa);
    assert_int_equal(s.vm->memory.host[TINY_PHYSICAL + s.tiny.text], 0);
    teardown(&s);
}

static void test_bad_header_addresses_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t header, load, load_end, bss_end, entry;
        const char *because;
    } rows[] = {
        {0x200000, 0x200004, 0, 0, 0x200020, "contradict"}, /* loading begins behind the header */
        {0x200000, 0x1fffff - 0x10000, 0, 0, 0x200020, "contradict"}, /* before the file */
        {0x200000, 0x200000, 0x1ffff0, 0, 0x200020, "contradict"},    /* ends before it begins */
        {0x200000, 0x200000, 0x300000, 0, 0x200020, "end of the file"},
        {0x200000, 0x200000, 0, 0xf0000000, 0x200020, "memory"},
        {0xfffffff0, 0xfffffff0, 0, 0, 0xfffffff4, "link the kernel"},
        {0x9fc00, 0x9fc00, 0, 0, 0x9fc20, "overlaps"},
        {0xe0000, 0xe0000, 0, 0, 0xe0020, "overlaps"},
        {0x200000, 0x200000, 0x200040, 0x201000, 0x200040, "entry"},
        {0x200000, 0x200000, 0x200040, 0x201000, 0x1fffff, "entry"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct subject s;
        setup(&s, 32, ADDRESSES);
        addresses(&s, rows[i].header, rows[i].load, rows[i].load_end, rows[i].bss_end,
                  rows[i].entry);
        refused(&s, rows[i].because);
        teardown(&s);
    }
}

static void test_demands_that_are_not_known_are_refused(void **state)
{
    (void)state;
    for (unsigned bit = 3; bit < 16; bit++) {
        struct subject s;
        setup(&s, 32, 1u << bit);
        refused(&s, "demands");
        teardown(&s);
    }
}

static void test_elf_without_any_protocol_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64, 0);
    s.tiny.bytes[s.tiny.text + 8]++; /* a wrong checksum is no header */
    refused(&s, "how to start it");
    teardown(&s);
    setup(&s, 64, 0);
    uint32_t second[] = {0xe85250d6, 0, 16, -(0xe85250d6 + 16)};
    memcpy(s.tiny.bytes + s.tiny.text, second, sizeof second);
    refused(&s, "Multiboot2");
    teardown(&s);
}

/* ---- PVH ---- */

static uint8_t *pvh_kernel(size_t *size)
{
    static const uint8_t text[64] = {0x90, 0xf4};
    return guest_build(
        &(struct guest){.elf_class = 64, .text = text, .text_size = sizeof text, .pvh_entry = 16},
        size);
}

static void test_pvh_kernel_starts_with_a_start_info(void **state)
{
    (void)state;
    struct subject s;
    size_t size;
    setup(&s, 64, 0);
    uint8_t *bytes = pvh_kernel(&size);
    s.vm->config.append = "a b";
    s.vm->config.initrd = lab_file(&s.lab, "initrd", 6);
    assert_int_equal(load_bytes(&s, bytes, size), 0);
    is_protected_mode(s.cpu);
    assert_int_equal(s.cpu->rip, GUEST_TEXT + 16);
    assert_int_equal(field(&s, 0), 0x336ec578);
    assert_int_equal(field(&s, 4), 1);
    assert_int_equal(field(&s, 12), 1);
    uint64_t module = lab_number(&s.lab, s.info + 16, 8);
    assert_memory_equal(lab_string(&s.lab, lab_number(&s.lab, module, 8)), "initrd", 6);
    assert_int_equal(lab_number(&s.lab, module + 8, 8), 6);
    assert_string_equal(lab_string(&s.lab, lab_number(&s.lab, s.info + 24, 8)), "a b");
    assert_memory_equal(lab_string(&s.lab, lab_number(&s.lab, s.info + 32, 8)), "RSD PTR ", 8);
    uint64_t map = lab_number(&s.lab, s.info + 40, 8), usable = 0;
    for (unsigned i = 0; i < field(&s, 48); i++)
        if (lab_number(&s.lab, map + i * 24 + 16, 4) == 1)
            usable += lab_number(&s.lab, map + i * 24 + 8, 8);
    assert_int_equal(usable, (31 << 20) + 639 * 1024);
    free(bytes);
    teardown(&s);
}

static void test_pvh_command_line_without_room_is_refused(void **state)
{
    (void)state;
    struct subject s;
    size_t size;
    setup(&s, 64, 0);
    uint8_t *bytes = pvh_kernel(&size);
    char *append = calloc(1, 700000);
    memset(append, 'x', 699999);
    s.vm->config.append = append;
    is_refused(&s, load_bytes(&s, bytes, size), "command line");
    free(append);
    free(bytes);
    teardown(&s);
}

static void test_linux_protocol_is_chosen_before_pvh(void **state)
{
    (void)state;
    struct subject s;
    size_t size;
    static const uint8_t text[64] = {0x90, 0xf4};
    setup(&s, 64, 0);
    memory_destroy(&s.vm->memory);
    assert_int_equal(memory_create(&s.vm->memory, 128 << 20, &s.lab.err), 0);
    uint8_t *bytes = guest_build(&(struct guest){.elf_class = 64,
                                                 .linux_banner = true,
                                                 .text = text,
                                                 .text_size = sizeof text,
                                                 .pvh_entry = 16},
                                 &size);
    if (load_bytes(&s, bytes, size))
        fail_msg("%s", s.lab.err.text);
    assert_true(vcpu_code64(s.cpu));
    assert_int_equal(s.cpu->rip, GUEST_TEXT);
    free(bytes);
    teardown(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf32_kernel_starts_in_protected_mode),
        cmocka_unit_test(test_elf64_kernel_starts_in_protected_mode),
        cmocka_unit_test(test_information_tells_memory_whether_or_not_the_header_asks),
        cmocka_unit_test(test_command_line_begins_with_the_kernel_as_given),
        cmocka_unit_test(test_command_line_without_room_is_refused),
        cmocka_unit_test(test_modules_follow_the_kernel_with_their_words),
        cmocka_unit_test(test_bad_modules_are_refused),
        cmocka_unit_test(test_module_without_room_is_refused),
        cmocka_unit_test(test_kernel_in_low_memory_keeps_clear_of_what_it_is_told),
        cmocka_unit_test(test_header_addresses_win_over_the_elf_headers),
        cmocka_unit_test(test_bad_header_addresses_are_refused),
        cmocka_unit_test(test_demands_that_are_not_known_are_refused),
        cmocka_unit_test(test_elf_without_any_protocol_is_refused),
        cmocka_unit_test(test_pvh_kernel_starts_with_a_start_info),
        cmocka_unit_test(test_pvh_command_line_without_room_is_refused),
        cmocka_unit_test(test_linux_protocol_is_chosen_before_pvh),
    };
    return cmocka_run_group_tests_name("loader_multiboot", tests, NULL, NULL);
}
