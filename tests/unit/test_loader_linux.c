/* SPDX-License-Identifier: MIT */
/* runtime/loader_linux.c: a Linux kernel in memory, and all that it is told. */
#include "runtime/boot.h"
#include "runtime/loader.h"
#include "tests/unit/loader_lab.h"
#include "tests/unit/tiny_bzimage.h"
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char banner[] = "Linux version 6.1.0 (builder@host) (gcc) #1 SMP";

/* A tiny kernel and the guest it goes to. */
struct subject {
    struct loader_lab lab;
    struct tiny tiny;
    struct vm *vm;
    struct vcpu *cpu;
    uint64_t params; /* guest-physical, once loaded */
};

static void setup(struct subject *s, unsigned megabytes)
{
    *s = (struct subject){.params = 0};
    lab_begin(&s->lab, megabytes);
    s->vm = &s->lab.vm;
    s->cpu = s->vm->vcpus[0];
    tiny_build(
        &(struct tiny_options){.elf_class = 64, .rodata = banner, .rodata_size = sizeof banner},
        &s->tiny);
}

static int load_bytes(struct subject *s, const uint8_t *bytes, size_t size)
{
    if (image_from_memory("vmlinux", bytes, size, &s->lab.image, &s->lab.err))
        fail_msg("%s", s->lab.err.text);
    int result = loader_load(s->vm, &s->lab.image, &s->lab.err);
    s->params = s->cpu->r[RSI];
    return result;
}

static void load(struct subject *s)
{
    if (load_bytes(s, s->tiny.bytes, s->tiny.size))
        fail_msg("%s", s->lab.err.text);
}

static void refused(struct subject *s, const char *because)
{
    assert_int_equal(load_bytes(s, s->tiny.bytes, s->tiny.size), -1);
    assert_int_equal(s->lab.err.code, HVRUN_IMAGE);
    assert_true(is_one_line(&s->lab.err));
    if (!strstr(s->lab.err.text, because))
        fail_msg("\"%s\" does not say \"%s\"", s->lab.err.text, because);
}

static void teardown(struct subject *s)
{
    tiny_free(&s->tiny);
    lab_end(&s->lab);
}

static uint64_t param(struct subject *s, unsigned offset, unsigned width)
{
    return lab_number(&s->lab, s->params + offset, width);
}

static uint64_t wide(struct subject *s, unsigned low, unsigned high)
{
    return param(s, low, 4) | param(s, high, 4) << 32;
}

static void test_segments_stand_at_their_physical_addresses(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    uint64_t bss = TINY_PHYSICAL + s.tiny.data_address - TINY_BASE_64 + s.tiny.data_size;
    memset(s.vm->memory.host + bss, 0xaa, s.tiny.bss_size + 1);
    load(&s);
    assert_memory_equal(s.vm->memory.host + TINY_PHYSICAL + s.tiny.text, s.tiny.bytes + s.tiny.text,
                        s.tiny.text_size);
    assert_memory_equal(s.vm->memory.host + bss - s.tiny.data_size, s.tiny.bytes + s.tiny.data,
                        s.tiny.data_size);
    for (uint64_t i = 0; i < s.tiny.bss_size; i++)
        assert_int_equal(s.vm->memory.host[bss + i], 0);
    assert_int_equal(s.vm->memory.host[bss + s.tiny.bss_size], 0xaa);
    teardown(&s);
}

static void test_bzimage_is_loaded_as_its_payload_is(void **state)
{
    (void)state;
    struct subject s;
    size_t packed_size, size;
    setup(&s, 64);
    uint8_t *packed = pack(PACK_LZ4, s.tiny.bytes, s.tiny.size, &packed_size);
    uint8_t *bytes = bzimage_build(packed, packed_size, &size);
    assert_int_equal(load_bytes(&s, bytes, size), 0);
    assert_int_equal(s.cpu->rip, TINY_PHYSICAL + s.tiny.text);
    assert_memory_equal(s.vm->memory.host + TINY_PHYSICAL + s.tiny.text, s.tiny.bytes + s.tiny.text,
                        s.tiny.text_size);
    free(packed);
    free(bytes);
    teardown(&s);
}

