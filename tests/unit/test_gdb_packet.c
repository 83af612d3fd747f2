/* SPDX-License-Identifier: MIT */
/* Framing of gdb's packets, for clients that may send anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/gdb_packet.h"

#include <cmocka.h>

static struct gdb_input *input;
static struct gdb_output *output;
static char *payload;
static size_t length;

static int setup(void **state)
{
    (void)state;
    input = calloc(1, sizeof *input);
    output = calloc(1, sizeof *output);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(input);
    free(output);
    return 0;
}

/* ---- coming in ---- */
static void give(const void *bytes, size_t count)
{
    size_t room;
    uint8_t *to = gdb_input_room(input, &room);
    assert_true(room >= count);
    memcpy(to, bytes, count);
    gdb_input_add(input, count);
}

static enum gdb_token next(void)
{
    return gdb_input_next(input, &payload, &length);
}

#define GIVE(text) give(text, sizeof(text) - 1)
/* The same as a packet, framed. */
static void give_packet(const char *text, size_t count, const char *format)
{
    uint8_t sum = 0;
    char end[4];
    for (size_t n = 0; n < count; n++)
        sum += (uint8_t)text[n];
    snprintf(end, sizeof end, format, sum);
    give("$", 1);
    give(text, count);
    give(end, 3);
}
#define GIVE_PACKET(text) give_packet(text, sizeof(text) - 1, "#%02x")
#define PACKET_IS(text)                                                                            \
    do {                                                                                           \
        assert_int_equal(next(), GDB_PACKET);                                                      \
        assert_int_equal(length, sizeof(text) - 1);                                                \
        assert_memory_equal(payload, text, sizeof(text));                                          \
    } while (0)

static void test_a_packet_is_its_payload(void **state)
{
    (void)state;
    GIVE("$g#67");
    PACKET_IS("g");
    assert_int_equal(next(), GDB_NOTHING);
    GIVE("$#00");
    PACKET_IS("");
}

static void test_packets_may_come_in_any_pieces(void **state)
{
    static const char text[] = "+$m10,4#2e$vCont?#49-\x03$QStartNoAckMode#b0";
    (void)state;
    const struct {
        enum gdb_token token;
        const char *payload;
    } expected[] = {{GDB_ACK, NULL},    {GDB_PACKET, "m10,4"}, {GDB_PACKET, "vCont?"},
                    {GDB_NACK, NULL},   {GDB_INTERRUPT, NULL}, {GDB_PACKET, "QStartNoAckMode"},
                    {GDB_NOTHING, NULL}};
    for (size_t piece = 1; piece < sizeof text; piece++) {
        size_t told = 0;
        for (size_t at = 0; at < sizeof text - 1; at += piece) {
            size_t left = sizeof text - 1 - at;
            give(text + at, left < piece ? left : piece);
            for (enum gdb_token token; (token = next()) != GDB_NOTHING; told++) {
                assert_int_equal(token, expected[told].token);
                if (token == GDB_PACKET)
                    assert_string_equal(payload, expected[told].payload);
            }
        }
        assert_int_equal(told, 6);
    }
}

static void test_a_wrong_checksum_is_told(void **state)
{
    (void)state;
    GIVE("$g#68");
    assert_int_equal(next(), GDB_DAMAGED);
    GIVE("$g#zz");
    assert_int_equal(next(), GDB_DAMAGED);
    GIVE("$g#67");
    PACKET_IS("g");
}

static void test_checksums_may_be_written_in_capitals(void **state)
{
    (void)state;
    give_packet("m10,4M", 6, "#%02X");
    PACKET_IS("m10,4M");
}

static void test_escaped_bytes_are_themselves(void **state)
{
    (void)state;
    GIVE_PACKET("X0,4:}\x03}\x04}\x5d}\x0a");
    assert_int_equal(next(), GDB_PACKET);
    assert_memory_equal(payload, "X0,4:#$}*", 10);
}

