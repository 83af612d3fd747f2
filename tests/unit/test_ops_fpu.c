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

/* Undefined, by the manual and so by the host's choice. */
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(x87_instructions_give_what_the_host_gives),
    cmocka_unit_test(x87_exceptions_that_are_not_masked_leave_what_the_host_leaves),
    cmocka_unit_test(a_pending_x87_exception_is_raised_by_the_instructions_that_wait),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
