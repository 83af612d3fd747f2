/* patchc/linux_tables.c: the tables by which a Linux kernel finds its own code. */
#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/linux_tables.h"
#include "tests/linux_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* after image/error.h: it defines fail() as a macro */

#define TEXT LINUX_IMAGE_TEXT

/* Synthetic code: one of each instruction that a table names, at known offsets. */
enum {
    AT_UD2 = 0x00,
    AT_CALL = 0x10, /* e8, to AT_TRAMPOLINE */
    AT_JUMP = 0x20, /* e9, to AT_TRAMPOLINE */
    AT_LOCK = 0x30,
    AT_NOP2 = 0x40,
    AT_NOP5 = 0x48,
    AT_SHORT = 0x50,      /* eb 06: to AT_SHORT + 8 */
    AT_LONG = 0x60,       /* e9 0b: to AT_LONG + 16 */
    AT_CS_CALL = 0x78,    /* 2e e8 */
    AT_JCC = 0x88,        /* 0f 85 rel32 */
    AT_PLAIN = 0x98,      /* nothing that a table names */
    AT_TRAMPOLINE = 0xa0, /* jmp; ud1 with 0xcc: a static call's trampoline */
    AT_CALLS = 0xb0,      /* 32 calls of 5 bytes to the first of them */
    AT_NOPS = 0x160,      /* 32 jump labels of 2 bytes */
    TEXT_SIZE = 0x1b0,
};

static uint8_t text[TEXT_SIZE];
static const char banner[] = "Linux version 6.1.0-test (builder@host)";

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void put_branch(unsigned at, const char *opcode, unsigned opcode_size, unsigned target)
{
    memcpy(text + at, opcode, opcode_size);
    put32(text + at + opcode_size, target - (at + opcode_size + 4));
}

static int make_text(void **state)
{
    (void)state;
    memset(text, 0x90, sizeof text);
    memcpy(text + AT_UD2, "\x0f\x0b", 2);
    put_branch(AT_CALL, "\xe8", 1, AT_TRAMPOLINE);
    put_branch(AT_JUMP, "\xe9", 1, AT_TRAMPOLINE);
    text[AT_LOCK] = 0xf0;
    memcpy(text + AT_NOP2, "\x66\x90", 2);
    memcpy(text + AT_NOP5, "\x0f\x1f\x44\x00\x00", 5);
    memcpy(text + AT_SHORT, "\xeb\x06", 2);
    put_branch(AT_LONG, "\xe9", 1, AT_LONG + 16);
    put_branch(AT_CS_CALL, "\x2e\xe8", 2, AT_PLAIN);
    put_branch(AT_JCC, "\x0f\x85", 2, AT_PLAIN);
    put_branch(AT_TRAMPOLINE, "\xe9", 1, AT_PLAIN);
    memcpy(text + AT_TRAMPOLINE + 5, "\x0f\xb9\xcc", 3);
    for (unsigned i = 0; i < 32; i++) {
        put_branch(AT_CALLS + 5 * i, "\xe8", 1, AT_TRAMPOLINE);
        memcpy(text + AT_NOPS + 2 * i, "\x66\x90", 2);
    }
    return 0;
}

/* An image with that text and a banner; sections are added, then it is opened. */
struct setup {
    struct linux_image li;
    uint8_t *bytes;
    struct image image;
    struct linux_tables tables;
    struct error err;
};

static void setup_begin(struct setup *s)
{
    memset(s, 0, sizeof *s);
    linux_image_add(&s->li, ".text", SHF_EXECINSTR, text, sizeof text);
    linux_image_add(&s->li, ".rodata", 0, banner, sizeof banner);
}

/* What linux_tables_read returns. */
static int setup_read(struct setup *s)
{
    size_t size;
    s->bytes = linux_image_build(&s->li, &size);
    if (image_from_memory("synthetic", s->bytes, size, &s->image, &s->err))
        fail_msg("%s", s->err.text);
    return linux_tables_read(&s->image, &s->tables, &s->err);
}

static void setup_end(struct setup *s)
{
    linux_tables_close(&s->tables);
    image_close(&s->image);
    free(s->bytes);
}

/* Writes at `at` the s32 that names `address` from there; `base` is the guest-linear address of
 * `table`. */
