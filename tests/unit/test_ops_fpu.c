/* SPDX-License-Identifier: MIT */
/* x87 instructions against the host executing the same bytes, their exceptions, and what MMX, SSE and AVX instructions
 * ask of CR0, CR4 and XCR0. */
#include "tests/unit/simd_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/soft/fpu.h"
#include "tests/unit/code_runner.h"

extern const struct device_type i8259_device;

static struct lab_case c;

static void set_code(const uint8_t *bytes, unsigned length)
{
    memcpy(c.bytes, bytes, length);
    c.length = length;
    c.operand = 1024;
}
#define CODE(...) set_code((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Control, status and tags as programs have them, and otherwise. */
static void randomize_x87(bool unmasked, bool pending)
{
    struct fpu *fpu = &c.before.fpu;
    simd_lab_randomize(&c.before);
    FPU_FCW(fpu) = (uint16_t)(0x7f | (code_random() & 0xf00));
    if (unmasked)
        FPU_FCW(fpu) = (uint16_t)(0x40 | (code_random() & 0xf3f));
    FPU_FSW(fpu) = (uint16_t)(code_random() & 0x7f7f);
    if (!pending)
        FPU_FSW(fpu) &= (uint16_t)(~FSW_EXCEPTIONS | FPU_FCW(fpu));
    x87_summarize(fpu);
    switch (code_random() % 4) {
    case 0:
        FPU_FTW(fpu) = (uint8_t)code_random();
        break;
    case 1: /* empty at the bottom only: pushes fit */
        FPU_FTW(fpu) = (uint8_t) ~(1u << ((FPU_TOP(fpu) - 1) & 7));
        break;
    default:
        FPU_FTW(fpu) = 0xff;
    }
    /* operands as x87 instructions load them */
    uint8_t *operand = c.before.memory + c.operand;
    uint64_t number = simd_lab_number(code_random() & 1 ? 64 : 32);
    if (code_random() % 3 == 0)
        simd_lab_number80(operand);
    else
        memcpy(operand, &number, 8);
    if (code_random() % 4 == 0) /* BCD */
        for (unsigned n = 0; n < 9; n++)
            operand[n] = (uint8_t)(code_random() % 10 << 4 | code_random() % 10);
}

static bool is_x87_row(const ZydisDecodedInstruction *z)
{
    for (const struct op_row *row = ops_fpu; row->select; row++)
        if (row->mnemonic == z->mnemonic)
            return true;
    return false;
}

/* What FNSTENV and FNSAVE store of FOP, FIP and FDP is the host's. */
static bool stores_pointers(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FNSTENV || m == ZYDIS_MNEMONIC_FNSAVE;
}

static unsigned failures, cases;

static void run_x87(unsigned opcode, unsigned modrm, unsigned count, bool unmasked, bool pending)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    CODE((uint8_t)opcode, (uint8_t)modrm);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, c.bytes, 2, &z, operands)) ||
        !is_x87_row(&z) || stores_pointers(z.mnemonic))
        return;
    for (unsigned n = 0; n < count; n++) {
        randomize_x87(unmasked, pending);
        cases++;
        if (!simd_lab_agrees(&c) && ++failures > 40)
            fail_msg("too many");
    }
}

static void run_all(unsigned count, bool unmasked, bool pending)
{
    const char *more = getenv("PV_CASES");
    failures = cases = 0;
    if (more)
        count *= (unsigned)atoi(more);
    for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++) {
        for (unsigned modrm = 0xc0; modrm <= 0xff; modrm++)
            run_x87(opcode, modrm, count, unmasked, pending);
        for (unsigned modrm = RBX; modrm < 0x40; modrm += 8)
            run_x87(opcode, modrm, 4 * count, unmasked, pending);
    }
    print_message("# %u cases\n", cases);
    assert_int_equal(failures, 0);
}

static void x87_instructions_give_what_the_host_gives(void **state)
{
    (void)state;
    run_all(10, false, false);
}
static void x87_exceptions_that_are_not_masked_leave_what_the_host_leaves(void **state)
{
    (void)state;
    run_all(10, true, false);
}
static void a_pending_x87_exception_is_raised_by_the_instructions_that_wait(void **state)
{
    (void)state;
    run_all(4, true, true);
}

/* ---- environment ---- */
/* Bytes of the layouts in 64-bit mode that hold FIP, FCS, FOP, FDP and FDS: native ones are the host's. */
static void drop_pointers(struct lab_state *s, unsigned from, unsigned to)
{
    memset(s->memory + c.operand + from, 0, to - from);
}

