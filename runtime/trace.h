/* SPDX-License-Identifier: MIT */
/* The trace of a guest that is stepped: a line for each instruction.
 *
 *     ADDRESS<tab>SYMBOL+OFFSET<tab>BYTES<tab>INSTRUCTION<tab>CHANGES<tab>EVENT
 *
 * Addresses are guest-linear, numbers hexadecimal. CHANGES are the registers that the instruction changed
 * (trace_state.c), RIP aside: "rax=5 rflags=246". EVENT is what was delivered in that step: "#PF error=2 cr2=7f00",
 * "interrupt=30"; an event that came before an instruction could be executed has a line without bytes. Nothing else is
 * in a line, so that equal loops are equal lines: traces compress well. With several vCPUs the number of the vCPU and
 * ':' come first. */
#ifndef RUNTIME_TRACE_H
#define RUNTIME_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "image/error.h"

struct output;
struct trace;
struct vm;
struct vmcs;

/* The trace goes to `file`, which stays the caller's. NULL with *err set (HVRUN_HOST). */
struct trace *trace_open(struct vm *vm, struct output *file, struct error *err);
/* The state that the next steps begin in. */
void trace_begin(struct trace *trace);
/* The vCPU of this vmcs has made a step, or was left by another exit. 0, or -1 with *err: the file cannot be written. */
int trace_step(struct trace *trace, const struct vmcs *vmcs, struct error *err);
/* Lines written so far. */
uint64_t trace_lines(const struct trace *trace);
/* The bytes at `linear`: as many as are mapped, up to the longest instruction. */
#define TRACE_BYTES 15u
unsigned trace_fetch(struct vmcs *vmcs, uint64_t linear, uint8_t bytes[TRACE_BYTES]);
/* Writes what is still in the buffer; `trace` is freed. 0, or -1 with *err. */
int trace_close(struct trace *trace, struct error *err);

#endif
