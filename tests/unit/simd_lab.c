/* SPDX-License-Identifier: MIT */
/* FP and SIMD instructions executed by the host and by the software processor. */
#include "tests/unit/simd_lab.h"

#include <assert.h>
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "runtime/soft/fpu.h"
#include "tests/unit/code_runner.h"

#define GUEST_MEMORY (ONE_INSN_DATA + 0x1000)

/* ---- numbers ---- */
uint64_t simd_lab_number(unsigned bits)
{
    static const uint32_t singles[] = {0,          0x80000000, 1,          0x80000001, 0x007fffff,
                                       0x00800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000,
                                       0x7fc00000, 0x7f800001, 0xffc12345, 0x3f800000, 0xbf800000,
                                       0x40490fdb, 0x4b7fffff, 0x4f000000, 0xcf000000, 0x3f000001};
    static const uint64_t doubles[] = {0,
                                       1ull << 63,
                                       1,
                                       0x800fffffffffffff,
                                       0x0010000000000000,
                                       0x7fefffffffffffff,
                                       0xffefffffffffffff,
                                       0x7ff0000000000000,
                                       0xfff0000000000000,
                                       0x7ff8000000000000,
                                       0x7ff0000000000001,
                                       0xfff7123456789abc,
                                       0x3ff0000000000000,
                                       0xbff8000000000000,
                                       0x400921fb54442d18,
                                       0x43e0000000000000,
                                       0xc1e0000000000000,
                                       0x36a0000000000000, /* a denormal when single */
                                       0x3fe0000000000001};
    uint64_t choice = code_random(), noise = code_random();
    if (choice % 4 == 0)
        return bits == 32 ? (uint32_t)noise : noise;
    if (choice % 4 == 1) /* near one: sums and products round */
        return bits == 32 ? 0x3f000000u | (noise & 0x80ffffffu)
                          : 0x3fe0000000000000ull | (noise & 0x801fffffffffffffull);
    return bits == 32 ? singles[noise % (sizeof singles / 4)]
                      : doubles[noise % (sizeof doubles / 8)];
}

void simd_lab_number80(uint8_t number[10])
{
    static const struct {
        uint64_t fraction;
        uint16_t exponent;
    } numbers[] = {
        {0, 0},
        {0, 0x8000},
        {1, 0},
        {1ull << 63, 0},
        {1ull << 63, 1},
        {1ull << 63, 0x3fff},
        {~0ull, 0x7ffe},
        {1ull << 63, 0x7fff},
        {3ull << 62, 0x7fff},
        {(1ull << 63) | 1, 0x7fff},
        {3ull << 62, 0xffff},
        {0xc90fdaa22168c235, 0x4000},
        {1ull << 63, 0x403e},
        {1ull << 63, 0xc03e},
        {1ull << 62, 0x4000},
        {~0ull << 11, 0x43fe},
        {~0ull, 0x3c00},
        {~0ull << 40, 0x407e},
        {0xb000000000000000, 0x3f6a},
        {1ull << 63, 0x3c01},
        {0x8000000000000400, 0x4005},
        {5ull << 61, 0x4001},
    };
    uint64_t choice = code_random(), noise = code_random(), fraction;
    uint16_t exponent;
    if (choice % 4 == 0) {
        fraction = noise;
        exponent = (uint16_t)code_random();
    } else if (choice % 4 == 1) {
        fraction = noise | 1ull << 63;
        exponent = (uint16_t)(0x3ff0 + code_random() % 32) | (uint16_t)(choice & 0x8000);
    } else {
        fraction = numbers[noise % (sizeof numbers / sizeof *numbers)].fraction;
        exponent = numbers[noise % (sizeof numbers / sizeof *numbers)].exponent;
    }
    memcpy(number, &fraction, 8);
    memcpy(number + 8, &exponent, 2);
}

