/* SPDX-License-Identifier: MIT */
/* Kernel tables that follow moved code: one small Linux image per table, patched, and its tables read
 * again from the result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/core_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define TEXT        LINUX_IMAGE_TEXT
#define CPUID       "include cpuid\n"
#define LINUX(name) lab_linux(&lab, name##_code, name##_end)

static struct lab lab;
static struct linux_tables before, after;
static uint8_t table[256];

static int set_up(void **state)
{
    (void)state;
    lab_open(&lab);
    memset(table, 0, sizeof table);
    before = after = (struct linux_tables){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    linux_tables_close(&before);
    linux_tables_close(&after);
    lab_close(&lab);
    return 0;
}

/* The address of the next section to be added. */
static uint64_t next(void)
{
    return linux_image_address(lab.li.section_count);
}

static void name(size_t at, uint64_t offset)
{
    lab_name(table, next(), at, TEXT + offset);
}

static void build(const char *list)
{
    struct error err = {0};
    lab_must_build(&lab, list);
    if (linux_tables_read(&lab.result.image, &before, &err) ||
        linux_tables_read(&lab.patched, &after, &err))
        fail_msg("%s", err.text);
}

static const struct linux_entry *entry_of(enum linux_table_kind kind, size_t index)
{
    assert_true(index < after.table[kind].count);
    assert_int_equal(after.table[kind].count, before.table[kind].count);
    return &after.table[kind].entries[index];
}

static uint64_t trampoline(uint64_t offset)
{
    const struct pv_patch *patch = lab_patch(&lab, offset);
    assert_non_null(patch);
    return lab_trampoline(&lab, patch);
}

/* ---- exceptions ---- */

LAB_CODE(exceptions, "rdmsr\n xor %esi, %esi\n inc %edi\n ret\n int3\n int3\n"
                     "1: inc %eax\n 2: mov (%rsi), %eax\n inc %edx\n ret\n"
                     "int3\n int3\n int3\n int3\n mov %eax, %ebx\n rdmsr\n inc %ebx\n ret");

static void put_exception(size_t at, uint64_t instruction, uint64_t fixup, uint32_t data)
{
    name(at, instruction);
    name(at + 4, fixup);
    memcpy(table + at + 8, &data, 4);
}

static void test_exception_entries_lie_on_the_native_instruction_and_stay_sorted(void **state)
{
    (void)state;
    LINUX(exceptions); /* RDMSR at 0 and 22; a load at 11, which stays */
    put_exception(0, 0, 9, 7);
    put_exception(12, 11, 9, 1);
    put_exception(24, 22, 13, 8);
    linux_image_add(&lab.li, "__ex_table", 0, table, 36);
    build("include rdmsr\n");
    const struct linux_table *ex = &after.table[LINUX_EX_TABLE];
    assert_int_equal(ex->count, 3);
    assert_int_equal(lab.result.tables_updated[LINUX_EX_TABLE], 2);
    for (size_t i = 1; i < 3; i++)
        assert_true(ex->entries[i - 1].address < ex->entries[i].address);
    /* The load is first now: the routines lie behind it. */
    assert_int_equal(ex->entries[0].address, TEXT + 11);
    assert_int_equal(ex->entries[0].second, TEXT + 9);
    assert_int_equal(ex->entries[0].data, 1);
    const struct pv_routine *first = lab_routine(&lab, 0), *second = lab_routine(&lab, 22);
    for (size_t i = 1; i < 3; i++) {
        bool is_first = ex->entries[i].data == 7;
        assert_int_equal(ex->entries[i].address,
                         lab_address(&lab, (is_first ? first : second)->native_offset));
        assert_int_equal(ex->entries[i].second, TEXT + (is_first ? 9 : 13));
    }
}

/* ---- tables of places ---- */

LAB_CODE(return_site, "cpuid\n jmp 1f\n int3\n .balign 16, 0xcc\n 1: ret\n");

static void test_a_return_site_follows_its_jump(void **state)
{
    (void)state;
    LINUX(return_site);
    /* as the compiler writes it: e9 rel32 */
    memcpy(lab.text, "\x0f\xa2\xe9\x09\0\0\0\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xc3", 17);
    lab.text[17] = 0xc3;
    lab.code_size = 18;
    name(0, 2);
    linux_image_add(&lab.li, ".return_sites", 0, table, 4);
    build(CPUID);
    assert_int_equal(entry_of(LINUX_RETURN_SITES, 0)->address, trampoline(0) + 7);
    assert_int_equal(lab_branch_target(&lab, trampoline(0) + 7, 5), TEXT + 16);
}

