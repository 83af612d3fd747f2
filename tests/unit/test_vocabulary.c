/* SPDX-License-Identifier: MIT */
/* The report's vocabularies: names are words, are unique, and are in patchc-report(5) and in the
 * JSON Schema; nothing else is. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "hvstub/hvstub.h"
#include "patchc/vocabulary.h"

static const char *form(unsigned i)
{
    return form_name(i);
}

static const char *form_reason(unsigned i)
{
    return form_reason_name((enum form_reason)i);
}

static const char *status(unsigned i)
{
    return status_name((enum site_status)i);
}

static const char *tactic(unsigned i)
{
    return tactic_name((enum tactic)i);
}

static const char *reason(unsigned i)
{
    return reason_name((enum reason)i);
}

static const struct vocabulary {
    const char *key;        /* of a site in the schema */
    const char *subsection; /* of the manual, as a prefix */
    const char *(*name)(unsigned i);
    unsigned from, to;
} vocabularies[] = {
    {"status", ".Ss status", status, 0, STATUSES},
    {"form", ".Ss form\n", form, PV_FORM_NONE + 1, PV_FORMS},
    {"form_reason", ".Ss form_reason", form_reason, FORM_REASON_NONE + 1, FORM_REASONS},
    {"tactic", ".Ss tactic", tactic, TACTIC_NONE + 1, TACTICS},
    {"reason", ".Ss reason, excluded", reason, REASON_NONE + 1, REASONS},
};
#define VOCABULARIES (sizeof vocabularies / sizeof vocabularies[0])

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 1 << 20);

    assert_non_null(file);
    assert_non_null(text);
    assert_in_range(fread(text, 1, (1 << 20) - 1, file), 1, (1 << 20) - 2);
    fclose(file);
    return text;
}

static void names_are_lower_case_words_joined_by_dashes(void **state)
{
    (void)state;
    for (size_t v = 0; v < VOCABULARIES; v++) {
        for (unsigned i = vocabularies[v].from; i < vocabularies[v].to; i++) {
            const char *name = vocabularies[v].name(i);

            assert_true(islower((unsigned char)name[0]));
            assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), strlen(name));
            assert_string_not_equal(name, "invalid");
        }
    }
}

static void names_are_unique(void **state)
{
    (void)state;
    for (size_t v = 0; v < VOCABULARIES; v++)
        for (unsigned i = vocabularies[v].from; i < vocabularies[v].to; i++)
            for (unsigned j = vocabularies[v].from; j < i; j++)
                assert_string_not_equal(vocabularies[v].name(i), vocabularies[v].name(j));
}

static void a_value_outside_its_vocabulary_does_not_crash(void **state)
{
    (void)state;
    for (size_t v = 0; v < VOCABULARIES; v++)
        assert_string_equal(vocabularies[v].name(vocabularies[v].to), "invalid");
    assert_string_equal(reason_explanation(REASONS), "");
}

static void every_reason_is_explained_in_one_line(void **state)
{
    (void)state;
    assert_string_equal(reason_name(REASON_NONE), "");
    for (unsigned i = REASON_NONE + 1; i < REASONS; i++) {
        const char *text = reason_explanation((enum reason)i);

        assert_in_range(strlen(text), 10, 90);
        assert_null(strchr(text, '\n'));
    }
}

/* How often the part of the manual from `start` to `end` has a list item of this name. */
static unsigned items(const char *start, const char *end, const char *name)
{
    char item[64];
    unsigned count = 0;

    snprintf(item, sizeof item, "\n.It Li %s\n", name);
    for (const char *at = start; (at = strstr(at, item)) != NULL && at < end; at++)
        count++;
    return count;
}

static void D11_the_manual_has_every_word_and_no_other(void **state)
{
    char *manual = read_file("man/patchc-report.5");

    (void)state;
    for (size_t v = 0; v < VOCABULARIES; v++) {
        const char *start = strstr(manual, vocabularies[v].subsection);
        const char *end;
        unsigned count = 0;

        assert_non_null(start);
        end = strstr(start + 1, "\n.Ss ");
        if (strcmp(vocabularies[v].key, "reason") == 0) /* in two parts */
            end = strstr(end + 1, "\n.Ss ");
        assert_non_null(end);
        for (const char *at = start; (at = strstr(at, "\n.It ")) != NULL && at < end; at++)
            count++;
        assert_int_equal(count, vocabularies[v].to - vocabularies[v].from);
        for (unsigned i = vocabularies[v].from; i < vocabularies[v].to; i++)
            if (items(start, end, vocabularies[v].name(i)) != 1)
                fail_msg("%s '%s' is not in the manual", vocabularies[v].key,
                         vocabularies[v].name(i));
    }
    free(manual);
}

static void the_schema_has_every_word_and_no_other(void **state)
{
    json_t *schema = json_load_file("docs/report.schema.json", 0, NULL);
    json_t *site = json_object_get(json_object_get(schema, "$defs"), "site");

    (void)state;
    assert_non_null(site);
    for (size_t v = 0; v < VOCABULARIES; v++) {
        json_t *words = json_object_get(
            json_object_get(json_object_get(site, "properties"), vocabularies[v].key), "enum");
        size_t i, expected = vocabularies[v].from;
        json_t *word;

        json_array_foreach(words, i, word)
        {
            if (json_is_string(word))
                assert_string_equal(json_string_value(word),
                                    vocabularies[v].name((unsigned)expected++));
        }
        assert_int_equal(expected, vocabularies[v].to);
    }
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_lower_case_words_joined_by_dashes),
        cmocka_unit_test(names_are_unique),
        cmocka_unit_test(a_value_outside_its_vocabulary_does_not_crash),
        cmocka_unit_test(every_reason_is_explained_in_one_line),
        cmocka_unit_test(D11_the_manual_has_every_word_and_no_other),
        cmocka_unit_test(the_schema_has_every_word_and_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
