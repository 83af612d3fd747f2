/* SPDX-License-Identifier: MIT */
/* A synthetic Linux image for the tests of its tables: code with one of each instruction that a
 * table names, a banner, and sections that a test adds. */
#ifndef TESTS_LINUX_SETUP_H
#define TESTS_LINUX_SETUP_H

#include "patchc/linux_tables.h"
#include "tests/linux_image.h"

#define TEXT LINUX_IMAGE_TEXT

/* Synthetic code: one of each instruction that a table names, at known offsets. */
enum {
    AT_UD2 = 0x00,
    AT_CALL = 0x10, /* e8, to AT_TRAMPOLINE */
    AT_JUMP = 0x20, /* e9, to AT_TRAMPOLINE */
    AT_LOCK = 0x30,
    AT_NOP2 = 0x40,
    AT_NOP5 = 0x48,
    AT_SHORT = 0x50,      /* eb 06: to AT_SHORT + 8 */
    AT_LONG = 0x60,       /* e9 0b: to AT_LONG + 16 */
    AT_CS_CALL = 0x78,    /* 2e e8 */
    AT_JCC = 0x88,        /* 0f 85 rel32 */
    AT_PLAIN = 0x98,      /* nothing that a table names */
    AT_TRAMPOLINE = 0xa0, /* jmp; ud1 with 0xcc: a static call's trampoline */
    AT_CALLS = 0xb0,      /* 32 calls of 5 bytes to the first of them */
    AT_NOPS = 0x160,      /* 32 jump labels of 2 bytes */
    TEXT_SIZE = 0x1b0,
};

/* An image with that text and a banner; sections are added, then it is opened. */
struct setup {
    struct linux_image li;
    uint8_t *bytes;
    struct image image;
    struct linux_tables tables;
    struct error err;
};

/* Starts an image of code and banner. */
void setup_begin(struct setup *s);

/* Builds and opens it; returns what linux_tables_read does. */
int setup_read(struct setup *s);

void setup_end(struct setup *s);

/* Reads, which must fail with a message about that table and reason, and ends. */
void setup_expect_failure(struct setup *s, const char *table, const char *reason);

void setup_put32(uint8_t *at, uint32_t value);

/* Writes at table + at the s32 that names `address` from there; `base` is the guest-linear address
 * of `table`. */
void setup_name(uint8_t *table, uint64_t base, size_t at, uint64_t address);

/* The address of the next section to be added. */
uint64_t setup_next(const struct setup *s);

/* A section of s32 that name these text offsets; `list` must stay until the image is built. */
uint64_t setup_list(struct setup *s, const char *section, uint8_t *list, const int *offsets,
                    size_t count);

/* The three tables inside .data, with a stop symbol each. */
struct merged {
    uint8_t bytes[4096];
    uint64_t jump, calls, mcount, mcount_end;
};

/* Fills the tables for a .data at `base`. */
void merged_fill(struct merged *m, uint64_t base);

/* Adds the symbols that bound them. */
void merged_symbols(struct setup *s, const struct merged *m);

#endif