static void test_processor_is_in_long_mode_at_the_physical_entry(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    load(&s);
    const struct vcpu *cpu = s.cpu;
    assert_int_equal(cpu->rip, TINY_PHYSICAL + s.tiny.text);
    assert_int_equal(cpu->efer, EFER_LME | EFER_LMA);
    assert_int_equal(cpu->cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
    assert_int_equal(cpu->cr4, CR4_PAE);
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_ONE);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x10);
    assert_true(vcpu_code64(cpu));
    for (unsigned i = 0; i < 6; i++)
        if (i != SEG_CS)
            assert_int_equal(cpu->segment[i].selector, 0x18);
    assert_int_equal(cpu->activity, ACTIVITY_ACTIVE);
    /* a reload from the GDT gives the same */
    assert_true(cpu->gdt_limit >= 0x1f);
    assert_int_equal(lab_number(&s.lab, cpu->gdt_base + 0x10, 8), 0x00af9b000000ffff);
    assert_int_equal(lab_number(&s.lab, cpu->gdt_base + 0x18, 8), 0x00cf93000000ffff);
    teardown(&s);
}

static void test_first_4_gb_are_mapped_to_themselves(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    load(&s);
    static const uint64_t linear[] = {0, 0x1000000, 0x7fffffff, 0xfee00000, 0xffffffff};
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
        uint64_t entry = s.cpu->cr3;
        for (int shift = 39; shift > 20; shift -= 9) {
            assert_int_equal(entry & 0xf80, 0);
            entry = lab_number(&s.lab, (entry & ~0xfffull) + (linear[i] >> shift & 511) * 8, 8);
            assert_int_equal(entry & 3, 3);
        }
        assert_int_equal(entry & ~0xfffull, linear[i] & ~0x1fffffull);
        assert_int_equal(entry & 0x80, 0x80);
    }
    teardown(&s);
}

static void test_boot_parameters_have_what_a_boot_loader_writes(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    load(&s);
    assert_int_equal(s.params & 0xfff, 0);
    assert_int_equal(param(&s, 0x1ef, 1), 0); /* sentinel: the structure was cleared */
    assert_int_equal(param(&s, 0x1fe, 2), 0xaa55);
    assert_int_equal(param(&s, 0x202, 4), 0x53726448);
    assert_true(param(&s, 0x206, 2) >= 0x20c);
    assert_int_equal(param(&s, 0x210, 1), 0xff);
    assert_int_equal(param(&s, 0x211, 1), 1);
    assert_memory_equal(lab_string(&s.lab, param(&s, 0x70, 8)), "RSD PTR ", 8);
    assert_int_equal(wide(&s, 0x21c, 0xc4), 0); /* no initrd */
    teardown(&s);
}

static void check_map(unsigned megabytes, unsigned count, uint64_t low, uint64_t high)
{
    struct subject s;
    setup(&s, megabytes);
    load(&s);
    assert_int_equal(param(&s, 0x1e8, 1), count);
    uint64_t before = 0, last = 0x2d0 + (count - 1) * 20;
    for (unsigned i = 0; i < count; i++) {
        uint64_t start = param(&s, 0x2d0 + i * 20, 8), size = param(&s, 0x2d0 + i * 20 + 8, 8);
        assert_true(start >= before && size > 0);
        before = start + size;
    }
    assert_int_equal(param(&s, 0x2d0 + 16, 4), 1);
    assert_int_equal(param(&s, 0x2d0 + 3 * 20, 8), 0x100000);
    assert_int_equal(param(&s, 0x2d0 + 3 * 20 + 8, 8), low - 0x100000);
    assert_int_equal(param(&s, 0x2d0 + 3 * 20 + 16, 4), 1);
    if (high) {
        assert_int_equal(param(&s, last, 8), MEMORY_HIGH);
        assert_int_equal(param(&s, last + 8, 8), high);
    }
    teardown(&s);
}

static void test_memory_map_names_all_ram(void **state)
{
    (void)state;
    check_map(64, 4, 64 << 20, 0);
    check_map(3072, 4, MEMORY_HOLE, 0);
    check_map(4096, 5, MEMORY_HOLE, 1024ull << 20);
}

