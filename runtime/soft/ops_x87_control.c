/* SPDX-License-Identifier: MIT */
/* x87 control instructions, which work on the guest's image directly: FNINIT, FNCLEX, control and status word,
 * environment, FNSAVE and FRSTOR, FWAIT, EMMS (SDM 1 8.1.10, 8.3.11). */
#include "runtime/soft/fpu.h"

#define FCW_BITS 0x1f3fu /* that can be set; bit 6 reads as one */
#define FCW_ONE  0x40u

static void check(struct vcpu *cpu, const struct insn *i)
{
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        cpu_raise(cpu, i, EXC_NM);
}

uint16_t x87_control_word(uint16_t value)
{
    return (uint16_t)((value & FCW_BITS) | FCW_ONE);
}

OP(fninit)
{
    check(cpu, i);
    x87_init(&cpu->fpu);
    NEXT_SLOW;
}

OP(fnclex)
{
    check(cpu, i);
    FPU_FSW(&cpu->fpu) &= (uint16_t) ~(FSW_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B);
    NEXT;
}

/* What the 8087 and the 80287 had and later processors ignore. */
OP(x87_nop)
{
    check(cpu, i);
    NEXT;
}

OP(fwait)
{
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        cpu_raise(cpu, i, EXC_NM);
    x87_pending(cpu, i);
    NEXT_SLOW;
}

OP(emms)
{
    if (cpu->cr0 & CR0_EM)
        RAISE_UD();
    x87_wait(cpu, i);
    x87_set_top(&cpu->fpu, 0);
    FPU_FTW(&cpu->fpu) = 0;
    NEXT_SLOW;
}

/* ---- control and status word ---- */
OP(fnstsw_ax)
{
    check(cpu, i);
    REG16(offsetof(struct vcpu, r[RAX])) = FPU_FSW(&cpu->fpu);
    NEXT;
}

OP(fnstsw)
{
    check(cpu, i);
    store(cpu, i, linear(cpu, i, 2, true), 2, FPU_FSW(&cpu->fpu));
    NEXT_SLOW;
}

OP(fnstcw)
{
    check(cpu, i);
    store(cpu, i, linear(cpu, i, 2, true), 2, FPU_FCW(&cpu->fpu));
    NEXT_SLOW;
}

OP(fldcw)
{
    x87_wait(cpu, i);
    FPU_FCW(&cpu->fpu) = x87_control_word((uint16_t)load(cpu, i, linear(cpu, i, 2, false), 2));
    x87_summarize(&cpu->fpu);
    NEXT_SLOW;
}

/* ---- the environment in its four layouts: insn.aux is LAYOUT_* ---- */
#define LAYOUT_32 1u /* operand size */

#define DATA_SIZE 80u

static unsigned environment_size(const struct insn *i)
{
    return i->aux & LAYOUT_32 ? 28 : 14;
}

/* The instruction and data pointer as layouts have them: offsets of 32 bits and selectors, or, `real`, linear. */
struct pointers {
    bool real;
    uint32_t ip, dp;
    uint16_t cs, ds;
};

static bool real_layout(const struct vcpu *cpu)
{
    return !vcpu_protected(cpu) || vcpu_v86(cpu);
}

static struct pointers pointers_get(const struct vcpu *cpu)
{
    uint64_t ip = FPU_FIP(&cpu->fpu), dp = FPU_FDP(&cpu->fpu);
    struct pointers p = {.real = real_layout(cpu), .ip = (uint32_t)ip, .dp = (uint32_t)dp};
    if (vcpu_code64(cpu)) { /* the image has no room for the selectors */
        p.cs = ip ? cpu->segment[SEG_CS].selector : 0;
    } else {
        p.cs = (uint16_t)(ip >> 32);
        p.ds = (uint16_t)(dp >> 32);
    }
    if (p.real) {
        p.ip += (uint32_t)p.cs << 4;
        p.dp += (uint32_t)p.ds << 4;
    }
    return p;
}

