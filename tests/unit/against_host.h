/* SPDX-License-Identifier: MIT */
/* One instruction on the host processor and on a vCPU, with the same registers, flags and data: both must leave
 * the same. */
#ifndef TESTS_AGAINST_HOST_H
#define TESTS_AGAINST_HOST_H

#include "tests/unit/one_insn.h"

#define AGAINST_HOST_DATA  ONE_INSN_DATA /* mapped in the test process too, at the same address */
#define AGAINST_HOST_BYTES 0x10000u

/* cmocka's setup and teardown for each test of a file whose vCPU is in `cpu`: in 64-bit mode at CPL 3, with the data
 * region on both sides. */
int against_host_open(void **state);
int against_host_close(void **state);
#define AGAINST_HOST_TEST(name, cpu)                                                               \
    cmocka_unit_test_prestate_setup_teardown(name, against_host_open, against_host_close, &(cpu))

/* Fills registers (of all shapes: small, large, all ones, single bits), status flags and 4 KiB of data from
 * AGAINST_HOST_DATA + 0x1000 on with random values; RSP stays. DF is clear. */
void against_host_random(struct vcpu *cpu);
/* One such value. */
uint64_t against_host_value(void);

/* Puts the prefix there that gives an instruction operands of so many bytes; returns its length, 0 or 1. */
size_t put_size(uint8_t *p, unsigned size);

/* Flags to compare from now on, until the next against_host_open: at first all status flags and DF. */
void against_host_flags(uint32_t flags);

/* Executes the bytes both ways and compares registers, flags and data. Repeats a REP
 * instruction on the vCPU until it is done. Fails the test, with the bytes, if they differ or if the vCPU faults. */
void same_as_host(struct vcpu *cpu, const uint8_t *bytes, size_t length);
#define SAME_AS_HOST(cpu, ...)                                                                     \
    same_as_host(cpu, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* What the host has of what clang's __builtin_cpu_supports does not know. */
bool host_has_movbe(void);
bool host_has_adx(void);

/* The vCPU side of it alone: until the instruction is done or faults. */
struct one_insn_result run_whole(struct vcpu *cpu, const uint8_t *bytes, size_t length);

#endif
