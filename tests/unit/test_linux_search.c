/* SPDX-License-Identifier: MIT */
/* patchc/linux_search.c: tables found by symbol, by content, or by no known name. */
#include <stdlib.h>
#include <string.h>

#include "linux_setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* after image/error.h: it defines fail() as a macro */

static void merged_check(const struct setup *s, const struct merged *m, bool by_content)
{
    const struct linux_table *table = &s->tables.table[LINUX_JUMP_TABLE];
    assert_int_equal(table->start, m->jump);
    assert_int_equal(table->end, m->calls);
    assert_int_equal(table->count, 36);
    assert_int_equal(table->by_content, by_content);
    static const unsigned lengths[] = {2, 5, 2, 5};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(table->entries[i].length, lengths[i]);
    assert_int_equal(table->entries[3].second, TEXT + AT_LONG + 16);
    table = &s->tables.table[LINUX_STATIC_CALLS];
    assert_int_equal(table->start, m->calls);
    assert_int_equal(table->count, 32);
    assert_int_equal(table->by_content, by_content);
    table = &s->tables.table[LINUX_MCOUNT];
    assert_int_equal(table->start, m->mcount);
    assert_int_equal(table->end, m->mcount_end);
    assert_int_equal(table->count, 32);
    assert_int_equal(table->entries[31].address, TEXT + AT_CALLS + 5 * 31);
    assert_int_equal(table->by_content, by_content);
}

static void test_merged_tables_are_found_by_symbol(void **state)
{
    (void)state;
    struct setup s;
    struct merged m;
    setup_begin(&s);
    merged_fill(&m, setup_next(&s));
    merged_symbols(&s, &m);
    linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
    assert_int_equal(setup_read(&s), 0);
    merged_check(&s, &m, false);
    setup_end(&s);
}

static void test_merged_tables_are_found_without_symbols(void **state)
{
    (void)state;
    for (int headerless = 0; headerless < 2; headerless++) {
        struct setup s;
        struct merged m;
        setup_begin(&s);
        s.li.headerless = headerless;
        merged_fill(&m, setup_next(&s));
        linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
        assert_int_equal(setup_read(&s), 0);
        merged_check(&s, &m, true);
        assert_int_equal(s.tables.table[LINUX_RETURN_SITES].unknown, headerless);
        setup_end(&s);
    }
}

/* Two candidates, or none: the reader says that it does not know. */
static void test_what_cannot_be_found_is_unknown(void **state)
{
    (void)state;
    struct setup s;
    struct merged m, n;
    setup_begin(&s);
    merged_fill(&m, setup_next(&s));
    linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
    merged_fill(&n, setup_next(&s));
    linux_image_add(&s.li, ".init.data", SHF_WRITE, n.bytes, sizeof n.bytes);
    assert_int_equal(setup_read(&s), 0);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        bool merged =
            kind == LINUX_JUMP_TABLE || kind == LINUX_STATIC_CALLS || kind == LINUX_MCOUNT;
        assert_int_equal(s.tables.table[kind].unknown, merged);
        assert_int_equal(s.tables.table[kind].count, 0);
    }
    setup_end(&s);
}

/* The linker script's symbols of data are there, these are not: the kernel has no such table. */
static void test_with_data_symbols_a_table_without_one_is_absent(void **state)
{
    (void)state;
    struct setup s;
    setup_begin(&s);
    linux_image_symbol(&s.li, "__start_rodata", linux_image_address(1));
    assert_int_equal(setup_read(&s), 0);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        assert_false(s.tables.table[kind].unknown);
        assert_int_equal(s.tables.table[kind].count, 0);
    }
    setup_end(&s);
}

static void test_merged_tables_with_wrong_entries_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *table, *reason;
        size_t at; /* in .data */
        int offset;
    } cases[] = {
        {"__jump_table", "NOP", 64, AT_PLAIN},
        {"__jump_table", "executable", 64, -1},
        {"__jump_table", "target", 64 + 4, TEXT_SIZE},
        {"__jump_table", "elsewhere", 64 + 36, AT_PLAIN},
        {".static_call_sites", "branch", 64 + 36 * 16, AT_PLAIN},
        {".static_call_sites", "no call", 64 + 36 * 16, AT_CS_CALL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct setup s;
        struct merged m;
        setup_begin(&s);
        merged_fill(&m, setup_next(&s));
        merged_symbols(&s, &m);
        setup_name(m.bytes, setup_next(&s), cases[i].at, TEXT + (uint64_t)cases[i].offset);
        linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
        setup_expect_failure(&s, cases[i].table, cases[i].reason);
    }
}

/* Symbols are input, too: bounds that run backwards, or out of the image. */
static void test_hostile_bounds_are_refused(void **state)
{
    (void)state;
    static const uint64_t bounds[][2] = {
        {0x20010, 0x20000}, {0x20000, 0x30000}, {0x20000, UINT64_MAX - TEXT},
        {0x70000, 0x80000}, {0x20000, 0x20007}, {UINT64_MAX - TEXT - 7, 8},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        struct setup s;
        struct merged m;
        setup_begin(&s);
        merged_fill(&m, setup_next(&s));
        linux_image_symbol(&s.li, "__start_mcount_loc", TEXT + bounds[i][0]);
        linux_image_symbol(&s.li, "__stop_mcount_loc", TEXT + bounds[i][1]);
        linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
        setup_expect_failure(&s, "__mcount_loc", "not a table");
    }
}

static void test_unknown_sections_of_code_addresses_are_pinned(void **state)
{
    (void)state;
    struct setup s;
    uint8_t seal[8], fresh[12], mixed[8], calls[4];
    setup_begin(&s);
    uint64_t first = setup_list(&s, ".ibt_endbr_seal", seal, (const int[]){AT_PLAIN, AT_CALL}, 2);
    setup_list(&s, ".never_seen", fresh, (const int[]){AT_JUMP, AT_LOCK, AT_UD2}, 3);
    setup_list(&s, ".never_seen_either", mixed, (const int[]){AT_JUMP, TEXT_SIZE}, 2);
    uint64_t last = setup_list(&s, ".call_sites", calls, (const int[]){AT_CALL}, 1);
    assert_int_equal(setup_read(&s), 0);
    const struct linux_table *table = &s.tables.table[LINUX_PINNED];
    assert_int_equal(table->count, 6);
    assert_int_equal(table->start, first);
    assert_int_equal(table->end, last + 4);
    assert_int_equal(table->entries[2].address, TEXT + AT_JUMP);
    assert_int_equal(table->entries[5].slot, last);
    size_t position;
    assert_int_equal(linux_table_range(table, TEXT + AT_CALL, TEXT + AT_CALL + 1, &position), 2);
    assert_int_equal(table->entries[table->by_address[0]].address, TEXT + AT_UD2);
    setup_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merged_tables_are_found_by_symbol),
        cmocka_unit_test(test_merged_tables_are_found_without_symbols),
        cmocka_unit_test(test_what_cannot_be_found_is_unknown),
        cmocka_unit_test(test_with_data_symbols_a_table_without_one_is_absent),
        cmocka_unit_test(test_merged_tables_with_wrong_entries_are_refused),
        cmocka_unit_test(test_hostile_bounds_are_refused),
        cmocka_unit_test(test_unknown_sections_of_code_addresses_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
