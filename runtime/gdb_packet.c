/* SPDX-License-Identifier: MIT */
/* Framing: bytes to packets and back, with checksums, escapes and run lengths. */
#include "runtime/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char digits[] = "0123456789abcdef";

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ---- coming in ---- */
uint8_t *gdb_input_room(struct gdb_input *input, size_t *room)
{
    if (input->begin) {
        memmove(input->bytes, input->bytes + input->begin, input->end - input->begin);
        input->end -= input->begin;
        input->scanned -= input->begin;
        input->begin = 0;
    }
    *room = sizeof input->bytes - input->end;
    return input->bytes + input->end;
}

void gdb_input_add(struct gdb_input *input, size_t count)
{
    input->end += count;
}

bool gdb_input_interrupt(struct gdb_input *input)
{
    while (input->begin < input->end) {
        uint8_t byte = input->bytes[input->begin];
        if (input->discarding || (byte != 0x03 && byte != '+'))
            return false;
        input->begin++;
        input->scanned = input->begin;
        if (byte == 0x03)
            return true;
    }
    return false;
}

static size_t unescape(uint8_t *bytes, size_t count)
{
    size_t to = 0;
    for (size_t from = 0; from < count; from++) {
        if (bytes[from] == '}' && from + 1 < count)
            bytes[to++] = bytes[++from] ^ 0x20;
        else
            bytes[to++] = bytes[from];
    }
    return to;
}

/* The packet at `begin` ends with the '#' at `hash`, and its checksum has come. */
static enum gdb_token take_packet(struct gdb_input *input, size_t hash, char **payload,
                                  size_t *length)
{
    uint8_t *first = input->bytes + input->begin + 1, sum = 0;
    size_t count = hash - input->begin - 1;
    int high = digit((char)input->bytes[hash + 1]), low = digit((char)input->bytes[hash + 2]);
    for (size_t n = 0; n < count; n++)
        sum += first[n];
    input->begin = input->scanned = hash + 3;
    if (input->discarding || high < 0 || low < 0 || sum != (high << 4 | low)) {
        input->discarding = false;
        return GDB_DAMAGED;
    }
    *length = unescape(first, count);
    first[*length] = 0; /* where the '#' was, or before */
    *payload = (char *)first;
    return GDB_PACKET;
}

/* A packet begins at `begin`. In it neither '$' nor '#' occurs but escaped. */
static enum gdb_token scan_packet(struct gdb_input *input, char **payload, size_t *length)
{
    if (input->scanned <= input->begin)
        input->scanned = input->begin + 1;
    for (; input->scanned < input->end; input->scanned++) {
        uint8_t byte = input->bytes[input->scanned];
        if (byte == '$') { /* the one before was cut off */
            input->begin = input->scanned;
            input->discarding = false;
        } else if (byte == '#') {
            if (input->end - input->scanned < 3)
                break;
            return take_packet(input, input->scanned, payload, length);
        }
    }
    if (input->end - input->begin >= sizeof input->bytes) { /* keep its '$', and maybe its '#' */
        size_t rest = input->end - input->scanned;
        memmove(input->bytes + 1, input->bytes + input->scanned, rest);
        input->bytes[0] = '$';
        input->begin = 0;
        input->scanned = 1;
        input->end = 1 + rest;
        input->discarding = true;
    }
    return GDB_NOTHING;
}

enum gdb_token gdb_input_next(struct gdb_input *input, char **payload, size_t *length)
{
    while (input->begin < input->end) {
        switch (input->bytes[input->begin]) {
        case '$':
            return scan_packet(input, payload, length);
        case 0x03:
            input->scanned = ++input->begin;
            return GDB_INTERRUPT;
        case '+':
            input->scanned = ++input->begin;
            return GDB_ACK;
        case '-':
            input->scanned = ++input->begin;
            return GDB_NACK;
        default: /* between packets nothing else means anything */
            input->scanned = ++input->begin;
        }
    }
    return GDB_NOTHING;
}