/* Tags with two bits each, made from the register contents: 0 valid, 1 zero, 2 special, 3 empty. */
static uint16_t full_tags(const struct fpu *fpu)
{
    uint16_t tags = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *st = FPU_ST(fpu, (physical - FPU_TOP(fpu)) & 7);
        uint64_t fraction;
        uint16_t exponent;
        memcpy(&fraction, st, 8);
        memcpy(&exponent, st + 8, 2);
        exponent &= 0x7fff;
        unsigned tag = 0;
        if (!(FPU_FTW(fpu) >> physical & 1))
            tag = 3;
        else if (exponent == 0 && fraction == 0)
            tag = 1;
        else if (exponent == 0 || exponent == 0x7fff || !(fraction >> 63))
            tag = 2;
        tags |= (uint16_t)(tag << 2 * physical);
    }
    return tags;
}

static void environment_write(const struct vcpu *cpu, const struct insn *i, uint8_t *to)
{
    const struct fpu *fpu = &cpu->fpu;
    struct pointers p = pointers_get(cpu);
    uint16_t op = FPU_FOP(fpu) & 0x7ff;
    if (i->aux & LAYOUT_32) {
        const uint32_t words[7] = {
            0xffff0000u | FPU_FCW(fpu),
            0xffff0000u | FPU_FSW(fpu),
            0xffff0000u | full_tags(fpu),
            p.real ? 0xffff0000u | (p.ip & 0xffff) : p.ip,
            p.real ? (p.ip >> 16 << 12 & 0xffff000) | op : p.cs | (uint32_t)op << 16,
            p.real ? 0xffff0000u | (p.dp & 0xffff) : p.dp,
            p.real ? p.dp >> 16 << 12 & 0xffff000 : 0xffff0000u | p.ds,
        };
        memcpy(to, words, sizeof words);
    } else {
        const uint16_t words[7] = {
            FPU_FCW(fpu),
            FPU_FSW(fpu),
            full_tags(fpu),
            (uint16_t)p.ip,
            (uint16_t)(p.real ? (p.ip >> 4 & 0xf000) | op : p.cs),
            (uint16_t)p.dp,
            (uint16_t)(p.real ? p.dp >> 4 & 0xf000 : p.ds),
        };
        memcpy(to, words, sizeof words);
    }
}

static void pointers_set(struct vcpu *cpu, const uint32_t word[7], bool wide)
{
    struct fpu *fpu = &cpu->fpu;
    uint64_t ip, dp;
    uint32_t op;
    if (real_layout(cpu)) {
        ip = (word[3] & 0xffff) | (wide ? word[4] << 4 & 0xffff0000 : word[4] << 4 & 0xf0000);
        dp = (word[5] & 0xffff) | (wide ? word[6] << 4 & 0xffff0000 : word[6] << 4 & 0xf0000);
        op = word[4];
    } else {
        bool flat = vcpu_code64(cpu);
        ip = word[3] | (flat ? 0 : (uint64_t)(word[4] & 0xffff) << 32);
        dp = word[5] | (flat ? 0 : (uint64_t)(word[6] & 0xffff) << 32);
        op = wide ? word[4] >> 16 : FPU_FOP(fpu);
    }
    FPU_FIP(fpu) = ip;
    FPU_FDP(fpu) = dp;
    FPU_FOP(fpu) = op & 0x7ff;
}