LAB_CODE(places, "cpuid\n lock incl (%rsi)\n inc %edi\n ret\n .balign 16, 0xcc\n"
                 "cpuid\n 1: ud2\n inc %eax\n ret");

static void test_locks_and_bugs_follow(void **state)
{
    (void)state;
    LINUX(places);
    name(0, 2);
    linux_image_add(&lab.li, ".smp_locks", 0, table, 4);
    static uint8_t bugs[12];
    lab_name(bugs, next(), 0, TEXT + 18);
    linux_image_add(&lab.li, "__bug_table", 0, bugs, 12);
    build(CPUID);
    assert_int_equal(entry_of(LINUX_SMP_LOCKS, 0)->address, trampoline(0) + 7);
    /* What follows UD2 is where a WARN resumes: a target, so the window ends there at the latest. */
    const struct pv_patch *patch = lab_patch(&lab, 16);
    if (patch)
        assert_true(lab_window(&lab, patch) + patch->window_size <= 20 ||
                    lab_window(&lab, patch) + patch->window_size > 24);
    const struct linux_entry *bug = entry_of(LINUX_BUG_TABLE, 0);
    assert_memory_equal(lab_at(&lab, bug->address, 2), "\x0f\x0b", 2);
}

LAB_CODE(traced, "inc %eax\n nopl 0(%rax,%rax,1)\n cpuid\n inc %ecx\n 1: dec %edx\n jnz 1b\n ret");

static void test_what_the_function_tracer_names_does_not_move(void **state)
{
    (void)state;
    LINUX(traced);
    memcpy(lab.text + 2, "\x0f\x1f\x44\0\0", 5);
    static uint64_t places[1] = {TEXT + 2};
    uint64_t at = linux_image_add(&lab.li, ".mcount", 0, places, 8);
    linux_image_symbol(&lab.li, "__start_mcount_loc", at);
    linux_image_symbol(&lab.li, "__stop_mcount_loc", at + 8);
    build(CPUID);
    assert_null(lab_patch(&lab, 2)); /* four bytes behind it are too few for a jump */
    assert_memory_equal(lab_at(&lab, TEXT + 2, 5), "\x0f\x1f\x44\0\0", 5);
}

/* ---- jump labels ---- */

LAB_CODE(
    label,
    "inc %esi\n cpuid\n .byte 0x66, 0x90\n inc %ecx\n ret\n .balign 16, 0xcc\n 1: inc %eax\n ret");

static uint64_t add_label(uint64_t code, uint64_t target)
{
    name(0, code);
    name(4, target);
    memset(table + 8, 0, 8);
    uint64_t at = linux_image_add(&lab.li, ".jumps", 0, table, 16);
    linux_image_symbol(&lab.li, "__start___jump_table", at);
    linux_image_symbol(&lab.li, "__stop___jump_table", at + 16);
    return at;
}

static void test_a_short_jump_label_becomes_five_bytes(void **state)
{
    (void)state;
    LINUX(label);
    add_label(4, 16);
    build(CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 2);
    assert_non_null(patch);
    assert_int_equal(lab_window(&lab, patch), 0);
    assert_int_equal(patch->window_size, 6); /* what follows the label is a target */
    const struct linux_entry *entry = entry_of(LINUX_JUMP_TABLE, 0);
    assert_int_equal(entry->address, trampoline(2) + 9);
    assert_int_equal(entry->length, 5);
    assert_int_equal(entry->second, TEXT + 16);
    assert_memory_equal(lab_at(&lab, entry->address, 6), "\x0f\x1f\x44\0\0\xe9", 6);
}

LAB_CODE(label_inside, "inc %eax\n .byte 0xeb, 10\n cpuid\n mov %eax, %ecx\n ret\n int3\n int3\n"
                       "int3\n int3\n int3\n 1: inc %eax\n ret");

/* A jump that a jump label covers is no end: the kernel may turn it into a no-op. */
static void test_a_jump_label_is_no_terminator(void **state)
{
    (void)state;
    LINUX(label_inside);
    add_label(2, 14);
    build(CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 4);
    assert_non_null(patch);
    const struct linux_entry *entry = entry_of(LINUX_JUMP_TABLE, 0);
    if (lab_patch(&lab, 2) == patch) {
        assert_int_equal(entry->length, 5);
        assert_int_equal(lab_branch_target(&lab, entry->address, 5), TEXT + 14);
    } else {
        assert_int_equal(entry->address, TEXT + 2);
    }
}

LAB_CODE(unnamed,
         "cpuid\n .byte 0x0f, 0x1f, 0x44, 0, 0\n inc %ecx\n ret\n .balign 16, 0xcc\n"
         "cpuid\n call 1f\n ret\n .balign 16, 0xcc\n cpuid\n inc %ecx\n inc %edx\n 1: ret");

