/* SPDX-License-Identifier: MIT */
/* schema_check SCHEMA FILE: is this report what docs/report.schema.json says? Exits 1 and says
 * where if it is not. */
#include "tests/unit/schema.c"

int main(int argc, char **argv)
{
    char why[512];
    json_error_t error;
    json_t *schema, *value;

    if (argc != 3) {
        fputs("usage: schema_check SCHEMA FILE\n", stderr);
        return 2;
    }
    schema = json_load_file(argv[1], 0, &error);
    value = schema ? json_load_file(argv[2], JSON_REJECT_DUPLICATES, &error) : NULL;
    if (!value) {
        fprintf(stderr, "%s:%d: %s\n", argv[schema ? 2 : 1], error.line, error.text);
        return 2;
    }
    if (!schema_check(schema, schema, value, why, sizeof why)) {
        printf("%s: %s\n", argv[2], why);
        return 1;
    }
    json_decref(schema);
    json_decref(value);
    return 0;
}