static void environment_agrees(unsigned from, unsigned to)
{
    static struct lab_state host, soft;
    for (unsigned n = 0; n < 300; n++) {
        randomize_x87(n & 1, n & 1);
        simd_lab_native(&c, &host);
        simd_lab_soft(&c, &soft);
        drop_pointers(&host, from, to);
        drop_pointers(&soft, from, to);
        const char *difference = simd_lab_compare(&host, &soft);
        if (difference)
            fail_msg("%s", difference);
    }
}

static void fnstenv_and_fnsave_store_what_the_host_stores(void **state)
{
    (void)state;
    CODE(0xd9, 0x33); /* fnstenv [rbx] */
    environment_agrees(12, 28);
    CODE(0x66, 0xd9, 0x33);
    environment_agrees(6, 14);
    CODE(0xdd, 0x33); /* fnsave [rbx] */
    environment_agrees(12, 28);
    CODE(0x66, 0xdd, 0x33);
    environment_agrees(6, 14);
}

static void fldenv_and_frstor_load_what_the_host_loads(void **state)
{
    (void)state;
    CODE(0xd9, 0x23); /* fldenv [rbx] */
    environment_agrees(0, 0);
    CODE(0x66, 0xd9, 0x23);
    environment_agrees(0, 0);
    CODE(0xdd, 0x23); /* frstor [rbx] */
    environment_agrees(0, 0);
    CODE(0x66, 0xdd, 0x23);
    environment_agrees(0, 0);
}

/* ---- the last instruction ---- */
static struct vcpu *cpu;

static int open_vcpu(void **state)
{
    (void)state;
    cpu = one_insn_vcpu();
    cpu->cr4 |= CR4_OSXSAVE;
    cpu->xcr0 = 7;
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

static void the_last_instruction_is_remembered_with_its_operand(void **state)
{
    (void)state;
    struct fpu *fpu = &cpu->fpu;
    cpu->r[RBX] = ONE_INSN_DATA;
    expect(ONE_INSN(cpu, 0xdd, 0x43, 0x10), -1); /* fld qword [rbx + 16] */
    assert_int_equal(FPU_FIP(fpu), ONE_INSN_CODE);
    assert_int_equal(FPU_FDP(fpu), ONE_INSN_DATA + 16);
    assert_int_equal(FPU_FOP(fpu), 0x543);
    uint64_t second = cpu->rip;
    expect(ONE_INSN(cpu, 0xd9, 0xe8), -1); /* fld1 */
    assert_int_equal(FPU_FIP(fpu), second);
    assert_int_equal(FPU_FDP(fpu), ONE_INSN_DATA + 16);
    assert_int_equal(FPU_FOP(fpu), 0x1e8);
    expect(ONE_INSN(cpu, 0xd9, 0x2b), -1); /* fldcw [rbx]: a control instruction */
    assert_int_equal(FPU_FIP(fpu), second);
    expect(ONE_INSN(cpu, 0xdb, 0xe3), -1); /* fninit */
    assert_int_equal(FPU_FIP(fpu) | FPU_FDP(fpu) | FPU_FOP(fpu), 0);
}

static void protected_mode_layouts_hold_selectors(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RBX] = ONE_INSN_DATA;
    uint32_t at = (uint32_t)cpu->rip;
    expect(ONE_INSN(cpu, 0xdd, 0x43, 0x10), -1); /* fld qword [ebx + 16] */
    cpu->r[RBX] = ONE_INSN_DATA + 256;
    expect(ONE_INSN(cpu, 0xd9, 0x33), -1); /* fnstenv [ebx] */
    const uint32_t *wide = one_insn_at(cpu, ONE_INSN_DATA + 256);
    assert_int_equal(wide[0], 0xffff037f);
    assert_int_equal(wide[3], at);
    assert_int_equal(wide[4], ONE_INSN_CS32 | 0x543u << 16);
    assert_int_equal(wide[5], ONE_INSN_DATA + 16);
    assert_int_equal(wide[6], 0xffff0000u | ONE_INSN_DS);
    expect(ONE_INSN(cpu, 0x66, 0xd9, 0x33), -1);
    const uint16_t *narrow = one_insn_at(cpu, ONE_INSN_DATA + 256);
    assert_int_equal(narrow[3], (uint16_t)at);
    assert_int_equal(narrow[4], ONE_INSN_CS32);
    assert_int_equal(narrow[5], (uint16_t)(ONE_INSN_DATA + 16));
    assert_int_equal(narrow[6], ONE_INSN_DS);
}

