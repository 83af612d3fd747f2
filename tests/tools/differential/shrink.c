/* SPDX-License-Identifier: MIT */
/* Makes a failing case small. Whatever is taken away stays away if the two sides still differ without it. */
#include "tests/tools/differential/case.h"

#include <stdlib.h>
#include <string.h>

bool agree(const struct test_case *c, struct native *native, struct soft_side *soft,
           struct machine *host_after, struct machine *soft_after)
{
    native_begin(native, c, 1);
    soft_side_run(soft, c, soft_after);
    return !native_finish(native, host_after, 1) || same_outcome(c, host_after, soft_after, NULL);
}

struct shrinking {
    struct test_case *c, trial;
    struct native *native;
    struct soft_side *soft;
    struct machine host_after, soft_after;
};

/* Takes the trial over if it still fails. */
static bool keep(struct shrinking *s)
{
    if (agree(&s->trial, s->native, s->soft, &s->host_after, &s->soft_after))
        return false;
    *s->c = s->trial;
    return true;
}

static void drop_instructions(struct shrinking *s)
{
    for (unsigned n = s->c->count; n-- > 0 && s->c->count > 1;) {
        if (n >= s->c->count)
            continue;
        s->trial = *s->c;
        memmove(&s->trial.insn[n], &s->trial.insn[n + 1],
                (s->trial.count - n - 1) * sizeof s->trial.insn[0]);
        s->trial.count--;
        if (keep(s))
            continue;
        s->trial = *s->c; /* branches over it need its length */
        memset(s->trial.insn[n].bytes, 0x90, s->trial.insn[n].length);
        keep(s);
    }
}

static void zero(struct shrinking *s, size_t offset, size_t bytes)
{
    uint8_t *at = (uint8_t *)&s->trial.before + offset;
    s->trial = *s->c;
    memset(at, 0, bytes);
    keep(s);
}

/* Halves of the data first, then ever smaller parts. */
static void zero_data(struct shrinking *s)
{
    for (size_t part = DATA_BYTES; part >= 16; part /= 2)
        for (size_t at = 0; at < DATA_BYTES; at += part)
            zero(s, offsetof(struct machine, data) + at, part);
}

void shrink(struct test_case *c, struct native *native, struct soft_side *soft)
{
    struct shrinking *s = malloc(sizeof *s);
    if (!s)
        return;
    s->c = c;
    s->native = native;
    s->soft = soft;
    unsigned before;
    do {
        before = c->count;
        drop_instructions(s);
    } while (c->count < before);
    for (size_t reg = 0; reg < 16; reg++)
        zero(s, offsetof(struct machine, r) + 8 * reg, 8);
    for (size_t n = 0; n < 8; n++)
        zero(s, offsetof(struct machine, fx) + 32 + 16 * n, 16);
    for (size_t n = 0; n < 16; n++) {
        zero(s, offsetof(struct machine, fx) + 160 + 16 * n, 16);
        zero(s, offsetof(struct machine, ymm_high) + 16 * n, 16);
    }
    s->trial = *c;
    s->trial.before.rflags = 2;
    keep(s);
    s->trial = *c;
    memcpy(FX_MXCSR(&s->trial.before), (const uint8_t[]){0x80, 0x1f, 0, 0}, 4);
    keep(s);
    s->trial = *c;
    memcpy(s->trial.before.fx, (const uint8_t[]){0x7f, 0x03, 0, 0, 0}, 5);
    keep(s);
    zero_data(s);
    free(s);
}
