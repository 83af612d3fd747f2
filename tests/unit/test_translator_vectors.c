/* SPDX-License-Identifier: MIT */
/* The guest's vector and x87 registers in translated code: random programs come to what the interpreter comes to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <immintrin.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpuid.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/fpu.h"
#include "runtime/soft/tlb.h"
#include "runtime/translator/translator.h"
#include "tests/unit/simd_lab.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct translator_lab lab;
static uint64_t seed;

static uint64_t roll(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

/* ---- random programs ---- */
struct program {
    uint8_t bytes[700];
    size_t size;
};

#define START (LAB_CODE + 0x40)
/* For #NM: clts; iretq. */
#define LAZY_HANDLER (LAB_HANDLER + 16)
static const uint8_t lazy_handler[] = {0x0f, 0x06, 0x48, 0xcf};

/* Programs do not write these. */
static const unsigned pointers[] = {RBX, RSI, RBP, R13};
#define COUNTER R15

static void add(struct program *program, const void *bytes, size_t size)
{
    memcpy(program->bytes + program->size, bytes, size);
    program->size += size;
}

static bool is_kept(ZydisRegister reg)
{
    unsigned n = (unsigned)ZydisRegisterGetId(
        ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
    for (unsigned k = 0; k < 4; k++)
        if (n == pointers[k])
            return true;
    return n == RSP || n == COUNTER;
}

static bool acceptable(const uint8_t *bytes, size_t size, unsigned *length)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, size, &z, o)) ||
        !cpuid_offers_isa(z.meta.isa_set) || z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        return false;
    bool names = z.meta.isa_set == ZYDIS_ISA_SET_X87;
    for (unsigned n = 0; n < z.operand_count; n++) {
        if (o[n].type == ZYDIS_OPERAND_TYPE_MEMORY && o[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            return false;
        if (o[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(o[n].reg.value);
        names |= class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM ||
                 class == ZYDIS_REGCLASS_MMX || class == ZYDIS_REGCLASS_X87;
        if (class >= ZYDIS_REGCLASS_GPR8 && class <= ZYDIS_REGCLASS_GPR64 &&
            o[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE && is_kept(o[n].reg.value))
            return false;
    }
    *length = z.length;
    return names || z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
           z.mnemonic == ZYDIS_MNEMONIC_VZEROALL;
}

/* ModRM and what follows: registers, or memory behind a pointer, at a multiple of 16 more often than not. */
static size_t random_operand(uint8_t *p, unsigned *base)
{
    unsigned reg = (unsigned)roll(8);
    *base = (unsigned)roll(16);
    if (roll(2)) {
        *p = (uint8_t)(0xc0 | reg << 3 | (*base & 7));
        return 1;
    }
    int32_t disp = 16 * ((int32_t)roll(8) - 4);
    if (roll(25) == 0)
        disp += (int32_t)roll(16);
    if (roll(60) == 0)
        disp += (int32_t)roll(0x3000);
    *base = pointers[roll(4)];
    *p = (uint8_t)(0x80 | reg << 3 | (*base & 7));
    memcpy(p + 1, &disp, sizeof disp);
    return 5;
}

static uint8_t *random_vex(uint8_t *p, unsigned base, unsigned map)
{
    *p++ = 0xc4;
    *p++ = (uint8_t)(roll(2) << 7 | 0x40 | (base & 8 ? 0 : 0x20) | map);
    *p++ = (uint8_t)(roll(2) << 7 | (roll(3) ? roll(16) : 15) << 3 | roll(2) << 2 | roll(4));
    return p;
}

static uint8_t *random_legacy(uint8_t *p, unsigned base, unsigned map)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0xf2, 0xf3};
    if (roll(4))
        *p++ = prefixes[roll(sizeof prefixes)];
    if (roll(40) == 0)
        *p++ = 0x66;
    if (base & 8 || roll(3) == 0)
        *p++ = (uint8_t)(0x40 | roll(2) << 3 | roll(2) << 2 | (base >> 3));
    *p++ = 0x0f;
    if (map > 1)
        *p++ = map == 2 ? 0x38 : 0x3a;
    return p;
}

static size_t random_x87(uint8_t *bytes)
{
    unsigned base;
    uint8_t tail[8], *p = bytes;
    size_t size = random_operand(tail, &base);
    if (roll(10) == 0)
        *p++ = 0x64; /* FS */
    if (base & 8)
        *p++ = 0x41;
    *p++ = (uint8_t)(0xd8 + roll(8));
    memcpy(p, tail, size);
    return (size_t)(p - bytes) + size;
}

static size_t random_vector(uint8_t *bytes)
{
    static const struct {
        uint8_t from, to;
    } opcodes[] = {{0x10, 0x17}, {0x28, 0x2f}, {0x50, 0x7f}, {0xc2, 0xc6}, {0xd0, 0xff}};
    unsigned length;
    do {
        uint8_t tail[8], *p = bytes;
        unsigned base, map = (unsigned)(roll(3) ? 1 : 2 + roll(2)), k = (unsigned)roll(5);
        size_t size = random_operand(tail, &base);
        if (roll(16) == 0) {
            size = random_x87(bytes);
            memset(bytes + size, 0, 8);
            continue;
        }
        p = roll(3) ? random_legacy(p, base, map) : random_vex(p, base, map);
        *p++ = (uint8_t)(map == 1 ? opcodes[k].from + roll(opcodes[k].to - opcodes[k].from + 1u)
                                  : roll(256));
        memcpy(p, tail, size);
        for (unsigned n = 0; n < 8; n++)
            p[size + n] = (uint8_t)roll(256);
    } while (!acceptable(bytes, 24, &length));
    return length;
}

/* movl $value, disp(%rbx); ldmxcsr disp(%rbx) or stmxcsr disp(%rbx) */
static void add_mxcsr(struct program *program)
{
    uint32_t value = (uint32_t)(0x1f80 | (roll(2) ? roll(8) << 13 : 0) | (roll(3) ? 0 : 0x40));
    if (roll(4) == 0)
        value &= ~(uint32_t)roll(0x2000);
    uint8_t code[] = {0xc7, 0x43, 0x20, 0, 0, 0, 0, 0x0f, 0xae, 0x53, 0x20};
    memcpy(code + 3, &value, sizeof value);
    code[9] = roll(2) ? 0x53 : 0x5b;
    add(program, code, sizeof code);
}

/* movw $value, disp(%rsi); fldcw disp(%rsi); fnstcw disp + 2(%rsi) */
static void add_control(struct program *program)
{
    uint8_t code[] = {0x66, 0xc7, 0x46, 0x30, 0x7f, 0, 0xd9, 0x6e, 0x30, 0xd9, 0x7e, 0x32};
    code[4] = (uint8_t)(roll(6) ? 0x7f : roll(256));
    code[5] = (uint8_t)roll(16);
    add(program, code, sizeof code);
}

/* What is between vector instructions: some of it moves pointers by multiples of 16, so that look-ups are shared. */
static void add_integer(struct program *program)
{
    static const struct {
        uint8_t size, bytes[7];
    } codes[] = {
        {3, {0x48, 0x01, 0xc2}},       {4, {0x48, 0x83, 0xc3, 0x10}}, {4, {0x48, 0x83, 0xeb, 0x10}},
        {3, {0x48, 0x8b, 0x06}},       {3, {0x48, 0x89, 0x13}},       {3, {0x4d, 0x89, 0xd4}},
        {4, {0x48, 0x83, 0xc6, 0x20}}, {4, {0x48, 0x83, 0xee, 0x20}}, {2, {0x0f, 0x06}},
        {4, {0x49, 0x83, 0xc5, 0x10}}, {4, {0x49, 0x83, 0xed, 0x10}}, {2, {0x0f, 0xa2}},
    };
    unsigned n = (unsigned)roll(sizeof codes / sizeof *codes);
    add(program, codes[n].bytes, codes[n].size);
}

/* cmp $n, %r15b; jnz 1f; add $n, pointer; 1: addresses change when the code is translated already. */
static void add_shift(struct program *program)
{
    unsigned pointer = pointers[roll(4)];
    uint8_t code[] = {0x41, 0x80, 0xff, (uint8_t)(1 + roll(6)), 0x75, 4, 0x48, 0x83, 0xc0, 0};
    code[6] |= (uint8_t)(pointer >> 3);
    code[8] |= (uint8_t)(pointer & 7);
    code[9] = (uint8_t)(1u << roll(7));
    add(program, code, sizeof code);
}

/* A loop that ends in INT3. */
static void make_program(struct program *program)
{
    unsigned count = 3 + (unsigned)roll(25);
    program->size = 0;
    for (unsigned n = 0; n < count && program->size < 600; n++) {
        uint8_t bytes[32];
        unsigned kind = (unsigned)roll(40);
        if (kind == 0)
            add_mxcsr(program);
        else if (kind == 1)
            add_shift(program);
        else if (kind == 2)
            add_control(program);
        else if (kind < 10)
            add_integer(program);
        else if (kind < 13) /* to the next instruction: another block */
            add(program, (const uint8_t[]){(uint8_t)(0x70 | roll(16)), 0}, 2);
        else
            add(program, bytes, random_vector(bytes));
    }
    uint8_t end[] = {0x49, 0xff, 0xcf, 0x0f, 0x85, 0, 0, 0, 0, 0xcc}; /* dec %r15; jnz; int3 */
    int32_t back = -(int32_t)(program->size + 9);
    memcpy(end + 5, &back, 4);
    add(program, end, sizeof end);
}

static struct vcpu *nth(unsigned k)
{
    return (k ? lab.interprets : lab.translates)->vcpus[0];
}

/* No page is at its own address. */
static void swap_pages(void)
{
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned page = 0; page < 12; page++)
            *one_insn_pte(nth(k), LAB_DATA + page * 0x1000) = (LAB_DATA + (page ^ 1) * 0x1000) | 7;
        tlb_flush(nth(k));
    }
}