static void real_mode_layouts_hold_linear_addresses(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->segment[SEG_DS].selector = 0x1000;
    cpu->segment[SEG_DS].base = cpu->base[SEG_DS] = 0x10000;
    cpu->r[RBX] = 0x20;
    uint32_t at = (uint32_t)cpu->rip;
    expect(ONE_INSN(cpu, 0xdd, 0x07), -1); /* fld qword [bx] */
    cpu->r[RBX] = 0x100;
    expect(ONE_INSN(cpu, 0xd9, 0x37), -1); /* fnstenv [bx] */
    const uint16_t *narrow = one_insn_at(cpu, 0x10100);
    assert_int_equal(narrow[3], (uint16_t)at);
    assert_int_equal(narrow[4], 0x507);
    assert_int_equal(narrow[5], 0x0020);
    assert_int_equal(narrow[6], 0x1000);
    expect(ONE_INSN(cpu, 0x66, 0xd9, 0x37), -1);
    const uint32_t *wide = one_insn_at(cpu, 0x10100);
    assert_int_equal(wide[4], 0x507);
    assert_int_equal(wide[5], 0xffff0020);
    assert_int_equal(wide[6], 0x1000);
}

/* ---- what control registers forbid ---- */
static const struct {
    const char *name;
    uint8_t bytes[6];
    int em, ts, no_osfxsr, no_osxsave, no_ymm; /* the exception, -1 = none */
} forbidden[] = {
    {"fld1", {0xd9, 0xe8}, EXC_NM, EXC_NM, -1, -1, -1},
    {"fnstsw ax", {0xdf, 0xe0}, EXC_NM, EXC_NM, -1, -1, -1},
    {"fwait", {0x9b}, -1, EXC_NM, -1, -1, -1},
    {"emms", {0x0f, 0x77}, EXC_UD, EXC_NM, -1, -1, -1},
    {"paddb mm0, mm1", {0x0f, 0xfc, 0xc1}, EXC_UD, EXC_NM, -1, -1, -1},
    {"paddb xmm0, xmm1", {0x66, 0x0f, 0xfc, 0xc1}, EXC_UD, EXC_NM, EXC_UD, -1, -1},
    {"addps xmm0, xmm1", {0x0f, 0x58, 0xc1}, EXC_UD, EXC_NM, EXC_UD, -1, -1},
    {"movaps xmm0, xmm1", {0x0f, 0x28, 0xc1}, EXC_UD, EXC_NM, EXC_UD, -1, -1},
    {"pxor xmm0, xmm1", {0x66, 0x0f, 0xef, 0xc1}, EXC_UD, EXC_NM, EXC_UD, -1, -1},
    {"cvtps2pi mm0, xmm1", {0x0f, 0x2d, 0xc1}, EXC_UD, EXC_NM, EXC_UD, -1, -1},
    {"ldmxcsr [rbx]", {0x0f, 0xae, 0x13}, EXC_UD, EXC_NM, EXC_UD, -1, -1},
    {"vaddps ymm0, ymm1, ymm2", {0xc5, 0xf4, 0x58, 0xc2}, -1, EXC_NM, -1, EXC_UD, EXC_UD},
    {"vmovaps ymm0, ymm1", {0xc5, 0xfc, 0x28, 0xc1}, -1, EXC_NM, -1, EXC_UD, EXC_UD},
    {"vzeroupper", {0xc5, 0xf8, 0x77}, -1, EXC_NM, -1, EXC_UD, EXC_UD},
};