static void fill(void *to, size_t size, unsigned kind)
{
    uint8_t *p = to;
    for (size_t n = 0; n < size; n += 8) {
        uint64_t value = simd_lab_number(64);
        if (kind == 1)
            value = simd_lab_number(32) | simd_lab_number(32) << 32;
        memcpy(p + n, &value, 8);
    }
}

void simd_lab_randomize(struct lab_state *s)
{
    unsigned kind = (unsigned)(code_random() % 2);
    memset(&s->fpu, 0, sizeof s->fpu);
    FPU_FCW(&s->fpu) = FCW_INITIAL;
    FPU_MXCSR(&s->fpu) = MXCSR_INITIAL;
    for (unsigned n = 0; n < 8; n++)
        simd_lab_number80(FPU_ST(&s->fpu, n));
    fill(FPU_XMM(&s->fpu, 0), 256, kind);
    fill(s->fpu.ymm_high, sizeof s->fpu.ymm_high, kind);
    for (unsigned n = 0; n < 16; n++)
        s->r[n] = code_random() & 1 ? code_random() : simd_lab_number(64);
    s->flags = 2 | (code_random() & FLAGS_ARITHMETIC);
    fill(s->memory, 512, kind);
    for (unsigned n = 512; n < sizeof s->memory; n += 512)
        memcpy(s->memory + n, s->memory, 512);
    s->vector = -1;
}

/* ---- the host ---- */
bool simd_lab_has_avx(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
        return false;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & 6) == 6;
}

/* Where native instructions execute: code and the state it loads and stores, in one mapping. */
static struct native {
    uint8_t code[4096];
    struct fpu in, out;
    uint32_t mxcsr;
} * native;
static uint8_t *native_memory; /* LAB_MEMORY bytes between two pages that fault */
static uint8_t *native_end;    /* the part of the code that stores the state */
static int native_vector;

static bool on_trap(void *context, int signal, struct code_registers *registers, uint64_t *rip)
{
    (void)context, (void)registers;
    if (native_vector >= 0 || *rip < (uintptr_t)native->code || *rip >= (uintptr_t)native_end)
        return false;
    native_vector = signal == SIGFPE ? EXC_XM : signal == SIGILL ? EXC_UD : EXC_GP;
    *rip = (uintptr_t)native_end;
    return true;
}

