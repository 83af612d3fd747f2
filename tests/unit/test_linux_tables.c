/* SPDX-License-Identifier: MIT */
/* patchc/linux_tables.c: the tables that are sections, synthetic ones and Debian's kernels'. */
#include <stdlib.h>
#include <string.h>

#include "linux_setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* after image/error.h: it defines fail() as a macro */

static void test_another_image_has_no_tables(void **state)
{
    (void)state;
    struct setup s = {0};
    linux_image_add(&s.li, ".text", SHF_EXECINSTR, "\x90", 1);
    linux_image_add(&s.li, "__ex_table", 0, "nonsense", 8);
    assert_int_equal(setup_read(&s), 0);
    assert_false(s.tables.present);
    assert_int_equal(s.tables.table[LINUX_EX_TABLE].count, 0);
    setup_end(&s);
}

static void test_exception_entries_are_addresses(void **state)
{
    (void)state;
    struct setup s;
    uint8_t ex[36] = {0};
    setup_begin(&s);
    uint64_t base = setup_next(&s);
    const uint64_t offsets[] = {AT_PLAIN, AT_UD2, AT_LOCK};
    for (size_t i = 0; i < 3; i++) {
        setup_name(ex, base, 12 * i, TEXT + offsets[i]);
        setup_name(ex, base, 12 * i + 4, TEXT + AT_NOP2 + i);
        setup_put32(ex + 12 * i + 8, (uint32_t)i + 3);
    }
    linux_image_add(&s.li, "__ex_table", 0, ex, sizeof ex);
    assert_int_equal(setup_read(&s), 0);
    assert_true(s.tables.present);
    assert_false(s.tables.ex_handlers);
    const struct linux_table *table = &s.tables.table[LINUX_EX_TABLE];
    assert_int_equal(table->count, 3);
    assert_int_equal(table->entry_size, 12);
    assert_int_equal(table->start, base);
    assert_int_equal(table->end, base + 36);
    assert_int_equal(table->entries[1].slot, base + 12);
    assert_int_equal(table->entries[1].address, TEXT + AT_UD2);
    assert_int_equal(table->entries[1].second, TEXT + AT_NOP2 + 1);
    assert_int_equal(table->entries[1].data, 4);
    /* by address: UD2, LOCK, PLAIN */
    assert_int_equal(table->by_address[0], 1);
    assert_int_equal(table->by_address[1], 2);
    assert_int_equal(table->by_address[2], 0);
    size_t first;
    assert_int_equal(linux_table_range(table, TEXT, TEXT + TEXT_SIZE, &first), 3);
    assert_int_equal(linux_table_range(table, TEXT + AT_LOCK, TEXT + AT_LOCK + 1, &first), 1);
    assert_int_equal(first, 1);
    assert_int_equal(linux_table_range(table, TEXT + AT_LOCK, TEXT + AT_LOCK, &first), 0);
    assert_int_equal(linux_table_range(table, TEXT + AT_LOCK + 1, TEXT + AT_LOCK, &first), 0);
    assert_int_equal(linux_table_range(table, TEXT + AT_LOCK + 1, TEXT + AT_PLAIN, &first), 0);
    setup_end(&s);
}

static void test_exception_handlers_of_old_kernels_are_noticed(void **state)
{
    (void)state;
    struct setup s;
    uint8_t ex[24];
    setup_begin(&s);
    for (size_t i = 0; i < 6; i++)
        setup_name(ex, setup_next(&s), 4 * i, TEXT + i);
    linux_image_add(&s.li, "__ex_table", 0, ex, sizeof ex);
    assert_int_equal(setup_read(&s), 0);
    assert_true(s.tables.ex_handlers);
    setup_end(&s);
}

