/* SPDX-License-Identifier: MIT */
/* x87 and SSE state across switches: two tasks that compute with registers full of their own values take turns,
 * their state saved and loaded by FXSAVE and by XSAVE, at once or only when it is needed (CR0.TS). Then the
 * floating-point exceptions. */
#include "samples/kernel/kernel.h"

enum {
    ROUNDS = 200,
    MXCSR_DEFAULT = 0x1f80,
    MXCSR_DIVIDE = 4,
    MXCSR_INVALID = 1,
    MXCSR_MASK_DIVIDE = 0x200
};

struct state {
    uint8_t bytes[4096] __attribute__((aligned(64)));
};

static struct state states[2];
static const struct state zeros;

static void fxsave(struct state *s)
{
    __asm__ volatile("fxsave64 %0" : "=m"(*s));
}

static void fxrstor(const struct state *s)
{
    __asm__ volatile("fxrstor64 %0" : : "m"(*s));
}

static void xsave(struct state *s)
{
    __asm__ volatile("xsave64 %0" : "+m"(*s) : "a"(~0u), "d"(~0u));
}

static void xrstor(const struct state *s)
{
    __asm__ volatile("xrstor64 %0" : : "m"(*s), "a"(~0u), "d"(~0u));
}

/* A task's start: all registers get values of its own; one task rounds to nearest, the other towards 0. */
static void fill(unsigned task)
{
    static const double seeds[2][2] = {{3.25, -3.25}, {7.75, -7.75}};
    static const uint32_t mxcsr[2] = {MXCSR_DEFAULT, MXCSR_DEFAULT | 0x6000};
    __asm__ volatile("fninit\n\tfldl %0\n\tfld1\n\tfldpi\n\tldmxcsr %2\n\t"
                     "movupd %1, %%xmm0\n\tmovapd %%xmm0, %%xmm1\n\taddpd %%xmm1, %%xmm1\n\t"
                     "movapd %%xmm1, %%xmm7\n\taddpd %%xmm0, %%xmm7\n\tmovapd %%xmm7, %%xmm15\n\t"
                     "mulpd %%xmm1, %%xmm15"
                     :
                     : "m"(seeds[task][0]), "m"(seeds[task]), "m"(mxcsr[task]));
}

/* One round of a task's work, in registers only. */
static void work(void)
{
    __asm__ volatile("fadd %st(1), %st\n\tfxch\n\tfadd %st(2), %st\n\tfxch\n\t"
                     "addpd %xmm0, %xmm1\n\tsqrtpd %xmm15, %xmm7\n\taddpd %xmm7, %xmm1\n\t"
                     "shufpd $1, %xmm15, %xmm15\n\tandnpd %xmm1, %xmm15\n\tpaddq %xmm0, %xmm15");
}

/* The x87 stack, MXCSR and XMM registers of a saved state, summed; the rest depends on the processor. */
static uint64_t sum(const struct state *s)
{
    uint64_t all = 0;
    for (unsigned i = 24; i < 28; i++)
        all = all * 31 + s->bytes[i];
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < 10; j++)
            all = all * 31 + s->bytes[32 + i * 16 + j];
    for (unsigned i = 160; i < 160 + 16 * 16; i++)
        all = all * 31 + s->bytes[i];
    return all;
}

/* What each task has after its rounds if nobody disturbs it. */
static uint64_t undisturbed(unsigned task)
{
    static struct state s;
    fill(task);
    for (unsigned i = 0; i < ROUNDS; i++)
        work();
    fxsave(&s);
    return sum(&s);
}

/* Both tasks, a round each in turn. */
static bool take_turns(void (*save)(struct state *), void (*restore)(const struct state *))
{
    uint64_t expected[2] = {undisturbed(0), undisturbed(1)};
    for (unsigned task = 0; task < 2; task++) {
        states[task] = zeros;
        fill(task);
        save(&states[task]);
    }
    for (unsigned i = 0; i < 2 * ROUNDS; i++) {
        restore(&states[i & 1]);
        work();
        save(&states[i & 1]);
    }
    return sum(&states[0]) == expected[0] && sum(&states[1]) == expected[1] &&
           expected[0] != expected[1];
}

/* ---- lazy switching: the state follows the first instruction that needs it ---- */

static unsigned owner, running, lazy_switches;

static void not_available(struct frame *frame)
{
    (void)frame;
    __asm__ volatile("clts");
    if (owner != running) {
        fxsave(&states[owner]);
        fxrstor(&states[running]);
        owner = running;
        lazy_switches++;
    }
}

