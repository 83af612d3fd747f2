/* SPDX-License-Identifier: MIT */
/* Random cases. An instruction is made of random bytes: prefixes, an opcode of a random map, a ModRM byte whose
 * memory operand leads to the data, and random bytes for what follows. What the decoder takes and the virtual
 * processor offers is kept, unless its outcome is not the processor's alone (time, segment registers, system calls)
 * or it would spoil a pointer too often. So every encoding of every form comes up, undefined ones but for the
 * opcode included. */
#include "tests/tools/differential/generate.h"

#include <string.h>

#include "runtime/cpuid.h"

/* ---- chances ---- */
static uint64_t next(struct generator *g)
{
    return random_next(&g->state);
}
static unsigned below(struct generator *g, unsigned limit)
{
    return (unsigned)(next(g) % limit);
}
static bool chance(struct generator *g, unsigned percent)
{
    return below(g, 100) < percent;
}

/* ---- which instructions ---- */
static bool is_excluded(const ZydisDecodedInstruction *z)
{
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_INTERRUPT: /* INT 0x80 is a system call; INT3 ends a case */
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_RDPID:
    case ZYDIS_CATEGORY_RDPRU:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_PKU:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
        return true;
    case ZYDIS_CATEGORY_SYSTEM: /* CPUID, time, descriptor tables; but what is privileged just faults */
        if (!(z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
            return true;
        break;
    default:
        break;
    }
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d && z->raw.modrm.mod == 3)
        return true; /* PREFETCH of a register: #UD or nothing, by the processor's maker */
    if ((z->mnemonic == ZYDIS_MNEMONIC_LOOPE || z->mnemonic == ZYDIS_MNEMONIC_LOOPNE) &&
        z->raw.prefix_count > 0)
        return true; /* F2 and F3 exchange the two on some processors */
    if (z->mnemonic == ZYDIS_MNEMONIC_ENTER && z->operand_width == 16)
        return true; /* what it leaves above BP */
    if (z->mnemonic == ZYDIS_MNEMONIC_PAUSE && z->raw.rex.B)
        return true; /* XCHG R8, RAX on some */
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_CLGI: /* #UD or #GP: the host may be a hypervisor */
    case ZYDIS_MNEMONIC_STGI:
    case ZYDIS_MNEMONIC_INVLPGA:
    case ZYDIS_MNEMONIC_SKINIT:
    case ZYDIS_MNEMONIC_VMLOAD:
    case ZYDIS_MNEMONIC_VMRUN:
    case ZYDIS_MNEMONIC_VMSAVE:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_FXSAVE: /* FIP and FDP, which are not compared, get into memory */
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1: /* the stub's break */
        return true;
    default:
        return false;
    }
}

static unsigned kind_of(const ZydisDecodedInstruction *z)
{
    switch (z->meta.isa_set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return MIX_X87;
    default:
        break;
    }
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return MIX_VEX;
    if (z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        return MIX_STRING;
    if (z->attributes & (ZYDIS_ATTRIB_FPU_STATE_CR | ZYDIS_ATTRIB_FPU_STATE_CW))
        return MIX_X87;
    if (z->attributes & (ZYDIS_ATTRIB_XMM_STATE_CR | ZYDIS_ATTRIB_XMM_STATE_CW))
        return MIX_SSE;
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_AES:
    case ZYDIS_CATEGORY_PCLMULQDQ:
    case ZYDIS_CATEGORY_STTNI:
    case ZYDIS_CATEGORY_SHA:
        return MIX_SSE;
    default:
        return MIX_INTEGER;
    }
}

/* An operand that is another processor's or process's business. */
static bool operands_excluded(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *operands)
{
    for (unsigned n = 0; n < z->operand_count; n++) {
        const ZydisDecodedOperand *o = &operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.segment == ZYDIS_REGISTER_FS)
            return true; /* thread-local storage on the host */
        if (o->type == ZYDIS_OPERAND_TYPE_POINTER)
            return true;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(o->reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT:
        case ZYDIS_REGCLASS_CONTROL:
        case ZYDIS_REGCLASS_DEBUG:
        case ZYDIS_REGCLASS_TEST:
            return true;
        default:
            break;
        }
    }
    return false;
}

/* Branches go forward within the case only, by an immediate. */
static bool branch_excluded(const ZydisDecodedInstruction *z)
{
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
        /* with an operand-size prefix processors differ in what they do */
        return !z->raw.imm[0].is_relative || (z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
    default:
        return false;
    }
}