static void test_a_zero_byte_is_data(void **state)
{
    (void)state;
    GIVE_PACKET("X0,1:\0");
    assert_int_equal(next(), GDB_PACKET);
    assert_int_equal(length, 6);
    assert_int_equal(payload[5], 0);
}

static void test_a_packet_cut_off_by_another_is_dropped(void **state)
{
    (void)state;
    GIVE("$m10,$g#67");
    PACKET_IS("g");
}

static void test_noise_between_packets_is_passed_over(void **state)
{
    (void)state;
    GIVE("hello\r\n#00}$g#67noise$?#3f");
    PACKET_IS("g");
    PACKET_IS("?");
}

static void test_a_packet_that_is_too_long_is_told_once_and_the_next_one_is_good(void **state)
{
    char chunk[1000];
    (void)state;
    memset(chunk, 'a', sizeof chunk);
    GIVE("$");
    for (size_t left = 100000, room; left; left -= room) {
        gdb_input_room(input, &room);
        assert_true(room > 0);
        if (room > sizeof chunk)
            room = sizeof chunk;
        if (room > left)
            room = left;
        give(chunk, room);
        assert_int_equal(next(), GDB_NOTHING);
    }
    GIVE("#00$g#67");
    assert_int_equal(next(), GDB_DAMAGED);
    PACKET_IS("g");
}

static void test_the_longest_packet_fits(void **state)
{
    static char text[GDB_PACKET_MAX + 8];
    uint8_t sum = 0;
    (void)state;
    text[0] = '$';
    for (unsigned n = 1; n <= GDB_PACKET_MAX; n++)
        sum += (uint8_t)(text[n] = 'b');
    sprintf(text + 1 + GDB_PACKET_MAX, "#%02x", sum);
    give(text, GDB_PACKET_MAX + 4);
    assert_int_equal(next(), GDB_PACKET);
    assert_int_equal(length, GDB_PACKET_MAX);
}

static void test_an_interrupt_is_seen_before_a_packet_only(void **state)
{
    (void)state;
    GIVE("+\x03");
    assert_true(gdb_input_interrupt(input));
    assert_false(gdb_input_interrupt(input));
    GIVE_PACKET("X0,1:\x03");
    assert_false(gdb_input_interrupt(input));
    assert_int_equal(next(), GDB_PACKET);
}

/* ---- going out ---- */
/* The frame's payload with run lengths expanded, checksum and framing checked. */
static const char *sent(bool acknowledged)
{
    static char text[2 * GDB_PACKET_MAX];
    const char *at = output->frame, *end = output->frame + output->frame_length;
    size_t count = 0;
    uint8_t sum = 0;
    char digits[3];
    if (acknowledged)
        assert_int_equal(*at++, '+');
    assert_int_equal(*at++, '$');
    for (; at < end && *at != '#'; at++) {
        assert_int_not_equal(*at, '$');
        sum += (uint8_t)*at;
        if (*at == '*') {
            sum += (uint8_t) * ++at;
            assert_in_range(*at, 32, 126);
            memset(text + count, text[count - 1], (size_t)(*at - 29));
            count += (size_t)(*at - 29);
        } else {
            text[count++] = *at;
        }
    }
    assert_int_equal(end - at, 3);
    snprintf(digits, sizeof digits, "%02x", sum);
    assert_memory_equal(at + 1, digits, 2);
    text[count] = '\0';
    return text;
}

static void test_replies_have_their_checksum(void **state)
{
    (void)state;
    gdb_put(output, "OK");
    gdb_frame(output, false);
    assert_memory_equal(output->frame, "$OK#9a", 6);
    assert_int_equal(output->frame_length, 6);
    gdb_put(output, "OK");
    gdb_frame(output, true);
    assert_memory_equal(output->frame, "+$OK#9a", 7);
    gdb_frame(output, false);
    assert_memory_equal(output->frame, "$#00", 4);
}