static void test_command_line_is_the_default_and_what_is_appended(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    load(&s);
    assert_string_equal(lab_string(&s.lab, wide(&s, 0x228, 0xc8)), loader_default_command_line);
    image_close(&s.lab.image);
    s.vm->config.append = "quiet panic=5";
    load(&s);
    char expected[512];
    snprintf(expected, sizeof expected, "%s quiet panic=5", loader_default_command_line);
    assert_string_equal(lab_string(&s.lab, wide(&s, 0x228, 0xc8)), expected);
    assert_non_null(strstr(loader_default_command_line, "console=ttyS0"));
    assert_non_null(strstr(loader_default_command_line, "tsc_early_khz=1000000"));
    teardown(&s);
}

static void test_command_line_may_have_2047_bytes_and_no_more(void **state)
{
    (void)state;
    struct subject s;
    char append[2049] = {0};
    size_t room = 2047 - strlen(loader_default_command_line) - 1;
    setup(&s, 64);
    memset(append, 'x', room);
    s.vm->config.append = append;
    load(&s);
    assert_int_equal(strlen(lab_string(&s.lab, wide(&s, 0x228, 0xc8))), 2047);
    image_close(&s.lab.image);
    append[room] = 'y';
    refused(&s, "--append");
    teardown(&s);
}

static void test_initrd_stands_high_in_memory(void **state)
{
    (void)state;
    struct subject s;
    uint8_t bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = i * 7;
    setup(&s, 64);
    s.vm->config.initrd = lab_file(&s.lab, bytes, sizeof bytes);
    load(&s);
    uint64_t at = wide(&s, 0x218, 0xc0);
    assert_int_equal(wide(&s, 0x21c, 0xc4), sizeof bytes);
    assert_int_equal(at, (64 << 20) - 0x2000);
    assert_memory_equal(s.vm->memory.host + at, bytes, sizeof bytes);
    teardown(&s);
}

static void test_initrd_stays_below_2_gb(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 4096);
    s.vm->config.initrd = lab_file(&s.lab, "x", 1);
    load(&s);
    assert_int_equal(wide(&s, 0x218, 0xc0), 0x80000000 - 0x1000);
    teardown(&s);
}

static void test_initrd_without_room_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 32);
    size_t size = 20 << 20; /* the kernel stands in the middle */
    void *bytes = calloc(1, size);
    s.vm->config.initrd = lab_file(&s.lab, bytes, size);
    refused(&s, "--memory");
    assert_non_null(strstr(s.lab.err.text, s.vm->config.initrd));
    free(bytes);
    teardown(&s);
}

static void test_initrd_that_is_no_file_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 32);
    s.vm->config.initrd = "/nonexistent/initrd";
    refused(&s, "/nonexistent/initrd");
    image_close(&s.lab.image);
    s.lab.err = (struct error){0};
    s.vm->config.initrd = "/tmp";
    refused(&s, "regular");
    image_close(&s.lab.image);
    s.lab.err = (struct error){0};
    s.vm->config.initrd = lab_file(&s.lab, "", 0);
    refused(&s, "empty");
    teardown(&s);
}

static uint64_t seed_byte_sum(struct subject *s, uint8_t seed[32])
{
    uint64_t at = param(s, 0x250, 8), sum = 0;
    assert_true(at != 0);
    assert_int_equal(lab_number(&s->lab, at, 8), 0);     /* the only one */
    assert_int_equal(lab_number(&s->lab, at + 8, 4), 9); /* SETUP_RNG_SEED */
    assert_int_equal(lab_number(&s->lab, at + 12, 4), 32);
    for (unsigned i = 0; i < 32; i++)
        sum += seed[i] = lab_number(&s->lab, at + 16 + i, 1);
    return sum;
}

static void test_random_seed_differs_unless_the_run_is_deterministic(void **state)
{
    (void)state;
    uint8_t seeds[4][32];
    for (unsigned i = 0; i < 4; i++) {
        struct subject s;
        setup(&s, 64);
        s.vm->config.deterministic = i >= 2;
        load(&s);
        assert_true(seed_byte_sum(&s, seeds[i]) > 0);
        teardown(&s);
    }
    assert_memory_not_equal(seeds[0], seeds[1], 32);
    assert_memory_equal(seeds[2], seeds[3], 32);
}

