/* SPDX-License-Identifier: MIT */
/* Translated code does what the interpreter does: random programs, and what is particular. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"
#include "runtime/translator/translator.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct translator_lab lab;
static uint64_t seed;

static uint64_t roll(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static const struct translator_stats *counters(void)
{
    return translator_stats(lab.translates->soft->translator);
}

/* ---- random programs ---- */
struct program {
    uint8_t bytes[600];
    size_t size;
    uint64_t start;
};

/* These hold addresses: programs do not write them (but RSP by pushing), so that most accesses find memory. */
static const unsigned pointers[] = {RBX, RSI, R13, RBP};
#define INDEX R14 /* a small number */

static bool keeps(ZydisRegister reg)
{
    unsigned n = (unsigned)ZydisRegisterGetId(
        ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        n = (unsigned)(reg - ZYDIS_REGISTER_AH);
    for (unsigned k = 0; k < 4; k++)
        if (n == pointers[k])
            return true;
    return n == INDEX || n == RSP || n == R15;
}

/* May it stand in a program? It leaves the pointers alone and is no branch. */
static bool acceptable(const uint8_t *bytes, size_t size, unsigned *length)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, size, &z, o)) ||
        z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        return false;
    for (unsigned n = 0; n < z.operand_count; n++) {
        bool general = o[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                       ZydisRegisterGetClass(o[n].reg.value) >= ZYDIS_REGCLASS_GPR8 &&
                       ZydisRegisterGetClass(o[n].reg.value) <= ZYDIS_REGCLASS_GPR64;
        if (general && o[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            o[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE && keeps(o[n].reg.value))
            return false;
    }
    *length = z.length;
    return true;
}

/* One byte after 0F or without: what the translator knows, and some that it does not. */
static const uint8_t one_byte[] = {
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x18,
    0x19, 0x1b, 0x20, 0x21, 0x23, 0x28, 0x29, 0x2a, 0x2b, 0x2d, 0x30, 0x31, 0x32, 0x33, 0x38,
    0x39, 0x3a, 0x3b, 0x3d, 0x50, 0x52, 0x57, 0x58, 0x5a, 0x5f, 0x63, 0x68, 0x69, 0x6a, 0x6b,
    0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x8f, 0x90, 0x92,
    0x8c, 0xfa, 0xfb, 0x98, 0x99, 0x9c, 0x9e, 0x9f, 0xa8, 0xb0, 0xb4, 0xb8, 0xba, 0xc0, 0xc1,
    0xc6, 0xc7, 0xd0, 0xd1, 0xd2, 0xd3, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfc, 0xfe, 0xff};
static const uint8_t two_byte[] = {0x1f, 0x40, 0x44, 0x47, 0x4c, 0x4f, 0x90, 0x92, 0x95, 0x9c,
                                   0x31, 0xa3, 0xa4, 0xa5, 0xab, 0xac, 0xad, 0xaf, 0xb0, 0xb1,
                                   0xb3, 0xb6, 0xb7, 0xb8, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf,
                                   0xc0, 0xc1, 0xc8, 0xcb, 0x10, 0x28, 0x6f, 0xef, 0xd4};

/* ModRM and what follows: registers, or memory near a pointer. */
static size_t add_operand(uint8_t *p, uint8_t *rex)
{
    uint8_t *start = p;
    unsigned reg = (unsigned)roll(8);
    if (roll(5) < 2) {
        *p++ = (uint8_t)(0xc0 | reg << 3 | roll(8));
        return 1;
    }
    unsigned base = pointers[roll(4)];
    int32_t disp = (int32_t)roll(0x60) - 0x30;
    if (roll(40) == 0)
        disp += (int32_t)roll(0x4000);
    *rex = (uint8_t)((*rex & ~3) | (base >> 3));
    if (roll(4) == 0) { /* with an index */
        *rex |= 2;
        *p++ = (uint8_t)(0x84 | reg << 3);
        *p++ = (uint8_t)(roll(4) << 6 | (INDEX & 7) << 3 | (base & 7));
    } else {
        *p++ = (uint8_t)(0x80 | reg << 3 | (base & 7));
    }
    memcpy(p, &disp, 4);
    return (size_t)(p + 4 - start);
}

static size_t random_instruction(uint8_t *bytes)
{
    for (;;) {
        uint8_t *p = bytes, rex = (uint8_t)(0x40 | roll(16)), tail[8];
        size_t size = add_operand(tail, &rex);
        if (roll(8) == 0)
            *p++ = roll(2) ? 0x66 : roll(2) ? 0xf0 : 0xf3;
        if (roll(30) == 0)
            *p++ = 0x64; /* FS */
        if (roll(4) || rex & 3)
            *p++ = roll(3) ? rex | 8 : rex;
        if (roll(3) == 0) {
            *p++ = 0x0f;
            *p++ = two_byte[roll(sizeof two_byte)];
        } else {
            *p++ = one_byte[roll(sizeof one_byte)];
        }
        memcpy(p, tail, size);
        p += size;
        for (unsigned k = 0; k < 8; k++)
            *p++ = (uint8_t)(roll(3) ? roll(256) : 0);
        unsigned length;
        if (acceptable(bytes, (size_t)(p - bytes), &length))
            return length;
    }
}

static void add(struct program *program, const void *bytes, size_t size)
{
    memcpy(program->bytes + program->size, bytes, size);
    program->size += size;
}

/* A store into the program itself: into an immediate, or anywhere. */
static void add_self_change(struct program *program)
{
    uint8_t code[] = {0xc6, 0x05, 0, 0, 0, 0, 0}; /* movb $, target(%rip) */
    int32_t target = (int32_t)roll(program->size + 60) - (int32_t)(program->size + sizeof code);
    memcpy(code + 2, &target, 4);
    code[6] = (uint8_t)roll(256);
    add(program, code, sizeof code);
}

/* lea disp(%rbx), %rdi; mov $count, %ecx; std or cld; a string instruction; cld */
static void add_string(struct program *program)
{
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    static const uint8_t prefixes[] = {0x66, 0x48, 0x48, 0xf3};
    uint8_t code[17] = {0x48, 0x8d, 0xbb, 0, 0, 0, 0, 0xb9, 0, 0, 0, 0};
    int32_t disp = (int32_t)roll(0x200) - 0x80;
    memcpy(code + 3, &disp, 4);
    code[8] = (uint8_t)roll(roll(4) ? 20 : 256);
    code[12] = roll(3) ? 0xfc : 0xfd;
    code[13] = roll(3) ? 0xf3 : 0xf2;
    code[14] = prefixes[roll(4)];
    code[15] = opcodes[roll(sizeof opcodes)];
    code[16] = 0xfc;
    add(program, code, sizeof code);
}

/* push $flags; popfq: not TF, which ends the program */
static void add_flags(struct program *program)
{
    uint8_t code[6] = {
        0x68, (uint8_t)roll(256), (uint8_t)roll(256) & 0xfe, (uint8_t)roll(256) & 0xf8, 0, 0x9d};
    add(program, code, sizeof code);
}

static void add_random(struct program *program, bool changes_itself)
{
    uint8_t bytes[32];
    switch (roll(changes_itself ? 14 : 12)) {
    case 0: { /* over the next instruction, or not */
        size_t length = random_instruction(bytes + 2);
        bytes[0] = (uint8_t)(0x70 | roll(16));
        bytes[1] = (uint8_t)length;
        add(program, bytes, length + 2);
        break;
    }
    case 1: { /* a call to what follows, which returns over it: call 1f; jmp 2f; 1: …; ret; 2: */
        size_t length = random_instruction(bytes + 7);
        memcpy(bytes, (const uint8_t[]){0xe8, 2, 0, 0, 0, 0xeb, (uint8_t)(length + 1)}, 7);
        bytes[7 + length] = 0xc3;
        add(program, bytes, length + 8);
        break;
    }
    case 2: /* lea 8(%rip), %rdx; jmp *%rdx or push %rdx; ret */
        add(program, "\x48\x8d\x15\x02\x00\x00\x00", 7);
        add(program, roll(2) ? "\xff\xe2" : "\x52\xc3", 2);
        break;
    case 3:
        if (roll(2))
            add_string(program);
        else
            add_flags(program);
        break;
    case 12:
        add_self_change(program);
        break;
    default:
        add(program, bytes, random_instruction(bytes));
    }
}

/* A loop of random instructions that ends in HLT (an INT3, at CPL 3). R15 counts, so that it is in memory in both. */
static void make_program(struct program *program, bool changes_itself)
{
    program->size = 0;
    program->start = LAB_CODE + (roll(3) ? roll(0x800) : 0xf00 + roll(0x100));
    unsigned count = 4 + (unsigned)roll(20);
    for (unsigned n = 0; n < count && program->size < 500; n++)
        add_random(program, changes_itself);
    uint8_t end[] = {0x49, 0xff, 0xcf, 0x0f, 0x85, 0, 0, 0, 0, 0xcc}; /* dec %r15; jnz; int3 */
    int32_t back = -(int32_t)(program->size + 9);
    memcpy(end + 5, &back, 4);
    add(program, end, sizeof end);
}

static bool execute(const struct program *program, bool user)
{
    uint8_t data[64];
    translator_lab_put(&lab, program->start, program->bytes, program->size);
    for (unsigned n = 0; n < sizeof data; n++)
        data[n] = (uint8_t)roll(256);
    translator_lab_put(&lab, LAB_DATA + roll(0xb000), data, sizeof data);
    translator_lab_start(&lab, program->start, user);
    for (unsigned n = 0; n < 16; n++)
        translator_lab_register(&lab, n, roll(4) ? roll(1ull << 31) * roll(1ull << 31) : roll(64));
    for (unsigned k = 0; k < 4; k++)
        translator_lab_register(&lab, pointers[k],
                                LAB_DATA + 0x100 + roll(0xb) * 0x1000 +
                                    (roll(3) ? roll(0x800) : 0xef0));
    translator_lab_register(&lab, INDEX, roll(16));
    translator_lab_register(&lab, R15, roll(3) ? 3 + roll(20) : 50 + roll(200));
    translator_lab_register(&lab, RSP, ONE_INSN_STACK - 8 * roll(512));
    const uint64_t slice = roll(2) ? 200 : 2000;
    for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 40; slices++)
        if (!translator_lab_run(&lab, 1 + (int64_t)roll(slice)))
            return false;
    return translator_lab_run(&lab, 1);
}

static void run_programs(bool changes_itself, unsigned count)
{
    struct program program;
    const char *more = getenv("PV_TRANSLATOR_PROGRAMS");
    if (more)
        count = (unsigned)atoi(more);
    for (unsigned n = 0; n < count; n++) {
        seed = n + (changes_itself ? 1ull << 40 : 0);
        make_program(&program, changes_itself);
        if (execute(&program, roll(3) == 0))
            continue;
        printf("# program %u:", n);
        for (size_t k = 0; k < program.size; k++)
            printf(" %02x", program.bytes[k]);
        printf("\n");
        fail();
    }
}

static void random_programs_agree(void **state)
{
    (void)state;
    run_programs(false, 1000);
    const struct translator_stats *stats = counters();
    assert_in_range(stats->instructions, 10000, UINT64_MAX);
    assert_in_range(stats->traces, 200, UINT64_MAX);
}

static void programs_that_change_themselves_agree(void **state)
{
    (void)state;
    run_programs(true, 1000);
    assert_in_range(counters()->traces, 100, UINT64_MAX);
}

static void random_programs_agree_without_bmi2(void **state)
{
    random_programs_agree(state);
}

static void programs_that_change_themselves_agree_without_bmi2(void **state)
{
    programs_that_change_themselves_agree(state);
}

/* ---- what is particular ---- */
#define ALIAS 0x14000u /* a data page that becomes another address of the program's */

/* mov $1, %eax; jmp 1f; 1: add $2, %eax; dec %r15; jnz start; hlt */
static const uint8_t small[] = {0xb8, 1, 0,    0,    0,    0xeb, 0,    0x83,
                                0xc0, 2, 0x49, 0xff, 0xcf, 0x75, 0xf1, 0xf4};

static void come_to_the_end(void)
{
    for (unsigned slices = 0; !translator_lab_halted(&lab) && slices < 100; slices++)
        assert_true(translator_lab_run(&lab, 7));
    assert_true(translator_lab_halted(&lab));
}

static void one_page_at_two_addresses_is_translated_for_each(void **state)
{
    (void)state;
    translator_lab_put(&lab, LAB_CODE, small, sizeof small);
    for (unsigned n = 0; n < 4; n++) {
        translator_lab_start(&lab, n & 1 ? ALIAS : LAB_CODE, false);
        for (unsigned k = 0; k < 2; k++) {
            struct vcpu *cpu = (k ? lab.interprets : lab.translates)->vcpus[0];
            *one_insn_pte(cpu, ALIAS) = LAB_CODE | 7;
            tlb_flush(cpu);
        }
        translator_lab_register(&lab, R15, 50);
        come_to_the_end();
        assert_int_equal(lab.translates->vcpus[0]->r[RAX], 3);
    }
    uint64_t blocks = counters()->blocks;
    /* what is written through one address is seen through the other */
    translator_lab_put(&lab, LAB_CODE + 1, "\x05", 1);
    translator_lab_start(&lab, LAB_CODE, false);
    translator_lab_register(&lab, R15, 50);
    come_to_the_end();
    assert_int_equal(lab.translates->vcpus[0]->r[RAX], 7);
    assert_in_range(counters()->blocks, blocks + 1, UINT64_MAX);
}

/* 1: mov (%rsi), %edx; mov (%rdi), %edx; mov -0x7ffffdf0(%rbx), %eax; mov 0x7ffffdf0(%rbx), %ecx; dec %r15; jnz 1b; hlt: what the last one
 * accesses is not there, and as many bytes behind the page of the others as make a negative number of 32 bits. */
static void accesses_four_gigabytes_apart_share_no_look_up(void **state)
{
    static const uint8_t apart[] = {0x8b, 0x16, 0x8b, 0x17, 0x8b, 0x83, 0x10, 0x02,
                                    0x00, 0x80, 0x8b, 0x8b, 0xf0, 0xfd, 0xff, 0x7f,
                                    0x49, 0xff, 0xcf, 0x75, 0xeb, 0xf4};
    (void)state;
    translator_lab_put(&lab, LAB_CODE, apart, sizeof apart);
    for (unsigned n = 0; n < 5; n++) {
        translator_lab_start(&lab, LAB_CODE, false);
        translator_lab_register(&lab, RSI, LAB_DATA + 0x800);
        translator_lab_register(&lab, RDI, LAB_DATA + 0x900);
        translator_lab_register(&lab, RBX, LAB_DATA + 0x800 + 0x7ffffdf0ull);
        translator_lab_register(&lab, R15, 3);
        come_to_the_end();
        assert_int_equal(lab.translates->vcpus[0]->rip, LAB_HANDLER + 1);
    }
}

static void a_loop_leaves_translated_code_for_the_slice_only(void **state)
{
    (void)state;
    translator_lab_put(&lab, LAB_CODE, small, sizeof small);
    translator_lab_start(&lab, LAB_CODE, true);
    translator_lab_register(&lab, R15, 1000000);
    for (unsigned n = 0; n < 50; n++)
        assert_true(translator_lab_run(&lab, 1000));
    const struct translator_stats *stats = counters();
    assert_in_range(stats->exits[TRANSLATOR_BUDGET], 20, 100);
    assert_in_range(stats->exits[TRANSLATOR_CHAIN], 1, 20);
    assert_int_equal(stats->exits[TRANSLATOR_INTERPRET], 0);
}

/* Random programs until all code has been dropped twice. */
static void a_full_cache_is_dropped_and_filled_again(void **state)
{
    struct program program;
    (void)state;
    for (seed = 0; counters()->flushes < 4 && seed < 2000; seed++) {
        uint64_t before = seed;
        make_program(&program, false);
        assert_true(execute(&program, false));
        seed = before;
    }
    assert_in_range(counters()->flushes, 4, UINT64_MAX);
}

/* ---- what is emitted ---- */
/* The translated code of this process, as it is executed. */
static const uint8_t *find_translated(const uint8_t **end)
{
    char line[512];
    uint64_t first = 0, last = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (!first && fgets(line, sizeof line, maps))
        if (strstr(line, "hvrun-translated") && strstr(line, "r-x"))
            assert_int_equal(sscanf(line, "%" SCNx64 "-%" SCNx64, &first, &last), 2);
    fclose(maps);
    assert_int_not_equal(first, 0);
    *end = (const uint8_t *)(uintptr_t)last;
    return (const uint8_t *)(uintptr_t)first;
}

/* Memory operands name what was looked up (R15 or R14 is the addend), the vCPU and its tables (RSP), or slots (RIP). Of the
 * entry only the first instructions use RDI, the vCPU. */
static bool operand_is_contained(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || z->mnemonic == ZYDIS_MNEMONIC_LEA)
        return true;
    return o->mem.base == ZYDIS_REGISTER_RSP || o->mem.base == ZYDIS_REGISTER_RIP ||
           o->mem.index == ZYDIS_REGISTER_R15 || o->mem.index == ZYDIS_REGISTER_R14;
}

