/* SPDX-License-Identifier: MIT */
/* From a decoded FP or SIMD instruction to host code that executes it. */
#include "runtime/soft/host_stub.h"

#include <string.h>

/* ---- the instruction rewritten ---- */
/* XMM, YMM, MMX and general registers by number, for ModRM, VEX.vvvv and the masks. */
static unsigned register_number(ZydisRegister reg)
{
    return (unsigned)ZydisRegisterGetId(reg) & 15;
}

static const ZydisDecodedOperand *operand_at(const struct decoded *d, ZydisOperandEncoding encoding)
{
    for (unsigned n = 0; n < d->zydis->operand_count; n++)
        if (d->operands[n].encoding == encoding)
            return &d->operands[n];
    return NULL;
}

static bool is_general(ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);
    return class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64;
}

/* What a general register is for the stub: by how it is encoded. */
static bool plan_general(const ZydisDecodedOperand *o, struct stub_plan *plan)
{
    struct stub_general *g;
    uint8_t number = (uint8_t)register_number(o->reg.value);
    if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
        g = &plan->rm;
    else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
        g = &plan->reg;
    else if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT && number <= RDX)
        g = &plan->implicit[number];
    else
        return false;
    g->guest = number;
    g->used |= o->actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_MASK_WRITE);
    return true;
}

static bool plan_register(const ZydisDecodedOperand *o, struct stub_plan *plan)
{
    unsigned bit = 1u << register_number(o->reg.value);
    bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_YMM:
        plan->vector_wide |= (uint16_t)bit;
        /* fall through */
    case ZYDIS_REGCLASS_XMM:
        plan->sse = true;
        /* A legacy instruction may leave part of its destination as it was. */
        if (reads || plan->class != ASSIST_CLASS_AVX)
            plan->vector_load |= (uint16_t)bit;
        if (writes)
            plan->vector_store |= (uint16_t)bit;
        return true;
    case ZYDIS_REGCLASS_MMX:
        plan->class = ASSIST_CLASS_MMX;
        plan->mmx_load |= (uint8_t)bit;
        if (writes)
            plan->mmx_store |= (uint8_t)bit;
        return true;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return plan_general(o, plan);
    case ZYDIS_REGCLASS_FLAGS:
        plan->flags_out = writes;
        return true;
    default:
        return false;
    }
}

static bool plan_memory(const ZydisDecodedOperand *o, struct stub_plan *plan)
{
    if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || o->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
        plan->memory || !o->size || o->size % 8 || o->size > 256)
        return false;
    bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    if (writes == reads)
        return false;
    plan->memory = writes ? ASSIST_STORE : ASSIST_LOAD;
    plan->size = (uint8_t)(o->size / 8);
    return true;
}

static bool plan_operands(const struct decoded *d, struct stub_plan *plan)
{
    for (unsigned n = 0; n < d->zydis->operand_count; n++) {
        const ZydisDecodedOperand *o = &d->operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (!plan_memory(o, plan))
                return false;
        } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && plan->class != ASSIST_CLASS_X87) {
            if (!plan_register(o, plan))
                return false;
        }
    }
    return true;
}

/* ModRM with [RSI] for memory, RAX (rm) and RCX (reg) for general registers. *r and *b: bit 3 of the two fields. */
static uint8_t rewrite_modrm(const struct decoded *d, bool *r, bool *b)
{
    const ZydisDecodedOperand *reg = operand_at(d, ZYDIS_OPERAND_ENCODING_MODRM_REG);
    const ZydisDecodedOperand *rm = operand_at(d, ZYDIS_OPERAND_ENCODING_MODRM_RM);
    unsigned reg_number = d->zydis->raw.modrm.reg, rm_number = d->zydis->raw.modrm.rm;
    if (reg && reg->type == ZYDIS_OPERAND_TYPE_REGISTER)
        reg_number = is_general(reg->reg.value) ? RCX : register_number(reg->reg.value);
    if (rm && rm->type == ZYDIS_OPERAND_TYPE_REGISTER)
        rm_number = is_general(rm->reg.value) ? RAX : register_number(rm->reg.value);
    bool memory = d->zydis->raw.modrm.mod != 3;
    *r = reg_number & 8;
    *b = !memory && rm_number & 8;
    return (uint8_t)((memory ? 0 : 0xc0) | (reg_number & 7) << 3 | (memory ? RSI : rm_number & 7));
}