static void set_up(bool user)
{
    struct lab_state state;
    uint64_t gate[2] = {(LAZY_HANDLER & 0xffff) | (uint64_t)ONE_INSN_CS64 << 16 | 0x8eull << 40, 0};
    translator_lab_start(&lab, START, user);
    translator_lab_put(&lab, ONE_INSN_IDT + 16 * EXC_NM, gate, sizeof gate);
    translator_lab_put(&lab, LAZY_HANDLER, lazy_handler, sizeof lazy_handler);
    simd_lab_randomize(&state);
    FPU_MXCSR(&state.fpu) |= (uint32_t)(roll(2) ? roll(8) << 13 | roll(2) << 6 : 0);
    if (roll(8) == 0)
        FPU_MXCSR(&state.fpu) &= ~(uint32_t)roll(0x2000) | MXCSR_CONTROL;
    if (roll(6) == 0)
        FPU_FCW(&state.fpu) &= (uint16_t) ~(1u << roll(6));
    FPU_FCW(&state.fpu) |= (uint16_t)(roll(4) ? 0 : roll(16) << 8);
    bool avx = simd_lab_has_avx() && roll(8);
    uint64_t cr0 = roll(6) == 0 ? CR0_TS : roll(60) == 0 ? CR0_EM : 0, sse = roll(30) != 0;
    for (unsigned k = 0; k < 2; k++) {
        struct vcpu *cpu = nth(k);
        cpu->fpu = state.fpu;
        cpu->xcr0 = avx ? 7 : 3;
        cpu->cr4 |= CR4_OSXSAVE;
        cpu->cr4 &= sse ? ~0ull : ~(uint64_t)CR4_OSFXSR;
        cpu->cr0 |= cr0;
        cpu->segment[SEG_FS].base = 0x20;
        vcpu_mode_changed(cpu);
    }
    swap_pages();
    translator_lab_put(&lab, LAB_DATA + 16 * roll(0xb00), state.memory, 4096);
}