/* Calls lead to the fixed code only, which makes the returns. */
static bool is_contained_call(const ZydisDecodedInstruction *z, const uint8_t *at,
                              const uint8_t *fixed, const uint8_t *end)
{
    int64_t offset = z->raw.imm[0].value.s;
    return z->mnemonic == ZYDIS_MNEMONIC_CALL && z->raw.imm[0].is_relative &&
           at + z->length + offset >= fixed && at + z->length + offset < end;
}

static bool is_one_of_the_list(const ZydisDecodedInstruction *z)
{
    if (z->mnemonic == ZYDIS_MNEMONIC_SHRX)
        return !lab.translates->config.translator_old_host;
    if (z->attributes & (ZYDIS_ATTRIB_IS_PRIVILEGED | ZYDIS_ATTRIB_HAS_SEGMENT |
                         ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP))
        return false;
    if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return false;
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_FLAGOP:
    case ZYDIS_CATEGORY_MISC:      /* LEA */
    case ZYDIS_CATEGORY_SEMAPHORE: /* CMPXCHG, XADD: without LOCK */
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SSE: /* POPCNT, too */
    case ZYDIS_CATEGORY_MMX:
    case ZYDIS_CATEGORY_CET: /* ENDBR64 */
        return true;
    default:
        return false;
    }
}