static void test_exception_entries_outside_text_are_refused(void **state)
{
    (void)state;
    const uint64_t wrong[] = {TEXT - 1, TEXT + TEXT_SIZE, linux_image_address(1), 0};
    for (size_t i = 0; i < 8; i++) {
        struct setup s;
        uint8_t ex[12] = {0};
        setup_begin(&s);
        setup_name(ex, setup_next(&s), 0, i % 2 ? TEXT : wrong[i / 2]);
        setup_name(ex, setup_next(&s), 4, i % 2 ? wrong[i / 2] : TEXT);
        linux_image_add(&s.li, "__ex_table", 0, ex, sizeof ex);
        setup_expect_failure(&s, "__ex_table", i % 2 ? "fixup" : "instruction");
    }
}

static void test_a_size_that_is_no_multiple_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"__ex_table",        "__bug_table",   ".altinstructions",
                                        ".parainstructions", ".return_sites", ".smp_locks"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct setup s;
        uint8_t bytes[19] = {1};
        setup_begin(&s);
        linux_image_add(&s.li, names[i], 0, bytes, sizeof bytes);
        setup_expect_failure(&s, names[i], "entries");
    }
}

static void test_bug_entries_of_each_kernel_version_are_read(void **state)
{
    (void)state;
    static const struct {
        size_t size, flags;
    } versions[] = {{12, 10}, {8, 4}, {16, 14}};
    for (size_t v = 0; v < 3; v++) {
        struct setup s;
        uint8_t bugs[16 * 6] = {0};
        size_t size = versions[v].size, bytes = size == 8 ? 80 : size * 5;
        setup_begin(&s);
        for (size_t at = 0; at < bytes; at += size) {
            setup_name(bugs, setup_next(&s), at, TEXT + AT_UD2);
            bugs[at + versions[v].flags] = 9;
        }
        linux_image_add(&s.li, "__bug_table", 0, bugs, bytes);
        assert_int_equal(setup_read(&s), 0);
        const struct linux_table *table = &s.tables.table[LINUX_BUG_TABLE];
        assert_int_equal(table->entry_size, size);
        assert_int_equal(table->count, bytes / size);
        for (size_t i = 0; i < table->count; i++) {
            assert_int_equal(table->entries[i].address, TEXT + AT_UD2);
            assert_int_equal(table->entries[i].data, 9);
        }
        setup_end(&s);
    }
}

static void test_a_bug_without_ud2_is_refused(void **state)
{
    (void)state;
    struct setup s;
    uint8_t bug[12] = {0};
    setup_begin(&s);
    setup_name(bug, setup_next(&s), 0, TEXT + AT_PLAIN);
    linux_image_add(&s.li, "__bug_table", 0, bug, sizeof bug);
    setup_expect_failure(&s, "__bug_table", "UD2");
}

static void test_alternatives_of_each_kernel_version_are_read(void **state)
{
    (void)state;
    static const size_t sizes[] = {12, 14, 13};
    for (size_t v = 0; v < 3; v++) {
        struct setup s;
        uint8_t alternatives[14 * 5] = {0}, replacement[8] = {0};
        size_t size = sizes[v], lengths = size == 14 ? 12 : 10;
        setup_begin(&s);
        uint64_t other = linux_image_add(&s.li, ".altinstr_replacement", SHF_EXECINSTR, replacement,
                                         sizeof replacement);
        for (size_t i = 0; i < 5; i++) {
            uint8_t *entry = alternatives + i * size;
            setup_name(alternatives, setup_next(&s), i * size, TEXT + 8 * i);
            setup_name(alternatives, setup_next(&s), i * size + 4, other + 8 - i);
            entry[8] = (uint8_t)(0x70 + i);
            entry[9] = 0x80;
            entry[lengths] = 6;
            entry[lengths + 1] = (uint8_t)i; /* the first has none: its address is the end */
        }
        linux_image_add(&s.li, ".altinstructions", 0, alternatives, 5 * size);
        assert_int_equal(setup_read(&s), 0);
        const struct linux_table *table = &s.tables.table[LINUX_ALTERNATIVES];
        assert_int_equal(table->entry_size, size);
        assert_int_equal(table->count, 5);
        assert_int_equal(table->entries[4].address, TEXT + 32);
        assert_int_equal(table->entries[4].second, other + 4);
        assert_int_equal(table->entries[4].length, 6);
        assert_int_equal(table->entries[4].extra, 4);
        assert_int_equal(table->entries[4].data, 0x8074);
        setup_end(&s);
    }
}