/* ---- going out ---- */
static void put(struct gdb_output *output, const char *text, size_t length)
{
    if (length > sizeof output->payload - output->length) {
        output->overflow = true;
        return;
    }
    memcpy(output->payload + output->length, text, length);
    output->length += length;
}

void gdb_put(struct gdb_output *output, const char *text)
{
    put(output, text, strlen(text));
}

void gdb_printf(struct gdb_output *output, const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (length >= 0)
        put(output, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

void gdb_put_hex(struct gdb_output *output, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    if (count > (sizeof output->payload - output->length) / 2) {
        output->overflow = true;
        return;
    }
    char *to = output->payload + output->length;
    for (size_t n = 0; n < count; n++) {
        *to++ = digits[from[n] >> 4];
        *to++ = digits[from[n] & 15];
    }
    output->length += 2 * count;
}

void gdb_put_number(struct gdb_output *output, uint64_t value)
{
    char text[16];
    size_t length = 0;
    do {
        text[sizeof text - ++length] = digits[value & 15];
        value >>= 4;
    } while (value);
    put(output, text + sizeof text - length, length);
}

static bool special(uint8_t byte)
{
    return byte == '#' || byte == '$' || byte == '}' || byte == '*';
}

void gdb_put_binary(struct gdb_output *output, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    for (size_t n = 0; n < count; n++) {
        char pair[2] = {'}', (char)(from[n] ^ 0x20)};
        if (special(from[n]))
            put(output, pair, 2);
        else
            put(output, (const char *)&from[n], 1);
    }
}

/* How many bytes of the run of `length` equal ones one run-length code stands for: the byte
 * itself and as many again as the code's character says, less 29. A run shorter than 4 is not
 * worth it; '#' and '$' cannot be codes. */
static size_t run_coded(size_t length)
{
    size_t again = length - 1 < 97 ? length - 1 : 97;
    if (again == '#' - 29 || again == '$' - 29)
        again = '#' - 29 - 1;
    return again < 3 ? 0 : again + 1;
}

void gdb_frame(struct gdb_output *output, bool acknowledge)
{
    char *to = output->frame;
    uint8_t sum = 0;
    if (output->overflow) {
        output->length = 0;
        output->overflow = false;
        gdb_put(output, "E1c");
    }
    if (acknowledge)
        *to++ = '+';
    *to++ = '$';
    char *first = to;
    for (size_t n = 0; n < output->length;) {
        char byte = output->payload[n];
        size_t length = 1;
        while (n + length < output->length && output->payload[n + length] == byte)
            length++;
        size_t coded = length > 3 ? run_coded(length) : 0;
        *to++ = byte;
        if (coded) {
            *to++ = '*';
            *to++ = (char)(coded - 1 + 29);
        }
        n += coded ? coded : 1;
    }
    for (const char *c = first; c < to; c++)
        sum += (uint8_t)*c;
    *to++ = '#';
    *to++ = digits[sum >> 4];
    *to++ = digits[sum & 15];
    output->frame_length = (size_t)(to - output->frame);
    output->length = 0;
}

/* ---- reading payloads ---- */
bool gdb_number(const char **text, uint64_t *value)
{
    const char *at = *text;
    *value = 0;
    while (digit(*at) >= 0 && at - *text < 16)
        *value = *value << 4 | (unsigned)digit(*at++);
    if (at == *text || digit(*at) >= 0)
        return false;
    *text = at;
    return true;
}

bool gdb_number_then(const char **text, uint64_t *value, char after)
{
    if (!gdb_number(text, value) || **text != after)
        return false;
    if (after)
        (*text)++;
    return true;
}

bool gdb_unhex(const char **text, void *bytes, size_t count)
{
    uint8_t *to = bytes;
    const char *at = *text;
    for (size_t n = 0; n < count; n++, at += 2) {
        int high = digit(at[0]);
        int low = high < 0 ? -1 : digit(at[1]);
        if (low < 0)
            return false;
        to[n] = (uint8_t)(high << 4 | low);
    }
    *text = at;
    return true;
}
