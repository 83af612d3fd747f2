/* SPDX-License-Identifier: MIT */
/* Two machines, one that translates and one that interprets, which get the same memory and registers and go on by
 * turns: their states must agree whenever both stop. */
#ifndef TESTS_UNIT_TRANSLATOR_LAB_H
#define TESTS_UNIT_TRANSLATOR_LAB_H

#include "runtime/vm.h"
#include "tests/unit/one_insn.h"

#define LAB_CODE    0x8000u /* two pages for programs */
#define LAB_HANDLER 0xf000u /* HLT, where every exception leads */
#define LAB_DATA                                                                                   \
    0x10000u /* 16 pages; of the last four one is read-only, one is missing, one is device memory */
#define LAB_READONLY 0x1c000u
#define LAB_MISSING  0x1d000u

struct translator_lab {
    struct vm *translates, *interprets;
};

/* The next that is opened translates as if the host had no BMI2. */
void translator_lab_old_host(bool old);
/* `code_cache`: bytes for code, or 0. False: this host has no translator. */
bool translator_lab_open(struct translator_lab *lab, uint64_t code_cache);
void translator_lab_close(struct translator_lab *lab);

/* The same in both: bytes to guest-physical memory, and everything but memory as it is at the start. */
void translator_lab_put(struct translator_lab *lab, uint64_t at, const void *bytes, size_t size);
void translator_lab_start(struct translator_lab *lab, uint64_t rip, bool user);
void translator_lab_register(struct translator_lab *lab, unsigned n, uint64_t value);

/* Both go on for that many instructions, or until they halt. False: they differ, and why was printed. */
bool translator_lab_run(struct translator_lab *lab, int64_t instructions);
bool translator_lab_halted(const struct translator_lab *lab);

#endif
