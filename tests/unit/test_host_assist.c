/* SPDX-License-Identifier: MIT */
/* Every MMX, SSE and AVX instruction of the white list, register and memory forms, against the host executing the
 * same bytes. */
#include "tests/unit/simd_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/cpuid.h"
#include "runtime/soft/fpu.h"
#include "tests/unit/code_runner.h"

/* ---- all encodings ---- */
struct encoding {
    ZydisMnemonic mnemonic;
    uint8_t prefix; /* 0, 66, F3, F2; VEX: pp 0 to 3 */
    uint8_t map;    /* 1: 0F, 2: 0F38, 3: 0F3A */
    uint8_t opcode, w, l;
    int8_t extension; /* ModRM.reg if that is part of the opcode, else -1 */
    bool vex, memory, sib, immediate;
};

static struct encoding encodings[8192];
static unsigned encoding_count;
static ZydisDecoder decoder;

static bool has_row(ZydisMnemonic mnemonic)
{
    for (const struct op_row *row = ops_fpu; row->select; row++)
        if (row->mnemonic == mnemonic)
            return true;
    return false;
}

/* One instruction of the encoding; reg, rm and VEX.vvvv are register numbers. Memory is at [RBX], or
 * [RBX + index * scale]. */
static unsigned assemble(const struct encoding *e, unsigned reg, unsigned rm, unsigned vvvv,
                         uint8_t sib, uint8_t immediate, uint8_t bytes[16])
{
    static const uint8_t prefixes[4] = {0, 0x66, 0xf3, 0xf2};
    uint8_t *p = bytes;
    unsigned base = e->memory ? e->sib ? 4 : RBX : rm & 7;
    bool b = !e->memory && rm & 8, x = e->sib && vvvv & 0;
    if (e->vex) {
        *p++ = 0xc4;
        *p++ = (uint8_t)((reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | e->map);
        *p++ = (uint8_t)(e->w << 7 | (~vvvv & 15) << 3 | e->l << 2 | e->prefix);
    } else {
        if (e->prefix)
            *p++ = prefixes[e->prefix];
        if (e->w || reg & 8 || b)
            *p++ = (uint8_t)(0x40 | e->w << 3 | (reg & 8) >> 1 | b);
        *p++ = 0x0f;
        if (e->map > 1)
            *p++ = e->map == 2 ? 0x38 : 0x3a;
    }
    *p++ = e->opcode;
    *p++ = (uint8_t)((e->memory ? 0 : 0xc0) | (reg & 7) << 3 | base);
    if (e->sib)
        *p++ = sib;
    if (e->immediate)
        *p++ = immediate;
    return (unsigned)(p - bytes);
}

static bool decode(const uint8_t *bytes, unsigned length, ZydisDecodedInstruction *z,
                   ZydisDecodedOperand *operands)
{
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, length, z, operands));
}

/* Whatever there is, with a row or without. */
static struct seen {
    ZydisMnemonic mnemonic;
    ZydisISASet set;
} seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static unsigned seen_count;

static bool was_seen(ZydisMnemonic mnemonic)
{
    for (unsigned n = 0; n < seen_count; n++)
        if (seen[n].mnemonic == mnemonic)
            return true;
    return false;
}

/* Tries the encoding and keeps it if it is an instruction with a row, of a set that the guest is offered. */
static void consider(struct encoding e, unsigned vvvv)
{
    uint8_t bytes[16] = {0};
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    unsigned reg = e.extension >= 0 ? (unsigned)e.extension : 1;
    assemble(&e, reg, 2, vvvv, 0x23, 0, bytes);
    if (!decode(bytes, 15, &z, operands))
        return;
    if (z.encoding <= ZYDIS_INSTRUCTION_ENCODING_VEX && !was_seen(z.mnemonic))
        seen[seen_count++] = (struct seen){z.mnemonic, z.meta.isa_set};
    if (!has_row(z.mnemonic) || z.opcode != e.opcode || !cpuid_offers_isa(z.meta.isa_set) ||
        z.encoding != (e.vex ? ZYDIS_INSTRUCTION_ENCODING_VEX : ZYDIS_INSTRUCTION_ENCODING_LEGACY))
        return;
    bool names_reg = false;
    for (unsigned n = 0; n < z.operand_count; n++)
        names_reg |= operands[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
    if (names_reg != (e.extension < 0) || z.mnemonic == ZYDIS_MNEMONIC_EMMS)
        return;
    e.immediate = z.raw.imm[0].size == 8;
    e.mnemonic = z.mnemonic;
    assert_true(encoding_count < sizeof encodings / sizeof *encodings);
    encodings[encoding_count++] = e;
}

static void consider_extensions(struct encoding e)
{
    for (unsigned used = 0; used < (e.vex ? 2u : 1u); used++) {
        unsigned before = encoding_count, vvvv = used ? 3 : 0;
        e.extension = -1;
        e.sib = false;
        consider(e, vvvv);
        if (encoding_count == before && e.memory) {
            e.sib = true;
            consider(e, vvvv);
            e.sib = false;
        }
        for (int8_t x = 0; x < 8; x++) {
            e.extension = x;
            consider(e, vvvv);
        }
        if (encoding_count != before)
            return;
    }
}

static int find_encodings(void **state)
{
    (void)state;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned n = 0; n < 2 * 4 * 3 * 256 * 2 * 2 * 2; n++) {
        struct encoding e = {.opcode = (uint8_t)n,
                             .memory = n >> 8 & 1,
                             .w = n >> 9 & 1,
                             .l = n >> 10 & 1,
                             .vex = n >> 11 & 1,
                             .prefix = n >> 12 & 3,
                             .map = (uint8_t)((n >> 14) + 1)};
        if (!e.vex && e.l)
            continue;
        consider_extensions(e);
    }
    return 0;
}