static void test_alternatives_that_leave_their_section_are_refused(void **state)
{
    (void)state;
    static const struct {
        int offset, length, replacement, replacement_length;
        const char *reason;
    } cases[] = {
        {TEXT_SIZE - 4, 5, 0, 1, "instructions"},
        {0, 5, TEXT_SIZE - 2, 3, "replacement"},
        {0, 5, 0x12345678, 1, "replacement"},
        {0, 2, 0, 3, "longer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct setup s;
        uint8_t entry[12] = {0};
        setup_begin(&s);
        setup_name(entry, setup_next(&s), 0, TEXT + (uint64_t)cases[i].offset);
        setup_name(entry, setup_next(&s), 4, TEXT + (uint64_t)cases[i].replacement);
        entry[10] = (uint8_t)cases[i].length;
        entry[11] = (uint8_t)cases[i].replacement_length;
        linux_image_add(&s.li, ".altinstructions", 0, entry, sizeof entry);
        setup_expect_failure(&s, ".altinstructions", cases[i].reason);
    }
}

static void test_paravirt_entries_are_absolute(void **state)
{
    (void)state;
    struct setup s;
    uint8_t entry[16] = {0};
    uint64_t address = TEXT + AT_CALL;
    memcpy(entry, &address, 8);
    entry[8] = 30;
    entry[9] = 6;
    setup_begin(&s);
    linux_image_add(&s.li, ".parainstructions", 0, entry, sizeof entry);
    assert_int_equal(setup_read(&s), 0);
    assert_int_equal(s.tables.table[LINUX_PARAVIRT].entries[0].address, address);
    assert_int_equal(s.tables.table[LINUX_PARAVIRT].entries[0].length, 6);
    assert_int_equal(s.tables.table[LINUX_PARAVIRT].entries[0].data, 30);
    setup_end(&s);
    entry[9] = 0xff;
    address = TEXT + TEXT_SIZE - 8;
    memcpy(entry, &address, 8);
    setup_begin(&s);
    linux_image_add(&s.li, ".parainstructions", 0, entry, sizeof entry);
    setup_expect_failure(&s, ".parainstructions", "executable");
}

static void test_sites_are_lists_of_branches(void **state)
{
    (void)state;
    struct setup s;
    uint8_t retpolines[16], returns[8], locks[64] = {0};
    setup_begin(&s);
    setup_list(&s, ".retpoline_sites", retpolines,
               (const int[]){AT_CALL, AT_JUMP, AT_CS_CALL, AT_JCC}, 4);
    setup_list(&s, ".return_sites", returns, (const int[]){AT_LONG, AT_JUMP}, 2);
    for (size_t i = 0; i < 2; i++)
        setup_name(locks, setup_next(&s), 4 * i, TEXT + AT_LOCK);
    linux_image_add(&s.li, ".smp_locks", 0, locks, sizeof locks); /* the rest is padding */
    assert_int_equal(setup_read(&s), 0);
    const struct linux_table *table = &s.tables.table[LINUX_RETPOLINE_SITES];
    assert_int_equal(table->count, 4);
    assert_int_equal(table->entries[0].length, 5);
    assert_int_equal(table->entries[2].length, 6);
    assert_int_equal(table->entries[3].length, 6);
    table = &s.tables.table[LINUX_RETURN_SITES];
    assert_int_equal(table->count, 2);
    assert_int_equal(table->by_address[0], 1);
    table = &s.tables.table[LINUX_SMP_LOCKS];
    assert_int_equal(table->count, 2);
    assert_int_equal(table->end - table->start, sizeof locks);
    setup_end(&s);
}

static void test_sites_that_name_other_code_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *section;
        int at;
        const char *reason;
    } cases[] = {
        {".retpoline_sites", AT_PLAIN, "branch"},
        {".retpoline_sites", TEXT_SIZE, "executable"},
        {".return_sites", AT_CALL, "jump"},
        {".return_sites", AT_PLAIN, "branch"},
        {".return_sites", TEXT_SIZE - 2, "branch"},
        {".smp_locks", AT_PLAIN, "LOCK"},
        {".smp_locks", -4, "LOCK"},
        {".call_sites", -4, "executable"},
        {".ibt_endbr_seal", TEXT_SIZE, "executable"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct setup s;
        uint8_t list[12];
        setup_begin(&s);
        setup_list(&s, cases[i].section, list, &cases[i].at, 1);
        setup_expect_failure(&s, cases[i].section, cases[i].reason);
    }
}

