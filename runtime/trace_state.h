/* SPDX-License-Identifier: MIT */
/* What a trace compares of a virtual processor before and after a step, and how it writes what is not the same. */
#ifndef RUNTIME_TRACE_STATE_H
#define RUNTIME_TRACE_STATE_H

#include "runtime/vcpu.h"

enum { TRACE_OFTEN = 24, TRACE_SELDOM = 30 }; /* numbers; trace_state.c names them */
struct trace_state {
    uint64_t often[TRACE_OFTEN];
    uint64_t seldom[TRACE_SELDOM];
    uint16_t selector[SEGS];
    uint64_t xmm[32];
    uint8_t ymm_high[16][16];
    uint64_t x87[16]; /* physical registers 0 to 7, each padded to 16 bytes */
    uint64_t top;     /* of the x87 stack */
};

void trace_state_take(struct trace_state *state, const struct vcpu *cpu);
/* Writes "name=value name=value" to `at`: at most TRACE_STATE_MAX characters, without a NUL. Returns its end. */
#define TRACE_STATE_MAX 3500u
char *trace_state_put(char *at, const struct trace_state *before, const struct trace_state *after);

/* Without a NUL; they return the end. */
char *trace_put_text(char *at, const char *text);
char *trace_put_hex(char *at, uint64_t value);

#endif