/* ---- instances ---- */
static bool uses_lab_register(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *operands)
{
    for (unsigned n = 0; n < z->operand_count_visible; n++) {
        if (operands[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(operands[n].reg.value);
        int id = ZydisRegisterGetId(operands[n].reg.value);
        if ((class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64) &&
            (id == RBX || id == RSP || id == RDI))
            return true;
    }
    return false;
}

/* Random registers and immediate; false if there is no instance with them. */
static bool instance(const struct encoding *e, struct lab_case *c, ZydisDecodedInstruction *z,
                     ZydisDecodedOperand *operands)
{
    for (unsigned attempt = 0; attempt < 200; attempt++) {
        unsigned reg = e->extension >= 0 ? (unsigned)e->extension : code_random() % 16;
        unsigned index = code_random() % 8;
        uint8_t sib = (uint8_t)((code_random() & 3) << 6 | (index == 4 ? 5 : index) << 3 | RBX);
        memset(c->bytes, 0, sizeof c->bytes);
        c->length = assemble(e, reg, code_random() % 16, attempt & 1 ? code_random() % 16 : 0, sib,
                             (uint8_t)code_random(), c->bytes);
        if (decode(c->bytes, c->length, z, operands) && z->length == c->length &&
            z->mnemonic == e->mnemonic && !uses_lab_register(z, operands))
            return true;
    }
    return false;
}

/* Gathers: indices that stay within the memory, and any mask. */
static void small_indices(struct lab_case *c, const ZydisDecodedOperand *operands)
{
    for (unsigned n = 0; n < 3; n++) {
        ZydisRegister index = operands[n].mem.index;
        if (operands[n].type != ZYDIS_OPERAND_TYPE_MEMORY || index == ZYDIS_REGISTER_NONE)
            continue;
        unsigned number = (unsigned)ZydisRegisterGetId(index);
        bool wide = operands[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB && c->bytes[3] & 1;
        for (unsigned byte = 0; byte < 32; byte += 4) {
            int32_t small = (int32_t)(code_random() % 256) - 128;
            if (wide && byte % 8 == 4)
                small = 0;
            if (wide && small < 0)
                small = -small;
            memcpy(byte < 16 ? FPU_XMM(&c->before.fpu, number) + byte
                             : &c->before.fpu.ymm_high[number][byte - 16],
                   &small, 4);
        }
    }
}

static unsigned memory_size(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *operands)
{
    for (unsigned n = 0; n < z->operand_count; n++)
        if (operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return operands[n].size / 8u;
    return 0;
}

enum placing { ALIGNED, ANYWHERE, ACROSS_PAGES, AT_THE_END, BEYOND_THE_END };

static void place(struct lab_case *c, enum placing placing, unsigned size)
{
    switch (placing) {
    case ALIGNED:
        c->operand = 2048 + (unsigned)(code_random() % 32) * 64;
        break;
    case ANYWHERE:
        c->operand = 2048 + (unsigned)(code_random() % 2000);
        break;
    case ACROSS_PAGES:
        c->operand = size > 1 ? 4096 - 1 - (unsigned)(code_random() % (size - 1)) : 4096;
        break;
    case AT_THE_END:
        c->operand = LAB_MEMORY - size;
        break;
    case BEYOND_THE_END:
        c->operand = LAB_MEMORY - size + 1;
        break;
    }
}

static unsigned failures, cases;

static void run(const struct encoding *e, unsigned count, enum placing placing, bool unmasked)
{
    static struct lab_case c;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    for (unsigned n = 0; n < count; n++) {
        if (!instance(e, &c, &z, operands))
            return;
        simd_lab_randomize(&c.before);
        uint32_t mxcsr = (uint32_t)code_random() & 0xe07f;
        FPU_MXCSR(&c.before.fpu) =
            mxcsr | (unmasked ? (uint32_t)code_random() & MXCSR_MASKS : MXCSR_MASKS);
        if (code_random() % 4 == 0) { /* x87 in use: MMX instructions change its state */
            FPU_FSW(&c.before.fpu) = (uint16_t)(code_random() & 0x7f00);
            FPU_FTW(&c.before.fpu) = (uint8_t)code_random();
        }
        if (e->sib)
            small_indices(&c, operands);
        place(&c, placing, memory_size(&z, operands));
        cases++;
        /* where a gather that faults has got to is the processor's choice */
        if (e->sib && placing >= AT_THE_END)
            continue;
        /* the flags of a dot product's later steps, when an earlier one raises an exception */
        if (unmasked && z.opcode_map == ZYDIS_OPCODE_MAP_0F3A &&
            (z.opcode == 0x40 || z.opcode == 0x41))
            continue;
        if (!simd_lab_agrees(&c) && ++failures > 40)
            fail_msg("too many");
    }
}

static void run_all(bool memory, unsigned count, enum placing placing, bool unmasked)
{
    /* A long run: PV_CASES=20 makes twenty times as many. */
    const char *more = getenv("PV_CASES");
    failures = cases = 0;
    if (more)
        count *= (unsigned)atoi(more);
    for (unsigned n = 0; n < encoding_count; n++)
        if (encodings[n].memory == memory)
            run(&encodings[n], count, placing, unmasked);
    print_message("# %u cases\n", cases);
    assert_int_equal(failures, 0);
}

/* ---- tests ---- */
/* Of the sets that this file is about; other modules have some of SSE's. */
static void every_instruction_of_the_sets_that_are_offered_has_a_row(void **state)
{
    static const ZydisISASet sets[] = {
        ZYDIS_ISA_SET_PENTIUMMMX, ZYDIS_ISA_SET_SSE,        ZYDIS_ISA_SET_SSE2,
        ZYDIS_ISA_SET_SSE2MMX,    ZYDIS_ISA_SET_SSE3,       ZYDIS_ISA_SET_SSSE3,
        ZYDIS_ISA_SET_SSSE3MMX,   ZYDIS_ISA_SET_SSE4,       ZYDIS_ISA_SET_SSE42,
        ZYDIS_ISA_SET_AES,        ZYDIS_ISA_SET_PCLMULQDQ,  ZYDIS_ISA_SET_SHA,
        ZYDIS_ISA_SET_AVX,        ZYDIS_ISA_SET_AVX2,       ZYDIS_ISA_SET_AVX2GATHER,
        ZYDIS_ISA_SET_FMA,        ZYDIS_ISA_SET_F16C,       ZYDIS_ISA_SET_AVXAES,
        ZYDIS_ISA_SET_VAES,       ZYDIS_ISA_SET_VPCLMULQDQ,
    };
    static const ZydisMnemonic elsewhere[] = {ZYDIS_MNEMONIC_CRC32,    ZYDIS_MNEMONIC_LFENCE,
                                              ZYDIS_MNEMONIC_MFENCE,   ZYDIS_MNEMONIC_SFENCE,
                                              ZYDIS_MNEMONIC_VLDMXCSR, ZYDIS_MNEMONIC_VSTMXCSR};
    (void)state;
    unsigned missing = 0;
    for (unsigned n = 0; n < seen_count; n++) {
        bool ours = false, there = has_row(seen[n].mnemonic);
        for (unsigned k = 0; k < sizeof sets / sizeof *sets; k++)
            ours |= seen[n].set == sets[k];
        for (unsigned k = 0; k < sizeof elsewhere / sizeof *elsewhere; k++)
            there |= seen[n].mnemonic == elsewhere[k];
        if (ours && !there) {
            print_message("# no row for %s\n", ZydisMnemonicGetString(seen[n].mnemonic));
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

static void every_row_has_encodings(void **state)
{
    (void)state;
    unsigned missing = 0;
    for (const struct op_row *row = ops_fpu; row->select; row++) {
        bool found = row->mnemonic == ZYDIS_MNEMONIC_EMMS || row->mnemonic == ZYDIS_MNEMONIC_FWAIT;
        const char *name = ZydisMnemonicGetString(row->mnemonic);
        for (unsigned n = 0; n < encoding_count && !found; n++)
            found = encodings[n].mnemonic == row->mnemonic;
        if (found || name[0] == 'f') /* x87: test_ops_fpu */
            continue;
        print_message("# no encoding of %s\n", name);
        missing++;
    }
    assert_int_equal(missing, 0);
}

static void register_forms_give_what_the_host_gives(void **state)
{
    (void)state;
    run_all(false, 8, ALIGNED, false);
}
static void memory_forms_give_what_the_host_gives(void **state)
{
    (void)state;
    run_all(true, 5, ALIGNED, false);
}
static void misaligned_operands_fault_where_the_host_faults(void **state)
{
    (void)state;
    run_all(true, 3, ANYWHERE, false);
}
static void operands_may_cross_pages(void **state)
{
    (void)state;
    run_all(true, 2, ACROSS_PAGES, false);
}
static void operands_are_as_long_as_the_host_has_them(void **state)
{
    (void)state;
    run_all(true, 1, AT_THE_END, false);
    run_all(true, 1, BEYOND_THE_END, false);
}
static void exceptions_that_are_not_masked_come_as_on_the_host(void **state)
{
    (void)state;
    run_all(false, 8, ALIGNED, true);
    run_all(true, 4, ALIGNED, true);
}

/* An instruction of ops_fpu in some mode: what else there is in the opcode map is others' business. */
static bool only_ours(const uint8_t *bytes)
{
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LEGACY_16};
    ZydisDecoder any;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    for (unsigned m = 0; m < 3; m++) {
        ZydisDecoderInit(&any, modes[m],
                         m == 0   ? ZYDIS_STACK_WIDTH_64
                         : m == 1 ? ZYDIS_STACK_WIDTH_32
                                  : ZYDIS_STACK_WIDTH_16);
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&any, bytes, 15, &z, operands)) &&
            !has_row(z.mnemonic))
            return false;
    }
    return true;
}

/* Prefixes in any number and order, any opcode: it executes or faults, in every mode, and the host's control words
 * stay what they are. */
static void any_bytes_execute_or_fault_in_every_mode(void **state)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0x67, 0x64, 0x48, 0x4f, 0x41, 0x2e};
    static const enum one_insn_mode modes[] = {ONE_INSN_64, ONE_INSN_COMPAT32, ONE_INSN_16,
                                               ONE_INSN_REAL};
    static struct lab_state before;
    struct vcpu *cpu = one_insn_vcpu();
    unsigned executed = 0;
    (void)state;
    for (unsigned n = 0; n < 150000; n++) {
        uint8_t bytes[16];
        unsigned at = 0;
        uint64_t random = code_random();
        for (unsigned k = 0; k < sizeof bytes; k += 8) {
            uint64_t noise = code_random();
            memcpy(bytes + k, &noise, 8);
        }
        for (unsigned k = 0; k < (random & 3); k++)
            bytes[at++] = prefixes[code_random() % sizeof prefixes];
        if (random >> 8 & 1) {
            bytes[at] = random >> 9 & 1 ? 0xc4 : 0xc5;
        } else if (random >> 10 & 3) {
            bytes[at++] = 0x0f;
            if (random >> 12 & 1)
                bytes[at] = random >> 13 & 1 ? 0x38 : 0x3a;
        } else {
            bytes[at] = 0xd8 | (random >> 14 & 7);
        }
        if (n % 500 == 0)
            one_insn_mode(cpu, modes[n / 500 % 4], false), cpu->cr4 |= CR4_OSXSAVE;
        if (n % 50 == 0)
            simd_lab_randomize(&before);
        if (assist_full())
            assist_reset();
        cpu->fpu = before.fpu;
        FPU_MXCSR(&cpu->fpu) = (uint32_t)(random >> 16 & 0xffff);
        FPU_FCW(&cpu->fpu) = (uint16_t)(random >> 32);
        FPU_FSW(&cpu->fpu) = (uint16_t)(random >> 48);
        FPU_FTW(&cpu->fpu) = (uint8_t)random;
        for (unsigned r = 0; r < 16; r++)
            cpu->r[r] = ONE_INSN_DATA + (code_random() & 0xfff);
        cpu->xcr0 = 7;
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result result = only_ours(bytes) ? one_insn_run(cpu, bytes, sizeof bytes)
                                                         : (struct one_insn_result){.fault = true};
        executed += !result.fault;
    }
    uint32_t mxcsr;
    uint16_t control;
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(control));
    assert_int_equal(mxcsr & ~MXCSR_FLAGS, MXCSR_INITIAL);
    assert_int_equal(control, FCW_INITIAL);
    print_message("# %u executed\n", executed);
    assert_true(executed > 1000);
    one_insn_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_encodings),
        cmocka_unit_test(every_instruction_of_the_sets_that_are_offered_has_a_row),
        cmocka_unit_test(register_forms_give_what_the_host_gives),
        cmocka_unit_test(memory_forms_give_what_the_host_gives),
        cmocka_unit_test(misaligned_operands_fault_where_the_host_faults),
        cmocka_unit_test(operands_may_cross_pages),
        cmocka_unit_test(operands_are_as_long_as_the_host_has_them),
        cmocka_unit_test(exceptions_that_are_not_masked_come_as_on_the_host),
        cmocka_unit_test(any_bytes_execute_or_fault_in_every_mode),
    };
    return cmocka_run_group_tests(tests, find_encodings, NULL);
}
