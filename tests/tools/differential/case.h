/* SPDX-License-Identifier: MIT */
/* A case of the differential test: a short piece of user-mode code with the state it begins in, and what executing it
 * led to, once on the host processor and once on the software processor. */
#ifndef TESTS_DIFFERENTIAL_CASE_H
#define TESTS_DIFFERENTIAL_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <Zydis/Zydis.h>

/* ---- memory, at the same linear addresses on both sides ---- */
#define CODE_BASE  0x10000000ull /* one page, executable, not writable */
#define CODE_BYTES 4096u
#define CODE_FILLED                                                                                \
    256u /* a case's code with INT3 behind it; the rest of the page holds INT3 too */
/* Data pages: one that is not there, three that can be written, one that can only be read, one that is not there. */
#define DATA_BASE      0x20000000ull
#define DATA_FIRST     0x20001000ull /* first byte there */
#define DATA_WRITABLE  3u            /* pages */
#define DATA_PAGES     4u            /* pages there */
#define DATA_BYTES     (DATA_PAGES * 4096u)
#define DATA_READ_ONLY (DATA_FIRST + DATA_WRITABLE * 4096u)
#define VECTOR_END     3 /* the INT3 behind the code */
#define VECTOR_NONE    (-1)
#define CASE_INSNS     12u
#define INSN_BYTES     15u
#define FLAGS_COMPARED                                                                             \
    0x254dd5u /* status, TF, DF, NT, RF, AC, ID; IF and IOPL are the operating system's */
#define FLAGS_RANDOM 0xcd5u /* status and DF: what a case begins with */

/* All that user-mode code sees of a processor and its memory. */
struct machine {
    uint64_t r[16]; /* RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15 */
    uint64_t rip, rflags;
    uint8_t fx[512]; /* FXSAVE64 image */
    uint8_t ymm_high[16][16];
    uint8_t data[DATA_BYTES]; /* from DATA_FIRST on */
    /* after: how it ended */
    int vector;
    uint32_t error;
    uint64_t cr2; /* of a page fault */
};
#define FX_FCW(m)    ((m)->fx)
#define FX_MXCSR(m)  ((m)->fx + 24)
#define FX_ST(m, n)  ((m)->fx + 32 + 16 * (n))
#define FX_XMM(m, n) ((m)->fx + 160 + 16 * (n))

struct test_case {
    uint64_t seed, index; /* what it was made from */
    unsigned count;       /* instructions */
    struct {
        uint8_t length;
        uint8_t bytes[INSN_BYTES];
    } insn[CASE_INSNS];
    struct machine before;
};

/* The case's code as it stands in memory: CODE_FILLED bytes, of which the last are INT3. */
void case_code(const struct test_case *c, uint8_t code[CODE_FILLED]);

/* ---- random numbers: splitmix64 ---- */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- generate.c ---- */
/* What instructions to choose from. */
#define MIX_INTEGER 1u
#define MIX_STRING  2u
#define MIX_SSE     4u
#define MIX_X87     8u /* and MMX */
#define MIX_VEX     16u
#define MIX_ALL     31u
/* The case that (seed, index) stands for: always the same one. */
void generate(struct test_case *c, uint64_t seed, uint64_t index, unsigned mix);

/* ---- native.c: the host processor, in a process of its own ---- */
#define BATCH 32u
struct native;
struct native *native_start(void); /* NULL with a message on stderr */
void native_stop(struct native *native);
/* Starts executing up to BATCH cases; native_finish waits for them and gives the results, or false if the process died (it is
 * started anew; how it died is on stderr). */
void native_begin(struct native *native, const struct test_case *cases, unsigned count);
bool native_finish(struct native *native, struct machine *after, unsigned count);
bool native_has_avx(void);

/* ---- soft.c: the software processor ---- */
struct soft_side;
/* `translated`: by host code that the translator makes of each case. NULL with a message on stderr */
struct soft_side *soft_side_create(bool translated);
void soft_side_destroy(struct soft_side *soft);
void soft_side_run(struct soft_side *soft, const struct test_case *c, struct machine *after);

/* The same in pieces: the state that the case begins in, and what the processor is like at any time. */
struct vcpu;
struct vcpu *soft_side_begin(struct soft_side *soft, const struct test_case *c);
void soft_side_show(struct soft_side *soft, struct machine *now);

/* ---- compare.c ---- */
/* True if both led to the same; otherwise, if `out` is not NULL, every difference is printed. */
bool same_outcome(const struct test_case *c, const struct machine *host, const struct machine *soft,
                  FILE *out);
/* The listing of a case and the state it begins in. */
void print_case(const struct test_case *c, FILE *out);

/* ---- shrink.c ---- */
/* Makes the case smaller as long as the two sides still differ: fewer instructions, then zeros for registers and
 * memory that do not matter. */
void shrink(struct test_case *c, struct native *native, struct soft_side *soft);
/* Runs one case on both sides; true if they agree (or the host's process died). */
bool agree(const struct test_case *c, struct native *native, struct soft_side *soft,
           struct machine *host_after, struct machine *soft_after);

#endif