static void test_zero_inside_the_locks_is_no_padding(void **state)
{
    (void)state;
    struct setup s;
    uint8_t locks[12] = {0};
    setup_begin(&s);
    setup_name(locks, setup_next(&s), 0, TEXT + AT_LOCK);
    setup_name(locks, setup_next(&s), 8, TEXT + AT_LOCK);
    linux_image_add(&s.li, ".smp_locks", 0, locks, sizeof locks);
    setup_expect_failure(&s, ".smp_locks", "entry 1");
}

static void test_large_unsorted_tables_are_ordered(void **state)
{
    (void)state;
    enum { COUNT = 16000 };
    struct setup s;
    uint8_t *list = malloc(4 * COUNT);
    assert_non_null(list);
    int *offsets = malloc(COUNT * sizeof *offsets);
    assert_non_null(offsets);
    static uint8_t code[0x10000];
    memset(code, 0xf0, sizeof code);
    setup_begin(&s);
    uint64_t base = linux_image_add(&s.li, ".init.text", SHF_EXECINSTR, code, sizeof code);
    uint32_t random = 1;
    for (size_t i = 0; i < COUNT; i++) {
        random = random * 1664525 + 1013904223;
        offsets[i] = (int)(base - TEXT + (random >> 16));
    }
    setup_list(&s, ".smp_locks", list, offsets, COUNT);
    assert_int_equal(setup_read(&s), 0);
    const struct linux_table *table = &s.tables.table[LINUX_SMP_LOCKS];
    assert_int_equal(table->count, COUNT);
    for (size_t i = 1; i < COUNT; i++) {
        uint32_t a = table->by_address[i - 1], b = table->by_address[i];
        uint64_t before = table->entries[a].address, after = table->entries[b].address;
        assert_true(before < after || (before == after && a < b));
    }
    setup_end(&s);
    free(list);
    free(offsets);
}

/* Facts measured on Debian 6.1.192-2, keyed by the bzImage's hash. */
static const struct pinned {
    uint64_t xxh3;
    size_t counts[LINUX_TABLES];
    size_t lock_padding; /* slots */
} pinned[] = {
    {0x04be5ff34bdb4f8c, {532, 8016, 4468, 3679, 7861, 48084, 8927, 5980, 4276, 37697, 0}, 289},
    {0x14baa524f06699f6, {600, 7743, 4667, 3848, 8823, 50858, 8638, 6299, 4085, 40521, 0}, 578},
};

static void check_orders(const struct linux_tables *tables)
{
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        const struct linux_table *table = &tables->table[kind];
        for (size_t i = 1; i < table->count; i++)
            assert_true(table->entries[table->by_address[i - 1]].address <=
                        table->entries[table->by_address[i]].address);
    }
}