/* The program headers of a tiny kernel: fields of entry `index`. */
enum { P_PADDR = 24, P_MEMSZ = 40, P_ENTRY = 56, E_ENTRY = 24, E_SHOFF = 40 };

static void test_segments_outside_memory_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t paddr, size;
        const char *because;
    } rows[] = {
        {0x4000000, 0x1000, "--memory"},          /* just behind 64 MB */
        {0x3fff000, 0x1001, "--memory"},          /* one byte too long */
        {0xfec00000, 0x1000, "link the kernel"},  /* the hole */
        {0x100000000, 0x1000, "--memory"},        /* above it, where there is none */
        {UINT64_MAX - 0xfff, 0x1000, "--memory"}, /* its end wraps */
        {0xff000, 0x1000, "link the kernel"},     /* below 1 MB */
        {0x1000000, 0x1000, "overlaps"},          /* in the first segment */
        {0x2000000, 0x40000000, "--memory"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct subject s;
        setup(&s, 64);
        uint64_t header = s.tiny.program_headers + P_ENTRY;
        tiny_put(s.tiny.bytes, header + P_PADDR, 8, rows[i].paddr);
        tiny_put(s.tiny.bytes, header + P_MEMSZ, 8, rows[i].size);
        tiny_put(s.tiny.bytes, E_SHOFF, 8, 0); /* sections must lie in segments */
        refused(&s, rows[i].because);
        teardown(&s);
    }
}

static void test_entry_outside_the_segments_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    tiny_put(s.tiny.bytes, E_ENTRY, 8, 0x123);
    refused(&s, "0x123");
    teardown(&s);
}

static void test_linked_entry_is_turned_into_the_physical_one(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 64);
    tiny_put(s.tiny.bytes, E_ENTRY, 8, TINY_BASE_64 + s.tiny.text + 4);
    load(&s);
    assert_int_equal(s.cpu->rip, TINY_PHYSICAL + s.tiny.text + 4);
    image_close(&s.lab.image);
    tiny_put(s.tiny.bytes, E_ENTRY, 8, TINY_PHYSICAL + s.tiny.text + 8);
    load(&s);
    assert_int_equal(s.cpu->rip, TINY_PHYSICAL + s.tiny.text + 8);
    teardown(&s);
}

static void test_tiny_memory_is_refused(void **state)
{
    (void)state;
    struct subject s;
    setup(&s, 1);
    refused(&s, "--memory");
    teardown(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments_stand_at_their_physical_addresses),
        cmocka_unit_test(test_bzimage_is_loaded_as_its_payload_is),
        cmocka_unit_test(test_processor_is_in_long_mode_at_the_physical_entry),
        cmocka_unit_test(test_first_4_gb_are_mapped_to_themselves),
        cmocka_unit_test(test_boot_parameters_have_what_a_boot_loader_writes),
        cmocka_unit_test(test_memory_map_names_all_ram),
        cmocka_unit_test(test_command_line_is_the_default_and_what_is_appended),
        cmocka_unit_test(test_command_line_may_have_2047_bytes_and_no_more),
        cmocka_unit_test(test_initrd_stands_high_in_memory),
        cmocka_unit_test(test_initrd_stays_below_2_gb),
        cmocka_unit_test(test_initrd_without_room_is_refused),
        cmocka_unit_test(test_initrd_that_is_no_file_is_refused),
        cmocka_unit_test(test_random_seed_differs_unless_the_run_is_deterministic),
        cmocka_unit_test(test_segments_outside_memory_are_refused),
        cmocka_unit_test(test_entry_outside_the_segments_is_refused),
        cmocka_unit_test(test_linked_entry_is_turned_into_the_physical_one),
        cmocka_unit_test(test_tiny_memory_is_refused),
    };
    return cmocka_run_group_tests_name("loader_linux", tests, NULL, NULL);
}