static void name(uint8_t *table, uint64_t base, size_t at, uint64_t address)
{
    put32(table + at, (uint32_t)(address - (base + at)));
}

/* The address of the next section to be added. */
static uint64_t next(const struct setup *s)
{
    return linux_image_address(s->li.section_count);
}

/* A section of s32 that name these text offsets; `list` must stay until the image is built. */
static uint64_t add_list(struct setup *s, const char *section, uint8_t *list, const int *offsets,
                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        name(list, next(s), 4 * i, TEXT + (uint64_t)offsets[i]);
    return linux_image_add(&s->li, section, 0, list, 4 * count);
}

static void expect_failure(struct setup *s, const char *table, const char *reason)
{
    assert_int_equal(setup_read(s), -1);
    assert_int_equal(s->err.code, EXIT_INPUT);
    if (!strstr(s->err.text, table) || !strstr(s->err.text, reason) ||
        !strstr(s->err.text, "synthetic"))
        fail_msg("not about %s, %s: %s", table, reason, s->err.text);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
        assert_null(s->tables.table[kind].entries);
    setup_end(s);
}

static void test_another_image_has_no_tables(void **state)
{
    (void)state;
    struct setup s = {0};
    linux_image_add(&s.li, ".text", SHF_EXECINSTR, text, sizeof text);
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
    uint64_t base = next(&s);
    const uint64_t offsets[] = {AT_PLAIN, AT_UD2, AT_LOCK};
    for (size_t i = 0; i < 3; i++) {
        name(ex, base, 12 * i, TEXT + offsets[i]);
        name(ex, base, 12 * i + 4, TEXT + AT_NOP2 + i);
        put32(ex + 12 * i + 8, (uint32_t)i + 3);
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
        name(ex, next(&s), 4 * i, TEXT + i);
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
        name(ex, next(&s), 0, i % 2 ? TEXT : wrong[i / 2]);
        name(ex, next(&s), 4, i % 2 ? wrong[i / 2] : TEXT);
        linux_image_add(&s.li, "__ex_table", 0, ex, sizeof ex);
        expect_failure(&s, "__ex_table", i % 2 ? "fixup" : "instruction");
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
        expect_failure(&s, names[i], "entries");
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
            name(bugs, next(&s), at, TEXT + AT_UD2);
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
    name(bug, next(&s), 0, TEXT + AT_PLAIN);
    linux_image_add(&s.li, "__bug_table", 0, bug, sizeof bug);
    expect_failure(&s, "__bug_table", "UD2");
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
            name(alternatives, next(&s), i * size, TEXT + 8 * i);
            name(alternatives, next(&s), i * size + 4, other + 8 - i);
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
        name(entry, next(&s), 0, TEXT + (uint64_t)cases[i].offset);
        name(entry, next(&s), 4, TEXT + (uint64_t)cases[i].replacement);
        entry[10] = (uint8_t)cases[i].length;
        entry[11] = (uint8_t)cases[i].replacement_length;
        linux_image_add(&s.li, ".altinstructions", 0, entry, sizeof entry);
        expect_failure(&s, ".altinstructions", cases[i].reason);
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
    expect_failure(&s, ".parainstructions", "executable");
}

static void test_sites_are_lists_of_branches(void **state)
{
    (void)state;
    struct setup s;
    uint8_t retpolines[16], returns[8], locks[64] = {0};
    setup_begin(&s);
    add_list(&s, ".retpoline_sites", retpolines,
             (const int[]){AT_CALL, AT_JUMP, AT_CS_CALL, AT_JCC}, 4);
    add_list(&s, ".return_sites", returns, (const int[]){AT_LONG, AT_JUMP}, 2);
    for (size_t i = 0; i < 2; i++)
        name(locks, next(&s), 4 * i, TEXT + AT_LOCK);
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
        add_list(&s, cases[i].section, list, &cases[i].at, 1);
        expect_failure(&s, cases[i].section, cases[i].reason);
    }
}

static void test_zero_inside_the_locks_is_no_padding(void **state)
{
    (void)state;
    struct setup s;
    uint8_t locks[12] = {0};
    setup_begin(&s);
    name(locks, next(&s), 0, TEXT + AT_LOCK);
    name(locks, next(&s), 8, TEXT + AT_LOCK);
    linux_image_add(&s.li, ".smp_locks", 0, locks, sizeof locks);
    expect_failure(&s, ".smp_locks", "entry 1");
}