static uint8_t *rewrite_vex(const struct decoded *d, const struct stub_plan *plan, uint8_t *p,
                            bool r, bool b)
{
    const ZydisDecodedOperand *second = operand_at(d, ZYDIS_OPERAND_ENCODING_NDSNDD);
    unsigned vvvv = second ? register_number(second->reg.value) : 0;
    unsigned map = d->zydis->opcode_map == ZYDIS_OPCODE_MAP_0F     ? 1
                   : d->zydis->opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2
                                                                   : 3;
    /* Outside 64-bit mode VEX.W does not make a general register 64 bits wide. */
    bool general = plan->rm.used || plan->reg.used || plan->implicit[RAX].used;
    bool w = d->zydis->raw.vex.W && (d->code_bits == 64 || !general);
    *p++ = 0xc4;
    *p++ = (uint8_t)((r ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | map);
    *p++ = (uint8_t)(w << 7 | (~vvvv & 15) << 3 | d->zydis->raw.vex.L << 2 | d->zydis->raw.vex.pp);
    return p;
}

static uint8_t *rewrite_legacy(const struct decoded *d, uint8_t *p, bool r, bool b)
{
    for (unsigned n = 0; n < d->zydis->raw.prefix_count; n++)
        if (d->zydis->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            *p++ = d->zydis->raw.prefixes[n].value;
    bool w = d->code_bits == 64 && d->zydis->raw.rex.W;
    if (w || r || b)
        *p++ = (uint8_t)(0x40 | (w ? 8 : 0) | (r ? 4 : 0) | b);
    switch (d->zydis->opcode_map) {
    case ZYDIS_OPCODE_MAP_DEFAULT: /* x87 */
        return p;
    case ZYDIS_OPCODE_MAP_0F:
        *p++ = 0x0f;
        return p;
    case ZYDIS_OPCODE_MAP_0F38:
        *p++ = 0x0f;
        *p++ = 0x38;
        return p;
    case ZYDIS_OPCODE_MAP_0F3A:
        *p++ = 0x0f;
        *p++ = 0x3a;
        return p;
    default:
        return NULL;
    }
}

static bool rewrite(const struct decoded *d, struct stub_plan *plan)
{
    const ZydisDecodedInstruction *z = d->zydis;
    bool r, b;
    uint8_t modrm = rewrite_modrm(d, &r, &b);
    uint8_t *p = plan->bytes;
    p = plan->class == ASSIST_CLASS_AVX ? rewrite_vex(d, plan, p, r, b)
                                        : rewrite_legacy(d, p, r, b);
    if (!p)
        return false;
    *p++ = z->opcode;
    *p++ = modrm;
    unsigned end = z->raw.modrm.offset + 1u;
    if (z->raw.sib.offset)
        end = z->raw.sib.offset + 1u;
    if (z->raw.disp.size)
        end = z->raw.disp.offset + z->raw.disp.size / 8u;
    if (z->length - end > 1)
        return false;
    /* The register in an immediate (VBLENDVPS): bit 7 counts in 64-bit mode only. */
    if (z->length > end)
        *p++ = d->bytes[end] &
               (operand_at(d, ZYDIS_OPERAND_ENCODING_IS4) && d->code_bits != 64 ? 0x7f : 0xff);
    plan->length = (uint8_t)(p - plan->bytes);
    return true;
}

/* ---- the proof ---- */
static bool same_register(ZydisRegister was, ZydisRegister is, const ZydisDecodedOperand *o)
{
    if (!is_general(was) || o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
        return was == is;
    return ZydisRegisterGetClass(was) == ZydisRegisterGetClass(is) &&
           register_number(is) == (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? RAX : RCX);
}

static bool same_operand(const ZydisDecodedOperand *was, const ZydisDecodedOperand *is)
{
    if (was->type != is->type || was->actions != is->actions || was->size != is->size)
        return false;
    if (was->type == ZYDIS_OPERAND_TYPE_REGISTER)
        return same_register(was->reg.value, is->reg.value, is);
    if (was->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return was->imm.value.u == is->imm.value.u;
    return is->mem.base == ZYDIS_REGISTER_RSI && is->mem.index == ZYDIS_REGISTER_NONE &&
           is->mem.disp.value == 0 && is->mem.segment == ZYDIS_REGISTER_DS;
}

/* The rewritten bytes are the same instruction with the same operands but for where memory and general registers
 * are. This is what keeps bytes that the guest chose from being executed as anything else. */
static bool rewritten_right(const struct decoded *d, const struct stub_plan *plan)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction is;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_FAILED(
            ZydisDecoderDecodeFull(&decoder, plan->bytes, STUB_REWRITE - 1, &is, operands)) ||
        is.length != plan->length || is.mnemonic != d->zydis->mnemonic ||
        is.encoding != d->zydis->encoding || is.operand_count != d->zydis->operand_count)
        return false;
    if (plan->class == ASSIST_CLASS_X87) /* flags and stack registers are as they were */
        return is.opcode == d->zydis->opcode && is.raw.modrm.reg == d->zydis->raw.modrm.reg &&
               (plan->memory ? is.raw.modrm.mod == 0 && is.raw.modrm.rm == RSI
                             : is.raw.modrm.rm == d->zydis->raw.modrm.rm);
    for (unsigned n = 0; n < is.operand_count; n++)
        if (!(operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
              ZydisRegisterGetClass(operands[n].reg.value) == ZYDIS_REGCLASS_FLAGS) &&
            !same_operand(&d->operands[n], &operands[n]))
            return false;
    return true;
}

bool stub_plan(const struct decoded *d, unsigned how, struct stub_plan *plan)
{
    const ZydisDecodedInstruction *z = d->zydis;
    bool vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if ((!vex && z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) ||
        !(z->attributes & ZYDIS_ATTRIB_HAS_MODRM))
        return false;
    memset(plan, 0, sizeof *plan);
    bool x87 = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode >= 0xd8 && z->opcode <= 0xdf;
    plan->class = (uint8_t)(vex ? ASSIST_CLASS_AVX : x87 ? ASSIST_CLASS_X87 : ASSIST_CLASS_SSE);
    plan->how = (uint8_t)how;
    plan->flags_in = plan->flags_out = how & ASSIST_FLAGS;
    return plan_operands(d, plan) && rewrite(d, plan) && rewritten_right(d, plan);
}

/* ---- the stub: RDI = vCPU, RSI = memory operand, RDX = FXSAVE image (x87); clobbers what a call may ---- */
struct emitter {
    uint8_t *code;
    size_t size;
};

static void emit(struct emitter *e, const void *bytes, size_t count)
{
    memcpy(e->code + e->size, bytes, count);
    e->size += count;
}
#define EMIT(e, ...) emit(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void emit_offset(struct emitter *e, size_t offset)
{
    uint32_t value = (uint32_t)offset;
    emit(e, &value, sizeof value);
}

#define MODRM_VCPU(reg) ((uint8_t)(0x87 | ((reg)&7) << 3)) /* [RDI + disp32] */

static size_t xmm_offset(unsigned n)
{
    return offsetof(struct vcpu, fpu.legacy) + 160 + 16 * n;
}
static size_t ymm_high_offset(unsigned n)
{
    return offsetof(struct vcpu, fpu.ymm_high) + 16 * n;
}
static size_t mmx_offset(unsigned n)
{
    return offsetof(struct vcpu, fpu.legacy) + 32 + 16 * n;
}

enum { MOVUPS_LOAD = 0x10, MOVUPS_STORE = 0x11 };
static void emit_low(struct emitter *e, bool vex, unsigned n, uint8_t opcode)
{
    if (vex)
        EMIT(e, 0xc5, (uint8_t)(n < 8 ? 0xf8 : 0x78), opcode, MODRM_VCPU(n));
    else if (n < 8)
        EMIT(e, 0x0f, opcode, MODRM_VCPU(n));
    else
        EMIT(e, 0x44, 0x0f, opcode, MODRM_VCPU(n));
    emit_offset(e, xmm_offset(n));
}

static void emit_loads(struct emitter *e, const struct stub_plan *plan)
{
    bool vex = plan->class == ASSIST_CLASS_AVX;
    for (unsigned n = 0; n < 16; n++) {
        if (!(plan->vector_load >> n & 1))
            continue;
        emit_low(e, vex, n, MOVUPS_LOAD);
        if (!(plan->vector_wide >> n & 1))
            continue;
        /* vinsertf128 $1, ymm_high, ymmN, ymmN */
        EMIT(e, 0xc4, (uint8_t)(n < 8 ? 0xe3 : 0x63), (uint8_t)((~n & 15) << 3 | 5), 0x18,
             MODRM_VCPU(n));
        emit_offset(e, ymm_high_offset(n));
        EMIT(e, 1);
    }
    for (unsigned n = 0; n < 8; n++)
        if (plan->mmx_load >> n & 1) {
            EMIT(e, 0x0f, 0x6f, MODRM_VCPU(n)); /* movq */
            emit_offset(e, mmx_offset(n));
        }
}

static void emit_stores(struct emitter *e, const struct stub_plan *plan)
{
    bool vex = plan->class == ASSIST_CLASS_AVX;
    for (unsigned n = 0; n < 16; n++) {
        if (!(plan->vector_store >> n & 1))
            continue;
        emit_low(e, vex, n, MOVUPS_STORE);
        if (!vex)
            continue;
        /* vextractf128 $1, ymmN, ymm_high: zero after an instruction that writes the XMM register only */
        EMIT(e, 0xc4, (uint8_t)(n < 8 ? 0xe3 : 0x63), 0x7d, 0x19, MODRM_VCPU(n));
        emit_offset(e, ymm_high_offset(n));
        EMIT(e, 1);
    }
    for (unsigned n = 0; n < 8; n++)
        if (plan->mmx_store >> n & 1) {
            EMIT(e, 0x0f, 0x7f, MODRM_VCPU(n)); /* movq */
            emit_offset(e, mmx_offset(n));
            EMIT(e, 0x66, 0xc7, 0x87); /* movw $0xffff: sign and exponent */
            emit_offset(e, mmx_offset(n) + 8);
            EMIT(e, 0xff, 0xff);
        }
}

/* mov [RDI + disp8], REG or back; the guest's registers are the first thing in the vCPU. */
enum { MOV_STORE = 0x89, MOV_LOAD = 0x8b };
_Static_assert(offsetof(struct vcpu, r) + 8 * R15 < 128, "general registers within disp8");
static void emit_general(struct emitter *e, const struct stub_general *g, unsigned host,
                         uint8_t opcode)
{
    unsigned action =
        opcode == MOV_LOAD ? ZYDIS_OPERAND_ACTION_MASK_READ : ZYDIS_OPERAND_ACTION_MASK_WRITE;
    if (g->used & action)
        EMIT(e, 0x48, opcode, (uint8_t)(0x47 | host << 3),
             (uint8_t)(offsetof(struct vcpu, r) + 8 * g->guest));
}

static void emit_flags_in(struct emitter *e)
{
    EMIT(e, 0x0f, 0xb7, MODRM_VCPU(RAX)); /* movzwl status, %eax */
    emit_offset(e, offsetof(struct vcpu, status));
    EMIT(e, 0x04, 0x7f, 0x9e); /* add $0x7f, %al; sahf (FLAGS_IN) */
}

static void emit_flags_out(struct emitter *e)
{
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0);      /* lahf; seto %al (FLAGS_OUT) */
    EMIT(e, 0x66, 0x89, MODRM_VCPU(RAX)); /* mov %ax, status */
    emit_offset(e, offsetof(struct vcpu, status));
}

static void emit_mxcsr(struct emitter *e, unsigned extension)
{
    EMIT(e, 0x0f, 0xae, MODRM_VCPU(extension));
    emit_offset(e, offsetof(struct vcpu, fpu.legacy) + 24);
}

/* The x87 instruction between FXRSTOR64 and FXSAVE64. An exception that the guest has not masked only becomes
 * pending, as it would on the guest's own processor: no waiting instruction follows before FNINIT drops it. */
static void emit_x87(struct emitter *e, const struct stub_plan *plan)
{
    if (plan->flags_in)
        emit_flags_in(e);
    EMIT(e, 0x48, 0x0f, 0xae, 0x0a); /* fxrstor64 (%rdx) */
    emit(e, plan->bytes, plan->length);
    if (plan->flags_out)
        emit_flags_out(e);
    EMIT(e, 0x48, 0x0f, 0xae, 0x02);          /* fxsave64 (%rdx) */
    EMIT(e, 0x66, 0x81, 0x3a, 0x7f, 0x03);    /* cmpw $0x37f, (%rdx): FCW as C code has it? */
    EMIT(e, 0x75, 9, 0xf6, 0x42, 0x02, 0x80); /* jne 1f; testb $0x80, 2(%rdx): FSW.ES */
    EMIT(e, 0x75, 3, 0x0f, 0x77, 0xc3);       /* jne 1f; emms; ret */
    EMIT(e, 0xdb, 0xe3, 0xc3);                /* 1: fninit; ret */
}

size_t stub_emit(const struct stub_plan *plan, uint8_t code[STUB_MAX])
{
    struct emitter e = {.code = code};
    if (plan->class == ASSIST_CLASS_X87) {
        emit_x87(&e, plan);
        return e.size;
    }
    emit_loads(&e, plan);
    emit_general(&e, &plan->rm, RAX, MOV_LOAD);
    emit_general(&e, &plan->reg, RCX, MOV_LOAD);
    for (unsigned n = RAX; n <= RDX; n++)
        emit_general(&e, &plan->implicit[n], n, MOV_LOAD);
    if (plan->how & ASSIST_MXCSR)
        emit_mxcsr(&e, 2); /* ldmxcsr */
    emit(&e, plan->bytes, plan->length);
    emit_general(&e, &plan->rm, RAX, MOV_STORE);
    emit_general(&e, &plan->reg, RCX, MOV_STORE);
    for (unsigned n = RAX; n <= RDX; n++)
        emit_general(&e, &plan->implicit[n], n, MOV_STORE);
    if (plan->flags_out)
        emit_flags_out(&e);
    if (plan->how & ASSIST_MXCSR)
        emit_mxcsr(&e, 3); /* stmxcsr */
    emit_stores(&e, plan);
    if (plan->class == ASSIST_CLASS_AVX)
        EMIT(&e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    if (plan->class == ASSIST_CLASS_MMX)
        EMIT(&e, 0x0f, 0x77); /* emms */
    EMIT(&e, 0xc3);
    return e.size;
}
