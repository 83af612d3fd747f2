/* SPDX-License-Identifier: MIT */
/* What making a case keeps in mind. */
#ifndef TESTS_DIFFERENTIAL_GENERATE_H
#define TESTS_DIFFERENTIAL_GENERATE_H

#include "tests/tools/differential/case.h"

#define RSP_NUMBER 4

/* What a register is for at this point of the case. */
enum role {
    ROLE_VALUE,
    ROLE_SMALL, /* 0 … 15: a good index or count */
    ROLE_POINTER
};

struct generator {
    uint64_t state; /* of the random numbers */
    unsigned mix;
    ZydisDecoder decoder;
    enum role role[16];
    int aligned; /* a pointer that is a multiple of 16, for atomic operations */
    struct {
        uint8_t offset, bytes; /* of a branch's displacement in the instruction; 0 = none */
    } relative[CASE_INSNS];
};

/* ---- state.c ---- */
/* A number as programs have them: small, negative, one bit, all ones below a bit, or anything. */
uint64_t value_of_some_shape(uint64_t *state);
/* Random registers, flags, FP state and memory; fills the roles. */
void make_state(struct generator *g, struct machine *m);

#endif