/* The three tables inside .data, with a stop symbol each. */
struct merged {
    uint8_t bytes[4096];
    uint64_t jump, calls, mcount, mcount_end;
};

static void merged_fill(struct merged *m, uint64_t base)
{
    static const int labels[][2] = {{AT_NOP2, AT_PLAIN},
                                    {AT_NOP5, AT_PLAIN},
                                    {AT_SHORT, AT_SHORT + 8},
                                    {AT_LONG, AT_LONG + 16}};
    memset(m, 0, sizeof *m);
    size_t at = 64;
    m->jump = base + at;
    for (size_t i = 0; i < 36; i++, at += 16) {
        int code = i < 4 ? labels[i][0] : AT_NOPS + 2 * ((int)i - 4);
        name(m->bytes, base, at, TEXT + (uint64_t)code);
        name(m->bytes, base, at + 4, TEXT + (uint64_t)(i < 4 ? labels[i][1] : AT_PLAIN));
        put32(m->bytes + at + 8, 16); /* a key behind the entry */
    }
    m->calls = base + at;
    for (size_t i = 0; i < 32; i++, at += 8) {
        name(m->bytes, base, at, TEXT + AT_CALLS + 5 * i);
        name(m->bytes, base, at + 4, base + 8);
    }
    at += 64;
    m->mcount = base + at;
    for (size_t i = 0; i < 32; i++, at += 8) {
        uint64_t address = TEXT + AT_CALLS + 5 * i;
        memcpy(m->bytes + at, &address, 8);
    }
    m->mcount_end = base + at;
}

static void merged_symbols(struct setup *s, const struct merged *m)
{
    linux_image_symbol(&s->li, "__start___jump_table", m->jump);
    linux_image_symbol(&s->li, "__stop___jump_table", m->calls);
    linux_image_symbol(&s->li, "__start_static_call_sites", m->calls);
    linux_image_symbol(&s->li, "__stop_static_call_sites", m->calls + 32 * 8);
    linux_image_symbol(&s->li, "__start_mcount_loc", m->mcount);
    linux_image_symbol(&s->li, "__stop_mcount_loc", m->mcount_end);
}

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
    merged_fill(&m, next(&s));
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
        merged_fill(&m, next(&s));
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
    merged_fill(&m, next(&s));
    linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
    merged_fill(&n, next(&s));
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
        merged_fill(&m, next(&s));
        merged_symbols(&s, &m);
        name(m.bytes, next(&s), cases[i].at, TEXT + (uint64_t)cases[i].offset);
        linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
        expect_failure(&s, cases[i].table, cases[i].reason);
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
        merged_fill(&m, next(&s));
        linux_image_symbol(&s.li, "__start_mcount_loc", TEXT + bounds[i][0]);
        linux_image_symbol(&s.li, "__stop_mcount_loc", TEXT + bounds[i][1]);
        linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
        expect_failure(&s, "__mcount_loc", "not a table");
    }
}

static void test_unknown_sections_of_code_addresses_are_pinned(void **state)
{
    (void)state;
    struct setup s;
    uint8_t seal[8], fresh[12], mixed[8], calls[4];
    setup_begin(&s);
    uint64_t first = add_list(&s, ".ibt_endbr_seal", seal, (const int[]){AT_PLAIN, AT_CALL}, 2);
    add_list(&s, ".never_seen", fresh, (const int[]){AT_JUMP, AT_LOCK, AT_UD2}, 3);
    add_list(&s, ".never_seen_either", mixed, (const int[]){AT_JUMP, TEXT_SIZE}, 2);
    uint64_t last = add_list(&s, ".call_sites", calls, (const int[]){AT_CALL}, 1);
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
    add_list(&s, ".smp_locks", list, offsets, COUNT);
    assert_int_equal(setup_read(&s), 0);
    const struct linux_table *table = &s.tables.table[LINUX_SMP_LOCKS];
    assert_int_equal(table->count, COUNT);
    for (size_t i = 1; i < COUNT; i++) {
        uint32_t a = table->by_address[i - 1], b = table->by_address[i];
        assert_true(table->entries[a].address < table->entries[b].address ||
                    (table->entries[a].address == table->entries[b].address && a < b));
    }
    setup_end(&s);
    free(list);
    free(offsets);
}

