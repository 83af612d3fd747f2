/* SPDX-License-Identifier: MIT */
/* The instructions that the translator knows, and what is done with each class of them. What is not here is left to
 * the interpreter; so is what a row allows and scan.c or the class itself finds odd in a particular instruction
 * (prefixes, operands). A new instruction is a row of `rows`; a new class is a row of `class_rows` as well, with its
 * functions in a file of their own. */
#include <pthread.h>

#include "runtime/soft/fpu_names.h"
#include "runtime/translator/translation.h"

#define CONDITIONAL(X, name, class)                                                                \
    X(name##O, class), X(name##NO, class), X(name##B, class), X(name##NB, class),                  \
        X(name##Z, class), X(name##NZ, class), X(name##BE, class), X(name##NBE, class),            \
        X(name##S, class), X(name##NS, class), X(name##P, class), X(name##NP, class),              \
        X(name##L, class), X(name##NL, class), X(name##LE, class), X(name##NLE, class)
#define ROW(name, class)                                                                           \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, CLASS_##class                                                       \
    }

struct mnemonic_row {
    ZydisMnemonic mnemonic;
    enum item_class class;
};
static const struct mnemonic_row rows[] = {
    /* no fault but by their memory operand; flags and registers as the host's instruction leaves them */
    ROW(ADD, COPY),
    ROW(ADC, COPY),
    ROW(SUB, COPY),
    ROW(SBB, COPY),
    ROW(AND, COPY),
    ROW(OR, COPY),
    ROW(XOR, COPY),
    ROW(CMP, COPY),
    ROW(TEST, COPY),
    ROW(INC, COPY),
    ROW(DEC, COPY),
    ROW(NEG, COPY),
    ROW(NOT, COPY),
    ROW(MUL, COPY),
    ROW(IMUL, COPY),
    ROW(SHL, COPY),
    ROW(SHR, COPY),
    ROW(SAR, COPY),
    ROW(ROL, COPY),
    ROW(ROR, COPY),
    ROW(RCL, COPY),
    ROW(RCR, COPY),
    ROW(SHLD, COPY),
    ROW(SHRD, COPY),
    ROW(BT, COPY),
    ROW(BTS, COPY),
    ROW(BTR, COPY),
    ROW(BTC, COPY),
    ROW(BSF, COPY),
    ROW(BSR, COPY),
    ROW(POPCNT, COPY),
    ROW(XADD, COPY),
    ROW(CMPXCHG, COPY),
    ROW(MOV, COPY),
    ROW(MOVZX, COPY),
    ROW(MOVSX, COPY),
    ROW(MOVSXD, COPY),
    ROW(XCHG, COPY),
    ROW(BSWAP, COPY),
    ROW(CBW, COPY),
    ROW(CWDE, COPY),
    ROW(CDQE, COPY),
    ROW(CWD, COPY),
    ROW(CDQ, COPY),
    ROW(CQO, COPY),
    ROW(CLC, COPY),
    ROW(STC, COPY),
    ROW(CMC, COPY),
    ROW(LAHF, COPY),
    ROW(SAHF, COPY),
    CONDITIONAL(ROW, CMOV, COPY),
    CONDITIONAL(ROW, SET, COPY),
    ROW(DIV, DIVIDE),
    ROW(NOP, NOTHING),
    ROW(LFENCE, NOTHING),
    ROW(MFENCE, NOTHING),
    ROW(SFENCE, NOTHING),
    ROW(ENDBR64, NOTHING),
    ROW(PREFETCHW, NOTHING),
    ROW(PREFETCHNTA, NOTHING),
    ROW(PREFETCHT0, NOTHING),
    ROW(PREFETCHT1, NOTHING),
    ROW(PREFETCHT2, NOTHING),
    ROW(PAUSE, PAUSE),
    ROW(LEA, LEA),
    ROW(PUSH, PUSH),
    ROW(POP, POP),
    ROW(LEAVE, LEAVE),
    ROW(PUSHFQ, PUSH_FLAGS),
    ROW(CLI, CLI),
    ROW(JMP, JUMP),
    CONDITIONAL(ROW, J, JUMP_IF),
    ROW(CALL, CALL),
    ROW(RET, RETURN),
};

/* clang-format off */
#define VECTOR(name)    {ZYDIS_MNEMONIC_##name, CLASS_VECTOR},
#define ALIGNED(name)   {ZYDIS_MNEMONIC_##name, CLASS_VECTOR_ALIGNED},
#define ANYWHERE(name)  {ZYDIS_MNEMONIC_##name, CLASS_VECTOR_UNALIGNED},
#define FLOAT(name)     {ZYDIS_MNEMONIC_##name, CLASS_VECTOR_FLOAT},

#define X87_ROW(name)   {ZYDIS_MNEMONIC_##name, CLASS_X87},

static const struct mnemonic_row vector_rows[] = {
    SSE_INTEGER(VECTOR)
    AVX_INTEGER(VECTOR)
    LOGIC(VECTOR)
    LENIENT(VECTOR)
    MOVE_SCALAR(VECTOR)
    VECTOR(MOVD)
    VECTOR(MOVQ)
    VECTOR(PMOVMSKB)
    VECTOR(VZEROUPPER)
    VECTOR(VZEROALL)
    MOVE_ALIGNED(ALIGNED)
    VMOVE_ALIGNED(ALIGNED)
    MOVE_UNALIGNED(ANYWHERE)
    VMOVE_UNALIGNED(ANYWHERE)
    UNALIGNED(ANYWHERE)
    SSE_FLOAT(FLOAT)
    AVX_FLOAT(FLOAT)
    AVX_HALF(FLOAT)
    X87(X87_ROW)
    X87_FLAGS(X87_ROW)
    {ZYDIS_MNEMONIC_FNSTSW, CLASS_X87_STATUS},
    {ZYDIS_MNEMONIC_FNCLEX, CLASS_X87_STATUS},
    {ZYDIS_MNEMONIC_EMMS, CLASS_EMMS},
    {ZYDIS_MNEMONIC_FNSTCW, CLASS_FNSTCW},
    {ZYDIS_MNEMONIC_FLDCW, CLASS_FLDCW},
};
/* clang-format on */

#define VECTOR_CLASS(needs)                                                                        \
    {                                                                                              \
        usual_vector, access_copy, generate_vector, .plain_flags = true, .hidden_operands = true,  \
                                                    .vectors = (needs)                             \
    }
const struct class_row class_rows[CLASSES] = {
    [CLASS_INTERPRET] = {.generate = generate_interpret, .flags_in_vcpu = true, .ends = true},
    [CLASS_CALL_OUT] = {.generate = generate_call_out, .flags_in_vcpu = true},
    [CLASS_COPY] = {usual_copy, access_copy, generate_copy, .plain_flags = true,
                    .hidden_operands = true},
    [CLASS_DIVIDE] = {usual_divide, .generate = generate_divide, .plain_flags = true},
    [CLASS_NOTHING] = {.generate = generate_nothing, .plain_flags = true},
    [CLASS_LEA] = {usual_lea, .generate = generate_lea, .plain_flags = true},
    [CLASS_PUSH] = {usual_push, access_push, generate_push, .moves_rsp = -8, .plain_flags = true},
    [CLASS_POP] = {usual_pop, access_pop, generate_pop, .moves_rsp = 8, .plain_flags = true},
    [CLASS_LEAVE] = {usual_leave, access_leave, .generate = generate_leave, .plain_flags = true},
    [CLASS_JUMP] = {usual_branch, .generate = generate_jump, .ends = true},
    [CLASS_JUMP_IF] = {usual_branch, .generate = generate_jump_if, .ends = true},
    [CLASS_CALL] = {usual_branch, access_call, generate_call, .ends = true},
    [CLASS_RETURN] = {usual_branch, access_return, generate_return, .ends = true},
    [CLASS_PUSH_FLAGS] = {usual_push_flags, access_push, generate_push_flags, .moves_rsp = -8,
                          .flags_in_vcpu = true},
    [CLASS_CLI] = {.generate = generate_cli, .plain_flags = true},
    [CLASS_SELECTOR] = {usual_selector, .generate = generate_selector, .plain_flags = true,
                        .own_operands = true},
    [CLASS_PAUSE] = {.generate = generate_nothing, .plain_flags = true, .inside = true},
    [CLASS_VECTOR] = VECTOR_CLASS(VECTOR_SSE),
    [CLASS_VECTOR_ALIGNED] = VECTOR_CLASS(VECTOR_SSE),
    [CLASS_VECTOR_UNALIGNED] = VECTOR_CLASS(VECTOR_SSE),
    [CLASS_VECTOR_FLOAT] = VECTOR_CLASS(VECTOR_SSE | VECTOR_MXCSR),
    [CLASS_X87] = {usual_x87, access_copy, generate_x87, .plain_flags = true,
                   .vectors = VECTOR_X87},
    [CLASS_X87_STATUS] = {usual_x87, access_copy, generate_x87_status, .plain_flags = true,
                          .vectors = VECTOR_X87},
    [CLASS_EMMS] = {usual_x87, NULL, generate_emms, .plain_flags = true, .vectors = VECTOR_X87},
    [CLASS_FNSTCW] = {usual_x87, access_copy, generate_fnstcw, .plain_flags = true,
                      .vectors = VECTOR_FPU},
    [CLASS_FLDCW] = {usual_x87, access_copy, generate_fldcw, .plain_flags = true,
                     .vectors = VECTOR_X87},
};

static uint8_t class_by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void take_rows(const struct mnemonic_row *row, size_t count)
{
    for (size_t n = 0; n < count; n++)
        class_by_mnemonic[row[n].mnemonic] = (uint8_t)row[n].class;
}

static void prepare(void)
{
    take_rows(rows, sizeof rows / sizeof rows[0]);
    take_rows(vector_rows, sizeof vector_rows / sizeof vector_rows[0]);
}

enum item_class class_of(const ZydisDecodedInstruction *z)
{
    const uint8_t mov_from_segment = 0x8c;
    pthread_once(&prepared, prepare);
    if (z->mnemonic == ZYDIS_MNEMONIC_MOV && z->opcode == mov_from_segment &&
        z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        return CLASS_SELECTOR;
    return (enum item_class)class_by_mnemonic[z->mnemonic];
}