static void native_open(void)
{
    if (native)
        return;
    native = code_map(NULL, (sizeof *native + 4095) & ~4095ul);
    uint8_t *pages = mmap(NULL, LAB_MEMORY + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(native && pages != MAP_FAILED);
    native_memory = pages + 4096;
    mprotect(native_memory, LAB_MEMORY, PROT_READ | PROT_WRITE);
    native->mxcsr = MXCSR_INITIAL;
}

static uint8_t *put(uint8_t *p, const void *bytes, size_t count)
{
    memcpy(p, bytes, count);
    return p + count;
}
#define PUT(p, ...) put(p, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* The displacement of a RIP-relative operand that ends `tail` bytes before the instruction does. */
static uint8_t *put_relative(uint8_t *p, const void *target, unsigned tail)
{
    int32_t distance = (int32_t)((const uint8_t *)target - (p + 4 + tail));
    return put(p, &distance, 4);
}

static void native_compile(const struct lab_case *c)
{
    uint8_t *p = native->code;
    p = PUT(p, 0x48, 0x0f, 0xae, 0x0d); /* fxrstor64 */
    p = put_relative(p, native->in.legacy, 0);
    for (unsigned n = 0; n < 16 && simd_lab_has_avx(); n++) { /* vinsertf128 $1, m, ymm, ymm */
        p = PUT(p, 0xc4, (uint8_t)(n < 8 ? 0xe3 : 0x63), (uint8_t)((~n & 15) << 3 | 5), 0x18,
                (uint8_t)(0x05 | (n & 7) << 3));
        p = put_relative(p, native->in.ymm_high[n], 1);
        p = PUT(p, 1);
    }
    p = put(p, c->bytes, c->length);
    native_end = p;
    p = PUT(p, 0x48, 0x0f, 0xae, 0x05); /* fxsave64 */
    p = put_relative(p, native->out.legacy, 0);
    for (unsigned n = 0; n < 16 && simd_lab_has_avx(); n++) { /* vextractf128 $1, ymm, m */
        p = PUT(p, 0xc4, (uint8_t)(n < 8 ? 0xe3 : 0x63), 0x7d, 0x19,
                (uint8_t)(0x05 | (n & 7) << 3));
        p = put_relative(p, native->out.ymm_high[n], 1);
        p = PUT(p, 1);
    }
    if (simd_lab_has_avx())
        p = PUT(p, 0xc5, 0xf8, 0x77); /* vzeroupper */
    p = PUT(p, 0xdb, 0xe3);           /* fninit */
    p = PUT(p, 0x0f, 0xae, 0x15);     /* ldmxcsr */
    p = put_relative(p, &native->mxcsr, 0);
    code_put_exit(p);
}

void simd_lab_native(const struct lab_case *c, struct lab_state *after)
{
    native_open();
    static uint8_t stack[4096];
    struct code_registers registers;
    native_compile(c);
    native->in = c->before.fpu;
    memset(&native->out, 0, sizeof native->out);
    memcpy(native_memory, c->before.memory, LAB_MEMORY);
    memcpy(registers.r, c->before.r, sizeof registers.r);
    registers.r[RBX] = registers.r[RDI] = (uintptr_t)(native_memory + c->operand);
    registers.r[RSP] = (uintptr_t)(stack + sizeof stack - 512);
    registers.flags = c->before.flags;
    native_vector = -1;
    code_run(&registers, native->code, on_trap, NULL);
    after->fpu = native->out;
    memcpy(after->r, registers.r, sizeof after->r);
    after->flags = registers.flags & FLAGS_ARITHMETIC;
    memcpy(after->memory, native_memory, LAB_MEMORY);
    after->vector = native_vector;
}

/* ---- the software processor ---- */
static struct vcpu *lab_vcpu;

struct vcpu *simd_lab_vcpu(void)
{
    if (lab_vcpu)
        return lab_vcpu;
    lab_vcpu = one_insn_vcpu();
    one_insn_mode(lab_vcpu, ONE_INSN_64, true);
    lab_vcpu->cr4 |= CR4_OSXSAVE;
    lab_vcpu->xcr0 = 7;
    *one_insn_pte(lab_vcpu, GUEST_MEMORY - 4096) = 0;
    *one_insn_pte(lab_vcpu, GUEST_MEMORY + LAB_MEMORY) = 0;
    one_insn_flush(lab_vcpu);
    return lab_vcpu;
}

void simd_lab_close(void)
{
    if (lab_vcpu)
        one_insn_free(lab_vcpu);
    lab_vcpu = NULL;
}

void simd_lab_soft(const struct lab_case *c, struct lab_state *after)
{
    struct vcpu *cpu = simd_lab_vcpu();
    if (assist_full())
        assist_reset();
    cpu->fpu = c->before.fpu;
    memcpy(cpu->r, c->before.r, sizeof c->before.r);
    cpu->r[RBX] = cpu->r[RDI] = GUEST_MEMORY + c->operand;
    cpu->r[RSP] = ONE_INSN_STACK;
    vcpu_set_rflags(cpu, c->before.flags);
    cpu->rip = ONE_INSN_CODE;
    memcpy(one_insn_at(cpu, GUEST_MEMORY), c->before.memory, LAB_MEMORY);
    struct one_insn_result result = one_insn_run(cpu, c->bytes, c->length);
    after->fpu = cpu->fpu;
    memcpy(after->r, cpu->r, sizeof after->r);
    after->flags = vcpu_rflags(cpu) & FLAGS_ARITHMETIC;
    memcpy(after->memory, one_insn_at(cpu, GUEST_MEMORY), LAB_MEMORY);
    after->vector = result.fault ? result.vector : -1;
    if (after->vector == EXC_PF)
        after->vector = EXC_GP;
    if (after->vector == EXC_MF)
        after->vector = EXC_XM;
}

/* ---- both ---- */
static const char *compare_x87(const struct fpu *a, const struct fpu *b)
{
    static char text[64];
    if (FPU_FCW(a) != FPU_FCW(b))
        return "FCW";
    if (FPU_FSW(a) != FPU_FSW(b)) {
        snprintf(text, sizeof text, "FSW %04x, here %04x", FPU_FSW(a), FPU_FSW(b));
        return text;
    }
    if (FPU_FTW(a) != FPU_FTW(b))
        return "tags";
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(FPU_ST(a, n), FPU_ST(b, n), 10) != 0) {
            snprintf(text, sizeof text, "ST%u", n);
            return text;
        }
    return NULL;
}

