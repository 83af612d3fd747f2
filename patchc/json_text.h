/* SPDX-License-Identifier: MIT */
/* JSON text in a growing buffer, written piece by piece: a report of thousands of sites needs no
 * tree. */
#ifndef PATCHC_JSON_TEXT_H
#define PATCHC_JSON_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_text {
    char *bytes; /* malloc'd: the owner of the structure frees it */
    size_t size, room;
    bool failed; /* out of memory somewhere: looked at once, at the end */
};

/* Adds text as it stands: punctuation, literals. */
void json_text_add(struct json_text *text, const char *literal);

/* Adds `"key":`, after a comma unless it is the first of its object. Keys need no escapes. */
void json_text_key(struct json_text *text, const char *key);

/* Add a value. A string is quoted and escaped, bytes that are not UTF-8 become '?'; NULL is null.
 */
void json_text_string(struct json_text *text, const char *string);
void json_text_number(struct json_text *text, uint64_t number);
void json_text_hex(struct json_text *text, uint64_t number); /* "0x…" */
void json_text_value(struct json_text *text, json_t *value); /* releases it */

#endif
