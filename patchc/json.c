/* SPDX-License-Identifier: MIT */
/* JSON values as the report holds them. */
#include "patchc/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_put(bool *failed, json_t *object, const char *key, json_t *value)
{
    *failed |= json_object_set_new_nocheck(object, key, value) != 0;
}

void json_append(bool *failed, json_t *array, json_t *value)
{
    *failed |= json_array_append_new(array, value) != 0;
}

const char *hex_text(uint64_t value, char text[HEX_TEXT])
{
    unsigned at = HEX_TEXT - 1;

    text[at] = '\0';
    do {
        text[--at] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value);
    text[--at] = 'x';
    text[--at] = '0';
    return &text[at];
}

json_t *json_hex(uint64_t value)
{
    char text[HEX_TEXT];

    return json_string_nocheck(hex_text(value, text));
}

json_t *json_name(const char *name)
{
    json_t *value;
    char *copy;

    if (!name)
        return json_null();
    value = json_string(name);
    if (value || !(copy = strdup(name)))
        return value;
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    value = json_string(copy);
    free(copy);
    return value;
}

json_t *json_place(const char *symbol, uint64_t offset)
{
    char *text;
    json_t *value;

    if (offset == 0)
        return json_name(symbol);
    if (asprintf(&text, "%s+0x%" PRIx64, symbol, offset) < 0)
        return NULL;
    value = json_name(text);
    free(text);
    return value;
}

json_t *json_bytes(const uint8_t *bytes, unsigned count)
{
    static const char digits[] = "0123456789abcdef";
    char text[64];
    unsigned length = 0;

    for (unsigned i = 0; i < count && length < sizeof text; i++) {
        text[length++] = digits[bytes[i] >> 4];
        text[length++] = digits[bytes[i] & 15];
    }
    return json_stringn_nocheck(text, length);
}

bool json_hex_value(const json_t *value, uint64_t *number)
{
    const char *text = json_string_value(value);
    size_t digits;

    if (!text || strncmp(text, "0x", 2) != 0)
        return false;
    digits = strspn(text + 2, "0123456789abcdefABCDEF");
    if (digits == 0 || digits > 16 || text[2 + digits] != '\0')
        return false;
    *number = strtoull(text + 2, NULL, 16);
    return true;
}