/* Zeros up to where the next block may begin. */
static const uint8_t *skip_padding(const uint8_t *at)
{
    const uint8_t *p = at;
    while ((uintptr_t)p & 15 && *p == 0)
        p++;
    return (uintptr_t)p & 15 ? at : p;
}

static void nothing_else_is_emitted(void **state)
{
    struct program program;
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    const uint8_t nothing[16] = {0};
    unsigned decoded = 0;
    bool jumped = true;
    (void)state;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned n = 0; n < 100; n++) { /* not so many that code is dropped */
        seed = n;
        make_program(&program, n & 1);
        assert_true(execute(&program, false));
    }
    const uint8_t *end, *start = find_translated(&end), *at = start;
    for (unsigned returns = 0; returns < 2; at += z.length) { /* the fixed code: with C's stack */
        assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, at, 16, &z, o)));
        returns += z.mnemonic == ZYDIS_MNEMONIC_RET;
    }
    const uint8_t *fixed_end = at;
    while (at < end - 16) {
        if (jumped)
            at = skip_padding(at);
        if (jumped && !memcmp(at, nothing, sizeof nothing))
            break;
        assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, at, 16, &z, o)));
        bool good = is_one_of_the_list(&z) || is_contained_call(&z, at, start, fixed_end);
        for (unsigned k = 0; k < z.operand_count; k++)
            good = good && operand_is_contained(&z, &o[k]);
        if (!good)
            printf("# %s at %zx\n", ZydisMnemonicGetString(z.mnemonic), (size_t)(at - start));
        assert_true(good);
        at += z.length;
        decoded++;
        jumped = z.mnemonic == ZYDIS_MNEMONIC_JMP;
    }
    assert_int_equal(counters()->flushes, 1);
    assert_in_range(decoded, 10000, UINT64_MAX);
}