static void control_registers_forbid_what_they_should(void **state)
{
    (void)state;
    const uint64_t cr0 = cpu->cr0, cr4 = cpu->cr4;
    cpu->r[RBX] = ONE_INSN_DATA;
    for (unsigned n = 0; n < sizeof forbidden / sizeof *forbidden; n++) {
        const uint8_t *bytes = forbidden[n].bytes;
        if (bytes[0] == 0xc5 && !simd_lab_has_avx())
            continue;
        print_message("# %s\n", forbidden[n].name);
        expect(one_insn_run(cpu, bytes, 6), -1);
        cpu->cr0 = cr0 | CR0_EM;
        expect(one_insn_run(cpu, bytes, 6), forbidden[n].em);
        cpu->cr0 = cr0 | CR0_TS;
        expect(one_insn_run(cpu, bytes, 6), forbidden[n].ts);
        cpu->cr0 = cr0;
        cpu->cr4 = cr4 & ~(uint64_t)CR4_OSFXSR;
        expect(one_insn_run(cpu, bytes, 6), forbidden[n].no_osfxsr);
        cpu->cr4 = cr4 & ~(uint64_t)CR4_OSXSAVE;
        expect(one_insn_run(cpu, bytes, 6), forbidden[n].no_osxsave);
        cpu->cr4 = cr4;
        cpu->xcr0 = 3;
        expect(one_insn_run(cpu, bytes, 6), forbidden[n].no_ymm);
        cpu->xcr0 = 7;
    }
}

static void a_pending_exception_is_raised_by_fwait_and_mmx(void **state)
{
    (void)state;
    FPU_FCW(&cpu->fpu) = 0x37e;
    FPU_FSW(&cpu->fpu) = 0x8081;
    expect(ONE_INSN(cpu, 0x9b), EXC_MF);             /* fwait */
    expect(ONE_INSN(cpu, 0x0f, 0xfc, 0xc1), EXC_MF); /* paddb mm0, mm1 */
    expect(ONE_INSN(cpu, 0x0f, 0x77), EXC_MF);       /* emms */
    expect(ONE_INSN(cpu, 0xdf, 0xe0), -1);           /* fnstsw ax */
    assert_int_equal(cpu->r[RAX] & 0xffff, 0x8081);
    expect(ONE_INSN(cpu, 0xdb, 0xe2), -1); /* fnclex */
    expect(ONE_INSN(cpu, 0x9b), -1);
}

/* Without CR0.NE a PC's chipset makes it IRQ 13, and lets the instruction go on. */
static void a_pending_exception_is_interrupt_13_in_the_old_way(void **state)
{
    (void)state;
    struct vm *vm = cpu->vm;
    struct error err;
    vm->device[0] = i8259_device.create(vm, &err);
    assert_non_null(vm->device[0]);
    cpu->cr0 &= ~(uint64_t)CR0_NE;
    FPU_FSW(&cpu->fpu) = 0x8081;
    FPU_FCW(&cpu->fpu) = 0x007e;
    expect(ONE_INSN(cpu, 0xdf, 0xe0), -1); /* fnstsw ax: does not wait */
    bus_out(&vm->bus, 0xa0, 1, 0x0a);      /* OCW3: show requests */
    assert_int_equal(bus_in(&vm->bus, 0xa0, 1), 0);
    expect(ONE_INSN(cpu, 0x9b), -1); /* fwait */
    assert_int_equal(bus_in(&vm->bus, 0xa0, 1), 1 << 5);
    free(vm->device[0]);
    vm->i8259 = NULL;
}

static void an_unmasked_simd_exception_is_undefined_without_osxmmexcpt(void **state)
{
    (void)state;
    FPU_MXCSR(&cpu->fpu) = 0x1d80; /* division by zero */
    memset(FPU_XMM(&cpu->fpu, 0), 0x3f, 32);
    memset(FPU_XMM(&cpu->fpu, 1), 0, 16);
    expect(ONE_INSN(cpu, 0x0f, 0x5e, 0xc1), EXC_XM); /* divps xmm0, xmm1 */
    assert_int_equal(FPU_MXCSR(&cpu->fpu), 0x1d84);
    assert_int_equal(FPU_XMM(&cpu->fpu, 0)[0], 0x3f);
    cpu->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
    expect(ONE_INSN(cpu, 0x0f, 0x5e, 0xc1), EXC_UD);
}

static void avx_is_undefined_in_virtual_8086_mode(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_V86, true);
    cpu->cr4 |= CR4_OSXSAVE;
    expect(ONE_INSN(cpu, 0xc5, 0xf4, 0x58, 0xc2), EXC_UD);
    expect(ONE_INSN(cpu, 0x0f, 0x58, 0xc2), -1); /* addps xmm0, xmm2 */
}

