/* SPDX-License-Identifier: MIT */
/* JSON values as the report holds them (patchc-report(5)): hexadecimal strings for addresses and
 * hashes, names from images as clean UTF-8. */
#ifndef PATCHC_JSON_H
#define PATCHC_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Sets object[key]; the value's memory goes to the object. `key` is a literal. If memory ran out,
 * here or when the value was made, *failed is set: a writer looks at it once, at its end. */
void json_put(bool *failed, json_t *object, const char *key, json_t *value);
void json_append(bool *failed, json_t *array, json_t *value);

/* Writes "0x…". Returns where in `text` it begins. */
#define HEX_TEXT 19 /* bytes that hold it, NUL included */
const char *hex_text(uint64_t value, char text[HEX_TEXT]);

/* A number as "0x…": JSON numbers do not hold 64 bits everywhere. */
json_t *json_hex(uint64_t value);

/* A name from an image or the file system, which need not be UTF-8; null for NULL. */
json_t *json_name(const char *name);

/* "symbol+0x12", or "symbol" if offset is 0. */
json_t *json_place(const char *symbol, uint64_t offset);

/* Bytes as "0fa2". */
json_t *json_bytes(const uint8_t *bytes, unsigned count);

/* True if the value is a string "0x…" of at most 64 bits. */
bool json_hex_value(const json_t *value, uint64_t *number);

#endif
