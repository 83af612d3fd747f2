/* SPDX-License-Identifier: MIT */
/* JSON text in a growing buffer. */
#include "patchc/json_text.h"

#include <stdlib.h>
#include <string.h>

#include "patchc/json.h"

/* Makes room for `more` bytes. False: out of memory. */
static bool reserve(struct json_text *text, size_t more)
{
    size_t room = (text->room + more) * 2;
    char *grown;

    if (more <= text->room - text->size)
        return true;
    grown = realloc(text->bytes, room);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->room = room;
    return true;
}

static void add_bytes(struct json_text *text, const char *bytes, size_t size)
{
    if (!reserve(text, size))
        return;
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

void json_text_add(struct json_text *text, const char *literal)
{
    add_bytes(text, literal, strlen(literal));
}

void json_text_key(struct json_text *text, const char *key)
{
    char last = text->size ? text->bytes[text->size - 1] : '\0';

    json_text_add(text, last == '{' ? "\"" : ",\"");
    json_text_add(text, key);
    json_text_add(text, "\":");
}

void json_text_string(struct json_text *text, const char *string)
{
    size_t length;

    if (!string) {
        json_text_add(text, "null");
        return;
    }
    for (length = 0; string[length]; length++) {
        unsigned char c = (unsigned char)string[length];

        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\') { /* rare: jansson knows the rules */
            json_text_value(text, json_name(string));
            return;
        }
    }
    if (!reserve(text, length + 2))
        return;
    text->bytes[text->size] = '"';
    memcpy(text->bytes + text->size + 1, string, length);
    text->bytes[text->size + length + 1] = '"';
    text->size += length + 2;
}

void json_text_number(struct json_text *text, uint64_t number)
{
    char digits[20], *start = digits + sizeof digits;

    do {
        *--start = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    add_bytes(text, start, (size_t)(digits + sizeof digits - start));
}

void json_text_hex(struct json_text *text, uint64_t number)
{
    char digits[HEX_TEXT];

    json_text_add(text, "\"");
    json_text_add(text, hex_text(number, digits));
    json_text_add(text, "\"");
}

void json_text_value(struct json_text *text, json_t *value)
{
    size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6), needed;

    needed = value ? json_dumpb(value, NULL, 0, flags) : 0;
    if (needed == 0 || !reserve(text, needed) ||
        json_dumpb(value, text->bytes + text->size, needed, flags) != needed)
        text->failed = true;
    else
        text->size += needed;
    json_decref(value);
}
