/* SPDX-License-Identifier: MIT */
/* What an instruction list may not be: each error, at its line and column, and the limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Before cmocka.h, which makes `fail` a macro. */
#include "patchc/list.h"
#include "patchc/list_rules.h"

#include <cmocka.h>

static const struct {
    const char *text;
    unsigned line, column;
    const char *message; /* a part of it */
} errors[] = {
    {"inlcude cpuid", 1, 1, "expected include, exclude or @include, not 'inlcude'"},
    {"# fine\n\n  , cpuid", 3, 3, "not ','"},
    {"include", 1, 8, "expected a mnemonic"},
    {"include   # cpuid", 1, 11, "expected a mnemonic"},
    {"include , cpuid", 1, 9, "expected a mnemonic"},
    {"include cpudi", 1, 9, "did you mean 'cpuid'?"},
    {"include rdmsrr", 1, 9, "did you mean 'rdmsr'?"},
    {"include hlt/wrsmr", 1, 13, "did you mean 'wrmsr'?"},
    {"include frobnicate", 1, 9, "unknown mnemonic 'frobnicate'"},
    {"include cli//sti", 1, 13, "expected a mnemonic"},
    {"include cli/", 1, 13, "expected a mnemonic"},
    {"include in*", 1, 9, "'in*': a mnemonic cannot be a pattern"},
    {"include */cpuid", 1, 9, "'*': a mnemonic cannot be a pattern"},
    {"include rd?sr", 1, 9, "a mnemonic cannot be a pattern"},
    {"include mov cr0,", 1, 17, "expected an operand"},
    {"include mov cr0,,rax", 1, 17, "expected an operand"},
    {"include mov , rax", 1, 13, "expected an operand"},
    {"include mov cr0, rxa", 1, 18, "unknown operand 'rxa'"},
    {"include mov cr0/, rax", 1, 17, "expected an operand"},
    {"include mov gpr12, rax", 1, 13, "unknown operand 'gpr12'"},
    {"include mov q*, rax", 1, 13, "unknown operand 'q*'"},
    {"include in al, 0x", 1, 16, "unknown operand '0x'"},
    {"include in al, 18446744073709551616", 1, 16, "unknown operand"},
    {"include mov *,*,*,*,*,*", 1, 23, "no instruction has more than 5 operands"},
    {"include mov cr0 rax", 1, 17, "expected a setting (NAME=VALUE) or the end of the line"},
    {"include mov cr0 section=.text rax", 1, 31, "not 'rax'"},
    {"include cpuid section=.text, symbol=f", 1, 28, "not ','"},
    {"include cpuid section =.text", 1, 23, "no blank may stand before '='"},
    {"include cpuid section= .text", 1, 23, "section= needs a value"},
    {"include cpuid sektion=.text", 1, 15, "unknown setting 'sektion'"},
    {"include cpuid =x", 1, 15, "unknown setting ''"},
    {"include cpuid symbol=a symbol=b", 1, 24, "symbol= is there twice"},
    {"include cpuid port=dx", 1, 20, "only IN, OUT, INS and OUTS have a port"},
    {"include * port=dx", 1, 16, "only IN, OUT, INS and OUTS have a port"},
    {"include in/cpuid port=dx", 1, 23, "only IN, OUT, INS and OUTS have a port"},
    {"include in port=cx", 1, 17, "expected a port: dx, PORT or PORT-PORT, not 'cx'"},
    {"include in port=0x60-", 1, 22, "expected a port"},
    {"include in port=-1", 1, 17, "expected a port"},
    {"include in port=0x+1", 1, 17, "expected a port"},
    {"include in port=7-5", 1, 17, "ends before it begins"},
    {"include in port=0x3f8", 1, 17, "ports above 0xff are reached through DX"},
    {"include in port=0x3f8-0x3ff", 1, 17, "port=dx"},
    {"include in port=0-0x10000", 1, 19, "0x10000 is too large"},
    {"include cpuid address=f00", 1, 23, "expected an address"},
    {"include cpuid address=0x10-0x0x", 1, 28, "expected an address"},
    {"include cpuid address=0x2-0x1", 1, 23, "ends before it begins"},
    {"include cpuid address=0x10000000000000000", 1, 23, "expected an address"},
    {"include cpuid range=a", 1, 21, "expected two symbols: START..END"},
    {"include cpuid range=a..", 1, 21, "expected two symbols"},
    {"include cpuid range=..b", 1, 21, "expected two symbols"},
    {"include jmp branch=fra", 1, 20, "expected near or far, not 'fra'"},
    {"include cpuid form=jum", 1, 20, "expected auto, jump, call, branch or break"},
    {"include cpuid template=a/b", 1, 25, "a template's name has only"},
    {"include cpuid action=leave", 1, 22, "expected patch or block"},
    {"include cpuid action=block", 1, 22, "only IN, OUT, INS and OUTS can be left"},
    {"exclude cpuid form=jump", 1, 15, "an exclude rule takes no form="},
    {"exclude out action=patch", 1, 13, "an exclude rule takes no action="},
    {"exclude cpuid template=x", 1, 15, "an exclude rule takes no template="},
    {"include cpuid\ninclude cpuid \x01", 2, 15, "control character 0x01"},
    {"# \x1b[31m", 1, 3, "control character 0x1b"},
    {"include cpuid\xff", 1, 9, "unknown mnemonic 'cpuid?'"},
    {"@include", 1, 9, "expected the name of a list file"},
    {"@include other.list", 1, 10, "@include works only in list files"},
};

