/* SPDX-License-Identifier: MIT */
/* Lockstep of translator and interpreter: two machines on the soft engine with the same guest, each with its own memory
 * and devices. Both are deterministic, and so they go the same way by themselves: nothing is handed from one to the
 * other, and whatever differs is a mistake of one of them.
 *
 * They are compared behind every block, every event that is delivered and every fault. With a stride the translator
 * goes on for up to so many instructions, another number each time, through chains of blocks as it does in a run. */
#ifndef RUNTIME_LOCKSTEP_PAIR_H
#define RUNTIME_LOCKSTEP_PAIR_H

#include <stdio.h>

#include "image/error.h"

struct vm;

/* A machine like `leader`, without translator, power-on state and nothing loaded; what it prints goes nowhere. NULL
 * with *err. Released by lockstep_twin_close, NULL is fine. */
struct vm *lockstep_twin_open(const struct vm *leader, struct error *err);
void lockstep_twin_close(struct vm *twin);

/* Runs both to the end of the leader's guest or to the first difference, which is told on `stream`: leader->shutdown is
 * SHUTDOWN_DIFFERENCE then. 0, or -1 with *err. */
int lockstep_pair_run(struct vm *leader, struct vm *twin, FILE *stream, struct error *err);

#endif