static void test_runs_of_any_length_come_out_as_they_were(void **state)
{
    char text[400];
    (void)state;
    for (size_t run = 1; run < 300; run++) {
        memset(text, '0', run);
        memcpy(text + run, "xyz", 4);
        gdb_put(output, "a");
        gdb_put(output, text);
        gdb_frame(output, false);
        assert_int_equal(sent(false)[0], 'a');
        assert_string_equal(sent(false) + 1, text);
        if (run > 10)
            assert_true(output->frame_length < run + 8 - run / 3);
    }
}

static void test_binary_data_is_escaped(void **state)
{
    (void)state;
    gdb_put_binary(output, "a#$}*b", 6);
    assert_int_equal(output->length, 10);
    assert_memory_equal(output->payload,
                        "a}\x03}\x04}\x5d}\x0a"
                        "b",
                        10);
}

static void test_numbers_are_written_short_and_bytes_whole(void **state)
{
    static const uint8_t bytes[] = {0x00, 0x9f, 0xff};
    (void)state;
    gdb_put_number(output, 0);
    gdb_put(output, " ");
    gdb_put_number(output, 0xffffffff81000000);
    gdb_put(output, " ");
    gdb_put_hex(output, bytes, sizeof bytes);
    gdb_printf(output, " %02x", 5);
    gdb_frame(output, false);
    assert_string_equal(sent(false), "0 ffffffff81000000 009fff 05");
}

static void test_a_reply_without_room_is_an_error(void **state)
{
    static const uint8_t zeros[GDB_PACKET_MAX];
    (void)state;
    gdb_put_hex(output, zeros, sizeof zeros);
    gdb_frame(output, false);
    assert_string_equal(sent(false), "E1c");
    gdb_put_binary(output, zeros, sizeof zeros);
    gdb_put(output, "x");
    gdb_frame(output, false);
    assert_string_equal(sent(false), "E1c");
    gdb_put(output, "OK");
    gdb_frame(output, false);
    assert_string_equal(sent(false), "OK");
}

/* ---- reading payloads ---- */
static void test_numbers_are_read_with_what_follows(void **state)
{
    const char *text = "ffffffff81000000,4:";
    uint64_t value;
    (void)state;
    assert_true(gdb_number_then(&text, &value, ','));
    assert_int_equal(value, 0xffffffff81000000);
    assert_true(gdb_number_then(&text, &value, ':'));
    assert_int_equal(value, 4);
    assert_int_equal(*text, '\0');
    assert_false(gdb_number(&text, &value));
    text = "11112222333344445";
    assert_false(gdb_number(&text, &value));
    text = "10;";
    assert_false(gdb_number_then(&text, &value, '\0'));
    text = "x";
    assert_false(gdb_number(&text, &value));
}

static void test_bytes_are_read_from_digits_in_pairs(void **state)
{
    const char *text = "00fF7";
    uint8_t bytes[3];
    (void)state;
    assert_true(gdb_unhex(&text, bytes, 2));
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[1], 0xff);
    assert_false(gdb_unhex(&text, bytes, 1));
    text = "0g";
    assert_false(gdb_unhex(&text, bytes, 1));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_packet_is_its_payload),
        TEST(test_packets_may_come_in_any_pieces),
        TEST(test_a_wrong_checksum_is_told),
        TEST(test_checksums_may_be_written_in_capitals),
        TEST(test_escaped_bytes_are_themselves),
        TEST(test_a_zero_byte_is_data),
        TEST(test_a_packet_cut_off_by_another_is_dropped),
        TEST(test_noise_between_packets_is_passed_over),
        TEST(test_a_packet_that_is_too_long_is_told_once_and_the_next_one_is_good),
        TEST(test_the_longest_packet_fits),
        TEST(test_an_interrupt_is_seen_before_a_packet_only),
        TEST(test_replies_have_their_checksum),
        TEST(test_runs_of_any_length_come_out_as_they_were),
        TEST(test_binary_data_is_escaped),
        TEST(test_numbers_are_written_short_and_bytes_whole),
        TEST(test_a_reply_without_room_is_an_error),
        TEST(test_numbers_are_read_with_what_follows),
        TEST(test_bytes_are_read_from_digits_in_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