/* Without data symbols nobody knows where the jump labels and static calls are. */
static void test_what_a_table_that_is_not_found_may_name_does_not_move(void **state)
{
    (void)state;
    lab.no_data_symbols = true;
    LINUX(unnamed);
    build(CPUID);
    assert_true(before.table[LINUX_JUMP_TABLE].unknown);
    assert_memory_equal(lab_at(&lab, TEXT + 2, 5), "\x0f\x1f\x44\0\0", 5);
    assert_int_equal(*lab_at(&lab, TEXT + 18, 1), 0xe8);
    assert_int_equal(lab_site(&lab, 32)->status, STATUS_PATCHED);
}

/* ---- alternatives ---- */

static void put_alternative(uint8_t *at, uint64_t base, size_t offset, uint64_t code,
                            uint64_t replacement, uint8_t length, uint8_t replacement_length)
{
    lab_name(at, base, offset, TEXT + code);
    lab_name(at, base, offset + 4, replacement);
    at[offset + 8] = 1; /* a CPU feature */
    at[offset + 10] = length;
    at[offset + 11] = replacement_length;
}

LAB_CODE(region, "inc %eax\n rdtsc\n nop\n nop\n nop\n 1: inc %ecx\n jnz 1b\n ret");
static const uint8_t fenced[] = {0x0f, 0xae, 0xe8, 0x0f, 0x31}; /* lfence; rdtsc */

static void test_a_region_of_an_alternative_moves_whole(void **state)
{
    (void)state;
    LINUX(region); /* RDTSC and its three NOPs are one place */
    uint64_t replacement =
        linux_image_add(&lab.li, ".altinstr_replacement", SHF_EXECINSTR, fenced, sizeof fenced);
    put_alternative(table, next(), 0, 2, replacement, 5, 5);
    linux_image_add(&lab.li, ".altinstructions", 0, table, 12);
    build("include rdtsc section=.text\n");
    const struct site *site = lab_site(&lab, 2);
    assert_int_equal(site->status, STATUS_PATCHED);
    assert_string_equal(tactic_name(site->tactic), "region");
    const struct pv_patch *patch = lab_patch(&lab, 2);
    assert_true(lab_window(&lab, patch) + patch->window_size >= 7);
    const struct linux_entry *entry = entry_of(LINUX_ALTERNATIVES, 0);
    assert_int_equal(entry->address, lab_address(&lab, lab_routine(&lab, 2)->native_offset));
    assert_memory_equal(lab_at(&lab, entry->address, 5), "\x0f\x31\x90\x90\x90", 5);
    assert_int_equal(entry->second, replacement);
    assert_int_equal(entry->length, 5);
}

LAB_CODE(replaced, "inc %eax\n .byte 0x66, 0x0f, 0x1f, 0x44, 0, 0\n inc %ecx\n ret\n"
                   ".balign 16, 0xcc\n .byte 0x66, 0x90\n inc %esi\n inc %edi\n ret\n"
                   ".balign 16, 0xcc\n thunk: ret\n int3");
static const uint8_t replacements[] = {0xfa, 0xfb, 0xfa}; /* cli; sti; cli */

/* cli twice, sti once; two of the places have six bytes, the last two. */
static void add_replacements(void)
{
    LINUX(replaced);
    uint64_t at = linux_image_add(&lab.li, ".altinstr_replacement", SHF_EXECINSTR, replacements,
                                  sizeof replacements);
    linux_image_symbol(&lab.li, "__x86_return_thunk", TEXT + 32);
    put_alternative(table, next(), 0, 2, at, 6, 1);
    put_alternative(table, next(), 12, 16, at + 2, 2, 1);
    linux_image_add(&lab.li, ".altinstructions", 0, table, 24);
}

static void test_replacements_become_calls_and_short_places_grow(void **state)
{
    (void)state;
    add_replacements();
    build("include cli\n");
    const struct linux_entry *first = entry_of(LINUX_ALTERNATIVES, 0),
                             *second = entry_of(LINUX_ALTERNATIVES, 1);
    assert_int_equal(lab.result.site_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(lab.result.sites[i].status, STATUS_PATCHED);
        assert_int_equal(lab.result.sites[i].form, PV_FORM_CALL);
        assert_int_equal(lab.result.sites[i].form_reason, FORM_REASON_COPIED);
    }
    assert_int_equal(first->address, TEXT + 2);
    assert_int_equal(first->length, 6);
    assert_int_equal(first->extra, 5);
    /* the place of two bytes moved, and has five now */
    assert_int_not_equal(second->address, TEXT + 16);
    assert_int_equal(second->length, 5);
    assert_int_equal(second->extra, 5);
    assert_memory_equal(lab_at(&lab, second->address, 5), "\x66\x90\x90\x90\x90", 5);
    /* equal bytes: one trampoline, link; cli; jmp thunk */
    assert_int_equal(first->second, second->second);
    assert_int_equal(*lab_at(&lab, first->second, 1), 0xe8);
    uint64_t target = lab_branch_target(&lab, first->second, 5);
    assert_memory_equal(lab_at(&lab, target, 7), "\xe9\0\0\0\0\xfa\xe9", 7);
    assert_int_equal(lab_branch_target(&lab, target + 6, 5), TEXT + 32);
}

