/* SPDX-License-Identifier: MIT */
/* Atoms: the smallest units of code that move, and what refers to them. */
#ifndef PATCHC_ATOMS_H
#define PATCHC_ATOMS_H

#include "patchc/plan.h"

#define ATOM_REACH   10 /* atoms looked at on each side of a site */
#define ATOM_RUN_MAX (2 * ATOM_REACH + 2)

struct atom_run { /* consecutive atoms that may all be displaced */
    struct atom atom[ATOM_RUN_MAX];
    int count;
    int center; /* the one that was asked for */
};

/* Builds the atom that contains `address`. False if it cannot move; *why says which rule forbids
 * it. */
bool atom_at(const struct plan *plan, uint64_t address, struct atom *atom, enum reason *why);

/* Collects movable, unclaimed atoms around `address`, up to ATOM_REACH on each side, ending with
 * dead padding where there is some. False if the atom at `address` itself cannot move. */
bool atoms_around(const struct plan *plan, uint64_t address, struct atom_run *run,
                  enum reason *why);

/* The number of dead bytes (INT3 or NOPs behind an instruction that never falls through, which
 * nothing refers to) at `address`, at most `limit`. */
uint64_t atoms_dead_bytes(const struct plan *plan, uint64_t address, uint64_t limit);

/* True if the atom is STI and a site that waits for it: one routine stands for both. */
bool atom_pairs_sti(const struct plan *plan, const struct atom *atom);

/* The site that begins at `address`, or -1. */
int32_t site_at(const struct plan *plan, uint64_t address);

/* Claimed bytes belong to a window or an island. */
void claim(struct plan *plan, uint64_t address, uint64_t size);

#endif
