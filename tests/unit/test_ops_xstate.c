/* SPDX-License-Identifier: MIT */
/* FXSAVE, XSAVE and their kind, XCR0, MXCSR, PKRU. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/cpuid.h"
#include "runtime/soft/fpu.h"

#define AREA ONE_INSN_DATA

static struct vcpu *cpu;
static uint8_t *area;
static bool avx;

static int open_vcpu(void **state)
{
    (void)state;
    cpu = one_insn_vcpu();
    cpu->cr4 |= CR4_OSXSAVE;
    avx = cpuid_xcr0_mask() & XSTATE_AVX;
    cpu->xcr0 = cpuid_xcr0_mask();
    cpu->r[RBX] = AREA;
    area = one_insn_at(cpu, AREA);
    return 0;
}
static int close_vcpu(void **state)
{
    (void)state;
    one_insn_free(cpu);
    return 0;
}

static void expect(struct one_insn_result result, int vector)
{
    assert_int_equal(result.fault ? result.vector : -1, vector);
}

static void fill_state(void)
{
    struct fpu *fpu = &cpu->fpu;
    FPU_FCW(fpu) = 0x27f;
    FPU_FSW(fpu) = 0x3800;
    FPU_FTW(fpu) = 0x80;
    FPU_FOP(fpu) = 0x123;
    FPU_FIP(fpu) = 0x123456789abc;
    FPU_FDP(fpu) = 0xfedcba987654;
    FPU_MXCSR(fpu) = 0x3fa1;
    for (unsigned n = 0; n < 8; n++)
        memset(FPU_ST(fpu, n), 0x10 + (int)n, 10);
    for (unsigned n = 0; n < 16; n++) {
        memset(FPU_XMM(fpu, n), 0x20 + (int)n, 16);
        memset(fpu->ymm_high[n], 0x30 + (int)n, 16);
    }
    cpu->pkru = 0x55555554;
}

static void clear_state(void)
{
    memset(&cpu->fpu, 0, sizeof cpu->fpu);
    FPU_FCW(&cpu->fpu) = FCW_INITIAL;
    FPU_MXCSR(&cpu->fpu) = MXCSR_INITIAL;
    cpu->pkru = 0;
}

static uint64_t header(unsigned word)
{
    uint64_t value;
    memcpy(&value, area + 512 + 8 * word, 8);
    return value;
}
static void set_header(unsigned word, uint64_t value)
{
    memcpy(area + 512 + 8 * word, &value, 8);
}

static void request(uint64_t mask)
{
    cpu->r[RAX] = (uint32_t)mask;
    cpu->r[RDX] = mask >> 32;
}

#define FXSAVE64   0x48, 0x0f, 0xae, 0x03
#define FXRSTOR64  0x48, 0x0f, 0xae, 0x0b
#define XSAVE64    0x48, 0x0f, 0xae, 0x23
#define XRSTOR64   0x48, 0x0f, 0xae, 0x2b
#define XSAVEOPT64 0x48, 0x0f, 0xae, 0x33
#define XSAVEC64   0x48, 0x0f, 0xc7, 0x23
#define XSAVES64   0x48, 0x0f, 0xc7, 0x2b
#define XRSTORS64  0x48, 0x0f, 0xc7, 0x1b
#define XGETBV     0x0f, 0x01, 0xd0
#define XSETBV     0x0f, 0x01, 0xd1
#define RDPKRU     0x0f, 0x01, 0xee
#define WRPKRU     0x0f, 0x01, 0xef

/* ---- FXSAVE ---- */
static void fxsave_and_fxrstor_keep_the_legacy_state(void **state)
{
    (void)state;
    memset(area, 0xee, 1024);
    fill_state();
    struct fpu before = cpu->fpu;
    expect(ONE_INSN(cpu, FXSAVE64), -1);
    assert_memory_equal(area, cpu->fpu.legacy, 28);
    assert_int_equal(*(uint32_t *)(area + 28), MXCSR_MASK);
    assert_memory_equal(area + 32, cpu->fpu.legacy + 32, 416 - 32);
    assert_int_equal(area[511], 0xee); /* the last 48 bytes are the program's */
    assert_int_equal(area[512], 0xee);
    clear_state();
    expect(ONE_INSN(cpu, FXRSTOR64), -1);
    assert_memory_equal(cpu->fpu.legacy, before.legacy, 28);
    assert_memory_equal(cpu->fpu.legacy + 32, before.legacy + 32, 416 - 32);
}