/* ---- registers that the case needs ---- */
static int register_number(ZydisRegister reg)
{
    ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    if (wide < ZYDIS_REGISTER_RAX || wide > ZYDIS_REGISTER_R15)
        return -1;
    return (int)wide - ZYDIS_REGISTER_RAX;
}

/* False if the instruction overwrites a pointer and this time it should not; otherwise roles follow. String and
 * stack instructions move their own pointers. */
static bool writes_are_welcome(struct generator *g, const ZydisDecodedInstruction *z,
                               const ZydisDecodedOperand *operands)
{
    bool moves = z->meta.category == ZYDIS_CATEGORY_STRINGOP ||
                 z->meta.category == ZYDIS_CATEGORY_PUSH ||
                 z->meta.category == ZYDIS_CATEGORY_POP || z->meta.category == ZYDIS_CATEGORY_CALL;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned n = 0; n < z->operand_count; n++) {
            const ZydisDecodedOperand *o = &operands[n];
            if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
                !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
                continue;
            int reg = register_number(o->reg.value);
            if (reg < 0 || (moves && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN))
                continue;
            if (pass == 0 && g->role[reg] == ROLE_POINTER && !chance(g, 4))
                return false;
            if (pass == 1)
                g->role[reg] = ROLE_VALUE;
        }
    return true;
}

/* A register in this role, or -1. */
static int find_role(struct generator *g, enum role role)
{
    unsigned start = below(g, 16);
    for (unsigned n = 0; n < 16; n++)
        if (g->role[(start + n) % 16] == role)
            return (int)((start + n) % 16);
    return -1;
}

/* ---- bytes ---- */
struct encoding {
    uint8_t bytes[40];
    unsigned length;
    unsigned rex; /* 0 or 0x40 … 0x4f */
    uint8_t prefixes[4];
    unsigned prefix_count;
    uint8_t opcode[4];
    unsigned opcode_length;
    uint8_t modrm[6];
    unsigned modrm_length;
    uint8_t vex[2]; /* map and inverted bits come from rex */
    bool is_vex, lock;
};

static void add_prefix(struct encoding *e, uint8_t byte)
{
    if (e->prefix_count < sizeof e->prefixes)
        e->prefixes[e->prefix_count++] = byte;
}

static void choose_prefixes(struct generator *g, struct encoding *e, bool simd)
{
    static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x65};
    if (chance(g, simd ? 45 : 15))
        add_prefix(e, 0x66);
    if (chance(g, simd ? 45 : 6))
        add_prefix(e, chance(g, 50) ? 0xf2 : 0xf3);
    if (chance(g, 4))
        add_prefix(e, 0x67);
    if (chance(g, 3))
        add_prefix(e, segments[below(g, sizeof segments)]);
    if (!simd && chance(g, 6)) {
        add_prefix(e, 0xf0);
        e->lock = true;
    }
    if (chance(g, 55))
        e->rex = 0x40 | below(g, 16) | (chance(g, 50) ? 8 : 0);
}

/* Displacements are small, so that what they are added to stays in the data. */
static void put_displacement(struct generator *g, struct encoding *e, unsigned bytes)
{
    int32_t value = (int32_t)below(g, 128) - 64;
    if (e->lock)
        value &= ~15;
    if (bytes == 4 && chance(g, 30))
        value *= 32;
    memcpy(e->modrm + e->modrm_length, &value, bytes);
    e->modrm_length += bytes;
}

/* [base + index * scale + displacement] with a base that points to the data. */
static void choose_memory(struct generator *g, struct encoding *e, unsigned reg)
{
    int base = e->lock ? g->aligned : find_role(g, ROLE_POINTER);
    int index = e->lock ? -1 : find_role(g, ROLE_SMALL);
    unsigned mod = below(g, 3);
    if (base < 0)
        base = RSP_NUMBER;
    if (chance(g, 4) && !e->lock) { /* RIP-relative; the displacement is made later */
        e->modrm[0] = (uint8_t)(reg << 3 | 5);
        e->modrm_length = 5;
        return;
    }
    if (mod == 0 && (base & 7) == 5)
        mod = 1;
    e->rex = (e->rex & ~1u) | (base >= 8 ? 0x41u : 0);
    if ((base & 7) == 4 || (index >= 0 && index != RSP_NUMBER && chance(g, 30))) {
        bool none = index < 0 || index == RSP_NUMBER || chance(g, 20);
        unsigned i = none ? 4 : (unsigned)index;
        e->rex = (e->rex & ~2u) | (i >= 8 ? 0x42u : 0);
        e->modrm[0] = (uint8_t)(mod << 6 | reg << 3 | 4);
        e->modrm[1] = (uint8_t)(below(g, 4) << 6 | (i & 7) << 3 | (base & 7));
        e->modrm_length = 2;
    } else {
        e->modrm[0] = (uint8_t)(mod << 6 | reg << 3 | (base & 7));
        e->modrm_length = 1;
    }
    if (mod)
        put_displacement(g, e, mod == 1 ? 1 : 4);
}