/* ---- other modes ---- */
static void code_of_32_bits_has_eight_registers_and_narrow_general_ones(void **state)
{
    (void)state;
    one_insn_mode(cpu, ONE_INSN_COMPAT32, false);
    cpu->cr4 |= CR4_OSXSAVE;
    const double number = 7;
    cpu->r[RCX] = (uint64_t)-3;
    expect(ONE_INSN(cpu, 0xf2, 0x0f, 0x2a, 0xc1), -1); /* cvtsi2sd xmm0, ecx */
    expect(ONE_INSN(cpu, 0xf2, 0x0f, 0x2c, 0xd0), -1); /* cvttsd2si edx, xmm0 */
    assert_int_equal(cpu->r[RDX], 0xfffffffd);
    memcpy(one_insn_at(cpu, ONE_INSN_DATA), &number, 8);
    cpu->r[RBX] = ONE_INSN_DATA - 4;
    expect(ONE_INSN(cpu, 0xf2, 0x0f, 0x10, 0x43, 0x04), -1); /* movsd xmm0, [ebx + 4] */
    assert_memory_equal(FPU_XMM(&cpu->fpu, 0), &number, 8);
    if (!simd_lab_has_avx())
        return;
    /* VEX.W and bit 3 of VEX.vvvv are ignored: vcvtsi2sd xmm0, xmm7, ecx */
    expect(ONE_INSN(cpu, 0xc4, 0xe1, 0x83, 0x2a, 0xc1), -1);
    expect(ONE_INSN(cpu, 0xf2, 0x0f, 0x2c, 0xd0), -1);
    assert_int_equal(cpu->r[RDX], 0xfffffffd);
}

/* ---- elements that are not enabled ---- */
static void masked_moves_touch_enabled_elements_only(void **state)
{
    (void)state;
    uint64_t page = ONE_INSN_DATA + 0x1000;
    *one_insn_pte(cpu, page) = 0;
    one_insn_flush(cpu);
    for (unsigned n = 0; n < 16; n++) {
        FPU_XMM(&cpu->fpu, 0)[n] = (uint8_t)(n + 1);
        FPU_XMM(&cpu->fpu, 1)[n] = n < 4 ? 0x80 : 0x7f;
    }
    cpu->r[RDI] = page - 4;
    expect(ONE_INSN(cpu, 0x66, 0x0f, 0xf7, 0xc1), -1); /* maskmovdqu xmm0, xmm1 */
    assert_memory_equal(one_insn_at(cpu, page - 4), "\1\2\3\4", 4);
    FPU_XMM(&cpu->fpu, 1)[4] = 0x80;
    FPU_XMM(&cpu->fpu, 0)[0] = 9;
    expect(ONE_INSN(cpu, 0x66, 0x0f, 0xf7, 0xc1), EXC_PF);
    assert_memory_equal(one_insn_at(cpu, page - 4), "\1\2\3\4", 4);
    if (!simd_lab_has_avx())
        return;
    const uint32_t mask[4] = {~0u, 0, 0, 0};
    memcpy(FPU_XMM(&cpu->fpu, 1), mask, 16);
    cpu->r[RBX] = page - 4;
    expect(ONE_INSN(cpu, 0xc4, 0xe2, 0x75, 0x2c, 0x13), -1); /* vmaskmovps ymm2, ymm1, [rbx] */
    assert_memory_equal(FPU_XMM(&cpu->fpu, 2), "\1\2\3\4\0\0\0\0", 8);
    cpu->r[RBX] = page;
    expect(ONE_INSN(cpu, 0xc4, 0xe2, 0x75, 0x2c, 0x13), EXC_PF);
}

static void a_gather_that_faults_goes_on_where_it_was(void **state)
{
    (void)state;
    uint64_t page = ONE_INSN_DATA + 0x1000;
    const uint32_t index[4] = {0, 4, 0x1000, 8}, mask[4] = {~0u, ~0u, ~0u, ~0u};
    if (!simd_lab_has_avx())
        skip();
    *one_insn_pte(cpu, page) = 0;
    one_insn_flush(cpu);
    memcpy(one_insn_at(cpu, ONE_INSN_DATA), "aaaabbbbcccc", 12);
    memcpy(one_insn_at(cpu, page), "dddd", 4);
    memcpy(FPU_XMM(&cpu->fpu, 1), index, 16);
    memcpy(FPU_XMM(&cpu->fpu, 2), mask, 16);
    cpu->r[RBX] = ONE_INSN_DATA;
    /* vpgatherdd xmm0, [rbx + xmm1], xmm2 */
    struct one_insn_result result = ONE_INSN(cpu, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b);
    expect(result, EXC_PF);
    assert_int_equal(result.cr2, page);
    const uint32_t left[4] = {0, 0, ~0u, ~0u};
    assert_memory_equal(FPU_XMM(&cpu->fpu, 2), left, 16);
    *one_insn_pte(cpu, page) = page | 0x67;
    one_insn_flush(cpu);
    expect(ONE_INSN(cpu, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b), -1);
    assert_memory_equal(FPU_XMM(&cpu->fpu, 0), "aaaabbbbddddcccc", 16);
}