static void fxsave_of_32_bit_code_keeps_eight_registers_and_short_pointers(void **state)
{
    (void)state;
    fill_state();
    expect(ONE_INSN(cpu, 0x0f, 0xae, 0x03), -1); /* in 64-bit mode, without REX.W */
    assert_int_equal(*(uint64_t *)(area + 8), 0x56789abc);
    one_insn_mode(cpu, ONE_INSN_COMPAT32, false);
    memset(area, 0xee, 512);
    expect(ONE_INSN(cpu, 0x0f, 0xae, 0x03), -1);
    assert_int_equal(area[160 + 7 * 16], 0x27);
    assert_int_equal(area[160 + 8 * 16], 0xee);
    clear_state();
    memset(area + 160 + 8 * 16, 0x77, 128);
    expect(ONE_INSN(cpu, 0x0f, 0xae, 0x0b), -1);
    assert_int_equal(FPU_XMM(&cpu->fpu, 7)[0], 0x27);
    assert_int_equal(FPU_XMM(&cpu->fpu, 8)[0], 0);
}

static void fxrstor_refuses_reserved_mxcsr_bits_and_misaligned_areas(void **state)
{
    (void)state;
    expect(ONE_INSN(cpu, FXSAVE64), -1);
    area[26] = 1;
    fill_state();
    struct fpu before = cpu->fpu;
    expect(ONE_INSN(cpu, FXRSTOR64), EXC_GP);
    assert_memory_equal(&cpu->fpu, &before, sizeof before);
    cpu->r[RBX] = AREA + 8;
    expect(ONE_INSN(cpu, FXSAVE64), EXC_GP);
    expect(ONE_INSN(cpu, FXRSTOR64), EXC_GP);
    cpu->r[RBX] = AREA;
    cpu->cr0 |= CR0_TS;
    expect(ONE_INSN(cpu, FXSAVE64), EXC_NM);
}

/* Whatever a guest puts into the image, the host loads it without a fault, and x87 instructions work on it. */
static void no_image_of_the_guest_upsets_the_host(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 2000; n++) {
        for (unsigned k = 0; k < 512; k++)
            area[k] = (uint8_t)rand();
        area[26] = area[27] = 0;
        expect(ONE_INSN(cpu, FXRSTOR64), -1);
        ONE_INSN(cpu, 0xd8, 0xc1);       /* fadd st0, st1 */
        ONE_INSN(cpu, 0x0f, 0xfc, 0xc1); /* paddb mm0, mm1 */
        ONE_INSN(cpu, 0x0f, 0x58, 0xc1); /* addps xmm0, xmm1 */
        volatile long double two = 2;
        assert_true(two + two == 4);
    }
}

/* ---- XSAVE ---- */
static void xsave_and_xrstor_keep_all_components(void **state)
{
    (void)state;
    memset(area, 0xee, 1024);
    memset(area + 512, 0, 64);
    fill_state();
    struct fpu before = cpu->fpu;
    request(~0ull);
    expect(ONE_INSN(cpu, XSAVE64), -1);
    assert_int_equal(header(0), cpu->xcr0);
    assert_int_equal(header(1), 0);
    if (avx)
        assert_memory_equal(area + XSTATE_AVX_OFFSET, before.ymm_high, 256);
    assert_int_equal(*(uint64_t *)(area + XSTATE_PKRU_OFFSET), 0x55555554);
    assert_int_equal(area[XSTATE_PKRU_OFFSET + 8], 0xee);
    assert_int_equal(area[500], 0xee);
    clear_state();
    expect(ONE_INSN(cpu, XRSTOR64), -1);
    assert_memory_equal(cpu->fpu.legacy, before.legacy, 28);
    assert_memory_equal(cpu->fpu.legacy + 32, before.legacy + 32, 416 - 32);
    if (avx)
        assert_memory_equal(cpu->fpu.ymm_high, before.ymm_high, 256);
    assert_int_equal(cpu->pkru, 0x55555554);
}