static void test_errors_name_line_and_column(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct error err = {0};
        char place[64];
        snprintf(place, sizeof place, "t.list:%u:%u: ", errors[i].line, errors[i].column);
        if (list_parse("t.list", errors[i].text, strlen(errors[i].text), &err))
            fail_msg("'%s' was accepted", errors[i].text);
        if (err.code != EXIT_INPUT || strncmp(err.text, place, strlen(place)) ||
            !strstr(err.text, errors[i].message))
            fail_msg("'%s': expected %s…%s…, got %s", errors[i].text, place, errors[i].message,
                     err.text);
        assert_null(strpbrk(err.text, "\n\t\x1b\x01"));
    }
}

static void test_a_nul_byte_is_no_text(void **state)
{
    (void)state;
    struct error err = {0};
    assert_null(list_parse("t.list", "include cpuid\0", 14, &err));
    assert_string_equal(err.text, "t.list:1:14: control character 0x00: is this a list?");
}

static void test_options_name_the_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"cpudi", "--only: column 1: unknown mnemonic 'cpudi'; did you mean 'cpuid'?"},
        {"", "--only: column 1: expected a mnemonic"},
        {"include cpuid", "--only: column 1: unknown mnemonic 'include'"},
        {"cpuid form=jump", "--only: column 7: form= belongs in a list, not in --only"},
        {"cpuid\nhlt", "--only: column 6: control character 0x0a"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err = {0};
        assert_null(list_parse_rule("--only", rows[i].text, &err));
        assert_int_equal(err.code, EXIT_USAGE);
        if (strncmp(err.text, rows[i].message, strlen(rows[i].message)))
            fail_msg("'%s': got %s", rows[i].text, err.text);
    }
}

/* `count` times `line`, as one text. The caller frees it. */
static char *repeat(const char *line, size_t count)
{
    size_t length = strlen(line);
    char *text = malloc(length * count + 1);
    assert_non_null(text);
    for (size_t i = 0; i < count; i++)
        memcpy(text + i * length, line, length);
    text[length * count] = 0;
    return text;
}

static void expect_limit(const char *line, size_t accepted, const char *message)
{
    char *text = repeat(line, accepted + 1);
    struct error err = {0};
    struct list *list = list_parse("t.list", text, strlen(line) * accepted, &err);
    if (!list)
        fail_msg("%s", err.text);
    list_free(list);
    assert_null(list_parse("t.list", text, strlen(line) * (accepted + 1), &err));
    assert_int_equal(err.code, EXIT_INPUT);
    if (!strstr(err.text, message))
        fail_msg("got %s", err.text);
    free(text);
}

static void test_lists_are_bounded(void **state)
{
    (void)state;
    expect_limit("include hlt\n", LIST_RULES_MAX, "t.list:4097:9: more than 4096 rules");
    expect_limit("include hlt range=a..b\n", LIST_RANGES_MAX, "t.list:257:19: more than 256 rules");
    expect_limit("#", LIST_LINE_MAX, "t.list:1:1001: the line is longer than 1000 bytes");
    expect_limit("\n", LIST_TEXT_MAX, "a list may have at most 262144 bytes in all");
}

/* Files for @include, in a folder of their own. */
struct folder {
    char path[64];
};

static int make_folder(void **state)
{
    static struct folder folder;
    snprintf(folder.path, sizeof folder.path, "/tmp/test_list.XXXXXX");
    *state = &folder;
    return mkdtemp(folder.path) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct folder *folder = *state;
    return rmdir(folder->path);
}

static char *write_file(struct folder *folder, const char *name, const char *text)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
    return path;
}

static void remove_file(struct folder *folder, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    assert_int_equal(unlink(path), 0);
}

