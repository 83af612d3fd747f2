/* SPDX-License-Identifier: MIT */
/* patchc/linux_targets.c: where control may arrive, as tables, symbols and relocations tell. */
#include <stdlib.h>
#include <string.h>

#include "linux_setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* after image/error.h: it defines fail() as a macro */

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
    setup_name(ex, setup_next(&s), 0, TEXT + 0x11);
    setup_name(ex, setup_next(&s), 4, TEXT + 0x12);
    linux_image_add(&s.li, "__ex_table", 0, ex, sizeof ex);
    setup_name(bug, setup_next(&s), 0, TEXT + AT_UD2);
    linux_image_add(&s.li, "__bug_table", 0, bug, sizeof bug);
    memcpy(paravirt, &(uint64_t){TEXT + 0x33}, 8);
    paravirt[9] = 5;
    uint64_t para = linux_image_add(&s.li, ".parainstructions", 0, paravirt, sizeof paravirt);
    merged_fill(&m, setup_next(&s));
    merged_symbols(&s, &m);
    linux_image_add(&s.li, ".data", SHF_WRITE, m.bytes, sizeof m.bytes);
    memcpy(pointers, &(uint64_t){TEXT + 0x35}, 8);
    setup_put32(pointers + 8, (uint32_t)(TEXT + 0x36));
    setup_put32(pointers + 12, (uint32_t)linux_image_address(1)); /* data */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets_are_told_from_tables_symbols_and_relocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