/* After an unmasked overflow or underflow the software processor says that the result is inexact too, even where an
 * exponent without bounds would have made it exact. */
static bool extra_inexact(const struct lab_state *a, const struct lab_state *b)
{
    enum { OE = 8, UE = 16, PE = 32 };
    uint32_t mxcsr = FPU_MXCSR(&a->fpu);
    return b->vector == EXC_XM && FPU_MXCSR(&b->fpu) == (mxcsr | PE) &&
           mxcsr & ~(mxcsr >> 7) & (OE | UE);
}

const char *simd_lab_compare(const struct lab_state *a, const struct lab_state *b)
{
    static char text[96];
    if (a->vector != b->vector) {
        snprintf(text, sizeof text, "exception %d, here %d", a->vector, b->vector);
        return text;
    }
    const char *x87 = compare_x87(&a->fpu, &b->fpu);
    if (x87)
        return x87;
    if (FPU_MXCSR(&a->fpu) != FPU_MXCSR(&b->fpu) && !extra_inexact(a, b)) {
        snprintf(text, sizeof text, "MXCSR %x, here %x", FPU_MXCSR(&a->fpu), FPU_MXCSR(&b->fpu));
        return text;
    }
    for (unsigned n = 0; n < 16; n++) {
        snprintf(text, sizeof text, "register %u", n);
        if (n != RBX && n != RDI && n != RSP && a->r[n] != b->r[n])
            return text;
        snprintf(text, sizeof text, "XMM%u", n);
        if (memcmp(FPU_XMM(&a->fpu, n), FPU_XMM(&b->fpu, n), 16) != 0)
            return text;
        snprintf(text, sizeof text, "YMM%u, upper half", n);
        if (simd_lab_has_avx() && memcmp(a->fpu.ymm_high[n], b->fpu.ymm_high[n], 16) != 0)
            return text;
    }
    if (a->flags != b->flags) {
        snprintf(text, sizeof text, "flags %lx, here %lx", a->flags, b->flags);
        return text;
    }
    return memcmp(a->memory, b->memory, LAB_MEMORY) ? "memory" : NULL;
}

static void describe(const struct lab_case *c, const char *difference)
{
    ZydisDisassembledInstruction text;
    fprintf(stderr, "# ");
    for (unsigned n = 0; n < c->length; n++)
        fprintf(stderr, "%02x ", c->bytes[n]);
    if (ZYAN_SUCCESS(
            ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, 0, c->bytes, c->length, &text)))
        fprintf(stderr, "(%s)", text.text);
    fprintf(stderr, ", MXCSR %x, FCW %x, FSW %x, operand at %x: %s differs\n",
            FPU_MXCSR(&c->before.fpu), FPU_FCW(&c->before.fpu), FPU_FSW(&c->before.fpu), c->operand,
            difference);
}

bool simd_lab_agrees(const struct lab_case *c)
{
    static struct lab_state host, soft;
    simd_lab_native(c, &host);
    simd_lab_soft(c, &soft);
    const char *difference = simd_lab_compare(&host, &soft);
    if (difference)
        describe(c, difference);
    return !difference;
}