static void expect_error(const char *path, int code, const char *message)
{
    struct error err = {0};
    assert_null(list_open(path, &err));
    if (err.code != code || !strstr(err.text, message))
        fail_msg("expected …%s…, got %d: %s", message, err.code, err.text);
}

static void test_lists_include_others(void **state)
{
    struct folder *folder = *state;
    write_file(folder, "b.list", "include hlt\n");
    char *path = write_file(folder, "a.list", "include cpuid\n@include b.list # comment\n");
    struct error err = {0};
    struct list *list = list_open(path, &err);
    if (!list)
        fail_msg("%s", err.text);
    assert_string_equal(list_name(list), "a.list");
    assert_true(list_names_mnemonic(list, ZYDIS_MNEMONIC_CPUID));
    assert_true(list_names_mnemonic(list, ZYDIS_MNEMONIC_HLT));
    list_free(list);
    write_file(folder, "b.list", "include hlt\ninclude htl\n");
    expect_error(path, EXIT_INPUT, "b.list:2:9: unknown mnemonic 'htl'");
    remove_file(folder, "a.list");
    remove_file(folder, "b.list");
}

/* 0.list includes 1.list, and so on to `last`. */
static void write_chain(struct folder *folder, unsigned last)
{
    for (unsigned i = 0; i <= last; i++) {
        char name[16], text[32];
        snprintf(name, sizeof name, "%u.list", i);
        snprintf(text, sizeof text, i < last ? "@include %u.list" : "include hlt", i + 1);
        write_file(folder, name, text);
    }
}

static void test_lists_include_each_other_eight_deep(void **state)
{
    struct folder *folder = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/0.list", folder->path);
    write_chain(folder, 8);
    struct error err = {0};
    struct list *list = list_open(path, &err);
    if (!list)
        fail_msg("%s", err.text);
    assert_true(list_names_mnemonic(list, ZYDIS_MNEMONIC_HLT));
    list_free(list);
    write_chain(folder, 9);
    expect_error(path, EXIT_INPUT, "8.list:1:10: lists include each other more than 8 deep");
    for (unsigned i = 0; i <= 9; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u.list", i);
        remove_file(folder, name);
    }
}

static void test_included_files_stay_in_bounds(void **state)
{
    struct folder *folder = *state;
    char *path = write_file(folder, "a.list", "@include a.list\n");
    expect_error(path, EXIT_INPUT, "a.list:1:10: lists include each other more than 8 deep");
    char *many = repeat("@include b.list\n", LIST_FILES_MAX);
    write_file(folder, "b.list", "");
    write_file(folder, "a.list", many);
    expect_error(path, EXIT_INPUT, "a list may include at most 63 files");
    free(many);
    char *lines = repeat("#\n", LIST_TEXT_MAX / 4);
    write_file(folder, "b.list", lines);
    write_file(folder, "a.list", "@include b.list\n@include b.list\n");
    expect_error(path, EXIT_INPUT, "b.list: a list may have at most 262144 bytes in all");
    free(lines);
    write_file(folder, "a.list", "@include ../b.list\n");
    expect_error(path, EXIT_INPUT, "a.list:1:10: '../b.list' must lie in the folder");
    write_file(folder, "a.list", "@include /etc/passwd\n");
    expect_error(path, EXIT_INPUT, "a.list:1:10: '/etc/passwd' must lie in the folder");
    write_file(folder, "a.list", "@include b.list b.list\n");
    expect_error(path, EXIT_INPUT, "a.list:1:17: expected the end of the line");
    write_file(folder, "a.list", "@include caf\xc3\xa9.list\n");
    expect_error(path, EXIT_INPUT, "a.list:1:13: a file name has only printable ASCII");
    write_file(folder, "a.list", "@include none.list\n");
    expect_error(path, EXIT_IO, "none.list: No such file");
    remove_file(folder, "a.list");
    remove_file(folder, "b.list");
}

static void test_only_regular_files_are_lists(void **state)
{
    struct folder *folder = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/fifo", folder->path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_error(path, EXIT_INPUT, "not a regular file");
    assert_int_equal(unlink(path), 0);
    expect_error(folder->path, EXIT_INPUT, "not a regular file");
    expect_error(path, EXIT_IO, "No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_name_line_and_column),
        cmocka_unit_test(test_a_nul_byte_is_no_text),
        cmocka_unit_test(test_options_name_the_column),
        cmocka_unit_test(test_lists_are_bounded),
        cmocka_unit_test(test_lists_include_others),
        cmocka_unit_test(test_lists_include_each_other_eight_deep),
        cmocka_unit_test(test_included_files_stay_in_bounds),
        cmocka_unit_test(test_only_regular_files_are_lists),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