static void environment_read(struct vcpu *cpu, const struct insn *i, const uint8_t *from)
{
    struct fpu *fpu = &cpu->fpu;
    bool wide = i->aux & LAYOUT_32;
    uint32_t word[7];
    for (unsigned n = 0; n < 7; n++) {
        uint16_t narrow;
        memcpy(&narrow, from + 2 * n, 2);
        if (wide)
            memcpy(&word[n], from + 4 * n, 4);
        else
            word[n] = narrow;
    }
    pointers_set(cpu, word, wide);
    x87_set_top(fpu, word[1] >> 11 & 7);
    FPU_FCW(fpu) = x87_control_word((uint16_t)word[0]);
    FPU_FSW(fpu) = (uint16_t)word[1];
    FPU_FTW(fpu) = 0;
    for (unsigned physical = 0; physical < 8; physical++)
        if ((word[2] >> 2 * physical & 3) != 3)
            FPU_FTW(fpu) |= (uint8_t)(1u << physical);
    x87_summarize(fpu);
}

OP(fnstenv)
{
    check(cpu, i);
    uint8_t bytes[28];
    unsigned size = environment_size(i);
    environment_write(cpu, i, bytes);
    store_bytes(cpu, i, linear(cpu, i, size, true), bytes, size);
    FPU_FCW(&cpu->fpu) |= FSW_EXCEPTIONS;
    x87_summarize(&cpu->fpu);
    NEXT_SLOW;
}

OP(fldenv)
{
    x87_wait(cpu, i);
    uint8_t bytes[28];
    unsigned size = environment_size(i);
    load_bytes(cpu, i, linear(cpu, i, size, false), bytes, size);
    environment_read(cpu, i, bytes);
    NEXT_SLOW;
}

OP(fnsave)
{
    check(cpu, i);
    uint8_t bytes[28 + DATA_SIZE];
    unsigned size = environment_size(i);
    environment_write(cpu, i, bytes);
    for (unsigned n = 0; n < 8; n++)
        memcpy(bytes + size + 10 * n, FPU_ST(&cpu->fpu, n), 10);
    store_bytes(cpu, i, linear(cpu, i, size + DATA_SIZE, true), bytes, size + DATA_SIZE);
    x87_init(&cpu->fpu);
    NEXT_SLOW;
}

OP(frstor)
{
    x87_wait(cpu, i);
    uint8_t bytes[28 + DATA_SIZE];
    unsigned size = environment_size(i);
    load_bytes(cpu, i, linear(cpu, i, size + DATA_SIZE, false), bytes, size + DATA_SIZE);
    environment_read(cpu, i, bytes);
    for (unsigned n = 0; n < 8; n++)
        memcpy(FPU_ST(&cpu->fpu, n), bytes + size + 10 * n, 10);
    NEXT_SLOW;
}

/* ---- rows ---- */
insn_fn *select_x87_control(struct decoded *d, struct insn *out)
{
    static const struct {
        ZydisMnemonic mnemonic;
        insn_fn *run;
    } rows[] = {
        {ZYDIS_MNEMONIC_FNINIT, fninit},         {ZYDIS_MNEMONIC_FNCLEX, fnclex},
        {ZYDIS_MNEMONIC_FWAIT, fwait},           {ZYDIS_MNEMONIC_EMMS, emms},
        {ZYDIS_MNEMONIC_FNSTCW, fnstcw},         {ZYDIS_MNEMONIC_FLDCW, fldcw},
        {ZYDIS_MNEMONIC_FNSTENV, fnstenv},       {ZYDIS_MNEMONIC_FLDENV, fldenv},
        {ZYDIS_MNEMONIC_FNSAVE, fnsave},         {ZYDIS_MNEMONIC_FRSTOR, frstor},
        {ZYDIS_MNEMONIC_FENI8087_NOP, x87_nop},  {ZYDIS_MNEMONIC_FDISI8087_NOP, x87_nop},
        {ZYDIS_MNEMONIC_FSETPM287_NOP, x87_nop},
    };
    out->aux = d->zydis->operand_width == 16 ? 0 : LAYOUT_32;
    if (d->zydis->mnemonic == ZYDIS_MNEMONIC_FNSTSW)
        return d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? fnstsw : fnstsw_ax;
    for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++)
        if (rows[n].mnemonic == d->zydis->mnemonic)
            return rows[n].run;
    return NULL;
}
