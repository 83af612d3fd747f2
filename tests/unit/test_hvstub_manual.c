/* SPDX-License-Identifier: MIT */
/* hvstub(7) says of the ABI what hvstub.h says: every field's place and size, every kind's number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hvstub/hvstub.h"

#include <cmocka.h>

#define FIELD(type, name)                                                                          \
    {                                                                                              \
#type, #name, offsetof(struct type, name), sizeof(((struct type *)NULL)->name)             \
    }

static const struct {
    const char *type, *name;
    size_t offset, size;
} fields[] = {
    /* clang-format off */
    FIELD(pv_note, abi_version),
    FIELD(pv_note, flags),
    FIELD(pv_note, header_address),
    FIELD(pv_note, header_file),
    FIELD(pv_note, original_file),
    FIELD(pv_note, original_size),
    FIELD(pv_note, io_table_file),
    FIELD(pv_note, io_table_size),
    FIELD(pv_note, output_xxh3),
    FIELD(pv_original, size),
    FIELD(pv_original, xxh3),
    FIELD(pv_original, tail_offset),
    FIELD(pv_original, added_size),
    FIELD(pv_original, tail_insert_at),
    FIELD(pv_original, tail_insert_size),
    FIELD(pv_original, run_count),
    FIELD(pv_original_run, offset),
    FIELD(pv_original_run, size),
    FIELD(pv_header, magic),
    FIELD(pv_header, abi_version),
    FIELD(pv_header, header_size),
    FIELD(pv_header, features),
    FIELD(pv_header, routine_count),
    FIELD(pv_header, routine_table_offset),
    FIELD(pv_header, routine_info_offset),
    FIELD(pv_header, patch_info_offset),
    FIELD(pv_header, patch_count),
    FIELD(pv_header, doorbell_port),
    FIELD(pv_header, cpuid_table_offset),
    FIELD(pv_header, msr_table_offset),
    FIELD(pv_header, state_offset),
    FIELD(pv_header, state_size),
    FIELD(pv_header, reserved),
    FIELD(pv_routine, site_offset),
    FIELD(pv_routine, link_offset),
    FIELD(pv_routine, native_offset),
    FIELD(pv_routine, emulation_offset),
    FIELD(pv_routine, tail_offset),
    FIELD(pv_routine, emulation_size),
    FIELD(pv_routine, kind),
    FIELD(pv_routine, form),
    FIELD(pv_routine, flags),
    FIELD(pv_routine, operand),
    FIELD(pv_routine, patch),
    FIELD(pv_patch, window_offset),
    FIELD(pv_patch, trampoline_offset),
    FIELD(pv_patch, island_offset),
    FIELD(pv_patch, window_size),
    FIELD(pv_patch, trampoline_size),
    FIELD(pv_patch, first_routine),
    FIELD(pv_patch, routine_count),
    FIELD(pv_patch, form),
    FIELD(pv_patch, flags),
    FIELD(pv_cpuid_entry, negated_leaf),
    FIELD(pv_cpuid_entry, negated_subleaf),
    FIELD(pv_cpuid_entry, subleaves),
    FIELD(pv_cpuid_entry, used),
    FIELD(pv_cpuid_entry, eax),
    FIELD(pv_cpuid_entry, ebx),
    FIELD(pv_cpuid_entry, ecx),
    FIELD(pv_cpuid_entry, edx),
    FIELD(pv_msr_entry, negated),
    FIELD(pv_msr_entry, used),
    FIELD(pv_msr_entry, eax),
    FIELD(pv_msr_entry, edx),
    FIELD(pv_port, negated),
    FIELD(pv_port, value),
    FIELD(pv_port, kind),
    FIELD(pv_counter, negated_base),
    FIELD(pv_counter, scale),
    FIELD(pv_counter, start),
    FIELD(pv_counter, version),
    FIELD(pv_counter, step),
    FIELD(pv_counter, negated_port),
    FIELD(pv_deadline, posted),
    FIELD(pv_deadline, limit),
    FIELD(pv_state, virtual_if),
    FIELD(pv_state, interrupt_pending),
    FIELD(pv_state, virtual_iopl),
    FIELD(pv_state, virtual_ac),
    FIELD(pv_state, reserved0),
    FIELD(pv_state, cr),
    FIELD(pv_state, dr),
    FIELD(pv_state, kernel_gs_base),
    FIELD(pv_state, gdtr),
    FIELD(pv_state, idtr),
    FIELD(pv_state, ldtr),
    FIELD(pv_state, tr),
    FIELD(pv_state, selector),
    FIELD(pv_state, tsc_aux),
    FIELD(pv_state, tsc_offset),
    FIELD(pv_state, xcr0),
    FIELD(pv_state, port_in),
    FIELD(pv_state, port_out),
    FIELD(pv_state, pit),
    FIELD(pv_state, pm),
    FIELD(pv_state, deadline),
    FIELD(pv_state, cmos),
    FIELD(pv_state, ring_tail),
    FIELD(pv_state, ring_lock),
    FIELD(pv_state, reserved1),
    FIELD(pv_state, once_after),
    FIELD(pv_state, ring),
    /* clang-format on */
};
#define FIELDS (sizeof fields / sizeof fields[0])

