/* SPDX-License-Identifier: MIT */
/* What a step has changed of a virtual processor. */
#include "runtime/trace_state.h"

#include <stdio.h>
#include <string.h>

/* Registers that change seldom, by the names that the manual gives them. */
#define SELDOM(X)                                                                                  \
    X("dr0", cpu->dr[0])                                                                           \
    X("dr1", cpu->dr[1])                                                                           \
    X("dr2", cpu->dr[2])                                                                           \
    X("dr3", cpu->dr[3])                                                                           \
    X("dr6", cpu->dr[6])                                                                           \
    X("dr7", cpu->dr[7])                                                                           \
    X("gdtr_base", cpu->gdt_base)                                                                  \
    X("gdtr_limit", cpu->gdt_limit)                                                                \
    X("idtr_base", cpu->idt_base)                                                                  \
    X("idtr_limit", cpu->idt_limit)                                                                \
    X("kernel_gs_base", cpu->kernel_gs_base)                                                       \
    X("star", cpu->star)                                                                           \
    X("lstar", cpu->lstar)                                                                         \
    X("cstar", cpu->cstar)                                                                         \
    X("fmask", cpu->fmask)                                                                         \
    X("sysenter_cs", cpu->sysenter_cs)                                                             \
    X("sysenter_esp", cpu->sysenter_esp)                                                           \
    X("sysenter_eip", cpu->sysenter_eip)                                                           \
    X("tsc_aux", cpu->tsc_aux)                                                                     \
    X("pat", cpu->pat)                                                                             \
    X("misc_enable", cpu->misc_enable)                                                             \
    X("mtrr_def_type", cpu->mtrr_def_type)                                                         \
    X("debugctl", cpu->debugctl)                                                                   \
    X("xcr0", cpu->xcr0)                                                                           \
    X("xss", cpu->xss)                                                                             \
    X("pkru", cpu->pkru)                                                                           \
    X("fcw", word(cpu->fpu.legacy))                                                                \
    X("fsw", word(cpu->fpu.legacy + 2))                                                            \
    X("ftw", cpu->fpu.legacy[4])                                                                   \
    X("mxcsr", FPU_MXCSR(&cpu->fpu))

#define NAME(name, value) name,
static const char *const seldom[] = {SELDOM(NAME)};
_Static_assert(sizeof seldom / sizeof seldom[0] == TRACE_SELDOM, "all of them");

/* Those that change often, in the order of struct trace_state. */
static const char *const often[TRACE_OFTEN] = {
    "rax", "rcx", "rdx", "rbx", "rsp",    "rbp", "rsi", "rdi", "r8",  "r9",   "r10",     "r11",
    "r12", "r13", "r14", "r15", "rflags", "cr0", "cr2", "cr3", "cr4", "efer", "fs_base", "gs_base"};

static uint16_t word(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

void trace_state_take(struct trace_state *s, const struct vcpu *cpu)
{
    unsigned n = 0;
    memcpy(s->often, cpu->r, 16 * sizeof s->often[0]);
    s->often[16] = vcpu_rflags(cpu);
    s->often[17] = cpu->cr0;
    s->often[18] = cpu->cr2;
    s->often[19] = cpu->cr3;
    s->often[20] = cpu->cr4;
    s->often[21] = cpu->efer;
    s->often[22] = cpu->segment[SEG_FS].base;
    s->often[23] = cpu->segment[SEG_GS].base;
#define TAKE(name, value) s->seldom[n++] = value;
    SELDOM(TAKE)
    for (unsigned k = 0; k < SEGS; k++)
        s->selector[k] = cpu->segment[k].selector;
    memcpy(s->xmm, FPU_XMM(&cpu->fpu, 0), sizeof s->xmm);
    memcpy(s->ymm_high, cpu->fpu.ymm_high, sizeof s->ymm_high);
    /* the image has them from the top of the stack on: a push would move all of them */
    s->top = cpu->fpu.legacy[3] >> 3 & 7;
    for (unsigned k = 0; k < 8; k++) {
        uint64_t *to = &s->x87[2 * ((s->top + k) & 7)];
        memcpy(to, cpu->fpu.legacy + 32 + 16 * k, 8);
        to[1] = word(cpu->fpu.legacy + 40 + 16 * k);
    }
}

/* ---- characters ---- */
char *trace_put_text(char *at, const char *text)
{
    size_t length = strlen(text);
    memcpy(at, text, length);
    return at + length;
}

char *trace_put_hex(char *at, uint64_t value)
{
    static const char digits[] = "0123456789abcdef";
    int shift = value ? (63 - __builtin_clzll(value)) & ~3 : 0;
    for (; shift >= 0; shift -= 4)
        *at++ = digits[value >> shift & 15];
    return at;
}

static char *put_change(char *at, const char *name, uint64_t value)
{
    at = trace_put_text(at, name);
    *at++ = '=';
    at = trace_put_hex(at, value);
    *at++ = ' ';
    return at;
}

/* A number of `count` words, the lowest first, without leading zeros. */
static char *put_wide(char *at, const char *name, unsigned n, const uint64_t *words, unsigned count)
{
    at += snprintf(at, 8, "%s%u=", name, n);
    while (count > 1 && !words[count - 1])
        count--;
    at = trace_put_hex(at, words[--count]);
    while (count)
        at += snprintf(at, 20, "%016llx", (unsigned long long)words[--count]);
    *at++ = ' ';
    return at;
}

/* ---- vectors and the x87 stack ---- */
static char *put_vectors(char *at, const struct trace_state *before,
                         const struct trace_state *after)
{
    for (unsigned n = 0; n < 16; n++) {
        bool low = memcmp(&after->xmm[2 * n], &before->xmm[2 * n], 16) != 0;
        bool high = memcmp(after->ymm_high[n], before->ymm_high[n], 16) != 0;
        uint64_t words[4];
        memcpy(words, &after->xmm[2 * n], 16);
        memcpy(words + 2, after->ymm_high[n], 16);
        if (high)
            at = put_wide(at, "ymm", n, words, 4);
        else if (low)
            at = put_wide(at, "xmm", n, words, 2);
    }
    return at;
}

/* Each register by the place in the stack that it has now. */
static char *put_x87(char *at, const struct trace_state *before, const struct trace_state *after)
{
    for (unsigned k = 0; k < 8; k++) {
        size_t n = 2 * ((after->top + k) & 7);
        if (memcmp(&after->x87[n], &before->x87[n], 16) != 0)
            at = put_wide(at, "st", k, &after->x87[n], 2);
    }
    return at;
}

/* ---- all of it ---- */
static char *put_seldom(char *at, const struct trace_state *before, const struct trace_state *after)
{
    static const char *const selectors[SEGS] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned n = 0; n < SEGS; n++)
        if (before->selector[n] != after->selector[n])
            at = put_change(at, selectors[n], after->selector[n]);
    for (unsigned n = 0; n < TRACE_SELDOM; n++)
        if (before->seldom[n] != after->seldom[n])
            at = put_change(at, seldom[n], after->seldom[n]);
    at = put_x87(at, before, after);
    return put_vectors(at, before, after);
}

char *trace_state_put(char *at, const struct trace_state *before, const struct trace_state *after)
{
    const size_t rest = offsetof(struct trace_state, seldom);
    char *start = at;
    for (unsigned n = 0; n < TRACE_OFTEN; n++)
        if (before->often[n] != after->often[n])
            at = put_change(at, often[n], after->often[n]);
    if (memcmp((const char *)before + rest, (const char *)after + rest, sizeof *before - rest) != 0)
        at = put_seldom(at, before, after);
    return at > start ? at - 1 : at; /* without the last space */
}
