/* SPDX-License-Identifier: MIT */
/* Packets of gdb's remote protocol: $payload#checksum, with acknowledgements (gdb's manual,
 * "Overview" of the remote protocol). What comes in may be anything. */
#ifndef RUNTIME_GDB_PACKET_H
#define RUNTIME_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_PACKET_MAX 0x4000u /* bytes of a payload, as they are sent, in either direction */
#define GDB_FRAME_MAX  (GDB_PACKET_MAX + 8u)

/* ---- coming in ---- */
struct gdb_input {
    uint8_t bytes[GDB_FRAME_MAX];
    size_t begin, end; /* what has come and was not taken: bytes[begin, end) */
    size_t scanned;    /* up to here there is no end of the packet that begins at `begin` */
    bool discarding;   /* inside a packet that is too long */
};

enum gdb_token {
    GDB_NOTHING, /* more bytes are needed */
    /* *payload, *length: unescaped, followed by a 0; good until more is read or taken */
    GDB_PACKET,
    GDB_DAMAGED,   /* a packet that is too long or has a wrong checksum */
    GDB_INTERRUPT, /* Ctrl-C */
    GDB_ACK,
    GDB_NACK
};

/* Room for more bytes: they go to the result, *room of them at most, and gdb_input_add tells how
 * many came. There is always some once gdb_input_next has said GDB_NOTHING. */
uint8_t *gdb_input_room(struct gdb_input *input, size_t *room);
void gdb_input_add(struct gdb_input *input, size_t count);
/* Takes the next token. */
enum gdb_token gdb_input_next(struct gdb_input *input, char **payload, size_t *length);
/* Takes a Ctrl-C that stands before any packet, as it does when the guest runs. */
bool gdb_input_interrupt(struct gdb_input *input);

/* ---- going out ---- */
struct gdb_output {
    char payload[GDB_PACKET_MAX];
    size_t length;
    bool overflow;             /* more was put than there is room for: it is an error reply */
    char frame[GDB_FRAME_MAX]; /* what was sent last */
    size_t frame_length;
};

void gdb_put(struct gdb_output *output, const char *text);
void gdb_printf(struct gdb_output *output, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb_output *output, const void *bytes, size_t count);
void gdb_put_number(struct gdb_output *output, uint64_t value); /* hexadecimal, shortest */
/* Binary data, escaped. */
void gdb_put_binary(struct gdb_output *output, const void *bytes, size_t count);
/* Makes output->frame of the payload, run-length encoded, behind a '+' if `acknowledge`; the
 * payload is empty then. */
void gdb_frame(struct gdb_output *output, bool acknowledge);

/* ---- reading payloads ---- */
/* The hexadecimal number at *text, at most 16 digits; *text moves behind it. False: there is
 * none. */
bool gdb_number(const char **text, uint64_t *value);
/* The same, and the character `after` behind it. */
bool gdb_number_then(const char **text, uint64_t *value, char after);
/* `count` bytes from twice as many digits at *text. */
bool gdb_unhex(const char **text, void *bytes, size_t count);

#endif