static void xsave_writes_what_is_requested_only(void **state)
{
    (void)state;
    memset(area, 0xee, 1024);
    memset(area + 512, 0, 64);
    set_header(0, XSTATE_X87);
    fill_state();
    request(XSTATE_SSE);
    expect(ONE_INSN(cpu, XSAVE64), -1);
    assert_int_equal(header(0), XSTATE_X87 | XSTATE_SSE);
    assert_int_equal(area[0], 0xee);
    assert_int_equal(*(uint32_t *)(area + 24), 0x3fa1);
    assert_int_equal(area[160], 0x20);
    assert_int_equal(area[XSTATE_AVX_OFFSET], 0xee);
}

static void initial_components_are_marked_and_left_out(void **state)
{
    (void)state;
    clear_state();
    memset(area, 0xee, 1024);
    memset(area + 512, 0, 64);
    request(~0ull);
    expect(ONE_INSN(cpu, XSAVE64), -1);
    assert_int_equal(header(0), 0);
    assert_int_equal(area[0], 0x7f); /* written all the same */
    memset(area, 0xee, 512);
    expect(ONE_INSN(cpu, XSAVEOPT64), -1);
    assert_int_equal(area[0], 0xee);
    assert_int_equal(area[160], 0xee);
    fill_state();
    assert_int_equal(*(uint32_t *)(area + 24), 0x1f80);
    *(uint32_t *)(area + 24) = 0x1f81; /* loaded whatever the header says */
    expect(ONE_INSN(cpu, XRSTOR64), -1);
    struct fpu after = cpu->fpu;
    assert_int_equal(FPU_MXCSR(&after), 0x1f81);
    clear_state();
    FPU_MXCSR(&cpu->fpu) = 0x1f81;
    assert_memory_equal(&after, &cpu->fpu, sizeof after);
    assert_int_equal(cpu->pkru, 0);
}

static void the_compacted_format_has_no_gaps(void **state)
{
    (void)state;
    memset(area, 0xee, 1024);
    memset(area + 512, 0, 64);
    fill_state();
    struct fpu before = cpu->fpu;
    request(XSTATE_SSE | XSTATE_PKRU);
    expect(ONE_INSN(cpu, XSAVEC64), -1);
    assert_int_equal(header(0), XSTATE_SSE | XSTATE_PKRU);
    assert_int_equal(header(1), 1ull << 63 | XSTATE_SSE | XSTATE_PKRU);
    assert_int_equal(*(uint64_t *)(area + 576), 0x55555554);
    assert_int_equal(area[0], 0xee);
    clear_state();
    request(~0ull);
    expect(ONE_INSN(cpu, XRSTOR64), -1);
    assert_memory_equal(FPU_XMM(&cpu->fpu, 0), FPU_XMM(&before, 0), 256);
    assert_int_equal(FPU_MXCSR(&cpu->fpu), 0x3fa1);
    assert_int_equal(FPU_FCW(&cpu->fpu), FCW_INITIAL);
    assert_int_equal(cpu->fpu.ymm_high[0][0], 0);
    assert_int_equal(cpu->pkru, 0x55555554);
    expect(ONE_INSN(cpu, XSAVES64), -1);
    clear_state();
    expect(ONE_INSN(cpu, XRSTORS64), -1);
    assert_memory_equal(FPU_XMM(&cpu->fpu, 0), FPU_XMM(&before, 0), 256);
    assert_int_equal(FPU_MXCSR(&cpu->fpu), 0x3fa1);
}

static void xrstor_refuses_bad_headers(void **state)
{
    static const struct {
        uint64_t bv, compaction, reserved;
        bool good, good_supervisor;
    } rows[] = {
        {7, 0, 0, true, false},
        {0x10, 0, 0, false, false},
        {1ull << 63, 0, 0, false, false},
        {1, 1, 0, false, false},
        {1, 0, 1, false, false},
        {3, 1ull << 63 | 3, 0, true, true},
        {3, 1ull << 63 | 1, 0, false, false},
        {3, 1ull << 63 | 0x13, 0, false, false},
        {3, 1ull << 63 | 3, 1, false, false},
    };
    (void)state;
    if (!avx)
        skip();
    request(7);
    for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++) {
        set_header(0, rows[n].bv);
        set_header(1, rows[n].compaction);
        set_header(2, rows[n].reserved);
        expect(ONE_INSN(cpu, XRSTOR64), rows[n].good ? -1 : EXC_GP);
        expect(ONE_INSN(cpu, XRSTORS64), rows[n].good_supervisor ? -1 : EXC_GP);
    }
}