static void test_D11_forced_forms_leave_replacements_for_that_reason(void **state)
{
    (void)state;
    add_replacements();
    lab.options.form = PV_FORM_BREAK;
    build("include cli\n");
    for (size_t i = 0; i < lab.result.site_count; i++) {
        assert_int_equal(lab.result.sites[i].status, STATUS_LEFT);
        assert_string_equal(reason_name(lab.result.sites[i].reason), "form");
    }
}

/* ---- calls that the kernel rewrites ---- */

LAB_CODE(paravirt, "cpuid\n .byte 0xff, 0x14, 0x25, 0, 0, 0, 0x82\n inc %ecx\n ret");

static void test_a_paravirt_call_follows(void **state)
{
    (void)state;
    LINUX(paravirt);
    uint64_t place = TEXT + 2;
    memcpy(table, &place, 8);
    table[9] = 7;
    linux_image_add(&lab.li, ".parainstructions", 0, table, 16);
    build(CPUID);
    assert_int_equal(entry_of(LINUX_PARAVIRT, 0)->address, trampoline(0) + 7);
}

/* The call and a NOP are one place: it may not be split. */
static void test_a_paravirt_place_of_two_instructions_is_not_split(void **state)
{
    (void)state;
    LINUX(paravirt);
    memcpy(lab.text + 9, "\x90\xff\xc1\xc3", 4);
    uint64_t place = TEXT + 2;
    memcpy(table, &place, 8);
    table[9] = 8;
    linux_image_add(&lab.li, ".parainstructions", 0, table, 16);
    build(CPUID);
    const struct pv_patch *patch = lab_patch(&lab, 0);
    if (patch)
        assert_true(patch->window_size == 2 || patch->window_size >= 10);
}

/* ---- relocations ---- */

LAB_CODE(relocated, "cpuid\n mov 0xffffffff81000000, %eax\n inc %ecx\n ret");

static void test_relocation_words_follow_displaced_operands(void **state)
{
    (void)state;
    LINUX(relocated);
    /* zero, 64-bit; zero, inverse; zero, 32-bit words; the place is 3 bytes into the MOV */
    static uint32_t words[4] = {0, 0, 0, (uint32_t)TEXT + 2 + 3};
    lab.li.trailer = words;
    lab.li.trailer_size = sizeof words;
    build(CPUID);
    struct relocs relocs;
    struct error err = {0};
    assert_int_equal(relocs_read(&lab.patched, &relocs, &err), 0);
    assert_int_equal(relocs.count[RELOC_32], 1);
    assert_int_equal(relocs_address(relocs_word(&relocs, RELOC_32, 0)), trampoline(0) + 7 + 3);
    assert_int_equal(lab.result.relocs_updated, 1);
    /* and the routine table's entries are relocated with the kernel */
    assert_int_equal(relocs.count[RELOC_64], lab.header->routine_count);
    assert_int_equal(relocs_address(relocs_word(&relocs, RELOC_64, 0)),
                     lab_address(&lab, lab.header->routine_table_offset));
    /* the table is still the last thing in the file */
    assert_int_equal(relocs.offset[RELOC_32] + 4, lab.patched.size);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_exception_entries_lie_on_the_native_instruction_and_stay_sorted),
        TEST(test_a_return_site_follows_its_jump),
        TEST(test_locks_and_bugs_follow),
        TEST(test_what_the_function_tracer_names_does_not_move),
        TEST(test_a_short_jump_label_becomes_five_bytes),
        TEST(test_a_jump_label_is_no_terminator),
        TEST(test_what_a_table_that_is_not_found_may_name_does_not_move),
        TEST(test_a_region_of_an_alternative_moves_whole),
        TEST(test_replacements_become_calls_and_short_places_grow),
        TEST(test_D11_forced_forms_leave_replacements_for_that_reason),
        TEST(test_a_paravirt_call_follows),
        TEST(test_a_paravirt_place_of_two_instructions_is_not_split),
        TEST(test_relocation_words_follow_displaced_operands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
