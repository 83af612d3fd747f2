/* SPDX-License-Identifier: MIT */
/* The synthetic Linux image: its code, its sections, and what is expected of reading it. */
#include "linux_setup.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* after image/error.h: it defines fail() as a macro */

static uint8_t text[TEXT_SIZE];
static const char banner[] = "Linux version 6.1.0-test (builder@host)";

void setup_put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void put_branch(unsigned at, const char *opcode, unsigned opcode_size, unsigned target)
{
    memcpy(text + at, opcode, opcode_size);
    setup_put32(text + at + opcode_size, target - (at + opcode_size + 4));
}

static void make_text(void)
{
    memset(text, 0x90, sizeof text);
    memcpy(text + AT_UD2, "\x0f\x0b", 2);
    put_branch(AT_CALL, "\xe8", 1, AT_TRAMPOLINE);
    put_branch(AT_JUMP, "\xe9", 1, AT_TRAMPOLINE);
    text[AT_LOCK] = 0xf0;
    memcpy(text + AT_NOP2, "\x66\x90", 2);
    memcpy(text + AT_NOP5, "\x0f\x1f\x44\x00\x00", 5);
    memcpy(text + AT_SHORT, "\xeb\x06", 2);
    put_branch(AT_LONG, "\xe9", 1, AT_LONG + 16);
    put_branch(AT_CS_CALL, "\x2e\xe8", 2, AT_PLAIN);
    put_branch(AT_JCC, "\x0f\x85", 2, AT_PLAIN);
    put_branch(AT_TRAMPOLINE, "\xe9", 1, AT_PLAIN);
    memcpy(text + AT_TRAMPOLINE + 5, "\x0f\xb9\xcc", 3);
    for (unsigned i = 0; i < 32; i++) {
        put_branch(AT_CALLS + 5 * i, "\xe8", 1, AT_TRAMPOLINE);
        memcpy(text + AT_NOPS + 2 * i, "\x66\x90", 2);
    }
}

void setup_begin(struct setup *s)
{
    memset(s, 0, sizeof *s);
    make_text();
    linux_image_add(&s->li, ".text", SHF_EXECINSTR, text, sizeof text);
    linux_image_add(&s->li, ".rodata", 0, banner, sizeof banner);
}

int setup_read(struct setup *s)
{
    size_t size;
    s->bytes = linux_image_build(&s->li, &size);
    if (image_from_memory("synthetic", s->bytes, size, &s->image, &s->err))
        fail_msg("%s", s->err.text);
    return linux_tables_read(&s->image, &s->tables, &s->err);
}

void setup_end(struct setup *s)
{
    linux_tables_close(&s->tables);
    image_close(&s->image);
    free(s->bytes);
}

void setup_name(uint8_t *table, uint64_t base, size_t at, uint64_t address)
{
    setup_put32(table + at, (uint32_t)(address - (base + at)));
}

uint64_t setup_next(const struct setup *s)
{
    return linux_image_address(s->li.section_count);
}

uint64_t setup_list(struct setup *s, const char *section, uint8_t *list, const int *offsets,
                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        setup_name(list, setup_next(s), 4 * i, TEXT + (uint64_t)offsets[i]);
    return linux_image_add(&s->li, section, 0, list, 4 * count);
}

void setup_expect_failure(struct setup *s, const char *table, const char *reason)
{
    assert_int_equal(setup_read(s), -1);
    assert_int_equal(s->err.code, EXIT_INPUT);
    if (!strstr(s->err.text, table) || !strstr(s->err.text, reason) ||
        !strstr(s->err.text, "synthetic"))
        fail_msg("not about %s, %s: %s", table, reason, s->err.text);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
        assert_null(s->tables.table[kind].entries);
    setup_end(s);
}

void merged_fill(struct merged *m, uint64_t base)
{
    static const int labels[][2] = {{AT_NOP2, AT_PLAIN},
                                    {AT_NOP5, AT_PLAIN},
                                    {AT_SHORT, AT_SHORT + 8},
                                    {AT_LONG, AT_LONG + 16}};
    memset(m, 0, sizeof *m);
    size_t at = 64;
    m->jump = base + at;
    for (size_t i = 0; i < 36; i++, at += 16) {
        int code = i < 4 ? labels[i][0] : AT_NOPS + 2 * ((int)i - 4);
        setup_name(m->bytes, base, at, TEXT + (uint64_t)code);
        setup_name(m->bytes, base, at + 4, TEXT + (uint64_t)(i < 4 ? labels[i][1] : AT_PLAIN));
        setup_put32(m->bytes + at + 8, 16); /* a key behind the entry */
    }
    m->calls = base + at;
    for (size_t i = 0; i < 32; i++, at += 8) {
        setup_name(m->bytes, base, at, TEXT + AT_CALLS + 5 * i);
        setup_name(m->bytes, base, at + 4, base + 8);
    }
    at += 64;
    m->mcount = base + at;
    for (size_t i = 0; i < 32; i++, at += 8) {
        uint64_t address = TEXT + AT_CALLS + 5 * i;
        memcpy(m->bytes + at, &address, 8);
    }
    m->mcount_end = base + at;
}

void merged_symbols(struct setup *s, const struct merged *m)
{
    linux_image_symbol(&s->li, "__start___jump_table", m->jump);
    linux_image_symbol(&s->li, "__stop___jump_table", m->calls);
    linux_image_symbol(&s->li, "__start_static_call_sites", m->calls);
    linux_image_symbol(&s->li, "__stop_static_call_sites", m->calls + 32 * 8);
    linux_image_symbol(&s->li, "__start_mcount_loc", m->mcount);
    linux_image_symbol(&s->li, "__stop_mcount_loc", m->mcount_end);
}