static void xsave_needs_alignment_osxsave_and_ts_clear(void **state)
{
    (void)state;
    request(3);
    cpu->r[RBX] = AREA + 32;
    expect(ONE_INSN(cpu, XSAVE64), EXC_GP);
    expect(ONE_INSN(cpu, XRSTOR64), EXC_GP);
    cpu->r[RBX] = AREA;
    cpu->cr0 |= CR0_TS;
    expect(ONE_INSN(cpu, XSAVE64), EXC_NM);
    cpu->cr4 &= ~(uint64_t)CR4_OSXSAVE;
    expect(ONE_INSN(cpu, XSAVE64), EXC_UD);
    expect(ONE_INSN(cpu, XGETBV), EXC_UD);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    cpu->cr4 |= CR4_OSXSAVE;
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->cr4 |= CR4_OSXSAVE;
    expect(ONE_INSN(cpu, XSAVES64), EXC_GP);
    expect(ONE_INSN(cpu, XSAVE64), -1);
}

static void an_area_that_cannot_be_written_changes_nothing(void **state)
{
    (void)state;
    fill_state();
    request(~0ull);
    cpu->r[RBX] = AREA + 0x1000 - 512;
    uint8_t *here = one_insn_at(cpu, cpu->r[RBX]);
    *one_insn_pte(cpu, AREA + 0x1000) = 0;
    one_insn_flush(cpu);
    memset(here, 0xee, 512);
    struct one_insn_result result = ONE_INSN(cpu, XSAVE64);
    expect(result, EXC_PF);
    assert_int_equal(result.cr2 & ~0xfffull, AREA + 0x1000);
    assert_int_equal(here[0], 0xee);
    struct fpu before = cpu->fpu;
    expect(ONE_INSN(cpu, XRSTOR64), EXC_PF);
    assert_memory_equal(&cpu->fpu, &before, sizeof before);
}

/* ---- XCR0, MXCSR, PKRU ---- */
static void xsetbv_takes_what_cpuid_offers(void **state)
{
    static const struct {
        uint64_t value;
        int vector;
    } rows[] = {{1, -1},     {3, -1},        {7, -1},
                {0x201, -1}, {0, EXC_GP},    {2, EXC_GP},
                {5, EXC_GP}, {0x11, EXC_GP}, {1ull << 63 | 1, EXC_GP}};
    (void)state;
    for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++) {
        cpu->r[RCX] = 0;
        request(rows[n].value);
        if (rows[n].value == 7 && !avx)
            continue;
        uint64_t before = cpu->xcr0;
        expect(ONE_INSN(cpu, XSETBV), rows[n].vector);
        assert_int_equal(cpu->xcr0, rows[n].vector < 0 ? rows[n].value : before);
        expect(ONE_INSN(cpu, XGETBV), -1);
        assert_int_equal(cpu->r[RAX], (uint32_t)cpu->xcr0);
    }
    request(3);
    cpu->r[RCX] = 1;
    expect(ONE_INSN(cpu, XSETBV), EXC_GP);
    cpu->r[RCX] = 2;
    expect(ONE_INSN(cpu, XGETBV), EXC_GP);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->cr4 |= CR4_OSXSAVE;
    cpu->r[RCX] = 0;
    expect(ONE_INSN(cpu, XSETBV), EXC_GP);
    expect(ONE_INSN(cpu, XGETBV), -1);
}

static void xgetbv_1_tells_what_is_in_use(void **state)
{
    (void)state;
    clear_state();
    cpu->r[RCX] = 1;
    expect(ONE_INSN(cpu, XGETBV), -1);
    assert_int_equal(cpu->r[RAX], 0);
    FPU_XMM(&cpu->fpu, 15)[15] = 1;
    expect(ONE_INSN(cpu, XGETBV), -1);
    assert_int_equal(cpu->r[RAX], XSTATE_SSE);
    fill_state();
    expect(ONE_INSN(cpu, XGETBV), -1);
    assert_int_equal(cpu->r[RAX], cpu->xcr0);
}