/* Now and then the guest's kernel has switched tasks: the next instruction raises #NM, and is then executed. */
static void switch_tasks(void)
{
    if (roll(5))
        return;
    for (unsigned k = 0; k < 2; k++) {
        nth(k)->cr0 |= CR0_TS;
        vcpu_mode_changed(nth(k));
    }
}

static bool execute(const struct program *program)
{
    set_up(roll(3) == 0);
    translator_lab_put(&lab, START, program->bytes, program->size);
    for (unsigned n = 0; n < 16; n++)
        translator_lab_register(&lab, n, roll(3) ? roll(1ull << 31) * roll(1ull << 31) : roll(64));
    for (unsigned k = 0; k < 4; k++)
        translator_lab_register(&lab, pointers[k],
                                LAB_DATA + 0x100 + roll(0xb) * 0x1000 +
                                    (roll(4) ? roll(0x80) * 16 : 0xfc0) +
                                    (roll(12) ? 0 : roll(16)));
    translator_lab_register(&lab, COUNTER, 3 + roll(20));
    translator_lab_register(&lab, RSP, ONE_INSN_STACK - 8 * roll(512));
    for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 40; slices++) {
        if (!translator_lab_run(&lab, 1 + (int64_t)roll(200)))
            return false;
        switch_tasks();
    }
    return translator_lab_run(&lab, 1);
}

/* C code has the control words that it began with, and an empty x87 stack. */
static bool host_is_as_it_was(void)
{
    struct {
        uint32_t control, status, tags, pointers[4];
    } environment;
    __asm__ volatile("fnstenv %0; fldenv %0" : "=m"(environment));
    return (uint16_t)environment.control == FCW_INITIAL && (uint16_t)environment.tags == 0xffff &&
           (_mm_getcsr() & ~MXCSR_FLAGS) == MXCSR_INITIAL;
}