static void choose_modrm(struct generator *g, struct encoding *e)
{
    unsigned reg = below(g, 8);
    if (chance(g, e->lock ? 2 : 50)) {
        e->modrm[0] = (uint8_t)(0xc0 | reg << 3 | below(g, 8));
        e->modrm_length = 1;
    } else {
        choose_memory(g, e, reg);
    }
}

static void choose_opcode(struct generator *g, struct encoding *e)
{
    static const uint8_t strings[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    unsigned map = below(g, 100);
    uint8_t opcode = (uint8_t)next(g);
    if (!(g->mix & ~MIX_X87))
        map = 95;
    if (map < 3 && g->mix & MIX_STRING) {
        choose_prefixes(g, e, false);
        if (chance(g, 60))
            add_prefix(e, chance(g, 60) ? 0xf3 : 0xf2);
        e->opcode[e->opcode_length++] = strings[below(g, sizeof strings)];
        return;
    }
    if (map < 32) {
        choose_prefixes(g, e, false);
        e->opcode[e->opcode_length++] = opcode;
    } else if (map < 60) {
        choose_prefixes(g, e, chance(g, 70));
        e->opcode[e->opcode_length++] = 0x0f;
        e->opcode[e->opcode_length++] = opcode;
    } else if (map < 72) {
        choose_prefixes(g, e, true);
        e->opcode[e->opcode_length++] = 0x0f;
        e->opcode[e->opcode_length++] = map < 67 ? 0x38 : 0x3a;
        e->opcode[e->opcode_length++] = opcode;
    } else if (map < 92) {
        e->is_vex = true;
        e->rex = 0x40 | below(g, 16);
        e->vex[0] = (uint8_t)(1 + below(g, 3));
        /* many forms have no third operand, or no 256 bits */
        e->vex[1] = (uint8_t)((chance(g, 45) ? 15 : below(g, 16)) << 3 | below(g, 8));
        if (chance(g, 50))
            e->rex &= ~8u;
        if (chance(g, 4))
            add_prefix(e, 0x67);
        if (chance(g, 10)) { /* BMI */
            e->vex[0] = 2;
            opcode = (uint8_t)(0xf0 | (opcode & 7));
        }
        e->opcode[e->opcode_length++] = opcode;
    } else {
        choose_prefixes(g, e, false);
        e->opcode[e->opcode_length++] = (uint8_t)(0xd8 | (opcode & 7));
    }
}

static void append(struct encoding *e, const uint8_t *bytes, unsigned count)
{
    memcpy(e->bytes + e->length, bytes, count);
    e->length += count;
}

static void assemble(struct generator *g, struct encoding *e)
{
    append(e, e->prefixes, e->prefix_count);
    if (e->is_vex) {
        uint8_t head[3] = {0xc4,
                           (uint8_t)(((~e->rex & 4) << 5) | ((~e->rex & 2) << 5) |
                                     ((~e->rex & 1) << 5) | e->vex[0]),
                           (uint8_t)((e->rex & 8) << 4 | e->vex[1])};
        append(e, head, 3);
    } else if (e->rex) {
        uint8_t rex = (uint8_t)e->rex;
        append(e, &rex, 1);
    }
    append(e, e->opcode, e->opcode_length);
    append(e, e->modrm, e->modrm_length);
    uint64_t rest = value_of_some_shape(&g->state);
    append(e, (const uint8_t *)&rest, 8);
}

/* Where a RIP-relative or absolute operand is to be: its displacement, once the length is known. */
static void aim(struct generator *g, const ZydisDecodedInstruction *z,
                const ZydisDecodedOperand *operands, uint64_t rip, uint8_t *bytes)
{
    uint64_t target = DATA_FIRST + below(g, DATA_BYTES - 64);
    for (unsigned n = 0; n < z->operand_count; n++) {
        const ZydisDecodedOperandMem *m = &operands[n].mem;
        if (operands[n].type != ZYDIS_OPERAND_TYPE_MEMORY || z->raw.disp.size < 32)
            continue;
        if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
            target -= rip + z->length;
        else if (m->base != ZYDIS_REGISTER_NONE)
            continue;
        memcpy(bytes + z->raw.disp.offset, &target, z->raw.disp.size / 8);
        return;
    }
}

static bool acceptable(struct generator *g, const ZydisDecodedInstruction *z,
                       const ZydisDecodedOperand *operands)
{
    unsigned kind = kind_of(z);
    bool atomic = (z->attributes & ZYDIS_ATTRIB_HAS_LOCK) || z->mnemonic == ZYDIS_MNEMONIC_XCHG;
    if (!cpuid_offers_isa(z->meta.isa_set) || is_excluded(z) || branch_excluded(z) ||
        operands_excluded(z, operands) || !(kind & g->mix))
        return false;
    if (atomic)
        for (unsigned n = 0; n < z->operand_count; n++)
            if (operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                (operands[n].mem.index != ZYDIS_REGISTER_NONE ||
                 register_number(operands[n].mem.base) != g->aligned ||
                 (operands[n].mem.disp.value & 15)))
                return false; /* split locks are slow, or forbidden */
    /* what is seen often enough otherwise, and mostly just faults */
    bool input_output =
        z->meta.category == ZYDIS_CATEGORY_IO || z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    if ((z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || input_output) && !chance(g, 4))
        return false;
    if (z->meta.category == ZYDIS_CATEGORY_NOP && !chance(g, 10))
        return false;
    return writes_are_welcome(g, z, operands);
}

/* Makes instruction n of the case; its RIP is known, as those before are complete. */
static void make_insn(struct generator *g, struct test_case *c, unsigned n, uint64_t rip)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    for (unsigned tries = 0; tries < 2000; tries++) {
        struct encoding e = {0};
        choose_opcode(g, &e);
        choose_modrm(g, &e);
        assemble(g, &e);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, e.bytes, INSN_BYTES, &z, operands)))
            continue;
        if (!acceptable(g, &z, operands))
            continue;
        aim(g, &z, operands, rip, e.bytes);
        g->relative[n].offset = z.raw.imm[0].is_relative ? z.raw.imm[0].offset : 0;
        g->relative[n].bytes = z.raw.imm[0].size / 8;
        c->insn[n].length = z.length;
        memcpy(c->insn[n].bytes, e.bytes, z.length);
        return;
    }
    c->insn[n].length = 1;
    c->insn[n].bytes[0] = 0x90;
    g->relative[n].offset = 0;
}