static char *read_text(const char *name)
{
    FILE *file = fopen(name, "r");
    char *text = calloc(1, 1 << 16);

    assert_non_null(file);
    assert_non_null(text);
    assert_in_range(fread(text, 1, (1 << 16) - 1, file), 1, (1 << 16) - 2);
    fclose(file);
    return text;
}

/* The text from `heading` to the next one like it, cut off there. */
static char *part(const char *text, const char *heading, const char *next)
{
    const char *start = strstr(text, heading), *end;

    if (!start)
        fail_msg("no '%s'", heading);
    start += strlen(heading);
    end = strstr(start, next);
    return strndup(start, end ? (size_t)(end - start) : strlen(start));
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        n++;
    return n;
}

static void D1_the_manual_has_every_field_where_it_is(void **state)
{
    char *manual = read_text("man/hvstub.7");

    (void)state;
    for (size_t k = 0; k < FIELDS; k++) {
        char heading[64], row[128];
        snprintf(heading, sizeof heading, "\n.Ss struct %s\n", fields[k].type);
        snprintf(row, sizeof row, "\n.It %zu Ta %zu Ta Li %s Ta", fields[k].offset, fields[k].size,
                 fields[k].name);
        char *section = part(manual, heading, "\n.Ss ");
        if (count(section, row) != 1)
            fail_msg("struct %s: no row '%s'", fields[k].type, row + 1);
        free(section);
    }
    free(manual);
}

static void D1_the_manual_has_no_other_field(void **state)
{
    char *manual = read_text("man/hvstub.7");
    unsigned rows = 0;

    (void)state;
    for (const char *at = manual; (at = strstr(at, "\n.It ")) != NULL; at++) {
        unsigned offset, size;
        rows += sscanf(at, "\n.It %u Ta %u Ta Li", &offset, &size) == 2;
    }
    assert_int_equal(rows, FIELDS);
    free(manual);
}

/* In the order of the enumeration, comments left out. */
static void D5_the_manual_has_every_kind_by_its_number(void **state)
{
    char *manual = read_text("man/hvstub.7"), *header = read_text("hvstub/hvstub.h");
    char *kinds = part(header, "enum pv_kind {", "};"),
         *section = part(manual, "\n.Ss Kinds", "\n.Ss ");
    unsigned number = 0;

    (void)state;
    for (char *at = kinds; (at = strstr(at, "PV_KIND_")) != NULL; number++) {
        char name[64], row[96];
        at += strlen("PV_KIND_");
        snprintf(name, sizeof name, "%.*s", (int)strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"), at);
        snprintf(row, sizeof row, "\n.It %u Ta Li %s\n", number, name);
        if (count(section, row) != 1)
            fail_msg("no row '%s'", row + 1);
    }
    assert_int_equal(number, PV_KINDS);
    assert_int_equal(count(section, "\n.It "), PV_KINDS);
    free(section);
    free(kinds);
    free(header);
    free(manual);
}

static void D5_the_manual_has_version_port_and_note(void **state)
{
    char *manual = read_text("man/hvstub.7"), words[3][64];

    (void)state;
    snprintf(words[0], sizeof words[0], "binary interface, version %u,", PV_ABI_VERSION);
    snprintf(words[1], sizeof words[1], "Li doorbell_port Ta 0x%x\n", PV_DOORBELL_PORT);
    snprintf(words[2], sizeof words[2], "and type 0x%x ", PV_NOTE_TYPE);
    for (size_t k = 0; k < 3; k++)
        if (count(manual, words[k]) != 1)
            fail_msg("hvstub(7) does not say '%s'", words[k]);
    free(manual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(D1_the_manual_has_every_field_where_it_is),
        cmocka_unit_test(D1_the_manual_has_no_other_field),
        cmocka_unit_test(D5_the_manual_has_every_kind_by_its_number),
        cmocka_unit_test(D5_the_manual_has_version_port_and_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