static void a_store_that_faults_changes_nothing(void **state)
{
    (void)state;
    uint64_t page = ONE_INSN_DATA + 0x1000;
    *one_insn_pte(cpu, page) &= ~2ull; /* read-only */
    one_insn_flush(cpu);
    cpu->r[RBX] = page - 2;
    memset(FPU_ST(&cpu->fpu, 0), 0x40, 10);
    FPU_FTW(&cpu->fpu) = 1;
    struct fpu before = cpu->fpu;
    expect(ONE_INSN(cpu, 0xdd, 0x1b), EXC_PF);       /* fstp qword [rbx] */
    expect(ONE_INSN(cpu, 0x0f, 0x7f, 0x03), EXC_PF); /* movq [rbx], mm0 */
    expect(ONE_INSN(cpu, 0x0f, 0x11, 0x03), EXC_PF); /* movups [rbx], xmm0 */
    expect(ONE_INSN(cpu, 0x0f, 0x13, 0x03), EXC_PF); /* movlps [rbx], xmm0 */
    assert_memory_equal(&cpu->fpu, &before, sizeof before);
    assert_int_equal(*(uint16_t *)one_insn_at(cpu, page - 2), 0);
}

/* The C code that runs between guest instructions relies on it (System V ABI 3.2.3). */
static void the_host_keeps_its_own_control_words(void **state)
{
    (void)state;
    uint32_t mxcsr;
    uint16_t control;
    FPU_MXCSR(&cpu->fpu) = 0xffc0;
    FPU_FCW(&cpu->fpu) = 0x0040;
    expect(ONE_INSN(cpu, 0x0f, 0x58, 0xc1), -1); /* addps xmm0, xmm1 */
    expect(ONE_INSN(cpu, 0xd9, 0xee), -1);       /* fldz */
    expect(ONE_INSN(cpu, 0xd8, 0xf0), -1);       /* fdiv st0, st0: pending */
    expect(ONE_INSN(cpu, 0xdf, 0xe0), -1);       /* fnstsw ax */
    assert_true(cpu->r[RAX] & FSW_ES);
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(control));
    assert_int_equal(mxcsr & ~MXCSR_FLAGS, MXCSR_INITIAL);
    assert_int_equal(control, FCW_INITIAL);
    volatile long double seven = 7;
    assert_true(seven * seven == 49); /* the stack has room, nothing is pending */
}

#define ON_VCPU(name) cmocka_unit_test_setup_teardown(name, open_vcpu, close_vcpu)
static const struct CMUnitTest tests[] = {
    cmocka_unit_test(x87_instructions_give_what_the_host_gives),
    cmocka_unit_test(x87_exceptions_that_are_not_masked_leave_what_the_host_leaves),
    cmocka_unit_test(a_pending_x87_exception_is_raised_by_the_instructions_that_wait),
    cmocka_unit_test(fnstenv_and_fnsave_store_what_the_host_stores),
    cmocka_unit_test(fldenv_and_frstor_load_what_the_host_loads),
    ON_VCPU(the_last_instruction_is_remembered_with_its_operand),
    ON_VCPU(protected_mode_layouts_hold_selectors),
    ON_VCPU(real_mode_layouts_hold_linear_addresses),
    ON_VCPU(control_registers_forbid_what_they_should),
    ON_VCPU(a_pending_exception_is_raised_by_fwait_and_mmx),
    ON_VCPU(a_pending_exception_is_interrupt_13_in_the_old_way),
    ON_VCPU(an_unmasked_simd_exception_is_undefined_without_osxmmexcpt),
    ON_VCPU(avx_is_undefined_in_virtual_8086_mode),
    ON_VCPU(code_of_32_bits_has_eight_registers_and_narrow_general_ones),
    ON_VCPU(masked_moves_touch_enabled_elements_only),
    ON_VCPU(a_gather_that_faults_goes_on_where_it_was),
    ON_VCPU(a_store_that_faults_changes_nothing),
    ON_VCPU(the_host_keeps_its_own_control_words),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