/* Branches lead to one of the instructions behind them, or to the end. */
static void aim_branches(struct generator *g, struct test_case *c)
{
    for (unsigned n = 0; n < c->count; n++) {
        if (!g->relative[n].offset)
            continue;
        unsigned skipped = below(g, c->count - n);
        int32_t distance = 0;
        for (unsigned k = n + 1; k <= n + skipped; k++)
            distance += c->insn[k].length;
        memcpy(c->insn[n].bytes + g->relative[n].offset, &distance, g->relative[n].bytes);
    }
}

void case_code(const struct test_case *c, uint8_t code[CODE_FILLED])
{
    size_t length = 0;
    for (unsigned n = 0; n < c->count; n++) {
        memcpy(code + length, c->insn[n].bytes, c->insn[n].length);
        length += c->insn[n].length;
    }
    memset(code + length, 0xcc, CODE_FILLED - length);
}

void generate(struct test_case *c, uint64_t seed, uint64_t index, unsigned mix)
{
    struct generator g = {.state = seed ^ (index + 1) * 0xd1342543de82ef95u, .mix = mix};
    uint64_t rip = CODE_BASE;
    ZydisDecoderInit(&g.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    c->seed = seed;
    c->index = index;
    c->count = 1 + below(&g, CASE_INSNS);
    make_state(&g, &c->before);
    for (unsigned n = 0; n < c->count; n++) {
        make_insn(&g, c, n, rip);
        rip += c->insn[n].length;
    }
    aim_branches(&g, c);
}