static void nothing_else_is_emitted_without_bmi2(void **state)
{
    nothing_else_is_emitted(state);
}

static void no_mapping_is_writable_and_executable(void **state)
{
    char line[512];
    (void)state;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    unsigned executable = 0;
    while (fgets(line, sizeof line, maps)) {
        assert_null(strstr(line, "rwx"));
        executable += strstr(line, "hvrun-translated") && strstr(line, "r-x");
    }
    fclose(maps);
    assert_int_equal(executable, 1);
}

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0x60000) ? 0 : -1; /* it is full now and then */
}

static int open_old_lab(void **state)
{
    translator_lab_old_host(true);
    int result = open_lab(state);
    translator_lab_old_host(false);
    return result;
}

static int open_large_old_lab(void **state)
{
    (void)state;
    translator_lab_old_host(true);
    bool opened = translator_lab_open(&lab, 0);
    translator_lab_old_host(false);
    return opened ? 0 : -1;
}

static int open_large_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0) ? 0 : -1;
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
        cmocka_unit_test_setup_teardown(random_programs_agree, open_lab, close_lab),
        cmocka_unit_test_setup_teardown(programs_that_change_themselves_agree, open_lab, close_lab),
        cmocka_unit_test_setup_teardown(random_programs_agree_without_bmi2, open_old_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(programs_that_change_themselves_agree_without_bmi2,
                                        open_old_lab, close_lab),
        cmocka_unit_test_setup_teardown(one_page_at_two_addresses_is_translated_for_each, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(accesses_four_gigabytes_apart_share_no_look_up, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(a_loop_leaves_translated_code_for_the_slice_only, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(a_full_cache_is_dropped_and_filled_again, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(nothing_else_is_emitted, open_large_lab, close_lab),
        cmocka_unit_test_setup_teardown(nothing_else_is_emitted_without_bmi2, open_large_old_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(no_mapping_is_writable_and_executable, open_lab, close_lab),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