/* Without its symbols of data the image must give the same tables. */
static void check_without_data_symbols(struct image *image, const struct linux_tables *with)
{
    size_t kept = 0, count = image->symbol_count;
    struct image_symbol *all = image->symbols;
    struct image_symbol *text_only = calloc(count, sizeof *text_only);
    assert_non_null(text_only);
    for (size_t i = 0; i < count; i++)
        if (strchr("tTwW", all[i].type))
            text_only[kept++] = all[i];
    image->symbols = text_only;
    image->symbol_count = kept;
    struct linux_tables without;
    struct error err = {0};
    if (linux_tables_read(image, &without, &err))
        fail_msg("%s", err.text);
    image->symbols = all;
    image->symbol_count = count;
    free(text_only);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        const struct linux_table *a = &with->table[kind], *b = &without.table[kind];
        assert_false(b->unknown);
        assert_int_equal(a->start, b->start);
        assert_int_equal(a->end, b->end);
        assert_int_equal(a->count, b->count);
    }
    assert_true(without.table[LINUX_MCOUNT].by_content);
    linux_tables_close(&without);
}

static void count_target(void *context, uint64_t address)
{
    (void)address;
    ++*(size_t *)context;
}

static void check_kernel(const char *variable)
{
    const char *path = getenv(variable);
    if (!path) {
        print_message("# %s is not set: no kernel\n", variable);
        skip();
    }
    struct image image;
    struct linux_tables tables;
    struct relocs relocs;
    struct error err = {0};
    size_t targets = 0;
    if (image_open(path, &image, &err) || linux_tables_read(&image, &tables, &err) ||
        relocs_read(&image, &relocs, &err))
        fail_msg("%s", err.text);
    assert_true(tables.present);
    assert_true(tables.orc_ip < tables.orc_ip_end);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        print_message("# %s: %zu\n", linux_table_name(kind), tables.table[kind].count);
        assert_true(kind == LINUX_PINNED || tables.table[kind].count > 100);
        assert_false(tables.table[kind].by_content);
    }
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++) {
        if (image.input_xxh3 != pinned[i].xxh3)
            continue;
        const struct linux_table *locks = &tables.table[LINUX_SMP_LOCKS];
        for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
            assert_int_equal(tables.table[kind].count, pinned[i].counts[kind]);
        assert_int_equal((locks->end - locks->start) / 4 - locks->count, pinned[i].lock_padding);
    }
    check_orders(&tables);
    assert_int_equal(linux_tables_targets(&tables, &image, &relocs, count_target, &targets), 0);
    assert_true(targets > 60000);
    check_without_data_symbols(&image, &tables);
    linux_tables_close(&tables);
    image_close(&image);
}

static void test_cloud_kernel_has_its_tables(void **state)
{
    (void)state;
    check_kernel("PV_KERNEL_CLOUD");
}

static void test_generic_kernel_has_its_tables(void **state)
{
    (void)state;
    check_kernel("PV_KERNEL_GENERIC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_image_has_no_tables),
        cmocka_unit_test(test_exception_entries_are_addresses),
        cmocka_unit_test(test_exception_handlers_of_old_kernels_are_noticed),
        cmocka_unit_test(test_exception_entries_outside_text_are_refused),
        cmocka_unit_test(test_a_size_that_is_no_multiple_is_refused),
        cmocka_unit_test(test_bug_entries_of_each_kernel_version_are_read),
        cmocka_unit_test(test_a_bug_without_ud2_is_refused),
        cmocka_unit_test(test_alternatives_of_each_kernel_version_are_read),
        cmocka_unit_test(test_alternatives_that_leave_their_section_are_refused),
        cmocka_unit_test(test_paravirt_entries_are_absolute),
        cmocka_unit_test(test_sites_are_lists_of_branches),
        cmocka_unit_test(test_sites_that_name_other_code_are_refused),
        cmocka_unit_test(test_zero_inside_the_locks_is_no_padding),
        cmocka_unit_test(test_large_unsorted_tables_are_ordered),
        cmocka_unit_test(test_cloud_kernel_has_its_tables),
        cmocka_unit_test(test_generic_kernel_has_its_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
