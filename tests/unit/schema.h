/* SPDX-License-Identifier: MIT */
/* A validator for JSON Schema, as much of it as docs/report.schema.json uses. */
#ifndef TESTS_UNIT_SCHEMA_H
#define TESTS_UNIT_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Checks `value` against `schema`; `root` is the schema that "$ref" refers into. False with `why`
 * (a path and what is wrong there). An unknown keyword in the schema is wrong too. */
bool schema_check(const json_t *root, const json_t *schema, const json_t *value, char *why,
                  size_t size);

#endif