static void show(const struct program *program, unsigned n)
{
    printf("# program %u:", n);
    for (size_t k = 0; k < program->size; k++)
        printf(" %02x", program->bytes[k]);
    printf("\n");
    const uint8_t *a = (const uint8_t *)&nth(0)->fpu, *b = (const uint8_t *)&nth(1)->fpu;
    for (unsigned k = 0; k < sizeof(struct fpu); k++)
        if (a[k] != b[k])
            printf("# fpu + %u: %02x translated, %02x interpreted\n", k, a[k], b[k]);
}

static const struct translator_stats *counters(void)
{
    return translator_stats(lab.translates->soft->translator);
}

static void random_vector_programs_agree(void **state)
{
    struct program program;
    const char *more = getenv("PV_TRANSLATOR_PROGRAMS");
    unsigned count = more ? (unsigned)atoi(more) : 3000;
    (void)state;
    for (unsigned n = 0; n < count; n++) {
        seed = n;
        make_program(&program);
        if (execute(&program) && host_is_as_it_was())
            continue;
        show(&program, n);
        fail();
    }
    assert_in_range(counters()->instructions, 10000, UINT64_MAX);
    assert_in_range(counters()->exits[TRANSLATOR_VECTORS], 1000, UINT64_MAX);
}

static void random_vector_programs_agree_without_bmi2(void **state)
{
    random_vector_programs_agree(state);
}

/* ---- what is particular ---- */
/* 1: movdqu (%rsi), %xmm1; pcmpeqb %xmm2, %xmm1; pmovmskb %xmm1, %eax; movaps %xmm1, (%rbx); addsd %xmm3, %xmm4;
 * dec %r15; jnz 1b; hlt */
static const uint8_t vector_loop[] = {0xf3, 0x0f, 0x6f, 0x0e, 0x66, 0x0f, 0x74, 0xca, 0x66,
                                      0x0f, 0xd7, 0xc1, 0x0f, 0x29, 0x0b, 0xf2, 0x0f, 0x58,
                                      0xe3, 0x49, 0xff, 0xcf, 0x75, 0xe8, 0xf4};
/* 1: fldl (%rsi); fadd %st(1), %st; fstpl (%rbx); movq %mm1, %mm2; emms; fnstcw 8(%rbx); dec %r15; jnz 1b; hlt */
static const uint8_t x87_loop[] = {0xdd, 0x06, 0xd8, 0xc1, 0xdd, 0x1b, 0x0f, 0x6f, 0xd1, 0x0f,
                                   0x77, 0xd9, 0x7b, 0x08, 0x49, 0xff, 0xcf, 0x75, 0xed, 0xf4};

static void stays_in_translated_code(const uint8_t *code, size_t size)
{
    translator_lab_start(&lab, START, false);
    translator_lab_put(&lab, START, code, size);
    translator_lab_register(&lab, RSI, LAB_DATA + 0x100);
    translator_lab_register(&lab, RBX, LAB_DATA + 0x1100);
    translator_lab_register(&lab, COUNTER, 20000);
    while (!translator_lab_halted(&lab))
        assert_true(translator_lab_run(&lab, 10000));
    const uint64_t *exits = counters()->exits;
    assert_in_range(exits[TRANSLATOR_VECTORS], 0, 20); /* a slice each */
    assert_in_range(exits[TRANSLATOR_INTERPRET] + exits[TRANSLATOR_ACCESS] + exits[TRANSLATOR_CALL],
                    0, 40);
    assert_true(host_is_as_it_was());
}

static void a_loop_of_vector_instructions_does_not_leave(void **state)
{
    (void)state;
    stays_in_translated_code(vector_loop, sizeof vector_loop);
}

static void nor_does_one_of_x87_and_mmx_instructions(void **state)
{
    (void)state;
    stays_in_translated_code(x87_loop, sizeof x87_loop);
}

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0x60000) ? 0 : -1;
}

static int open_old_lab(void **state)
{
    translator_lab_old_host(true);
    int result = open_lab(state);
    translator_lab_old_host(false);
    return result;
}

static int close_lab(void **state)
{
    (void)state;
    translator_lab_close(&lab);
    return 0;
}

int main(void)
{
    if (!freopen("/dev/null", "w", stderr)) /* triple faults say so */
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_vector_programs_agree, open_lab, close_lab),
        cmocka_unit_test_setup_teardown(random_vector_programs_agree_without_bmi2, open_old_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(a_loop_of_vector_instructions_does_not_leave, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(nor_does_one_of_x87_and_mmx_instructions, open_lab,
                                        close_lab),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