static void ldmxcsr_refuses_reserved_bits(void **state)
{
    (void)state;
    *(uint32_t *)area = 0xffff;
    expect(ONE_INSN(cpu, 0x0f, 0xae, 0x13), -1);
    assert_int_equal(FPU_MXCSR(&cpu->fpu), 0xffff);
    *(uint32_t *)area = 0x11f80;
    expect(ONE_INSN(cpu, 0x0f, 0xae, 0x13), EXC_GP);
    expect(ONE_INSN(cpu, 0x0f, 0xae, 0x5b, 0x04), -1); /* stmxcsr [rbx + 4] */
    assert_int_equal(*(uint32_t *)(area + 4), 0xffff);
    if (!avx)
        return;
    *(uint32_t *)area = 0x1f80;
    expect(ONE_INSN(cpu, 0xc5, 0xf8, 0xae, 0x13), -1); /* vldmxcsr */
    assert_int_equal(FPU_MXCSR(&cpu->fpu), 0x1f80);
    cpu->xcr0 = 3;
    expect(ONE_INSN(cpu, 0xc5, 0xf8, 0xae, 0x13), EXC_UD);
}

static void pkru_is_read_and_written(void **state)
{
    (void)state;
    cpu->r[RCX] = cpu->r[RDX] = 0;
    cpu->r[RAX] = 0x1234;
    expect(ONE_INSN(cpu, WRPKRU), EXC_UD);
    cpu->cr4 |= CR4_PKE;
    expect(ONE_INSN(cpu, WRPKRU), -1);
    assert_int_equal(cpu->pkru, 0x1234);
    cpu->r[RAX] = cpu->r[RDX] = ~0ull;
    expect(ONE_INSN(cpu, RDPKRU), -1);
    assert_int_equal(cpu->r[RAX], 0x1234);
    assert_int_equal(cpu->r[RDX], 0);
    cpu->r[RDX] = 1;
    expect(ONE_INSN(cpu, WRPKRU), EXC_GP);
    cpu->r[RDX] = 0;
    cpu->r[RCX] = 1;
    expect(ONE_INSN(cpu, WRPKRU), EXC_GP);
    expect(ONE_INSN(cpu, RDPKRU), EXC_GP);
}

/* An access that was remembered as allowed before is looked at again. */
static void pkru_takes_effect_at_once(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->cr4 |= CR4_PKE;
    *one_insn_pte(cpu, AREA) |= 1ull << 59; /* key 1 */
    one_insn_flush(cpu);
    expect(ONE_INSN(cpu, 0x8b, 0x33), -1); /* mov esi, [rbx] */
    cpu->r[RCX] = cpu->r[RDX] = 0;
    cpu->r[RAX] = 4; /* key 1: no access */
    expect(ONE_INSN(cpu, WRPKRU), -1);
    struct one_insn_result result = ONE_INSN(cpu, 0x8b, 0x33);
    expect(result, EXC_PF);
    assert_int_equal(result.error & PF_KEY, PF_KEY);
}

#define ON_VCPU(name) cmocka_unit_test_setup_teardown(name, open_vcpu, close_vcpu)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_VCPU(fxsave_and_fxrstor_keep_the_legacy_state),
        ON_VCPU(fxsave_of_32_bit_code_keeps_eight_registers_and_short_pointers),
        ON_VCPU(fxrstor_refuses_reserved_mxcsr_bits_and_misaligned_areas),
        ON_VCPU(no_image_of_the_guest_upsets_the_host),
        ON_VCPU(xsave_and_xrstor_keep_all_components),
        ON_VCPU(xsave_writes_what_is_requested_only),
        ON_VCPU(initial_components_are_marked_and_left_out),
        ON_VCPU(the_compacted_format_has_no_gaps),
        ON_VCPU(xrstor_refuses_bad_headers),
        ON_VCPU(xsave_needs_alignment_osxsave_and_ts_clear),
        ON_VCPU(an_area_that_cannot_be_written_changes_nothing),
        ON_VCPU(xsetbv_takes_what_cpuid_offers),
        ON_VCPU(xgetbv_1_tells_what_is_in_use),
        ON_VCPU(ldmxcsr_refuses_reserved_bits),
        ON_VCPU(pkru_is_read_and_written),
        ON_VCPU(pkru_takes_effect_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