/* A set of the text offsets told. */
static void collect(void *context, uint64_t address)
{
    uint8_t *set = context;
    assert_true(address >= TEXT && address < TEXT + TEXT_SIZE);
    set[address - TEXT] = 1;
}

static void test_targets_are_told_from_tables_symbols_and_relocations(void **state)
{
    (void)state;
    struct setup s;
    struct merged m;
    uint8_t ex[12] = {0}, bug[12] = {0}, paravirt[16] = {0}, pointers[16] = {0};
    uint8_t set[TEXT_SIZE] = {0}, expected[TEXT_SIZE] = {0};
    setup_begin(&s);
    name(ex, next(&s), 0, TEXT + 0x11);
    name(ex, next(&s), 4, TEXT + 0x12);
    linux_image_add(&s.li, "__ex_table", 0, ex, sizeof ex);
    name(bug, next(&s), 0, TEXT + AT_UD2);
    linux_image_add(&s.li, "__bug_table", 0, bug, sizeof bug);
    memcpy(paravirt, &(uint64_t){TEXT + 0x33}, 8);
    paravirt[9] = 5;
    uint64_t para = linux_image_add(&s.li, ".parainstructions", 0, paravirt, sizeof paravirt);
    merged_fill(&m, next(&s));
    merged_symbols(&s, &m);
    linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
    memcpy(pointers, &(uint64_t){TEXT + 0x35}, 8);
    put32(pointers + 8, (uint32_t)(TEXT + 0x36));
    put32(pointers + 12, (uint32_t)linux_image_address(1)); /* data */
    uint64_t list = linux_image_add(&s.li, ".apicdrivers", 0, pointers, sizeof pointers);
    linux_image_symbol(&s.li, "function", TEXT + 0x99);
    uint32_t trailer[] = {0,
                          (uint32_t)para,
                          (uint32_t)list,
                          (uint32_t)m.mcount,
                          0, /* no inverse ones */
                          (uint32_t)(TEXT + AT_CALL),
                          0,
                          (uint32_t)list + 8,
                          (uint32_t)list + 12};
    s.li.trailer = trailer;
    s.li.trailer_size = sizeof trailer;
    assert_int_equal(setup_read(&s), 0);
    struct relocs relocs;
    if (relocs_read(&s.image, &relocs, &s.err))
        fail_msg("%s", s.err.text);
    assert_true(relocs.present);
    assert_int_equal(linux_tables_targets(&s.tables, &s.image, &relocs, collect, set), 0);
    expected[0x12] = expected[AT_UD2 + 2] = expected[0x35] = expected[0x36] = expected[0x99] = 1;
    expected[AT_PLAIN] = expected[AT_NOP2 + 2] = expected[AT_NOP5 + 5] = 1;
    expected[AT_SHORT + 2] = expected[AT_SHORT + 8] = 1;
    expected[AT_LONG + 5] = expected[AT_LONG + 16] = 1;
    for (size_t i = 0; i < 32; i++)
        expected[AT_NOPS + 2 * i + 2] = 1;
    assert_memory_equal(set, expected, sizeof set);
    setup_end(&s);
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
        cmocka_unit_test(test_merged_tables_are_found_by_symbol),
        cmocka_unit_test(test_merged_tables_are_found_without_symbols),
        cmocka_unit_test(test_what_cannot_be_found_is_unknown),
        cmocka_unit_test(test_with_data_symbols_a_table_without_one_is_absent),
        cmocka_unit_test(test_merged_tables_with_wrong_entries_are_refused),
        cmocka_unit_test(test_hostile_bounds_are_refused),
        cmocka_unit_test(test_unknown_sections_of_code_addresses_are_pinned),
        cmocka_unit_test(test_large_unsorted_tables_are_ordered),
        cmocka_unit_test(test_targets_are_told_from_tables_symbols_and_relocations),
        cmocka_unit_test(test_cloud_kernel_has_its_tables),
        cmocka_unit_test(test_generic_kernel_has_its_tables),
    };
    return cmocka_run_group_tests(tests, make_text, NULL);
}