static bool take_lazy_turns(void)
{
    enum { TS_BIT = 8 };
    uint64_t expected[2] = {undisturbed(0), undisturbed(1)};
    for (unsigned task = 0; task < 2; task++) {
        fill(task);
        fxsave(&states[task]);
    }
    owner = 1;
    lazy_switches = 0;
    on_interrupt(NM, not_available);
    unsigned done[2] = {0, 0};
    for (unsigned i = 0; done[0] < ROUNDS || done[1] < ROUNDS; i++) {
        running = i & 1;
        WRITE_CR(0, READ_CR(0) | TS_BIT);
        if ((i & 6) != 2 && done[running] < ROUNDS) { /* sometimes a turn goes by unused */
            work();
            done[running]++;
        }
    }
    __asm__ volatile("clts");
    fxsave(&states[owner]);
    on_interrupt(NM, NULL);
    return lazy_switches > ROUNDS && sum(&states[0]) == expected[0] &&
           sum(&states[1]) == expected[1];
}

void switches(void)
{
    enum { XSAVE = 1 << 26, CR4_OSXSAVE = 1 << 18 };
    bool offered = cpuid(1, 0).c & XSAVE, good = false;
    check(take_turns(fxsave, fxrstor), "two tasks keep their registers across FXSAVE and FXRSTOR");
    check(take_lazy_turns(), "and when the state follows the first use (CR0.TS)");
    if (offered) {
        WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
        __asm__ volatile("xsetbv" : : "c"(0), "a"(3), "d"(0));
        good = take_turns(xsave, xrstor);
    }
    check_optional(offered, good, "and across XSAVE and XRSTOR");
    if (offered) {
        fill(0);
        states[0] = zeros; /* XSTATE_BV 0: everything to its initial value */
        xrstor(&states[0]);
        xsave(&states[1]);
        good = true;
        for (unsigned i = 160; i < 160 + 16 * 16; i++)
            good = good && !states[1].bytes[i];
    }
    check_optional(offered, good, "XRSTOR with no component in use gives initial values");
}

/* ---- exceptions ---- */

static void set_mxcsr(uint32_t value)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(value));
}

static uint32_t get_mxcsr(void)
{
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}

void sse_exceptions(void)
{
    double one = 1, zero = 0, result = 0;
    set_mxcsr(MXCSR_DEFAULT);
    __asm__ volatile("movsd %1, %%xmm0\n\tdivsd %2, %%xmm0\n\tmovsd %%xmm0, %0"
                     : "=m"(result)
                     : "m"(one), "m"(zero));
    uint64_t bits;
    __builtin_memcpy(&bits, &result, 8);
    check(bits == 0x7ff0000000000000 && get_mxcsr() == (MXCSR_DEFAULT | MXCSR_DIVIDE),
          "1/0 with masked exceptions is infinity and sets a flag");
    __asm__ volatile("movsd %1, %%xmm0\n\tdivsd %1, %%xmm0\n\tmovsd %%xmm0, %0"
                     : "=m"(result)
                     : "m"(zero));
    __builtin_memcpy(&bits, &result, 8);
    check(bits == 0xfff8000000000000 &&
              get_mxcsr() == (MXCSR_DEFAULT | MXCSR_DIVIDE | MXCSR_INVALID),
          "0/0 is the default NaN; flags accumulate");
    set_mxcsr(MXCSR_DEFAULT & ~MXCSR_MASK_DIVIDE);
    TRY("movsd %1, %%xmm0\n\tmovsd %1, %%xmm1\n\tdivsd %2, %%xmm0",
        : "=m"(result)
        : "m"(one), "m"(zero));
    __asm__ volatile("movsd %%xmm0, %0" : "=m"(result));
    __builtin_memcpy(&bits, &result, 8);
    bool kept = bits == 0x3ff0000000000000, flag = get_mxcsr() & MXCSR_DIVIDE;
    set_mxcsr(MXCSR_DEFAULT);
    /* QEMU raises neither this nor the next */
    check_optional(fault.vector >= 0, fault.vector == XM && kept && flag,
                   "unmasked it is a SIMD exception, and the register keeps its value");
    TRY("ldmxcsr %0", : : "m"(*(const uint32_t[]){0x80000000}));
    check_optional(fault.vector >= 0, fault.vector == GP,
                   "a reserved bit in MXCSR: general protection");
}

void x87_exceptions(void)
{
    uint16_t control = 0x37f & ~4, status = 0; /* zero divide unmasked */
    __asm__ volatile("fninit\n\tfldcw %0" : : "m"(control));
    TRY("fld1\n\tfldz\n\tfdivrp\n\tfnop\n\tfwait", : :);
    __asm__ volatile("fnstsw %0\n\tfnclex" : "=m"(status));
    check(fault.vector == MF && (status & 0x84) == 0x84,
          "an unmasked x87 exception is raised by what follows it");
    __asm__ volatile("fninit\n\tfld1\n\tfld1\n\tfnstsw %0\n\tfninit" : "=m"(status));
    check((status >> 11 & 7) == 6, "two loads move the x87 stack's top by two");
}

void main(void)
{
    switches();
    sse_exceptions();
    x87_exceptions();
    finish("fpu_switch");
}
