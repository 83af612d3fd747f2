/* SPDX-License-Identifier: MIT */
/* The sixteen conditions of Jcc, SETcc and CMOVcc (SDM 1 appendix B), on status flags as vcpu.status holds them. */
#ifndef RUNTIME_SOFT_CONDITION_H
#define RUNTIME_SOFT_CONDITION_H

#include "runtime/soft/access.h"

static inline bool condition(uint16_t status, unsigned code)
{
    bool holds = false;
    switch (code >> 1) {
    case 0:
        holds = status & STATUS_OF;
        break;
    case 1:
        holds = status & STATUS_CF;
        break;
    case 2:
        holds = status & STATUS_ZF;
        break;
    case 3:
        holds = status & (STATUS_CF | STATUS_ZF);
        break;
    case 4:
        holds = status & STATUS_SF;
        break;
    case 5:
        holds = status & STATUS_PF;
        break;
    case 6:
        holds = (status >> 15 ^ status) & 1;
        break;
    case 7:
        holds = (status & STATUS_ZF) || ((status >> 15 ^ status) & 1);
        break;
    }
    return holds ^ (code & 1);
}

/* X(mnemonic suffix, code) */
/* clang-format off */
#define CONDITIONS(X)                                                                              \
    X(O, 0) X(NO, 1) X(B, 2) X(NB, 3) X(Z, 4) X(NZ, 5) X(BE, 6) X(NBE, 7)                          \
    X(S, 8) X(NS, 9) X(P, 10) X(NP, 11) X(L, 12) X(NL, 13) X(LE, 14) X(NLE, 15)
/* clang-format on */

#endif
